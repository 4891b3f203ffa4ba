# SPDX-License-Identifier: GPL-2.0-or-later
"""The XDP program, through bcc: compile, load, fill its maps, attach it, read its counters.

The byte layouts here mirror the structs of bpf/ns_filter.c; a test compares their sizes with the compiled maps'.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import signal
import struct
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from npd6_xdp.core.config import Limits
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.links import slot_sources
from npd6_xdp.core.rules import DATAPATHS, VLAN_ANY, KnownFlag, Match, Table
from npd6_xdp.core.verdict import Outcome, Reason

BPF_DIRECTORY = Path(__file__).resolve().parents[2] / "bpf"
OLDEST_KERNEL = (5, 18)  # bpf_xdp_load_bytes()

_BPF_XDP = 37  # enum bpf_attach_type
_XDP_FLAGS_SKB_MODE = 2
_XDP_FLAGS_DRV_MODE = 4

_SLOT_KEY = struct.Struct("=IHH")
_SLOT = struct.Struct("=I6sBBI16s16sQI4x")
_ADDRESS_KEY = struct.Struct("=I4x16s")
_PREFIX_KEY = struct.Struct("=II16s")
_RULE = struct.Struct("=IHHI")
_KNOWN = struct.Struct("=II")
_VIA_KEY = struct.Struct("=II")
_VIA = struct.pack("=I", 1)
_SOURCE_KEY = struct.Struct("=I6s2x")
_CROWDING = struct.pack("=I", 1)
_SETTINGS = struct.Struct("=QI4x")
_RECENT = struct.Struct("=QQQ")
_INDEX = struct.Struct("=I")
_COUNTERS = struct.Struct(f"={len(Outcome)}Q")
_ENTRY_COUNTERS = struct.Struct(f"={len(Outcome) + len(Reason)}Q")


_TABLE_MAPS = ("vias", "addresses", "prefixes", "slots")
"""Those that a table fills, in the order in which a target's way needs them filled: the slot leads to all else."""
_MAPS = (*_TABLE_MAPS, "entry_counters", "rule_counters", "known_targets", "crowding", "settings_space", "recents")
_SIZE = {"vias": "VIAS_MAX", "addresses": "ADDRESSES_MAX", "prefixes": "PREFIXES_MAX", "slots": "SLOTS_MAX"}
_DETACHED = (errno.ENOLINK, errno.ENODEV)  # what a link says of an interface that is gone
_NANOSECONDS = 1_000_000_000


class AttachMode(IntEnum):
    """Where a program sits on an interface; the values are the kernel's attach flags."""

    GENERIC = _XDP_FLAGS_SKB_MODE
    NATIVE = _XDP_FLAGS_DRV_MODE


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


