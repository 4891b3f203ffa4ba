# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a change of hands between two edges may take: the lab says so, holds it, and fails where it doesn't hold."""

from __future__ import annotations

import io
import os
import re
import time

import pytest

from npd6_xdp.lab import failover
from npd6_xdp.lab.keepalived import Kind
from npd6_xdp.lab.pair import Pair, host
from npd6_xdp.lab.report import Report
from npd6_xdp.lab.sightings import Change, Seen, Sightings, change
from npd6_xdp.lab.upstream import SAMPLE, SAMPLE_EVERY, Upstream
from tests.netns.served import served_first
from tests.netns.sleeper import Sleeper

HOSTS = 8
CHAIN = 3
"""How many processes a change of hands waits for, one after the other, besides keepalived's own time: keepalived, the
daemon, who looks.
"""
A, B, ASKED = "2001:db8:1::a", "2001:db8:1::b", "2001:db8:1::f"


@pytest.mark.needs_table  # the upstream's kernel has the hosts in it
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
@pytest.mark.parametrize(
    ("kind", "method"), [("own", "route"), ("virtual", "route"), ("own", "neighbour"), ("own", "static")]
)
def test_a_change_of_hands_is_over_within_keepalives_time_and_a_tenth_of_a_second(
    kind: Kind, method: failover.Method, capsys: pytest.CaptureFixture[str]
) -> None:
    """And, where the machine serves others first, what a sleeper was late by in the same seconds."""
    allowances: list[float] = []
    with served_first(), Sleeper() as sleeper:

        def late(event: float) -> float:
            allowances.append(sleeper.worst(time.monotonic() - (time.time() - event), CHAIN))
            return allowances[-1]

        status = failover.run(HOSTS, kinds=[kind], short=True, method=method, late=late)
        told = capsys.readouterr().out
        print(told)
    assert status == int("FAILED" in told) == 0
    assert len(allowances) == 2
    for successor in ("second", "edge"):
        assert re.search(rf"ok +nobody answered until {successor} did +at most [0-9.]+ s +[0-9.]+ s\n", told)
    for allowed in allowances:
        assert re.search(rf"ok +both answered +at most {failover.ALLOWED + allowed:.2f} s +[0-9.]+ s\n", told)
    assert len(re.findall(r"ok +hosts away over [0-9.]+ s and their turn +0 +0\n", told)) == 2


def test_a_bound_that_is_missed_fails_the_lab_and_is_named_with_what_was_seen() -> None:
    out = io.StringIO()
    report = Report(out)

    def story() -> None:
        report.at_most("nobody answered", 0.1, 0.1)
        report.at_most("both answered", 0.1, 0.12)

    assert report.tell(story) == 1
    assert "  FAILED  both answered: expected at most 0.10 s, seen 0.12 s\n" in out.getvalue()
    assert "1 of 2 checks FAILED" in out.getvalue()


def seen(**lists: list[Seen] | list[float] | list[tuple[float, str]]) -> Change:
    """A change of hands from edge to second at 100, by these lists of what was seen."""
    found = change(Sightings(**lists), 100.0, "second")  # type: ignore[arg-type]
    assert found is not None
    return found


def test_nobody_answers_from_the_first_question_that_is_left_and_both_until_the_other_ones_last_answer() -> None:
    questions = [99.99 + 0.01 * number for number in range(100)]
    came = [Seen(100.5, "second", "")]
    gap = seen(
        questions=questions,
        came=came,
        answers=[Seen(100.001, "edge", ASKED), Seen(100.9, "second", ASKED)],
    )
    assert [gap.silence, gap.both, gap.role] == pytest.approx([0.89, 0.0, 0.5])
    both = seen(
        questions=questions,
        came=came,
        answers=[Seen(100.6, "second", ASKED), Seen(100.85, "edge", ASKED), Seen(100.9, "second", ASKED)],
    )
    assert [both.silence, both.both] == pytest.approx([0.0, 0.25])
    assert change(Sightings(answers=[Seen(100.1, "edge", ASKED), Seen(99.9, "second", ASKED)]), 100.0, "second") is None


def test_a_host_is_late_that_is_away_for_longer_than_is_allowed_and_its_turn() -> None:
    found = seen(
        answers=[Seen(100.9, "second", ASKED)],
        announcements=[Seen(100.95, "second", A), Seen(100.96, "second", B), Seen(100.97, "second", A)],
        pings=[(100.0, A), (100.0, B), (100.5, A), (101.2, B)],
        echoes=[Seen(101.2, "second", A), Seen(101.3, "second", B)],
    )
    assert found.outages == {A: pytest.approx(1.2), B: pytest.approx(1.3)}
    assert found.turns == {A: 1, B: 2}
    assert found.late([A, B], 1.25, 1000) == {B: pytest.approx(1.3)}
    assert found.late([A, B], 1.25, 10) == {}, "its turn is the second: 0.2 s"
    assert found.late([A, B], 1.05, 10) == {A: pytest.approx(1.2), B: pytest.approx(1.3)}
    assert found.late([A], 1.05, 10) == {A: pytest.approx(1.2)}


@pytest.mark.needs_table
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_of_many_hosts_some_are_pinged_so_often_that_a_tenth_of_a_second_shows() -> None:
    with Pair() as pair, Upstream(pair, [host(number) for number in range(500)], 0) as upstream:
        assert upstream.every == pytest.approx(0.25)
        assert len(upstream.sample) == SAMPLE
        assert [*upstream.sample][:2] == [host(0), host(10)], "of all turns"
    with Pair() as pair, Upstream(pair, [host(number) for number in range(100)], 0) as upstream:
        assert (upstream.every, upstream.sample) == (SAMPLE_EVERY, ())
