# SPDX-License-Identifier: GPL-2.0-or-later
"""The XDP program, through bcc: compile, load, fill its maps, attach it, read its counters.

The byte layouts here mirror the structs of bpf/shared.h; a test compares their sizes with the compiled maps'.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import re
import resource
import signal
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from npd6_xdp.core.config import Datapath as DatapathKind
from npd6_xdp.core.config import Limits
from npd6_xdp.core.errors import MachineError, as_machine_error, is_want_of_room, remedy
from npd6_xdp.core.hidden import Tapped
from npd6_xdp.core.links import slot_sources
from npd6_xdp.core.prefix import BITS, Prefix
from npd6_xdp.core.routes import RoutingFlag
from npd6_xdp.core.steps import Steps, finish, pieces
from npd6_xdp.core.table import (
    DATAPATHS,
    NO_GROUP,
    NOTHING_DECIDED,
    VLAN_ANY,
    Decision,
    Decisions,
    Entry,
    KnownFlag,
    Match,
    SlotFlag,
    Table,
)
from npd6_xdp.core.verdict import Outcome, Reason
from npd6_xdp.system import compiled, shelf
from npd6_xdp.system.clock import machine_ns

T = TypeVar("T")

_PACKAGE = Path(__file__).resolve().parents[1]
BPF_DIRECTORY = _PACKAGE / "bpf" if (_PACKAGE / "bpf").is_dir() else _PACKAGE.parent / "bpf"
"""Part of the package where it is installed, beside it in a source tree: pyproject.toml maps the one to the other."""
OLDEST_KERNEL = (5, 18)  # bpf_xdp_load_bytes()

_BPF_XDP = 37  # enum bpf_attach_type
_CAP_SYS_ADMIN = 21  # holds the younger two
_CAPABILITIES = {"CAP_BPF": (39, _CAP_SYS_ADMIN), "CAP_NET_ADMIN": (12,), "CAP_PERFMON": (38, _CAP_SYS_ADMIN)}
_COMPILER_BYTES = 66_000_000  # that it takes for a while, with its library: 66 to 72 MB were measured
_LINE_BYTES = 96  # of the hash map: the kernel's own struct htab_elem of 48, key and value
_COMPILER = ("/libLLVM", "/libclang")
_INCLUDE = re.compile(r'#include "(\w+\.h)"')
_MADV_DONTNEED = 4
_XDP_FLAGS_SKB_MODE = 2
_XDP_FLAGS_DRV_MODE = 4

_SLOT_KEY = struct.Struct("=IHH")
_SLOT = struct.Struct("=I6sBBI16s16sQHH6sH8s4x")
_MOST_LENGTHS = 4
_HASHED_FROM = 64
"""An entry's prefixes are in the hash where they have few lengths, each of which costs a look-up, and are many for each
length: with one prefix an answer took 20 ns less by the trie, with 100,000 389 ns by the hash and 885 by the trie."""
_LINE_KEY = struct.Struct("=II16s")
_ADDRESS_KEY = struct.Struct("=I4x16s")
_NO_SCOPE = 0
_PREFIX_KEY = struct.Struct("=II16s")
_RULE = struct.Struct("=IHHI")
_KNOWN = struct.Struct("=II")
_VIA_KEY = struct.Struct("=II")
_VIA = struct.pack("=I", 1)
_SOURCE_KEY = struct.Struct("=I6s2x")
_CROWDING = struct.pack("=I", 1)
_SETTINGS = struct.Struct("=QIII4x")
_KEPT_ROUTE = struct.Struct("=II")
_KEPT = 16384  # targets that the kernel was asked about; the kernel keeps those that are asked for
_HEARD = 16384  # addresses of which the program knows where they were heard last
_RECENT = struct.Struct("=QQQ")
_INDEX = struct.Struct("=I")
_XDP_LINK_INFO_SIZE, _XDP_LINK_IFINDEX = 24, 16  # struct bpf_link_info as far as it is used, and xdp.ifindex in it
_PROGRAM_INFO = struct.Struct("=4xI")  # struct bpf_prog_info, up to id
_COUNTERS = struct.Struct(f"={len(Outcome)}Q")
_ENTRY_COUNTERS = struct.Struct(f"={len(Outcome) + len(Reason)}Q")


_MAPS = (
    "vias",
    "lines",
    "prefixes",
    "slots",
    "entry_counters",
    "rule_counters",
    "known_targets",
    "crowding",
    "settings_space",
    "recents",
    "kept_routes",
    "heard_sources",
    "events",
    "more_events",
    "unwatched_events",
)
_SIZED_BY = {
    "slots": "SLOTS_MAX",
    "lines": "LINES_MAX",
    "prefixes": "PREFIXES_MAX",
    "entry_counters": "ENTRIES_MAX",
    "rule_counters": "RULES_MAX",
    "known_targets": "KNOWN_MAX",
    "vias": "VIAS_MAX",
    "crowding": "CROWDING_MAX",
    "sources": "SOURCES_MAX",
    "recents": "RECENTS_MAX",
    "kept_routes": "KEPT_MAX",
    "heard_sources": "HEARD_MAX",
}
"""Maps of the program, and the definitions that say how large they are, and nothing else."""
_FLAGS = ("-O2", "-Wall", "-Wno-unused-function")
_PIECE = 512  # counters that are read at once
_SOME = 1024  # lines that are put or taken out at once: two milliseconds
_FEW = 4096
"""Lines that may differ where a table is put into the maps of the program that is attached: that takes 15 ms."""
_SPARE = 64  # file descriptors
_DETACHED = (errno.ENOLINK, errno.ENODEV)  # what a link says of an interface that is gone
_NANOSECONDS = 1_000_000_000


class AttachMode(IntEnum):
    """Where a program sits on an interface; the values are the kernel's attach flags."""

    GENERIC = _XDP_FLAGS_SKB_MODE
    NATIVE = _XDP_FLAGS_DRV_MODE


class Fit(Enum):
    """How a table fits into the maps that there are."""

    FEW = auto()
    """Few lines of it are to be put there or taken out: it can be in force at once."""
    MUCH = auto()
    """There is room, but while it is put there, some targets would be decided by it and others by the one before."""
    NOT = auto()


class Refused(MachineError):
    """The driver can't have the program in this mode."""


@dataclass(frozen=True, slots=True)
class EntryCounters:
    """Solicitations of one entry that the program itself counted, by outcome and, of the invalid ones, by reason."""

    outcomes: Mapping[Outcome, int]
    reasons: Mapping[Reason, int]


class _LinkCreateOpts(ct.Structure):
    """struct bpf_link_create_opts of libbpf, as far as it is used; `sz` tells libbpf how far that is."""

    _fields_ = (("sz", ct.c_size_t), ("flags", ct.c_uint32))


