# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration and link facts -> the flat table that decides about every target.

There is one truth: `check` prints this table, `explain` looks it up, the kernel maps hold it (system/datapath.py
packs it), and the responder finds its rules in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from ipaddress import IPv6Address, IPv6Network

from npd6_xdp.core.config import (
    Config,
    DadPolicy,
    Datapath,
    InterfaceConfig,
    NaSource,
    Vlan,
)
from npd6_xdp.core.verdict import Method, Outcome

VLAN_ANY = 0xFFFF
"""Both VLAN ids of the slot that takes all frames of a port which no other slot speaks for."""


class Decision(IntEnum):
    """`enum decision` of bpf/ns_filter.c: what a target's entry in the table says."""

    OWN = 0
    NEXT_HOP = 1
    IGNORE = 2
    STATIC = 3


class RuleFlag(IntFlag):
    """`enum rule_flag`: how the advertisements of a rule look, and who gets them."""

    ROUTER = 1
    DEFEND = 2
    SOURCE_INTERFACE = 4


class SlotSource(IntFlag):
    """`enum slot_sources`: which of a slot's source addresses XDP may use without asking Python."""

    LINK_LOCAL = 1
    GLOBAL = 2


DATAPATHS = (Datapath.HYBRID, Datapath.PYTHON, Datapath.MONITOR)
"""In the order of `enum datapath`."""

_DECISIONS = {Method.STATIC: Decision.STATIC, Method.IGNORE: Decision.IGNORE}

