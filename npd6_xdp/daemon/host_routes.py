# SPDX-License-Identifier: GPL-2.0-or-later
"""The /128 routes of rules with host_routes: one for each host that is there, to the interface that it is behind."""

from __future__ import annotations

import errno
import logging
from collections.abc import Set

from npd6_xdp.core.neighbours import Host
from npd6_xdp.system.rtnetlink import Requests

log = logging.getLogger("npd6-xdp")


class HostRoutes:
    """The host routes of ours. Where a host is isn't decided here: add() says it, and remove() that it is gone.

    `alone` says that no other daemon lives in this network namespace, so host routes that bear our number are a
    dead one's.
    """

    def __init__(self, requests: Requests, *, alone: bool) -> None:
        self._requests = requests
        self._there: dict[bytes, Host] = {}
        self._warned: set[str] = set()
        # a dead predecessor's: those of hosts that are there come again at once
        self._stale = set(requests.host_routes()) if alone else set()

    def close(self) -> None:
        """Take our routes back."""
        for host in {*self._there.values()} | self._stale:
            self._requests.delete_host_route(host)

    def __len__(self) -> int:
        return len(self._there)

    def __contains__(self, host: Host) -> bool:
        return self._there.get(host.address) == host

    def hosts(self) -> set[Host]:
        """The hosts that have a route."""
        return {*self._there.values()}

    def leads_to(self, address: bytes) -> Host | None:
        """Where the route to an address leads; None where there is none of ours."""
        return self._there.get(address)

    def add(self, host: Host) -> None:
        """A host is there: a route leads to it from now on, and none of ours to another place of that address."""
        before = self._there.get(host.address)
        if before == host:
            return
        if before is not None:
            self.remove(before)
        code = self._requests.add_host_route(host)
        if code == errno.EEXIST and host not in self._stale:
            return  # somebody else's: it does what ours would
        if code and code != errno.EEXIST:
            self._warn(f"the kernel adds no host route: {errno.errorcode.get(code, code)}")
            return
        self._there[host.address] = host
        self._stale.discard(host)

    def remove(self, host: Host) -> None:
        """A host isn't there any more."""
        if self._there.get(host.address) == host:
            del self._there[host.address]
        self._requests.delete_host_route(host)

    def keep_only(self, wanted: Set[Host]) -> None:
        """Remove the routes of all other hosts, and what a dead predecessor has left."""
        for host in (self.hosts() | self._stale) - wanted:
            self.remove(host)
        for host in wanted:
            if host.address not in self._there:
                self.add(host)
        self._stale.clear()

    def _warn(self, line: str) -> None:
        """Once each: a flood must not fill the log."""
        if line not in self._warned:
            self._warned.add(line)
            log.warning("%s", line)
