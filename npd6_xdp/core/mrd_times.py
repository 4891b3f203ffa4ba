# SPDX-License-Identifier: GPL-2.0-or-later
"""When a multicast router is announced (RFC 4286 §3): at first a few times, then at intervals, and when asked."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from npd6_xdp.core.mrd import INTERVAL

JITTER = 0.025 * INTERVAL  # seconds: AdvertisementJitter, §3.1.2
MOST_INITIAL_WAIT = 2.0  # seconds: MaxInitialAdvertisementInterval, §3.1.3
INITIAL = 3  # MaxInitialAdvertisements, §3.1.4
MOST_RESPONSE_DELAY = 2.0  # seconds: MAX_RESPONSE_DELAY, §3
LEAST_BETWEEN = 1.0  # seconds between two of which the second is an answer: I5
RETRY = 1.0  # seconds after which one that couldn't be sent is tried again
_MOST_STALE = 64  # times that count no more, beyond as many as there are segments

P = TypeVar("P", bound=Hashable)


@dataclass(slots=True)
class _Times:
    """Of one segment: when the next one is due, how many of the first ones are left, whether one is an answer, and when
    the last one was sent.
    """

    due: float
    initial: int = INITIAL
    answers: bool = False
    sent: float = -LEAST_BETWEEN


class Times(Generic[P]):
    """The segments where one is announced. All times are seconds; `draw` gives a random number from 0 to below 1."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._of: dict[P, _Times] = {}
        self._queue: list[tuple[float, int, P]] = []  # some count no more: what _of says does
        self._count = 0

    def __len__(self) -> int:
        return len(self._of)

    @property
    def due(self) -> float | None:
        """When one is due next; None: never."""
        while self._queue and not self._counts(self._queue[0]):
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else None

    def begin(self, segment: P, now: float) -> None:
        """A segment comes, or is another than before: the first ones, each after a random time (I3, §3)."""
        self._of[segment] = _Times(0.0)
        self._set(segment, now + self._draw() * MOST_INITIAL_WAIT)

    def end(self, segment: P) -> None:
        """A segment has gone."""
        self._of.pop(segment, None)

    def solicited(self, segment: P, now: float) -> None:
        """Somebody asks there: answered after a random time, or by one that comes before; ignored while an answer is
        due (I5, §3).
        """
        times = self._of.get(segment)
        if times is None or times.answers:
            return
        times.answers = True
        at = max(now + self._draw() * MOST_RESPONSE_DELAY, times.sent + LEAST_BETWEEN)
        if at < times.due:
            self._set(segment, at)

    def take(self, now: float, most: int) -> list[P]:
        """The segments where one is due, the first `most`: tried again soon, but where sent() says that it was sent."""
        taken: list[P] = []
        while len(taken) < most and (due := self.due) is not None and due <= now:
            taken.append(heapq.heappop(self._queue)[2])
            self._set(taken[-1], now + RETRY)
        return taken

    def sent(self, segment: P, now: float) -> None:
        """One was sent: the interval begins anew, and who has asked is answered."""
        times = self._of[segment]
        times.initial = max(times.initial - 1, 0)
        times.answers, times.sent = False, now
        drawn = self._draw()
        self._set(segment, now + (drawn * MOST_INITIAL_WAIT if times.initial else INTERVAL + (2 * drawn - 1) * JITTER))

    def _counts(self, queued: tuple[float, int, P]) -> bool:
        times = self._of.get(queued[2])
        return times is not None and times.due == queued[0]

    def _set(self, segment: P, due: float) -> None:
        self._of[segment].due = due
        self._count += 1
        heapq.heappush(self._queue, (due, self._count, segment))
        if len(self._queue) > 2 * len(self._of) + _MOST_STALE:
            self._queue = [queued for queued in self._queue if self._counts(queued)]
            heapq.heapify(self._queue)
