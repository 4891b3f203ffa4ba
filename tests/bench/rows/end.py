# SPDX-License-Identifier: GPL-2.0-or-later
"""Row 18: how long an end with very many prefixes loaded holds a processor: the kernel frees what the maps had."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv6Address

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.bench.plan import Run
from tests.bench.results import Figure, at_most
from tests.bench.stalls import Stalls
from tests.netns.wire import configuration

_PATIENCE = 1200.0  # seconds for a start
_AFTER = 5.0  # seconds in which the kernel frees what is left
_BASE = int(IPv6Address("2001:db9::"))
_LENGTHS = {"one length, so a hash": (64,), "six lengths, so a trie": (59, 60, 61, 62, 63, 64)}


def measure(run: Run) -> None:
    """A daemon for each kind of map that prefixes may be in; without one, the same time is watched before."""
    with Stalls() as stalls, Topology() as topology:
        for name, lengths in _LENGTHS.items():
            text = configuration(*(f"{prefix} static" for prefix in _prefixes(run.plan.end_prefixes, lengths)))
            with RunningDaemon(topology, text, timeout=_PATIENCE) as daemon:
                stalls.begin()
                time.sleep(_AFTER if not run.quick else 0.2)
                before = stalls.longest()
                stalls.begin()
                began = time.monotonic()
                daemon.stop(_PATIENCE)
                took = time.monotonic() - began
                time.sleep(_AFTER if not run.quick else 0.2)
                during = stalls.longest()
            worst = 1000 * max(during)
            raw = {"each CPU, s": during, "before, each CPU, s": before, "the stop, s": [took]}
            note = f"{1000 * max(before):.1f} ms before; the stop took {took:.2f} s"
            label = f"an end with {run.plan.end_prefixes:,} prefixes of {name}: worst stall of a CPU"
            run.results.figures.append(Figure(18, label, worst, "ms", at_most(100), raw, note))
            run.say(f"row 18: {label}: {worst:.1f} ms ({note})")


def _prefixes(count: int, lengths: tuple[int, ...]) -> Iterator[str]:
    """So many, none of which lies in another, of these lengths in turn."""
    for number in range(count):
        length = lengths[number % len(lengths)]
        yield f"{IPv6Address(_BASE + (number << 128 - min(lengths)))}/{length}"
