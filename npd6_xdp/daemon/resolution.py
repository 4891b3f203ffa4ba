# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour` at work: the neighbour table into the kernel map, and targets that aren't in it resolved."""

from __future__ import annotations

import errno
import gc
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv6Address

from npd6_xdp.core.config import Limits
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.event import EventTags, NsEvent
from npd6_xdp.core.loops import Loops
from npd6_xdp.core.neighbour_messages import CONFIRMED, LOOKED_AFTER, PRESENT, NeighbourState
from npd6_xdp.core.neighbours import Host, Known, Neighbours, Quiet
from npd6_xdp.core.pending import Asker, Pending
from npd6_xdp.core.places import Places, Word
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.core.table import Decision, Match, Rule, Table
from npd6_xdp.core.table_room import TableRoom
from npd6_xdp.core.verdict import Method, Outcome
from npd6_xdp.daemon.host_routes import HostRoutes
from npd6_xdp.daemon.in_force import NO_TABLE, Change, Follower, InForce
from npd6_xdp.daemon.lines import Once
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.system.bpf.datapath import Datapath
from npd6_xdp.system.netlink.neighbours import NeighbourWatch
from npd6_xdp.system.netlink.nlsocket import Overflow
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.system.sysctl import Memory

log = logging.getLogger("npd6-xdp")

_TICK = 1.0  # seconds between two looks at what is under way
_SLICE = 0.005  # seconds that the loop is held for at most: what changed in thousands is taken in between its turns
_BIT = 128  # hosts that the table is asked about at once
_GIVEN_UP = 1024  # targets that are given up at once
_QUIET = 120.0  # seconds for which a host that has a route may be stale before it is asked
_QUIET_PER_SECOND = 10  # of those that are asked
_FROZEN = 2048  # more hosts and targets, after which the garbage collector is told that they stay
_VOUCHED = NeighbourState.PERMANENT | LOOKED_AFTER  # what somebody says who knows better than the wire
_CROWDING_PAUSE = 10  # times what it took to say who crowds, before it is said anew


