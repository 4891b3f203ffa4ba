# SPDX-License-Identifier: GPL-2.0-or-later
"""The solicited-node multicast groups of targets that are few enough to name (RFC 4861 §7.2.8, RFC 4291 §2.7.1).

A switch with MLD snooping passes a group's frames only to ports that have joined it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from ipaddress import IPv6Address, IPv6Network

from npd6_xdp.core.rules import Decision, Table

MOST_GROUPS = 256
"""Groups that are joined on one interface."""
_SMALL = 120  # a prefix so long has at most 256 targets

_SOLICITED_NODE = int(IPv6Address("ff02::1:ff00:0"))
_PROXIED = (Decision.STATIC, Decision.ROUTE, Decision.NEIGHBOUR, Decision.KERNEL)


def solicited_node(target: int) -> bytes:
    """The group of a target, 16 bytes: its last 24 bits under ff02::1:ff00:0/104."""
    return (_SOLICITED_NODE | target & 0xFFFFFF).to_bytes(16)


def wanted_groups(table: Table) -> dict[int, frozenset[bytes]]:
    """The groups to join on each L3 interface, at most MOST_GROUPS of them, the lowest targets first.

    Those of single addresses and of prefixes with at most 256 addresses; larger ones would take too many.
    """
    live = set(table.slots.values())
    matches = {(entry, IPv6Network(address)): match for (entry, address), match in table.addresses.items()}
    matches |= {key: match for key, match in table.prefixes.items() if key[1].prefixlen >= _SMALL}
    wanted = sorted(
        (network, table.entries[entry].l3_ifindex)
        for (entry, network), match in matches.items()
        if match.decision in _PROXIED and entry in live
    )
    groups: defaultdict[int, dict[bytes, None]] = defaultdict(dict)
    for network, ifindex in wanted:
        first = int(network.network_address)
        for target in range(first, first + network.num_addresses):
            if len(groups[ifindex]) < MOST_GROUPS:
                groups[ifindex].setdefault(solicited_node(target))
    return {ifindex: frozenset(found) for ifindex, found in groups.items()}


def joins_and_leaves(
    before: Mapping[int, frozenset[bytes]], after: Mapping[int, frozenset[bytes]]
) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """What is to be joined and left, as (interface, group)."""
    joins = [(i, group) for i, groups in after.items() for group in sorted(groups - before.get(i, frozenset()))]
    leaves = [(i, group) for i, groups in before.items() for group in sorted(groups - after.get(i, frozenset()))]
    return joins, leaves
