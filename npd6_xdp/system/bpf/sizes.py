# SPDX-License-Identifier: GPL-2.0-or-later
"""How large the maps are to be, and what memory that takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from npd6_xdp.core.config import Limits
from npd6_xdp.core.table import Decision, Table
from npd6_xdp.system.bpf.load import COMPILER_BYTES, is_kept
from npd6_xdp.system.bpf.pack import is_in_trie

_VERIFIER_BYTES = 31_000_000  # of these, that the kernel takes for a while, with the library loaded: Linux 6.18
_LINE_BYTES = 96  # of the hash map: the kernel's own struct htab_elem of 48, key and value
_ANSWERED_BYTES = 112  # of the map of answered targets, which takes all of it at once: 96 each, and 16 for its bucket
_ASKED_BYTES = 120  # of the map of those that may not be there: 8 more
_KEPT = 16384  # targets that the kernel was asked about; the kernel keeps those that are asked for
_HEARD = 16384  # addresses of which the program knows where they were heard last


def sizes_for(tables: Iterable[Table], limits: Limits, present: int = 0) -> dict[str, int]:
    """Sizes of maps with space for twice what `tables` hold, and for so many present targets at the least."""
    needs = [needs_of(table, limits) for table in tables]
    sizes = {name: _size(name, max(each[name] for each in needs)) for name in needs[0]}
    return {**sizes, "PRESENT_TARGETS_MAX": max(sizes["PRESENT_TARGETS_MAX"], present)}


def needs_of(table: Table, limits: Limits) -> dict[str, int]:
    """How many entries each of the maps must have space for."""
    entries = table.entries.values()
    decisions = table.decisions.values()
    return {
        # one more for each port, should it fall silent
        "ENTRIES_MAX": sum(2 + len(table.entries[entry].lower) for entry in table.entry_ids.values()),
        "PORT_ENTRIES_MAX": len(_ifindexes(table)),
        "ENTRY_COUNTERS_MAX": max(table.entries, default=0) + 1,
        "RULE_COUNTERS_MAX": max(table.rules, default=0) + 1,
        "EXACT_MATCHES_MAX": sum(each.addresses if is_in_trie(each) else len(each) for each in decisions),
        "PREFIX_TRIE_MAX": sum(len(each) - each.addresses for each in decisions if is_in_trie(each)),
        "VIAS_MAX": sum(map(len, table.vias.values())) + len(table.nowhere),
        "PRESENT_TARGETS_MAX": limits.neighbours + limits.kernel_entries,
        "REFUSED_ASKERS_MAX": limits.pending + len(table.entries),
        "SOURCE_BUDGETS_MAX": 16384 if any(entry.source_limit for entry in entries) else 1,
        "TARGET_BUDGETS_MAX": max(table.entries) + 1 if is_budgeted(table) else 0,
        "ANSWERED_MAX": limits.remembered_targets if any(entry.remembers for entry in entries) else 0,
        "ASKED_TARGETS_MAX": limits.remembered_targets if presumes(table) else 0,
        **dict.fromkeys(("RECENT_TARGETS_MAX", "OTHER_TARGETS_MAX"), 2 * sum(entry.collect for entry in entries)),
        "KEPT_ROUTES_MAX": _KEPT if Decision.ROUTE in table.occurring else 1,
        "HEARD_ADDRESSES_MAX": _HEARD if any(map(table.hears, entries)) else 1,
    }


def _ifindexes(table: Table) -> set[int]:
    """Of all interfaces whose frames the entries speak for."""
    return {index for (port, _, _), entry in table.entry_ids.items() for index in (port, *table.entries[entry].lower)}


def is_budgeted(table: Table) -> bool:
    """Whether any entry has a budget of new targets."""
    return any(entry.new_target_limit for entry in table.entries.values())


def presumes(table: Table) -> bool:
    """Whether any entry is one of two edges', with hosts that may not be there."""
    return any(entry.active_with for entry in table.entries.values()) and Decision.NEIGHBOUR in table.occurring


def memory_to_load(tables: Sequence[Table], limits: Limits, *, ahead: bool = False) -> int:
    """How many bytes it takes, at the least, to load a program with space for these tables: docs/capacity.md. `ahead`:
    it is compiled already.

    Nearly all of it is the compiler's, if the program has to be compiled, and the verifier's, who give it back. What
    the counters take for each CPU isn't in it, as not every kernel charges a control group with that.
    """
    needs = [needs_of(table, limits) for table in tables]  # once each: a table may have 100,000 via sets
    lines, answered, asked = (
        max(_size(name, each[name]) for each in needs)
        for name in ("EXACT_MATCHES_MAX", "ANSWERED_MAX", "ASKED_TARGETS_MAX")
    )
    loading = _VERIFIER_BYTES if ahead or is_kept() else COMPILER_BYTES
    return loading + lines * _LINE_BYTES + answered * _ANSWERED_BYTES + asked * _ASKED_BYTES


def _size(name: str, wanted: int) -> int:
    """A map's size. Those that a table fills: twice what is needed now, so that it can grow for a while."""
    if name in ("PRESENT_TARGETS_MAX", "SOURCE_BUDGETS_MAX", "KEPT_ROUTES_MAX", "HEARD_ADDRESSES_MAX"):
        return wanted
    if name in ("RECENT_TARGETS_MAX", "OTHER_TARGETS_MAX", "ANSWERED_MAX", "ASKED_TARGETS_MAX"):
        # a kernel LRU map keeps some entries per CPU: small ones forget early
        return max(wanted, 1024) if wanted else 1
    return max(16384 if name in ("EXACT_MATCHES_MAX", "PREFIX_TRIE_MAX") else 64, 2 * wanted)
