# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of routes by announcements and readings, against a table of routes that a test keeps itself."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.route_messages import RouteReply, RuleEntry
from npd6_xdp.core.routes import Reading, RouteQuestion, Routes, RoutingFlag, by_interface, flags_of_rules, is_behind
from npd6_xdp.core.rtnetlink import Flag, Message, Type

WAN, LAN = 3, 4
MAIN, LOCAL_TABLE = 254, 255
UNICAST, LOCAL, ANYCAST, BLACKHOLE, THROW = 1, 2, 4, 6, 9
KERNEL, STATIC = 2, 4
UNFOUND, SOURCE, NONE = RoutingFlag.UNFOUND, RoutingFlag.SOURCE, RoutingFlag(0)


class Given(NamedTuple):
    """A route of a test: `number` makes its prefix, `paths` are (ifindex, the gateway's last byte; 0: none)."""

    number: int
    paths: tuple[tuple[int, int], ...] = ((WAN, 1),)
    length: int = 48
    metric: int = 1024
    kind: int = UNICAST
    protocol: int = STATIC
    source_length: int = 0
    table: int = MAIN
    mtu: int = 0

    @property
    def key(self) -> tuple[int, ...]:
        return self.number if self.length else 0, self.length, self.source_length, self.metric, self.table

    def body(self) -> bytes:
        """As the kernel writes it (rt6_fill_node)."""
        found = struct.pack("=8BI", 10, self.length, self.source_length, 0, self.table, self.protocol, 0, self.kind, 0)
        found += attribute(15, struct.pack("=I", self.table))
        if self.length:
            found += attribute(1, b"\x3f\xff" + self.number.to_bytes(4) + bytes(10))
        if self.source_length:
            found += attribute(2, b"\x20\x01\x0d\xb8" + bytes(12))
        if self.mtu:
            found += attribute(8, attribute(2, struct.pack("=I", self.mtu)))
        found += attribute(6, struct.pack("=I", self.metric))
        if len(self.paths) == 1:
            ((ifindex, gateway),) = self.paths
            found += attribute(5, address(gateway)) if gateway else b""
            found += attribute(4, struct.pack("=i", ifindex))
        else:
            paths = b""
            for ifindex, gateway in self.paths:
                via = attribute(5, address(gateway)) if gateway else b""
                paths += struct.pack("=HBBi", 8 + len(via), 0, 0, ifindex) + via
            found += attribute(9, paths)
        return found + attribute(12, bytes(32)) + attribute(20, b"\0")


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value.ljust((len(value) + 3) & ~3, b"\0")


def address(number: int) -> bytes:
    return IPv6Address("fe80::").packed[:-1] + bytes([number])


def message(kind: int, body: bytes, sequence: int, flags: int = 2) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def new(route: Given, *, replace: bool = False) -> Message:
    return Message(Type.NEWROUTE, Flag.REPLACE if replace else 0, 0, route.body())


def gone(route: Given) -> Message:
    return Message(Type.DELROUTE, 0, 0, route.body())


def scan(routes: Routes, reading: Reading, given: Iterable[Given], *, flags: int = 2) -> None:
    for each in given:
        routes.scan(reading, message(Type.NEWROUTE, each.body(), 9, flags), 9)


def read(routes: Routes, given: Iterable[Given], *, flags: int = 2) -> None:
    """All of a table, in one piece, as far as a datagram goes."""
    reading = routes.begin()
    routes.scan(reading, b"".join(message(Type.NEWROUTE, each.body(), 9, flags) for each in given), 9)
    routes.scan(reading, message(Type.DONE, bytes(4), 9), 9)
    assert (reading.ended, reading.error) == (True, 0)
    routes.end(reading)


def watching(*ifindexes: int) -> Routes:
    routes = Routes()
    routes.watch(ifindexes or (WAN,))
    return routes


def gateways(routes: Routes) -> set[tuple[int, int]]:
    return {(ifindex, gateway[-1]) for ifindex, gateway in routes.gateways}


