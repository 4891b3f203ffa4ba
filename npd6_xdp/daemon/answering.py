# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of the events of the XDP program: answered in bulk, or one at a time where there is more to do."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv6Address
from typing import Protocol

from npd6_xdp.core.event import RECORD_SIZE, EventFlag, NsEvent
from npd6_xdp.core.frames import Frames, Shape
from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.core.logged import Fields, fields, named
from npd6_xdp.core.responder import Responder
from npd6_xdp.core.snapshot import AnswerTimes
from npd6_xdp.core.table import Rule
from npd6_xdp.core.verdict import Limit, Method, Outcome
from npd6_xdp.daemon.counts import Counts
from npd6_xdp.daemon.in_force import NOTHING, Follower, InForce
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.daemon.recent_targets import RecentTargets
from npd6_xdp.system.bpf.events import BATCH
from npd6_xdp.system.clock import machine_ns
from npd6_xdp.system.sender import Outbox

log = logging.getLogger("npd6-xdp")

_DEBUG_LINES = 10  # a second, about solicitations
_UNSETTLED = 512  # answers that may wait to be counted, under a stream that never lets us rest
_NOTICED = EventFlag.HEARD | EventFlag.STALE
_MICROSECONDS = 0xFFFFFFFF  # an event's time is modulo this and one


Handler = Callable[[NsEvent, Rule], Outcome | Limit | None]
"""Does what there is to do for an event besides answering it, and says what became of it: a limit that was in its way,
if it was refused. None: answer it.
"""


class Told(Protocol):
    """Who hears of each solicitation that the program has marked (EventFlag.TRACED)."""

    def plain(self, frames: Frames, failed: Sequence[int]) -> None:
        """Advertisements were sent side by side, but for these."""
        ...

    def one(self, event: NsEvent, outcome: Outcome | Limit, advertisement: bytes | None) -> None:
        """What became of one."""
        ...

    def late(self, event: NsEvent, advertisement: bytes) -> None:
        """One who has waited was answered."""
        ...

    def pause(self) -> None:
        """That was all of this look into the rings."""
        ...


