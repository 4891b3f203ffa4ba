# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows 10 and 11: how soon the first answer comes after exec, and how much memory the daemon takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from npd6_xdp.lab.daemon import RunningDaemon
from tests.bench.generators import Order, paced
from tests.bench.ground import TARGETS, Ground, questions
from tests.bench.plan import Run
from tests.bench.rates import look_at_answers
from tests.bench.results import Figure, at_most, middle
from tests.bench.subjects import HYBRID
from tests.netns.wire import configuration

_EVERY = 200.0  # NS/s: one each 5 ms
_LONGEST = 600.0  # seconds
_KINDS = {"private": ("Private_",), "private, written to,": ("Private_Dirty:",), "resident": ("Rss:",)}
_BOUNDS = {"private": at_most(45), "resident": at_most(130)}


@contextmanager
def started(ground: Ground, config: str, timeout: float = 20.0) -> Iterator[tuple[RunningDaemon, float]]:
    """The daemon, with the seconds from the exec (of `ip netns exec`, which execs it) to the first answer.

    A solicitation has been sent each 5 ms from before that on.
    """
    daemon = RunningDaemon(ground.topology, config, timeout=timeout)
    ground.counter.set(timed=True)
    with paced(ground.topology, questions(TARGETS)) as generator:
        generator.start(Order(_EVERY, _LONGEST))
        began = time.monotonic_ns()
        with daemon:
            deadline = time.monotonic() + 5.0
            while not (came := [moment for moment in ground.counter.arrivals[:TARGETS] if moment]):
                if time.monotonic() > deadline:
                    raise RuntimeError("the daemon says that it is ready, and doesn't answer")
                time.sleep(0.01)
            generator.close()
            ground.counter.set()
            yield daemon, (min(came) - began) / 1e9


def measure(run: Run) -> None:
    """Both of one start; the configuration is the smallest, so metrics and control are on."""
    config = configuration(attach='"native"')
    firsts: list[float] = []
    memory: dict[str, dict[str, list[float]]] = {}
    for repeat in range(run.plan.repeats * run.plan.starts):
        with Ground() as ground, started(ground, config) as (daemon, first):
            firsts.append(first)
            if 11 in run.wanted and repeat % run.plan.starts == 0:
                for when in ("after start", "later"):
                    time.sleep(run.plan.settle if when == "later" else 0)
                    for what, kinds in _KINDS.items():
                        values = memory.setdefault(what, {}).setdefault(when, [])
                        values.append(_megabytes(daemon, *kinds))
            look_at_answers(run, ground, HYBRID)
    run.say(f"first answer after {middle(firsts):.2f} s")
    figures = run.results.figures
    if 10 in run.wanted:
        note = f"{len(firsts)} starts, {min(firsts):.2f} to {max(firsts):.2f} s"
        figures.append(Figure(10, "from exec to the first NA", middle(firsts), "s", at_most(1.3), {"s": firsts}, note))
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
