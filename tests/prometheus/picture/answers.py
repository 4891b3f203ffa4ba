# SPDX-License-Identifier: GPL-2.0-or-later
"""What a Prometheus answers to the dashboard's panels and annotations, for page.jsx to show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tests.prometheus.files import dashboard, substituted
from tests.prometheus.server import Prometheus

SCRAPES = 1.0
"""Seconds between two scrapes, and the step of a chart."""
ALL = {"instance": ".+", "interface": ".+"}


class Answers:
    """Of the time from `start` to `end` (seconds since 1970), with all variables at All."""

    def __init__(self, prometheus: Prometheus, start: float, end: float) -> None:
        self._prometheus = prometheus
        self._start = start
        self._end = end

    def board(self) -> dict[str, Any]:
        """The dashboard, the answers by the panels' ids, and the annotations' times, in milliseconds."""
        found = dashboard()
        return {
            "dashboard": found,
            "from": 1000 * self._start,
            "to": 1000 * self._end,
            "step": 1000 * SCRAPES,
            "answers": {
                panel["id"]: [self._answer(target) for target in panel["targets"]]
                for panel in found["panels"]
                if panel["type"] != "row"
            },
            "marks": [
                {"name": mark["name"], "color": mark["iconColor"], "times": self._times(mark)}
                for mark in found["annotations"]["list"]
            ],
        }

    def _asked(self, expression: str) -> str:
        # Grafana's $__rate_interval is four scrapes where a chart's step isn't longer than they are.
        span = f"{self._end - self._start:.0f}s"
        return substituted(expression, rate_interval=f"{4 * SCRAPES:.0f}s", span=span, **ALL)

    def _answer(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """One query's series, each with `metric` and `values`: pairs of a time in milliseconds and a number or None."""
        expression = self._asked(target["expr"])
        if target.get("instant"):
            series = self._prometheus.answer(expression, self._end)
        else:
            series = self._prometheus.answer_over(expression, self._start, self._end, SCRAPES)
        return {
            "refId": target["refId"],
            "legend": target["legendFormat"],
            "table": target.get("format") == "table",
            "series": [{"metric": each["metric"], "values": _numbers(each)} for each in series],
        }

    def _times(self, mark: Mapping[str, Any]) -> list[float]:
        """When to mark something, in milliseconds: at a value, or at the first of the times that have one."""
        times = []
        for series in self._prometheus.answer_over(self._asked(mark["expr"]), self._start, self._end, SCRAPES):
            pairs = [(at, value) for at, value in _numbers(series) if value is not None]
            if mark.get("useValueForTime"):
                times += sorted({value for _, value in pairs})
            else:
                before = [-math.inf, *(at for at, _ in pairs)]
                times += [at for at, last in zip(before[1:], before, strict=False) if at - last > 2000 * SCRAPES]
        return [at for at in times if 1000 * self._start <= at <= 1000 * self._end]


def _numbers(series: Mapping[str, Any]) -> list[tuple[float, float | None]]:
    pairs = series["values"] if "values" in series else [series["value"]]
    numbers = [(round(1000 * at), float(text)) for at, text in pairs]
    return [(at, value if math.isfinite(value) else None) for at, value in numbers]


def empty(board: Mapping[str, Any]) -> list[str]:
    """The titles of panels that have no number to show."""
    return [title for title, values in _values(board) if not values]


def zeros(board: Mapping[str, Any]) -> list[str]:
    """The titles of panels that show nothing but zeros."""
    return [title for title, values in _values(board) if values == {0.0}]


def _values(board: Mapping[str, Any]) -> list[tuple[str, set[float]]]:
    titles = {panel["id"]: panel["title"] for panel in board["dashboard"]["panels"]}
    found = []
    for number, answers in board["answers"].items():
        pairs = [pair for answer in answers for series in answer["series"] for pair in series["values"]]
        found.append((titles[number], {value for _, value in pairs if value is not None}))
    return found
