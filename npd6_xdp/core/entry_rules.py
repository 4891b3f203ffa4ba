# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of one entry -> the lines of its table. Lines that are unchanged are taken from the table before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, compress, count, filterfalse, product, repeat
from operator import is_, itemgetter, not_
from typing import NamedTuple

from npd6_xdp.core.config import DadPolicy, InterfaceConfig, NaSource, RuleConfig, some_rules
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.flatten import Bases, bases, changing, collecting, lines_of
from npd6_xdp.core.ids import fresh
from npd6_xdp.core.links import LinkFacts, followed_prefixes
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.core.table import NO_RULE, NO_VIA_SET, Decision, MadeOf, Match, Origin, Rule, RuleFlag, Table
from npd6_xdp.core.verdict import Method
from npd6_xdp.core.via_sets import ViaSets

_DECISIONS = {
    Method.STATIC: Decision.STATIC,
    Method.ROUTE: Decision.ROUTE,
    Method.NEIGHBOUR: Decision.NEIGHBOUR,
    Method.KERNEL: Decision.KERNEL,
    Method.IGNORE: Decision.IGNORE,
}
_CONFIG, _PREFIX = itemgetter(2), itemgetter(0)  # of a Rule; of a RuleConfig
_NO_RULE = Rule(NO_RULE, 0, RuleConfig("", (), Method.IGNORE), (), Decision.IGNORE, RuleFlag(0))
_BIT = 256  # rules and prefixes of which something is made at once: a millisecond


class _Context(NamedTuple):
    """What an entry's lines depend on beside its rules: the interface's keys, and the two of EntryRules.lines()."""

    router: bool
    dad: DadPolicy
    na_source: NaSource
    proxied: bool
    here: str


