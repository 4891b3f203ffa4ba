# SPDX-License-Identifier: GPL-2.0-or-later
"""What we need to know of the kernel's routes: next hops, and what bpf_fib_lookup() can't tell.

A routing table may have hundreds of thousands of lines of which a few facts follow: through these gateways there are
routes out of that port; there are local prefixes. So facts are kept, each with a few of the routes that it follows
from, its witnesses. While one of these is left, the other routes may come and go. If all of a fact's routes were kept,
it ends with the last. Only where there were more than are kept, and the kept ones are gone, the table has to be read
again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Set
from enum import IntFlag
from functools import reduce
from ipaddress import IPv6Address
from operator import or_
from typing import NamedTuple

from npd6_xdp.core import route_messages, rtnetlink
from npd6_xdp.core.event import UNSPECIFIED, NsEvent
from npd6_xdp.core.route_messages import HERE, RouteReply, RouteType, RuleEntry
from npd6_xdp.core.rtnetlink import Flag, Message, Type
from npd6_xdp.core.table import Rule, RuleFlag, Table


class RoutingFlag(IntFlag):
    """`enum routing_flag` of bpf/shared.h: what of this machine's routes and rules bpf_fib_lookup() can't tell of.

    UNFOUND: what it doesn't find may be there (prefixes that are delivered here, throw routes). ALL: rules pass over
    routes (suppress_prefixlength), which it doesn't. SOURCE: rules or routes go by the source. NOWHERE: it tells
    of interfaces that packets get no further by (Table.nowhere).
    """

    UNFOUND = 1
    ALL = 2
    SOURCE = 4
    NOWHERE = 8


Gateway = tuple[int, bytes]
"""The interface's index, and the address in 16 bytes."""
Fact = Gateway | RoutingFlag
"""What a route says: there is a way out of that interface through this gateway; or, routes of this kind are there."""

LOOPBACK_IFINDEX = 1
"""The index of lo, in every network namespace."""

_MOST_WITNESSES = 4
_MOST_TAILS = 4096
_MOST_TOUCHED = 16384
_RTPROT_KERNEL = 2
_RTA_DST, _RTA_SRC, _RTA_PRIORITY, _RTA_TABLE = 1, 2, 6, 15
_START = struct.Struct("=IHHII8BI")  # struct nlmsghdr, struct rtmsg
_RTMSG = 12
_TABLE = struct.pack("=HH", 8, _RTA_TABLE)
_PRIORITY = struct.pack("=HH", 8, _RTA_PRIORITY)
_DESTINATION = struct.pack("=HH", 20, _RTA_DST)
_SOURCE = struct.pack("=HH", 20, _RTA_SRC)


class _Facts:
    """Facts, each with some of the routes that say it: its witnesses, by their keys."""

    def __init__(self) -> None:
        self.witnesses: dict[Fact, set[bytes]] = {}
        self.more: set[Fact] = set()
        """Those that other routes say, too."""
        self.doubted = False
        """A fact has lost its witnesses, and may not hold any more."""
        self._says: dict[bytes, tuple[Fact, ...]] = {}

    def add(self, fact: Fact, key: bytes) -> None:
        witnesses = self.witnesses.setdefault(fact, set())
        if key in witnesses:
            return
        if len(witnesses) >= _MOST_WITNESSES:
            self.more.add(fact)
            return
        witnesses.add(key)
        self._says[key] = (*self._says.get(key, ()), fact)

    def withdraw(self, key: bytes, facts: Iterable[Fact]) -> None:
        """A route is gone, or those of its paths that said this."""
        self.doubted |= any(fact not in facts for fact in self._says.get(key, ()))
        for fact in facts:
            self._refute(fact, key)

    def replace(self, key: bytes, facts: Iterable[Fact]) -> None:
        """A route was replaced by another. There may be a second route like the old one, which was not announced."""
        for fact in self._says.get(key, ()):
            if fact not in facts:
                self.more.add(fact)
                self._refute(fact, key)

    def forget(self, fact: Fact) -> None:
        for key in self.witnesses.pop(fact):
            self._unsay(key, fact)
        self.more.discard(fact)

    def doubt(self) -> None:
        """No fact is known to hold any more."""
        self.more.update(self.witnesses)
        self.witnesses = {fact: set() for fact in self.witnesses}
        self._says.clear()
        self.doubted = True

    def _refute(self, fact: Fact, key: bytes) -> None:
        witnesses = self.witnesses.get(fact)
        if witnesses is None or key not in witnesses:
            return
        witnesses.discard(key)
        self._unsay(key, fact)
        if witnesses:
            return
        if fact in self.more:
            self.doubted = True
        else:
            self.forget(fact)

    def _unsay(self, key: bytes, fact: Fact) -> None:
        left = tuple(other for other in self._says.pop(key) if other != fact)
        if left:
            self._says[key] = left


