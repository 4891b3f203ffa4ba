# SPDX-License-Identifier: GPL-2.0-or-later
"""What the program's token buckets have left for one asker and one target, as it would find them now."""

from __future__ import annotations

from npd6_xdp.core.entries import Entry
from npd6_xdp.core.layout import ADDRESS_KEY, ANSWERED, BUDGET, INDEX, MAC_KEY
from npd6_xdp.core.verdict import Limit
from npd6_xdp.system.bpf.maps import Maps
from npd6_xdp.system.clock import machine_ns

_SECOND = 1_000_000_000
_BURST = _SECOND
"""BURST of bpf/ns_filter.c: how far ahead of now may be spent (nanoseconds)."""


def used_up(maps: Maps, entry: Entry, events_per_second: int, target: bytes, mac: bytes) -> frozenset[Limit]:
    """Which budgets have nothing left for the next solicitation on an entry, for a target (16 bytes) and from a source
    MAC address (6 bytes; b"" where it isn't known, whose own budget can't be told then).
    """
    now = machine_ns()

    def is_spent(name: str, key: bytes, per_second: int) -> bool:
        value = maps.lookup(name, key, BUDGET.size)
        paid = 0 if value is None else int(BUDGET.get(value, "paid_until"))
        return max(paid, now) + _SECOND // per_second > now + _BURST

    found = set()
    if entry.source_limit and mac and is_spent("source_budgets", MAC_KEY.pack(entry.id, mac), entry.source_limit):
        found.add(Limit.SOURCE)
    if is_spent("event_budget", INDEX.pack(0), events_per_second):
        found.add(Limit.ALL)
    is_new = maps.lookup("answered", ADDRESS_KEY.pack(entry.id, target), ANSWERED.size) is None
    if entry.new_target_limit and is_new and is_spent("target_budgets", INDEX.pack(entry.id), entry.new_target_limit):
        found.add(Limit.NEW_TARGET)
    return frozenset(found)
