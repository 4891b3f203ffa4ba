# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses and routes with their origins, as pyroute2 writes them; and any bytes at all."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.survey import Held, Way, parse_held, parse_way
from tests.core.pyroute2_words import ROUTE, TEXT, encoded, hop

FOREVER = {"ifa_preferred": 0xFFFFFFFF, "ifa_valid": 0xFFFFFFFF, "cstamp": 0, "tstamp": 0}
ADDRESS = ("IFA_ADDRESS", TEXT)
HELD = Held(3, IPv6Address(TEXT), 64)

ADDRESSES: tuple[tuple[str, dict[str, Any], list[tuple[str, Any]], Held | None], ...] = (
    ("somebody's", {}, [ADDRESS, ("IFA_CACHEINFO", FOREVER)], HELD),
    ("for a time", {}, [ADDRESS, ("IFA_CACHEINFO", {**FOREVER, "ifa_valid": 7200})], HELD._replace(passing=True)),
    ("by a router's advertisement", {}, [ADDRESS, ("IFA_PROTO", 2)], HELD._replace(advertised=True)),
    ("a manager's, with temporary ones", {}, [ADDRESS, ("IFA_FLAGS", 0x100)], HELD._replace(advertised=True)),
    ("a temporary one", {"flags": 0x01}, [ADDRESS], HELD._replace(advertised=True)),
    ("without a route for its prefix", {}, [ADDRESS, ("IFA_FLAGS", 0x280)], HELD._replace(bare=True)),
    ("of a point-to-point link", {}, [("IFA_ADDRESS", "fe80::1"), ("IFA_LOCAL", TEXT)], HELD),
    ("none", {}, [], None),
)


@pytest.mark.parametrize(
    ("fields", "attributes", "held"), [row[1:] for row in ADDRESSES], ids=[row[0] for row in ADDRESSES]
)
def test_an_address_is_read_with_what_tells_where_it_comes_from(
    fields: dict[str, Any], attributes: list[tuple[str, Any]], held: Held | None
) -> None:
    body = encoded(ifaddrmsg, {"index": 3, "prefixlen": 64, **fields}, attributes)
    assert parse_held(body) == held


DESTINATION = ("RTA_DST", "2001:db8:1::")
NETWORK = Prefix.of("2001:db8:1::/64")
GATEWAY = IPv6Address("fe80::1")

ROUTES: tuple[tuple[str, dict[str, Any], list[tuple[str, Any]], Way | None], ...] = (
    ("on link", {}, [DESTINATION, ("RTA_OIF", 3)], Way(NETWORK, ((3, None),), protocol=3)),
    (
        "by a gateway",
        {"proto": 9},
        [DESTINATION, ("RTA_OIF", 3), ("RTA_GATEWAY", "fe80::1"), ("RTA_PRIORITY", 1024)],
        Way(NETWORK, ((3, GATEWAY),), protocol=9, metric=1024),
    ),
    (
        "by several paths, one of them on link",
        {},
        [DESTINATION, ("RTA_MULTIPATH", [hop(3, ("RTA_GATEWAY", "fe80::1")), hop(4)])],
        Way(NETWORK, ((3, GATEWAY), (4, None)), protocol=3),
    ),
    ("to everywhere", {"dst_len": 0}, [("RTA_OIF", 3)], Way(Prefix(0, 0), ((3, None),), protocol=3)),
    (
        "in a table with a large number",
        {"table": 0},
        [DESTINATION, ("RTA_TABLE", 1000)],
        Way(NETWORK, (), table=1000, protocol=3),
    ),
    ("unreachable", {"type": 7, "proto": 16}, [DESTINATION, ("RTA_OIF", 1)], Way(NETWORK, ((1, None),), 7, 16)),
    (
        "for a time",
        {},
        [DESTINATION, ("RTA_OIF", 3), ("RTA_CACHEINFO", {"rta_expires": 99})],
        Way(NETWORK, ((3, None),), protocol=3, expires=0.99),
    ),
    ("made by the kernel of another", {"flags": 0x200}, [DESTINATION, ("RTA_OIF", 3)], None),
    ("of IPv4", {"family": 2}, [], None),
)


@pytest.mark.parametrize(("fields", "attributes", "way"), [row[1:] for row in ROUTES], ids=[row[0] for row in ROUTES])
def test_a_route_is_read_with_its_paths_and_its_maker(
    fields: dict[str, Any], attributes: list[tuple[str, Any]], way: Way | None
) -> None:
    assert parse_way(encoded(rtmsg, {**ROUTE, **fields}, attributes)) == way


WHOLE = (
    encoded(ifaddrmsg, {"index": 3, "prefixlen": 64}, [ADDRESS, ("IFA_CACHEINFO", FOREVER), ("IFA_FLAGS", 0x280)]),
    encoded(rtmsg, ROUTE, [DESTINATION, ("RTA_MULTIPATH", [hop(3, ("RTA_GATEWAY", "fe80::1")), hop(4)])]),
)


@pytest.mark.parametrize("body", WHOLE)
def test_what_is_cut_short_at_any_length_is_read_or_none(body: bytes) -> None:
    for length in range(len(body)):
        parse_held(body[:length])
        parse_way(body[:length])


@given(st.one_of(st.binary(max_size=120), st.tuples(st.just(b"\x0a\x40"), st.binary(max_size=120)).map(b"".join)))
def test_any_bytes_are_a_value_or_none(body: bytes) -> None:
    held, way = parse_held(body), parse_way(body)
    assert held is None or held.network.covers(Prefix(int(held.address), 128))
    assert way is None or all(ifindex for ifindex in way.on_link)
