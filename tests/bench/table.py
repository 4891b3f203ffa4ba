# SPDX-License-Identifier: GPL-2.0-or-later
"""The table, as Markdown that is a table on a terminal, too."""

from __future__ import annotations

from collections.abc import Iterable

from tests.bench.results import Figure, Results

_HEAD = ("#", "figure", "measured", "must be", "holds", "made of")


def markdown(results: Results) -> str:
    """The whole page: what it ran on, the table, and what went wrong."""
    lines = [f"- {name}: {value}" for name, value in results.machine.items()]
    if results.quick:
        lines.append("- a quick run: smaller numbers, few repeats; it shows that all works, and compares with nothing")
    lines += ["", *aligned([_HEAD, *map(_cells, sorted(results.figures, key=lambda figure: figure.row))]), ""]
    for subject, (checked, wrong) in results.samples.items():
        lines.append(f"- {subject}: {checked:,} answers looked at, {wrong:,} of them wrong")
    lines += [f"- row {row} was not measured: {why}" for row, why in sorted(results.broken.items())]
    return "\n".join(lines) + "\n"


def _cells(figure: Figure) -> tuple[str, ...]:
    holds = {True: "yes", False: "no", None: ""}[figure.holds]
    bound = "" if figure.bound is None else str(figure.bound)
    return (str(figure.row), figure.name, f"{number(figure.value)} {figure.unit}", bound, holds, figure.note)


def number(value: float) -> str:
    """Three digits that mean something."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def aligned(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """A Markdown table, the first row its head."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines
