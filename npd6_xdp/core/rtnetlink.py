# SPDX-License-Identifier: GPL-2.0-or-later
"""The few rtnetlink messages that come or go as often as packets do: bytes to values, and back.

Neighbours are asked for at the rate of solicitations, and routing tables have hundreds of thousands of lines;
pyroute2, which reads all that is rarer (system/netlink.py), takes 0.16 ms a message where this takes microseconds.
Layouts: linux/netlink.h, linux/rtnetlink.h, linux/neighbour.h; all integers in host order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import NamedTuple

PROTOCOL = 136
"""Our number in rtm_protocol and NDA_PROTOCOL: the routes and proxy entries that bear it are npd6-xdp's."""

AF_INET6 = 10


class Type(IntEnum):
    """nlmsg_type."""

    ERROR = 2
    DONE = 3
    NEWROUTE = 24
    DELROUTE = 25
    GETROUTE = 26
    NEWNEIGH = 28
    DELNEIGH = 29
    GETNEIGH = 30


class Flag(IntFlag):
    """nlmsg_flags."""

    REQUEST = 0x1
    ACK = 0x4
    DUMP_INTERRUPTED = 0x10
    EXCL = 0x200
    DUMP = 0x300
    CREATE = 0x400


class NeighbourState(IntFlag):
    """NUD_*: what the kernel knows of a neighbour (RFC 4861 §7.3.2)."""

    NONE = 0x00
    INCOMPLETE = 0x01
    REACHABLE = 0x02
    STALE = 0x04
    DELAY = 0x08
    PROBE = 0x10
    FAILED = 0x20
    NOARP = 0x40
    PERMANENT = 0x80


PRESENT = (
    NeighbourState.REACHABLE
    | NeighbourState.STALE
    | NeighbourState.DELAY
    | NeighbourState.PROBE
    | NeighbourState.PERMANENT
)
"""The states in which a neighbour counts as there: its link-layer address is known, and no probe has failed yet."""

_NTF_USE = 0x01
_NTF_PROXY = 0x08
_NDA_DST = 1
_NDA_PROTOCOL = 12
_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_RTA_MULTIPATH = 9
_RTN_UNICAST = 1
_RT_TABLE_MAIN = 254
_RT_SCOPE_UNIVERSE = 0
_HOST_ROUTE_METRIC = 1024  # what the kernel gives a route that names none

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_NDMSG = struct.Struct("=BxxxiHBB")  # struct ndmsg
_RTMSG = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_NEXTHOP = struct.Struct("=HBBi")  # struct rtnexthop
_ERROR = struct.Struct("=i")


class Message(NamedTuple):
    """One message of a datagram; `body` is what follows the header."""

    type: int
    flags: int
    sequence: int
    body: bytes


class NeighbourEntry(NamedTuple):
    """A line of the neighbour table, or of its proxy entries: `address` has 16 bytes."""

    ifindex: int
    address: bytes
    state: int
    proxy: bool
    protocol: int


class RouteEntry(NamedTuple):
    """A route, as far as it concerns us: its paths through a gateway, as (ifindex, 16 bytes)."""

    destination: bytes
    length: int
    ifindex: int
    protocol: int
    gateways: tuple[tuple[int, bytes], ...]


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages of a datagram; what is cut short ends it."""
    start = 0
    while start + _HEADER.size <= len(datagram):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, start)
        if not _HEADER.size <= length <= len(datagram) - start:
            return
        yield Message(kind, flags, sequence, datagram[start + _HEADER.size : start + length])
        start += _aligned(length)


def error_code(body: bytes) -> int:
    """The errno of an ERROR message, 0 for an acknowledgement; of DONE, too."""
    return -int(_ERROR.unpack_from(body)[0]) if len(body) >= _ERROR.size else 0


def parse_neighbour(body: bytes) -> NeighbourEntry | None:
    """The body of NEWNEIGH or DELNEIGH; None if it is no IPv6 neighbour."""
    if len(body) < _NDMSG.size:
        return None
    family, ifindex, state, flags, _ = _NDMSG.unpack_from(body)
    attributes = dict(_attributes(body, _NDMSG.size))
    address = attributes.get(_NDA_DST, b"")
    if family != AF_INET6 or len(address) != 16:
        return None
    protocol = (attributes.get(_NDA_PROTOCOL) or b"\0")[0]
    return NeighbourEntry(ifindex, address, state, bool(flags & _NTF_PROXY), protocol)


def parse_route(body: bytes) -> RouteEntry | None:
    """The body of NEWROUTE or DELROUTE; None if it is no IPv6 unicast route."""
    if len(body) < _RTMSG.size:
        return None
    family, length, _, _, _, protocol, _, kind, _ = _RTMSG.unpack_from(body)
    if family != AF_INET6 or kind != _RTN_UNICAST:
        return None
    attributes = dict(_attributes(body, _RTMSG.size))
    ifindex = int.from_bytes(attributes.get(_RTA_OIF, b""), "little" if _LITTLE else "big")
    gateways = []
    if len(gateway := attributes.get(_RTA_GATEWAY, b"")) == 16:
        gateways.append((ifindex, gateway))
    paths = attributes.get(_RTA_MULTIPATH, b"")
    start = 0
    while start + _NEXTHOP.size <= len(paths):
        size, _, _, path_ifindex = _NEXTHOP.unpack_from(paths, start)
        if not _NEXTHOP.size <= size <= len(paths) - start:
            break
        path = dict(_attributes(paths[start : start + size], _NEXTHOP.size))
        if len(gateway := path.get(_RTA_GATEWAY, b"")) == 16:
            gateways.append((path_ifindex, gateway))
        start += _aligned(size)
    return RouteEntry(attributes.get(_RTA_DST, bytes(16)), length, ifindex, protocol, tuple(gateways))


def probe_neighbour(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Have the kernel resolve a neighbour, or confirm a stale one (NTF_USE).

    The state is NUD_NONE: any other would make a permanent entry, beyond the reach of gc_thresh3.
    """
    return _neighbour(
        Type.NEWNEIGH, Flag.REQUEST | Flag.CREATE, sequence, ifindex, address, NeighbourState.NONE, _NTF_USE
    )


