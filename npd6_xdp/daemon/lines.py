# SPDX-License-Identifier: GPL-2.0-or-later
"""What there is to say of interfaces: a line each, or one for many; now and then one for what happens all the time."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

from npd6_xdp.core.logged import MOST_NAMES, Fields, fields, named
from npd6_xdp.core.said import Said

log = logging.getLogger("npd6-xdp")

MOST_LINES = 10
"""Of one kind, at once."""
_NAMED = 3
MOST_TIMES = 8
"""That the same is said of an interface within WINDOW; what comes then is counted."""
WINDOW = 60.0
"""Seconds."""
_MOST_DAMPED = 4096  # lines that are known at once
_MOST_SAID = 256  # lines that are said once each
_MOST_OF_A_KIND = 8  # of them within _HOUR
_HOUR = 3600.0


@dataclass(slots=True)
class _Damped:
    """A line: since when it is counted, how often it was said since and how often not, which of all it was last."""

    level: int
    text: str
    fields: Fields
    began: float
    said: int = 0
    held_back: int = 0
    last: int = 0


class Damper:
    """Lets a line pass a few times a minute, then says once a minute how often it came; a link may flap for days."""

    def __init__(self) -> None:
        self._damped: dict[tuple[str, str], _Damped] = {}
        self._count = 0
        self.due: float | None = None
        """When to call settle() (seconds, monotonic); None: nothing is held back."""

    def say(self, level: int, name: str, text: str, kind: str, about: Fields) -> None:
        """Log a line about an interface, or count it. `kind` is what it has in common with others of its kind, `about`
        are its fields.
        """
        now = time.monotonic()
        line = self._damped.get((name, kind))
        if line is None or (now - line.began >= WINDOW and not line.held_back):
            self._damped.pop((name, kind), None)
            if len(self._damped) >= _MOST_DAMPED:
                self._forget(next(iter(self._damped)))
            line = self._damped[name, kind] = _Damped(level, text, about, now)
        self._count += 1
        line.level, line.text, line.fields, line.last = level, text, about, self._count
        if line.said < MOST_TIMES:
            line.said += 1
            log.log(level, "%s: %s", name, text, extra=fields(**about))
            return
        if not line.held_back:
            due = line.began + WINDOW
            self.due = due if self.due is None else min(self.due, due)
        line.held_back += 1

    def settle(self, now: float) -> None:
        """Say how often came what was held back: what came last is said last, so that is how things are."""
        told = [(line.last, key) for key, line in self._damped.items() if line.held_back and line.began + WINDOW <= now]
        for _, key in sorted(told):
            line = self._damped[key]
            self._tell(key, line)
            # as long as it goes on, this is all that is said
            line.began, line.said, line.held_back = now, MOST_TIMES, 0
        times = (line.began + WINDOW for line in self._damped.values() if line.held_back)
        self.due = min(times, default=None)

    def _forget(self, key: tuple[str, str]) -> None:
        line = self._damped.pop(key)
        if line.held_back:
            self._tell(key, line)

    @staticmethod
    def _tell(key: tuple[str, str], line: _Damped) -> None:
        times = "once more" if line.held_back == 1 else f"{line.held_back:,} times more"
        log.log(line.level, "%s: %s (%s within a minute)", key[0], line.text, times, extra=fields(**line.fields))


class Once:
    """Warnings that are said once each. It remembers the latest only, and whoever sends frames can't fill the log."""

    def __init__(self) -> None:
        self._said = Said(most=_MOST_SAID)
        self._kinds: dict[str, tuple[float, int]] = {}

    def warn(self, line: str, /, about: str = "", kind: str = "", **known: Unpack[Fields]) -> None:
        """Log it, unless this was said `about` the same. Of a `kind` that others give reason for, a few an hour. The
        rest are its fields.
        """
        key = about or line
        if self._said.recall(key) or (kind and (line := self._within_limit(line, kind)) == ""):
            return
        self._said.note(key)
        log.warning("%s", line, extra=fields(**known))

    def _within_limit(self, line: str, kind: str) -> str:
        now = time.monotonic()
        began, count = self._kinds.pop(kind, (now, 0))
        if now - began >= _HOUR:
            began, count = now, 0
        while len(self._kinds) >= _MOST_SAID:
            del self._kinds[next(iter(self._kinds))]
        self._kinds[kind] = began, count + 1
        if count + 1 == _MOST_OF_A_KIND:
            return f"{line} (more like this are not said within an hour)"
        return line if count < _MOST_OF_A_KIND else ""


class Lines:
    """Collects lines while a change is taken in, and logs them at its end: say(). `damper` sees to what repeats."""

    def __init__(self, damper: Damper | None = None) -> None:
        self._damper = damper or Damper()
        self._said: dict[tuple[int, str], list[tuple[str, str, Fields]]] = {}  # the first of a kind
        self._count: Counter[tuple[int, str]] = Counter()

    def add(self, level: int, name: str, text: str, kind: str = "", **known: Unpack[Fields]) -> None:
        """A line about an interface. `kind` is what it has in common with others', where `text` has names in it. The
        rest are fields beside those of the name.
        """
        key = level, kind or text
        self._count[key] += 1
        if self._count[key] <= MOST_NAMES:  # of 100,000 that are told in one line, no more are looked at
            self._said.setdefault(key, []).append((name, text, known))

    def add_line(self, level: int, line: str, /, **known: Unpack[Fields]) -> None:
        """As add(), with a line that begins with the interface's name and a colon."""
        name, _, text = line.partition(": ")
        self.add(level, name, text, **known)

    def say(self) -> None:
        """Log what was collected."""
        said, self._said = self._said, {}
        counts, self._count = self._count, Counter()
        for (level, kind), found in said.items():
            if len(found) > MOST_LINES:
                names = [name for name, *_ in found]
                self._damper.say(level, some(names, counts[level, kind]), kind, kind, named(*names))
                continue
            for name, text, known in found:
                self._damper.say(level, name, text, kind, Fields(**named(name), **known))


def some(names: Sequence[str], count: int = 0) -> str:
    """Names in one line: the first few, where there are many. `count` is how many there are, if these aren't all."""
    if len(names) <= MOST_LINES:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} and {(count or len(names)) - _NAMED:,} more"
