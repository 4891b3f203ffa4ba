# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts that are there, or asked for, and that no rule covers: a prefix that is narrower than was meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from ipaddress import IPv6Address

from npd6_xdp.core.entries import Entry
from npd6_xdp.core.neighbour_messages import PRESENT
from npd6_xdp.core.prefix import BITS, MASKS, Prefix
from npd6_xdp.core.table import NO_RULE, Decision, Match, Rule
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.tools.doctor import edits
from npd6_xdp.tools.doctor.facts import Facts, is_unicast
from npd6_xdp.tools.doctor.finding import Finding, Level

_USUAL = 64
_MOST_NAMED = 4


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of them."""
    upstream = facts.default.interface if facts.default else ""
    for entry in facts.table.entries.values():
        rules = [rule for rule in facts.table.rules.values() if rule.entry == entry.id and _answers(rule)]
        if rules and entry.id in facts.table.entry_ids.values():
            near = {entry.l3_ifindex} | {link.ifindex for link in facts.links.values() if link.name == upstream}
            yield from _entry(facts, entry, rules, near)


def without_length(rule: Rule) -> Prefix | None:
    """The prefix that is meant where one of a network is written without its length, which is that address alone."""
    if "/" in rule.prefix or rule.config.follows or len(rule.networks) != 1:
        return None
    (network,) = rule.networks
    is_network = network.length == BITS and not network.address & ((1 << (BITS - _USUAL)) - 1)
    return Prefix(network.address, _USUAL) if is_network else None


def _answers(rule: Rule) -> bool:
    return rule.decision is not Decision.IGNORE and not rule.config.follows


def _entry(facts: Facts, entry: Entry, rules: Sequence[Rule], near: Set[int]) -> Iterator[Finding]:
    here = _here(facts, entry)
    around = _around(rules, here)
    behind = {ifindex for rule in rules for ifindex in facts.table.vias.get(rule.via_set, ())} - near
    if not all(rule.via for rule in rules):
        behind |= {link.ifindex for link in facts.links.values()} - near
    there = {IPv6Address(each.address) for each in facts.neighbours if each.ifindex in behind and each.state & PRESENT}
    rows = (facts.status or {}).get("targets", ())
    labels = {entry.label, entry.port}
    asked = {
        IPv6Address(row["target"]) for row in rows if row["interface"] in labels and row["outcome"] == Outcome.UNMATCHED
    }
    bare = sorted(
        {each for each in there | asked if _is_bare(facts, entry, each, around)}
        | {each for each in there & asked if _is_bare(facts, entry, each, here)}
    )
    missing = sorted(
        prefix
        for prefix, routes in facts.direct.items()
        if prefix.length < BITS
        and any(route.ifindex in behind for route in routes)
        and any(each.covers(prefix) for each in around)
        and not any(network.covers(prefix) or prefix.covers(network) for rule in rules for network in rule.networks)
    )
    whats = [*map(str, bare), *(f"the route {each}" for each in missing)]
    if not whats:
        return
    found = [facts.table.lookup(entry.id, each) for each in there]
    covered = any(isinstance(each, Match) and each.rule != NO_RULE for each in found)
    by_address = all(network.length == BITS for rule in rules for network in rule.networks)
    grave = Level.WARN if asked & {*bare} else Level.NOTE
    level = grave if covered or by_address else Level.FAIL
    names = ", ".join(sorted(facts.name(index) for index in behind)[:_MOST_NAMED]) or "this machine"
    more = f" and {len(whats) - _MOST_NAMED} more" if len(whats) > _MOST_NAMED else ""
    heard = " (asked for, too)" if asked & {*bare} else ""
    text = (
        f"{entry.label}: no rule covers {', '.join(whats[:_MOST_NAMED])}{more}{heard}, behind {names}, so nothing is"
        f" answered for them: {', '.join(rule.prefix for rule in rules[:_MOST_NAMED])} leaves them out"
    )
    wanted = [*bare, *(IPv6Address(prefix.address) for prefix in missing)]
    yield Finding("prefix", level, text, _widened(facts, rules, wanted, around))


def _here(facts: Facts, entry: Entry) -> set[Prefix]:
    """The prefixes that are on the entry's own link."""
    found = {
        prefix
        for prefix, routes in facts.direct.items()
        if prefix.length < BITS and any(route.ifindex == entry.l3_ifindex for route in routes)
    }
    return {each for each in found if is_unicast(each)}


def _around(rules: Sequence[Rule], here: Set[Prefix]) -> set[Prefix]:
    """Those of them that rules are within, and those of a usual length around rules. Hosts in others, a ULA say, may be
    none of the entry's business.
    """
    networks = [network for rule in rules for network in rule.networks]
    near = {Prefix(each.address & MASKS[_USUAL], _USUAL) for each in networks if each.length > _USUAL}
    return near | {each for each in here if any(each.covers(network) for network in networks)}


def _is_bare(facts: Facts, entry: Entry, address: IPv6Address, around: Set[Prefix]) -> bool:
    return (
        any(each.covers(Prefix(int(address), BITS)) for each in around)
        and facts.table.lookup(entry.id, address) is Outcome.UNMATCHED
    )


def _widened(
    facts: Facts, rules: Sequence[Rule], wanted: Sequence[IPv6Address], around: Set[Prefix]
) -> tuple[str, ...]:
    """The command that writes the one prefix that has all of them, for the one rule that is in it."""
    meant = [each for each in around if all(each.covers(Prefix(int(one), BITS)) for one in wanted)]
    meant = [each for each in meant if each.length == max(one.length for one in meant)]
    if len(meant) != 1:
        return ()
    within = [rule for rule in rules if any(meant[0].covers(network) for network in rule.networks)]
    if len(within) != 1:
        return ()
    (rule,) = within
    entry = facts.table.entries[rule.entry]
    name = next((each.name for each in facts.config.entries(entry.port) if rule.config in each.rules), entry.port)
    place = edits.rule_place(facts.path, facts.text, name, rule.prefix)
    return place.replace(("prefix", rule.prefix, str(meant[0])))
