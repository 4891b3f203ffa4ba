# SPDX-License-Identifier: GPL-2.0-or-later
"""When to look into the rings again: a stream isn't waited for, and nothing that slipped past a look waits for long."""

from __future__ import annotations

import math

STREAM = 2  # events of one look, from which on more are taken to follow by themselves
LOOKS = (0.001, 0.010, 0.100)
"""How old (seconds) the flag is at the looks that follow its raising; behind the last of them we may rest."""


class Pace:
    """Decides after each look whether the next one raises the flag (system/bpf/events.py), and when it comes at latest.

    An event is put where it wakes nobody if the program found the flag down. So it may come into a ring that has just
    been looked into and found empty, with the flag just raised: who saw it down is under way yet. That takes far less
    than a microsecond, but for a processor that a hypervisor takes away in the middle of it. Hence the rule: **whenever
    the flag may have been down before a look, more looks follow**, each at ten times the age of the one before. What
    was delayed by d is so seen within some 10 d, and there is no way into a rest but over these looks.
    """

    def __init__(self) -> None:
        self.watched = True
        """Whether the look to come is to raise the flag: what comes behind it wakes us."""
        self._raised = -math.inf  # when it was raised, having been down

    def after(self, events: int, began: float) -> float:
        """Seconds to wait at most before the next look; inf: until something wakes us.

        The last one found so many `events`, and `began` at this time (seconds).
        """
        if events >= STREAM:  # who sends pays for each wake-up, so we come by ourselves for a while
            self.watched = False
            return 0.0
        if not self.watched:
            self.watched, self._raised = True, math.inf
            return 0.0
        if events or self._raised == math.inf:  # an event takes the flag down, and what follows closely wakes nobody
            self._raised = began
        age = began - self._raised
        for look in LOOKS:
            if age < look:
                return look - age
        return math.inf
