# SPDX-License-Identifier: GPL-2.0-or-later
"""The perf ring buffers: events of the XDP program, in runs of raw bytes.

Each CPU has a ring of events, which wakes nobody, and a small one of wake-ups, in which there is nothing to read. Each
look into the rings first sets a flag (`need_wakeup`). Once the program has stored an event, it looks at the flag; if it
is set, it clears it and wakes us. Those that follow don't, since we are awake by then and look again. (A wake-up for
each event costs the program 6.7 us of softirq time, an event without one 0.4.)

Either the program sees the flag, or we see the event: both sides write first and then read, with a fence in between
(`wakeup_send()` in the program, `_fence()` here). So whoever finds no event may sleep until one wakes him. That holds
on x86; elsewhere BPF has no instruction that is certain to be a fence: core/pace.py looks once more for that reason.

bcc opens the rings; they are read here through a second mapping of their pages. bcc's own reader calls Python
once an event, and goes on for as long as the program writes faster than that, so under a flood it never comes
back. A read here ends.
"""

from __future__ import annotations

import ctypes as ct
import mmap
import os
import struct
import threading
from collections.abc import Mapping
from pathlib import Path

from npd6_xdp.core.errors import MachineError, as_machine_error, is_want_of_descriptors, remedy
from npd6_xdp.core.event import RECORD_SIZE

RING_PAGES = 256
"""Pages of one CPU's ring of events, 1 MiB where a page is 4 KiB: 16,384 events, which Python answers in 50 ms."""
LEAST_PAGES = 16
BATCH = 512
"""Events that one read() takes at the most."""

_WAKEUP_PAGES = 1  # holds 256 wake-ups where it is 4 KiB, of which the program makes one for each raising of the flag
_MOST_RAISINGS = 64  # after so many, all wake-ups are taken for read
_DATA_HEAD = 1024  # offsets in struct perf_event_mmap_page
_DATA_TAIL = 1032
_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
_HEADER = struct.Struct("@IHH")  # struct perf_event_header: type, misc, size
_RECORD_SAMPLE = 9
_SAMPLE = struct.pack("@I", _RECORD_SAMPLE)  # how one begins


def refusal(paranoid: str) -> str:
    """What to say where the kernel opens no ring, by its sysctl kernel.perf_event_paranoid."""
    if int(paranoid) > 2:
        return (
            f"the kernel grants no perf ring buffer: kernel.perf_event_paranoid is {int(paranoid)}, and above 2 some"
            " distributions' kernels want CAP_SYS_ADMIN; run as root, or sysctl -w kernel.perf_event_paranoid=2"
        )
    return (
        "the kernel grants no perf ring buffer: allow more locked memory (ulimit -l, LimitMEMLOCK=)"
        " or give CAP_PERFMON and CAP_IPC_LOCK"
    )


