# SPDX-License-Identifier: GPL-2.0-or-later
"""J4 and J5 of docs/rules.md: which target is announced when, how often, and in which bytes."""

from __future__ import annotations

from collections import Counter, defaultdict
from ipaddress import IPv6Address
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npd6_xdp.core.announcements import (
    APART,
    MOST_MISSED,
    MOST_SOUGHT,
    MOST_TIMES,
    PATIENCE,
    Announced,
    Announcements,
    Fate,
)
from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.event import UNSPECIFIED, EventFlag, NsEvent
from npd6_xdp.core.icmpv6 import ALL_NODES, ALL_NODES_MAC, AdvertisementTemplate, NeighborAdvertisement
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.remembered import Doubt
from npd6_xdp.core.responder import Responder

EPSILON = 1e-6


def target(number: int) -> Announced:
    return Announced(number.to_bytes(16))


class Wire:
    """What was announced, when; `unknown` ones have to be looked for, of which those `there` are found."""

    def __init__(self, rate: int = 1000) -> None:
        self.rate = rate
        self.now = 100.0
        self.said: list[tuple[float, int, int]] = []
        self.unknown: set[int] = set()
        self.left_out: set[int] = set()
        self.there: set[int] = set()
        self.sought: list[int] = []
        self.space = 1 << 30
        self.announcements = Announcements(self.say, self.seek)

    def say(self, entry: int, one: Announced) -> Fate:
        number = int.from_bytes(one.target)
        if number in self.left_out:
            return Fate.LEFT_OUT
        if number in self.unknown:
            return Fate.UNKNOWN
        self.said.append((self.now, entry, number))
        return Fate.SAID

    def seek(self, entry: int, one: Announced) -> bool:
        if self.space <= 0:
            return False
        self.space -= 1
        self.sought.append(int.from_bytes(one.target))
        return True

    def begin(self, entry: int, numbers: range, doubt: Doubt = Doubt.NONE) -> None:
        self.announcements.begin(entry, (target(number)._replace(doubt=doubt) for number in numbers))

    def run(self, seconds: float = 1e9, late: float = 0.0) -> None:
        """Let time pass, as the loop does: it calls when something is due, or so many seconds later."""
        end = self.now + seconds
        for _ in range(1_000_000):
            due = self.announcements.due
            if due is None or due > end:
                break
            self.now = max(self.now, due + late)
            self.announcements.go_on(self.now, self.rate)
            for number in [number for number in self.sought if number in self.there & self.unknown]:
                self.unknown.discard(number)
                self.announcements.found(1, number.to_bytes(16))
        else:
            raise AssertionError("it never ends")
        self.now = max(self.now, min(end, self.now + 1e6))

    def times(self) -> dict[tuple[int, int], list[float]]:
        found: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
        for now, entry, number in self.said:
            found[entry, number].append(now)
        return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 120), min_size=1, max_size=5),
    st.integers(1, 2000),
    st.sets(st.integers(0, 120), max_size=20),
)
def test_each_is_announced_three_times_a_second_apart_and_no_faster_than_the_pace(
    counts: list[int], rate: int, left_out: set[int]
) -> None:
    wire = Wire(rate)
    wire.left_out = left_out
    for entry, count in enumerate(counts):
        wire.begin(entry, range(count))
    wire.run()
    assert len(wire.announcements) == 0
    assert wire.announcements.due is None
    found = wire.times()
    assert found.keys() == {(entry, n) for entry, count in enumerate(counts) for n in range(count)} - {
        (entry, n) for entry in range(len(counts)) for n in left_out
    }
    for times in found.values():
        assert len(times) == MOST_TIMES
        assert all(later - earlier >= APART - EPSILON for earlier, later in pairwise(times))
    moments = sorted(now for now, _, _ in wire.said)
    for first in range(0, len(moments), 7):  # any stretch of time: as many as it pays for, and what a tick lets through
        for last in range(first, len(moments), 11):
            assert last - first <= (moments[last] - moments[first] + 0.02) * rate + 2


