# SPDX-License-Identifier: GPL-2.0-or-later
"""What one of two edges remembers of targets that may not be there: apart from those that are (docs/rules.md, J3).

The XDP program writes both down in maps of their own, so a scan pushes out none that is known. What was asked for is
looked through here each second: on standby, it is kept apart from scans by how it was asked for (core/presumed.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from npd6_xdp.core.event import EventFlag, NsEvent
from npd6_xdp.core.presumed import Presumed
from npd6_xdp.core.remembered import AnsweredTarget, Doubt
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.core.table import Decision, Rule
from npd6_xdp.daemon.in_force import NOTHING, Follower, InForce
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.turns import SLICE
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.clock import machine_ns

_EVERY = 1.0  # seconds
_BIT = 256  # targets that are looked at, at once
_TAGS = EventFlag.COUNT | EventFlag.OUTER_8021AD | EventFlag.INNER_8021AD


class Remembering(Follower):
    """Of entries with `active_with` and a rule of method neighbour."""

    WHERE = "announcements"

    def __init__(self, ns_filter: NsFilter) -> None:
        self._ns_filter = ns_filter
        self._in_force = NOTHING
        self._presumed = Presumed()
        self._looks_at: float | None = None
        self._looking: Iterator[None] | None = None

    def join(self, loop: Loop) -> None:
        """Have the loop call each second, where there is anything to remember."""
        loop.at(lambda: self._looks_at, self._go_on, self.WHERE)

    def apply(self, new: InForce) -> None:
        """What isn't known to be there on entries that are gone is forgotten."""
        self._in_force = new
        remembering = {entry.id for entry in new.table.live(Decision.NEIGHBOUR) if entry.active_with}
        self._presumed.most = new.config.limits.remembered_targets
        self._presumed.keep(remembering)
        self._looking = None  # of a program that another may have taken over from
        self._looks_at = (self._looks_at or time.monotonic() + _EVERY) if remembering else None

    def found(self, event: NsEvent, rule: Rule) -> None:
        """A target is there for which somebody has asked, or which is to be announced."""
        entry = self._in_force.table.entries.get(rule.entry)
        if rule.decision is not Decision.NEIGHBOUR or entry is None or not entry.active_with or event.is_dad:
            return
        presumed = self._presumed.pop(entry.id, event.target)
        if not event.is_ours:  # that is, somebody has
            asked = AnsweredTarget(entry.id, event.target, machine_ns(), event.tci, event.flags & _TAGS)
            self._ns_filter.remember([asked])
        elif presumed is not None:
            self._ns_filter.remember([presumed])

    def take(self, targets: list[AnsweredTarget]) -> None:
        """What a predecessor remembered, those that were asked for last at the end."""
        self._ns_filter.remember(each for each in targets if each.doubt is Doubt.NONE)
        self._presumed.most = len(targets)  # until the limits are known
        self._presumed.take(each for each in targets if each.doubt is not Doubt.NONE)

    def counting(self) -> Steps[int]:
        """How many there are of the kind of which there are most; of each there may be limits.remembered_targets."""
        return max((yield from self._ns_filter.counting_answered_targets()), self._presumed.fullest)

    def each(self) -> Iterator[AnsweredTarget]:
        """All that may be announced, those that aren't known to be there first; one may come twice."""
        yield from self._presumed
        for each in self._ns_filter.each_asked_target():
            yield each.target._replace(doubt=each.doubt)
        yield from self._ns_filter.each_answered_target()

    def _go_on(self, now: float) -> None:
        if self._looking is None:
            self._looking = self._look()
        deadline = time.monotonic() + SLICE
        for _ in self._looking:
            if time.monotonic() >= deadline:
                self._looks_at = now
                return
        self._looking, self._looks_at = None, now + _EVERY

    def _look(self) -> Steps[None]:
        """Look through what was asked for, and forget of it what is settled."""
        on_standby, gone = self._in_force.table.waiting, list[AnsweredTarget]()
        for some in pieces(self._ns_filter.each_asked_target(), _BIT):
            known, settled = self._presumed.sort(some, on_standby, machine_ns())
            if known:
                self._ns_filter.remember(known)
            gone += settled
            yield
        for done in pieces(gone, _BIT):  # not before: the kernel finds no way on from a key that is gone
            self._ns_filter.forget_asked(done)
            yield
