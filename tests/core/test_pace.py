# SPDX-License-Identifier: GPL-2.0-or-later
"""No event waits in a ring unseen, in whatever moment it slips past a look."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.pace import LOOKS, Pace

HEARTBEAT = 2.0
LOOK = 20e-6  # seconds that a look takes, from the flag's raising to its end


@dataclass
class Rings:
    """The flag, and what is in the two rings at a simulated time: the program's side of system/bpf/events.py."""

    now: float = 0.0
    flag: bool = False
    woken: bool = False
    waiting: list[float] = field(default_factory=list)  # when each event came
    late: list[float] = field(default_factory=list)  # how long each waited
    under_way: list[tuple[float, float]] = field(default_factory=list)  # (when it is stored, when it came)

    def arrive(self, delay: float) -> None:
        """An event comes; the program finds the flag down, if it is, and stores the event `delay` later."""
        if self.flag:
            self.flag = False
            self.woken = True
            self.waiting.append(self.now)
        else:
            self.under_way.append((self.now + delay, self.now))

    def pass_until(self, then: float) -> None:
        for stored, came in [each for each in self.under_way if each[0] <= then]:
            self.under_way.remove((stored, came))
            self.waiting.append(came)
        self.now = then

    def look(self, watched: bool) -> int:
        if watched:
            self.flag = True
        self.woken = False
        found, self.waiting = self.waiting, []
        self.late += [self.now - came for came in found]
        return len(found)


def longest_wait(arrivals: list[tuple[float, float]], until: float = 5.0) -> float:
    """How long the longest of events waits: (when it comes, how much later it is stored where it wakes nobody)."""
    pace, rings, left = Pace(), Rings(), sorted(arrivals)
    while rings.now < until:
        began = rings.now
        events = rings.look(pace.watched)
        while left and left[0][0] <= began + LOOK:  # while we look: behind our backs
            rings.pass_until(max(left[0][0], rings.now))
            rings.arrive(left.pop(0)[1])
        rings.pass_until(began + LOOK)
        wait = min(pace.looked(events, began), HEARTBEAT)
        end = rings.now + wait
        while not rings.woken and left and left[0][0] <= end:
            rings.pass_until(max(left[0][0], rings.now))
            rings.arrive(left.pop(0)[1])
        rings.pass_until(rings.now if rings.woken else end)
    assert not rings.waiting
    assert not rings.under_way
    return max(rings.late, default=0.0)


@pytest.mark.parametrize("delay", [1e-6, 50e-6, 900e-6])
@pytest.mark.parametrize("burst", [1, 2, 5, 70])
def test_the_last_event_of_a_stream_is_seen_within_two_milliseconds_whenever_it_comes(burst: int, delay: float) -> None:
    # each moment of the turns that follow a burst, by steps smaller than a look
    for step in range(400):
        after = step * LOOK / 4
        assert longest_wait([(1.0 + n * 1e-6, 1e-7) for n in range(burst)] + [(1.0 + after, delay)], 3.5) < 0.002


@given(
    st.lists(st.tuples(st.floats(0.0, 0.05), st.sampled_from([0.0, 1e-7, 1e-5, 1e-3, 0.005, 0.05])), max_size=30),
)
def test_who_is_held_up_by_d_in_the_middle_is_seen_within_ten_d(arrivals: list[tuple[float, float]]) -> None:
    held_up = max((delay for _, delay in arrivals), default=0.0)
    assert longest_wait(arrivals, 2.5) <= 10 * held_up + 0.002


def test_quiet_is_a_rest_and_not_a_poll() -> None:
    pace = Pace()
    now, looks = 0.0, 0
    while (wait := pace.looked(0, now)) < math.inf:
        now, looks = now + wait, looks + 1
    assert looks <= len(LOOKS)
    assert pace.looked(0, now) == math.inf  # whatever else wakes us


def test_a_look_that_comes_too_early_is_not_taken_for_one_that_came_late_enough() -> None:
    pace = Pace()
    assert pace.looked(1, 1.0) == pytest.approx(0.001)
    assert pace.looked(0, 1.0002) == pytest.approx(0.0008)  # woken by something else
    assert pace.looked(0, 1.0004) == pytest.approx(0.0006)
    assert pace.looked(0, 1.002) == pytest.approx(0.008)
