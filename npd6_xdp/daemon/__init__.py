# SPDX-License-Identifier: GPL-2.0-or-later
"""The composition root: makes the rooms, says who calls whom, runs, closes. No policy and no packet bytes.

One thread does it all but HTTP and taking long dumps of routes, in the turns of daemon/loop.py: it waits for events of
the XDP program, for changes of the machine, for the control socket, and for signals.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import NamedTuple

from npd6_xdp.compiling import Compiling
from npd6_xdp.core.config import Config, is_glob
from npd6_xdp.core.errors import as_machine_error
from npd6_xdp.core.logged import fields, named
from npd6_xdp.core.steps import finish
from npd6_xdp.core.verdict import Method
from npd6_xdp.daemon.announcing import Announcing
from npd6_xdp.daemon.answering import Answering, Handler
from npd6_xdp.daemon.changes import Changes, to_be
from npd6_xdp.daemon.control import Control
from npd6_xdp.daemon.counts import Counts
from npd6_xdp.daemon.documents import Documents
from npd6_xdp.daemon.explaining import Explaining
from npd6_xdp.daemon.exposition import Exposition
from npd6_xdp.daemon.handover import HandOver
from npd6_xdp.daemon.in_force import Change, Follower, InForce
from npd6_xdp.daemon.left_targets import LeftTargets
from npd6_xdp.daemon.lines import Damper
from npd6_xdp.daemon.link_log import LinkLog
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.machine import Machine, NextLook
from npd6_xdp.daemon.mrd import RouterDiscovery
from npd6_xdp.daemon.names import Names
from npd6_xdp.daemon.outlook import Outlook
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.daemon.programs import Programs
from npd6_xdp.daemon.proxy_entries import ProxyEntries
from npd6_xdp.daemon.reading import Source, seconds_to_read
from npd6_xdp.daemon.reaper import Reaper
from npd6_xdp.daemon.recent_targets import RecentTargets
from npd6_xdp.daemon.reloads import Reloads
from npd6_xdp.daemon.remembering import Remembering
from npd6_xdp.daemon.resolution import Resolution
from npd6_xdp.daemon.rings import Rings
from npd6_xdp.daemon.routing import Routing
from npd6_xdp.daemon.service import Service, begin
from npd6_xdp.daemon.signals import Ended, Signals
from npd6_xdp.daemon.tags import Tags
from npd6_xdp.daemon.tracing import Tracing
from npd6_xdp.daemon.tracking import Tracking
from npd6_xdp.daemon.turns import Turns
from npd6_xdp.daemon.view import View
from npd6_xdp.system import cgroup
from npd6_xdp.system.bpf.attach import Keeper
from npd6_xdp.system.bpf.early_maps import EarlyMaps
from npd6_xdp.system.bpf.events import EventRing
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.bpf.sizes import memory_to_load, sizes_for
from npd6_xdp.system.claims import Claims
from npd6_xdp.system.descriptors import raise_limit
from npd6_xdp.system.manager import ServiceManager
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.system.netlink.router import Router
from npd6_xdp.system.other_daemons import other_daemons
from npd6_xdp.system.sysctl import Memory

log = logging.getLogger("npd6-xdp")

_SWITCH = 0.001  # seconds after which a thread of HTTP's that works lets the loop have its turn; Python has 5 ms


class Given(NamedTuple):
    """What a daemon is given: see Daemon."""

    service: Service
    source: Source
    configured: Callable[[Config], None]
    file: str
    unread: Callable[[], int]
    compiling: Compiling | None


class Rooms:
    """All of the daemon's, each made with those that it calls; what has a name here is called once it is at work."""

    def __init__(
        self,
        stack: ExitStack,
        loop: Loop,
        hand_over: HandOver,
        given: Given,
        machine: Machine,
        look: NextLook,
        first: InForce,
    ) -> None:
        keep, self.machine = stack.enter_context, machine
        changing = threading.RLock()
        self.damper, self.reaper = Damper(), Reaper()
        self.control = keep(closing(Control(first.config.control, loop)))
        requests = keep(closing(Requests()))
        # who answers
        left = hand_over.left
        self.ns_filter = left(_loaded(first, hand_over.links(first), given.compiling))
        claims = keep(closing(Claims()))
        self.ports = left(Ports(self.ns_filter, lambda: machine.netlink, self.damper, hand_over.sockets(), claims))
        counts, recent = Counts(), RecentTargets(self.ns_filter)
        self.rings, self.answering = keep(closing(Rings(loop))), Answering(self.ports, counts, recent, loop.failed)
        late, guests = self.answering.answer_late, machine.look_for_guests
        memory = Memory()  # what a dead one has left is this one's from here: `kernel` puts it back
        self.beside = [*memory.others]
        """Processes of other npd6-xdps in this network namespace."""
        company = left(memory, memory.look_for_others).look_for_others
        self.kernel = left(ProxyEntries(self.ns_filter, requests, memory), company)
        self.neighbour = left(Resolution(self.ns_filter, requests, late, memory, guests), company)
        self.route = keep(closing(Routing(self.ns_filter)))
        self.tags = keep(closing(Tags(self.ns_filter, self.ports, _counted(self.ns_filter, counts), changing)))
        self.discovery = keep(closing(RouterDiscovery(self.ports, self.damper, lasts=hand_over.lasts)))
        self.remembering = Remembering(self.ns_filter)
        self.announcing = Announcing(self.remembering, self.ports, self.neighbour, self.route)
        self.left_targets = LeftTargets(self.remembering, lasts=hand_over.lasts)
        # who tells of it
        found = counts, recent, self.neighbour, self.kernel, self.announcing, self.remembering, hand_over
        view = View(self.ns_filter, self.ports, self.tags, *found, changing, given.file)
        self.documents = Documents(loop, view, self.answering, self.rings, given.unread)
        self.exposition, self.names = keep(closing(Exposition(self.documents))), Names()
        warned = self.neighbour.take_news, self.damper, view.warn, self.exposition.warnings
        self.outlook = keep(closing(Outlook(Router(), *warned)))
        self.explaining = Explaining(self.ns_filter, requests, self.ports, recent, self.neighbour, self.route)
        turns = Turns(lambda: self.rings.busy)
        rings, answering, reap = self.rings, self.answering, self.reaper.reap
        self.programs = Programs(loop, self.ns_filter, rings, answering, self.tags, turns, changing, reap)
        self.tracing = keep(closing(Tracing(loop, self.ns_filter, self.rings, self.answering, changing)))
        followers = self._followers(counts, recent, view)
        self.changes = Changes(machine, look, turns, changing, [*followers, hand_over])
        source, configured, manager = given.source, given.configured, given.service.manager
        tracking = self.tracking = Tracking(loop, look, self.changes, self.programs, manager)
        self.reloads = Reloads(loop, source, configured, self.changes, tracking, view, manager, turns, reap)

    def _followers(self, counts: Counts, recent: RecentTargets, view: View) -> list[Follower]:
        """Who goes from one configuration and machine to the next, in the order in which each verb reaches them: whose
        word others ask for comes before those; exposition and control listen before ports attach, which makes some
        links flap, and discovery ends what they still send. Only programs, which commits, applies before all others,
        and answers what is in the rings first.
        """
        return [
            *(LinkLog(self.damper), self.machine, self.neighbour, self.exposition, self.outlook),
            *(self.kernel, self.route, self.tracing, self.programs),
            *(self.answering, counts, recent, view, self.control, self.discovery, self.ports),
            *(self.tags, self.remembering, self.announcing, self.names, self.explaining),
        ]

    def begin(self, first: InForce, went_on: Callable[[], object]) -> None:
        """Put the first table in force, and serve; `went_on` is told of each step. Raises Npd6Error."""
        handlers: dict[Method, Handler] = {
            Method.NEIGHBOUR: self.neighbour.handle,
            Method.KERNEL: self.kernel.handle,
            Method.ROUTE: self.route.handle,
        }
        self.answering.join(handlers, self.neighbour.notice, self.announcing.found)
        self.route.use(self.machine.routing_flags)
        self.rings.open(EventRing(self.ns_filter.program.maps))
        for name, pid in other_daemons():
            log.warning("%s is running here (pid %d): two that answer on one link are a mistake; stop one", name, pid)
        self.left_targets.take(first.table, first.config.limits.remembered_targets)
        self.changes.begin(first, went_on)
        self.left_targets.taken()
        self.documents.take_samples()
        self.exposition.serve()

    def join(self, loop: Loop, signals: Signals, manager: ServiceManager) -> None:
        """Say what the loop waits for, and whom it calls then; in this order, where several are due."""
        self.machine.join(loop, self.route.use)
        self.route.join(loop)
        signals.join(loop, {signal.SIGHUP: self.reloads.ask, signal.SIGUSR1: self.documents.log_status})
        verbs = {
            "status": self.documents.answer_status,
            "reload": lambda _, reply: self.reloads.ask(reply),
            "announce": self.announcing.ask,
            "names": self.names.answer,
            "explain": self.explaining.answer,
        }
        self.control.join(loop, verbs, {"trace": self.tracing.ask})
        self.tracing.join()
        self.reloads.join(self.control.say_at_work)
        self.tracking.join(lambda: self.reloads.is_applying)
        self.changes.join(loop)
        self.neighbour.join(loop)
        self.outlook.join(loop, self.tags, lambda: self.neighbour.has_news, Turns(lambda: self.rings.busy))
        loop.at(lambda: self.damper.due, self.damper.settle, "outlook")
        self.kernel.join(loop)
        self.ports.join(loop)
        self.tags.join(loop, self.changes.anew)
        self.discovery.join(loop)
        self.remembering.join(loop)
        self.announcing.join(loop)
        self.programs.join()
        self.documents.join(loop)
        self.explaining.join(loop, lambda: self.rings.busy)
        self.reaper.join(loop)
        loop.at(lambda: manager.due, manager.tick, "manager")


