# SPDX-License-Identifier: GPL-2.0-or-later
"""The sums of what the program at work and its predecessors have counted."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping

from npd6_xdp.core.steps import Steps, finish, pieces
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Limit, Outcome, Reason
from npd6_xdp.system.bpf.counters import EntryCounters, added, sum_of
from npd6_xdp.system.bpf.program import Program

NOTHING = EntryCounters(dict.fromkeys(Outcome, 0), dict.fromkeys(Reason, 0), dict.fromkeys(Limit, 0))

_BITS = 8  # of emptying, between two pauses: some 8,000 lines
_PAUSE, _PAUSES = 0.01, 5.0  # seconds, and of all of them: the service manager doesn't wait for ever
"""What is taken out of a trie, the kernel frees in one go, a tenth of a second later (RCU of tasks).

In that time it is some 50,000 lines at this pace, which takes 76 to 80 ms; without a pause it is all of it.
"""


class CountedPrograms:
    """The program at work, and those that it has taken over from; their counts are added."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._retired: list[Program] = []
        self._folded_entries: dict[int, EntryCounters] = {}
        self._folded_rules: dict[int, Mapping[Outcome, int]] = {}
        self.changes = 0
        """Changes whenever a counter may have got another meaning, or has moved to another map."""

    def close(self, *, leave: bool = False) -> None:
        """Give up program and maps of each; `leave`: the one at work goes on without this process."""
        paused = 0.0
        for program in (*self._retired, self.program):
            if not leave:
                for bits, _ in enumerate(program.emptying(), start=1):
                    if bits % _BITS == 0 and paused < _PAUSES:
                        time.sleep(_PAUSE)
                        paused += _PAUSE
            program.close()

    def _succeed(self, program: Program) -> None:
        """Another one is at work from now on."""
        self._retired.append(self.program)
        self.program = program

    def _retires(self, program: Program) -> None:
        """One that was at work is about to be given up."""

    def _count_by(self, before: Table, table: Table) -> None:
        """Another table is in the maps: numbers that are gone or new begin at 0, as they may stand for something else
        now.
        """
        self.changes += 1
        entries = before.entries.keys() & table.entries.keys()
        for program in self._retired:
            program.entries &= entries
            program.rules.intersection_update(before.rules, table.rules)
        for number in self._folded_entries.keys() - entries:
            del self._folded_entries[number]
        for number in tuple(self._folded_rules):
            if number not in before.rules or number not in table.rules:
                del self._folded_rules[number]

    def retire(self) -> None:
        """Keep the counts of those programs that were switched off, and give up the rest of them."""
        finish(self.retiring())

    def retiring(self) -> Steps[None]:
        """The same, bit by bit; the bits in which something is different are short."""
        for program in tuple(self._retired):
            yield from program.emptying()
            counted_entries: dict[int, EntryCounters] = {}
            counted_rules: dict[int, Mapping[Outcome, int]] = {}
            for some_entries in program.entry_counters_in_pieces():
                counted_entries.update(some_entries)
                yield
            for some_rules in program.rule_counters_in_pieces():
                counted_rules.update(some_rules)
                yield
            changes = -1
            while changes != self.changes:  # else another table is in force, in which numbers may mean something else
                changes = self.changes
                entries, rules = dict(self._folded_entries), dict(self._folded_rules)
                for entry_items in pieces(counted_entries.items()):
                    for number, entry in entry_items:
                        if number in program.entries:
                            entries[number] = sum_of(entries[number], entry) if number in entries else entry
                    yield
                for rule_items in pieces(counted_rules.items()):
                    for number, rule in rule_items:
                        if number in program.rules:
                            rules[number] = added(rules[number], rule) if number in rules else rule
                    yield
            self.changes += 1
            self._folded_entries, self._folded_rules = entries, rules
            self._retired.remove(program)
            self._retires(program)
            program.close()
            yield

    def entry_counters(self, entry: int) -> EntryCounters:
        """What the program counted for an entry, under its predecessors too."""
        found = self._folded_entries.get(entry, NOTHING)
        for program in self._counting(entry, "entries"):
            found = sum_of(program.entry_counters(entry), found)
        return sum_of(NOTHING, found)

    def rule_counters(self, rule: int) -> Mapping[Outcome, int]:
        """What the program counted for a rule, under its predecessors too."""
        found = added(dict.fromkeys(Outcome, 0), self._folded_rules.get(rule, {}))
        for program in self._counting(rule, "rules"):
            found = added(found, program.rule_counters(rule))
        return found

    def all_rule_counters(self) -> dict[int, Mapping[Outcome, int]]:
        """The same of all rules, but for those for which nothing was counted. 100,000 rules take 0.1 s."""
        found: defaultdict[int, Counter[Outcome]] = defaultdict(Counter)
        for rule, counted in self._folded_rules.items():
            found[rule].update(counted)
        for program in (*self._retired, self.program):
            for rule, outcomes in program.all_rule_counters().items():
                found[rule].update(outcomes)
        return dict(found)

    def counters(self) -> Steps[tuple[dict[int, EntryCounters], dict[int, Mapping[Outcome, int]]]]:
        """What the program counted of entries and of rules, under its predecessors too, where it counted anything.

        The bits belong together only if `changes` is the same before each, and after the last.
        """
        entries = yield from self.all_entry_counters()
        rules: dict[int, Mapping[Outcome, int]] = {}
        for program in (*self._retired, self.program):
            for some_rules in program.rule_counters_in_pieces():
                for number, rule in some_rules.items():
                    rules[number] = added(rules[number], rule) if number in rules else rule
                yield
        for folded in pieces(tuple(self._folded_rules.items())):
            for number, counted in folded:
                rules[number] = added(rules.get(number, {}), counted)
            yield
        return entries, rules

    def all_entry_counters(self) -> Steps[dict[int, EntryCounters]]:
        """The same of entries alone."""
        entries: dict[int, EntryCounters] = {}
        for program in (*self._retired, self.program):
            for some_entries in program.entry_counters_in_pieces():
                for number, entry in some_entries.items():
                    before = entries.get(number)
                    entries[number] = entry if before is None else sum_of(before, entry)
                yield
        for kept in pieces(tuple(self._folded_entries.items())):
            for number, gone in kept:
                entries[number] = sum_of(entries.get(number, EntryCounters({}, {}, {})), gone)
            yield
        return entries

    def _counting(self, number: int, kind: str) -> list[Program]:
        return [program for program in (*self._retired, self.program) if number in getattr(program, kind)]
