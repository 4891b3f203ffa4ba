# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink at the pace of packets: neighbours watched, resolved and proxied, next hops watched, host routes set.

What is rarer, links and addresses, is system/netlink.py's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core import rtnetlink
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.rtnetlink import Message, NeighbourEntry, NeighbourState, RouteEntry, Type

_RTMGRP_IPV6_ROUTE = 0x400
_RTNLGRP_NEIGH, _RTNLGRP_IPV6_ROUTE = 3, 11
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP, _NETLINK_DROP_MEMBERSHIP = 1, 2
_NETLINK_GET_STRICT_CHK = 12
_SO_RCVBUFFORCE = 33
_SO_ATTACH_FILTER = 26
_RECEIVE_BUFFER = 8 << 20
_DATAGRAM = 1 << 18
_ATTEMPTS = 5
_TIMEOUT = 5.0  # seconds for the kernel to answer, which it does at once
_LEAST_PAUSE = 0.05  # seconds between two readings of the routes
_GONE = errno.ENODEV  # what the kernel says of an interface that is no more, nor are its routes
_RETRY = 1.0  # seconds after which what the kernel refused to tell is asked for again
_PAUSE = 10  # times what a reading took: a storm of routes takes at most a tenth of our time


def _open(groups: int = 0, *, blocking: bool = False) -> socket.socket:
    """Raises MachineError where the kernel gives none: there are no more file descriptors, say."""
    try:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        opened.setblocking(blocking)
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except PermissionError:  # takes CAP_NET_ADMIN in the first namespace; as much as anybody may have, then
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        opened.bind((0, groups))
    except OSError as error:
        raise MachineError(f"can't open a netlink socket: {error.strerror or error}") from error
    return opened


def _received(netlink: socket.socket) -> Iterator[bytes]:
    """The datagrams that wait on a socket. Raises OSError with ENOBUFS where the kernel had to drop some."""
    while True:
        try:
            yield netlink.recv(_DATAGRAM)
        except BlockingIOError:
            return


def _received_until(netlink: socket.socket, deadline: float) -> Iterator[bytes]:
    """As _received(), but no further once it is `deadline` (seconds, monotonic): the rest waits for the next time."""
    for datagram in _received(netlink):
        yield datagram
        if time.monotonic() >= deadline:
            return


def _unless_full(error: OSError) -> None:
    """ENOBUFS says that announcements were dropped, and is to be made up for. Raises MachineError for all else."""
    if error.errno != errno.ENOBUFS:
        raise MachineError(f"can't read changes from the kernel: {error.strerror or error}") from error


