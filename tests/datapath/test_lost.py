# SPDX-License-Identifier: GPL-2.0-or-later
"""The ring to Python when it is full, when it wraps, and when it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from npd6_xdp.core.config import Datapath
from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.icmpv6 import NeighborSolicitation
from npd6_xdp.core.verdict import Outcome
from tests.datapath.harness import XDP_DROP, Bench, entry, table
from tests.frames import SETTING
from tests.kinds import solicit

QUESTION = NeighborSolicitation.parse(solicit(SETTING))
assert isinstance(QUESTION, NeighborSolicitation)
PAGES = 16  # 64 KiB: 1,024 events of 64 bytes


@pytest.fixture
def small(one_cpu: None) -> Iterator[Bench]:
    """A program with a small ring."""
    bench = Bench(table(entry(datapath=Datapath.PYTHON)), pages=PAGES)
    yield bench
    bench.close()


def targeted(number: int) -> bytes:
    """A solicitation whose target carries its number."""
    target = SETTING.target[:8] + number.to_bytes(8, "big")
    assert isinstance(QUESTION, NeighborSolicitation)
    return replace(QUESTION, target=target).serialize()


def test_what_a_full_ring_cannot_hold_is_counted_exactly_and_the_rest_is_read_in_order(small: Bench) -> None:
    sent = 3000
    frames = [targeted(number) for number in range(sent)]
    assert {small.run(frame)[0] for frame in frames} == {XDP_DROP}
    lost = small.totals()[Outcome.LOST]
    events = small.events()
    assert lost > 0
    assert len(events) + lost == sent
    numbers = [int.from_bytes(event.target[8:], "big") for event in events]
    assert len(set(numbers)) == len(numbers), "none comes twice"
    assert set(range(PAGES * 4096 // 64 // 2)) <= set(numbers), "the oldest are kept"

    # and it goes on
    for number in range(10):
        small.run(frames[number])
    assert len(small.events()) == 10
    assert small.totals()[Outcome.LOST] == lost


def test_no_event_is_torn_or_missed_where_the_ring_wraps_or_tells_of_losses(small: Bench) -> None:
    """A full ring leaves a record of what was lost, which shifts all that follow off their stride."""
    got = number = 0
    for burst in (1000, 1500, 7, 1024, 2, 1400, 333, 900, 1100, 61) * 4:
        lost = small.totals()[Outcome.LOST]
        frames = [targeted(number) for number in range(number, number + burst)]
        for frame in frames:
            small.run(frame)
        number += burst
        kept = burst - (small.totals()[Outcome.LOST] - lost)
        targets = [event.target for event in small.events()]
        asked = {SETTING.target[:8] + number.to_bytes(8, "big") for number in range(number - burst, number)}
        assert len(targets) == len(set(targets)) == kept
        assert asked.issuperset(targets)
        got += kept
    assert small.totals()[Outcome.LOST] > 0
    assert number - small.totals()[Outcome.LOST] == got


def test_an_event_survives_packing_and_unpacking(small: Bench) -> None:
    small.run(solicit(replace(SETTING, tags=b"")))
    (event,) = small.events()
    assert NsEvent.unpack(event.pack()) == event
    assert (event.target, event.source) == (SETTING.target, SETTING.asker_link_local)
    assert event.answer_mac == SETTING.asker_mac
