# SPDX-License-Identifier: GPL-2.0-or-later
"""The maps of a loaded program: read and written by their file descriptors."""

from __future__ import annotations

import ctypes as ct
import errno
import os
from collections.abc import Iterator, Mapping, Sequence

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.system.bpf.compiler import load_bcc

_BATCH = 1024  # entries that are read at once


class Maps:
    """The maps of a loaded program, which are of these sizes."""

    def __init__(self, fds: Mapping[str, int], sizes: Mapping[str, int]) -> None:
        self._lib = load_bcc().lib
        self._fds = fds
        self._sizes = sizes

    @property
    def maps(self) -> Mapping[str, int]:
        """The file descriptors of its maps."""
        return self._fds

    def size(self, name: str) -> int:
        """How many entries a map has space for, of those that a table fills."""
        return self._sizes[f"{name.upper()}_MAX"]

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
        """Take entries out of a map, in this order; those that aren't there are passed over."""
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
        for _ in range(2 * self.size(name)):
            if self._lib.bpf_get_next_key(self._fds[name], last, key) != 0:
                return
            last = key.raw
            if (value := self.lookup(name, last, size)) is not None:
                yield last, value

    def all_items(self, name: str, key_size: int, size: int) -> Iterator[tuple[bytes, bytes]]:
        """The same, a thousand a system call: a sixth of the time, where the kernel has batches for such a map."""
        for count, keys, values in self._batches(name, key_size, size):
            for number in range(count):
                key = keys[number * key_size : (number + 1) * key_size]
                yield key, values[number * size : (number + 1) * size]

    def counting(self, name: str, key_size: int, size: int) -> Steps[int]:
        """How many entries a map has, counted a thousand at a time."""
        many = 0
        for count, _, _ in self._batches(name, key_size, size):
            many += count
            yield
        return many

    def _batches(self, name: str, key_size: int, size: int) -> Iterator[tuple[int, bytes, bytes]]:
        """How many entries, all their keys, and all their values."""
        keys, values = ct.create_string_buffer(_BATCH * key_size), ct.create_string_buffer(_BATCH * size)
        before, after, more = ct.c_uint32(), ct.c_uint32(), False
        while True:
            count = ct.c_uint32(_BATCH)
            since = ct.byref(before) if more else None
            called = (self._fds[name], since, ct.byref(after), keys, values, ct.byref(count), None)
            code = ct.get_errno() if self._lib.bpf_map_lookup_batch(*called) != 0 else 0
            if code not in (0, errno.ENOENT):
                for some in pieces(self.items(name, key_size, size), _BATCH):
                    yield len(some), b"".join(key for key, _ in some), b"".join(value for _, value in some)
                return
            yield count.value, keys.raw, values.raw
            if code:
                return  # these were the last
            before.value, more = after.value, True
