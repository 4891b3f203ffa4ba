# SPDX-License-Identifier: GPL-2.0-or-later
"""The asker's side: an XDP program that counts what comes back, keeps a sample, and notes when answers came."""

from __future__ import annotations

import mmap
import socket
import struct
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from npd6_xdp.lab.topology import Topology
from tests.bench.bpf import SmallProgram

PLACES = 128
"""Answers of the sample, for each CPU."""
NUMBERS = 65536
"""Questions are told apart by the last 16 bits of their targets."""

_SETTINGS = struct.Struct("=6s2xQ")
_COUNTS = struct.Struct("=3Q")
_SAMPLE_SIZE = 96
_ANSWER_SIZE = 86


@dataclass(frozen=True, slots=True)
class Counts:
    """Advertisements that came, those of them that went on to the stack, and other frames."""

    answers: int
    delivered: int
    others: int


class Counter:
    """Counts on the upstream's interface while the `with` block runs.

    `arrivals[n]` is when the last answer came for a target whose last 16 bits are n, if it is timed: CLOCK_MONOTONIC,
    nanoseconds. One of `sample` answers is kept for samples().
    """

    def __init__(self, topology: Topology, interface: str = "eth0", sample: int = 64) -> None:
        self._topology = topology
        self._interface = interface
        self._sample = sample
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._program = stack.enter_context(SmallProgram("count.c", "count", SAMPLE=self._sample, PLACES=PLACES))
            with self._topology.inside("upstream"):
                self._program.attach(socket.if_nametoindex(self._interface))
            pages = mmap.mmap(self._program.map_fd("arrivals"), 8 * NUMBERS)
            stack.callback(pages.close)
            view = memoryview(pages)
            stack.callback(view.release)
            self.arrivals = view.cast("Q")
            stack.callback(self.arrivals.release)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def set(self, *, deliver: bytes = bytes(6), timed: bool = False) -> None:
        """Let answers to the MAC `deliver` go on to the stack; note when answers come."""
        self._program.put("settings_space", _SETTINGS.pack(deliver, timed))

    def counts(self) -> Counts:
        """Since it was attached."""
        each = [_COUNTS.unpack(value) for value in self._program.per_cpu("counts_space", _COUNTS.size)]
        return Counts(*map(sum, zip(*each, strict=True)))

    def samples(self) -> list[bytes]:
        """The frames that it has kept."""
        kept = [
            value[:_ANSWER_SIZE]
            for place in range(PLACES)
            for value in self._program.per_cpu("samples", _SAMPLE_SIZE, place)
        ]
        return [frame for frame in kept if any(frame)]
