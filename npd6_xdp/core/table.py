# SPDX-License-Identifier: GPL-2.0-or-later
"""The flat table that decides about every target; core/build.py makes it of configuration and link facts.

All use this one table: `check` prints it, `explain` looks it up, the kernel maps hold it (system/bpf/pack.py packs it),
and the responder finds its rules in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from enum import IntEnum, IntFlag
from functools import cached_property
from ipaddress import IPv6Address
from operator import attrgetter
from typing import NamedTuple

from npd6_xdp.core.config import RuleConfig, Vlan
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.exact_filter import ALL, MOST, exact_filter
from npd6_xdp.core.flatten import Bases
from npd6_xdp.core.prefix import BITS, LENGTH, MASKS, Prefix
from npd6_xdp.core.roles import MacDevice
from npd6_xdp.core.steps import Steps, finish, pieces
from npd6_xdp.core.verdict import Method, Outcome

VLAN_ANY = 0xFFFF
"""Both VLAN ids in the key of the entry that takes all frames of a port which no other entry speaks for."""


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


class PresentFlag(IntFlag):
    """`enum present_flag`: what a present target's entry says besides that it is there."""

    STALE = 1


_FEW = 4096  # lines that are looked through for one, while a table is made
_HOST_ROUTES = attrgetter("config.host_routes")  # of a Rule

NO_RULE = 0xFFFFFFFF
"""The rule id of own addresses and next hops, which no [[interface.rule]] stands behind."""
NO_VIA_SET = 0


class Rule(NamedTuple):
    """A rule of the configuration in the table: `id` is its index in Table.rules and in the kernel's counters.

    `networks` are its prefixes, now. `via_set` is the scope of its via interfaces and present targets.
    """

    id: int
    entry: int
    config: RuleConfig
    networks: tuple[Prefix, ...]
    decision: Decision
    flags: RuleFlag
    via_set: int = NO_VIA_SET

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


class Match(NamedTuple):
    """What the kernel maps say about a target: `rule` is a Rule.id, or NO_RULE."""

    rule: int
    decision: Decision
    flags: RuleFlag
    via_set: int = NO_VIA_SET


ViaSetKey = tuple[str, ...]
"""What a via set stands for: ("via", "lan0", "br-*"), or ("kernel", ENTRY). ("via", "/br-0", "br-*") are those that the
globs match and that have Neighbor Discovery, but for br-0: no interface's name holds a "/"."""


MadeOf = tuple[Mapping[Prefix, Match], Set[Prefix]]
"""Lines, and the prefixes by which others may differ from them."""


