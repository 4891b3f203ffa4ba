# SPDX-License-Identifier: GPL-2.0-or-later
"""One loaded program for the whole room: compiling and loading it takes half a second."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from npd6_xdp.core.table import PresentFlag, Table
from tests.datapath.harness import Bench, Hook, entry, table
from tests.datapath.present import TARGET


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """This thread stays on one CPU, so that one ring gets all events."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    yield
    os.sched_setaffinity(0, cpus)


@pytest.fixture(scope="session")
def program() -> Iterator[Bench]:
    """The program, whose two functions have one set of maps."""
    if os.geteuid() != 0:
        pytest.skip("loading an XDP program needs root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_DIRECTORY", os.devnull)  # compiled, for those who look at what was
        bench = Bench(table(entry()))
    yield bench
    bench.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Where a room's frames go in by more than XDP, it names the HOOKS."""
    hooks = getattr(metafunc.module, "HOOKS", ())
    if hooks and "bench" in metafunc.fixturenames:
        metafunc.parametrize("bench", hooks, ids=[hook.value for hook in hooks], indirect=True)


@pytest.fixture
def bench(request: pytest.FixtureRequest, program: Bench) -> Iterator[Bench]:
    """The program; each test gives it the table that it wants. Frames go in by XDP, where a test doesn't say more."""
    program.hook = getattr(request, "param", Hook.XDP)
    yield program
    program.hook = Hook.XDP


@pytest.fixture
def knows(bench: Bench) -> Iterator[Callable[[Table, PresentFlag | None], int]]:
    """Have the program decide by a table, and know the target with these flags, or not; gives the rule's via set."""
    via_sets: list[int] = []

    def use(using: Table, flags: PresentFlag | None) -> int:
        bench.use(using)
        via_set = using.rules[0].via_set
        via_sets.append(via_set)
        bench.ns_filter.forget(via_set, TARGET)
        if flags is not None:
            bench.ns_filter.set_present(via_set, TARGET, flags)
        return via_set

    yield use
    for via_set in via_sets:
        bench.ns_filter.forget(via_set, TARGET)


@pytest.fixture
def fresh() -> Iterator[Callable[..., Bench]]:
    """Makes programs that are closed when the test is over."""
    if os.geteuid() != 0:
        pytest.skip("loading an XDP program needs root")
    made: list[Bench] = []

    def make(using: Table, **keys: Any) -> Bench:
        made.append(Bench(using, **keys))
        return made[-1]

    yield make
    for bench in made:
        bench.close()
