# SPDX-License-Identifier: GPL-2.0-or-later
"""Row 9: how another station's scan affects one that asks now and then, where Python answers and a limit holds."""

from __future__ import annotations

from collections import defaultdict

from tests.bench.asker import LOST, ask_evenly
from tests.bench.generators import Order, paced
from tests.bench.ground import TARGETS, Ground, questions
from tests.bench.plan import Run
from tests.bench.rates import look_at_answers
from tests.bench.results import Figure, at_least, at_most, middle, percentile
from tests.bench.subjects import npd6_xdp
from tests.frames import ether
from tests.netns.wire import configuration

SCAN = 300_000.0  # NS/s, from one MAC
RATE = 200.0  # NS/s, from the other
OTHER = ether("02:00:00:00:00:77")
LEAD = 0.5  # seconds that the scan starts earlier: its burst is spent by then

SUBJECT = npd6_xdp(
    "npd6-xdp python, 1000 events a second and source",
    configuration(datapath='"python"', attach='"native"', events_per_source="1000"),
)


def share_answered(shares: list[float], rate: float) -> Figure:
    """The least of all repeats: what was missed in one isn't made good by another."""
    note = f"the least of {len(shares)} repeats; scan at {rate:,.0f} NS/s"
    return Figure(9, "a second MAC during a scan: answered", min(shares), "%", at_least(99.9), {"%": shares}, note)


def measure(run: Run) -> None:
    """All limits but that one are the defaults. The same questions are asked without the scan just before it."""
    plan = run.plan
    frames = questions(int(RATE * plan.scan), first=2 * TARGETS, mac=OTHER)
    some = frames[: max(1, len(frames) // 2)]
    found: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(plan.repeats):
        with Ground() as ground, SUBJECT.on(ground), paced(ground.topology, SUBJECT.questions) as generator:
            ask_evenly(ground, questions(int(RATE * LEAD), first=4 * TARGETS, mac=OTHER), RATE)
            alone = [each / 1000 for each in ask_evenly(ground, some, RATE)]
            generator.start(Order(SCAN, 2 * LEAD + plan.scan))
            ask_evenly(ground, questions(int(RATE * LEAD), first=4 * TARGETS, mac=OTHER), RATE)
            taken = [each / 1000 for each in ask_evenly(ground, frames, RATE)]
            found["scan, NS/s"].append(generator.finish().rate)
            look_at_answers(run, ground, SUBJECT, [*frames, *questions(TARGETS, 4 * TARGETS, OTHER)])
        found["answered, %"].append(100 * sum(each != LOST for each in taken) / len(taken))
        for when, times in (("during", taken), ("without", alone)):
            found[f"{when}: median, ms"].append(middle(times))
            found[f"{when}: p99, ms"].append(percentile(times, 0.99))
        run.say(
            f"scan at {found['scan, NS/s'][-1]:,.0f}/s: the other has {found['answered, %'][-1]:.2f} % answered, p99"
            f" {found['during: p99, ms'][-1]:.3f} ms, {found['without: p99, ms'][-1]:.3f} without it"
        )
    medians = {name: middle(values) for name, values in found.items()}
    run.results.figures.append(share_answered(found["answered, %"], medians["scan, NS/s"]))
    pairs = list(zip(found["during: p99, ms"], found["without: p99, ms"], strict=True))
    p99s, means = ([medians[f"{when}: {what}, ms"] for when in ("during", "without")] for what in ("p99", "median"))
    note = f"{p99s[0]:.3f} over {p99s[1]:.3f} ms; medians {means[0]:.3f} and {means[1]:.3f}"
    name = "a second MAC during a scan: its p99 over its p99 without one"
    run.results.ratio(9, name, pairs, at_most(10), note, found)
