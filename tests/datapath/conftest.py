# SPDX-License-Identifier: GPL-2.0-or-later
"""One loaded program for the whole room: compiling and loading it takes half a second."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.datapath.harness import Bench, entry, table


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """The program; each test gives it the table that it wants."""
    if os.geteuid() != 0:
        pytest.skip("loading an XDP program needs root")
    bench = Bench(table(entry()))
    yield bench
    bench.close()
