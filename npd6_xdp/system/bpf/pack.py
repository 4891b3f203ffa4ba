# SPDX-License-Identifier: GPL-2.0-or-later
"""The contents of the maps for a table, as bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from npd6_xdp.core.config import Datapath
from npd6_xdp.core.entries import DATAPATHS, Entry, EntryFlag
from npd6_xdp.core.hidden import Tapped
from npd6_xdp.core.layout import (
    ENTRY,
    ENTRY_KEY,
    EXACT_KEY,
    FLAG,
    LENGTHS,
    NO_LENGTH,
    PREFIX_SCOPE,
    RULE,
    TRIE_KEY,
    VIA_KEY,
)
from npd6_xdp.core.links import advert_sources
from npd6_xdp.core.prefix import BITS, MASKS, Prefix
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.core.table import (
    NO_VIA_SET,
    NOTHING_DECIDED,
    VLAN_ANY,
    Decision,
    Decisions,
    Match,
    RuleFlag,
    Table,
)

_NO_ONLY = Prefix(0, 0), Match(0, Decision.IGNORE, RuleFlag(0))
_MOST_LENGTHS = 4
_HASHED_FROM = 64
"""An entry's prefixes are in the hash where they have few lengths, each of which costs a look-up, and are many for each
length: with one prefix an answer took 20 ns less by the trie, with 100,000 389 ns by the hash and 885 by the trie."""
_SET = FLAG.pack(1)
SOME = 1024  # lines that are put or taken out at once: two milliseconds
_NANOSECONDS = 1_000_000_000


class EntryChange(NamedTuple):
    """What is to be put into the maps for an entry, and taken out of them; its prefixes are in the trie, or were."""

    entry: int
    put: dict[Prefix, Match]
    take: list[Prefix]
    in_trie: bool
    was_in_trie: bool


EntryChanges = Sequence[EntryChange]


class TableLines(NamedTuple):
    """Lines of the flat table, and the kernel map that they belong into."""

    map: str
    entry: int
    prefixes: Sequence[Prefix]


def is_in_trie(decisions: Decisions) -> bool:
    """Whether an entry's prefixes are better found in the trie than by a hash look-up for each length."""
    lengths, prefixes = len(decisions.lengths), len(decisions) - decisions.addresses
    return lengths > _MOST_LENGTHS or prefixes < lengths * _HASHED_FROM


def map_of(prefix: Prefix, in_trie: bool) -> str:
    """The kernel map that a prefix belongs into."""
    return "prefix_trie" if prefix.length < BITS and in_trie else "exact_matches"


def in_turn(entries: Iterable[tuple[int, Iterable[Prefix], bool]]) -> Steps[list[TableLines]]:
    """Prefixes of entries, which are in the trie or not, by their maps; the shortest first."""
    found: defaultdict[tuple[int, str, int], list[Prefix]] = defaultdict(list)
    for entry, prefixes, in_trie in entries:
        for some in pieces(prefixes, SOME):
            for prefix in some:
                found[prefix.length, map_of(prefix, in_trie), entry].append(prefix)
            yield
    return [TableLines(name, entry, found[length, name, entry]) for length, name, entry in sorted(found)]


def match_key(name: str, entry: int, prefix: Prefix) -> bytes:
    """Under which key a prefix of an entry stands in the map of that name."""
    address, length = prefix
    if name == "exact_matches":
        return EXACT_KEY.pack(entry, length, address.to_bytes(16))
    return TRIE_KEY.pack(PREFIX_SCOPE + length, entry, address.to_bytes(16))


def pack_lengths(lengths: Iterable[int]) -> bytes:
    """An entry's list of prefix lengths, the longest first."""
    return bytes(sorted(lengths, reverse=True)).ljust(LENGTHS, bytes([NO_LENGTH]))


def untagged(entries: Mapping[bytes, bytes]) -> dict[int, bytes]:
    """Of a map of entries, by index of a port, the one that its untagged frames have."""
    found: dict[int, bytes] = {}
    otherwise: dict[int, bytes] = {}
    for key, entry in entries.items():
        ifindex, outer, _ = ENTRY_KEY.unpack(key)
        if outer == 0:
            found[ifindex] = entry
        elif outer == VLAN_ANY:
            otherwise[ifindex] = entry
    return {**otherwise, **found}


def any_vlan_last(item: tuple[bytes, bytes]) -> bool:
    """To sort entries by, keys and values: those for a given VLAN come before those for any."""
    return bool(ENTRY_KEY.get(item[0], "outer") == VLAN_ANY)


_ENTRIES = 64  # that are packed at once
Packed = dict[int, tuple[Entry, Decisions, bool, int, bytes]]
"""Packed entries by id, with what they were made of: a table has the very same objects where nothing is different."""


