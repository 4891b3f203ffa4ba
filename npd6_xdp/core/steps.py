# SPDX-License-Identifier: GPL-2.0-or-later
"""Work that is done bit by bit, so that the loop can do what is more urgent in between."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Each next() is a bit, of a few milliseconds at most, and at the end there is a result: `yield from` has it."""

_BIT = 512  # items of which something simple is made
_RUN = 2048  # items that are sorted at once


def finish(steps: Steps[T], went_on: Callable[[], object] = lambda: None) -> T:
    """Do all of it at once: the result. `went_on` is told of each bit; what it raises ends the work after that one."""
    with closing(steps):
        while True:
            try:
                next(steps)
            except StopIteration as done:
                result: T = done.value
                return result
            went_on()


def pieces(items: Iterable[T], size: int = _BIT) -> Iterator[list[T]]:
    """So many items at a time."""
    each = iter(items)
    while piece := list(islice(each, size)):
        yield piece


def weighed(items: Iterable[T], weight: Callable[[T], int], most: int = _BIT) -> Iterator[list[T]]:
    """As pieces(), of items each of which counts for as many as its weight says: those that have long lists, say."""
    some: list[T] = []
    left = most
    for item in items:
        some.append(item)
        left -= weight(item)
        if left <= 0:
            yield some
            some, left = [], most
    if some:
        yield some


def listed(items: Iterable[T]) -> Steps[list[T]]:
    """All items of an iterator in a list, bit by bit."""
    found: list[T] = []
    for piece in pieces(items):
        found += piece
        yield
    return found


def emptied(items: list[Any]) -> Steps[None]:
    """Let go of what is in a list, bit by bit: that of 100,000 rows takes 30 ms at once."""
    while items:
        del items[-_BIT:]
        yield


def _itself(item: T) -> Any:
    return item


def in_order(items: Iterable[T], key: Callable[[T], Any] | None = None, *, reverse: bool = False) -> Steps[list[T]]:
    """As sorted()."""
    runs = []
    for run in pieces(items, _RUN):
        runs.append(sorted(run, key=key or _itself, reverse=reverse))
        yield
    if len(runs) == 1:
        return runs[0]
    return (yield from listed(heapq.merge(*runs, key=key or _itself, reverse=reverse)))
