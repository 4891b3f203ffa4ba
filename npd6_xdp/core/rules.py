# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration and link facts -> the flat table that decides about every target.

There is one truth: `check` prints this table, `explain` looks it up, the kernel maps hold it (system/datapath.py
packs it), and the responder finds its rules in it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from functools import cached_property
from ipaddress import IPv6Address
from itertools import chain, count, product
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

from npd6_xdp.core.config import (
    Config,
    DadPolicy,
    Datapath,
    InterfaceConfig,
    NaSource,
    RuleConfig,
    Vlan,
    is_glob,
    matches,
)
from npd6_xdp.core.flatten import Bases, bases, collecting, lines_of
from npd6_xdp.core.links import LinkFacts, OwnAddress, followed_prefixes, held_addresses
from npd6_xdp.core.prefix import BITS, MASKS, Prefix
from npd6_xdp.core.steps import Steps, finish, pieces
from npd6_xdp.core.verdict import Method, Outcome

VLAN_ANY = 0xFFFF
"""Both VLAN ids of the slot that takes all frames of a port which no other slot speaks for."""


class Decision(IntEnum):
    """`enum decision` of bpf/shared.h: what a target's entry in the table says."""

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


class SlotFlag(IntFlag):
    """`enum slot_flag`: what there is to know of the port behind a slot."""

    SHARED = 1
    TAPPED = 2
    GUARDED = 4
    SAMPLED = 8
    TAGLESS = 16
    HEARS = 32


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
_THERE_OR_NOT = frozenset({Decision.ROUTE, Decision.NEIGHBOUR, Decision.KERNEL})
_LEAD_NOWHERE = frozenset({"dummy", "ifb", "nlmon"})
"""Kinds of interfaces that anchor addresses and prefixes, or listen: what is sent to one is dropped."""
_LENGTH = itemgetter(1)  # of a Prefix, for 100,000 of them
_LINK_LOCAL = 0xFE80 >> 6  # the first 10 bits of fe80::/10
_BIT = 256  # rules and prefixes of which something is made at once: a millisecond
_LOOKED_AT = 32  # that are only looked at, 512 times so many at once: see pieces()

NO_RULE = 0xFFFFFFFF
"""The rule id of own addresses and next hops, which no [[interface.rule]] stands behind."""
NO_GROUP = 0


class Rule(NamedTuple):
    """A rule of the configuration in the table: `id` is its index in Table.rules and in the kernel's counters.

    `networks` are its prefixes, now. `group` is the scope of its via interfaces and known targets.
    """

    id: int
    entry: int
    config: RuleConfig
    networks: tuple[Prefix, ...]
    decision: Decision
    flags: RuleFlag
    group: int = NO_GROUP

    @property
    def prefix(self) -> str:
        """Its prefix as the file spells it."""
        return self.config.prefix

    @property
    def method(self) -> Method:
        """Its method as the file has it."""
        return self.config.method

    @property
    def via(self) -> tuple[str, ...]:
        """The interfaces behind which its targets live."""
        return self.config.via

    @property
    def host_routes(self) -> bool:
        """Whether present hosts get a route each."""
        return self.config.host_routes


@dataclass(frozen=True, slots=True)
class Entry:
    """One [[interface]] on one port. `id` is the scope in the kernel maps and the index of its counters.

    `spoken` is False for the frames of a port that no [[interface]] speaks for: those have no rules, and
    whatever is asked there is `unmatched`. `source_limit` is in NS/s, 0 is none.

    `mac` is what is advertised: the port's, or that of the bridge that it belongs to. `port_mac` is the port's own,
    where that is another one. `shared` says that others live behind the port, so what isn't surely ours goes on to
    them. `lower` are the indexes of interfaces whose frames are this port's, too (a bond's slaves).
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
    port_mac: bytes = b""
    shared: bool = False
    lower: tuple[int, ...] = ()

    @property
    def macs(self) -> frozenset[bytes]:
        """The MAC addresses by which frames come to the port, and leave it."""
        return frozenset({self.mac, self.port_mac or self.mac})


class Match(NamedTuple):
    """What the kernel maps say about a target: `rule` is a Rule.id, or NO_RULE."""

    rule: int
    decision: Decision
    flags: RuleFlag
    group: int = NO_GROUP


_OWN = Match(NO_RULE, Decision.OWN, RuleFlag(0))
_NEXT_HOP = Match(NO_RULE, Decision.NEXT_HOP, RuleFlag(0))

GroupKey = tuple[str, ...]
"""What a group stands for: ("via", "lan0", "br-*"), or ("kernel", ENTRY). ("via", "/br-0", "br-*") are those that the
globs match and that have Neighbor Discovery, but for br-0: no interface's name holds a "/"."""


