# SPDX-License-Identifier: GPL-2.0-or-later
"""Row 13: very many interfaces: what each takes of memory, and all of them of the processor while nothing happens."""

from __future__ import annotations

import time
from itertools import pairwise

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.bench.plan import Run
from tests.bench.results import Curve, Figure, at_most, middle
from tests.netns.wire import configuration, cpu_seconds, private_megabytes

_CONFIG = configuration("2001:db8:1::/64 static").replace('"wan0"', '"sub*"')
_PATIENCE = 120.0


def measure(run: Run) -> None:
    """Each number on a ground of its own."""
    plan = run.plan
    memory: dict[int, list[float]] = {number: [] for number in plan.interfaces}
    shares: dict[int, list[float]] = {number: [] for number in plan.interfaces}
    for _ in range(plan.repeats):
        for number in plan.interfaces:
            with Topology() as topology:
                _add_interfaces(topology, number)
                with RunningDaemon(topology, _CONFIG, timeout=_PATIENCE) as daemon:
                    time.sleep(plan.calm)
                    attached = daemon.log.count(": attached ")
                    if attached != number:
                        raise RuntimeError(f"attached to {attached} interfaces of {number}")
                    before, began = cpu_seconds(daemon), time.monotonic()
                    time.sleep(plan.idle)
                    shares[number].append(100 * (cpu_seconds(daemon) - before) / (time.monotonic() - began))
                    memory[number].append(private_megabytes(daemon))
            run.say(f"{number} interfaces: {memory[number][-1]:.1f} MiB, {shares[number][-1]:.2f} % CPU when idle")
    medians = {number: middle(values) for number, values in memory.items()}
    for fewer, more in pairwise(plan.interfaces):
        each = (medians[more] - medians[fewer]) / (more - fewer)
        raw = {f"{number} interfaces, MiB": memory[number] for number in (fewer, more)}
        note = f"{medians[fewer]:.1f} and {medians[more]:.1f} MiB"
        name = f"memory of each interface, from {fewer} to {more}"
        run.results.figures.append(Figure(13, name, each, "MiB", at_most(0.3), raw, note))
    most = plan.interfaces[-1]
    raw = {f"{number} interfaces, %": values for number, values in shares.items()}
    name = f"CPU when idle, {most} interfaces"
    run.results.figures.append(Figure(13, name, middle(shares[most]), "%", at_most(0), raw))
    points = [float(number) for number in medians], list(medians.values())
    run.results.curves.append(Curve("memory against interfaces", "private memory", *points))


def _add_interfaces(topology: Topology, number: int) -> None:
    topology.sysctl("edge", "net/ipv6/conf/default/addr_gen_mode", 1)  # no addresses: nothing of the kernel's own
    lines = []
    for i in range(number):
        lines.append(f"link add sub{i} type veth peer name far{i}")
        lines += [f"link set {name}{i} up" for name in ("sub", "far")]
    batch = topology.directory / "interfaces"
    batch.write_text("\n".join(lines) + "\n")
    topology.run("edge", "ip", "-batch", str(batch), check=True, timeout=_PATIENCE)
