# SPDX-License-Identifier: GPL-2.0-or-later
"""Problems that are known by counting are in the log: when they come and when they are over, and not all the time."""

from __future__ import annotations

import logging

import pytest

from npd6_xdp.core.judgement import Problem, ProblemKind
from npd6_xdp.core.logged import fields_of
from npd6_xdp.core.warnings import WarningKind
from npd6_xdp.daemon.judging import ProblemLines

FULL = "limits.neighbours is nearly full: {} of 65,536 are there; raise it"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("npd6-xdp"), "propagate", True)
    caplog.set_level(logging.INFO, "npd6-xdp")
    return caplog


def full(many: str, kind: ProblemKind = ProblemKind.TABLE) -> Problem:
    return Problem(kind, FULL.format(many))


def test_a_problem_is_said_when_it_comes_and_when_it_is_over_whatever_its_numbers_are(
    said: pytest.LogCaptureFixture,
) -> None:
    lines = ProblemLines()
    for second, many in enumerate(("52,429", "60,000", "999")):
        lines.tell([full(many)], 5.0 * second)
    lines.tell([], 20.0)
    assert said.messages == [FULL.format("52,429"), f"cleared: {FULL.format('999')}"]


def test_one_that_comes_and_goes_is_said_once_a_minute(said: pytest.LogCaptureFixture) -> None:
    lines = ProblemLines()
    for second in range(0, 120, 5):
        lines.tell([full("52,429")] if second % 10 == 0 else [], float(second))
    assert len(said.messages) == 4, "it, and that it is over, twice"


def test_what_others_say_when_they_find_it_is_not_said_again(said: pytest.LogCaptureFixture) -> None:
    found = [full("1", ProblemKind.RELOAD), Problem(WarningKind.FORWARDING, "wan0: forwarding is off")]
    ProblemLines().tell([*found, Problem(ProblemKind.DETACHED, "wan0 is not attached")], 0.0)
    assert said.messages == []


def test_the_same_of_more_interfaces_is_news_and_nothing_is_over(said: pytest.LogCaptureFixture) -> None:
    lines = ProblemLines()
    texts = [f"{names}: 7 advertisements couldn't be sent" for names in ("wan0", "wan0, wan1")]
    for text in texts:
        lines.tell([Problem(ProblemKind.FAILED, text)], 0.0)
    assert said.messages == texts
    known = [fields_of(record) for record in said.records]
    assert known == [{"interface": "wan0"}, {"interfaces": ("wan0", "wan1")}]
