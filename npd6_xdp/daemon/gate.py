# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour`: whom the XDP program refuses by itself, since there is no space for more of theirs."""

from __future__ import annotations

import time

from npd6_xdp.core.pending import Pending
from npd6_xdp.core.table_space import TableSpace
from npd6_xdp.system.bpf.ns_filter import NsFilter

_REFUSED_PAUSE = 10  # times the processor time that it took to say who is refused, before it is said anew


class Gate:
    """Tells the XDP program whose unknown targets it is to refuse. Python would refuse them, too, at a higher price.

    For the program a pending target is unknown as well, so it also refuses those who ask for one that is pending
    already. Those Python would remember. `space` says how many may be pending.
    """

    def __init__(self, ns_filter: NsFilter, pending: Pending, space: TableSpace) -> None:
        self._ns_filter = ns_filter
        self._pending = pending
        self._space = space
        self._not_before = 0.0
        self._waits = False

    @property
    def due(self) -> float | None:
        """When to call follow() again (seconds, monotonic); None: all is said."""
        return self._not_before if self._waits else None

    def follow(self) -> None:
        """Targets have begun or ended, or there is more space or less."""
        self._ns_filter.set_pending_full(len(self._pending) >= self._space.targets)
        self._waits = time.monotonic() < self._not_before
        if not self._waits:
            began = time.thread_time()
            self._ns_filter.refuse_askers(self._pending.refused_askers(self._space.targets))
            self._not_before = time.monotonic() + _REFUSED_PAUSE * (time.thread_time() - began)
