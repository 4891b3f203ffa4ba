# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that is away and comes back without a word: its route is there, and so the kernel finds it by itself.

`python -m tests.netns.away` has it away for a minute.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.netns.away import MOST_LOST, ROUTE, Pings, have_believed, host, lost
from tests.netns.test_host_routes import SAME_64, SHARED, kernels, shown
from tests.netns.test_places import is_there
from tests.netns.verb import verb
from tests.netns.wire import Wire, configuration, on_edge, question, until

pytestmark = pytest.mark.needs_table

Start = Callable[..., RunningDaemon]

TRIES = 5  # on a machine that does other things beside, it may take longer, but not each time


@pytest.fixture
def believing(topology: Topology) -> Topology:
    """The upstream doesn't ask."""
    have_believed(topology)
    return topology


def test_a_silent_host_is_reached_within_two_seconds_of_its_return_by_an_upstream_that_does_not_ask(
    believing: Topology, daemon: Start
) -> None:
    topology = believing
    host(topology, "add")
    running = daemon(configuration(SAME_64))
    pings = Pings(topology)
    assert until(lambda: len(pings.answered) > 2)
    assert kernels(topology) == shown(running) == [ROUTE]

    assert any(lost(topology, running, pings, away=0.0) <= MOST_LOST for _ in range(TRIES))

    # the route is all that is kept: nobody is answered for the host while it is away
    host(topology, "del")
    assert until(lambda: not is_there(running, SHARED))
    with Wire(topology) as wire:
        assert wire.ask(question(SHARED), 0.3) is None
    assert kernels(topology) == [ROUTE]
    running.write("[limits]\nhost_route_keep = 0\n" + configuration(SAME_64))
    assert verb(running, "reload").returncode == 0
    assert until(lambda: kernels(topology) == shown(running) == [])


def test_a_route_is_kept_for_so_long_and_not_behind_a_link_that_is_taken_down(
    believing: Topology, daemon: Start
) -> None:
    topology = believing
    running = daemon("[limits]\nhost_route_keep = 3\n" + configuration(SAME_64))
    lladdr = "lladdr 02:00:00:00:09:09"
    on_edge(topology, f"neigh replace {SHARED} {lladdr} nud permanent dev lan0")
    assert until(lambda: kernels(topology) == [ROUTE])
    gone = time.monotonic()
    on_edge(topology, f"neigh del {SHARED} dev lan0")
    assert until(lambda: not is_there(running, SHARED))
    assert until(lambda: kernels(topology) == [])
    assert time.monotonic() - gone >= 3.0
    on_edge(topology, f"neigh replace {SHARED} {lladdr} nud permanent dev lan0")
    assert until(lambda: kernels(topology) == [ROUTE])
    on_edge(topology, "link set lan0 down")
    assert until(lambda: not is_there(running, SHARED))
    assert kernels(topology) == []
    on_edge(topology, "link set lan0 up")
    assert until(lambda: "lan0" not in str(kernels(topology)))
    assert running.stop() == 0
    assert kernels(topology) == []
