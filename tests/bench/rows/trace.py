# SPDX-License-Identifier: GPL-2.0-or-later
"""Row 14: what a trace costs the XDP program: switched off, with nothing that is wanted, and of all of a flood."""

from __future__ import annotations

from collections import defaultdict

from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.trace_wire import Filter
from tests.bench import program, tracing, variants
from tests.bench.plan import Run
from tests.bench.results import Figure, at_most, middle

_OFF, _NOTHING, _ALL = "switched off", "switched on, and nothing wanted", "of each solicitation"
_BOUNDS = {_OFF: 0.03, _NOTHING: 0.3, _ALL: 4.0}
_ELSEWHERE = Filter(target=Prefix.of("2001:db9::/32"))


def measure(run: Run) -> None:
    """An answer of the real program over one of a program that can't be traced, in times of the bare program.

    Where a program lies in memory makes some nanoseconds of difference, so both are loaded anew again and again.
    """
    over: defaultdict[str, list[float]] = defaultdict(list)
    bare: list[float] = []
    lost = matched = 0
    for _ in range(run.plan.loads):
        with program.loaded(program.one_prefix()) as bench, tracing.untraceable() as other:
            with program.bare_program() as passing:
                bare.append(middle(variants.cost(other, passing, run.plan.growth_program).bare))
            over[_OFF].append(variants.difference(bench, other, run.plan.growth_program).median)
            for what, wanted in ((_NOTHING, _ELSEWHERE), (_ALL, Filter())):
                with tracing.traced(bench, wanted):
                    over[what].append(variants.difference(bench, other, run.plan.growth_program).median)
                    counts = bench.ns_filter.looked()
            matched, lost = matched + counts.matched, lost + counts.lost
    for what, bound in _BOUNDS.items():
        nanoseconds, each = middle(over[what]), middle(bare)
        times = nanoseconds / each
        raw = {"over, ns, a load each": over[what], "bare, ns": bare}
        said = f"{nanoseconds:+.1f} ns over an answer; the bare program takes {each:.0f}"
        run.results.figures.append(
            Figure(14, f"a trace {what}, over the bare program", times, "times", at_most(bound), raw, said)
        )
        run.say(f"row 14: a trace {what}: {nanoseconds:+.1f} ns, {times:+.2f} times bare")
    run.say(f"row 14: of {matched:,} records, {lost:,} had no space in the ring")
