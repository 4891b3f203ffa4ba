# SPDX-License-Identifier: GPL-2.0-or-later
"""The program loaded into the kernel: as an earlier start has kept it, or compiled."""

from __future__ import annotations

import ctypes as ct
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from npd6_xdp.core.errors import MachineError, NotInstalled, as_machine_error, is_used_up, remedy
from npd6_xdp.system.bpf import compiled, compiler, shelf
from npd6_xdp.system.bpf.compiler import compile_program, compile_text, load_bcc, load_function, words_caught
from npd6_xdp.system.bpf.early_maps import EarlyMaps

_INCLUDE = re.compile(r'#include "(\w+\.h)"')
_MAPS = (
    "vias",
    "exact_matches",
    "prefix_trie",
    "entries",
    "table_writes",
    "port_places",
    "port_entries",
    "entry_counters",
    "rule_counters",
    "present_targets",
    "refused_askers",
    "settings_space",
    "source_budgets",
    "event_budget",
    "target_budgets",
    "answered",
    "asked_targets",
    "recent_targets",
    "other_targets",
    "kept_routes",
    "heard_addresses",
    "events",
    "wakeups",
    "need_wakeup",
    "trace_filters",
    "trace_rules",
    "trace_counts",
    "trace_ring",
)
_SIZED_BY = {
    "entries": "ENTRIES_MAX",
    "port_entries": "PORT_ENTRIES_MAX",
    "exact_matches": "EXACT_MATCHES_MAX",
    "prefix_trie": "PREFIX_TRIE_MAX",
    "entry_counters": "ENTRY_COUNTERS_MAX",
    "rule_counters": "RULE_COUNTERS_MAX",
    "present_targets": "PRESENT_TARGETS_MAX",
    "vias": "VIAS_MAX",
    "refused_askers": "REFUSED_ASKERS_MAX",
    "source_budgets": "SOURCE_BUDGETS_MAX",
    "target_budgets": "TARGET_BUDGETS_MAX",
    "answered": "ANSWERED_MAX",
    "asked_targets": "ASKED_TARGETS_MAX",
    "recent_targets": "RECENT_TARGETS_MAX",
    "other_targets": "OTHER_TARGETS_MAX",
    "kept_routes": "KEPT_ROUTES_MAX",
    "heard_addresses": "HEARD_ADDRESSES_MAX",
}
"""Maps of the program, and the definitions that say how large they are, and nothing else."""
COMPILER_BYTES = 66_000_000
"""What the compiler takes for a while, with its library: 66 to 72 MB were measured."""
_AT_TC = "ns_filter_tc"
_MODELS = {"trace_ring": "trace_model"}
"""Maps of the program that hold maps, and the one that those are like."""


@dataclass(slots=True)
class Loaded:
    """A program in the kernel: the descriptors of its maps, of its function for XDP, and of the filter for packet
    sockets. That for tc is loaded once somebody asks for it: it takes the verifier as long as the one for XDP.

    `module` is bcc's, where it was compiled in this process: it has them closed. There is none where another process
    has loaded it, or an earlier one compiled it. `more` are maps that the functions alone know of.
    """

    maps: Mapping[str, int]
    fd: int
    tap_fd: int
    load_tc: Callable[[], int]
    module: Any = None
    more: Sequence[int] = ()
    _tc_fd: int = -1

    def need_tc(self) -> int:
        """The descriptor of its function for tc, which the first call loads. Raises MachineError."""
        if self._tc_fd < 0:
            self._tc_fd = self.load_tc()
        return self._tc_fd

    @property
    def descriptors(self) -> list[int]:
        """All of them, in the order in which of() takes them."""
        return [*self.maps.values(), self.fd, self.tap_fd, self.need_tc()]

    @classmethod
    def of(cls, descriptors: Sequence[int]) -> Loaded:
        """A program that another process has loaded, all of it, and handed over as descriptors."""
        *maps, fd, tap_fd, tc_fd = descriptors
        return cls(dict(zip(_MAPS, maps, strict=True)), fd, tap_fd, lambda: tc_fd, _tc_fd=tc_fd)

    def close(self) -> None:
        """Give it up; what is attached holds on to it."""
        if self.module is not None:
            self.module.cleanup()
            return
        for fd in (*self.maps.values(), *self.more, self.fd, self.tap_fd, *([self._tc_fd] if self._tc_fd >= 0 else [])):
            os.close(fd)


def compile_ahead() -> bytes:
    """Compile the program, and load nothing: what load() takes. Raises MachineError, or ValueError."""
    bcc = load_bcc()
    module = compile_text(_source(compiler.BPF_DIRECTORY), dict.fromkeys(_SIZED_BY.values(), 1))
    return compiled.taken(bcc.lib, module.module, _kinds(bcc), _SIZED_BY, _MODELS).pack()


