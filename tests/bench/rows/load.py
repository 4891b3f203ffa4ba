# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows 4, 5 and 6: how many solicitations a second are answered, without loss, at most, and under a flood."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from npd6_xdp.core.errors import MachineError
from tests.bench import former
from tests.bench.former import COMMIT, unpacked
from tests.bench.generators import Generator, Order, flood, paced
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
    pairs: defaultdict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Answers a second under overload, and in the window at the peak that it had beside it."""
    won: list[tuple[float, float]] = field(default_factory=list)
    """Answers a second from one generator: of the program, and of the former one in the window beside."""
    shares: list[float] = field(default_factory=list)
    monitored: list[float] = field(default_factory=list)

    def lossless(self, subject: Subject) -> float:
        return middle([each.lossless for each in self.rates[subject.name]])

    def peaks(self, subject: Subject) -> list[float]:
        """The best rate of answers under any load, in each repeat."""
        climbed = [each.peak for each in self.rates[subject.name]]
        pairs = self.pairs[subject.name]
        each = len(pairs) // len(climbed)  # a repeat's, of which there are none where row 6 isn't wanted
        return [
            max([peak, *(rate for pair in pairs[number * each : (number + 1) * each] for rate in pair)])
            for number, peak in enumerate(climbed)
        ]

    def peak(self, subject: Subject) -> float:
        return middle(self.peaks(subject))

    def best_floods(self) -> list[float]:
        """The better of one generator and one for each queue, in each repeat."""
        return [max(load.answered for load in loads) for loads in zip(*self.floods.values(), strict=True)]


def measure(run: Run) -> None:
    """Each subject has its turn, and then all of them again."""
    found = _Found()
    paced_too = bool(run.wanted & {5, 6})
    with unpacked() as tree:
        if 4 in run.wanted and tree is None:
            run.results.notes.append(f"commit {COMMIT[:7]} is not in this clone: row 4 has no figure over its program")
        for _ in range(run.plan.repeats):
            if 4 in run.wanted:
                _flood(run, found)
                if tree is not None:
                    _flood_both(run, found, former.subject(tree))
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


def _flood_both(run: Run, found: _Found, before: Subject) -> None:
    """One generator at the hybrid and one at the program that it was, each on its ground, in turns."""
    with ExitStack() as stack:
        sides = []
        for subject in (HYBRID, before):
            ground = stack.enter_context(Ground(sample=1024))
            stack.enter_context(subject.on(ground))
            sides.append((ground, stack.enter_context(flood(ground.topology, subject.questions[0], TARGETS))))
        for number in range(run.plan.pairs):
            rates = [0.0, 0.0]
            for place in (0, 1) if number % 2 else (1, 0):
                ground, generator = sides[place]
                rates[place] = _answered(run, partial(offer, ground, [generator], None, run.plan.flood / 2))
            found.won.append((rates[0], rates[1]))
        for subject, (ground, _) in zip((HYBRID, before), sides, strict=True):
            look_at_answers(run, ground, subject)
    now, then = found.won[-1]
    run.say(f"flood, one generator: {now:,.0f}/s answered, {then:,.0f}/s by {before.name}")


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
            ends = time.monotonic() + _PATIENCE
            while run.quick and not rates.lossless and time.monotonic() < ends:
                # its windows are so short that a busy machine may give who answers no processor in any of them
                rates = find_rates(run, ground, generator, found.lossless(subject))
            if overload and not _takes_live_frames(subject):
                _overload(run, ground, generator, generator, rates, subject, found)
            elif _takes_live_frames(subject) and (rates.limited or overload):
                with flood(ground.topology, subject.questions[0], TARGETS) as live:
                    before = rates.peak
                    if rates.limited:
                        rates.beyond(find_rates(run, ground, live, rates.lossless * run.plan.ladder))
                    if overload:
                        at_peak = live if rates.peak > before else generator
                        _overload(run, ground, at_peak, live, rates, subject, found)
        found.rates[subject.name].append(rates)
        run.say(f"{subject.name}: {rates.lossless:,.0f}/s lossless, {rates.peak:,.0f}/s at most")
        look_at_answers(run, ground, subject)


def _overload(
    run: Run, ground: Ground, at_peak: Generator, over: Generator, rates: Rates, subject: Subject, found: _Found
) -> None:
    """Windows in pairs: at the rate at which most was answered, and at ten times the lossless one. `at_peak` is the
    generator by which the peak was reached.
    """
    best = max(rates.loads, key=lambda load: load.answered)
    load = Load(0.0, 0.0, 0.0, 0.0)
    for number in range(run.plan.pairs if subject is PYTHON else 1):
        pair = [0.0, 0.0]
        for place in (0, 1) if number % 2 else (1, 0):
            if place:
                pair[1] = _answered(run, partial(offer, ground, [at_peak], best.wanted, run.plan.flood / 2))
            else:
                load = offer(ground, [over], rates.lossless * _OVERLOAD, run.plan.flood / 2)
                pair[0] = load.answered
        found.pairs[subject.name].append((pair[0], pair[1]))
        found.overloads[subject.name].append(load)
    run.say(f"{subject.name}: {load.answered:,.0f}/s answered of {load.sent:,.0f}/s, {pair[1]:,.0f}/s at the peak")


def _answered(run: Run, window: Callable[[], Load]) -> float:
    """Answers a second; of a quick run's short windows, in one in which there were some, as on a busy machine who
    answers may have no processor for as long.
    """
    ends = time.monotonic() + _PATIENCE
    while not (answered := window().answered) and run.quick and time.monotonic() < ends:
        pass
    return answered


def _takes_live_frames(subject: Subject) -> bool:
    """Veth delivers them only to an interface with a native program."""
    return subject.ours and subject is not HYBRID_GENERIC


def _row_4(run: Run, found: _Found) -> None:
    answered = {number: [load.answered for load in loads] for number, loads in found.floods.items()}
    best = found.best_floods()
    for subject, limit in ((NDPPD, 60), (NPD6, 35)):
        peaks = found.peaks(subject)
        note = f"{middle(best):,.0f} over {middle(peaks):,.0f} NA/s"
        raw = {f"{number} generators, NA/s": rates for number, rates in answered.items()}
        name = f"hybrid under a live-frame flood over {subject.name}'s peak"
        pairs = list(zip(best, peaks, strict=True))
        run.results.ratio(4, name, pairs, at_least(limit), note, raw | {f"{subject.name}, NA/s": peaks})
    if found.won:
        now, then = ([*rates] for rates in zip(*found.won, strict=True))
        note = f"{middle(now):,.0f} over {middle(then):,.0f} NA/s"
        raw = {"now, NA/s": now, "then, NA/s": then}
        name = f"hybrid, one generator, over the program of commit {COMMIT[:7]}"
        run.results.ratio(4, name, found.won, at_least(1.35), note, raw)
    share = 100 * min(found.shares)
    note = ", ".join(f"{middle(rates):,.0f} NA/s by {number} generator(s)" for number, rates in answered.items())
    run.results.figures += [
        Figure(4, "of what reached the program, answered", share, "%", at_least(100), {"share": found.shares}, note),
        Figure(
            4,
            "monitor: counted under a flood from one CPU",
            middle(found.monitored),
            "NS/s",
            raw={"NS/s": found.monitored},
        ),
    ]


def _row_5(run: Run, found: _Found, others: tuple[Subject, ...]) -> None:
    lossless = {name: [rates.lossless for rates in each] for name, each in found.rates.items()}
    for subject, limit in ((NDPPD, 7.0), (NPD6, 4.5)):
        raw = {each.name: lossless[each.name] for each in (PYTHON, subject)}
        note = f"{found.lossless(PYTHON):,.0f} over {found.lossless(subject):,.0f} NS/s"
        if any(rates.limited for rates in found.rates[PYTHON.name]):
            note += "; at times, all that could be sent"
        pairs = list(zip(*raw.values(), strict=True))
        run.results.ratio(5, f"python, lossless, over {subject.name}", pairs, at_least(limit), note, raw)
    for subject in (PYTHON, NDPPD, NPD6, *others):
        each = found.rates[subject.name]
        limited = " (all that could be sent)" if all(rates.limited for rates in each) else ""
        raw = {"lossless": lossless[subject.name], "peak": [rates.peak for rates in each]}
        note = f"at most {middle(raw['peak']):,.0f} NA/s{limited}"
        name = f"{subject.name}: lossless"
        run.results.figures.append(Figure(5, name, found.lossless(subject), "NS/s", raw=raw, note=note))


def _row_6(run: Run, found: _Found) -> None:
    for subject in (PYTHON, NPD6, NDPPD):
        pairs, loads = found.pairs[subject.name], found.overloads[subject.name]
        if not pairs:
            continue
        overloaded, at_peak = ([*rates] for rates in zip(*pairs, strict=True))
        sent = [load.sent for load in loads]
        run.results.ratio(
            6,
            f"{subject.name}: overload over its peak in the window beside",
            pairs,
            at_least(0.95) if subject is PYTHON else None,
            f"{middle(overloaded):,.0f} of {middle(sent):,.0f} NS/s, over {middle(at_peak):,.0f} at the peak",
            {"answered/s": overloaded, "sent/s": sent, "at the peak, answered/s": at_peak},
        )


def _draw(run: Run, found: _Found) -> None:
    """What was offered against what was answered, of the first repeat, the one that climbs all rungs."""
    for name, each in found.rates.items():
        loads = sorted(each[0].loads, key=lambda load: load.sent)
        points = [load.sent for load in loads], [load.answered for load in loads]
        run.results.curves.append(Curve("answers against solicitations", name, *points))
