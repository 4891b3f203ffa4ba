# SPDX-License-Identifier: GPL-2.0-or-later
"""How much a subject can take: a ladder of offered rates, then the highest one that it answers without loss.

RFC 8161 and RFC 2544 have the idea: offer a rate for a while, count, and halve the step between what was answered
and what was not. Lossless is 99.9 % here, and a rate that nearly was gets a second try, since the machine
pauses now and then.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.bench.correct import wrong
from tests.bench.generators import Generator, Order
from tests.bench.ground import Ground
from tests.bench.plan import Run
from tests.bench.subjects import Subject

LOSSLESS = 0.999
_NEARLY = 0.9
_FIRST = 10_000.0
_LEAST = 500.0
_MORE = 1.1
"""Where a rung of the ladder makes the sender send less than so many times what it sent before, it is at its end."""


@dataclass(frozen=True, slots=True)
class Load:
    """One window, in frames a second: `answered` is what came back within it, `share` what came in the end."""

    wanted: float
    sent: float
    answered: float
    share: float

    @property
    def is_lossless(self) -> bool:
        return self.share >= LOSSLESS


@dataclass(slots=True)
class Rates:
    """What one subject's turn has shown; rates in frames a second. `limited`: it took all that could be sent."""

    loads: list[Load] = field(default_factory=list)
    lossless: float = 0.0
    limited: bool = False

    @property
    def peak(self) -> float:
        """The best rate of answers at any offered rate."""
        return max((load.answered for load in self.loads), default=0.0)

    def beyond(self, others: Rates) -> None:
        """Add what a generator has shown that can send more."""
        self.loads += others.loads
        if others.lossless > self.lossless:
            self.lossless, self.limited = others.lossless, others.limited


def find_rates(run: Run, ground: Ground, generator: Generator, expected: float = 0.0) -> Rates:
    """Climb, halve, and overload. `expected` is what is known of the lossless rate: it saves the lower rungs."""
    plan, rates = run.plan, Rates()
    short = plan.window / 4
    rate = expected / plan.ladder or _FIRST
    good, bad = 0.0, 0.0
    while not bad and not rates.limited:
        load = _offer(ground, generator, rate, short, rates)
        if load.is_lossless:
            rates.limited = load.sent < good * _MORE
            good = max(good, load.sent)
            rate *= plan.ladder
        elif good or rate < _LEAST:
            bad = rate
        else:
            rate /= plan.ladder**2
    for _ in range(plan.bisections if bad else 0):
        middle = (good + bad) / 2
        load = _offer(ground, generator, middle, plan.window, rates)
        if load.is_lossless:
            good = max(good, load.sent)
        else:
            bad = middle
    rates.lossless = good
    for factor in (1.5, 2.0, 3.0):
        _offer(ground, generator, (bad or good) * factor, short, rates)
    _offer(ground, generator, None, short, rates)
    return rates


def _offer(ground: Ground, generator: Generator, rate: float | None, seconds: float, rates: Rates) -> Load:
    load = offer(ground, [generator], rate, seconds)
    rates.loads.append(load)
    if _NEARLY <= load.share < LOSSLESS:
        again = offer(ground, [generator], rate, seconds)
        rates.loads.append(again)
        load = max(load, again, key=lambda each: each.share)
    return load


def offer(ground: Ground, generators: Iterable[Generator], rate: float | None, seconds: float) -> Load:
    """Offer a rate (None: all there is) and count until no more answers come. Generators share the rate."""
    generators = list(generators)
    before = ground.counter.counts().answers
    for generator in generators:
        generator.start(Order(rate / len(generators) if rate else None, seconds))
    sent = [generator.finish() for generator in generators]
    within = ground.counter.counts().answers - before
    answered = settled(ground) - before
    took = max(each.seconds for each in sent)
    frames = sum(each.frames for each in sent)
    return Load(rate or frames / took, frames / took, within / took, answered / frames if frames else 0.0)


def settled(ground: Ground) -> int:
    """The count of answers once it stands still."""
    count, deadline = -1, time.monotonic() + 2.0
    while (now := ground.counter.counts().answers) != count and time.monotonic() < deadline:
        count = now
        time.sleep(0.1)
    return now


def look_at_answers(run: Run, ground: Ground, subject: Subject, others: Sequence[bytes] = ()) -> None:
    """Add the sample that the counter has kept to what was looked at; `others` were asked besides its questions."""
    frames = ground.counter.samples()
    faults = wrong(frames, (*subject.questions, *others), ours=subject.ours)
    run.results.sampled(subject.name, len(frames), len(faults))
    for fault in faults[:3]:
        run.say(f"{subject.name}: a wrong answer: {fault}")
