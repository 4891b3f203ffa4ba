# SPDX-License-Identifier: GPL-2.0-or-later
"""What has been said already, so that it is said once: each room logs its own lines, and asks here whether to."""

from __future__ import annotations

import math
from collections.abc import Container, Hashable


class Said:
    """What was said, and when, by what it is about. Of more than `most` things, the one that nobody has asked about for
    longest is forgotten.

    `again` is after how many seconds the same is news once more.
    """

    def __init__(self, again: float = math.inf, most: int = 1 << 16) -> None:
        self._again = again
        self._most = most
        self._said: dict[Hashable, tuple[Hashable, float]] = {}

    def __len__(self) -> int:
        return len(self._said)

    def __contains__(self, about: Hashable) -> bool:
        return about in self._said

    def recall(self, about: Hashable = "", what: Hashable = "", now: float = 0.0) -> bool:
        """Whether the same was said of it, and not too long before `now` (seconds, monotonic). It is kept, then."""
        before = self._said.get(about)
        if before is None or before[0] != what or now - before[1] >= self._again:
            return False
        self._said.pop(about, None)
        self._said[about] = before
        return True

    def note(self, about: Hashable = "", what: Hashable = "", now: float = 0.0) -> bool:
        """Note that this is said now (seconds, monotonic), and whether it is to be: False where it was said already."""
        if self.recall(about, what, now):
            return False
        self._said.pop(about, None)
        while len(self._said) >= self._most:
            del self._said[next(iter(self._said))]
        self._said[about] = what, now
        return True

    def over(self, about: Hashable = "") -> None:
        """It is over: the next time is news again."""
        self._said.pop(about, None)

    def keep(self, still: Container[Hashable]) -> None:
        """Forget what is about anything else."""
        self._said = {about: said for about, said in self._said.items() if about in still}
