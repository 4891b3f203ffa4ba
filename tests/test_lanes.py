# SPDX-License-Identifier: GPL-2.0-or-later
"""The order of the tests: each worker's share begins with its lane, and no test is lost or run twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.lanes import dealt


def shares(items: list[str], workers: int) -> list[list[str]]:
    """As xdist's WorkStealingScheduling.check_schedule() gives them out at first."""
    given_out = []
    for number in range(workers):
        count = len(items) // (workers - number)
        given_out.append(items[:count])
        items = items[count:]
    return given_out


def test_each_share_begins_with_its_lane_and_the_rest_fills_them_up() -> None:
    lanes = (["a1", "a2"], ["b1"], ["c1", "c2", "c3"])
    found = shares(dealt(lanes, ["r1", "r2", "r3", "r4"]), 3)
    assert found == [["a1", "a2", "r1"], ["b1", "r2", "r3"], ["c1", "c2", "c3", "r4"]]


def test_what_a_share_has_no_space_for_goes_to_the_others() -> None:
    found = shares(dealt((["a1", "a2", "a3", "a4"], [], ["c1"]), ["r1"]), 3)
    assert found == [["a1", "a2"], ["a3", "a4"], ["c1", "r1"]]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 40))
def test_none_is_lost_or_run_twice(lengths: list[int], rest: int) -> None:
    lanes = [[f"{number}-{place}" for place in range(length)] for number, length in enumerate(lengths)]
    others = [f"r{place}" for place in range(rest)]
    items = dealt(lanes, others)
    assert sorted(items) == sorted([*(each for lane in lanes for each in lane), *others])
    for lane, share in zip(lanes, shares(items, len(lanes)), strict=True):
        assert share[: len(lane)] == lane[: len(share)]
