# SPDX-License-Identifier: GPL-2.0-or-later
"""What Python counts of the solicitations that went up to it; the rest is counted in the XDP program."""

from __future__ import annotations

from collections import Counter, defaultdict

from npd6_xdp.core.table import Rule
from npd6_xdp.core.verdict import Limit, Outcome
from npd6_xdp.daemon.in_force import NOTHING, Follower, InForce


class Counts(Follower):
    """Outcomes by entry and by rule, with the limit that was in the way of those that were refused, and the
    advertisements that came late, once a target was resolved.
    """

    def __init__(self) -> None:
        self._in_force = NOTHING
        self._entries: defaultdict[int, Counter[Outcome]] = defaultdict(Counter)
        self._rules: defaultdict[int, Counter[Outcome]] = defaultdict(Counter)
        self._limits: defaultdict[int, Counter[Limit]] = defaultdict(Counter)
        self._late: dict[int, int] = {}

    def apply(self, new: InForce) -> None:
        """Count for the entries and rules of a table; those that it hasn't are forgotten."""
        self._in_force, table = new, new.table
        for counts, alive in (
            (self._entries, table.entries),
            (self._rules, table.rules),
            (self._limits, table.entries),
        ):
            for number in [number for number in counts if number not in alive]:
                del counts[number]
        self._late = {number: self._late.get(number, 0) for number in table.entries}

    def count(self, rule: Rule, outcome: Outcome, times: int = 1) -> None:
        """Solicitations that a rule covers."""
        # the last solicitations of a rule may come in after it is gone
        if rule.entry in self._in_force.table.entries:
            self._entries[rule.entry][outcome] += times
        if rule.id in self._in_force.table.rules:
            self._rules[rule.id][outcome] += times

    def count_refused(self, rule: Rule, limit: Limit) -> None:
        """A solicitation that a limit was in the way of."""
        self.count(rule, Outcome.RATE_LIMITED)
        if rule.entry in self._in_force.table.entries:
            self._limits[rule.entry][limit] += 1

    def count_late(self, rule: Rule) -> None:
        """One advertisement for a solicitation that was counted as pending before."""
        if rule.entry in self._late:
            self._late[rule.entry] += 1

    def entry(self, number: int) -> Counter[Outcome]:
        """The outcomes of an entry's solicitations, now; who counts may be another thread."""
        return Counter(self._entries.get(number))

    def limits(self, number: int) -> Counter[Limit]:
        """Which limits were in the way of those of an entry that were refused."""
        return Counter(self._limits.get(number))

    def rule(self, number: int) -> Counter[Outcome]:
        """The outcomes of a rule's."""
        return Counter(self._rules.get(number))

    def rules(self) -> list[int]:
        """The rules that have any."""
        return list(self._rules)

    def late(self, number: int) -> int:
        """An entry's late advertisements."""
        return self._late.get(number, 0)
