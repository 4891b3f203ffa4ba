# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes, the rules that choose among their tables, and nexthop objects in rtnetlink: bytes to values, and back."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from npd6_xdp.core.rtnetlink import (
    AF_INET6,
    AF_UNSPEC,
    PROTOCOL,
    Flag,
    Type,
    aligned,
    attributes_of,
    number,
    pack_attribute,
    pack_message,
)

HOST_ROUTE_METRIC = 1024
"""That of a host's route: what the kernel gives a route that names none."""

TABLE_MAIN = 254
"""RT_TABLE_MAIN: where routes are looked up, but for those of a VRF's interfaces."""


class RouteType(IntEnum):
    """rtm_type, as far as it concerns us: what becomes of a packet that a route is for."""

    UNSPEC = 0
    UNICAST = 1
    LOCAL = 2
    ANYCAST = 4
    THROW = 9


HERE = frozenset({RouteType.LOCAL, RouteType.ANYCAST})
"""The types of routes that end at this machine."""

REFUSALS: Mapping[int, str] = {6: "blackhole", 7: "unreachable", 8: "prohibit"}
"""The types of routes that say no, as ip-route(8) names them. A delegated prefix has one (RFC 7084 §4.2)."""

_RTA_DST = 1
_RTA_SRC = 2
_RTA_IIF = 3
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_RTA_MULTIPATH = 9
_RTA_TABLE = 15
_RTM_F_FIB_MATCH = 0x2000
_FRA_SRC = 2
_FRA_SUPPRESS_IFGROUP = 13
_FRA_SUPPRESS_PREFIXLEN = 14
_SUPPRESS_NOTHING = 0xFFFFFFFF
_NHA_ID = 1
_NHA_OIF = 5
_NHA_GATEWAY = 6
_RT_SCOPE_UNIVERSE = 0
_RTMSG = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_NEXTHOP = struct.Struct("=HBBi")  # struct rtnexthop
_RULE = struct.Struct("=8BI")  # struct fib_rule_hdr
_NHMSG = struct.Struct("=BBBBI")  # struct nhmsg


class RouteEntry(NamedTuple):
    """A route, as far as it concerns us: its paths through a gateway, as (ifindex, 16 bytes).

    Of several routes to one destination in a table, the one with the lowest `metric` counts.
    """

    destination: bytes
    length: int
    ifindex: int
    protocol: int
    gateways: tuple[tuple[int, bytes], ...]
    table: int = TABLE_MAIN
    metric: int = 0


class RouteReply(NamedTuple):
    """What the kernel does with a packet: `type` is a RouteType (or another of its numbers), `ifindex` its way out."""

    type: int
    ifindex: int


class RuleEntry(NamedTuple):
    """A rule that chooses among routing tables: whether it goes by the source, and whether it passes over routes."""

    by_source: bool
    suppresses: bool


class NextHopEntry(NamedTuple):
    """A nexthop object, as far as it concerns us: `gateway` has 16 bytes or none."""

    id: int
    ifindex: int
    gateway: bytes


def parse_route(body: bytes) -> RouteEntry | None:
    """The body of NEWROUTE or DELROUTE; None if it is no IPv6 unicast route."""
    if len(body) < _RTMSG.size:
        return None
    family, length, _, _, table, protocol, _, kind, _ = _RTMSG.unpack_from(body)
    if family != AF_INET6 or kind != RouteType.UNICAST:
        return None
    attributes = dict(attributes_of(body, _RTMSG.size))
    ifindex = number(attributes.get(_RTA_OIF, b""))
    gateways = route_gateways(attributes)
    return RouteEntry(
        attributes.get(_RTA_DST, bytes(16)),
        length,
        ifindex,
        protocol,
        gateways,
        number(attributes.get(_RTA_TABLE, b"")) or table,
        number(attributes.get(_RTA_PRIORITY, b"")),
    )


def route_attributes(body: bytes) -> dict[int, bytes]:
    """The attributes (RTA_*) of a NEWROUTE or DELROUTE."""
    return dict(attributes_of(body, _RTMSG.size))


def route_gateways(attributes: Mapping[int, bytes]) -> tuple[tuple[int, bytes], ...]:
    """The gateways of all paths of a route, by its attributes: (ifindex, 16 bytes)."""
    return tuple(path for path in route_paths(attributes) if len(path[1]) == 16)


def route_paths(attributes: Mapping[int, bytes]) -> list[tuple[int, bytes]]:
    """All paths of a route, by its attributes, each an interface and a gateway (b"" for none). A route of several has
    one more at the beginning, which is neither.
    """
    found = [(number(attributes.get(_RTA_OIF, b"")), attributes.get(_RTA_GATEWAY, b""))]
    paths = attributes.get(_RTA_MULTIPATH, b"")
    start = 0
    while start + _NEXTHOP.size <= len(paths):
        size, _, _, path_ifindex = _NEXTHOP.unpack_from(paths, start)
        if not _NEXTHOP.size <= size <= len(paths) - start:
            break
        path = dict(attributes_of(paths[start : start + size], _NEXTHOP.size))
        found.append((path_ifindex, path.get(_RTA_GATEWAY, b"")))
        start += aligned(size)
    return found


