# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour`: the hosts that routes of ours lead to, each by where it was seen last."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address

from npd6_xdp.core.neighbour_messages import LOOKED_AFTER, NeighbourState
from npd6_xdp.core.neighbours import Host, Neighbours, Quiet
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.daemon.host_routes import HostRoutes
from npd6_xdp.daemon.in_force import NOTHING, InForce

_BIT = 128  # hosts that the table is asked about at once
_QUIET = 120.0  # seconds for which a host that has a route may be stale before it is asked
_QUIET_PER_SECOND = 10  # of those that are asked


class LedHosts:
    """Adds and removes the routes of hosts that rules with host_routes cover, and knows who of them is quiet for long.

    `neighbours` has the hosts' states.
    """

    def __init__(self, routes: HostRoutes, neighbours: Neighbours) -> None:
        self._routes = routes
        self._neighbours = neighbours
        self._quiet = Quiet(_QUIET, _QUIET_PER_SECOND)
        self._in_force = NOTHING
        self.touched: set[Host] = set()
        """Hosts of which the table may say something else, until settle()."""

    def use(self, new: InForce) -> None:
        """Go by it from now on; settle() is to follow."""
        self._in_force = new

    def _is_wanted(self, host: Host) -> bool:
        """Whether a rule that has host routes covers a host."""
        return self._in_force.table.host_route_wanted(host.ifindex, IPv6Address(host.address))

    @property
    def waits(self) -> bool:
        """Whether take_silent() may have somebody in a while."""
        return len(self._quiet) > 0

    def there(self, host: Host, state: int) -> None:
        """The neighbour table has a host."""
        if host not in self._routes and self._is_wanted(host):
            self._lead_to(host)
        if host in self._routes:
            self._hear(host, state, time.monotonic())

    def gone(self, host: Host) -> None:
        """It hasn't any more; if it has the same address elsewhere, the route leads there."""
        self._quiet.forget(host)
        if host in self._routes:
            self._routes.remove(host)
            for other in self._elsewhere(host):
                if self._neighbours.state(other) and self._is_wanted(other):
                    self._lead_to(other)

    def take_silent(self, now: float) -> Iterator[Host]:
        """Those to ask now whether they are there still; call it once a second."""
        for host in self._quiet.take(now):
            if host in self._routes:
                yield host
            else:
                self._quiet.forget(host)

    def settle_all(self, meanwhile: Iterable[Host]) -> Steps[None]:
        """Have routes as the table wants them, bit by bit. `meanwhile` are hosts of which something was said since."""
        wanted: set[Host] = set()
        for some in pieces(self._neighbours.covered(), _BIT):
            wanted.update([host for host in some if self._is_wanted(host)])
            yield
        for host in meanwhile:  # what has been said of it meanwhile is younger
            (wanted.add if self._is_to_have_one(host) else wanted.discard)(host)
        yield from self._routes.keep_only(wanted, self._is_to_have_one)
        yield
        now = time.monotonic()
        for some in pieces(tuple(wanted), _BIT):
            for host in some:
                if (state := self._neighbours.state(host)) and host in wanted:
                    self._lead_to(host)
                    self._hear(host, state, now)
            yield

    def settle(self) -> None:
        """Have routes as the table wants them, of hosts that were touched."""
        for host in self.touched:
            if not self._is_wanted(host):
                self._routes.remove(host)
            elif host not in self._routes and self._neighbours.state(host):
                self._lead_to(host)
        self.touched.clear()

    def _is_to_have_one(self, host: Host) -> bool:
        return bool(self._neighbours.state(host)) and self._is_wanted(host)

    def _hear(self, host: Host, state: int, now: float) -> None:
        """A host that has a route is in a state; who looks after its entry asks it himself."""
        if not state & LOOKED_AFTER:
            self._quiet.heard(host, state, now)

    def _lead_to(self, host: Host) -> None:
        """A host that is to have a route is there; if it is elsewhere, too, where it was seen last counts."""
        elsewhere = self._routes.leads_to(host)
        if elsewhere is None or _is_fresher(self._neighbours.state(host), self._neighbours.state(elsewhere)):
            self._routes.add(host)

    def _elsewhere(self, host: Host) -> list[Host]:
        """Whom the same address may be, or have been, behind other via interfaces."""
        vias = {ifindex for ifindexes in self._in_force.table.vias.values() for ifindex in ifindexes}
        return [Host(ifindex, host.address) for ifindex in sorted(vias - {host.ifindex})]


def _is_fresher(state: NeighbourState, than: NeighbourState) -> bool:
    """Whether a host is rather where the neighbour table says `state`: it has moved, and the other entry is old."""
    confirmed = NeighbourState.REACHABLE | NeighbourState.PERMANENT
    return not than or bool(state & confirmed and not than & confirmed)
