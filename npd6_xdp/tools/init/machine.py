# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine as `init` finds it: what the kernel tells, as one value, and what that says of single interfaces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv6Address, IPv6Network

from npd6_xdp.core.config import is_glob
from npd6_xdp.core.link_messages import LinkEntry, LinkFlag
from npd6_xdp.core.prefix import BITS, Prefix
from npd6_xdp.core.route_messages import REFUSALS, RouteType
from npd6_xdp.core.rtnetlink import PROTOCOL
from npd6_xdp.core.survey import Held, Protocol, Way

_MAIN = 254  # RT_TABLE_MAIN
_LOOPBACK = 772  # ARPHRD_LOOPBACK
_WIDEST = 16
"""Bits of a prefix that somebody may be given. What is wider is a way to elsewhere, as 2000::/3 is."""
_NOT_GLOBAL = tuple(Prefix.of(IPv6Network(text)) for text in ("fe80::/10", "fc00::/7", "ff00::/8", "::/8"))
_NOT_BEHIND = frozenset({"dummy", "ifb", "vrf", "nlmon", "vcan", "netdevsim"})  # nobody is behind these
_KNOWN = (
    (re.compile(r"docker\d+|br-[0-9a-f]{12}|docker_gwbridge"), "a bridge of Docker", "Docker"),
    (re.compile(r"(cni-)?podman\d+"), "a bridge of Podman", "Podman"),
    (re.compile(r"incusbr\d+"), "a bridge of Incus", "Incus"),
    (re.compile(r"lxdbr\d+"), "a bridge of LXD", "LXD"),
    (re.compile(r"lxcbr\d+"), "a bridge of LXC", "LXC"),
    (re.compile(r"virbr\d+"), "a bridge of libvirt", "libvirt"),
    (re.compile(r"vmbr\d+"), "a bridge of Proxmox", ""),
)
_KINDS = {
    "bridge": "a bridge",
    "veth": "a veth",
    "tun": "a tun or tap device",
    "wireguard": "a WireGuard tunnel",
    "vlan": "a VLAN device",
    "bond": "a bond",
    "macvlan": "a macvlan device",
    "": "an interface of its own",
}


