# SPDX-License-Identifier: GPL-2.0-or-later
"""Advertisements that are written side by side, to be sent together."""

from __future__ import annotations

from dataclasses import dataclass

STRIDE = 96
"""Bytes from one frame's begin to the next one's: an advertisement has 86, and at most 8 of VLAN tags."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What the advertisements of one rule under one set of VLAN tags share: the port, the size in bytes, and whether
    somebody waits to hear of them.
    """

    rule: int
    ifindex: int
    size: int
    traced: bool = False


class Frames:
    """Up to `capacity` frames: the i-th is at `buffer[i * STRIDE:]`, `shapes[i]` says how long it is and where it goes.

    `times` has the moments at which their questions were seen, as the events tell them.
    """

    __slots__ = ("buffer", "capacity", "shapes", "times")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.buffer = bytearray(capacity * STRIDE)
        self.shapes: list[Shape] = []
        self.times: list[int] = []

    def clear(self) -> None:
        """Make all of it free again."""
        self.shapes.clear()
        self.times.clear()

    def frame(self, index: int) -> bytes:
        """One frame's bytes."""
        start = index * STRIDE
        return bytes(self.buffer[start : start + self.shapes[index].size])
