# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink messages in both directions, with pyroute2, which shares no code with ours, on the other end."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from npd6_xdp.core import neighbour_messages, route_messages
from npd6_xdp.core.link_messages import parse_address, parse_link
from npd6_xdp.core.neighbour_messages import (
    NeighbourEntry,
    parse_neighbour,
    parse_neighbour_hash,
    parse_neighbour_table,
)
from npd6_xdp.core.route_messages import RouteType, parse_nexthop, parse_route, parse_route_reply, parse_rule
from npd6_xdp.core.rtnetlink import AF_INET6, PROTOCOL, Flag, Message, Type, error_code, messages
from tests.core.pyroute2_words import (
    ADDRESS,
    GATEWAY,
    MAIN,
    NTF_PROXY,
    NTF_USE,
    ROUTE,
    ROUTE_CASES,
    TEXT,
    UNICAST,
    UNIVERSE,
    decoded,
    encoded,
)

NEIGHBOURS = (
    (
        "probe",
        neighbour_messages.use_neighbour(7, 3, ADDRESS),
        Type.NEWNEIGH,
        Flag.REQUEST | Flag.CREATE,
        {"ifindex": 3, "state": 0, "flags": NTF_USE, "NDA_DST": TEXT},
    ),
    (
        "delete",
        neighbour_messages.delete_neighbour(7, 3, ADDRESS),
        Type.DELNEIGH,
        Flag.REQUEST,
        {"ifindex": 3, "state": 0, "flags": 0, "NDA_DST": TEXT},
    ),
    (
        "add a proxy entry",
        neighbour_messages.add_proxy(7, 3, ADDRESS),
        Type.NEWNEIGH,
        Flag.REQUEST | Flag.CREATE | Flag.ACK,
        {"ifindex": 3, "state": 0, "flags": NTF_PROXY, "NDA_DST": TEXT, "NDA_PROTOCOL": PROTOCOL},
    ),
    (
        "delete a proxy entry",
        neighbour_messages.delete_proxy(7, 3, ADDRESS),
        Type.DELNEIGH,
        Flag.REQUEST | Flag.ACK,
        {"ifindex": 3, "flags": NTF_PROXY, "NDA_DST": TEXT},
    ),
    (
        "get a proxy entry",
        neighbour_messages.get_proxy(7, 3, ADDRESS),
        Type.GETNEIGH,
        Flag.REQUEST,
        {"ifindex": 3, "flags": NTF_PROXY, "NDA_DST": TEXT},
    ),
    (
        "dump",
        neighbour_messages.dump_neighbours(7),
        Type.GETNEIGH,
        Flag.REQUEST | Flag.DUMP,
        {"ifindex": 0, "flags": 0},
    ),
    (
        "dump the proxy entries",
        neighbour_messages.dump_neighbours(7, proxy_entries=True),
        Type.GETNEIGH,
        Flag.REQUEST | Flag.DUMP,
        {"ifindex": 0, "flags": NTF_PROXY},
    ),
)
ROUTES = (
    (
        "add a host route",
        route_messages.host_route(Type.NEWROUTE, 7, 3, ADDRESS),
        Type.NEWROUTE,
        Flag.REQUEST | Flag.ACK | Flag.CREATE | Flag.EXCL,
        {"dst_len": 128, "proto": PROTOCOL, "table": MAIN, "scope": UNIVERSE, "type": UNICAST}
        | {"RTA_DST": TEXT, "RTA_OIF": 3, "RTA_PRIORITY": 1024},
    ),
    (
        "remove a host route",
        route_messages.host_route(Type.DELROUTE, 7, 3, ADDRESS),
        Type.DELROUTE,
        Flag.REQUEST | Flag.ACK,
        {"dst_len": 128, "proto": PROTOCOL, "table": MAIN, "RTA_DST": TEXT, "RTA_OIF": 3, "RTA_PRIORITY": 1024},
    ),
    (
        "dump all routes",
        route_messages.dump_routes(7),
        Type.GETROUTE,
        Flag.REQUEST | Flag.DUMP,
        {"dst_len": 0, "proto": 0},
    ),
    (
        "dump those of a protocol",
        route_messages.dump_routes(7, protocol=PROTOCOL),
        Type.GETROUTE,
        Flag.REQUEST | Flag.DUMP,
        {"proto": PROTOCOL, "type": UNICAST},
    ),
    (
        "dump those of all types",
        route_messages.dump_routes(7, kind=RouteType.UNSPEC),
        Type.GETROUTE,
        Flag.REQUEST | Flag.DUMP,
        {"proto": 0, "type": 0},
    ),
    (
        "ask what becomes of a packet",
        route_messages.get_route(7, 3, GATEWAY, ADDRESS),
        Type.GETROUTE,
        Flag.REQUEST,
        {"dst_len": 128, "src_len": 128, "RTA_DST": TEXT, "RTA_SRC": "fe80::1", "RTA_IIF": 3},
    ),
    (
        "ask what becomes of a packet from nobody in particular",
        route_messages.get_route(7, 3, bytes(16), ADDRESS),
        Type.GETROUTE,
        Flag.REQUEST,
        {"dst_len": 128, "src_len": 0, "RTA_DST": TEXT, "RTA_IIF": 3},
    ),
)
RULES = (
    (
        "dump the rules",
        route_messages.dump_rules(7),
        Type.GETRULE,
        Flag.REQUEST | Flag.DUMP,
        {"dst_len": 0, "src_len": 0, "table": 0, "action": 0, "flags": 0},
    ),
)
REQUESTS = [
    *((ndmsg, *case) for case in NEIGHBOURS),
    *((rtmsg, *case) for case in ROUTES),
    *((fibmsg, *case) for case in RULES),
]