class EntryRules:
    """The rules of all entries, each entry's with the lines that they make: `rules` and `origins` of a table to be."""

    def __init__(self, via_sets: ViaSets, before: Table, other: Table) -> None:
        self.rules: dict[int, Rule] = {}
        self.origins: dict[int, Origin] = {}
        self._via_sets = via_sets
        self._before = before
        self._fresh_ids = fresh(before.rules, other.rules)
        self._followed: dict[str, tuple[Prefix, ...]] = {}

    def learn(self, link: LinkFacts) -> None:
        """Before all entries: the prefixes of an interface, which rules may follow."""
        self._followed |= followed_prefixes({link.name: link})

    def lines(
        self, entry: Entry, interface: InterfaceConfig, *, proxied: bool, here: str
    ) -> Steps[tuple[Mapping[Prefix, Match], MadeOf | None]]:
        """Take in the rules of an entry; what the table before has already is taken from there. `proxied` says whether
        the kernel could proxy there, `here` is the interface that its frames come in by.
        """
        context = _Context(interface.router, interface.dad, interface.na_source, proxied, here)
        before = self._before.origins.get(entry.id)
        decided = self._before.decisions.get(entry.id)
        if before is None or decided is None or before.context != context:
            return (yield from self._changed_lines(entry, interface, context, before, None))
        followed = {name: self._followed.get(name, ()) for name in before.followed}
        # two configurations that were read separately share no objects, so all rules have to be compared
        if before.followed == followed and (yield from _are_same(before.config, interface.rules)):
            self.origins[entry.id] = before
            for rules in pieces(before.rules.values()):
                self.rules.update([(rule.id, rule) for rule in rules])
                yield
            for via_sets in pieces(before.via_sets):
                for via_set in via_sets:
                    self._via_sets.keep(via_set)
                yield
            return decided.lines, None
        return (yield from self._changed_lines(entry, interface, context, before, decided.lines))

    def _changed_lines(
        self,
        entry: Entry,
        interface: InterfaceConfig,
        context: _Context,
        before: Origin | None,
        lines_before: Mapping[Prefix, Match] | None,
    ) -> Steps[tuple[Mapping[Prefix, Match], MadeOf | None]]:
        """Lines by difference from those before (all, where there are none that count), and their origin."""
        followed: dict[str, tuple[Prefix, ...]] = {}
        rules: dict[str, Rule] = {}
        new: list[Rule] = []
        known = before.rules if before is not None and lines_before is not None else {}
        all_plain = before is None or not (before.via_sets or before.followed)
        for some in some_rules(interface.rules):
            for config in self._taken(some, known, rules, all_plain=all_plain):
                old = known.get(config.prefix)
                if config.follows:
                    followed[config.follows] = self._followed.get(config.follows, ())
                rule = self._rule_of(entry, config, context, before, known=lines_before is not None)
                rules[config.prefix] = rule
                self.rules[rule.id] = rule
                if rule is not old:
                    new.append(rule)
            yield
        touched: set[Prefix] = set()
        if before is None or lines_before is None:
            found = yield from collecting([rule.config for rule in rules.values()], self._followed)
            lines, notes = yield from _lines_now(found.owners, found, rules, proxied=context.proxied)
        else:
            lines, notes = dict(lines_before), dict(before.notes)
            yield
            found, difference = yield from self._difference(before, rules, new, followed)
            changed, gone = yield from _with_parts(found, before.bases, difference)
            yield from _take(gone, before.bases, lines, notes, touched)
            lines_now, notes_now = yield from _lines_now(changed, found, rules, proxied=context.proxied)
            lines.update(lines_now)
            yield
            notes.update(notes_now)
            touched.update(lines_now)
            yield
        occurring, via_sets = yield from _occurring(rules)
        self.origins[entry.id] = Origin(interface.rules, context, followed, found, rules, occurring, via_sets, notes)
        return lines, None if lines_before is None else (lines_before, touched)

    def _taken(
        self, some: list[RuleConfig], before: Mapping[str, Rule], rules: dict[str, Rule], *, all_plain: bool
    ) -> Iterator[RuleConfig]:
        """Take in those that are the very same as before, of which there are thousands. The others come in their turn,
        as `rules` are in the file's order. `all_plain`: none of before had a via set, or followed an interface.
        """
        if not before:
            yield from some
            return
        prefixes = [*map(_PREFIX, some)]
        olds = [*map(before.get, prefixes, repeat(_NO_RULE))]
        same = [*map(is_, map(_CONFIG, olds), some)]
        if not all_plain:
            same = [each and not old.via_set and not old.config.follows for each, old in zip(same, olds, strict=True)]
        start = 0
        for place in (*compress(count(), map(not_, same)), len(some)):
            rules.update(zip(prefixes[start:place], olds[start:place], strict=True))
            self.rules.update([(old.id, old) for old in olds[start:place]])
            yield from some[place : place + 1]
            start = place + 1

    def _difference(
        self, before: Origin, rules: Mapping[str, Rule], new: Sequence[Rule], followed: Mapping[str, tuple[Prefix, ...]]
    ) -> Steps[tuple[Bases, _Difference]]:
        """The bases of some rules, of which these are `new`, or other ones than before, and how they differ."""
        if not followed and not before.followed:
            gone = [before.rules[rule.prefix].config for rule in new if rule.prefix in before.rules]
            for prefixes in pieces(before.rules):
                gone += [before.rules[prefix].config for prefix in filterfalse(rules.__contains__, prefixes)]
                yield
            found = yield from changing(before.bases, gone, [rule.config for rule in new])
            if found is not None:
                differs = _Difference(set(), [], [])
                for some in pieces(new):
                    differs.changed.update(network for rule in some for network in rule.networks)
                    yield
                for networks in pieces(differs.changed):
                    differs.new.extend([each for each in networks if each not in before.bases.owners])
                    yield
                for some_gone in pieces(gone):
                    networks = [network for rule in some_gone for network in rule.networks]
                    differs.gone.extend([each for each in networks if each not in found.owners])
                    yield
                return found, differs
        found = yield from collecting([rule.config for rule in rules.values()], self._followed)
        return found, (yield from _compared(found, before.bases))

    def _rule_of(
        self, entry: Entry, config: RuleConfig, context: _Context, before: Origin | None, *, known: bool
    ) -> Rule:
        """The Rule of a RuleConfig: the very same object as before, where `known` says that it is unchanged."""
        rule = before.rules.get(config.prefix) if before else None
        if rule is None or not known or rule.config != config or config.follows:
            number = next(self._fresh_ids) if rule is None else rule.id
            return self._rule(number, entry, config, context)
        if rule.via_set:
            self._via_sets.keep(rule.via_set)
        return rule

    def _rule(self, number: int, entry: Entry, config: RuleConfig, context: _Context) -> Rule:
        via_set = self._via_sets.of(config, entry, context.here)
        networks = self._followed.get(config.follows, ()) if config.follows else config.networks
        flags = _FLAGS[
            context.router if config.router is None else config.router,
            config.dad or context.dad,
            config.na_source or context.na_source,
            bool(config.via),
        ]
        return Rule(number, entry.id, config, networks, _DECISIONS[config.method], flags, via_set)

    def keep(self, entry: int, prefixes: set[str]) -> None:
        """Of an entry of the table before that is away, the rules that the file still has."""
        before = self._before.origins.get(entry)
        kept = {prefix: rule for prefix, rule in before.rules.items() if prefix in prefixes} if before else {}
        occurring = frozenset({rule.decision for rule in kept.values()})
        self.origins[entry] = Origin((), None, {}, bases((), {}), kept, occurring)
        self.rules.update({rule.id: rule for rule in kept.values()})


