# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour`: an address in two places: which of them is asked, and which counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from npd6_xdp.core.neighbour_messages import CONFIRMED
from npd6_xdp.core.neighbours import Host

PATIENCE = 0.5
"""Seconds after which a probe counts as unanswered. The kernel sends its second one later (RetransTimer, RFC 4861 §10).
"""
FRESH = 0.2
"""Seconds after an answer in which the host isn't probed again. Else two hosts with one address would be probed in turn
for ever.
"""
MAX_CONTESTS = 4096
"""How many addresses in two places are probed at once; for one more, the first place goes on counting."""
_GIVE_UP = 10.0  # seconds: the kernel has decided by then, unless its notification was lost
_PAUSE = 0.02  # seconds between two looks at all contests
_CONFIRMED = int(CONFIRMED)  # as a plain number: an enum's `&` takes a microsecond
NEVER, NO_TIME = float("-inf"), float("inf")  # seconds, monotonic


@dataclass(slots=True)
class Place:
    """One entry of a neighbour table. `counts`: it was passed on as a host's."""

    state: int
    mac: bytes
    proven: bool
    confirmed: float = NEVER  # seconds, monotonic
    counts: bool = False


class _Stage(Enum):
    """What becomes of two places of one address."""

    WAITING = auto()  # the first place has answered a moment ago: it is probed once that answer is old
    ASKING = auto()  # its probe is to be sent
    ASKED = auto()
    OVERDUE = auto()  # that probe is unanswered: a place that answered takes over


@dataclass(slots=True)
class _Contest:
    """Two places of one address. `since` is when its stage began; for WAITING, when it is to end (seconds, monotonic).
    `asked` is when the probe was sent. `former` is the place that has lost to another, and may still answer.
    """

    since: float
    stage: _Stage = _Stage.WAITING
    asked: float = NEVER
    former: int = 0

    @property
    def due(self) -> float:
        return self.since + _STAGES[self.stage]


_STAGES = {_Stage.WAITING: 0.0, _Stage.ASKING: _GIVE_UP, _Stage.ASKED: PATIENCE, _Stage.OVERDUE: _GIVE_UP}


Key = tuple[int, bytes]
"""Links between which questions are answered, and an address: in one place."""


class Contests:
    """Which of several places of one address counts. Who is to be asked for that is put into `to_ask`."""

    def __init__(self, to_ask: dict[Host, None]) -> None:
        self._due = NO_TIME
        self._contests: dict[Key, _Contest] = {}
        self._to_ask = to_ask

    def __len__(self) -> int:
        return len(self._contests)

    @property
    def due(self) -> float:
        """When a stage ends (seconds, monotonic)."""
        return self._due if self._contests else NO_TIME

    def clear(self) -> None:
        """Forget all addresses in two places."""
        self._contests.clear()

    def end(self, key: Key) -> None:
        """A place of an address is gone, or was confirmed."""
        self._contests.pop(key, None)

    def choose(self, key: Key, places: Mapping[int, Place], fixed: Collection[int], now: float) -> int:
        """Choose which of several places counts; 0 for none. Where it isn't sure, they are asked.

        `fixed` are those of them that nobody can displace.
        """
        proven = {ifindex: place for ifindex, place in places.items() if place.proven}
        if not proven:
            return 0
        holders = [ifindex for ifindex in proven if proven[ifindex].counts]
        sure = [ifindex for ifindex in proven if ifindex in fixed]
        if sure:
            self._contests.pop(key, None)
            return next((ifindex for ifindex in sure if ifindex in holders), sure[0])
        if len(holders) == 1:
            holder = holders[0]
        else:  # no place counted yet, or a new table makes several rivals: take the one that was heard last
            holder = max(
                proven, key=lambda ifindex: (bool(proven[ifindex].state & _CONFIRMED), proven[ifindex].confirmed)
            )
        if len(places) == 1:
            return holder
        contest = self._contests.get(key)
        if contest is None:
            self._open(key, places, holder, now)
        elif contest.former in places and places[contest.former].confirmed >= contest.asked:
            del self._contests[key]  # a late answer is an answer
            self._to_ask[Host(holder, key[1])] = None  # else the kernel would take it for there until it is old
            return contest.former
        elif contest.stage is _Stage.OVERDUE and not contest.former:
            return self._displace(contest, places, holder)
        return holder

    def _open(self, key: Key, places: Mapping[int, Place], holder: int, now: float) -> None:
        if len(self._contests) >= MAX_CONTESTS:
            return
        contest = self._contests[key] = _Contest(max(now, places[holder].confirmed + FRESH))
        if contest.since <= now:
            self._ask_all(contest, key[1], places, holder, now)
        self._due = min(self._due, contest.due)

    def _ask_all(self, contest: _Contest, address: bytes, places: Mapping[int, Place], holder: int, now: float) -> None:
        contest.since, contest.stage = now, _Stage.ASKING
        self._to_ask[Host(holder, address)] = None
        for ifindex, place in places.items():
            if ifindex != holder and not place.state & _CONFIRMED:
                self._to_ask[Host(ifindex, address)] = None

    @staticmethod
    def _displace(contest: _Contest, places: Mapping[int, Place], holder: int) -> int:
        """The probe of the place that counts is unanswered: one that has answered takes over, if there is one."""
        if places[holder].confirmed >= contest.asked:
            return holder
        answered = [ifindex for ifindex, place in places.items() if ifindex != holder and place.state & _CONFIRMED]
        if not answered:
            return holder
        contest.former = holder
        return max(answered, key=lambda ifindex: places[ifindex].confirmed)

    def answered(self, key: Key) -> None:
        """The place that counts was confirmed."""
        contest = self._contests.get(key)
        if contest is not None and contest.stage in (_Stage.ASKED, _Stage.OVERDUE) and not contest.former:
            del self._contests[key]

    def asked(self, key: Key, now: float) -> None:
        """The probe of the place that counts is sent."""
        contest = self._contests.get(key)
        if contest is not None and contest.stage is _Stage.ASKING:
            contest.since, contest.stage, contest.asked = now, _Stage.ASKED, now
            self._due = min(self._due, contest.due)

    def going_on(self, now: float, places_of: Callable[[Key], Mapping[int, Place]]) -> Iterator[Key]:
        """Go on with those whose stage ends now. Returns those for which choose() may give another result now."""
        if now < self._due:
            return
        for key, contest in tuple(self._contests.items()):
            if contest.due <= now and self._go_on(key, contest, places_of(key), now):
                yield key
        earliest = min((contest.due for contest in self._contests.values()), default=NO_TIME)
        self._due = max(earliest, now + _PAUSE)

    def _go_on(self, key: Key, contest: _Contest, places: Mapping[int, Place], now: float) -> bool:
        holder = next((ifindex for ifindex, place in places.items() if place.counts), 0)
        if len(places) < 2 or not holder or contest.stage in (_Stage.ASKING, _Stage.OVERDUE):
            del self._contests[key]
        elif contest.stage is _Stage.WAITING:
            self._ask_all(contest, key[1], places, holder, now)
        else:
            contest.since, contest.stage = now, _Stage.OVERDUE
            return True
        return False
