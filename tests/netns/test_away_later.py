# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that is away while one daemon follows another, or while the entry stands by: its route, and its return."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.netns.away import INTERVAL, MOST_LOST, ROUTE, Pings, host
from tests.netns.handovers import CONTROL, kill, restart
from tests.netns.service import UnderSystemd
from tests.netns.test_away import TRIES, believing
from tests.netns.test_handover import unchanging_so
from tests.netns.test_host_routes import SAME_64, SHARED, kernels, shown
from tests.netns.test_places import is_there
from tests.netns.test_roles import ADDRESS, gets
from tests.netns.wire import configuration, on_edge, until

pytestmark = pytest.mark.needs_table

Start = Callable[..., RunningDaemon]
__all__ = ["believing"]


def keeping(seconds: int) -> str:
    return f"{CONTROL}[limits]\nhost_route_keep = {seconds}\n{configuration(SAME_64)}"


def is_known(service: UnderSystemd) -> bool:
    return any(each["address"] == SHARED for each in service.status()["neighbours"])


def comes_back(topology: Topology, pings: Pings) -> float:
    """For how long the upstream's pings are lost once the host is back."""
    heard, back = len(pings.answered), time.monotonic()
    host(topology, "add")
    assert until(lambda: len(pings.answered) > heard)
    return time.monotonic() - back


def test_a_host_that_is_away_over_a_restart_and_a_crash_is_reached_within_two_seconds_of_its_return(
    believing: Topology,
) -> None:
    """The upstream doesn't ask."""
    topology = believing
    host(topology, "add")
    with UnderSystemd(topology, keeping(120)) as service:
        pings = Pings(topology)
        assert until(lambda: len(pings.answered) > 2)
        assert kernels(topology) == [ROUTE]
        lost: list[float] = []
        while len(lost) < TRIES and min(lost, default=99.0) > MOST_LOST:
            host(topology, "del")
            assert until(lambda: not is_known(service))
            with unchanging_so(lambda: kernels(topology), [ROUTE]):
                for how in (restart, kill):
                    how(service)
                    assert not is_known(service)
            assert [each["address"] for each in service.status()["host_routes"]] == [SHARED]
            asked = sum(service.status()["interfaces"][0]["solicitations"].values())
            lost.append(comes_back(topology, pings))
            assert sum(service.status()["interfaces"][0]["solicitations"].values()) == asked, "nobody has asked for it"
            assert until(lambda: is_known(service))
        print(f"reached after {', '.join(f'{each:.2f}' for each in lost)} s")
        assert min(lost) <= MOST_LOST
        # and one that goes only now, of which the successor has heard nothing but that it is in the kernel's table
        restart(service)
        host(topology, "del")
        assert until(lambda: not is_known(service))
        assert kernels(topology) == [ROUTE]
        assert service.stop() == 0
        assert kernels(topology) == []


def test_its_time_begins_anew_with_the_successor_and_ends(believing: Topology) -> None:
    topology = believing
    with UnderSystemd(topology, keeping(120)) as service:
        for how in (restart, kill):
            service.configure(keeping(120))  # the one that ends lets go of nothing by itself, however late we are
            assert service.reload().returncode == 0
            on_edge(topology, f"neigh replace {SHARED} lladdr 02:00:00:00:09:09 nud permanent dev lan0")
            assert until(lambda: kernels(topology) == [ROUTE])
            on_edge(topology, f"neigh del {SHARED} dev lan0")
            assert until(lambda: not is_known(service))
            time.sleep(0.5)
            service.configure(keeping(4))
            began = time.monotonic()
            how(service)
            assert until(lambda: kernels(topology) == [])
            assert time.monotonic() - began >= 4.0


def test_an_entry_that_stands_by_while_a_host_is_away_leads_to_it_again_when_it_is_active(
    believing: Topology,
    daemon: Start,
) -> None:
    topology = believing
    on_edge(topology, f"address add {ADDRESS}/32 dev lo")
    host(topology, "add")
    running = daemon(configuration(SAME_64, active_with=f'"{ADDRESS}"'))
    pings = Pings(topology)
    assert until(lambda: len(pings.answered) > 2)
    lost: list[float] = []
    while len(lost) < TRIES and min(lost, default=99.0) > MOST_LOST:
        host(topology, "del")
        assert until(lambda: not is_there(running, SHARED))
        assert kernels(topology) == shown(running) == [ROUTE]
        on_edge(topology, f"address del {ADDRESS}/32 dev lo")
        assert gets(running, 0)
        assert until(lambda: kernels(topology) == shown(running) == [])
        on_edge(topology, f"address add {ADDRESS}/32 dev lo")
        assert gets(running, 1)
        assert until(lambda: kernels(topology) == shown(running) == [ROUTE])
        asked = running.solicitations()
        lost.append(comes_back(topology, pings))
        assert running.solicitations() == asked, "the upstream hasn't asked for it"
    print(f"reached after {', '.join(f'{each:.2f}' for each in lost)} s")
    assert min(lost) <= MOST_LOST
    # and killed while it stands by, or before: its successor has nothing that leads there, until it is active
    host(topology, "del")
    assert until(lambda: not is_there(running, SHARED))
    running.process.send_signal(signal.SIGSTOP)
    on_edge(topology, f"address del {ADDRESS}/32 dev lo")
    running.kill()
    assert kernels(topology) == [ROUTE]
    again = daemon(configuration(SAME_64, active_with=f'"{ADDRESS}"'))
    assert until(lambda: kernels(topology) == shown(again) == [])
    on_edge(topology, f"address add {ADDRESS}/32 dev lo")
    assert until(lambda: kernels(topology) == shown(again) == [ROUTE])
    assert comes_back(topology, pings) > INTERVAL / 10