class Daemon:
    """npd6-xdp at work, from start() to close(); use it as a context manager.

    `source` is read at the start and at each reload; `configured` is told of each configuration in use. `file` is where
    it is read from. `unread` says how many lines of the log were dropped. `compiling` has the program, where that is
    compiled beside the start; whoever has made it closes it.
    """

    def __init__(
        self,
        service: Service,
        source: Source,
        configured: Callable[[Config], None],
        file: str,
        unread: Callable[[], int] = lambda: 0,
        compiling: Compiling | None = None,
    ) -> None:
        self._given = Given(service, source, configured, file, unread, compiling)
        service.manager.went_on(seconds_to_read(file))
        with _uncollected():
            self._written = source.load()
        self._stack = ExitStack()
        self._loop = Loop()
        self._stack.callback(self._loop.close)
        self._manager = service.manager
        self._hand_over = HandOver(service.store, self._stack, self._manager.went_on)

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

    def start(self) -> None:
        """Load, attach and serve. Raises Npd6Error, with nothing left behind, when one of these can't be, and Ended in
        the same way when a signal has come before all was done.
        """
        raise_limit()
        keep, loop = self._stack.enter_context, self._loop
        keep(_thread_failures(loop))
        signals = keep(closing(Signals(loop)))

        def went_on() -> None:
            self._manager.went_on()
            signals.check()

        self._given.configured(self._written)
        look = NextLook()
        machine = keep(closing(Machine(loop, look)))
        first = finish(to_be(machine, self._written, Change(ExitStack(), asked=True)), went_on)
        rooms = self._rooms = Rooms(self._stack, loop, self._hand_over, self._given, machine, look, first)
        rooms.reaper.reap()
        rooms.begin(first, went_on)
        self._hand_over.taken_over()
        rooms.join(loop, signals, self._manager)
        self._hand_over.join(loop)
        for pid in rooms.beside:
            log.info("another npd6-xdp runs in this network namespace (pid %d): what it has is left to it", pid)
        if lack := first.lack:
            missing = [name for name in first.absent if not is_glob(name)]
            log.warning("started, but %s", lack, extra=fields(**named(*missing)))
        else:
            ports = sorted({entry.port for entry in first.table.entries.values() if entry.spoken})
            log.info("ready: %s", first.summary, extra=fields(**named(*ports)))

    def run(self) -> None:
        """Answer until a signal ends it. Raises MachineError if a source of events is beyond help."""
        rings, answering = self._rooms.rings, self._rooms.answering
        self._manager.ready(self._rooms.changes.in_force.summary)
        self._given.service.starts.ready()
        self._loop.run(partial(rings.look, answering), Rings.WHERE)
        self._manager.stopping()

    def close(self) -> None:
        """Detach, answer what is still in the ring, and let go of everything."""
        rooms = self._rooms
        rooms.reloads.close()
        rooms.tracking.close()
        rooms.discovery.end(leave=self._hand_over.lasts)
        if not self._hand_over.lasts:
            rooms.ports.detach_all()
        try:
            if self._hand_over.lasts:  # the program goes on, and what it hands up comes to no end
                rooms.rings.drain(rooms.answering)
                rooms.answering.count()
            else:
                rooms.rings.empty(rooms.answering)
        except Exception as error:  # it may be what has ended us
            self._loop.failed(Rings.WHERE, error)
        rooms.left_targets.leave(rooms.changes.in_force.table)
        rooms.documents.leave_samples()
        self._stack.close()


