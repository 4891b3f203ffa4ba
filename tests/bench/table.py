# SPDX-License-Identifier: GPL-2.0-or-later
"""The table, as Markdown that is a table on a terminal, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.bench.results import Figure, Results

_HEAD = ("#", "figure", "measured", "must be", "holds", "made of")
_BESIDE = ("before", "now / before")


def markdown(results: Results, before: Mapping[tuple[int, str], float] | None = None) -> str:
    """The whole page: what it ran on, the table, and what went wrong. `before` are another run's figures, by row and
    name, to stand beside these.
    """
    lines = [f"- {name}: {value}" for name, value in results.machine.items()]
    if results.quick:
        lines.append("- a quick run: smaller numbers, few repeats; it shows that all works, and compares with nothing")
    rows = [_HEAD, *map(_cells, sorted(results.figures, key=lambda figure: figure.row))]
    if before is not None:
        figures = sorted(results.figures, key=lambda figure: figure.row)
        beside = [_BESIDE, *(_compared(figure, before) for figure in figures)]
        rows = [(*row[:3], *cells, *row[3:]) for row, cells in zip(rows, beside, strict=True)]
    lines += ["", *aligned(rows), ""]
    lines += [f"- {note}" for note in results.notes]
    for subject, (checked, wrong) in results.samples.items():
        lines.append(f"- {subject}: {checked:,} answers looked at, {wrong:,} of them wrong")
    lines += [f"- row {row} was not measured: {why}" for row, why in sorted(results.broken.items())]
    return "\n".join(lines) + "\n"


def _compared(figure: Figure, before: Mapping[tuple[int, str], float]) -> tuple[str, str]:
    """The two cells of another run: its value, and how many times that this one's is; empty where it has none."""
    value = before.get((figure.row, figure.name))
    if value is None:
        return "", ""
    return f"{number(value)} {figure.unit}", number(figure.value / value) if value else ""


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
