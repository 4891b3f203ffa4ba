# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a turn is held by what can wait."""

from __future__ import annotations

import time

from npd6_xdp.core.steps import Steps, finish
from npd6_xdp.daemon.turns import HELD, SLICE, measured, take_slice


def test_steps_that_wait_for_the_kernel_take_no_more_of_a_turn_than_those_that_work() -> None:
    """They take no time of the processor."""
    done = 0

    def waiting() -> Steps[None]:
        nonlocal done
        while True:
            time.sleep(HELD / 2)
            done += 1
            yield

    assert not take_slice(waiting())
    assert done <= 2

    def working() -> Steps[None]:
        ends = time.thread_time() + 10 * SLICE
        while time.thread_time() < ends:
            yield

    began, steps = time.thread_time(), working()
    assert not take_slice(steps)
    assert time.thread_time() - began < 5 * SLICE


def test_what_steps_took_of_the_processor_is_told_and_not_that_they_waited() -> None:
    def working() -> Steps[str]:
        ends = time.thread_time() + 2 * SLICE
        while time.thread_time() < ends:
            yield
            time.sleep(SLICE)
        return "done"

    began = time.thread_time()
    result, worked = finish(measured(working()))
    assert result == "done"
    assert SLICE <= worked <= time.thread_time() - began

    def waiting() -> Steps[None]:
        time.sleep(0.2)
        yield

    steps = measured(waiting())
    next(steps)
    ends = time.thread_time() + 0.1
    while time.thread_time() < ends:  # what the loop does in between
        pass
    assert finish(steps)[1] < 0.1
