# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes of hosts that are away: for how long they are kept, and what ends that before (limits.host_route_keep)."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.neighbour_messages import NeighbourState, Word
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.route_messages import HOST_ROUTE_METRIC, TABLE_MAIN, RouteEntry
from npd6_xdp.core.rtnetlink import PROTOCOL
from npd6_xdp.daemon.in_force import InForce
from npd6_xdp.daemon.resolution import Resolution
from npd6_xdp.system.netlink.host_routes import RouteChange
from tests.core.tables import own
from tests.daemon.forces import go_by
from tests.daemon.test_refusals import NsFilter, Tired
from tests.frames import ip6

WAN, LAN, DMZ = 7, 8, 9
LINKS = {
    name: LinkFacts(name, number, bytes((2, 0, 0, 0, 0, number)), l3={(): number})
    for name, number in (("wan0", WAN), ("lan0", LAN), ("dmz0", DMZ), ("wan1", 10))
}
RULE = 'prefix = "2001:db8:1::/64"\nmethod = "neighbour"\nvia = ["lan0", "dmz0"]'
LED = f"{RULE}\nhost_routes = true"
THERE, GONE = Word(NeighbourState.REACHABLE, bytes((2, 0, 0, 0, 0, 0x99))), Word(NeighbourState.FAILED)


def at(number: int, link: int = LAN) -> Host:
    return Host(link, ip6(f"2001:db8:1::{number:x}"))


HOST = at(1)
ROLE = "192.0.2.1"


class Kernel(Tired):
    """Its routes, by host, and how often it was asked for another."""

    def __init__(self) -> None:
        super().__init__()
        self.rests = True
        self.routes: dict[Host, int] = {}
        self.asked = 0
        self.refusal = 0

    def neighbours(self) -> dict[Host, Word]:
        return {}

    def host_routes(self) -> dict[Host, int]:
        return dict(self.routes)

    def add_host_route(self, host: Host, table: int) -> int:
        self.asked += 1
        if self.refusal:
            return self.refusal
        self.routes[host] = table
        return 0

    def delete_host_route(self, host: Host, table: int) -> int:
        self.asked += 1
        assert self.routes.pop(host) == table
        return 0


class Map(NsFilter):
    """The addresses that the program answers for."""

    def __init__(self) -> None:
        super().__init__()
        self.present: set[bytes] = set()

    def set_present(self, _via_set: int, address: bytes, _flags: int) -> None:
        self.present.add(address)

    def forget(self, _via_set: int, address: bytes) -> None:
        self.present.discard(address)


class Edge:
    """The rooms of method neighbour, and the kernel that they tell."""

    def __init__(self, kernel: Kernel, resolution: Resolution, answered: set[bytes]) -> None:
        self.kernel = kernel
        self.answered = answered
        self.resolution = resolution
        self.before: InForce | None = None

    def use(
        self, rule: str = LED, links: dict[str, LinkFacts] = LINKS, *, active: bool | None = None, **limits: int
    ) -> None:
        """Go by a rule; `active` is the entry's role, None where it has none."""
        lines = [f"{key} = {value}" for key, value in limits.items()]
        role = "" if active is None else f'active_with = "{ROLE}"'
        text = "\n".join(["[limits]", *lines, '[[interface]]\nname = "wan0"', role, "[[interface.rule]]", rule])
        config = parse(text, "test")
        held = frozenset({ROLE} if active else ())
        table = build(config, links, self.before.table if self.before else None, held=held)
        before, self.before = self.before, InForce(config, config, links, table, held=held)
        go_by(self.resolution, self.before, *([before] if before else []))
        self.tick()

    def says(self, word: Word, *hosts: Host) -> None:
        """The kernel says so of hosts."""
        for host in hosts:
            self.resolution._hosts._on_word(host, word)

    def tick(self, later: float = 0.0) -> None:
        """What is due is done, as if it were so many seconds later."""
        for _ in range(99):
            self.resolution.tick(time.monotonic() + later)

    @property
    def routes(self) -> set[Host]:
        return set(self.kernel.routes)


def goes_down(edge: Edge, *hosts: Host) -> None:
    """The kernel removes the routes of hosts by itself, and announces it."""
    for host in hosts:
        del edge.kernel.routes[host]
        route = RouteEntry(host.address, 128, host.ifindex, PROTOCOL, (), TABLE_MAIN, HOST_ROUTE_METRIC)
        edge.resolution.routes._take(RouteChange(route, gone=True, replaced=False, sender=0))
    edge.resolution.routes._schedule()


@pytest.fixture
def edge() -> Iterator[Edge]:
    kernel, ns_filter = Kernel(), Map()
    with closing(Resolution(ns_filter, kernel, lambda _: None)) as resolution:  # type: ignore[arg-type]
        yield Edge(kernel, resolution, ns_filter.present)
    assert not kernel.routes, "at a clean end all are taken back"


