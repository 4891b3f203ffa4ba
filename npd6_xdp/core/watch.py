# SPDX-License-Identifier: GPL-2.0-or-later
"""What `status --watch` shows: one overview after another, as lines of text with the rates between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import pairwise
from textwrap import wrap
from typing import Any

from npd6_xdp.core.judgement import State, problem_lines
from npd6_xdp.core.status import late_answers
from npd6_xdp.core.verdict import Outcome

_WINDOW = 60  # seconds that a trend shows, at one overview a second
_RATE_SECONDS = 5.2  # a rate is of the last five seconds: one alone is restless
_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "._-=+*#@"
_MOST_RULES = 100
_MOST_PROBLEMS = 10
_BETWEEN = "   "  # two figures
_GAP = "  "  # between two columns
_INDENT = "  "  # of what goes on in the next line
_LEAST_TEXT = 24  # columns in which a text is wrapped; with less, it begins in the next line
_ANSWERED = (Outcome.ANSWERED_XDP, Outcome.ANSWERED_PYTHON, Outcome.KERNEL)

_Key = tuple[str, ...]


class Look(Enum):
    """How a line stands out."""

    PLAIN = ""
    HEADING = "heading"
    FAINT = "faint"
    ALERT = "alert"


@dataclass(frozen=True, slots=True)
class Line:
    """One line, without any control character."""

    text: str
    look: Look = Look.PLAIN


class Watch:
    """Takes what overview_json() gives, about once a second, and tells of it."""

    def __init__(self, *, unicode: bool = True) -> None:
        self._bars = _BARS if unicode else _ASCII_BARS
        self._ellipsis = "…" if unicode else "..."
        self._said: Mapping[str, Any] = {}
        self._samples: deque[tuple[float, dict[_Key, int]]] = deque(maxlen=_WINDOW + 1)

    def add(self, said: Mapping[str, Any]) -> None:
        """One more overview."""
        totals: dict[_Key, int] = {("outcome", name): count for name, count in said["totals"]["solicitations"].items()}
        for interface in said["interfaces"]:
            totals["interface", interface["interface"]] = sum(interface["solicitations"].values())
        for rule in said["rules"]:
            totals["rule", rule["interface"], rule["rule"]] = sum(rule["solicitations"].values())
        if self._said and any(said[key] != self._said[key] for key in ("pid", "started")):
            self._samples.clear()  # another daemon: its counters begin anew
        self._said = said
        if not self._samples or said["time"] > self._samples[-1][0]:
            self._samples.append((said["time"], totals))

    def lines(self, width: int, height: int | None = None, problem: str = "") -> list[Line]:
        """What to show in so many columns and lines: what is wider goes on in the next line. `problem` says why what is
        shown is old.
        """
        blocks = [
            *self._head(width, is_old=bool(problem)),
            *_alerts((*problem.splitlines(), *problem_lines(self._said, _MOST_PROBLEMS)), width),
            Line(""),
            *self._figures(width),
            Line(""),
            *self._outcomes(width),
            Line(""),
            *self._interfaces(width),
            Line(""),
            *self._rules(width),
        ]
        found = [part for line in blocks for part in _folded(line, width)]
        if height is not None and len(found) > height:
            left = len(found) - height + 1
            found = [*found[: height - 1], Line(f"{self._ellipsis} {left} more lines"[:width], Look.FAINT)][:height]
        return found

    def _rate(self, *keys: _Key) -> float | None:
        """How many a second, of all keys together; None if that can't be said yet."""
        if len(self._samples) < 2:
            return None
        now, last = self._samples[-1]
        then, first = next(sample for sample in self._samples if sample[0] >= now - _RATE_SECONDS)
        if then == now:
            then, first = self._samples[-2]
        grown = sum(last.get(key, 0) - first[key] for key in keys if key in first)
        return max(0, grown) / (now - then)

    def _trend(self, key: _Key, columns: int) -> str:
        """The last minute as bars, one an overview, the highest of them full."""
        counts = [totals.get(key, 0) for _, totals in self._samples]
        grown = [max(0, after - before) for before, after in pairwise(counts)][-columns:]
        most = max(grown, default=0)
        if not most or columns <= 0:
            return ""
        bars = len(self._bars)
        return "".join(self._bars[min(bars - 1, each * bars // most)] if each else " " for each in grown).rstrip()

    def _head(self, width: int, *, is_old: bool) -> list[Line]:
        said = self._said
        now = said["time"]
        parts = (
            State.NOT_ANSWERING if is_old else said["headline"],
            f"npd6-xdp {said['build']['version']}",
            f"pid {said['pid']}",
            f"up {_span(now - said['started'])}",
            f"configuration in use for {_span(now - said['last_reload'])}",
            datetime.fromtimestamp(now).astimezone().strftime("%H:%M:%S"),
        )
        return [Line(line, Look.HEADING) for line in _joined(parts, width)]

    def _figures(self, width: int) -> list[Line]:
        said = self._said
        outcomes = said["totals"]["solicitations"]
        sent = said["totals"]["advertisements"]
        answers = sum(sent.values()) + outcomes[Outcome.KERNEL]
        # cut, not rounded: 100 % means all of them
        share = f", {sent.get('xdp', 0) * 1000 // answers / 10} % by XDP" if answers else ""
        lost = outcomes[Outcome.LOST] + outcomes[Outcome.FAILED]
        asked, answered = (
            _per_second(self._rate(*(("outcome", name) for name in names))) for names in (outcomes, _ANSWERED)
        )
        rates = (
            f"asked {asked} per second",
            f"answered {answered} per second{share}",
            f"lost or failed {lost:,}",
        )
        states = (
            f"neighbours {sum(said['neighbours'].values()):,}",
            f"kernel proxy entries {sum(said['kernel_proxy_entries'].values()):,}",
            f"host routes {said['host_routes']:,}",
        )
        resolution = (
            f"{outcomes[Outcome.PENDING]:,} sent for resolution",
            f"{said['pending']:,} being resolved",
            f"{late_answers(said['totals']):,} after resolution",
        )
        return [Line(line) for parts in (rates, resolution, states) for line in _joined(parts, width)]

    def _outcomes(self, width: int) -> list[Line]:
        outcomes = self._said["totals"]["solicitations"]
        columns = max(0, min(_WINDOW, width - 45))
        rows = [
            (name, _per_second(self._rate(("outcome", name))), f"{count:,}", self._trend(("outcome", name), columns))
            for name, count in outcomes.items()
            if count
        ]
        found = _table(("OUTCOME", "per second", "total", "last minute"), "<>><", rows, width)
        if none := [name for name, count in outcomes.items() if not count]:
            text = wrap(f"none yet: {', '.join(none)}", max(width, 40), subsequent_indent="  ")
            found += [Line(line, Look.FAINT) for line in text]
        return found

    def _interfaces(self, width: int) -> list[Line]:
        rows = [
            (
                interface["interface"],
                _state(interface),
                interface["attach"] or "-",
                interface["datapath"],
                _per_second(self._rate(("interface", interface["interface"]))),
                f"{sum(interface['solicitations'].values()):,}",
                f"{interface['advertisements'].get('xdp', 0):,}",
                f"{interface['advertisements'].get('python', 0):,}",
                f"{interface['lost']:,}",
            )
            for interface in self._said["interfaces"]
        ]
        heads = ("INTERFACE", "state", "attached", "datapath", "per second", "total", "by XDP", "by Python", "lost")
        return _table(heads, "<<<<>>>>>", rows, width) + self._left_out("interfaces")

    def _rules(self, width: int) -> list[Line]:
        rules = self._said["rules"]
        rows = [
            (
                rule["rule"],
                rule["interface"],
                rule["method"],
                _per_second(self._rate(("rule", rule["interface"], rule["rule"]))),
                ", ".join(f"{name} {count:,}" for name, count in rule["solicitations"].items() if count) or "none",
            )
            for rule in rules[:_MOST_RULES]
        ]
        heads = ("RULE", "interface", "method", "per second", "outcomes since start")
        return _table(heads, "<<<><", rows, width) + self._left_out("rules", max(0, len(rules) - _MOST_RULES))

    def _left_out(self, kind: str, more: int = 0) -> list[Line]:
        more += self._said["left_out"][kind]
        return [Line(f"{self._ellipsis} and {more:,} more {kind} (status --json has all)", Look.FAINT)] if more else []


def _state(interface: Mapping[str, Any]) -> str:
    if interface["up"]:
        return "up" if interface["active"] else "standby"
    return "DOWN" if interface["attach"] else "NOT ATTACHED"


def _alerts(notes: Iterable[str], width: int) -> Iterable[Line]:
    """Whole, however narrow the terminal is."""
    for note in notes:
        indent = " " * (len(note) - len(note.lstrip()) + 2)
        text = wrap(f"! {note}", max(width, 40), subsequent_indent=indent, break_on_hyphens=False)
        yield from (Line(line, Look.ALERT) for line in text)


def _joined(parts: Iterable[str], width: int) -> list[str]:
    """Parts side by side, in as many lines as that takes."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(_BETWEEN) + len(part) <= width:
            lines[-1] += _BETWEEN + part
        else:
            lines.append(part)
    return lines


def _folded(line: Line, width: int) -> list[Line]:
    """A line that is too wide in several. A name that is too wide in itself is divided."""
    text = _printable(line.text)
    if len(text) <= width:
        return [Line(text, line.look)]
    indent = _INDENT if width >= _LEAST_TEXT else ""
    parts = wrap(text, max(width, 1), subsequent_indent=indent, break_on_hyphens=False)
    return [Line(part, line.look) for part in parts]


def _table(heads: Sequence[str], sides: str, rows: Sequence[Sequence[str]], width: int) -> list[Line]:
    """Columns as wide as they need to be; `sides` says to which each is aligned.

    Where they are more than the terminal has space for, each row goes on in the next line, at the same column. The last
    one is wrapped within what is left of its line, unless that is little.
    """
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    lines: list[list[int]] = [[]]
    used = 0
    for column, needed in enumerate(widths):
        least = min(needed, _LEAST_TEXT) if column == len(widths) - 1 else needed
        if lines[-1] and used + len(_GAP) + least > width:
            lines.append([])
            used = 0
        before = len(_GAP) if lines[-1] else len(_INDENT) if len(lines) > 1 else 0
        widths[column] = min(needed, max(width - used - before, least))
        used += before + widths[column]
        lines[-1].append(column)
    found: list[Line] = []
    for row in (heads, *rows):
        look = Look.PLAIN if found else Look.HEADING
        shown = [_row(row, sides, widths, columns, _INDENT if number else "") for number, columns in enumerate(lines)]
        found += [Line(line, look) for part in shown for line in part]
    return found


def _row(cells: Sequence[str], sides: str, widths: Sequence[int], columns: Sequence[int], indent: str) -> list[str]:
    """Some columns of a row: a line, and those in which its last cell goes on."""
    *before, last = columns
    start = indent + "".join(f"{cells[column]:{sides[column]}{widths[column]}}{_GAP}" for column in before)
    first, *more = wrap(cells[last], max(widths[last], 1), break_on_hyphens=False) or [""]
    lines = [f"{start}{first:{sides[last]}{widths[last]}}", *(" " * len(start) + line for line in more)]
    return [line.rstrip() for line in lines]


def _per_second(rate: float | None) -> str:
    if rate is None:
        return "-"
    return f"{rate:.1f}" if 0 < rate < 9.95 else f"{rate:,.0f}"


def _span(seconds: float) -> str:
    minutes, hours, days = (int(max(0.0, seconds) // unit) for unit in (60, 3600, 86400))
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{int(max(0.0, seconds))} s"


def _printable(text: str) -> str:
    """Without control characters: names and error messages may hold what a file has."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)
