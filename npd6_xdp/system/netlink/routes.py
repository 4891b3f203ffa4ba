# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's IPv6 routes, rules and nexthop objects: watched, and read a piece at a time."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from enum import Enum, auto
from ipaddress import IPv6Address

from npd6_xdp.core import route_filter, route_messages
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.route_messages import RuleEntry
from npd6_xdp.core.routes import (
    Gateway,
    Reading,
    Routes,
    RoutingFlag,
    by_interface,
    flags_of_rules,
)
from npd6_xdp.core.rtnetlink import Message, Type
from npd6_xdp.system.netlink import nlsocket
from npd6_xdp.system.netlink.dumps import Dump
from npd6_xdp.system.netlink.nlsocket import (
    ATTEMPTS,
    DATAGRAM,
    Announcements,
    Asking,
    Group,
    Overflow,
    Refused,
    Telling,
)
from npd6_xdp.system.packets import attach_filter

_SLICE = 0.002  # seconds of a reading in a row, then other work has its turn
_READ_AT_ONCE = 10_000  # routes: a reading of so many takes no longer than other work may have to wait
_PAUSE = 10  # times the time that a reading took come between two, so that a storm of routes takes a tenth of ours
_MOST_PAUSE = 1.0  # seconds at the most: for so long, one that is gone may be taken for a next hop
_RETRY = 1.0  # seconds after which what the kernel refused to tell is asked for again


class _Dump(Enum):
    """What is read, in this order."""

    RULES = auto()
    NEXTHOPS = auto()
    ROUTES = auto()


_REQUESTS: Mapping[_Dump, Callable[[int], bytes]] = {
    _Dump.RULES: route_messages.dump_rules,
    _Dump.NEXTHOPS: route_messages.dump_nexthops,
    _Dump.ROUTES: lambda sequence: route_messages.dump_routes(sequence, kind=route_messages.RouteType.UNSPEC),
}


