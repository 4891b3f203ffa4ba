# SPDX-License-Identifier: GPL-2.0-or-later
"""Recent targets: what became of the last solicitation, and which of them are shown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.event import EventFlag, NsEvent
from npd6_xdp.core.steps import finish
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Limit, Outcome
from npd6_xdp.daemon.recent_targets import RecentTargets
from npd6_xdp.system.bpf.recent import Recent
from tests.daemon.forces import go_by, in_force
from tests.daemon.test_view import CONFIG, LINKS
from tests.frames import ip6

TARGET = ip6("2001:db8:1::42")
ASKER, MAC = ip6("2001:db8::1"), bytes.fromhex("020000000001")
SECOND = 1_000_000_000


class NsFilter:
    """A program that remembers these."""

    def __init__(self) -> None:
        self.remembered: list[Recent] = []

    def each_recent_target(self) -> Iterator[Recent]:
        return iter(self.remembered)

    def recent_target(self, entry: int, target: bytes) -> Recent | None:
        found = {(recent.entry, recent.target): recent for recent in self.remembered}
        return found.get((entry, target))


def table(collect: int) -> Table:
    return build(parse(CONFIG.replace('name = "wan0"', f'name = "wan0"\ncollect_targets = {collect}'), "test"), LINKS)


def recent(using: Table, target: bytes, last: int, outcome: Outcome) -> Recent:
    entry = using.entry_of(7)
    assert entry is not None
    return Recent(entry.id, target, last, last, 1, ASKER, MAC, outcome)


def event(time_ns: int) -> NsEvent:
    return NsEvent(TARGET, ASKER, time_ns // 1000 % (1 << 32), 0, MAC, bytes(4), EventFlag.MISS)


@pytest.mark.parametrize("began", [5 * SECOND, (1 << 32) * 1000 - 1000])  # the second: its microseconds begin anew
def test_what_python_has_found_counts_until_the_next_one_asks(began: int) -> None:
    using, ns_filter = table(10), NsFilter()
    room = RecentTargets(ns_filter)  # type: ignore[arg-type]
    go_by(room, in_force(using, LINKS))
    (rule,) = using.rules.values()
    ns_filter.remembered = [recent(using, TARGET, began, Outcome.PENDING)]
    (entry,) = {each.entry for each in ns_filter.remembered}

    def outcome() -> Outcome:
        one = room.one(entry, TARGET)
        (row,) = finish(room.all(using))
        assert one is not None
        assert one.outcome is row.outcome
        return row.outcome

    assert outcome() is Outcome.PENDING
    room.found(event(began), rule, Limit.FULL)
    assert outcome() is Outcome.RATE_LIMITED
    ns_filter.remembered = [recent(using, TARGET, began + SECOND, Outcome.PENDING)]
    assert outcome() is Outcome.PENDING, "another one has asked since"
    room.found(event(began + SECOND), rule, Outcome.ABSENT)
    assert outcome() is Outcome.ABSENT


def test_nothing_is_kept_of_an_entry_that_collects_none_and_no_more_than_there_may_be() -> None:
    using, ns_filter = table(3), NsFilter()
    room = RecentTargets(ns_filter)  # type: ignore[arg-type]
    go_by(room, in_force(using, LINKS))
    (rule,) = using.rules.values()
    for number in range(100):
        room.unsent(rule, number.to_bytes(16), number)
    assert 3 <= len(room._found) <= 4 * 3
    assert max(target for _, target in room._found) == (99).to_bytes(16)
    room.apply(in_force(table(0), LINKS))
    room.found(event(SECOND), rule, Outcome.ABSENT)
    assert not room._found


@pytest.mark.parametrize(
    ("collect", "covered", "unmatched", "shown"),
    [
        (10, 20, 20, (5, 5)),
        (10, 20, 0, (10, 0)),
        (10, 0, 20, (0, 10)),
        (10, 20, 2, (8, 2)),
        (10, 2, 20, (2, 8)),
        (3, 20, 20, (2, 1)),
        (1, 20, 20, (1, 0)),
        (1, 0, 1, (0, 1)),
    ],
)
def test_half_of_what_is_shown_is_what_rules_may_answer_if_there_is_as_much(
    collect: int, covered: int, unmatched: int, shown: tuple[int, int]
) -> None:
    using, ns_filter = table(collect), NsFilter()
    room = RecentTargets(ns_filter)  # type: ignore[arg-type]
    go_by(room, in_force(using, LINKS))
    kinds = [Outcome.ANSWERED_XDP] * covered + [Outcome.UNMATCHED] * unmatched
    ns_filter.remembered = [
        recent(using, number.to_bytes(16), (1 + number) * SECOND, outcome) for number, outcome in enumerate(kinds)
    ]
    rows = finish(room.all(using))
    outcomes = [row.outcome for row in rows]
    assert (outcomes.count(Outcome.ANSWERED_XDP), outcomes.count(Outcome.UNMATCHED)) == shown
    assert [row.last for row in rows] == sorted((row.last for row in rows), reverse=True)