def _occurring(rules: Mapping[str, Rule]) -> Steps[tuple[frozenset[Decision], frozenset[int]]]:
    """What some rules decide by, and their via sets."""
    decisions: set[int] = set()
    via_sets: set[int] = set()
    for some in pieces(rules.values()):
        decisions.update([int(rule.decision) for rule in some])  # an enum's hash takes four times as long
        via_sets.update([rule.via_set for rule in some])
        yield
    via_sets.discard(NO_VIA_SET)
    return frozenset(map(Decision, decisions)), frozenset(via_sets)


def _are_same(before: tuple[RuleConfig, ...], now: tuple[RuleConfig, ...]) -> Steps[bool]:
    """Whether two configurations say the same of an entry."""
    if before is now or len(before) != len(now):
        return before is now
    for pairs in pieces(zip(before, now, strict=True), _BIT):
        if any(one is not other and one != other for one, other in pairs):
            return False
        yield
    return True


def _lines_now(
    some_bases: Iterable[Prefix], found: Bases, rules: Mapping[str, Rule], *, proxied: bool
) -> Steps[tuple[dict[Prefix, Match], dict[Prefix, Sequence[str]]]]:
    """The lines of some of the bases that were found, and what is to be noted of these."""
    lines: dict[Prefix, Match] = {}
    notes: dict[Prefix, Sequence[str]] = {}
    made = 0
    for base in some_bases:
        if made >= _BIT:
            made = 0
            yield
        config = found.owners[base]
        rule = rules[config.prefix]
        made += 1
        if not config.include and not config.exclude:  # in less time, as there are thousands
            lines[base] = _match(rule, left_out=False, proxied=proxied)
            continue
        said: list[str] = []
        its_lines = yield from lines_of(base, config, found, said)
        for some in pieces(its_lines, _BIT):
            lines.update([(line.network, _match(rule, left_out=line.left_out, proxied=proxied)) for line in some])
            if len(some) == _BIT:
                yield
        made += len(its_lines) % _BIT
        if said:
            notes[base] = said
    return lines, notes


def _take(
    some_bases: Iterable[Prefix],
    found: Bases,
    lines: dict[Prefix, Match],
    notes: dict[Prefix, Sequence[str]],
    touched: set[Prefix],
) -> Steps[None]:
    """Take out the lines of some of the bases that were found, and what was noted of these; `touched` has them then."""
    made = 0
    for base in some_bases:
        if made >= _BIT:
            made = 0
            yield
        notes.pop(base, None)
        its_lines = yield from lines_of(base, found.owners[base], found, [])
        for some in pieces(its_lines, _BIT):
            for line in some:
                del lines[line.network]
                touched.add(line.network)
            if len(some) == _BIT:
                yield
        made += 1 + len(its_lines) % _BIT


class _Difference(NamedTuple):
    """Bases that are another rule's, or new; those of them that are new; and those that are gone."""

    changed: set[Prefix]
    new: list[Prefix]
    gone: list[Prefix]


def _compared(after: Bases, before: Bases) -> Steps[_Difference]:
    """How bases differ, of which nothing is known."""
    owners, old = after.owners, before.owners
    found = _Difference(set(), [], [])
    for items in pieces(owners.items(), _BIT):
        some = [base for base, rule in items if old.get(base) is not rule]
        found.changed.update(some)
        found.new.extend([base for base in some if base not in old])
        yield
    for bases_before in pieces(old, _BIT):
        found.gone.extend([base for base in bases_before if base not in owners])
        yield
    return found


def _with_parts(after: Bases, before: Bases, difference: _Difference) -> Steps[tuple[set[Prefix], list[Prefix]]]:
    """The bases whose lines have changed: among those that have lines now, and among those that had some before."""
    owners, old = after.owners, before.owners
    changed, new, gone = difference
    # where a base is new or gone, rules with parts around it have other lines
    for some in pieces(chain(gone, new), _BIT):
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
    """What a line of a rule says in the maps. `proxied` says that the kernel can answer there."""
    if left_out:
        return Match(rule.id, Decision.IGNORE, rule.flags)
    if rule.decision is Decision.KERNEL and not proxied:
        return Match(rule.id, Decision.STATIC, rule.flags)
    return Match(rule.id, rule.decision, rule.flags, rule.via_set)


def _flags(router: bool, dad: DadPolicy, na_source: NaSource, via: bool) -> RuleFlag:
    flags = RuleFlag.ROUTER if router else RuleFlag(0)
    if dad is DadPolicy.DEFEND:
        flags |= RuleFlag.DEFEND
    if na_source is NaSource.INTERFACE:
        flags |= RuleFlag.SOURCE_INTERFACE
    return flags | RuleFlag.VIA if via else flags


_FLAGS = {keys: _flags(*keys) for keys in product((False, True), DadPolicy, NaSource, (False, True))}
"""A rule's flags by its router, dad and na_source (its own words beat its interface's), and whether it has a via."""
