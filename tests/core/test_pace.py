# SPDX-License-Identifier: GPL-2.0-or-later
"""No event waits in a ring unseen, in whatever moment it slips past a look."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.pace import LATER, Pace

HEARTBEAT = 2.0
LOOK = 20e-6  # seconds that a look takes, from the flag's raising to its end


@dataclass(order=True)
class Event:
    """One on its way, as the program has it: it stores it, and reads the flag `held_up` later (below 0: before that,
    where its fence is none), and wakes us `held_up` after that.
    """

    stored: float
    held_up: float


@dataclass
class Rings:
    """The flag, and what is in the rings at a simulated time: the program's side of system/bpf/events.py."""

    now: float = 0.0
    flag: bool = False
    woken: bool = False
    waiting: list[float] = field(default_factory=list)  # when each was stored
    late: list[float] = field(default_factory=list)  # how long each waited
    steps: list[tuple[float, int, Event]] = field(default_factory=list)  # what the program is still to do, and when

    def begin(self, event: Event) -> None:
        reads = event.stored + event.held_up
        self.steps += [(event.stored, 0, event), (reads, 1, event)]
        self.steps.sort()

    def pass_until(self, then: float, *, woken_ends: bool = False) -> None:
        """Let time pass, until we are woken if `woken_ends`."""
        while self.steps and self.steps[0][0] <= then and not (woken_ends and self.woken):
            at, step, event = self.steps.pop(0)
            self.now = max(self.now, at)
            if step == 0:
                self.waiting.append(self.now)
            elif step == 1 and self.flag:
                self.flag = False
                self.steps.append((self.now + abs(event.held_up), 2, event))
                self.steps.sort()
            elif step == 2:
                self.woken = True
        if not (woken_ends and self.woken):
            self.now = then

    def look(self, watched: bool) -> int:
        if watched:
            self.flag = True
        self.woken = False
        found, self.waiting = self.waiting, []
        self.late += [self.now - stored for stored in found]
        return len(found)


def longest_wait(events: list[Event], until: float = 5.0) -> float:
    """How long the longest of these waits in the ring."""
    pace, rings = Pace(), Rings()
    for event in events:
        rings.begin(event)
    while rings.now < until:
        began = rings.now
        found = rings.look(pace.watched)
        rings.pass_until(began + LOOK)  # while we look: behind our backs
        wait = min(pace.looked(found, began), HEARTBEAT)
        if not rings.woken:
            rings.pass_until(rings.now + wait, woken_ends=True)
    assert not rings.waiting
    return max(rings.late, default=0.0)


@pytest.mark.parametrize("held_up", [1e-7, 50e-6, 900e-6])
@pytest.mark.parametrize("burst", [1, 2, 5, 70])
def test_the_last_event_of_a_stream_is_seen_at_once_whenever_it_comes(burst: int, held_up: float) -> None:
    # each moment of the turns that follow a burst, by steps smaller than a look
    for step in range(400):
        last = Event(1.0 + step * LOOK / 4, held_up)
        assert longest_wait([*(Event(1.0 + n * 1e-6, 1e-7) for n in range(burst)), last], 3.5) < 2 * held_up + 3 * LOOK


@given(st.lists(st.builds(Event, st.floats(0.0, 0.05), st.sampled_from([0.0, 1e-7, 1e-5, 1e-3, 0.05])), max_size=30))
def test_nobody_waits_longer_than_who_is_to_wake_us_is_held_up(events: list[Event]) -> None:
    assert longest_wait(events, 2.5) <= 2 * max((event.held_up for event in events), default=0.0) + 3 * LOOK


def test_where_the_fence_is_none_the_later_look_finds_what_woke_nobody() -> None:
    waits = [longest_wait([Event(1.0, 1e-5), Event(1.0 + step * 1e-6, -1e-5)], 3.5) for step in range(-10, 60)]
    assert 0.009 < max(waits) < 0.011


def test_quiet_is_a_rest_and_not_a_poll() -> None:
    pace = Pace()
    assert pace.looked(1, 1.0) == LATER
    assert pace.looked(0, 1.0 + LATER) == math.inf
    assert pace.looked(0, 1.5) == math.inf  # whatever else wakes us


def test_the_first_rest_after_a_stream_is_behind_a_look_that_has_raised_the_flag() -> None:
    pace = Pace()
    for events in (5, 2):
        assert pace.looked(events, 1.0) == 0.0
        assert not pace.watched
    assert pace.looked(1, 1.1) == 0.0
    assert pace.watched
    assert pace.looked(0, 1.2) == LATER


def test_a_look_that_comes_too_early_is_not_taken_for_the_later_one() -> None:
    pace = Pace()
    assert pace.looked(1, 1.0) == LATER
    assert pace.looked(0, 1.004) == pytest.approx(LATER - 0.004)  # woken by something else
    assert pace.looked(0, 1.011) == math.inf
