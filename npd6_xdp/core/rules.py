# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration and link facts -> the flat table that decides about every target.

There is one truth: `check` prints this table, `explain` looks it up, the kernel maps hold it (system/datapath.py
packs it), and the responder finds its rules in it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from functools import cached_property
from ipaddress import IPv6Address, IPv6Network
from itertools import count
from typing import Generic, TypeVar

from npd6_xdp.core.config import (
    Config,
    DadPolicy,
    Datapath,
    InterfaceConfig,
    NaSource,
    RuleConfig,
    Vlan,
)
from npd6_xdp.core.flatten import Flat, flatten, rule_networks
from npd6_xdp.core.links import LinkFacts, OwnAddress, followed_prefixes, held_addresses
from npd6_xdp.core.verdict import Method, Outcome

VLAN_ANY = 0xFFFF
"""Both VLAN ids of the slot that takes all frames of a port which no other slot speaks for."""


class Decision(IntEnum):
    """`enum decision` of bpf/ns_filter.c: what a target's entry in the table says."""

    OWN = 0
    NEXT_HOP = 1
    IGNORE = 2
    STATIC = 3
    ROUTE = 4
    NEIGHBOUR = 5
    KERNEL = 6


class RuleFlag(IntFlag):
    """`enum rule_flag`: how the advertisements of a rule look, and who gets them."""

    ROUTER = 1
    DEFEND = 2
    SOURCE_INTERFACE = 4
    VIA = 8


class KnownFlag(IntFlag):
    """`enum known_flag`: what a known target's entry says besides that it is there."""

    STALE = 1


DATAPATHS = (Datapath.HYBRID, Datapath.PYTHON, Datapath.MONITOR)
"""In the order of `enum datapath`."""

_DECISIONS = {
    Method.STATIC: Decision.STATIC,
    Method.ROUTE: Decision.ROUTE,
    Method.NEIGHBOUR: Decision.NEIGHBOUR,
    Method.KERNEL: Decision.KERNEL,
    Method.IGNORE: Decision.IGNORE,
}
_ALWAYS_THERE = (Decision.STATIC, Decision.KERNEL)

NO_RULE = 0xFFFFFFFF
"""The rule id of own addresses and next hops, which no [[interface.rule]] stands behind."""
NO_GROUP = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the configuration in the table: `id` is its index in Table.rules and in the kernel's counters.

    `networks` are its prefixes, now. `group` is the scope of its via interfaces and known targets.
    """

    id: int
    entry: int
    prefix: str
    networks: tuple[IPv6Network, ...]
    method: Method
    decision: Decision
    flags: RuleFlag
    group: int = NO_GROUP
    via: tuple[str, ...] = ()
    host_routes: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One [[interface]] on one port. `id` is the scope in the kernel maps and the index of its counters.

    `spoken` is False for the frames of a port that no [[interface]] speaks for: those have no rules, and
    whatever is asked there is `unmatched`. `source_limit` is in NS/s, 0 is none.
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
    l3_ifindex: int = 0
    source_limit: int = 0
    collect: int = 0


@dataclass(frozen=True, slots=True)
class Match:
    """What the kernel maps say about a target: `rule` is a Rule.id, or NO_RULE."""

    rule: int
    decision: Decision
    flags: RuleFlag
    group: int = NO_GROUP


_OWN = Match(NO_RULE, Decision.OWN, RuleFlag(0))
_NEXT_HOP = Match(NO_RULE, Decision.NEXT_HOP, RuleFlag(0))

GroupKey = tuple[str, ...]
"""What a group stands for: ("via", "lan0", "lan1"), or ("kernel", ENTRY)."""


@dataclass(frozen=True)
class Table:
    """The flat table. `slots` maps (ifindex, outer VID, inner VID) to entry ids; VIDs are 0 where there is no tag.

    `addresses` and `prefixes` are scoped by entry id; an address of its own beats any prefix, the longest
    prefix beats the others. `entries` and `rules` also hold those of interfaces that are away and named in the
    configuration: their counters live on. `groups` has the ids of groups, `vias` the indexes of the interfaces
    in each. `notes` says what of the configuration doesn't apply as things are, a line each.
    """

    entries: Mapping[int, Entry]
    rules: Mapping[int, Rule]
    slots: Mapping[tuple[int, int, int], int]
    addresses: Mapping[tuple[int, IPv6Address], Match]
    prefixes: Mapping[tuple[int, IPv6Network], Match]
    groups: Mapping[GroupKey, int] = field(default_factory=dict)
    vias: Mapping[int, frozenset[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

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
        return _longest(self._index.get(entry, ()), int(target)) or Outcome.UNMATCHED

    @cached_property
    def _index(self) -> Mapping[int, _Index]:
        by_entry: defaultdict[int, dict[IPv6Network, Match]] = defaultdict(dict)
        for (entry, network), match in self.prefixes.items():
            by_entry[entry][network] = match
        return {entry: _index(found) for entry, found in by_entry.items()}

    def deciding(self, entry: int, network: IPv6Network) -> Match | None:
        """What decides about most of a network: the longest prefix that holds all of it."""
        index = [(mask, found) for mask, found in self._index.get(entry, ()) if mask <= int(network.netmask)]
        return _longest(index, int(network.network_address))

    def entry_of(self, ifindex: int, tags: tuple[int, ...] = ()) -> Entry | None:
        """The entry that speaks for frames with these VLAN ids on a port; None where the port isn't attached."""
        found = self.slots.get(_slot_key(ifindex, Vlan(tags=tags)), self.slots.get((ifindex, VLAN_ANY, VLAN_ANY)))
        return None if found is None else self.entries[found]

    def neighbour_groups(self, ifindex: int, address: IPv6Address) -> list[int]:
        """The groups in which a host at `address` behind an interface is a known target of method neighbour."""
        return [
            group
            for group, entries in self._neighbour_entries.items()
            if ifindex in self.vias[group] and any(self._is_neighbours(group, entry, address) for entry in entries)
        ]

    def host_route_wanted(self, ifindex: int, address: IPv6Address) -> bool:
        """Whether a rule with host_routes covers a host at `address` behind an interface."""
        return any(
            isinstance(match := self.lookup(entry, address), Match)
            and match.group == group
            and self.rules[match.rule].host_routes
            for group in self.neighbour_groups(ifindex, address)
            for entry in self._neighbour_entries[group]
        )

    def _is_neighbours(self, group: int, entry: int, address: IPv6Address) -> bool:
        match = self.lookup(entry, address)
        return isinstance(match, Match) and match.group == group and match.decision is Decision.NEIGHBOUR

    @cached_property
    def _neighbour_entries(self) -> Mapping[int, frozenset[int]]:
        found: defaultdict[int, set[int]] = defaultdict(set)
        live = set(self.slots.values())
        for rule in self.rules.values():
            if rule.method is Method.NEIGHBOUR and rule.entry in live:
                found[rule.group].add(rule.entry)
        return {group: frozenset(entries) for group, entries in found.items()}


