# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmark finds: figures with their bounds, and curves for the plots, in one JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure must be: at most, or at least, `limit`."""

    limit: float
    at_most: bool = True

    def __str__(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {self.limit:g}"

    def holds(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit


def at_most(limit: float) -> Bound:
    return Bound(limit)


def at_least(limit: float) -> Bound:
    return Bound(limit, at_most=False)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: `row` is the issue's number, `raw` what the value is made of, in `unit` or said there.

    Without a bound it is there to look at only.
    """

    row: int
    name: str
    value: float
    unit: str
    bound: Bound | None = None
    raw: dict[str, list[float]] = field(default_factory=dict)
    note: str = ""

    @property
    def holds(self) -> bool | None:
        return None if self.bound is None else self.bound.holds(self.value)


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a plot; `plot` names the plot."""

    plot: str
    name: str
    x: list[float]
    y: list[float]


@dataclass(slots=True)
class Results:
    """All of a run."""

    machine: dict[str, str]
    quick: bool
    figures: list[Figure] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What else is to be said of this run, a line each."""
    samples: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Answers looked at, and those of them that were wrong, by subject."""
    broken: dict[int, str] = field(default_factory=dict)
    """Rows that couldn't be measured, and why."""

    def sampled(self, subject: str, checked: int, wrong: int) -> None:
        before = self.samples.get(subject, (0, 0))
        self.samples[subject] = before[0] + checked, before[1] + wrong

    def ratio(
        self,
        row: int,
        name: str,
        pairs: Sequence[tuple[float, float]],
        bound: Bound | None = None,
        note: str = "",
        raw: Mapping[str, Sequence[float]] | None = None,
    ) -> float:
        """Add how many times one thing is another: the median over pairs that were measured one after the other."""
        value = middle([one / other for one, other in pairs])
        made_of = dict(raw) if raw is not None else {"one": [a for a, _ in pairs], "the other": [b for _, b in pairs]}
        self.figures.append(Figure(row, name, value, "times", bound, {k: [*v] for k, v in made_of.items()}, note))
        return value

    def write(self, path: Path) -> None:
        whole: dict[str, Any] = asdict(self)
        for figure, written in zip(self.figures, whole["figures"], strict=True):
            written["holds"] = figure.holds
        path.write_text(json.dumps(whole, indent=1) + "\n")


def values_of(path: Path) -> dict[tuple[int, str], float]:
    """The figures of a run that was written before, by row and name. Raises OSError, or ValueError if it is none."""
    try:
        found = json.loads(path.read_text())["figures"]
        return {(int(each["row"]), str(each["name"])): float(each["value"]) for each in found}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no results.json of the benchmark: {type(error).__name__}: {error}") from error


def middle(values: Sequence[float]) -> float:
    """The median; 0 of nothing."""
    return float(median(values)) if values else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values don't exceed; 0 of nothing."""
    ranked = sorted(values)
    return float(ranked[min(len(ranked) - 1, max(0, -int(-share * len(ranked)) - 1))]) if ranked else 0.0