class Program:
    """The loaded program and its maps, with room for twice what `tables` hold, which are not loaded yet: apply().

    `known` is how many known targets there must be room for at the least.
    """

    def __init__(self, tables: Iterable[Table], limits: Limits, known: int = 0) -> None:
        self._bcc = load_bcc()
        self._lib = self._bcc.lib
        needs = [_needs(table, limits) for table in tables]
        self._sizes = {name: _room(name, max(each[name] for each in needs)) for name in needs[0]}
        self._sizes["KNOWN_MAX"] = max(self._sizes["KNOWN_MAX"], known)
        source = (BPF_DIRECTORY / "ns_filter.c").read_text()
        self.bpf, self._function = compile_program(source, "ns_filter", self._sizes)
        self._fds = {name: self._lib.bpf_table_fd(self.bpf.module, name.encode()) for name in _MAPS}
        self._image: dict[str, dict[bytes, bytes]] = {name: {} for name in _TABLE_MAPS}
        self._cpus = len(self._bcc.utils.get_possible_cpus())
        self.entries: set[int] = set()
        self.rules: set[int] = set()
        """Numbers of the entries and rules that it counts for."""

    def close(self) -> None:
        """Give up program and maps; what is attached holds on to them."""
        self.bpf.cleanup()

    @property
    def fd(self) -> int:
        """The program's file descriptor."""
        return int(self._function.fd)

    def fits(self, table: Table, limits: Limits) -> bool:
        """Whether the maps have room for a table, beside what of the last one goes only when all of it is in."""
        needs = _needs(table, limits)
        if any(wanted > self._sizes[name] for name, wanted in needs.items()):
            return False
        if all(len(self._image[name]) + needs[size] <= self._sizes[size] for name, size in _SIZE.items()):
            return True
        wanted = pack_table(table)
        return all(len(self._image[name].keys() | wanted[name]) <= self._sizes[_SIZE[name]] for name in _TABLE_MAPS)

    def apply(self, table: Table) -> None:
        """Make the maps say what `table` says, by difference from what they said before.

        In such an order that at each moment every target is decided by the rule that the old table has for it or by
        the new one's, and by none between: what is added comes before what is removed, the narrowest first when
        adding and last when removing. How an interface answers (its slot) changes after its rules, at once. Raises
        MachineError when a map refuses.
        """
        self._start_at_zero("entry_counters", table.entries.keys() - self.entries, _ENTRY_COUNTERS)
        self._start_at_zero("rule_counters", table.rules.keys() - self.rules, _COUNTERS)
        self.entries, self.rules = set(table.entries), set(table.rules)
        wanted = pack_table(table)
        for name in _TABLE_MAPS:
            image = self._image[name]
            changed = [key for key, value in wanted[name].items() if image.get(key) != value]
            for key in sorted(changed, key=_WIDTH[name]):
                self.update(name, key, wanted[name][key])
                image[key] = wanted[name][key]
        for name in reversed(_TABLE_MAPS):
            image = self._image[name]
            for key in sorted(image.keys() - wanted[name].keys(), key=_WIDTH[name], reverse=True):
                self.delete(name, key)
                del image[key]

    def _start_at_zero(self, name: str, ids: Iterable[int], layout: struct.Struct) -> None:
        """A number may have been another's before, and its counters still that one's."""
        for number in ids:
            if any(self._read_per_cpu(name, number, layout)):
                self.update(name, _INDEX.pack(number), bytes(layout.size * self._cpus))

    def update(self, name: str, key: bytes, value: bytes) -> None:
        """Put an entry into a map; MachineError if it is full."""
        if self._lib.bpf_update_elem(self._fds[name], key, value, 0) != 0:
            code = ct.get_errno()
            why = "it is full" if code in (errno.E2BIG, errno.ENOSPC) else os.strerror(code)
            raise MachineError(f"kernel map {name}: can't add an entry: {why}")

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
        return EntryCounters(
            dict(zip(Outcome, sums, strict=False)), dict(zip(Reason, sums[len(Outcome) :], strict=True))
        )

    def rule_counters(self, rule: int) -> Mapping[Outcome, int]:
        """What the program counted for a rule, summed over the CPUs."""
        return dict(zip(Outcome, self._read_per_cpu("rule_counters", rule, _COUNTERS), strict=True))

    def _read_per_cpu(self, name: str, index: int, layout: struct.Struct) -> list[int]:
        values = self.lookup(name, _INDEX.pack(index), layout.size * self._cpus)
        if values is None:
            raise MachineError(f"kernel map {name}: no entry {index}")
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

    When a table or the limits outgrow the maps, a program with larger ones takes over: larger() loads it, switch()
    puts it where the old one sits, with no frame in between that neither sees. The old one's counters count on.
    """

    def __init__(self, table: Table, limits: Limits) -> None:
        self._bcc = load_bcc()
        self._lib = self._bcc.lib
        self._links: dict[int, int] = {}
        self._known: dict[bytes, int] = {}
        self._limits = limits
        self._resolving_full = False
        self._crowding: Set[tuple[int, bytes]] = frozenset()
        self._retired: list[Program] = []
        self._folded_entries: defaultdict[int, Counter[Outcome | Reason]] = defaultdict(Counter)
        self._folded_rules: defaultdict[int, Counter[Outcome]] = defaultdict(Counter)
        self._table = Table({}, {}, {}, {}, {})
        self.program = Program([table], limits)
        self.limit(limits)

    def close(self) -> None:
        """Detach from every interface, then give up program and maps."""
        for ifindex in tuple(self._links):
            self.detach(ifindex)
        for program in (*self._retired, self.program):
            program.close()

    @property
    def bpf(self) -> Any:
        """The bcc module of the current program."""
        return self.program.bpf

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
        """Whose solicitations (entry, MAC) for targets that would have to be resolved are refused for the moment."""
        if askers == self._crowding:
            return
        for asker in self._crowding - askers:
            self.program.delete("crowding", _SOURCE_KEY.pack(*asker))
        before, self._crowding = self._crowding, askers
        self._crowd(self.program, askers - before)

    @staticmethod
    def _crowd(program: Program, askers: Iterable[tuple[int, bytes]]) -> None:
        with suppress(MachineError):  # full, where the limit has just been lowered: then Python refuses
            for asker in askers:
                program.update("crowding", _SOURCE_KEY.pack(*asker), _CROWDING)

    def _set(self, program: Program) -> None:
        cost = _NANOSECONDS // self._limits.events_per_second
        program.update("settings_space", _INDEX.pack(0), _SETTINGS.pack(cost, self._resolving_full))

    def apply(self, table: Table) -> None:
        """Make the kernel's maps say what `table` says; see has_room()."""
        # what is gone or fresh has no past: a number may be another's by now
        entries = self._table.entries.keys() & table.entries.keys()
        rules = self._table.rules.keys() & table.rules.keys()
        for program in self._retired:
            program.entries &= entries
            program.rules &= rules
        for counters, alive in ((self._folded_entries, entries), (self._folded_rules, rules)):
            for number in counters.keys() - alive:
                del counters[number]
        self.program.apply(table)
        self._forget_recents(self._table.entries.keys() - table.entries.keys())
        self._table = table

    def _forget_recents(self, entries: Set[int]) -> None:
        """What was asked for on entries that are gone: their numbers may be others' by and by."""
        if any(self._table.entries[entry].collect for entry in entries):
            for recent in self.recents():
                if recent.entry in entries:
                    self.program.delete("recents", _ADDRESS_KEY.pack(recent.entry, recent.target))

    def has_room(self, table: Table, limits: Limits) -> bool:
        """Whether the maps have room for a table; else a larger() program has to take over first."""
        return self.program.fits(table, limits)

    def larger(self, table: Table, limits: Limits) -> Program:
        """A program with room for `table`, too, that nothing is attached to yet."""
        return Program([self._table, table], limits, len(self._known))

    def switch(self, program: Program) -> None:
        """Let a larger program take over on every interface; retire() the old one when its ring is empty.

        Raises MachineError, with the old one on all of them, if it can't be.
        """
        self._set(program)
        for key, flags in self._known.items():
            program.update("known_targets", key, _KNOWN.pack(flags, _now()))
        self._crowd(program, self._crowding)
        for key, value in self.program.items("recents", _ADDRESS_KEY.size, _RECENT.size):
            program.update("recents", key, value)
        program.apply(self._table)
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

    def retire(self) -> None:
        """Keep the counts of those programs that were switched off, and give up the rest of them."""
        for program in self._retired:
            for entry in program.entries:
                counted = program.entry_counters(entry)
                self._folded_entries[entry].update(counted.outcomes)
                self._folded_entries[entry].update(counted.reasons)
            for rule in program.rules:
                self._folded_rules[rule].update(program.rule_counters(rule))
            program.close()
        self._retired.clear()

    # --- known targets ---

    def know(self, group: int, address: bytes, flags: KnownFlag) -> None:
        """Count a target as there, for the rules of a group; MachineError when there is no room for it."""
        key = _ADDRESS_KEY.pack(group, address)
        if self._known.get(key) != flags or flags:  # the program clears flags by itself
            self.program.update("known_targets", key, _KNOWN.pack(flags, _now()))
            self._known[key] = flags

    def forget(self, group: int, address: bytes) -> None:
        """Count a target as not there any more."""
        key = _ADDRESS_KEY.pack(group, address)
        if self._known.pop(key, None) is not None:
            self.program.delete("known_targets", key)

    def asked(self, group: int, address: bytes) -> int:
        """When a known target was last asked for: CLOCK_MONOTONIC, seconds. 0: it isn't known."""
        value = self.program.lookup("known_targets", _ADDRESS_KEY.pack(group, address), _KNOWN.size)
        return 0 if value is None else int(_KNOWN.unpack(value)[1])

    def recents(self) -> list[Recent]:
        """The targets that were asked for on entries that collect them."""
        return [
            Recent(*_ADDRESS_KEY.unpack(key), *_RECENT.unpack(value))
            for key, value in self.program.items("recents", _ADDRESS_KEY.size, _RECENT.size)
        ]

    # --- counters ---

    def entry_counters(self, entry: int) -> EntryCounters:
        """What the program counted for an entry, under its predecessors too."""
        counted = [program.entry_counters(entry) for program in self._counting(entry, "entries")]
        folded = self._folded_entries[entry]
        return EntryCounters(
            {name: folded[name] + sum(each.outcomes[name] for each in counted) for name in Outcome},
            {name: folded[name] + sum(each.reasons[name] for each in counted) for name in Reason},
        )

    def rule_counters(self, rule: int) -> Mapping[Outcome, int]:
        """What the program counted for a rule, under its predecessors too."""
        counted = [program.rule_counters(rule) for program in self._counting(rule, "rules")]
        folded = self._folded_rules[rule]
        return {name: folded[name] + sum(each[name] for each in counted) for name in Outcome}

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
        if fd >= 0:
            self._links[ifindex] = fd
            return
        code = -fd if fd < -1 else ct.get_errno()
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
                return f"another XDP program is attached in {mode} mode: id {program}" + (f" ({name})" if name else "")
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


