# SPDX-License-Identifier: GPL-2.0-or-later
"""One station's questions while another scans (row 9): which steps take longer, by tracing system calls."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

from tests.bench.asker import LOST, Asker
from tests.bench.generators import Order, paced
from tests.bench.ground import TARGETS, Ground, questions
from tests.bench.plan import Run
from tests.bench.profile.latency import STEPS, moments_of
from tests.bench.profile.page import Section
from tests.bench.results import middle, percentile
from tests.bench.rows.scan import LEAD, OTHER, RATE, SCAN, SUBJECT

_SAMPLES = 2000
_SLOWEST = 0.01  # of them, whose steps are looked at


def sections(run: Run) -> list[Section]:
    """Nobody has a processor of its own, as in the row."""
    with Ground(sample=8) as ground, SUBJECT.on(ground) as running:
        assert running.process is not None
        alone = _steps(ground, running.process.pid)
        with paced(ground.topology, SUBJECT.questions) as generator:
            generator.start(Order(SCAN, 2 * LEAD + _SAMPLES / RATE))
            time.sleep(LEAD)
            during = _steps(ground, running.process.pid)
            scanned = generator.finish().rate
    rows, raw = [], {"scan, NS/s": scanned}
    slow = {"without": _slowest(alone), "during": _slowest(during)}
    for number, name in enumerate(STEPS):
        cells: list[str] = []
        for when, lines in (("without", alone), ("during", during)):
            steps = [line[number] for line in lines]
            found = middle(steps), percentile(steps, 0.99), middle([line[number] for line in slow[when]])
            cells += [f"{value:.1f}" for value in found]
            raw |= {f"{name}, {when}: {what}, us": value for what, value in zip(_WHAT, found, strict=True)}
        rows.append((name, *cells))
    whole = {when: [sum(line) for line in lines] for when, lines in (("without", alone), ("during", during))}
    p99s = {when: percentile(values, 0.99) for when, values in whole.items()}
    raw |= {f"{when}: p99, us": value for when, value in p99s.items()}
    run.say(f"scan: p99 {p99s['during']:.0f} us, {p99s['without']:.0f} without it")
    notes = [
        f"{len(during):,} questions, {RATE:,.0f} a second, during a scan at {scanned:,.0f} NS/s, and {len(alone):,}"
        f" without: p99 {p99s['during']:.0f} and {p99s['without']:.0f} us in all, with the tracing",
        f"slowest: the median of the step among the slowest {_SLOWEST:.0%} of the questions",
    ]
    head = ("step, us", *(f"{when}: {what}" for when in ("without", "during") for what in _WHAT))
    return [Section("A second station's question during a scan", head, rows, notes, raw)]


_WHAT = "median", "p99", "slowest"


def _slowest(lines: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    return sorted(lines, key=sum)[-max(1, int(_SLOWEST * len(lines))) :]


def _steps(ground: Ground, daemon: int) -> list[list[float]]:
    """Microseconds of each step, a line for each question that was answered and seen at each step."""
    found: list[list[float]] = []
    frames = questions(TARGETS, 2 * TARGETS, OTHER)
    with Asker(ground, spin=False, mac=OTHER) as asker, moments_of(daemon) as moments:

        def note(taken: float, arrived: int) -> None:
            line = [arrived - taken * 1000, *moments, arrived]
            if taken != LOST and all(since <= to for since, to in pairwise(line)):
                found.append([(to - since) / 1000 for since, to in pairwise(line)])
            time.sleep(1 / RATE)

        asker.ask(frames, _SAMPLES, note)
    return found
