# SPDX-License-Identifier: GPL-2.0-or-later
"""The /128 routes of rules with host_routes: one for each host that is there, kept in the kernel whoever removes it."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from ipaddress import IPv6Address

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.logged import about_host
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.put_backs import LATER, SOON, PutBacks
from npd6_xdp.core.route_messages import HOST_ROUTE_METRIC, TABLE_MAIN
from npd6_xdp.core.rtnetlink import PROTOCOL
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.daemon.lines import Once
from npd6_xdp.daemon.turns import SLICE
from npd6_xdp.system.netlink.host_routes import HostRouteWatch, RouteChange
from npd6_xdp.system.netlink.nlsocket import Overflow
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.system.sysctl import Memory

log = logging.getLogger("npd6-xdp")

_BIT = 512  # hosts that are gone over at once
_AGAIN = 1.0  # seconds between two readings of all routes
_BY_ITSELF = 0  # the sender of what the kernel does of its own accord
# what the kernel says of an interface that is down, gone, or without IPv6: its routes come with it
_NOT_NOW = (errno.ENETDOWN, errno.ENODEV, errno.EACCES)


class HostRoutes:
    """The host routes of ours. Where a host is isn't decided here: add() says it, and remove() that it is gone.

    They are in the routing table of the VRF that the interface belongs to, or in main. By `memory` it knows whether
    another daemon lives in this network namespace; if none does, host routes that bear our number are a dead one's. Of
    two that want the same route, one has added it: to the other it is there all the same, until that one takes it back.
    But who succeeds a dead one that had some takes what it finds for that one's.
    """

    def __init__(self, requests: Requests, memory: Memory | None) -> None:
        self._requests = requests
        self._watch = HostRouteWatch(requests.port)
        self._names: Mapping[int, str] = {}
        self._tables: Mapping[int, int] = {}
        self._wanted: dict[tuple[int, bytes], Host] = {}
        self._memory = memory
        self._there: dict[Host, int] = {}
        self._others: set[Host] = set()  # those of them that another daemon has added
        self.displaced: set[Host] = set()
        """Whose routes the kernel doesn't take: another's is in its place, or the interface is down."""
        self._todo: dict[Host, None] = {}
        self._put_backs = PutBacks()
        self._soon: dict[Host, None] = {}
        self._soon_at = self._retry_at = float("inf")
        self._once = Once()
        self.due: float | None = None
        """When to call tick() (seconds, monotonic)."""
        self._unread = self._needed = self._unheard = False
        self._knows = False  # which hosts there are to be routes to: a predecessor's stay until then
        self._read_at = 0.0
        self._reading: Iterator[None] | None = None
        self._changed_meanwhile: set[Host] = set()
        # a dead predecessor's: those of hosts that are there stay, the others go with the first table
        if not self._has_company():
            self._there = requests.host_routes()
            self._todo = dict.fromkeys(self._there)

    def close(self, *, leave: bool = False) -> None:
        """Take our routes back, or leave them to a successor, who knows them by our number."""
        kept = self._there if leave else self._others if self._others and self._has_company() else ()
        for host, table in self._there.items():
            if host not in kept:
                self._requests.delete_host_route(host, table)
        if self._memory is not None and not leave:
            self._memory.remember_routes(some=False)
        self._watch.close()

    def _has_company(self) -> bool:
        return self._memory is not None and self._memory.look_for_others()

    def fileno(self) -> int:
        """Readable: on_change() is to be called."""
        return self._watch.fileno()

    def reopen(self) -> None:
        """Another socket, because something is wrong with this one; what it may have told is read anew."""
        before, self._watch = self._watch, HostRouteWatch(self._requests.port)
        before.close()
        self._watch.listen(wanted=before.listening)
        self._reading = None
        self._unread, self._unheard = self._needed, not self._needed
        self._schedule()

    # --- what there is ---

    def __len__(self) -> int:
        return len(self._there)

    def __contains__(self, host: Host) -> bool:
        """Whether a route is to lead to a host."""
        return self._wanted.get(self._key(host)) == host

    def hosts(self) -> Set[Host]:
        """The hosts to which a route of ours leads: what the kernel has."""
        return self._there.keys()

    def inherited(self) -> list[Host]:
        """Those whose routes a dead predecessor has left, in the table where they belong, until keep_only() is done."""
        return [] if self._knows else [host for host, table in self._there.items() if table == self._table(host)]

    def leads_to(self, host: Host) -> Host | None:
        """Where the route to a host's address is to lead; None where there is to be none."""
        return self._wanted.get(self._key(host))

    def _key(self, host: Host) -> tuple[int, bytes]:
        """In two VRFs, one address is two hosts."""
        return self._table(host), host.address

    def _table(self, host: Host) -> int:
        return self._tables.get(host.ifindex, TABLE_MAIN)

    # --- what there is to be ---

    def listen(self, *, wanted: bool) -> None:
        """Hear of changes from now on, before use() needs that; or no longer, if it doesn't. Raises MachineError."""
        if self._watch.listen(wanted=wanted or self._needed):
            self._unheard = wanted

    def use(self, tables: Mapping[int, int], names: Mapping[int, str], *, needed: bool) -> None:
        """From now on, routes out of these interfaces belong into these routing tables, those of others into main.

        `needed` says whether there may be any routes; changes of them are heard of by then: see listen().
        """
        self._names, self._needed = names, needed
        if needed and self._memory is not None:
            self._memory.remember_routes(some=True)
        if needed and self._unheard:
            self._unread, self._unheard = True, False  # before that, nobody has told
        if tables != self._tables:
            moved = {link for link, _ in tables.items() ^ self._tables.items()}
            others = [(key, host) for key, host in self._wanted.items() if host.ifindex in moved]
            self._tables = dict(tables)
            for key, _ in others:
                del self._wanted[key]
            came = {self._key(host): host for _, host in others}
            gave_way = [self._wanted[key] for key in came.keys() & self._wanted.keys()]  # it has that address there
            self._wanted |= came
            self._later(host for host in self._there if host.ifindex in moved)
            self._later(host for _, host in others)
            self._later(gave_way)  # first: see _work()
        self._schedule()

    def add(self, host: Host) -> None:
        """A host is there: a route leads to it from now on, and none of ours to another place of that address."""
        before = self._wanted.get(self._key(host))
        if before == host:
            return
        self._wanted[self._key(host)] = host
        if before is not None:
            self._make_so(before)
        self._make_so(host)
        self._schedule()

    def remove(self, host: Host) -> None:
        """A host isn't there any more."""
        if host in self:
            del self._wanted[self._key(host)]
        self._make_so(host)

    def keep_only(self, wanted: Set[Host], is_wanted: Callable[[Host], bool]) -> Steps[None]:
        """Remove the routes of all other hosts, and what a dead predecessor has left; add() those that lack. Bit by
        bit: `is_wanted` says of one whether it still is. Where there is much to do, tick() goes on with it.
        """
        for some in pieces(tuple(wanted), _BIT):
            for host in some:
                if host in self._there and host in self:
                    continue
                if is_wanted(host) and self._wanted.setdefault(self._key(host), host) == host:
                    self._todo[host] = None
            yield
        for some in pieces(tuple(self._wanted.values()), _BIT):
            for host in some:
                if host not in wanted and host in self and not is_wanted(host):
                    del self._wanted[self._key(host)]
                    self._todo[host] = None
            yield
        self._knows = True
        self._work()
        self._schedule()

    def _make_so(self, host: Host) -> None:
        """Let the kernel have what there is to be of one host."""
        if self._reading is not None:
            self._changed_meanwhile.add(host)
        table, there, was_anothers = self._table(host), self._there.get(host), host in self._others
        if there is not None and (host not in self or there != table):
            self._forget(host)
            if not was_anothers or not self._has_company():
                self._requests.delete_host_route(host, there)
            there = None
        if host not in self:
            self.displaced.discard(host)
            self._put_backs.forget(host)
        elif there is None:
            self._add(host, table)

    def _add(self, host: Host, table: int) -> None:
        code = self._requests.add_host_route(host, table)
        if code == errno.EEXIST and self._requests.has_host_route(host, table):
            code = 0
            if self._memory is not None and not self._memory.left_routes:
                self._others.add(host)
        elif code == errno.EEXIST and self._requests.delete_host_route(host, table) == 0:
            code = self._requests.add_host_route(host, table)  # it was ours, but for something
        self._put_backs.tried(host.ifindex, time.monotonic(), refused=code in _NOT_NOW)
        if code == 0:
            self._there[host] = table
            self.displaced.discard(host)
        elif code == errno.EEXIST:
            self._displace(host)
        else:
            self.displaced.add(host)
            if code not in _NOT_NOW:
                known = about_host(host, self._name(host), str(errno.errorcode.get(code, code)))
                self._once.warn(f"the kernel adds no host route: {known['error']}", **known)

    # --- what others do ---

    def on_change(self) -> None:
        """Routes have changed."""
        try:
            for change in self._watch.take_changes(time.monotonic() + SLICE):
                if self._reading is not None:
                    self._changed_meanwhile.add(Host(change.route.ifindex, change.route.destination))
                self._take(change)
        except Overflow:
            self._unread = True
        self._schedule()

    def _take(self, change: RouteChange) -> None:
        route = change.route
        host = self._wanted.get((route.table, route.destination))
        if route.protocol == PROTOCOL:
            self._take_ours(change, Host(route.ifindex, route.destination))
        elif host is None:
            return
        elif change.gone:
            if host not in self._there:
                self._make_so(host)
        elif change.replaced and route.metric == HOST_ROUTE_METRIC:
            self._forget(host)
            self._displace(host)
        elif route.metric < HOST_ROUTE_METRIC and route.ifindex != host.ifindex:
            self._say_foreign(host)

    def _take_ours(self, change: RouteChange, place: Host) -> None:
        """Somebody else has removed a route that bears our number, or added one."""
        table = change.route.table
        host = self._wanted.get((table, place.address))
        if not change.gone:
            if place == host:
                self._there[place] = table
                self._others.add(place)
            elif host is not None and change.replaced:
                self._forget(host)
                self._displace(host)
            return
        was_anothers = place in self._others
        if self._there.get(place) == table:
            self._forget(place)
        if host is None:
            return
        if place != host:  # it bore our number, and was in the place of ours
            if host not in self._there:
                self._make_so(host)
            return
        now = time.monotonic()
        wait = self._put_backs.removed(host, now, host.ifindex)
        if wait > SOON:
            self.displaced.add(host)
            self._retry_at = min(self._retry_at, now + wait)
            return
        if wait:
            self._soon[host] = None
            self._soon_at = min(self._soon_at, now + wait)
            return
        self._make_so(host)
        if host in self._there and change.sender != _BY_ITSELF and not was_anothers:
            name, address = self._name(host), IPv6Address(host.address)
            line = f"{name}: another process removes our host routes ({address}, for one); they are put back"
            mend = "If it is systemd-networkd: ManageForeignRoutes=no in networkd.conf"
            self._once.warn(f"{line}. {mend}", f"{host.ifindex} removed", **about_host(host, name))

    def _forget(self, host: Host) -> None:
        """The kernel doesn't have its route any more."""
        self._there.pop(host, None)
        self._others.discard(host)

    def _displace(self, host: Host) -> None:
        """Somebody else's route is in the place of ours."""
        if host not in self.displaced:
            self.displaced.add(host)
            self._say_foreign(host)

    def _say_foreign(self, host: Host) -> None:
        name, address = self._name(host), IPv6Address(host.address)
        line = f"{name}: another route is in the place of the host route to {address}, and stays"
        see = f"ip -6 route show table all {address}"
        self._once.warn(f"{line}: see {see}", f"{host.ifindex} another", **about_host(host, name))

    def _name(self, host: Host) -> str:
        return self._names.get(host.ifindex, str(host.ifindex))

    # --- in slices ---

    def tick(self, now: float) -> None:
        """Go on with what is left to do, and try again what was refused."""
        if self._watch.unfinished:
            self.on_change()
        if not self._knows:
            return
        if self._unread and self._reading is None and now >= self._read_at:
            self._unread, self._reading = False, self._read()
            self._read_at = now + _AGAIN
        if self.displaced and now >= self._retry_at:
            self._retry_at = float("inf")
            self._later(self.displaced)
        if now >= self._soon_at:
            self._later(self._soon)
            self._soon.clear()
            self._soon_at = float("inf")
        self._work()
        self._schedule()

    def _read(self) -> Iterator[None]:
        """What of ours the kernel has, after announcements were lost; in steps that take less than SLICE each. What
        changes meanwhile, by others' hands or by ours, is known better than what is read of it.
        """
        self._changed_meanwhile = set()
        found: dict[Host, int] = {}
        try:
            for piece in self._watch.routes():
                found.update(piece)
                yield
        except Overflow:
            self._unread = True
            return
        except MachineError as error:
            self._unread = True
            self._once.warn(f"{error}; trying again every {_AGAIN:.0f} s", error=str(error))
            return
        for host, table in found.items():
            # others are another daemon's, which may have come after us: a dead one's were taken over at the start
            if host not in self._changed_meanwhile and (host in self or host in self._there):
                if host not in self._there and self._memory is not None and not self._memory.left_routes:
                    self._others.add(host)
                self._there[host] = table
                self._make_so(host)
                yield
        for host in self._there.keys() - found.keys() - self._changed_meanwhile:
            self._forget(host)
            self._make_so(host)
            yield

    def _later(self, hosts: Iterable[Host]) -> None:
        self._todo.update(dict.fromkeys(hosts))

    def _work(self) -> None:
        deadline = time.monotonic() + SLICE
        for _ in self._reading or ():
            if time.monotonic() >= deadline:
                return
        self._reading = None
        while self._todo:
            host, _ = self._todo.popitem()
            self._make_so(host)
            if time.monotonic() >= deadline:
                return

    def _schedule(self) -> None:
        now = time.monotonic()
        if self.displaced and self._retry_at == float("inf"):
            self._retry_at = now + LATER
        times: Iterator[float] = (
            due
            for due, is_due in (
                (now, self._watch.unfinished),
                (now, self._knows and (bool(self._todo) or self._reading is not None)),
                (max(now, self._read_at), self._knows and self._unread),
                (self._retry_at, self._knows and bool(self.displaced)),
                (self._soon_at, self._knows and bool(self._soon)),
            )
            if is_due
        )
        self.due = min(times, default=None)
