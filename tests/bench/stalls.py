# SPDX-License-Identifier: GPL-2.0-or-later
"""How long any CPU was held by what doesn't let go of it: a sleeper on each, before all processes, that is late."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import time
from types import TracebackType
from typing import Self

_NAP = 0.001  # seconds
_PRIORITY = 50  # of SCHED_FIFO: before all that isn't real-time, so that only what can't be interrupted delays it
_SECONDS = struct.Struct("=d")
_PR_SET_PDEATHSIG = 1


class Stalls:
    """Watches all CPUs of this process while the `with` block runs."""

    def __init__(self) -> None:
        self._cpus = sorted(os.sched_getaffinity(0))
        self._pids: list[int] = []
        self._map = mmap.mmap(-1, max(mmap.PAGESIZE, _SECONDS.size * len(self._cpus)))

    def __enter__(self) -> Self:
        for place, cpu in enumerate(self._cpus):
            pid = os.fork()
            if pid == 0:
                self._watch(place, cpu)
            self._pids.append(pid)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._pids.clear()

    def begin(self) -> None:
        """Watch from now on."""
        self._map[:] = bytes(len(self._map))

    def longest(self) -> list[float]:
        """Seconds that each CPU was held for at the most, beside the millisecond that its sleeper sleeps."""
        return [_SECONDS.unpack_from(self._map, place * _SECONDS.size)[0] for place in range(len(self._cpus))]

    def _watch(self, place: int, cpu: int) -> None:
        """In the child, which ends with its parent."""
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, {cpu})
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
            at, clock, sleep = place * _SECONDS.size, time.monotonic, time.sleep
            while True:
                began = clock()
                sleep(_NAP)
                late = clock() - began - _NAP
                if late > _SECONDS.unpack_from(self._map, at)[0]:
                    _SECONDS.pack_into(self._map, at, late)
        finally:
            os._exit(1)
