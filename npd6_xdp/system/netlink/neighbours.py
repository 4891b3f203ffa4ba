# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink at the pace of packets: neighbours watched, resolved and proxied, host routes set and watched.

What is rarer, links and addresses, is system/netlink/links.py's; routing tables are system/netlink/routes.py's.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from npd6_xdp.core import route_filter, rtnetlink
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.places import Word
from npd6_xdp.core.rtnetlink import Message, NeighbourEntry, NeighbourState, RouteEntry, Type
from npd6_xdp.system.netlink import nlsocket
from npd6_xdp.system.netlink.nlsocket import Announcements, Overflow, Refused

_RTNLGRP_NEIGH, _RTNLGRP_IPV6_ROUTE = 3, 11
_ATTEMPTS = 5
_GONE = errno.ENODEV  # what the kernel says of an interface that is no more, nor are its routes


class Requests:
    """Asks the kernel and waits for its answer, which is there when the question is sent."""

    def __init__(self) -> None:
        self._socket = nlsocket.opened(blocking=True)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    @property
    def port(self) -> int:
        """The socket's address, which announcements of what it asked for bear as their sender."""
        return int(self._socket.getsockname()[0])

    def neighbours(self) -> dict[Host, Word]:
        """The IPv6 neighbour table by host; see NeighbourWatch.table() for why its hash is looked at."""
        for _ in range(_ATTEMPTS):
            before = self._neighbour_hash()
            entries = self._dump_neighbours(proxies=False)
            if self._neighbour_hash() == before:
                break
        return {Host(entry.ifindex, entry.address): Word(entry.state, entry.mac) for entry in entries}

    def neighbour(self, host: Host) -> Word:
        """What the neighbour table says of a host; NUD_NONE where it has none. 20 us. Raises MachineError."""
        try:
            found = self._asked(rtnetlink.get_neighbour(self._next(), *host)).messages
        except Refused:
            found = []
        except OSError as error:
            raise MachineError(f"can't read from the kernel: {error.strerror or error}") from error
        entry = next(filter(None, (rtnetlink.parse_neighbour(message.body) for message in found)), None)
        return Word(entry.state, entry.mac) if entry else Word(NeighbourState.NONE)

    def proxies(self) -> dict[Host, int]:
        """The proxy entries of the neighbour table: protocol numbers by host."""
        entries = self._dump_neighbours(proxies=True)
        return {Host(entry.ifindex, entry.address): entry.protocol for entry in entries}

    def has_proxy(self, host: Host) -> bool:
        """Whether there is a proxy entry, whoever it belongs to. Raises MachineError if the kernel doesn't say."""
        try:
            return bool(self._asked(rtnetlink.get_proxy(self._next(), *host)).messages)
        except Refused:
            return False
        except OSError as error:
            raise MachineError(f"can't read from the kernel: {error.strerror or error}") from error

    def add_proxy(self, host: Host) -> int:
        """Add a proxy entry of ours; 0, or why not (errno)."""
        return self._acknowledged(rtnetlink.add_proxy(self._next(), *host))

    def delete_proxy(self, host: Host) -> int:
        """Remove a proxy entry; 0, or why not."""
        return self._acknowledged(rtnetlink.delete_proxy(self._next(), *host))

    def add_host_route(self, host: Host, table: int) -> int:
        """Add a /128 route of ours to a routing table; 0, or why not: EEXIST where there is one like it."""
        return self._acknowledged(rtnetlink.host_route(Type.NEWROUTE, self._next(), *host, table))

    def delete_host_route(self, host: Host, table: int) -> int:
        """Remove a /128 route of ours from a routing table; 0, or why not: ESRCH where there is none of ours."""
        return self._acknowledged(rtnetlink.host_route(Type.DELROUTE, self._next(), *host, table))

    def has_host_route(self, host: Host, table: int) -> bool:
        """Whether a /128 route like ours is there, whoever has added it; False where the kernel doesn't say."""
        try:
            found = self._asked(rtnetlink.match_route(host.address, self._next(), host.ifindex)).messages
        except OSError:
            return False
        return any((host, table) in _host_routes((message,)) for message in found)

    def host_routes(self) -> dict[Host, int]:
        """The /128 routes that bear our protocol number, with their routing tables."""
        return dict(_host_routes(self._dumped(_dump_host_routes)))

    def neighbour_table_size(self) -> tuple[int, tuple[int, int, int]] | None:
        """How many entries the kernel's IPv6 neighbour table has, in all namespaces, and gc_thresh1 to 3.

        By netlink, since the sysctls are in the first network namespace only. None where the kernel doesn't say.
        """
        found = map(rtnetlink.parse_neighbour_table, (m.body for m in self._dumped(rtnetlink.dump_neighbour_tables)))
        return next((size for size in found if size is not None), None)

    def _neighbour_hash(self) -> tuple[int, int] | None:
        return _hash_in(self._dumped(rtnetlink.dump_neighbour_tables))

    def _dump_neighbours(self, *, proxies: bool) -> list[NeighbourEntry]:
        dumped = self._dumped(lambda number: rtnetlink.dump_neighbours(number, proxies=proxies))
        entries = (rtnetlink.parse_neighbour(message.body) for message in dumped)
        return [entry for entry in entries if entry and entry.proxy == proxies]

    def _dumped(self, request: Callable[[int], bytes]) -> list[Message]:
        for _ in range(_ATTEMPTS):
            number = self._next()
            try:
                found, whole = self._asked(request(number))
            except Refused as error:
                if error.errno == _GONE:
                    return []
                raise MachineError(f"can't read from the kernel: {error.strerror}") from error
            except OSError as error:
                raise MachineError(f"can't read from the kernel: {error.strerror or error}") from error
            if whole:
                break  # else something changed while the kernel told it
        return found

    def _acknowledged(self, request: bytes) -> int:
        try:
            self._asked(request)
        except OSError as error:
            return error.errno or errno.ETIMEDOUT
        return 0

    def _asked(self, request: bytes) -> nlsocket.Answer:
        return nlsocket.ask(self._socket, request, self._sequence)

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        return self._sequence