def parse_route_reply(body: bytes) -> RouteReply | None:
    """The body of the NEWROUTE that answers get_route(); None if it is no IPv6 route."""
    if len(body) < _RTMSG.size or body[0] != AF_INET6:
        return None
    attributes = dict(attributes_of(body, _RTMSG.size))
    return RouteReply(body[7], number(attributes.get(_RTA_OIF, b"")))


def parse_rule(body: bytes) -> RuleEntry | None:
    """The body of NEWRULE or DELRULE; None if it is no IPv6 rule."""
    if len(body) < _RULE.size or body[0] != AF_INET6:
        return None
    attributes = dict(attributes_of(body, _RULE.size))
    suppress = (attributes.get(kind) for kind in (_FRA_SUPPRESS_PREFIXLEN, _FRA_SUPPRESS_IFGROUP))
    return RuleEntry(
        by_source=body[2] > 0 or _FRA_SRC in attributes,
        suppresses=any(value is not None and number(value) != _SUPPRESS_NOTHING for value in suppress),
    )


def parse_nexthop(body: bytes) -> NextHopEntry | None:
    """The body of NEWNEXTHOP or DELNEXTHOP. `gateway` is b"" where there is none: of a group, the members have it."""
    if len(body) < _NHMSG.size:
        return None
    attributes = dict(attributes_of(body, _NHMSG.size))
    gateway = attributes.get(_NHA_GATEWAY, b"") if body[0] == AF_INET6 else b""
    ifindex = number(attributes.get(_NHA_OIF, b""))
    return NextHopEntry(number(attributes.get(_NHA_ID, b"")), ifindex, gateway if len(gateway) == 16 else b"")


def match_route(address: bytes, sequence: int, oif: int = 0) -> bytes:
    """Ask by which route a packet of this host's would go to an address, out of an interface if one is given.

    A VRF's table counts where that interface belongs to one.
    """
    body = _RTMSG.pack(AF_INET6, 128, 0, 0, 0, 0, 0, 0, _RTM_F_FIB_MATCH) + pack_attribute(_RTA_DST, address)
    if oif:
        body += pack_attribute(_RTA_OIF, struct.pack("=i", oif))
    return pack_message(Type.GETROUTE, Flag.REQUEST, sequence, body)


def host_route(kind: Type, sequence: int, ifindex: int, address: bytes, table: int = TABLE_MAIN) -> bytes:
    """Add (NEWROUTE) or remove (DELROUTE) a /128 route of ours out of an interface, in a routing table."""
    flags = Flag.REQUEST | Flag.ACK
    if kind is Type.NEWROUTE:
        flags |= Flag.CREATE | Flag.EXCL
    short = table if table < 256 else 0  # a byte in the header; where that is too small, an attribute
    body = _RTMSG.pack(AF_INET6, 128, 0, 0, short, PROTOCOL, _RT_SCOPE_UNIVERSE, RouteType.UNICAST, 0)
    body += pack_attribute(_RTA_DST, address) + pack_attribute(_RTA_OIF, struct.pack("=i", ifindex))
    body += pack_attribute(_RTA_PRIORITY, struct.pack("=I", HOST_ROUTE_METRIC))
    if not short:
        body += pack_attribute(_RTA_TABLE, struct.pack("=I", table))
    return pack_message(kind, flags, sequence, body)


def dump_routes(sequence: int, *, protocol: int = 0, kind: RouteType = RouteType.UNICAST) -> bytes:
    """Ask for the IPv6 routes of a type, and of a protocol, where these are not 0.

    The kernel chooses among them only on a socket with NETLINK_GET_STRICT_CHK (Linux 4.20); else it sends all.
    """
    body = _RTMSG.pack(AF_INET6, 0, 0, 0, 0, protocol, 0, kind, 0)
    return pack_message(Type.GETROUTE, Flag.REQUEST | Flag.DUMP, sequence, body)


def get_route(sequence: int, iif: int, source: bytes, target: bytes, *, matched: bool = False) -> bytes:
    """Ask what the kernel would do with a packet that came in by the interface `iif`; :: as its source names none.

    `matched`: ask for the route itself that it would go by.
    """
    named, flags = any(source), _RTM_F_FIB_MATCH if matched else 0
    body = _RTMSG.pack(AF_INET6, 128, 128 if named else 0, 0, 0, 0, 0, 0, flags) + pack_attribute(_RTA_DST, target)
    if named:
        body += pack_attribute(_RTA_SRC, source)
    return pack_message(Type.GETROUTE, Flag.REQUEST, sequence, body + pack_attribute(_RTA_IIF, struct.pack("=i", iif)))


def dump_rules(sequence: int) -> bytes:
    """Ask for the IPv6 rules, which choose among routing tables."""
    return pack_message(Type.GETRULE, Flag.REQUEST | Flag.DUMP, sequence, _RULE.pack(AF_INET6, *(0,) * 8))


def dump_nexthops(sequence: int) -> bytes:
    """Ask for the nexthop objects, of all families: a group has none."""
    return pack_message(Type.GETNEXTHOP, Flag.REQUEST | Flag.DUMP, sequence, _NHMSG.pack(AF_UNSPEC, 0, 0, 0, 0))
