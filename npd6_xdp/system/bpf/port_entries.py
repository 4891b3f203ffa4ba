# SPDX-License-Identifier: GPL-2.0-or-later
"""The entries of untagged frames once more, where the program finds them by the index of the port.

While a table is put into the maps, the program asks the map `entries` for those that differ: that says at each moment
what is so. One that is about to answer by an entry that was shown begins anew. Then they are written into copies
that no program can be reading, and shown by one store of 8 bytes.
"""

from __future__ import annotations

import ctypes as ct
import mmap
import os
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
        self._left: list[int] = []  # let go of: a program on another CPU may be reading them

    def close(self) -> None:
        """Nothing more is to be shown or hidden."""
        self._places.release()
        self._memory.close()

    def leave(self, wanted: Mapping[int, bytes]) -> None:
        """From now on, `entries` are asked for all ports that are to have another entry than now."""
        for ifindex, (number, entry) in [*self._shown.items()]:
            if wanted.get(ifindex) != entry:
                self._places[ifindex % PLACES] = 0
                self._left.append(number)
                del self._shown[ifindex]

    def follow(self, wanted: Mapping[int, bytes]) -> None:
        """Show these, which are in `entries`; leave() has been told of them, or others, before."""
        self.leave(wanted)
        for ifindex, entry in wanted.items():
            if ifindex in self._shown or self._places[ifindex % PLACES]:
                continue
            if not self._free and not self._wait():
                return
            number = self._free.pop()
            with suppress(MachineError):
                self._maps.update("port_entries", INDEX.pack(number), entry)
                self._shown[ifindex] = number, entry
                self._places[ifindex % PLACES] = ifindex << 32 | number
                continue
            self._left.append(number)

    def _wait(self) -> bool:
        """Until no program can be reading what was let go of; whether there is something free then."""
        if self._left and _every_cpu_went_on():
            self._free, self._left = self._left, []
        return bool(self._free)


def _every_cpu_went_on() -> bool:
    """Wait until whatever ran in the kernel without a break when this began has ended. False: that can't be known."""
    number = _MEMBARRIER.get(os.uname().machine, _MEMBARRIER_ELSEWHERE)
    return bool(ct.CDLL(None, use_errno=True).syscall(number, _EVERY_CPU, 0, 0) == 0)
