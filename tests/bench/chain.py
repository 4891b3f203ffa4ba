# SPDX-License-Identifier: GPL-2.0-or-later
"""What it costs on this machine to wait for memory: a chain of look-ups, each of which needs what the last one found.

Row 3 is told in these, since how long memory takes is the machine's doing, and how often it has to be waited for the
program's.
"""

from __future__ import annotations

import struct
import time
from types import TracebackType
from typing import Self

from npd6_xdp.system.bpf.testrun import TestRun
from tests.bench.bpf import SmallProgram
from tests.bench.results import middle

FAR = 1 << 28
"""Bytes of an array of which no cache holds much."""
_STATE = struct.Struct("=II")
_ELEMENT = 8
_FILL, _STEPS = 256, 1000  # of chain.c
_ROUNDS, _RUNS = 7, 200
_FRAME = bytes(64)


class Chain:
    """A chain through an array of so many bytes, a power of two, while the `with` block runs."""

    def __init__(self, size: int) -> None:
        self._count = size // _ELEMENT
        self._runs = TestRun()

    def __enter__(self) -> Self:
        self._program = SmallProgram("chain.c", "chain", COUNT=self._count)
        self._program.put("state_space", _STATE.pack(0, 1))
        self._runs.run(self._program.fd, _FRAME, self._count // _FILL)
        self._program.put("state_space", _STATE.pack(0, 0))
        self._runs.run(self._program.fd, _FRAME, min(_RUNS, max(1, self._count // _STEPS)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._program.close()

    def look_up(self) -> float:
        """Nanoseconds of one look-up."""
        taken = []
        for _ in range(_ROUNDS):
            began = time.thread_time_ns()
            self._runs.run(self._program.fd, _FRAME, _RUNS)
            taken.append((time.thread_time_ns() - began) / (_RUNS * _STEPS))
        return middle(taken)
