# SPDX-License-Identifier: GPL-2.0-or-later
"""How much is measured: the whole benchmark, or the quick one that only shows that all of it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.chain import FAR
from tests.bench.program import Repeats
from tests.bench.results import Results


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes, seconds and repeats; rates are in solicitations a second."""

    repeats: int
    """How often each subject has its turn; figures are medians over these."""
    growth_program: Repeats
    """Of one load of a program, and of one point of the growth plots."""
    exact: tuple[int, ...]
    prefixes: tuple[int, ...]
    sources: tuple[int, ...]
    vlans: tuple[int, ...]
    """Sizes for the growth plots; the last of `exact` and of `prefixes` are row 3's."""
    window: float
    """Seconds of one offered rate."""
    flood: float
    """Seconds of a live-frame flood."""
    pairs: int
    """Windows of one thing and of the other, in turns, a repeat (rows 4, 6)."""
    bisections: int
    ladder: float
    """The factor between two offered rates."""
    latency_rounds: int
    latency_samples: int
    """A round's."""
    scan: float
    """Seconds of row 9."""
    starts: int
    """Of row 10, a repeat."""
    settle: float
    """Seconds after which memory is read the second time (row 11)."""
    calm: float
    """Seconds until what comes with the interfaces' appearing is over (row 13)."""
    settled: float
    """Seconds in which very many ports are looked at once, as the kernel lost announcements (row 13)."""
    idle: float
    """Seconds over which an idle daemon's processor time is taken (row 13)."""
    loads: int
    """How often the programs of rows 1, 2 and 14 to 16 are loaded: where one lies in memory makes up to 5 ns."""
    chain: int
    """Bytes of the array in which row 3 waits for memory."""
    tellings: int
    """How often metrics and status are asked for (row 17)."""
    end_prefixes: int
    """Prefixes that are loaded at an end (row 18)."""
    rules: int
    changed: int
    """Row 12."""
    interfaces: tuple[int, ...]
    vlan_entries: int
    """Row 13."""


FULL = Plan(
    repeats=3,
    growth_program=Repeats(15, 100_000),
    exact=(1, 100, 1_000, 10_000, 100_000, 1_000_000),
    prefixes=(1, 10, 100, 1_000, 10_000, 100_000),
    sources=(1, 100, 1_000, 10_000, 100_000),
    vlans=(1, 100, 1_000, 4_000),
    window=2.0,
    flood=2.0,
    pairs=5,
    bisections=4,
    ladder=1.5,
    latency_rounds=5,
    latency_samples=1_000,
    scan=10.0,
    starts=3,
    settle=10.0,
    calm=2.0,
    settled=15.0,
    idle=20.0,
    loads=7,
    chain=FAR,
    tellings=5,
    end_prefixes=1_000_000,
    rules=100_000,
    changed=1_000,
    interfaces=(10, 400, 4_000),
    vlan_entries=4_000,
)

QUICK = Plan(
    repeats=1,
    growth_program=Repeats(3, 20_000),
    exact=(10_000,),
    prefixes=(2_000,),
    sources=(),
    vlans=(),
    window=0.2,
    flood=0.25,
    pairs=1,
    bisections=1,
    ladder=2.0,
    latency_rounds=1,
    latency_samples=100,
    scan=0.5,
    starts=1,
    settle=0.2,
    calm=0.5,
    settled=0.0,
    idle=0.5,
    loads=1,
    chain=1 << 24,
    tellings=1,
    end_prefixes=20_000,
    rules=2_000,
    changed=100,
    interfaces=(2, 10),
    vlan_entries=20,
)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the benchmark, as each row sees it: what to do, where to put what it found, whom to tell."""

    plan: Plan
    quick: bool
    wanted: frozenset[int]
    results: Results
    say: Callable[[str], None]