def _loaded(first: InForce, links: Keeper, compiling: Compiling | None) -> NsFilter:
    """The program; while it is being compiled, what else takes long is made, unless memory is limited: then one comes
    after the other, and what it takes is asked for first. Raises MachineError.
    """
    table, limits = first.table, first.config.limits
    with ExitStack() as stack:
        early = None
        if compiling and cgroup.nearest_limit() is None:
            early = stack.enter_context(closing(EarlyMaps(sizes_for([table], limits))))
        ahead = compiling.take() if compiling else b""
        cgroup.require(memory_to_load([table], limits, ahead=bool(ahead)), f"loading {first.rules}")
        return NsFilter(table, limits, links, ahead, early)


def _counted(ns_filter: NsFilter, counts: Counts) -> Callable[[int], int]:
    """How many solicitations an entry has had."""
    return lambda entry: sum(ns_filter.entry_counters(entry).outcomes.values()) + counts.entry(entry).total()


@contextmanager
def _thread_failures(loop: Loop) -> Iterator[None]:
    """Who was answered by a thread that fails gets nothing; the others don't notice."""

    def failed(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_value is not None:
            loop.failed("web", failure.exc_value)

    before, threading.excepthook = threading.excepthook, failed
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def _uncollected() -> Iterator[None]:
    """Hold the garbage collector off while much is made and little thrown away: it would walk it over and over."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run(
    source: Source,
    configured: Callable[[Config], None],
    file: str,
    unread: Callable[[], int],
    at_work: Callable[[], None] = lambda: None,
    compiling: Compiling | None = None,
) -> None:
    """`npd6-xdp run`: the daemon in the foreground; see Daemon. `at_work` is called once it answers."""
    sys.setswitchinterval(_SWITCH)
    with suppress(Ended), Daemon(begin(), source, configured, file, unread, compiling) as daemon:
        at_work()
        daemon.run()
