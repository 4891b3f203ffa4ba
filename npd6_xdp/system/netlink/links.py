# SPDX-License-Identifier: GPL-2.0-or-later
"""Links and addresses: what the machine says of them, and that it changed.

All is read whole at the start, then each announcement is taken in as it comes. When the kernel had to drop some, all
is read whole again.
"""

from __future__ import annotations

import math
import select
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Set
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from npd6_xdp.core import link_messages
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.link_messages import AddressEntry, LinkEntry
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.roles import MacDevice, RoleAddress, role_address
from npd6_xdp.core.rtnetlink import Message, Type
from npd6_xdp.core.stacking import Stack, Stacking, mac_devices
from npd6_xdp.core.steps import Steps, finish, pieces
from npd6_xdp.system.netlink.dumps import SlicedDump
from npd6_xdp.system.netlink.nlsocket import ATTEMPTS, Announcements, Asking, Group, Overflow

_BIT = 128  # links of which facts are made at once
_IPV4_BYTES = 4

_MadeOf = tuple[LinkEntry, Mapping[IPv6Address, OwnAddress] | None, frozenset[IPv6Address], int]


class Netlink:
    """Knows links and addresses, and tells when they changed: `fileno` becomes readable.

    `losses` counts the times that announcements were lost: what went and came back meanwhile, nobody knows. `before` is
    one that this one stands in for: what that knew holds until all is read, which on_change() does.
    """

    def __init__(self, before: Netlink | None = None) -> None:
        self._asking = Asking()
        self._dump = SlicedDump()
        groups = Group.LINK, Group.IPV6_IFADDR, Group.IPV4_IFADDR
        self._changes = Announcements(*groups, what="changes of links and addresses")
        self._links: dict[int, LinkEntry] = dict(before._links) if before else {}
        self._addresses: dict[int, Mapping[IPv6Address, OwnAddress]] = dict(before._addresses) if before else {}
        # of roles only: no frame of ours has any to do with these
        self._ipv4: set[_Ipv4] = set(before._ipv4) if before else set()
        self._holders: _Holders | None = None  # made of the two, when somebody asks
        # of the links that have come since the start
        self._generations: dict[int, int] = dict(before._generations) if before else {}
        self._comings: int = before._comings if before else 0
        self._unread = False  # some announcements were lost
        self._reading: Iterator[None] | None = None  # what they would have said
        self._announced: _Announced | None = None  # meanwhile
        self._stacked: tuple[Mapping[int, LinkEntry], Stacking] = {}, Stacking({})
        # what facts() said, with all that it was made of where that is known
        self._known: dict[int, tuple[_MadeOf | None, LinkFacts]] = {}
        self.losses: int = before.losses + 1 if before else 0
        if before:
            self._unread, self._reading = True, self._read()
        else:
            self._read_on(math.inf)

    def close(self) -> None:
        """Close all sockets."""
        self._changes.close()
        self._asking.close()
        self._dump.close()

    def fileno(self) -> int:
        """The socket that changes are announced on."""
        return self._changes.fileno()

    @property
    def unfinished(self) -> bool:
        """Whether on_change() is to be called again, even if `fileno` isn't readable."""
        return self._changes.lost or self._reading is not None

    def on_change(self, deadline: float = math.inf) -> bool:
        """Take in what was announced, until the deadline (seconds, monotonic); whether anything is different.

        What is left waits. Where some was lost, all is read anew, and until that has ended what was known stays, as far
        as nothing else is announced.

        Raises BrokenSource if nothing can be heard any more, and MachineError if what was lost can't be read now.
        """
        before = self._links, self._addresses
        self._links, self._addresses = dict(self._links), dict(self._addresses)  # as those are, somebody has them
        self._generations = dict(self._generations)
        comings = self._comings
        try:
            for message in self._changes.take_messages(deadline):
                self._take(message)
        except Overflow:
            self._unread, self._reading = True, None
            self.losses += 1
        if self._unread:
            self._read_on(deadline)
        return comings != self._comings or before != (self._links, self._addresses)

    def facts(self, next_hops: Callable[[int], frozenset[IPv6Address]]) -> dict[str, LinkFacts]:
        """The facts of all interfaces, by name; `next_hops` says what is known of an interface's gateways."""
        return finish(self.finding_facts(next_hops))

    def finding_facts(self, next_hops: Callable[[int], frozenset[IPv6Address]]) -> Steps[dict[str, LinkFacts]]:
        """The same, bit by bit, of the links that there are when it begins: each that stands on others takes 15 us."""
        now, known = _Known(self._links, self._addresses, self._generations), self._known
        stacking = self._stacking()
        found: dict[str, LinkFacts] = {}
        made: dict[int, tuple[_MadeOf | None, LinkFacts]] = {}
        for some in pieces(now.links.items(), _BIT):
            if made:
                yield
            for ifindex, link in some:
                made_of = (
                    (link, now.addresses.get(ifindex), next_hops(ifindex), now.generations.get(ifindex, 0))
                    if stacking.is_alone(link)
                    else None
                )
                before = known.get(ifindex)
                if made_of is None or before is None or before[0] != made_of:
                    facts = now.facts_of(link, stacking.of(link), next_hops)
                    # the very same object where nothing is different: who compares has less to do
                    before = made_of, facts if before is None or before[1] != facts else before[1]
                made[ifindex] = before
                found[link.name] = before[1]
        self._known = made
        return found

    def _stacking(self) -> Stacking:
        """How the links stand on one another now."""
        if self._stacked[0] is not self._links:
            self._stacked = self._links, Stacking(self._links)
        return self._stacked[1]

    def held(self, wanted: Set[str]) -> frozenset[str]:
        """Those of the addresses (as an InterfaceConfig.active_with) that this machine holds now, beyond doubt (J1):
        what is tentative, or a duplicate, is somebody else's as well, perhaps.
        """
        if wanted and self._holders is None:
            self._holders = self._find_holders()
        return frozenset(text for text in wanted if self._is_held(role_address(text)))

    def devices(self, macs: Set[bytes]) -> frozenset[MacDevice]:
        """The devices that have one of these MAC addresses now, and are up."""
        return mac_devices(self._links.values(), macs) if macs else frozenset()

    def _find_holders(self) -> _Holders:
        found: _Holders = defaultdict(set)
        for ifindex, held in self._addresses.items():
            for own in held.values():
                if own.settled:
                    found[own.address].add(ifindex)
        for ipv4 in self._ipv4:
            found[ipv4.address].add(ipv4.ifindex)
        return found

    def _is_held(self, role: RoleAddress) -> bool:
        holders = self._holders.get(role.address, ()) if self._holders else ()
        links = filter(None, map(self._links.get, holders))
        return any(role.interface in ("", link.name, *link.altnames) for link in links)

    def altnames(self) -> dict[str, str]:
        """The names of links by their alternative ones."""
        return {other: link.name for link in self._links.values() for other in link.altnames}

    @property
    def behind(self) -> bool:
        """Whether announcements wait that are yet to be taken in."""
        waiting = select.poll()
        waiting.register(self._changes, select.POLLIN)
        return bool(waiting.poll(0))

    def generation(self, ifindex: int) -> int:
        """LinkFacts.generation of the link with that index; -1: there is none."""
        return self._generations.get(ifindex, 0) if ifindex in self._links else -1

    def link(self, ifindex: int) -> LinkEntry | None:
        """What the kernel says of a link now; None: there is none, or it doesn't say. 20 us."""
        return next(filter(None, map(link_messages.parse_link, self._asked(link_messages.get_link, ifindex))), None)

    def groups(self, ifindex: int) -> frozenset[bytes]:
        """The IPv6 multicast groups that a link is in now, whoever has joined them."""
        found = filter(None, map(link_messages.parse_group, self._asked(link_messages.dump_groups, ifindex)))
        return frozenset(group for index, group in found if index == ifindex)

    def _asked(self, request: Callable[[int, int], bytes], ifindex: int) -> list[bytes]:
        """The bodies of what the kernel answers about one link; none if it can't."""
        try:
            found = self._asking.ask(lambda number: request(number, ifindex))
        except OSError:
            return []
        return [message.body for message in found.messages]

    def l3_interfaces(self, wanted: Callable[[str], bool]) -> set[int]:
        """The indexes of the interfaces that frames on the ports of wanted names come in by."""
        stacking = self._stacking()
        ports = [link for link in self._links.values() if wanted(link.name)]
        return {
            ifindex
            for link in ports
            for ifindex in ((link.ifindex,) if stacking.is_alone(link) else stacking.l3(link).values())
        }

    def _read_on(self, deadline: float) -> None:
        reading, self._reading = self._reading or self._read(), None
        for _ in reading:
            if time.monotonic() >= deadline:
                self._reading = reading
                return
        self._unread = False

    def _read(self) -> Iterator[None]:
        """All links and addresses, a piece at a time. What is announced meanwhile is known better."""
        announced = self._announced = _Announced(set(), set(), set(), set())
        links: dict[int, LinkEntry] = {}
        addresses: defaultdict[int, dict[IPv6Address, OwnAddress]] = defaultdict(dict)
        ipv4: set[_Ipv4] = set()
        for piece in self._dumped(link_messages.dump_links):
            found = (link_messages.parse_link(message.body) for message in piece)
            links |= {link.ifindex: link for link in found if link}
            yield
        for piece in self._dumped(link_messages.dump_addresses):
            for entry in filter(None, (link_messages.parse_address(message.body) for message in piece)):
                own = _own(entry)
                addresses[entry.ifindex][own.address] = own
            yield
        for piece in self._dumped(link_messages.dump_ipv4_addresses):
            ipv4.update(map(_Ipv4.of, filter(None, (link_messages.parse_address(message.body) for message in piece))))
            yield
        self._announced = None
        for ifindex in announced.links | announced.gone:
            links.pop(ifindex, None)
            if ifindex in self._links:
                links[ifindex] = self._links[ifindex]
        for ifindex in announced.gone:
            addresses.pop(ifindex, None)
        for ifindex, address in announced.addresses:
            addresses[ifindex].pop(address, None)
            if (now := self._addresses.get(ifindex, {}).get(address)) is not None:
                addresses[ifindex][address] = now
        self._ipv4 = {each for each in ipv4 - announced.ipv4 | self._ipv4 & announced.ipv4 if each.ifindex in links}
        self._holders = None
        self._links = links
        self._generations = {i: number for i, number in self._generations.items() if i in self._links}
        self._addresses = {ifindex: held for ifindex, held in addresses.items() if held}

    def _dumped(self, request: Callable[[int], bytes]) -> Iterator[list[Message]]:
        """What the kernel tells of all links or addresses, in pieces.

        A dump that something changed under may lack a line. Where they change all the time, as thousands do while they
        are made, what several of them have together lacks none, and of what has gone again the end is announced.
        """
        failed: MachineError | None = None
        for _ in range(ATTEMPTS):
            try:
                yield from self._dump.pieces(request)
            except Overflow:
                failed = None
            except MachineError as error:
                failed = error
            else:
                return
        if failed is not None:
            why = getattr(failed.__cause__, "strerror", None) or "no answer"
            raise MachineError(f"can't read links and addresses from the kernel: {why}") from failed

    def _take(self, message: Message) -> None:
        """One announcement."""
        if message.type in (Type.NEWLINK, Type.DELLINK):
            link = link_messages.parse_link(message.body)
            if link is None:
                return
            if self._announced is not None:
                (self._announced.links if message.type == Type.NEWLINK else self._announced.gone).add(link.ifindex)
            if message.type == Type.NEWLINK:
                if link.ifindex not in self._links:
                    self._comings += 1
                    self._generations[link.ifindex] = self._comings
                self._links[link.ifindex] = link
                return
            for known in (self._links, self._addresses, self._generations):
                known.pop(link.ifindex, None)
        elif message.type in (Type.NEWADDR, Type.DELADDR):
            address = link_messages.parse_address(message.body)
            if address is None:
                return
            self._holders = None
            if len(address.address) == _IPV4_BYTES:
                ipv4 = _Ipv4.of(address)
                (self._ipv4.add if message.type == Type.NEWADDR else self._ipv4.discard)(ipv4)
                if self._announced is not None:
                    self._announced.ipv4.add(ipv4)
                return
            own = _own(address)
            if self._announced is not None:
                self._announced.addresses.add((address.ifindex, own.address))
            held = {**self._addresses.get(address.ifindex, {}), own.address: own}
            if message.type == Type.DELADDR:
                del held[own.address]
            if held:
                self._addresses[address.ifindex] = held
            else:
                self._addresses.pop(address.ifindex, None)


