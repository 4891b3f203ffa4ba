# SPDX-License-Identifier: GPL-2.0-or-later
"""Nanoseconds that the XDP program takes, over a program that only passes, by BPF_PROG_TEST_RUN.

Runs with and without the program take turns, and the figure is the median of the differences between neighbours,
so that what disturbs the machine for a while disturbs both. Time is the calling thread's, since the machine
may do other things in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial
from ipaddress import IPv6Network
from pathlib import Path
from struct import Struct
from typing import Any

from npd6_xdp.core.config import Datapath, Vlan
from npd6_xdp.core.icmpv6 import checksum
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.table import Decisions, Table
from npd6_xdp.system.bpf.compiler import compile_program, load_bcc, load_function
from npd6_xdp.system.bpf.testrun import LOOPBACK, TC_NEXT, XDP_DROP, XDP_PASS, XDP_TX, TestRun
from tests.bench.results import middle
from tests.datapath.harness import Bench, entry, rule, table
from tests.frames import SETTING
from tests.kinds import solicit

HARNESS = Path(__file__).with_name("restore.c")
_INDEX = Struct("=I")
_PREFIX = bytes.fromhex("20010db8")
TARGETS = IPv6Network("2001:db8::/32")


class Vary(IntEnum):
    """What differs from run to run; the numbers of restore.c."""

    FIXED = 0
    EXACT = 1
    PREFIX = 2
    SOURCE = 3
    VLAN = 4


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often is measured: `rounds` times, `runs` runs of the program each."""

    rounds: int
    runs: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Nanoseconds a run, one value a round: the bare program's, and what the measured one takes over it."""

    bare: list[float]
    over: list[float]

    @property
    def median(self) -> float:
        return middle(self.over)


def cost_of_a_frame(program: int, bare: int, frame: bytes, repeats: Repeats, *, at_tc: bool = False) -> Cost:
    """Of a frame that the program passes and leaves as it is; `at_tc`: both are tc's, which hands it on."""
    runs = TestRun()
    run, passed = (runs.run_tc, TC_NEXT) if at_tc else (runs.run, XDP_PASS)
    for fd in (program, bare):
        if run(fd, frame).action != passed:
            raise RuntimeError("the program doesn't pass a frame that isn't its own")
    return _compare(lambda fd: _timed(run, fd, frame, repeats.runs), program, bare, repeats.rounds)


@contextmanager
def loaded(wanted: Table) -> Iterator[Bench]:
    """The real program, with its maps filled by a table."""
    with closing(Bench(wanted, pages=16)) as bench:
        yield bench


def bare_program() -> AbstractContextManager[int]:
    """A program that only passes; its file descriptor."""
    return _beside("bare")


def only_fib_lookup() -> AbstractContextManager[int]:
    """A program that does nothing but ask the kernel's routing table for the target of an untagged solicitation."""
    return _beside("only_fib_lookup")


@contextmanager
def _beside(function: str) -> Iterator[int]:
    """A function that stands beside the harness in its file; its file descriptor."""
    module, loaded = compile_program(HARNESS.read_text(), function, _definitions(Vary.FIXED, 1, 86))
    try:
        yield int(loaded.fd)
    finally:
        module.cleanup()


@contextmanager
def bare_program_at_tc() -> Iterator[int]:
    """One of tc's that only passes."""
    module, _ = compile_program(HARNESS.read_text(), "bare", _definitions(Vary.FIXED, 1, 86))
    try:
        yield int(load_function(module, "bare_tc", load_bcc().BPF.SCHED_CLS).fd)
    finally:
        module.cleanup()


class Harness:
    """restore.c, which puts the frame right before each run; close() gives it up."""

    def __init__(self, vary: Vary, count: int, frame: bytes | None = None, ifindex: int = LOOPBACK) -> None:
        """`frame` takes the place of a solicitation; at most 128 bytes, and nothing in it then varies. Frames come in
        by `ifindex` of the calling thread's network namespace.
        """
        self._frame = _frame(vary) if frame is None else frame
        definitions = _definitions(vary, count, len(self._frame))
        self._module, self._function = compile_program(HARNESS.read_text(), "restore", definitions)
        self._lib: Any = load_bcc().lib
        self._run = partial(TestRun().run, ifindex=ifindex)
        self._put("pristine_space", self._frame.ljust(128, b"\0"))

    def close(self) -> None:
        self._module.cleanup()

    def _put(self, name: str, value: bytes) -> None:
        fd = self._lib.bpf_table_fd(self._module.module, name.encode())
        if self._lib.bpf_update_elem(fd, _INDEX.pack(0), value, 0) != 0:
            raise RuntimeError(f"map {name} of the harness takes no entry")

    def run(self, program: int, times: int) -> None:
        """Give so many of the frames that the harness makes to a program, within one system call."""
        self._put("next", _INDEX.pack(program))
        self._run(self._function.fd, self._frame, times)

    def cost(self, program: int, bare: int, action: int, repeats: Repeats) -> Cost:
        """Of the frames that the harness makes; each program is reached by a tail call."""
        return self._between((program, action), (bare, XDP_PASS), repeats)

    def between(self, program: int, other: int, action: int, repeats: Repeats) -> Cost:
        """Of a program over another one that does the same with the frames."""
        return self._between((program, action), (other, action), repeats)

    def _between(self, program: tuple[int, int], bare: tuple[int, int], repeats: Repeats) -> Cost:
        for fd, wanted in (program, bare):
            self._put("next", _INDEX.pack(fd))
            for _ in range(10):
                found = self._run(self._function.fd, self._frame).action
                if found != wanted:
                    raise RuntimeError(f"the harness ends with action {found} instead of {wanted}")

        def run(fd: int) -> float:
            self._put("next", _INDEX.pack(fd))
            return _timed(self._run, self._function.fd, self._frame, repeats.runs)

        return _compare(run, program[0], bare[0], repeats.rounds)


