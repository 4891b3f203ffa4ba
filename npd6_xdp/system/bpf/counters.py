# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program counted, in maps that each CPU has for itself: read some at a time, and added up."""

from __future__ import annotations

import ctypes as ct
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.layout import ENTRY_COUNTER, INDEX, RULE_COUNTER, Layout
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.core.verdict import Limit, Outcome, Reason
from npd6_xdp.system.bpf.compiler import load_bcc
from npd6_xdp.system.bpf.maps import Maps

T = TypeVar("T")
PIECE = 512  # counters that are read at once


@dataclass(frozen=True, slots=True)
class EntryCounters:
    """Solicitations of one entry that the program itself counted, by outcome; the invalid ones by reason as well, and
    those that were refused by the limit.
    """

    outcomes: Mapping[Outcome, int]
    reasons: Mapping[Reason, int]
    limits: Mapping[Limit, int]


class Counters(Maps):
    """A program's maps of counters. `entries` and `rules` are the numbers of those that it counts for."""

    def __init__(self, fds: Mapping[str, int], sizes: Mapping[str, int]) -> None:
        super().__init__(fds, sizes)
        self._used: dict[str, set[int]] = {"entry_counters": set(), "rule_counters": set()}
        self.cpus = len(load_bcc().utils.get_possible_cpus())
        self.entries: set[int] = set()
        self.rules: set[int] = set()

    def _count_for(self, entries: Set[int], rules: Set[int]) -> Steps[None]:
        """From now on for these, which begin at 0 where they are new."""
        yield from self._start_at_zero("entry_counters", entries - self.entries, ENTRY_COUNTER)
        yield from self._start_at_zero("rule_counters", rules - self.rules, RULE_COUNTER)
        self.entries, self.rules = set(entries), set(rules)

    def _start_at_zero(self, name: str, ids: Set[int], layout: Layout) -> Steps[None]:
        """Set counters to 0: the number may have stood for something else before."""
        for some in pieces(ids & self._used[name], PIECE):
            for number in some:
                if any(self._read_per_cpu(name, number, layout)):
                    self.update(name, INDEX.pack(number), bytes(layout.size * self.cpus))
            yield
        self._used[name] |= ids

    def entry_counters(self, entry: int) -> EntryCounters:
        """What the program counted for an entry, summed over the CPUs."""
        sums = self._read_per_cpu("entry_counters", entry, ENTRY_COUNTER)
        return _by_name(sums)

    def rule_counters(self, rule: int) -> Mapping[Outcome, int]:
        """What the program counted for a rule, summed over the CPUs."""
        return dict(zip(Outcome, self._read_per_cpu("rule_counters", rule, RULE_COUNTER), strict=True))

    def all_rule_counters(self) -> dict[int, Mapping[Outcome, int]]:
        """What the program counted for its rules, but for those for which it counted nothing."""
        return {number: counted for some in self.rule_counters_in_pieces() for number, counted in some.items()}

    def rule_counters_in_pieces(self) -> Iterator[dict[int, Mapping[Outcome, int]]]:
        """The same, some rules at a time: a few milliseconds each."""
        for some in self._counted("rule_counters", self.rules, RULE_COUNTER):
            yield {number: dict(zip(Outcome, sums, strict=True)) for number, sums in some.items()}

    def entry_counters_in_pieces(self) -> Iterator[dict[int, EntryCounters]]:
        """What the program counted for its entries, but for those for which it counted nothing."""
        for some in self._counted("entry_counters", self.entries, ENTRY_COUNTER):
            yield {number: _by_name(sums) for number, sums in some.items()}

    def _counted(self, name: str, numbers: Set[int], layout: Layout) -> Iterator[dict[int, list[int]]]:
        """What isn't 0 of the counters of these numbers, summed over the CPUs, some at a time."""
        size = layout.size * self.cpus
        nothing = bytes(size)
        for first, values in self._read_all(name, max(numbers, default=-1) + 1, size):
            found: dict[int, list[int]] = {}
            if values.strip(b"\0"):
                for start in range(0, len(values), size):
                    row, number = values[start : start + size], first + start // size
                    if row != nothing and number in numbers:
                        found[number] = sums_of(layout, row)
            yield found

    def _read_all(self, name: str, end: int, size: int) -> Iterator[tuple[int, bytes]]:
        """A map's counters up to those of number `end`, in pieces: the first number of each, and the bytes."""
        keys, values = (ct.create_string_buffer(PIECE * each) for each in (INDEX.size, size))
        for first in range(0, end, PIECE):
            wanted = min(PIECE, end - first)
            count, after = ct.c_uint32(wanted), ct.c_uint32()
            # the kernel goes on from the key that it is given
            before = ct.byref(ct.c_uint32(first - 1)) if first else None
            fd = self._fds[name]
            failed = self._lib.bpf_map_lookup_batch(fd, before, ct.byref(after), keys, values, ct.byref(count), None)
            if failed == 0 and count.value == wanted:
                yield first, values.raw[: wanted * size]
            else:  # a kernel without batches for this kind of map
                singly = (self.lookup(name, INDEX.pack(number), size) for number in range(first, first + wanted))
                yield first, b"".join(value or bytes(size) for value in singly)

    def _read_per_cpu(self, name: str, index: int, layout: Layout) -> list[int]:
        values = self.lookup(name, INDEX.pack(index), layout.size * self.cpus)
        if values is None:
            raise MachineError(f"kernel map {name}: no entry {index}")
        return sums_of(layout, values)


def _by_name(sums: Sequence[int]) -> EntryCounters:
    reasons, limits = sums[len(Outcome) :], sums[len(Outcome) + len(Reason) :]
    return EntryCounters(
        dict(zip(Outcome, sums, strict=False)),
        dict(zip(Reason, reasons, strict=False)),
        dict(zip(Limit, limits, strict=True)),
    )


def sums_of(layout: Layout, values: bytes) -> list[int]:
    """The counters of all CPUs together."""
    return [sum(column) for column in zip(*layout.iter_unpack(values), strict=True)]


def added(one: Mapping[T, int], other: Mapping[T, int]) -> dict[T, int]:
    """The sums of counts by name, in the order of the first."""
    sums = {name: count + other.get(name, 0) for name, count in one.items()}
    return sums | {name: count for name, count in other.items() if name not in one}


def sum_of(one: EntryCounters, other: EntryCounters) -> EntryCounters:
    """The sums of both."""
    return EntryCounters(
        added(one.outcomes, other.outcomes), added(one.reasons, other.reasons), added(one.limits, other.limits)
    )
