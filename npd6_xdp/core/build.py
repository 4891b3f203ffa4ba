# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration and link facts -> the flat table of core/table.py. What is unchanged is taken from the table before."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain

from npd6_xdp.core.config import (
    Config,
    Datapath,
    InterfaceConfig,
    Vlan,
    some_rules,
)
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.entry_rules import EntryRules
from npd6_xdp.core.ids import Ids
from npd6_xdp.core.links import LinkFacts, OwnAddress, held_addresses
from npd6_xdp.core.prefix import BITS, Prefix
from npd6_xdp.core.roles import MacDevice
from npd6_xdp.core.steps import Steps, finish, pieces
from npd6_xdp.core.table import NO_RULE, VLAN_ANY, Decision, Decisions, Match, Origin, RuleFlag, Table, entry_key
from npd6_xdp.core.verdict import Method
from npd6_xdp.core.via_sets import ViaSets

_THERE_OR_NOT = frozenset({Decision.ROUTE, Decision.NEIGHBOUR, Decision.KERNEL})
_LEAD_NOWHERE = frozenset({"dummy", "ifb", "nlmon"})
"""Kinds of interfaces that anchor addresses and prefixes, or listen: what is sent to one is dropped."""
_LINK_LOCAL = 0xFE80 >> 6  # the first 10 bits of fe80::/10

_OWN = Match(NO_RULE, Decision.OWN, RuleFlag(0))
_NEXT_HOP = Match(NO_RULE, Decision.NEXT_HOP, RuleFlag(0))


def build(
    config: Config,
    links: Mapping[str, LinkFacts],
    before: Table | None = None,
    held: Set[str | MacDevice] | None = None,
) -> Table:
    """The table for those interfaces of the machine, `links` by name, that `config` speaks of.

    Interfaces that can't be ports get no entry. Entries, rules and via sets keep the ids that they have in
    `before`, so counters and events go on meaning the same; an id that is no longer used may come again in the
    table after the next. `held` are those addresses that this machine holds of which entries are active with one; None:
    all of them, and devices for each link_address.
    """
    return finish(building(config, links, before, held=held))


def building(
    config: Config,
    links: Mapping[str, LinkFacts],
    before: Table | None = None,
    in_force: Table | None = None,
    *,
    held: Set[str | MacDevice] | None = None,
) -> Steps[Table]:
    """As build(), in steps that take a few milliseconds each at most.

    Where `before` was never in force, `in_force` is the one that is: an id of that one isn't given to something else.
    """
    builder = _Builder(config, links, before, in_force, held)
    for link in links.values():
        builder.learn(link)
        yield
    builder.learned()
    for link in links.values():
        if not link.why_no_port:
            yield from builder.add_port(link)
            yield
    return (yield from builder.table())


