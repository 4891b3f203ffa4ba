# SPDX-License-Identifier: GPL-2.0-or-later
"""20,500 random frames on the wire: the same answers, byte for byte, and the same counts in both datapaths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.frames import OTHER_MAC
from tests.netns.wire import EDGE, SETTING, Wire, configuration, until
from tests.random_frames import random_frames

LONGEST = 1514
CHUNK = 250
ASKERS = 6 * (SETTING.asker_mac, OTHER_MAC) + (EDGE,)


def test_both_datapaths_give_random_frames_the_same_answers_and_the_same_counts(
    topology: Topology, daemon: Callable[..., RunningDaemon]
) -> None:
    # The upstream is a wire only: its kernel would ask for what it sees come by.
    topology.sysctl("upstream", "net/ipv6/conf/eth0/disable_ipv6", 1)
    frames = [frame for frame in random_frames(20, 20_500, mac=EDGE, asker_macs=ASKERS) if 14 <= len(frame) <= LONGEST]
    assert len(frames) > 19_000
    rules = ("2001:db8:1::/64 static", "2001:db8:1::ff00/120 ignore", "2001:db8:2::42 static")
    answers, outcomes, reasons = {}, {}, {}
    for datapath in ("hybrid", "python"):
        running = daemon(configuration(*rules, vlan='"any"', datapath=f'"{datapath}"', dad='"defend"'))
        collected: Counter[bytes] = Counter()
        with Wire(topology) as wire:
            for start in range(0, len(frames), CHUNK):
                wire.send(*frames[start : start + CHUNK])
                collected.update(filter(ours, wire.advertisements(0.02)))
            before: list[Any] = [None]

            def settled() -> bool:
                """Whether what is counted stays, and all answers are here."""
                collected.update(filter(ours, wire.advertisements(0.3)))  # noqa: B023
                before.append(counted(running))  # noqa: B023
                return before[-2] == before[-1] and answered(before[-1][0]) == collected.total()  # noqa: B023

            assert until(settled)
        counts, invalid = counted(running)
        for outcome in ("answered_xdp", "answered_python"):
            counts.pop(outcome, None)
        answers[datapath], outcomes[datapath], reasons[datapath] = collected, counts, invalid
        assert running.stop() == 0
    assert outcomes["hybrid"] == outcomes["python"]
    assert reasons["hybrid"] == reasons["python"]
    assert len(reasons["hybrid"]) == 10, "every reason occurs"
    assert answers["hybrid"] == answers["python"]
    assert answers["hybrid"].total() > 4000


def answered(outcomes: Counter[str]) -> int:
    return outcomes["answered_xdp"] + outcomes["answered_python"]


def ours(frame: bytes) -> bool:
    """The kernel sets Override where it answers for its own addresses; we never do (RFC 4861 §7.2.8)."""
    return not NeighborAdvertisement.parse(frame).override


def counted(running: RunningDaemon) -> tuple[Counter[str], dict[str, int]]:
    """Outcomes, and reasons of the invalid."""
    outcomes: Counter[str] = Counter()
    reasons = {}
    for (name, labels), value in running.metrics().items():
        words = dict(labels)
        if name == "npd6_solicitations_total" and value:
            outcomes[words["outcome"]] += int(value)
        if name == "npd6_invalid_solicitations_total" and value:
            reasons[words["reason"]] = int(value)
    return outcomes, reasons