def test_the_route_of_a_host_that_is_away_stays_and_the_host_is_not_answered_for_until_it_is_back(edge: Edge) -> None:
    edge.use()
    edge.says(THERE, HOST)
    assert (edge.routes, edge.answered) == ({HOST}, {HOST.address})
    asked = edge.kernel.asked
    for _ in range(3):  # each packet that the upstream sends has the kernel look for it anew
        edge.says(GONE, HOST)
        edge.tick(60.0)
        assert (edge.routes, edge.answered) == ({HOST}, set())
    edge.says(THERE, HOST)
    edge.tick(1000.0)
    assert (edge.routes, edge.answered) == ({HOST}, {HOST.address})
    assert edge.kernel.asked == asked, "nobody has touched the route"


def test_what_was_found_in_the_table_and_has_never_answered_is_not_kept(edge: Edge) -> None:
    """Anybody can have put it there while nobody watched."""
    edge.use()
    hosts = edge.resolution._hosts
    for states in hosts.places.beginning([[(HOST, Word(NeighbourState.STALE, THERE.mac))]], time.monotonic()):
        hosts._apply(states)
    assert edge.routes == {HOST}
    edge.says(GONE, HOST)
    assert edge.routes == set()
    edge.says(THERE, HOST)
    edge.says(Word(NeighbourState.STALE, THERE.mac), HOST)
    edge.says(GONE, HOST)
    assert edge.routes == {HOST}
    edge.use(RULE)
    assert not hosts.led._confirmed


@pytest.mark.parametrize("keep", [1, 120, 1000])
def test_it_goes_when_its_time_is_over(edge: Edge, keep: int) -> None:
    edge.use(host_route_keep=keep)
    edge.says(THERE, HOST, at(2))
    edge.says(GONE, HOST)
    edge.tick(keep - 0.9)
    assert edge.routes == {HOST, at(2)}
    due = edge.resolution.due
    assert due is not None
    assert due <= time.monotonic() + keep
    edge.tick(keep)
    assert edge.routes == {at(2)}
    edge.says(THERE, HOST)
    assert edge.routes == {HOST, at(2)}


def test_without_such_a_time_it_goes_with_the_host(edge: Edge) -> None:
    edge.use(host_route_keep=0)
    edge.says(THERE, HOST)
    edge.says(GONE, HOST)
    assert edge.routes == set()


def test_a_reload_changes_the_time_of_those_that_are_away(edge: Edge) -> None:
    edge.use(host_route_keep=5)
    edge.says(THERE, HOST)
    edge.says(GONE, HOST)
    edge.use(host_route_keep=1000)
    edge.tick(900.0)
    assert edge.routes == {HOST}
    edge.use(host_route_keep=0)
    assert edge.routes == set()


def test_it_goes_at_once_when_no_rule_wants_it_any_more(edge: Edge) -> None:
    for rule in (
        RULE,
        LED.replace("db8:1::", "db8:2::"),
        LED.replace('"lan0", ', ""),
        'prefix = "::/0"\nmethod = "static"',
    ):
        edge.use()
        edge.says(THERE, HOST)
        edge.says(GONE, HOST)
        edge.use()
        assert edge.routes == {HOST}
        edge.use(rule)
        assert edge.routes == set(), rule


def test_it_goes_at_once_when_this_machine_gets_its_address(edge: Edge) -> None:
    edge.use()
    edge.says(THERE, HOST, at(2))
    edge.says(GONE, HOST, at(2))
    wan = replace(LINKS["wan0"], addresses={(): own("2001:db8:1::1")})
    edge.use(links=LINKS | {"wan0": wan})
    assert edge.routes == {at(2)}


def test_those_that_are_there_come_first_and_of_the_others_who_has_been_away_for_longest_goes(edge: Edge) -> None:
    edge.use(neighbours=3)
    edge.says(THERE, at(1), at(2), at(3))
    edge.says(GONE, at(2), at(1), at(3))
    edge.tick()
    assert edge.routes == {at(1), at(2), at(3)}
    edge.says(THERE, at(4))
    edge.tick()
    assert edge.routes == {at(1), at(3), at(4)}
    edge.says(THERE, at(5), at(6))
    edge.tick()
    assert edge.routes == {at(4), at(5), at(6)}
    edge.says(GONE, at(5))
    edge.use(neighbours=2)
    edge.tick()
    assert edge.routes == {at(4), at(6)}


def test_a_lower_limit_takes_kept_ones_only(edge: Edge) -> None:
    edge.use()
    edge.says(THERE, *map(at, range(1, 9)))
    edge.says(GONE, *map(at, range(1, 5)))
    edge.use(neighbours=5)
    edge.tick()
    assert edge.routes == {at(number) for number in range(4, 9)}


