# SPDX-License-Identifier: GPL-2.0-or-later
"""How often something was written into the maps of a table: what tells the program that it may have seen two of them.

A solicitation is decided by several look-ups, and the maps change one system call after another. At each moment any
target is decided by one table's rule or by the other's; but a program that stands still on its way, as on a CPU that a
hypervisor has taken away, may come upon a line of the one and miss a line of the other. So the number is raised before
each call, and the program looks at it before its first look-up and behind its last. Where it is the same, one call at
most was under way: that writes one line of those that may be a target's.
"""

from __future__ import annotations

import mmap

from npd6_xdp.core.errors import as_machine_error
from npd6_xdp.core.layout import WRITES
from npd6_xdp.system.bpf.maps import Maps


class TableWrites:
    """The number, in the map's own memory: it is raised by one store of 8 bytes, which the program reads whole."""

    def __init__(self, maps: Maps) -> None:
        with as_machine_error("can't map the number of writes"):
            self._memory = mmap.mmap(maps.maps["table_writes"], WRITES.size)
        self._words = memoryview(self._memory).cast("Q")

    def begin(self) -> None:
        """What was found in the maps so far, and what will be from now on, may be of two tables."""
        self._words[0] += 1

    def close(self) -> None:
        """Nothing more is to be written."""
        self._words.release()
        self._memory.close()
