# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said once: until it is over, is something else, is long ago, or others have taken its place."""

from __future__ import annotations

from npd6_xdp.core.said import Said


def test_the_same_about_the_same_is_said_once_and_of_others_too() -> None:
    said = Said()
    assert [said.note("wan0", 105), said.note("wan0", 105), said.note("lan0", 105)] == [True, False, True]


def test_another_reason_is_news_and_so_is_the_first_one_when_it_comes_back() -> None:
    said = Said()
    assert [said.note("wan0", code) for code in (12, 105, 105, 12)] == [True, True, False, True]


def test_once_it_was_over_it_is_news() -> None:
    said = Said()
    said.over()
    assert said.note()
    assert not said.note()
    said.over()
    assert said.note()


def test_it_is_said_again_after_its_time_counted_from_when_it_was_said() -> None:
    said = Said(again=60.0)
    assert [said.note(now=now) for now in (5.0, 30.0, 64.9, 65.0, 100.0, 125.0)] == [
        *(True, False, False),
        *(True, False, True),
    ]


def test_more_things_than_it_may_remember_push_out_what_was_asked_about_longest_ago() -> None:
    said = Said(most=3)
    assert all(said.note(about) for about in "abcd")
    assert len(said) == 3
    assert [said.note(about) for about in "dcba"] == [False, False, False, True]
    assert [about in said for about in "abcd"] == [True, True, True, False]


def test_to_ask_whether_it_was_said_says_nothing() -> None:
    said = Said(again=60.0)
    assert [said.recall("lan0", "gone", 0.0), said.note("lan0", "gone", 0.0)] == [False, True]
    assert [said.recall("lan0", what, now) for what, now in (("gone", 59.0), ("back", 59.0), ("gone", 60.0))] == [
        *(True, False, False)
    ]


def test_what_is_about_none_of_those_that_are_left_is_forgotten() -> None:
    said = Said()
    for index in (1, 2):
        said.note(index)
    said.keep({2: "lan0"})
    assert [said.note(1), said.note(2)] == [True, False]
