# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that is away and comes back without a word: its route is there, and so the kernel finds it by itself.

NPD6_AWAY is for how many seconds it is away at the least; without it, for as long as the edge takes to notice.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.netns.test_host_routes import SAME_64, SHARED, kernels, shown
from tests.netns.test_places import is_there
from tests.netns.wire import Wire, configuration, on_edge, question, until

pytestmark = pytest.mark.needs_table

Start = Callable[..., RunningDaemon]

AWAY = float(os.environ.get("NPD6_AWAY", "0"))
INTERVAL = 0.1  # seconds between two pings
MOST_LOST = 2.0  # seconds
TRIES = 5  # on a machine that does other things beside, it may take longer, but not each time
ROUTE = f"{SHARED} lan0"


class Pings:
    """The upstream's pings of the host, one after the other until the test is over."""

    def __init__(self, topology: Topology) -> None:
        self._said = topology.directory / "pings"
        words = ("ping", "-6", "-n", "-i", str(INTERVAL), "-W", "1", SHARED)
        with self._said.open("w") as output:
            topology.popen("upstream", *words, stdout=output)

    @property
    def answered(self) -> list[int]:
        """The numbers of those that were, in order."""
        return [int(found) for found in re.findall(r"icmp_seq=(\d+) ttl", self._said.read_text())]


@pytest.fixture
def believing(topology: Topology) -> Topology:
    """The upstream believes what it knows for minutes, and doesn't ask; the edge notices within seconds that a host has
    gone. Retransmissions are as ever: a second apart.
    """
    topology.sysctl("upstream", "net/ipv6/neigh/eth0/base_reachable_time_ms", 1_000_000)
    for name, value in (("base_reachable_time_ms", 1000), ("delay_first_probe_time", 1), ("ucast_solicit", 1)):
        topology.sysctl("edge", f"net/ipv6/neigh/lan0/{name}", value)
    return topology


def host(topology: Topology, verb: str) -> None:
    """The host has the address, or hasn't; it says nothing of that."""
    words = ("nodad",) if verb == "add" else ()
    topology.run("host", "ip", "addr", verb, f"{SHARED}/128", "dev", "eth0", *words, check=True)


def test_a_silent_host_is_reached_within_two_seconds_of_its_return_by_an_upstream_that_does_not_ask(
    believing: Topology, daemon: Start
) -> None:
    topology = believing
    host(topology, "add")
    running = daemon(configuration(SAME_64))
    pings = Pings(topology)
    assert until(lambda: len(pings.answered) > 2)
    assert kernels(topology) == shown(running) == [ROUTE]

    lost: list[float] = []
    while len(lost) < TRIES and min(lost, default=99.0) > MOST_LOST:
        host(topology, "del")
        left = time.monotonic()
        assert until(lambda: not is_there(running, SHARED))
        asked = running.solicitations()
        time.sleep(max(left + AWAY - time.monotonic(), 0))
        assert kernels(topology) == shown(running) == [ROUTE]
        heard = len(pings.answered)
        host(topology, "add")
        back = time.monotonic()
        assert until(lambda heard=heard: len(pings.answered) > heard)  # type: ignore[misc]
        lost.append(time.monotonic() - back)
        assert running.solicitations() == asked, "the upstream hasn't asked for it"
        assert until(lambda: is_there(running, SHARED))
    print(f"away for {back - left:.1f} s, and reached after {', '.join(f'{each:.2f}' for each in lost)} s")
    assert min(lost) <= MOST_LOST

    # the route is all that is kept: nobody is answered for the host while it is away
    host(topology, "del")
    assert until(lambda: not is_there(running, SHARED))
    with Wire(topology) as wire:
        assert wire.ask(question(SHARED), 0.3) is None
    assert kernels(topology) == [ROUTE]
    running.write("[limits]\nhost_route_keep = 0\n" + configuration(SAME_64))
    assert running.command("reload").returncode == 0
    assert until(lambda: kernels(topology) == shown(running) == [])


def test_a_route_is_kept_for_so_long_and_not_behind_a_link_that_is_taken_down(
    believing: Topology, daemon: Start
) -> None:
    topology = believing
    running = daemon("[limits]\nhost_route_keep = 3\n" + configuration(SAME_64))
    lladdr = "lladdr 02:00:00:00:09:09"
    on_edge(topology, f"neigh replace {SHARED} {lladdr} nud permanent dev lan0")
    assert until(lambda: kernels(topology) == [ROUTE])
    on_edge(topology, f"neigh del {SHARED} dev lan0")
    gone = time.monotonic()
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
