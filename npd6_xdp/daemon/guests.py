# SPDX-License-Identifier: GPL-2.0-or-later
"""Macvlan and ipvlan devices on a port whose namespaces are others': looked for when a question isn't decided at once.

Nothing announces such a device in another namespace, but that the kernel says again what it has said of the port when
one is made on it. It joins its via sets within moments then, so they are looked for some times after any such word.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import Steps
from npd6_xdp.daemon.turns import take_slice
from npd6_xdp.system.guests import ports_with_guests

_PAUSE = 0.1  # seconds at least for which what was found is believed
_SHARE = 0.01  # of a processor, at most, that goes into looking
_LAST_PAUSE = 10.0  # seconds; each is twice as long as the one before


class Guests:
    """Knows on which ports containers' devices are. Who is asked for there may be one of them."""

    def __init__(self) -> None:
        self._ports: frozenset[int] = frozenset()
        self._look_at = float("-inf")
        self._pause = _PAUSE
        self._next: float | None = None
        self._looking: Steps[None] | None = None
        self._cost = 0.0  # seconds of a processor that this look has taken so far

    @property
    def due(self) -> float | None:
        """When to call tick() (seconds, monotonic)."""
        return self._next if self._looking is None else 0.0

    def begin(self) -> None:
        """The first look, at once: nobody waits yet."""
        self.look()
        while self._looking is not None:
            self._look_on()

    def look(self) -> bool:
        """Look again, unless that was done just now; whether anything is different.

        Among thousands of interfaces that takes longer than a slice: then tick() goes on with it.
        """
        if self._looking is not None or time.monotonic() < self._look_at:
            return False
        self._looking, self._cost = self._find(), 0.0
        return self._look_on()

    def _find(self) -> Steps[None]:
        self._ports = yield from ports_with_guests()

    def _look_on(self) -> bool:
        before, began = self._ports, time.thread_time()
        looking, self._looking = self._looking, None
        if looking is not None and not take_slice(looking):
            self._looking = looking
        self._cost += time.thread_time() - began
        self._look_at = time.monotonic() + max(_PAUSE, self._cost / _SHARE)
        return before != self._ports

    def expect(self) -> None:
        """The kernel said something of a link."""
        self._pause, soon = _PAUSE, time.monotonic() + _PAUSE
        # never later than it was, or words without end would put it off for ever
        self._next = soon if self._next is None else min(self._next, soon)

    def tick(self, now: float) -> bool:
        """Look for who may have come; whether anything is different."""
        if self._looking is not None:
            return self._look_on()
        self._pause *= 2
        self._next = max(now + self._pause, self._look_at) if self._pause < _LAST_PAUSE else None
        return self.look()

    def beside(self, links: Mapping[str, LinkFacts]) -> dict[str, LinkFacts]:
        """The facts, with what is known of such devices."""
        if not self._ports:
            return dict(links)
        return {
            name: replace(link, shared=frozenset({(), *link.l3})) if link.ifindex in self._ports else link
            for name, link in links.items()
        }
