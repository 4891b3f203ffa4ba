# SPDX-License-Identifier: GPL-2.0-or-later
"""What configurations of the size of an ISP's edge take: the figures behind docs/capacity.md."""

from __future__ import annotations

import time
from dataclasses import dataclass
from ipaddress import IPv6Address

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.bench.plan import Run
from tests.bench.profile.page import Section
from tests.bench.profile.statistics import open_files
from tests.bench.program import Repeats, Vary, cost_of_answers, vlans
from tests.bench.table import number
from tests.netns.wire import configuration, private_megabytes

_VLANS = 4_000
_RULES = 100_000
_BASE = int(IPv6Address("2001:db8:1::"))
_PATIENCE = 60.0
_CALM = 1.0  # seconds after the start
_REPEATS = Repeats(15, 100_000)
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class _Taken:
    """MiB of the daemon's own, and of the kernel's maps; seconds from the exec until it is ready."""

    private: float
    maps: float
    start: float


def sections(run: Run) -> list[Section]:
    found = {
        "one rule": _start(configuration("2001:db8:1::/64 static")),
        f"{_VLANS:,} VLANs of a port, a rule each": _start(_with_vlans()),
        f"{_RULES:,} rules of one entry": _start(configuration(*(f"{_prefix(i)} static" for i in range(_RULES)))),
    }
    rows: list[tuple[str, ...]] = []
    raw: dict[str, float] = {}
    for name, taken in found.items():
        rows.append((name, f"{taken.private:.1f} MiB", f"{taken.maps:.1f} MiB", f"{taken.start:.2f} s"))
        raw |= {
            f"{name}: private, MiB": taken.private,
            f"{name}: maps, MiB": taken.maps,
            f"{name}: start, s": taken.start,
        }
        run.say(f"growth: {name}: {taken.private:.1f} MiB, maps {taken.maps:.1f} MiB, ready after {taken.start:.2f} s")
    base, tags, rules = found.values()
    cost = cost_of_answers(vlans(_VLANS), Vary.VLAN, _VLANS, _REPEATS).median
    raw[f"an answer, {_VLANS} VLANs, ns"] = cost
    notes = [
        _each("a VLAN with its rule", tags, base, _VLANS),
        _each("a rule", rules, base, _RULES),
        f"an answer with {_VLANS:,} VLANs that take turns at random: {cost:.0f} ns over the bare program",
    ]
    return [Section("Size", ("configuration", "daemon, private", "kernel's maps", "ready after"), rows, notes, raw)]


def _each(name: str, taken: _Taken, base: _Taken, count: int) -> str:
    private, maps = ((a - b) * 1024 / count for a, b in ((taken.private, base.private), (taken.maps, base.maps)))
    return f"{name}: {number(private)} KiB of the daemon's, {number(maps)} KiB of maps"


def _start(config: str) -> _Taken:
    with Topology() as topology:
        began = time.monotonic()
        with RunningDaemon(topology, config, timeout=_PATIENCE) as daemon:
            start = time.monotonic() - began
            time.sleep(_CALM)
            return _Taken(private_megabytes(daemon), _map_bytes(daemon.process.pid) / _MIB, start)


def _with_vlans() -> str:
    entries = [
        f'[[interface]]\nname = "wan0"\nvlan = {number}\nattach = "native"\n\n'
        f'[[interface.rule]]\nprefix = "{_prefix(number)}"\nmethod = "static"\n'
        for number in range(1, _VLANS + 1)
    ]
    return "\n".join(entries)


def _prefix(i: int) -> str:
    return f"{IPv6Address(_BASE + (i << 64))}/64"


def _map_bytes(pid: int) -> int:
    """What the kernel says that a process's maps take, the per-CPU ones for all CPUs."""
    maps = {words["map_id"]: int(words["memlock"]) for words in open_files(pid) if "map_type" in words}
    return sum(maps.values())
