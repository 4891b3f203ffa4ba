# SPDX-License-Identifier: GPL-2.0-or-later
"""What is asked of the kernel once, for a look at the whole machine: all routes, ways of packets, drivers' features."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core import link_messages, neighbour_messages, route_messages, rtnetlink
from npd6_xdp.core.neighbour_messages import NeighbourEntry
from npd6_xdp.core.route_messages import RouteReply, RouteType
from npd6_xdp.core.rtnetlink import Type
from npd6_xdp.core.survey import Way, parse_way
from npd6_xdp.system.netlink.nlsocket import Asking, Refused

_NETLINK_GENERIC = 16
_GENL_ID_CTRL, _CTRL_GETFAMILY = 16, 3
_CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 1, 2
_NETDEV_DEV_GET, _NETDEV_IFINDEX, _NETDEV_XDP_FEATURES = 1, 1, 3  # linux/netdev.h, Linux 6.3
_GENL = struct.Struct("=BBxx")  # struct genlmsghdr
_NLMSG = struct.Struct("=IHHII")
_REQUEST = 1
_REFUSED_BY = {errno.ENETUNREACH: RouteType.UNSPEC, errno.EINVAL: 6, errno.EHOSTUNREACH: 7, errno.EACCES: 8}
"""What a refusal says: no route, or one of type blackhole, unreachable, prohibit (fib6_prop, net/ipv6/route.c)."""
_IFINFOMSG_SIZE = 16
_IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_INFO_DATA = 18, 1, 2
_IFLA_BR_MCAST = (22, 23, 25)  # IFLA_BR_MCAST_ROUTER, _SNOOPING, _QUERIER
_NTF_ROUTER = 0x80
_NDM_FLAGS = 10  # the byte of struct ndmsg

NATIVE_XDP = 1
"""NETDEV_XDP_ACT_BASIC: the driver runs XDP programs, with XDP_TX among what they may say."""


class BridgeSettings(NamedTuple):
    """Of a bridge: whether it snoops MLD and asks for listeners itself, and its multicast_router (2: it always is)."""

    snooping: bool
    querier: bool
    router: int


class Inspection:
    """Asks; each question is answered when it is asked. Raises OSError where the kernel gives no answer."""

    def __init__(self) -> None:
        self._asking = Asking()

    def close(self) -> None:
        """Close the socket."""
        self._asking.close()

    def routes(self) -> list[Way]:
        """The routes of all tables, of whichever type."""
        every = partial(route_messages.dump_routes, kind=RouteType.UNSPEC)
        found = map(parse_way, (message.body for message in self._asking.dump(every)))
        return [way for way in found if way is not None]

    def bridges(self) -> dict[int, BridgeSettings]:
        """The bridges, by index."""
        found = {}
        for message in self._asking.dump(link_messages.dump_links):
            attributes = dict(rtnetlink.attributes_of(message.body, _IFINFOMSG_SIZE))
            info = dict(rtnetlink.attributes_of(attributes.get(_IFLA_LINKINFO, b""), 0))
            if info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0") == b"bridge":
                data = dict(rtnetlink.attributes_of(info.get(_IFLA_INFO_DATA, b""), 0))
                router, snooping, querier = (rtnetlink.number(data.get(kind, b"")) for kind in _IFLA_BR_MCAST)
                ifindex = int(struct.unpack_from("=i", message.body, 4)[0])
                found[ifindex] = BridgeSettings(bool(snooping), bool(querier), router)
        return found

    def way(self, target: IPv6Address, came_in_by: int) -> RouteReply | None:
        """What the kernel does with a packet for a target that comes in by an interface; None: it doesn't say."""
        try:
            found = self._asking.ask(
                lambda number: route_messages.get_route(number, came_in_by, bytes(16), target.packed)
            ).messages
        except Refused as refused:
            kind = _REFUSED_BY.get(refused.errno or 0)
            return None if kind is None else RouteReply(kind, 0)
        replies = (route_messages.parse_route_reply(each.body) for each in found if each.type == Type.NEWROUTE)
        return next(replies, None)

    def neighbours(self) -> list[tuple[NeighbourEntry, bool]]:
        """The neighbour table, each line with whether that neighbour says that it is a router."""
        return [
            (entry, bool(message.body[_NDM_FLAGS] & _NTF_ROUTER))
            for message in self._asking.dump(neighbour_messages.dump_neighbours)
            if (entry := neighbour_messages.parse_neighbour(message.body)) is not None and not entry.proxy
        ]


def is_promiscuous(ifindex: int) -> bool:
    """Whether an interface takes in all frames, for whoever wants that: a user, a bridge, tcpdump."""
    try:
        with closing(Asking()) as asking:
            found = asking.ask(lambda number: link_messages.get_link(number, ifindex)).messages
    except OSError:
        return False
    return any(link_messages.parse_promiscuity(message.body) > 0 for message in found)


def xdp_features(ifindexes: list[int]) -> dict[int, int]:
    """NETDEV_XDP_ACT_* of some interfaces' drivers, by the family `netdev` of generic netlink; none where the kernel
    has no such family (before Linux 6.3).
    """
    found: dict[int, int] = {}
    try:
        with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC)) as netlink:
            netlink.settimeout(5.0)
            name = rtnetlink.pack_attribute(_CTRL_ATTR_FAMILY_NAME, b"netdev\0")
            family = next(_answer(netlink, _GENL_ID_CTRL, _CTRL_GETFAMILY, name, _CTRL_ATTR_FAMILY_ID), None)
            for ifindex in ifindexes if family is not None else ():
                index = rtnetlink.pack_attribute(_NETDEV_IFINDEX, struct.pack("=I", ifindex))
                for value in _answer(netlink, family or 0, _NETDEV_DEV_GET, index, _NETDEV_XDP_FEATURES):
                    found[ifindex] = value
    except OSError:
        pass
    return found


def _answer(netlink: socket.socket, family: int, command: int, body: bytes, wanted: int) -> Iterator[int]:
    """The number that an attribute of the answer is; none where the kernel refuses."""
    payload = _GENL.pack(command, 1) + body
    netlink.send(_NLMSG.pack(_NLMSG.size + len(payload), family, _REQUEST, 1, 0) + payload)
    for message in rtnetlink.messages(netlink.recv(1 << 16)):
        if message.type == family:
            attributes = dict(rtnetlink.attributes_of(message.body, _GENL.size))
            if wanted in attributes:
                yield rtnetlink.number(attributes[wanted])
