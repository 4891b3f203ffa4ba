# SPDX-License-Identifier: GPL-2.0-or-later
"""When containers' devices on a port are looked for: after any word of a link, ever less often, and not for ever."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import Steps
from npd6_xdp.daemon import guests, turns
from npd6_xdp.daemon.guests import Guests


class Clock:
    """What passes, and in how much of that another process had the processor."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waited = 0.0

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.now - self.waited

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.waited += seconds


def looking(there: Iterable[int] = ()) -> Steps[frozenset[int]]:
    """A look that finds these."""
    yield
    return frozenset(there)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for room in (guests, turns):
        monkeypatch.setattr(room, "time", clock)
    return clock


def test_after_a_word_of_a_link_guests_are_looked_for_ever_less_often_and_then_no_more(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    there: set[int] = set()
    monkeypatch.setattr(guests, "ports_with_guests", lambda: looking(there))
    found = Guests()
    assert found.due is None
    for _ in range(2):  # a word in between starts it again
        found.expect()
        looks: list[float] = []
        while found.due is not None and len(looks) < 3:
            looks.append(round(found.due - clock.now, 3))
            clock.now = found.due
            assert not found.tick(clock.now)
        assert looks == [0.1, 0.2, 0.4]
    there.add(2)
    assert found.due is not None
    clock.now = found.due
    assert found.tick(clock.now), "one is there"
    links = {"wan0": LinkFacts("wan0", 2, bytes(6), l3={(): 2, (100,): 5}), "lan0": LinkFacts("lan0", 3, bytes(6))}
    assert {name: link.shared for name, link in found.beside(links).items()} == {
        "wan0": frozenset({(), (100,)}),
        "lan0": frozenset(),
    }
    count = 0
    while found.due is not None:
        count, clock.now = count + 1, found.due
        found.tick(clock.now)
    assert count < 5
    assert clock.now < 130


def test_words_without_end_put_no_look_off(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(guests, "ports_with_guests", looking)
    found = Guests()
    found.expect()
    first = found.due
    clock.now += 0.05
    found.expect()
    assert found.due == first


def test_where_a_look_takes_long_there_are_fewer(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    looks: list[int] = []

    def slowly() -> Steps[frozenset[int]]:
        looks.append(1)
        for _ in range(20):  # 8,000 interfaces
            clock.now += 0.001
            yield
        return frozenset()

    monkeypatch.setattr(guests, "ports_with_guests", slowly)
    found, began = Guests(), clock.now
    while clock.now - began < 60:  # links come and go all the time
        found.expect()
        assert found.due is not None
        clock.now = max(clock.now, found.due)
        found.tick(clock.now)
    assert len(looks) <= 31, "a hundredth of the time"


def test_what_another_process_has_the_processor_for_is_no_cost_of_a_look_and_ends_its_slice(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    def interrupted() -> Steps[frozenset[int]]:
        clock.wait(0.05)
        yield
        yield
        return frozenset({2})

    monkeypatch.setattr(guests, "ports_with_guests", interrupted)
    found = Guests()
    assert not found.look(), "it is under way"
    assert found.due == 0.0
    assert found.tick(clock.now)
    clock.now += 0.11
    assert not found.look()
    assert found.due == 0.0, "it is looked for again already"


def test_a_long_look_is_taken_in_slices_and_who_asks_meanwhile_begins_no_other(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Among 4,000 interfaces one takes 60 ms, and each question for somebody unknown may ask for it."""
    begun: list[int] = []

    def slowly() -> Steps[frozenset[int]]:
        begun.append(1)
        for _ in range(60):
            clock.now += 0.001
            yield
        return frozenset({2})

    monkeypatch.setattr(guests, "ports_with_guests", slowly)
    found, slices = Guests(), 1
    assert not found.look()
    while found.due is not None:
        before = clock.now
        assert not found.look()
        assert clock.now == before, "tick() goes on with it"
        slices += 1
        different = found.tick(clock.now)
        assert clock.now - before < 0.01
    assert different
    assert slices > 10
    assert begun == [1]
    assert not found.look(), "not at once again"
    at_once = Guests()
    at_once.begin()
    assert at_once.due is None
    assert at_once.beside({"wan0": LinkFacts("wan0", 2, bytes(6))})["wan0"].shared == frozenset({()})
