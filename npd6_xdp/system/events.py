# SPDX-License-Identifier: GPL-2.0-or-later
"""The perf ring buffer: events of the XDP program, in batches of raw bytes.

bcc opens the rings; they are read here through a second mapping of their pages. bcc's own reader calls Python
once an event, and goes on for as long as the program writes faster than that, so under a flood it never comes
back. A batch here ends.
"""

from __future__ import annotations

import ctypes as ct
import mmap
import struct
from typing import Any

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.event import EVENT_SIZE

RING_PAGES = 1024
"""Pages of one CPU's ring, 4 MiB where a page is 4 KiB: 65,536 events."""
LEAST_PAGES = 16
BATCH = 512
"""Events that one read() takes from one CPU's ring at the most."""

_DATA_HEAD = 1024  # offsets in struct perf_event_mmap_page
_DATA_TAIL = 1032
_HEADER = struct.Struct("@IHH")  # struct perf_event_header: type, misc, size
_RECORD_SAMPLE = 9
_RECORD_DATA = 12  # behind the header and the u32 size of the raw data


class EventRing:
    """Reads what the program submits to its map `events`, from all CPUs.

    `bpf` is the loaded bcc module. `pages` is the size of each CPU's ring; where the kernel doesn't grant that
    much locked memory, it is halved until it does (`pages` then says to what). What the rings can't hold, the
    program counts as lost.
    """

    def __init__(self, bpf: Any, pages: int = RING_PAGES) -> None:
        import bcc

        self._lib = bcc.lib
        self._bpf = bpf
        self.pages = self._open(pages)
        self._rings = [_CpuRing(fd, self.pages) for fd in self.filenos()]

    def _open(self, pages: int) -> int:
        while True:
            try:
                self._bpf[b"events"].open_perf_buffer(_unused, page_cnt=pages)
            except Exception as error:  # bcc raises nothing more exact
                if pages <= LEAST_PAGES:
                    raise MachineError(
                        "the kernel grants no perf ring buffer: allow more locked memory (ulimit -l, LimitMEMLOCK=)"
                        " or give CAP_PERFMON and CAP_IPC_LOCK"
                    ) from error
                self._free()
                pages //= 2
            else:
                return pages

    def _free(self) -> None:
        """Give back what a failed attempt has opened on the first CPUs."""
        for key, reader in tuple(self._bpf.perf_buffers.items()):
            self._lib.perf_reader_free(reader)
            del self._bpf.perf_buffers[key]

    def filenos(self) -> list[int]:
        """One file descriptor a CPU. Each tells once that events have come: read until nothing more is there."""
        return [int(self._lib.perf_reader_fd(reader)) for reader in self._bpf.perf_buffers.values()]

    def read(self) -> list[bytes]:
        """The oldest events, at most BATCH of each CPU, those of each CPU in their order. Empty: there are no more."""
        batch: list[bytes] = []
        for ring in self._rings:
            ring.read(batch)
        return batch

    def close(self) -> None:
        """Unmap; the rings themselves go with the bcc module."""
        for ring in self._rings:
            ring.close()


class _CpuRing:
    """One CPU's ring: a page of positions, then the records, in a circle.

    The kernel writes records and then `head`; we read `head`, the records, and then write `tail`, from where on
    the kernel may write again. (The barriers that some architectures want between those are the interpreter's
    own: each step here is many instructions and a system call away from the next.)
    """

    def __init__(self, fd: int, pages: int) -> None:
        self._size = pages * mmap.PAGESIZE
        self._map = mmap.mmap(fd, mmap.PAGESIZE + self._size)
        # ctypes loads and stores the eight bytes at once, which struct doesn't promise
        self._head = ct.c_uint64.from_buffer(self._map, _DATA_HEAD)
        self._tail = ct.c_uint64.from_buffer(self._map, _DATA_TAIL)

    def read(self, batch: list[bytes]) -> None:
        pages, size = self._map, self._size
        tail, head = self._tail.value, self._head.value
        left = BATCH
        while tail != head and left:
            # Records are aligned to 8 bytes, so a header never straddles the end; its record may.
            start = tail % size
            kind, _, length = _HEADER.unpack_from(pages, mmap.PAGESIZE + start)
            if kind == _RECORD_SAMPLE:
                batch.append(self._bytes(start + _RECORD_DATA))
                left -= 1
            # Another kind is PERF_RECORD_LOST; the program has counted those itself, exactly.
            tail += length
        self._tail.value = tail

    def _bytes(self, start: int) -> bytes:
        end = start + EVENT_SIZE
        base = mmap.PAGESIZE
        if end <= self._size:
            return self._map[base + start : base + end]
        if start >= self._size:
            return self._map[base + start - self._size : base + end - self._size]
        return self._map[base + start : base + self._size] + self._map[base : base + end - self._size]

    def close(self) -> None:
        del self._head, self._tail
        self._map.close()


def _unused(_cpu: int, _data: int, _size: int) -> None:
    """What bcc would call for each event if its own reader were polled."""
