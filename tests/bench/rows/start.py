# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows 10 and 11: how soon the first answer comes after exec, and how much memory the daemon takes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.system.bpf.compiler import BPF_DIRECTORY
from tests.bench.generators import Order, paced
from tests.bench.ground import TARGETS, Ground, questions
from tests.bench.plan import Run
from tests.bench.rates import look_at_answers
from tests.bench.results import Figure, at_most, middle
from tests.bench.subjects import HYBRID
from tests.netns.wire import configuration

_ONE_LINE = """
import os, socket, sys, time
from bcc import BPF
module = BPF(text="int pass(struct xdp_md *ctx) { return XDP_PASS; }")
module.attach_xdp("wan0", module.load_func("pass", BPF.XDP), 1 << 2)
print(time.monotonic_ns())
module.remove_xdp("wan0", 1 << 2)
"""
"""What no start can do without: compiled, loaded and attached natively by the same Python, as bcc's users do it."""
_EVERY = 200.0  # NS/s: one each 5 ms
_LONGEST = 600.0  # seconds
_KINDS = {"private": ("Private_",), "private, written to,": ("Private_Dirty:",), "resident": ("Rss:",)}
_BOUNDS = {"private": at_most(45), "resident": at_most(130)}


@contextmanager
def started(
    ground: Ground, config: str, timeout: float = 180.0, cache: str = os.devnull
) -> Iterator[tuple[RunningDaemon, float]]:
    """The daemon, with the seconds from the exec (of `ip netns exec`, which execs it) to the first answer.

    A solicitation has been sent each 5 ms from before that on. `cache` is the directory in which an earlier start has
    kept the compiled program; there is none, unless it is named.
    """
    daemon = RunningDaemon(ground.topology, config, timeout=timeout, environment={"CACHE_DIRECTORY": cache})
    ground.counter.arrivals[:TARGETS] = memoryview(bytes(8 * TARGETS)).cast("Q")  # of a start before on this ground
    ground.counter.set(timed=True)
    with paced(ground.topology, questions(TARGETS)) as generator:
        generator.start(Order(_EVERY, _LONGEST))
        began = time.monotonic_ns()
        with daemon:
            deadline = time.monotonic() + 30.0
            while not (came := [moment for moment in ground.counter.arrivals[:TARGETS] if moment]):
                if time.monotonic() > deadline:
                    raise RuntimeError("the daemon says that it is ready, and doesn't answer")
                time.sleep(0.01)
            generator.close()
            ground.counter.set()
            yield daemon, (min(came) - began) / 1e9


def one_line(ground: Ground) -> float:
    """Seconds from the exec (of `ip netns exec`, too) until bcc has attached a program of one line to the edge."""
    environment = {**os.environ, "BCC_KERNEL_SOURCE": str(BPF_DIRECTORY)}  # its headers stand in for the kernel's
    began = time.monotonic_ns()
    done = ground.topology.run("edge", sys.executable, "-c", _ONE_LINE, env=environment, check=True)
    return (int(done.stdout.splitlines()[-1]) - began) / 1e9


def measure(run: Run) -> None:
    """Both of one start; the configuration is the smallest, so metrics and control are on."""
    config = configuration(attach='"native"')
    firsts: list[float] = []
    kept: list[float] = []
    lines: list[float] = []
    memory: dict[str, dict[str, list[float]]] = {}
    for repeat in range(run.plan.repeats * run.plan.starts):
        with Ground() as ground, TemporaryDirectory(prefix="npd6-kept-") as cache:
            lines.append(one_line(ground))
            with started(ground, config, cache=cache) as (_, first):  # it compiles, and keeps what it has made
                firsts.append(first)
            with started(ground, config, cache=cache) as (daemon, again):
                kept.append(again)
                if 11 in run.wanted and repeat % run.plan.starts == 0:
                    for when in ("after start", "later"):
                        time.sleep(run.plan.settle if when == "later" else 0)
                        for what, kinds in _KINDS.items():
                            values = memory.setdefault(what, {}).setdefault(when, [])
                            values.append(_megabytes(daemon, *kinds))
                look_at_answers(run, ground, HYBRID)
    run.say(
        f"first answer after {middle(firsts):.2f} s, {middle(kept):.2f} with a program that was kept, bcc's program of"
        f" one line after {middle(lines):.2f}"
    )
    figures = run.results.figures
    if 10 in run.wanted:
        # what an earlier start has kept is what a service has at each start but the first after an upgrade
        for how, times, bound in (("compiled", firsts, None), ("kept by an earlier start", kept, at_most(1.5))):
            note = f"{middle(times):.2f} s ({min(times):.2f} to {max(times):.2f}) over {middle(lines):.2f}"
            pairs, raw = list(zip(times, lines, strict=True)), {"to the first NA, s": times, "one line, s": lines}
            name = f"from exec to the first NA, {how}, over bcc's program of one line"
            run.results.ratio(10, name, pairs, bound, note, raw)
    if 11 in run.wanted:
        for what, found in memory.items():
            medians = {when: middle(values) for when, values in found.items()}
            note = f"{medians['after start']:.1f} after start, {medians['later']:.1f} {run.plan.settle:g} s later"
            figures.append(Figure(11, f"{what} memory", max(medians.values()), "MiB", _BOUNDS.get(what), found, note))
            run.say(f"{what} memory: {note}")


def _megabytes(running: RunningDaemon, *kinds: str) -> float:
    """The daemon's memory of some kinds, by the names that smaps_rollup has for them."""
    lines = Path(f"/proc/{running.process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(kinds)) / 1024
