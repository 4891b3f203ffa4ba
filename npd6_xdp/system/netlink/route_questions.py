# SPDX-License-Identifier: GPL-2.0-or-later
"""For method route, what the kernel would do with a packet: asked, and told when that may be different now."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from npd6_xdp.core import route_filter, route_messages
from npd6_xdp.core.route_messages import RouteEntry, RouteReply
from npd6_xdp.core.routes import (
    RouteQuestion,
    is_behind,
)
from npd6_xdp.core.rtnetlink import Type
from npd6_xdp.system.netlink import nlsocket
from npd6_xdp.system.netlink.nlsocket import Group, Refused
from npd6_xdp.system.packets import attach_filter

_LEAST_BUFFER = 1  # the kernel makes the least of it: who only wants to know that there is something needs no more
_NOTHING_THERE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES, errno.ENODEV, errno.EAGAIN}


class RouteQuestions:
    """Asks the kernel what it would do with a packet."""

    def __init__(self) -> None:
        self._asking = nlsocket.Asking()

    def close(self) -> None:
        """Close the socket."""
        self._asking.close()

    def is_behind(self, asked: RouteQuestion) -> bool | None:
        """Whether a target is there, for method route; None: the kernel doesn't tell."""
        reply = self.ask(asked)
        return None if reply is None else judge(reply, asked)

    def route(self, asked: RouteQuestion) -> RouteEntry | None:
        """The route that it would go by; None: none, or not one to another machine."""
        try:
            found = self._asking.ask(
                lambda number: route_messages.get_route(
                    number, asked.came_in_by, asked.source, asked.target, matched=True
                )
            ).messages
        except OSError:
            return None
        return next((route_messages.parse_route(message.body) for message in found), None)

    def ask(self, asked: RouteQuestion) -> RouteReply | None:
        """What the kernel would do; None: it doesn't tell.

        Where no route leads there, or one that says so (unreachable, blackhole, prohibit), it is of type UNSPEC.
        """
        try:
            found = self._asking.ask(
                lambda number: route_messages.get_route(number, asked.came_in_by, asked.source, asked.target)
            ).messages
        except Refused as refused:
            return RouteReply(route_messages.RouteType.UNSPEC, 0) if refused.errno in _NOTHING_THERE else None
        except OSError:
            return None
        routes = (message.body for message in found if message.type == Type.NEWROUTE)
        return next(map(route_messages.parse_route_reply, routes), RouteReply(route_messages.RouteType.UNSPEC, 0))


def judge(reply: RouteReply, asked: RouteQuestion) -> bool:
    """Whether a target is there by what the kernel has said, for method route."""
    return is_behind(reply, asked, forwarding=_is_forwarding(asked.came_in_by))


def _is_forwarding(ifindex: int) -> bool:
    """Whether an interface forwards what comes in there: a route says nothing of that."""
    try:
        name = socket.if_indextoname(ifindex)
        return Path(f"/proc/sys/net/ipv6/conf/{name}/forwarding").read_text().strip() != "0"
    except OSError:
        return False  # it is gone


class RouteChanges:
    """Tells that something about routes has changed, at the cost of a filter's run a change while nobody listens.

    That is: routes, rules, nexthop objects, and whether interfaces forward. `fileno` becomes readable after listen().
    """

    def __init__(self) -> None:
        groups = Group.IPV6_ROUTE, Group.IPV6_RULE, Group.IPV6_NETCONF, Group.NEXTHOP
        self._socket = nlsocket.opened(*groups, buffer=_LEAST_BUFFER)
        self.ignore()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """The socket."""
        return self._socket.fileno()

    def listen(self) -> None:
        """Tell of the next change."""
        attach_filter(self._socket, route_filter.pack(route_filter.SIGNS))

    def ignore(self) -> None:
        """Tell of none from now on."""
        attach_filter(self._socket, route_filter.pack(route_filter.NOTHING))
        nlsocket.discard(self._socket)