def build(config: Config, links: Mapping[str, LinkFacts], before: Table | None = None) -> Table:
    """The table for those interfaces of the machine, `links` by name, that `config` speaks of.

    Interfaces without Ethernet framing get no slot. Entries, rules and groups keep the ids that they have in
    `before`, so counters and events go on meaning the same; an id that is no longer used may come again in the
    table after the next.
    """
    builder = _Builder(config, links, before)
    for link in links.values():
        if link.mac:
            builder.add_port(link)
    return builder.table()


Key = TypeVar("Key")
_Index = Sequence[tuple[int, Mapping[int, Match]]]


def _index(prefixes: Mapping[IPv6Network, Match]) -> _Index:
    """Prefixes by mask, the longest first."""
    by_mask: defaultdict[int, dict[int, Match]] = defaultdict(dict)
    for network, match in prefixes.items():
        by_mask[int(network.netmask)][int(network.network_address)] = match
    return sorted(by_mask.items(), reverse=True)


def _longest(index: _Index, target: int) -> Match | None:
    for mask, found in index:
        match = found.get(target & mask)
        if match is not None:
            return match
    return None


class _Builder:
    """Collects the parts of a Table."""

    def __init__(self, config: Config, links: Mapping[str, LinkFacts], before: Table | None) -> None:
        self._config = config
        self._links = links
        self._before = before or Table({}, {}, {}, {}, {})
        self._followed = followed_prefixes(links)
        self._held = sorted(
            {held for link in links.values() for own in link.addresses.values() for held in held_addresses(own)}
            - {IPv6Address("::1")}
        )
        self._entry_ids = _Ids({_entry_key(entry): entry.id for entry in self._before.entries.values()})
        self._rule_ids = _Ids({(rule.entry, rule.prefix): rule.id for rule in self._before.rules.values()})
        self._group_ids = _Ids(self._before.groups, NO_GROUP + 1)
        self.entries: dict[int, Entry] = {}
        self.rules: dict[int, Rule] = {}
        self.slots: dict[tuple[int, int, int], int] = {}
        self.addresses: dict[tuple[int, IPv6Address], Match] = {}
        self.prefixes: dict[tuple[int, IPv6Network], Match] = {}
        self.groups: dict[GroupKey, int] = {}
        self.notes: dict[str, None] = {}

    def table(self) -> Table:
        self._keep_what_is_away()
        vias = {
            group: frozenset(self._links[name].ifindex for name in key[1:] if name in self._links)
            for key, group in self.groups.items()
            if key[0] == "via"
        }
        return Table(
            self.entries,
            self.rules,
            self.slots,
            self.addresses,
            self.prefixes,
            self.groups,
            vias,
            tuple(self.notes),
        )

    def add_port(self, link: LinkFacts) -> None:
        """The frames of one port, by all entries that speak for it."""
        entries = self._config.entries(link.name)
        for interface in entries:
            if interface.vlan.any:
                # Each VLAN device has addresses of its own, so its frames get an entry of its own; the rest share one.
                spoken_for = {other.vlan.tags for other in entries if not other.vlan.any}
                for tags in sorted({*link.addresses, *link.next_hops} - spoken_for):
                    self._add(link, interface, Vlan(tags=tags))
            self._add(link, interface, interface.vlan)
        if entries and (link.ifindex, VLAN_ANY, VLAN_ANY) not in self.slots:
            # what no entry speaks for: an entry without rules, so all is unmatched
            nothing = InterfaceConfig(link.name, (), Vlan(any=True), datapath=Datapath.MONITOR)
            self._enter(link, nothing, nothing.vlan, spoken=False)

    def _add(self, link: LinkFacts, interface: InterfaceConfig, vlan: Vlan) -> None:
        """The frames of `vlan` on a port, by the rules of an [[interface]]."""
        entry = self._enter(link, interface, vlan, spoken=True)
        flat, notes = flatten(interface.rules, self._followed)
        self.notes |= dict.fromkeys(f"{interface.labelled(link.name)}: {note}" for note in notes)
        matches = {rule: self._add_rule(entry, interface, rule) for rule in interface.rules}
        if vlan.any or (vlan.tags and vlan.tags not in link.l3):
            matches = {rule: self._without_a_device(interface, link, rule, match) for rule, match in matches.items()}
        for line in flat:
            match = matches[line.rule]
            if line.left_out:
                match = Match(match.rule, Decision.IGNORE, match.flags)
            if line.network.prefixlen == 128:
                self.addresses[entry, line.network.network_address] = match
            else:
                self.prefixes[entry, line.network] = match
        own = set(held_addresses(link.own(vlan.tags)))
        self._count_as_present(entry, flat, own)
        for hop in link.next_hops.get(vlan.tags, link.next_hops.get((), frozenset())):
            self.addresses[entry, hop] = _NEXT_HOP
        for address in own:
            self.addresses[entry, address] = _OWN

    def _add_rule(self, entry: int, interface: InterfaceConfig, rule: RuleConfig) -> Match:
        rule_id = self._rule_ids[entry, rule.prefix]
        group = NO_GROUP
        if rule.method is Method.NEIGHBOUR:
            group = self._group(("via", *sorted(self._behind(entry, rule))))
        elif rule.via:  # of method route, XDP itself lets no way back by the interface that it came in by
            group = self._group(("via", *sorted(rule.via)))
        elif rule.method is Method.KERNEL:
            group = self._group(("kernel", str(entry)))
        decision, flags = _DECISIONS[rule.method], _flags(interface, rule)
        networks = rule_networks(rule, self._followed)
        self.rules[rule_id] = Rule(
            rule_id, entry, rule.prefix, networks, rule.method, decision, flags, group, rule.via, rule.host_routes
        )
        return Match(rule_id, decision, flags, group)

    def _behind(self, entry: int, rule: RuleConfig) -> list[str]:
        """The via interfaces but for that which the solicitation comes in by: its hosts answer for themselves."""
        here = self.entries[entry]
        behind = [name for name in rule.via if name not in self._links or self._links[name].ifindex != here.l3_ifindex]
        if not behind:
            self.notes[f"{here.label}: {rule.prefix}: nothing is behind {rule.via[0]} for who asks there"] = None
        return behind

    def _without_a_device(self, interface: InterfaceConfig, link: LinkFacts, rule: RuleConfig, match: Match) -> Match:
        """The kernel sees no frames of a VLAN that it has no device for, so its proxy can't answer them: we do."""
        if match.decision is not Decision.KERNEL:
            return match
        if not interface.vlan.any:
            where = interface.labelled(link.name)
            self.notes[f"{where}: no VLAN device, so the kernel can't answer {rule.prefix}: npd6-xdp does"] = None
        return Match(match.rule, Decision.STATIC, match.flags)

    def _group(self, key: GroupKey) -> int:
        return self.groups.setdefault(key, self._group_ids[key])

    def _count_as_present(self, entry: int, flat: Iterable[Flat], own: set[IPv6Address]) -> None:
        """Addresses of the host's other interfaces: Linux doesn't answer for them here, and they are surely there."""
        prefixes = {line.network: self.prefixes[entry, line.network] for line in flat if line.network.prefixlen < 128}
        index = _index(prefixes)
        for line in flat:
            if line.left_out or line.rule.method in (Method.STATIC, Method.IGNORE):
                continue
            first = bisect_left(self._held, line.network.network_address)
            last = bisect_right(self._held, line.network.broadcast_address)
            for address in self._held[first:last]:
                exact = self.addresses.get((entry, address))
                match = exact or _longest(index, int(address))
                if match is None or address in own or (exact is None and address.is_link_local):
                    continue
                if match.decision in (Decision.ROUTE, Decision.NEIGHBOUR, Decision.KERNEL):
                    self.addresses[entry, address] = Match(match.rule, Decision.STATIC, match.flags)

    def _enter(self, link: LinkFacts, interface: InterfaceConfig, vlan: Vlan, *, spoken: bool) -> int:
        entry_id = self._entry_ids[link.name, vlan, spoken]
        self.entries[entry_id] = Entry(
            entry_id,
            interface.labelled(link.name) if spoken else link.name,
            link.name,
            link.ifindex,
            link.mac,
            interface.datapath,
            vlan,
            link.own(vlan.tags) if spoken else (),
            spoken,
            link.l3_ifindex(vlan.tags),
            interface.source_limit,
            interface.collect_targets,
        )
        self.slots[_slot_key(link.ifindex, vlan)] = entry_id
        return entry_id

    def _keep_what_is_away(self) -> None:
        """Entries and rules of interfaces that the file names and that may come back: their counters live on."""
        named = {interface.name for interface in self._config.interfaces if not interface.is_glob}
        present = {entry.port for entry in self.entries.values()}  # one of its VLAN devices may be away
        kept = set()
        for entry in self._before.entries.values():
            if entry.id in self.entries or entry.port not in named | present:
                continue
            speaking = [i for i in self._config.entries(entry.port) if i.vlan == entry.vlan or i.vlan.any]
            if speaking or not entry.spoken:
                self.entries[entry.id] = entry
                kept |= {(entry.id, rule.prefix) for interface in speaking for rule in interface.rules}
        for rule in self._before.rules.values():
            if (rule.entry, rule.prefix) in kept:
                self.rules.setdefault(rule.id, rule)


