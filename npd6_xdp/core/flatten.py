# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of one entry -> prefixes of which the longest decides."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from npd6_xdp.core.config import RuleConfig, Selection
from npd6_xdp.core.prefix import LENGTH, MASKS, Prefix
from npd6_xdp.core.steps import Steps, finish, pieces

Followed = Mapping[str, tuple[Prefix, ...]]
"""The prefixes of the interfaces that rules follow ("interface:lan0")."""


_BIT = 256  # lines that are made at once


class Flat(NamedTuple):
    """A line of an entry's flat table: targets in `network`, by the method of the rule or, if `left_out`, not."""

    network: Prefix
    rule: RuleConfig
    left_out: bool = False


@dataclass(frozen=True, slots=True)
class Bases:
    """Which rule owns which prefix, before `include` and `exclude`; `lengths` are those that occur, ascending. `notes`
    says what of the file has no effect.
    """

    owners: Mapping[Prefix, RuleConfig]
    lengths: Sequence[int]
    notes: Sequence[str]

    def within(self, part: Prefix, shorter: int) -> bool:
        """Whether a base longer than `shorter` holds all of a part."""
        address, length = part
        return any((address & MASKS[each], each) in self.owners for each in self.lengths if shorter < each <= length)

    def around(self, network: Prefix) -> Iterator[Prefix]:
        """The bases that hold a prefix, itself left out."""
        address, length = network
        for each in self.lengths:
            if each >= length:
                return
            base = Prefix(address & MASKS[each], each)
            if base in self.owners:
                yield base


def rule_networks(rule: RuleConfig, followed: Followed) -> Sequence[Prefix]:
    """What a rule's `prefix` means now."""
    return followed.get(rule.follows, ()) if rule.follows else rule.networks


def _outside(rule: RuleConfig, networks: Sequence[Prefix]) -> Steps[list[str]]:
    """The `include` and `exclude` of a rule that follows an interface which lie in none of its prefixes, if it has
    prefixes.
    """
    where, found = ", ".join(map(str, networks)), list[str]()
    for key, selections in (("include", rule.include), ("exclude", rule.exclude)):
        for some in pieces(selections if networks else ()):
            outside = [each.text for each in some if all(each.within(network) is None for network in networks)]
            found += [f"{rule.prefix}: {key} {text} lies outside {where}" for text in outside]
            yield
    return found


def bases(rules: Sequence[RuleConfig], followed: Followed) -> Bases:
    """The bases of one entry's rules. Of two rules for one prefix the first in the file has it."""
    return finish(collecting(rules, followed))


def collecting(rules: Sequence[RuleConfig], followed: Followed) -> Steps[Bases]:
    """The same, bit by bit."""
    owners: dict[Prefix, RuleConfig] = {}
    notes: list[str] = []
    for some in pieces(rules):
        for rule in some:
            if rule.follows and (rule.include or rule.exclude):
                notes += yield from _outside(rule, followed.get(rule.follows, ()))
            for network in rule_networks(rule, followed):
                first = owners.setdefault(network, rule)
                if first is not rule:
                    notes.append(f"{rule.prefix}: {network} is {first.prefix}'s, which stands first in the file")
        yield
    return Bases(owners, sorted(set(map(LENGTH, owners))), notes)


def changing(before: Bases, gone: Iterable[RuleConfig], new: Iterable[RuleConfig]) -> Steps[Bases | None]:
    """The bases when some rules of those before have gone and others are new, of which none follows an interface. None
    where two rules are for one prefix, now or before: then it depends on all of them which has it.
    """
    if before.notes:
        return None
    owners = dict(before.owners)
    yield
    for some in pieces(gone):
        for rule in some:
            for network in rule.networks:
                del owners[network]
        yield
    for some in pieces(new):
        for rule in some:
            for network in rule.networks:
                if owners.setdefault(network, rule) is not rule:
                    return None
        yield
    return Bases(owners, sorted(set(map(LENGTH, owners))), ())


def lines_of(network: Prefix, rule: RuleConfig, all_bases: Bases, notes: list[str]) -> Steps[Collection[Flat]]:
    """The lines of one base. What its rule leaves out is ignored, and where a longer base lies within, that one
    decides. Each line belongs to one base only; if two shared a line, neither could change without the other.
    """
    if not rule.include and not rule.exclude:
        return (Flat(network, rule),)
    mine = {network: Flat(network, rule, left_out=bool(rule.include))}
    for parts in pieces((yield from _parts(network, rule, notes)), _BIT):
        for part in parts:
            # where a longer rule decides, this one's parts must not cut into it
            if part.network == network or not all_bases.within(part.network, network.length):
                mine[part.network] = part
        if len(parts) == _BIT:
            yield
    return mine.values()


def flatten(rules: Sequence[RuleConfig], followed: Followed) -> tuple[list[Flat], list[str]]:
    """The rules of one entry as prefixes of which the longest decides, and what couldn't be as the file has it.

    A rule owns its prefix: what its `include` leaves out or its `exclude` takes out is ignored. Another rule with a
    longer prefix within it decides there all alone.
    """
    found = bases(rules, followed)
    notes = list(found.notes)
    lines = [line for network, rule in found.owners.items() for line in finish(lines_of(network, rule, found, notes))]
    return lines, notes


def _parts(network: Prefix, rule: RuleConfig, notes: list[str]) -> Steps[list[Flat]]:
    """What `include` and `exclude` make of one prefix of a rule; with both, exclude wins."""
    chosen: list[list[Prefix]] = []
    for key, selections in (("include", rule.include), ("exclude", rule.exclude)):
        found, outside = yield from _placed(network, selections)
        chosen.append(found)
        if not rule.follows:
            notes += [f"{rule.prefix}: {key} {text} lies outside {network}" for text in outside]
    include, exclude = chosen
    excluded: set[Prefix] = set()
    without: list[Flat] = []
    for some in pieces(exclude, _BIT):
        excluded.update(some)
        without += [Flat(part, rule, left_out=True) for part in some]
        yield
    parts: list[Flat] = []
    for some in pieces(include, _BIT):
        parts += [Flat(part, rule) for part in some if not _lies_within(part, excluded, network.length)]
        yield
    return parts + without


def _placed(network: Prefix, selections: Iterable[Selection]) -> Steps[tuple[list[Prefix], list[str]]]:
    """What is chosen of one prefix, and the text of what lies outside it."""
    found: list[Prefix] = []
    outside: list[str] = []
    made = 0
    for selection in selections:
        networks = selection.within(network)
        if networks is None:
            outside.append(selection.text)
        else:
            found += networks
        made += 1 if networks is None else len(networks)
        if made >= _BIT:
            made = 0
            yield
    return found, outside


def _lies_within(part: Prefix, others: set[Prefix], shortest: int) -> bool:
    if not others:
        return False
    address, length = part
    return any((address & MASKS[each], each) in others for each in range(shortest, length + 1))
