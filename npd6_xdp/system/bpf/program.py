# SPDX-License-Identifier: GPL-2.0-or-later
"""A loaded program, and how its maps are made to follow a table."""

from __future__ import annotations

import ctypes as ct
import struct
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from itertools import islice
from typing import Any, NamedTuple

from npd6_xdp.core.config import Limits
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.hidden import Tapped
from npd6_xdp.core.layout import ENTRY, RULE
from npd6_xdp.core.prefix import BITS, Prefix
from npd6_xdp.core.steps import Steps, finish, pieces
from npd6_xdp.core.table import NOTHING_DECIDED, Decisions, Match, Table
from npd6_xdp.system.bpf.attach import Functions
from npd6_xdp.system.bpf.counters import Counters
from npd6_xdp.system.bpf.load import Loaded
from npd6_xdp.system.bpf.maps import Maps
from npd6_xdp.system.bpf.pack import (
    SOME,
    EntryChange,
    EntryChanges,
    Packed,
    TableLines,
    any_vlan_last,
    in_turn,
    is_in_trie,
    map_of,
    match_key,
    pack_lengths,
    pack_vias,
    packing_entries,
    untagged,
)
from npd6_xdp.system.bpf.port_entries import PortEntries
from npd6_xdp.system.bpf.sizes import needs_of
from npd6_xdp.system.bpf.table_writes import TableWrites

_PROGRAM_INFO = struct.Struct("=4xI")  # struct bpf_prog_info, up to id
_FEW = 4096
"""Lines that may differ where a table is put into the maps of the program that is attached: that takes 15 ms."""

_FREED_AT_ONCE = 8_192
"""Lines that the kernel may free without a pause: of a million, it took 0.4 s of a CPU that nothing else got."""


class Fit(Enum):
    """How a table fits into the maps that there are."""

    FEW = auto()
    """Few lines differ: it can be put in force at once."""
    MUCH = auto()
    """There is space, but while it is put there, some targets would be decided by it and others by the one before."""
    NOT = auto()


class InDoubt(Exception):
    """A map refuses to have back what was written over in it: it says neither the last table nor the one before."""


class _Image(NamedTuple):
    """What two maps say."""

    vias: dict[bytes, bytes]
    entries: dict[bytes, bytes]


class _Put(NamedTuple):
    """Lines that were put into their map, all or some; whether others, of the same prefixes, were there."""

    lines: TableLines
    was_there: bool


class _Fitting(NamedTuple):
    """How a table fits, and what is to be done for it to be in the maps."""

    table: Table
    limits: Limits
    changes: EntryChanges | None
    fit: Fit


