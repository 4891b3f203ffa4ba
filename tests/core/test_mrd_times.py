# SPDX-License-Identifier: GPL-2.0-or-later
"""When a multicast router is announced (RFC 4286 §3): at first and at intervals (I3), and when somebody asks (I5)."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.mrd import INTERVAL
from npd6_xdp.core.mrd_times import (
    INITIAL,
    JITTER,
    LEAST_BETWEEN,
    MOST_INITIAL_WAIT,
    MOST_RESPONSE_DELAY,
    RETRY,
    Times,
)


def drawn(*numbers: float) -> Times[str]:
    """Times that draw these numbers in turn, and the last one again and again."""
    left = [*numbers]
    return Times(lambda: left.pop(0) if len(left) > 1 else left[0])


def sent_until(times: Times[str], end: float, now: float = 0.0) -> list[float]:
    """When a segment is announced until then, if each is sent at once."""
    found = []
    while (due := times.due) is not None and due <= end:
        now = max(now, due)
        for segment in times.take(now, 8):
            times.sent(segment, now)
            found.append(now)
    return found


def test_i3_the_first_three_come_soon_one_after_another_and_then_one_comes_each_20_seconds() -> None:
    times = drawn(0.5)
    times.begin("wan0", 100.0)
    assert sent_until(times, 170.0, 100.0) == [101.0, 102.0, 103.0, 123.0, 143.0, 163.0]


@given(chance=st.randoms(), segments=st.integers(1, 5))
def test_i3_each_waits_a_random_time_within_its_bounds(chance: Random, segments: int) -> None:
    times: Times[int] = Times(chance.random)
    for segment in range(segments):
        times.begin(segment, 0.0)
    when: dict[int, list[float]] = {segment: [0.0] for segment in range(segments)}
    while (due := times.due) is not None and due < 200.0:
        for segment in times.take(due, 8):
            when[segment].append(due)
            times.sent(segment, due)
    for each in when.values():
        waits = [later - before for before, later in pairwise(each)]
        assert all(0.0 <= wait <= MOST_INITIAL_WAIT for wait in waits[:INITIAL])
        assert all(abs(wait - INTERVAL) <= JITTER + 1e-9 for wait in waits[INITIAL:])
        assert len(waits) > INITIAL + 5


def test_i5_who_asks_is_answered_after_a_random_time_and_the_interval_begins_anew() -> None:
    times = drawn(0.5)
    times.begin("wan0", 0.0)
    sent_until(times, 10.0)  # 1, 2, 3
    times.solicited("wan0", 10.0)
    assert sent_until(times, 40.0, 10.0) == [11.0, 31.0]


def test_i5_while_an_answer_is_due_another_question_changes_nothing() -> None:
    times = drawn(0.5, 0.5, 0.5, 0.5, 0.9, 0.1)
    times.begin("wan0", 0.0)
    sent_until(times, 10.0)
    times.solicited("wan0", 10.0)
    times.solicited("wan0", 10.1)  # would draw 0.1
    assert times.due == 11.8


def test_i5_one_that_comes_before_is_the_answer() -> None:
    times = drawn(0.5, 0.5, 0.5, 0.5, 0.9)
    times.begin("wan0", 0.0)
    sent_until(times, 10.0)  # the next one at 23.0
    times.solicited("wan0", 22.5)
    assert times.due == 23.0


@given(chance=st.randoms(), asked=st.lists(st.floats(0.0, 60.0), max_size=300))
def test_i5_however_many_ask_no_answer_comes_within_a_second_of_the_one_before_nor_late(
    chance: Random, asked: list[float]
) -> None:
    times: Times[str] = Times(chance.random)
    times.begin("wan0", 0.0)
    sent: list[float] = []
    for moment in sorted(asked):
        sent += sent_until(times, moment)
        times.solicited("wan0", moment)
        due = times.due
        assert due is not None
        assert due <= moment + MOST_RESPONSE_DELAY
    sent += sent_until(times, 100.0)
    assert all(later - before >= LEAST_BETWEEN - 1e-9 for before, later in pairwise(sent[INITIAL - 1 :]))


def test_one_that_could_not_be_sent_is_tried_again_and_isnt_counted_among_the_first() -> None:
    times = drawn(0.5)
    times.begin("wan0", 0.0)
    assert times.take(1.0, 8) == ["wan0"]
    assert times.due == 1.0 + RETRY
    assert sent_until(times, 30.0) == [2.0, 3.0, 4.0, 24.0]


def test_what_has_ended_is_due_no_more_and_what_begins_anew_begins_at_the_beginning() -> None:
    times = drawn(0.5)
    times.begin("wan0", 0.0)
    times.end("wan0")
    assert times.due is None
    assert times.take(5.0, 8) == []
    times.solicited("wan0", 5.0)
    assert times.due is None
    times.begin("wan0", 5.0)
    sent_until(times, 30.0)
    times.begin("wan0", 30.0)
    assert sent_until(times, 60.0, 30.0) == [31.0, 32.0, 33.0, 53.0]


def test_many_are_taken_so_many_at_a_time_and_each_once() -> None:
    times: Times[int] = Times(lambda: 0.5)
    for segment in range(100):
        times.begin(segment, 0.0)
    first, second = times.take(5.0, 64), times.take(5.0, 64)
    assert (len(first), len(second)) == (64, 36)
    assert {*first, *second} == {*range(100)}


def test_what_comes_and_goes_for_days_leaves_nothing_behind() -> None:
    times = drawn(0.3)
    for number in range(10_000):
        times.begin("wan0", number / 1000)
        times.solicited("wan0", number / 1000)
    assert len(times) == 1
    assert len(times._queue) < 100
