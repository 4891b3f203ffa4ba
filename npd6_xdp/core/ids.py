# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers that stay: what was in the table before keeps its own, what is new gets one that nobody has."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from itertools import count
from typing import Generic, TypeVar

Key = TypeVar("Key")


class Ids(Generic[Key]):
    """Numbers for keys: those of before, and fresh ones that nothing before had, and nothing of another table has."""

    def __init__(self, before: Mapping[Key, int], other: Mapping[Key, int], first: int = 0) -> None:
        self._ids = dict(before)
        self._fresh = fresh({*before.values(), *other.values()}, (), first)

    def __getitem__(self, key: Key) -> int:
        if key not in self._ids:
            self._ids[key] = next(self._fresh)
        return self._ids[key]


def fresh(taken: Container[int], other: Container[int], first: int = 0) -> Iterator[int]:
    """Numbers that aren't taken, the lowest first."""
    return (number for number in count(first) if number not in taken and number not in other)
