# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour`: the hosts that routes of ours lead to, each where it was seen last, and some that are away."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Set
from ipaddress import IPv6Address

from npd6_xdp.core.away import Away
from npd6_xdp.core.neighbour_messages import CONFIRMED, LOOKED_AFTER, NeighbourState
from npd6_xdp.core.neighbours import Host, Neighbours, Quiet
from npd6_xdp.core.places import Places
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.daemon.host_routes import HostRoutes
from npd6_xdp.daemon.in_force import NOTHING, InForce
from npd6_xdp.daemon.turns import SLICE

_BIT = 128  # hosts that the table is asked about at once
_QUIET = 120.0  # seconds for which a host that has a route may be stale before it is asked
_QUIET_PER_SECOND = 10  # of those that are asked


class LedHosts:
    """Adds and removes the routes of hosts that rules with host_routes cover, and knows who of them is quiet for long.

    A host that has gone has its route for limits.host_route_keep longer: what the upstream sends without asking, the
    kernel then brings to the host as soon as that is back. The route is all that it has; nobody is answered for it. A
    predecessor's routes of hosts that have gone are kept as long from the start on, as nobody knows since when they
    have. On standby there is no route, and who is away stays so: it has one again if the entry is active in time.

    `neighbours` has the hosts' states, `places` where else they are.
    """

    def __init__(self, routes: HostRoutes, neighbours: Neighbours, places: Places) -> None:
        self._routes = routes
        self._neighbours = neighbours
        self._places = places
        self._away = Away()
        self._displaced: list[Host] = []  # those whose routes the kernel doesn't take, until let_go() has seen to them
        self._confirmed: set[Host] = set()  # those that have a route and have answered for their address since
        self._quiet = Quiet(_QUIET, _QUIET_PER_SECOND)
        self._in_force = NOTHING
        self.touched: set[Host] = set()
        """Hosts of which the table may say something else, until settle()."""

    def use(self, new: InForce) -> None:
        """Go by it from now on; settle() is to follow."""
        self._in_force = new
        self._away.seconds = new.config.limits.host_route_keep

    def _is_wanted(self, host: Host) -> bool:
        """Whether a rule that has host routes covers a host."""
        return self._in_force.table.host_route_wanted(host.ifindex, IPv6Address(host.address))

    def _is_covered(self, host: Host) -> bool:
        """The same, if whatever is on standby were at work."""
        return self._in_force.table.host_route_wanted(host.ifindex, IPv6Address(host.address), on_standby=True)

    @property
    def waits(self) -> bool:
        """Whether take_silent() may have somebody in a while."""
        return len(self._quiet) > 0 or len(self._away) > 0

    def there(self, host: Host, state: int) -> None:
        """The neighbour table has a host."""
        if self._away:
            self._returned(host)
        if host not in self._routes and self._is_wanted(host):
            self._lead_to(host)
        if host in self._routes:
            self._hear(host, state, time.monotonic())

    def gone(self, host: Host, *, for_good: bool) -> None:
        """It hasn't any more; if it has the same address elsewhere, the route leads there.

        `for_good`: it isn't the kernel's word that is gone, but what it was worth, so no route is kept.
        """
        self._quiet.forget(host)
        is_known = host in self._routes or host in self._away or host in self._confirmed  # the last two: on standby
        if not is_known or (host in self._away and not for_good):
            self._confirmed.discard(host)
            return
        others = [other for other in self._elsewhere(host) if self._neighbours.state(other) and self._is_wanted(other)]
        if not for_good and not others and self._is_to_stay(host):
            self._send_away(host)
            return
        self._forget(host)
        for other in others:
            self._lead_to(other)

    # --- hosts that are away ---

    def away_at(self, address: bytes) -> list[Host]:
        """The hosts that are away and had this address: their routes are kept."""
        return self._away.at(address)

    @property
    def due(self) -> float | None:
        """When to call let_go() (seconds, monotonic); None: there is nothing to do."""
        return 0.0 if self._displaced or len(self._away) > self._space else self._away.due

    def let_go(self, now: float) -> None:
        """Remove the routes that have been kept for long enough, those that there is no space for, and of those that
        are kept the ones that the kernel doesn't take. For a slice: a link may have had tens of thousands behind it.
        """
        deadline = time.monotonic() + SLICE
        while self._displaced:
            kept = self._displaced.pop()
            if kept in self._away and kept in self._routes.displaced:
                self._forget(kept)
            if time.monotonic() >= deadline:
                return
        while (host := self._away.take_due(now, self._space)) is not None:
            self._routes.remove(host)
            if time.monotonic() >= deadline:
                return

    @property
    def _space(self) -> int:
        """How many routes may be kept: those who are there come first."""
        return max(self._neighbours.limit - len(self._neighbours), 0)

    def _is_to_stay(self, host: Host) -> bool:
        """Whether it was there, as far as we have seen: what was found in the kernel's table may have been a claim."""
        return (
            self._away.seconds > 0
            and self._space > 0
            and host in self._confirmed
            and (host in self._routes.hosts() if self._is_wanted(host) else self._is_covered(host))
            and not self._places.is_elsewhere(host)
        )

    def _send_away(self, host: Host) -> None:
        """A host has gone, and what it has is kept."""
        self._away.add(host, time.monotonic())
        self._confirmed.discard(host)

    def _inherit(self, hosts: Iterable[Host]) -> None:
        """A predecessor led to these, so they were there; those that aren't now are away."""
        for host in hosts:
            self._confirmed.add(host)
            if not self._neighbours.state(host):
                self.gone(host, for_good=False)

    def _returned(self, host: Host) -> None:
        """A host is there: a route that was kept for it is its own again, one that leads elsewhere goes."""
        for other in self._away.at(host.address):
            if other == host:
                self._away.discard(host)
            elif self._places.is_elsewhere(other):
                self._forget(other)

    def _forget(self, host: Host) -> None:
        self._confirmed.discard(host)
        self._away.discard(host)
        self._routes.remove(host)

    def take_silent(self, now: float) -> Iterator[Host]:
        """Those to ask now whether they are there still; call it once a second."""
        for host in self._quiet.take(now):
            if host in self._routes:
                yield host
            else:
                self._quiet.forget(host)
        if self._away:
            self._displaced = [*self._routes.displaced]  # their link was taken down, say

    def settle_all(self, meanwhile: Iterable[Host]) -> Steps[None]:
        """Have routes as the table wants them, bit by bit. `meanwhile` are hosts of which something was said since."""
        wanted: set[Host] = set()
        for some in pieces(self._routes.inherited(), _BIT):
            self._inherit(some)
            yield
        for some in pieces(self._neighbours.covered(), _BIT):
            wanted.update([host for host in some if self._is_wanted(host)])
            yield
        for some in pieces(self._away.hosts(), _BIT):
            for host in some:
                if self._is_wanted(host):
                    wanted.add(host)
                elif not self._is_covered(host):
                    self._away.discard(host)
            yield
        for some in pieces(tuple(self._confirmed), _BIT):
            others = [host for host in some if host not in wanted and not self._is_covered(host)]
            self._confirmed.difference_update(others)
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

    def touch(self, addresses: Set[bytes]) -> None:
        """The table may say something else of these addresses; settle() is to follow."""
        self.touched.update(self._neighbours.at(addresses))
        if self._away:
            self.touched.update(host for address in addresses for host in self._away.at(address))

    def settle(self) -> None:
        """Have routes as the table wants them, of hosts that were touched."""
        for host in self.touched:
            if not self._is_wanted(host):
                if self._is_covered(host):
                    self._routes.remove(host)
                else:
                    self._forget(host)
            elif host not in self._routes and self._neighbours.state(host):
                self._lead_to(host)
        self.touched.clear()

    def _is_to_have_one(self, host: Host) -> bool:
        return bool(self._neighbours.state(host) or host in self._away) and self._is_wanted(host)

    def _hear(self, host: Host, state: int, now: float) -> None:
        """A host that has a route is in a state; who looks after its entry asks it himself."""
        if state & (CONFIRMED | LOOKED_AFTER):
            self._confirmed.add(host)
        if not state & LOOKED_AFTER:
            self._quiet.heard(host, state, now)

    def _lead_to(self, host: Host) -> None:
        """A host that is to have a route is there; if it is elsewhere, too, where it was seen last counts."""
        elsewhere = self._routes.leads_to(host)
        if elsewhere is not None:
            if not _is_fresher(self._neighbours.state(host), self._neighbours.state(elsewhere)):
                return
            self._away.discard(elsewhere)
        self._routes.add(host)

    def _elsewhere(self, host: Host) -> list[Host]:
        """Whom the same address may be, or have been, behind other via interfaces."""
        vias = {ifindex for ifindexes in self._in_force.table.vias.values() for ifindex in ifindexes}
        return [Host(ifindex, host.address) for ifindex in sorted(vias - {host.ifindex})]


def _is_fresher(state: NeighbourState, than: NeighbourState) -> bool:
    """Whether a host is rather where the neighbour table says `state`: it has moved, and the other entry is old."""
    confirmed = NeighbourState.REACHABLE | NeighbourState.PERMANENT
    return not than or bool(state & confirmed and not than & confirmed)