SAID: tuple[tuple[str, Given, set[tuple[int, int]], RoutingFlag], ...] = (
    ("a plain one", Given(1), {(WAN, 1)}, NONE),
    ("the default route", Given(1, length=0), {(WAN, 1)}, NONE),
    ("with an MTU of its own", Given(1, mtu=1400), {(WAN, 1)}, NONE),
    ("out of another interface", Given(1, ((LAN, 1),)), set(), NONE),
    ("on link", Given(1, ((WAN, 0),)), set(), NONE),
    ("by several paths", Given(1, ((WAN, 1), (LAN, 2), (WAN, 3), (WAN, 0))), {(WAN, 1), (WAN, 3)}, NONE),
    ("by source", Given(1, source_length=32), {(WAN, 1)}, SOURCE),
    ("a local address", Given(1, ((1, 0),), 128, 0, LOCAL, KERNEL, 0, LOCAL_TABLE), set(), NONE),
    ("an anycast address", Given(1, ((1, 0),), 128, 0, ANYCAST, KERNEL, 0, LOCAL_TABLE), set(), NONE),
    ("a local prefix", Given(1, ((1, 0),), 64, kind=LOCAL), set(), UNFOUND),
    ("a local prefix of the kernel's", Given(1, ((1, 0),), 64, 0, LOCAL, KERNEL, 0, LOCAL_TABLE), set(), UNFOUND),
    ("a local address that no interface holds", Given(1, ((1, 0),), 128, kind=LOCAL), set(), UNFOUND),
    ("an anycast prefix", Given(1, ((1, 0),), 64, kind=ANYCAST), set(), UNFOUND),
    ("throw", Given(1, ((1, 0),), kind=THROW, table=100), set(), UNFOUND),
    ("a blackhole", Given(1, ((1, 0),), kind=BLACKHOLE), set(), NONE),
)


@pytest.mark.parametrize(("what", "route", "wanted", "flags"), SAID, ids=[what for what, *_ in SAID])
def test_what_a_route_says_is_the_same_announced_and_read_and_ends_with_it(
    what: str, route: Given, wanted: set[tuple[int, int]], flags: RoutingFlag
) -> None:
    announced, told = watching(), watching()
    announced.take(new(route))
    read(told, [route])
    for routes in (announced, told):
        assert (gateways(routes), routes.flags, routes.doubted) == (wanted, flags, False)
        routes.take(gone(route))
        assert (gateways(routes), routes.flags, routes.doubted) == (set(), NONE, False)


def test_of_many_routes_that_say_the_same_most_go_unnoticed_and_the_last_witness_calls_for_a_reading() -> None:
    routes, given = watching(), [Given(number) for number in range(1000)]
    read(routes, given)
    assert routes.size == 1000
    left = list(given)
    for route in given[4:]:
        routes.take(gone(route))
        left.remove(route)
        assert (gateways(routes), routes.doubted) == ({(WAN, 1)}, False)
    for route in given[:4]:
        routes.take(gone(route))
        left.remove(route)
    assert (gateways(routes), routes.doubted) == ({(WAN, 1)}, True), "it is one until a reading tells"
    read(routes, left)
    assert (gateways(routes), routes.doubted) == (set(), False)


def test_a_route_in_anothers_place_says_what_it_says_and_what_that_one_said_is_doubted() -> None:
    routes = watching()
    read(routes, [Given(1)])
    routes.take(new(Given(1, ((WAN, 2),)), replace=True))
    assert (gateways(routes), routes.doubted) == ({(WAN, 1), (WAN, 2)}, True), "two routers may offer the same route"
    read(routes, [Given(1, ((WAN, 2),))])
    assert (gateways(routes), routes.doubted) == ({(WAN, 2)}, False)
    routes.take(new(Given(1, ((WAN, 2),)), replace=True))
    assert not routes.doubted, "the same again"
    routes.take(new(Given(2, ((LAN, 9),)), replace=True))
    assert not routes.doubted, "nobody's witness"


def test_one_path_of_several_that_goes_takes_the_others_not_along() -> None:
    routes = watching()
    read(routes, [Given(1, ((WAN, 1), (WAN, 2)))])
    routes.take(gone(Given(1, ((WAN, 1),))))
    assert (gateways(routes), routes.doubted) == ({(WAN, 2)}, True)


def test_what_is_announced_while_it_is_read_is_younger_than_what_is_read() -> None:
    routes = watching()
    read(routes, [Given(1), Given(2, ((WAN, 2),))])
    reading = routes.begin()
    routes.take(gone(Given(1)))
    routes.take(new(Given(3, ((WAN, 3),))))
    scan(routes, reading, [Given(1), Given(2, ((WAN, 2),))])  # told before
    assert gateways(routes) == {(WAN, 2), (WAN, 3)}
    routes.take(gone(Given(2, ((WAN, 2),))))
    routes.end(reading)
    assert (gateways(routes), routes.doubted) == ({(WAN, 3)}, False)