def cost_of_answers(wanted: Table, vary: Vary, count: int, repeats: Repeats, action: int = XDP_TX) -> Cost:
    """Of solicitations that a table answers (or whatever `action` says), over the bare program in the same harness."""
    with loaded(wanted) as bench, bare_program() as bare, closing(Harness(vary, count)) as harness:
        return harness.cost(bench.ns_filter.program.fd, bare, action, repeats)


# --- tables of many ---------------------------------------------------------------------------------


def one_prefix() -> Table:
    """A table with one /32, in which all targets here are."""
    return table(entry(rule(str(TARGETS))))


def exact_addresses(count: int) -> Table:
    """A table with `count` addresses, those that the harness asks for under Vary.EXACT."""
    return _with_lines(Prefix(int.from_bytes(_exact_address(i)), 128) for i in range(count))


def _exact_address(i: int) -> bytes:
    return _PREFIX + bytes(4) + _spread(i, 0x9E3779B97F4A7C15, 8)


def prefixes(count: int) -> Table:
    """A table with `count` prefixes of 64 bits, those that the harness asks in under Vary.PREFIX."""
    return _with_lines(Prefix(int.from_bytes(_PREFIX + _spread(i, 0x9E3779B1, 4) + bytes(8)), 64) for i in range(count))


def _with_lines(prefixes: Iterable[Prefix]) -> Table:
    """one_prefix(), with other prefixes instead of its own."""
    base = one_prefix()
    ((number, decisions),) = base.decisions.items()
    (match,) = decisions.lines.values()
    return replace(base, decisions={number: Decisions(dict.fromkeys(prefixes, match), decisions.exceptions)})


def limited() -> Table:
    """Datapath python with a limit for each source, so low that it refuses nearly all."""
    return table(entry(rule(str(TARGETS)), datapath=Datapath.PYTHON, events_per_source=1))


def vlans(count: int) -> Table:
    """A table with an entry for each of the VLANs 1 to `count`, each with a prefix of its own."""
    return table(*(entry(rule(str(TARGETS)), vlan=Vlan(tags=(number,))) for number in range(1, count + 1)))


LIMITED_ACTION = XDP_DROP


def _spread(i: int, factor: int, size: int) -> bytes:
    return (i * factor % (1 << 8 * size)).to_bytes(size, "little")


def _frame(vary: Vary) -> bytes:
    """An NS with the target that restore.c fills in left zero, and a checksum that says so."""
    target = _PREFIX + bytes(12)
    tags = bytes.fromhex("81000001") if vary is Vary.VLAN else b""
    frame = solicit(replace(SETTING, target=target, tags=tags))
    at = 14 + len(tags) + 40
    message = frame[at:]
    assert checksum(frame[at - 32 : at - 16], frame[at - 16 : at], message) == 0
    return frame


def _definitions(vary: Vary, count: int, length: int) -> dict[str, int]:
    return {"VARY": int(vary), "COUNT": count, "LENGTH": length}


# --- measuring --------------------------------------------------------------------------------------


def _timed(run: Callable[[int, bytes, int], Any], fd: int, frame: bytes, repeat: int) -> float:
    began = time.thread_time_ns()
    run(fd, frame, repeat)
    return (time.thread_time_ns() - began) / repeat


def _compare(run: Callable[[int], float], program: int, bare: int, rounds: int) -> Cost:
    """Take turns: bare, program, bare, program, ..., bare; each program's cost is over the mean of its neighbours."""
    run(program)
    before = run(bare)
    found = Cost([before], [])
    for _ in range(rounds):
        taken = run(program)
        after = run(bare)
        found.over.append(taken - (before + after) / 2)
        found.bare.append(after)
        before = after
    return found
