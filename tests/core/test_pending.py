# SPDX-License-Identifier: GPL-2.0-or-later
"""Who waits for which target, and how many may be pending: state machines with random steps, and plain models."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from npd6_xdp.core.event import EventFlag, NsEvent
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.pending import MAX_ASKERS, NOBODY, PENDING_SECONDS, Asker, Pending, capacity_for_pending
from tests.core.hosts import at, table


def question(asker: int, target: bytes = at(1), rule: int = 0) -> NsEvent:
    source = IPv6Address(f"fe80::{asker + 1:x}").packed
    return NsEvent(target, source, 0, rule, mac(asker), bytes(4), 0)


def mac(asker: int) -> bytes:
    """Never zero, which is no station's MAC."""
    return bytes([2, 0]) + asker.to_bytes(4)


def test_a_target_is_probed_once_behind_each_interface_however_many_ask() -> None:
    pending = Pending()
    assert pending.add(1, question(1), [9, 8], 0.0) == [Host(8, at(1)), Host(9, at(1))]
    assert pending.add(1, question(2), [8, 9], 0.0) == []
    assert pending.add(2, question(2), [8], 0.0) == [Host(8, at(1))], "another via set looks elsewhere"
    assert (len(pending), (1, at(1)) in pending, (3, at(1)) in pending) == (2, True, False)
    assert sorted(pending.targets()) == [(1, at(1)), (2, at(1))]


def test_everyone_who_asked_is_answered_once_and_by_the_last_that_they_said() -> None:
    pending = Pending()
    asked = [question(1), question(2), question(1)._replace(time_us=9), question(1, rule=5)]
    for event in asked:
        pending.add(1, event, [8], 0.0)
    assert pending.resolved(Host(9, at(1))) == [], "nobody looked there"
    assert pending.resolved(Host(8, at(2))) == []
    assert Counter(pending.resolved(Host(8, at(1)))) == Counter(asked[1:])
    assert pending.resolved(Host(8, at(1))) == []
    assert len(pending) == 0


def test_who_is_heard_for_the_first_time_and_asks_again_is_answered_once() -> None:
    pending = Pending()
    first, again = (question(1)._replace(flags=flags) for flags in (EventFlag.MISS | EventFlag.HEARD, EventFlag.MISS))
    pending.add(1, first, [8], 0.0)
    pending.add(1, again, [8], 0.0)
    assert pending.resolved(Host(8, at(1))) == [again]


def test_askers_from_different_vlans_are_different() -> None:
    pending = Pending()
    one, other = question(1)._replace(flags=1, tci=b"\0\x64\0\0"), question(1)._replace(flags=1, tci=b"\0\x65\0\0")
    pending.add(1, one, [8], 0.0)
    pending.add(1, other, [8], 0.0)
    assert pending.resolved(Host(8, at(1))) == [one, other]


def test_the_askers_of_one_target_are_bounded_and_who_is_one_too_many_is_told() -> None:
    pending = Pending()
    told = [pending.add(1, question(asker), [8], 0.0) for asker in range(MAX_ASKERS + 5)]
    assert told == [[Host(8, at(1))]] + [[]] * (MAX_ASKERS - 1) + [None] * 5
    assert pending.add(1, question(3), [8], 0.0) == [], "one of those who wait asks again"
    assert len(pending.resolved(Host(8, at(1)))) == MAX_ASKERS


def scanned(pending: Pending, capacity: int, *askers: int) -> list[int]:
    """How many targets each asker gets pending, when all of them ask for others all the time, in turn."""
    got = dict.fromkeys(askers, 0)
    for number in range(1000, 1000 + 3 * capacity):
        for asker in askers:
            if pending.has_space_for(Asker(7, mac(asker)), capacity):
                target = at(number * 100 + asker)
                assert pending.add(1, question(asker, target), [8], 0.0, entry=7) == [Host(8, target)]
                got[asker] += 1
    return list(got.values())


