# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour`: which hosts are there. The kernel's word is weighed, and goes into the map and the routes."""

from __future__ import annotations

import gc
import secrets
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address

from npd6_xdp.core.config import Limits
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.loops import Loops, about_other_proxy
from npd6_xdp.core.neighbour_messages import CONFIRMED, LOOKED_AFTER, PRESENT, NeighbourState, Word
from npd6_xdp.core.neighbours import Host, Neighbours, PresentTarget
from npd6_xdp.core.pending import Pending
from npd6_xdp.core.places import Places
from npd6_xdp.core.steps import Steps
from npd6_xdp.core.table import Decision, Rule
from npd6_xdp.daemon.gate import Gate
from npd6_xdp.daemon.host_routes import HostRoutes
from npd6_xdp.daemon.in_force import NOTHING, InForce
from npd6_xdp.daemon.led_hosts import LedHosts
from npd6_xdp.daemon.lines import Once
from npd6_xdp.daemon.resync import TICK, Resync
from npd6_xdp.daemon.turns import SLICE
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.netlink.neighbours import NeighbourWatch
from npd6_xdp.system.netlink.nlsocket import Overflow
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.system.sysctl import Memory

_FROZEN = 2048  # more hosts and targets, after which the garbage collector is told that they stay
_VOUCHED = NeighbourState.PERMANENT | LOOKED_AFTER  # what somebody says who knows better than the wire


