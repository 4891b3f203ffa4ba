# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing but stop() ends the loop, and a source that fails again and again."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.daemon.loop import FAILURES, HEARTBEAT, HELPED, PAUSE, WITHIN, Loop


class Clock:
    """Stands in for time.monotonic: each look at it takes a millisecond."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.step = 0.001

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Pipe:
    """A source that is readable for as long as its byte isn't read: by a call that fails so many times first."""

    def __init__(self, loop: Loop, where: str = "source") -> None:
        self.loop, self.where = loop, where
        self.failing = self.failed = self.read = self.renewed = 0
        self._open()

    def _open(self) -> None:
        self.reader, self.writer = os.pipe()
        self.loop.add(self.reader, self._call, self.where)

    def _call(self) -> None:
        if self.failing:
            self.failing -= 1
            self.failed += 1
            raise RuntimeError("a mistake")
        os.read(self.reader, 1)
        self.read += 1

    def renew(self) -> None:
        self.renewed += 1
        self.loop.remove(self.reader)
        self.close()
        self._open()
        self.tell()

    def tell(self) -> None:
        os.write(self.writer, b"x")

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("npd6-xdp"), "propagate", True)
    return caplog


@pytest.fixture
def pipe(loop: Loop) -> Iterator[Pipe]:
    pipe = Pipe(loop)
    loop.renew("source", pipe.renew)
    pipe.tell()
    yield pipe
    pipe.close()


def turns(loop: Loop, count: int = 10) -> None:
    for _ in range(count):
        loop.turn(0.0)


def test_a_call_that_fails_once_is_said_with_its_traceback_counted_and_called_again(
    loop: Loop, pipe: Pipe, said: pytest.LogCaptureFixture
) -> None:
    pipe.failing = 1
    turns(loop)
    assert (pipe.failed, pipe.read, pipe.renewed) == (1, 1, 0)
    assert loop.failures == {"source": 1}
    (record,) = said.records
    assert "internal error (source): RuntimeError: a mistake" in record.getMessage()
    assert record.exc_info


def test_that_it_has_not_turned_for_long_is_said_once_it_does_again(
    loop: Loop, clock: Clock, said: pytest.LogCaptureFixture
) -> None:
    turns(loop)
    clock.now += 9.0
    turns(loop)
    assert said.messages == []
    clock.now += 12.0
    turns(loop)
    assert said.messages == ["the main loop was stuck for 12 s"]


def test_what_is_raised_at_the_same_place_again_is_counted_and_not_said_again(
    loop: Loop, clock: Clock, said: pytest.LogCaptureFixture
) -> None:
    errors = []
    for _ in range(5):
        try:
            int("the same place")
        except ValueError as error:
            errors.append(error)
    for raised in errors:
        loop.failed("somewhere", raised)
    assert loop.failures == {"somewhere": 5}
    assert len(said.records) == 1
    loop.failed("elsewhere", errors[0])
    loop.failed("somewhere", TypeError("another"))
    assert len(said.records) == 3


def test_three_failures_within_a_second_open_the_source_anew_and_that_is_said(
    loop: Loop, pipe: Pipe, clock: Clock, said: pytest.LogCaptureFixture
) -> None:
    pipe.failing = FAILURES
    turns(loop)
    assert (pipe.failed, pipe.read, pipe.renewed) == (FAILURES, 1, 1)
    assert "source failed 3 times within 1 s (RuntimeError: a mistake): reopening it" in said.text


def test_failures_that_are_further_apart_leave_the_source_as_it_is(loop: Loop, pipe: Pipe, clock: Clock) -> None:
    for _ in range(3 * FAILURES):
        pipe.failing = FAILURES - 1
        turns(loop)
        pipe.tell()
        clock.now += WITHIN
    assert pipe.renewed == 0


def test_a_source_that_fails_all_the_time_ends_it_and_does_not_spin(loop: Loop, pipe: Pipe, clock: Clock) -> None:
    pipe.failing = 10**9
    with pytest.raises(MachineError, match=r"source failed 3 times .*RuntimeError: a mistake.*just been reopened"):
        turns(loop, 1000)
    assert pipe.failed == 2 * FAILURES
    assert pipe.renewed == 1


def test_a_source_that_fails_again_much_later_is_opened_anew_again(loop: Loop, pipe: Pipe, clock: Clock) -> None:
    for _ in range(3):
        pipe.failing = FAILURES
        turns(loop)
        clock.now += HELPED
        pipe.tell()
    assert pipe.renewed == 3


def test_a_source_that_cannot_be_opened_anew_ends_it_and_both_reasons_are_said(
    loop: Loop, pipe: Pipe, clock: Clock
) -> None:
    def fail() -> None:
        raise OSError("no descriptors")

    loop.renew("source", fail)
    pipe.failing = FAILURES
    with pytest.raises(MachineError, match=r"a mistake.*reopening it failed, too \(no descriptors\)"):
        turns(loop)


def test_one_that_nobody_can_open_anew_ends_it_too(loop: Loop, clock: Clock) -> None:
    pipe = Pipe(loop, "other")
    pipe.tell()
    pipe.failing = 10**9
    with pytest.raises(MachineError, match=r"other failed 3 times .* can't be reopened"):
        turns(loop, 1000)
    pipe.close()


def test_other_sources_are_served_while_one_fails(loop: Loop, pipe: Pipe, clock: Clock) -> None:
    other = Pipe(loop, "other")
    other.tell()
    pipe.failing = 2
    turns(loop, 1)
    assert other.read == 1
    other.close()


