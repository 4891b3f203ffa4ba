# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses and routes in rtnetlink, with what tells where they come from: who made them, and for how long."""

from __future__ import annotations

import struct
from enum import IntEnum
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core.prefix import BITS, MASKS, Prefix
from npd6_xdp.core.route_messages import TABLE_MAIN, RouteType, route_attributes, route_paths
from npd6_xdp.core.rtnetlink import AF_INET6, attributes_of, number

_IFA_ADDRESS, _IFA_LOCAL, _IFA_CACHEINFO, _IFA_FLAGS, _IFA_PROTO = 1, 2, 6, 8, 11
_IFAPROT_KERNEL_RA = 2
_IFA_F_TEMPORARY, _IFA_F_MANAGETEMPADDR, _IFA_F_NOPREFIXROUTE = 0x01, 0x100, 0x200
_RTA_DST, _RTA_PRIORITY, _RTA_CACHEINFO, _RTA_TABLE = 1, 6, 12, 15
_RTM_F_CLONED = 0x200
_FOREVER = 0xFFFFFFFF
_IFADDRMSG = struct.Struct("=BBBBI")  # struct ifaddrmsg
_CACHE = struct.Struct("=II")  # struct ifa_cacheinfo, as far as the lifetimes: preferred, valid (seconds)
_RTMSG = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_ROUTE_CACHE = struct.Struct("=IIi")  # struct rta_cacheinfo, as far as how soon it ends (ticks; 0 is never)
_TICKS = 100  # a second, for whoever asks the kernel (USER_HZ)


class Protocol(IntEnum):
    """rtm_protocol: who has made a route, as far as it concerns us (linux/rtnetlink.h)."""

    KERNEL = 2
    RA = 9
    DHCP = 16


class Held(NamedTuple):
    """An IPv6 address that an interface holds. `advertised`: a router's advertisement gave it; `passing`: it has a
    lifetime; `bare`: it brings no route for its prefix (noprefixroute).
    """

    ifindex: int
    address: IPv6Address
    length: int
    advertised: bool = False
    passing: bool = False
    bare: bool = False

    @property
    def network(self) -> Prefix:
        """Its prefix."""
        return Prefix(int(self.address) & MASKS[self.length], self.length)


class Way(NamedTuple):
    """A route: `hops` are its paths, each an interface's index, and a gateway if it has one. `type` is a RouteType
    (or another of RTN_*), `protocol` one of RTPROT_*; `expires` is in how many seconds it goes, None: it doesn't.
    """

    destination: Prefix
    hops: tuple[tuple[int, IPv6Address | None], ...]
    type: int = RouteType.UNICAST
    protocol: int = 0
    table: int = TABLE_MAIN
    metric: int = 0
    expires: float | None = None

    @property
    def passing(self) -> bool:
        """Whether it has a lifetime."""
        return self.expires is not None

    @property
    def ifindex(self) -> int:
        """The interface that it leads out of, the first one of several; 0: none."""
        return self.hops[0][0] if self.hops else 0

    @property
    def on_link(self) -> frozenset[int]:
        """The interfaces on whose links it says that its destination is."""
        return frozenset(ifindex for ifindex, gateway in self.hops if gateway is None)


def parse_held(body: bytes) -> Held | None:
    """The body of NEWADDR; None if it is no IPv6 address."""
    if len(body) < _IFADDRMSG.size:
        return None
    family, length, flags, _, ifindex = _IFADDRMSG.unpack_from(body)
    attributes = dict(attributes_of(body, _IFADDRMSG.size))
    address = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS, b""))
    if family != AF_INET6 or len(address) != BITS // 8 or length > BITS:
        return None
    flags = number(attributes.get(_IFA_FLAGS, b"")) or flags
    cache = attributes.get(_IFA_CACHEINFO, b"")
    by_advertisement = attributes.get(_IFA_PROTO, b"")[:1] == bytes([_IFAPROT_KERNEL_RA])
    return Held(
        ifindex,
        IPv6Address(address),
        length,
        advertised=by_advertisement or bool(flags & (_IFA_F_TEMPORARY | _IFA_F_MANAGETEMPADDR)),
        passing=len(cache) >= _CACHE.size and _CACHE.unpack_from(cache)[1] != _FOREVER,
        bare=bool(flags & _IFA_F_NOPREFIXROUTE),
    )


def parse_way(body: bytes) -> Way | None:
    """The body of NEWROUTE; None if it is no IPv6 route, or one that the kernel has made of another."""
    if len(body) < _RTMSG.size:
        return None
    family, length, _, _, table, protocol, _, kind, flags = _RTMSG.unpack_from(body)
    attributes = route_attributes(body)
    destination = attributes.get(_RTA_DST, bytes(16))
    if family != AF_INET6 or length > BITS or len(destination) != BITS // 8 or flags & _RTM_F_CLONED:
        return None
    cache = attributes.get(_RTA_CACHEINFO, b"")
    ticks = _ROUTE_CACHE.unpack_from(cache)[2] if len(cache) >= _ROUTE_CACHE.size else 0
    return Way(
        Prefix(int.from_bytes(destination) & MASKS[length], length),
        _hops(attributes),
        kind,
        protocol,
        number(attributes.get(_RTA_TABLE, b"")) or table,
        number(attributes.get(_RTA_PRIORITY, b"")),
        expires=ticks / _TICKS if ticks else None,
    )


def _hops(attributes: dict[int, bytes]) -> tuple[tuple[int, IPv6Address | None], ...]:
    """The paths, those by a gateway first."""
    paths = route_paths(attributes)
    by_gateway = [(ifindex, IPv6Address(gateway)) for ifindex, gateway in paths if len(gateway) == 16]
    with_gateway = {ifindex for ifindex, _ in by_gateway}
    outs = dict.fromkeys(ifindex for ifindex, _ in paths if ifindex)
    return (*by_gateway, *((ifindex, None) for ifindex in outs if ifindex not in with_gateway))
