# SPDX-License-Identifier: GPL-2.0-or-later
"""Duplicate Address Detection under `defend`, frame by frame; test_targets.py lets a kernel do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_ADDRESS, Topology
from tests.frames import TAGS_8021Q, TAGS_QINQ, ip6
from tests.judge import judge_advertisement
from tests.kinds import KINDS, Wanted, nonce, solicit
from tests.netns.wire import EDGE, SETTING, Wire, configuration, until

Start = Callable[..., RunningDaemon]
PROBES = [kind for kind in KINDS if kind.wanted is Wanted.DAD]


@pytest.mark.parametrize("attach", ["generic", "native"])
@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_a_defended_target_is_answered_to_all_nodes_by_python_in_both_datapaths(
    topology: Topology, daemon: Start, datapath: str, attach: str
) -> None:
    if attach == "native":
        topology.xdp_pass("upstream", "eth0")
    keys = {"dad": '"defend"', "datapath": f'"{datapath}"', "attach": f'"{attach}"'}
    running = daemon("".join(configuration(vlan=f'"{vlan}"', **keys) for vlan in ("untagged", "100", "100.7")))
    with Wire(topology) as wire:
        for tags in (b"", TAGS_8021Q, TAGS_QINQ):
            for probe in PROBES:
                asked = probe.build(replace(SETTING, tags=tags))
                answer = wire.ask(asked)
                assert answer is not None, (probe.name, tags.hex())
                judge_advertisement(answer, asked, EDGE, router=True)
    for label in ("wan0", "wan0:100", "wan0:100.7"):
        assert running.solicitations(label)["answered_python"] == len(PROBES)


def test_defend_answers_no_probe_for_what_is_not_ours_or_from_ourselves(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:1::/64 static", "2001:db8:1::dead ignore", dad='"defend"'))
    probe: dict[str, Any] = {"source": bytes(16), "options": nonce()}
    with Wire(topology) as wire:
        wire.send(
            solicit(replace(SETTING, target=ip6("2001:db8:1::dead")), **probe),
            solicit(replace(SETTING, target=ip6("2001:db8:2::1")), **probe),
            solicit(SETTING, eth_source=EDGE, **probe),
        )
        assert wire.advertisements(0.3) == []
        counted: dict[str, int] = {}

        def has_all_three() -> bool:
            counted.update(running.solicitations())
            return (counted.get("ignored"), counted.get("unmatched")) == (2, 1)

        assert until(has_all_three), counted
        assert not counted.keys() & {"dad", "answered_python", "answered_xdp"}
        own = solicit(replace(SETTING, target=ip6(EDGE_WAN_ADDRESS)), **probe)
        assert until(lambda: wire.ask(own, 1.0) is not None), "the kernel defends its own address"
        assert not running.solicitations().keys() & {"dad", "answered_python", "answered_xdp"}
