# SPDX-License-Identifier: GPL-2.0-or-later
"""One loaded program for the whole room: compiling and loading it takes half a second."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.datapath.harness import Bench, entry, table


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """This thread stays on one CPU, so that one ring gets all events."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    yield
    os.sched_setaffinity(0, cpus)


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """The program; each test gives it the table that it wants."""
    if os.geteuid() != 0:
        pytest.skip("loading an XDP program needs root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_DIRECTORY", os.devnull)  # compiled, for those who look at what was
        bench = Bench(table(entry()))
    yield bench
    bench.close()
