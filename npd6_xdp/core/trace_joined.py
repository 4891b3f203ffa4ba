# SPDX-License-Identifier: GPL-2.0-or-later
"""Of two sources, in whatever order they come, one line a solicitation: records of the program, and Python's verdicts.

What waits for its other half is bounded, in number and in time. Of each solicitation that was counted where it was
decided, either a line comes of this or it is lost; nothing is counted of a record about which nobody has said a word.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from npd6_xdp.core.trace_wire import Key, Record, TraceKind, Verdict
from npd6_xdp.core.traced import Traced
from npd6_xdp.core.verdict import Outcome

WAITS_FOR_RECORD = 1.0
"""Seconds after which a verdict's record counts as lost."""
WAITS_FOR_VERDICT = 2.0
"""Seconds after which a record whose outcome nobody has told is dropped."""
WAITS_FOR_ANSWER = 12.0
"""Seconds for which a question that is pending is kept for its late answer: it is given up after ten."""
MOST_WAITING = 16384
"""Records that wait for their verdicts, verdicts for their records, questions for their late answers, and these for
their questions: of each.
"""

_Place = tuple[int, bytes, bytes]  # of a Key, but for the rule: a reload gives who waits to another


class _Waiting(NamedTuple):
    since: float
    rule: int
    of: Record | Verdict


class _Shelf:
    """What waits, by its key, the oldest first."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: OrderedDict[_Place, list[_Waiting]] = OrderedDict()
        self._count = 0
        self._dropped = 0

    def put(self, key: Key, of: Record | Verdict, now: float) -> None:
        self._waiting.setdefault(key[:3], []).append(_Waiting(now, key.rule, of))
        self._count += 1
        if self._count > MOST_WAITING:
            self._drop_oldest()

    def take(self, key: Key, *, exactly: bool = True) -> Record | Verdict | None:
        """The one with this key, if there is one; else, not `exactly`, one of another rule."""
        place = key[:3]
        waiting = self._waiting.get(place)
        if waiting is None:
            return None
        found = next((each for each in waiting if each.rule == key.rule), None)
        if found is None and not exactly:
            found = waiting[0]
        if found is None:
            return None
        self._remove(place, waiting, found)
        return found.of

    def expire(self, now: float) -> int:
        """Drop what has waited for too long; how many that were, with those that were too many, since the last call."""
        while self._waiting and next(iter(self._waiting.values()))[0].since + self._seconds <= now:
            self._drop_oldest()
        dropped, self._dropped = self._dropped, 0
        return dropped

    def _drop_oldest(self) -> None:
        place, waiting = next(iter(self._waiting.items()))
        self._remove(place, waiting, waiting[0])
        self._dropped += 1

    def _remove(self, place: _Place, waiting: list[_Waiting], which: _Waiting) -> None:
        waiting.remove(which)
        self._count -= 1
        if not waiting:
            del self._waiting[place]


class Joined:
    """Joins them. Times are in seconds, of any one clock."""

    def __init__(self) -> None:
        self._undecided = _Shelf(WAITS_FOR_VERDICT)
        self._alone = _Shelf(WAITS_FOR_RECORD)
        self._asked = _Shelf(WAITS_FOR_ANSWER)
        self._late = _Shelf(WAITS_FOR_VERDICT)
        self._found: list[Traced] = []
        self.seen = 0
        """Solicitations of which there was a line, without those of late answers."""
        self.lost = 0
        """Verdicts without a record."""
        self.undecided = 0
        """Records without a verdict."""

    def see(self, record: Record, now: float) -> None:
        """A record of the program's."""
        key = record.key
        if record.kind is TraceKind.DECIDED:
            self._tell(record, record.outcome, record, "xdp" if record.advertisement else None)
        elif record.kind is TraceKind.FOUND:
            held = self._undecided.take(key)
            if isinstance(held, Record):
                self._tell(held, record.outcome, record, None)
            else:
                self.lost += 1  # on one CPU, what was held comes before what became of it
        elif isinstance(verdict := self._alone.take(key), Verdict):
            self._decide(record, verdict, now)
        else:
            self._undecided.put(key, record, now)

    def hear(self, verdict: Verdict, now: float) -> None:
        """A verdict of Python's."""
        if verdict.late:
            question = self._asked.take(verdict.key, exactly=False)
            if isinstance(question, Record):
                self._tell(question, verdict.outcome, verdict, "python", late=True)
            else:
                self._late.put(verdict.key, verdict, now)  # that it is pending may still be on its way, or its record
            return
        record = self._undecided.take(verdict.key)
        if isinstance(record, Record):
            self._decide(record, verdict, now)
        else:
            self._alone.put(verdict.key, verdict, now)

    def take(self, now: float, *, is_all: bool = True) -> list[Traced]:
        """The lines since the last call. Unless that `is_all` that there is of either source by now, nothing is given
        up that waits for the other one: a slow reader comes to that later.
        """
        if is_all:
            self.lost += self._alone.expire(now)
            self.undecided += self._undecided.expire(now)
            self._asked.expire(now)
            self._late.expire(now)
        found, self._found = self._found, []
        return found

    def finish(self, now: float) -> list[Traced]:
        """The same, when nothing more comes: nothing waits any longer."""
        return self.take(now + WAITS_FOR_ANSWER)

    def _decide(self, record: Record, verdict: Verdict, now: float) -> None:
        self._tell(record, verdict.outcome, verdict, "python" if verdict.advertisement else None)
        if verdict.outcome is not Outcome.PENDING:
            return
        late = self._late.take(record.key, exactly=False)
        if isinstance(late, Verdict):
            self._tell(record, late.outcome, late, "python", late=True)
        else:
            self._asked.put(record.key, record, now)

    def _tell(
        self, record: Record, outcome: Outcome, word: Record | Verdict, by: str | None, *, late: bool = False
    ) -> None:
        self.seen += not late
        self._found.append(
            Traced(
                time=record.time,
                ifindex=record.ifindex,
                entry=record.entry,
                rule=record.rule_id,
                decision=record.decision,
                outcome=outcome,
                reason=record.reason,
                limit=word.limit,
                frame=record.frame,
                size=record.size,
                advertisement=word.advertisement,
                by=by,
                late=late,
            )
        )
