# SPDX-License-Identifier: GPL-2.0-or-later
"""The structs of bpf/shared.h, which the program and Python read and write in the same bytes, field by field.

There is no other description of them in Python. tests/datapath/test_mirror.py compares each field's name, place and
size with what the compiler has made of the C text.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from npd6_xdp.core.verdict import Limit, Outcome, Reason


class Field(NamedTuple):
    """One field: its name in C, how struct packs it, and the bytes where it stands."""

    name: str
    format: str
    offset: int
    size: int


class Layout:
    """One struct: its name in C and its fields, in their order. Numbers are in the machine's order of bytes.

    A field of format "x" isn't Python's to fill: it packs as zeros, and has no value.
    """

    def __init__(self, name: str, **formats: str) -> None:
        packing = struct.Struct("=" + "".join(formats.values()))
        self.name = name
        self.format = "".join(formats.values())
        self.size = packing.size
        """Bytes."""
        self.pack = packing.pack
        self.unpack = packing.unpack
        """All values that the struct has, in the order of its fields; struct.error where the bytes aren't as many."""
        self.unpack_from = packing.unpack_from
        self.iter_unpack = packing.iter_unpack
        self.fields: dict[str, Field] = {}
        offset = 0
        for field, format_ in formats.items():
            size = struct.calcsize("=" + format_)
            self.fields[field] = Field(field, format_, offset, size)
            offset += size

    def pack_named(self, **values: Any) -> bytes:
        """The struct with these values, each by its field's name: all of them, and no other."""
        packed = self.pack(*(values.pop(field.name) for field in self.fields.values() if "x" not in field.format))
        if values:
            raise TypeError(f"struct {self.name} has no {', '.join(values)}")
        return packed

    def get(self, data: bytes, name: str) -> Any:
        """One field's value."""
        field = self.fields[name]
        return struct.unpack_from("=" + field.format, data, field.offset)[0]

    def replaced(self, data: bytes, name: str, value: Any) -> bytes:
        """The struct with another value in one field."""
        field = self.fields[name]
        packed = struct.pack("=" + field.format, value)
        return data[: field.offset] + packed + data[field.offset + field.size :]


LENGTHS = 8
"""Prefix lengths that an entry can name."""
NO_LENGTH = 255
"""The value that ends the list of lengths."""
FIRST_TAG = 1
"""Bytes that the tap leaves of a port's first frame with a tag, which needn't be a hidden one."""
_ADDRESS, _MAC = "16s", "6s"