@pytest.mark.parametrize("late", [0.0, 0.003, 0.03, 0.08])
def test_the_pace_is_kept_up_also_where_the_loop_comes_late(late: float) -> None:
    wire = Wire(1000)
    wire.begin(1, range(500))
    wire.run(0.7, late)
    assert len(wire.said) == 500
    assert wire.said[-1][0] - wire.said[0][0] == pytest.approx(0.5, abs=0.03 + late)


def test_what_was_not_sent_while_nothing_was_to_be_isnt_made_up_for() -> None:
    wire = Wire(1000)
    for _ in range(3):
        wire.begin(1, range(50))
        wire.run(0.04)
        wire.run(1e9)
        wire.begin(2, range(200))
        before = len(wire.said)
        wire.run(0.005)
        assert len(wire.said) - before <= 12
        wire.run(1e9)


def test_a_daemon_that_stood_still_makes_up_for_a_tenth_of_a_second() -> None:
    wire = Wire(1000)
    wire.begin(1, range(1000))
    wire.run(0.1)
    before = len(wire.said)
    wire.run(0.02, late=5.0)
    assert len(wire.said) - before <= 101


def test_all_are_announced_once_in_their_order_before_any_is_again() -> None:
    wire = Wire(100)
    wire.begin(1, range(400))  # which takes four seconds
    wire.run()
    assert [number for _, _, number in wire.said[:400]] == list(range(400))
    assert [number for _, _, number in wire.said] == [*range(400)] * 3


def test_entries_take_turns() -> None:
    wire = Wire()
    wire.begin(1, range(100))
    wire.begin(2, range(3))
    wire.run(0.9)
    assert [entry for _, entry, _ in wire.said[:8]] == [1, 2, 1, 2, 1, 2, 1, 1]


def test_it_ends_at_once_and_what_else_is_under_way_goes_on() -> None:
    wire = Wire()
    wire.unknown = {5}
    for entry in (1, 2):
        wire.begin(entry, range(300))
    wire.run(0.1)
    wire.announcements.end(1)
    before = Counter(entry for _, entry, _ in wire.said)
    wire.run()
    after = Counter(entry for _, entry, _ in wire.said)
    assert (after[1], after[2]) == (before[1], 3 * 299)
    assert len(wire.announcements) == 0
    wire.announcements.end(1)


def test_who_has_to_be_looked_for_is_announced_once_found_and_others_dont_wait_for_that() -> None:
    wire = Wire()
    wire.unknown, wire.there = set(range(0, 40, 2)), set(range(0, 20, 2))
    wire.begin(1, range(40))
    wire.run()
    counts = Counter(number for _, _, number in wire.said)
    assert counts == dict.fromkeys([*range(1, 40, 2), *range(0, 20, 2)], MOST_TIMES)
    assert wire.said[0][2] == 1
    assert len(wire.announcements) == 0, "those that aren't there are left out in the end"


def test_only_so_many_are_looked_for_at_once_the_first_ones_first() -> None:
    wire = Wire()
    wire.unknown = set(range(3 * MOST_SOUGHT))
    wire.begin(1, range(3 * MOST_SOUGHT))
    wire.run(PATIENCE / 2)
    assert wire.sought == list(range(MOST_SOUGHT))
    wire.run(PATIENCE)
    assert wire.sought == list(range(2 * MOST_SOUGHT))
    wire.run()
    assert wire.sought == list(range(3 * MOST_SOUGHT))
    assert (wire.said, len(wire.announcements)) == ([], 0)


def test_where_there_is_no_space_to_look_it_is_tried_again() -> None:
    wire = Wire()
    wire.unknown, wire.there, wire.space = {0, 1, 2}, {0, 1, 2}, 1
    wire.begin(1, range(3))
    wire.run(0.5)
    assert [number for _, _, number in wire.said] == [0]
    wire.space = 10
    wire.run()
    assert Counter(number for _, _, number in wire.said) == {0: 3, 1: 3, 2: 3}


def test_what_nobody_looks_for_is_no_matter() -> None:
    wire = Wire()
    wire.announcements.found(1, bytes(16))
    wire.begin(1, range(0))
    assert (wire.announcements.due, len(wire.announcements)) == (None, 0)


