# SPDX-License-Identifier: GPL-2.0-or-later
"""What was counted in the last five minutes: totals every few seconds, also those of processes before this one."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from npd6_xdp.core.judgement import WINDOW, Counted, ProblemKind

EVERY = 5.0
"""Seconds between two of them, at least."""
MOST_BYTES = 1 << 16
_MOST = int(WINDOW / EVERY) + 2
_MOST_RUNS = 8

_Sample = tuple[float, Mapping[str, int]]


class _Growth(NamedTuple):
    total: int
    last: float
    """When it was seen to grow; seconds."""


class Samples:
    """Bounded: 62 of this process, and of the seven before it what isn't older than that.

    Times are seconds since the epoch.
    """

    def __init__(self) -> None:
        self._own: deque[_Sample] = deque(maxlen=_MOST)
        self._before: list[list[_Sample]] = []
        self._growth: dict[tuple[ProblemKind, str], _Growth] = {}

    def add(self, now: float, totals: Mapping[str, int], counters: Iterable[Counted]) -> None:
        """Totals by outcome at a moment, and those counters whose growth is a problem.

        The first time that it sees one it knows nothing of it: a driver's may have grown for days.
        """
        if self._own and now <= self._own[-1][0]:  # the clock was set back: what is known is of another time
            self._own.clear()
            self._growth = {key: _Growth(each.total, float("-inf")) for key, each in self._growth.items()}
        self._own.append((now, {name: count for name, count in totals.items() if count}))
        fresh = {}
        for kind, name, total in counters:
            before = self._growth.get((kind, name))
            grew = before is not None and total > before.total
            fresh[kind, name] = _Growth(total, now if grew else float("-inf") if before is None else before.last)
        self._growth = fresh

    def counted(self, now: float) -> list[Counted]:
        """The counters that have grown in the last five minutes."""
        growth = self._growth
        return [Counted(*key, each.total) for key, each in growth.items() if each.last > now - WINDOW]

    def outcomes(self, now: float) -> dict[str, int]:
        """How many solicitations of each outcome there were in the last five minutes, by this process."""
        own = [sample for sample in tuple(self._own) if sample[0] > now - WINDOW - EVERY]
        if len(own) < 2:
            return {}
        (_, first), (_, last) = own[0], own[-1]
        return {name: count - first.get(name, 0) for name, count in last.items() if count > first.get(name, 0)}

    def values(self, now: float) -> dict[str, Any]:
        """As plain values: `runs`, each a list of [time, totals], one for each process, the oldest first."""
        recent = [[[t, c] for t, c in run if now - WINDOW - EVERY <= t <= now] for run in (*self._before, [*self._own])]
        return {"every": EVERY, "runs": [run for run in recent if run][-_MOST_RUNS:]}

    def pack(self, now: float) -> bytes:
        """For the next process."""
        return json.dumps(self.values(now), separators=(",", ":")).encode()

    def take(self, data: bytes) -> None:
        """What a process before has packed. Raises ValueError, with nothing taken, where it is nothing of the kind."""
        try:
            runs: list[list[_Sample]] = [
                [(float(time), {str(name): int(count) for name, count in totals.items()}) for time, totals in run]
                for run in json.loads(data)["runs"]
            ]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"no samples are in it: {error}") from error
        if len(runs) > _MOST_RUNS or sum(map(len, runs)) > _MOST_RUNS * _MOST:
            raise ValueError("more samples than there can be")
        self._before = runs
