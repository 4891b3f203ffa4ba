# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour` at work: the neighbour table into the kernel map, and targets that aren't in it resolved."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import IPv6Address

from npd6_xdp.core.config import Limits
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.neighbours import Asker, Host, Known, Neighbours, Pending, room_for_pending
from npd6_xdp.core.rtnetlink import PRESENT, NeighbourState
from npd6_xdp.core.rules import Decision, Rule, Table
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.daemon.host_routes import HostRoutes
from npd6_xdp.system.datapath import Datapath
from npd6_xdp.system.rtnetlink import NeighbourWatch, Overflow, Requests

log = logging.getLogger("npd6-xdp")

_TICK = 1.0  # seconds between two looks at what is under way
_TABLE_SIZE_AGE = 10.0  # seconds for which what the kernel said of its neighbour table's size is believed


class Resolution:
    """Which hosts are there, and who waits for which. `late` sends an answer to one who has waited.

    `alone` is what HostRoutes is told.
    """

    def __init__(
        self, datapath: Datapath, requests: Requests, late: Callable[[NsEvent], None], *, alone: bool = True
    ) -> None:
        self._datapath = datapath
        self._requests = requests
        self._late = late
        self._watch = NeighbourWatch()
        self._limits = Limits()
        self._neighbours = Neighbours(self._limits.neighbours)
        self._pending = Pending()
        self._table = Table({}, {}, {}, {}, {})
        self._routes = HostRoutes(requests, alone=alone)
        self._room = self._limits.pending
        self._sized_at = float("-inf")
        self._warned: set[str] = set()
        self._unread = False
        self.due: float | None = None

    def close(self) -> None:
        """Let go of the sockets, and take our host routes back."""
        self._routes.close()
        self._watch.close()

    def filenos(self) -> tuple[int, int]:
        """Readable: on_change() is to be called for the first, on_refusal() for the second."""
        return self._watch.fileno(), self._watch.refusals_fileno()

    @property
    def neighbours(self) -> Neighbours:
        """The hosts that are there."""
        return self._neighbours

    @property
    def pending(self) -> Pending:
        """The targets under way."""
        return self._pending

    @property
    def routes(self) -> HostRoutes:
        """The host routes of ours."""
        return self._routes

    # --- table ---

    def prepare(self, table: Table, limits: Limits) -> None:
        """Before a table is in force: the map knows what it will be asked for by it."""
        first = not self._table.rules
        self._table, self._limits = table, limits
        self._know(self._neighbours.use(table, limits.neighbours))
        if first and (states := self._states()) is not None:
            self._know(self._neighbours.resync(states))
        if self._is_needed():
            self._size(time.monotonic())

    def settle(self) -> list[NsEvent]:
        """Once the table is in force: what it doesn't ask for is forgotten. Those who wait by rules that are gone."""
        self._know(self._neighbours.drop())
        homeless = self._pending.forget(self._table)
        self._gate()
        wanted = {host for host in self._neighbours.hosts() if self._table.host_route_wanted(*_host(host))}
        self._routes.keep_only(wanted)
        for host in wanted:
            self._lead_to(host)
        return homeless

    def _is_needed(self) -> bool:
        return Decision.NEIGHBOUR in self._table.kinds

    def _know(self, changes: Iterable[Known]) -> None:
        for group, address, flags in changes:
            if flags is None:
                self._datapath.forget(group, address)
                continue
            try:
                self._datapath.know(group, address, flags)
            except MachineError as error:
                self._neighbours.refused += 1
                self._warn(f"{error}; raise limits.neighbours")

    # --- solicitations ---

    def ask(self, event: NsEvent, rule: Rule) -> Outcome | None:
        """A target is asked for that the map doesn't know. None: it is there, answer."""
        if any(self._neighbours.interfaces(rule.group, event.target)):
            return None
        vias = self._table.vias.get(rule.group)
        if not vias:
            return Outcome.ABSENT
        if (rule.group, event.target) not in self._pending:
            if self._neighbours.full:
                self._warn(
                    f"limits.neighbours: {self._limits.neighbours} hosts are there; no further ones are resolved"
                )
                return Outcome.RATE_LIMITED
            if not self._pending.has_room_for(Asker(rule.entry, event.eth_destination), self._room):
                return Outcome.RATE_LIMITED
        now = time.monotonic()
        probes = self._pending.add(rule.group, event, vias, now, rule.entry)
        if probes is None:
            return Outcome.RATE_LIMITED
        self._watch.probe(probes)
        if self.due is None:
            self.due = now + _TICK
        self._gate()
        return Outcome.PENDING

    def confirm(self, event: NsEvent, rule: Rule) -> None:
        """A stale host was asked for: have the kernel probe it. If it fails, the host is forgotten."""
        interfaces = self._neighbours.interfaces(rule.group, event.target)
        self._watch.probe([Host(ifindex, event.target) for ifindex in interfaces])

    # --- the kernel's word ---

    def on_change(self) -> None:
        """The neighbour table changed."""
        try:
            for host, state in self._watch.changes():
                self._take(host, state)
        except Overflow:
            self._resync()
        self._gate()

    def _resync(self) -> None:
        states = self._states()
        if states is None:
            return
        for host in self._neighbours.places() - states.keys():
            self._take(host, NeighbourState.NONE)
        for host, state in states.items():
            self._take(host, state)
        self._watch.probe(self._pending.places() - states.keys())

    def _states(self) -> dict[Host, int] | None:
        """The neighbour table; None where the kernel doesn't tell, and then it is asked again."""
        try:
            states = self._requests.neighbours()
        except MachineError as error:
            self._unread = True
            self.due = time.monotonic() + _TICK
            self._warn(f"{error}; trying again every {_TICK:.0f} s")
            return None
        self._unread = False
        return states

    def _take(self, host: Host, state: int) -> None:
        self._know(self._neighbours.changed(host, state))
        if state & PRESENT:
            if host not in self._routes and self._table.host_route_wanted(*_host(host)):
                self._lead_to(host)
            for event in self._pending.resolved(host):
                self._late(event)
            return
        if host in self._routes:
            self._routes.remove(host)
            for place in self._elsewhere(host):
                if self._neighbours.state(place) and self._table.host_route_wanted(*_host(place)):
                    self._lead_to(place)
        if state & NeighbourState.FAILED and self._pending.failed(host):
            # the kernel would keep it for a while, and a scan would fill its table
            self._watch.delete(host)
        elif state == NeighbourState.NONE and self._pending.awaits(host):
            self._watch.probe([host])  # the entry went with its link, say, and the kernel looks for it no more

    def on_refusal(self) -> None:
        """The kernel doesn't resolve what it was asked to."""
        for host, code in self._watch.refusals():
            self._pending.failed(host)
            if code == errno.ENOBUFS:
                self._warn(
                    "the kernel's neighbour table is full: raise net.ipv6.neigh.default.gc_thresh3 (and 1 and 2)"
                )
        self._gate()

    # --- bounds ---

    def tick(self, now: float) -> None:
        """Give up what has taken too long."""
        self._pending.expire(now)
        if len(self._pending) and now - self._sized_at > _TABLE_SIZE_AGE:
            self._size(now)
        if self._unread:
            self._resync()
        self.due = now + _TICK if len(self._pending) or self._unread else None
        self._gate()

    def _size(self, now: float) -> None:
        """How many targets may be under way at once, by what the kernel's table has room for."""
        self._sized_at = now
        self._room = self._limits.pending
        size = None
        with suppress(MachineError):  # it is asked again; limits.pending holds until then
            size = self._requests.neighbour_table_size()
        if size is None:
            return
        entries, thresholds = size
        self._room = room_for_pending(self._limits.pending, entries - len(self._pending), thresholds)
        if self._room < self._limits.pending:
            self._warn(
                f"the kernel's neighbour table has room for {thresholds[2]} entries, and throws out quiet ones above"
                f" {thresholds[1]}: less than limits.pending targets are resolved at once;"
                " raise net.ipv6.neigh.default.gc_thresh1, 2 and 3"
            )

    def _gate(self) -> None:
        self._datapath.set_resolving_full(len(self._pending) >= self._room)
        self._datapath.set_crowding(self._pending.crowding(self._room))

    # --- host routes ---

    def _lead_to(self, host: Host) -> None:
        """A host that is to have a route is there; if it is elsewhere, too, where it was seen last counts."""
        elsewhere = self._routes.leads_to(host.address)
        if elsewhere is None or _is_fresher(self._neighbours.state(host), self._neighbours.state(elsewhere)):
            self._routes.add(host)

    def _elsewhere(self, host: Host) -> list[Host]:
        """The places behind other via interfaces that the host may be at, or have been at, too."""
        vias = {ifindex for ifindexes in self._table.vias.values() for ifindex in ifindexes}
        return [Host(ifindex, host.address) for ifindex in sorted(vias - {host.ifindex})]

    def _warn(self, line: str) -> None:
        """Once each: a flood must not fill the log."""
        if line not in self._warned:
            self._warned.add(line)
            log.warning("%s", line)


def _is_fresher(state: NeighbourState, than: NeighbourState) -> bool:
    """Whether a host is rather where the neighbour table says `state`: it has moved, and the other entry is old."""
    confirmed = NeighbourState.REACHABLE | NeighbourState.PERMANENT
    return not than or bool(state & confirmed and not than & confirmed)


def _host(host: Host) -> tuple[int, IPv6Address]:
    return host.ifindex, IPv6Address(host.address)
