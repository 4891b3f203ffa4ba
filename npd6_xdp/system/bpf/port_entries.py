# SPDX-License-Identifier: GPL-2.0-or-later
"""The entries of untagged frames once more, where the program finds them by the index of the port.

While a table is put into the maps, the program asks the map `entries` for those that differ: that says at each moment
what is so. One that is about to answer by an entry that was shown begins anew. Then they are written into copies
that no program can be reading, and shown by one store of 8 bytes.

The kernel takes up to a tenth of a second to say that none can be. So a thread asks it, before the copies run out.
"""

from __future__ import annotations

import ctypes as ct
import mmap
import os
import time
from _thread import start_new_thread
from collections.abc import Mapping
from contextlib import suppress

from npd6_xdp.core.errors import MachineError, as_machine_error
from npd6_xdp.core.layout import INDEX, PLACE
from npd6_xdp.system.bpf.maps import Maps

PLACES = 4096
"""Interface indexes modulo this have a place each: PORT_PLACES of bpf/ns_filter.c."""
_MEMBARRIER = {"x86_64": 324, "i386": 375, "i686": 375, "arm": 389, "ppc64le": 365, "s390x": 356}
_MEMBARRIER_ELSEWHERE = 283  # where system calls have the generic numbers: aarch64, riscv64, loongarch64
_EVERY_CPU = 1  # MEMBARRIER_CMD_GLOBAL
_SOON = 0.02  # seconds


class PortEntries:
    """Which copy each port's frames have, and which copies are free. Where there is none for a port, or another has its
    place, the program asks `entries`: that takes longer, and says the same.
    """

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        with as_machine_error("can't map the places of ports"):
            self._memory = mmap.mmap(maps.maps["port_places"], PLACES * PLACE.size)
        self._places = memoryview(self._memory).cast("Q")
        self._shown: dict[int, tuple[int, bytes]] = {}  # by interface index: the copy's number, and what it says
        self._free = list(range(maps.size("port_entries")))
        self._few = len(self._free) // 2
        self._left: list[int] = []  # let go of: a program on another CPU may be reading them
        self._waiting: _Waiting | None = None  # for some of these
        self.due: float | None = None
        """When to call follow() again (seconds, monotonic): there was no copy left for a port."""

    def close(self) -> None:
        """Nothing more is to be shown or hidden."""
        self.due = None
        self._places.release()
        self._memory.close()

    def leave(self, wanted: Mapping[int, bytes]) -> None:
        """From now on, `entries` are asked for all ports that are to have another entry than now."""
        self.due = None
        for ifindex, (number, entry) in [*self._shown.items()]:
            if wanted.get(ifindex) != entry:
                self._places[ifindex % PLACES] = 0
                self._left.append(number)
                del self._shown[ifindex]

    def follow(self, wanted: Mapping[int, bytes]) -> None:
        """Show these, which are in `entries`; leave() has been told of them, or others, before."""
        self.leave(wanted)
        may_wait, lacks = self._take_back(), False
        for ifindex, entry in wanted.items():
            if ifindex in self._shown or self._places[ifindex % PLACES]:
                continue
            if not self._free:
                lacks = True
                break
            number = self._free.pop()
            with suppress(MachineError):
                self._maps.update("port_entries", INDEX.pack(number), entry)
                self._shown[ifindex] = number, entry
                self._places[ifindex % PLACES] = ifindex << 32 | number
                continue
            self._left.append(number)
        if may_wait and self._left and len(self._free) <= self._few:
            with suppress(RuntimeError):  # there can be no thread now: the next change of a port tries again
                self._waiting, self._left = _Waiting(self._left), []
        if lacks and self._waiting is not None:
            self.due = time.monotonic() + _SOON

    def _take_back(self) -> bool:
        """Copies that no program can be reading any more are free again. Whether others can be waited for now."""
        waiting = self._waiting
        if waiting is None or not waiting.is_over:
            return waiting is None
        self._waiting = None
        (self._free if waiting.is_known else self._left).extend(waiting.numbers)
        return waiting.is_known


class _Waiting:
    """Waits, in a thread of its own, until no program can be reading some copies: `is_over` then. `is_known`: whether
    that can be known. Raises RuntimeError if there can be no thread.
    """

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers
        self.is_known = self.is_over = False
        start_new_thread(self._wait, ())  # Thread.start() waits until it runs, and on a busy machine that takes a while

    def _wait(self) -> None:
        self.is_known = _every_cpu_went_on()
        self.is_over = True


def _every_cpu_went_on() -> bool:
    """Wait until whatever ran in the kernel without a break when this began has ended. False: that can't be known."""
    number = _MEMBARRIER.get(os.uname().machine, _MEMBARRIER_ELSEWHERE)
    return bool(ct.CDLL(None, use_errno=True).syscall(number, _EVERY_CPU, 0, 0) == 0)
