# SPDX-License-Identifier: GPL-2.0-or-later
"""What bcc made of the program's text, as bytes that another process can load without the compiler.

The sizes of those maps that a table fills aren't part of it: no instruction depends on them, so one compilation does
for all tables. Not part of it, either, is what describes types to debuggers (BTF).
"""

from __future__ import annotations

import ctypes as ct
import errno
import hashlib
import json
import os
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

_FORMAT = 1
_LIBRARIES = ("/libbcc", "/libbpf", "/libclang", "/libLLVM")
INSTRUCTION = struct.Struct("=BBhi")  # struct bpf_insn: code, registers (the source in the upper half), off, imm
_LOAD_64 = 0x18  # BPF_LD | BPF_DW | BPF_IMM, of two instructions
_NUMBER, _MAP, _MAP_VALUE = range(3)  # a source register that is none: BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE
_MAP_INFO = struct.Struct("=6I")  # struct bpf_map_info, up to map_flags
_HEADERS = "BCC_KERNEL_SOURCE"  # where they lie: that is all the same, if they are the same
_LENGTH = struct.Struct("=I")


class Map(NamedTuple):
    """A map to be made: numbers as the kernel has them. `sized_by`: the definition that says `entries`, or "". Of one
    that holds maps, `model` is an earlier one that those are like.
    """

    name: str
    kind: int
    key_size: int
    value_size: int
    entries: int
    flags: int
    sized_by: str
    model: str = ""


class Function(NamedTuple):
    """A program to be loaded: its name, its kind (enum bpf_prog_type), its instructions.

    An instruction that means a map has the map's number among the maps instead of a descriptor.
    """

    name: str
    kind: int
    code: bytes


@dataclass(frozen=True, slots=True)
class Compiled:
    """All that bcc gives to the kernel. `version` is that of the kernel whose headers it was compiled with."""

    maps: tuple[Map, ...]
    functions: tuple[Function, ...]
    licence: str
    version: int

    def pack(self) -> bytes:
        """As bytes: the length of a head in JSON, the head, the instructions of all functions."""
        functions = [[name, kind, len(code)] for name, kind, code in self.functions]
        head = json.dumps([self.maps, functions, self.licence, self.version]).encode()
        return b"".join((_LENGTH.pack(len(head)), head, *(code for _, _, code in self.functions)))

    @classmethod
    def unpack(cls, data: bytes) -> Compiled:
        """What pack() made. Raises ValueError if it didn't make that."""
        try:
            (length,) = _LENGTH.unpack_from(data)
            at = _LENGTH.size + length
            maps, sizes, licence, version = json.loads(data[_LENGTH.size : at])
            functions = []
            for name, kind, size in sizes:
                functions.append(Function(name, kind, data[at : at + size]))
                at += size
            if at != len(data):
                raise ValueError("it has another length than it says")
            return cls(tuple(Map(*each) for each in maps), tuple(functions), licence, version)
        except (TypeError, LookupError, struct.error, RecursionError) as error:
            raise ValueError(str(error)) from error


class InKernel(NamedTuple):
    """Descriptors by name; the owner closes each."""

    maps: dict[str, int]
    functions: dict[str, int]


def fingerprint(bcc: Any, source: str, headers: Path, said: Iterable[str]) -> str:
    """A name for what bcc makes of a text on this machine. It differs if anything differs that the result may depend
    on. `said` is what else the compiler is told. Raises OSError where that can't be known: the libraries were replaced
    since they were loaded.
    """
    machine = os.uname()
    parts = (
        _FORMAT,
        source,
        [(str(path.relative_to(headers)), path.read_bytes()) for path in sorted(headers.rglob("*.h"))],
        sorted(said),
        sorted(item for item in os.environ.items() if item[0].startswith("BCC_") and item[0] != _HEADERS),
        (bcc.__version__, _libraries()),
        (sys.byteorder, machine.machine, machine.release, struct.calcsize("P")),
        len(bcc.utils.get_possible_cpus()),
    )
    return hashlib.sha256(repr(parts).encode(errors="surrogateescape")).hexdigest()


def _libraries() -> list[tuple[str, int, int]]:
    """The compiler, as this process has it loaded: path, bytes and time of change of each of its libraries."""
    lines = Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines()
    names = {line[line.index("/") :] for line in lines if any(library in line for library in _LIBRARIES)}
    found = [(name, Path(name).stat()) for name in sorted(names)]  # "... (deleted)" isn't found
    if not found:
        raise FileNotFoundError(errno.ENOENT, "no compiler is loaded")
    return [(name, each.st_size, each.st_mtime_ns) for name, each in found]


def taken(
    lib: Any, module: Any, kinds: Mapping[str, int], sized_by: Mapping[str, str], models: Mapping[str, str]
) -> Compiled:
    """What bcc has made and loaded: functions by name, of these kinds, and all maps.

    `sized_by` names the definition that says a map's size, `models` the map that those which it holds are like. Raises
    ValueError where something is among it that can't be loaded by another process.
    """
    name_of = ct.CFUNCTYPE(ct.c_char_p, ct.c_void_p, ct.c_size_t)(("bpf_table_name", lib))
    names = [name_of(module, number) for number in range(lib.bpf_num_tables(module))]
    fds = {lib.bpf_table_fd(module, name): number for number, name in enumerate(names)}
    maps = [_map(lib, fd, names[number].decode(), sized_by, models) for fd, number in fds.items()]
    functions = [
        Function(name, kind, _relocated(_code(lib, module, name.encode()), fds.get)) for name, kind in kinds.items()
    ]
    licence = lib.bpf_module_license(module).decode()
    return Compiled(tuple(maps), tuple(functions), licence, lib.bpf_module_kern_version(module))


