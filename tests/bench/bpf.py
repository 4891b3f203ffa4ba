# SPDX-License-Identifier: GPL-2.0-or-later
"""A small BPF program of the benchmark's own: loaded from its C file, its maps reached by their names."""

from __future__ import annotations

import ctypes as ct
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from npd6_xdp.system.bpf.compiler import compile_program, load_bcc

_BPF_XDP = 37  # enum bpf_attach_type
_NATIVE = 4  # XDP_FLAGS_DRV_MODE
_KEY = struct.Struct("=I")


class _LinkOptions(ct.Structure):
    """struct bpf_link_create_opts of libbpf, as far as it is used."""

    _fields_ = (("sz", ct.c_size_t), ("flags", ct.c_uint32))


class SmallProgram:
    """One function of a C file, named from this folder, as an XDP program. Leaving the `with` block gives it up."""

    def __init__(self, file: str, function: str, **definitions: int) -> None:
        source = (Path(__file__).parent / file).read_text()
        self._module, self._function = compile_program(source, function, definitions)
        self._lib: Any = load_bcc().lib
        self._cpus = len(load_bcc().utils.get_possible_cpus())
        self._link: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._link is not None:
            os.close(self._link)
            self._link = None
        self._module.cleanup()

    @property
    def fd(self) -> int:
        return int(self._function.fd)

    def attach(self, ifindex: int) -> None:
        """Natively, to an interface of the calling thread's namespace, until it is given up."""
        options = _LinkOptions(ct.sizeof(_LinkOptions), _NATIVE)
        link = self._lib.bpf_link_create(self.fd, ifindex, _BPF_XDP, ct.byref(options))
        if link < 0:
            raise OSError(-link, os.strerror(-link), f"interface {ifindex} takes no XDP program")
        self._link = link

    def map_fd(self, name: str) -> int:
        return int(self._lib.bpf_table_fd(self._module.module, name.encode()))

    def put(self, name: str, value: bytes, key: int = 0) -> None:
        """Into an array."""
        if self._lib.bpf_update_elem(self.map_fd(name), _KEY.pack(key), value, 0) != 0:
            raise OSError(ct.get_errno(), os.strerror(ct.get_errno()), f"map {name}")

    def get(self, name: str, size: int, key: int = 0) -> bytes:
        """Out of an array."""
        value = ct.create_string_buffer(size)
        if self._lib.bpf_lookup_elem(self.map_fd(name), _KEY.pack(key), value) != 0:
            raise OSError(ct.get_errno(), os.strerror(ct.get_errno()), f"map {name}")
        return value.raw

    def per_cpu(self, name: str, size: int, key: int = 0) -> list[bytes]:
        """Out of a per-CPU array, a value for each CPU; `size` is a multiple of 8."""
        whole = self.get(name, size * self._cpus, key)
        return [whole[start : start + size] for start in range(0, len(whole), size)]
