# SPDX-License-Identifier: GPL-2.0-or-later
"""When to look into the rings again: at once while many events come; else whatever comes wakes us."""

from __future__ import annotations

import math

STREAM = 2  # events of one look, from which on more are taken to follow by themselves
LATER = 0.010
"""Seconds after the last event, or after a stream, at which there is one more look. What was answered is counted then;
and where the program's fence is none (system/bpf/events.py), it finds what waked nobody, which is in the ring within
microseconds. It comes so late because a timer that comes before the kernel's next tick has a virtual machine set its
clock for each event, which took a quarter of the time until the answer.
"""


class Pace:
    """Decides after each look whether the next one raises the flag (system/bpf/events.py), and when it comes at latest.

    The rule: **we wait only after a look that has raised the flag**. What that look hasn't found finds the flag raised.
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
        if events or self._raised == math.inf:
            self._raised = began
            return LATER
        left = self._raised + LATER - began
        return left if left > 0 else math.inf