def _discard(netlink: socket.socket) -> None:
    """Drop what waits on a socket: what is read anew now is younger, and must not be overwritten by it."""
    while True:
        try:
            netlink.recv(_DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            _unless_full(error)


class Requests:
    """Asks the kernel and waits for its answer, which is there when the question is sent."""

    def __init__(self) -> None:
        self._socket = _open(blocking=True)
        self._socket.settimeout(5.0)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    @property
    def port(self) -> int:
        """The socket's address, which announcements of what it asked for bear as their sender."""
        return int(self._socket.getsockname()[0])

    def neighbours(self) -> dict[Host, int]:
        """The IPv6 neighbour table: states by host."""
        entries = self._dump_neighbours(proxies=False)
        return {Host(entry.ifindex, entry.address): entry.state for entry in entries}

    def proxies(self) -> dict[Host, int]:
        """The proxy entries of the neighbour table: protocol numbers by host."""
        entries = self._dump_neighbours(proxies=True)
        return {Host(entry.ifindex, entry.address): entry.protocol for entry in entries}

    def has_proxy(self, host: Host) -> bool:
        """Whether there is a proxy entry, whoever it belongs to. Raises MachineError if the kernel doesn't say."""
        try:
            return self._answer(rtnetlink.get_proxy(self._next(), *host)).type == Type.NEWNEIGH
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

    def host_routes(self) -> dict[Host, int]:
        """The /128 routes that bear our protocol number, with their routing tables."""
        return dict(_host_routes(self._dumped(_dump_host_routes)))

    def neighbour_table_size(self) -> tuple[int, tuple[int, int, int]] | None:
        """How many entries the kernel's IPv6 neighbour table has, in all namespaces, and gc_thresh1 to 3.

        By netlink, since the sysctls are in the first network namespace only. None where the kernel doesn't say.
        """
        found = map(rtnetlink.parse_neighbour_table, (m.body for m in self._dumped(rtnetlink.dump_neighbour_tables)))
        return next((size for size in found if size is not None), None)

    def gateways(self, ifindex: int) -> set[tuple[int, bytes]]:
        """The gateways of the routes out of an interface: (ifindex, 16 bytes), those of their other paths, too."""
        dumped = self._dumped(lambda number: rtnetlink.dump_routes(number, ifindex=ifindex))
        routes = (rtnetlink.parse_route(message.body) for message in dumped)
        return {pair for route in routes if route for pair in route.gateways}

    def _dump_neighbours(self, *, proxies: bool) -> list[NeighbourEntry]:
        dumped = self._dumped(lambda number: rtnetlink.dump_neighbours(number, proxies=proxies))
        entries = (rtnetlink.parse_neighbour(message.body) for message in dumped)
        return [entry for entry in entries if entry and entry.proxy == proxies]

    def _dumped(self, request: Callable[[int], bytes]) -> list[Message]:
        for _ in range(_ATTEMPTS):
            number = self._next()
            try:
                self._socket.send(request(number))
                found, whole = self._dump_answer(number)
            except OSError as error:
                raise MachineError(f"can't read from the kernel: {error.strerror or error}") from error
            if whole:
                break  # else something changed while the kernel told it
        return found

    def _dump_answer(self, number: int) -> tuple[list[Message], bool]:
        found: list[Message] = []
        whole = True
        while True:
            for message in rtnetlink.messages(self._socket.recv(_DATAGRAM)):
                if message.sequence != number:
                    continue
                whole = whole and not message.flags & rtnetlink.Flag.DUMP_INTERRUPTED
                if message.type in (Type.DONE, Type.ERROR):
                    if (code := rtnetlink.error_code(message.body)) and code != _GONE:
                        raise OSError(code, os.strerror(code))
                    return found, whole
                found.append(message)

    def _acknowledged(self, request: bytes) -> int:
        try:
            return rtnetlink.error_code(self._answer(request).body)
        except OSError as error:
            return error.errno or errno.ETIMEDOUT

    def _answer(self, request: bytes) -> Message:
        self._socket.send(request)
        while True:
            for message in rtnetlink.messages(self._socket.recv(_DATAGRAM)):
                if message.sequence == self._sequence:
                    return message

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        return self._sequence


def _dump_host_routes(number: int) -> bytes:
    return rtnetlink.dump_routes(number, protocol=rtnetlink.PROTOCOL)


def _host_routes(dumped: Iterable[Message]) -> Iterator[tuple[Host, int]]:
    for message in dumped:
        route = rtnetlink.parse_route(message.body)
        if route and route.protocol == rtnetlink.PROTOCOL and route.length == 128:
            yield Host(route.ifindex, route.destination), route.table


class Overflow(Exception):
    """Notifications were lost: what they would have said is to be read anew."""


class _Group:
    """A group of announcements, heard while listen() says so."""

    def __init__(self, number: int) -> None:
        self.socket = _open()
        self.lost = False
        """Whether some were lost, and what waits has to be dropped before the machine is read anew."""
        self._number = number
        self._listening = False

    def listen(self, *, wanted: bool) -> bool:
        """Hear of changes from now on, or no longer; whether that is news. Each listener costs the kernel something."""
        if wanted == self._listening:
            return False
        self._listening, self.lost = wanted, False
        self.socket.setsockopt(
            _SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP if wanted else _NETLINK_DROP_MEMBERSHIP, self._number
        )
        if not wanted:
            _discard(self.socket)
        return True

    def messages(self, deadline: float) -> Iterator[Message]:
        """What was announced, in order, until the deadline (seconds, monotonic); what is left waits.

        Raises Overflow where some were lost and nothing older than that waits any more.
        """
        try:
            if not self.lost:
                for datagram in _received_until(self.socket, deadline):
                    yield from rtnetlink.messages(datagram)
                return
        except OSError as error:
            _unless_full(error)
            self.lost = True
        # 8 MB of them: to drop them takes 20 ms
        while time.monotonic() < deadline:
            try:
                self.socket.recv(_DATAGRAM)
            except BlockingIOError:
                self.lost = False
                raise Overflow from None
            except OSError as error:
                _unless_full(error)


class _Dump:
    """Reads what the kernel tells at length in pieces, which it makes as they are taken."""

    def __init__(self) -> None:
        self._socket = _open(blocking=True)
        self._socket.settimeout(_TIMEOUT)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._number = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def pieces(self, request: Callable[[int], bytes]) -> Iterator[list[Message]]:
        """The messages of an answer, some hundreds at a time.

        Raises MachineError where the kernel doesn't tell, and Overflow at the end if something changed meanwhile so
        that it may not be whole.
        """
        self._number += 1
        whole, ended = True, False
        try:
            self._socket.send(request(self._number))
            while not ended:
                piece: list[Message] = []
                for message in rtnetlink.messages(self._socket.recv(_DATAGRAM)):
                    if message.sequence != self._number:
                        continue  # of a reading that was given up
                    whole = whole and not message.flags & rtnetlink.Flag.DUMP_INTERRUPTED
                    if ended := _is_last(message):
                        break
                    piece.append(message)
                yield piece
        except OSError as error:
            raise MachineError(f"can't read from the kernel: {error.strerror or error}") from error
        if not whole:
            raise Overflow


class NeighbourWatch:
    """Says what changes in the neighbour table (`fileno` becomes readable), and has the kernel resolve targets.

    It hears of changes while listen() says so.
    """

    def __init__(self) -> None:
        self._changes = _Group(_RTNLGRP_NEIGH)
        self._probes = _open()
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

    def changes(self, deadline: float) -> Iterator[tuple[Host, int]]:
        """What changed, in order: hosts and their states, NUD_NONE where an entry is gone. Raises Overflow.

        It ends at the deadline (seconds, monotonic), and what is left waits.
        """
        for message in self._changes.messages(deadline):
            entry = rtnetlink.parse_neighbour(message.body)
            if entry is not None and not entry.proxy:
                gone = message.type == Type.DELNEIGH
                yield Host(entry.ifindex, entry.address), NeighbourState.NONE if gone else entry.state

    def table(self) -> Iterator[list[tuple[Host, int]]]:
        """The neighbour table in pieces: see _Dump.pieces()."""
        for piece in self._dump.pieces(rtnetlink.dump_neighbours):
            entries = (rtnetlink.parse_neighbour(message.body) for message in piece)
            yield [(Host(entry.ifindex, entry.address), entry.state) for entry in entries if entry and not entry.proxy]

    def probe(self, host: Host, keep: NeighbourState = NeighbourState.NONE) -> None:
        """Have the kernel resolve a host, or confirm it in its time where it is stale. refusals() says what it won't.

        `keep` is what of LOOKED_AFTER its entry has.
        """
        self._sequence = self._sequence % 0xFFFF + 1  # 0 is what nobody asks the fate of
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
            for datagram in _received_until(self._probes, deadline):
                for message in rtnetlink.messages(datagram):
                    host = self._sent.get(message.sequence)
                    if message.type == Type.ERROR and host is not None:
                        yield host, rtnetlink.error_code(message.body)
        except OSError:
            return  # some refusals are lost: those targets are given up by their age

    def _send(self, request: bytes) -> None:
        try:
            self._probes.send(request)
        except OSError:
            return  # no room in our own queue: as if the kernel had found nobody


def _is_last(message: Message) -> bool:
    """Whether a dump ends here. Raises OSError where the kernel says that it can't go on."""
    if message.type not in (Type.DONE, Type.ERROR):
        return False
    if code := rtnetlink.error_code(message.body):
        raise OSError(code, os.strerror(code))
    return True


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
        host_routes = _HostRouteFilter(ours)
        self._changes.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, host_routes.pack())
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
                gone, replaced = message.type == Type.DELROUTE, bool(message.flags & _NLM_F_REPLACE)
                yield RouteChange(route, gone, replaced, message.sender)

    def routes(self) -> Iterator[list[tuple[Host, int]]]:
        """The /128 routes that bear our number, with their routing tables, in pieces: see _Dump.pieces()."""
        for piece in self._dump.pieces(_dump_host_routes):
            yield [*_host_routes(piece)]


