# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `kernel`: which of the kernel's proxy entries are to be ours, by the table."""

from __future__ import annotations

from ipaddress import IPv6Address

from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.table import Decision, Match, Table


def via_set_of(table: Table, host: Host) -> int | None:
    """The via set in which a proxy entry is a present target of method kernel; None where no rule wants it."""
    for entry_id in set(table.entry_ids.values()):
        entry = table.entries[entry_id]
        if entry.l3_ifindex != host.ifindex or not entry.is_at_work:
            continue
        match = table.lookup(entry_id, IPv6Address(host.address))
        if isinstance(match, Match) and match.decision is Decision.KERNEL:
            return match.via_set
    return None


def proxying_interfaces(table: Table) -> set[int]:
    """The L3 interfaces that rules of method kernel need the kernel to proxy on."""
    return {entry.l3_ifindex for entry in table.at_work(Decision.KERNEL)}