class Reading:
    """One reading of the routing table, in pieces."""

    def __init__(self) -> None:
        self.found = _Facts()
        self.touched: set[bytes] = set()
        """Routes of which something was announced since it began: that is younger than what is read."""
        self.count = 0
        self.ended = False
        self.error = 0
        """Why the kernel ended it (errno); 0: that was all."""
        self.interrupted = False
        """The table changed, and the kernel may have left out some."""


class Routes:
    """The facts that routes say of some interfaces, the watched ones, and of the whole machine."""

    def __init__(self) -> None:
        self._watched: frozenset[int] = frozenset()
        self._facts = _Facts()
        self._reading: Reading | None = None
        self._missed: set[Fact] = set()
        self._tails: dict[bytes, tuple[Fact, ...]] = {}
        self._boring: set[bytes] = set()
        self.size = 0
        """How many routes the last reading has read."""

    @property
    def gateways(self) -> Set[Gateway]:
        """Those of the routes out of the watched interfaces."""
        return {fact for fact in self._facts.witnesses if not isinstance(fact, RoutingFlag)}

    @property
    def flags(self) -> RoutingFlag:
        """What of the routes that concern us bpf_fib_lookup() can't decide by."""
        return reduce(or_, (fact for fact in self._facts.witnesses if isinstance(fact, RoutingFlag)), RoutingFlag(0))

    @property
    def doubted(self) -> bool:
        """Whether there is something of which only another reading can tell whether it still holds."""
        return self._facts.doubted

    def watch(self, ifindexes: Iterable[int]) -> None:
        """Keep what concerns these interfaces from now on. Of those that are new it takes a reading to know all."""
        self._watched = frozenset(ifindexes)
        self._tails.clear()
        self._boring.clear()
        for fact in self.gateways:
            if fact[0] not in self._watched:
                self._facts.forget(fact)

    def take(self, message: Message) -> None:
        """Take in an announcement: NEWROUTE or DELROUTE."""
        key, facts = self._parse(message.body)
        several = [self._facts]
        if self._reading is not None:
            several.append(self._reading.found)
            if len(self._reading.touched) <= _MOST_TOUCHED:
                self._reading.touched.add(key)
        for each in several:
            if message.type == Type.DELROUTE:
                each.withdraw(key, facts)
            elif message.type == Type.NEWROUTE:
                if message.flags & Flag.REPLACE:
                    each.replace(key, facts)
                for fact in facts:
                    each.add(fact, key)

    def lost_announcements(self) -> None:
        """Announcements were lost: what is known holds until all is read anew."""
        self._facts.doubt()
        if self._reading is not None:
            self._reading.interrupted = True

    def begin(self) -> Reading:
        """A reading of the whole table begins; end() is to be called with it once it has ended, or give_up()."""
        self._reading = Reading()
        self._facts.doubted = False
        self._boring.clear()
        return self._reading

    def scan(self, reading: Reading, datagram: bytes, sequence: int) -> None:
        """Take in a piece of it; messages of another sequence number are another reading's.

        A route takes less than a microsecond here: most end with the same bytes as many before them, and what can be
        told by those is known already.
        """
        start, size, boring, unpack = 0, len(datagram), self._boring, _START.unpack_from
        while start + _START.size <= size:
            length, kind, flags, number, _, _, bits, source_bits, _, _, _, _, route_type, _ = unpack(datagram, start)
            if kind != Type.NEWROUTE or not _START.size <= length <= size - start:
                break
            end = start + length
            if number == sequence:
                at = start + (56 if bits else 36)
                if flags & Flag.DUMP_INTERRUPTED:
                    reading.interrupted = True
                plain = route_type == RouteType.UNICAST and not source_bits and datagram[at : at + 4] == _PRIORITY
                if not plain or datagram[at + 8 : end] not in boring:
                    self._scan_one(reading, datagram[start + 16 : end])
                reading.count += 1
            start += (length + 3) & ~3
        for message in rtnetlink.messages(datagram[start:]):
            if message.sequence != sequence:
                continue
            reading.interrupted |= bool(message.flags & Flag.DUMP_INTERRUPTED)
            if message.type in (Type.DONE, Type.ERROR):
                reading.ended = True
                reading.error = rtnetlink.error_code(message.body)
            elif message.type == Type.NEWROUTE:
                self._scan_one(reading, message.body)
                reading.count += 1

    def _scan_one(self, reading: Reading, body: bytes) -> None:
        key, facts = self._parse(body)
        if key not in reading.touched:  # what was announced meanwhile is younger
            for fact in facts:
                reading.found.add(fact, key)
        if facts and not all(fact in reading.found.more for fact in facts):
            return
        if (tail := _tail(body)) is not None and len(self._boring) < _MOST_TAILS:
            self._boring.add(tail)

    def end(self, reading: Reading) -> None:
        """The reading is complete. Facts that no route says any more are gone."""
        if reading.error or reading.interrupted or len(reading.touched) > _MOST_TOUCHED:
            self.give_up(reading)
            return
        before, found = self._facts, reading.found
        missed = set()
        for fact, witnesses in before.witnesses.items():
            if fact in found.witnesses or not witnesses or fact in self._missed or not self._concerns(fact):
                continue
            # It was never withdrawn. The kernel may pass by a route while others come and go (its walk counts nodes);
            # and it may have withdrawn one without a word (skip_notify_on_dev_down). The next reading tells.
            missed.add(fact)
            found.doubted = True
            for key in witnesses:
                found.add(fact, key)
        self._missed = missed
        self._facts, self._reading = found, None
        self.size = reading.count

    def give_up(self, reading: Reading) -> None:
        """The reading has failed, or wasn't complete: what was known stays, and what was found is added."""
        for fact, witnesses in reading.found.witnesses.items():
            if self._concerns(fact):
                for key in witnesses:
                    self._facts.add(fact, key)
                self._facts.more.add(fact)
        self._facts.doubted, self._reading = True, None

    def _concerns(self, fact: Fact) -> bool:
        return isinstance(fact, RoutingFlag) or fact[0] in self._watched

    def _parse(self, body: bytes) -> tuple[bytes, tuple[Fact, ...]]:
        """Which route it is, and what it says."""
        tail = _tail(body)
        if tail is not None:
            facts = self._tails.get(tail)
            if facts is None:
                facts = self._paths(route_messages.route_attributes(body))
                if len(self._tails) >= _MOST_TAILS:
                    self._tails.clear()
                self._tails[tail] = facts
            return body[1:3] + body[_RTMSG : len(body) - len(tail)], facts
        if len(body) < _RTMSG:
            return b"", ()
        attributes = route_messages.route_attributes(body)
        return _key(body, attributes), (*self._paths(attributes, body[7]), *_flags(body))

    def _paths(self, attributes: Mapping[int, bytes], kind: int = RouteType.UNICAST) -> tuple[Fact, ...]:
        gateways = route_messages.route_gateways(attributes) if kind == RouteType.UNICAST else ()
        return tuple(gateway for gateway in gateways if gateway[0] in self._watched)


