# SPDX-License-Identifier: GPL-2.0-or-later
"""What memory costs on this machine, by a chain of look-ups in BPF, and what that means for large tables (row 3)."""

from __future__ import annotations

from contextlib import closing

from npd6_xdp.system.bpf.testrun import XDP_TX
from tests.bench import program
from tests.bench.chain import FAR, Chain
from tests.bench.plan import Run
from tests.bench.profile.page import Section
from tests.bench.program import Harness, Repeats, Vary, bare_program, loaded

_SIZES = (*(1 << bits for bits in (13, 18, 21, 23, 24, 25, 26)), FAR)  # bytes: 8 KiB to 256 MiB
_EXACT = 1_000_000
_HOT_COUNT = 1024
_ROW_2 = "an answer, one prefix loaded (row 2)"
_HOT = f"an answer, {_EXACT:,} addresses loaded, {_HOT_COUNT:,} of them asked for at random"
_ALL = f"an answer, {_EXACT:,} addresses loaded, all of them asked for at random"
_REPEATS = Repeats(15, 100_000)


def sections(run: Run) -> list[Section]:
    rows, raw = [], {}
    for size in _SIZES:
        with Chain(size) as chain:
            nanoseconds = chain.look_up()
        name = f"{size >> 10} KiB" if size < 1 << 20 else f"{size >> 20} MiB"
        rows.append((f"a look-up that waits for the one before, array of {name}", f"{nanoseconds:.1f} ns"))
        raw[name] = nanoseconds
        run.say(f"memory: {name}: {nanoseconds:.1f} ns")
    for name, cost in _row_3().items():
        rows.append((name, f"{cost:.0f} ns"))
        raw[name] = cost
        run.say(f"memory: {name}: {cost:.1f} ns")
    return [Section("Memory", ("what", "takes"), rows, _notes(raw), raw)]


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
    waits = (raw[_ALL] - raw[_HOT]) / raw[f"{FAR >> 20} MiB"]
    return [
        f"among all at random, {waits:.1f} waits for memory more than among {_HOT_COUNT:,}: for a bucket of the hash"
        " table, and for the element that it leads to",
        f"against row 2: {raw[_HOT] / raw[_ROW_2]:.2f} and {raw[_ALL] / raw[_ROW_2]:.2f} times",
    ]