class _Builder:
    """Collects the parts of a Table."""

    def __init__(
        self,
        config: Config,
        links: Mapping[str, LinkFacts],
        before: Table | None,
        in_force: Table | None,
        roles: Set[str | MacDevice] | None,
    ) -> None:
        self._config = config
        self._links = links
        self._roles: Set[str | MacDevice] = config.role_addresses if roles is None else roles
        self._supposes = roles is None  # that all is there which active_with and link_address need
        self._names = {link.ifindex: name for name, link in links.items()}
        self._before = before or Table({}, {}, {}, {}, {})
        other = in_force or self._before
        self._all_held: set[int] = set()
        self._held: Sequence[int] = ()
        self._entry_ids = Ids(
            {_identity(entry): entry.id for entry in self._before.entries.values()},
            {_identity(entry): entry.id for entry in other.entries.values()},
        )
        self._via_sets = ViaSets(links, self._before, other)
        self._rules = EntryRules(self._via_sets, self._before, other)
        self.entries: dict[int, Entry] = {}
        self.entry_ids: dict[tuple[int, int, int], int] = {}
        self.decisions: dict[int, Decisions] = {}
        self.notes: dict[str, None] = {}

    def learn(self, link: LinkFacts) -> None:
        """To be called before the ports are added: collects what one interface means to the others."""
        self._rules.learn(link)
        for own in link.addresses.values():
            self._all_held.update(_held(own))

    def learned(self) -> None:
        """All ports were added."""
        self._held = sorted(self._all_held - {1})  # ::1

    def table(self) -> Steps[Table]:
        self._keep_what_is_away()
        yield
        vias = yield from self._via_sets.vias()
        table = Table(
            self.entries,
            self._rules.rules,
            self.entry_ids,
            self.decisions,
            self._via_sets.via_sets,
            vias,
            tuple(self.notes),
            self._rules.origins,
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
        if entries and (link.ifindex, VLAN_ANY, VLAN_ANY) not in self.entry_ids:
            # what no entry speaks for: an entry without rules, so all is unmatched
            collect = max(interface.collect_targets for interface in entries)  # what a wrong VLAN looks like
            nothing = InterfaceConfig(link.name, (), Vlan(any=True), datapath=Datapath.MONITOR, collect_targets=collect)
            self._enter(link, nothing, nothing.vlan, spoken=False)

    def _add(self, link: LinkFacts, interface: InterfaceConfig, vlan: Vlan) -> Steps[None]:
        """The frames of `vlan` on a port, by the rules of an [[interface]]."""
        entry = self._enter(link, interface, vlan, spoken=True)
        # The kernel sees no frames of a VLAN that it has no device for, so its proxy can't answer them: we do.
        proxied = not (vlan.any or (vlan.tags and vlan.tags not in link.l3))
        lines, made_of = yield from self._rules.lines(
            self.entries[entry], interface, proxied=proxied, here=self._came_in_by(entry)
        )
        origin = self._rules.origins[entry]
        yield from self._note(entry, interface, interface.labelled(link.name), proxied=proxied)
        own = {*_held(link.own(vlan.tags)), *_held(link.own_beside(vlan.tags))}
        exceptions = self._elsewhere(lines, origin, own)
        for hop in link.next_hops.get(vlan.tags, link.next_hops.get((), frozenset())):
            exceptions[Prefix(int(hop), BITS)] = _NEXT_HOP  # C6 of docs/rules.md
        for address in own:
            exceptions[Prefix(address, BITS)] = _OWN  # C1
        before = self._before.decisions.get(entry)
        same = before is not None and before.lines is lines and before.exceptions == exceptions
        self.decisions[entry] = before if same and before is not None else Decisions(lines, exceptions, made_of)

    def _note(self, entry: int, interface: InterfaceConfig, where: str, *, proxied: bool) -> Steps[None]:
        """The rules of an entry that have no effect at the moment, a line each."""
        origin = self._rules.origins[entry]
        if interface.multicast_router and interface.datapath is Datapath.MONITOR:
            self.notes[f'{where}: multicast_router has no effect under datapath = "monitor": nothing is sent'] = None
        if self.entries[entry].lacks_device:
            note = f"{self.entries[entry].why_standby}: nothing is answered, as nobody takes in what is sent there"
            self.notes[f"{where}: {note}"] = None
        for some in pieces(chain(origin.bases.notes, chain.from_iterable(origin.notes.values()))):
            self.notes |= dict.fromkeys(f"{where}: {note}" for note in some)
            yield
        if not proxied and not interface.vlan.any:
            for rules in pieces(interface.rules):
                for rule in rules:
                    if rule.method is Method.KERNEL:
                        note = f"no VLAN device, so the kernel can't answer {rule.prefix}: npd6-xdp does"
                        self.notes[f"{where}: {note}"] = None
                yield
        if Decision.NEIGHBOUR in origin.occurring:
            here = self._came_in_by(entry)
            vain: set[tuple[str, ...]] = set()
            looked: set[tuple[str, ...]] = set()
            for rules in some_rules(interface.rules):
                others = {rule.via for rule in rules} - looked
                looked |= others
                vain.update(via for via in others if self._via_sets.named(via) == {here})
                yield
            for rules in pieces(interface.rules if vain else ()):
                for rule in rules:
                    if rule.method is Method.NEIGHBOUR and rule.via in vain:
                        self.notes[f"{where}: {rule.prefix}: nothing is behind {here} for who asks there"] = None
                yield

    def _came_in_by(self, entry: int) -> str:
        """The name of the L3 interface that an entry's frames come in by: its hosts answer for themselves."""
        return self._names.get(self.entries[entry].l3_ifindex, "")

    def _elsewhere(self, lines: Mapping[Prefix, Match], origin: Origin, own: set[int]) -> dict[Prefix, Match]:
        """Addresses of the host's other interfaces: Linux doesn't answer for them here, and they are surely there."""
        if not origin.occurring & _THERE_OR_NOT:
            return {}
        held, owners = self._held, origin.bases.owners
        candidates: Iterable[int] = held
        if len(owners) < len(held):
            spans = ((bisect_left(held, base.address), bisect_right(held, base.last)) for base in owners)
            candidates = {address for first, last in spans for address in held[first:last]}
        by_rules = Decisions(lines, {})
        exceptions = {}
        for address in candidates:
            prefix = Prefix(address, BITS)
            match = lines.get(prefix)
            if match is None and address >> 118 != _LINK_LOCAL:
                match = by_rules.longest(address)
            if match is not None and match.decision in _THERE_OR_NOT and address not in own:
                exceptions[prefix] = Match(match.rule, Decision.STATIC, match.flags)
        return exceptions

    def _enter(self, link: LinkFacts, interface: InterfaceConfig, vlan: Vlan, *, spoken: bool) -> int:
        entry_id = self._entry_ids[link.name, vlan, spoken]
        port_mac, mac = link.mac, interface.mac or link.mac_of(vlan.tags)
        entry = Entry(
            entry_id,
            interface.labelled(link.name) if spoken else link.name,
            link.name,
            link.ifindex,
            mac,
            interface.datapath,
            vlan,
            link.own(vlan.tags) if spoken else (),
            spoken,
            link.l3_ifindex(vlan.tags),
            interface.source_limit,
            interface.collect_targets,
            port_mac if mac != port_mac else b"",
            link.is_shared(vlan.tags),
            link.lower,
            interface.multicast_router,
            interface.new_targets_per_second,
            interface.active_with,
            needs_device=bool(interface.link_address) and mac not in (link.mac, link.mac_of(vlan.tags)),
        )
        entry = entry.in_role(self._roles | self._device(entry, link) if entry.needs_device else self._roles)
        before = self._before.entries.get(entry_id)
        # the very same object where nothing is different, which shows that its bytes for the maps are made already
        self.entries[entry_id] = before if before is not None and before == entry else entry
        self.entry_ids[entry_key(link.ifindex, vlan)] = entry_id
        return entry_id

    def _device(self, entry: Entry, link: LinkFacts) -> Set[MacDevice]:
        """The device that an entry needs, if it is there."""
        is_there = self._supposes or link.takes_in(entry.vlan.tags, entry.mac)
        return frozenset({MacDevice(entry.l3_ifindex, entry.mac)} if is_there else ())

    def _keep_what_is_away(self) -> None:
        """Keep entries and rules of interfaces that the file names and that are away, so that their counters stay."""
        named = {interface.name for interface in self._config.interfaces if not interface.is_glob}
        present = {entry.port for entry in self.entries.values()}  # one of its VLAN devices may be away
        for entry in self._before.entries.values():
            if entry.id in self.entries or entry.port not in named | present:
                continue
            speaking = [i for i in self._config.entries(entry.port) if i.vlan == entry.vlan or i.vlan.any]
            if speaking or not entry.spoken:
                self.entries[entry.id] = entry
                self._rules.keep(entry.id, {rule.prefix for interface in speaking for rule in interface.rules})


def _identity(entry: Entry) -> tuple[str, Vlan, bool]:
    return entry.port, entry.vlan, entry.spoken


def _held(own: Iterable[OwnAddress]) -> Iterator[int]:
    return map(int, held_addresses(own))
