# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows 4, 5 and 6: how many solicitations a second are answered, without loss, at most, and under a flood."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field

from npd6_xdp.core.errors import MachineError
from tests.bench.generators import Order, flood, paced
from tests.bench.ground import QUEUES, TARGETS, Ground
from tests.bench.plan import Run
from tests.bench.rates import Load, Rates, find_rates, look_at_answers, offer
from tests.bench.results import Curve, Figure, at_least, middle
from tests.bench.subjects import (
    HYBRID,
    HYBRID_GENERIC,
    KERNEL_OWN,
    KERNEL_PROXY,
    MONITOR,
    NDPPD,
    NPD6,
    PYTHON,
    Subject,
)

_OVERLOAD = 10  # times the lossless rate
_PATIENCE = 30.0  # seconds, for a machine on which others are busy


@dataclass(slots=True)
class _Found:
    """By subject, a value a repeat."""

    rates: defaultdict[str, list[Rates]] = field(default_factory=lambda: defaultdict(list))
    overloads: defaultdict[str, list[Load]] = field(default_factory=lambda: defaultdict(list))
    floods: defaultdict[int, list[Load]] = field(default_factory=lambda: defaultdict(list))
    shares: list[float] = field(default_factory=list)
    monitored: list[float] = field(default_factory=list)

    def lossless(self, subject: Subject) -> float:
        return middle([each.lossless for each in self.rates[subject.name]])

    def peaks(self, subject: Subject) -> list[float]:
        """The best rate of answers under any load, in each repeat."""
        climbed = [each.peak for each in self.rates[subject.name]]
        overloaded = [load.answered for load in self.overloads[subject.name]] or climbed
        return [max(both) for both in zip(climbed, overloaded, strict=True)]

    def peak(self, subject: Subject) -> float:
        return middle(self.peaks(subject))


def measure(run: Run) -> None:
    """Each subject has its turn, and then all of them again."""
    found = _Found()
    paced_too = bool(run.wanted & {5, 6})
    for _ in range(run.plan.repeats):
        if 4 in run.wanted:
            _flood(run, found)
            _watch_a_flood(run, found)
        for subject in (NDPPD, NPD6, PYTHON) if paced_too else (NDPPD, NPD6):
            _climb(run, subject, found, overload=6 in run.wanted)
    if 4 in run.wanted:
        _row_4(run, found)
    if paced_too:
        others = () if run.quick else (HYBRID, HYBRID_GENERIC, KERNEL_PROXY, KERNEL_OWN)
        for subject in others:
            _climb(run, subject, found, overload=False)
        _row_5(run, found, others)
        _row_6(run, found)
    _draw(run, found)


def _flood(run: Run, found: _Found) -> None:
    """Live frames at the hybrid, from one CPU and from all queues' CPUs."""
    with Ground(sample=1024) as ground, HYBRID.on(ground) as running, ExitStack() as stack:
        assert running.daemon is not None
        frame = HYBRID.questions[0]
        generators = [stack.enter_context(flood(ground.topology, frame, TARGETS)) for _ in range(QUEUES)]
        for number in (1, QUEUES):
            before = running.daemon.solicitations()
            load = offer(ground, generators[:number], None, run.plan.flood)
            after = running.daemon.solicitations()
            seen = sum(after.values()) - sum(before.values())
            answered = after.get("answered_xdp", 0) - before.get("answered_xdp", 0)
            found.floods[number].append(load)
            found.shares.append(answered / seen if seen else 0.0)
            run.say(f"flood, {number} generators: {load.sent:,.0f}/s sent, {load.answered:,.0f}/s answered")
        look_at_answers(run, ground, HYBRID)


def _watch_a_flood(run: Run, found: _Found) -> None:
    """Live frames at a monitor, which counts them and passes them on to a kernel that has no use for them."""
    with Ground() as ground, MONITOR.on(ground) as running:
        assert running.daemon is not None
        with flood(ground.topology, MONITOR.questions[0], TARGETS) as generator:
            counted, ends = 0, time.monotonic() + _PATIENCE
            while not counted and time.monotonic() < ends:  # frames are lost while the kernel's thread has no processor
                before = running.daemon.solicitations().get("monitored", 0)
                sent = generator.do(Order(None, run.plan.flood))
                after = running.daemon.solicitations()
                counted = after.get("monitored", 0) - before
            if not counted:
                raise MachineError(f"the monitor counted none of {sent.frames} solicitations: {after}")
    found.monitored.append(counted / sent.seconds)
    run.say(f"flood at a monitor: {sent.rate:,.0f}/s sent, {found.monitored[-1]:,.0f}/s counted")


