# SPDX-License-Identifier: GPL-2.0-or-later
"""Five minutes of samples: bounded, handed over, and what has grown within them."""

from __future__ import annotations

import json

import pytest

from npd6_xdp.core.judgement import Counted, ProblemKind
from npd6_xdp.core.samples import EVERY, MOST_BYTES, Samples
from npd6_xdp.core.verdict import Outcome

LOST = Counted(ProblemKind.LOST, "wan0", 7)


def sampled(*lost: int, since: float = 1000.0) -> Samples:
    found = Samples()
    for number, count in enumerate(lost):
        found.add(since + number * EVERY, {"answered_xdp": 10 * number}, [LOST._replace(total=count)])
    return found


def test_what_has_grown_is_told_for_five_minutes_and_what_was_there_before_never() -> None:
    assert sampled(7, 7).counted(1005.0) == []
    found = sampled(7, 9, 9)
    assert found.counted(1010.0) == [LOST._replace(total=9)]
    assert found.counted(1304.0) == [LOST._replace(total=9)]
    assert found.counted(1305.0) == []


def test_outcomes_are_those_of_the_last_five_minutes() -> None:
    found = sampled(*[0] * 200)
    now = 1000.0 + 199 * EVERY
    assert found.outcomes(now) == {"answered_xdp": 600}
    assert found.outcomes(now + 400) == {}
    assert sampled(0).outcomes(1000.0) == {}


def test_they_are_bounded_also_over_many_restarts() -> None:
    found, now = Samples(), 1000.0
    for _ in range(30):
        for _ in range(100):
            now += EVERY
            found.add(now, {str(outcome): 1 << 60 for outcome in Outcome}, [])
        data = found.pack(now)
        assert len(data) < MOST_BYTES
        assert len(json.loads(data)["runs"]) <= 2
        found = Samples()
        found.take(data)


def test_another_process_goes_on_with_a_run_of_its_own_and_old_ones_are_left_out() -> None:
    before = sampled(0, 0)
    after = Samples()
    after.take(before.pack(1005.0))
    after.add(1020.0, {"answered_xdp": 3}, [])
    assert after.values(1020.0)["runs"] == [
        [[1000.0, {}], [1005.0, {"answered_xdp": 10}]],
        [[1020.0, {"answered_xdp": 3}]],
    ]
    assert after.values(1400.0)["runs"] == []


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"runs": [[[1, 2]]]}', b'{"runs": 3}', b"\xff", b'{"runs": [1]}']
)
def test_what_is_no_sample_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="samples"):
        Samples().take(data)
    many = json.dumps({"runs": [[[float(n), {}] for n in range(600)]]}).encode()
    with pytest.raises(ValueError, match="more samples"):
        Samples().take(many)


def test_a_clock_that_is_set_back_begins_anew() -> None:
    found = sampled(0, 9)
    found.add(10.0, {"answered_xdp": 5}, [LOST._replace(total=9)])
    assert found.counted(11.0) == []
    assert found.values(11.0)["runs"] == [[[10.0, {"answered_xdp": 5}]]]
