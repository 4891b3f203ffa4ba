# SPDX-License-Identifier: GPL-2.0-or-later
"""Which target is to be announced next, and when: unsolicited advertisements at a pace (J5, RFC 4861 §7.2.6)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

from npd6_xdp.core.remembered import Doubt

MOST_TIMES = 3
"""MAX_NEIGHBOR_ADVERTISEMENT: how often each may be (RFC 4861 §10)."""
APART = 1.0
"""RetransTimer: seconds between two for the same target, at the least."""
TICK = 0.01
"""Seconds for which those that are due are sent together."""
ARREARS = 0.1
"""Seconds for which those are made up for that a turn was late, as each is a little, and by much on a busy machine."""
MOST_SOUGHT = 64
"""Targets that are looked for at once. Nobody has asked for them, and questions need the same space."""
PATIENCE = 1.2
"""Seconds after which such a target is left out. Who is there answers in milliseconds, or the kernel's second
question, after one."""
MOST_MISSED = 1024
"""Targets of one turn that were in doubt, and aren't found; then no more such ones are looked for. A scan may have left
65,536 that never were."""
_MOST_TRIED = 256  # targets that are decided at once: 5 ms
_LATER = 0.1  # seconds until there may be space to look for one more


class Announced(NamedTuple):
    """A target to be announced; `tci` and `flags` are the VLAN tags, as an NsEvent has them. `doubt`: is it there?"""

    target: bytes
    tci: bytes = bytes(4)
    flags: int = 0
    doubt: Doubt = Doubt.NONE


class Fate(Enum):
    """What has become of one that was to be announced."""

    SAID = "said"
    UNKNOWN = "unknown"
    """It has to be looked for first."""
    LEFT_OUT = "left out"
    """It isn't answered now, so it isn't announced."""


class _Turn:
    """What an entry has to announce: `todo` for the first time. `left` counts what it waits for, all in all."""

    def __init__(self, entry: int, targets: Iterable[Announced]) -> None:
        self.entry = entry
        self.todo = deque(targets)
        self.left = len(self.todo)
        self.is_ready = False  # its next one may be announced
        self.unknown: deque[Announced] = deque()
        self.missed: Counter[Doubt] = Counter()  # of those that were looked for


class _Again(NamedTuple):
    """One that is to be announced again, and how often it was."""

    due: float
    turn: _Turn
    one: Announced
    times: int


class Announcements:
    """Those that are under way. `say` announces one, or says why not; `seek` has one looked for, if there is space.

    Each is announced once before any is again, and entries take turns. All times are seconds (monotonic).
    """

    def __init__(self, say: Callable[[int, Announced], Fate], seek: Callable[[int, Announced], bool]) -> None:
        self._say = say
        self._seek = seek
        self._turns: dict[int, list[_Turn]] = {}  # by entry
        self._ready: deque[_Turn] = deque()
        self._again: deque[_Again] = deque()  # in the order of their time
        self._seekers: deque[_Turn] = deque()  # those that have unknown ones
        self._sought: dict[tuple[int, bytes], tuple[float, _Turn, Announced]] = {}  # until when; the first ones first
        self._seek_at = 0.0
        self._next = 0.0  # when the next one is paid for
        self._rests_until = 0.0
        self._waits = False  # whether the turn before has left some that it hadn't paid for

    def __len__(self) -> int:
        """How many turns of entries are under way."""
        return sum(map(len, self._turns.values()))

    def begin(self, entry: int, targets: Iterable[Announced]) -> None:
        """Announce these of an entry, in this order."""
        turn = _Turn(entry, targets)
        if turn.todo:
            self._turns.setdefault(entry, []).append(turn)
            self._get_ready(turn)

    def end(self, entry: int) -> None:
        """Announce nothing more of an entry."""
        for turn in self._turns.pop(entry, ()):
            turn.left = 0
            turn.todo.clear()
            turn.unknown.clear()
        for key in [key for key in self._sought if key[0] == entry]:
            del self._sought[key]

    def found(self, entry: int, target: bytes) -> None:
        """A target is there; nothing happens if it isn't looked for."""
        if (sought := self._sought.pop((entry, target), None)) is not None:
            _, turn, one = sought
            turn.todo.appendleft(one)
            self._get_ready(turn)

    @property
    def due(self) -> float | None:
        """When to call go_on(); None: nothing is to be announced."""
        times = []
        if self._ready or self._again:
            begins = 0.0 if self._ready else self._again[0].due
            times.append(max(self._next, self._rests_until, begins))
        if self._seekers and len(self._sought) < MOST_SOUGHT:
            times.append(self._seek_at)
        if self._sought:
            times.append(next(iter(self._sought.values()))[0])
        return min(times, default=None)

    def go_on(self, now: float, rate: int) -> None:
        """Announce those that are due, `rate` a second."""
        self._next = max(self._next, now - (ARREARS if self._waits else TICK))
        tried = 0
        while self._next <= now and tried < _MOST_TRIED and (one := self._take(now)) is not None:
            tried += 1
            match self._say(one.turn.entry, one.one):
                case Fate.SAID:
                    self._next += 1 / rate
                    if one.times + 1 < MOST_TIMES:
                        self._again.append(_Again(now + APART, one.turn, one.one, one.times + 1))
                    else:
                        self._finish(one.turn)
                case Fate.UNKNOWN if not one.times:
                    if not one.turn.unknown:
                        self._seekers.append(one.turn)
                    one.turn.unknown.append(one.one)
                case _:
                    self._finish(one.turn)
        self._rests_until = now + TICK if self._next > now else now
        self._waits = bool(self._ready or (self._again and self._again[0].due <= now))
        self._look(now)

    def _get_ready(self, turn: _Turn) -> None:
        if not turn.is_ready:
            turn.is_ready = True
            self._ready.append(turn)

    def _take(self, now: float) -> _Again | None:
        """The next one, which may be announced now."""
        while self._ready:
            turn = self._ready.popleft()
            turn.is_ready = False
            if turn.todo:  # else it was ended
                one = turn.todo.popleft()
                if turn.todo:
                    self._get_ready(turn)
                return _Again(now, turn, one, 0)
        while self._again and self._again[0].due <= now:
            again = self._again.popleft()
            if again.turn.left:
                return again
        return None

    def _finish(self, turn: _Turn) -> None:
        """One of its targets needs no more."""
        turn.left -= 1
        mine = self._turns.get(turn.entry, [])
        if not turn.left and turn in mine:
            mine.remove(turn)
            if not mine:
                del self._turns[turn.entry]

    def _look(self, now: float) -> None:
        """Have unknown targets looked for, a few at a time, the first ones first; who isn't found is left out."""
        while self._sought:
            key, (until, turn, sought) = next(iter(self._sought.items()))
            if until > now:
                break
            del self._sought[key]
            turn.missed[sought.doubt] += 1
            self._finish(turn)
        self._seek_at = now + _LATER
        while self._seekers and len(self._sought) < MOST_SOUGHT:
            turn = self._seekers[0]
            if not turn.unknown:
                self._seekers.popleft()
                continue
            one = turn.unknown[0]
            is_enough = one.doubt is not Doubt.NONE and turn.missed[one.doubt] >= MOST_MISSED
            if is_enough or (turn.entry, one.target) in self._sought:  # or another turn looks for it
                turn.unknown.popleft()
                self._finish(turn)
                continue
            self._sought[turn.entry, one.target] = now + PATIENCE, turn, one  # before: it may be found at once
            if not self._seek(turn.entry, one):
                self._sought.pop((turn.entry, one.target), None)
                return
            turn.unknown.popleft()