@pytest.mark.parametrize(("reader", "what", "data", "kind", "flags", "wanted"), REQUESTS, ids=[c[1] for c in REQUESTS])
def test_pyroute2_reads_what_we_write(
    reader: type[Any], what: str, data: bytes, kind: Type, flags: Flag, wanted: dict[str, Any]
) -> None:
    found = decoded(reader, data)
    header = found["header"]
    assert (header["length"], header["type"], header["flags"]) == (len(data), kind, flags)
    assert (header["sequence_number"], found["family"]) == (7, AF_INET6)
    assert {name: found.get(name) for name in wanted} == wanted
    attributes = {name for name in found if name.startswith(("NDA_", "RTA_", "FRA_"))}
    assert attributes == {name for name in wanted if name.startswith(("NDA_", "RTA_", "FRA_"))}
    (message,) = messages(data)
    assert (message.type, message.flags, message.sequence) == (kind, flags, 7)


def test_what_is_cut_short_is_none() -> None:
    for parse in (
        *(parse_link, parse_address, parse_neighbour_table, parse_neighbour_hash, parse_neighbour),
        *(parse_route, parse_route_reply, parse_rule, parse_nexthop),
    ):
        assert parse(b"\x0a\0\0") is None


def test_an_attribute_with_flags_in_its_type_is_read_as_without() -> None:
    nested = struct.pack("=HH", 20, 1 | 0x8000) + ADDRESS
    body = struct.pack("=BxxxiHBB", AF_INET6, 3, 2, 0, 0) + nested
    assert parse_neighbour(body) == NeighbourEntry(3, ADDRESS, 2, False, 0)


def test_errors_are_errnos_and_an_acknowledgement_is_none() -> None:
    assert error_code(struct.pack("=i", -17) + bytes(16)) == 17
    assert error_code(struct.pack("=i", 0)) == 0
    assert error_code(b"\0\0\0") == 0


def packed(kind: int, body: bytes, sequence: int = 1) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body


@given(st.lists(st.tuples(st.integers(0, 2**16 - 1), st.binary(max_size=40)), max_size=5))
def test_the_messages_of_a_datagram_come_in_order_each_aligned(sent: list[tuple[int, bytes]]) -> None:
    datagram = b""
    for number, (kind, body) in enumerate(sent):
        datagram = datagram.ljust((len(datagram) + 3) & ~3, b"\0") + packed(kind, body, number)
    assert list(messages(datagram)) == [Message(kind, 0, number, body) for number, (kind, body) in enumerate(sent)]


WHOLE = {
    "neighbour": encoded(ndmsg, {"ifindex": 3, "state": 2}, [("NDA_DST", TEXT), ("NDA_PROTOCOL", PROTOCOL)]),
    "route": encoded(rtmsg, ROUTE, [("RTA_DST", "2001:db8:7::"), ("RTA_GATEWAY", "fe80::1"), ("RTA_OIF", 3)]),
    "multipath route": encoded(rtmsg, ROUTE, ROUTE_CASES[2][1]),
}


@pytest.mark.parametrize("body", WHOLE.values(), ids=WHOLE)
def test_what_is_cut_short_is_never_an_exception_nor_more_than_the_whole(body: bytes) -> None:
    datagram = packed(Type.NEWROUTE, body)
    for length in range(len(datagram)):
        assert list(messages(datagram[:length])) == []
        assert len(list(messages(datagram + datagram[:length]))) == 1
    whole = parse_route(body)
    for length in range(len(body)):
        neighbour = parse_neighbour(body[:length])
        assert neighbour is None or len(neighbour.address) == 16
        route = parse_route(body[:length])
        if route is not None:
            assert whole is not None
            assert set(route.gateways) <= {(0, gateway) for _, gateway in whole.gateways} | set(whole.gateways)


@given(st.binary(max_size=200))
def test_random_bytes_as_a_datagram_never_raise(data: bytes) -> None:
    for message in messages(data):
        assert len(message.body) <= len(data) - 16
        error_code(message.body)


@st.composite
def attributes(draw: st.DrawFn) -> bytes:
    """Attributes that are nearly right: their lengths may lie."""
    data = b""
    for _ in range(draw(st.integers(0, 6))):
        value = draw(st.one_of(st.just(b""), st.binary(max_size=40)))
        length = draw(st.one_of(st.just(len(value) + 4), st.integers(0, 80)))
        kind = draw(st.one_of(st.sampled_from([1, 4, 5, 6, 9, 12]), st.integers(0, 2**16 - 1)))
        data += struct.pack("=HH", length, kind) + value.ljust((len(value) + 3) & ~3, b"\0")
    return data


@given(st.binary(max_size=12), st.one_of(st.binary(max_size=200), attributes()))
def test_a_route_of_random_bytes_never_raises(header: bytes, rest: bytes) -> None:
    usual = struct.pack("=BBBBBBBBI", AF_INET6, 64, 0, 0, MAIN, 3, 0, UNICAST, 0)
    for body in (header, usual + rest, header.ljust(12, b"\0") + rest):
        route = parse_route(body)
        assert route is None or all(len(gateway) == 16 for _, gateway in route.gateways)


@given(st.binary(max_size=12), st.one_of(st.binary(max_size=200), attributes()))
def test_a_neighbour_of_random_bytes_never_raises(header: bytes, rest: bytes) -> None:
    usual = struct.pack("=BxxxiHBB", AF_INET6, 3, 2, 0, 0)
    for body in (header, usual + rest, usual + struct.pack("=HH", 20, 1) + bytes(16) + rest):
        entry = parse_neighbour(body)
        assert entry is None or len(entry.address) == 16