def load(sizes: Mapping[str, int], ahead: bytes = b"", early: EarlyMaps | None = None) -> Loaded:
    """Load the program, with maps of these sizes; compile it if no earlier start has kept it, and no compile_ahead() of
    this process or of one that it has forked made it `ahead`. Maps that are there `early` are taken from it. Raises
    MachineError.
    """
    bcc = load_bcc()
    source = _source(compiler.BPF_DIRECTORY)
    name, found = _kept(bcc, source)
    if found is None and ahead:
        found = compiled.Compiled.unpack(ahead)
        if name:
            shelf.write(name, ahead)
    if found is not None:
        try:
            return _load_kept(bcc, found, sizes, early)
        except MachineError as error:
            why = error.__cause__
            if isinstance(why, OSError) and is_used_up(why.errno or 0):  # the compiler would need even more memory
                raise MachineError(f"the XDP program can't be loaded: {remedy(why)}") from why
            shelf.remove(name)  # and compile it: if that fails, too, the error says why
    if early is not None:
        early.close()  # bcc makes all maps by itself
    return _compile(bcc, source, name, sizes)


def _compile(bcc: Any, source: str, name: str, sizes: Mapping[str, int]) -> Loaded:
    module, function = compile_program(source, "ns_filter", sizes)
    tap = load_function(module, "hidden_tag", _kinds(bcc)["hidden_tag"])
    maps = {name: int(bcc.lib.bpf_table_fd(module.module, name.encode())) for name in _MAPS}
    if name and name == _name_of(bcc, source):  # else another version of the files was installed meanwhile
        with suppress(ValueError):  # what can't be kept
            made = compiled.taken(bcc.lib, module.module, _kinds(bcc), _SIZED_BY, _MODELS)
            if all(sizes.get(each.sized_by) == each.entries for each in made.maps if each.sized_by):
                shelf.write(name, made.pack())

    def load_tc() -> int:
        return int(load_function(module, _AT_TC, _kinds(bcc)[_AT_TC]).fd)

    return Loaded(maps, int(function.fd), int(tap.fd), load_tc, module)


def _kinds(bcc: Any) -> dict[str, int]:
    """The functions that the kernel runs, and which kind of program each is."""
    return {"ns_filter": bcc.BPF.XDP, _AT_TC: bcc.BPF.SCHED_CLS, "hidden_tag": bcc.BPF.SOCKET_FILTER}


def _load_kept(bcc: Any, found: compiled.Compiled, sizes: Mapping[str, int], early: EarlyMaps | None) -> Loaded:
    take = early.take if early is not None else lambda _: -1
    with words_caught():
        maps, functions = compiled.loaded(bcc.lib, found, sizes, {_AT_TC}, take)

    def load_tc() -> int:
        with words_caught():
            if (fd := compiled.load_one(bcc.lib, found, _AT_TC, maps)) < 0:
                code = ct.get_errno()
                raise OSError(code, os.strerror(code), f"program {_AT_TC}")
        return fd

    more = [fd for name, fd in maps.items() if name not in _MAPS]
    known = {name: maps[name] for name in _MAPS}
    return Loaded(known, functions["ns_filter"], functions["hidden_tag"], load_tc, more=more)


def _name_of(bcc: Any, source: str) -> str:
    """The name by which the compiled program is kept; "" where nothing can be."""
    try:
        return compiled.fingerprint(
            bcc,
            source,
            compiler.BPF_DIRECTORY / "include",
            (
                *compiler.ONCE,
                *compiler.FLAGS,
                *map(" ".join, (*_SIZED_BY.items(), *_MODELS.items())),
                *_MAPS,
                *_kinds(bcc),
            ),
        )
    except OSError:
        return ""


def _kept(bcc: Any, source: str) -> tuple[str, compiled.Compiled | None]:
    """The name by which the compiled program is kept, and what is there by that name; "" and None for nothing."""
    name = _name_of(bcc, source)
    return name, shelf.read(name, compiled.Compiled.unpack) if name else None


def is_kept() -> bool:
    """Whether what the compiler would make of the program is there already. Its text is read then, once and for all."""
    _, found = _kept(load_bcc(), _source(compiler.BPF_DIRECTORY))
    return found is not None


def take_text() -> None:
    """Read the program's text, once and for all: what is compiled or loaded later is this one. Raises MachineError."""
    _source(compiler.BPF_DIRECTORY)


@cache
def _source(directory: Path) -> str:
    """The program's text, read once at the start so that it fits this code: another version may be installed later. Its
    headers are put in, so that one text is all that is compiled and compared.
    """
    try:
        with as_machine_error("can't read the XDP program"):
            return _with_headers(directory, "ns_filter.c")
    except MachineError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise NotInstalled(f"{error}: install npd6-xdp once more") from error
        raise


def _with_headers(directory: Path, name: str) -> str:
    """A file's text, with those of its headers in their places; the compiler names each by its own file and lines."""
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate((directory / name).read_text().splitlines(), 1):
        if header := _INCLUDE.fullmatch(line):
            lines += [_with_headers(directory, header[1]), f'#line {number + 1} "{name}"']
        else:
            lines.append(line)
    return "\n".join(lines)
