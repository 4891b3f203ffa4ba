# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes, rules and nexthop objects, as pyroute2 writes them."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address
from typing import Any

import pytest
from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from npd6_xdp.core import route_messages
from npd6_xdp.core.route_messages import (
    NextHopEntry,
    RouteEntry,
    RouteReply,
    RuleEntry,
    parse_nexthop,
    parse_route,
    parse_route_reply,
    parse_rule,
)
from npd6_xdp.core.rtnetlink import Flag, Message, Type, messages
from tests.core.pyroute2_words import GATEWAY, MAIN, ROUTE, ROUTE_CASES, TEXT, encoded


@pytest.mark.parametrize(("what", "attributes", "ifindex", "gateways"), ROUTE_CASES, ids=[c[0] for c in ROUTE_CASES])
def test_we_read_the_routes_that_pyroute2_writes(
    what: str, attributes: list[tuple[str, Any]], ifindex: int, gateways: tuple[tuple[int, bytes], ...]
) -> None:
    network = IPv6Address("2001:db8:7::").packed
    body = encoded(rtmsg, ROUTE, [("RTA_DST", "2001:db8:7::"), *attributes])
    assert parse_route(body) == RouteEntry(network, 64, ifindex, 3, gateways)


def test_the_default_route_has_no_destination() -> None:
    body = encoded(rtmsg, ROUTE | {"dst_len": 0}, [("RTA_GATEWAY", "fe80::1"), ("RTA_OIF", 3)])
    assert parse_route(body) == RouteEntry(bytes(16), 0, 3, 3, ((3, GATEWAY),))


@pytest.mark.parametrize("kind", [1, 2, 4, 6, 7, 8])
def test_we_read_what_the_kernel_would_do_with_a_packet(kind: int) -> None:
    body = encoded(rtmsg, ROUTE | {"type": kind}, [("RTA_DST", TEXT), ("RTA_OIF", 3), ("RTA_IIF", 2)])
    assert parse_route_reply(body) == RouteReply(kind, 3)
    assert parse_route_reply(encoded(rtmsg, ROUTE | {"family": socket.AF_INET}, [("RTA_OIF", 3)])) is None


RULE_CASES: tuple[tuple[str, dict[str, int], list[tuple[str, Any]], RuleEntry], ...] = (
    ("all", {}, [("FRA_PRIORITY", 32766), ("FRA_SUPPRESS_PREFIXLEN", 0xFFFFFFFF)], RuleEntry(False, False)),
    ("by mark", {}, [("FRA_FWMARK", 7), ("FRA_FWMASK", 7)], RuleEntry(False, False)),
    ("by target", {"dst_len": 48}, [("FRA_DST", "2001:db8::")], RuleEntry(False, False)),
    ("by source", {"src_len": 48}, [("FRA_SRC", "2001:db8::")], RuleEntry(True, False)),
    ("without the default route", {}, [("FRA_SUPPRESS_PREFIXLEN", 0)], RuleEntry(False, True)),
    ("without short prefixes", {}, [("FRA_SUPPRESS_PREFIXLEN", 32)], RuleEntry(False, True)),
    ("without a group of interfaces", {}, [("FRA_SUPPRESS_IFGROUP", 1)], RuleEntry(False, True)),
    ("with all groups", {}, [("FRA_SUPPRESS_IFGROUP", 0xFFFFFFFF)], RuleEntry(False, False)),
)


@pytest.mark.parametrize(("what", "fields", "attributes", "wanted"), RULE_CASES, ids=[c[0] for c in RULE_CASES])
def test_we_read_the_rules_that_pyroute2_writes(
    what: str, fields: dict[str, int], attributes: list[tuple[str, Any]], wanted: RuleEntry
) -> None:
    assert parse_rule(encoded(fibmsg, {"table": MAIN, "action": 1, **fields}, attributes)) == wanted
    assert parse_rule(encoded(fibmsg, {"family": socket.AF_INET, **fields}, attributes)) is None


class nhmsg(nlmsg):  # type: ignore[misc]  # noqa: N801 (as pyroute2 and the kernel have it)
    """struct nhmsg of linux/nexthop.h, for pyroute2 to write."""

    fields = (("family", "B"), ("scope", "B"), ("protocol", "B"), ("resvd", "B"), ("flags", "I"))
    nla_map = (
        (1, "NHA_ID", "uint32"),
        (2, "NHA_GROUP", "hex"),
        (4, "NHA_BLACKHOLE", "flag"),
        (5, "NHA_OIF", "uint32"),
        (6, "NHA_GATEWAY", "ip6addr"),
    )


NEXTHOP_CASES: tuple[tuple[str, dict[str, int], list[tuple[str, Any]], NextHopEntry], ...] = (
    ("a gateway", {}, [("NHA_OIF", 3), ("NHA_GATEWAY", "fe80::1")], NextHopEntry(7, 3, GATEWAY)),
    ("on link", {}, [("NHA_OIF", 3)], NextHopEntry(7, 3, b"")),
    ("a blackhole", {}, [("NHA_BLACKHOLE", None)], NextHopEntry(7, 0, b"")),
    ("a group", {"family": 0}, [("NHA_GROUP", "0800000000000000")], NextHopEntry(7, 0, b"")),
    ("another family's", {"family": socket.AF_INET}, [("NHA_OIF", 3)], NextHopEntry(7, 3, b"")),
)


@pytest.mark.parametrize(("what", "fields", "attributes", "wanted"), NEXTHOP_CASES, ids=[c[0] for c in NEXTHOP_CASES])
def test_we_read_nexthop_objects(
    what: str, fields: dict[str, int], attributes: list[tuple[str, Any]], wanted: NextHopEntry
) -> None:
    assert parse_nexthop(encoded(nhmsg, fields, [("NHA_ID", 7), *attributes])) == wanted


def test_nexthop_objects_are_asked_for_of_all_families_since_a_group_has_none() -> None:
    (message,) = messages(route_messages.dump_nexthops(7))
    assert message == Message(Type.GETNEXTHOP, Flag.REQUEST | Flag.DUMP, 7, bytes(8))


def test_routes_that_lead_nowhere_and_those_of_another_family_are_none() -> None:
    for kind in (2, 3, 4, 5, 6, 7, 8, 9):  # local, broadcast, anycast, multicast, blackhole, unreachable, ...
        assert parse_route(encoded(rtmsg, ROUTE | {"type": kind}, [("RTA_OIF", 3)])) is None
    assert parse_route(encoded(rtmsg, ROUTE | {"family": socket.AF_INET}, [("RTA_OIF", 3)])) is None