class Resolution(Follower):
    """Which hosts are there, and who waits for which. `late` sends an answer to one who has waited.

    `memory` is HostRoutes'. `look_for_guests` is called before a target is looked for: one of them may have it.
    """

    def __init__(
        self,
        datapath: Datapath,
        requests: Requests,
        late: Callable[[NsEvent], None],
        memory: Memory | None = None,
        look_for_guests: Callable[[], None] = lambda: None,
    ) -> None:
        self._datapath = datapath
        self._requests = requests
        self._late = late
        self._look_for_guests = look_for_guests
        self._watch = NeighbourWatch()
        self._limits = Limits()
        self._neighbours = Neighbours(self._limits.neighbours)
        self._places = Places()
        self._loops = Loops(secrets.randbelow)
        self._names: Mapping[int, str] = {}
        self._pending = Pending()
        self._quiet = Quiet(_QUIET, _QUIET_PER_SECOND)
        self._table = NO_TABLE
        self._routes = HostRoutes(requests, memory)
        self._room = TableRoom(self._limits.pending)
        self.has_news = False
        """Whether warnings() has one more."""
        self._once = Once()
        self._tick_at: float | None = None
        self._frozen = 0
        self._hears = False
        self._gate_not_before = 0.0
        self._gate_waits = False
        self._reading: Iterator[None] | None = None
        self._read_again = False
        self._routes_unsettled = True
        self._settling: Steps[None] | None = None  # what the table in force doesn't ask for is being forgotten
        self._taken: set[Host] = set()  # hosts of which something was said meanwhile
        self._changed_meanwhile: set[Host] = set()

    def close(self) -> None:
        """Let go of the sockets, and take our host routes back."""
        self._routes.close()
        self._watch.close()

    def join(self, loop: Loop) -> None:
        """Have the loop wait for the kernel's word, and go on with what is under way."""
        self._loop = loop
        self._wait()
        loop.renew("neighbours", self._renew)
        loop.at(lambda: self.due, self.tick, "neighbours")

    def _wait(self) -> None:
        for fd, call in self.readable():
            self._loop.add(fd, call, "neighbours")

    def _renew(self) -> None:
        for fd, _ in self.readable():
            self._loop.remove(fd)
        self.reopen()
        self._wait()

    def readable(self) -> tuple[tuple[int, Callable[[], None]], ...]:
        """File descriptors, with what is to be called where they are readable."""
        return (
            (self._watch.fileno(), self.on_change),
            (self._watch.refusals_fileno(), self.on_refusal),
            (self._routes.fileno(), self._routes.on_change),
        )

    @property
    def due(self) -> float | None:
        """When to call tick() (seconds, monotonic); None: there is nothing to do."""
        if self._reading is not None or self._settling is not None or self._watch.unfinished:
            return 0.0  # go on at once
        gate = self._gate_not_before if self._gate_waits else None
        dues = (self._tick_at, self._routes.due, gate, self._places.due, self._loops.due)
        return min((due for due in dues if due is not None), default=None)

    def reopen(self) -> None:
        """Other sockets, because something is wrong with these; what they may have told is read anew."""
        self._watch.close()
        self._watch = NeighbourWatch()
        self._watch.listen(wanted=Decision.NEIGHBOUR in self._table.kinds)
        self._routes.reopen()
        self._read_anew()
        self._schedule(time.monotonic())

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

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        """What the map is to know by the table, a bit at a time."""
        if new.table is self._table:
            return
        change.undo.callback(self._give_up)
        for changes in self._neighbours.expecting(new.table, new.config.limits.neighbours):
            self._know(changes)
            yield

    def _give_up(self) -> None:
        """The table that was prepared isn't to be in force."""
        self._neighbours.give_up()
        if self._neighbours.unsettled:
            self._settling = self._settle(self._neighbours.touched)

    def apply(self, new: InForce) -> None:
        """The map knows what it is asked for by the table."""
        table, limits, links = new.table, new.config.limits, new.links
        self._table, self._limits = table, limits
        needed = Decision.NEIGHBOUR in table.kinds
        begins = self._watch.listen(wanted=needed)
        entries = table.live(Decision.NEIGHBOUR)
        self._hears = any(map(table.hears, table.entries.values()))
        self._pending.alone = len(entries) < 2
        names = self._names = new.names
        tables = {link.ifindex: link.table for link in links.values() if link.table}
        routed = needed and table.host_routes
        self._routes.use(tables, names, needed=routed)
        now = time.monotonic()
        self._loops.use(table)
        # who is no peer any more, because no question is carried both ways, is heard again
        moved = [*self._places.use(table, now, tables), *self._places.distrust(self._loops.peers, now)]
        self._know(self._neighbours.use(table, limits.neighbours))
        for host, state in moved:
            self._know(self._neighbours.changed(host, state))
        self._routes_unsettled |= begins or bool(moved) or self._neighbours.unsettled
        if begins:  # all at once, since who is there must be known before somebody asks
            self._reading = None
            self._know(self._neighbours.resync(self._places.restart(self._words() if needed else {}, now)))
        if needed:
            self._size(time.monotonic())

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """What the table doesn't ask for is forgotten. Those who wait by rules that are gone are dealt with anew.

        Where that takes longer, tick() goes on with it.
        """
        without_rule = self._pending.forget(self._table)
        self._gate()
        self._settling = self._settle(self._neighbours.touched)
        self._settle_on()
        for event in without_rule:
            self.ask_again(event, old.table)
        yield from ()

    def ask_again(self, event: NsEvent, before: Table) -> None:
        """One who waits for a target, by a rule of the table before: what does the one in force say?"""
        asked = before.rules.get(event.rule)
        if asked is None:
            return  # two tables followed each other faster than the event was read
        match = self._table.lookup(asked.entry, IPv6Address(event.target))
        rule = self._table.rules.get(match.rule) if isinstance(match, Match) else None
        if rule is None or rule.decision is Decision.IGNORE:
            return
        event = event._replace(rule=rule.id)
        if rule.method is not Method.NEIGHBOUR or self.ask(event, rule) is None:
            self._late(event)

    def _settle_on(self) -> None:
        deadline = time.monotonic() + _SLICE
        for _ in self._settling or ():
            if time.monotonic() >= deadline:
                return
        self._settling = None
        self._taken.clear()

    def _settle(self, addresses: set[bytes]) -> Steps[None]:
        """In steps that take less than _SLICE each; another table begins it anew."""
        self._taken.clear()
        touched = self._neighbours.at(addresses)
        for changes in self._neighbours.dropping():
            self._know(changes)
            yield
        self._gate()
        if self._routes_unsettled:
            yield from self._settle_routes()
            self._routes_unsettled = False
        for host in touched:
            if not self._table.host_route_wanted(*_host(host)):
                self._routes.remove(host)
            elif host not in self._routes and self._neighbours.state(host):
                self._lead_to(host)

    def _settle_routes(self) -> Steps[None]:
        wanted: set[Host] = set()
        for some in pieces(self._neighbours.covered(), _BIT):
            wanted.update([host for host in some if self._table.host_route_wanted(*_host(host))])
            yield
        for host in self._taken:  # what has been said of it meanwhile is younger
            here = self._neighbours.state(host) and self._table.host_route_wanted(*_host(host))
            (wanted.add if here else wanted.discard)(host)
        self._routes.keep_only(wanted)
        yield
        now = time.monotonic()
        for some in pieces(tuple(wanted), _BIT):
            for host in some:
                if (state := self._neighbours.state(host)) and host in wanted:
                    self._lead_to(host)
                    self._hear(host, state, now)
            yield
        self._schedule(now)

    def _hear(self, host: Host, state: int, now: float) -> None:
        """A host that has a route is in a state; who looks after its entry asks it himself."""
        if not state & LOOKED_AFTER:
            self._quiet.heard(host, state, now)

    def _know(self, changes: Iterable[Known]) -> None:
        for group, address, flags in changes:
            if flags is None:
                self._datapath.forget(group, address)
                continue
            try:
                self._datapath.know(group, address, flags)
            except MachineError as error:
                self._neighbours.refused += 1
                self._once.warn(f"{error}; raise limits.neighbours")

    # --- solicitations ---

    def handle(self, event: NsEvent, rule: Rule) -> Outcome | None:
        """An event of a rule of method neighbour. None: its target is there, answer."""
        if event.tags & EventTags.MISS:
            self._look_for_guests()
            return self.ask(event, rule)
        return self.defend(event, rule) if event.is_dad else None

    def notice(self, event: NsEvent, rule: Rule) -> None:
        """What the XDP program wants to be known besides, of an event of any rule."""
        if event.tags & EventTags.HEARD:
            self.heard(event, rule)
        if event.tags & EventTags.STALE:
            self.confirm(event, rule)

    def ask(self, event: NsEvent, rule: Rule) -> Outcome | None:
        """A target is asked for that the map doesn't know. None: it is there, answer."""
        if any(self._neighbours.interfaces(rule.group, event.target)):
            return self.defend(event, rule) if event.is_dad else None
        vias = self._table.vias.get(rule.group)
        if not vias:
            return Outcome.ABSENT
        if self._is_elsewhere(event, rule):
            return Outcome.ABSENT
        if (rule.group, event.target) not in self._pending and self._neighbours.full:
            self._once.warn(
                f"limits.neighbours: {self._limits.neighbours} hosts are there; no further ones are resolved"
            )
            return Outcome.RATE_LIMITED
        return self._await(event, rule, vias, self._look_for)

    def _is_elsewhere(self, event: NsEvent, rule: Rule) -> bool:
        """Whether a target needn't be looked for behind us: it is where the question comes from, or the question comes
        of one that we have asked there.
        """
        entry = self._table.entries.get(rule.entry)
        if entry is None:
            return False
        now, mac = time.monotonic(), event.eth_destination
        here = Host(entry.l3_ifindex, event.target)
        if self._loops.is_test(event.target):
            if self._loops.heard(event.target, here.ifindex, mac, now):
                self._distrust(here.ifindex, mac)
            return True
        state = self._places.state(here)
        if state & NeighbourState.STALE:
            self._confirm(here)  # if it has gone from there, the next question finds it behind us
        if state:
            return True
        if here.ifindex not in self._loops.links or (rule.group, event.target) in self._pending:
            return False
        if self._pending.awaits(here):
            self._loops.asks_too(here, mac, now)
            return True
        return self._loops.is_echo(here, mac, now)

    def _distrust(self, link: int, mac: bytes) -> None:
        """Another proxy was found on a link."""
        name, other = self._names.get(link, str(link)), mac.hex(":")
        if any(each.mac == mac for each in self._table.entries.values()):
            what = "that is this machine, so two of its interfaces are on one link: it can't tell who is behind which"
        else:
            what = "it is another proxy between the same links, so what it answers there isn't taken for a host"
        self._once.warn(f"{name}: {other} asks for what is asked for elsewhere: {what}", kind=f"peers {link}")
        self._apply(self._places.distrust(self._loops.peers, time.monotonic()))

    def _look_for(self, host: Host) -> None:
        self._loops.began(host, time.monotonic())
        if self._places.has(host):
            self._confirm(host)  # somebody has claimed it: at once, not in the kernel's time for what is stale
        else:
            self._probe(host)

    def defend(self, event: NsEvent, rule: Rule) -> Outcome | None:
        """Somebody wants a target's address, which the neighbour table has. None: its host is there, answer.

        Where that is an old entry's word, the host is asked first: else the address of one that has gone could be
        nobody's any more (RFC 6957 §4.2).
        """
        if self._neighbours.is_confirmed(rule.group, event.target):
            return None
        vias = tuple(self._neighbours.interfaces(rule.group, event.target))
        if not vias:
            return self.ask(event, rule)  # it has gone since
        return self._await(event, rule, vias, self._confirm)

    def _await(self, event: NsEvent, rule: Rule, vias: Iterable[int], look: Callable[[Host], None]) -> Outcome:
        """Have an asker wait until the kernel says that a target is there."""
        if (rule.group, event.target) not in self._pending and not self._pending.has_room_for(
            Asker(rule.entry, event.eth_destination), self._room.targets
        ):
            return Outcome.RATE_LIMITED
        now = time.monotonic()
        places = self._pending.add(rule.group, event, vias, now, rule.entry)
        if places is None:
            return Outcome.RATE_LIMITED
        for host in places:
            look(host)
        self.has_news |= self._room.used(len(self._pending), now)
        self._schedule(now)
        self._gate()
        return Outcome.PENDING

    def confirm(self, event: NsEvent, rule: Rule) -> None:
        """A stale host was asked for: have the kernel probe it. If it fails, the host is forgotten."""
        for ifindex in self._neighbours.interfaces(rule.group, event.target):
            # at once: nobody confirms the hosts of a router but their own answers, so to wait for that gains nothing
            self._confirm(Host(ifindex, event.target))

    def heard(self, event: NsEvent, rule: Rule) -> None:
        """Whoever asks is new where it does, or has another MAC address, and the kernel isn't told by its question."""
        entry = self._table.entries.get(rule.entry)
        if entry is not None:
            self._places.heard(Host(entry.l3_ifindex, event.source), event.eth_destination, time.monotonic())
            self._apply(())

    def _look_anew(self, host: Host, *, stale: bool) -> None:
        if stale:
            self._watch.delete(host)
        self._loops.began(host, time.monotonic())
        self._watch.probe(host)

    def _probe(self, host: Host) -> None:
        self._watch.probe(host, self._looked_after(host))

    def _confirm(self, host: Host) -> None:
        self._watch.confirm(host, self._looked_after(host))

    def _looked_after(self, host: Host) -> NeighbourState:
        return self._neighbours.looked_after(host) or self._places.looked_after(host)

    # --- the kernel's word ---

    def on_change(self) -> None:
        """The neighbour table changed."""
        try:
            for host, word in self._watch.changes(time.monotonic() + _SLICE):
                if self._reading is not None:
                    self._changed_meanwhile.add(host)
                self._hear_of(host, word)
        except Overflow:
            self._read_anew()
        self._freeze()
        self._gate()
        self._schedule(time.monotonic())

    def _read_anew(self) -> None:
        """Notifications were lost: what they would have said is read, a piece at a time."""
        if self._reading is None:
            self._reading, self._read_again = self._read(), False
        else:
            self._read_again = True  # when what is under way has ended

    def _read(self) -> Iterator[None]:
        """Take in the whole neighbour table, in steps that take less than _SLICE each.

        What changes meanwhile is announced as ever, and then what is read of it may be older.
        """
        self._changed_meanwhile = set()
        there: set[Host] = set()
        try:
            for piece in self._watch.table():
                for host, word in piece:
                    there.add(host)
                    if host not in self._changed_meanwhile:
                        self._hear_of(host, word)
                    yield
                yield
            for host in self._places.hosts():
                if host not in there and host not in self._changed_meanwhile:
                    # one that shares a bucket with it may have gone just when a piece ended there: then it was skipped
                    self._hear_of(host, self._requests.neighbour(host))
                yield
        except Overflow:
            self._read_again = True
            return
        except MachineError as error:
            self._read_again = True
            self._once.warn(f"{error}; trying again every {_TICK:.0f} s")
            return
        for key in self._pending.targets():
            for host in self._pending.places(*key):
                if host not in there and host not in self._changed_meanwhile:
                    self._probe(host)
            yield

    def _read_on(self) -> None:
        deadline = time.monotonic() + _SLICE
        reading = self._reading
        for _ in reading or ():
            if time.monotonic() >= deadline:
                self._freeze()
                return
        self._reading, self._changed_meanwhile = None, set()

    def _freeze(self) -> None:
        """A look of the garbage collector at 30,000 hosts, among which there is nothing to collect, takes 40 ms."""
        held = self._neighbours.held + len(self._pending)
        if held > self._frozen + _FROZEN:
            self._frozen = held
            gc.freeze()

    def _words(self) -> dict[Host, Word]:
        """The neighbour table; what is known of it where the kernel doesn't tell, and then it is asked again."""
        try:
            return self._requests.neighbours()
        except MachineError as error:
            self._read_again = True
            self._once.warn(f"{error}; trying again every {_TICK:.0f} s")
            return self._places.words()

    def _hear_of(self, host: Host, word: Word) -> None:
        """The neighbour table says something of a host; what that is worth, its other places decide as well."""
        if self._loops.is_test(host.address):
            return
        now = time.monotonic()
        if word.state & PRESENT and not word.state & _VOUCHED and self._loops.is_asking(host, word.mac, now):
            word = Word(NeighbourState.FAILED)
            self._watch.delete(host)  # a later question is to find out anew
        self._apply(self._places.changed(host, word, now))
        if word.state & NeighbourState.REACHABLE:
            self._loops.met(host.ifindex, word.mac)

    def _apply(self, states: Iterable[tuple[Host, int]]) -> None:
        for host, state in states:
            self._take(host, state)
        now = time.monotonic()
        for host in self._places.to_ask(now):
            self._confirm(host)
        for host, stale in self._places.to_look_for(now):
            self._look_anew(host, stale=stale)
        for host in self._places.needless():
            if not self._pending.awaits(host):
                self._watch.delete(host)

    def _take(self, host: Host, state: int) -> None:
        if self._settling is not None:
            self._taken.add(host)
        self._know(self._neighbours.changed(host, state))
        if state & PRESENT:
            if host not in self._routes and self._table.host_route_wanted(*_host(host)):
                self._lead_to(host)
            if host in self._routes:
                self._hear(host, state, time.monotonic())
            self._resolved(host, state)
            return
        if self._hears:
            self._datapath.forget_heard(host.address)  # its next word, wherever that is, tells where it has gone
        self._quiet.forget(host)
        if host in self._routes:
            self._routes.remove(host)
            for place in self._elsewhere(host):
                if self._neighbours.state(place) and self._table.host_route_wanted(*_host(place)):
                    self._lead_to(place)
        if state & NeighbourState.FAILED and self._pending.failed(host):
            # the kernel would keep it for a while, and a scan would fill its table
            if not state & LOOKED_AFTER:
                self._watch.delete(host)
        elif state == NeighbourState.NONE and self._pending.awaits(host):
            self._probe(host)  # the entry went with its link, say, and the kernel looks for it no more

    def _resolved(self, host: Host, state: int) -> None:
        if not self._pending.awaits(host):
            return
        for event in self._pending.resolved(host, confirmed=bool(state & CONFIRMED)):
            self._late(event)
        if state & NeighbourState.STALE and self._pending.awaits(host):
            self._confirm(host)  # who still waits wants to know better

    def on_refusal(self) -> None:
        """The kernel doesn't resolve what it was asked to."""
        for host, code in self._watch.refusals(time.monotonic() + _SLICE):
            self._pending.failed(host)
            if code == errno.ENOBUFS:
                self.has_news |= not self._room.is_full(now := time.monotonic())
                self._room.refused(now)
        self._gate()

    # --- bounds ---

    def tick(self, now: float) -> None:
        """Go on with what is left to do, and give up what has taken too long."""
        if self._watch.unfinished:
            self.on_change()
        if self._reading is not None:
            self._read_on()
        if self._settling is not None:
            self._settle_on()
        if self._routes.due is not None and self._routes.due <= now:
            self._routes.tick(now)
        if self._places.due is not None and self._places.due <= now:
            self._apply(self._places.tick(now))
        if self._loops.due is not None and self._loops.due <= now:
            self._test()
        if self._tick_at is not None and self._tick_at <= now:
            self._tick_at = None
            if not self._pending.expire(now, _GIVEN_UP):
                self._tick_at = now
            if len(self._pending) and self._room.is_old(now):
                self._size(now)
            if self._read_again and self._reading is None:
                self._read_anew()
            for host in self._quiet.take(now):
                if host in self._routes:
                    self._confirm(host)
                else:
                    self._quiet.forget(host)
        self._schedule(now)
        self._gate()

    def _test(self) -> None:
        """Look for other proxies."""
        now = time.monotonic()
        look, needless = self._loops.tests(now)
        for host in look:
            self._watch.probe(host)
        for host in needless:
            self._watch.delete(host)
        self._apply(self._places.distrust(self._loops.peers, now))

    def _schedule(self, now: float) -> None:
        """Look again in a while, if there is anything to look after."""
        if self._tick_at is None and (len(self._pending) or self._read_again or len(self._quiet)):
            self._tick_at = now + _TICK

    def _size(self, now: float) -> None:
        """How many targets may be under way at once, by what the kernel's table has room for."""
        entries, thresholds = 0, None
        with suppress(MachineError):  # it is asked again; limits.pending holds until then
            entries, thresholds = self._requests.neighbour_table_size() or (0, None)
        self._room.sized(self._limits.pending, entries - len(self._pending), thresholds, now)

    @property
    def room(self) -> tuple[int, int] | None:
        """How many targets may be under way at once, and limits.pending; None: no rule has any resolved."""
        return (self._room.targets, self._room.limit) if Decision.NEIGHBOUR in self._table.kinds else None

    def warnings(self) -> list[str]:
        """What there is to say of the kernel's table; it is asked again where that may no longer be so."""
        self.has_news = False
        if Decision.NEIGHBOUR not in self._table.kinds:
            return []
        now = time.monotonic()
        if self._room.warns(now) and self._room.is_old(now):
            self._size(now)
        return self._room.warnings(now)

    def _gate(self) -> None:
        """Tell the XDP program whom it is to refuse by itself. Python would refuse them, too, at a higher price."""
        self._datapath.set_resolving_full(len(self._pending) >= self._room.targets)
        began = time.monotonic()
        self._gate_waits = began < self._gate_not_before
        if not self._gate_waits:
            self._datapath.set_crowding(self._pending.crowding(self._room.targets))
            ended = time.monotonic()
            self._gate_not_before = ended + _CROWDING_PAUSE * (ended - began)

    # --- host routes ---

    def _lead_to(self, host: Host) -> None:
        """A host that is to have a route is there; if it is elsewhere, too, where it was seen last counts."""
        elsewhere = self._routes.leads_to(host)
        if elsewhere is None or _is_fresher(self._neighbours.state(host), self._neighbours.state(elsewhere)):
            self._routes.add(host)

    def _elsewhere(self, host: Host) -> list[Host]:
        """The places behind other via interfaces that the host may be at, or have been at, too."""
        vias = {ifindex for ifindexes in self._table.vias.values() for ifindex in ifindexes}
        return [Host(ifindex, host.address) for ifindex in sorted(vias - {host.ifindex})]


def _is_fresher(state: NeighbourState, than: NeighbourState) -> bool:
    """Whether a host is rather where the neighbour table says `state`: it has moved, and the other entry is old."""
    confirmed = NeighbourState.REACHABLE | NeighbourState.PERMANENT
    return not than or bool(state & confirmed and not than & confirmed)


def _host(host: Host) -> tuple[int, IPv6Address]:
    return host.ifindex, IPv6Address(host.address)
