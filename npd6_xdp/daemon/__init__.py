# SPDX-License-Identifier: GPL-2.0-or-later
"""The composition root: builds the rooms, connects them, runs, closes. No policy and no packet bytes.

One thread does it all but HTTP and taking long dumps of routes, in the turns of daemon/loop.py: it waits for events of
the XDP program, for changes of the machine, for the control socket, and for signals.
"""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address
from types import FrameType
from typing import Any

from npd6_xdp.core.absent import absent_lines
from npd6_xdp.core.altnames import alternative_names, twofold, with_names
from npd6_xdp.core.build import build, building
from npd6_xdp.core.config import Config
from npd6_xdp.core.errors import BrokenSource, MachineError, Npd6Error, as_machine_error
from npd6_xdp.core.event import EventTags, NsEvent
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.pace import STREAM, Pace
from npd6_xdp.core.snapshot import Snapshot, Status
from npd6_xdp.core.status import overview_values, status_lines, status_pieces, status_values
from npd6_xdp.core.steps import Steps, finish
from npd6_xdp.core.table import Decision, Match, Rule, Table
from npd6_xdp.core.verdict import Method, Outcome
from npd6_xdp.core.vias import refused_vias, used_vias
from npd6_xdp.core.warnings import WarningKind, Warnings, finding_warnings, warnings
from npd6_xdp.daemon import garbage
from npd6_xdp.daemon.answering import Answering
from npd6_xdp.daemon.counts import Counts
from npd6_xdp.daemon.garbage import Remains
from npd6_xdp.daemon.guests import Guests
from npd6_xdp.daemon.lines import Damper, Lines, some
from npd6_xdp.daemon.loading import Loading
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.outlook import Outlook
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.daemon.proxies import Proxies
from npd6_xdp.daemon.reading import Reading
from npd6_xdp.daemon.resolution import Resolution
from npd6_xdp.daemon.routing import Routing
from npd6_xdp.daemon.tags import Tags
from npd6_xdp.daemon.telling import Answer, Telling
from npd6_xdp.daemon.view import View
from npd6_xdp.system import cgroup
from npd6_xdp.system.aside import reap
from npd6_xdp.system.bpf.datapath import Datapath
from npd6_xdp.system.bpf.events import BATCH, RING_PAGES, EventRing
from npd6_xdp.system.bpf.load import Loaded, load
from npd6_xdp.system.bpf.program import Fit, Program
from npd6_xdp.system.bpf.sizes import memory_to_load
from npd6_xdp.system.control import AT_WORK, ControlServer, Reply
from npd6_xdp.system.descriptors import raise_limit
from npd6_xdp.system.http.endpoint import Endpoint
from npd6_xdp.system.http.metrics import metrics_app
from npd6_xdp.system.manager import ServiceManager
from npd6_xdp.system.netlink.links import Netlink
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.system.netlink.router import Router
from npd6_xdp.system.netlink.routes import RouteWatch
from npd6_xdp.system.peers import running_peers
from npd6_xdp.system.sysctl import Memory
from npd6_xdp.system.sysctl import read as read_sysctl

log = logging.getLogger("npd6-xdp")

# After a change was followed comes a pause, so that a storm of changes takes a tenth of our time: so many times the
# processor time that it took. It is cut to what may pass unnoticed, and then a storm takes half of our time at most.
_REFRESH_PAUSE = 10
_UNNOTICED = 0.05  # seconds
_SLICE = 0.005  # seconds that following a change holds the loop for, but for its steps that can't be cut
_SHARE = 2  # times such a slice that a turn with solicitations in it leaves to them, before a reload goes on
_RETIREMENT = 0.5  # seconds that a replaced program may still be running on some CPU
_NAP = 20e-6  # seconds (the kernel makes some 80 us of it) between two looks at a stream
_FEW = 64  # events of a look, from which on there is no time for a nap
_MOST_BATCHES = 2 * RING_PAGES * 4096 // 64 // BATCH  # more than a ring holds
_HUNG = 10.0  # seconds without a turn after which it is taken for hung; a reload of 100,000 rules takes less
_RETRY = 1.0  # seconds after which the machine is looked at again, where that has failed
_SWITCH = 0.001  # seconds after which a thread of HTTP's that works lets the loop have its turn; Python has 5 ms
_TOGETHER = 0.01  # seconds: who asks for a reload within them of the first one asks for the same
_TRIES = 3  # to build a table of a machine that doesn't change meanwhile; what has then changed is followed afterwards
_LOOK_FOR_ROUTES = 0.01  # seconds between two looks whether routes have been read
_MOST_ROUTES = 10.0  # seconds that they may take; then they are read in one go


@dataclass(slots=True)
class _Ring:
    """A program's ring; `until` says when it is given up, if another program has taken over."""

    ring: EventRing
    until: float | None = None


@dataclass(frozen=True, slots=True)
class _Successor:
    """A program that is to take over, and its ring."""

    program: Program
    ring: EventRing


@dataclass(frozen=True, slots=True)
class _Next:
    """What is to be in force next, with what there is to warn of by the table alone.

    `successor` is the program that takes over with it; `grown`: because the maps of the one at work are too small.
    """

    config: Config
    links: Mapping[str, LinkFacts]
    table: Table
    warnings: Sequence[str]
    successor: _Successor | None = None
    grown: bool = False


