# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour`: hosts that have gone, whose routes are kept for a while in case that they come back."""

from __future__ import annotations

from npd6_xdp.core.neighbours import Host


class Away:
    """Those hosts, by when they went. All times are seconds, monotonic, and none is before one that was given earlier.

    `seconds` is for how long a route outlives its host; where it is changed, that concerns those that have gone, too.
    How many there may be is the caller's matter: take_due() says who goes first.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._since: dict[Host, float] = {}  # the longest first
        self._links: dict[bytes, set[int]] = {}  # by address

    def __len__(self) -> int:
        return len(self._since)

    def __contains__(self, host: object) -> bool:
        return host in self._since

    def hosts(self) -> tuple[Host, ...]:
        """All of them."""
        return tuple(self._since)

    def at(self, address: bytes) -> list[Host]:
        """Those at an address, each where it was."""
        return [Host(ifindex, address) for ifindex in sorted(self._links.get(address, ()))]

    @property
    def due(self) -> float | None:
        """When the first one's time is over; None: there is none."""
        return next((since + self.seconds for since in self._since.values()), None)

    def add(self, host: Host, now: float) -> None:
        """A host has gone. If it is one of them already, its time goes on."""
        if host not in self._since:
            self._since[host] = now
            self._links.setdefault(host.address, set()).add(host.ifindex)

    def discard(self, host: Host) -> None:
        """It isn't one of them any more, if it was."""
        if self._since.pop(host, None) is None:
            return
        links = self._links[host.address]
        links.discard(host.ifindex)
        if not links:
            del self._links[host.address]

    def take_due(self, now: float, space: int) -> Host | None:
        """The one that has been gone for longest, if its time is over or there is no space for so many; it is none of
        them any more.
        """
        first = next(iter(self._since), None)
        if first is None or (len(self) <= space and self._since[first] + self.seconds > now):
            return None
        self.discard(first)
        return first
