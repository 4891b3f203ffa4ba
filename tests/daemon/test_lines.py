# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines about interfaces: each its own while they are few, one for all where they are many."""

from __future__ import annotations

import logging

import pytest

from npd6_xdp.daemon.lines import MOST_LINES, Lines, some


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