def delete_neighbour(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Take a neighbour out of the table."""
    return _neighbour(Type.DELNEIGH, Flag.REQUEST, sequence, ifindex, address, NeighbourState.NONE, 0)


def add_proxy(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Add a proxy entry of ours."""
    flags = Flag.REQUEST | Flag.CREATE | Flag.ACK
    return _neighbour(Type.NEWNEIGH, flags, sequence, ifindex, address, NeighbourState.NONE, _NTF_PROXY, ours=True)


def delete_proxy(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Remove a proxy entry."""
    flags = Flag.REQUEST | Flag.ACK
    return _neighbour(Type.DELNEIGH, flags, sequence, ifindex, address, NeighbourState.NONE, _NTF_PROXY)


def get_proxy(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Ask for a proxy entry, whoever it belongs to."""
    return _neighbour(Type.GETNEIGH, Flag.REQUEST, sequence, ifindex, address, NeighbourState.NONE, _NTF_PROXY)


def dump_neighbours(sequence: int, *, proxies: bool = False) -> bytes:
    """Ask for the IPv6 neighbour table, or for its proxy entries."""
    body = _NDMSG.pack(AF_INET6, 0, 0, _NTF_PROXY if proxies else 0, 0)
    return _message(Type.GETNEIGH, Flag.REQUEST | Flag.DUMP, sequence, body)


def host_route(kind: Type, sequence: int, ifindex: int, address: bytes) -> bytes:
    """Add (NEWROUTE) or remove (DELROUTE) a /128 route of ours out of an interface."""
    flags = Flag.REQUEST | Flag.ACK
    if kind is Type.NEWROUTE:
        flags |= Flag.CREATE | Flag.EXCL
    body = _RTMSG.pack(AF_INET6, 128, 0, 0, _RT_TABLE_MAIN, PROTOCOL, _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0)
    body += _attribute(_RTA_DST, address) + _attribute(_RTA_OIF, struct.pack("=i", ifindex))
    return _message(kind, flags, sequence, body + _attribute(_RTA_PRIORITY, struct.pack("=I", _HOST_ROUTE_METRIC)))


def dump_routes(sequence: int, *, ifindex: int = 0, protocol: int = 0) -> bytes:
    """Ask for the IPv6 routes, those out of an interface and of a protocol where these are not 0.

    The kernel chooses among them only on a socket with NETLINK_GET_STRICT_CHK (Linux 4.20); else it sends all.
    """
    body = _RTMSG.pack(AF_INET6, 0, 0, 0, 0, protocol, 0, _RTN_UNICAST, 0)
    if ifindex:
        body += _attribute(_RTA_OIF, struct.pack("=i", ifindex))
    return _message(Type.GETROUTE, Flag.REQUEST | Flag.DUMP, sequence, body)


_LITTLE = struct.pack("=H", 1) == b"\x01\x00"


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _attributes(body: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    while start + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, start)
        if not _ATTRIBUTE.size <= length <= len(body) - start:
            return
        yield kind & 0x3FFF, body[start + _ATTRIBUTE.size : start + length]
        start += _aligned(length)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value.ljust(_aligned(len(value)), b"\0")


def _message(kind: Type, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def _neighbour(
    kind: Type, flags: int, sequence: int, ifindex: int, address: bytes, state: int, ntf: int, *, ours: bool = False
) -> bytes:
    body = _NDMSG.pack(AF_INET6, ifindex, state, ntf, 0) + _attribute(_NDA_DST, address)
    if ours:
        body += _attribute(_NDA_PROTOCOL, bytes([PROTOCOL]))
    return _message(kind, flags, sequence, body)
