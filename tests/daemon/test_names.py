# SPDX-License-Identifier: GPL-2.0-or-later
"""What entries and rules are, told by their ids: those in force, and those before them."""

from __future__ import annotations

from typing import Any

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import UsageError
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.daemon.in_force import InForce
from npd6_xdp.daemon.names import MOST_NAMES, Names
from tests.daemon.forces import go_by, in_force

MAC = bytes.fromhex("020000000001")
LINKS = {
    "wan0": LinkFacts("wan0", 7, MAC, l3={(): 7, (100,): 9}),
    "lan0": LinkFacts("lan0", 8, MAC),
}


def force(*rules: str, before: InForce | None = None, vlan: str = "untagged") -> InForce:
    text = f'[[interface]]\nname = "wan0"\nvlan = "{vlan}"\n'
    for words in rules:
        prefix, method, *via = words.split()
        text += f'[[interface.rule]]\nprefix = "{prefix}"\nmethod = "{method}"\n'
        text += f"via = {via!r}\n" if via else ""
    written = parse(text, "test")
    table = build(written, LINKS) if before is None else build(written, LINKS, before.table)
    return in_force(table, LINKS, written)


def named(room: Names, now: InForce) -> tuple[dict[str, Any], dict[str, Any]]:
    """All entries and rules of a table, and their like in the answer."""
    answers: list[Any] = []
    question = {"verb": "names", "entries": [*now.table.entries], "rules": [*now.table.rules]}
    room.answer(question, answers.append)
    (answer,) = answers
    return answer["entries"], answer["rules"]


def test_each_entry_and_rule_in_force_is_described() -> None:
    now, room = (
        force("2001:db8:1::/64 static", "2001:db8:2::/64 neighbour lan0", "2001:db8:3::/64 neighbour x0"),
        Names(),
    )
    go_by(room, now)
    entries, described = named(room, now)
    assert {(each["label"], each["port"], each["vlan"]) for each in entries.values()} >= {("wan0", "wan0", "untagged")}
    assert {(each["prefix"], each["method"], *each["via"], each["has_via"]) for each in described.values()} == {
        ("2001:db8:1::/64", "static", False),
        ("2001:db8:2::/64", "neighbour", "lan0", True),
        ("2001:db8:3::/64", "neighbour", "x0", False),
    }


def test_those_of_the_table_before_count_and_those_before_that_are_gone() -> None:
    room, first = Names(), force("2001:db8:1::/64 static")
    second = force("2001:db8:2::/64 static", before=first)
    third = force("2001:db8:3::/64 static", before=second)
    (gone,) = first.table.rules
    go_by(room, first)
    go_by(room, second, first)
    assert named(room, first)[1][str(gone)]["prefix"] == "2001:db8:1::/64"
    go_by(room, second, second)
    assert named(room, first)[1][str(gone)] is not None, "the same once more is no other table"
    go_by(room, third, second)
    assert {rule["prefix"] for rule in named(room, second)[1].values()} == {"2001:db8:2::/64"}
    answers: list[Any] = []
    room.answer({"verb": "names", "entries": [4_000_000], "rules": [4_000_000, -1]}, answers.append)
    assert answers == [{"entries": {"4000000": None}, "rules": {"4000000": None, "-1": None}}]


@pytest.mark.parametrize(("vlan", "is_seen"), [("untagged", True), ("100", True), ("200", False), ("any", False)])
def test_whether_the_kernel_sees_an_entrys_frames_is_told(vlan: str, is_seen: bool) -> None:
    room, now = Names(), force("2001:db8:1::/64 kernel", vlan=vlan)
    go_by(room, now)
    spoken = [entry for entry in named(room, now)[0].values() if entry["spoken"]]
    assert [entry["is_seen"] for entry in spoken] == [is_seen]


@pytest.mark.parametrize("ids", [None, 1, "1", ["1"], [1.5], [True], list(range(MOST_NAMES + 1))])
def test_what_isnt_a_short_list_of_numbers_is_refused_in_one_line(ids: object) -> None:
    for key in ("entries", "rules"):
        with pytest.raises(UsageError, match=f"names: {key}: must be a list of at most 100 numbers"):
            Names().answer({"verb": "names", key: ids}, lambda _: None)
