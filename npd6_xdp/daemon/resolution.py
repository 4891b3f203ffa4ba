# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour` at work: a target that isn't known becomes pending, and who asked for it waits."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from ipaddress import IPv6Address

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.event import EventFlag, NsEvent
from npd6_xdp.core.neighbour_messages import NeighbourState
from npd6_xdp.core.neighbours import Host, Neighbours
from npd6_xdp.core.pending import NOBODY, Asker, Pending
from npd6_xdp.core.steps import Steps
from npd6_xdp.core.table import Decision, Match, Rule, Table
from npd6_xdp.core.table_space import TableSpace
from npd6_xdp.core.verdict import Limit, Method, Outcome
from npd6_xdp.daemon.gate import Gate
from npd6_xdp.daemon.host_routes import HostRoutes
from npd6_xdp.daemon.hosts import Hosts
from npd6_xdp.daemon.in_force import NOTHING, Change, Follower, InForce
from npd6_xdp.daemon.lines import Once
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.resync import TICK
from npd6_xdp.daemon.turns import SLICE
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.system.sysctl import Memory

_GIVEN_UP = 1024  # targets that are given up at once


class Resolution(Follower):
    """Who waits for which target, until Hosts has it. `late` sends an answer to one who has waited.

    `memory` is what host routes leave to a successor (system/sysctl.py). `look_for_guests` is called before a target is
    looked for: one of them may have it.
    """

    def __init__(
        self,
        ns_filter: NsFilter,
        requests: Requests,
        late: Callable[[NsEvent], None],
        memory: Memory | None = None,
        look_for_guests: Callable[[], None] = lambda: None,
    ) -> None:
        self._ns_filter = ns_filter
        self._requests = requests
        self._late = late
        self._look_for_guests = look_for_guests
        self._pending = Pending()
        self._once = Once()
        self._space = TableSpace(NOTHING.config.limits.pending)
        self._gate = Gate(ns_filter, self._pending, self._space)
        self._hosts = Hosts(ns_filter, requests, self._pending, late, memory, self._once, self._gate)
        self._in_force = NOTHING
        self.has_news = False
        """Whether take_news() has one more."""
        self._tick_at: float | None = None

    def close(self, *, leave: bool = False) -> None:
        """Let go of the sockets, and take our host routes back, or leave them to a successor."""
        self._hosts.close(leave=leave)

    def join(self, loop: Loop) -> None:
        """Have the loop wait for the kernel's word, and go on with what is under way."""
        loop.watch("neighbours", self.readable, self.reopen)
        loop.at(lambda: self.due, self.tick, "neighbours")

    def readable(self) -> tuple[tuple[int, Callable[[], None]], ...]:
        """File descriptors, with what is to be called where they are readable."""
        return (
            (self._hosts.watch.fileno(), self._hosts.on_change),
            (self._hosts.watch.refusals_fileno(), self.on_refusal),
            (self.routes.fileno(), self.routes.on_change),
        )

    @property
    def due(self) -> float | None:
        """When to call tick() (seconds, monotonic); None: there is nothing to do."""
        times = (self._tick_at, self._gate.due, self._hosts.due)
        return min((due for due in times if due is not None), default=None)

    def reopen(self) -> None:
        """Other sockets, because something is wrong with these; what they may have told is read anew."""
        self._hosts.reopen()

    @property
    def neighbours(self) -> Neighbours:
        """The hosts that are there."""
        return self._hosts.neighbours

    @property
    def pending(self) -> Pending:
        """The pending targets."""
        return self._pending

    @property
    def routes(self) -> HostRoutes:
        """The host routes of ours."""
        return self._hosts.routes

    # --- one target, for who asks what is known of it ---

    def places_of(self, address: bytes, ifindexes: Iterable[int]) -> dict[int, tuple[NeighbourState, bool]]:
        """What the neighbour table says of an address on those of some links where it has it; whether that counts."""
        places, found = self._hosts.places, dict[int, tuple[NeighbourState, bool]]()
        for ifindex in ifindexes:
            host = Host(ifindex, address)
            if state := places.state(host):
                found[ifindex] = state, True
            elif places.has(host):
                found[ifindex] = NeighbourState.NONE, False
        return found

    def away_at(self, address: bytes) -> list[int]:
        """Behind which interfaces a host with this address was that is away: its route is kept."""
        return [host.ifindex for host in self._hosts.led.away_at(address)]

    def refuses(self, entry: int, mac: bytes) -> Limit | None:
        """Which limit is in the way of one more target of an asker's, by his MAC address (6 bytes; b"": anybody's)."""
        if len(self._pending) >= self._space.targets:
            return Limit.PENDING
        return None if self._pending.has_space_for(Asker(entry, mac or NOBODY), self._space.targets) else Limit.CROWDED

    # --- table ---

    @property
    def _resolves(self) -> bool:
        """Whether any rule has targets resolved."""
        return Decision.NEIGHBOUR in self._in_force.table.occurring

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        """What the map is to know by the table, a bit at a time."""
        if new.table is self._in_force.table:
            return
        change.undo.callback(self._hosts.give_up)
        yield from self._hosts.expecting(new)

    def apply(self, new: InForce) -> None:
        """The map knows what it is asked for by the table."""
        self._in_force = new
        self._pending.alone = len(new.table.live(Decision.NEIGHBOUR)) < 2
        self._hosts.use(new)

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """What the table doesn't ask for is forgotten. Those who wait by rules that are gone are dealt with anew.

        Where that takes longer, tick() goes on with it.
        """
        without_rule = self._pending.forget(self._in_force.table)
        self._gate.follow()
        self._hosts.settle()
        for event in without_rule:
            self.ask_again(event, old.table)
        if self._resolves:
            yield  # the kernel tells of the table of each interface as well: 20 ms of 4,000
            self._size(time.monotonic())

    def ask_again(self, event: NsEvent, before: Table) -> None:
        """One who waits for a target, by a rule of the table before: what does the one in force say?"""
        asked = before.rules.get(event.rule)
        if asked is None:
            return  # two tables followed each other faster than the event was read
        table = self._in_force.table
        match = table.lookup(asked.entry, IPv6Address(event.target))
        rule = table.rules.get(match.rule) if isinstance(match, Match) else None
        if rule is None or rule.decision is Decision.IGNORE or table.on_standby(rule.entry):
            return
        event = event._replace(rule=rule.id)
        if rule.method is not Method.NEIGHBOUR or self.ask(event, rule) is None:
            self._late(event)

    # --- solicitations ---

    def handle(self, event: NsEvent, rule: Rule) -> Outcome | Limit | None:
        """An event of a rule of method neighbour. None: its target is there, answer."""
        if event.flags & EventFlag.MISS:
            self._look_for_guests()
            return self.ask(event, rule)
        return self.defend(event, rule) if event.is_dad else None

    def notice(self, event: NsEvent, rule: Rule) -> None:
        """What the XDP program wants to be known besides, of an event of any rule."""
        if event.flags & EventFlag.HEARD:
            self._hosts.asker_heard(event, rule)
        if event.flags & EventFlag.STALE:
            self.probe(event, rule)

    def ask(self, event: NsEvent, rule: Rule) -> Outcome | Limit | None:
        """A target is asked for that the map doesn't know. None: it is there, answer."""
        if any(self.neighbours.interfaces(rule.via_set, event.target)):
            return self.defend(event, rule) if event.is_dad else None
        vias = self._in_force.table.vias.get(rule.via_set)
        if not vias:
            return Outcome.ABSENT
        if self._hosts.try_elsewhere(event, rule):
            return Outcome.ABSENT
        if (rule.via_set, event.target) not in self._pending and self.neighbours.full:
            most = self._in_force.config.limits.neighbours
            self._once.warn(
                f"limits.neighbours: {most} hosts are there; no further ones are resolved",
                target=str(IPv6Address(event.target)),
            )
            return Limit.FULL
        return self._await(event, rule, vias, self._hosts.look_for)

    def seek(self, event: NsEvent, rule: Rule) -> bool:
        """Look for a target that nobody asks for (NsEvent.is_ours). False: there is no space for it now."""
        vias = self._in_force.table.vias.get(rule.via_set)
        if not vias or self.neighbours.full:
            return True  # and it won't be found
        return self._await(event, rule, vias, self._hosts.look_for) is Outcome.PENDING

    def is_there(self, via_set: int, target: bytes) -> bool:
        """Whether a target is known to be there."""
        return any(True for _ in self.neighbours.interfaces(via_set, target))

    def defend(self, event: NsEvent, rule: Rule) -> Outcome | Limit | None:
        """Somebody wants a target's address, which the neighbour table has. None: its host is there, answer.

        Where that is an old entry's word, the host is asked first: else the address of one that has gone could be
        nobody's any more (RFC 6957 §4.2).
        """
        if self.neighbours.is_confirmed(rule.via_set, event.target):
            return None
        vias = tuple(self.neighbours.interfaces(rule.via_set, event.target))
        if not vias:
            return self.ask(event, rule)  # it has gone since
        return self._await(event, rule, vias, self._hosts.probe)

    def _await(self, event: NsEvent, rule: Rule, vias: Iterable[int], look: Callable[[Host], None]) -> Outcome | Limit:
        """Have an asker wait until the kernel says that a target is there."""
        if (rule.via_set, event.target) not in self._pending:
            if len(self._pending) >= self._space.targets:
                return Limit.PENDING
            if not self._pending.has_space_for(Asker(rule.entry, event.answer_mac), self._space.targets):
                return Limit.CROWDED
        now = time.monotonic()
        hosts = self._pending.add(rule.via_set, event, vias, now, rule.entry)
        if hosts is None:
            return Limit.CROWDED
        for host in hosts:
            look(host)
        self.has_news |= self._space.used(len(self._pending), now)
        self._schedule(now)
        self._gate.follow()
        return Outcome.PENDING

    def probe(self, event: NsEvent, rule: Rule) -> None:
        """A stale host was asked for: have the kernel probe it. If it fails, the host is forgotten."""
        for ifindex in self.neighbours.interfaces(rule.via_set, event.target):
            # at once: nobody confirms the hosts of a router but their own answers, so to wait for that gains nothing
            self._hosts.probe(Host(ifindex, event.target))

    # --- the kernel's word ---

    def on_refusal(self) -> None:
        """The kernel doesn't resolve what it was asked to."""
        for host, code in self._hosts.watch.take_refusals(time.monotonic() + SLICE):
            self._pending.failed(host)
            if code == errno.ENOBUFS:
                self.has_news |= not self._space.is_full(now := time.monotonic())
                self._space.refused(now)
        self._gate.follow()

    # --- bounds ---

    def tick(self, now: float) -> None:
        """Go on with what is left to do, and give up what has taken too long."""
        self._hosts.tick(now)
        if self._tick_at is not None and self._tick_at <= now:
            self._tick_at = None
            if not self._pending.expire(now, _GIVEN_UP):
                self._tick_at = now
            if len(self._pending) and self._space.is_old(now):
                self._size(now)
        self._schedule(now)
        self._gate.follow()

    def _schedule(self, now: float) -> None:
        """Look again in a while, if there is anything to look after."""
        if self._tick_at is None and len(self._pending):
            self._tick_at = now + TICK

    def _size(self, now: float) -> None:
        """How many targets may be pending at once, by what the kernel's table has space for."""
        entries, thresholds = 0, None
        with suppress(MachineError):  # it is asked again; limits.pending holds until then
            entries, thresholds = self._requests.neighbour_table_size() or (0, None)
        self._space.sized(self._in_force.config.limits.pending, entries - len(self._pending), thresholds, now)

    @property
    def capacity(self) -> tuple[int, int] | None:
        """How many targets may be pending at once, and limits.pending; None: no rule has any resolved."""
        return (self._space.targets, self._space.limit) if self._resolves else None

    def take_news(self) -> list[str]:
        """What there is to say of the kernel's table, until there are other news; it is asked again where that may no
        longer be so.
        """
        self.has_news = False
        if not self._resolves:
            return []
        now = time.monotonic()
        if self._space.warns(now) and self._space.is_old(now):
            self._size(now)
        return self._space.warnings(now)