class NextHops:
    """The gateways of the routes out of some interfaces, kept by notifications.

    The kernel sorts out what concerns others: a socket filter drops the notifications of routes without a
    gateway or out of another interface, so that a table of any size costs nothing here while it changes.
    """

    def __init__(self) -> None:
        self._changes = _open(_RTMGRP_IPV6_ROUTE)
        self._requests = Requests()  # a socket of its own: one has one dump at a time, and refresh() may have begun it
        self._dump = _open()
        self._dump.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._watched: frozenset[int] = frozenset()
        self._found: dict[int, frozenset[IPv6Address]] = {}
        self._reading: defaultdict[int, set[bytes]] = defaultdict(set)
        self._left: list[int] = []
        self._asked: frozenset[int] = frozenset()
        self._again = False
        self._whole = True
        self._sequence = 0
        self._began = 0.0
        self._not_before = 0.0
        self.due: float | None = None
        """When to call refresh() (seconds, monotonic); None: nothing is to be read."""

    def close(self) -> None:
        """Close all sockets."""
        self._changes.close()
        self._dump.close()
        self._requests.close()

    def filenos(self) -> tuple[int, int]:
        """Readable: on_change() and on_dump() are to be called, in this order."""
        return self._changes.fileno(), self._dump.fileno()

    def of(self, ifindex: int) -> frozenset[IPv6Address]:
        """The gateways of the routes out of an interface."""
        return self._found.get(ifindex, frozenset())

    def watch(self, ifindexes: Iterable[int]) -> None:
        """Follow these interfaces from now on; those that are new are read at once.

        Raises MachineError, with all as it was, if they can't be.
        """
        watched = frozenset(ifindexes)
        if watched == self._watched:
            return
        fresh = watched - self._watched
        self._let_pass(watched | self._watched)
        pairs: set[tuple[int, bytes]] = set()
        for ifindex in sorted(fresh):
            pairs |= self._requests.gateways(ifindex)
        self._let_pass(watched)
        self._watched = watched
        self._found = {ifindex: hops for ifindex, hops in self._found.items() if ifindex in watched}
        for ifindex, gateway in pairs:
            self._add(ifindex, gateway)

    def _let_pass(self, ifindexes: Iterable[int]) -> None:
        route_filter = _Filter(ifindexes)
        self._changes.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, route_filter.pack())

    def on_change(self) -> bool:
        """Take in what was announced; whether a gateway is new. One that is gone shows at the next refresh()."""
        before = self._found
        try:
            for datagram in _received(self._changes):
                for message in rtnetlink.messages(datagram):
                    self._take(message)
        except OSError:
            _discard(self._changes)
            self._later()
        return self._found != before

    def _take(self, message: Message) -> None:
        route = rtnetlink.parse_route(message.body)
        gateways = [pair for pair in route.gateways if pair[0] in self._watched] if route else []
        replaced = bool(message.flags & _NLM_F_REPLACE)
        if message.type == Type.NEWROUTE:
            for ifindex, gateway in gateways:
                self._add(ifindex, gateway)
                self._reading[ifindex].add(gateway)  # what is being read may have passed its place already
        if replaced or (message.type == Type.DELROUTE and gateways):
            self._later()

    def _add(self, ifindex: int, gateway: bytes) -> None:
        address = IPv6Address(gateway)
        if ifindex in self._watched and address not in self.of(ifindex):
            self._found = {**self._found, ifindex: self.of(ifindex) | {address}}

    def _later(self) -> None:
        if self.due is None:
            self.due = max(time.monotonic(), self._not_before)

    def refresh(self) -> None:
        """Begin to read all anew; on_dump() goes on as the kernel delivers."""
        self.due = None
        if self._left:
            self._again = True  # when what is under way has ended
            return
        self._began = time.monotonic()
        self._left = sorted(self._watched)
        self._asked = self._watched
        self._again, self._whole = False, True
        self._reading.clear()
        try:
            self._ask()
        except OSError:
            self._give_up()

    def on_dump(self) -> bool:
        """Take in a piece of what refresh() asked for; whether that was the last, and something is different."""
        before = self._found
        try:
            self._read_dump(self._dump.recv(_DATAGRAM))
        except BlockingIOError:
            pass
        except OSError:
            self._give_up()
        return self._found != before

    def _give_up(self) -> None:
        """What was known stays, and is read later: an empty answer would have us answer for our own gateway."""
        self._left = []
        self._sequence += 1
        self._not_before = time.monotonic() + _RETRY
        self._later()

    def _ask(self) -> None:
        if self._left:
            self._sequence += 1
            self._dump.send(rtnetlink.dump_routes(self._sequence, ifindex=self._left[0]))
            return
        now = time.monotonic()
        self._not_before = now + max(_LEAST_PAUSE, _PAUSE * (now - self._began))
        if self._whole:  # else what was known stays beside
            # interfaces that are watched only since it began have been read by watch()
            self._found = {ifindex: hops for ifindex, hops in self._found.items() if ifindex not in self._asked}
        for ifindex, gateways in self._reading.items():
            for gateway in gateways:
                self._add(ifindex, gateway)
        if self._again or not self._whole:
            self._later()

    def _read_dump(self, datagram: bytes) -> None:
        for message in rtnetlink.messages(datagram):
            if message.sequence != self._sequence:
                continue  # of a reading that was given up
            if message.flags & rtnetlink.Flag.DUMP_INTERRUPTED:
                self._whole = False
            if message.type in (Type.DONE, Type.ERROR):
                if rtnetlink.error_code(message.body) not in (0, _GONE):
                    self._give_up()
                    return
                self._left.pop(0)
                self._ask()
                return
            route = rtnetlink.parse_route(message.body)
            for ifindex, gateway in route.gateways if route else ():
                self._reading[ifindex].add(gateway)


