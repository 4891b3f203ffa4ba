# SPDX-License-Identifier: GPL-2.0-or-later
"""/128 routes of ours, and what others do to them: watched at no cost for all other routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from npd6_xdp.core import route_filter, route_messages, rtnetlink
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.route_messages import RouteEntry
from npd6_xdp.core.rtnetlink import Type
from npd6_xdp.system.netlink import nlsocket
from npd6_xdp.system.netlink.dumps import SlicedDump
from npd6_xdp.system.netlink.requests import dump_host_routes, host_routes_in
from npd6_xdp.system.packets import attach_filter


class RouteChange(NamedTuple):
    """A route that is new, in another's place (`replaced`), or `gone`. `sender` is who asked for it: see Message."""

    route: RouteEntry
    gone: bool
    replaced: bool
    sender: int


class HostRouteWatch:
    """Says what others do to routes of ours and to /128 routes (`fileno` becomes readable), while listen() says so.

    The kernel sorts out all else, so that a routing table of any size may change at no cost here. `ours` is the sender
    of what we do ourselves.
    """

    def __init__(self, ours: int) -> None:
        self._changes = nlsocket.Switched(nlsocket.Group.IPV6_ROUTE)
        program = route_filter.host_routes_of_others(ours)
        code = route_filter.pack(program)
        attach_filter(self._changes.socket, code)
        self._dump = SlicedDump()

    def close(self) -> None:
        """Close both sockets."""
        self._changes.socket.close()
        self._dump.close()

    def fileno(self) -> int:
        """The socket of announcements."""
        return self._changes.socket.fileno()

    def listen(self, *, wanted: bool) -> bool:
        """Hear of changes from now on, or no longer; whether that is news."""
        return self._changes.listen(wanted=wanted)

    @property
    def listening(self) -> bool:
        """Whether it hears of changes."""
        return self._changes.listening

    @property
    def unfinished(self) -> bool:
        """Whether take_changes() is to be called again, even if `fileno` isn't readable."""
        return self._changes.lost

    def take_changes(self, deadline: float) -> Iterator[RouteChange]:
        """What changed, in order, until the deadline. Raises Overflow."""
        for message in self._changes.take_messages(deadline):
            route = route_messages.parse_route(message.body)
            if route is not None and route.length == 128:
                gone, replaced = message.type == Type.DELROUTE, bool(message.flags & rtnetlink.Flag.REPLACE)
                yield RouteChange(route, gone, replaced, message.sender)

    def routes(self) -> Iterator[list[tuple[Host, int]]]:
        """The /128 routes that bear our number, with their routing tables, in pieces: see SlicedDump.pieces()."""
        for piece in self._dump.pieces(dump_host_routes):
            yield [*host_routes_in(piece)]
