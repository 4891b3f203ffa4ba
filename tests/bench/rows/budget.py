# SPDX-License-Identifier: GPL-2.0-or-later
"""Row 15: what new_targets_per_second costs the XDP program: switched off, and of a target that was answered lately."""

from __future__ import annotations

from collections import defaultdict

from npd6_xdp.core.table import Table
from tests.bench import program, variants
from tests.bench.plan import Run
from tests.bench.results import Bound, Figure, at_most, middle
from tests.datapath.harness import entry, rule, table

_OFF, _KNOWN = "switched off", "set, for a target that was answered lately"
_BOUNDS: dict[str, Bound | None] = {_OFF: at_most(0.03), _KNOWN: None}
_LOOKS = (("entry->flags & (ENTRY_BUDGETED | ENTRY_REMEMBERS)", "0"),)


def _budgeted() -> Table:
    """As program.one_prefix(), with a budget."""
    return table(entry(rule(str(program.TARGETS)), new_targets_per_second=1000))


def measure(run: Run) -> None:
    """An answer of the real program over one of a program that knows no budget, in times of the bare program.

    As in row 14, both are loaded anew again and again.
    """
    over: defaultdict[str, list[float]] = defaultdict(list)
    bare: list[float] = []
    for _ in range(run.plan.loads):
        with variants.without(_LOOKS) as other, program.bare_program() as passing:
            bare.append(middle(variants.cost(other, passing, run.plan.growth_program).bare))
            for what, wanted in ((_OFF, program.one_prefix()), (_KNOWN, _budgeted())):
                with program.loaded(wanted) as bench:
                    over[what].append(variants.difference(bench, other, run.plan.growth_program).median)
    for what, bound in _BOUNDS.items():
        nanoseconds, each = middle(over[what]), middle(bare)
        raw = {"over, ns, a load each": over[what], "bare, ns": bare}
        said = f"{nanoseconds:+.1f} ns over an answer; the bare program takes {each:.0f}"
        name = f"new_targets_per_second {what}, over the bare program"
        run.results.figures.append(Figure(15, name, nanoseconds / each, "times", bound, raw, said))
        run.say(f"row 15: new_targets_per_second {what}: {nanoseconds:+.1f} ns, {nanoseconds / each:+.2f} times bare")
