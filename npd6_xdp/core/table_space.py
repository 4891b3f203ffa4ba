# SPDX-License-Identifier: GPL-2.0-or-later
"""How much space the kernel's neighbour table has, and the warning for as long as that is too little."""

from __future__ import annotations

import math

from npd6_xdp.core.config import Limits
from npd6_xdp.core.pending import capacity_for_pending

AGE = 10.0
"""Seconds for which what the kernel said of the table's size is believed."""
_FULL = 60.0  # seconds for which it counts as full after the kernel's last refusal
_NEEDED = 600.0  # seconds for which it counts as too small after the space was last used up
_USED_UP = 0.5  # of the space: one asker has no more of it (core/pending.py)
_NEAR = 0.75  # of gc_thresh2, by entries that are there
_DEFAULT = Limits().pending
_SUBJECT = "the kernel's neighbour table"
_KEYS = tuple(f"net.ipv6.neigh.default.gc_thresh{number}" for number in (1, 2, 3))


class TableSpace:
    """How many targets may be pending at once: `targets`. `limit` is limits.pending.

    With the defaults of both, the kernel's thresholds have less space than limits.pending. That alone isn't warned of,
    but only if somebody has set another limit, or if the space was nearly used up.
    """

    def __init__(self, limit: int) -> None:
        self.targets = self.limit = limit
        self._is_tight = False
        self._thresholds: tuple[int, int, int] | None = None
        self._wanted = 0  # gc_thresh2 that would do
        self._full_until = self._needed_until = self._asked_at = -math.inf

    def sized(self, limit: int, entries: int, thresholds: tuple[int, int, int] | None, now: float) -> None:
        """The kernel was asked: so many entries that aren't of pending targets, and gc_thresh1 to 3.

        None is a kernel that doesn't say; limits.pending alone holds then.
        """
        self._asked_at = now
        self.targets, self.limit = capacity_for_pending(limit, entries, thresholds), limit
        self._is_tight = thresholds is not None and self.targets < limit
        if thresholds != self._thresholds:
            self._wanted = 0
        self._thresholds = thresholds
        if thresholds is not None:
            # never less than was said before, or the warning would be another one with each host that comes and goes
            self._wanted = max(self._wanted, _wanted(entries, limit, thresholds))
            if self._is_tight and entries > _NEAR * thresholds[1]:
                self._needed_until = now + _NEEDED

    def used(self, targets: int, now: float) -> bool:
        """So many are pending, at a moment at which they are more than before; whether there is news for that."""
        if not self._is_tight or targets < _USED_UP * self.targets:
            return False
        is_news = now >= self._needed_until
        self._needed_until = now + _NEEDED
        return is_news

    def refused(self, now: float) -> None:
        """The kernel has refused to resolve a target, since its table is full."""
        self._full_until = now + _FULL

    def is_full(self, now: float) -> bool:
        """Whether it has refused somebody of late."""
        return now < self._full_until

    def is_old(self, now: float) -> bool:
        """Whether the kernel is to be asked again."""
        return now - self._asked_at > AGE

    def warns(self, now: float) -> bool:
        """Whether there is a warning that may have lost its reason."""
        return self._is_too_small(now) or self.is_full(now)

    def _is_too_small(self, now: float) -> bool:
        return self._is_tight and (self.limit != _DEFAULT or now < self._needed_until)

    def warnings(self, now: float) -> list[str]:
        """What there is to warn of."""
        lines = [f"{_SUBJECT}: it is full: {self._mend()}"] if self.is_full(now) else []
        if self._is_too_small(now) and self._thresholds is not None:
            lines.append(
                f"{_SUBJECT}: it has space for {self._thresholds[2]} entries, and quiet ones are thrown out above"
                f" {self._thresholds[1]}, so fewer than limits.pending targets are resolved at once: {self._mend()}"
            )
        return lines

    def _mend(self) -> str:
        """The command that makes space for limits.pending beside what was there."""
        if self._thresholds is None:
            return f"raise {_KEYS[2]} (and 1 and 2)"
        return _raised(self._wanted, self._thresholds)


def enlarged(entries: int, limit: int, thresholds: tuple[int, int, int]) -> str:
    """The command that makes space for `limit` pending targets beside so many entries."""
    return _raised(_wanted(entries, limit, thresholds), thresholds)


def _wanted(entries: int, limit: int, thresholds: tuple[int, int, int]) -> int:
    """The gc_thresh2 that would do."""
    return _power_of_two(max(2 * entries, entries + 2 * limit, thresholds[1] + 1))


def _raised(wanted: int, thresholds: tuple[int, int, int]) -> str:
    values = wanted // 2, wanted, 2 * wanted
    raised = [max(value, now) for value, now in zip(values, thresholds, strict=True)]
    return "sysctl -w " + " ".join(f"{key}={value}" for key, value in zip(_KEYS, raised, strict=True))


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
