# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines about interfaces: each its own while they are few, one for all where they are many, few of what repeats."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from npd6_xdp.daemon import lines as lines_module
from npd6_xdp.daemon.lines import MOST_LINES, MOST_TIMES, WINDOW, Damper, Lines, Once, some


def said(log: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(record.levelno, record.getMessage()) for record in log.records]


def test_few_interfaces_get_a_line_each_in_their_order_and_many_get_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "npd6-xdp")
    lines = Lines()
    for number in range(MOST_LINES):
        lines.add(logging.INFO, f"few{number}", f"attached; few{number}:100", "attached")
    for number in range(4000):
        lines.add_line(logging.ERROR, f"sub{number}: no room: trying again")
    lines.say()
    *few, many = said(caplog)
    assert few == [(logging.INFO, f"few{number}: attached; few{number}:100") for number in range(MOST_LINES)]
    assert many == (logging.ERROR, "sub0, sub1, sub2 and 3,997 more: no room: trying again")
    caplog.clear()
    lines.say()
    assert said(caplog) == [], "each once"


def test_what_differs_in_more_than_the_name_is_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines()
    for number in range(2 * MOST_LINES):
        lines.add(logging.WARNING, f"sub{number}", "is ill" if number % 2 else "is lost")
        lines.add(logging.ERROR, f"sub{number}", "is ill")
    lines.say()
    assert said(caplog) == [
        (logging.WARNING, f"sub{n}: is {'ill' if n % 2 else 'lost'}") for n in (*range(0, 20, 2),)
    ] + [(logging.ERROR, "sub0, sub1, sub2 and 17 more: is ill")] + [
        (logging.WARNING, f"sub{n}: is ill") for n in range(1, 20, 2)
    ]


def test_names_are_all_said_where_they_are_few() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some([]) == ""
    assert some([*"abcdefghijk"]) == "a, b, c and 8 more"


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(lines_module, "time", SimpleNamespace(monotonic=found.monotonic))
    return found


def flap(damper: Damper, clock: Clock, times: int, names: tuple[str, ...] = ("wan0",)) -> None:
    """Each of them goes and comes once a second."""
    lines = Lines(damper)
    for _ in range(times):
        clock.now += 1
        for text in ("down", "up"):
            for name in names:
                lines.add(logging.INFO, name, text)
            lines.say()
        if damper.due is not None and damper.due <= clock.now:
            damper.settle(clock.now)


def test_a_link_that_flaps_all_the_time_has_a_few_lines_and_then_one_a_minute_of_which_the_last_is_how_it_is(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    caplog.set_level(logging.INFO, "npd6-xdp")
    damper = Damper()
    flap(damper, clock, 600)
    assert len(said(caplog)) <= 2 * (MOST_TIMES + 600 / WINDOW + 1)
    Lines(damper).say()
    lines = Lines(damper)
    lines.add(logging.INFO, "wan0", "down")
    lines.add(logging.INFO, "lan0", "down")
    caplog.clear()
    lines.say()
    assert said(caplog) == [(logging.INFO, "lan0: down")], "another one's are its own"
    assert damper.due is not None
    assert damper.due <= clock.now + WINDOW
    clock.now += WINDOW
    damper.settle(clock.now)
    up, down = (text for _, text in said(caplog)[1:])
    assert up.startswith("wan0: up (")
    assert down.startswith("wan0: down (")
    assert down.endswith(" times more within a minute)")
    assert damper.due is None


def test_what_was_calm_for_a_minute_is_said_at_once_again(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    caplog.set_level(logging.INFO, "npd6-xdp")
    damper = Damper()
    for _ in range(3):
        caplog.clear()
        flap(damper, clock, MOST_TIMES)
        assert len(said(caplog)) == 2 * MOST_TIMES
        clock.now += WINDOW


def test_nothing_grows_with_names_that_flap(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    damper = Damper()
    for number in range(5000):
        lines = Lines(damper)
        lines.add(logging.INFO, f"tap{number}", "the interface has appeared")
        lines.say()
    assert len(damper._damped) <= 4096


def test_a_warning_is_said_once_and_of_a_kind_that_others_give_reason_for_a_few_an_hour(
    caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    once = Once()
    for number in range(100_000):
        once.warn(f"wan0: {number:012x} asks for what is asked for elsewhere", kind="other proxies 7")
        once.warn("lan0: it is tired")
        once.warn("lan0: it is tired, and differs", about="tired")
        once.warn("lan0: it is tired, and differs again", about="tired")
    lines = [text for _, text in said(caplog)]
    assert len(lines) == 8 + 2
    assert sum(text.endswith("(more like this are not said within an hour)") for text in lines) == 1
    clock.now += 3600
    once.warn("wan0: x asks for what is asked for elsewhere", kind="other proxies 7")
    once.warn("lan0: it is tired")
    assert [text for _, text in said(caplog)][10:] == ["wan0: x asks for what is asked for elsewhere"]
    for number in range(1000):
        once.warn(f"line {number}", kind=f"kind {number}")
    assert len(once._said) <= 256
    assert len(once._kinds) <= 256
