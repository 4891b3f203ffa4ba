# SPDX-License-Identifier: GPL-2.0-or-later
"""What there is to say of interfaces: a line each, or one line for many of which there is the same to say."""

from __future__ import annotations

import logging
from collections.abc import Sequence

log = logging.getLogger("npd6-xdp")

MOST_LINES = 10
"""Of one kind, at once."""
_NAMED = 3


class Lines:
    """Collects lines while a change is followed, and logs them at its end: say()."""

    def __init__(self) -> None:
        self._said: dict[tuple[int, str], list[tuple[str, str]]] = {}

    def add(self, level: int, name: str, text: str, kind: str = "") -> None:
        """A line about an interface. `kind` is what it has in common with others', where `text` has names in it."""
        self._said.setdefault((level, kind or text), []).append((name, text))

    def add_line(self, level: int, line: str) -> None:
        """The same, of a line that begins with the name and a colon."""
        name, _, text = line.partition(": ")
        self.add(level, name, text)

    def say(self) -> None:
        """Log what was collected."""
        said, self._said = self._said, {}
        for (level, kind), found in said.items():
            if len(found) > MOST_LINES:
                log.log(level, "%s: %s", some([name for name, _ in found]), kind)
                continue
            for name, text in found:
                log.log(level, "%s: %s", name, text)


def some(names: Sequence[str]) -> str:
    """Names in one line: the first few, where there are many."""
    if len(names) <= MOST_LINES:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED:,} more"