def _host(entry: NeighbourEntry) -> Host:
    return Host(entry.ifindex, entry.address)


def _hash_in(dumped: Iterable[Message]) -> tuple[int, int] | None:
    return next(filter(None, (rtnetlink.parse_neighbour_hash(message.body) for message in dumped)), None)


def _dump_host_routes(number: int) -> bytes:
    return rtnetlink.dump_routes(number, protocol=rtnetlink.PROTOCOL)


def _host_routes(dumped: Iterable[Message]) -> Iterator[tuple[Host, int]]:
    for message in dumped:
        route = rtnetlink.parse_route(message.body)
        if route and route.protocol == rtnetlink.PROTOCOL and route.length == 128:
            yield Host(route.ifindex, route.destination), route.table


class _Group(Announcements):
    """A group of announcements, heard while listen() says so."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self._listening = False

    def listen(self, *, wanted: bool) -> bool:
        """Hear of changes from now on, or no longer; whether that is news. Each listener costs the kernel something."""
        if wanted == self._listening:
            return False
        self._listening, self.lost = wanted, False
        nlsocket.join(self.socket, self._number, wanted=wanted)
        if not wanted:
            nlsocket.discard(self.socket)
        return True


class _Dump:
    """Reads what the kernel tells at length in pieces, which it makes as they are taken."""

    def __init__(self) -> None:
        self._socket = nlsocket.opened(blocking=True)
        self._number = 0
        self._telling = False  # the kernel hasn't come to the end of an answer

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def pieces(self, request: Callable[[int], bytes]) -> Iterator[list[Message]]:
        """The messages of an answer, some hundreds at a time.

        Raises MachineError where the kernel doesn't tell, and Overflow at the end if something changed meanwhile so
        that it may not be whole. Of an answer that was given up the rest comes first, as empty pieces: the kernel
        begins no other before that has ended (EBUSY).
        """
        self._number += 1
        whole, ended = True, False
        try:
            while self._telling:
                rest = rtnetlink.messages(self._socket.recv(nlsocket.DATAGRAM))
                self._telling = all(message.type != Type.DONE for message in rest)
                yield []
            self._socket.send(request(self._number))
            self._telling = True
            while not ended:
                piece: list[Message] = []
                for message in rtnetlink.messages(self._socket.recv(nlsocket.DATAGRAM)):
                    if message.sequence != self._number:
                        continue  # of a reading that was given up
                    whole = whole and not message.flags & rtnetlink.Flag.DUMP_INTERRUPTED
                    if ended := nlsocket.is_last(message):
                        break
                    piece.append(message)
                self._telling = not ended
                yield piece
        except OSError as error:
            self._telling = error.errno == errno.EBUSY
            raise MachineError(f"can't read from the kernel: {error.strerror or error}") from error
        if not whole:
            raise Overflow


_PROBES = 8192  # whose hosts are known, the last ones: refusals come with the probe, and are read in the same turn


class NeighbourWatch:
    """Says what changes in the neighbour table (`fileno` becomes readable), and has the kernel resolve targets.

    It hears of changes while listen() says so.
    """

    def __init__(self) -> None:
        self._changes = _Group(_RTNLGRP_NEIGH)
        self._probes = nlsocket.opened()
        self._dump = _Dump()
        self._sent: dict[int, Host] = {}
        self._sequence = 0

    def close(self) -> None:
        """Close all sockets."""
        self._changes.socket.close()
        self._probes.close()
        self._dump.close()

    def fileno(self) -> int:
        """The socket of notifications."""
        return self._changes.socket.fileno()

    def refusals_fileno(self) -> int:
        """The socket on which the kernel says what it doesn't resolve."""
        return self._probes.fileno()

    def listen(self, *, wanted: bool) -> bool:
        """Hear of changes from now on, or no longer; whether that is news."""
        return self._changes.listen(wanted=wanted)

    @property
    def unfinished(self) -> bool:
        """Whether changes() is to be called again, even if `fileno` isn't readable."""
        return self._changes.lost

    def changes(self, deadline: float) -> Iterator[tuple[Host, Word]]:
        """What changed, in order: hosts and the word for them, NUD_NONE where an entry is gone. Raises Overflow.

        It ends at the deadline (seconds, monotonic), and what is left waits.
        """
        for message in self._changes.messages(deadline):
            entry = rtnetlink.parse_neighbour(message.body)
            if entry is not None and not entry.proxy:
                gone = message.type == Type.DELNEIGH
                yield _host(entry), Word(NeighbourState.NONE) if gone else Word(entry.state, entry.mac)

    def table(self) -> Iterator[list[tuple[Host, Word]]]:
        """The neighbour table in pieces: see _Dump.pieces().

        A dump goes on at a bucket's number. When the table, which all network namespaces share, has outgrown its
        buckets meanwhile, others are in each of them: of 20,000 entries 1,900 were left out, and no flag says so.
        """
        before: list[Message] = []
        for piece in self._dump.pieces(rtnetlink.dump_neighbour_tables):
            before += piece
            yield []
        for piece in self._dump.pieces(rtnetlink.dump_neighbours):
            entries = (rtnetlink.parse_neighbour(message.body) for message in piece)
            yield [(_host(entry), Word(entry.state, entry.mac)) for entry in entries if entry and not entry.proxy]
        after: list[Message] = []
        for piece in self._dump.pieces(rtnetlink.dump_neighbour_tables):
            after += piece
            yield []
        if _hash_in(before) != _hash_in(after):
            raise Overflow

    def probe(self, host: Host, keep: NeighbourState = NeighbourState.NONE) -> None:
        """Have the kernel resolve a host, or confirm it in its time where it is stale. refusals() says what it won't.

        `keep` is what of LOOKED_AFTER its entry has.
        """
        self._sequence = self._sequence % _PROBES + 1  # 0 is what nobody asks the fate of
        self._sent[self._sequence] = host
        self._send(rtnetlink.probe_neighbour(self._sequence, *host, keep))

    def confirm(self, host: Host, keep: NeighbourState = NeighbourState.NONE) -> None:
        """Have the kernel ask a host that it has an entry of, and now."""
        self._send(rtnetlink.confirm_neighbour(0, *host, keep))

    def delete(self, host: Host) -> None:
        """Take out an entry that nobody needs: a target that isn't there."""
        self._send(rtnetlink.delete_neighbour(0, *host))

    def refusals(self, deadline: float) -> Iterator[tuple[Host, int]]:
        """What the kernel didn't do of the probes that were asked for, and why (errno); until the deadline."""
        try:
            for datagram in nlsocket.received(self._probes, deadline):
                for message in rtnetlink.messages(datagram):
                    host = self._sent.get(message.sequence)
                    if message.type == Type.ERROR and host is not None:
                        yield host, rtnetlink.error_code(message.body)
        except OSError as error:  # some refusals are lost: those targets are given up by their age
            nlsocket.unless_full(error, "refusals")

    def _send(self, request: bytes) -> None:
        try:
            self._probes.send(request)
        except OSError:
            return  # no room in our own queue: as if the kernel had found nobody


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
        self._changes = _Group(_RTNLGRP_IPV6_ROUTE)
        program = route_filter.host_routes_of_others(ours)
        code = route_filter.pack(program)
        nlsocket.attach_filter(self._changes.socket, code)
        self._dump = _Dump()

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
    def unfinished(self) -> bool:
        """Whether changes() is to be called again, even if `fileno` isn't readable."""
        return self._changes.lost

    def changes(self, deadline: float) -> Iterator[RouteChange]:
        """What changed, in order, until the deadline. Raises Overflow."""
        for message in self._changes.messages(deadline):
            route = rtnetlink.parse_route(message.body)
            if route is not None and route.length == 128:
                gone, replaced = message.type == Type.DELROUTE, bool(message.flags & rtnetlink.Flag.REPLACE)
                yield RouteChange(route, gone, replaced, message.sender)

    def routes(self) -> Iterator[list[tuple[Host, int]]]:
        """The /128 routes that bear our number, with their routing tables, in pieces: see _Dump.pieces()."""
        for piece in self._dump.pieces(_dump_host_routes):
            yield [*_host_routes(piece)]