def test_a_target_that_is_looked_for_already_ends_no_turn_late() -> None:
    """Twice in one turn, or in two: else a turn would wait for it for ever."""
    wire = Wire()
    wire.unknown = {1}
    wire.announcements.begin(1, [target(1), target(1), target(2)])
    wire.run(0.3)
    wire.begin(1, range(1, 2))
    wire.run()
    assert (len(wire.announcements), wire.announcements.due) == (0, None)
    assert Counter(number for _, _, number in wire.said) == {2: MOST_TIMES}


def test_many_of_one_kind_that_arent_there_dont_keep_others_from_being_looked_for() -> None:
    wire = Wire(100_000)
    wire.unknown, wire.there = set(range(5_000)), set(range(3_000, 3_010))
    scan = (target(number)._replace(doubt=Doubt.SEEMS_ANSWERED) for number in range(3_000))
    wire.announcements.begin(
        1, [*scan, *(target(number)._replace(doubt=Doubt.IN_VAIN) for number in range(3_000, 3_010))]
    )
    wire.run()
    assert {number for _, _, number in wire.said} == wire.there


def test_after_many_that_arent_there_no_more_are_looked_for_unless_they_were_there_once() -> None:
    wire = Wire(100_000)
    wire.unknown = set(range(MOST_MISSED + 5_000))
    for doubt in (Doubt.SEEMS_ANSWERED, Doubt.IN_VAIN):
        wire.begin(1, range(MOST_MISSED + 5_000), doubt)
        wire.run()
        assert MOST_MISSED <= len(wire.sought) < MOST_MISSED + MOST_SOUGHT
        assert len(wire.announcements) == 0
        wire.sought.clear()
    wire.begin(1, range(MOST_MISSED + 500))
    wire.run()
    assert len(wire.sought) == MOST_MISSED + 500
    assert len(wire.announcements) == 0


MACS = st.binary(min_size=6, max_size=6)
ADDRESSES = st.binary(min_size=16, max_size=16)


@given(MACS, ADDRESSES, ADDRESSES, st.booleans(), st.sampled_from([b"", b"\x81\x00\x00\x64"]))
def test_the_bytes_are_those_of_rfc_4861(mac: bytes, source: bytes, own: bytes, router: bool, tags: bytes) -> None:
    """§7.2.6: to all nodes, Solicited 0, Override 1, with the target link-layer address."""
    frame = AdvertisementTemplate(mac, tags, router=router).unsolicited(source, own)
    wanted = NeighborAdvertisement(
        ALL_NODES_MAC, mac, tags, source, ALL_NODES, own, router, solicited=False, link_layer_address=mac, override=True
    )
    assert NeighborAdvertisement.parse(frame) == wanted
    assert frame == wanted.serialize()


@pytest.mark.parametrize(("na_source", "source"), [("target", "2001:db8:1::9"), ("interface", "fe80::1")])
def test_an_announcement_is_of_the_rule_and_the_tags_that_the_target_was_asked_with(
    na_source: str, source: str
) -> None:
    text = f"""
    [[interface]]
    name = "wan0"
    vlan = "any"
    na_source = "{na_source}"
    [[interface.rule]]
    prefix = "2001:db8:1::/64"
    method = "static"
    router = false
    """
    own = OwnAddress(IPv6Address("fe80::1")), OwnAddress(IPv6Address("2001:db8::1"))
    table = build(parse(text, "test"), {"wan0": LinkFacts("wan0", 2, bytes(5) + b"\2", addresses={(): own})})
    rule = table.rules[max(table.rules)].id  # of the frames of no VLAN that this machine has a device for
    flags = EventFlag(1) | EventFlag.OUTER_8021AD
    asked = NsEvent(
        IPv6Address("2001:db8:1::9").packed, UNSPECIFIED, 0, rule, ALL_NODES_MAC, b"\x20\x64\0\0", int(flags)
    )
    assert asked.is_ours
    answer = Responder(table).announcement(asked)
    found = NeighborAdvertisement.parse(answer.frame)
    assert (answer.ifindex, found.tags, found.router) == (2, b"\x88\xa8\x20\x64", False)
    assert (IPv6Address(found.source), IPv6Address(found.target)) == (IPv6Address(source), IPv6Address("2001:db8:1::9"))
