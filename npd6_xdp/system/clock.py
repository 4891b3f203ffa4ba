# SPDX-License-Identifier: GPL-2.0-or-later
"""The clock by which BPF programs tell the time: CLOCK_MONOTONIC of the machine, also in a time namespace.

bpf_ktime_get_ns() knows no time namespace, while what a process reads in one is ahead of that or behind
(time_namespaces(7)). So this clock is read for whatever is compared with a program's times; all else goes by
time.monotonic().
"""

from __future__ import annotations

import re
import time
from functools import cache
from pathlib import Path

_OFFSETS = Path("/proc/self/timens_offsets")
_MONOTONIC = re.compile(r"^monotonic\s+(-?\d+)\s+(\d+)$", re.MULTILINE)


def offset(text: str) -> int:
    """By how much this namespace's CLOCK_MONOTONIC is ahead (nanoseconds), by what /proc/PID/timens_offsets says."""
    found = _MONOTONIC.search(text)
    return 0 if found is None else int(found[1]) * 1_000_000_000 + int(found[2])


@cache
def _offset() -> int:
    """This process's; it can't change any more once a process is in the namespace."""
    try:
        return offset(_OFFSETS.read_text())
    except OSError:  # a kernel without time namespaces
        return 0


def machine_ns() -> int:
    """The machine's CLOCK_MONOTONIC, in nanoseconds."""
    return time.monotonic_ns() - _offset()
