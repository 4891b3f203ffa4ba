# SPDX-License-Identifier: GPL-2.0-or-later
"""What the compiler says of a program's types (BTF), as the kernel holds it for each map.

The kernel's Documentation/bpf/btf.rst has the format.
"""

from __future__ import annotations

import ctypes as ct
import os
import struct
from dataclasses import dataclass

from tests.kernels.machine import bpf

_OBJ_GET_INFO_BY_FD, _BTF_GET_FD_BY_ID = 15, 19
_MAP_INFO, _MAP_BTF = 88, struct.Struct("=64xIII")  # struct bpf_map_info: btf_id, btf_key_type_id, btf_value_type_id
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_INT, _ARRAY, _STRUCT, _UNION, _ENUM = 1, 3, 4, 5, 6
_ALIASES = {8, 9, 10, 11, 18}  # typedef, volatile, const, restrict, a tag: of another type
_BEHIND = {_INT: (4, 0), _ARRAY: (12, 0), _STRUCT: (0, 12), _UNION: (0, 12), _ENUM: (0, 8)}
_BEHIND |= {13: (0, 8), 14: (4, 0), 15: (0, 12), 17: (4, 0), 19: (0, 12)}
"""Bytes behind a type's first twelve: so many, and so many for each of its members."""


@dataclass(frozen=True, slots=True)
class Type:
    """A type: its name, "" for none; its size in bytes; of a struct, where its fields stand, and their sizes."""

    name: str
    size: int
    fields: dict[str, tuple[int, int]]


def types_of_map(fd: int) -> tuple[Type, Type, dict[str, Type]]:
    """A map's key and value, and all structs of its program by name."""
    _, info = _info(fd, _MAP_INFO)
    number, key, value = _MAP_BTF.unpack_from(info)
    assert number, "the map has been loaded without BTF"
    descriptor = bpf(_BTF_GET_FD_BY_ID, struct.pack("=I", number))
    try:
        size = struct.unpack_from("=I", _info(descriptor, 32)[1], 8)[0]
        data = ct.create_string_buffer(size)
        _info(descriptor, 32, struct.pack("=QI", ct.addressof(data), size))
    finally:
        os.close(descriptor)
    types = _Types(data.raw)
    structs = [types.of(each) for each, (kind, *_) in enumerate(types.read, 1) if kind == _STRUCT]
    return types.of(key), types.of(value), {each.name: each for each in structs}


def _info(descriptor: int, size: int, begin: bytes = b"") -> tuple[int, bytes]:
    info = ct.create_string_buffer(begin, size)
    return bpf(_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, size, ct.addressof(info))), info.raw


class _Types:
    def __init__(self, data: bytes) -> None:
        magic, _, _, header, types, length, strings, _ = _HEADER.unpack_from(data)
        assert magic == 0xEB9F
        self._strings = data[header + strings :]
        self.read: list[tuple[int, int, int, bytes]] = []
        """Of each type: its kind, where its name stands, its size or the type that it is of, and what is behind."""
        at, end = header + types, header + types + length
        while at < end:
            name, info, size = _TYPE.unpack_from(data, at)
            kind = info >> 24 & 31
            once, each = _BEHIND.get(kind, (0, 0))
            behind = at + _TYPE.size
            at = behind + once + each * (info & 0xFFFF)
            self.read.append((kind, name, size, data[behind:at]))

    def of(self, number: int) -> Type:
        kind, name, size, behind = self.read[number - 1]
        if kind in _ALIASES:
            return self.of(size)
        if kind == _ARRAY:
            element, _, count = struct.unpack("=III", behind)
            return Type("", self.of(element).size * count, {})
        fields = {}
        if kind in (_STRUCT, _UNION):
            for field, type_, bits in _MEMBER.iter_unpack(behind):
                fields[self._name(field)] = bits // 8, self.of(type_).size
        return Type(self._name(name), size, fields)

    def _name(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode()