_MadeOf = tuple[Mapping[Prefix, Match], Set[Prefix]]
"""Lines, and the prefixes by which others may differ from them."""


@dataclass(frozen=True)
class Decisions:
    """What decides about the targets of one entry: the longest prefix that holds a target.

    `lines` come of its rules. `special` are the few single addresses, taking precedence, that the host itself
    gives reason for: its own, next hops, and those it holds elsewhere. A rebuilt table has the very same objects
    where nothing is different; else `made_of` may say from which lines these came, and by what they differ.
    """

    lines: Mapping[Prefix, Match]
    special: Mapping[Prefix, Match]
    made_of: _MadeOf | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.lines) + sum(prefix not in self.lines for prefix in self.special)

    def get(self, prefix: Prefix) -> Match | None:
        """What the table says of exactly this prefix."""
        return self.special.get(prefix) or self.lines.get(prefix)

    def items(self) -> Iterator[tuple[Prefix, Match]]:
        """The whole table, in no order."""
        yield from self.special.items()
        for item in self.lines.items():
            if item[0] not in self.special:
                yield item

    def longest(self, target: int, at_most: int = BITS - 1) -> Match | None:
        """The line of the longest prefix that holds an address, single addresses left out."""
        for length in self.lengths:
            if length <= at_most and (match := self.lines.get(Prefix(target & MASKS[length], length))) is not None:
                return match
        return None

    def difference(self, before: Decisions) -> tuple[dict[Prefix, Match], list[Prefix]]:
        """What is to be put and what to be taken out to make this of `before`."""
        return finish(self.comparing(before))

    def comparing(self, before: Decisions) -> Steps[tuple[dict[Prefix, Match], list[Prefix]]]:
        """The same, bit by bit."""
        put: dict[Prefix, Match] = {}
        take: list[Prefix] = []
        if self is before:
            return put, take
        if not before.lines and not before.special:
            for some in pieces(self.items()):
                put.update(some)
                yield
            return put, take
        maybe = set(self.special) | before.special.keys()
        if self.made_of is not None and self.made_of[0] is before.lines:
            maybe |= self.made_of[1]
        elif self.lines is not before.lines:
            old, new = before.lines, self.lines
            for lines in pieces(new.items()):
                maybe.update([prefix for prefix, match in lines if old.get(prefix) != match])
                yield
            for prefixes in pieces(old):
                maybe.update([prefix for prefix in prefixes if prefix not in new])
                yield
        for prefixes in pieces(maybe):
            for prefix in prefixes:
                match = self.get(prefix)
                if match is None:
                    take.append(prefix)
                elif match != before.get(prefix):
                    put[prefix] = match
            yield
        return put, take

    def is_in_force(self) -> None:
        """Nobody asks any more what it was made of, which would be kept as long as this."""
        object.__setattr__(self, "made_of", None)

    @cached_property
    def addresses(self) -> int:
        """How many of its prefixes are single addresses."""
        singles = list(map(_LENGTH, self.lines)).count(BITS)
        return singles + sum(prefix not in self.lines for prefix in self.special)

    @cached_property
    def lengths(self) -> Sequence[int]:
        """The lengths of its prefixes (bits), the longest first; that of single addresses isn't among them."""
        return sorted(set(map(_LENGTH, self.lines)) - {BITS}, reverse=True)


NOTHING_DECIDED = Decisions({}, {})