class RouteWatch:
    """The gateways of the routes out of some interfaces, and what of routes and rules there is besides.

    Kept by notifications, of which a socket filter lets pass what may concern us (core/route_filter.py), and by
    readings where those don't tell (core/routes.py). `flags` may differ after each on_change() and on_dump().
    """

    def __init__(self) -> None:
        self._changes = Announcements(Group.IPV6_ROUTE, Group.IPV6_RULE, Group.NEXTHOP, what="changes of routes")
        self._dump = Dump()
        self._routes = Routes()
        self._rules: list[RuleEntry | None] = []
        self._nexthops: dict[int, Gateway] = {}
        self._watched: frozenset[int] = frozenset()
        self._read: frozenset[int] = frozenset()
        self._found: Mapping[int, frozenset[IPv6Address]] = {}
        self._fresh = True  # nothing has been read yet
        self._wanted: set[_Dump] = set()
        self._running: _Dump | None = None
        self._reading: Reading | None = None
        self._telling = Telling(0)
        self._collected: list[Message] = []
        self._asked: frozenset[int] = frozenset()
        self._sequence = 0
        self._cost = 0.0
        self._not_before = 0.0
        self.due: float | None = None
        """When to call refresh() (seconds, monotonic); None: nothing is to be read."""

    def close(self) -> None:
        """Close both sockets."""
        self._changes.close()
        self._dump.close()

    def filenos(self) -> tuple[int, int]:
        """Readable: on_change() and on_dump() are to be called, in this order."""
        return self._changes.fileno(), self._dump.fileno()

    def of(self, ifindex: int) -> frozenset[IPv6Address]:
        """The gateways of the routes out of an interface, and of nexthop objects."""
        return self._found.get(ifindex, frozenset())

    def is_read(self, ifindex: int) -> bool:
        """Whether those of a watched interface are known, or it takes until a reading has ended."""
        return ifindex in self._read

    @property
    def flags(self) -> RoutingFlag:
        """What routes and rules there are that bpf_fib_lookup() can't tell of."""
        return self._routes.flags | flags_of_rules(self._rules)

    def watch(self, ifindexes: Iterable[int], *, wait: bool = True) -> None:
        """Follow these interfaces from now on; those that are new are read at once.

        Without `wait` they are read between other work where the routes are many: see is_read(). Raises MachineError,
        with all as it was, if they can't be.
        """
        watched = frozenset(ifindexes)
        if self._nexthops:
            self._later(_Dump.NEXTHOPS)  # those of a link that goes down go without a word
        if watched == self._watched and not self._fresh:
            if wait and watched != self._read:
                self._read_now()
            return
        before = self._watched
        self._let_pass(watched | before)
        self._routes.watch(watched)
        self._watched = watched
        try:
            if not watched <= self._read or self._fresh:
                if wait or self._routes.size <= _READ_AT_ONCE:
                    self._read_now()
                else:
                    self._not_before = 0.0
                    self._later(_Dump.ROUTES)
        except MachineError:
            self._watched = before
            self._routes.watch(before)
            raise
        self._let_pass(watched)
        self._read &= watched
        self._find()

    def _let_pass(self, ifindexes: Iterable[int]) -> None:
        attach_filter(self._changes.socket, route_filter.pack(route_filter.routes_that_concern(ifindexes)))

    def _find(self) -> bool:
        """Whether the gateways are others than before."""
        pairs = self._routes.gateways | {pair for pair in self._nexthops.values() if pair[0] in self._watched}
        before, self._found = self._found, by_interface(pairs)
        return self._found != before

    def on_change(self) -> bool:
        """Take in what was announced, for some milliseconds; whether the gateways are others than before.

        What is left waits, though what is read meanwhile may be younger: it ends as the last word of each route has it.
        Raises BrokenSource.
        """
        try:
            for message in self._changes.take_messages(time.monotonic() + _SLICE):
                self._take(message)
        except Overflow:
            self._routes.lost_announcements()
            self._later(*_Dump)
        if self._changes.lost:
            self.due = 0.0  # go on at once: there may be nothing that waits
        if self._routes.doubted:
            self._later(_Dump.ROUTES)
        return self._find()

    def _take(self, message: Message) -> None:
        if message.type in (Type.NEWROUTE, Type.DELROUTE):
            self._routes.take(message)
        elif message.type in (Type.NEWRULE, Type.DELRULE):
            self._later(_Dump.RULES)
        elif message.type in (Type.NEWNEXTHOP, Type.DELNEXTHOP):
            self._take_nexthop(message)
            if self._running is _Dump.NEXTHOPS:
                self._later(_Dump.NEXTHOPS)  # it may have passed its place already

    def _take_nexthop(self, message: Message) -> None:
        nexthop = route_messages.parse_nexthop(message.body)
        if nexthop is None:
            return
        self._nexthops.pop(nexthop.id, None)
        if message.type == Type.NEWNEXTHOP and nexthop.gateway:
            self._nexthops[nexthop.id] = nexthop.ifindex, nexthop.gateway

    # --- readings, a piece at a time ---

    def _later(self, *wanted: _Dump) -> None:
        self._wanted.update(wanted)
        if self._running is None:  # else when that has ended
            self.due = max(time.monotonic(), self._not_before)

    def refresh(self) -> None:
        """Begin to read what is to be read, all if nothing says what; on_dump() goes on as the kernel delivers."""
        self.due = None
        if self._changes.lost:
            self.on_change()
            return
        if not self._wanted:
            self._wanted.update(_Dump)
        if self._running is None:
            self._cost = 0.0
            self._begin()

    def _begin(self) -> None:
        self._running = next(dump for dump in _Dump if dump in self._wanted)
        self._wanted.discard(self._running)
        self._sequence += 1
        self._telling, self._collected = Telling(self._sequence), []
        if self._running is _Dump.ROUTES:
            self._reading, self._asked = self._routes.begin(), self._watched
        try:
            self._dump.send(_REQUESTS[self._running](self._sequence))
        except OSError:
            self._give_up()

    def on_dump(self) -> bool:
        """Take in what the kernel has told of it, for some milliseconds.

        Whether that was the last of it, and the gateways are others than before, or known of other interfaces. Raises
        BrokenSource.
        """
        began, read = time.monotonic(), self._read
        try:
            while time.monotonic() - began < _SLICE:
                piece = self._dump.recv()
                if self._running is not None:  # else it is of a reading that was given up
                    self._feed(piece)
        except BlockingIOError:
            pass
        except OSError as error:
            self._give_up()
            nlsocket.unless_full(error, "routes")
        self._cost += time.monotonic() - began
        if self._running is None:
            if self._wanted:
                self._later()
            return self._find() or self._read != read
        return False

    def _feed(self, datagram: bytes) -> None:
        if self._running is _Dump.ROUTES and self._reading is not None:
            self._routes.scan(self._reading, datagram, self._sequence)
            if self._reading.ended:
                self._end(self._reading.error)
            return
        try:
            self._collected += self._telling.add(datagram)
        except Refused as refused:
            self._end(refused.errno or 0)
        else:
            if self._telling.ended:
                self._end(0)

    def _end(self, code: int) -> None:
        if code and code != errno.EOPNOTSUPP:
            self._give_up()
            return
        running, self._running = self._running, None
        if running is _Dump.ROUTES and self._reading is not None:
            self._routes.end(self._reading)
            self._reading = None
            self._read = self._asked & self._watched
            if self._routes.doubted or self._read != self._watched:
                self._wanted.add(_Dump.ROUTES)
        elif running is not None:
            self._believe(running, self._collected)
        if running is not _Dump.ROUTES and self._wanted:
            self._begin()
            return
        self._not_before = time.monotonic() + min(_PAUSE * self._cost, _MOST_PAUSE)

    def _believe(self, dump: _Dump, told: Iterable[Message]) -> None:
        if dump is _Dump.RULES:
            self._rules = [route_messages.parse_rule(message.body) for message in told]
        elif dump is _Dump.NEXTHOPS:
            self._nexthops = {}
            for message in told:
                self._take_nexthop(message)

    def _give_up(self) -> None:
        """What was known stays, and is read later: an empty answer would have us answer for our own gateway."""
        if self._running is not None:
            self._wanted.add(self._running)
        if self._reading is not None:
            self._routes.give_up(self._reading)
        self._running = self._reading = None
        self._sequence += 1
        self._not_before = time.monotonic() + _RETRY
        self._later()

    # --- all at once ---

    def _read_now(self) -> None:
        """Read all, and wait for it."""
        reading = self._reading = None
        try:
            for dump in _Dump:
                reading = self._read_whole(dump)
        except OSError as error:
            self._later(*_Dump)
            raise MachineError(f"can't read routes from the kernel: {error.strerror or error}") from error
        assert reading is not None, "routes are the last"
        self._fresh = False
        self._read = self._watched
        if self._routes.doubted:
            self._later(_Dump.ROUTES)
        self._find()

    def _read_whole(self, dump: _Dump) -> Reading | None:
        """By a socket of its own: one has one dump at a time, and refresh() may have begun it."""
        with closing(Asking()) as asking:
            if dump is not _Dump.ROUTES:
                self._believe(dump, _all_told(asking, _REQUESTS[dump]))
                return None
            for _ in range(ATTEMPTS):
                number = asking.take_number()
                asking.socket.send(_REQUESTS[dump](number))
                reading = self._routes.begin()
                try:
                    while not reading.ended:
                        self._routes.scan(reading, asking.socket.recv(DATAGRAM), number)
                finally:
                    if not reading.ended or reading.error:
                        self._routes.give_up(reading)
                if reading.error:
                    raise OSError(reading.error, os.strerror(reading.error))
                self._routes.end(reading)
                if not reading.interrupted:
                    break
        return reading


def _all_told(asking: Asking, request: Callable[[int], bytes]) -> list[Message]:
    """The lines of a dump; none where this kernel has no such things. Raises OSError."""
    try:
        return asking.ask(request).messages
    except Refused as refused:
        if refused.errno == errno.EOPNOTSUPP:
            return []
        raise