def _flags(body: bytes) -> Iterator[RoutingFlag]:
    length, source_length, protocol, kind = body[1], body[2], body[5], body[7]
    if kind == RouteType.THROW:
        yield RoutingFlag.UNFOUND
    if kind in HERE and (protocol != _RTPROT_KERNEL or length < 128):
        yield RoutingFlag.UNFOUND  # else it is of an address that an interface holds
    if source_length:
        yield RoutingFlag.SOURCE


def _tail(body: bytes) -> bytes | None:
    """The bytes after those that show that it is a plain unicast route; None where it isn't plain."""
    at = 40 if body[1:2] != b"\0" else 20
    if body[7:8] != b"\x01" or body[2:3] != b"\0" or body[at : at + 4] != _PRIORITY or body[12:16] != _TABLE:
        return None
    return body[at + 8 :]


def _key(body: bytes, attributes: Mapping[int, bytes]) -> bytes:
    """Which route it is: the lengths of destination and source, and the attributes that tell one from another."""
    key = body[1:3] + _TABLE + attributes.get(_RTA_TABLE, b"").ljust(4, b"\0")
    if body[1]:
        key += _DESTINATION + attributes.get(_RTA_DST, b"").ljust(16, b"\0")
    if body[2]:
        key += _SOURCE + attributes.get(_RTA_SRC, b"").ljust(16, b"\0")
    return key + _PRIORITY + attributes.get(_RTA_PRIORITY, b"").ljust(4, b"\0")


