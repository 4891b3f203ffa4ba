# SPDX-License-Identifier: GPL-2.0-or-later
"""What the programs do for who looks at each solicitation: the filter, and the ring, which exists only meanwhile."""

from __future__ import annotations

import ctypes as ct
import os
from collections.abc import Iterable, Set
from typing import NamedTuple

from npd6_xdp.core.errors import MachineError, remedy
from npd6_xdp.core.layout import FLAG, INDEX, TRACE_COUNT
from npd6_xdp.system.bpf.compiled import Map, create_map
from npd6_xdp.system.bpf.compiler import load_bcc
from npd6_xdp.system.bpf.counters import sums_of
from npd6_xdp.system.bpf.program import Program

RING_BYTES = 1 << 22
"""Of the ring: some 16,000 solicitations."""
MOST_RULES = 4096
"""Rules that a filter may be by: TRACE_RULES_MAX of the program."""

_RINGBUF = 27  # BPF_MAP_TYPE_RINGBUF
_ONLY, _SET = INDEX.pack(0), FLAG.pack(1)


class TraceRing:
    """A ring that programs write records into, and another process reads: it maps what it gets as a descriptor.

    It can do harm to nobody but itself: all that it may write to is how far it has read.
    """

    def __init__(self, size: int = RING_BYTES) -> None:
        self.size = size
        self._fd = create_map(load_bcc().lib, Map("trace_records", _RINGBUF, 0, 0, size, 0, ""))
        if self._fd < 0:
            error = OSError(ct.get_errno(), os.strerror(ct.get_errno()))
            raise MachineError(f"trace: the kernel grants no ring: {remedy(error)}")

    def fileno(self) -> int:
        """Its descriptor."""
        return self._fd

    def close(self) -> None:
        """Let go of it; it is there until programs and the reader have done so as well."""
        os.close(self._fd)


class Looking(NamedTuple):
    """Where records go, which (a `struct trace_filter`), and by which port; "" is any."""

    ring: int
    filter: bytes
    port: str


class TraceCounts(NamedTuple):
    """Solicitations that the programs decided themselves and the filter wants; those that the ring had no space for."""

    matched: int
    lost: int


class Looks:
    """One who looks, or nobody."""

    def __init__(self) -> None:
        self._looking: Looking | None = None
        self._rules: Set[int] = frozenset()
        self._left = TraceCounts(0, 0)  # of programs that are gone

    def begin(self, looking: Looking, rules: Set[int], programs: Iterable[Program], retired: Iterable[Program]) -> None:
        """Somebody does from now on, once the entries say so: `rules` counts where the filter is by rules. What was
        counted for who looked before is no more, also that of programs that others have taken over from since.
        """
        self._looking, self._rules, self._left = looking, frozenset(), TraceCounts(0, 0)
        programs = tuple(programs)
        for program in (*retired, *programs):
            program.update("trace_counts", _ONLY, bytes(TRACE_COUNT.size * program.cpus))
        for program in programs:
            self.take_in(program)
        self.at_rules(rules, programs)

    def take_in(self, program: Program) -> None:
        """One more program; nothing happens if nobody looks."""
        looking = self._looking
        if looking is not None:
            program.update("trace_filters", _ONLY, looking.filter)
            for rule in self._rules:
                program.update("trace_rules", FLAG.pack(rule), _SET)
            program.update("trace_ring", _ONLY, INDEX.pack(looking.ring))

    def at_rules(self, rules: Set[int], programs: Iterable[Program]) -> None:
        """By which rules what is wanted has to be. Raises MachineError if they are too many."""
        before, self._rules = self._rules, frozenset(rules)
        for program in programs:
            for rule in before - self._rules:
                program.delete("trace_rules", FLAG.pack(rule))
            for rule in self._rules - before:
                program.update("trace_rules", FLAG.pack(rule), _SET)

    def end(self, programs: Iterable[Program]) -> None:
        """Nobody looks any more, and the entries of the program at work say so already. The kernel takes the ring out
        once no CPU is in a program that still knew it (some milliseconds), so what is counted then is all.
        """
        programs = tuple(programs)
        self.at_rules(frozenset(), programs)
        self._looking = None
        for program in programs:
            program.delete("trace_ring", _ONLY)

    def leave(self, program: Program) -> None:
        """A program is about to be given up; what it has counted is kept."""
        self._left = self.counts([program])

    def counts(self, programs: Iterable[Program]) -> TraceCounts:
        """What these and those that are gone have counted."""
        matched, lost = self._left
        for program in programs:
            values = program.lookup("trace_counts", _ONLY, TRACE_COUNT.size * program.cpus)
            if values is not None:
                _, here, lost_here = sums_of(TRACE_COUNT, values)
                matched, lost = matched + here, lost + lost_here
        return TraceCounts(matched, lost)
