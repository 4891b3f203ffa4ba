# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel tells of this machine's links, addresses, routes and neighbours, asked for once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from npd6_xdp.core import link_messages, neighbour_messages, route_messages, survey
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.neighbour_messages import NeighbourEntry
from npd6_xdp.core.route_messages import RouteType
from npd6_xdp.core.survey import Held, Way
from npd6_xdp.system.netlink.nlsocket import Asking

T = TypeVar("T")


class Survey(NamedTuple):
    """All of it."""

    links: tuple[LinkEntry, ...]
    addresses: tuple[Held, ...]
    routes: tuple[Way, ...]
    neighbours: tuple[NeighbourEntry, ...]


def look() -> Survey:
    """Ask the kernel. Needs no privilege. Raises MachineError where it doesn't tell."""
    asking = Asking()

    def told(what: str, request: Callable[[int], bytes], parse: Callable[[bytes], T | None]) -> tuple[T, ...]:
        try:
            found = asking.dump(request, all_lines=True)
        except OSError as error:
            raise MachineError(f"can't read {what} from the kernel: {error.strerror or error}") from error
        values = (parse(message.body) for message in found)
        return tuple(dict.fromkeys(value for value in values if value is not None))

    try:
        return Survey(
            told("links", link_messages.dump_links, link_messages.parse_link),
            told("addresses", link_messages.dump_addresses, survey.parse_held),
            told(
                "routes",
                lambda sequence: route_messages.dump_routes(sequence, kind=RouteType.UNSPEC),
                survey.parse_way,
            ),
            told("neighbours", neighbour_messages.dump_neighbours, neighbour_messages.parse_neighbour),
        )
    finally:
        asking.close()
