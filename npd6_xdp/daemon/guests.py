# SPDX-License-Identifier: GPL-2.0-or-later
"""Others on a port whom netlink doesn't tell of: looked for when a question there isn't decided at once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from npd6_xdp.core.links import LinkFacts
from npd6_xdp.system.guests import ports_with_guests

_PAUSE = 0.1  # seconds at least for which what was found is believed
_SHARE = 0.01  # of all time, at most, that goes into looking


class Guests:
    """Knows on which ports containers' devices are. Who is asked for there may be one of them."""

    def __init__(self) -> None:
        self._ports: frozenset[int] = frozenset()
        self._look_at = float("-inf")

    def look(self) -> bool:
        """Look again, unless that was done just now; whether anything is different.

        Nothing announces such a device, and it matters only while somebody is asked for who isn't known to be ours.
        """
        began = time.monotonic()
        if began < self._look_at:
            return False
        before, self._ports = self._ports, ports_with_guests()
        ended = time.monotonic()
        self._look_at = ended + max(_PAUSE, (ended - began) / _SHARE)
        return before != self._ports

    def beside(self, links: Mapping[str, LinkFacts]) -> dict[str, LinkFacts]:
        """The facts, with what is known of such devices."""
        return {
            name: replace(link, shared=frozenset({(), *link.l3})) if link.ifindex in self._ports else link
            for name, link in links.items()
        }
