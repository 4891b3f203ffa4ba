# SPDX-License-Identifier: GPL-2.0-or-later
"""When to look into the rings again: often while many events come, and soon if one may have come without a wake-up."""

from __future__ import annotations

import math

STREAM = 2  # events of one look, from which on more are taken to follow by themselves
LOOKS = (0.001, 0.010, 0.100)
"""How old (seconds) the flag is at the looks that follow its raising; behind the last of them we may rest."""


class Pace:
    """Decides after each look whether the next one raises the flag (system/bpf/events.py), and when it comes at latest.

    An event is put where it wakes nobody if the program found the flag down. So it may come into a ring that has just
    been found empty, although the flag has just been raised: the program read the flag before. This window is far
    shorter than a microsecond, unless a hypervisor takes the processor away in the middle of it. Hence the rule:
    **whenever the flag may have been down before a look, more looks follow**, each at ten times the age of the one
    before. So an event that was delayed by d is seen within some 10 d, and we never wait without an end before these
    looks.
    """

    def __init__(self) -> None:
        self.watched = True
        """Whether the look to come is to raise the flag: what comes behind it wakes us."""
        self._raised = -math.inf  # when it was raised, having been down

    def looked(self, events: int, began: float) -> float:
        """A look found so many `events`, and `began` at this time (seconds).

        Returns how many seconds to wait at most before the next one; inf: until something wakes us.
        """
        if events >= STREAM:  # each wake-up costs the program time, so for a while we look without being woken
            self.watched = False
            return 0.0
        if not self.watched:
            self.watched, self._raised = True, math.inf
            return 0.0
        if events or self._raised == math.inf:  # an event takes the flag down; those that follow closely don't wake us
            self._raised = began
        age = began - self._raised
        for look in LOOKS:
            if age < look:
                return look - age
        return math.inf