def _climb(run: Run, subject: Subject, found: _Found, *, overload: bool) -> None:
    with Ground() as ground, subject.on(ground):
        with paced(ground.topology, subject.questions) as generator:
            rates = find_rates(run, ground, generator, found.lossless(subject))
            if overload and not _takes_live_frames(subject):
                load = offer(ground, [generator], rates.lossless * _OVERLOAD, run.plan.flood)
        if _takes_live_frames(subject) and (rates.limited or overload):
            with flood(ground.topology, subject.questions[0], TARGETS) as generator:
                if rates.limited:
                    rates.beyond(find_rates(run, ground, generator, rates.lossless * run.plan.ladder))
                if overload:
                    load = offer(ground, [generator], rates.lossless * _OVERLOAD, run.plan.flood)
        found.rates[subject.name].append(rates)
        run.say(f"{subject.name}: {rates.lossless:,.0f}/s lossless, {rates.peak:,.0f}/s at most")
        if overload:
            found.overloads[subject.name].append(load)
            run.say(f"{subject.name}: {load.answered:,.0f}/s answered of {load.sent:,.0f}/s")
        look_at_answers(run, ground, subject)


def _takes_live_frames(subject: Subject) -> bool:
    """Veth delivers them only to an interface with a native program."""
    return subject.ours and subject is not HYBRID_GENERIC


def _row_4(run: Run, found: _Found) -> None:
    figures = run.results.figures
    answered = {number: middle([load.answered for load in loads]) for number, loads in found.floods.items()}
    best = max(answered.values())
    raw = {f"{number} generators, NA/s": [load.answered for load in loads] for number, loads in found.floods.items()}
    for subject, limit in ((NDPPD, 20), (NPD6, 12)):
        peaks = {f"{subject.name}, NA/s": found.peaks(subject)}
        figures.append(
            Figure(
                4,
                f"hybrid under a live-frame flood over {subject.name}'s peak",
                best / found.peak(subject),
                "times",
                at_least(limit),
                raw | peaks,
                f"{best:,.0f} over {found.peak(subject):,.0f} NA/s",
            )
        )
    share = 100 * min(found.shares)
    note = ", ".join(f"{rate:,.0f} NA/s by {number} generator(s)" for number, rate in answered.items())
    figures.append(
        Figure(4, "of what reached the program, answered", share, "%", at_least(100), {"share": found.shares}, note)
    )
    raw = {"NS/s": found.monitored}
    figures.append(Figure(4, "monitor: counted under a flood from one CPU", middle(found.monitored), "NS/s", raw=raw))


def _row_5(run: Run, found: _Found, others: tuple[Subject, ...]) -> None:
    ours = found.lossless(PYTHON)
    for subject, limit in ((NDPPD, 5), (NPD6, 3)):
        theirs = found.lossless(subject)
        raw = {each.name: [rates.lossless for rates in found.rates[each.name]] for each in (PYTHON, subject)}
        note = f"{ours:,.0f} over {theirs:,.0f} NS/s"
        if any(rates.limited for rates in found.rates[PYTHON.name]):
            note += "; at times, all that could be sent"
        figure = Figure(5, f"python, lossless, over {subject.name}", ours / theirs, "times", at_least(limit), raw, note)
        run.results.figures.append(figure)
    for subject in (PYTHON, NDPPD, NPD6, *others):
        each = found.rates[subject.name]
        limited = " (all that could be sent)" if all(rates.limited for rates in each) else ""
        run.results.figures.append(
            Figure(
                5,
                f"{subject.name}: lossless",
                found.lossless(subject),
                "NS/s",
                raw={"lossless": [rates.lossless for rates in each], "peak": found.peaks(subject)},
                note=f"at most {found.peak(subject):,.0f} NA/s{limited}",
            )
        )


def _row_6(run: Run, found: _Found) -> None:
    for subject in (PYTHON, NPD6, NDPPD):
        loads = found.overloads[subject.name]
        if not loads:
            continue
        answered = middle([load.answered for load in loads])
        sent = middle([load.sent for load in loads])
        run.results.figures.append(
            Figure(
                6,
                f"{subject.name}: overload over its own peak",
                answered / found.peak(subject),
                "times",
                at_least(0.9) if subject is PYTHON else None,
                {"answered/s": [load.answered for load in loads], "sent/s": [load.sent for load in loads]},
                f"{answered:,.0f} of {sent:,.0f} NS/s, wanted {loads[0].wanted:,.0f}; peak {found.peak(subject):,.0f}",
            )
        )


def _draw(run: Run, found: _Found) -> None:
    """What was offered against what was answered, of the first repeat, the one that climbs all rungs."""
    for name, each in found.rates.items():
        loads = sorted(each[0].loads, key=lambda load: load.sent)
        points = [load.sent for load in loads], [load.answered for load in loads]
        run.results.curves.append(Curve("answers against solicitations", name, *points))