def _own(entry: AddressEntry) -> OwnAddress:
    return OwnAddress(
        IPv6Address(entry.address),
        entry.length,
        usable=entry.usable,
        deprecated=entry.deprecated,
        advertised=entry.advertised,
        settled=entry.settled,
        by_kernel=entry.by_kernel,
    )


class _Ipv4(NamedTuple):
    """An IPv4 address; an interface may hold the same one several times, by different lengths."""

    ifindex: int
    address: IPv4Address
    length: int

    @classmethod
    def of(cls, entry: AddressEntry) -> _Ipv4:
        return cls(entry.ifindex, IPv4Address(entry.address), entry.length)


_Holders = defaultdict[IPv4Address | IPv6Address, set[int]]
"""The interfaces that hold an address, by their indexes."""


class _Announced(NamedTuple):
    """Of what the kernel has said something while all was read: links by index, those that went, and addresses.

    `addresses` are those of IPv6, `ipv4` those of IPv4.
    """

    links: set[int]
    gone: set[int]
    addresses: set[tuple[int, IPv6Address]]
    ipv4: set[_Ipv4]


class _Known(NamedTuple):
    """What is known at one time; none of it changes any more."""

    links: Mapping[int, LinkEntry]
    addresses: Mapping[int, Mapping[IPv6Address, OwnAddress]]
    generations: Mapping[int, int]

    def facts_of(self, link: LinkEntry, stack: Stack, next_hops: Callable[[int], frozenset[IPv6Address]]) -> LinkFacts:
        """The facts of one link, by what is above and below it."""
        master = self.links.get(link.master)
        return LinkFacts(
            link.name,
            link.ifindex,
            link.mac,
            link.up,
            link.kind,
            {tags: self._held(ifindex) for tags, ifindex in stack.l3.items()},
            {tags: next_hops(ifindex) for tags, ifindex in stack.l3.items()},
            stack.l3,
            type=link.type,
            flags=link.flags,
            table=master.table if master is not None else 0,
            bridge=master.name if master is not None and master.kind == "bridge" else "",
            altnames=link.altnames,
            generation=self.generations.get(link.ifindex, 0),
            bridge_macs=stack.bridge_macs,
            shared=stack.shared,
            beside={
                tags: tuple(address for ifindex in riders for address in self._held(ifindex))
                for tags, riders in stack.riders.items()
            },
            lower=stack.lower,
            lossy=stack.lossy,
            tpids=stack.tpids,
            beside_macs=stack.rider_macs,
        )

    def _held(self, ifindex: int) -> tuple[OwnAddress, ...]:
        """The addresses of an interface, in order."""
        held = self.addresses.get(ifindex)
        return tuple(held[address] for address in sorted(held)) if held else ()
