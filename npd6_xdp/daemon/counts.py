# SPDX-License-Identifier: GPL-2.0-or-later
"""What Python counts of the solicitations that went up to it; the rest is counted in the XDP program."""

from __future__ import annotations

from collections import Counter

from npd6_xdp.core.rules import Rule, Table
from npd6_xdp.core.verdict import Outcome


class Counts:
    """Outcomes by entry and by rule, and the advertisements that came late, once a target was resolved."""

    def __init__(self) -> None:
        self._entries: dict[int, Counter[Outcome]] = {}
        self._rules: dict[int, Counter[Outcome]] = {}
        self._late: dict[int, int] = {}

    def follow(self, table: Table) -> None:
        """Count for the entries and rules of a table; those that it hasn't are forgotten."""
        for counts, alive in ((self._entries, table.entries), (self._rules, table.rules)):
            for number in counts.keys() - alive.keys():
                del counts[number]
            for number in alive.keys() - counts.keys():
                counts[number] = Counter()
        self._late = {number: self._late.get(number, 0) for number in table.entries}

    def count(self, rule: Rule, outcome: Outcome) -> None:
        """One solicitation that a rule covers."""
        for counts, number in ((self._entries, rule.entry), (self._rules, rule.id)):
            if number in counts:  # the last solicitations of a rule may come in after it is gone
                counts[number][outcome] += 1

    def count_late(self, rule: Rule) -> None:
        """One advertisement for a solicitation that was counted as pending before."""
        if rule.entry in self._late:
            self._late[rule.entry] += 1

    def entry(self, number: int) -> Counter[Outcome]:
        """The outcomes of an entry's solicitations, as a copy."""
        return self._entries.get(number, Counter()).copy()

    def rule(self, number: int) -> Counter[Outcome]:
        """The outcomes of a rule's, as a copy."""
        return self._rules.get(number, Counter()).copy()

    def late(self, number: int) -> int:
        """An entry's late advertisements."""
        return self._late.get(number, 0)