class EventRing:
    """Reads what the program submits to its map `events`, from all CPUs, and is waked by what it submits to `wakeups`.

    `maps` has the file descriptors of a loaded program's maps. `pages` is the size of each CPU's ring of events; where
    the kernel doesn't grant that much locked memory, it is halved until it does (`pages` then says to what). What the
    rings can't hold, the program counts as lost.
    """

    def __init__(self, maps: Mapping[str, int], pages: int = RING_PAGES) -> None:
        import bcc

        self._bcc = bcc
        self._lib = bcc.lib
        self._maps = maps
        what_came, what_was_lost, *_ = self._lib.bpf_open_perf_buffer_opts.argtypes
        self._calls = what_came(_unused), what_was_lost()
        self._readers: list[int] = []
        self._rings: list[_CpuRing] = []
        self._wakeups: list[_CpuRing] = []
        self._raisings = 0
        with as_machine_error("can't map the rings to Python"):
            self._flag = mmap.mmap(maps["need_wakeup"], mmap.PAGESIZE)
            self.pages = self._open(pages)
            cpus = len(self._readers) // 2
            try:
                self._rings += (_CpuRing(self._fileno(reader), self.pages) for reader in self._readers[cpus:])
                self._wakeups += (_CpuRing(fd, _WAKEUP_PAGES) for fd in self.filenos())
            except OSError:
                self.close()
                raise

    def _open(self, pages: int) -> int:
        while True:
            cpus = self._bcc.utils.get_online_cpus()  # once: of each, there is one of either kind
            try:
                self._open_all("wakeups", cpus, _WAKEUP_PAGES, 1)
                self._open_all("events", cpus, pages, 0)
            except OSError as error:
                self._free()
                if is_want_of_descriptors(error.errno or 0):
                    raise MachineError(f"can't open the rings to Python: {remedy(error)}") from error
                if pages <= LEAST_PAGES:
                    raise MachineError(refusal(_PARANOID.read_text())) from error
                pages //= 2
            else:
                return pages

    def _open_all(self, name: str, cpus: list[int], pages: int, wakeup_events: int) -> None:
        """A ring of each of the CPUs in a map of the program's, which tells of so many events at once (0: never).
        Raises OSError.
        """
        options = self._bcc.libbcc.bcc_perf_buffer_opts(pid=-1, wakeup_events=wakeup_events)
        for cpu in cpus:
            options.cpu = cpu
            reader = self._lib.bpf_open_perf_buffer_opts(*self._calls, None, pages, ct.byref(options))
            if not reader:
                raise OSError(code := ct.get_errno(), os.strerror(code))
            self._readers.append(reader)
            fd = ct.c_int(self._fileno(reader))
            if self._lib.bpf_update_elem(self._maps[name], ct.byref(ct.c_int(cpu)), ct.byref(fd), 0) != 0:
                raise OSError(code := ct.get_errno(), os.strerror(code))

    def _free(self) -> None:
        """Give back what there is of the rings."""
        for reader in self._readers:
            self._lib.perf_reader_free(reader)
        self._readers.clear()

    def _fileno(self, reader: int) -> int:
        return int(self._lib.perf_reader_fd(reader))

    def filenos(self) -> list[int]:
        """A file descriptor a CPU. Each tells once that events have come, to any of the rings: read them all."""
        return [self._fileno(reader) for reader in self._readers[: len(self._readers) // 2]]

    def read(self, *, watched: bool = True) -> list[bytes]:
        """The oldest events of each ring, at most BATCH in all, in runs of whole records (see core/event.py).

        `watched` says that what comes from now on is to wake us. Returns an empty list if there are no events. The
        rings take turns at being first, so that a flood on one CPU doesn't keep those of another waiting.
        """
        if watched:
            self._raise_flag()
        runs: list[bytes] = []
        left = BATCH
        for ring in self._rings:
            if ring.head[0] == ring.tail:
                continue
            left = ring.read(runs, left)
            if not left:
                self._rings.append(self._rings.pop(0))
                break
        return runs

    def _raise_flag(self) -> None:
        self._flag[0] = 1
        _fence()
        self._raisings += 1
        if self._raisings == _MOST_RAISINGS:
            self._raisings = 0
            for ring in self._wakeups:
                ring.skip()

    def close(self) -> None:
        """Give them back."""
        for ring in (*self._rings, *self._wakeups):
            ring.close()
        self._rings.clear()
        self._wakeups.clear()
        self._flag.close()
        self._free()


class _CpuRing:
    """One CPU's ring: a page of positions, then the records, in a circle.

    The kernel writes records and then `head[0]`; we read that, the records, and then write their end, from where on the
    kernel may write again. `tail` is our copy of that. (The barriers that some architectures want between those are the
    interpreter's own: each step here is many instructions and a system call away from the next.)
    """

    __slots__ = ("_map", "_size", "_tail", "head", "tail")

    def __init__(self, fd: int, pages: int) -> None:
        self._size = pages * mmap.PAGESIZE
        self._map = mmap.mmap(fd, mmap.PAGESIZE + self._size)
        with memoryview(self._map) as view:  # items of a cast one are loaded and stored whole
            self.head, self._tail = (view[at : at + 8].cast("Q") for at in (_DATA_HEAD, _DATA_TAIL))
        self.tail = self._tail[0]

    def read(self, runs: list[bytes], left: int) -> int:
        """Append at most `left` events to `runs`; how many more there might have been."""
        tail, head = self.tail, self.head[0]
        while tail != head and left:
            run, tail = self._run(tail, min(head - tail, left * RECORD_SIZE))
            if run:
                runs.append(run)
                left -= len(run) // RECORD_SIZE
        self.tail = self._tail[0] = tail
        return left

    def skip(self) -> None:
        """Take all that is in it for read."""
        self.tail = self._tail[0] = self.head[0]

    def _run(self, tail: int, length: int) -> tuple[bytes, int]:
        """The samples that stand side by side from `tail` on, and where they end: `length` bytes at the most."""
        start = tail % self._size
        base = mmap.PAGESIZE + start
        straight = min(length, self._size - start) // RECORD_SIZE * RECORD_SIZE
        if not straight:  # around the end of the circle, or what is there is shorter than a sample
            return self._one(tail)
        run = self._map[base : base + straight]
        if straight == RECORD_SIZE and run.startswith(_SAMPLE):
            return run, tail + RECORD_SIZE
        kinds = memoryview(run).cast("I")[:: RECORD_SIZE // 4].tolist()
        if kinds.count(_RECORD_SAMPLE) == len(kinds):
            return run, tail + straight
        # a record of another kind shifts what follows: up to there, then one at a time
        good = next(number for number, kind in enumerate(kinds) if kind != _RECORD_SAMPLE) * RECORD_SIZE
        return (run[:good], tail + good) if good else self._one(tail)

    def _one(self, tail: int) -> tuple[bytes, int]:
        """One record, which may go around the end of the circle; nothing if it is no sample."""
        # Records are aligned to 8 bytes, so a header never straddles the end.
        start = tail % self._size
        kind, _, length = _HEADER.unpack_from(self._map, mmap.PAGESIZE + start)
        # Another kind is PERF_RECORD_LOST; the program has counted those itself, exactly.
        run = b"" if kind != _RECORD_SAMPLE else self._around(start, RECORD_SIZE)
        return run, tail + length

    def _around(self, start: int, length: int) -> bytes:
        base = mmap.PAGESIZE
        return (self._map[base + start : base + start + length] + self._map[base : base + length])[:length]

    def close(self) -> None:
        self.head.release()
        self._tail.release()
        self._map.close()


_lock = threading.Lock()
_lock.acquire()


def _fence() -> None:
    """Have others see what was written, before anything is read after. Nothing else of Python's promises that."""
    _lock.release()  # no write before it comes later
    _lock.acquire()  # no read after it comes earlier, and this one not before the release


def _unused(_cpu: int, _data: int, _size: int) -> None:
    """What bcc would call for each event if its own reader were polled."""
