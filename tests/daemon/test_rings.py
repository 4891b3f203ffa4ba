# SPDX-License-Identifier: GPL-2.0-or-later
"""The rings: when so much comes in that what can wait is to leave it time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.rings import Rings
from npd6_xdp.system.bpf.events import RING_PAGES


class Answering:
    """Answers what the ring says that it has."""

    others = 0

    def answer(self, events: int) -> int:
        return events

    def count(self) -> None:
        pass


class Events:
    """A ring with so many events in it, each time."""

    pages = RING_PAGES

    def __init__(self, number: int) -> None:
        self._number = number

    def read(self, *, watched: bool) -> int:
        del watched
        return self._number

    def filenos(self) -> list[int]:
        return []


@pytest.mark.parametrize(
    ("each_look", "per_second", "busy"), [(0, 1000, False), (1, 100, False), (1, 10_000, True), (64, 100, True)]
)
def test_what_can_wait_leaves_time_to_many_events_a_second_not_to_a_single_one(
    monkeypatch: pytest.MonkeyPatch, each_look: int, per_second: int, busy: bool
) -> None:
    now = 1000.0
    clock = SimpleNamespace(monotonic=lambda: now, sleep=lambda _: None)
    monkeypatch.setattr("npd6_xdp.daemon.rings.time", clock)
    loop = Loop()
    kept = Rings(loop)
    kept.open(cast(Any, Events(each_look)))
    said = []
    for _ in range(per_second // 10):
        now += 1 / per_second
        kept.look(cast(Any, Answering()))
        said.append(kept.busy)
    loop.close()
    assert said[-1] is busy
    assert (sum(said) > len(said) / 2) is busy
