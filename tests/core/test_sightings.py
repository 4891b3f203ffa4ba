# SPDX-License-Identifier: GPL-2.0-or-later
"""What the lab with two edges says of a change of hands, by what was seen: no more than that shows, and no less."""

from __future__ import annotations

import pytest

from npd6_xdp.lab.sightings import Seen, Sightings, change, outages

ASKED = "2001:db8:1::f"
ONE, OTHER = "2001:db8:1::1", "2001:db8:1::2"


def sightings(*, first: float, last: float | None = None) -> Sightings:
    """`edge` answers until `last`, `second` from `first` on; a question each 10 ms."""
    seen = Sightings(questions=[number / 100 for number in range(200)])
    for at in seen.questions:
        if last is not None and at <= last:
            seen.answers.append(Seen(at + 0.001, "edge", ASKED))
        if at >= first:
            seen.answers.append(Seen(at + 0.001, "second", ASKED))
    return seen


def test_nobody_answers_from_the_first_question_that_nobody_did_until_the_successors_first_answer() -> None:
    found = change(sightings(last=0.5, first=1.3), 0.0, "second")
    assert found is not None
    assert found.silence == pytest.approx(0.791)
    assert found.both == 0.0


def test_both_answer_from_the_successors_first_answer_until_the_others_last_one() -> None:
    found = change(sightings(last=0.9, first=0.7), 0.0, "second")
    assert found is not None
    assert found.both == pytest.approx(0.2)
    assert found.silence == 0.0


def test_who_isnt_asked_for_a_while_isnt_silent_for_it() -> None:
    seen = sightings(last=0.5, first=1.3)
    seen.questions = [at for at in seen.questions if not 0.5 < at < 1.25]  # the lab itself had no processor
    found = change(seen, 0.0, "second")
    assert found is not None
    assert found.silence == pytest.approx(0.051)


def test_there_is_no_change_before_the_successor_answers_and_what_was_before_the_event_doesnt_count() -> None:
    assert change(sightings(last=1.9, first=3.0), 0.0, "second") is None
    assert change(sightings(first=0.3), 2.0, "second") is None


def test_an_address_that_both_have_and_one_that_nobody_has_are_told_apart() -> None:
    for went, shared, vacant in ((1.2, 0.2, 0.0), (0.7, 0.0, 0.3)):
        seen = sightings(last=0.7, first=1.0)
        seen.came.append(Seen(1.0, "second", "fe80::1"))
        seen.went.append(Seen(went, "edge", "fe80::1"))
        found = change(seen, 0.5, "second")
        assert found is not None
        assert (found.role, found.shared, found.vacant) == pytest.approx((0.5, shared, vacant))


def test_a_host_is_away_from_the_first_ping_that_was_lost_until_it_is_heard() -> None:
    seen = Sightings(pings=[(at, ONE) for at in (0.0, 0.5, 1.0, 1.5, 5.0)] + [(0.2, OTHER)])
    seen.echoes = [Seen(at, "edge", ONE) for at in (0.01, 1.51, 5.01)]
    assert outages(seen, 0.0) == pytest.approx({ONE: 1.01}), "nobody pinged it for 3.5 s, and the other one is away"
    assert outages(seen, 1.2) == pytest.approx({ONE: 0.01})


def test_a_host_may_be_away_until_its_turn_in_the_announcements() -> None:
    seen = sightings(first=1.0)
    for number, host in enumerate((ASKED, ONE, ASKED, OTHER)):
        seen.announcements.append(Seen(1.0 + number / 10, "second", host))
    for host in (ONE, OTHER):
        seen.pings.append((0.0, host))
        seen.echoes.append(Seen(1.25, "second", host))
    found = change(seen, 0.0, "second")
    assert found is not None
    assert found.turns == {ASKED: 1, ONE: 2, OTHER: 3}
    assert found.pace == pytest.approx(2 / 0.3)
    assert found.late([ONE, OTHER], 1.0, 10) == {ONE: 1.25}
    assert found.late([ONE, OTHER], 1.1, 10) == {}


@pytest.mark.parametrize(
    ("hosts", "said"), [(20, "20 targets announced"), (201, "201 targets announced, 2000 per second")]
)
def test_no_pace_is_said_of_so_few_that_a_burst_may_be_all_of_them(hosts: int, said: str) -> None:
    seen = sightings(first=0.1)
    seen.announcements = [Seen(1 + number / 2000, "second", f"2001:db8:1::{number:x}") for number in range(hosts)]
    found = change(seen, 0.0, "second")
    assert found is not None
    assert found.announced == said
