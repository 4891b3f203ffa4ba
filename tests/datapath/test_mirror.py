# SPDX-License-Identifier: GPL-2.0-or-later
"""What both sides of the kernel have to agree on: enums by name and number, structs by size."""

from __future__ import annotations

import ctypes
import re
from enum import IntEnum, IntFlag

import pytest

from npd6_xdp.core.event import EVENT_SIZE, EventTags
from npd6_xdp.core.links import SlotSource
from npd6_xdp.core.routes import RoutingFlag
from npd6_xdp.core.table import DATAPATHS, Decision, KnownFlag, RuleFlag, SlotFlag
from npd6_xdp.core.verdict import Outcome, Reason
from npd6_xdp.system import datapath
from tests.datapath.harness import Bench

SOURCE = (datapath.BPF_DIRECTORY / "shared.h").read_text()


def c_enum(name: str) -> dict[str, int]:
    """The members of an enum of the C file, with their numbers."""
    body = re.search(rf"enum {name} {{(.*?)}};", SOURCE, re.DOTALL)
    assert body, name
    members: dict[str, int] = {}
    for member in re.sub(r"/\*.*?\*/", "", body[1], flags=re.DOTALL).split(","):
        if member.strip():
            label, _, value = (part.strip() for part in member.partition("="))
            members[label] = int(value) if value else len(members)
    return members


def numbered(prefix: str, names: type[Outcome] | type[Reason] | tuple[str, ...]) -> dict[str, int]:
    return {f"{prefix}_{name.upper()}": number for number, name in enumerate(names)}


def valued(prefix: str, members: type[IntEnum] | type[IntFlag]) -> dict[str, int]:
    return {f"{prefix}_{name}": member.value for name, member in members.__members__.items()}


@pytest.mark.parametrize(
    ("enum", "wanted"),
    [
        ("outcome", numbered("OUTCOME", Outcome)),
        ("reason", numbered("REASON", Reason)),
        ("decision", valued("DECISION", Decision)),
        ("rule_flag", valued("RULE", RuleFlag)),
        ("known_flag", valued("KNOWN", KnownFlag)),
        ("routing_flag", valued("ROUTING", RoutingFlag)),
        ("slot_sources", valued("SOURCE", SlotSource)),
        ("slot_flag", valued("SLOT", SlotFlag)),
        ("datapath", numbered("DATAPATH", DATAPATHS)),
        ("event_tags", {f"EVENT_{name}": int(tag) for name, tag in EventTags.__members__.items()}),
    ],
)
def test_an_enum_of_the_program_is_its_python_twin(enum: str, wanted: dict[str, int]) -> None:
    found = c_enum(enum)
    if enum == "event_tags":
        found["EVENT_COUNT"] = found.pop("EVENT_TAG_COUNT")
    assert found == wanted


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("slots", datapath._SLOT_KEY.size, datapath._SLOT.size),
        ("lines", datapath._LINE_KEY.size, datapath._RULE.size),
        ("prefixes", datapath._PREFIX_KEY.size, datapath._RULE.size),
        ("known_targets", datapath._ADDRESS_KEY.size, datapath._KNOWN.size),
        ("vias", datapath._VIA_KEY.size, len(datapath._VIA)),
        ("settings_space", 4, datapath._SETTINGS.size),
        ("crowding", datapath._SOURCE_KEY.size, len(datapath._CROWDING)),
        ("recents", datapath._ADDRESS_KEY.size, datapath._RECENT.size),
        ("kept_routes", datapath._ADDRESS_KEY.size, datapath._KEPT_ROUTE.size),
        ("entry_counters", 4, datapath._ENTRY_COUNTERS.size),
        ("rule_counters", 4, datapath._COUNTERS.size),
    ],
)
def test_a_map_of_the_program_has_keys_and_values_of_the_sizes_that_python_packs(
    bench: Bench, name: str, key: int, value: int
) -> None:
    compiled = bench.datapath.program.module[name.encode()]
    leaf = compiled.sLeaf if hasattr(compiled, "sLeaf") else compiled.Leaf
    assert (ctypes.sizeof(compiled.Key), ctypes.sizeof(leaf)) == (key, value)


def test_an_event_is_of_the_size_that_the_program_asserts() -> None:
    assert f"sizeof(struct ns_event) == {EVENT_SIZE}" in SOURCE
