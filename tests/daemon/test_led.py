# SPDX-License-Identifier: GPL-2.0-or-later
"""Host routes of thousands of hosts: what there is to be is found in bits, and the kernel is told in slices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.steps import finish
from npd6_xdp.daemon.host_routes import HostRoutes
from tests.core.test_steps import timed

MANY = 5_000
LAN, DMZ = 8, 9
HOSTS = {Host(LAN, number.to_bytes(16)) for number in range(MANY)}
FIRST, LAST = Host(LAN, bytes(16)), Host(LAN, (MANY - 1).to_bytes(16))


class Kernel:
    """Its routes, by host; `asked` has those that it was asked to add or to delete."""

    port = 1

    def __init__(self) -> None:
        self.routes: dict[Host, int] = {}
        self.asked: list[Host] = []

    def host_routes(self) -> dict[Host, int]:
        return {}

    def add_host_route(self, host: Host, table: int) -> int:
        self.asked.append(host)
        self.routes[host] = table
        return 0

    def delete_host_route(self, host: Host, _table: int) -> int:
        self.asked.append(host)
        del self.routes[host]
        return 0


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def routes(kernel: Kernel) -> Iterator[HostRoutes]:
    with closing(HostRoutes(kernel, None)) as routes:  # type: ignore[arg-type]
        yield routes


def settle(routes: HostRoutes) -> None:
    while routes.due is not None and routes.due <= time.monotonic():
        routes.tick(time.monotonic())


def test_what_comes_and_goes_while_it_is_found_which_routes_are_to_be_is_known_better(
    routes: HostRoutes, kernel: Kernel
) -> None:
    """With 65,536 hosts it was a turn of 60 ms."""
    there = set(HOSTS)
    steps = routes.keep_only(HOSTS, there.__contains__)
    next(steps)
    for host in (FIRST, LAST):  # of which one was gone over, maybe
        there.discard(host)
        routes.remove(host)
    _, bits = timed(steps)
    assert len(bits) >= MANY / 1000
    settle(routes)
    assert kernel.routes.keys() == there
    steps = routes.keep_only({FIRST}, {FIRST, LAST}.__contains__)
    next(steps)
    routes.add(LAST)
    finish(steps)
    settle(routes)
    assert kernel.routes.keys() == {FIRST, LAST}
    assert FIRST in routes
    assert LAST in routes


def test_a_link_that_another_vrf_gets_concerns_its_own_hosts_only(routes: HostRoutes, kernel: Kernel) -> None:
    other = Host(DMZ, FIRST.address)
    routes.use({DMZ: 7}, {}, needed=True)
    finish(routes.keep_only(HOSTS | {other}, lambda _: True))
    settle(routes)
    assert kernel.routes == dict.fromkeys(HOSTS, 254) | {other: 7}
    kernel.asked.clear()
    routes.use({DMZ: 9}, {}, needed=True)
    assert not routes.leads_to(Host(DMZ, LAST.address))
    settle(routes)
    assert kernel.asked == [other, other]
    assert kernel.routes[other] == 9
    assert len(routes) == MANY + 1


def test_the_routes_of_a_dead_predecessor_stay_until_it_is_known_which_of_them_are_to_be() -> None:
    """To find that out takes some turns with thousands of hosts, and all of them would lose their routes meanwhile."""
    kernel = Kernel()
    kernel.routes = dict.fromkeys(HOSTS, 254)
    kernel.host_routes = lambda: dict(kernel.routes)  # type: ignore[method-assign]
    with closing(HostRoutes(kernel, None)) as routes:  # type: ignore[arg-type]
        routes.use({}, {}, needed=False)
        steps = routes.keep_only(HOSTS - {FIRST}, lambda host: host != FIRST)
        for _ in steps:
            settle(routes)
        settle(routes)
        assert kernel.asked == [FIRST]


def test_of_two_hosts_of_one_address_whose_links_get_into_one_vrf_one_keeps_its_route(
    routes: HostRoutes, kernel: Kernel
) -> None:
    here, there = Host(LAN, FIRST.address), Host(DMZ, FIRST.address)
    routes.use({DMZ: 7}, {}, needed=True)
    finish(routes.keep_only({here, there}, lambda _: True))
    settle(routes)
    assert kernel.routes == {here: 254, there: 7}
    kernel.asked.clear()
    routes.use({}, {}, needed=True)
    finish(routes.keep_only({there}, there.__eq__))
    settle(routes)
    assert kernel.routes == {there: 254}
    assert kernel.asked[0] == here, "before the other is added: the kernel has one of them"