class _XdpQueryOpts(ct.Structure):
    """struct bpf_xdp_query_opts of libbpf."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("prog_id", ct.c_uint32),
        ("drv_prog_id", ct.c_uint32),
        ("hw_prog_id", ct.c_uint32),
        ("skb_prog_id", ct.c_uint32),
        ("attach_mode", ct.c_uint8),
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A program in the kernel: the descriptors of its maps, of itself, and of the filter for packet sockets.

    `module` is bcc's, where it was compiled in this process: it has them closed. There is none where another process
    has loaded it, or an earlier one compiled it.
    """

    maps: Mapping[str, int]
    fd: int
    tap_fd: int
    module: Any = None

    @property
    def descriptors(self) -> list[int]:
        """All of them, in the order in which of() takes them."""
        return [*self.maps.values(), self.fd, self.tap_fd]

    @classmethod
    def of(cls, descriptors: Sequence[int]) -> Loaded:
        """A program that another process has loaded, by what that one has handed over."""
        *maps, fd, tap_fd = descriptors
        return cls(dict(zip(_MAPS, maps, strict=True)), fd, tap_fd)

    def close(self) -> None:
        """Give it up; what is attached holds on to it."""
        if self.module is not None:
            self.module.cleanup()
            return
        for fd in self.descriptors:
            os.close(fd)


def load(sizes: Mapping[str, int]) -> Loaded:
    """Load the program, with maps of these sizes; compile it if no earlier start has kept it. Raises MachineError."""
    bcc = load_bcc()
    source = _source(BPF_DIRECTORY)
    name = _name_of(bcc, source)
    if name and (found := shelf.read(name, compiled.Compiled.unpack)) is not None:
        try:
            return _load_kept(bcc, found, sizes)
        except MachineError as error:
            why = error.__cause__
            if isinstance(why, OSError) and is_want_of_room(why.errno or 0):  # the compiler would want even more
                raise MachineError(f"the XDP program can't be loaded: {remedy(why)}") from why
            shelf.remove(name)  # and whatever is in the way, it says in its own words
    return _compile(bcc, source, name, sizes)


def _compile(bcc: Any, source: str, name: str, sizes: Mapping[str, int]) -> Loaded:
    module, function = compile_program(source, "ns_filter", sizes)
    tap = load_function(module, "hidden_tag", bcc.BPF.SOCKET_FILTER)
    maps = {name: int(bcc.lib.bpf_table_fd(module.module, name.encode())) for name in _MAPS}
    if name and name == _name_of(bcc, source):  # else another version has come to lie there meanwhile
        with suppress(ValueError):  # what can't be kept
            kinds = {"ns_filter": bcc.BPF.XDP, "hidden_tag": bcc.BPF.SOCKET_FILTER}
            made = compiled.taken(bcc.lib, module.module, kinds, _SIZED_BY)
            if all(sizes.get(each.sized_by) == each.entries for each in made.maps if each.sized_by):
                shelf.write(name, made.pack())
    return Loaded(maps, int(function.fd), int(tap.fd), module)


def _load_kept(bcc: Any, found: compiled.Compiled, sizes: Mapping[str, int]) -> Loaded:
    with _words_caught():
        maps, functions = compiled.loaded(bcc.lib, found, sizes)
    for name in maps.keys() - {*_MAPS}:
        os.close(maps[name])  # the program holds them
    return Loaded({name: maps[name] for name in _MAPS}, functions["ns_filter"], functions["hidden_tag"])


def _name_of(bcc: Any, source: str) -> str:
    """The name by which the compiled program is kept; "" where nothing can be."""
    try:
        return compiled.fingerprint(bcc, source, BPF_DIRECTORY, (*_FLAGS, *map(" ".join, _SIZED_BY.items())))
    except OSError:
        return ""


def _is_kept() -> bool:
    bcc = load_bcc()
    name = _name_of(bcc, _source(BPF_DIRECTORY))
    return bool(name) and shelf.read(name, compiled.Compiled.unpack) is not None


@cache
def _source(directory: Path) -> str:
    """The program's text as it was at the start, which this code belongs to: by now another version may lie there.

    Its headers stand within, so that all of it is one text: no file is read once more, and whoever compares two
    programs compares their headers as well.
    """
    with as_machine_error("can't read the XDP program"):
        return _with_headers(directory, "ns_filter.c")


def _with_headers(directory: Path, name: str) -> str:
    """A file's text, with those of its headers in their places; the compiler names each by its own file and lines."""
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate((directory / name).read_text().splitlines(), 1):
        if header := _INCLUDE.fullmatch(line):
            lines += [_with_headers(directory, header[1]), f'#line {number + 1} "{name}"']
        else:
            lines.append(line)
    return "\n".join(lines)


def sizes_for(tables: Iterable[Table], limits: Limits, known: int = 0) -> dict[str, int]:
    """Sizes of maps with room for twice what `tables` hold, and for so many known targets at the least."""
    needs = [_needs(table, limits) for table in tables]
    sizes = {name: _room(name, max(each[name] for each in needs)) for name in needs[0]}
    return {**sizes, "KNOWN_MAX": max(sizes["KNOWN_MAX"], known)}


