# SPDX-License-Identifier: GPL-2.0-or-later
"""The ring of a trace, as whoever looks reads it: a BPF ring buffer that the daemon has handed over, mapped here."""

from __future__ import annotations

import ctypes as ct
import mmap
import struct

_LENGTH = struct.Struct("=I4x")  # before each record: its bytes and two flags, and what is the kernel's own
_BUSY, _DISCARDED = 1 << 31, 1 << 30


class TraceRing:
    """Reads records of a ring of `size` bytes by its descriptor, which stays the caller's. Raises OSError.

    The first page has how far was read, and is ours to write; then come a page that says how far was written, and the
    records, twice in a row, so that none is cut by the end of the circle. (The barriers that some architectures want
    between those are the interpreter's own: system/bpf/events.py.)
    """

    def __init__(self, fd: int, size: int) -> None:
        self._size = size
        self._ours = mmap.mmap(fd, mmap.PAGESIZE)
        try:
            behind = mmap.PAGESIZE + 2 * size
            self._theirs = mmap.mmap(fd, behind, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE)
        except (OSError, ValueError):
            self._ours.close()
            raise
        # ctypes loads and stores the eight bytes at once, which struct doesn't promise
        self._read_to = ct.c_uint64.from_buffer(self._ours)

    def read(self, at_most: int) -> list[bytes]:
        """The oldest records, so many at the most; none, if there are none."""
        records: list[bytes] = []
        at = self._read_to.value
        (end,) = struct.unpack_from("=Q", self._theirs)
        while at < end and len(records) < at_most:
            start = mmap.PAGESIZE + at % self._size
            (length,) = _LENGTH.unpack_from(self._theirs, start)
            if length & _BUSY:
                break  # it is being written
            size = length & ~_DISCARDED
            if not length & _DISCARDED:
                records.append(self._theirs[start + _LENGTH.size : start + _LENGTH.size + size])
            at += (_LENGTH.size + size + 7) & ~7
        self._read_to.value = at
        return records

    def close(self) -> None:
        """Let go of the mapping."""
        del self._read_to
        self._ours.close()
        self._theirs.close()