def _narrowest_prefix_first(key: bytes) -> int:
    return -int(_PREFIX_KEY.unpack(key)[0])


def _any_vlan_last(key: bytes) -> bool:
    return bool(_SLOT_KEY.unpack(key)[1] == VLAN_ANY)


_WIDTH: dict[str, Callable[[bytes], int]] = {
    "vias": len,
    "addresses": len,
    "prefixes": _narrowest_prefix_first,
    "slots": _any_vlan_last,
}
"""By what the keys of a map are ordered when it changes."""


def pack_table(table: Table) -> dict[str, dict[bytes, bytes]]:
    """The bytes of the kernel's maps for a table: those of _TABLE_MAPS."""
    slots = {}
    for (ifindex, outer, inner), entry_id in table.slots.items():
        entry = table.entries[entry_id]
        sources, link_local, global_address = slot_sources(entry.addresses)
        slots[_SLOT_KEY.pack(ifindex, outer, inner)] = _SLOT.pack(
            entry_id,
            entry.mac,
            DATAPATHS.index(entry.datapath),
            sources,
            entry.l3_ifindex,
            link_local.packed,
            global_address.packed,
            _NANOSECONDS // entry.source_limit if entry.source_limit else 0,
            entry.collect > 0,
        )
    return {
        "vias": {_VIA_KEY.pack(group, index): _VIA for group, indexes in table.vias.items() for index in indexes},
        "addresses": {
            _ADDRESS_KEY.pack(entry, address.packed): _pack_match(match)
            for (entry, address), match in table.addresses.items()
        },
        "prefixes": {
            _PREFIX_KEY.pack(32 + network.prefixlen, entry, network.network_address.packed): _pack_match(match)
            for (entry, network), match in table.prefixes.items()
        },
        "slots": slots,
    }


