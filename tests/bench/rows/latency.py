# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows 7 and 8: how long one solicitation at a time waits for its answer."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.bench.asker import LOST, Asker, pinned
from tests.bench.ground import Ground
from tests.bench.plan import Run
from tests.bench.rates import look_at_answers
from tests.bench.results import Bound, Figure, at_most, middle, percentile
from tests.bench.subjects import HYBRID, HYBRID_GENERIC, KERNEL_OWN, KERNEL_PROXY, NDPPD, NPD6, PYTHON, Subject

_CPU = 0
_WARM_UP = 50


@dataclass(slots=True)
class _Times:
    """Microseconds by subject: each round's median and p99."""

    medians: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    p99s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    lost: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def median(self, subject: Subject) -> float:
        return middle(self.medians[subject.name])

    def p99(self, subject: Subject) -> float:
        return middle(self.p99s[subject.name])


def measure(run: Run) -> None:
    """As the kernel schedules, then everything on one CPU; the subjects take turns within each round."""
    if 7 in run.wanted:
        _row_7(run, _rounds(run, (HYBRID, KERNEL_OWN), on_one_cpu=False), "as scheduled")
    on_one = _rounds(run, (HYBRID, KERNEL_OWN, PYTHON, NDPPD, NPD6, HYBRID_GENERIC, KERNEL_PROXY), on_one_cpu=True)
    if 7 in run.wanted:
        _row_7(run, on_one, "pinned to one CPU")
    if 8 in run.wanted:
        _row_8(run, on_one)


def _rounds(run: Run, subjects: tuple[Subject, ...], *, on_one_cpu: bool) -> _Times:
    """All subjects run at the same time, each in its own namespaces; all but the one whose turn it is are idle."""
    plan, times = run.plan, _Times()
    with ExitStack() as stack:
        grounds = [(subject, stack.enter_context(Ground(sample=8))) for subject in subjects]
        askers = []
        for subject, ground in grounds:
            running = stack.enter_context(subject.on(ground))
            asker = stack.enter_context(Asker(ground, spin=not on_one_cpu))
            askers.append((subject, asker, [running.process.pid] if running.process else []))
        for _ in range(plan.latency_rounds):
            for subject, asker, pids in askers:
                with pinned(_CPU, *pids) if on_one_cpu else ExitStack():
                    asker.ask(subject.questions, _WARM_UP)
                    taken = asker.ask(subject.questions, plan.latency_samples)
                times.medians[subject.name].append(middle(taken))
                times.p99s[subject.name].append(percentile(taken, 0.99))
                times.lost[subject.name] += taken.count(LOST)
        for subject, ground in grounds:
            look_at_answers(run, ground, subject)
    where = "on one CPU" if on_one_cpu else "as scheduled"
    for subject in subjects:
        run.say(f"latency {where}: {subject.name}: {times.median(subject):.1f} us, p99 {times.p99(subject):.1f}")
    return times


def _row_7(run: Run, times: _Times, how: str) -> None:
    for what, limit in (("median", 0.5), ("p99", 0.6)):
        _ratio(run, 7, times, f"one at a time, {how}, {what}", what, HYBRID, KERNEL_OWN, at_most(limit))


def _row_8(run: Run, times: _Times) -> None:
    _ratio(run, 8, times, "on one CPU, median", "median", HYBRID, NDPPD, at_most(0.3))
    _ratio(run, 8, times, "on one CPU, median", "median", PYTHON, NDPPD, at_most(1.5))
    _ratio(run, 8, times, "on one CPU, p99", "p99", PYTHON, NDPPD, at_most(2.0))
    for name, medians in times.medians.items():
        p99s, lost = times.p99s[name], times.lost[name]
        note = f"p99 {middle(p99s):.1f} us" + (f", {lost} lost" if lost else "")
        raw = {"median": medians, "p99": p99s}
        run.results.figures.append(Figure(8, f"{name}: on one CPU, median", middle(medians), "us", raw=raw, note=note))


def _ratio(
    run: Run, row: int, times: _Times, name: str, what: str, ours: Subject, theirs: Subject, bound: Bound
) -> None:
    source = times.medians if what == "median" else times.p99s
    one, other = middle(source[ours.name]), middle(source[theirs.name])
    # the rounds are interleaved, so each one's ratio is of neighbours in time
    ratio = middle([a / b for a, b in zip(source[ours.name], source[theirs.name], strict=True)])
    raw = {each.name: source[each.name] for each in (ours, theirs)}
    label = f"{ours.name.removeprefix('npd6-xdp ')} over {theirs.name}: {name}"
    run.results.figures.append(Figure(row, label, ratio, "times", bound, raw, f"{one:.1f} over {other:.1f} us"))