@pytest.mark.parametrize(
    ("capacity", "askers", "wanted"),
    [(1, 1, [1]), (2, 1, [1]), (20, 1, [10]), (250, 1, [125]), (30, 2, [10, 10]), (30, 9, [3] * 9), (4, 9, [1] * 4)],
)
def test_nobody_has_more_under_way_than_is_left_free(capacity: int, askers: int, wanted: list[int]) -> None:
    pending = Pending()
    assert scanned(pending, capacity, *range(1, askers + 1)) == wanted + [0] * (askers - len(wanted))
    refused_askers = {Asker(7, mac(asker)) for asker in range(1, len(wanted) + 1)}
    assert pending.refused_askers(capacity) == (refused_askers if len(pending) < capacity else frozenset()), (
        "where nobody has, none is refused by name"
    )
    assert pending.has_space_for(Asker(7, mac(0)), capacity) == (len(pending) < capacity), (
        "for another, while there is any"
    )
    assert pending.has_space_for(Asker(8, mac(1)), capacity) == (len(pending) < capacity), "or on another entry"


def begun(pending: Pending, capacity: int, entry: int, asker: int, number: int) -> bool:
    """Whether one more target gets pending."""
    if not pending.has_space_for(Asker(entry, mac(asker)), capacity):
        return False
    assert pending.add(1, question(asker, at(number)), [8], 0.0, entry=entry)
    return True


@pytest.mark.parametrize("capacity", [2, 3, 4, 16, 250])
@pytest.mark.parametrize("askers", [1, 2, 300])
def test_an_entry_that_scans_leaves_as_many_free_as_it_has_whoever_asks_there(capacity: int, askers: int) -> None:
    pending = Pending()
    pending.alone = False
    for number in range(4 * capacity):
        begun(pending, capacity, 7, number % askers, 1000 + number)
    assert 1 <= len(pending) <= (capacity + 1) // 2
    if askers == 300:
        assert len(pending) == (capacity + 1) // 2
        assert capacity < 3 or pending.refused_askers(capacity) == {Asker(7, NOBODY)}, (
            "all of the entry is refused, and none else"
        )
    elif capacity >= 16:
        assert pending.refused_askers(capacity) == {Asker(7, mac(asker)) for asker in range(askers)}
        assert begun(pending, capacity, 7, 999, 999), "another of the same entry finds a place"
    for number in range(100):  # hosts of another entry that are there: each found before the next is asked for
        assert begun(pending, capacity, 8, 1, number)
        pending.resolved(Host(8, at(number)))


def test_entries_that_scan_all_get_the_same_and_a_third_one_finds_its_place() -> None:
    pending = Pending()
    pending.alone = False
    for number in range(1000):
        for entry in (7, 8):
            begun(pending, 30, entry, number % 50, 1000 * entry + number)
    assert len(pending) == 20
    assert pending.refused_askers(30) == {Asker(7, NOBODY), Asker(8, NOBODY)}
    assert begun(pending, 30, 9, 1, 1)


def test_an_entry_that_is_the_only_one_leaves_nothing_to_others() -> None:
    pending = Pending()
    for number in range(100):
        begun(pending, 20, 7, number, 1000 + number)
    assert len(pending) == 20


def test_what_one_notification_costs_does_not_grow_with_what_is_under_way() -> None:
    """Counted in lines of Python, which no other process on this machine can change."""

    def lines(few: int) -> int:
        pending = Pending()
        pending.alone = False
        for number in range(few):
            pending.add(1, question(number, at(number)), [8], 0.0, entry=number % 2)
        counted = 0

        def count(_frame: object, event: str, _arg: object) -> Any:
            nonlocal counted
            counted += event == "line"
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            for number in range(10):
                pending.awaits(Host(8, at(100_000 + number)))
                pending.failed(Host(8, at(number)))
                pending.refused_askers(4 * few)
                pending.has_space_for(Asker(0, mac(1)), 4 * few)
                pending.expire(1.0)
        finally:
            sys.settrace(before)
        return counted

    assert lines(4096) == lines(64)


