# SPDX-License-Identifier: GPL-2.0-or-later
"""In which order xdist has the tests, so that each of its workers begins with what another must not wait for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")


def dealt(lanes: Sequence[Sequence[T]], rest: Iterable[T]) -> list[T]:
    """All items, in an order that has each lane at the beginning of one worker's share, and `rest` behind them.

    xdist's "worksteal" gives each worker as many tests as the others, one run of them after the other's; who has done
    his takes from the end of the longest that is left. What a share has no space for goes to the others'.
    """
    sizes = _shares(sum(map(len, lanes)) + len(rest := list(rest)), len(lanes))
    over = chain.from_iterable(lane[size:] for lane, size in zip(lanes, sizes, strict=True))
    others = iter([*over, *rest])
    filled = (
        [*lane[:size], *islice(others, max(0, size - len(lane)))] for lane, size in zip(lanes, sizes, strict=True)
    )
    return list(chain.from_iterable(filled))


def _shares(count: int, workers: int) -> list[int]:
    return [(count + number) // workers for number in range(workers)]