@dataclass(frozen=True)
class Decisions:
    """What decides about the targets of one entry: the longest prefix that holds a target.

    `lines` come of its rules. `exceptions` are the few single addresses, taking precedence, that the host itself
    gives reason for: its own, next hops, and those it holds elsewhere. A rebuilt table has the very same objects
    where nothing is different; else `made_of` may say from which lines these came, and by what they differ.
    """

    lines: Mapping[Prefix, Match]
    exceptions: Mapping[Prefix, Match]
    made_of: MadeOf | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _count(self) -> int:
        return len(self.lines) + sum(prefix not in self.lines for prefix in self.exceptions)

    def get(self, prefix: Prefix) -> Match | None:
        """What the table says of exactly this prefix."""
        return self.exceptions.get(prefix) or self.lines.get(prefix)

    def items(self) -> Iterator[tuple[Prefix, Match]]:
        """The whole table, in no order."""
        yield from self.exceptions.items()
        for item in self.lines.items():
            if item[0] not in self.exceptions:
                yield item

    def longest(self, target: int, at_most: int = BITS - 1) -> Match | None:
        """The line of the longest prefix that holds an address, single addresses left out."""
        for length in self.lengths:
            if length <= at_most and (match := self.lines.get(Prefix(target & MASKS[length], length))) is not None:
                return match
        return None

    def difference(self, before: Decisions) -> tuple[dict[Prefix, Match], list[Prefix]]:
        """What has to be added and removed to get from `before` to this."""
        return finish(self.comparing(before))

    def comparing(self, before: Decisions) -> Steps[tuple[dict[Prefix, Match], list[Prefix]]]:
        """The same, bit by bit."""
        put: dict[Prefix, Match] = {}
        take: list[Prefix] = []
        if self is before:
            return put, take
        if not before.lines and not before.exceptions:
            for some in pieces(self.items()):
                put.update(some)
                yield
            return put, take
        maybe = set(self.exceptions) | before.exceptions.keys()
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

    def forget_made_of(self) -> None:
        """It is in force: let go of what it was made of, which would be kept as long as this otherwise."""
        object.__setattr__(self, "made_of", None)

    @cached_property
    def addresses(self) -> int:
        """How many of its prefixes are single addresses."""
        singles = list(map(LENGTH, self.lines)).count(BITS)
        return singles + sum(prefix not in self.lines for prefix in self.exceptions)

    @cached_property
    def lengths(self) -> Sequence[int]:
        """The lengths of its prefixes (bits), the longest first; that of single addresses isn't among them."""
        return sorted(set(map(LENGTH, self.lines)) - {BITS}, reverse=True)

    @cached_property
    def exact_filter(self) -> int:
        """64 bits that say of most addresses that no single address's line is theirs: core/exact_filter.py."""
        ours = self.addresses - sum(prefix not in self.lines for prefix in self.exceptions)
        if self.addresses > MOST or (ours and len(self.lines) > _FEW):
            return ALL
        singles = [prefix.address for prefix in self.lines if prefix.length == BITS] if ours else []
        return exact_filter([*singles, *(prefix.address for prefix in self.exceptions)])

    @cached_property
    def only_prefix(self) -> tuple[Prefix, Match] | None:
        """The line of the one prefix that there is beside single addresses, if there is just one among few lines."""
        if len(self.lines) > _FEW or len(self) - self.addresses != 1:
            return None
        return next((prefix, match) for prefix, match in self.lines.items() if prefix.length < BITS)


NOTHING_DECIDED = Decisions({}, {})


