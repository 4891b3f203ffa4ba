# SPDX-License-Identifier: GPL-2.0-or-later
"""All kinds of docs/rules.md, G, sent over the wire to the real daemon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.core.verdict import Reason
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Namespace, Topology
from tests.frames import TAGS_8021Q, TAGS_QINQ
from tests.judge import judge_advertisement
from tests.kinds import KINDS, Wanted, oversized, solicit
from tests.netns.others import at_tc
from tests.netns.wire import EDGE, SETTING, Wire, configuration, until

TAGS = {"wan0": b"", "wan0:100": TAGS_8021Q, "wan0:100.7": TAGS_QINQ}
OTHER_VLAN = bytes.fromhex("810000c8")
PASSED = {Wanted.DAD: "dad", Wanted.IGNORED: "ignored"}


@pytest.mark.parametrize("attach", ["generic", "native", "tc"])
@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_every_kind_on_the_wire_is_answered_or_not_as_the_rfc_says(
    topology: Topology, daemon: Callable[..., RunningDaemon], datapath: str, attach: str
) -> None:
    if attach == "native":
        topology.xdp_pass("upstream", "eth0")
    # The upstream is a wire only: its kernel would say that it doesn't know ::2, and ask whom to say it to.
    topology.sysctl("upstream", "net/ipv6/conf/eth0/disable_ipv6", 1)
    keys = {"datapath": f'"{datapath}"', "attach": f'"{attach}"'}
    text = "\n".join(configuration(vlan=f'"{vlan}"', **keys) for vlan in ("untagged", "100", "100.7"))
    running = daemon(text)
    assert topology.xdp_mode("edge", "wan0") == (attach if attach != "tc" else None)
    assert at_tc(topology) == (["ns_filter_tc"] if attach == "tc" else [])

    asked: dict[bytes, bytes] = {}
    frames: list[bytes] = []
    counted: Counter[tuple[str, str]] = Counter()
    reasons: Counter[tuple[str, str]] = Counter()
    for label, tags in TAGS.items():
        for kind in KINDS:
            target = SETTING.target[:8] + (len(frames) + 0x1000).to_bytes(8, "big")
            frame = kind.build(replace(SETTING, target=target, tags=tags))
            frames.append(frame)
            if isinstance(kind.wanted, Reason):
                counted[label, "invalid"] += 1
                reasons[label, kind.wanted.value] += 1
            elif kind.wanted is Wanted.ANSWERED:
                asked[target] = frame
                plain = frame[14 + len(tags) + 6] == 58
                counted[label, "answered_xdp" if plain and datapath == "hybrid" else "answered_python"] += 1
            elif kind.wanted is not Wanted.UNSEEN:
                counted[label, PASSED[kind.wanted]] += 1
    frames.append(solicit(replace(SETTING, tags=OTHER_VLAN)))
    counted["wan0", "unmatched"] += 1

    with Wire(topology) as wire:
        wire.send(solicit(replace(SETTING, tags=OTHER_VLAN)))  # tags stand in the frames here, it is to see
        assert until(lambda: is_plainly_answered(running, wire, datapath))
        before = counts_of(running)
        wire.send(*frames)
        answers = wire.advertisements(20.0, enough=len(asked)) + wire.advertisements(0.3)
    assert sorted(NeighborAdvertisement.parse(answer).target for answer in answers) == sorted(asked)
    for answer in answers:
        judge_advertisement(answer, asked[NeighborAdvertisement.parse(answer).target], EDGE, router=True)

    def is_all_counted() -> bool:
        return sum((counts_of(running)[0] - before[0]).values()) >= sum(counted.values())

    assert until(is_all_counted), counts_of(running)[0] - before[0]
    outcomes, invalid = (after - earlier for after, earlier in zip(counts_of(running), before, strict=True))
    # in generic mode, of what looks untagged on a trunk one in about a second is looked at by a tap, and then Python's
    sampled = outcomes["wan0", "answered_python"] - counted["wan0", "answered_python"]
    assert 0 <= sampled <= (3 if (datapath, attach) == ("hybrid", "generic") else 0)
    outcomes["wan0", "answered_python"] -= sampled
    outcomes["wan0", "answered_xdp"] += sampled
    assert [+outcomes, invalid] == [counted, reasons]


def is_plainly_answered(running: RunningDaemon, wire: Wire, datapath: str) -> bool:
    """Whether an untagged question is answered as the datapath says; at first its port might hide tags."""
    outcome = "answered_xdp" if datapath == "hybrid" else "answered_python"
    counted = running.solicitations("wan0").get(outcome, 0)
    assert wire.ask(solicit(SETTING)) is not None
    return running.solicitations("wan0").get(outcome, 0) > counted


def counts_of(running: RunningDaemon) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Outcomes, and reasons of the invalid, by interface."""
    found: dict[tuple[str, str], Counter[tuple[str, str]]] = {
        ("npd6_solicitations_total", "outcome"): Counter(),
        ("npd6_invalid_solicitations_total", "reason"): Counter(),
    }
    running.settle()
    for (name, labels), value in running.metrics().items():
        words = dict(labels)
        for (metric, label), counts in found.items():
            # The upstream's kernel may ask for the edge's own addresses meanwhile.
            if name == metric and value and words[label] != "own":
                counts[words["interface"], words[label]] = int(value)
    outcomes, reasons = found.values()
    return outcomes, reasons


def test_a_solicitation_longer_than_4096_bytes_is_left_to_the_kernel(
    topology: Topology, daemon: Callable[..., RunningDaemon]
) -> None:
    ends: tuple[tuple[Namespace, str], ...] = (("upstream", "eth0"), ("edge", "wan0"))
    for namespace, interface in ends:
        topology.run(namespace, "ip", "link", "set", interface, "mtu", "9000", check=True)
    running = daemon(configuration())
    with Wire(topology) as wire:
        assert wire.ask(oversized(SETTING), 0.3) is None
    assert until(lambda: running.solicitations().get("unmatched") == 1)
