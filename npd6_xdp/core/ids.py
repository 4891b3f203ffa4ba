# SPDX-License-Identifier: GPL-2.0-or-later
"""Stable numbers: what was in the table before keeps its number, and what is new gets an unused one."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from itertools import count
from typing import Generic, TypeVar

Key = TypeVar("Key")


class Ids(Generic[Key]):
    """Numbers for keys: known keys keep theirs; a new key gets one that neither the table before nor the other one
    uses.
    """

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
