# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts of this machine's interfaces, as values, and what follows from their addresses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from ipaddress import IPv6Address

from npd6_xdp.core.prefix import BITS, MASKS, Prefix


class SourceFlag(IntFlag):
    """`enum source_flag`: which of an entry's source addresses XDP may use without asking Python."""

    LINK_LOCAL = 1
    GLOBAL = 2


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """An IPv6 address that an interface holds. `usable` says that it may be a source: not tentative, no duplicate.

    `advertised` says that the kernel made it by a router's advertisement (RFC 4862 §5.5.3), and `by_kernel` that it is
    the link-local one that the kernel made for the interface (§5.3). `settled` says that Duplicate Address Detection
    has found nobody else to have it: an optimistic one (RFC 4429) is usable before that.
    """

    address: IPv6Address
    prefix_length: int = 64
    usable: bool = True
    deprecated: bool = False
    advertised: bool = False
    settled: bool = True
    by_kernel: bool = False

    @property
    def network(self) -> Prefix:
        """The prefix that is on-link where the address is."""
        return Prefix(int(self.address) & MASKS[self.prefix_length], self.prefix_length)


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """What the machine says about one interface: `mac` has 6 bytes, or none where there is no Ethernet framing.

    `addresses` and `next_hops` are those of the L3 interface that frames of a VLAN come in by: the key () is the
    port itself (or the bridge it belongs to), (100,) the VLAN device 100 on it. A VLAN without a device is
    absent, and then the port's own count. `l3` has those interfaces' indexes.

    `bridge_macs` has the MAC address of those of them that are bridges, or on one: a bridge sends by its own. `shared`
    says for which frames others live behind the port, too: a bridge's other ports, macvlan and ipvlan devices; `beside`
    has the addresses that this host holds on such devices. `lower` are the indexes of interfaces by which frames of
    this one may come in under their own index: what a bond or a synthetic device hands its native XDP program down to.
    `lossy` says that what XDP sends back natively may be lost: on veth, where the peer has no program, and on a bond
    of such.
    """

    name: str
    ifindex: int
    mac: bytes
    up: bool = True
    kind: str = ""
    """The driver's kind as `ip -d link` shows it ("veth", "vlan", "bond"), "" for hardware."""
    addresses: Mapping[tuple[int, ...], tuple[OwnAddress, ...]] = field(default_factory=dict)
    next_hops: Mapping[tuple[int, ...], frozenset[IPv6Address]] = field(default_factory=dict)
    l3: Mapping[tuple[int, ...], int] = field(default_factory=dict)
    type: int = 1
    """ARPHRD_*, 1 for Ethernet."""
    flags: int = 1
    """IFF_*: rtnetlink.LinkFlag; 1 is UP."""
    table: int = 0
    """The routing table of the VRF that it belongs to; 0 is none, and routes are in the table main."""
    bridge: str = ""
    """The bridge that it is a port of: the kernel's neighbours are there, not here. "" for none."""
    altnames: tuple[str, ...] = ()
    """Other names that it has."""
    generation: int = 0
    """It changes when another interface gets this index, or the same one was away. Whatever was attached is gone then.
    """
    bridge_macs: Mapping[tuple[int, ...], bytes] = field(default_factory=dict)
    shared: frozenset[tuple[int, ...]] = frozenset()
    beside: Mapping[tuple[int, ...], tuple[OwnAddress, ...]] = field(default_factory=dict)
    lower: tuple[int, ...] = ()
    lossy: bool = False
    tpids: Mapping[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)
    """The TPIDs of the tags that frames with these VLAN ids have, as the VLAN devices make them."""
    beside_macs: Mapping[tuple[int, ...], frozenset[bytes]] = field(default_factory=dict)
    """The MAC addresses of those devices, where they are up."""

    @property
    def why_no_port(self) -> str:
        """Why no XDP program of ours can sit on it; "" where one can."""
        if not self.mac:
            return "not an Ethernet interface: there is no Neighbor Discovery to proxy on tunnels, PPP and loopback"
        if self.kind in ("ipvlan", "ipvtap"):
            # Its MAC address is its parent's, and the parent keeps all frames to addresses that no ipvlan device holds:
            # those to the hosts behind, and unicast solicitations for them (drivers/net/ipvlan/ipvlan_core.c).
            return (
                f"an {self.kind} device: frames to hosts behind it would go to its parent;"
                " name the parent, or use a macvlan device"
            )
        return ""

    @property
    def can_be_native(self) -> bool:
        """Whether XDP in native mode is worth a try: hardware's driver may refuse it, of the rest few kinds can at all.

        By whose drivers have ndo_bpf in Linux (veth has it, too, and is lossy).
        """
        return self.kind in ("", "bond", "tun") and not self.lossy

    @property
    def why_lossy(self) -> str:
        """Why `attach = "auto"` takes generic mode, which always arrives, without asking the driver; "" if it asks."""
        if not self.lossy:
            return ""
        where = (
            "veth unless the peer has a program" if self.kind == "veth" else "a bond of veths unless the peers have one"
        )
        return f"native XDP_TX is lost on {where}, too"

    def mac_of(self, tags: tuple[int, ...]) -> bytes:
        """The MAC address that frames with these VLAN ids are answered from."""
        return self.bridge_macs.get(self._device(tags), self.mac)

    def takes_in(self, tags: tuple[int, ...], mac: bytes) -> bool:
        """Whether a device here takes in frames with these VLAN ids that are sent to a MAC address (J6)."""
        return mac in (self.mac, self.mac_of(tags)) or mac in self.beside_macs.get(self._device(tags), ())

    def is_shared(self, tags: tuple[int, ...]) -> bool:
        """Whether frames with these VLAN ids may be for others behind the port."""
        return self._device(tags) in self.shared

    def own_beside(self, tags: tuple[int, ...]) -> tuple[OwnAddress, ...]:
        """The addresses that this host holds on devices that get such frames as well, and answers for itself."""
        return self.beside.get(self._device(tags), ())

    def _device(self, tags: tuple[int, ...]) -> tuple[int, ...]:
        """The key of the interface that frames with these VLAN ids come in by."""
        return tags if tags in self.l3 else ()

    def own(self, tags: tuple[int, ...]) -> tuple[OwnAddress, ...]:
        """The addresses of the interface that frames with these VLAN ids come in by."""
        return self.addresses.get(tags, self.addresses.get((), ()))

    def l3_ifindex(self, tags: tuple[int, ...]) -> int:
        """The index of that interface."""
        return self.l3.get(tags, self.l3.get((), self.ifindex))


