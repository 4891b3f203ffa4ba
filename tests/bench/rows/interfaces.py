# SPDX-License-Identifier: GPL-2.0-or-later
"""Row 13: very many interfaces, or VLANs of one: start, stop, memory of each, and the processor's time without work."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.bench import many_ports
from tests.bench.plan import Run
from tests.bench.results import Bound, Curve, Figure, at_most, middle
from tests.kinds import solicit
from tests.netns.wire import SETTING, Wire, configuration, cpu_seconds, private_megabytes

_PATIENCE = 120.0
_STARTS = 3  # of a daemon with one port, which a start with many is told beyond
_BOUNDS: dict[str, tuple[str, Bound]] = {
    "start, beyond one with one port": ("s", at_most(10)),
    "stop": ("s", at_most(2)),
    "memory of each": ("MiB", at_most(0.05)),
    "CPU when idle": ("%", at_most(0.5)),
}


@dataclass(slots=True)
class _Taken:
    """What so many took: seconds, MiB of private memory, and the share of a CPU while nothing happened (%)."""

    start: float
    memory: float
    idle: float = 0.0
    stop: float = field(default=0.0)


def measure(run: Run) -> None:
    """Interfaces come by and by on one ground, with a daemon for each number of them; then VLANs on another."""
    found: dict[int, _Taken] = {}
    with Topology() as topology:
        topology.sysctl("edge", "net/ipv6/conf/default/addr_gen_mode", 1)  # no addresses: nothing of the kernel's own
        one = _alone(topology)
        made = 0
        for number in run.plan.interfaces:
            many_ports.make(topology, number, made)
            many_ports.settle(topology)
            made = number
            with closing(many_ports.Asker(topology, number)) as asker:
                last = number == run.plan.interfaces[-1]
                idle = run.plan.idle if last else 0.0
                text = many_ports.CONFIGURATION.format(datapath="hybrid")
                found[number] = _taken(run, topology, text, idle, lambda: asker.answered() == number)  # noqa: B023
            run.say(f"{number:,} interfaces: {found[number]}")
    fewest, most = run.plan.interfaces[0], run.plan.interfaces[-1]
    _figures(run, f"{most:,} interfaces", most - fewest, one, found[fewest].memory, found[most])
    points = [float(number) for number in found], [taken.memory for taken in found.values()]
    run.results.curves.append(Curve("memory against interfaces", "private memory", *points))
    _vlans(run)


def _vlans(run: Run) -> None:
    count = run.plan.vlan_entries
    with Topology() as topology, Wire(topology) as wire:
        topology.xdp_pass("upstream", "eth0")  # or what XDP sends back is lost
        frame = solicit(replace(SETTING, tags=b"\x81\0" + count.to_bytes(2)))
        one = _alone(topology)
        alone = _taken(run, topology, configuration("2001:db8:1::/64 static", vlan="1"), 0.0, lambda: True)
        taken = _taken(run, topology, _entries(count), run.plan.idle, lambda: wire.ask(frame) is not None)
    run.say(f"{count:,} VLANs: {taken}")
    _figures(run, f"{count:,} VLANs of one interface", count - 1, one, alone.memory, taken)


def _entries(count: int) -> str:
    """An entry for each VLAN, with the same rule."""
    return "\n".join(configuration("2001:db8:1::/64 static", vlan=f"{number}") for number in range(1, count + 1))


def _alone(topology: Topology) -> float:
    """Seconds of a start with one port."""
    return middle([many_ports.compiling(topology) for _ in range(_STARTS)])


def _taken(run: Run, topology: Topology, text: str, idle: float, answers: Callable[[], bool]) -> _Taken:
    """One daemon, which has to answer on all that it has."""
    began = time.monotonic()
    with RunningDaemon(topology, text, timeout=_PATIENCE) as daemon:
        taken = _Taken(time.monotonic() - began, 0.0)
        if not answers():
            raise RuntimeError("not all of the interfaces answer")
        time.sleep(run.plan.calm)
        if idle:
            time.sleep(run.plan.settled)
            before, since = cpu_seconds(daemon), time.monotonic()
            time.sleep(idle)
            taken.idle = 100 * (cpu_seconds(daemon) - before) / (time.monotonic() - since)
        taken.memory = private_megabytes(daemon)
        taken.stop = many_ports.stopped(daemon)
    return taken


def _figures(run: Run, what: str, more: int, one: float, few: float, taken: _Taken) -> None:
    values = (taken.start - one, taken.stop, (taken.memory - few) / more, taken.idle)
    notes = (f"{taken.start:.2f} s, {one:.2f} with one", "", f"{few:.1f} and {taken.memory:.1f} MiB", "")
    for (name, (unit, bound)), value, note in zip(_BOUNDS.items(), values, notes, strict=True):
        run.results.figures.append(Figure(13, f"{what}: {name}", value, unit, bound, note=note))