def _code(lib: Any, module: Any, name: bytes) -> bytes:
    return ct.string_at(lib.bpf_function_start(module, name), lib.bpf_function_size(module, name))


def _map(lib: Any, fd: int, name: str, sized_by: Mapping[str, str], models: Mapping[str, str]) -> Map:
    info, length = ct.create_string_buffer(_MAP_INFO.size), ct.c_uint32(_MAP_INFO.size)
    if lib.bpf_obj_get_info_by_fd(fd, info, ct.byref(length)) != 0:
        raise ValueError(f"nothing is known of map {name}")
    kind, _, key_size, value_size, entries, flags = _MAP_INFO.unpack(info.raw)
    return Map(name, kind, key_size, value_size, entries, flags, sized_by.get(name, ""), models.get(name, ""))


def _relocated(code: bytes, number_for: Callable[[int], int | None]) -> bytes:
    """Instructions with `number_for(number)` in those that mean a map. Raises ValueError for what can't be moved."""
    moved = bytearray(code)
    for at in range(0, len(code), INSTRUCTION.size):
        op, registers, off, number = INSTRUCTION.unpack_from(code, at)
        if op != _LOAD_64 or registers >> 4 == _NUMBER:
            continue
        there = number_for(number)
        if registers >> 4 not in (_MAP, _MAP_VALUE) or there is None:
            raise ValueError(f"instruction {at // INSTRUCTION.size} means something else than a map")
        INSTRUCTION.pack_into(moved, at, op, registers, off, there)
    return bytes(moved)


def loaded(
    lib: Any,
    compiled: Compiled,
    sizes: Mapping[str, int],
    later: Set[str] = frozenset(),
    early: Callable[[Map], int] = lambda _: -1,
) -> InKernel:
    """Make the maps, of these sizes, and load the functions but for those that load_one() loads `later`, by the
    library's calls that bcc itself makes. `early` gives a map that is made already, or -1.

    Raises OSError with the kernel's errno; what the verifier says is printed to file descriptor 2, as bcc does.
    """
    made: list[int] = []

    def kept(fd: int, what: str) -> int:
        if fd < 0:
            code = ct.get_errno()
            raise OSError(code, os.strerror(code), what)
        made.append(fd)
        return fd

    try:
        maps: dict[str, int] = {}
        for each in compiled.maps:
            wanted = each._replace(entries=sizes[each.sized_by]) if each.sized_by else each
            if (fd := early(wanted)) < 0:
                fd = _created(lib, wanted, maps.get(each.model))
            maps[each.name] = kept(fd, f"map {each.name}")
        functions = {}
        for name in (function.name for function in compiled.functions if function.name not in later):
            functions[name] = kept(load_one(lib, compiled, name, maps), f"program {name}")
    except BaseException:
        for fd in made:
            os.close(fd)
        raise
    return InKernel(maps, functions)


def load_one(lib: Any, compiled: Compiled, name: str, maps: Mapping[str, int]) -> int:
    """Load the function of a name, with all maps of loaded(): its descriptor, or -1 and the errno of ctypes."""
    function = next(each for each in compiled.functions if each.name == name)
    code = _relocated(function.code, dict(enumerate(maps.values())).get)
    return load_code(lib, function, code, compiled.licence, compiled.version)


def load_code(lib: Any, function: Function, code: bytes, licence: str, version: int) -> int:
    """Load a function, with this code, in which maps are descriptors: its descriptor, or -1 and the errno of ctypes."""
    load: Any = ct.CFUNCTYPE(
        *(ct.c_int, ct.c_int, ct.c_char_p, ct.c_char_p, ct.c_int, ct.c_char_p, ct.c_uint, ct.c_int),
        *(ct.c_void_p, ct.c_uint),
        use_errno=True,
    )(("bcc_prog_load", lib))
    return int(load(function.kind, function.name.encode(), code, len(code), licence.encode(), version, 0, None, 0))


class _MapOptions(ct.Structure):
    """struct bpf_map_create_opts of libbpf."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("btf_fd", ct.c_uint32),
        ("btf_key_type_id", ct.c_uint32),
        ("btf_value_type_id", ct.c_uint32),
        ("btf_vmlinux_value_type_id", ct.c_uint32),
        ("inner_map_fd", ct.c_uint32),
        ("map_flags", ct.c_uint32),
        ("map_extra", ct.c_uint64),
        ("numa_node", ct.c_uint32),
        ("map_ifindex", ct.c_uint32),
    )


def _created(lib: Any, of: Map, model: int | None) -> int:
    """A map: its descriptor, or -1 and the errno of ctypes. `model`: of one that holds maps."""
    if model is None:
        create: Any = ct.CFUNCTYPE(ct.c_int, ct.c_int, ct.c_char_p, *(ct.c_int,) * 4, use_errno=True)(
            ("bcc_create_map", lib)
        )
        return int(create(of.kind, of.name.encode(), of.key_size, of.value_size, of.entries, of.flags))
    options = _MapOptions(sz=ct.sizeof(_MapOptions), inner_map_fd=model, map_flags=of.flags)
    return create_map(lib, of, options)


def create_map(lib: Any, of: Map, options: _MapOptions | None = None) -> int:
    """A map by libbpf's own call: its descriptor, or -1 (or less) and the errno of ctypes."""
    create: Any = ct.CFUNCTYPE(ct.c_int, ct.c_int, ct.c_char_p, *(ct.c_uint32,) * 3, ct.c_void_p, use_errno=True)(
        ("bpf_map_create", lib)
    )
    chosen = None if options is None else ct.addressof(options)
    return int(create(of.kind, of.name.encode(), of.key_size, of.value_size, of.entries, chosen))
