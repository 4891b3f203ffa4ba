# SPDX-License-Identifier: GPL-2.0-or-later
"""Which targets the other edge seems to have answered (docs/rules.md, J3): by whether who asked had to ask again."""

from __future__ import annotations

import pytest

from npd6_xdp.core.presumed import ANEW, OVER, SETTLED, AskedTarget, Presumed
from npd6_xdp.core.remembered import AnsweredTarget, Doubt

SECOND = 1_000_000_000
STANDBY, ACTIVE = frozenset({1}), frozenset[int]()


def asked(number: int, at: int = 0, entry: int = 1) -> AnsweredTarget:
    return AnsweredTarget(entry, number.to_bytes(16), at, bytes(4), 0)


def once(number: int, at: int = 0, entry: int = 1) -> AskedTarget:
    return AskedTarget(asked(number, at, entry), again=0)


def likely(number: int, entry: int = 1) -> AnsweredTarget:
    return asked(number, 0, entry)._replace(doubt=Doubt.SEEMS_ANSWERED)


def in_vain(number: int, at: int = 0) -> AskedTarget:
    return AskedTarget(asked(number, at), again=2)


def numbers(presumed: Presumed, doubt: Doubt | None = None) -> list[int]:
    return [int.from_bytes(each.target) for each in presumed if doubt in (None, each.doubt)]


@pytest.mark.parametrize("again", [0, 1])
def test_one_that_isnt_asked_for_a_third_time_is_presumed_once_it_would_have_been(again: int) -> None:
    presumed, one = Presumed(10), once(1)._replace(again=again)
    assert presumed.sort([one], STANDBY, SETTLED - 1) == ([], [])
    assert presumed.sort([one], STANDBY, SETTLED) == ([], [asked(1)])
    assert [*presumed] == [asked(1)._replace(doubt=Doubt.SEEMS_ANSWERED)]


def test_one_that_is_asked_for_in_vain_is_kept_apart_but_not_before_the_last_question() -> None:
    """Else that one would seem to be the first."""
    presumed, at = Presumed(10), 2 * SECOND
    presumed.sort([once(1)], STANDBY, SETTLED)
    assert presumed.sort([in_vain(1, at)], STANDBY, at + OVER - 1) == ([], [])
    assert presumed.sort([in_vain(1, at)], STANDBY, at + OVER) == ([], [asked(1, at)])
    assert [*presumed] == [asked(1, at)._replace(doubt=Doubt.IN_VAIN)]


def test_a_scan_of_one_kind_pushes_out_none_of_the_other() -> None:
    presumed = Presumed(3)
    presumed.sort([once(number) for number in range(3)], STANDBY, SETTLED)
    presumed.sort([in_vain(number) for number in range(10, 20)], STANDBY, OVER)
    assert (numbers(presumed, Doubt.SEEMS_ANSWERED), numbers(presumed, Doubt.IN_VAIN)) == ([0, 1, 2], [17, 18, 19])
    assert presumed.fullest == 3
    presumed.sort([once(number) for number in range(20, 30)], STANDBY, SETTLED)
    assert numbers(presumed, Doubt.IN_VAIN) == [17, 18, 19]


def test_one_that_is_asked_for_anew_much_later_is_as_good_as_known() -> None:
    presumed = Presumed(10)
    presumed.sort([once(1), once(2)], STANDBY, SETTLED)
    anew, soon = once(1, ANEW), once(2, ANEW - 1)
    assert presumed.sort([anew, soon], STANDBY, ANEW + SETTLED) == ([anew.target], [anew.target, soon.target])
    assert numbers(presumed) == [2]


def test_where_this_edge_answers_nothing_is_presumed() -> None:
    presumed = Presumed(10)
    assert presumed.sort([once(1)], ACTIVE, OVER - 1) == ([], [])
    assert presumed.sort([once(1)], ACTIVE, OVER) == ([], [asked(1)])
    assert numbers(presumed) == []


def test_of_too_many_those_are_kept_that_were_asked_for_last() -> None:
    presumed = Presumed(3)
    presumed.sort([once(number) for number in range(5)], STANDBY, SETTLED)
    assert numbers(presumed) == [2, 3, 4]
    presumed.sort([once(2, SECOND)], STANDBY, SETTLED + SECOND)
    presumed.take([likely(9)])
    assert numbers(presumed) == [4, 2, 9]


def test_what_is_known_by_now_and_other_entries_are_presumed_no_more() -> None:
    presumed = Presumed(10)
    presumed.take([likely(1), likely(2), likely(3, entry=2)])
    popped = presumed.pop(1, asked(1).target)
    assert popped == likely(1)
    assert presumed.pop(1, asked(1).target) is None
    presumed.keep({2})
    assert numbers(presumed) == [3]