def flags_of_rules(rules: Iterable[RuleEntry | None]) -> RoutingFlag:
    """What routing rules do that bpf_fib_lookup() ignores with its default flags."""
    found = RoutingFlag(0)
    for rule in rules:
        if rule is not None:
            found |= (RoutingFlag.ALL if rule.suppresses else RoutingFlag(0)) | (
                RoutingFlag.SOURCE if rule.by_source else 0
            )
    return found


def by_interface(gateways: Iterable[Gateway]) -> dict[int, frozenset[IPv6Address]]:
    """Gateways by the index of the interface that they are behind."""
    found: dict[int, set[IPv6Address]] = {}
    for ifindex, address in gateways:
        found.setdefault(ifindex, set()).add(IPv6Address(address))
    return {ifindex: frozenset(addresses) for ifindex, addresses in found.items()}


class RouteQuestion(NamedTuple):
    """What the kernel is to be asked of a target, and by what its reply is judged.

    The packet came in by the interface `came_in_by`; a `source` of :: names none. `via` are the interfaces of a rule
    that names some, `nowhere` those that lead nowhere.
    """

    target: bytes
    source: bytes
    came_in_by: int
    via: Set[int] | None
    nowhere: Set[int]


def question_of(event: NsEvent, rule: Rule, table: Table, flags: RoutingFlag) -> RouteQuestion:
    """What to ask for a solicitation that bpf_fib_lookup() couldn't decide. The source is the asker's address where
    routes or rules depend on the source, unless it is link-local.
    """
    link_local = event.source[0] == 0xFE and event.source[1] & 0xC0 == 0x80
    return RouteQuestion(
        event.target,
        event.source if flags & RoutingFlag.SOURCE and not link_local else UNSPECIFIED,
        table.entries[rule.entry].l3_ifindex,
        table.vias.get(rule.via_set, frozenset()) if rule.flags & RuleFlag.VIA else None,
        table.nowhere,
    )


def is_behind(reply: RouteReply, asked: RouteQuestion, *, forwarding: bool) -> bool:
    """Whether a target is there by what the kernel would do with a packet for it, for method route.

    What is delivered here is there. What is forwarded is there if it leaves by another interface than it came in by
    that leads somewhere. `forwarding` says that the interface that it came in by forwards at all.
    """
    if asked.via is not None and reply.ifindex not in asked.via:
        return False
    if reply.type in HERE:
        return True
    if reply.type != RouteType.UNICAST or not forwarding:
        return False
    return reply.ifindex not in (asked.came_in_by, LOOPBACK_IFINDEX) and reply.ifindex not in asked.nowhere