def test_a_host_that_turns_up_behind_another_interface_has_its_route_there(edge: Edge) -> None:
    there = at(1, DMZ)
    edge.use()
    edge.says(THERE, HOST)
    edge.says(GONE, HOST)
    edge.says(Word(NeighbourState.STALE, THERE.mac), there)
    assert edge.routes == {HOST}, "anybody can say that it is somebody"
    edge.says(THERE, there)
    assert (edge.routes, edge.answered) == ({there}, {HOST.address})
    edge.tick(1000.0)
    edge.says(GONE, there)
    edge.says(THERE, HOST)
    assert edge.routes == {HOST}
    edge.tick(1000.0)
    assert edge.routes == {HOST}


def test_a_host_that_is_seen_on_the_upstreams_link_has_no_route_any_more(edge: Edge) -> None:
    edge.use()
    edge.says(THERE, HOST, at(2))
    edge.says(GONE, HOST)
    edge.says(THERE, at(1, WAN))
    assert edge.routes == {at(2)}
    edge.says(THERE, at(2, WAN))  # the other way round: it is there, and then it is gone from here
    edge.says(GONE, at(2))
    assert edge.routes == set()


def test_one_address_has_one_route_also_between_links_that_no_rule_connects(edge: Edge) -> None:
    one, other = LED.replace(', "dmz0"', ""), LED.replace('"lan0", ', "")
    edge.use(f'{one}\n[[interface]]\nname = "wan1"\n[[interface.rule]]\n{other}')
    edge.says(THERE, HOST)
    edge.says(GONE, HOST)
    edge.says(THERE, at(1, DMZ))
    assert edge.routes == {at(1, DMZ)}
    assert not edge.resolution._hosts.led._away
    edge.tick(1000.0)
    assert edge.routes == {at(1, DMZ)}


def test_what_another_proxy_has_answered_for_was_no_host(edge: Edge) -> None:
    edge.use()
    edge.says(THERE, HOST)
    hosts = edge.resolution._hosts
    hosts._apply(hosts.places.distrust({LAN: [THERE.mac]}, time.monotonic()))
    assert edge.routes == set()


def test_a_link_that_goes_down_takes_what_was_kept_behind_it_along(edge: Edge) -> None:
    edge.use()
    edge.says(THERE, HOST)
    edge.says(GONE, HOST)
    edge.kernel.refusal = errno.ENETDOWN
    del edge.kernel.routes[HOST]
    edge.resolution.routes._forget(HOST)  # as it is announced
    edge.resolution.routes._make_so(HOST)
    edge.resolution.routes._schedule()
    edge.tick()
    edge.tick(2.0)  # the look a second later
    assert HOST not in edge.resolution.routes
    edge.kernel.refusal = 0
    edge.tick(60.0)
    assert edge.routes == set()


def test_behind_a_link_that_goes_down_the_kept_ones_go_in_slices(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 65,536 of them nothing else was done for a second and a half."""
    monkeypatch.setattr("npd6_xdp.daemon.led_hosts.SLICE", 0.0)
    hosts = [at(number) for number in range(1, 6)]
    edge.use()
    edge.says(THERE, *hosts)
    edge.says(GONE, *hosts)
    edge.kernel.refusal = errno.ENETDOWN
    goes_down(edge, *hosts)
    edge.tick()
    now = time.monotonic() + 2.0
    left: list[int] = []
    while not left or left[-1]:
        edge.resolution.tick(now)
        left.append(len(edge.resolution._hosts.led._away))
        assert not left[-1] or edge.resolution.due == 0.0, "the rest is done at once, but other things in between"
    assert left == [5, 4, 3, 2, 1, 0]
    assert not any(host in edge.resolution.routes for host in hosts)


def test_a_host_that_comes_back_before_its_turn_keeps_its_route(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npd6_xdp.daemon.led_hosts.SLICE", 0.0)
    edge.use()
    edge.says(THERE, HOST, at(2))
    edge.says(GONE, HOST, at(2))
    edge.kernel.refusal = errno.ENETDOWN
    goes_down(edge, HOST, at(2))
    edge.tick()
    edge.resolution.tick(time.monotonic() + 2.0)
    edge.kernel.refusal = 0
    edge.says(THERE, HOST, at(2))
    edge.tick(20.0)
    assert edge.routes == {HOST, at(2)}


def test_a_link_that_goes_down_is_told_once_of_a_route_that_it_does_not_take(edge: Edge) -> None:
    hosts = [at(number) for number in range(1, 51)]
    there = at(98, DMZ)
    edge.use()
    edge.says(THERE, *hosts)
    asked = edge.kernel.asked
    edge.kernel.refusal = errno.ENETDOWN
    goes_down(edge, *hosts)
    assert edge.kernel.asked == asked + 1
    assert edge.routes == set()
    edge.kernel.refusal = 0
    edge.says(THERE, at(99), there)  # it is up again
    goes_down(edge, at(99))
    assert edge.routes == {at(99), there}, "what somebody else removes is put back at once"
    edge.tick(20.0)
    assert edge.routes == {*hosts, at(99), there}