class _Ids(Generic[Key]):
    """Numbers for keys: those of before, and fresh ones that nothing before had."""

    def __init__(self, before: Mapping[Key, int], first: int = 0) -> None:
        self._ids = dict(before)
        taken = set(before.values())
        self._fresh = (number for number in count(first) if number not in taken)

    def __getitem__(self, key: Key) -> int:
        if key not in self._ids:
            self._ids[key] = next(self._fresh)
        return self._ids[key]


def warnings(table: Table) -> list[str]:
    """What a configuration asks for that its writer may not have meant, a line each."""
    lines = list(table.notes)
    on_link = {
        entry.id: {held.network for held in entry.addresses if not held.address.is_link_local}
        for entry in table.entries.values()
    }
    covered: dict[tuple[int, IPv6Network], None] = {}
    for entry_id, network, match in _flat_lines(table):
        if match.decision not in _ALWAYS_THERE or table.rules[match.rule].decision not in _ALWAYS_THERE:
            continue
        for here in on_link[entry_id]:
            wider = network.supernet_of(here) and table.deciding(entry_id, here) == match
            if wider or here.supernet_of(network):
                covered[match.rule, here] = None
    for rule_id, network in sorted(covered):
        rule = table.rules[rule_id]
        entry = table.entries[rule.entry]
        lines.append(
            f"{entry.label}: the {rule.method} rule {rule.prefix} covers {network}, which is on-link there:"
            f" it answers for the neighbours on {entry.port}'s own side, too; narrow the prefix, or ignore that part"
        )
    return lines


def _flat_lines(table: Table) -> Iterator[tuple[int, IPv6Network, Match]]:
    for (entry, network), match in table.prefixes.items():
        yield entry, network, match
    for (entry, address), match in table.addresses.items():
        yield entry, IPv6Network(address), match


def _entry_key(entry: Entry) -> tuple[str, Vlan, bool]:
    return entry.port, entry.vlan, entry.spoken


def _slot_key(ifindex: int, vlan: Vlan) -> tuple[int, int, int]:
    if vlan.any:
        return ifindex, VLAN_ANY, VLAN_ANY
    outer, inner = (*vlan.tags, 0, 0)[:2]
    return ifindex, outer, inner


def _flags(interface: InterfaceConfig, rule: RuleConfig) -> RuleFlag:
    """A rule's own words beat its interface's."""
    flags = RuleFlag(0)
    if interface.router if rule.router is None else rule.router:
        flags |= RuleFlag.ROUTER
    if (rule.dad or interface.dad) is DadPolicy.DEFEND:
        flags |= RuleFlag.DEFEND
    if (rule.na_source or interface.na_source) is NaSource.INTERFACE:
        flags |= RuleFlag.SOURCE_INTERFACE
    if rule.via:
        flags |= RuleFlag.VIA
    return flags