def test_a_witness_that_a_reading_misses_is_doubted_and_given_up_by_the_next_reading_only() -> None:
    routes = watching()
    read(routes, [Given(1), Given(2, ((WAN, 2),))])
    read(routes, [Given(2, ((WAN, 2),))])
    assert (gateways(routes), routes.doubted) == ({(WAN, 1), (WAN, 2)}, True)
    read(routes, [Given(2, ((WAN, 2),))])
    assert (gateways(routes), routes.doubted) == ({(WAN, 2)}, False)
    read(routes, [Given(2, ((WAN, 2),))])
    read(routes, [Given(1), Given(2, ((WAN, 2),))])
    read(routes, [Given(2, ((WAN, 2),))])
    assert gateways(routes) == {(WAN, 1), (WAN, 2)}, "missed once again, and not twice in a row"


def test_after_lost_announcements_all_holds_until_it_is_read_anew() -> None:
    routes = watching()
    read(routes, [Given(1), Given(2, ((1, 0),), 64, kind=LOCAL)])
    routes.lost_announcements()
    assert (gateways(routes), routes.flags, routes.doubted) == ({(WAN, 1)}, UNFOUND, True)
    routes.take(gone(Given(1)))
    assert gateways(routes) == {(WAN, 1)}
    read(routes, [Given(3, ((WAN, 3),))])
    assert (gateways(routes), routes.flags, routes.doubted) == ({(WAN, 3)}, NONE, False)


@pytest.mark.parametrize("why", ["interrupted", "refused", "announcements lost", "too much announced"])
def test_a_reading_that_is_not_whole_takes_nothing_away_and_is_repeated(why: str) -> None:
    routes = watching()
    read(routes, [Given(1)])
    routes.lost_announcements()
    reading = routes.begin()
    scan(routes, reading, [Given(2, ((WAN, 2),))], flags=2 | (Flag.DUMP_INTERRUPTED if why == "interrupted" else 0))
    if why == "announcements lost":
        routes.lost_announcements()
    for number in range(20_000 if why == "too much announced" else 0):
        routes.take(new(Given(number, ((LAN, 5),))))
    routes.scan(reading, message(Type.DONE, struct.pack("=i", -16 if why == "refused" else 0), 9), 9)
    assert reading.error == (16 if why == "refused" else 0)
    routes.end(reading)
    assert (gateways(routes), routes.doubted) == ({(WAN, 1), (WAN, 2)}, True)
    read(routes, [Given(2, ((WAN, 2),))])
    assert (gateways(routes), routes.doubted) == ({(WAN, 2)}, False)


def test_only_watched_interfaces_count_and_kinds_are_everybodys() -> None:
    given = [Given(1), Given(2, ((LAN, 2),)), Given(3, ((1, 0),), 64, kind=LOCAL)]
    routes = watching()
    read(routes, given)
    assert gateways(routes) == {(WAN, 1)}
    routes.watch({LAN})
    assert (gateways(routes), routes.flags) == (set(), UNFOUND)
    read(routes, given)
    assert gateways(routes) == {(LAN, 2)}
    routes.watch({WAN, LAN})
    read(routes, given)
    assert gateways(routes) == {(WAN, 1), (LAN, 2)}


def test_another_readings_messages_and_broken_ones_are_passed_over() -> None:
    routes = watching()
    reading = routes.begin()
    routes.scan(reading, message(Type.NEWROUTE, Given(1).body(), 8) + message(Type.DONE, bytes(4), 8), 9)
    assert (reading.count, reading.ended) == (0, False)
    whole = message(Type.NEWROUTE, Given(2).body(), 9)
    for cut in range(len(whole)):
        routes.scan(reading, whole[:cut], 9)
        assert reading.count == 0
    for length in range(12):
        routes.scan(reading, message(Type.NEWROUTE, bytes(length), 9), 9)
    routes.scan(reading, whole + message(Type.DONE, bytes(4), 9), 9)
    routes.end(reading)
    assert gateways(routes) == {(WAN, 1)}


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, Given]]:
    """Changes of a table, and readings in between."""
    path = st.tuples(st.sampled_from([WAN, LAN]), st.integers(0, 2))
    route = st.builds(
        Given,
        st.integers(0, 6),
        st.lists(path, min_size=1, max_size=3, unique=True).map(tuple),
        length=st.sampled_from([0, 48, 64]),
        metric=st.sampled_from([256, 1024]),
        kind=st.sampled_from([UNICAST, UNICAST, UNICAST, LOCAL, THROW, BLACKHOLE]),
        source_length=st.sampled_from([0, 0, 0, 32]),
        mtu=st.sampled_from([0, 0, 1400]),
        protocol=st.just(STATIC),
        table=st.just(MAIN),
    )
    verb = st.sampled_from(["add", "add", "add", "replace", "delete", "begin", "piece", "end", "watch"])
    return draw(st.lists(st.tuples(verb, route), max_size=40))


