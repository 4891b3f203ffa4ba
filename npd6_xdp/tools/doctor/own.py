# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine's own addresses within rules' prefixes: who answers for each, and where that isn't as it looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv6Address

from npd6_xdp.core.entries import Entry
from npd6_xdp.core.links import OwnAddress
from npd6_xdp.core.names import word
from npd6_xdp.core.prefix import BITS, MASKS, Prefix
from npd6_xdp.core.table import Decision, Match, Rule
from npd6_xdp.tools.doctor.covered import without_length
from npd6_xdp.tools.doctor.facts import Facts
from npd6_xdp.tools.doctor.finding import Finding, note, ok, warn

_CHECK = "own_address"
_MOST_NAMED = 8


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of them. That such an address brings a second route for the prefix is said by both_sides."""
    live = set(facts.table.entry_ids.values())
    rules: dict[int, list[Rule]] = {}
    for rule in facts.table.rules.values():
        if rule.entry in live and rule.decision is not Decision.IGNORE:
            rules.setdefault(rule.entry, []).append(rule)
    within = _held_within(facts, rules)
    found = [
        each
        for entry, some in rules.items()
        for each in _entry(facts, facts.table.entries[entry], some, within.get(entry, ()))
    ]
    yield from found
    if not found:
        yield ok(_CHECK, "this machine has no address within a rule's prefix")


def _held_within(facts: Facts, rules: Mapping[int, Sequence[Rule]]) -> dict[int, list[tuple[str, OwnAddress]]]:
    """The addresses, with their interfaces, that rules of each entry cover."""
    covering: dict[Prefix, set[int]] = {}
    for entry, some in rules.items():
        for network in (each for rule in some for each in rule.networks):
            covering.setdefault(network, set()).add(entry)
    lengths = {network.length for network in covering}
    found: dict[int, list[tuple[str, OwnAddress]]] = {}
    for link in sorted(facts.links.values(), key=lambda each: each.name):
        for held in link.own(()) if link.l3_ifindex(()) == link.ifindex else ():
            if held.address.is_link_local or held.address.is_loopback:
                continue
            around = (Prefix(int(held.address) & MASKS[length], length) for length in lengths)
            for entry in {entry for prefix in around for entry in covering.get(prefix, ())}:
                found.setdefault(entry, []).append((link.name, held))
    return found


def _entry(
    facts: Facts, entry: Entry, rules: Sequence[Rule], held: Sequence[tuple[str, OwnAddress]]
) -> Iterator[Finding]:
    mine, elsewhere = [], []
    for name, each in held:
        match = facts.table.lookup(entry.id, each.address)
        decision = match.decision if isinstance(match, Match) else None
        if not each.usable and facts.links[name].up:
            text = f"{name}: {each.address} is tentative, or somebody else has it (dadfailed): look again in a moment"
            mend = f"ip -6 address del {each.address}/{each.prefix_length} dev {word(name)}"
            yield note(_CHECK, f"{text}; this machine can't use it while it is so", mend)
        elif decision is Decision.OWN:
            mine.append(str(each.address))
        elif decision is not None and decision > Decision.IGNORE:
            elsewhere.append(f"{each.address} ({name})")
    for rule in rules:
        if without_length(rule) is not None:
            continue  # which is said by its name, `prefix`: that address is a router's, by RFC 4291 §2.6.1
        if alone := [network for network in rule.networks if _is_own(facts, entry, network)]:
            names = _some([str(IPv6Address(each.address)) for each in alone])
            text = f"{entry.label}: {rule.method} rule {rule.prefix}: {names}: it is this machine's own there, so the"
            yield warn(_CHECK, f"{text} kernel answers, and the rule never does, whoever else is meant to have it")
    if mine:
        yield ok(_CHECK, f"{entry.label}: {_some(mine)}: the kernel answers, whatever rules say")
    if elsewhere:
        yield ok(_CHECK, f"{entry.label}: {_some(elsewhere)}: answered as there, under every method")


def _is_own(facts: Facts, entry: Entry, network: Prefix) -> bool:
    """Whether a rule is for one address, and that is the interface's own (C1)."""
    if network.length != BITS:
        return False
    match = facts.table.lookup(entry.id, IPv6Address(network.address))
    return isinstance(match, Match) and match.decision is Decision.OWN


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"
