# SPDX-License-Identifier: GPL-2.0-or-later
"""The table in words: what `check` prints, and how `explain` tells the way of one solicitation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from npd6_xdp.core.config import Config, DadPolicy, Datapath, InterfaceConfig, NaSource
from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.core.responder import Responder
from npd6_xdp.core.rules import Decision, Entry, LinkFacts, Match, Rule, RuleFlag, Table, build
from npd6_xdp.core.verdict import Outcome

_ASKER = bytes.fromhex("020000000001")
_NO_MAC = bytes(6)


def table_json(config: Config) -> dict[str, Any]:
    """The table as plain values: each entry with its keys and its rules, the most specific rule first."""
    return {
        "interfaces": [
            {
                "interface": interface.label,
                "name": interface.name,
                "vlan": str(interface.vlan),
                "attach": interface.attach,
                "datapath": interface.datapath,
                "router": interface.router,
                "dad": interface.dad,
                "na_source": interface.na_source,
                "rules": [
                    {"prefix": str(rule.network), "rule": rule.prefix, "method": rule.method}
                    for rule in _most_specific_first(interface)
                ],
            }
            for interface in config.interfaces
        ]
    }


def table_text(config: Config) -> str:
    """The same, to read."""
    blocks = []
    for interface in config.interfaces:
        lines = [
            f"{interface.label}: {interface.datapath}, attach {interface.attach}, router {_yes(interface.router)},"
            f" dad {interface.dad}, na_source {interface.na_source}"
        ]
        rules = _most_specific_first(interface)
        width = max(len(str(rule.network)) for rule in rules)
        lines += [f"  {rule.network!s:<{width}}  {rule.method}" for rule in rules]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


@dataclass(frozen=True, slots=True)
class Question:
    """A solicitation to explain: it comes in by `interface`, with the VLAN ids `tags`, from `source`."""

    interface: str
    tags: tuple[int, ...]
    target: IPv6Address
    source: IPv6Address


def explain(config: Config, links: Mapping[str, LinkFacts], question: Question) -> str:
    """What becomes of a solicitation, and why, a line a step.

    `links` holds the facts of those interfaces that are on this machine; for another one, own addresses and
    next hops can't be considered, and the text says so.
    """
    here = links.get(question.interface)
    link = here or LinkFacts(question.interface, 0, _NO_MAC)
    table = build(config, {link.name: link})
    entry = table.entry_of(link.ifindex, question.tags)
    assert entry is not None, "the caller asks for an interface of the configuration"
    lines = [f"{question.source} asks on {_frames(question)} who has {question.target}"]
    if here is None:
        lines.append(
            f"note: {link.name} is not on this machine; its own addresses, next hops and MAC address are unknown here"
        )
    lines += _way(table, entry, question)
    return "\n".join(lines)


def _way(table: Table, entry: Entry, question: Question) -> list[str]:
    """The steps from the entry to the outcome, the advertisement at the end if there is one."""
    source, target = question.source, question.target
    if target.is_multicast:
        return _outcome(Outcome.INVALID, "the target is a multicast address (RFC 4861 §7.1.1)")
    if source.is_multicast:
        return _outcome(Outcome.INVALID, "the source is a multicast address (RFC 4291 §2.7)")
    found = table.lookup(entry.id, target)
    if isinstance(found, Outcome):
        why = "no rule covers it" if entry.spoken else f"no [[interface]] speaks for {_frames(question)}"
        if found is Outcome.IGNORED:
            why = "such a target is never answered" + (
                ", unless a rule names exactly this address" if target.is_link_local else ""
            )
        return _outcome(found, why)
    if found.decision is Decision.OWN:
        return _outcome(Outcome.OWN, f"{entry.port} holds this address itself; the kernel answers")
    if found.decision is Decision.NEXT_HOP:
        return _outcome(Outcome.IGNORED, f"it is a next hop of a route out of {entry.port}; never impersonated")
    rule = table.rules[found.rule]
    lines = [f"rule: {rule.prefix} ({rule.method}) of {entry.label}"]
    if found.decision is Decision.IGNORE:
        return lines + _outcome(Outcome.IGNORED, "the rule says so")
    dad = source.is_unspecified
    if dad and not found.flags & RuleFlag.DEFEND:
        return lines + _outcome(Outcome.DAD, f'a DAD probe, and dad = "{DadPolicy.IGNORE}"')
    if entry.datapath is Datapath.MONITOR:
        return lines + _outcome(Outcome.MONITORED, f'it would be answered, but for datapath = "{Datapath.MONITOR}"')
    by_xdp = entry.datapath is Datapath.HYBRID and not dad
    outcome = Outcome.ANSWERED_XDP if by_xdp else Outcome.ANSWERED_PYTHON
    lines += _outcome(outcome, f"present, by method {rule.method}")
    return lines + _advertisement(table, entry, rule, found, question)


def _advertisement(table: Table, entry: Entry, rule: Rule, found: Match, question: Question) -> list[str]:
    tags = question.tags
    tci = b"".join(tag.to_bytes(2, "big") for tag in tags).ljust(4, b"\0")
    event = NsEvent(question.target.packed, question.source.packed, 0, rule.id, _ASKER, tci, len(tags))
    answer = Responder(table).answer(event)
    na = NeighborAdvertisement.parse(answer.frame)
    mac = entry.mac.hex(":") if entry.mac != _NO_MAC else f"the MAC of {entry.port}"
    asked_by = na.eth_destination.hex(":") if question.source.is_unspecified else "the asker's MAC"
    lines = [
        f"advertisement: {mac} > {asked_by}"
        + "".join(f", VLAN {tag}" for tag in tags)
        + f"; {IPv6Address(na.source)} > {IPv6Address(na.destination)}",
        f"  target {IPv6Address(na.target)}, R={int(na.router)} S={int(na.solicited)} O={int(na.override)},"
        f" target link-layer address {mac}, {len(answer.frame)} bytes",
    ]
    if found.flags & RuleFlag.SOURCE_INTERFACE and na.source == na.target:
        lines.append(f'  note: na_source = "{NaSource.INTERFACE}", but no usable address of {entry.port} is known')
    return lines


def _outcome(outcome: Outcome, why: str) -> list[str]:
    return [f"outcome: {outcome} ({why})"]


def _frames(question: Question) -> str:
    tags = ".".join(str(tag) for tag in question.tags)
    return f"VLAN {tags} of {question.interface}" if tags else question.interface


def _most_specific_first(interface: InterfaceConfig) -> list[Any]:
    return sorted(interface.rules, key=lambda rule: (-rule.network.prefixlen, rule.network))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
