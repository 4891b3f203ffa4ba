# SPDX-License-Identifier: GPL-2.0-or-later
"""Row 9: how another station's scan affects one that asks now and then, where Python answers and a limit holds."""

from __future__ import annotations

from tests.bench.asker import LOST, ask_evenly
from tests.bench.generators import Order, paced
from tests.bench.ground import TARGETS, Ground, questions
from tests.bench.plan import Run
from tests.bench.rates import look_at_answers
from tests.bench.results import Figure, at_least, at_most, middle, percentile
from tests.bench.subjects import npd6_xdp
from tests.frames import ether
from tests.netns.wire import configuration

_SCAN = 300_000.0  # NS/s, from one MAC
_RATE = 200.0  # NS/s, from the other
_OTHER = ether("02:00:00:00:00:77")
_LEAD = 0.5  # seconds that the scan starts earlier: its burst is spent by then

SUBJECT = npd6_xdp(
    "npd6-xdp python, 1000 events a second and source",
    configuration(datapath='"python"', attach='"native"', events_per_source="1000"),
)


def measure(run: Run) -> None:
    """All limits but that one are the defaults."""
    plan = run.plan
    frames = questions(int(_RATE * plan.scan), first=2 * TARGETS, mac=_OTHER)
    shares, p99s, medians, scans = [], [], [], []
    for _ in range(plan.repeats):
        with Ground() as ground, SUBJECT.on(ground), paced(ground.topology, SUBJECT.questions) as generator:
            generator.start(Order(_SCAN, 2 * _LEAD + plan.scan))
            ask_evenly(ground, questions(int(_RATE * _LEAD), first=4 * TARGETS, mac=_OTHER), _RATE)
            taken = ask_evenly(ground, frames, _RATE)
            sent = generator.finish()
            look_at_answers(run, ground, SUBJECT, [*frames, *questions(TARGETS, 4 * TARGETS, _OTHER)])
        answered = [each for each in taken if each != LOST]
        shares.append(100 * len(answered) / len(taken))
        p99s.append(percentile(taken, 0.99) / 1000)
        medians.append(middle(taken) / 1000)
        scans.append(sent.rate)
        run.say(f"scan at {sent.rate:,.0f}/s: the other has {shares[-1]:.2f} % answered, p99 {p99s[-1]:.2f} ms")
    note = f"scan at {middle(scans):,.0f} NS/s"
    figures = run.results.figures
    figures.append(
        Figure(9, "a second MAC during a scan: answered", middle(shares), "%", at_least(99.9), {"%": shares}, note)
    )
    raw = {"p99, ms": p99s, "median, ms": medians, "scan, NS/s": scans}
    note = f"median {middle(medians):.2f} ms"
    figures.append(Figure(9, "a second MAC during a scan: p99", middle(p99s), "ms", at_most(2), raw, note))
