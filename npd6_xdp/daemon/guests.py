# SPDX-License-Identifier: GPL-2.0-or-later
"""Others on a port whom netlink doesn't tell of: looked for when a question there isn't decided at once.

Nothing announces such a device in another namespace, but that the kernel says again what it has said of the port when
one is made on it. It joins its via sets within moments then, so they are looked for some times after any such word.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from npd6_xdp.core.links import LinkFacts
from npd6_xdp.system.guests import ports_with_guests

_PAUSE = 0.1  # seconds at least for which what was found is believed
_SHARE = 0.01  # of all time, at most, that goes into looking
_LAST_PAUSE = 10.0  # seconds; each is twice as long as the one before


class Guests:
    """Knows on which ports containers' devices are. Who is asked for there may be one of them."""

    def __init__(self) -> None:
        self._ports: frozenset[int] = frozenset()
        self._look_at = float("-inf")
        self._pause = _PAUSE
        self.due: float | None = None
        """When to call tick() (seconds, monotonic)."""

    def look(self) -> bool:
        """Look again, unless that was done just now; whether anything is different."""
        began = time.monotonic()
        if began < self._look_at:
            return False
        before, self._ports = self._ports, ports_with_guests()
        ended = time.monotonic()
        self._look_at = ended + max(_PAUSE, (ended - began) / _SHARE)
        return before != self._ports

    def expect(self) -> None:
        """The kernel said something of a link."""
        self._pause, soon = _PAUSE, time.monotonic() + _PAUSE
        self.due = soon if self.due is None else min(self.due, soon)  # or words without end would put it off for ever

    def tick(self, now: float) -> bool:
        """Look for who may have come; whether anything is different."""
        self._pause *= 2
        self.due = max(now + self._pause, self._look_at) if self._pause < _LAST_PAUSE else None
        return self.look()

    def beside(self, links: Mapping[str, LinkFacts]) -> dict[str, LinkFacts]:
        """The facts, with what is known of such devices."""
        if not self._ports:
            return dict(links)
        return {
            name: replace(link, shared=frozenset({(), *link.l3})) if link.ifindex in self._ports else link
            for name, link in links.items()
        }
