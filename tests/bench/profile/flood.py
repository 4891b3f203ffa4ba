# SPDX-License-Identifier: GPL-2.0-or-later
"""The hybrid under a flood of live frames (row 4): how much of a pair of NS and NA is the program."""

from __future__ import annotations

import os
import time
from collections.abc import Container
from pathlib import Path

from npd6_xdp.system.bpf.testrun import TestRun
from tests.bench.generators import Order, flood
from tests.bench.ground import TARGETS, Ground
from tests.bench.plan import Run
from tests.bench.profile.page import Section, shares
from tests.bench.profile.statistics import Runs, counted, programs
from tests.bench.profile.symbols import MISSING, Recording
from tests.bench.program import bare_program
from tests.bench.results import middle
from tests.bench.subjects import HYBRID

_SECONDS = 2.0
_LEAD = 0.3
_ROUNDS = 3
_FUNCTIONS = 10
_NAMES = {
    "ns_filter": "ns_filter, which answers",
    "generator": "the generator's program",
    "counter": "the counter's program",
}
_REST = "veth, live frames, softirq"


def sections(run: Run) -> list[Section]:
    own = _cost_of_counting()
    rates, cpu, found = [], [], dict[str, Runs]()
    with Ground() as ground, HYBRID.on(ground) as running, flood(ground.topology, HYBRID.questions[0], TARGETS) as far:
        assert running.daemon is not None
        pids = {"ns_filter": running.daemon.process.pid, "counter": os.getpid(), "generator": far.pid}
        for _ in range(_ROUNDS):
            before, began, answers = _spent(far.pid), time.monotonic(), ground.counter.counts().answers
            far.do(Order(None, _SECONDS))
            answers = ground.counter.counts().answers - answers
            rates.append(answers / (time.monotonic() - began))
            cpu.append((_spent(far.pid) - before) / answers)
        with counted():
            old = {name: programs(pid) for name, pid in pids.items()}
            far.do(Order(None, _SECONDS))
            for name, pid in pids.items():
                found[name] = _most(old[name], programs(pid), old["counter"] if name == "generator" else ())
        recording = Recording(ground.topology.directory / "perf.data", far.pid)
        recording.start(_SECONDS)
        far.do(Order(None, _SECONDS + _LEAD))
        symbols = recording.finish()
    rate = middle(rates)
    whole = middle(cpu)
    parts = {_NAMES[name]: max(runs.each - own, 0.0) for name, runs in found.items()}
    parts[_REST] = whole - sum(parts.values())
    run.say(f"flood: {rate:,.0f}/s, {whole:.0f} ns a pair: " + ", ".join(f"{k} {v:.0f}" for k, v in parts.items()))
    raw = {f"{name}, ns": value for name, value in parts.items()}
    raw |= {
        "NA/s": rate,
        "processor time of a pair, ns": whole,
        "counting, ns": own,
    }
    notes = [
        f"{rate:,.0f} NA/s by one generator, with the processor that it got, of which a pair takes {whole:.0f} ns:"
        " the scheduler's count for its process, which carries the softirqs of both ends",
        f"the programs' times are by BPF statistics, less the {own:.0f} ns that they show for an empty one",
    ]
    result = [
        Section(
            "Hybrid under a flood of live frames",
            ("a pair of NS and NA", "takes", "of all"),
            shares(parts, whole, "ns"),
            notes,
            raw,
        )
    ]
    if symbols is None:
        notes.append(MISSING)
    else:
        rows = symbols.top(_FUNCTIONS, whole)
        head = ("function, in the generator's process, which carries softirqs", "of its time", "a pair")
        result.append(Section("The kernel's functions in that flood, by perf", head, rows))
    return result


def _spent(pid: int) -> int:
    """Nanoseconds that a process has run for, so that it is no matter who else wants its processor."""
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in Path(f"/proc/{pid}/task").iterdir())


def _cost_of_counting() -> float:
    """Nanoseconds that the statistics say an empty program takes: reading the clock, mostly."""
    with bare_program() as fd, counted():
        before = programs(os.getpid())
        TestRun().run(fd, bytes(86), 500_000)
        return _most(before, programs(os.getpid())).each


def _most(before: dict[int, Runs], after: dict[int, Runs], others: Container[int] = ()) -> Runs:
    """Of the program that ran most often meanwhile."""
    grown = [runs - before.get(number, Runs(0, 0)) for number, runs in after.items() if number not in others]
    return max(grown, key=lambda runs: runs.count)
