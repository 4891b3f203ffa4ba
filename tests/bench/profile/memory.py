# SPDX-License-Identifier: GPL-2.0-or-later
"""What memory costs on this machine, by a pointer chase in BPF, and what that means for large tables (row 3)."""

from __future__ import annotations

import struct
import time
from contextlib import closing

from npd6_xdp.system.bpf.testrun import XDP_TX, TestRun
from tests.bench import program
from tests.bench.bpf import SmallProgram
from tests.bench.plan import Run
from tests.bench.profile.page import Section
from tests.bench.program import Harness, Repeats, Vary, bare_program, loaded
from tests.bench.results import middle

_STATE = struct.Struct("=II")
_SIZES = tuple(1 << bits for bits in (3, 8, 11, 13, 14, 15, 16, 18))  # KiB: 8 KiB to 256 MiB
_ELEMENT = 8
_FILL, _STEPS = 256, 1000  # of chase.c
_ROUNDS, _RUNS = 7, 200
_FRAME = bytes(64)
_EXACT = 1_000_000
_HOT_COUNT = 1024
_ROW_2 = "an answer, one prefix loaded (row 2)"
_HOT = f"an answer, {_EXACT:,} addresses loaded, {_HOT_COUNT:,} of them asked for at random"
_ALL = f"an answer, {_EXACT:,} addresses loaded, all of them asked for at random"
_REPEATS = Repeats(15, 100_000)


def sections(run: Run) -> list[Section]:
    rows, raw = [], {}
    for size in _SIZES:
        nanoseconds = chase(size * 1024 // _ELEMENT)
        name = f"{size} KiB" if size < 1024 else f"{size // 1024} MiB"
        rows.append((f"a look-up that waits for the one before, array of {name}", f"{nanoseconds:.1f} ns"))
        raw[name] = nanoseconds
        run.say(f"memory: {name}: {nanoseconds:.1f} ns")
    for name, cost in _row_3().items():
        rows.append((name, f"{cost:.0f} ns"))
        raw[name] = cost
        run.say(f"memory: {name}: {cost:.1f} ns")
    return [Section("Memory", ("what", "takes"), rows, _notes(raw), raw)]


def chase(count: int) -> float:
    """Nanoseconds of a look-up among so many elements of 8 bytes, each of which has to wait for the one before."""
    runs, taken = TestRun(), []
    with SmallProgram("profile/chase.c", "chase", COUNT=count) as chain:
        chain.put("state_space", _STATE.pack(0, 1))
        runs.run(chain.fd, _FRAME, count // _FILL)
        chain.put("state_space", _STATE.pack(0, 0))
        runs.run(chain.fd, _FRAME, min(_RUNS, max(1, count // _STEPS)))
        for _ in range(_ROUNDS):
            began = time.thread_time_ns()
            runs.run(chain.fd, _FRAME, _RUNS)
            taken.append((time.thread_time_ns() - began) / (_RUNS * _STEPS))
    return middle(taken)


def _row_3() -> dict[str, float]:
    """An answer, by how many of the loaded addresses are asked for."""
    base = program.cost_of_answers(program.one_prefix(), Vary.FIXED, 1, _REPEATS)
    found = {_ROW_2: base.median}
    with loaded(program.exact_addresses(_EXACT)) as bench, bare_program() as bare:
        for name, count in {_HOT: _HOT_COUNT, _ALL: _EXACT}.items():
            with closing(Harness(Vary.EXACT, count)) as harness:
                found[name] = harness.cost(bench.ns_filter.program.fd, bare, XDP_TX, _REPEATS).median
    return found


def _notes(raw: dict[str, float]) -> list[str]:
    waits = (raw[_ALL] - raw[_HOT]) / raw[f"{_SIZES[-1] // 1024} MiB"]
    return [
        f"among all at random, {waits:.1f} waits for memory more than among {_HOT_COUNT:,}: for a bucket of the hash"
        " table, and for the element that it leads to",
        f"against row 2: {raw[_HOT] / raw[_ROW_2]:.2f} and {raw[_ALL] / raw[_ROW_2]:.2f} times",
    ]
