# SPDX-License-Identifier: GPL-2.0-or-later
"""What both sides of the kernel have to agree on: enums by name and number, structs by each field's name and place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from unittest.mock import patch

import pytest

from npd6_xdp.core import layout
from npd6_xdp.core.config import Limits
from npd6_xdp.core.entries import DATAPATHS, EntryFlag
from npd6_xdp.core.event import EVENT_SIZE, EventFlag, NsEvent
from npd6_xdp.core.links import SourceFlag
from npd6_xdp.core.routes import RoutingFlag
from npd6_xdp.core.table import NO_RULE, NO_VIA_SET, VLAN_ANY, Decision, PresentFlag, RuleFlag
from npd6_xdp.core.trace_wire import TraceKind
from npd6_xdp.core.verdict import Limit, Outcome, Reason
from npd6_xdp.system.bpf import compiler, load
from npd6_xdp.system.bpf.sizes import sizes_for
from tests.datapath.btf import Type, types_of_map
from tests.datapath.harness import entry, table

SOURCE = (compiler.BPF_DIRECTORY / "shared.h").read_text()


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


def numbered(prefix: str, names: type[Outcome] | type[Reason] | type[Limit] | tuple[str, ...]) -> dict[str, int]:
    return {f"{prefix}_{name.upper()}": number for number, name in enumerate(names)}


def valued(prefix: str, members: type[IntEnum] | type[IntFlag]) -> dict[str, int]:
    return {f"{prefix}_{name}": member.value for name, member in members.__members__.items()}


ENUMS: dict[str, dict[str, int]] = {
    "outcome": numbered("OUTCOME", Outcome),
    "reason": numbered("REASON", Reason),
    "limit": numbered("LIMIT", Limit),
    "decision": valued("DECISION", Decision),
    "rule_flag": valued("RULE", RuleFlag),
    "present_flag": valued("PRESENT", PresentFlag),
    "routing_flag": valued("ROUTING", RoutingFlag),
    "source_flag": valued("SOURCE", SourceFlag),
    "entry_flag": valued("ENTRY", EntryFlag),
    "datapath": numbered("DATAPATH", DATAPATHS),
    "trace_kind": valued("TRACE", TraceKind),
    "event_flag": {f"EVENT_{name}": int(tag) for name, tag in EventFlag.__members__.items()},
}


@pytest.mark.parametrize(("enum", "wanted"), ENUMS.items())
def test_an_enum_of_the_program_is_its_python_twin(enum: str, wanted: dict[str, int]) -> None:
    found = c_enum(enum)
    if enum == "event_flag":
        found["EVENT_COUNT"] = found.pop("EVENT_TAG_COUNT")
    assert found == wanted


def test_each_enum_that_is_shared_has_a_python_twin() -> None:
    assert set(re.findall(r"^enum (\w+) {", SOURCE, re.MULTILINE)) == ENUMS.keys()


@pytest.fixture(scope="module")
def maps() -> Iterator[dict[str, tuple[Type, Type, dict[str, Type]]]]:
    """What the compiler says of the keys and values of the program's maps, and of all its structs."""
    if os.geteuid() != 0:
        pytest.skip("loading an XDP program needs root")
    sizes = sizes_for([table(entry())], Limits())
    with patch.object(compiler, "FLAGS", (*compiler.FLAGS, "-g")):
        module, _ = compiler.compile_program(load._source(compiler.BPF_DIRECTORY), "ns_filter", sizes)
    try:
        yield {name: types_of_map(compiler.load_bcc().lib.bpf_table_fd(module.module, name.encode())) for name in NAMES}
    finally:
        module.cleanup()


NAMES = (*layout.MAPS, "last_passed", "trace_space")
STRUCTS = {each.name: each for each in vars(layout).values() if isinstance(each, layout.Layout)}
PLAIN = {"int", "unsigned int", "unsigned long long"}


@pytest.mark.parametrize("name", sorted(STRUCTS.keys() - PLAIN))
def test_a_struct_of_the_program_has_its_fields_where_python_has_them(
    maps: dict[str, tuple[Type, Type, dict[str, Type]]], name: str
) -> None:
    structs = maps["last_passed"][2] | maps["trace_space"][2]  # which hold an event, and a trace record
    fields = {field.name: (field.offset, field.size) for field in STRUCTS[name].fields.values()}
    assert structs[name].fields == fields
    assert structs[name].size == STRUCTS[name].size


@pytest.mark.parametrize("name", layout.MAPS)
def test_a_map_of_the_program_has_the_keys_and_values_that_python_packs(
    maps: dict[str, tuple[Type, Type, dict[str, Type]]], name: str
) -> None:
    for found, wanted in zip(maps[name][:2], layout.MAPS[name], strict=True):
        assert (found.name, found.size) == (wanted.name, wanted.size)


def test_python_knows_each_struct_that_is_shared_and_each_map_that_it_is_handed() -> None:
    assert set(re.findall(r"^struct (\w+) {", SOURCE, re.MULTILINE)) == STRUCTS.keys() - PLAIN
    rings = {"events", "wakeups", "trace_ring"}
    assert set(load._MAPS) == layout.MAPS.keys() | rings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLAN_ANY", VLAN_ANY),
        ("LENGTHS", layout.LENGTHS),
        ("NO_LENGTH", layout.NO_LENGTH),
        ("VIA_SET_NOWHERE", NO_VIA_SET),
        ("FIRST_TAG", layout.FIRST_TAG),
        ("NO_RULE", NO_RULE),
        ("TRACE_FRAME_MAX", layout.TRACE_FRAME_MAX),
        ("TRACE_ADVERT", layout.TRACE_ADVERT),
        ("TRACE_NOTHING", layout.TRACE_NOTHING),
        ("MAX_TAGS", layout.NS_EVENT.fields["tci"].size // 2),
    ],
)
def test_a_number_that_both_sides_use_is_the_same(name: str, value: int) -> None:
    assert [int(found, 0) for found in re.findall(rf"^#define {name} (\w+)", SOURCE, re.MULTILINE)] == [value]


def test_an_event_has_the_fields_that_python_names_in_the_size_that_the_program_asserts() -> None:
    assert NsEvent._fields == tuple(layout.NS_EVENT.fields)
    assert f"sizeof(struct ns_event) == {EVENT_SIZE}" in SOURCE
