# SPDX-License-Identifier: GPL-2.0-or-later
"""How full the tables are that [limits] bounds."""

from __future__ import annotations

import time

from npd6_xdp.core.config import Limits
from npd6_xdp.core.snapshot import TableSnapshot
from npd6_xdp.core.steps import Steps
from npd6_xdp.daemon.proxy_entries import ProxyEntries
from npd6_xdp.daemon.remembering import Remembering
from npd6_xdp.daemon.resolution import Resolution
from npd6_xdp.daemon.turns import measured

_SHARE = 100  # times the processor time that counting took until it is done again


class Tables:
    """Asks the rooms that hold them. Another thread may ask: nothing is looped over but what counting() reads."""

    def __init__(self, resolution: Resolution, proxy_entries: ProxyEntries, remembering: Remembering) -> None:
        self._resolution = resolution
        self._proxy_entries = proxy_entries
        self._remembering = remembering
        self._remembered, self._holds_until = 0, 0.0

    def counting(self) -> Steps[int]:
        """How many targets are remembered, of the kind of which there are most, counted bit by bit: 65,536 take 17 ms
        of the processor, so what was counted holds for a hundred times what that took.
        """
        if time.monotonic() >= self._holds_until:
            self._remembered, worked = yield from measured(self._remembering.counting())
            self._holds_until = time.monotonic() + _SHARE * worked
        return self._remembered

    def snapshots(self, limits: Limits, remembered: int) -> dict[str, TableSnapshot]:
        """All of them, by their keys in [limits]. What `pending` refuses are solicitations, and counted as such; what
        is remembered makes space by itself.
        """
        capacity = self._resolution.capacity
        return {
            "pending": TableSnapshot(len(self._resolution.pending), capacity[0] if capacity else limits.pending),
            "neighbours": self._neighbours(),
            "kernel_entries": self._kernel_entries(limits),
            "remembered_targets": TableSnapshot(remembered, limits.remembered_targets),
        }

    def short_of_space(self, limits: Limits) -> dict[str, tuple[int, int]]:
        """Entries and limit of those in which there is to be space: the others are full where somebody scans."""
        tables = {"neighbours": self._neighbours(), "kernel_entries": self._kernel_entries(limits)}
        return {name: (each.entries, each.limit) for name, each in tables.items()}

    @property
    def refused(self) -> dict[str, int]:
        """How many hosts and proxy entries there was no space for."""
        return {
            "neighbours": self._resolution.neighbours.refused,
            "kernel proxy entries": self._proxy_entries.refused,
        }

    def _neighbours(self) -> TableSnapshot:
        neighbours = self._resolution.neighbours
        return TableSnapshot(len(neighbours), neighbours.limit, neighbours.refused)

    def _kernel_entries(self, limits: Limits) -> TableSnapshot:
        entries = self._proxy_entries
        return TableSnapshot(len(entries), limits.kernel_entries, entries.refused)
