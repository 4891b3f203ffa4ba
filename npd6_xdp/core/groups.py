# SPDX-License-Identifier: GPL-2.0-or-later
"""The solicited-node multicast groups of targets that are few enough to name (RFC 4861 §7.2.8, RFC 4291 §2.7.1).

A switch with MLD snooping passes a group's frames only to ports that have joined it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from ipaddress import IPv6Address

from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.steps import Steps, finish, in_order, pieces
from npd6_xdp.core.table import Decision, Match, Table

MOST_GROUPS = 256
"""Groups that are joined on one interface."""
_PIECE = 4096  # prefixes that are looked at at once
_SMALL = 120  # a prefix so long has at most 256 targets

_SOLICITED_NODE = int(IPv6Address("ff02::1:ff00:0"))
_PROXIED = (Decision.STATIC, Decision.ROUTE, Decision.NEIGHBOUR, Decision.KERNEL)


def solicited_node(target: int) -> bytes:
    """The group of a target, 16 bytes (F1): its last 24 bits under ff02::1:ff00:0/104."""
    return (_SOLICITED_NODE | target & 0xFFFFFF).to_bytes(16)


def wanted_groups(table: Table) -> dict[int, frozenset[bytes]]:
    """The groups to join on each L3 interface, at most MOST_GROUPS of them, the lowest targets first.

    Those of single addresses and of prefixes with at most 256 addresses; larger ones would take too many.
    """
    return finish(finding_groups(table))


def finding_groups(table: Table) -> Steps[dict[int, frozenset[bytes]]]:
    """The same, bit by bit."""
    wanted: defaultdict[int, list[Prefix]] = defaultdict(list)
    for entry, decisions in table.decisions.items():
        found = wanted[table.entries[entry].l3_ifindex]
        for some in pieces(decisions.lines, _PIECE):
            found += [
                prefix
                for prefix in some
                if prefix.length >= _SMALL
                and prefix not in decisions.exceptions
                and _is_proxied(decisions.lines[prefix])
            ]
            yield
        found += [prefix for prefix, match in decisions.exceptions.items() if _is_proxied(match)]
    groups = {}
    for ifindex, found in wanted.items():
        if found:
            groups[ifindex] = _lowest_groups((yield from _lowest(found)))
    return groups


def _is_proxied(match: Match) -> bool:
    return match.decision in _PROXIED


def _lowest(prefixes: list[Prefix]) -> Steps[list[Prefix]]:
    """The lowest first."""
    if len(prefixes) <= _PIECE:
        return sorted(prefixes)
    return (yield from in_order(prefixes))


def _lowest_groups(prefixes: list[Prefix]) -> frozenset[bytes]:
    """The groups of the lowest targets; of 100,000 prefixes few are looked at."""
    groups: set[bytes] = set()
    for prefix in prefixes:
        for target in range(prefix.address, prefix.last + 1):
            groups.add(solicited_node(target))
            if len(groups) == MOST_GROUPS:
                return frozenset(groups)
    return frozenset(groups)


def joins_and_leaves(
    before: Mapping[int, frozenset[bytes]], after: Mapping[int, frozenset[bytes]]
) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """What is to be joined and left, as (interface, group)."""
    joins = [(i, group) for i, groups in after.items() for group in sorted(groups - before.get(i, frozenset()))]
    leaves = [(i, group) for i, groups in before.items() for group in sorted(groups - after.get(i, frozenset()))]
    return joins, leaves
