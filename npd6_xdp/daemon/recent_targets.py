# SPDX-License-Identifier: GPL-2.0-or-later
"""The recent targets: what the XDP program remembers of them, and what Python has found out since."""

from __future__ import annotations

import time
from collections import Counter
from ipaddress import IPv6Address

from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.snapshot import TargetSnapshot
from npd6_xdp.core.steps import Steps, in_order, listed, pieces
from npd6_xdp.core.table import Rule, Table
from npd6_xdp.core.verdict import Limit, Outcome
from npd6_xdp.daemon.in_force import NOTHING, Follower, InForce
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.bpf.recent import Recent
from npd6_xdp.system.clock import machine_ns

_MICROSECONDS = 0xFFFFFFFF  # an event's time is modulo this and one
_NEVER_COVERED = (Outcome.UNMATCHED, Outcome.IGNORED)


class RecentTargets(Follower):
    """Of each entry as many as it collects.

    The program writes down who asks and what is to be expected of an event. What became of it is kept here, by the
    event's time, and counts as long as nobody has asked since: to write into the program's map would undo what the
    program writes there at the same moment.
    """

    def __init__(self, ns_filter: NsFilter) -> None:
        self._ns_filter = ns_filter
        self._in_force = NOTHING
        self._most = 0
        self._found: dict[tuple[int, bytes], tuple[int, Outcome]] = {}  # in the order of their times

    def apply(self, new: InForce) -> None:
        """Entries that don't collect any, or are gone, have none."""
        self._in_force, entries = new, new.table.entries
        self._most = 2 * sum(entry.collect for entry in entries.values())
        collecting = {number for number, entry in entries.items() if entry.collect}
        for key in [key for key in self._found if key[0] not in collecting]:
            del self._found[key]

    def found(self, event: NsEvent, rule: Rule, became: Outcome | Limit) -> None:
        """What has become of an event."""
        if self._most:
            self._note(rule, event.target, event.time_us, became)

    def unsent(self, rule: Rule, target: bytes, time_us: int) -> None:
        """The answer to an event, seen at that time, couldn't be sent."""
        if self._most:
            self._note(rule, target, time_us, Outcome.FAILED)

    def _note(self, rule: Rule, target: bytes, time_us: int, became: Outcome | Limit) -> None:
        entry = self._in_force.table.entries.get(rule.entry)
        if entry is None or not entry.collect:
            return
        key = entry.id, target
        self._found.pop(key, None)
        self._found[key] = time_us, Outcome.RATE_LIMITED if isinstance(became, Limit) else became
        if len(self._found) > self._most:
            del self._found[next(iter(self._found))]

    def outcome(self, recent: Recent) -> Outcome:
        """What became of a target's last solicitation."""
        time_us, outcome = self._found.get((recent.entry, recent.target), (-1, recent.outcome))
        return outcome if recent.last // 1000 & _MICROSECONDS == time_us else recent.outcome

    def one(self, entry: int, target: bytes) -> TargetSnapshot | None:
        """What is remembered of one target."""
        recent = self._ns_filter.recent_target(entry, target)
        table = self._in_force.table
        return None if recent is None or entry not in table.entries else self._snapshot(recent, table, _to_epoch())

    def all(self, table: Table) -> Steps[list[TargetSnapshot]]:
        """Those that were asked for last first.

        At least half of an entry's share is theirs that rules may answer, if they are as many: a scan of what none
        covers leaves them there. The others have what is left, so a mistake in a prefix shows.
        """
        to_epoch = _to_epoch()
        each = yield from listed(self._ns_filter.each_recent_target())
        recent_targets = {(recent.entry, recent.target): recent for recent in each}  # one may come twice
        ordered = yield from in_order(recent_targets.values(), key=lambda recent: recent.last, reverse=True)
        counts: Counter[tuple[int, bool]] = Counter()
        for some in pieces(ordered):
            counts.update((recent.entry, recent.outcome not in _NEVER_COVERED) for recent in some)
            yield
        left: dict[tuple[int, bool], int] = {}
        for number, entry in table.entries.items():
            others = min(counts[number, False], max(entry.collect - counts[number, True], entry.collect // 2))
            left |= {(number, False): others, (number, True): entry.collect - others}
        found = []
        for some in pieces(ordered):
            for recent in some:
                kind = recent.entry, recent.outcome not in _NEVER_COVERED
                if left.get(kind, 0) > 0:
                    left[kind] -= 1
                    found.append(self._snapshot(recent, table, to_epoch))
            yield
        return found

    def _snapshot(self, recent: Recent, table: Table, to_epoch: int) -> TargetSnapshot:
        first, last = ((moment + to_epoch) / 1e9 for moment in (recent.first, recent.last))
        return TargetSnapshot(
            table.entries[recent.entry].label,
            IPv6Address(recent.target),
            first,
            last,
            recent.count,
            self.outcome(recent),
            IPv6Address(recent.source),
            recent.source_mac.hex(":"),
        )


def _to_epoch() -> int:
    """Nanoseconds from the machine's clock to the epoch's."""
    return time.time_ns() - machine_ns()