@dataclass(frozen=True)
class BareMachine:
    """`links` by index. `neighbours` are those that are there, as (index, address). `sysctls` are below net.ipv6, as
    "conf/eth0/accept_ra". `heard` are the names of interfaces by which router advertisements have come in.
    `can_ask_routers`: rdisc6(8) is there.
    """

    links: Mapping[int, LinkEntry]
    addresses: tuple[Held, ...] = ()
    routes: tuple[Way, ...] = ()
    neighbours: tuple[tuple[int, IPv6Address], ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    heard: frozenset[str] = frozenset()
    can_ask_routers: bool = True

    def sysctl(self, link: LinkEntry, key: str) -> str:
        """One of an interface; "" where it isn't known."""
        return self.sysctls.get(f"conf/{link.name}/{key}", "")

    def vrf(self, link: LinkEntry) -> LinkEntry | None:
        """The VRF device that an interface belongs to."""
        master = self.links.get(link.master)
        return master if master is not None and master.kind == "vrf" else None

    def table(self, link: LinkEntry) -> int:
        """The routing table that decides about what comes in by an interface."""
        vrf = self.vrf(link)
        return vrf.table if vrf else _MAIN

    def held(self, link: LinkEntry) -> list[Held]:
        """The global addresses of an interface, in order."""
        return self._held.get(link.ifindex, [])

    @cached_property
    def _held(self) -> Mapping[int, list[Held]]:
        """By index: there are machines with thousands of interfaces, and each is compared with others."""
        found: dict[int, list[Held]] = {}
        for held in sorted(self.addresses, key=lambda held: held.address):
            if is_global(held.network):
                found.setdefault(held.ifindex, []).append(held)
        return found

    def link_locals(self, link: LinkEntry) -> list[IPv6Address]:
        """Its link-local addresses, in order."""
        return self._link_locals.get(link.ifindex, [])

    @cached_property
    def _link_locals(self) -> Mapping[int, list[IPv6Address]]:
        found: dict[int, list[IPv6Address]] = {}
        for held in sorted(self.addresses, key=lambda held: held.address):
            if held.address.is_link_local:
                found.setdefault(held.ifindex, []).append(held.address)
        return found

    def ways(self, link: LinkEntry) -> Iterator[Way]:
        """The routes out of an interface to global prefixes and addresses, but for those to this machine itself, and
        for routes that this program has left.
        """
        table = self.table(link)
        return (way for way in self._ways.get(link.ifindex, ()) if way.table == table)

    @cached_property
    def _ways(self) -> Mapping[int, list[Way]]:
        """By index, of all tables."""
        own = {Prefix(int(held.address), BITS) for held in self.addresses}
        found: dict[int, list[Way]] = {}
        for way in self.routes:
            if (
                way.type == RouteType.UNICAST
                and way.protocol != PROTOCOL
                and way.destination not in own
                and is_global(way.destination)
            ):
                for ifindex in dict.fromkeys(ifindex for ifindex, _ in way.hops):
                    found.setdefault(ifindex, []).append(way)
        return found

    def on_link(self, link: LinkEntry) -> list[Prefix]:
        """The global prefixes that are on an interface's link, by routes or by its addresses, in order."""
        if link.ifindex not in self._on_link:
            found = {way.destination for way in self.ways(link) if link.ifindex in way.on_link}
            found |= {held.network for held in self.held(link)}
            self._on_link[link.ifindex] = sorted(prefix for prefix in found if prefix.length < BITS)
        return self._on_link[link.ifindex]

    @cached_property
    def _on_link(self) -> dict[int, list[Prefix]]:
        return {}

    def has_route(self, link: LinkEntry, prefix: Prefix) -> bool:
        """Whether a route says that all of a prefix is on an interface's link."""
        return any(link.ifindex in way.on_link and way.destination.covers(prefix) for way in self.ways(link))

    def passes(self, link: LinkEntry, prefix: Prefix) -> bool:
        """Whether an interface's prefix may become another one: somebody gives it for a time."""
        held = any(h.advertised or h.passing for h in self.held(link) if h.network == prefix)
        ways = (way for way in self.ways(link) if way.destination == prefix)
        return held or any(way.protocol == Protocol.RA or way.passing for way in ways)

    def follows(self, link: LinkEntry, prefix: Prefix) -> bool:
        """Whether "interface:NAME" means a prefix: an address of the interface has it."""
        return any(held.network == prefix for held in self.held(link))

    def aggregate(self, prefix: Prefix) -> Way | None:
        """The longest route around a prefix that leads nowhere, as there is one for a delegated prefix."""
        found = [way for way in self.aggregates() if way.destination.covers(prefix)]
        return max(found, key=lambda way: way.destination.length, default=None)

    def aggregates(self) -> list[Way]:
        """All of those."""
        return self._aggregates

    @cached_property
    def _aggregates(self) -> list[Way]:
        return [
            way
            for way in self.routes
            if way.type in REFUSALS and is_global(way.destination) and way.destination.length < BITS
        ]

    def neighbours_in(self, link: LinkEntry, prefix: Prefix) -> list[IPv6Address]:
        """Hosts of a prefix that an interface's neighbour table has, in order."""
        its = self._neighbours.get(link.ifindex, ())
        return [address for address in its if prefix.covers(Prefix(int(address), BITS))]

    @cached_property
    def _neighbours(self) -> Mapping[int, list[IPv6Address]]:
        own = {held.address for held in self.addresses}
        found: dict[int, list[IPv6Address]] = {}
        for ifindex, address in sorted(set(self.neighbours)):
            if address not in own:
                found.setdefault(ifindex, []).append(address)
        return found

    def ports(self, bridge: LinkEntry) -> list[LinkEntry]:
        """The ports of a bridge."""
        return sorted(
            (link for link in self.links.values() if link.master == bridge.ifindex), key=lambda link: link.name
        )

    def may_be_behind(self, link: LinkEntry) -> bool:
        """Whether hosts may be behind an interface: it isn't part of another one, and leads out of this machine."""
        enslaved = link.master != 0 and self.vrf(link) is None
        return not (enslaved or link.type == _LOOPBACK or link.kind in _NOT_BEHIND or is_glob(link.name))


def is_global(prefix: Prefix) -> bool:
    """Whether a prefix may be somebody's: not of local scope, and no larger part of the Internet."""
    return prefix.length >= _WIDEST and not any(other.covers(prefix) for other in _NOT_GLOBAL)


def has_neighbours(link: LinkEntry) -> bool:
    """Whether there is Neighbor Discovery on an interface."""
    return bool(link.mac) and not link.flags & (LinkFlag.NOARP | LinkFlag.POINTOPOINT)


def what_it_is(link: LinkEntry) -> str:
    """An interface in words: what has made it, as far as its name and kind tell."""
    if link.kind == "bridge":
        for pattern, words, _ in _KNOWN:
            if pattern.fullmatch(link.name):
                return words
    return _KINDS.get(link.kind, f"a device of kind {link.kind}" if link.mac else f"a tunnel ({link.kind})")


def manager(link: LinkEntry) -> str:
    """The program that gives a bridge its addresses, and would give them again; "" where none is known to."""
    found = (name for pattern, _, name in _KNOWN if pattern.fullmatch(link.name))
    return next(found, "") if link.kind == "bridge" else ""