class Daemon:
    """npd6-xdp at work, from start() to close(); use it as a context manager.

    `load` reads the configuration, at the start and at each reload; `configured` is told of each one in use. `file` is
    where it is read from. `unread` says how many lines of the log were dropped.
    """

    def __init__(
        self,
        load: Callable[[], Config],
        configured: Callable[[Config], None],
        file: str,
        unread: Callable[[], int] = lambda: 0,
    ) -> None:
        self._load = load
        self._file = file
        self._configured = configured
        self._unread = unread
        with _uncollected():
            self._written = self._config = load()  # as it was read, and with the names that are meant
        self._manager = ServiceManager()
        self._meaning = self._config  # the last one that _named() made, and of what
        self._meant: tuple[Config, Mapping[str, str]] = (self._written, {})
        self._links: Mapping[str, LinkFacts] = {}
        self._logged: Mapping[str, LinkFacts] = {}
        self._damper = Damper()
        self._lines = Lines(self._damper)
        self._table = Table({}, {}, {}, {}, {})
        self._stack = ExitStack()
        self._loop = Loop()
        self._pace = Pace()
        self._counts = Counts()
        self._guests = Guests()
        self._tapped = 0  # Ports.changes when the taps followed them last
        self._rings: list[_Ring] = []
        self._changing = threading.RLock()  # held while counters may move from one program to another
        self._endpoint: Endpoint | None = None
        self._retire_at: float | None = None
        self._refresh_at: float | None = None
        self._refresh_not_before = 0.0
        self._refreshing: Steps[None] | None = None  # a change of the machine that is being followed
        self._refresh_cost = 0.0  # seconds of processor time that it has taken so far
        self._applying: Steps[None] | None = None  # a configuration that was read, and is to be in force
        self._go_on_at = 0.0  # when that goes on, and what of it can wait until it is in force
        self._asleep: float | None = None  # until then (seconds, monotonic), whichever of the two it is waits
        self._retiring: Steps[None] | None = None  # programs that others have taken over from
        self._letting_go: Steps[None] | None = None  # tables and configurations that are not needed any more
        self._remains = Remains()
        self._said: tuple[Table, Sequence[str]] = (self._table, ())  # what there is to warn of by a table alone
        self._failed = ""
        self._reload_at: float | None = None
        self._to_hear: list[Reply] = []  # who waits for what becomes of the reload to come
        self._asked: list[Reply] = []  # and of the one that is under way
        self._reading: Reading | None = None  # what that is to put in force
        self._reap_at: float | None = None  # when it is looked whether the one before has ended
        self._say_at = 0.0  # when those who wait are told again that we are at it
        self._report_at: float | None = None  # when the state is to be logged
        self._telling = Telling()
        self._busy = False  # there were events in the last look
        self._doubtful = False  # the kernel's maps may be neither the last table nor the one before
        self._decided = True  # no table has been put in force in part only

    def __enter__(self) -> Daemon:
        try:
            with _uncollected(), as_machine_error("can't start"):
                self.start()
                gc.freeze()  # what is there now stays, but for a table: no need to look at it again and again
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- start ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Load, attach and serve. Raises Npd6Error, with nothing left behind, when one of these can't be."""
        raise_limit()
        config, keep = self._config, self._stack.enter_context
        self._stack.callback(setattr, threading, "excepthook", threading.excepthook)
        threading.excepthook = self._thread_failed
        self._stack.callback(self._let_go_of_signals)
        self._note_signals()
        self._configured(config)
        self._netlink = Netlink()
        self._stack.callback(lambda: self._netlink.close())
        config = self._named(self._written)
        self._outlook = keep(closing(Outlook(Router(), lambda: self._resolution.warnings(), self._damper)))
        self._routes = RouteWatch()
        self._stack.callback(lambda: self._routes.close())
        self._requests = keep(closing(Requests()))
        self._guests.look()
        links = self._logged = self._facts(config)
        _check(config, links)
        table = build(config, links)

        self._control = self._listen(config)
        self._stack.callback(lambda: self._control.close())
        cgroup.require(memory_to_load([table], config.limits), f"loading {_so_many_rules(table)}")
        self._datapath = keep(closing(Datapath(table, config.limits)))
        self._ports = keep(closing(Ports(self._datapath, lambda: self._netlink, self._damper)))
        self._tags = keep(closing(Tags(self._datapath, self._counted)))
        self._answering = Answering(self._ports, self._counts, self._special, self._loop.failed)
        late = self._answering.answer_late
        memory = keep(closing(Memory()))
        beside = [*memory.others]
        self._resolution = keep(closing(Resolution(self._datapath, self._requests, late, memory)))
        self._proxies = keep(closing(Proxies(self._datapath, self._requests, memory)))
        self._routing = keep(closing(Routing(self._datapath)))
        self._routing.follow(self._routes.kinds)
        self._open_ring(EventRing(self._datapath.program.maps))
        self._stack.callback(self._close_rings)
        self._view = View(
            self._datapath,
            self._ports,
            self._tags,
            self._counts,
            self._resolution,
            self._proxies,
            self._changing,
            self._file,
        )
        for name, pid in running_peers():
            log.warning("%s is running here (pid %d): two that answer on one link are a mistake; stop one", name, pid)
        self._endpoint = self._offer_metrics(config)  # before a program is attached, which some links flap at
        self._stack.callback(self._close_endpoint)
        self._decide_by(_Next(config, links, table, warnings(table)))
        self._ports.admit(config, links, table)
        self._follow_ports()
        if self._endpoint is not None:
            self._endpoint.serve()
        self._watch()
        for pid in beside:
            log.info("another npd6-xdp runs in this network namespace (pid %d): what it has is left to it", pid)
        log.info("ready: %s", self._summary())

    def _summary(self) -> str:
        where = some([*dict.fromkeys(entry.port for entry in self._table.entries.values())])
        return f"{_so_many_rules(self._table)} on {where or 'no interface that is there yet'}"

    def _named(self, written: Config) -> Config:
        """A configuration with the names that are meant by alternative ones now; the very same if it is in force."""
        names = self._netlink.altnames()
        meant = {other: names[other] for other in written.names & names.keys()}
        if self._meant != (written, meant):
            self._meant, self._meaning = (written, meant), with_names(written, meant)
        return self._meaning

    def _facts(self, config: Config, *, wait: bool = True) -> dict[str, LinkFacts]:
        """The facts of now. Without `wait`, ports whose next hops are yet to be read are as not there."""
        self._routes.watch(self._netlink.l3_interfaces(lambda name: bool(config.entries(name))), wait=wait)
        links = self._netlink.facts(self._routes.of)
        known = {
            name: link
            for name, link in links.items()
            if name in self._links or not config.entries(name) or all(map(self._routes.is_read, link.l3.values()))
        }
        return self._guests.beside(known)

    def _open_ring(self, ring: EventRing) -> None:
        if ring.pages < RING_PAGES:
            log.warning(
                "the kernel grants %d pages a CPU for the ring to Python, not %d: raise LimitMEMLOCK= (ulimit -l)",
                ring.pages,
                RING_PAGES,
            )
        for fd in ring.filenos():
            self._loop.add_doorbell(fd)
        self._rings.append(_Ring(ring))

    def _close_rings(self) -> None:
        for kept in self._rings:
            kept.ring.close()

    def _listen(self, config: Config) -> ControlServer:
        return ControlServer(config.control, self._loop, self._answer_control)

    def _offer_metrics(self, config: Config) -> Endpoint | None:
        if config.metrics_listen is None:
            return None
        return Endpoint(
            config.metrics_listen, metrics_app(self.snapshot), self.overview, self.ailing, beside=self._endpoint
        )

    def _close_endpoint(self) -> None:
        if self._endpoint is not None:
            self._endpoint.close()

    def _note_signals(self) -> None:
        """From now on, until all else has been let go of: run() does what they ask for."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            self._stack.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(number, self._note_signal)
        self._wake_by_signals()

    def _wake_by_signals(self) -> None:
        """A signal makes a socket readable, so that it wakes the loop."""
        self._signals = socket.socketpair()
        reader, writer = self._signals
        for end in self._signals:
            end.setblocking(False)
        self._loop.add(reader, self._on_signal, "signals")
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        """Who was answered by that thread gets nothing; the others don't notice."""
        if failure.exc_value is not None:
            self._loop.failed("web", failure.exc_value)

    def _let_go_of_signals(self) -> None:
        signal.set_wakeup_fd(-1)
        for end in self._signals:
            end.close()

    def _watch(self) -> None:
        loop = self._loop
        for where, watch, renew in (
            ("links", self._watch_links, self._renew_links),
            ("routes", self._watch_routes, self._renew_routes),
            ("neighbours", self._watch_neighbours, self._renew_neighbours),
            ("outlook", self._watch_outlook, self._renew_outlook),
            ("tags", self._watch_tags, self._renew_tags),
        ):
            watch()
            loop.renew(where, renew)
        loop.renew("signals", self._renew_signals)
        loop.renew(ControlServer.WHERE, self._renew_control)
        loop.renew("rings", self._renew_rings)
        for where, due, call in (
            ("reload", lambda: None if self._is_reloading else self._reload_at, lambda _: self._begin_reload()),
            ("reload", lambda: self._reading.due if self._reading else None, lambda _: self._give_up_reading()),
            ("reload", lambda: self._reap_at, self._reap),
            ("reload", self._apply_due, lambda _: self._apply()),
            ("control", lambda: self._say_at if self._is_reloading else None, self._say_at_work),
            ("status", lambda: self._report_at, lambda _: self._log_status()),
            ("table", self._refresh_due, lambda _: self._refresh()),
            ("table", lambda: None if self._letting_go is None else self._go_on_at, lambda _: self._let_go()),
            ("links", lambda: self._guests.due, self._look_for_guests),
            ("routes", lambda: self._routes.due, lambda _: self._routes.refresh()),
            ("neighbours", lambda: self._resolution.due, lambda now: self._resolution.tick(now)),
            ("outlook", lambda: 0.0 if self._resolution.has_news else self._outlook.due, lambda _: self._look_out()),
            ("outlook", lambda: self._damper.due, self._damper.settle),
            ("proxies", lambda: self._proxies.due, lambda now: self._proxies.tick(now)),
            ("ports", lambda: self._ports.due, self._tick_ports),
            ("tags", lambda: self._tags.due, self._look_at_tags),
            ("rings", lambda: self._retire_at if self._retiring is None else self._go_on_at, self._retire),
            ("status", lambda: self._telling.due, lambda _: self._telling.tick(busy=self._busy)),
            (ControlServer.WHERE, lambda: self._control.due, lambda now: self._control.tick(now)),
            ("manager", lambda: self._manager.due, self._manager.feed),
        ):
            loop.at(due, call, where)

    def _watch_links(self) -> None:
        self._loop.add(self._netlink.fileno(), self._on_link_change, "links")

    def _watch_routes(self) -> None:
        changed, dumped = self._routes.filenos()
        self._loop.add(changed, self._on_route_change, "routes")
        self._loop.add(dumped, self._on_route_dump, "routes")
        self._loop.add(self._routing.fileno(), self._routing.on_change, "routes")

    def _watch_outlook(self) -> None:
        self._loop.add(self._outlook.fileno(), self._on_forwarding, "outlook")

    def _watch_neighbours(self) -> None:
        for fd, call in self._resolution.readable():
            self._loop.add(fd, call, "neighbours")

    def _watch_tags(self) -> None:
        self._loop.add(self._tags.fileno(), self._on_hidden_tags, "tags")

    # --- sources opened anew, because they fail all the time ----------------------------------------------

    def _renew_links(self) -> None:
        self._loop.remove(self._netlink.fileno())
        self._netlink.close()
        self._netlink = Netlink(self._netlink)
        self._watch_links()
        self._later()

    def _renew_routes(self) -> None:
        for fd in (*self._routes.filenos(), self._routing.fileno()):
            self._loop.remove(fd)
        self._routes.close()
        self._routes = RouteWatch()
        self._routing.reopen()
        self._watch_routes()
        self._later()

    def _renew_neighbours(self) -> None:
        for fd, _ in self._resolution.readable():
            self._loop.remove(fd)
        self._resolution.reopen()
        self._watch_neighbours()

    def _renew_tags(self) -> None:
        self._loop.remove(self._tags.fileno())
        self._tags.reopen()
        self._watch_tags()
        self._follow_taps()

    def _renew_outlook(self) -> None:
        self._loop.remove(self._outlook.fileno())
        self._outlook.reopen()
        self._watch_outlook()
        self._look_out()

    def _renew_signals(self) -> None:
        before = self._signals
        self._loop.remove(before[0])
        self._wake_by_signals()
        for end in before:
            end.close()

    def _renew_control(self) -> None:
        self._control.close()
        self._control = self._listen(self._config)

    def _renew_rings(self) -> None:
        """Of a program of its own, as if the maps had to grow; what is in the old ones is lost."""
        before = tuple(self._rings)
        self._doubtful = True
        sizes = self._sizes(self._config, self._table)
        with ExitStack() as undo:  # at once: nobody is answered by Python until then
            successor = self._successor(undo, load(sizes), sizes)
            finish(self._datapath.filling(successor.program, self._table))
            with self._changing, self._tags.follow_program(successor.program):
                self._datapath.switch(successor.program, self._table)
            undo.pop_all()
        self._took_over(successor, grown=False)
        for kept in before:
            self._give_up_ring(kept)

    # --- the table --------------------------------------------------------------------------------------

    def _making_ready(
        self, undo: ExitStack, config: Config, links: Mapping[str, LinkFacts], table: Table, before: _Next | None
    ) -> Steps[_Next]:
        """Whatever takes long before a table can be in force, and can fail; nothing of it shows.

        `undo` lets go of what was made for that. `before` is another that was made ready, and is not to be after all.
        """
        said = yield from finding_warnings(table)
        yield from self._ports.preparing(table)
        if table is not self._table:
            undo.callback(self._resolution.give_up)
            yield from self._resolution.preparing(table, config.limits)
        successor = None if before is None else before.successor
        grown = before is not None and before.grown
        if successor is None or (yield from successor.program.fitting(table, config.limits)) is Fit.NOT:
            if successor is not None:  # the next one may take over, and then nothing is undone
                successor.ring.close()
                self._datapath.give_up(successor.program)
            fit = yield from self._datapath.fitting(table, config.limits)
            if fit is Fit.FEW and not self._doubtful:
                return _Next(config, links, table, said)
            try:
                sizes = self._sizes(config, table)
                loaded = yield from self._loading(sizes)
            except MachineError:
                if fit is Fit.NOT or self._doubtful:
                    raise
                return _Next(config, links, table, said)  # by the maps that there are, in one go
            grown = fit is Fit.NOT
            successor = self._successor(undo, loaded, sizes)
        yield from self._datapath.filling(successor.program, table)
        return _Next(config, links, table, said, successor, grown)

    def _sizes(self, config: Config, table: Table) -> Mapping[str, int]:
        """Those of the maps of a program that is to take over. Raises MachineError if there is no memory for them."""
        what = f"loading {_so_many_rules(table)} beside those that are in use"
        cgroup.require(memory_to_load([self._table, table], config.limits), what)
        return self._datapath.sizes(table, config.limits)

    def _loading(self, sizes: Mapping[str, int]) -> Steps[Loaded]:
        """Wait until another process has loaded a program."""
        loading = Loading(sizes)
        self._loop.add(loading, self._wake, "table")
        try:
            while (loaded := loading.take()) is None:
                self._asleep = loading.due
                yield
            return loaded
        finally:
            self._wake()
            self._loop.remove(loading)
            loading.close()
            self._reap(time.monotonic())

    def _wake(self) -> None:
        self._asleep = None

    def _successor(self, undo: ExitStack, loaded: Loaded, sizes: Mapping[str, int]) -> _Successor:
        """A program that is to take over, and its ring; `undo` gives it up."""
        with ExitStack() as otherwise:
            otherwise.callback(loaded.close)
            program = self._datapath.successor(loaded, sizes)
            otherwise.pop_all()
        undo.callback(self._datapath.give_up, program)
        ring = EventRing(program.maps)
        undo.callback(lambda: None if program is self._datapath.program else ring.close())
        return _Successor(program, ring)

    def _took_over(self, successor: _Successor, *, grown: bool) -> None:
        """Another program sits where ours did."""
        anew, self._doubtful = self._doubtful, False
        until = time.monotonic() + _RETIREMENT
        for kept in self._rings:
            kept.until = kept.until or until
        self._retire_at = self._retire_at or until
        self._open_ring(successor.ring)
        if anew or grown:
            log.info("the XDP program was loaded anew" if anew else "the kernel maps have grown")

    def _decide_by(self, to_be: _Next) -> None:
        """Let a table be in force, with not one target in between that neither it nor the last one decides."""
        config, links, table, successor = to_be.config, to_be.links, to_be.table, to_be.successor
        self._decided = False
        self._said = table, to_be.warnings
        names = {link.ifindex: link.name for link in links.values()}
        self._resolution.prepare(table, config.limits, links)
        self._outlook.use(table, links, used_vias(config, links), self._warnings(config, links, table))
        self._proxies.prepare(table, config.limits, names)
        self._routing.use(table)
        with self._changing:
            self._drain()
            self._datapath.limit(config.limits)
            if successor is None:
                self._datapath.apply(table)
            else:
                with self._tags.follow_program(successor.program):
                    self._datapath.switch(successor.program, table)
                self._took_over(successor, grown=to_be.grown)
            before, self._table = self._table, table
            self._config, self._links = config, links
            self._answering.use(table)
            self._counts.follow(table)
            self._view.use(config, table, links)
            self._view.warn(self._outlook.current)
        for event in self._resolution.settle():
            self._ask_again(event, before)
        self._proxies.settle()
        self._decided = True

    def _decide_anew(self) -> None:
        """The table in force stays so, and something else is different."""
        self._decide_by(_Next(self._config, self._links, self._table, self._said[1]))

    def _drain(self) -> None:
        """Answer what is in the rings, so that no event is older than the table before the one to come."""
        for kept in self._rings:
            for _ in range(_MOST_BATCHES):
                if not self._answering.answer(kept.ring.read()):
                    break

    def _ask_again(self, event: NsEvent, before: Table) -> None:
        """One who waits for a target, by a rule that is gone: what does the new table say?"""
        asked = before.rules.get(event.rule)
        if asked is None:
            return  # two tables followed each other faster than the event was read
        match = self._table.lookup(asked.entry, IPv6Address(event.target))
        rule = self._table.rules.get(match.rule) if isinstance(match, Match) else None
        if rule is None or rule.decision is Decision.IGNORE:
            return
        event = event._replace(rule=rule.id)
        if rule.method is not Method.NEIGHBOUR or self._resolution.ask(event, rule) is None:
            self._answering.answer_late(event)

    def _retire(self, now: float) -> None:
        """Let go of rings and programs that others have taken over from."""
        if self._retiring is None:
            gone = [kept for kept in self._rings if kept.until is not None and kept.until <= now]
            for kept in gone:
                while self._answering.answer(kept.ring.read()):
                    pass
                self._give_up_ring(kept)
            self._retire_at = min((kept.until for kept in self._rings if kept.until is not None), default=None)
            if self._retire_at is None:
                self._retiring = self._datapath.retiring()
            return
        with self._changing:
            if self._is_over(self._retiring):
                self._retiring = None

    def _is_over(self, steps: Steps[None]) -> bool:
        """Go on with something for as long as a turn may take; whether that was the last of it."""
        ends = time.thread_time() + _SLICE
        is_over = all(time.thread_time() < ends for _ in steps)
        self._rest()
        return is_over

    def _rest(self) -> None:
        """After a slice of what is not urgent: a stream of solicitations is to find its ring empty again."""
        self._go_on_at = time.monotonic() + _SHARE * _SLICE if self._busy else 0.0

    def _let_go_of_remains(self) -> None:
        """From now on, bit by bit; what is held for a change that came to nothing, too: it may be tried each second."""
        self._letting_go = self._remains.letting_go()

    def _let_go(self) -> None:
        if self._letting_go is not None and self._is_over(self._letting_go):
            self._letting_go = None

    def _give_up_ring(self, kept: _Ring) -> None:
        for fd in kept.ring.filenos():
            self._loop.remove_doorbell(fd)
        kept.ring.close()
        self._rings.remove(kept)

    def _warnings(self, config: Config, links: Mapping[str, LinkFacts], table: Table) -> Warnings:
        """What of the configuration doesn't do what its writer may think, with the links that there are."""
        names, vias = absent_lines(config, links)
        unfit = {each.name: links[each.name].why_no_port for each in config.interfaces if each.name in links}
        return {
            WarningKind.RULE: self._said[1] if self._said[0] is table else warnings(table),
            WarningKind.INTERFACE: [
                *names,
                *(f"{name}: {why}" for name, why in unfit.items() if why),
                *twofold(self._written, alternative_names(links)),
            ],
            WarningKind.VIA: vias,
            WarningKind.TAGS: self._tags.warnings(links),
        }

    def _look_out(self) -> None:
        """The machine's state may be reason for other warnings than before."""
        if self._outlook.look():
            self._view.warn(self._outlook.current)

    def _on_forwarding(self) -> None:
        if self._outlook.on_change():
            self._look_out()

    # --- run --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Answer until a signal ends it. Raises MachineError if a source of events is beyond help."""
        self._manager.ready(self._summary())
        self._loop.run(self._look, "rings")
        self._manager.stopping()

    def _look(self) -> float:
        """Answer what is in the rings; how long (seconds) the next look has time."""
        pace, events, began = self._pace, 0, time.monotonic()
        watched = pace.watched
        for kept in tuple(self._rings):
            events = max(events, self._answering.answer(kept.ring.read(watched=watched)))
        self._busy = events > 0
        if STREAM <= events < _FEW:
            time.sleep(_NAP)
        elif watched and not events:
            self._answering.settle()
        return pace.after(events, began)

    def _special(self, event: NsEvent, rule: Rule) -> Outcome | None:
        """What there is to do for an event besides answering. None: answer."""
        if event.tags & EventTags.HEARD:
            self._resolution.heard(event, rule)
        if event.tags & EventTags.STALE:
            self._resolution.confirm(event, rule)
        if event.tags & EventTags.ANSWERED:
            return Outcome.ANSWERED_XDP
        if event.tags & EventTags.MISS:
            if rule.method is Method.NEIGHBOUR:
                if self._guests.look():
                    self._refresh_at = time.monotonic()
                return self._resolution.ask(event, rule)
            if rule.method is Method.ROUTE:
                return self._routing.ask(event, rule)
            if rule.method is Method.KERNEL:
                self._proxies.ask(event, rule)
        elif event.is_dad and rule.decision is Decision.NEIGHBOUR:
            return self._resolution.defend(event, rule)
        return None

    # --- changes of the machine ---------------------------------------------------------------------------

    def _look_for_guests(self, now: float) -> None:
        if self._guests.tick(now):
            self._refresh_at = time.monotonic()

    def _on_link_change(self) -> None:
        if Decision.NEIGHBOUR in self._table.kinds:
            self._guests.expect()
        try:
            if self._netlink.on_change():
                self._later()
        except BrokenSource:
            raise  # the loop counts, and opens another
        except MachineError as error:  # what was lost can't be read at the moment
            self._retry(error)

    def _on_route_change(self) -> None:
        if self._routes.on_change():
            self._later()
        self._routing.follow(self._routes.kinds)

    def _on_route_dump(self) -> None:
        if self._routes.on_dump():
            self._later()
        self._routing.follow(self._routes.kinds)

    def _later(self) -> None:
        if self._refresh_at is None:
            self._refresh_at = self._refresh_not_before

    def _refresh_due(self) -> float | None:
        """When to go on with that, or to begin; a reload that is under way comes to its end first."""
        if self._applying is not None and self._refreshing is None:
            return None
        return self._refresh_at if self._refreshing is None else self._asleep or 0.0

    def _refresh(self) -> None:
        """Make the table follow the machine, and go on with that: among thousands of interfaces it takes a while."""
        began = time.thread_time()
        if self._refreshing is None:
            self._refresh_at, self._refresh_cost = None, 0.0
            self._refreshing = self._follow_machine()
        going_on, self._refreshing = self._refreshing, None
        try:
            for _ in going_on:
                if self._asleep is not None or time.thread_time() - began >= _SLICE:
                    self._refreshing = going_on
                    return
        except MachineError as error:
            self._retry(error)
        except Exception:
            self._doubt()
            raise
        else:
            self._failed = ""
        finally:
            self._refresh_cost += time.thread_time() - began
        cost = self._refresh_cost
        self._refresh_not_before = time.monotonic() + min(cost * _REFRESH_PAUSE, max(cost, _UNNOTICED))

    def _hear_of_links(self) -> bool:
        """Take in what was announced of links, and all where that was lost; whether anything is different."""
        try:
            return self._netlink.on_change()
        except BrokenSource as error:
            self._loop.failed("links", error)  # and the source itself will be, too, until it is opened anew
            return False

    def _follow_machine(self) -> Steps[None]:
        """What _refresh() does, in steps. Where another table comes in force in between, it begins anew."""
        self._hear_of_links()
        config, before = self._named(self._written), self._table
        links = self._facts(config, wait=False)
        same = links == self._links and config is self._config
        if same and not self._doubtful and self._decided:
            return
        self._log_changes(links)
        yield
        table = yield from building(config, links, before)
        with ExitStack() as undo:
            undo.callback(self._let_go_of_remains)
            to_be = yield from self._making_ready(undo, config, links, table, None)
            yield from self._remains.holding(self._answering.former, Config(()))
            if self._table is not before or config is not self._named(self._written):
                self._later()
                return
            self._decide_by(to_be)
            undo.pop_all()
        self._let_go_of_remains()
        self._manager.status(self._summary())
        yield
        self._follow_ports()

    def _doubt(self) -> None:
        """Something went wrong in the middle of a change: a program of its own gets the table whole, soon."""
        self._doubtful = True
        self._refresh_at = time.monotonic() + _RETRY

    def _retry(self, error: MachineError) -> None:
        """Look again later; said once, until it goes well."""
        if str(error) != self._failed:
            self._failed = str(error)
            log.error("%s; going on with what is known", error)
        self._refresh_at = time.monotonic() + _RETRY

    def _follow_ports(self) -> None:
        """Have the program sit where the table in force wants it, and taps where tags may be hidden from it."""
        self._ports.follow(self._config, self._links, self._table)
        self._follow_taps()

    def _tick_ports(self, now: float) -> None:
        self._ports.tick(now)
        if self._ports.changes != self._tapped:
            self._follow_taps()

    def _follow_taps(self) -> None:
        self._tapped, silent = self._ports.changes, self._tags.silent
        if self._tags.follow(self._table, self._links, self._ports.hiding_tags(), self._ports.generic()):
            with self._changing:
                self._datapath.apply(self._table)
        if self._tags.silent != silent:  # no port with tags beside its frames any more: nothing to warn of
            config, links, table = self._config, self._links, self._table
            self._outlook.use(table, links, used_vias(config, links), self._warnings(config, links, table))
            self._view.warn(self._outlook.current)

    def _counted(self, entry: int) -> int:
        """How many solicitations an entry has had."""
        return sum(self._datapath.entry_counters(entry).outcomes.values()) + self._counts.entry(entry).total()

    def _on_hidden_tags(self) -> None:
        if self._tags.on_hidden():
            self._follow_taps()  # silence first: there may be wrong answers until then
            self._decide_anew()

    def _look_at_tags(self, now: float) -> None:
        if self._tags.tick(now):
            self._follow_taps()
            self._decide_anew()

    def _log_changes(self, links: Mapping[str, LinkFacts]) -> None:
        """Once each: what can't be followed at once is tried again."""
        known, self._logged = self._logged, links
        changed = [name for name, before in known.items() if links.get(name) is not before]
        named = {entry.port for entry in self._table.entries.values()} if changed else set()
        lines = self._lines
        for name in changed:
            if name not in named:
                continue
            before, now = known[name], links.get(name)
            if now is None or now.ifindex != before.ifindex or now.generation != before.generation:
                lines.add(
                    logging.WARNING, name, f"the interface is gone{'' if now is None else ', and another has its name'}"
                )
                continue
            if now.up != before.up:
                lines.add(logging.INFO, name, "up" if now.up else "down")
            if now.mac != before.mac:
                lines.add(logging.INFO, name, f"the MAC address is now {now.mac.hex(':')}", "the MAC changed")
            if now.addresses != before.addresses or now.next_hops != before.next_hops:
                lines.add(logging.INFO, name, "addresses or next hops changed")
        for name in links.keys() - known.keys():
            if self._config.entries(name):
                lines.add(logging.INFO, name, "the interface is there")
        lines.say()

    # --- requests -----------------------------------------------------------------------------------------

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._ask_reload()
        elif number == signal.SIGUSR1:
            self._report_at = time.monotonic()
        else:
            if not self._loop.stopped:
                log.info("%s: ending", signal.Signals(number).name)
            self._loop.stop()

    def _on_signal(self) -> None:
        self._signals[0].recv(64)

    def _answer_control(self, question: dict[str, Any], reply: Reply) -> None:
        match question.get("verb"):
            case "status":
                make = self._tell_overview if question.get("brief") is True else self._tell_status
                self._telling.ask(make.__name__, make, reply)
            case "reload":
                self._to_hear.append(reply)
                self._ask_reload()
            case verb:
                reply({"error": f"unknown verb {verb!r}: it knows status and reload"})

    def _ask_reload(self) -> None:
        """One that begins after now; it is the same for all who ask before it begins."""
        if self._reload_at is None:
            self._reload_at = time.monotonic() + _TOGETHER

    def _begin_reload(self) -> None:
        """Read the configuration again, and go by it when it is read: all or nothing."""
        self._reload_at = None  # who asks from now on asks for another
        self._asked, self._to_hear = self._to_hear, []
        self._say_at = time.monotonic() + AT_WORK
        self._manager.reloading()
        garbage.hold()
        try:
            self._reading = Reading(self._load)
            self._loop.add(self._reading, self._on_read, "reload")
        except Exception as error:
            self._end_reload(self._refuse(error))

    @property
    def _is_reloading(self) -> bool:
        return self._reading is not None or self._applying is not None

    def _on_read(self) -> None:
        if self._reading is None:
            return
        try:
            config = self._reading.take()
        except Exception as error:
            self._end_reload(self._refuse(error))
            return
        if config is not None:
            took = time.monotonic() - self._reading.began
            self._close_reading()
            self._applying = self._going_by(config, took)

    def _apply_due(self) -> float | None:
        """When to go on with a configuration that was read; a change of the machine that is followed comes first."""
        if self._applying is None or self._refreshing is not None:
            return None
        return self._asleep or self._go_on_at

    def _apply(self) -> None:
        """Go on."""
        going_on, self._applying = self._applying, None
        if going_on is None:
            return
        ends = time.thread_time() + _SLICE
        try:
            for _ in going_on:
                if self._asleep is not None or time.thread_time() >= ends:
                    self._applying = going_on
                    self._rest()
                    return
        except Exception as error:
            self._end_reload(self._refuse(error))
            self._let_go_of_remains()
        else:
            self._end_reload("")

    def _give_up_reading(self) -> None:
        if self._reading is not None:
            self._end_reload(self._refuse(self._reading.overdue()))

    def _say_at_work(self, now: float) -> None:
        self._say_at = now + AT_WORK
        self._control.say_at_work()

    def _close_reading(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            self._loop.remove(reading)
            reading.close()
            self._reap(time.monotonic())

    def _reap(self, now: float) -> None:
        self._reap_at = None if reap() else now + _RETRY

    def _end_reload(self, why: str) -> None:
        """Tell those who have asked what became of it: why not, or "" if the new configuration is in use."""
        self._close_reading()
        self._applying = None
        if len(self._table.rules) + len(self._answering.former.rules) + len(self._remains) < garbage.LARGE:
            gc.unfreeze()
            gc.collect()
        gc.freeze()  # all that there is stays, and isn't looked at again and again
        garbage.release()
        self._tell({"error": f"the old configuration stays: {why}"} if why else self._view.in_use())
        if self._reload_at is not None:  # by a signal; who has asked on the socket meanwhile is yet to be read
            self._reload_at = time.monotonic() + _TOGETHER

    def _tell(self, answer: dict[str, Any]) -> None:
        asked, self._asked = self._asked, []
        for reply in asked:
            reply(answer)

    def _going_by(self, config: Config, took: float) -> Steps[None]:
        """Put a configuration that was read in force. Raises what is the reason why it can't be."""
        began = time.monotonic()
        yield from self._change_to(config)
        log.info("reload: the new configuration is in use")
        self._manager.ready(self._summary())
        log.debug("reload: read in %.3f s, applied in %.3f s", took, time.monotonic() - began)

    def _refuse(self, error: Exception) -> str:
        """Why the old configuration stays, also in the log."""
        why = str(error)
        if not isinstance(error, Npd6Error):  # a mistake of ours, and how far it came nobody knows
            self._loop.failed("reload", error)
            self._doubt()
            why = f"internal error: {error}; see the log"
        self._view.reload_failed(why)
        for line in why.splitlines():
            log.error("reload: %s", line)
        log.error("reload: the old configuration stays")
        self._manager.ready(f"{self._summary()}; the last reload failed, and the old configuration stays")
        return why

    def _change_to(self, written: Config) -> Steps[None]:
        """Whatever can fail comes first, so that failing leaves all as it was; what takes long, too, bit by bit.

        What changes of the machine until it is in force is in it, or followed afterwards.
        """
        with ExitStack() as undo:
            undo.callback(lambda: self._facts(self._config))
            tables: list[Table] = []
            undo.callback(self._remains.keep, tables, written)
            yield from self._remains.holding(self._answering.former, self._written)
            to_be: _Next | None = None
            for _ in range(_TRIES):
                self._take_in_links()
                config = self._named(written)
                yield
                links = yield from self._all_facts(config)
                if to_be is not None and to_be.config is config and to_be.links == links:
                    break
                _check(config, links)
                yield
                base = self._table if to_be is None else to_be.table
                table = yield from building(config, links, base, self._table)
                tables.append(table)
                to_be = yield from self._making_ready(undo, config, links, table, to_be)
            assert to_be is not None
            config, table, links_then = to_be.config, to_be.table, to_be.links
            endpoint, control = self._endpoint, self._control
            if config.metrics_listen != self._config.metrics_listen:
                endpoint = self._offer_metrics(config)
                undo.callback(lambda: endpoint.close() if endpoint else None)
            if config.control != self._config.control:
                control = self._listen(config)
                undo.callback(control.close)
            self._ports.admit(config, links_then, table)
            undo.callback(self._later)  # the kernel may have refused some of it: the old table is put in force again
            undo.callback(setattr, self, "_written", self._written)
            self._written = written
            self._decide_by(to_be)
            undo.pop_all()
        self._let_go_of_remains()
        self._logged = links_then
        self._follow_ports()
        if self._endpoint is not endpoint:
            self._close_endpoint()
            if endpoint is not None:
                endpoint.serve()
        if self._control is not control:
            self._control.stop_listening()  # who has asked for this is yet to hear
        self._endpoint, self._control = endpoint, control
        self._configured(config)
        self._view.reloaded()

    def _take_in_links(self) -> None:
        """What has just come is to be looked at, too."""
        try:
            if self._hear_of_links():
                self._later()
        except MachineError as error:
            self._retry(error)

    def _all_facts(self, config: Config) -> Steps[dict[str, LinkFacts]]:
        """The facts of now; the routes of all ports are read, and nothing else waits for that."""
        links = self._facts(config, wait=False)
        indexes = self._netlink.l3_interfaces(lambda name: bool(config.entries(name)))
        patience = time.monotonic() + _MOST_ROUTES
        if all(map(self._routes.is_read, indexes)):
            return links
        while not all(map(self._routes.is_read, indexes)) and time.monotonic() < patience:
            self._asleep = time.monotonic() + _LOOK_FOR_ROUTES
            yield
        self._wake()
        return self._facts(config)

    # --- end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Detach, answer what is still in the ring, and let go of everything."""
        if self._is_reloading:
            garbage.release()
        self._close_reading()
        for under_way in (self._applying, self._refreshing):
            try:
                if under_way is not None:
                    under_way.close()
            except Exception as error:  # what it leaves behind goes with the process
                self._loop.failed("table", error)
        self._applying = self._refreshing = None
        self._asked += self._to_hear
        self._tell({"error": "npd6-xdp is ending; the reload was given up"})
        self._ports.detach_all()
        try:
            for kept in self._rings:
                while self._answering.answer(kept.ring.read()):
                    pass
            self._answering.settle()
        except Exception as error:  # it may be what has ended us
            self._loop.failed("rings", error)
        self._stack.close()
        self._loop.close()

    # --- look -------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All counters at this moment, the kernel's read now. Called by the metrics' thread."""
        return finish(self._snapshot())

    def _snapshot(self) -> Steps[Snapshot]:
        return self._view.snapshot_bit_by_bit(self._answering.times, self._loop.failures, self._unread())

    def _status(self) -> Steps[Status]:
        """All that there is to know."""
        self._answering.settle()
        snapshot = yield from self._snapshot()
        return (yield from self._view.status(snapshot))

    def overview(self) -> dict[str, Any]:
        """The same without addresses, and of bounded length, as plain values. Called by the status page's threads."""
        return finish(self._overview())

    def _overview(self) -> Steps[dict[str, Any]]:
        snapshot = yield from self._snapshot()
        overview = yield from self._view.overview(snapshot)
        return (yield from overview_values(overview))

    def _tell_status(self) -> Steps[Answer]:
        """A line of JSON."""
        status = yield from self._status()
        text = []
        for piece in status_pieces(status):
            text.append(piece.encode())
            yield
        return b"".join([*text, b"\n"])

    def _tell_overview(self) -> Steps[Answer]:
        self._answering.settle()
        return (yield from self._overview())

    def ailing(self) -> str:
        """Why nobody should rely on this daemon; "" if it is well. Called by the status page's threads."""
        silent = time.monotonic() - self._loop.turned
        if silent > _HUNG:
            return f"the main loop has not turned for {silent:.0f} s"
        return self._view.ailing()

    def _log_status(self) -> None:
        self._report_at = None
        self._telling.ask("log", self._log_bit_by_bit, lambda _: None)

    def _log_bit_by_bit(self) -> Steps[Answer]:
        status = yield from self._status()
        values = yield from status_values(status)
        for line in filter(None, status_lines(values)):
            log.info("%s", line)
            yield
        return {}


def _so_many_rules(table: Table) -> str:
    return f"{len(table.rules)} rule{'' if len(table.rules) == 1 else 's'}"


def _check(config: Config, links: Mapping[str, LinkFacts]) -> None:
    """Raise MachineError for what a configuration asks of interfaces that are there, and that they can never do."""
    Ports.check(config, links)
    if refused := refused_vias(config, links):
        raise MachineError("\n".join(refused))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Hold the garbage collector off while much is made and little thrown away: it would walk it over and over."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def link_facts(config: Config) -> dict[str, LinkFacts]:
    """The facts of this machine's interfaces, and the next hops of those that are the configuration's."""
    with closing(Netlink()) as netlink, closing(RouteWatch()) as routes:
        config = with_names(config, netlink.altnames())
        routes.watch(netlink.l3_interfaces(lambda name: bool(config.entries(name))))
        return netlink.facts(routes.of)


def sysctl(key: str) -> str | None:
    """A sysctl of this machine below net.ipv6, as "conf/wan0/forwarding"; None if it isn't there."""
    return read_sysctl(key)


def run(load: Callable[[], Config], configured: Callable[[Config], None], file: str, unread: Callable[[], int]) -> None:
    """`npd6-xdp run`: the daemon in the foreground; see Daemon."""
    sys.setswitchinterval(_SWITCH)
    with Daemon(load, configured, file, unread) as daemon:
        daemon.run()
