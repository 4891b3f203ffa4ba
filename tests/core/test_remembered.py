# SPDX-License-Identifier: GPL-2.0-or-later
"""Remembered targets on their way from one process to the next: whose they are, how many, and what isn't believed."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from npd6_xdp.core import remembered
from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.remembered import AnsweredTarget, Doubt, pack, unpack
from npd6_xdp.core.table import Table
from tests.frames import ip6

ROLE = 'active_with = "192.0.2.1"'
BUDGET = "new_targets_per_second = 100"
NOW = 1_000_000
LINKS = {
    name: LinkFacts(name, number, bytes((2, 0, 0, 0, 0, number)), l3={(): number})
    for name, number in (("wan0", 7), ("lan0", 8), ("dmz0", 9))
}


def table(*interfaces: str, before: Table | None = None) -> Table:
    """Of interfaces, each "NAME [KEY]...", with one rule."""
    rule = '[[interface.rule]]\nprefix = "2001:db8:1::/64"\nmethod = "static"\n'
    text = "".join(
        f'[[interface]]\nname = "{name}"\n{keys}\n{rule}'
        for name, _, keys in (each.partition(" ") for each in interfaces)
    )
    return build(parse(text, "test"), LINKS, before)


def one(number: int, entry: int = 0, asked: int = 1, tags: int = 0) -> AnsweredTarget:
    return AnsweredTarget(entry, ip6(f"2001:db8:1::{number:x}"), asked, bytes((0, tags, 0, 0)), tags)


def test_they_come_back_in_the_order_in_which_they_were_asked_for_also_where_entries_have_other_numbers() -> None:
    before = table(f"wan0 {ROLE}", f"lan0 {ROLE}")
    after = table("dmz0 ", f"lan0 {ROLE}", f"wan0 {ROLE}")
    (wan,) = (entry.id for entry in before.entries.values() if entry.port == "wan0" and entry.spoken)
    (lan,) = (entry.id for entry in before.entries.values() if entry.port == "lan0" and entry.spoken)
    there = {entry.port: entry.id for entry in after.entries.values() if entry.spoken}
    data = pack(before, [one(1, wan, 3), one(2, lan, 1), one(3, wan, 2)])
    assert unpack(after, data, NOW) == [one(2, there["lan0"], 1), one(3, there["wan0"], 2), one(1, there["wan0"], 3)]


def test_vlans_of_one_port_are_told_apart() -> None:
    both = table(f"wan0 vlan = 7\n{ROLE}", f"wan0 vlan = 8\n{ROLE}")
    ids = {entry.vlan.tags: entry.id for entry in both.entries.values() if entry.spoken}
    data = pack(both, [one(1, ids[7,], tags=1), one(2, ids[8,], tags=1)])
    eight = table(f"wan0 vlan = 8\n{ROLE}")
    (found,) = unpack(eight, data, NOW)
    assert found.target == one(2).target


def test_of_too_many_those_are_left_that_were_asked_for_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST", 3)
    of_one = table(f"wan0 {ROLE}")
    data = pack(of_one, [one(number, asked=number) for number in (4, 1, 5, 3, 2)])
    assert [each.asked for each in unpack(of_one, data, NOW)] == [3, 4, 5]
    assert len(pack(of_one, (one(1) for _ in range(3)))) < remembered.MOST_BYTES


def test_those_that_arent_known_to_be_there_stay_so_and_push_out_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST", 3)
    of_one = table(f"wan0 {ROLE}")
    in_vain, presumed = (
        [one(number, asked=number)._replace(doubt=doubt) for number in (7, 8)]
        for doubt in (Doubt.IN_VAIN, Doubt.SEEMS_ANSWERED)
    )
    known = [one(1, asked=1), one(2, asked=2)]
    assert unpack(of_one, pack(of_one, [*in_vain, *presumed, *known]), NOW) == [*known, presumed[-1]]
    assert unpack(of_one, pack(of_one, [*in_vain, *known]), NOW) == [*known, in_vain[-1]]


@pytest.mark.parametrize("keys", [ROLE, BUDGET, f"{ROLE}\n{BUDGET}"], ids=["role", "budget", "both"])
def test_nothing_is_left_of_an_entry_that_remembers_none_or_taken_for_one(keys: str) -> None:
    without, remembering = table("wan0 "), table(f"wan0 {keys}")
    assert unpack(remembering, pack(remembering, [one(1)]), NOW) == [one(1)]
    assert unpack(remembering, pack(without, [one(1)]), NOW) == []
    assert unpack(without, pack(remembering, [one(1)]), NOW) == []


def test_what_cant_be_is_left_out() -> None:
    of_one = table(f"wan0 {ROLE}")
    kept = [one(1), one(2, tags=2)]
    wrong = [
        one(3, asked=NOW + 1),
        one(4, tags=3),
        one(5)._replace(flags=16),
        one(5)._replace(flags=3 << 14),
        one(6, entry=99),
    ]
    assert unpack(of_one, pack(of_one, [*kept, *wrong]), NOW) == kept


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"{}", b"[1]\n", b'[["wan0"]]\n', b'[["wan0","wan0",["x"],0]]\n', b"\xff"]
)
def test_what_isnt_what_a_process_leaves_is_refused_or_nothing(data: bytes) -> None:
    of_one = table(f"wan0 {ROLE}")
    with suppress(ValueError):
        assert unpack(of_one, data, NOW) == []


def test_whatever_bytes_there_are_it_is_a_value_error_at_the_worst() -> None:
    of_one, chance = table(f"wan0 {ROLE}"), random.Random(5)  # noqa: S311
    whole = pack(of_one, [one(number) for number in range(4)])
    for length in range(len(whole)):
        assert _is_sound(of_one, whole[:length])
    for _ in range(500):
        cut = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            cut[chance.randrange(len(cut))] = chance.randrange(256)
        assert _is_sound(of_one, bytes(cut))


def _is_sound(of_one: Table, data: bytes) -> bool:
    try:
        found = unpack(of_one, data, NOW)
    except ValueError:
        return True
    return all(each.entry in of_one.entries and each.asked <= NOW for each in found)
