# SPDX-License-Identifier: GPL-2.0-or-later
"""The ground of the namespace tests: a topology of their own, and real daemons on its edge."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.netns.browser import Page, browser
from tests.netns.warm import nursery, warm


@pytest.fixture
def uncollected() -> None:
    """What the tests before have left is no business of the garbage collector's here; the daemon freezes its own."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def daemon(request: pytest.FixtureRequest, topology: Topology) -> Iterator[Callable[..., RunningDaemon]]:
    """Start a daemon on the edge: daemon(config_text, **what RunningDaemon takes). All end with the test.

    They are forked (tests/netns/warm.py), but for those with a program or environment of their own, or where the test
    is marked `exec`. What they logged is printed, so pytest shows it when the test fails.
    """
    kind = RunningDaemon if request.node.get_closest_marker("exec") else warm
    running: list[RunningDaemon] = []
    with ExitStack() as stack:

        def start(config: str, **options: Any) -> RunningDaemon:
            daemon = kind(topology, config, **options)
            running.append(daemon)
            return stack.enter_context(daemon)

        yield start
    for daemon in running:
        print(f"--- {daemon.process.args!r}\n{daemon.log}")


@pytest.fixture
def page(topology: Topology, tmp_path: Path) -> Iterator[Page]:
    """A browser on the edge, for the status page."""
    nursery()  # now, or it would begin in the edge, and end with that
    with browser(topology, tmp_path) as page:
        yield page