class Answering(Follower):
    """Answers by the table in force, and counts. What an event makes us raise is told to `failed`, and costs that event
    only.
    """

    WHERE = "events"

    def __init__(
        self,
        ports: Ports,
        counts: Counts,
        recent_targets: RecentTargets,
        failed: Callable[[str, BaseException], None],
    ) -> None:
        self._ports = ports
        self._counts = counts
        self._recent_targets = recent_targets
        self._handlers: Mapping[Method, Handler] = {}
        self._notice: Callable[[NsEvent, Rule], None] = lambda *_: None
        self._found: Callable[[NsEvent, Rule], None] = lambda *_: None
        self._report = failed
        self._in_force = NOTHING
        self._responder = Responder(NOTHING.table)
        self._former, self._former_responder = NOTHING, self._responder
        self._outbox = Outbox(Frames(BATCH))
        self._debug_left = _DEBUG_LINES
        self._debug_second = 0.0
        self.times = AnswerTimes()
        self.told: Told | None = None
        """Who hears of what the program has marked, if anybody does."""
        self.others = 0
        """How many events there were so far for which more was to be done than to answer them."""
        # of those that are to be counted yet:
        self._tried_alone: dict[Shape, int] = {}
        self._alone = 0  # how many these are
        self._tried: list[Shape] = []  # of runs
        self._unsent: list[Shape] = []  # of the tried ones
        self._latencies: list[int] = []  # microseconds, of the others

    def join(
        self,
        handlers: Mapping[Method, Handler],
        notice: Callable[[NsEvent, Rule], None],
        found: Callable[[NsEvent, Rule], None],
    ) -> None:
        """Who handles the events of a method's rules, who takes notice of what else the XDP program has seen, and who
        is told of targets that were found, also where nobody has asked for them.
        """
        self._handlers, self._notice, self._found = handlers, notice, found

    def apply(self, new: InForce) -> None:
        """Answer by this table from now on; events that were matched by the one before, by that."""
        self.count()
        if self._former_responder is not self._responder:
            self._former_responder.discard()
        self._former, self._former_responder = self._in_force, self._responder
        self._in_force, self._responder = new, Responder(new.table)

    def rule(self, number: int) -> Rule | None:
        """The rule of an event; that may be one of the table before this one."""
        rule = self._in_force.table.rules.get(number)
        return self._former.table.rules.get(number) if rule is None else rule

    def answer(self, runs: list[bytes]) -> int:
        """Answer runs of events, at most BATCH in all; how many there were."""
        if not runs:
            return 0
        try:
            if len(runs) == 1 and len(runs[0]) == RECORD_SIZE and self._answer_alone(runs[0]):
                return 1
            others = self._answer_plain(runs)
        except Exception as error:
            self._report(self.WHERE, error)
            self._outbox.frames.clear()
            others = _unpacked(runs)
        if len(runs) > 1 and len(others) > 1:
            # each CPU's ring has its own: what came first on one link may tell what to make of what came on another
            now = machine_ns() // 1000
            others.sort(key=lambda event: (now - event.time_us) & _MICROSECONDS, reverse=True)
        for event in others:
            try:
                self._answer_one(event)
            except Exception as error:
                self._report(self.WHERE, error)
        count = sum(map(len, runs)) // RECORD_SIZE
        self.others += len(others)
        if self.told is not None:
            self.others += count
            self.told.pause()
        return count

    def _answer_alone(self, record: bytes) -> bool:
        """Answer an event that came alone, if it only wants an answer and nobody is told of it; whether it was."""
        if self.told is not None or log.isEnabledFor(logging.DEBUG):
            return False
        answer = self._responder.answer_one(record)
        if answer is None:
            return False
        shape, frame, time_us = answer
        is_sent = self._ports.send(shape.ifindex, frame)
        self._tried_alone[shape] = self._tried_alone.get(shape, 0) + 1
        self._alone += 1
        if is_sent:
            self.times.observe((machine_ns() // 1000 - time_us) & _MICROSECONDS)
        else:
            self._note_unsent(shape, frame, time_us)
        if self._alone > _UNSETTLED:
            self.count()
        return True

    def _answer_plain(self, runs: list[bytes]) -> list[NsEvent]:
        """Answer those events that only want an answer; the others."""
        if log.isEnabledFor(logging.DEBUG):
            return _unpacked(runs)
        frames = self._outbox.frames
        others: list[NsEvent] = []
        for run in runs:
            others += self._responder.answer_run(run, frames)
        if frames.shapes:
            failed = self._ports.send_all(self._outbox)
            now = machine_ns() // 1000
            latencies = [(now - then) & _MICROSECONDS for then in frames.times]
            for index in reversed(failed):
                del latencies[index]
                self._note_unsent(frames.shapes[index], frames.frame(index), frames.times[index])
            if self.told is not None and any(shape.traced for shape in frames.shapes):
                self.told.plain(frames, failed)
            self._latencies += latencies
            self._tried += frames.shapes
            frames.clear()
            if len(self._tried) > _UNSETTLED:
                self.count()
        return others

    def _note_unsent(self, shape: Shape, frame: bytes, time_us: int) -> None:
        self._unsent.append(shape)
        rule = self.rule(shape.rule)
        if rule is not None:
            self._recent_targets.unsent(rule, NeighborAdvertisement.parse(frame).target, time_us)

    def count(self) -> None:
        """Count what was answered. Not with each answer, but once a look finds the rings empty or _UNSETTLED are
        uncounted, since nobody but the asker is in a hurry.
        """
        tried, failed = self._tried, self._unsent
        counted, self._tried_alone, self._alone = self._tried_alone, {}, 0
        if tried:
            self.times.observe_all(self._latencies)
            is_one = tried.count(tried[0]) == len(tried)
            for shape, count in ((tried[0], len(tried)),) if is_one else Counter(tried).items():
                counted[shape] = counted.get(shape, 0) + count
        for shape, count in counted.items():
            rule = self.rule(shape.rule)
            if rule is not None:
                unsent = failed.count(shape)
                self._counts.count(rule, Outcome.ANSWERED_PYTHON, count - unsent)
                if unsent:
                    self._counts.count(rule, Outcome.FAILED, unsent)
        self._tried, self._unsent, self._latencies = [], [], []

    def _answer_one(self, event: NsEvent) -> None:
        rule = self.rule(event.rule)
        if rule is None:
            return  # of an entry that is gone, and whose counters are, too
        if self._in_force.table.on_standby(rule.entry):  # by now
            if not event.flags & EventFlag.ANSWERED:
                self._counts.count(rule, Outcome.STANDBY)
                self._recent_targets.found(event, rule, Outcome.STANDBY)
                self._tell(event, Outcome.STANDBY)
            return
        if event.flags & _NOTICED:
            self._notice(event, rule)
        if event.flags & EventFlag.ANSWERED:
            return  # counted where it was answered
        handler = self._handlers.get(rule.method)
        outcome = None if handler is None else handler(event, rule)
        advertisement = None
        if outcome is None:
            advertisement = self._send(event)
            outcome = Outcome.FAILED if advertisement is None else Outcome.ANSWERED_PYTHON
            if advertisement is not None and event.flags & EventFlag.MISS:
                self._found(event, rule)
        self._tell(event, outcome, advertisement)
        if isinstance(outcome, Limit):
            self._counts.count_refused(rule, outcome)
        else:
            self._counts.count(rule, outcome)
        self._recent_targets.found(event, rule, outcome)
        if log.isEnabledFor(logging.DEBUG):
            self._debug(event, rule, outcome)

    def answer_late(self, event: NsEvent) -> None:
        """Answer one who has waited for a target to be resolved. It was counted as `pending`, so an advertisement that
        can't be sent isn't counted as `failed`.
        """
        rule = self.rule(event.rule)
        if rule is None or self._in_force.table.on_standby(rule.entry):
            return
        self._found(event, rule)
        if event.is_ours:
            return
        if (advertisement := self._send(event)) is not None:
            self._counts.count_late(rule)
            if self.told is not None and event.flags & EventFlag.TRACED:
                self.told.late(event, advertisement)

    def _tell(self, event: NsEvent, outcome: Outcome | Limit, advertisement: bytes | None = None) -> None:
        if self.told is not None and event.flags & EventFlag.TRACED:
            self.told.one(event, outcome, advertisement)

    def _send(self, event: NsEvent) -> bytes | None:
        """The advertisement that has gone out."""
        responder = self._responder if event.rule in self._in_force.table.rules else self._former_responder
        answer = responder.answer(event)
        if not self._ports.send(answer.ifindex, answer.frame):
            return None
        self.times.observe_all([(machine_ns() // 1000 - event.time_us) & _MICROSECONDS])
        return answer.frame

    def _debug(self, event: NsEvent, rule: Rule, outcome: Outcome | Limit) -> None:
        """A line about one solicitation, but not so many that the log is a flood of its own."""
        now = time.monotonic()
        if now - self._debug_second >= 1:
            self._debug_second, self._debug_left = now, _DEBUG_LINES
        if self._debug_left:
            self._debug_left -= 1
            entry = self._in_force.table.entries.get(rule.entry) or self._former.table.entries[rule.entry]
            source, target = IPv6Address(event.source), IPv6Address(event.target)
            became = f"{Outcome.RATE_LIMITED} ({outcome})" if isinstance(outcome, Limit) else outcome
            known = Fields(rule=rule.config.prefix, target=str(target), ifindex=entry.ifindex)
            outcome = Outcome.RATE_LIMITED if isinstance(outcome, Limit) else outcome
            extra = fields(**named(entry.label), **known, outcome=str(outcome))  # type: ignore[misc]
            log.debug("%s: %s asks who has %s: %s", entry.label, source, target, became, extra=extra)


def _unpacked(runs: list[bytes]) -> list[NsEvent]:
    return [event for run in runs for event in NsEvent.unpack_run(run)]
