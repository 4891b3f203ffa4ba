# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel is asked for at the pace of packets: neighbours and proxy entries told, host routes set."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator

from npd6_xdp.core import neighbour_messages, route_messages, rtnetlink
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.neighbour_messages import NeighbourEntry, NeighbourState, Word
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.rtnetlink import Message, Type
from npd6_xdp.system.netlink.nlsocket import ATTEMPTS, Asking, Refused

_GONE = errno.ENODEV  # what the kernel says of an interface that is no more, nor are its routes


class Requests:
    """Asks the kernel and waits for its answer, which is there when the question is sent."""

    def __init__(self) -> None:
        self._asking = Asking()

    def close(self) -> None:
        """Close the socket."""
        self._asking.close()

    @property
    def port(self) -> int:
        """The socket's address, which announcements of what it asked for bear as their sender."""
        return int(self._asking.socket.getsockname()[0])

    def neighbours(self) -> dict[Host, Word]:
        """The IPv6 neighbour table by host; see NeighbourWatch.table() for why its hash is looked at."""
        for _ in range(ATTEMPTS):
            before = self._neighbour_hash()
            entries = self._dump_neighbours(proxy_entries=False)
            if self._neighbour_hash() == before:
                break
        return {Host(entry.ifindex, entry.address): Word(entry.state, entry.mac) for entry in entries}

    def neighbour(self, host: Host) -> Word:
        """What the neighbour table says of a host; NUD_NONE where it has none. 20 us. Raises MachineError."""
        try:
            found = self._asking.ask(lambda number: neighbour_messages.get_neighbour(number, *host)).messages
        except Refused:
            found = []
        except OSError as error:
            raise MachineError(f"can't read from the kernel: {error.strerror or error}") from error
        entry = next(filter(None, (neighbour_messages.parse_neighbour(message.body) for message in found)), None)
        return Word(entry.state, entry.mac) if entry else Word(NeighbourState.NONE)

    def proxy_entries(self) -> dict[Host, int]:
        """The proxy entries of the neighbour table: protocol numbers by host."""
        entries = self._dump_neighbours(proxy_entries=True)
        return {Host(entry.ifindex, entry.address): entry.protocol for entry in entries}

    def has_proxy(self, host: Host) -> bool:
        """Whether there is a proxy entry, whoever it belongs to. Raises MachineError if the kernel doesn't say."""
        try:
            return bool(self._asking.ask(lambda number: neighbour_messages.get_proxy(number, *host)).messages)
        except Refused:
            return False
        except OSError as error:
            raise MachineError(f"can't read from the kernel: {error.strerror or error}") from error

    def add_proxy(self, host: Host) -> int:
        """Add a proxy entry of ours; 0, or why not (errno)."""
        return self._acknowledged(lambda number: neighbour_messages.add_proxy(number, *host))

    def delete_proxy(self, host: Host) -> int:
        """Remove a proxy entry; 0, or why not."""
        return self._acknowledged(lambda number: neighbour_messages.delete_proxy(number, *host))

    def add_host_route(self, host: Host, table: int) -> int:
        """Add a /128 route of ours to a routing table; 0, or why not: EEXIST where there is one like it."""
        return self._acknowledged(lambda number: route_messages.host_route(Type.NEWROUTE, number, *host, table))

    def delete_host_route(self, host: Host, table: int) -> int:
        """Remove a /128 route of ours from a routing table; 0, or why not: ESRCH where there is none of ours."""
        return self._acknowledged(lambda number: route_messages.host_route(Type.DELROUTE, number, *host, table))

    def has_host_route(self, host: Host, table: int) -> bool:
        """Whether a /128 route like ours is there, whoever has added it; False where the kernel doesn't say."""
        try:
            found = self._asking.ask(
                lambda number: route_messages.match_route(host.address, number, host.ifindex)
            ).messages
        except OSError:
            return False
        return any((host, table) in host_routes_in((message,)) for message in found)

    def host_routes(self) -> dict[Host, int]:
        """The /128 routes that bear our protocol number, with their routing tables."""
        return dict(host_routes_in(self._dumped(dump_host_routes)))

    def neighbour_table_size(self) -> tuple[int, tuple[int, int, int]] | None:
        """How many entries the kernel's IPv6 neighbour table has, in all namespaces, and gc_thresh1 to 3.

        By netlink, since the sysctls are in the first network namespace only. None where the kernel doesn't say.
        """
        found = map(
            neighbour_messages.parse_neighbour_table,
            (m.body for m in self._dumped(neighbour_messages.dump_neighbour_tables)),
        )
        return next((size for size in found if size is not None), None)

    def _neighbour_hash(self) -> tuple[int, int] | None:
        return hash_in(self._dumped(neighbour_messages.dump_neighbour_tables))

    def _dump_neighbours(self, *, proxy_entries: bool) -> list[NeighbourEntry]:
        dumped = self._dumped(lambda number: neighbour_messages.dump_neighbours(number, proxy_entries=proxy_entries))
        entries = (neighbour_messages.parse_neighbour(message.body) for message in dumped)
        return [entry for entry in entries if entry and entry.proxy == proxy_entries]

    def _dumped(self, request: Callable[[int], bytes]) -> list[Message]:
        try:
            return self._asking.dump(request)
        except OSError as error:
            if isinstance(error, Refused) and error.errno == _GONE:
                return []
            raise MachineError(f"can't read from the kernel: {error.strerror or error}") from error

    def _acknowledged(self, request: Callable[[int], bytes]) -> int:
        try:
            self._asking.ask(request)
        except OSError as error:
            return error.errno or errno.ETIMEDOUT
        return 0


def hash_in(dumped: Iterable[Message]) -> tuple[int, int] | None:
    """Seed and mask of the neighbour table's hash, if a dump has them."""
    return next(filter(None, (neighbour_messages.parse_neighbour_hash(message.body) for message in dumped)), None)


def dump_host_routes(number: int) -> bytes:
    """Ask for the routes of our protocol number; `number` is the request's."""
    return route_messages.dump_routes(number, protocol=rtnetlink.PROTOCOL)


def host_routes_in(dumped: Iterable[Message]) -> Iterator[tuple[Host, int]]:
    """The hosts that routes of ours lead to, each with its routing table."""
    for message in dumped:
        route = route_messages.parse_route(message.body)
        if route and route.protocol == rtnetlink.PROTOCOL and route.length == 128:
            yield Host(route.ifindex, route.destination), route.table