@dataclass(frozen=True, slots=True)
class Origin:
    """What an entry's decisions were made of, for the next table to reuse what is as before.

    `context` is all that they depend on beside the rules and the prefixes that these follow. `rules` holds what has
    become of each, by its prefix as the file spells it; `occurring` and `via_sets` are theirs; `notes` are by base.
    """

    config: tuple[RuleConfig, ...]
    context: Hashable
    followed: Mapping[str, tuple[Prefix, ...]]
    bases: Bases
    rules: Mapping[str, Rule]
    occurring: frozenset[Decision] = frozenset()
    via_sets: frozenset[int] = frozenset()
    notes: Mapping[Prefix, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """The flat table. `entry_ids` maps (ifindex, outer VID, inner VID) to entry ids; VIDs are 0 where there is no tag.

    `decisions` are those of each entry that frames lead to. `entries` and `rules` also hold those of interfaces that
    are away and named in the configuration: their counters live on. `via_sets` has the ids of via sets, `vias` the
    indexes of the interfaces in each, `nowhere` those of the ones that packets get no further by. `notes` says what of
    the configuration doesn't apply as things are, a line each.
    """

    entries: Mapping[int, Entry]
    rules: Mapping[int, Rule]
    entry_ids: Mapping[tuple[int, int, int], int]
    decisions: Mapping[int, Decisions]
    via_sets: Mapping[ViaSetKey, int] = field(default_factory=dict)
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
        return frozenset(ifindex for ifindex, _, _ in self.entry_ids)

    @cached_property
    def occurring(self) -> frozenset[Decision]:
        """What the rules decide by, those of interfaces that are away too."""
        return frozenset(decision for origin in self.origins.values() for decision in origin.occurring)

    def live(self, decision: Decision) -> list[Entry]:
        """The entries that frames lead to and that have rules which decide so."""
        live = sorted(set(self.entry_ids.values()))
        return [
            self.entries[entry] for entry in live if entry in self.origins and decision in self.origins[entry].occurring
        ]

    def with_roles(self, held: Set[str | MacDevice]) -> Table:
        """The same, where this machine has these now of what entries are active with; itself, where no role differs."""
        entries = {number: entry.in_role(held) for number, entry in self.entries.items()}
        if all(entry is self.entries[number] for number, entry in entries.items()):
            return self
        return replace(self, entries=entries)

    def at_work(self, decision: Decision) -> list[Entry]:
        """Those of them that are at work."""
        return [entry for entry in self.live(decision) if entry.is_at_work]

    @cached_property
    def waiting(self) -> frozenset[int]:
        """The entries that are on standby."""
        return frozenset(number for number, entry in self.entries.items() if entry.standby)

    def on_standby(self, entry: int) -> bool:
        """Whether an entry is; not one that the table hasn't."""
        return entry in self.entries and self.entries[entry].standby

    def entry_of(self, ifindex: int, tags: tuple[int, ...] = ()) -> Entry | None:
        """The entry that speaks for frames with these VLAN ids on a port; None where the port isn't attached."""
        found = self.entry_ids.get(
            entry_key(ifindex, Vlan(tags=tags)), self.entry_ids.get((ifindex, VLAN_ANY, VLAN_ANY))
        )
        return None if found is None else self.entries[found]

    def neighbour_via_sets(self, ifindex: int, address: IPv6Address) -> list[int]:
        """The via sets in which a host at `address` behind an interface is a present target of method neighbour."""
        return [
            via_set
            for via_set, entries in self._neighbour_entries.items()
            if ifindex in self.vias[via_set] and any(self._is_neighbours(via_set, entry, address) for entry in entries)
        ]

    @cached_property
    def host_routes(self) -> bool:
        """Whether any rule has host routes."""
        return any(map(_HOST_ROUTES, self.rules.values()))

    def hears(self, entry: Entry) -> bool:
        """Whether hosts that are looked for by method neighbour live where an entry's frames come from."""
        return entry.l3_ifindex in self._looked_behind

    def knowing(self) -> Steps[None]:
        """Compute now what takes a while for a large table, and is needed later when there is no time."""
        _ = self.ports, self.occurring
        yield
        for decisions in self.decisions.values():
            _ = decisions.addresses
            yield
            _ = decisions.lengths
            yield
            _ = decisions.exact_filter, decisions.only_prefix
            yield
        vars(self)["_neighbour_entries"] = yield from self._finding_neighbour_entries()
        _ = self._looked_behind, self.host_routes
        yield

    @cached_property
    def _looked_behind(self) -> frozenset[int]:
        return frozenset(via for via_set in self._neighbour_entries for via in self.vias.get(via_set, ()))

    def host_route_wanted(self, ifindex: int, address: IPv6Address, *, on_standby: bool = False) -> bool:
        """Whether a rule with host_routes covers a host at `address` behind an interface; an entry's that is at
        work, or also one's that is `on_standby`.
        """
        return any(
            isinstance(match := self.lookup(entry, address), Match)
            and match.via_set == via_set
            and self.rules[match.rule].host_routes
            for via_set in self.neighbour_via_sets(ifindex, address)
            for entry in self._neighbour_entries[via_set]
            if on_standby or not self.entries[entry].standby
        )

    def _is_neighbours(self, via_set: int, entry: int, address: IPv6Address) -> bool:
        match = self.lookup(entry, address)
        return isinstance(match, Match) and match.via_set == via_set and match.decision is Decision.NEIGHBOUR

    @cached_property
    def _neighbour_entries(self) -> Mapping[int, Set[int]]:
        return finish(self._finding_neighbour_entries())

    def _finding_neighbour_entries(self) -> Steps[Mapping[int, Set[int]]]:
        found: defaultdict[int, set[int]] = defaultdict(set)
        live = {entry.id for entry in self.live(Decision.NEIGHBOUR)}
        for rules in pieces(self.rules.values() if live else ()):
            for rule in rules:
                if rule.decision is Decision.NEIGHBOUR and rule.entry in live:
                    found[rule.via_set].add(rule.entry)
            yield
        return found


def entry_key(ifindex: int, vlan: Vlan) -> tuple[int, int, int]:
    """The key of a port's entry in the kernel's map: interface index, outer and inner VLAN id."""
    if vlan.any:
        return ifindex, VLAN_ANY, VLAN_ANY
    outer, inner = (*vlan.tags, 0, 0)[:2]
    return ifindex, outer, inner