@given(histories())
def test_nothing_that_a_route_says_is_ever_missed_and_undoubted_means_exact(
    history: list[tuple[str, Given]],
) -> None:
    routes = watching(WAN, LAN)
    table: dict[tuple[int, ...], Given] = {}
    reading, left = None, list[Given]()
    for verb, route in history:
        if verb in ("add", "replace") and (verb == "replace" or route.key not in table):
            routes.take(new(route, replace=route.key in table))
            table[route.key] = route
        elif verb == "delete" and route.key in table:
            routes.take(gone(table.pop(route.key)))
        elif verb == "begin" and reading is None:
            reading, left = routes.begin(), list(table.values())
        elif verb == "piece" and reading is not None:
            scan(routes, reading, left[:3])
            left = left[3:]
        elif verb == "end" and reading is not None:
            scan(routes, reading, left)
            routes.end(reading)
            reading = None
        said = watching(WAN, LAN)
        for each in table.values():
            said.take(new(each))
        assert said.gateways <= routes.gateways
        assert routes.flags & said.flags == said.flags
        if not routes.doubted and reading is None:
            assert (routes.gateways, routes.flags) == (said.gateways, said.flags)
    for _ in range(2):
        read(routes, table.values())
    assert not routes.doubted


def test_rules_are_of_a_kind_where_they_go_by_the_source_or_pass_over_routes() -> None:
    plain, by_source, suppresses = RuleEntry(False, False), RuleEntry(True, False), RuleEntry(False, True)
    assert flags_of_rules([plain, None]) == NONE
    assert flags_of_rules([plain, by_source]) == SOURCE
    assert flags_of_rules([suppresses, plain]) == RoutingFlag.ALL
    assert flags_of_rules([suppresses, by_source]) == RoutingFlag.ALL | SOURCE


def test_gateways_are_told_apart_by_the_interface_that_they_are_behind() -> None:
    found = by_interface([(WAN, address(1)), (WAN, address(2)), (LAN, address(1))])
    first, second = IPv6Address("fe80::1"), IPv6Address("fe80::2")
    assert found == {WAN: frozenset({first, second}), LAN: frozenset({first})}


ANCHOR = 9
BEHIND: tuple[tuple[str, RouteReply, set[int] | None, bool, bool], ...] = (
    ("forwarded", RouteReply(UNICAST, LAN), None, True, True),
    ("forwarded by a via", RouteReply(UNICAST, LAN), {LAN}, True, True),
    ("forwarded, and not by a via", RouteReply(UNICAST, LAN), {8}, True, False),
    ("back to where it came from", RouteReply(UNICAST, WAN), None, True, False),
    ("into lo", RouteReply(UNICAST, 1), None, True, False),
    ("into a dummy", RouteReply(UNICAST, ANCHOR), None, True, False),
    ("into a dummy that is a via", RouteReply(UNICAST, ANCHOR), {ANCHOR}, True, False),
    ("without forwarding", RouteReply(UNICAST, LAN), None, False, False),
    ("delivered here", RouteReply(LOCAL, 1), None, True, True),
    ("delivered here without forwarding", RouteReply(LOCAL, 1), None, False, True),
    ("delivered on an anchor", RouteReply(LOCAL, ANCHOR), None, True, True),
    ("anycast", RouteReply(ANYCAST, 1), None, True, True),
    ("delivered here, and not behind a via", RouteReply(LOCAL, 1), {LAN}, True, False),
    ("delivered here, which is the via", RouteReply(LOCAL, 1), {1}, True, True),
    ("no route", RouteReply(0, 0), None, True, False),
    ("a blackhole", RouteReply(BLACKHOLE, 1), None, True, False),
)


@pytest.mark.parametrize(("what", "reply", "via", "forwarding", "wanted"), BEHIND, ids=[what for what, *_ in BEHIND])
def test_a_target_is_there_if_packets_for_it_are_delivered_or_leave_by_another_interface_that_leads_somewhere(
    what: str, reply: RouteReply, via: set[int] | None, forwarding: bool, wanted: bool
) -> None:
    asked = RouteQuestion(address(1), bytes(16), WAN, via, {ANCHOR})
    assert is_behind(reply, asked, forwarding=forwarding) is wanted
