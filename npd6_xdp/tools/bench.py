# SPDX-License-Identifier: GPL-2.0-or-later
"""The real XDP program without an interface: BPF_PROG_TEST_RUN runs it on bytes, and its maps say what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from npd6_xdp.core.config import Limits
from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.responder import Responder
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Limit, Outcome, Reason
from npd6_xdp.system.bpf.events import RING_PAGES, EventRing
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.bpf.testrun import LOOPBACK, TestRun

UNLIMITED = Limits(events_per_second=1_000_000_000)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the program did with one frame: `counted`, `reasons` and `limits` are the counters that went up, by one
    each.
    """

    action: int
    frame: bytes
    counted: tuple[Outcome, ...]
    reasons: tuple[Reason, ...]
    limits: tuple[Limit, ...] = ()


class Bench:
    """A loaded program, the table it decides by, and its ring. Frames come in by the interface `ifindex`."""

    def __init__(
        self, table: Table, pages: int = RING_PAGES, limits: Limits = UNLIMITED, ifindex: int = LOOPBACK
    ) -> None:
        self.table = table
        self.ns_filter = NsFilter(table, limits)
        self.ring = EventRing(self.ns_filter.program.maps, pages)
        self._runs = TestRun()
        self._ifindex = ifindex
        self.use(table)

    def close(self) -> None:
        """Give back the program and its ring."""
        self.ring.close()
        self.ns_filter.close()

    def use(self, table: Table) -> None:
        """Decide by another table from now on; what is still in the ring is dropped."""
        self.table = table
        self.ns_filter.apply(table)
        self.responder = Responder(table)
        while self.ring.read():
            pass

    def run(self, frame: bytes) -> tuple[int, bytes]:
        """The action, and the frame as the program left it. Raises OSError for a frame that is too short or long."""
        ran = self._runs.run(self.ns_filter.program.fd, frame, ifindex=self._ifindex)
        return ran.action, ran.frame

    def see(self, frame: bytes) -> Seen:
        """Run a frame and compare all counters before and after."""
        before, refused_before = self.totals(), self.refused()
        action, out = self.run(frame)
        after, refused = self.totals(), self.refused()
        grown: list[Any] = []
        for name, count in after.items():
            assert count - before[name] in (0, 1), name
            grown += [name] if count > before[name] else []
        return Seen(
            action,
            out,
            tuple(name for name in grown if isinstance(name, Outcome)),
            tuple(name for name in grown if isinstance(name, Reason)),
            tuple((refused - refused_before).elements()),
        )

    def refused(self) -> Counter[Limit]:
        """How many were refused by which limit, summed over the entries."""
        each = (self.ns_filter.entry_counters(entry).limits for entry in self.table.entries)
        return sum(map(Counter, each), Counter[Limit]())

    def totals(self) -> Mapping[Outcome | Reason, int]:
        """All counters of outcomes and reasons, summed over the entries."""
        counters = [self.ns_filter.entry_counters(entry) for entry in self.table.entries]
        sums: dict[Outcome | Reason, int] = {}
        for outcome in Outcome:
            sums[outcome] = sum(each.outcomes[outcome] for each in counters)
        for reason in Reason:
            sums[reason] = sum(each.reasons[reason] for each in counters)
        return sums

    def events(self) -> list[NsEvent]:
        """All that is in the ring."""
        events: list[NsEvent] = []
        while runs := self.ring.read():
            events += (event for run in runs for event in NsEvent.unpack_run(run))
        return events

    def answers(self) -> list[bytes]:
        """What Python answers to all that is in the ring."""
        return [self.responder.answer(event).frame for event in self.events()]
