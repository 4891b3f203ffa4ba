# SPDX-License-Identifier: GPL-2.0-or-later
"""The XDP program, through bcc: compile, load, fill its maps, attach it, read its counters.

The byte layouts here mirror the structs of bpf/ns_filter.c; a test compares their sizes with the compiled maps'.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.rules import DATAPATHS, Match, Table, slot_sources
from npd6_xdp.core.verdict import Outcome, Reason

BPF_DIRECTORY = Path(__file__).resolve().parents[2] / "bpf"
OLDEST_KERNEL = (5, 18)  # bpf_xdp_load_bytes()

_BPF_XDP = 37  # enum bpf_attach_type
_XDP_FLAGS_SKB_MODE = 2
_XDP_FLAGS_DRV_MODE = 4

_SLOT_KEY = struct.Struct("=IHH")
_SLOT = struct.Struct("=I6sBB4x16s16s")
_ADDRESS_KEY = struct.Struct("=I4x16s")
_PREFIX_KEY = struct.Struct("=II16s")
_RULE = struct.Struct("=IHH")
_COUNTERS = struct.Struct(f"={len(Outcome)}Q")
_ENTRY_COUNTERS = struct.Struct(f"={len(Outcome) + len(Reason)}Q")


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


class Datapath:
    """The loaded program and its maps. It answers nothing until it is attached; closing detaches it everywhere.

    The maps get room for twice what `table` holds, which is not loaded yet: see apply().
    """

    def __init__(self, table: Table) -> None:
        self._bcc = load_bcc()
        self._lib = self._bcc.lib
        self._links: dict[int, int] = {}
        sizes = {
            "SLOTS_MAX": _room(len(table.slots)),
            "ENTRIES_MAX": _room(len(table.entries)),
            "RULES_MAX": _room(len(table.rules)),
            "ADDRESSES_MAX": _room(len(table.addresses), 16384),
            "PREFIXES_MAX": _room(len(table.prefixes), 16384),
        }
        self.bpf, self._function = compile_program((BPF_DIRECTORY / "ns_filter.c").read_text(), "ns_filter", sizes)
        self._fds = {
            name: self._lib.bpf_table_fd(self.bpf.module, name.encode())
            for name in ("slots", "addresses", "prefixes", "entry_counters", "rule_counters")
        }
        self._image: dict[str, dict[bytes, bytes]] = {"addresses": {}, "prefixes": {}, "slots": {}}
        self._cpus = len(self._bcc.utils.get_possible_cpus())

    def close(self) -> None:
        """Detach from every interface, then give up program and maps."""
        for ifindex in tuple(self._links):
            self.detach(ifindex)
        self.bpf.cleanup()

    @property
    def program_fd(self) -> int:
        """The program's file descriptor."""
        return int(self._function.fd)

    def apply(self, table: Table) -> None:
        """Make the kernel's maps say what `table` says, by difference from what they said before.

        Targets are in place before a slot sends frames to them. Raises MachineError when a map is full.
        """
        wanted = pack_table(table)
        for name, image in self._image.items():
            new = wanted[name]
            for key, value in new.items():
                if image.get(key) != value:
                    self._update(name, key, value)
            for key in image.keys() - new.keys():
                self._lib.bpf_delete_elem(self._fds[name], key)
            self._image[name] = new

    def _update(self, name: str, key: bytes, value: bytes) -> None:
        if self._lib.bpf_update_elem(self._fds[name], key, value, 0) != 0:
            code = ct.get_errno()
            why = "it is full; restart to size it anew" if code in (errno.E2BIG, errno.ENOSPC) else os.strerror(code)
            raise MachineError(f"kernel map {name}: can't add an entry: {why}")

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
        key = index.to_bytes(4, "little" if struct.pack("=H", 1) == b"\x01\x00" else "big")
        values = ct.create_string_buffer(layout.size * self._cpus)
        if self._lib.bpf_lookup_elem(self._fds[name], key, values) != 0:
            raise MachineError(f"kernel map {name}: no entry {index}: {os.strerror(ct.get_errno())}")
        return [sum(column) for column in zip(*layout.iter_unpack(values.raw), strict=True)]

    def attach(self, ifindex: int, name: str, mode: AttachMode) -> None:
        """Attach to an interface, by a link that the kernel undoes when this process ends, however it ends.

        Raises Refused if the driver can't have the program in this mode, MachineError if another program is
        there already: it is never replaced.
        """
        opts = _LinkCreateOpts(sz=ct.sizeof(_LinkCreateOpts), flags=mode)
        fd = self._lib.bpf_link_create(self.program_fd, ifindex, _BPF_XDP, ct.byref(opts))
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


def pack_table(table: Table) -> dict[str, dict[bytes, bytes]]:
    """The bytes of the kernel's maps `addresses`, `prefixes` and `slots` for a table."""
    slots = {}
    for (ifindex, outer, inner), entry_id in table.slots.items():
        entry = table.entries[entry_id]
        sources, link_local, global_address = slot_sources(entry)
        slots[_SLOT_KEY.pack(ifindex, outer, inner)] = _SLOT.pack(
            entry_id,
            entry.mac,
            DATAPATHS.index(entry.datapath),
            sources,
            link_local.packed,
            global_address.packed,
        )
    return {
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
    return _RULE.pack(match.rule, match.decision, match.flags)


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
            try:
                module = bcc.BPF(text=source.encode(), cflags=flags)
                return module, module.load_func(function.encode(), bcc.BPF.XDP)
            finally:
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


def _room(wanted: int, least: int = 64) -> int:
    """A map's size: twice what is needed now, so that it can grow for a while."""
    return max(least, 2 * wanted)