def followed_prefixes(links: Mapping[str, LinkFacts]) -> dict[str, tuple[Prefix, ...]]:
    """The global prefixes of each interface: what "interface:lan0" means."""
    return {
        name: tuple(dict.fromkeys(held.network for held in link.own(()) if not held.address.is_link_local))
        for name, link in links.items()
    }


def held_addresses(own: Iterable[OwnAddress]) -> Iterable[IPv6Address]:
    """The addresses that the kernel itself answers for: those it holds, and their subnets' router anycast
    addresses, which a forwarding interface has beside each (C1, RFC 4291 §2.6.1; Linux: prefixes shorter than /127).
    """
    for held in own:
        yield held.address
        if held.prefix_length < 127 and not held.address.is_link_local:
            yield IPv6Address(held.network.address)


def choose_source(addresses: Iterable[OwnAddress], destination: IPv6Address) -> IPv6Address | None:
    """The source of an advertisement under na_source = "interface", None if the interface has no usable address.

    `destination` is where the advertisement goes (ff02::1 for a DAD probe). As the kernel would: an address of the
    destination's scope, not a deprecated one if there is another, the longest common prefix with the
    destination first (RFC 6724 §5, rules 2, 3 and 8); none of that scope: the link-local one.
    """
    wants_link_local = destination.is_link_local or destination.is_multicast
    usable = [a for a in addresses if a.usable]
    of_scope = [a for a in usable if a.address.is_link_local == wants_link_local]
    candidates = of_scope or [a for a in usable if a.address.is_link_local]
    if not candidates:
        return None
    return max(candidates, key=lambda a: (not a.deprecated, -(int(a.address) ^ int(destination)).bit_length())).address


def own_link_local(addresses: Iterable[OwnAddress], mac: bytes) -> IPv6Address | None:
    """The link-local address that is an interface's own, rather than one that moves between machines (VRRP, RFC 9568);
    None if none is usable. `mac` is its MAC address.

    First the one that the kernel made. Where another program makes it, as NetworkManager does: the one of the MAC
    address (RFC 4291 §2.5.1), and else one with a prefix, since keepalived adds a virtual address as a /128 if it isn't
    told otherwise; of several, one that isn't deprecated, and the lowest.
    """
    of_mac = b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]

    def rank(own: OwnAddress) -> tuple[bool, bool, bool, bool, IPv6Address]:
        is_of_mac, is_single = own.address.packed == of_mac, own.prefix_length == BITS
        return not own.by_kernel, not is_of_mac, is_single, own.deprecated, own.address

    best = min((own for own in addresses if own.usable and own.address.is_link_local), key=rank, default=None)
    return best.address if best else None


def advert_sources(addresses: Sequence[OwnAddress]) -> tuple[SourceFlag, IPv6Address, IPv6Address]:
    """The source addresses that XDP can use by itself, of those an entry has: flags, link-local and global one.

    Where the choice depends on who asks, the flag is clear, and Python chooses.
    """
    unspecified = IPv6Address(0)
    usable = [a for a in addresses if a.usable]
    link_local = choose_source([a for a in usable if a.address.is_link_local], IPv6Address("ff02::1"))
    others = [a for a in usable if not a.address.is_link_local]
    preferred = [a for a in others if not a.deprecated] or others
    flags = SourceFlag.LINK_LOCAL if link_local and _is_sole(usable, link_local) else SourceFlag(0)
    global_address = preferred[0].address if preferred else link_local
    if global_address and (len(preferred) == 1 or (not preferred and flags)):
        flags |= SourceFlag.GLOBAL
    return flags, link_local or unspecified, global_address or unspecified


def _is_sole(addresses: Iterable[OwnAddress], link_local: IPv6Address) -> bool:
    return [a.address for a in addresses if a.address.is_link_local] == [link_local]