def test_who_wants_the_address_waits_until_its_host_is_confirmed_and_others_do_not() -> None:
    pending = Pending()
    dad = question(2)._replace(source=bytes(16))
    for event in (question(1), dad):
        pending.add(1, event, [8], 0.0)
    assert pending.resolved(Host(8, at(1)), confirmed=False) == [question(1)]
    assert pending.awaits(Host(8, at(1)))
    assert pending.resolved(Host(8, at(1)), confirmed=False) == []
    assert pending.resolved(Host(8, at(1)), confirmed=True) == [dad]
    assert len(pending) == 0
    pending.add(1, dad, [8], 0.0)
    assert pending.failed(Host(8, at(1)))
    assert (len(pending), pending.resolved(Host(8, at(1)))) == (0, [])


def test_what_has_taken_too_long_is_given_up_a_few_at_a_time() -> None:
    pending = Pending()
    for number in range(10):
        pending.add(1, question(1, at(number)), [8], float(number))
    assert pending.expire(PENDING_SECONDS + 5.0, at_most=4) is False
    assert len(pending) == 6
    assert pending.expire(PENDING_SECONDS + 5.0, at_most=4) is True
    assert [address for _, address in pending.targets()] == [at(number) for number in range(6, 10)]


def test_a_share_is_free_again_however_a_target_ends() -> None:
    def ended_by(end: Callable[[Pending], object]) -> None:
        pending = Pending()
        pending.add(1, question(1), [8], 0.0, entry=7)
        pending.add(1, question(2), [8], 0.0, entry=7)
        assert pending.refused_askers(2) == {Asker(7, mac(1))}, "who came first, not who waits along"
        end(pending)
        assert (len(pending), pending.refused_askers(1)) == (0, frozenset())
        assert pending.has_space_for(Asker(7, mac(1)), 1)

    ended_by(lambda pending: pending.resolved(Host(8, at(1))))
    ended_by(lambda pending: pending.failed(Host(8, at(1))))
    ended_by(lambda pending: pending.expire(PENDING_SECONDS))
    ended_by(lambda pending: pending.forget(table()))


def test_a_target_is_given_up_when_no_interface_is_left_to_find_it_behind() -> None:
    pending = Pending()
    pending.add(1, question(1), [8, 9], 0.0)
    assert pending.failed(Host(10, at(1))) is False
    assert pending.failed(Host(8, at(1))) is True
    assert len(pending) == 1
    assert pending.failed(Host(8, at(1))) is False
    assert pending.resolved(Host(8, at(1))) == []
    assert pending.failed(Host(9, at(1))) is True
    assert len(pending) == 0
    pending.add(1, question(1), [8, 9], 0.0)
    pending.failed(Host(8, at(1)))
    assert pending.resolved(Host(9, at(1))) == [question(1)], "the other interface still may have it"


def test_a_target_is_given_up_after_its_time() -> None:
    pending = Pending()
    pending.add(1, question(1), [8], 100.0)
    pending.add(1, question(1, at(2)), [8], 101.0)
    pending.add(1, question(2), [8], 105.0)  # who comes later waits no longer
    pending.expire(100.0 + PENDING_SECONDS - 0.1)
    assert len(pending) == 2
    pending.expire(100.0 + PENDING_SECONDS)
    assert pending.targets() == [(1, at(2))]
    assert pending.add(1, question(1), [8], 111.0) == [Host(8, at(1))], "asked for again, it is probed again"


