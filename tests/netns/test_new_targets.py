# SPDX-License-Identifier: GPL-2.0-or-later
"""The upstream's cache under a scan: it gains the budget of new targets, and whoever was answered before still is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.frames import ip6
from tests.netns.test_limits import refused_by
from tests.netns.test_reload import reload
from tests.netns.wire import LATE, Wire, configuration, flood, question, scan, until

Start = Callable[..., RunningDaemon]

BUDGET = 100
SCANNED = 1_000_000


def batches(addresses: Sequence[str], size: int = 50) -> Iterable[Sequence[str]]:
    for first in range(0, len(addresses), size):
        yield addresses[first : first + size]


def answered(wire: Wire, addresses: Sequence[str]) -> int:
    """How many of them are, when each is asked for once."""
    found = 0
    for some in batches(addresses):
        wire.send(*map(question, some))
        wanted = set(map(ip6, some))
        until_then = time.monotonic() + LATE
        while wanted and (left := until_then - time.monotonic()) > 0:
            wanted -= {NeighborAdvertisement.parse(answer).target for answer in wire.advertisements(left, enough=1)}
        found += len(some) - len(wanted)
    return found


@pytest.mark.sliced
@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_a_scan_gains_no_more_than_the_budget_and_a_thousand_that_were_answered_before_always_are(
    topology: Topology, daemon: Start, datapath: str, full: bool
) -> None:
    """E4 of docs/rules.md. The memory outlives the reload that sets the budget, and a program that takes over.

    At full size, all of a million targets are scanned.
    """
    known = [f"2001:db8:1::1:{number:x}" for number in range(1_000)]
    keys = {"datapath": f'"{datapath}"', "events_per_source": "0"}
    running = daemon(configuration("2001:db8:1::/64 static", **keys, new_targets_per_second="1000000"))
    with Wire(topology) as wire:
        wire.only_advertisements()
        assert answered(wire, known) == len(known)
        text = configuration("2001:db8:1::/64 static", **keys, new_targets_per_second=str(BUDGET))
        rules = "".join(
            f'[[interface.rule]]\nprefix = "2001:db8:ff:{n:x}::/64"\nmethod = "ignore"\n' for n in range(8_000)
        )
        reload(running, text)
        began, before = time.monotonic(), sum(running.solicitations().values())
        with flood(topology, scan(SCANNED), 20_000 if full else 5_000) as flooding:
            assert until(lambda: "new_target" in refused_by_now(running))
            assert answered(wire, known) == len(known)
            reload(running, text + rules)  # which is too much for the maps that there are
            assert answered(wire, known) == len(known)
            assert not full or until(lambda: flooding.sent == SCANNED, seconds=60.0)
            assert answered(wire, known) == len(known)
    asked = 3 * len(known)
    assert until(lambda: sum(running.solicitations().values()) == before + flooding.sent + asked)
    seconds, counts = time.monotonic() - began, running.solicitations()
    gained = counts.get("answered_xdp", 0) + counts.get("answered_python", 0) - before - asked
    print(f"{flooding.sent} scanned in {seconds:.2f} s: {gained} answered")
    assert flooding.sent > 10 * gained > 0, "the generator is at fault"
    # a second's worth at once; as much again while another program is made ready, which is told what was spent
    # before; and CPUs that meet may each let one too many through
    assert gained <= BUDGET * (seconds + 2) + 10
    assert refused_by(running) == {"new_target": flooding.sent - gained}


def refused_by_now(running: RunningDaemon) -> set[str]:
    """The limits that were in anybody's way so far, while more is counted."""
    return {
        dict(labels)["reason"]
        for (name, labels), count in running.metrics().items()
        if name == "npd6_rate_limited_total" and count
    }