class Hosts:
    """The hosts that are there. `pending` has who waits for one, and `late` sends the answer to those.

    `memory` is what host routes leave to a successor (system/sysctl.py).
    """

    def __init__(
        self,
        ns_filter: NsFilter,
        requests: Requests,
        pending: Pending,
        late: Callable[[NsEvent], None],
        memory: Memory | None,
        once: Once,
        gate: Gate,
    ) -> None:
        self.watch = NeighbourWatch()
        self.neighbours = Neighbours(Limits().neighbours)
        self.routes = HostRoutes(requests, memory)
        self._ns_filter = ns_filter
        self._pending = pending
        self._late = late
        self._once = once
        self._gate = gate
        self.places = Places()
        self._loops = Loops(secrets.randbelow)
        self.led = LedHosts(self.routes, self.neighbours, self.places)
        self._resync = Resync(lambda: self.watch, requests, self.places, pending, once, self._on_word, self._resolve)
        self._in_force = NOTHING
        self._needed = False  # whether the table in force has any use for hosts
        self._frozen = 0
        self._look_at: float | None = None
        self._entries_hear = False
        self._routes_unsettled = True
        self._distrusts = False  # another proxy was found, whose hosts are to be taken back
        self._settling: Steps[None] | None = None  # what the table in force doesn't ask for is being forgotten
        self._taken: set[Host] = set()  # hosts of which something was said meanwhile

    def close(self, *, leave: bool = False) -> None:
        """Let go of the sockets, and take our host routes back, or leave them to a successor."""
        self.routes.close(leave=leave)
        self.watch.close()

    @property
    def due(self) -> float | None:
        """When to call tick() (seconds, monotonic); None: there is nothing to do."""
        unsettled = self._needed and (self._distrusts or self.places.unsettled)
        if self._resync.is_under_way or self._settling is not None or self.watch.unfinished or unsettled:
            return 0.0  # go on at once
        places = self.places.due if self._needed else None
        times = (self.routes.due, places, self._loops.due, self._look_at, self.led.due)
        return min((due for due in times if due is not None), default=None)

    def reopen(self) -> None:
        """Other sockets, because something is wrong with these; what they may have told is read anew."""
        before, self.watch = self.watch, NeighbourWatch()
        before.close()
        self.watch.listen(wanted=before.listening)
        self.routes.reopen()
        self._resync.begin()
        self._schedule(time.monotonic())

    # --- table ---

    def expecting(self, new: InForce) -> Steps[None]:
        """What the map is to know by a table to be in force, bit by bit. Raises MachineError: it can't hear of changes.

        Where that is the first that needs to know who is there, the kernel's table is read before somebody asks.
        """
        limit = new.config.limits.neighbours
        begins = Decision.NEIGHBOUR in new.table.occurring and not self.watch.listening
        self.routes.listen(wanted=new.table.host_routes)
        while begins and self._settling is not None:  # what a table before that has had known is being forgotten
            self._settle_on(0.0)
            yield
        if begins:
            capacity = self._in_force.config.limits.neighbours  # the map's
            self.neighbours.limit = limit if self._in_force is NOTHING else min(limit, capacity)
        for changes in self.neighbours.expecting(new.table, limit):
            self._set_present(changes)
            yield
        yield from self._loops.expecting(new.table)
        yield from self.places.expecting(new.table, new.vrfs)
        if begins:
            yield from self._begin(new)

    def _begin(self, new: InForce) -> Steps[None]:
        """Hear of hosts from now on, and know those that there are."""
        self._routes_unsettled = True
        self.watch.listen(wanted=True)
        self.places.use(new.table, time.monotonic(), new.vrfs)
        for states in self.places.beginning(self._resync.first(), time.monotonic()):
            for host, state in states:
                self._set_present(self.neighbours.changed(host, state))
            self._freeze()
            yield
        self._schedule(time.monotonic())

    def give_up(self) -> None:
        """The table that was expected isn't to be in force."""
        for each in (self.neighbours, self._loops, self.places):
            each.give_up()
        self.routes.listen(wanted=False)
        if (not self._needed and self._end()) or self.neighbours.unsettled:
            self._settling = self._settle(self.neighbours.touched)

    def _end(self) -> bool:
        """No rule needs the hosts any more: stop listening. Returns whether that ends anything; _settle() then forgets
        what is known, bit by bit.
        """
        self._resync.stop()
        ends = self.watch.listen(wanted=False)
        self._routes_unsettled |= ends
        return ends

    def use(self, new: InForce) -> None:
        """Go by a table from now on: the map knows what it is asked for by it."""
        before, self._in_force, table = self._in_force, new, new.table
        needed = self._needed = Decision.NEIGHBOUR in table.occurring
        tables = new.vrfs
        self.routes.use(tables, new.names, needed=needed and table.host_routes)
        self._entries_hear = any(map(table.hears, table.entries.values()))
        self.led.use(new)
        now = time.monotonic()
        self._loops.use(table)
        moved: list[tuple[Host, int]] = []
        if needed:
            # who is no other proxy any more, because no question is carried both ways, is heard again
            moved = [*self.places.use(table, now, tables), *self.places.distrust(self._loops.other_proxies, now)]
        self._set_present(self.neighbours.use(table, new.config.limits.neighbours))
        for host, state in moved:
            self._set_present(self.neighbours.changed(host, state))
        self._routes_unsettled |= bool(moved) or self.neighbours.unsettled or table.waiting != before.table.waiting
        if not new.is_but_for_roles(before):  # else one that is prepared may need to know
            self.routes.listen(wanted=False)
            if not needed:
                self._end()

    def settle(self) -> None:
        """It is in force: what it doesn't ask for is forgotten. Where that takes longer, tick() goes on with it."""
        self._settling = self._settle(self.neighbours.touched)
        self._settle_on(time.monotonic() + SLICE)
        self._schedule(time.monotonic())

    def _settle_on(self, deadline: float) -> None:
        for _ in self._settling or ():
            if time.monotonic() >= deadline:
                return
        self._settling = None
        self._taken.clear()

    def _settle(self, addresses: set[bytes]) -> Steps[None]:
        """In steps that take less than SLICE each; another table begins it anew."""
        self._taken.clear()
        self.led.touch(addresses)
        for changes in self.neighbours.dropping():
            self._set_present(changes)
            yield
        self._gate.follow()
        if self._routes_unsettled:
            yield from self.led.settle_all(self._taken)
            self._routes_unsettled = False
        self.led.settle()
        if not self._needed and not self.watch.listening:
            for changes in self.neighbours.forgetting():
                self._set_present(changes)
                yield
            yield from self.places.forgetting()

    def _set_present(self, changes: Iterable[PresentTarget]) -> None:
        for via_set, address, flags in changes:
            if flags is None:
                self._ns_filter.forget(via_set, address)
                continue
            try:
                self._ns_filter.set_present(via_set, address, flags)
            except MachineError as error:
                self.neighbours.refused += 1
                self._once.warn(f"{error}; raise limits.neighbours", target=str(IPv6Address(address)), error=str(error))

    # --- who asks ---

    def try_elsewhere(self, event: NsEvent, rule: Rule) -> bool:
        """Whether a target needn't be looked for behind us: it is on the link that the question comes from, or our own
        solicitation there has caused the question. What that tells of the link is noted.
        """
        entry = self._in_force.table.entries.get(rule.entry)
        if entry is None:
            return False
        now, mac = time.monotonic(), event.answer_mac
        here = Host(entry.l3_ifindex, event.target)
        if self._loops.is_test(event.target):
            if self._loops.heard(event.target, here.ifindex, mac, now):
                self._distrust(here.ifindex, mac)
            return True
        state = self.places.state(here)
        if state & NeighbourState.STALE:
            self.probe(here)  # if it has gone from there, the next question finds it behind us
        if state:
            return True
        if here.ifindex not in self._loops.links or (rule.via_set, event.target) in self._pending:
            return False
        if self._pending.awaits(here):
            self._loops.asks_too(here, mac, now)
            return True
        return self._loops.is_echo(here, mac, now)

    def _distrust(self, link: int, mac: bytes) -> None:
        """Another proxy was found on a link; tick() takes back its hosts, since whoever calls may be above us."""
        name = self._in_force.names.get(link, str(link))
        line = f"{name}: {about_other_proxy(mac, self._in_force.table)}"
        self._once.warn(line, kind=f"other proxies {link}", interface=name, ifindex=link)
        self._distrusts = True

    def look_for(self, host: Host) -> None:
        """Have the kernel look for a host that isn't there, as far as is known."""
        self._loops.began(host, time.monotonic())
        if self.places.has(host):
            self.probe(host)  # somebody has claimed it: at once, not in the kernel's time for what is stale
        else:
            self._resolve(host)

    def asker_heard(self, event: NsEvent, rule: Rule) -> None:
        """An asker's address is new on its link, or has another MAC address, and the kernel didn't get the frame."""
        entry = self._in_force.table.entries.get(rule.entry)
        if entry is not None:
            self.places.heard(Host(entry.l3_ifindex, event.source), event.answer_mac, time.monotonic())
            self._apply(())

    def _look_anew(self, host: Host, *, stale: bool) -> None:
        if stale or not self._looked_after(host):  # the kernel may have asked for the last time, before it was there
            self.watch.delete(host)
        self._loops.began(host, time.monotonic())
        self.watch.resolve(host)

    def _resolve(self, host: Host) -> None:
        self.watch.resolve(host, self._looked_after(host))

    def probe(self, host: Host) -> None:
        """Have the kernel ask a host whether it is there, at once."""
        self.watch.probe(host, self._looked_after(host))

    def _looked_after(self, host: Host) -> NeighbourState:
        return self.neighbours.looked_after(host) or self.places.looked_after(host)

    # --- the kernel's word ---

    def on_change(self) -> None:
        """The neighbour table changed."""
        try:
            for host, word in self.watch.take_changes(time.monotonic() + SLICE):
                self._resync.announced(host)
                self._on_word(host, word)
        except Overflow:
            self._resync.begin()
        self._freeze()
        self._gate.follow()
        self._schedule(time.monotonic())

    def _freeze(self) -> None:
        """A look of the garbage collector at 30,000 hosts, among which there is nothing to collect, takes 40 ms."""
        held = self.neighbours.held + len(self._pending)
        if held > self._frozen + _FROZEN:
            self._frozen = held
            gc.freeze()

    def _on_word(self, host: Host, word: Word) -> None:
        """The neighbour table says something of a host; what that is worth, its other places decide as well."""
        if self._loops.is_test(host.address):
            return
        now = time.monotonic()
        if word.state & PRESENT and not word.state & _VOUCHED and self._loops.is_asking(host, word.mac, now):
            word = Word(NeighbourState.FAILED)
            self.led.gone(host, for_good=True)
            self.watch.delete(host)  # a later question is to find out anew
        self._apply(self.places.changed(host, word, now))
        if word.state & NeighbourState.REACHABLE:
            self._loops.met(host.ifindex, word.mac)

    def _apply(self, states: Iterable[tuple[Host, int]]) -> None:
        for host, state in states:
            self._state_changed(host, state)
        if not self._needed:
            return  # by a table that is to come: nothing of it shows until then
        now = time.monotonic()
        for host in self.places.take_to_ask(now):
            self.watch.probe(host, self._looked_after(host), again=self.places.is_doubted(host))
        for host, stale in self.places.take_to_look_for(now):
            self._look_anew(host, stale=stale)
        for host in self.places.take_needless():
            if not self._pending.awaits(host):
                self.watch.delete(host)

    def _state_changed(self, host: Host, state: int) -> None:
        if self._settling is not None:
            self._taken.add(host)
        self._set_present(self.neighbours.changed(host, state))
        if state & PRESENT:
            self.led.there(host, state)
            self._resolved(host, state)
            return
        if self._entries_hear:
            self._ns_filter.forget_heard(host.address)  # its next word, wherever that is, tells where it has gone
        self.led.gone(host, for_good=self.places.has(host))
        if state & NeighbourState.FAILED and self._pending.failed(host):
            # the kernel would keep it for a while, and a scan would fill its table
            if not state & LOOKED_AFTER:
                self.watch.delete(host)
        elif state == NeighbourState.NONE and self._pending.awaits(host):
            self._resolve(host)  # the entry went with its link, say, and the kernel looks for it no more

    def _resolved(self, host: Host, state: int) -> None:
        if not self._pending.awaits(host):
            return
        for event in self._pending.resolved(host, confirmed=bool(state & CONFIRMED)):
            self._late(event)
        if state & NeighbourState.STALE and self._pending.awaits(host):
            self.probe(host)  # who still waits wants to know better

    # --- time ---

    def tick(self, now: float) -> None:
        """Go on with what is left to do."""
        if self.watch.unfinished:
            self.on_change()
        if self._resync.is_under_way and not self._resync.go_on(time.monotonic() + SLICE):
            self._freeze()
        if self._settling is not None:
            self._settle_on(time.monotonic() + SLICE)
        if self._needed and self._distrusts:
            self._distrusts = False
            self._apply(self.places.distrust(self._loops.other_proxies, now))
        if self._needed and self.places.unsettled:
            self._apply(self.places.settle(now))
        if self.routes.due is not None and self.routes.due <= now:
            self.routes.tick(now)
        if self._needed and self.places.due is not None and self.places.due <= now:
            self._apply(self.places.tick(now))
        if self._loops.due is not None and self._loops.due <= now:
            self._test()
        self.led.let_go(now)
        if self._look_at is not None and self._look_at <= now:
            self._look_at = None
            self._resync.begin_again()
            for host in self.led.take_silent(now):
                self.probe(host)
        self._schedule(now)

    def _schedule(self, now: float) -> None:
        """Look again in a while, if there is something to be read again, or somebody may be quiet for long."""
        if self._look_at is None and (self._resync.again or self.led.waits):
            self._look_at = now + TICK

    def _test(self) -> None:
        """Look for other proxies."""
        now = time.monotonic()
        look, needless = self._loops.take_tests(now)
        for host in look:
            self.watch.resolve(host)
        for host in needless:
            self.watch.delete(host)
        self._apply(self.places.distrust(self._loops.other_proxies, now))