INDEX = Layout("int", index="I")
"""The key of an array."""
FLAG = Layout("unsigned int", value="I")
"""The value of a map that is used as a set."""
BUDGET = Layout("unsigned long long", paid_until="Q")
"""The value of a map of token buckets: until when (CLOCK_MONOTONIC, nanoseconds) what was spent of it is paid for."""
PLACE = Layout("unsigned long long", place="Q")
"""Where a port's entry stands: its index in the upper half, a number of port_entries in the lower."""
WRITES = Layout("unsigned long long", writes="Q")
"""How often something was written into the maps of a table."""
ENTRY_KEY = Layout("entry_key", ifindex="I", outer="H", inner="H")
ENTRY = Layout(
    "entry",
    id="I",
    mac=_MAC,
    port_mac=_MAC,
    flags="H",
    datapath="B",
    source_flags="B",
    l3_ifindex="I",
    has_only="I",
    only_rule="12s",
    exact_filter="Q",
    only_prefix=_ADDRESS,
    only_mask=_ADDRESS,
    link_local=_ADDRESS,
    global_address=_ADDRESS,
    source_cost="Q",
    new_target_cost="Q",
    lengths=f"{LENGTHS}s",
    sampled="4x",
    collect="H",
    trie="H",
)
RULE = Layout("rule", id="I", decision="H", flags="H", via_set="I")
EXACT_KEY = Layout("exact_key", entry="I", length="I", address=_ADDRESS)
TRIE_KEY = Layout("trie_key", prefixlen="I", entry="I", address=_ADDRESS)
PREFIX_SCOPE = 32
"""Bits of a trie_key's prefixlen that are the entry's."""
ADDRESS_KEY = Layout("address_key", scope="I", zero="4x", address=_ADDRESS)
PRESENT_TARGET = Layout("present_target", flags="I", asked="I")
VIA_KEY = Layout("via_key", via_set="I", ifindex="I")
MAC_KEY = Layout("mac_key", entry="I", mac=_MAC, zero="2x")
RECENT = Layout("recent", first="Q", last="Q", count="Q", source=_ADDRESS, source_mac=_MAC, outcome="H")
HEARD = Layout("heard", entry="I", mac=_MAC, zero="2x")
SETTINGS = Layout("settings", event_cost="Q", pending_full="I", routing="I", kept_generation="I", zero="4x")
ANSWERED = Layout("answered", asked="Q", tci="4s", tag_flags="H", zero="2x")
ASKED = Layout("asked", asked="Q", tci="4s", tag_flags="H", again="H", mac=_MAC, zero="2x")
KEPT_ROUTE = Layout("kept_route", generation="I", there="I")
ENTRY_COUNTER = Layout("entry_counter", outcome=f"{len(Outcome)}Q", reason=f"{len(Reason)}Q", limit=f"{len(Limit)}Q")
RULE_COUNTER = Layout("rule_counter", outcome=f"{len(Outcome)}Q")
NS_EVENT = Layout(
    "ns_event", target=_ADDRESS, source=_ADDRESS, time_us="I", rule="I", answer_mac=_MAC, tci="4s", flags="H"
)
TRACE_FILTER = Layout(
    "trace_filter",
    target=_ADDRESS,
    target_mask=_ADDRESS,
    source=_ADDRESS,
    source_mask=_ADDRESS,
    mac=_MAC,
    by_mac="H",
    outer="H",
    inner="H",
    outcomes="I",
    by_rule="I",
    sample="I",
)
TRACE_COUNT = Layout("trace_count", sampled="Q", matched="Q", lost="Q")
TRACE_FRAME_MAX = 1536
"""Bytes that are kept of a traced frame."""
TRACE_ADVERT = 72
"""Bytes of a traced advertisement behind its tags."""
TRACE_NOTHING = 255
"""Stands in a trace record for a reason, a limit or a decision that it hasn't got."""
TRACE_RECORD = Layout(
    "trace_record",
    time="Q",
    ifindex="I",
    entry="I",
    rule="I",
    size="I",
    target=_ADDRESS,
    source=_ADDRESS,
    kept="H",
    kind="B",
    outcome="B",
    reason="B",
    limit="B",
    decision="B",
    is_answered="B",
    advert_macs="12s",
    zero="4x",
    advert=f"{TRACE_ADVERT}s",
    frame=f"{TRACE_FRAME_MAX}s",
)

MAPS: Mapping[str, tuple[Layout, Layout]] = {
    "entries": (ENTRY_KEY, ENTRY),
    "table_writes": (INDEX, WRITES),
    "port_places": (INDEX, PLACE),
    "port_entries": (INDEX, ENTRY),
    "exact_matches": (EXACT_KEY, RULE),
    "prefix_trie": (TRIE_KEY, RULE),
    "vias": (VIA_KEY, FLAG),
    "present_targets": (ADDRESS_KEY, PRESENT_TARGET),
    "refused_askers": (MAC_KEY, FLAG),
    "settings_space": (INDEX, SETTINGS),
    "source_budgets": (MAC_KEY, BUDGET),
    "event_budget": (INDEX, BUDGET),
    "target_budgets": (INDEX, BUDGET),
    "answered": (ADDRESS_KEY, ANSWERED),
    "asked_targets": (ADDRESS_KEY, ASKED),
    "recent_targets": (ADDRESS_KEY, RECENT),
    "other_targets": (ADDRESS_KEY, RECENT),
    "kept_routes": (ADDRESS_KEY, KEPT_ROUTE),
    "heard_addresses": (ADDRESS_KEY, HEARD),
    "entry_counters": (INDEX, ENTRY_COUNTER),
    "rule_counters": (INDEX, RULE_COUNTER),
    "need_wakeup": (INDEX, FLAG),
    "trace_filters": (INDEX, TRACE_FILTER),
    "trace_rules": (FLAG, FLAG),
    "trace_counts": (INDEX, TRACE_COUNT),
}
"""The program's maps that Python reads or writes, with their keys and values."""
