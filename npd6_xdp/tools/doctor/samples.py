# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets that stand for a rule's others: hosts that are there, and an address that hardly anybody has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv6Address

from npd6_xdp.core.neighbour_messages import PRESENT, NeighbourEntry
from npd6_xdp.core.prefix import BITS, Prefix
from npd6_xdp.core.route_messages import RouteReply
from npd6_xdp.core.table import Decision, Match, Rule, Table
from npd6_xdp.tools.doctor.facts import Sample

MOST_RULES = 64
"""Rules that are looked at one by one."""

_MOST_HOSTS = 4  # of a rule
_MOST_NETWORKS = 4
_PATTERNS = (0xF4C3_9B1E_5A7D_2086, 0x2B7E_1516_28AE_D2A6, 0, 1)
"""Interface identifiers that nobody has by accident, and then those that are left in small prefixes."""


def samples(
    table: Table, neighbours: Sequence[NeighbourEntry], way: Callable[[IPv6Address, int], RouteReply | None]
) -> Iterator[Sample]:
    """Where the kernel sends packets for them, that come in where the questions do."""
    live = set(table.entry_ids.values())
    rules = [each for each in table.rules.values() if each.entry in live and each.decision is not Decision.IGNORE]
    for rule in rules[:MOST_RULES]:
        entry = table.entries[rule.entry]
        hosts = [each for each in neighbours if each.ifindex != entry.l3_ifindex and each.state & PRESENT]
        there = [host for host in map(_address, hosts) if _is_of(table, rule, host)][:_MOST_HOSTS]
        for host in there:
            yield Sample(rule.id, entry.l3_ifindex, host, True, way(host, entry.l3_ifindex))
        for network in rule.networks[:_MOST_NETWORKS]:
            stranger = _stranger(table, rule, network)
            if stranger is not None and stranger not in there:
                yield Sample(rule.id, entry.l3_ifindex, stranger, False, way(stranger, entry.l3_ifindex))


def _address(entry: NeighbourEntry) -> IPv6Address:
    return IPv6Address(entry.address)


def _is_of(table: Table, rule: Rule, target: IPv6Address) -> bool:
    match = table.lookup(rule.entry, target)
    return isinstance(match, Match) and match.rule == rule.id


def _stranger(table: Table, rule: Rule, network: Prefix) -> IPv6Address | None:
    """An address of a network that a rule decides about, which is no host's that is known."""
    for pattern in _PATTERNS:
        address = IPv6Address(network.address | pattern & ((1 << BITS - network.length) - 1))
        if _is_of(table, rule, address):
            return address
    return None
