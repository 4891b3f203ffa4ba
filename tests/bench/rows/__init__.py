# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows of the table. Each module measures one or two that share their runs, and adds its figures."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.plan import Run
from tests.bench.rows import budget, cost, end, interfaces, latency, load, rules, scan, start, tc, telling, trace

Measure = Callable[[Run], None]

ROWS: dict[tuple[int, ...], Measure] = {
    (1,): cost.foreign_traffic,
    (2, 3): cost.answers,
    (4, 5, 6): load.measure,
    (7, 8): latency.measure,
    (9,): scan.measure,
    (10, 11): start.measure,
    (12,): rules.measure,
    (13,): interfaces.measure,
    (14,): trace.measure,
    (15,): budget.measure,
    (16,): tc.measure,
    (17,): telling.measure,
    (18,): end.measure,
}
"""Which rows each function measures, in the order in which they run."""

NUMBERS = tuple(sorted(number for numbers in ROWS for number in numbers))
