# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel's neighbour table has room for, and what there is to warn of for as long as that is little."""

from __future__ import annotations

import math

from npd6_xdp.core.neighbours import room_for_pending

AGE = 10.0
"""Seconds for which what the kernel said of the table's size is believed."""
_FULL = 60.0  # seconds for which it counts as full after the kernel's last refusal
_SUBJECT = "the kernel's neighbour table"
_RAISE = "raise net.ipv6.neigh.default.gc_thresh"


class TableRoom:
    """How many targets may be under way at once: `targets`. `limit` is limits.pending."""

    def __init__(self, limit: int) -> None:
        self.targets = limit
        self._tight = ""
        self._full_until = self._asked_at = -math.inf

    def sized(self, limit: int, entries: int, thresholds: tuple[int, int, int] | None, now: float) -> None:
        """The kernel was asked: so many entries that aren't of targets under way, and gc_thresh1 to 3.

        None is a kernel that doesn't say; limits.pending alone holds then.
        """
        self._asked_at = now
        self.targets = room_for_pending(limit, entries, thresholds)
        self._tight = ""
        if thresholds is not None and self.targets < limit:
            self._tight = (
                f"{_SUBJECT}: it has room for {thresholds[2]} entries, and quiet ones are thrown out above"
                f" {thresholds[1]}, so fewer than limits.pending targets are resolved at once; {_RAISE}1, 2 and 3"
            )

    def refused(self, now: float) -> None:
        """The kernel resolves nobody more, since its table is full."""
        self._full_until = now + _FULL

    def is_full(self, now: float) -> bool:
        """Whether it has refused somebody of late."""
        return now < self._full_until

    def is_old(self, now: float) -> bool:
        """Whether the kernel is to be asked again."""
        return now - self._asked_at > AGE

    def warns(self, now: float) -> bool:
        """Whether there is a warning that may have lost its reason."""
        return bool(self._tight) or self.is_full(now)

    def warnings(self, now: float) -> list[str]:
        """What there is to warn of."""
        full = [f"{_SUBJECT}: it is full; {_RAISE}3 (and 1 and 2)"] if self.is_full(now) else []
        return full + ([self._tight] if self._tight else [])
