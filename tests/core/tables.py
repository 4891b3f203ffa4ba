# SPDX-License-Identifier: GPL-2.0-or-later
"""Configurations, links and tables for the tests of what is in force and of how it comes to be."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

from hypothesis import strategies as st

from npd6_xdp.core.config import Config, InterfaceConfig, RuleConfig, Selection, Vlan
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.table import Decision, Match, Table
from npd6_xdp.core.verdict import Method, Outcome
from npd6_xdp.core.warnings import warnings

MAC = bytes.fromhex("020000000001")


def rule(prefix: str, method: Method = Method.STATIC) -> RuleConfig:
    return RuleConfig(prefix, (Prefix.of(prefix),), method)


def config(*rules: RuleConfig, vlan: Vlan = Vlan()) -> Config:  # noqa: B008 (frozen)
    return Config((InterfaceConfig("wan0", rules, vlan=vlan),))


def own(*addresses: str) -> tuple[OwnAddress, ...]:
    return tuple(
        OwnAddress(IPv6Address(address.split("/")[0]), int(([*address.split("/"), "128"])[1])) for address in addresses
    )


def link(addresses: tuple[OwnAddress, ...] = (), hops: tuple[str, ...] = ()) -> LinkFacts:
    return LinkFacts(
        "wan0", 7, MAC, addresses={(): addresses}, next_hops={(): frozenset(IPv6Address(hop) for hop in hops)}
    )


def decision(table: Table, target: str, tags: tuple[int, ...] = ()) -> Decision | Outcome:
    entry = table.entry_of(7, tags)
    assert entry is not None
    found = table.lookup(entry.id, IPv6Address(target))
    return found if isinstance(found, Outcome) else found.decision


def text(*entries: str) -> Config:
    """A configuration of entries, each `name` or `name, keys`, then a line a rule, its keys separated by commas."""
    lines = []
    for each in entries:
        head, *rules = [line.strip() for line in each.strip().splitlines()]
        lines += ["[[interface]]", *head.split("; ")]
        for one in rules:
            lines += ["[[interface.rule]]", *one.split("; ")]
    return parse("\n".join(lines), "test")


def under(port: str, *rules: str) -> Config:
    return text("\n".join((f'name = "{port}"', *rules)))


BASE = int(IPv6Address("2001:db8::"))


small = st.integers(0, 255)


@st.composite
def selections(draw: st.DrawFn, network: IPv6Network) -> Selection:
    """A range within a prefix, as suffixes or in full."""
    host_bits = 128 - network.prefixlen
    first, last = sorted(draw(st.tuples(*[st.integers(0, 2**host_bits - 1)] * 2)))
    base = draw(st.sampled_from([0, int(network.network_address)]))
    return Selection("?", base | first, base | last)


@st.composite
def rule_configs(draw: st.DrawFn) -> RuleConfig:
    network = IPv6Network((BASE | draw(small), draw(st.integers(119, 128))), strict=False)
    lists = st.just([]) if network.prefixlen == 128 else st.lists(selections(network), max_size=3)
    return RuleConfig(
        str(network),
        (Prefix.of(network),),
        draw(st.sampled_from([Method.STATIC, Method.ROUTE, Method.KERNEL])),
        include=tuple(draw(lists)),
        exclude=tuple(draw(lists)),
    )


LAN = bytes.fromhex("02000000000a")


def side(name: str, ifindex: int, *addresses: str, mac: bytes = LAN) -> LinkFacts:
    return LinkFacts(name, ifindex, mac, addresses={(): own(*addresses)})


def facts(*links: LinkFacts) -> dict[str, LinkFacts]:
    return {each.name: each for each in (link(), *links)}


def meaning(table: Table) -> dict[str, object]:
    """What a table says, whatever the ids."""
    via_set_keys = {number: key for key, number in table.via_sets.items()}

    def who(entry: int) -> tuple[str, str]:
        return table.entries[entry].port, str(table.entries[entry].vlan)

    def said(match: Match) -> object:
        by = table.rules.get(match.rule)
        via_set = via_set_keys.get(match.via_set)
        via_set = (via_set[0], str(who(int(via_set[1])))) if via_set and via_set[0] == "kernel" else via_set
        return (by.config, who(by.entry)) if by else None, match.decision, match.flags, via_set

    return {
        "entry_ids": {key: who(entry) for key, entry in table.entry_ids.items()},
        "decisions": {who(e): {p: said(m) for p, m in found.items()} for e, found in table.decisions.items()},
        "rules": [
            (who(r.entry), r.config, r.networks, r.flags) for r in table.rules.values() if r.entry in table.decisions
        ],
        "notes": sorted(table.notes),
        "warnings": sorted(warnings(table)),
        "live": {kind: sorted(who(entry.id) for entry in table.live(kind)) for kind in Decision},
        "vias": {via_set_keys[number]: via for number, via in table.vias.items()},
    }
