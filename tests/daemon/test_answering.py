# SPDX-License-Identifier: GPL-2.0-or-later
"""What is answered one at a time is counted once, whether it can be sent or not, and no count is ever taken back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.verdict import Method, Outcome
from npd6_xdp.daemon.answering import Answering
from npd6_xdp.daemon.counts import Counts
from tests.core.tables import config, link, rule
from tests.daemon.forces import go_by, in_force

LINKS = {"wan0": link()}
TABLE = build(config(rule("2001:db8::/32")), LINKS)
RULE = next(each for each in TABLE.rules.values() if each.method is Method.STATIC)
ENTRY = RULE.entry
ADDRESS = bytes.fromhex("20010db8000000000000000000000042")
EVENT = NsEvent(ADDRESS, ADDRESS, 0, RULE.id, bytes.fromhex("020000000002"), bytes(4), 0)

LEFT = 512  # answers that may wait to be counted


class Kernel:
    """Stands in for the ports: takes frames, or not, as it is told."""

    def __init__(self, takes: Iterator[bool]) -> None:
        self._takes = takes
        self.taken: list[bytes] = []

    def send(self, _: int, frame: bytes) -> bool:
        took = next(self._takes)
        if took:
            self.taken.append(frame)
        return took


def made(takes: Iterator[bool]) -> tuple[Answering, Counts, Kernel]:
    def fail(_: str, error: BaseException) -> None:
        raise error

    kernel, counts = Kernel(takes), Counts()
    recent: Any = SimpleNamespace(unsent=lambda *_: None)
    ports: Any = kernel
    answering = Answering(ports, counts, recent, fail)
    for room in (answering, counts):
        go_by(room, in_force(TABLE, LINKS))
    return answering, counts, kernel


@pytest.mark.parametrize("takes", [(True,), (False,), (True, True, False)], ids=["all", "none", "two of three"])
def test_each_of_those_that_come_alone_is_counted_once_as_what_became_of_it(takes: tuple[bool, ...]) -> None:
    answering, counts, kernel = made(cycle(takes))
    before = counts.entry(ENTRY)
    for number in range(1, 1501):
        assert answering.answer([EVENT.pack_record()]) == 1
        now = counts.entry(ENTRY)
        assert all(now[outcome] >= before[outcome] for outcome in Outcome)
        assert number - sum(now.values()) <= LEFT, "who scrapes meanwhile has nearly all, and no look finds a pause"
        before = now
    answering.count()
    sent = len(kernel.taken)
    found = counts.entry(ENTRY)
    assert (found[Outcome.ANSWERED_PYTHON], found[Outcome.FAILED]) == (sent, 1500 - sent)
    assert sum(answering.times.counts) == sent
    assert answering.others == 0