NO_RULE = 0xFFFFFFFF
"""The rule id of own addresses and next hops, which no [[interface.rule]] stands behind."""


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """An IPv6 address that an interface holds. `usable` says that it may be a source: not tentative, no duplicate."""

    address: IPv6Address
    prefix_length: int = 64
    usable: bool = True
    deprecated: bool = False

    @property
    def network(self) -> IPv6Network:
        """The prefix that is on-link where the address is."""
        return IPv6Network((self.address, self.prefix_length), strict=False)


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """What the machine says about one port: `mac` has 6 bytes.

    `addresses` and `next_hops` are those of the L3 interface that frames of a VLAN come in by: the key () is the
    port itself (or the bridge it belongs to), (100,) the VLAN device 100 on it. A VLAN without a device is
    absent, and then the port's own count.
    """

    name: str
    ifindex: int
    mac: bytes
    up: bool = True
    kind: str = ""
    """The driver's kind as `ip -d link` shows it ("veth", "vlan", "bond"), "" for hardware."""
    addresses: Mapping[tuple[int, ...], tuple[OwnAddress, ...]] = field(default_factory=dict)
    next_hops: Mapping[tuple[int, ...], frozenset[IPv6Address]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the configuration in the table: `id` is its index in Table.rules and in the kernel's counters."""

    id: int
    entry: int
    prefix: str
    network: IPv6Network
    method: Method
    decision: Decision
    flags: RuleFlag


@dataclass(frozen=True, slots=True)
class Entry:
    """One [[interface]] on one port. `id` is the scope in the kernel maps and the index of its counters.

    `spoken` is False for the frames of a port that no [[interface]] speaks for: those have no rules, and
    whatever is asked there is `unmatched`.
    """

    id: int
    label: str
    port: str
    ifindex: int
    mac: bytes
    datapath: Datapath
    vlan: Vlan
    addresses: tuple[OwnAddress, ...]
    spoken: bool = True


@dataclass(frozen=True, slots=True)
class Match:
    """What the kernel maps say about a target: `rule` is a Rule.id, or NO_RULE."""

    rule: int
    decision: Decision
    flags: RuleFlag


_OWN = Match(NO_RULE, Decision.OWN, RuleFlag(0))
_NEXT_HOP = Match(NO_RULE, Decision.NEXT_HOP, RuleFlag(0))


@dataclass(frozen=True, slots=True)
class Table:
    """The flat table. `slots` maps (ifindex, outer VID, inner VID) to entry ids; VIDs are 0 where there is no tag.

    `addresses` and `prefixes` are scoped by entry id; an address of its own beats any prefix, the longest
    prefix beats the others. `entries` and `rules` also hold those that no slot leads to any more: their
    counters live on, and an event of theirs may still be under way.
    """

    entries: Mapping[int, Entry]
    rules: Mapping[int, Rule]
    slots: Mapping[tuple[int, int, int], int]
    addresses: Mapping[tuple[int, IPv6Address], Match]
    prefixes: Mapping[tuple[int, IPv6Network], Match]

    def lookup(self, entry: int, target: IPv6Address) -> Match | Outcome:
        """What decides about `target` among the frames of `entry`: a Match, or IGNORED or UNMATCHED.

        The same steps as target_match() in bpf/ns_filter.c.
        """
        if target.is_unspecified or target.is_loopback or target.is_multicast:
            return Outcome.IGNORED
        match = self.addresses.get((entry, target))
        if match is not None:
            return match
        if target.is_link_local:
            return Outcome.IGNORED
        for length in range(127, -1, -1):
            match = self.prefixes.get((entry, IPv6Network((target, length), strict=False)))
            if match is not None:
                return match
        return Outcome.UNMATCHED

    def entry_of(self, ifindex: int, tags: tuple[int, ...] = ()) -> Entry | None:
        """The entry that speaks for frames with these VLAN ids on a port; None where the port isn't attached."""
        found = self.slots.get(_slot_key(ifindex, Vlan(tags=tags)), self.slots.get((ifindex, VLAN_ANY, VLAN_ANY)))
        return None if found is None else self.entries[found]


def build(config: Config, links: Mapping[str, LinkFacts], before: Table | None = None) -> Table:
    """The table for the interfaces of `config` that `links` knows by name; others get no slot.

    Entries and rules keep the ids that they have in `before`, so counters and events go on meaning the same.
    """
    builder = _Builder(before)
    for interface in config.interfaces:
        link = links.get(interface.name)
        if link is None:
            continue
        if interface.vlan.any:
            # Each VLAN device has addresses of its own, so its frames get an entry of its own; the rest share one.
            spoken_for = {i.vlan.tags for i in config.interfaces if i.name == link.name and not i.vlan.any}
            for tags in sorted({*link.addresses, *link.next_hops} - spoken_for - {()}):
                builder.add(link, interface, Vlan(tags=tags))
        builder.add(link, interface, interface.vlan)
    for name in dict.fromkeys(interface.name for interface in config.interfaces):
        if name in links:
            builder.add_unspoken(links[name])
    return builder.table()


class _Builder:
    """Collects the parts of a Table."""

    def __init__(self, before: Table | None) -> None:
        self.entries = dict(before.entries) if before else {}
        self.rules = dict(before.rules) if before else {}
        self._entry_ids = {_entry_key(entry): entry.id for entry in self.entries.values()}
        self._rule_ids = {(rule.entry, rule.network): rule.id for rule in self.rules.values()}
        self.slots: dict[tuple[int, int, int], int] = {}
        self.addresses: dict[tuple[int, IPv6Address], Match] = {}
        self.prefixes: dict[tuple[int, IPv6Network], Match] = {}

    def table(self) -> Table:
        return Table(self.entries, self.rules, self.slots, self.addresses, self.prefixes)

    def add(self, link: LinkFacts, interface: InterfaceConfig, vlan: Vlan) -> None:
        """The frames of `vlan` on a port, by the rules of an [[interface]]."""
        own = link.addresses.get(vlan.tags, link.addresses.get((), ()))
        hops = link.next_hops.get(vlan.tags, link.next_hops.get((), frozenset()))
        entry = self._enter(link, interface.label, interface.datapath, vlan, own, spoken=True)
        flags = _flags(interface)
        for rule_config in interface.rules:
            network, method = rule_config.network, rule_config.method
            rule_id = self._rule_ids.setdefault((entry, network), len(self._rule_ids))
            rule = Rule(rule_id, entry, rule_config.prefix, network, method, _DECISIONS[method], flags)
            self.rules[rule_id] = rule
            match = Match(rule_id, rule.decision, rule.flags)
            if network.prefixlen == 128:
                self.addresses[entry, network.network_address] = match
            else:
                self.prefixes[entry, network] = match
        for hop in hops:
            self.addresses[entry, hop] = _NEXT_HOP
        for address in _held(own):
            self.addresses[entry, address] = _OWN

    def add_unspoken(self, link: LinkFacts) -> None:
        """The frames of a port that no [[interface]] speaks for: an entry without rules, so all is unmatched."""
        if (link.ifindex, VLAN_ANY, VLAN_ANY) not in self.slots:
            self._enter(link, link.name, Datapath.MONITOR, Vlan(any=True), (), spoken=False)

    def _enter(
        self,
        link: LinkFacts,
        label: str,
        datapath: Datapath,
        vlan: Vlan,
        own: tuple[OwnAddress, ...],
        *,
        spoken: bool,
    ) -> int:
        entry_id = self._entry_ids.setdefault((link.name, vlan, spoken), len(self._entry_ids))
        self.entries[entry_id] = Entry(entry_id, label, link.name, link.ifindex, link.mac, datapath, vlan, own, spoken)
        self.slots[_slot_key(link.ifindex, vlan)] = entry_id
        return entry_id


def warnings(table: Table) -> list[str]:
    """What a configuration asks for that its writer may not have meant, a line each."""
    lines = []
    for rule in table.rules.values():
        entry = table.entries[rule.entry]
        if rule.decision is not Decision.STATIC:
            continue
        on_link = {
            network
            for held in entry.addresses
            if not (network := held.network).is_link_local and network.overlaps(rule.network)
        }
        lines += [
            f"{entry.label}: the static rule {rule.prefix} covers {network}, which is on-link there:"
            f" it answers for the neighbours on {entry.port}'s own side, too; narrow the prefix, or ignore that part"
            for network in sorted(on_link)
        ]
    return lines


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


def slot_sources(entry: Entry) -> tuple[SlotSource, IPv6Address, IPv6Address]:
    """The source addresses that XDP can use by itself for an entry: flags, link-local and global one.

    Where the choice depends on who asks, the flag is clear, and Python chooses.
    """
    unspecified = IPv6Address(0)
    usable = [a for a in entry.addresses if a.usable]
    link_local = choose_source([a for a in usable if a.address.is_link_local], IPv6Address("ff02::1"))
    others = [a for a in usable if not a.address.is_link_local]
    preferred = [a for a in others if not a.deprecated] or others
    flags = SlotSource.LINK_LOCAL if link_local and _is_sole(usable, link_local) else SlotSource(0)
    global_address = preferred[0].address if preferred else link_local
    if global_address and (len(preferred) == 1 or (not preferred and flags)):
        flags |= SlotSource.GLOBAL
    return flags, link_local or unspecified, global_address or unspecified


def _is_sole(addresses: Iterable[OwnAddress], link_local: IPv6Address) -> bool:
    return [a.address for a in addresses if a.address.is_link_local] == [link_local]


def _entry_key(entry: Entry) -> tuple[str, Vlan, bool]:
    return entry.port, entry.vlan, entry.spoken


def _slot_key(ifindex: int, vlan: Vlan) -> tuple[int, int, int]:
    if vlan.any:
        return ifindex, VLAN_ANY, VLAN_ANY
    outer, inner = (*vlan.tags, 0, 0)[:2]
    return ifindex, outer, inner


def _flags(interface: InterfaceConfig) -> RuleFlag:
    flags = RuleFlag(0)
    if interface.router:
        flags |= RuleFlag.ROUTER
    if interface.dad is DadPolicy.DEFEND:
        flags |= RuleFlag.DEFEND
    if interface.na_source is NaSource.INTERFACE:
        flags |= RuleFlag.SOURCE_INTERFACE
    return flags


def _held(own: Iterable[OwnAddress]) -> Iterable[IPv6Address]:
    """The addresses that the kernel itself answers for: those it holds, and their subnets' router anycast
    addresses, which a forwarding interface has beside each (RFC 4291 §2.6.1; Linux: prefixes shorter than /127)."""
    for held in own:
        yield held.address
        if held.prefix_length < 127 and not held.address.is_link_local:
            yield held.network.network_address