_NLM_F_REPLACE = 0x100
_LD_IMM, _LDX_IMM, _LD_ABS_B, _LD_ABS_H, _LD_ABS_W, _LD_IND_W = 0x00, 0x01, 0x30, 0x28, 0x20, 0x40
_JEQ, _JSET, _TAX, _RET = 0x15, 0x45, 0x07, 0x06
_SKF_AD_NLATTR = 0xFFFFF000 + 12  # finds the attribute of type X from offset A on
_FIRST_ATTRIBUTE = 16 + 12  # behind struct nlmsghdr and struct rtmsg
_NLMSG_PID = 12
_RTM_DST_LEN, _RTM_TABLE, _RTM_PROTOCOL = 16 + 1, 16 + 4, 16 + 5  # of struct rtmsg
_RT_TABLE_LOCAL = 255
_RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH = 4, 5, 9
_MOST_COMPARED = 500


class _Instruction(NamedTuple):
    """struct sock_filter: a jump skips so many instructions."""

    code: int
    k: int
    if_true: int = 0
    if_false: int = 0


class _SocketFilter:
    """A classic BPF program."""

    def __init__(self, program: Sequence[_Instruction]) -> None:
        self._code = b"".join(struct.pack("=HBBI", i.code, i.if_true, i.if_false, i.k) for i in program)
        self._length = len(program)

    def pack(self) -> bytes:
        """struct sock_fprog; it points into this object, which has to live until the kernel has read it."""
        self._buffer = ctypes.create_string_buffer(self._code, len(self._code))
        return struct.pack("@HP", self._length, ctypes.addressof(self._buffer))


