# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration and link facts -> the flat table of core/table.py, by what is as in the one before."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count, product
from typing import Generic, TypeVar

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
from npd6_xdp.core.prefix import BITS, Prefix
from npd6_xdp.core.steps import Steps, finish, pieces
from npd6_xdp.core.table import (
    NO_GROUP,
    NO_RULE,
    VLAN_ANY,
    Decision,
    Decisions,
    Entry,
    GroupKey,
    MadeOf,
    Match,
    Origin,
    Rule,
    RuleFlag,
    Table,
    slot_key,
)
from npd6_xdp.core.verdict import Method

_DECISIONS = {
    Method.STATIC: Decision.STATIC,
    Method.ROUTE: Decision.ROUTE,
    Method.NEIGHBOUR: Decision.NEIGHBOUR,
    Method.KERNEL: Decision.KERNEL,
    Method.IGNORE: Decision.IGNORE,
}
_THERE_OR_NOT = frozenset({Decision.ROUTE, Decision.NEIGHBOUR, Decision.KERNEL})
_LEAD_NOWHERE = frozenset({"dummy", "ifb", "nlmon"})
"""Kinds of interfaces that anchor addresses and prefixes, or listen: what is sent to one is dropped."""
_LINK_LOCAL = 0xFE80 >> 6  # the first 10 bits of fe80::/10
_BIT = 256  # rules and prefixes of which something is made at once: a millisecond

_OWN = Match(NO_RULE, Decision.OWN, RuleFlag(0))
_NEXT_HOP = Match(NO_RULE, Decision.NEXT_HOP, RuleFlag(0))


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
    ) -> Steps[tuple[Mapping[Prefix, Match], MadeOf | None]]:
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
    ) -> Steps[tuple[Mapping[Prefix, Match], MadeOf | None]]:
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
        self.slots[slot_key(link.ifindex, vlan)] = entry_id
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


def _entry_key(entry: Entry) -> tuple[str, Vlan, bool]:
    return entry.port, entry.vlan, entry.spoken


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