@dataclass(frozen=True, slots=True)
class Origin:
    """What an entry's decisions were made of, for the next table to reuse what is as before.

    `context` is all that they depend on beside the rules and the prefixes that these follow. `rules` holds what has
    become of each, by its prefix as the file spells it, `kinds` and `groups` what occurs there; `notes` are by base.
    """

    config: tuple[RuleConfig, ...]
    context: Hashable
    followed: Mapping[str, tuple[Prefix, ...]]
    bases: Bases
    rules: Mapping[str, Rule]
    kinds: frozenset[Decision] = frozenset()
    groups: frozenset[int] = frozenset()
    notes: Mapping[Prefix, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """The flat table. `slots` maps (ifindex, outer VID, inner VID) to entry ids; VIDs are 0 where there is no tag.

    `decisions` are those of each entry that frames lead to. `entries` and `rules` also hold those of interfaces that
    are away and named in the configuration: their counters live on. `groups` has the ids of groups, `vias` the
    indexes of the interfaces in each, `nowhere` those of the ones that packets get no further by. `notes` says what of
    the configuration doesn't apply as things are, a line each.
    """

    entries: Mapping[int, Entry]
    rules: Mapping[int, Rule]
    slots: Mapping[tuple[int, int, int], int]
    decisions: Mapping[int, Decisions]
    groups: Mapping[GroupKey, int] = field(default_factory=dict)
    vias: Mapping[int, frozenset[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    origins: Mapping[int, Origin] = field(default_factory=dict, repr=False, compare=False)
    nowhere: frozenset[int] = frozenset()

    def lookup(self, entry: int, target: IPv6Address) -> Match | Outcome:
        """What decides about `target` among the frames of `entry`: a Match, or IGNORED or UNMATCHED.

        The same steps as target_match() in bpf/ns_filter.c.
        """
        if target.is_unspecified or target.is_loopback or target.is_multicast:
            return Outcome.IGNORED
        decisions = self.decisions.get(entry, NOTHING_DECIDED)
        match = decisions.get(Prefix(int(target), BITS))
        if match is not None:
            return match
        if target.is_link_local:
            return Outcome.IGNORED
        return decisions.longest(int(target)) or Outcome.UNMATCHED

    @cached_property
    def ports(self) -> frozenset[int]:
        """The indexes of the interfaces that a program is to sit on."""
        return frozenset(ifindex for ifindex, _, _ in self.slots)

    @cached_property
    def kinds(self) -> frozenset[Decision]:
        """What the rules decide by, those of interfaces that are away too."""
        return frozenset(kind for origin in self.origins.values() for kind in origin.kinds)

    def live(self, decision: Decision) -> list[Entry]:
        """The entries that frames lead to and that have rules of a kind."""
        live = sorted(set(self.slots.values()))
        return [
            self.entries[entry] for entry in live if entry in self.origins and decision in self.origins[entry].kinds
        ]

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

    @cached_property
    def host_routes(self) -> bool:
        """Whether any rule has host routes."""
        return any(rule.host_routes for rule in self.rules.values())

    def hears(self, entry: Entry) -> bool:
        """Whether hosts that are looked for by method neighbour live where an entry's frames come from."""
        return entry.l3_ifindex in self._looked_behind

    def knowing(self) -> Steps[None]:
        """Find out now what of a large table takes a while, and is asked for when there is no time."""
        _ = self.ports, self.kinds
        yield
        for decisions in self.decisions.values():
            _ = decisions.addresses
            yield
            _ = decisions.lengths
            yield
        _ = self._looked_behind
        yield
        _ = self.host_routes
        yield

    @cached_property
    def _looked_behind(self) -> frozenset[int]:
        return frozenset(via for group in self._neighbour_entries for via in self.vias.get(group, ()))

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
        live = {entry.id for entry in self.live(Decision.NEIGHBOUR)}
        for rule in self.rules.values() if live else ():
            if rule.decision is Decision.NEIGHBOUR and rule.entry in live:
                found[rule.group].add(rule.entry)
        return {group: frozenset(entries) for group, entries in found.items()}


def build(config: Config, links: Mapping[str, LinkFacts], before: Table | None = None) -> Table:
    """The table for those interfaces of the machine, `links` by name, that `config` speaks of.

    Interfaces that can't be ports get no slot. Entries, rules and groups keep the ids that they have in
    `before`, so counters and events go on meaning the same; an id that is no longer used may come again in the
    table after the next.
    """
    return finish(building(config, links, before))


def building(
    config: Config, links: Mapping[str, LinkFacts], before: Table | None = None, in_force: Table | None = None
) -> Steps[Table]:
    """As build(), in steps that take a few milliseconds each at most.

    Where `before` was never in force, `in_force` is the one that is: an id of that one isn't given to something else.
    """
    builder = _Builder(config, links, before, in_force)
    for link in links.values():
        builder.learn(link)
        yield
    builder.learned()
    for link in links.values():
        if not link.why_no_port:
            yield from builder.add_port(link)
            yield
    return (yield from builder.table())


Key = TypeVar("Key")


_Context = tuple[bool, DadPolicy, NaSource, bool, str]
"""What an entry's lines depend on: the interface's keys, whether the kernel could proxy there, where frames come in."""


class _Builder:
    """Collects the parts of a Table."""

    def __init__(
        self, config: Config, links: Mapping[str, LinkFacts], before: Table | None, in_force: Table | None
    ) -> None:
        self._config = config
        self._links = links
        self._names = {link.ifindex: name for name, link in links.items()}
        self._before = before or Table({}, {}, {}, {}, {})
        other = in_force or self._before
        self._followed: dict[str, tuple[Prefix, ...]] = {}
        self._all_held: set[int] = set()
        self._held: Sequence[int] = ()
        self._entry_ids = _Ids(
            {_entry_key(entry): entry.id for entry in self._before.entries.values()},
            {_entry_key(entry): entry.id for entry in other.entries.values()},
        )
        self._fresh_rule_ids = _fresh(self._before.rules, other.rules)
        self._group_ids = _Ids(self._before.groups, other.groups, NO_GROUP + 1)
        self._group_keys = {group: key for key, group in self._before.groups.items()}
        self._by_glob: dict[str, Sequence[LinkFacts]] = {}
        self.entries: dict[int, Entry] = {}
        self.rules: dict[int, Rule] = {}
        self.slots: dict[tuple[int, int, int], int] = {}
        self.decisions: dict[int, Decisions] = {}
        self.origins: dict[int, Origin] = {}
        self.groups: dict[GroupKey, int] = {}
        self.notes: dict[str, None] = {}

    def learn(self, link: LinkFacts) -> None:
        """Before all ports: what one interface means to the others."""
        self._followed |= followed_prefixes({link.name: link})
        for own in link.addresses.values():
            self._all_held.update(_held(own))

    def learned(self) -> None:
        """That was all of them."""
        self._held = sorted(self._all_held - {1})  # ::1

    def table(self) -> Steps[Table]:
        self._keep_what_is_away()
        yield
        vias = {group: self._behind(key[1:]) for key, group in self.groups.items() if key[0] == "via"}
        table = Table(
            self.entries,
            self.rules,
            self.slots,
            self.decisions,
            self.groups,
            vias,
            tuple(self.notes),
            self.origins,
            frozenset(link.ifindex for link in self._links.values() if link.kind in _LEAD_NOWHERE),
        )
        yield from table.knowing()
        return table

    def add_port(self, link: LinkFacts) -> Steps[None]:
        """The frames of one port, by all entries that speak for it."""
        entries = self._config.entries(link.name)
        for interface in entries:
            if interface.vlan.any:
                # Each VLAN device has addresses of its own, so its frames get an entry of its own; the rest share one.
                spoken_for = {other.vlan.tags for other in entries if not other.vlan.any}
                for tags in sorted({*link.addresses, *link.next_hops} - spoken_for):
                    yield from self._add(link, interface, Vlan(tags=tags))
            yield from self._add(link, interface, interface.vlan)
        if entries and (link.ifindex, VLAN_ANY, VLAN_ANY) not in self.slots:
            # what no entry speaks for: an entry without rules, so all is unmatched
            nothing = InterfaceConfig(link.name, (), Vlan(any=True), datapath=Datapath.MONITOR)
            self._enter(link, nothing, nothing.vlan, spoken=False)

    def _add(self, link: LinkFacts, interface: InterfaceConfig, vlan: Vlan) -> Steps[None]:
        """The frames of `vlan` on a port, by the rules of an [[interface]]."""
        entry = self._enter(link, interface, vlan, spoken=True)
        # The kernel sees no frames of a VLAN that it has no device for, so its proxy can't answer them: we do.
        proxied = not (vlan.any or (vlan.tags and vlan.tags not in link.l3))
        lines, made_of = yield from self._lines(entry, interface, proxied=proxied)
        origin = self.origins[entry]
        yield from self._note(entry, interface, interface.labelled(link.name), proxied=proxied)
        own = {*_held(link.own(vlan.tags)), *_held(link.own_beside(vlan.tags))}
        special = self._elsewhere(lines, origin, own)
        for hop in link.next_hops.get(vlan.tags, link.next_hops.get((), frozenset())):
            special[Prefix(int(hop), BITS)] = _NEXT_HOP
        for address in own:
            special[Prefix(address, BITS)] = _OWN
        before = self._before.decisions.get(entry)
        same = before is not None and before.lines is lines and before.special == special
        self.decisions[entry] = before if same and before is not None else Decisions(lines, special, made_of)

    def _note(self, entry: int, interface: InterfaceConfig, where: str, *, proxied: bool) -> Steps[None]:
        """What of an entry's rules doesn't apply as things are."""
        origin = self.origins[entry]
        self.notes |= dict.fromkeys(f"{where}: {note}" for note in origin.bases.notes)
        for some in pieces(origin.notes.values()):
            self.notes |= dict.fromkeys(f"{where}: {note}" for each in some for note in each)
            yield
        if not proxied and not interface.vlan.any:
            for rules in pieces(interface.rules):
                for rule in rules:
                    if rule.method is Method.KERNEL:
                        note = f"no VLAN device, so the kernel can't answer {rule.prefix}: npd6-xdp does"
                        self.notes[f"{where}: {note}"] = None
                yield
        if Decision.NEIGHBOUR in origin.kinds:
            here = self._came_in_by(entry)
            vain = {via for via in {rule.via for rule in interface.rules} if self._named(via) == {here}}
            for rules in pieces(interface.rules if vain else ()):
                for rule in rules:
                    if rule.method is Method.NEIGHBOUR and rule.via in vain:
                        self.notes[f"{where}: {rule.prefix}: nothing is behind {here} for who asks there"] = None
                yield

    def _lines(
        self, entry: int, interface: InterfaceConfig, *, proxied: bool
    ) -> Steps[tuple[Mapping[Prefix, Match], _MadeOf | None]]:
        """What the rules of an entry say, and what of it the table before has is taken from there."""
        context = (interface.router, interface.dad, interface.na_source, proxied, self._came_in_by(entry))
        before = self._before.origins.get(entry)
        decided = self._before.decisions.get(entry)
        if before is None or decided is None or before.context != context:
            return (yield from self._changed_lines(entry, interface, context, before, None))
        followed = {name: self._followed.get(name, ()) for name in before.followed}
        # two configurations that were read apart have no rule in common, and all of them to be compared
        if before.followed == followed and (yield from _are_same(before.config, interface.rules)):
            self.origins[entry] = before
            for rules in pieces(before.rules.values()):
                self.rules.update([(rule.id, rule) for rule in rules])
                yield
            self.groups |= {self._group_keys[group]: group for group in before.groups}
            return decided.lines, None
        return (yield from self._changed_lines(entry, interface, context, before, decided.lines))

    def _changed_lines(
        self,
        entry: int,
        interface: InterfaceConfig,
        context: _Context,
        before: Origin | None,
        lines_before: Mapping[Prefix, Match] | None,
    ) -> Steps[tuple[Mapping[Prefix, Match], _MadeOf | None]]:
        """Lines by difference from those before (all, where there are none that count), and their origin."""
        followed: dict[str, tuple[Prefix, ...]] = {}
        rules: dict[str, Rule] = {}
        for some in pieces(interface.rules, _BIT):
            for config in some:
                if config.follows:
                    followed[config.follows] = self._followed.get(config.follows, ())
                rule = self._rule_of(entry, config, context, before, known=lines_before is not None)
                rules[config.prefix] = rule
                self.rules[rule.id] = rule
            yield
        found = yield from collecting([rule.config for rule in rules.values()], self._followed)
        lines: dict[Prefix, Match] = {}
        touched: set[Prefix] = set()
        notes: dict[Prefix, Sequence[str]] = {}
        changed: Iterable[Prefix] = found.owners
        if before is not None and lines_before is not None:
            lines, notes = dict(lines_before), dict(before.notes)
            yield
            changed, gone = yield from _changed_bases(found, before.bases)
            for bases_gone in pieces(gone, _BIT):
                for base in bases_gone:
                    notes.pop(base, None)
                    for line in lines_of(base, before.bases.owners[base], before.bases, []):
                        del lines[line.network]
                        touched.add(line.network)
                yield
        _, _, _, proxied, _ = context
        for bases_here in pieces(changed, _BIT):
            for base in bases_here:
                said: list[str] = []
                for line in lines_of(base, found.owners[base], found, said):
                    lines[line.network] = _match(rules[line.rule.prefix], left_out=line.left_out, proxied=proxied)
                    touched.add(line.network)
                if said:
                    notes[base] = said
            yield
        kinds, groups = yield from _occurring(rules)
        self.origins[entry] = Origin(interface.rules, context, followed, found, rules, kinds, groups, notes)
        return lines, None if lines_before is None else (lines_before, touched)

    def _rule_of(
        self, entry: int, config: RuleConfig, context: _Context, before: Origin | None, *, known: bool
    ) -> Rule:
        """The rule of a configuration's: the very one of before, where that is `known` to count still."""
        rule = before.rules.get(config.prefix) if before else None
        if rule is None or not known or rule.config != config or config.follows:
            number = next(self._fresh_rule_ids) if rule is None else rule.id
            return self._rule(number, entry, config, context)
        if rule.group:
            self.groups[self._group_keys[rule.group]] = rule.group
        return rule

    def _rule(self, number: int, entry: int, config: RuleConfig, context: _Context) -> Rule:
        router, dad, na_source, _, here = context
        group = NO_GROUP
        if config.method is Method.NEIGHBOUR:  # of route, XDP itself finds no way back by where it came in
            group = self._group(("via", *self._left_out(entry, config.via, here), *sorted({*config.via} - {here})))
        elif config.via:
            group = self._group(("via", *sorted(config.via)))
        elif config.method is Method.KERNEL:
            group = self._group(("kernel", str(entry)))
        networks = self._followed.get(config.follows, ()) if config.follows else config.networks
        flags = _FLAGS[
            router if config.router is None else config.router,
            config.dad or dad,
            config.na_source or na_source,
            bool(config.via),
        ]
        return Rule(number, entry, config, networks, _DECISIONS[config.method], flags, group)

    def _came_in_by(self, entry: int) -> str:
        """The name of the L3 interface that an entry's frames come in by: its hosts answer for themselves."""
        return self._names.get(self.entries[entry].l3_ifindex, "")

    def _left_out(self, entry: int, via: tuple[str, ...], here: str) -> list[str]:
        """What of a group's key says which interfaces its globs don't mean: those that the question itself came by."""
        globs = [name for name in via if is_glob(name)]
        if not globs:
            return []
        its = self.entries[entry]
        ways = {here} if its.vlan.tags else {here, its.port}  # a tag's hosts aren't those of the port itself
        return [f"/{name}" for name in sorted(ways) if any(matches(name, glob) for glob in globs)] or ["/"]

    def _named(self, via: tuple[str, ...]) -> set[str]:
        """The names that `via` says, and those on this machine that its globs match; globs that match none are left."""
        found: set[str] = set()
        for name in via:
            here = {link.name for link in self._matched(name)} if is_glob(name) else {name}
            found |= here or {name}
        return found

    def _behind(self, names: tuple[str, ...]) -> frozenset[int]:
        """The interfaces of this machine that a group's key means."""
        left_out = {name[1:] for name in names if name.startswith("/")}
        found = {self._links[name].ifindex for name in names if name in self._links and not is_glob(name)}
        for name in names:
            if is_glob(name):
                links = [link for link in self._matched(name) if not left_out or link.mac]
                found.update(link.ifindex for link in links if link.name not in left_out)
        return frozenset(found)

    def _matched(self, glob: str) -> Sequence[LinkFacts]:
        if glob not in self._by_glob:
            self._by_glob[glob] = [link for link in self._links.values() if matches(link.name, glob)]
        return self._by_glob[glob]

    def _group(self, key: GroupKey) -> int:
        return self.groups.setdefault(key, self._group_ids[key])

    def _elsewhere(self, lines: Mapping[Prefix, Match], origin: Origin, own: set[int]) -> dict[Prefix, Match]:
        """Addresses of the host's other interfaces: Linux doesn't answer for them here, and they are surely there."""
        if not origin.kinds & _THERE_OR_NOT:
            return {}
        held, owners = self._held, origin.bases.owners
        candidates: Iterable[int] = held
        if len(owners) < len(held):
            spans = ((bisect_left(held, base.address), bisect_right(held, base.last)) for base in owners)
            candidates = {address for first, last in spans for address in held[first:last]}
        by_rules = Decisions(lines, {})
        special = {}
        for address in candidates:
            prefix = Prefix(address, BITS)
            match = lines.get(prefix)
            if match is None and address >> 118 != _LINK_LOCAL:
                match = by_rules.longest(address)
            if match is not None and match.decision in _THERE_OR_NOT and address not in own:
                special[prefix] = Match(match.rule, Decision.STATIC, match.flags)
        return special

    def _enter(self, link: LinkFacts, interface: InterfaceConfig, vlan: Vlan, *, spoken: bool) -> int:
        entry_id = self._entry_ids[link.name, vlan, spoken]
        entry = Entry(
            entry_id,
            interface.labelled(link.name) if spoken else link.name,
            link.name,
            link.ifindex,
            link.mac_of(vlan.tags),
            interface.datapath,
            vlan,
            link.own(vlan.tags) if spoken else (),
            spoken,
            link.l3_ifindex(vlan.tags),
            interface.source_limit,
            interface.collect_targets,
            link.mac if link.mac_of(vlan.tags) != link.mac else b"",
            link.is_shared(vlan.tags),
            link.lower,
        )
        before = self._before.entries.get(entry_id)
        # the very same object where nothing is different: so it is known to be packed already
        self.entries[entry_id] = before if before is not None and before == entry else entry
        self.slots[_slot_key(link.ifindex, vlan)] = entry_id
        return entry_id

    def _keep_what_is_away(self) -> None:
        """Entries and rules of interfaces that the file names and that may come back: their counters live on."""
        named = {interface.name for interface in self._config.interfaces if not interface.is_glob}
        present = {entry.port for entry in self.entries.values()}  # one of its VLAN devices may be away
        for entry in self._before.entries.values():
            if entry.id in self.entries or entry.port not in named | present:
                continue
            speaking = [i for i in self._config.entries(entry.port) if i.vlan == entry.vlan or i.vlan.any]
            if speaking or not entry.spoken:
                self.entries[entry.id] = entry
                self._keep_rules(entry.id, {rule.prefix for interface in speaking for rule in interface.rules})

    def _keep_rules(self, entry: int, prefixes: set[str]) -> None:
        before = self._before.origins.get(entry)
        kept = {prefix: rule for prefix, rule in before.rules.items() if prefix in prefixes} if before else {}
        kinds = frozenset({rule.decision for rule in kept.values()})
        self.origins[entry] = Origin((), None, {}, bases((), {}), kept, kinds)
        self.rules.update({rule.id: rule for rule in kept.values()})


class _Ids(Generic[Key]):
    """Numbers for keys: those of before, and fresh ones that nothing before had, and nothing of another table has."""

    def __init__(self, before: Mapping[Key, int], other: Mapping[Key, int], first: int = 0) -> None:
        self._ids = dict(before)
        self._fresh = _fresh({*before.values(), *other.values()}, (), first)

    def __getitem__(self, key: Key) -> int:
        if key not in self._ids:
            self._ids[key] = next(self._fresh)
        return self._ids[key]


def warnings(table: Table) -> list[str]:
    """What a configuration asks for that its writer may not have meant, a line each."""
    return finish(finding_warnings(table))


def finding_warnings(table: Table) -> Steps[list[str]]:
    """The same, bit by bit."""
    covered: set[tuple[int, Prefix]] = set()
    for entry, decisions in table.decisions.items():
        for some in pieces(_over(decisions, _on_link(table.entries[entry]))):
            for found in some:
                if found is not None and table.rules[found[1]].decision in _ALWAYS_THERE:
                    covered.add((found[1], found[0]))
            yield
    return [
        *table.notes,
        *(
            f"{table.entries[table.rules[rule].entry].label}: {_covers(table, rule, here)}"
            for rule, here in sorted(covered)
        ),
    ]


def on_link_warning(table: Table, match: Match) -> str:
    """What there is to say of a target's rule by which its entry's own neighbours would be answered for, or ""."""
    entry = table.rules[match.rule].entry
    found = _over(table.decisions.get(entry, NOTHING_DECIDED), _on_link(table.entries[entry]))
    over = [each[0] for each in found if each and each[1] == match.rule and match.decision in _ALWAYS_THERE]
    return _covers(table, match.rule, min(over)) if over else ""


def _covers(table: Table, rule_id: int, network: Prefix) -> str:
    rule = table.rules[rule_id]
    return (
        f"the {rule.method} rule {rule.prefix} covers {network}, which is on-link there:"
        f" it answers for the neighbours on {table.entries[rule.entry].port}'s own side, too; narrow the prefix,"
        " or ignore that part"
    )


def absent_vias(config: Config, links: Mapping[str, LinkFacts]) -> list[str]:
    """The names and globs of `via` for which there is no interface on this machine."""
    return sorted(config.via_names - links.keys() - {glob for glob, now in via_globs(config, links).items() if now})


def via_globs(config: Config, links: Mapping[str, LinkFacts]) -> Mapping[str, Sequence[str]]:
    """The globs of `via`, each with the interfaces of this machine that it matches; {} where none are known."""
    globs = sorted(filter(is_glob, config.via_names)) if links else ()
    return {glob: sorted(name for name in links if matches(name, glob)) for glob in globs}


def _on_link(entry: Entry) -> set[Prefix]:
    """The prefixes that others may have addresses in on an entry's link. A /128 is the host's own alone."""
    return {held.network for held in entry.addresses if not held.address.is_link_local and held.prefix_length < BITS}


def _over(decisions: Decisions, on_link: set[Prefix]) -> Iterator[tuple[Prefix, int] | None]:
    """The on-link prefixes of which rules say that all targets are there: most of one by the longest line around it,
    parts of it by the lines within. None of lines of which there is nothing to say."""
    for here in on_link:
        match = decisions.longest(here.address, here.length)
        if match is not None and match.decision in _ALWAYS_THERE:
            yield here, match.rule
    for length in {here.length for here in on_link}:
        mask = MASKS[length]
        addresses = {prefix.address for prefix in on_link if prefix.length == length}
        for lines in (decisions.lines, decisions.special):
            for some in pieces(lines, _LOOKED_AT):
                yield None
                for prefix in [p for p in some if p.address & mask in addresses and p.length >= length]:
                    match = decisions.get(prefix)
                    if match is not None and match.decision in _ALWAYS_THERE:
                        yield Prefix(prefix.address & mask, length), match.rule


def _entry_key(entry: Entry) -> tuple[str, Vlan, bool]:
    return entry.port, entry.vlan, entry.spoken


def _slot_key(ifindex: int, vlan: Vlan) -> tuple[int, int, int]:
    if vlan.any:
        return ifindex, VLAN_ANY, VLAN_ANY
    outer, inner = (*vlan.tags, 0, 0)[:2]
    return ifindex, outer, inner


def _held(own: Iterable[OwnAddress]) -> Iterator[int]:
    return map(int, held_addresses(own))


def _fresh(taken: Container[int], other: Container[int], first: int = 0) -> Iterator[int]:
    """Numbers that aren't taken, the lowest first."""
    return (number for number in count(first) if number not in taken and number not in other)


def _occurring(rules: Mapping[str, Rule]) -> Steps[tuple[frozenset[Decision], frozenset[int]]]:
    """What some rules decide by, and their groups."""
    found: set[tuple[int, int]] = set()
    for some in pieces(rules.values()):
        found.update([(int(rule.decision), rule.group) for rule in some])  # an enum's hash takes four times as long
        yield
    return frozenset(Decision(kind) for kind, _ in found), frozenset(group for _, group in found) - {NO_GROUP}


def _are_same(before: tuple[RuleConfig, ...], now: tuple[RuleConfig, ...]) -> Steps[bool]:
    """Whether two configurations say the same of an entry."""
    if before is now or len(before) != len(now):
        return before is now
    for pairs in pieces(zip(before, now, strict=True), _BIT):
        if any(one is not other and one != other for one, other in pairs):
            return False
        yield
    return True


def _changed_bases(after: Bases, before: Bases) -> Steps[tuple[set[Prefix], list[Prefix]]]:
    """The bases whose lines aren't as before: those that have lines now, and those that had some."""
    owners, old = after.owners, before.owners
    changed: set[Prefix] = set()
    moved: list[Prefix] = []  # they are new, or gone
    for items in pieces(owners.items(), _BIT):
        some = [base for base, rule in items if old.get(base) is not rule]
        changed.update(some)
        moved += [base for base in some if base not in old]
        yield
    gone: list[Prefix] = []
    for bases_before in pieces(old, _BIT):
        gone += [base for base in bases_before if base not in owners]
        yield
    # where a base is new or gone, rules with parts around it have other lines
    for some in pieces(chain(gone, moved), _BIT):
        for base in some:
            for around in after.around(base):
                if owners[around].include or owners[around].exclude:
                    changed.add(around)
        yield
    for some in pieces(changed, _BIT):
        gone += [base for base in some if base in old]
        yield
    return changed, gone


def _match(rule: Rule, *, left_out: bool, proxied: bool) -> Match:
    """What the maps say by a line of a rule. `proxied` says that the kernel can answer there."""
    if left_out:
        return Match(rule.id, Decision.IGNORE, rule.flags)
    if rule.decision is Decision.KERNEL and not proxied:
        return Match(rule.id, Decision.STATIC, rule.flags)
    return Match(rule.id, rule.decision, rule.flags, rule.group)


def _flags(router: bool, dad: DadPolicy, na_source: NaSource, via: bool) -> RuleFlag:
    flags = RuleFlag.ROUTER if router else RuleFlag(0)
    if dad is DadPolicy.DEFEND:
        flags |= RuleFlag.DEFEND
    if na_source is NaSource.INTERFACE:
        flags |= RuleFlag.SOURCE_INTERFACE
    return flags | RuleFlag.VIA if via else flags


_FLAGS = {keys: _flags(*keys) for keys in product((False, True), DadPolicy, NaSource, (False, True))}
"""A rule's flags by its router, dad and na_source (its own words beat its interface's), and whether it has a via."""