class Program(Counters):
    """The loaded program and its maps, which are of these sizes and empty until apply()."""

    def __init__(self, loaded: Loaded, sizes: Mapping[str, int]) -> None:
        super().__init__(loaded.maps, sizes)
        self._loaded = loaded
        # what the maps of a table say
        self._vias: dict[bytes, bytes] = {}
        self._decisions: dict[int, Decisions] = {}
        self._entries: dict[bytes, bytes] = {}
        self._packed: Packed = {}
        self._writes = TableWrites(self)
        # not of this object: where they held each other, a former program, with its table, would stay for ever
        self._port_entries = PortEntries(Maps(loaded.maps, sizes))
        self._fitting: _Fitting | None = None  # what was said last, which another table may change
        self._image: tuple[Table, tuple[Tapped, str | None], dict[bytes, bytes]] | None = None
        self.tapped = Tapped()
        """The ports with a tap for hidden tags, for the next apply()."""
        self.traced: str | None = None
        """The port at whose solicitations somebody looks, for the next apply(); "": at those of any. None: nobody."""

    @property
    def show_due(self) -> float | None:
        """When to call show() (seconds, monotonic): of some ports, `entries` is asked, as there are no copies yet."""
        return self._port_entries.due

    def show(self) -> None:
        """Have plain frames of all ports answered without a look into the map `entries`."""
        self._port_entries.follow(untagged(self._entries))

    def close(self) -> None:
        """Give up program and maps; what is attached holds on to them."""
        self._port_entries.close()
        self._writes.close()
        self._loaded.close()

    def emptying(self) -> Steps[None]:
        """Take most lines out of the table's maps, bit by bit, of a program that decides about no frame any more: what
        is left in a map the kernel frees without a pause, and a CPU does nothing else for so long.
        """
        lines = ((entry, each) for entry, decisions in self._decisions.items() for each, _ in decisions.items())
        in_trie = {entry: is_in_trie(decisions) for entry, decisions in self._decisions.items()}
        for some in pieces(islice(lines, _FREED_AT_ONCE, None), SOME):
            keys: defaultdict[str, list[bytes]] = defaultdict(list)
            for entry, prefix in some:
                name = map_of(prefix, in_trie[entry])
                keys[name].append(match_key(name, entry, prefix))
            for name, each in keys.items():
                self.delete_all(name, each)
            yield

    @property
    def module(self) -> Any:
        """The bcc module that it was compiled to, if that was in this process."""
        return self._loaded.module

    @property
    def seen_by(self) -> tuple[Tapped, str | None]:
        """Who looks at what comes by which ports: what the entries say of that from the next apply() on."""
        return self.tapped, self.traced

    @property
    def fd(self) -> int:
        """The program's file descriptor."""
        return self._loaded.fd

    @property
    def tc_fd(self) -> int:
        """The descriptor of the same program's other function, for frames that tc hands over."""
        return self._loaded.need_tc()

    @property
    def functions(self) -> Functions:
        """What of it may sit on an interface."""
        return Functions(self._loaded.fd, self._loaded.need_tc)

    @property
    def tap_fd(self) -> int:
        """The descriptor of the filter for packet sockets that takes frames with hidden tags: system/bpf/taps.py."""
        return self._loaded.tap_fd

    @property
    def id(self) -> int:
        """The kernel's number of the program, as IFLA_XDP has it; 0 where the kernel doesn't tell."""
        info, length = ct.create_string_buffer(_PROGRAM_INFO.size), ct.c_uint32(_PROGRAM_INFO.size)
        if self._lib.bpf_obj_get_info_by_fd(self.fd, info, ct.byref(length)) != 0:
            return 0
        return int(_PROGRAM_INFO.unpack(info.raw)[0])

    def fitting(self, table: Table, limits: Limits) -> Steps[Fit]:
        """Whether the maps have space for a table, beside what of the last one goes only when all of it is in."""
        known = self._fitting
        if known is None or known.table is not table or known.limits != limits:
            changes = yield from self._changes(table)
            yield
            yield from self._packing_entries(table)  # thousands of them take a while, and are kept
            fit = Fit.NOT
            if self._has_space(table, limits, changes):
                fit = Fit.FEW if sum(len(each.put) + len(each.take) for each in changes) <= _FEW else Fit.MUCH
            known = self._fitting = _Fitting(table, limits, changes if fit is Fit.FEW else None, fit)
        return known.fit

    def give_up(self, table: Table) -> None:
        """A table that was looked at isn't to come: nothing of it is held any more."""
        if self._fitting is not None and self._fitting.table is table:
            self._fitting = None
        if self._image is not None and self._image[0] is table:
            self._image = None

    def _has_space(self, table: Table, limits: Limits, changes: EntryChanges) -> bool:
        needs = needs_of(table, limits)
        for each in changes:
            singles = sum(prefix.length == BITS for prefix in each.take) if each.was_in_trie else len(each.take)
            needs["EXACT_MATCHES_MAX"] += singles
            needs["PREFIX_TRIE_MAX"] += len(each.take) - singles
        needs["PREFIX_TRIE_MAX"] += 1  # before Linux 6.13, none is written over in a full one
        needs["VIAS_MAX"] = len(self._vias.keys() | pack_vias(table))
        needs["ENTRIES_MAX"] += len(self._entries.keys() - self._pack_entries(table).keys())
        return all(wanted <= self._sizes[name] for name, wanted in needs.items())

    def apply(self, table: Table) -> None:
        """Make the maps say what `table` says, by difference from what they said before.

        The order is such that at each moment every target is decided by the old table's rule for it or by the new
        one's, and by no other: what is added comes before what is removed, the narrowest first when adding and last
        when removing. How an interface answers (its entry) changes after its rules, at once.

        Raises MachineError where a map refuses; then they say what they said before. Raises InDoubt where one refuses
        that, too.
        """
        finish(self.applying(table))

    def applying(self, table: Table) -> Steps[None]:
        """The same bit by bit, for a program that isn't attached. It has to be run to its end."""
        known, self._fitting = self._fitting, None
        changes = known.changes if known is not None and known.table is table else None
        if changes is None:
            changes = yield from self._changes(table)
        counted = self.entries, self.rules
        yield from self._count_for(table.entries.keys(), table.rules.keys())
        yield
        vias, entries = pack_vias(table), (yield from self._packing_entries(table))
        put = yield from in_turn((each.entry, each.put, each.in_trie) for each in changes)
        take = yield from in_turn((each.entry, each.take, each.was_in_trie) for each in changes)
        between, done = self._entries_between(table), list[_Put]()
        meanwhile = self._finding(entries, table)
        before = _Image(dict(self._vias), dict(self._entries))
        changing = {each.entry for each in changes}
        self._port_entries.leave(
            {port: entry for port, entry in untagged(entries).items() if ENTRY.get(entry, "id") not in changing}
        )
        try:
            # in the order in which a target's way needs them: the entry leads to all else
            self._put("entries", self._entries, between)
            self._put("vias", self._vias, vias)
            yield from self._put_lines(put[::-1], {each.entry: each.put for each in changes}, done)
            self._put("entries", self._entries, dict(sorted(meanwhile.items(), key=any_vlan_last)))
        except MachineError:
            self.entries, self.rules = counted
            self._go_back(before, between, done)
            self._port_entries.follow(untagged(self._entries))
            raise
        # what is left is to be taken out, for which the kernel needs no memory
        self._take("entries", self._entries, entries)
        for name, entry, prefixes in take:
            for some in pieces(prefixes, SOME):
                self._writes.begin()
                self.delete_all(name, [match_key(name, entry, prefix) for prefix in some])
                yield
        self._decisions = dict(table.decisions)
        self._take("vias", self._vias, vias)
        with suppress(MachineError):  # where all bits are as they were meanwhile, nothing is decided otherwise
            self._put("entries", self._entries, entries)
        self._port_entries.follow(untagged(self._entries))

    def _finding(self, entries: Mapping[bytes, bytes], table: Table) -> dict[bytes, bytes]:
        """These, of a table to come, while lines of now may be there: what had a line of its own is found by that, and
        not by a prefix of before.
        """
        found = dict(entries)
        if all(table.decisions.get(entry) is decisions for entry, decisions in self._decisions.items()):
            return found  # of those that are new, nothing is there from before
        for key, packed in entries.items():
            entry = ENTRY.get(packed, "id")
            before, after = (each.get(entry, NOTHING_DECIDED) for each in (self._decisions, table.decisions))
            if after is not before:
                found[key] = ENTRY.replaced(packed, "exact_filter", before.exact_filter | after.exact_filter)
        return found

    def _pack_entries(self, table: Table) -> dict[bytes, bytes]:
        return finish(self._packing_entries(table))

    def _packing_entries(self, table: Table) -> Steps[dict[bytes, bytes]]:
        """As packing_entries(), once where a table is first looked at and then applied."""
        image, seen_by = self._image, self.seen_by
        if image is None or image[0] is not table or image[1] != seen_by:
            image = table, seen_by, (yield from packing_entries(table, self.tapped, self._packed, self.traced))
            self._image = image
        return image[2]

    def _changes(self, table: Table) -> Steps[EntryChanges]:
        """What is to be put into the maps and to be taken out of them, for a table to follow."""
        found: list[EntryChange] = []
        for entry in table.decisions.keys() | self._decisions.keys():
            after, before = (each.get(entry, NOTHING_DECIDED) for each in (table.decisions, self._decisions))
            if after is before:
                continue
            in_trie, was_in_trie = is_in_trie(after), is_in_trie(before)
            put, take = yield from after.comparing(before)
            if before and in_trie != was_in_trie:  # all prefixes move from one map to the other
                take = [prefix for prefix in take if prefix.length == BITS]
                for some in pieces(after.items(), SOME):
                    put.update([(prefix, match) for prefix, match in some if prefix.length < BITS])
                    yield
                for some in pieces(before.items(), SOME):
                    take += [prefix for prefix, _ in some if prefix.length < BITS]
                    yield
            found.append(EntryChange(entry, put, take, in_trie, was_in_trie))
            yield
        return found

    def _entries_between(self, table: Table) -> dict[bytes, bytes]:
        """The entries of now, under which the lines of the table to come are found as well as those of now: else a
        target that is to be an own address would be decided by what its prefix is to say, which neither table does.
        """
        entries: dict[bytes, bytes] = {}
        now, to_come = self._decisions, table.decisions
        if all(to_come.get(entry) is decisions for entry, decisions in now.items()):
            return entries  # those that are new aren't in the map yet
        for key, packed in self._entries.items():
            entry = ENTRY.get(packed, "id")
            before, after = (each.get(entry, NOTHING_DECIDED) for each in (now, to_come))
            if after is before:
                continue
            entries[key] = ENTRY.replaced(packed, "exact_filter", before.exact_filter | after.exact_filter)
            if not is_in_trie(before) and not is_in_trie(after):
                lengths = pack_lengths({*before.lengths, *after.lengths})
                entries[key] = ENTRY.replaced(entries[key], "lengths", lengths)
        return entries

    def _put(self, name: str, image: dict[bytes, bytes], wanted: Mapping[bytes, bytes]) -> None:
        for key, value in wanted.items():
            if image.get(key) != value:
                self._writes.begin()
                self.update(name, key, value)
                image[key] = value

    def _take(self, name: str, image: dict[bytes, bytes], wanted: Mapping[bytes, bytes]) -> None:
        for key in image.keys() - wanted.keys():
            self._writes.begin()
            self.delete(name, key)
            del image[key]

    def _put_lines(
        self, lines: Sequence[TableLines], matches: Mapping[int, Mapping[Prefix, Match]], done: list[_Put]
    ) -> Steps[None]:
        """Add lines of the flat table, in this order, then change those that are there. `done` has what was begun.

        Where one can't be added, those that were are taken out, and that can't be refused; so what is written over, and
        would have to be written back, comes last.
        """
        for is_there in (False, True):
            for name, entry, prefixes in lines:
                said, there, had_any = matches[entry], self._lines_in(name, entry), bool(self._decisions.get(entry))
                for some in pieces(prefixes if had_any or not is_there else (), SOME):
                    if some := [prefix for prefix in some if there(prefix) is is_there] if had_any else some:
                        done.append(_Put(TableLines(name, entry, some), is_there))
                        keys = [match_key(name, entry, prefix) for prefix in some]
                        self._writes.begin()
                        self.update_all(name, keys, [RULE.pack(*said[prefix]) for prefix in some])
                        yield

    def _lines_in(self, name: str, entry: int) -> Callable[[Prefix], bool]:
        """Whether the map of that name has a line of an entry."""
        decisions = self._decisions.get(entry, NOTHING_DECIDED)
        in_trie = is_in_trie(decisions)
        return lambda prefix: map_of(prefix, in_trie) == name and decisions.get(prefix) is not None

    def _go_back(self, before: _Image, between: Mapping[bytes, bytes], done: Sequence[_Put]) -> None:
        """Have the maps say what they said before, in the order that is the other one's reverse.

        The kernel needs no memory for that, but to write a line over: that takes as much as to add it. Raises InDoubt.
        """
        try:
            self._put("entries", self._entries, {**before.entries, **between})
            self._take("entries", self._entries, before.entries)
            self._take_back(done)
            self._put("entries", self._entries, before.entries)
            self._take("vias", self._vias, before.vias)
        except MachineError as error:
            raise InDoubt(f"{error}; it can't have back what it had before, either") from error

    def _take_back(self, done: Sequence[_Put]) -> None:
        """Write back lines that were written over, and take out those that were added. Raises MachineError."""
        refused: list[tuple[str, bytes, bytes]] = []
        for (name, entry, prefixes), was_there in reversed(done):
            decisions = self._decisions.get(entry, NOTHING_DECIDED)
            for prefix in reversed(prefixes):
                key, match = match_key(name, entry, prefix), decisions.get(prefix)
                self._writes.begin()
                if not was_there or match is None:
                    self.delete(name, key)
                elif self.lookup(name, key, RULE.size) != (value := RULE.pack(*match)):
                    try:
                        self.update(name, key, value)
                    except MachineError:
                        refused.append((name, key, value))
        for each in refused:  # once more: those that were taken out have left their memory
            self._writes.begin()
            self.update(*each)
