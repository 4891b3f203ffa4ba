# SPDX-License-Identifier: GPL-2.0-or-later
"""Records and verdicts become lines in whatever order they come, and what is kept for that is bounded."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.trace_joined import (
    MOST_WAITING,
    WAITS_FOR_ANSWER,
    WAITS_FOR_RECORD,
    WAITS_FOR_VERDICT,
    Joined,
)
from npd6_xdp.core.trace_wire import Record, TraceKind, Verdict
from npd6_xdp.core.verdict import Limit, Outcome

ANSWER = b"an advertisement"


def record(number: int, kind: TraceKind = TraceKind.HANDED_UP, outcome: Outcome = Outcome.PENDING) -> Record:
    target = number.to_bytes(16)
    frame = b"" if kind is TraceKind.FOUND else b"frame %d" % number
    return Record(number * 1000, 1, 2, 3, 90, target, bytes(16), kind, outcome, None, None, None, None, frame)


def verdict(number: int, outcome: Outcome = Outcome.ANSWERED_PYTHON, *, late: bool = False, rule: int = 3) -> Verdict:
    answered = outcome is Outcome.ANSWERED_PYTHON
    key = record(number).key._replace(rule=rule)
    return Verdict(
        key, outcome, Limit.FULL if outcome is Outcome.RATE_LIMITED else None, (answered and ANSWER) or None, late
    )


def test_either_may_come_first() -> None:
    joined = Joined()
    joined.see(record(1), 0)
    joined.hear(verdict(2), 0)
    assert joined.take(0) == []
    joined.hear(verdict(1), 0)
    joined.see(record(2), 0)
    lines = joined.take(0)
    assert [(line.frame, line.outcome, line.by) for line in lines] == [
        (b"frame 1", Outcome.ANSWERED_PYTHON, "python"),
        (b"frame 2", Outcome.ANSWERED_PYTHON, "python"),
    ]
    assert (joined.seen, joined.lost, joined.undecided) == (2, 0, 0)


def test_a_limit_is_the_verdicts_and_nobody_has_answered() -> None:
    joined = Joined()
    joined.see(record(1), 0)
    joined.hear(verdict(1, Outcome.RATE_LIMITED), 0)
    ((line),) = joined.take(0)
    assert (line.limit, line.by, line.advertisement) == (Limit.FULL, None, None)


def test_two_of_one_moment_on_two_ports_are_told_apart_by_their_rules() -> None:
    joined = Joined()
    joined.see(record(1), 0)
    joined.see(record(1)._replace(rule=4, ifindex=9), 0)
    joined.hear(verdict(1, rule=4), 0)
    assert [line.ifindex for line in joined.take(0)] == [9]


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_a_late_answer_follows_its_question_in_whatever_order_the_three_come(order: tuple[int, ...]) -> None:
    """The kernel may find a host in less time than whoever reads takes from one source to the other."""
    joined = Joined()
    words = (
        lambda: joined.see(record(1), 0),
        lambda: joined.hear(verdict(1, Outcome.PENDING), 0),
        lambda: joined.hear(verdict(1, late=True, rule=77), 0),
    )
    for number in order:
        words[number]()
    first, late = joined.take(0)
    assert (first.outcome, first.late, first.by) == (Outcome.PENDING, False, None)
    assert (late.outcome, late.late, late.by, late.frame) == (Outcome.ANSWERED_PYTHON, True, "python", first.frame)
    assert (joined.seen, joined.lost) == (1, 0)
    joined.see(record(1), 1)
    joined.hear(verdict(1, Outcome.PENDING), 1)
    assert len(joined.take(1)) == 1, "it was the one answer to the one question"


def test_a_late_answer_has_its_questions_frame_also_by_another_rule_since() -> None:
    joined = Joined()
    joined.see(record(1), 0)
    joined.hear(verdict(1, Outcome.PENDING), 0)
    joined.hear(verdict(1, late=True, rule=77), WAITS_FOR_ANSWER - 1)
    first, late = joined.take(WAITS_FOR_ANSWER - 1)
    assert (first.outcome, first.late) == (Outcome.PENDING, False)
    assert (late.outcome, late.late, late.frame, late.advertisement) == (
        first.outcome.ANSWERED_PYTHON,
        True,
        first.frame,
        ANSWER,
    )
    assert joined.seen == 1, "it is the same solicitation"
    joined.hear(verdict(5, late=True), 0)
    assert (joined.take(0), joined.lost) == ([], 0), "of one whose question wasn't seen nothing can be told"


def test_what_was_held_waits_for_what_was_found() -> None:
    joined = Joined()
    joined.see(record(1, TraceKind.HELD), 0)
    joined.see(record(1, TraceKind.FOUND, Outcome.MONITORED), 0)
    joined.see(record(2, TraceKind.FOUND, Outcome.MONITORED), 0)
    assert [(line.frame, line.outcome) for line in joined.take(0)] == [(b"frame 1", Outcome.MONITORED)]
    assert (joined.seen, joined.lost) == (1, 1), "of the other, the frame was lost"


def test_a_verdict_alone_is_lost_and_a_record_alone_is_nobodys_after_a_while() -> None:
    joined = Joined()
    joined.hear(verdict(1), 0)
    joined.see(record(2), 0)
    joined.take(WAITS_FOR_RECORD - 0.1)
    assert (joined.lost, joined.undecided) == (0, 0)
    joined.take(WAITS_FOR_RECORD)
    assert (joined.lost, joined.undecided) == (1, 0)
    joined.take(WAITS_FOR_VERDICT)
    assert (joined.lost, joined.undecided) == (1, 1)
    joined.hear(verdict(2), WAITS_FOR_VERDICT)
    assert joined.finish(WAITS_FOR_VERDICT) == []
    assert (joined.seen, joined.lost) == (0, 2)


def test_nothing_is_given_up_before_all_that_has_come_was_read() -> None:
    joined, late = Joined(), 10 * WAITS_FOR_ANSWER
    joined.hear(verdict(1), 0)
    joined.see(record(2), 0)
    assert joined.take(late, is_all=False) == []
    joined.see(record(1), late)
    joined.hear(verdict(2), late)
    assert len(joined.take(late)) == 2
    assert (joined.seen, joined.lost, joined.undecided) == (2, 0, 0)


def test_what_is_kept_is_bounded() -> None:
    joined, many = Joined(), 3 * MOST_WAITING
    for number in range(many):
        joined.see(record(number), 0)
        joined.hear(verdict(many + number), 0)
    for shelf in (joined._undecided, joined._alone):
        assert len(shelf._waiting) == MOST_WAITING
    joined.take(0)
    assert joined.lost == joined.undecided == many - MOST_WAITING


events = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["record", "verdict", "held", "found", "decided", "time"])),
    max_size=60,
)


@given(events)
def test_all_that_was_counted_is_seen_or_lost_in_whatever_order_it_comes(came: list[tuple[int, str]]) -> None:
    joined, counted, now, lines = Joined(), 0, 0.0, 0
    for number, what in came:
        if what == "record":
            joined.see(record(number), now)
        elif what == "held":
            joined.see(record(number, TraceKind.HELD), now)
        elif what == "time":
            now += number / 2
            lines += len(joined.take(now))
        else:
            counted += 1
            if what == "verdict":
                joined.hear(verdict(number), now)
            else:
                joined.see(record(number, TraceKind[what.upper()], Outcome.DAD), now)
    lines += len(joined.finish(now))
    assert joined.seen == lines
    assert joined.seen + joined.lost == counted