class Program:
    """The loaded program and its maps, which are of these sizes and empty until apply()."""

    def __init__(self, loaded: Loaded, sizes: Mapping[str, int]) -> None:
        self._bcc = load_bcc()
        self._lib = self._bcc.lib
        self._loaded = loaded
        self._sizes = sizes
        self._fds = loaded.maps
        # what the maps of a table say
        self._vias: dict[bytes, bytes] = {}
        self._decisions: dict[int, Decisions] = {}
        self._slots: dict[bytes, bytes] = {}
        self._packed: _Packed = {}
        self._fitting: _Fitting | None = None  # what was said last, which another table may change
        self._image: tuple[Table, Tapped, dict[bytes, bytes]] | None = None
        self._used: dict[str, set[int]] = {"entry_counters": set(), "rule_counters": set()}
        self._cpus = len(self._bcc.utils.get_possible_cpus())
        self.tapped = Tapped()
        """The ports with a tap for hidden tags, for the next apply()."""
        self.entries: set[int] = set()
        self.rules: set[int] = set()
        """Numbers of the entries and rules that it counts for."""

    def close(self) -> None:
        """Give up program and maps; what is attached holds on to them."""
        self._loaded.close()

    @property
    def maps(self) -> Mapping[str, int]:
        """The file descriptors of its maps."""
        return self._fds

    @property
    def module(self) -> Any:
        """The bcc module that it was compiled to, if that was in this process."""
        return self._loaded.module

    @property
    def fd(self) -> int:
        """The program's file descriptor."""
        return self._loaded.fd

    @property
    def tap_fd(self) -> int:
        """The file descriptor of the filter for packet sockets that takes frames with hidden tags (system/taps.py)."""
        return self._loaded.tap_fd

    def fitting(self, table: Table, limits: Limits) -> Steps[Fit]:
        """Whether the maps have room for a table, beside what of the last one goes only when all of it is in."""
        known = self._fitting
        if known is None or known.table is not table or known.limits != limits:
            changes = yield from self._changes(table)
            fit = Fit.NOT
            if self._has_room(table, limits, changes):
                fit = Fit.FEW if sum(len(each.put) + len(each.take) for each in changes) <= _FEW else Fit.MUCH
            known = self._fitting = _Fitting(table, limits, changes if fit is Fit.FEW else None, fit)
        return known.fit

    def _has_room(self, table: Table, limits: Limits, changes: _Changes) -> bool:
        needs = _needs(table, limits)
        for each in changes:
            singles = sum(prefix.length == BITS for prefix in each.take) if each.was_in_trie else len(each.take)
            needs["LINES_MAX"] += singles
            needs["PREFIXES_MAX"] += len(each.take) - singles
        needs["VIAS_MAX"] = len(self._vias.keys() | pack_vias(table))
        needs["SLOTS_MAX"] = len(self._slots.keys() | self._pack_slots(table))
        return all(wanted <= self._sizes[name] for name, wanted in needs.items())

    def apply(self, table: Table) -> None:
        """Make the maps say what `table` says, by difference from what they said before.

        In such an order that at each moment every target is decided by the rule that the old table has for it or by
        the new one's, and by none between: what is added comes before what is removed, the narrowest first when
        adding and last when removing. How an interface answers (its slot) changes after its rules, at once. Raises
        MachineError when a map refuses.
        """
        finish(self.applying(table))

    def applying(self, table: Table) -> Steps[None]:
        """The same bit by bit, for a program that nothing is attached to: it has to come to its end."""
        known, self._fitting = self._fitting, None
        changes = known.changes if known is not None and known.table is table else None
        if changes is None:
            changes = yield from self._changes(table)
        yield from self._start_at_zero("entry_counters", table.entries.keys() - self.entries, _ENTRY_COUNTERS)
        yield from self._start_at_zero("rule_counters", table.rules.keys() - self.rules, _COUNTERS)
        self.entries, self.rules = set(table.entries), set(table.rules)
        yield
        vias, slots = pack_vias(table), self._pack_slots(table)
        put = yield from _in_turn((each.entry, each.put, each.in_trie) for each in changes)
        take = yield from _in_turn((each.entry, each.take, each.was_in_trie) for each in changes)
        # in the order in which a target's way needs them: the slot leads to all else
        self._put("slots", self._slots, self._slots_between(table))
        self._put("vias", self._vias, vias)
        yield from self._put_lines(put[::-1], {each.entry: each.put for each in changes})
        self._put("slots", self._slots, dict(sorted(slots.items(), key=_any_vlan_last)))
        self._take("slots", self._slots, slots)
        for name, entry, prefixes in take:
            for some in pieces(prefixes, _SOME):
                self.delete_all(name, [_line_key(name, entry, prefix) for prefix in some])
                yield
        self._decisions = dict(table.decisions)
        self._take("vias", self._vias, vias)

    def _pack_slots(self, table: Table) -> dict[bytes, bytes]:
        """As pack_slots(), once where a table is first looked at and then applied."""
        if self._image is None or self._image[0] is not table or self._image[1] is not self.tapped:
            self._image = table, self.tapped, pack_slots(table, self.tapped, self._packed)
        return self._image[2]

    def _changes(self, table: Table) -> Steps[_Changes]:
        """What is to be put into the maps and to be taken out of them, for a table to follow."""
        found: list[_Change] = []
        for entry in table.decisions.keys() | self._decisions.keys():
            after, before = (each.get(entry, NOTHING_DECIDED) for each in (table.decisions, self._decisions))
            if after is before:
                continue
            in_trie, was_in_trie = is_in_trie(after), is_in_trie(before)
            put, take = yield from after.comparing(before)
            if before and in_trie != was_in_trie:  # all prefixes move from one map to the other
                take = [prefix for prefix in take if prefix.length == BITS]
                for some in pieces(after.items(), _SOME):
                    put.update([(prefix, match) for prefix, match in some if prefix.length < BITS])
                    yield
                for some in pieces(before.items(), _SOME):
                    take += [prefix for prefix, _ in some if prefix.length < BITS]
                    yield
            found.append(_Change(entry, put, take, in_trie, was_in_trie))
            yield
        return found

    def _slots_between(self, table: Table) -> dict[bytes, bytes]:
        """The slots of now, under which the prefixes of the table to come are found as well as those of now."""
        slots: dict[bytes, bytes] = {}
        now, to_come = self._decisions, table.decisions
        if all(to_come.get(entry) is decisions for entry, decisions in now.items()):
            return slots  # those that are new have no slot yet
        for key, slot in self._slots.items():
            entry = _SLOT.unpack(slot)[0]
            before, after = (each.get(entry, NOTHING_DECIDED) for each in (now, to_come))
            if after is before:
                continue
            if not is_in_trie(before) and not is_in_trie(after):
                slots[key] = _with_lengths(slot, _pack_lengths({*before.lengths, *after.lengths}))
        return slots

    def _put(self, name: str, image: dict[bytes, bytes], wanted: Mapping[bytes, bytes]) -> None:
        for key, value in wanted.items():
            if image.get(key) != value:
                self.update(name, key, value)
                image[key] = value

    def _take(self, name: str, image: dict[bytes, bytes], wanted: Mapping[bytes, bytes]) -> None:
        for key in image.keys() - wanted.keys():
            self.delete(name, key)
            del image[key]

    def _put_lines(self, lines: Iterable[_Lines], matches: Mapping[int, Mapping[Prefix, Match]]) -> Steps[None]:
        """Add or change lines of the flat table, in this order; where a map refuses one, all are as before."""
        done: list[_Lines] = []
        try:
            for name, entry, prefixes in lines:
                said = matches[entry]
                for some in pieces(prefixes, _SOME):
                    done.append(_Lines(name, entry, some))
                    keys = [_line_key(name, entry, prefix) for prefix in some]
                    self.update_all(name, keys, [_RULE.pack(*said[prefix]) for prefix in some])
                    yield
        except MachineError:
            for name, entry, prefixes in reversed(done):
                decisions = self._decisions.get(entry, NOTHING_DECIDED)
                for prefix in reversed(prefixes):
                    before = decisions.get(prefix)
                    if before is None or _map_of(prefix, is_in_trie(decisions)) != name:
                        self.delete(name, _line_key(name, entry, prefix))
                    else:
                        self.update(name, _line_key(name, entry, prefix), _RULE.pack(*before))
            raise

    def _start_at_zero(self, name: str, ids: Set[int], layout: struct.Struct) -> Steps[None]:
        """A number may have been another's before, and its counters still that one's."""
        for some in pieces(ids & self._used[name], _PIECE):
            for number in some:
                if any(self._read_per_cpu(name, number, layout)):
                    self.update(name, _INDEX.pack(number), bytes(layout.size * self._cpus))
            yield
        self._used[name] |= ids

    def update(self, name: str, key: bytes, value: bytes) -> None:
        """Put an entry into a map; MachineError if it is full."""
        if self._lib.bpf_update_elem(self._fds[name], key, value, 0) != 0:
            code = ct.get_errno()
            why = "it is full" if code in (errno.E2BIG, errno.ENOSPC) else os.strerror(code)
            raise MachineError(f"kernel map {name}: can't add an entry: {why}")

    def update_all(self, name: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Put entries into a map, in this order; MachineError if it is full, and then the first of them are in it."""
        count = ct.c_uint32(len(keys))
        joined = b"".join(keys), b"".join(values)
        if self._lib.bpf_map_update_batch(self._fds[name], *joined, ct.byref(count), None) != 0:
            # a kernel without batches for this kind of map; or one by one tells what is wrong
            for key, value in zip(keys, values, strict=True):
                self.update(name, key, value)

    def delete_all(self, name: str, keys: Sequence[bytes]) -> None:
        """Take entries out of a map, in this order, those of them that are there."""
        count = ct.c_uint32(len(keys))
        if self._lib.bpf_map_delete_batch(self._fds[name], b"".join(keys), ct.byref(count), None) != 0:
            for key in keys:
                self.delete(name, key)

    def delete(self, name: str, key: bytes) -> None:
        """Take an entry out of a map, if it is there."""
        self._lib.bpf_delete_elem(self._fds[name], key)

    def lookup(self, name: str, key: bytes, size: int) -> bytes | None:
        """A map's value, of `size` bytes; None if the key isn't there."""
        value = ct.create_string_buffer(size)
        return None if self._lib.bpf_lookup_elem(self._fds[name], key, value) != 0 else value.raw

    def items(self, name: str, key_size: int, size: int) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values of a map; what changes meanwhile may come twice or not at all."""
        key, last = ct.create_string_buffer(key_size), None
        for _ in range(2 * self._sizes["RECENTS_MAX"]):
            if self._lib.bpf_get_next_key(self._fds[name], last, key) != 0:
                return
            last = key.raw
            if (value := self.lookup(name, last, size)) is not None:
                yield last, value

    def entry_counters(self, entry: int) -> EntryCounters:
        """What the program counted for an entry, summed over the CPUs."""
        sums = self._read_per_cpu("entry_counters", entry, _ENTRY_COUNTERS)
        return _by_name(sums)

    def rule_counters(self, rule: int) -> Mapping[Outcome, int]:
        """What the program counted for a rule, summed over the CPUs."""
        return dict(zip(Outcome, self._read_per_cpu("rule_counters", rule, _COUNTERS), strict=True))

    def all_rule_counters(self) -> dict[int, Mapping[Outcome, int]]:
        """What the program counted for its rules, but for those for which it counted nothing."""
        return {number: counted for some in self.rule_counters_in_pieces() for number, counted in some.items()}

    def rule_counters_in_pieces(self) -> Iterator[dict[int, Mapping[Outcome, int]]]:
        """The same, some rules at a time: a few milliseconds each."""
        for some in self._counted("rule_counters", self.rules, _COUNTERS):
            yield {number: dict(zip(Outcome, sums, strict=True)) for number, sums in some.items()}

    def entry_counters_in_pieces(self) -> Iterator[dict[int, EntryCounters]]:
        """What the program counted for its entries, but for those for which it counted nothing."""
        for some in self._counted("entry_counters", self.entries, _ENTRY_COUNTERS):
            yield {number: _by_name(sums) for number, sums in some.items()}

    def _counted(self, name: str, numbers: Set[int], layout: struct.Struct) -> Iterator[dict[int, list[int]]]:
        """What isn't 0 of the counters of these numbers, summed over the CPUs, some at a time."""
        size = layout.size * self._cpus
        nothing = bytes(size)
        for first, values in self._read_all(name, max(numbers, default=-1) + 1, size):
            found: dict[int, list[int]] = {}
            if values.strip(b"\0"):
                for start in range(0, len(values), size):
                    row, number = values[start : start + size], first + start // size
                    if row != nothing and number in numbers:
                        found[number] = _sums(layout, row)
            yield found

    def _read_all(self, name: str, end: int, size: int) -> Iterator[tuple[int, bytes]]:
        """A map's counters up to those of number `end`, in pieces: the first number of each, and the bytes."""
        keys, values = (ct.create_string_buffer(_PIECE * each) for each in (_INDEX.size, size))
        for first in range(0, end, _PIECE):
            wanted = min(_PIECE, end - first)
            count, place = ct.c_uint32(wanted), ct.c_uint32()
            # the kernel goes on from the key that it is given
            before = ct.byref(ct.c_uint32(first - 1)) if first else None
            fd = self._fds[name]
            failed = self._lib.bpf_map_lookup_batch(fd, before, ct.byref(place), keys, values, ct.byref(count), None)
            if failed == 0 and count.value == wanted:
                yield first, values.raw[: wanted * size]
            else:  # a kernel without batches for this kind of map
                singly = (self.lookup(name, _INDEX.pack(number), size) for number in range(first, first + wanted))
                yield first, b"".join(value or bytes(size) for value in singly)

    def _read_per_cpu(self, name: str, index: int, layout: struct.Struct) -> list[int]:
        values = self.lookup(name, _INDEX.pack(index), layout.size * self._cpus)
        if values is None:
            raise MachineError(f"kernel map {name}: no entry {index}")
        return _sums(layout, values)


def _by_name(sums: Sequence[int]) -> EntryCounters:
    return EntryCounters(dict(zip(Outcome, sums, strict=False)), dict(zip(Reason, sums[len(Outcome) :], strict=True)))


def _sums(layout: struct.Struct, values: bytes) -> list[int]:
    """The counters of all CPUs together."""
    return [sum(column) for column in zip(*layout.iter_unpack(values), strict=True)]


@dataclass(frozen=True, slots=True)
class Recent:
    """A target that was asked for: when first and last (CLOCK_MONOTONIC, nanoseconds), and how often."""

    entry: int
    target: bytes
    first: int
    last: int
    count: int


class Datapath:
    """The program at work: loaded, attached, filled. It answers nothing until it is attached; closing detaches it.

    When a table or the limits outgrow the maps, or much is to be different at once, a program with maps of its own
    takes over: filling() makes its maps say all that these say, switch() puts it where the old one sits, with no frame
    in between that neither sees. The old one's counters count on.
    """

    def __init__(self, table: Table, limits: Limits) -> None:
        self._bcc = load_bcc()
        self._lib = self._bcc.lib
        self._links: dict[int, int] = {}
        self._known: dict[bytes, int] = {}
        self._limits = limits
        self._resolving_full = False
        self._crowding: Set[tuple[int, bytes]] = frozenset()
        self._routing = RoutingFlag(0)
        self._kept = 0
        self._retired: list[Program] = []
        self._folded_entries: dict[int, EntryCounters] = {}
        self._folded_rules: dict[int, Mapping[Outcome, int]] = {}
        self._table = Table({}, {}, {}, {}, {})
        self.changes = 0
        """How often what is counted has got another meaning, or another place."""
        sizes = sizes_for([table], limits)
        self.program = Program(load(sizes), sizes)
        _give_back_memory()
        self._successors: list[Program] = []  # made ready to take over: what hosts are there, they are told, too
        self.limit(limits)

    def close(self) -> None:
        """Detach from every interface, then give up program and maps."""
        for ifindex in tuple(self._links):
            self.detach(ifindex)
        for program in (*self._retired, self.program):
            program.close()

    # --- table and limits ---

    def limit(self, limits: Limits) -> None:
        """The budget of events that all sources share."""
        self._limits = limits
        self._set(self.program)

    def set_resolving_full(self, full: bool) -> None:
        """Whether solicitations for targets that would have to be resolved are refused for the moment."""
        if full != self._resolving_full:
            self._resolving_full = full
            self._set(self.program)

    def set_crowding(self, askers: Set[tuple[int, bytes]]) -> None:
        """Whose solicitations (entry, MAC) for targets that would have to be resolved are refused for the moment.

        A MAC of zeros is all who ask on that entry.
        """
        if askers == self._crowding:
            return
        before, self._crowding = self._crowding, askers
        for program in self._programs():
            for asker in before - askers:
                program.delete("crowding", _SOURCE_KEY.pack(*asker))
            self._crowd(program, askers - before)

    @staticmethod
    def _crowd(program: Program, askers: Iterable[tuple[int, bytes]]) -> None:
        with suppress(MachineError):  # full, where the limit has just been lowered: then Python refuses
            for asker in askers:
                program.update("crowding", _SOURCE_KEY.pack(*asker), _CROWDING)

    def _set(self, program: Program) -> None:
        cost = _NANOSECONDS // self._limits.events_per_second
        routing = self._routing | (RoutingFlag.NOWHERE if self._table.nowhere else 0)
        settings = _SETTINGS.pack(cost, self._resolving_full, routing, self._kept)
        program.update("settings_space", _INDEX.pack(0), settings)

    def _programs(self) -> list[Program]:
        """The program at work, and those that are made ready to take over."""
        return [self.program, *self._successors]

    def apply(self, table: Table) -> None:
        """Make the kernel's maps say what `table` says; see fitting()."""
        self.program.apply(table)
        self._follow(table)

    def _follow(self, table: Table) -> None:
        """A table is in the maps."""
        self.changes += 1
        # what is gone or fresh has no past: a number may be another's by now
        entries = self._table.entries.keys() & table.entries.keys()
        for program in self._retired:
            program.entries &= entries
            program.rules.intersection_update(self._table.rules, table.rules)
        for number in self._folded_entries.keys() - entries:
            del self._folded_entries[number]
        for number in tuple(self._folded_rules):
            if number not in self._table.rules or number not in table.rules:
                del self._folded_rules[number]
        self._forget_recents(self._table.entries.keys() - table.entries.keys())
        for decisions in table.decisions.values():
            decisions.is_in_force()
        nowhere, self._table = self._table.nowhere, table
        if bool(nowhere) != bool(table.nowhere):
            self._set(self.program)

    def tap(self, tapped: Tapped) -> bool:
        """From the next apply() on: on which ports a tap looks for hidden tags. False if nothing is different."""
        before, self.program.tapped = self.program.tapped, tapped
        return before != tapped

    def _forget_recents(self, entries: Set[int]) -> None:
        """What was asked for on entries that are gone: their numbers may be others' by and by."""
        if any(self._table.entries[entry].collect for entry in entries):
            for recent in self.recents():
                if recent.entry in entries:
                    self.program.delete("recents", _ADDRESS_KEY.pack(recent.entry, recent.target))

    def has_room(self, table: Table, limits: Limits) -> bool:
        """Whether the maps have room for a table."""
        return finish(self.fitting(table, limits)) is not Fit.NOT

    def fitting(self, table: Table, limits: Limits) -> Steps[Fit]:
        """How a table fits; one that doesn't fit, or is much, a program of its own is to take over for."""
        return self.program.fitting(table, limits)

    def sizes(self, table: Table, limits: Limits) -> dict[str, int]:
        """Of the maps of a program that is to take over: it has room for `table` and for the one in force."""
        return sizes_for([self._table, table], limits, len(self._known))

    def successor(self, loaded: Loaded, sizes: Mapping[str, int]) -> Program:
        """A program that is to take over: it is told of hosts, too, until switch() or give_up()."""
        program = Program(loaded, sizes)
        self._successors.append(program)
        return program

    def filling(self, program: Program, table: Table) -> Steps[None]:
        """Make the maps of a successor say what `table` says, and whatever else is known.

        Another table may be filled in after that.
        """
        self._set(program)
        for some in pieces(tuple(self._known)):
            for key in some:
                if (flags := self._known.get(key)) is not None:  # it may have gone meanwhile
                    program.update("known_targets", key, _KNOWN.pack(flags, _now()))
            yield
        self._crowd(program, self._crowding)
        program.tapped = self.program.tapped
        yield from program.applying(table)
        for recents in pieces(self.program.items("recents", _ADDRESS_KEY.size, _RECENT.size), _PIECE):
            for key, value in recents:
                program.update("recents", key, value)
            yield

    def give_up(self, program: Program) -> None:
        """A successor isn't to take over after all; nothing happens if it has been given up, or has taken over."""
        if program in self._successors:
            self._successors.remove(program)
            program.close()

    def switch(self, program: Program, table: Table) -> None:
        """Let a program that is filled with a table take over on every interface; retire() the old one when its ring is
        empty.

        Raises MachineError, with the old one on all of them, if it can't be.
        """
        if program.tapped != self.program.tapped:
            program.tapped = self.program.tapped
            program.apply(table)
        self._set(program)  # else it would go by no settings at all for a moment
        replaced: list[int] = []
        for ifindex, link in tuple(self._links.items()):
            if self._lib.bpf_link_update(link, program.fd, None) == 0:
                replaced.append(link)
            elif (code := ct.get_errno()) in _DETACHED:
                self.detach(ifindex)  # the interface has just been deleted
            else:
                for back in replaced:
                    self._lib.bpf_link_update(back, self.program.fd, None)
                raise MachineError(f"interface {ifindex}: can't replace our program: {os.strerror(code)}")
        self._retired.append(self.program)
        self.program = program
        self._successors.remove(program)
        self._follow(table)
        self._set(program)

    def retire(self) -> None:
        """Keep the counts of those programs that were switched off, and give up the rest of them."""
        finish(self.retiring())

    def retiring(self) -> Steps[None]:
        """The same, bit by bit; the bits in which something is different are short."""
        for program in tuple(self._retired):
            counted_entries: dict[int, EntryCounters] = {}
            counted_rules: dict[int, Mapping[Outcome, int]] = {}
            for some_entries in program.entry_counters_in_pieces():
                counted_entries.update(some_entries)
                yield
            for some_rules in program.rule_counters_in_pieces():
                counted_rules.update(some_rules)
                yield
            changes = -1
            while changes != self.changes:  # else a table has come meanwhile, in which numbers mean something else
                changes = self.changes
                entries, rules = dict(self._folded_entries), dict(self._folded_rules)
                for entry_items in pieces(counted_entries.items()):
                    for number, entry in entry_items:
                        if number in program.entries:
                            entries[number] = _sum_of(entries[number], entry) if number in entries else entry
                    yield
                for rule_items in pieces(counted_rules.items()):
                    for number, rule in rule_items:
                        if number in program.rules:
                            rules[number] = added(rules[number], rule) if number in rules else rule
                    yield
            self.changes += 1
            self._folded_entries, self._folded_rules = entries, rules
            self._retired.remove(program)
            program.close()
            yield

    # --- known targets ---

    def know(self, group: int, address: bytes, flags: KnownFlag) -> None:
        """Count a target as there, for the rules of a group; MachineError when there is no room for it."""
        key = _ADDRESS_KEY.pack(group, address)
        if self._known.get(key) != flags or flags:  # the program clears flags by itself
            value = _KNOWN.pack(flags, _now())
            self.program.update("known_targets", key, value)
            self._known[key] = flags
            for program in self._successors:
                with suppress(MachineError):  # no room under lower limits: there it is looked for when it is asked for
                    program.update("known_targets", key, value)

    def forget(self, group: int, address: bytes) -> None:
        """Count a target as not there any more."""
        key = _ADDRESS_KEY.pack(group, address)
        if self._known.pop(key, None) is not None:
            for program in self._programs():
                program.delete("known_targets", key)

    def forget_heard(self, address: bytes) -> None:
        """Whoever has this address is new wherever it is heard next."""
        self.program.delete("heard_sources", _ADDRESS_KEY.pack(_NO_SCOPE, address))

    def asked(self, group: int, address: bytes) -> int:
        """When a known target was last asked for: seconds (system/clock.py). 0: it isn't known."""
        value = self.program.lookup("known_targets", _ADDRESS_KEY.pack(group, address), _KNOWN.size)
        return 0 if value is None else int(_KNOWN.unpack(value)[1])

    # --- routes that the kernel was asked about ---

    def set_routing(self, kinds: RoutingFlag) -> None:
        """What routes and rules there are that bpf_fib_lookup() can't tell of: only Python can, then."""
        self._routing = kinds
        self._set(self.program)

    def keep_routes(self, number: int) -> None:
        """Go by what is kept under this number from now on, and by nothing that was kept before; 0: by nothing."""
        self._kept = number
        self._set(self.program)

    def keep_route(self, entry: int, target: bytes, number: int, *, there: bool) -> None:
        """What the kernel would do with packets for a target that came in by an entry."""
        with suppress(MachineError):  # no room, where all is in use: then it is asked again
            self.program.update("kept_routes", _ADDRESS_KEY.pack(entry, target), _KEPT_ROUTE.pack(number, there))

    # --- recents ---

    def each_recent(self) -> Iterator[Recent]:
        """The targets that were asked for on entries that collect them."""
        for key, value in self.program.items("recents", _ADDRESS_KEY.size, _RECENT.size):
            yield Recent(*_ADDRESS_KEY.unpack(key), *_RECENT.unpack(value))

    def recents(self) -> list[Recent]:
        """The same, all at once."""
        return list(self.each_recent())

    # --- counters ---

    def entry_counters(self, entry: int) -> EntryCounters:
        """What the program counted for an entry, under its predecessors too."""
        found = self._folded_entries.get(entry, _NOTHING)
        for program in self._counting(entry, "entries"):
            found = _sum_of(program.entry_counters(entry), found)
        return _sum_of(_NOTHING, found)

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
        programs = (*self._retired, self.program)
        rules: dict[int, Mapping[Outcome, int]] = {}
        entries: dict[int, EntryCounters] = {}
        for program in programs:
            for some_entries in program.entry_counters_in_pieces():
                for number, entry in some_entries.items():
                    before = entries.get(number)
                    entries[number] = entry if before is None else _sum_of(before, entry)
                yield
            for some_rules in program.rule_counters_in_pieces():
                for number, rule in some_rules.items():
                    rules[number] = added(rules[number], rule) if number in rules else rule
                yield
        for folded in pieces(tuple(self._folded_rules.items())):
            for number, counted in folded:
                rules[number] = added(rules.get(number, {}), counted)
            yield
        for kept in pieces(tuple(self._folded_entries.items())):
            for number, gone in kept:
                entries[number] = _sum_of(entries.get(number, EntryCounters({}, {})), gone)
            yield
        return entries, rules

    def _counting(self, number: int, kind: str) -> list[Program]:
        return [program for program in (*self._retired, self.program) if number in getattr(program, kind)]

    # --- attach ---

    def attach(self, ifindex: int, name: str, mode: AttachMode) -> None:
        """Attach to an interface, by a link that the kernel undoes when this process ends, however it ends.

        Raises Refused if the driver can't have the program in this mode, MachineError if another program is
        there already: it is never replaced.
        """
        opts = _LinkCreateOpts(sz=ct.sizeof(_LinkCreateOpts), flags=mode)
        fd = self._lib.bpf_link_create(self.program.fd, ifindex, _BPF_XDP, ct.byref(opts))
        if 0 <= fd < _first_spare():
            self._links[ifindex] = fd
            return
        if fd >= 0:
            os.close(fd)
            code = errno.EMFILE
        else:
            code = -fd if fd < -1 else ct.get_errno()
        if is_want_of_room(code):
            raise MachineError(f"{name}: can't attach an XDP program: {remedy(OSError(code, os.strerror(code)))}")
        if code in (errno.EBUSY, errno.EEXIST):
            raise MachineError(
                f"{name}: {self._foreign_program(ifindex)}; detach it first, or leave this interface out"
            )
        if code == errno.EPERM:
            raise MachineError(
                f"{name}: not permitted to attach an XDP program; run as root or give CAP_NET_ADMIN and CAP_BPF"
            )
        raise Refused(f"{name}: the driver refuses an XDP program in {mode.name.lower()} mode: {os.strerror(code)}")

    def detach(self, ifindex: int) -> None:
        """Take the program off an interface; nothing happens if it isn't there."""
        fd = self._links.pop(ifindex, None)
        if fd is not None:
            os.close(fd)

    def attached_to(self, ifindex: int) -> bool:
        """Whether this process has the program on that interface."""
        return ifindex in self._links

    def taken_off(self, ifindexes: Iterable[int]) -> list[int]:
        """Those of the interfaces that the kernel doesn't have the program on: somebody may have taken it off by force.

        By the links' own information, which takes less than 2 us each. A kernel that doesn't tell is believed.
        """
        info = ct.create_string_buffer(_XDP_LINK_INFO_SIZE)
        length = ct.byref(ct.c_uint32(_XDP_LINK_INFO_SIZE))
        where_it_sits = ct.c_uint32.from_buffer(info, _XDP_LINK_IFINDEX)  # 0 where it is taken off
        ask, link_of = self._lib.bpf_obj_get_info_by_fd, self._links.get
        found = []
        for ifindex in ifindexes:
            link = link_of(ifindex)
            if link is None or (ask(link, info, length) == 0 and where_it_sits.value != ifindex):
                found.append(ifindex)
        return found

    @property
    def program_id(self) -> int:
        """The kernel's number of the current program, as IFLA_XDP has it; 0 where the kernel doesn't tell."""
        info, length = ct.create_string_buffer(_PROGRAM_INFO.size), ct.c_uint32(_PROGRAM_INFO.size)
        if self._lib.bpf_obj_get_info_by_fd(self.program.fd, info, ct.byref(length)) != 0:
            return 0
        return int(_PROGRAM_INFO.unpack(info.raw)[0])

    def _foreign_program(self, ifindex: int) -> str:
        opts = _XdpQueryOpts(sz=ct.sizeof(_XdpQueryOpts))
        if self._lib.bpf_xdp_query(ifindex, 0, ct.byref(opts)) != 0:
            return "another XDP program is attached"
        for mode, program in (
            ("generic", opts.skb_prog_id),
            ("native", opts.drv_prog_id),
            ("offload", opts.hw_prog_id),
        ):
            if program:
                name = self._program_name(program)
                ours = ", another npd6-xdp's" if name == "ns_filter" else ""
                where = f"another XDP program is attached in {mode} mode: id {program}"
                return where + (f" ({name}{ours})" if name else "")
        return f"another XDP program is attached: id {opts.prog_id}"

    def _program_name(self, program: int) -> str:
        """The name of a loaded program; "" without CAP_SYS_ADMIN, which looking at others' takes."""
        fd = self._lib.bpf_prog_get_fd_by_id(program)
        if fd < 0:
            return ""
        info = ct.create_string_buffer(80)  # struct bpf_prog_info up to and with `name`
        length = ct.c_uint32(len(info))
        failed = self._lib.bpf_obj_get_info_by_fd(fd, info, ct.byref(length))
        os.close(fd)
        return "" if failed else info.raw[64:80].rstrip(b"\0").decode(errors="replace")


def added(one: Mapping[T, int], other: Mapping[T, int]) -> dict[T, int]:
    """The sums of counts by name, in the order of the first."""
    sums = {name: count + other.get(name, 0) for name, count in one.items()}
    return sums | {name: count for name, count in other.items() if name not in one}


def _sum_of(one: EntryCounters, other: EntryCounters) -> EntryCounters:
    return EntryCounters(added(one.outcomes, other.outcomes), added(one.reasons, other.reasons))


_NOTHING = EntryCounters(dict.fromkeys(Outcome, 0), dict.fromkeys(Reason, 0))


def _first_spare() -> int:
    """From which number on descriptors aren't for ports: who asks for metrics or the status needs some, and so does a
    program that takes over. (The kernel gives the lowest number that is free.)
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit - min(_SPARE, limit // 8) if limit >= 0 else 1 << 31


class _Change(NamedTuple):
    """What is to be put into the maps for an entry, and taken out of them; its prefixes are in the trie, or were."""

    entry: int
    put: dict[Prefix, Match]
    take: list[Prefix]
    in_trie: bool
    was_in_trie: bool


_Changes = Sequence[_Change]


class _Lines(NamedTuple):
    """Lines of the flat table, and the kernel map that they belong into."""

    map: str
    entry: int
    prefixes: Sequence[Prefix]


def is_in_trie(decisions: Decisions) -> bool:
    """Whether an entry's prefixes are better found in the trie than by a hash look-up for each length."""
    lengths, prefixes = len(decisions.lengths), len(decisions) - decisions.addresses
    return lengths > _MOST_LENGTHS or prefixes < lengths * _HASHED_FROM


class _Fitting(NamedTuple):
    """How a table fits, and what is to be done for it to be in the maps."""

    table: Table
    limits: Limits
    changes: _Changes | None
    fit: Fit


def _map_of(prefix: Prefix, in_trie: bool) -> str:
    return "prefixes" if prefix.length < BITS and in_trie else "lines"


def _in_turn(entries: Iterable[tuple[int, Iterable[Prefix], bool]]) -> Steps[list[_Lines]]:
    """Prefixes of entries, which are in the trie or not, by their maps; the shortest first."""
    found: defaultdict[tuple[int, str, int], list[Prefix]] = defaultdict(list)
    for entry, prefixes, in_trie in entries:
        for some in pieces(prefixes, _SOME):
            for prefix in some:
                found[prefix.length, _map_of(prefix, in_trie), entry].append(prefix)
            yield
    return [_Lines(name, entry, found[length, name, entry]) for length, name, entry in sorted(found)]


def _line_key(name: str, entry: int, prefix: Prefix) -> bytes:
    address, length = prefix
    if name == "lines":
        return _LINE_KEY.pack(entry, length, address.to_bytes(16))
    return _PREFIX_KEY.pack(32 + length, entry, address.to_bytes(16))


def _pack_lengths(lengths: Iterable[int]) -> bytes:
    return bytes(sorted(lengths, reverse=True)).ljust(8, b"\xff")


def _with_lengths(slot: bytes, lengths: bytes) -> bytes:
    *others, _ = _SLOT.unpack(slot)
    return _SLOT.pack(*others, lengths)


def _any_vlan_last(item: tuple[bytes, bytes]) -> bool:
    return bool(_SLOT_KEY.unpack(item[0])[1] == VLAN_ANY)


_Packed = dict[int, tuple[Entry, Decisions, bool, int, bytes]]
"""Slots by entry, with what they were made of: a table has the very same objects where nothing is different."""


def pack_slots(
    table: Table,
    tapped: Tapped = Tapped(),  # noqa: B008 (frozen)
    packed: _Packed | None = None,
) -> dict[bytes, bytes]:
    """The kernel's map of slots for a table. `packed` has what was packed before, and is brought up to date.

    On a silent port, what looks untagged may be another VLAN's, so that is monitored only; a tag that is in the frame
    is believed.
    """
    slots: dict[bytes, bytes] = {}
    known, now = packed or {}, _Packed()
    wanted = dict(table.slots)
    for port in tapped.silent & table.ports:
        wanted.setdefault((port, 0, 0), table.slots[port, VLAN_ANY, VLAN_ANY])
    for (port, outer, inner), entry_id in wanted.items():
        entry, decisions = table.entries[entry_id], table.decisions.get(entry_id, NOTHING_DECIDED)
        is_silent = port in tapped.silent and (outer, inner) == (0, 0)
        flags = _slot_flags(entry, port, tapped, hears=table.hears(entry))
        before = known.get(entry_id)
        if before is None or before[0] is not entry or before[1] is not decisions or before[2:4] != (is_silent, flags):
            before = entry, decisions, is_silent, flags, _pack_slot(entry, decisions, flags, is_silent=is_silent)
        now[entry_id] = before
        for ifindex in (port, *entry.lower):
            if ifindex == port or ifindex not in table.ports:
                slots[_SLOT_KEY.pack(ifindex, outer, inner)] = before[4]
    if packed is not None:
        packed.clear()
        packed.update(now)
    return slots


def _pack_slot(entry: Entry, decisions: Decisions, flags: int, *, is_silent: bool) -> bytes:
    sources, link_local, global_address = slot_sources(entry.addresses)
    in_trie = is_in_trie(decisions)
    return _SLOT.pack(
        entry.id,
        entry.mac,
        DATAPATHS.index(DatapathKind.MONITOR if is_silent else entry.datapath),
        sources,
        entry.l3_ifindex,
        link_local.packed,
        global_address.packed,
        _NANOSECONDS // entry.source_limit if entry.source_limit else 0,
        entry.collect > 0,
        in_trie,
        entry.port_mac or entry.mac,
        flags,
        _pack_lengths(() if in_trie else decisions.lengths),
    )


_SHARED, _TAPPED, _GUARDED, _SAMPLED, _TAGLESS, _HEARS = map(int, SlotFlag)


def _slot_flags(entry: Entry, port: int, tapped: Tapped, *, hears: bool) -> int:
    flags = _SHARED if entry.shared else 0  # plain numbers, for thousands of ports
    if port in tapped.ports:
        flags |= _TAPPED
    if port in tapped.guarded:
        flags |= _GUARDED
    if port in tapped.sampled:
        flags |= _SAMPLED
    if port in tapped.tagless:
        flags |= _TAGLESS
    return flags | _HEARS if hears else flags


def pack_vias(table: Table) -> dict[bytes, bytes]:
    """The kernel's map of groups and the interfaces in them; those that lead nowhere are in NO_GROUP and no other."""
    groups = {group: indexes - table.nowhere for group, indexes in table.vias.items()} | {NO_GROUP: table.nowhere}
    return {_VIA_KEY.pack(group, index): _VIA for group, indexes in groups.items() for index in indexes}


def _now() -> int:
    return machine_ns() // _NANOSECONDS


def _needs(table: Table, limits: Limits) -> dict[str, int]:
    """How many entries each of the maps must have room for."""
    entries = table.entries.values()
    decisions = table.decisions.values()
    return {
        # one more for each port, should it fall silent
        "SLOTS_MAX": sum(2 + len(table.entries[entry].lower) for entry in table.slots.values()),
        "ENTRIES_MAX": max(table.entries, default=0) + 1,
        "RULES_MAX": max(table.rules, default=0) + 1,
        "LINES_MAX": sum(each.addresses if is_in_trie(each) else len(each) for each in decisions),
        "PREFIXES_MAX": sum(len(each) - each.addresses for each in decisions if is_in_trie(each)),
        "VIAS_MAX": sum(len(indexes) for indexes in table.vias.values()) + len(table.nowhere),
        "KNOWN_MAX": limits.neighbours + limits.kernel_entries,
        "CROWDING_MAX": limits.pending + len(table.entries),
        "SOURCES_MAX": 16384 if any(entry.source_limit for entry in entries) else 1,
        "RECENTS_MAX": 2 * sum(entry.collect for entry in entries),
        "KEPT_MAX": _KEPT if Decision.ROUTE in table.kinds else 1,
        "HEARD_MAX": _HEARD if any(map(table.hears, entries)) else 1,
    }


def memory_to_load(tables: Sequence[Table], limits: Limits) -> int:
    """How many bytes it takes, at the least, to load a program with room for these tables: docs/capacity.md.

    Nearly all of it is the compiler's, which gives it back, if the program has to be compiled. What the counters take
    for each CPU isn't in it, as not every kernel charges a control group with that.
    """
    lines = max(_room("LINES_MAX", _needs(table, limits)["LINES_MAX"]) for table in tables)
    return (0 if _is_kept() else _COMPILER_BYTES) + lines * _LINE_BYTES


def _room(name: str, wanted: int) -> int:
    """A map's size. Those that a table fills: twice what is needed now, so that it can grow for a while."""
    if name in ("KNOWN_MAX", "SOURCES_MAX", "KEPT_MAX", "HEARD_MAX"):
        return wanted
    if name == "RECENTS_MAX":
        return (
            max(wanted, 1024) if wanted else 1
        )  # a kernel LRU map keeps some entries per CPU: small ones forget early
    return max(16384 if name in ("LINES_MAX", "PREFIXES_MAX") else 64, 2 * wanted)


def load_bcc() -> Any:
    """The bcc module; MachineError with the package to install if it isn't there, or isn't the real one."""
    try:
        with as_machine_error("can't load bcc"):
            import bcc
    except ImportError:
        bcc = None
    if not hasattr(bcc, "BPF"):
        raise MachineError(
            "bcc is missing: install the distribution's package (Debian, Ubuntu: python3-bpfcc; Fedora: python3-bcc)"
            " and run with /usr/bin/python3 or a virtual environment with system site packages"
            " (the package `bcc` of the Python Package Index is another thing)"
        )
    return bcc


def compile_program(source: str, function: str, definitions: Mapping[str, int]) -> tuple[Any, Any]:
    """Compile C and load one function as an XDP program: the bcc module object and its function.

    Raises MachineError with the compiler's or the verifier's words, of which bcc itself prints all to file
    descriptor 2 and raises none.
    """
    bcc = load_bcc()
    # Stub headers stand in for the kernel's, which need not be installed (bpf/include).
    os.environ["BCC_KERNEL_SOURCE"] = str(BPF_DIRECTORY)
    flags = [*_FLAGS, *(f"-D{name}={value}" for name, value in definitions.items())]
    with _words_caught():
        module = bcc.BPF(text=source.encode(), cflags=flags)
        return module, module.load_func(function.encode(), bcc.BPF.XDP)


def load_function(module: Any, function: str, kind: int) -> Any:
    """Load another function of a compiled module, as a program of a kind of bcc's. Raises MachineError as well."""
    with _words_caught():
        return module.load_func(function.encode(), kind)


@contextmanager
def _words_caught() -> Iterator[None]:
    """While bcc works: what it prints becomes part of a MachineError, if it fails."""
    with as_machine_error("can't compile the XDP program"), os.fdopen(os.memfd_create("words"), "r+b") as words:
        # the verifier gives up when a signal waits (EAGAIN), and what a signal ends has file descriptor 2 back by then
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        saved = os.dup(2)
        try:
            os.dup2(words.fileno(), 2)
            yield
        except Exception as error:  # bcc raises nothing more exact
            words.seek(0)
            said = words.read().decode(errors="replace").strip()
            raise MachineError(_why_not(str(error), said)) from error
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _give_back_memory() -> None:
    """What the compiler leaves behind: 18 MB of free heap that glibc keeps, and 74 MB of its own code that is mapped.

    Where it had nothing to do, 45 MB of its code are mapped all the same, as bcc's library needs it. Code is read from
    the page cache again if it is needed. Only executable mappings are let go of: those are as the file has them, while
    the linker has written into others.
    """
    libc = ct.CDLL(None)
    with suppress(AttributeError):  # other C libraries have no such call
        libc.malloc_trim(0)
    with suppress(OSError):
        for mapping in Path("/proc/self/maps").read_text().splitlines():
            addresses, permissions, *_, name = mapping.split()
            if permissions == "r-xp" and any(library in name for library in _COMPILER):
                start, end = (int(address, 16) for address in addresses.split("-"))
                libc.madvise(ct.c_void_p(start), ct.c_size_t(end - start), _MADV_DONTNEED)


def _missing_capabilities() -> list[str]:
    """What loading takes, and this process has not. Without CAP_PERFMON the verifier refuses pages long."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return [name for name, bits in _CAPABILITIES.items() if not any(effective >> bit & 1 for bit in bits)]


def _why_not(error: str, said: str) -> str:
    refused = any(words in f"{error}\n{said}".lower() for words in ("super-user", "not permitted", "permission denied"))
    if refused and (missing := _missing_capabilities()):
        return (
            f"not permitted to load an XDP program: without {' and '.join(missing)};"
            " run as root, or give CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
        )
    if (shortage := os.strerror(errno.EMFILE)) in said:
        return f"the XDP program can't be loaded: {remedy(OSError(errno.EMFILE, shortage))}"
    release = os.uname().release
    if tuple(int(part) for part in release.split("-")[0].split(".")[:2]) < OLDEST_KERNEL:
        return f"Linux {release} is too old: npd6-xdp needs 5.18 or newer"
    return f"the XDP program can't be loaded: {error}" + (f"\n{said}" if said else "")
