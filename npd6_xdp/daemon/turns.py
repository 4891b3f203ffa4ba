# SPDX-License-Identifier: GPL-2.0-or-later
"""How much of a turn what can wait may take, so that no solicitation waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from npd6_xdp.core.steps import Steps

T = TypeVar("T")

SLICE = 0.005  # seconds that the loop is held for by what comes in thousands, but for steps that can't be cut
HELD = 0.02  # the same by the clock, where such a step waits for the kernel, or another process has the processor
_SHARE = 2  # times such a slice that a turn with solicitations in it leaves to them, before there is another


class Turns:
    """Slices of what is not urgent. `busy` says whether solicitations come in; `go_on_at` is when the next may begin
    (seconds, monotonic): a stream is to find its ring empty again in between.
    """

    def __init__(self, busy: Callable[[], bool]) -> None:
        self._busy = busy
        self.go_on_at = 0.0

    def go_on(self, steps: Steps[None]) -> bool:
        """Go on with something for as long as a turn may take; whether that was the last of it."""
        was_last = take_slice(steps)
        self.rest()
        return was_last

    def rest(self) -> None:
        """A slice has ended."""
        self.go_on_at = time.monotonic() + _SHARE * SLICE if self._busy() else 0.0


def take_slice(steps: Steps[None], is_asleep: Callable[[], bool] = lambda: False) -> bool:
    """Go on with something for as long as a turn may take, or until it waits for something; whether that was the last.

    Raises what it raises.
    """
    ends, held = time.thread_time() + SLICE, time.monotonic() + HELD
    return all(time.thread_time() < ends and time.monotonic() < held and not is_asleep() for _ in steps)


def measured(steps: Steps[T]) -> Steps[tuple[T, float]]:
    """The result, and the processor time (seconds) that its bits took: neither what the loop did in between counts, nor
    that another process had the processor.
    """
    worked = 0.0
    while True:
        resumed = time.thread_time()
        try:
            next(steps)
        except StopIteration as done:
            return done.value, worked + time.thread_time() - resumed
        worked += time.thread_time() - resumed
        yield
