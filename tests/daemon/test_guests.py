# SPDX-License-Identifier: GPL-2.0-or-later
"""When containers' devices on a port are looked for: after any word of a link, ever less often, and not for ever."""

from __future__ import annotations

import pytest

from npd6_xdp.core.links import LinkFacts
from npd6_xdp.daemon import guests
from npd6_xdp.daemon.guests import Guests


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(guests, "time", clock)
    return clock


def test_after_a_word_of_a_link_guests_are_looked_for_ever_less_often_and_then_no_more(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    there: set[int] = set()
    monkeypatch.setattr(guests, "ports_with_guests", lambda: frozenset(there))
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
    monkeypatch.setattr(guests, "ports_with_guests", frozenset)
    found = Guests()
    found.expect()
    first = found.due
    clock.now += 0.05
    found.expect()
    assert found.due == first


def test_where_a_look_takes_long_there_are_fewer(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    def slowly() -> frozenset[int]:
        clock.now += 0.02  # 8,000 interfaces
        return frozenset()

    monkeypatch.setattr(guests, "ports_with_guests", slowly)
    found, looks, began = Guests(), 0, clock.now
    while clock.now - began < 60:  # links come and go all the time
        found.expect()
        assert found.due is not None
        clock.now = before = max(clock.now, found.due)
        found.tick(clock.now)
        looks += clock.now > before
    assert looks <= 31, "a hundredth of the time"