def _pack_match(match: Match) -> bytes:
    return _RULE.pack(match.rule, match.decision, match.flags, match.group)


def _now() -> int:
    return time.monotonic_ns() // _NANOSECONDS


def _needs(table: Table, limits: Limits) -> dict[str, int]:
    """How many entries each of the maps must have room for."""
    entries = table.entries.values()
    return {
        "SLOTS_MAX": len(table.slots),
        "ENTRIES_MAX": max(table.entries, default=0) + 1,
        "RULES_MAX": max(table.rules, default=0) + 1,
        "ADDRESSES_MAX": len(table.addresses),
        "PREFIXES_MAX": len(table.prefixes),
        "VIAS_MAX": sum(len(indexes) for indexes in table.vias.values()),
        "KNOWN_MAX": limits.neighbours + limits.kernel_entries,
        "CROWDING_MAX": limits.pending,
        "SOURCES_MAX": 16384 if any(entry.source_limit for entry in entries) else 1,
        "RECENTS_MAX": 2 * sum(entry.collect for entry in entries),
    }


def _room(name: str, wanted: int) -> int:
    """A map's size. Those that a table fills: twice what is needed now, so that it can grow for a while."""
    if name in ("KNOWN_MAX", "SOURCES_MAX"):
        return wanted
    if name == "RECENTS_MAX":
        return (
            max(wanted, 1024) if wanted else 1
        )  # a kernel LRU map keeps some entries per CPU: small ones forget early
    return max(16384 if name in ("ADDRESSES_MAX", "PREFIXES_MAX") else 64, 2 * wanted)


def load_bcc() -> Any:
    """The bcc module; MachineError with the package to install if it isn't there, or isn't the real one."""
    try:
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
    flags = [
        "-O2",
        "-Wall",
        "-Wno-unused-function",
        *(f"-D{name}={value}" for name, value in definitions.items()),
    ]
    with tempfile.TemporaryFile() as words:
        saved = os.dup(2)
        try:
            os.dup2(words.fileno(), 2)
            # the verifier gives up when a signal waits (EAGAIN)
            before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                module = bcc.BPF(text=source.encode(), cflags=flags)
                return module, module.load_func(function.encode(), bcc.BPF.XDP)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                os.dup2(saved, 2)
                os.close(saved)
        except Exception as error:  # bcc raises nothing more exact
            words.seek(0)
            said = words.read().decode(errors="replace").strip()
            raise MachineError(_why_not(str(error), said)) from error


def _why_not(error: str, said: str) -> str:
    if os.geteuid() != 0 and ("super-user" in error or "not permitted" in (error + said).lower()):
        return "not permitted to load an XDP program: run as root, or give CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    release = os.uname().release
    if tuple(int(part) for part in release.split("-")[0].split(".")[:2]) < OLDEST_KERNEL:
        return f"Linux {release} is too old: npd6-xdp needs 5.18 or newer"
    return f"the XDP program can't be loaded: {error}" + (f"\n{said}" if said else "")
