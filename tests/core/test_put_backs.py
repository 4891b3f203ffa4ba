# SPDX-License-Identifier: GPL-2.0-or-later
"""How soon what others remove is put back."""

from __future__ import annotations

from npd6_xdp.core.put_backs import LATER, PAUSE, SOON, PutBacks


def test_a_thing_is_put_back_at_once_then_soon_and_after_eight_times_in_a_second_with_a_pause() -> None:
    put_backs = PutBacks()
    waits = [put_backs.removed("a", number * SOON) for number in range(10)]
    assert waits == [0.0] + 7 * [SOON] + 2 * [PAUSE]
    assert put_backs.removed("b", 10 * SOON) == 0.0, "another has its own count"
    assert put_backs.removed("a", PAUSE) == 0.0, "a second later it counts anew"
    put_backs.forget("a")
    assert put_backs.removed("a", PAUSE + SOON) == 0.0


def test_what_is_removed_behind_a_link_that_refuses_is_put_back_later() -> None:
    put_backs = PutBacks()
    put_backs.tried(8, 0.0, refused=True)
    assert put_backs.removed("a", 0.1, 8) == LATER
    assert put_backs.removed("b", 0.1, 9) == 0.0
    assert put_backs.removed("a", PAUSE, 8) == 0.0, "a second later it is asked again"
    put_backs.tried(8, PAUSE, refused=True)
    put_backs.tried(8, PAUSE, refused=False)
    assert put_backs.removed("c", PAUSE, 8) == 0.0


def test_many_things_are_each_put_back_at_once_and_a_thousand_in_a_second_once_more() -> None:
    put_backs = PutBacks()
    assert {put_backs.removed(number, 0.0) for number in range(3_000)} == {0.0}
    waits = [put_backs.removed(number, 0.1) for number in range(3_000)]
    assert waits == 1_000 * [SOON] + 2_000 * [PAUSE]
    assert put_backs.removed(2_500, 0.5) == PAUSE
    assert put_backs.removed(2_500, PAUSE) == 0.0
    assert put_backs.removed(2_500, PAUSE + 0.1) == SOON