def test_a_due_call_that_fails_is_tried_again_after_a_pause_for_ever(loop: Loop, clock: Clock) -> None:
    called = []

    def call(now: float) -> None:
        called.append(now)
        raise RuntimeError("a mistake")

    healthy: list[float] = []
    due = clock.now
    loop.at(lambda: due, call, "due")
    loop.at(lambda: 0.0, healthy.append, "healthy")
    for _ in range(20):
        clock.now += PAUSE / 4
        loop.turn(0.0)
    assert 4 <= len(called) <= 6
    assert loop.failures["due"] == len(called)
    assert len(healthy) == 20


def test_it_waits_for_the_first_due_time_and_not_for_one_that_is_postponed(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: float) -> None:
        raise RuntimeError("a mistake")

    began = time.monotonic()
    loop.at(lambda: began + 0.05, lambda _: None, "first")
    loop.at(lambda: began, fail, "postponed")
    loop.turn(10.0)
    assert 0.03 < time.monotonic() - began < 5.0


class Timer:
    """Something that is due at a time that may change; how often it was asked for that."""

    def __init__(self, loop: Loop) -> None:
        self.due: float | None = None
        self.asked = self.called = 0
        loop.at(self._say, self._call, "timer")

    def _say(self) -> float | None:
        self.asked += 1
        return self.due

    def _call(self, _: float) -> None:
        self.called += 1
        self.due = None


def kept_turns(loop: Loop, count: int, wait: float = 0.0) -> None:
    for _ in range(count):
        loop.keep_due()
        loop.turn(wait)


def test_what_is_due_is_asked_once_and_every_heartbeat_as_long_as_looks_change_nothing(
    loop: Loop, clock: Clock
) -> None:
    timer = Timer(loop)
    kept_turns(loop, 1000)
    assert timer.asked == 1
    clock.now += HEARTBEAT
    kept_turns(loop, 1000)
    assert timer.asked == 2


def test_what_comes_due_is_called_though_looks_change_nothing(loop: Loop, clock: Clock) -> None:
    timer = Timer(loop)
    timer.due = clock.now + 0.5
    called = []
    for _ in range(8):
        kept_turns(loop, 100)
        called.append(timer.called)
    assert called[:4] == [0] * 4
    assert called[-1] == 1


def test_what_a_source_makes_due_is_seen_though_looks_change_nothing(loop: Loop, pipe: Pipe) -> None:
    timer = Timer(loop)

    def make_due() -> None:
        pipe.read += len(os.read(pipe.reader, 1))
        timer.due = 0.0

    loop.remove(pipe.reader)
    kept_turns(loop, 3)
    loop.add(pipe.reader, make_due, "source")
    kept_turns(loop, 2, 10.0)
    assert timer.called == 1


def test_what_a_look_makes_due_is_seen_before_the_loop_waits(loop: Loop) -> None:
    timer = Timer(loop)
    kept_turns(loop, 3)
    timer.due = 0.0  # by a look that doesn't say that it changes nothing
    began = time.monotonic()
    loop.turn(0.1)
    kept_turns(loop, 1, 0.1)
    assert timer.called == 1
    assert time.monotonic() - began < 10.0


def test_what_comes_due_with_a_source_that_is_opened_anew_is_seen_though_its_looks_change_nothing(loop: Loop) -> None:
    """The last thing that a look does may fail, too."""
    timer, looks = Timer(loop), 0

    def open_anew() -> None:
        timer.due = 0.0

    def look() -> float:
        nonlocal looks
        looks += 1
        loop.keep_due()
        if 3 < looks <= 3 + FAILURES:
            raise RuntimeError("a mistake")
        if looks > 3 + FAILURES:
            loop.stop()
        return 0.0

    loop.renew("rings", open_anew)
    loop.run(look, "rings")
    assert timer.called == 1


def test_until_its_first_turn_no_time_counts_as_silence(loop: Loop, clock: Clock) -> None:
    """However long the start takes, /healthz is asked as soon as it is ready."""
    clock.now += 60.0
    assert clock() - loop.turned < 0
    loop.turn(0.0)
    assert clock() - loop.turned < 1


def test_a_look_that_fails_counts_as_a_source(loop: Loop, clock: Clock) -> None:
    looks = []

    def look() -> float:
        looks.append(0)
        raise RuntimeError("a mistake")

    with pytest.raises(MachineError, match="rings failed 3 times"):
        loop.run(look, "rings")
    assert len(looks) == FAILURES


@pytest.mark.parametrize("where", ["look", "due", "source"])
def test_stop_ends_it_from_wherever_it_is_called(loop: Loop, where: str) -> None:
    stop: dict[str, Callable[[], object]] = {"look": lambda: None, "due": lambda: None, "source": lambda: None}
    stop[where] = loop.stop
    pipe = Pipe(loop, "other")
    pipe.tell()
    done = []

    def look() -> float:
        done.append(0)
        stop["look"]()
        return 0.0

    def read() -> None:
        pipe._call()
        stop["source"]()

    loop.remove(pipe.reader)
    loop.add(pipe.reader, read, "other")
    loop.at(lambda: 0.0, lambda _: stop["due"](), "due")
    loop.run(look, "look")
    assert len(done) == 1
    pipe.close()


def test_a_stream_keeps_nothing_waiting_that_is_due(loop: Loop, clock: Clock) -> None:
    late: list[float] = []
    due = clock.now
    clock.step = 0.0001

    def call(now: float) -> None:
        nonlocal due
        late.append(now - due)
        due = now + 0.005
        if len(late) == 20:
            loop.stop()

    loop.at(lambda: due, call, "due")
    loop.run(lambda: 0.0, "rings")  # never a moment to wait
    assert max(late) < 0.0015