def packing_entries(
    table: Table,
    tapped: Tapped = Tapped(),  # noqa: B008 (frozen)
    packed: Packed | None = None,
    traced: str | None = None,
) -> Steps[dict[bytes, bytes]]:
    """The kernel's map of entries for a table. `packed` has what was packed before, and is brought up to date.

    Somebody looks at what comes by the port `traced` ("": by any; None: nobody does).

    On a silent port, what looks untagged may be another VLAN's, so that is monitored only; a tag that is in the frame
    is believed.
    """
    entries: dict[bytes, bytes] = {}
    known, now = packed or {}, Packed()
    wanted = dict(table.entry_ids)
    for port in tapped.silent & table.ports:
        wanted.setdefault((port, 0, 0), table.entry_ids[port, VLAN_ANY, VLAN_ANY])
    for made, ((port, outer, inner), entry_id) in enumerate(wanted.items(), 1):
        if made % _ENTRIES == 0:
            yield
        entry, decisions = table.entries[entry_id], table.decisions.get(entry_id, NOTHING_DECIDED)
        is_silent = port in tapped.silent and (outer, inner) == (0, 0)
        flags = _entry_flags(entry, port, tapped, hears=table.hears(entry))
        if entry.is_plain and not is_silent:
            flags |= _PLAIN
        if traced is not None and traced in ("", entry.port):
            flags |= _TRACED
        before = known.get(entry_id)
        if before is None or before[0] is not entry or before[1] is not decisions or before[2:4] != (is_silent, flags):
            before = (
                entry,
                decisions,
                is_silent,
                flags,
                _packed_as(before, entry, decisions, flags, is_silent=is_silent),
            )
        now[entry_id] = before
        for ifindex in (port, *entry.lower):
            if ifindex == port or ifindex not in table.ports:
                entries[ENTRY_KEY.pack(ifindex, outer, inner)] = before[4]
    if packed is not None:
        packed.clear()
        packed.update(now)
    return entries


def _packed_as(
    before: tuple[Entry, Decisions, bool, int, bytes] | None,
    entry: Entry,
    decisions: Decisions,
    flags: int,
    *,
    is_silent: bool,
) -> bytes:
    """An entry's bytes; of those before, if only flags differ: who looks on changes these of thousands, at once."""
    if before is not None and before[0] is entry and before[1] is decisions and before[2] == is_silent:
        return ENTRY.replaced(before[4], "flags", flags)
    return _pack_entry(entry, decisions, flags, is_silent=is_silent)


def _pack_entry(entry: Entry, decisions: Decisions, flags: int, *, is_silent: bool) -> bytes:
    source_flags, link_local, global_address = advert_sources(entry.addresses)
    in_trie = is_in_trie(decisions)
    only, match = decisions.only_prefix or _NO_ONLY
    return ENTRY.pack_named(
        id=entry.id,
        mac=entry.mac,
        datapath=DATAPATHS.index(Datapath.MONITOR if is_silent else entry.datapath),
        source_flags=source_flags,
        l3_ifindex=entry.l3_ifindex,
        link_local=link_local.packed,
        global_address=global_address.packed,
        has_only=decisions.only_prefix is not None,
        only_rule=RULE.pack(*match),
        only_prefix=only.address.to_bytes(16),
        only_mask=MASKS[only.length].to_bytes(16),
        exact_filter=decisions.exact_filter,
        source_cost=_NANOSECONDS // entry.source_limit if entry.source_limit else 0,
        collect=entry.collect > 0,
        trie=in_trie,
        port_mac=entry.port_mac or entry.mac,
        flags=flags,
        lengths=pack_lengths(() if in_trie else decisions.lengths),
        new_target_cost=_NANOSECONDS // entry.new_target_limit if entry.new_target_limit else 0,
    )


_SHARED, _TAPPED, _GUARDED, _SAMPLED, _TAGLESS, _HEARS, _BUDGETED, _REMEMBERS, _STANDBY, _TRACED, _PLAIN = map(
    int, EntryFlag
)


def _entry_flags(entry: Entry, port: int, tapped: Tapped, *, hears: bool) -> int:
    flags = _SHARED if entry.shared else 0  # plain numbers, for thousands of ports
    if port in tapped.ports:
        flags |= _TAPPED
    if port in tapped.guarded:
        flags |= _GUARDED
    if port in tapped.sampled:
        flags |= _SAMPLED
    if port in tapped.tagless:
        flags |= _TAGLESS
    if entry.new_target_limit:
        flags |= _BUDGETED
    if entry.active_with or entry.standby:
        flags |= _REMEMBERS | _STANDBY if entry.standby else _REMEMBERS
    return flags | _HEARS if hears else flags


def pack_vias(table: Table) -> dict[bytes, bytes]:
    """The kernel's map of via sets and their interfaces; those that lead nowhere are in NO_VIA_SET and no other."""
    via_sets = {via_set: indexes - table.nowhere for via_set, indexes in table.vias.items() if indexes} | {
        NO_VIA_SET: table.nowhere
    }
    return {VIA_KEY.pack(via_set, index): _SET for via_set, indexes in via_sets.items() for index in indexes}
