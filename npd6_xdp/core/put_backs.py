# SPDX-License-Identifier: GPL-2.0-or-later
"""How soon to put back what somebody else removes: at once, a few times soon after, and then with pauses."""

from __future__ import annotations

import math
from collections.abc import Hashable

SOON = 0.02
"""Seconds. `ip route flush` dumps and deletes until it finds nothing: by then it has found nothing, and has ended."""
PAUSE = 1.0
"""Seconds in which one thing is put back a few times only: somebody who always removes it must not keep us busy."""
LATER = 10.0
"""Seconds until what was refused is tried again."""
_EACH = 8
_REPEATED = 1_000  # of all things together, beyond the first time for each


class PutBacks:
    """Counts what is put back, by key, within the last PAUSE or so; and knows which links have refused it since.

    A link that is taken down takes tens of thousands of routes along, and the kernel takes none of them back.
    """

    def __init__(self) -> None:
        self._counts: dict[Hashable, tuple[float, int]] = {}
        self._repeated = (-math.inf, 0)
        self._refused: dict[int, float] = {}  # when, by link

    def tried(self, link: int, now: float, *, refused: bool) -> None:
        """Whether the kernel has just refused something because of the state of its link (an interface's index)."""
        if refused:
            self._refused[link] = now
        else:
            self._refused.pop(link, None)

    def removed(self, key: Hashable, now: float, link: int = 0) -> float:
        """It was just removed; seconds until it is to be put back: 0, SOON, PAUSE, or LATER if its link refuses."""
        if now - self._refused.get(link, -math.inf) < PAUSE:
            return LATER
        began, count = self._counts.get(key, (-math.inf, 0))
        if now - began >= PAUSE:
            self._counts[key] = now, 1
            return 0.0
        if now - self._repeated[0] >= PAUSE:
            self._repeated = now, 0
        if count >= _EACH or self._repeated[1] >= _REPEATED:
            return PAUSE
        self._counts[key] = began, count + 1
        self._repeated = self._repeated[0], self._repeated[1] + 1
        return SOON

    def forget(self, key: Hashable) -> None:
        """Forget it: it isn't wanted any more."""
        self._counts.pop(key, None)