class PendingMachine(RuleBasedStateMachine):
    """Every asker gets one answer at the most, and only for what they asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.pending = Pending()
        self.now = 0.0
        self.waiting: dict[tuple[int, bytes], tuple[set[int], float, dict[int, NsEvent]]] = {}

    @rule(
        via_set=st.integers(1, 2),
        number=st.integers(1, 3),
        asker=st.integers(0, MAX_ASKERS + 3),
        via=st.sets(st.sampled_from([8, 9]), min_size=1),
    )
    def add(self, via_set: int, number: int, asker: int, via: set[int]) -> None:
        key, event = (via_set, at(number)), question(asker, at(number))
        probes = self.pending.add(via_set, event, via, self.now)
        if key not in self.waiting:
            assert probes == [Host(ifindex, at(number)) for ifindex in sorted(via)]
            self.waiting[key] = (set(via), self.now + PENDING_SECONDS, {})
        else:
            askers = self.waiting[key][2]
            assert probes == (None if len(askers) >= MAX_ASKERS and asker not in askers else [])
        askers = self.waiting[key][2]
        if len(askers) < MAX_ASKERS or asker in askers:
            askers[asker] = event

    @rule(ifindex=st.sampled_from([8, 9]), number=st.integers(1, 3))
    def resolved(self, ifindex: int, number: int) -> None:
        expected: Counter[NsEvent] = Counter()
        for key, (via, _, askers) in tuple(self.waiting.items()):
            if key[1] == at(number) and ifindex in via:
                expected.update(askers.values())
                del self.waiting[key]
        assert Counter(self.pending.resolved(Host(ifindex, at(number)))) == expected

    @rule(ifindex=st.sampled_from([8, 9]), number=st.integers(1, 3))
    def failed(self, ifindex: int, number: int) -> None:
        concerned = [k for k, (via, _, _) in self.waiting.items() if k[1] == at(number) and ifindex in via]
        for key in concerned:
            self.waiting[key][0].discard(ifindex)
            if not self.waiting[key][0]:
                del self.waiting[key]
        assert self.pending.failed(Host(ifindex, at(number))) is bool(concerned)

    @rule(seconds=st.sampled_from([0.5, 4.0, PENDING_SECONDS]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.pending.expire(self.now)
        self.waiting = {key: each for key, each in self.waiting.items() if each[1] > self.now}

    @invariant()
    def the_same_targets_are_under_way(self) -> None:
        assert set(self.pending.targets()) == set(self.waiting)
        assert len(self.pending) == len(self.waiting)
        shares = Counter(next(iter(askers)) for _, _, askers in self.waiting.values())
        for capacity in range(len(self.waiting) + 1, 8):
            refused_askers = {asker for asker, share in shares.items() if share >= capacity - len(self.waiting)}
            assert self.pending.refused_askers(capacity) == {Asker(0, mac(asker)) for asker in refused_askers}

    @invariant()
    def what_is_awaited_is_what_is_looked_for(self) -> None:
        for ifindex in (8, 9):
            for number in (1, 2, 3):
                looked_for = any(key[1] == at(number) and ifindex in via for key, (via, *_) in self.waiting.items())
                assert self.pending.awaits(Host(ifindex, at(number))) is looked_for


TestPending = pytest.mark.large(PendingMachine.TestCase)


TestPending.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


CAPACITIES = (
    ("the kernel doesn't say", 512, 0, None, 512),
    ("plenty of space", 512, 100, (1024, 16384, 32768), 512),
    ("half of what is free below gc_thresh2", 512, 100, (128, 512, 1024), 206),
    ("less than half of little", 512, 500, (128, 512, 1024), 16),
    ("more entries than gc_thresh2", 512, 600, (128, 512, 1024), 16),
)


@pytest.mark.parametrize(
    ("what", "limit", "entries", "thresholds", "capacity"), CAPACITIES, ids=[r[0] for r in CAPACITIES]
)
def test_what_is_under_way_leaves_the_kernels_table_space(
    what: str, limit: int, entries: int, thresholds: tuple[int, int, int] | None, capacity: int
) -> None:
    assert capacity_for_pending(limit, entries, thresholds) == capacity


@given(st.integers(16, 65536), st.integers(0, 100000), st.tuples(*[st.integers(0, 100000)] * 3))
def test_the_space_is_never_more_than_the_limit(limit: int, entries: int, thresholds: tuple[int, int, int]) -> None:
    assert 16 <= capacity_for_pending(limit, entries, thresholds) <= limit