class _HostRouteFilter(_SocketFilter):
    """Lets announcements pass of routes that bear our number, or are to one address and not in the table `local`; but
    none of what `ours` has asked for."""

    def __init__(self, ours: int) -> None:
        accept, drop = _Instruction(_RET, 0xFFFFFFFF), _Instruction(_RET, 0)
        super().__init__(
            [
                _Instruction(_LD_ABS_W, _NLMSG_PID),
                _Instruction(_JEQ, _swapped("=I", ">I", ours), 0, 1),
                drop,
                _Instruction(_LD_ABS_B, _RTM_PROTOCOL),
                _Instruction(_JEQ, rtnetlink.PROTOCOL, 0, 1),
                accept,
                _Instruction(_LD_ABS_B, _RTM_TABLE),
                _Instruction(_JEQ, _RT_TABLE_LOCAL, 2, 0),
                _Instruction(_LD_ABS_B, _RTM_DST_LEN),
                _Instruction(_JEQ, 128, 1, 0),
                drop,
                accept,
            ]
        )


class _Filter(_SocketFilter):
    """Lets announcements of routes pass which may concern `ifindexes`."""

    def __init__(self, ifindexes: Iterable[int]) -> None:
        accept, drop = _Instruction(_RET, 0xFFFFFFFF), _Instruction(_RET, 0)
        compared = sorted(ifindexes)
        program = [
            # a route in another's place: the other may have had a gateway
            _Instruction(_LD_ABS_H, 6),
            _Instruction(_JSET, _swapped("=H", ">H", _NLM_F_REPLACE), 0, 1),
            accept,
            *_find(_RTA_MULTIPATH),
            _Instruction(_JEQ, 0, 1, 0),
            accept,
            *_find(_RTA_GATEWAY),
            _Instruction(_JEQ, 0, 0, 1),
            drop,
        ]
        if len(compared) > _MOST_COMPARED:
            program.append(accept)
        else:
            program += [*_find(_RTA_OIF), _Instruction(_TAX, 0), _Instruction(_LD_IND_W, 4)]
            for ifindex in compared:
                program += [_Instruction(_JEQ, _swapped("=I", ">I", ifindex), 0, 1), accept]
            program.append(drop)
        super().__init__(program)


def _find(attribute: int) -> list[_Instruction]:
    """A is the offset of an attribute, 0 without it."""
    return [
        _Instruction(_LD_IMM, _FIRST_ATTRIBUTE),
        _Instruction(_LDX_IMM, attribute),
        _Instruction(_LD_ABS_W, _SKF_AD_NLATTR),
    ]


def _swapped(host: str, network: str, value: int) -> int:
    """What a load, which takes bytes in network order, makes of a value that netlink has in host order."""
    return int(struct.unpack(network, struct.pack(host, value))[0])
