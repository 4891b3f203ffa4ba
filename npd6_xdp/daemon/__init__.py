# SPDX-License-Identifier: GPL-2.0-or-later
"""The composition root: builds the rooms, connects them, runs, closes. No policy and no packet bytes.

One thread does it all but HTTP: it waits for events of the XDP program, for changes of the machine, for
the control socket, and for signals.
"""

from __future__ import annotations

import gc
import logging
import math
import select
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address
from types import FrameType
from typing import Any

from npd6_xdp.core.config import Config
from npd6_xdp.core.errors import MachineError, Npd6Error
from npd6_xdp.core.event import EventTags, NsEvent
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.rules import Decision, Match, Rule, Table, absent_vias, build, warnings
from npd6_xdp.core.snapshot import Snapshot
from npd6_xdp.core.status import overview_json, status_json, status_text
from npd6_xdp.core.verdict import Method, Outcome
from npd6_xdp.daemon.answering import Answering
from npd6_xdp.daemon.counts import Counts
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.daemon.proxies import Proxies
from npd6_xdp.daemon.resolution import Resolution
from npd6_xdp.daemon.view import View
from npd6_xdp.system.control import ControlServer
from npd6_xdp.system.datapath import Datapath
from npd6_xdp.system.events import BATCH, RING_PAGES, EventRing
from npd6_xdp.system.manager import ServiceManager
from npd6_xdp.system.metrics import metrics_app
from npd6_xdp.system.netlink import Netlink
from npd6_xdp.system.peers import running_peers
from npd6_xdp.system.rtnetlink import NextHops, Requests
from npd6_xdp.system.sysctl import Memory
from npd6_xdp.system.sysctl import read as read_sysctl
from npd6_xdp.system.web import Endpoint

log = logging.getLogger("npd6-xdp")

# After a change was followed comes a pause, so that a storm of changes takes a tenth of our time: so many times the
# processor time that it took. It is cut to what may pass unnoticed, and then a storm takes half of our time at most.
_REFRESH_PAUSE = 10
_UNNOTICED = 0.05  # seconds
_RETIREMENT = 0.5  # seconds that a replaced program may still be running on some CPU
_LOOK_AGAIN = 0.001  # seconds after which events may be there that have waked nobody (see system/events.py)
_NAP = 20e-6  # seconds (the kernel makes some 80 us of it) between two looks at a stream
_FEW = 64  # events of a look, from which on there is no time for a nap
_NEVER = math.inf
_MOST_READY = 16  # file descriptors that one wait tells of
_MOST_BATCHES = 2 * RING_PAGES * 4096 // 64 // BATCH  # more than a ring holds
_HEARTBEAT = 2.0  # seconds after which the loop turns, if nothing else wakes it: so it is known to be alive
_HUNG = 10.0  # seconds without a turn after which it is taken for hung; a reload of 100,000 rules takes less
_RETRY = 1.0  # seconds after which the machine is looked at again, where that has failed


@dataclass(slots=True)
class _Ring:
    """A program's ring; `until` says when it is given up, if another program has taken over."""

    ring: EventRing
    until: float | None = None


class Daemon:
    """npd6-xdp at work, from start() to close(); use it as a context manager.

    `load` reads the configuration, at the start and at each reload; `configured` is told of each one in use. `file` is
    where it is read from.
    """

    def __init__(self, load: Callable[[], Config], configured: Callable[[Config], None], file: str) -> None:
        self._load = load
        self._file = file
        self._configured = configured
        with _uncollected():
            self._config = load()
        self._manager = ServiceManager()
        self._links: Mapping[str, LinkFacts] = {}
        self._logged: Mapping[str, LinkFacts] = {}
        self._table = Table({}, {}, {}, {}, {})
        self._stack = ExitStack()
        self._selector = selectors.EpollSelector()
        self._epoll = select.epoll()  # the rings, and all else behind the selector: one event costs half as much so
        self._epoll.register(self._selector.fileno(), select.EPOLLIN)
        self._counts = Counts()
        self._rings: list[_Ring] = []
        self._changing = threading.RLock()  # held while counters may move from one program to another
        self._endpoint: Endpoint | None = None
        self._retire_at: float | None = None
        self._refresh_at: float | None = None
        self._refresh_not_before = 0.0
        self._failed = ""
        self._warned: frozenset[str] = frozenset()
        self._signalled: list[Callable[[], object]] = []
        self._turned = time.monotonic()  # when the loop last began a turn
        self._stopping = False

    def __enter__(self) -> Daemon:
        try:
            with _uncollected():
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
        config, keep = self._config, self._stack.enter_context
        self._note_signals()
        self._configured(config)
        self._netlink = keep(closing(Netlink()))
        self._next_hops = keep(closing(NextHops()))
        self._requests = keep(closing(Requests()))
        links = self._logged = self._facts(config)
        Ports.check(config, links)
        table = build(config, links)

        self._control = self._listen(config)
        self._stack.callback(lambda: self._control.close())
        self._datapath = keep(closing(Datapath(table, config.limits)))
        self._ports = keep(closing(Ports(self._datapath)))
        self._answering = Answering(self._ports, self._counts, self._special)
        late = self._answering.answer_late
        memory = keep(closing(Memory()))
        alone = not memory.others
        self._resolution = keep(closing(Resolution(self._datapath, self._requests, late, alone=alone)))
        self._proxies = keep(closing(Proxies(self._datapath, self._requests, memory)))
        self._open_ring(EventRing(self._datapath.program.bpf))
        self._stack.callback(self._close_rings)
        self._view = View(
            self._datapath, self._ports, self._counts, self._resolution, self._proxies, self._changing, self._file
        )
        for name, pid in running_peers():
            log.warning("%s is running here (pid %d): two that answer on one link are a mistake; stop one", name, pid)
        self._endpoint = self._offer_metrics(config)  # before a program is attached, which some links flap at
        self._stack.callback(self._close_endpoint)
        self._decide_by(config, links, table)
        self._ports.admit(config, links, table)
        self._ports.follow(config, links, table)
        if self._endpoint is not None:
            self._endpoint.serve()
        self._watch()
        for pid in memory.others:
            log.info("another npd6-xdp runs in this network namespace (pid %d): what it has is left to it", pid)
        log.info("ready: %s", self._summary())

    def _summary(self) -> str:
        where = ", ".join(dict.fromkeys(entry.port for entry in self._table.entries.values()))
        rules = len(self._table.rules)
        return f"{rules} rule{'' if rules == 1 else 's'} on {where or 'no interface that is there yet'}"

    def _facts(self, config: Config) -> dict[str, LinkFacts]:
        self._next_hops.watch(self._netlink.l3_interfaces(lambda name: bool(config.entries(name))))
        return self._netlink.facts(self._next_hops.of)

    def _open_ring(self, ring: EventRing) -> None:
        if ring.pages < RING_PAGES:
            log.warning(
                "the kernel grants %d pages a CPU for the ring to Python, not %d: raise LimitMEMLOCK= (ulimit -l)",
                ring.pages,
                RING_PAGES,
            )
        for fd in ring.filenos():
            self._epoll.register(fd, select.EPOLLIN)
        self._rings.append(_Ring(ring))

    def _close_rings(self) -> None:
        for kept in self._rings:
            kept.ring.close()

    def _listen(self, config: Config) -> ControlServer:
        return ControlServer(config.control, self._selector, self._answer_control)

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
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
            self._stack.callback(end.close)
        self._signals = reader
        self._selector.register(reader, selectors.EVENT_READ, self._on_signal)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._stack.callback(signal.set_wakeup_fd, -1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            self._stack.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(number, self._note_signal)

    def _watch(self) -> None:
        changed, dumped = self._next_hops.filenos()
        neighbours, refused = self._resolution.filenos()
        for fd, call in (
            (self._netlink.fileno(), self._on_link_change),
            (changed, self._on_route_change),
            (dumped, self._on_route_dump),
            (neighbours, self._resolution.on_change),
            (refused, self._resolution.on_refusal),
        ):
            self._selector.register(fd, selectors.EVENT_READ, call)

    # --- the table --------------------------------------------------------------------------------------

    def _decide_by(self, config: Config, links: Mapping[str, LinkFacts], table: Table) -> None:
        """Let a table be in force, with not one target in between that neither it nor the last one decides."""
        self._make_room(config, table)
        said = self._warnings(config, links, table)
        for line in said:
            if line not in self._warned:
                log.warning("%s", line)
        self._warned = frozenset(said)
        names = {link.ifindex: link.name for link in links.values()}
        self._resolution.prepare(table, config.limits)
        self._proxies.prepare(table, config.limits, names)
        with self._changing:
            self._drain()
            self._datapath.limit(config.limits)
            self._datapath.apply(table)
            before, self._table = self._table, table
            self._config, self._links = config, links
            self._answering.use(table)
            self._counts.follow(table)
            self._view.use(config, table, links, said)
        for event in self._resolution.settle():
            self._ask_again(event, before)
        self._proxies.settle()

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

    def _make_room(self, config: Config, table: Table) -> None:
        """Load a program with larger maps, and let it take over, where the table doesn't fit into those there are."""
        if self._datapath.has_room(table, config.limits):
            return
        with ExitStack() as undo:
            program = self._datapath.larger(table, config.limits)
            undo.callback(program.close)
            ring = EventRing(program.bpf)
            undo.callback(ring.close)
            with self._changing:
                self._datapath.switch(program)
            undo.pop_all()
        until = time.monotonic() + _RETIREMENT
        for kept in self._rings:
            kept.until = kept.until or until
        self._retire_at = self._retire_at or until
        self._open_ring(ring)
        log.info("the kernel maps have grown")

    def _retire(self, now: float) -> None:
        """Let go of rings and programs that others have taken over from."""
        gone = [kept for kept in self._rings if kept.until is not None and kept.until <= now]
        for kept in gone:
            while self._answering.answer(kept.ring.read()):
                pass
            for fd in kept.ring.filenos():
                self._epoll.unregister(fd)
            kept.ring.close()
            self._rings.remove(kept)
        self._retire_at = min((kept.until for kept in self._rings if kept.until is not None), default=None)
        if self._retire_at is None:
            with self._changing:
                self._datapath.retire()

    @staticmethod
    def _warnings(config: Config, links: Mapping[str, LinkFacts], table: Table) -> list[str]:
        """What of the configuration doesn't do what its writer may think, as things are."""
        lines = warnings(table)
        names = {link.ifindex: link.name for link in links.values()}
        routed = {entry.l3_ifindex for entry in table.live(Decision.ROUTE)}
        for name in sorted(names[ifindex] for ifindex in routed if ifindex in names):
            if read_sysctl(f"conf/{name}/forwarding") == "0":
                lines.append(
                    f"{name}: forwarding is off, so method route finds no target there:"
                    f" sysctl -w net.ipv6.conf.all.forwarding=1"
                )
        resolved = {entry.l3_ifindex for entry in table.live(Decision.NEIGHBOUR)}
        for name in sorted(names[ifindex] for ifindex in resolved - routed if ifindex in names):
            if read_sysctl(f"conf/{name}/forwarding") == "0":
                lines.append(
                    f"{name}: forwarding is off, so hosts are answered for and what is sent to them gets no further:"
                    f" sysctl -w net.ipv6.conf.all.forwarding=1"
                )
        for interface in config.interfaces:
            if not interface.is_glob and interface.name not in links:
                lines.append(f"{interface.name}: no such interface here yet; waiting for it")
        lines += [f"via {name}: no such interface here yet; waiting for it" for name in absent_vias(config, links)]
        return list(dict.fromkeys(lines))

    # --- run --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Answer until a signal ends it."""
        poll, others = self._epoll.poll, self._selector.fileno()
        self._manager.ready(self._summary())
        watched = True
        while not self._stopping:
            events = 0
            for kept in tuple(self._rings):
                events = max(events, self._answering.answer(kept.ring.read(watched=watched)))
            now, due = time.monotonic(), self._next_due()
            self._turned = now
            if due <= now:
                self._tick(now)
                due = self._next_due()
            wait = min(due - now, _HEARTBEAT)
            if events > 1:  # a stream: who sends it pays for each wake-up, so we come by ourselves for a while
                watched, wait = False, 0.0
                if events < _FEW:
                    time.sleep(_NAP)
            elif not watched:
                watched, wait = True, 0.0
            elif events:  # what follows an event closely may come without waking us, and there is to settle
                wait = min(wait, _LOOK_AGAIN)
            else:
                self._answering.settle()
            for fd, _ in poll(max(wait, 0.0), _MOST_READY):
                if fd == others:
                    for key, _ in self._selector.select(0):
                        key.data()
            while self._signalled:
                self._signalled.pop(0)()
        self._manager.stopping()

    def _special(self, event: NsEvent, rule: Rule) -> Outcome | None:
        """What there is to do for an event besides answering. None: answer."""
        if event.tags & EventTags.STALE:
            self._resolution.confirm(event, rule)
        if event.tags & EventTags.ANSWERED:
            return Outcome.ANSWERED_XDP
        if event.tags & EventTags.MISS:
            if rule.method is Method.NEIGHBOUR:
                return self._resolution.ask(event, rule)
            if rule.method is Method.KERNEL:
                self._proxies.ask(event, rule)
        return None

    def _next_due(self) -> float:
        """When there is something to do that nothing will wake us for (seconds, monotonic)."""
        first = _NEVER
        for due in (
            self._refresh_at,
            self._next_hops.due,
            self._resolution.due,
            self._proxies.due,
            self._ports.due,
            self._retire_at,
            self._manager.due,
        ):
            if due is not None and due < first:
                first = due
        return first

    def _tick(self, now: float) -> None:
        dues: tuple[tuple[float | None, Callable[[float], object]], ...] = (
            (self._refresh_at, lambda _: self._refresh()),
            (self._next_hops.due, lambda _: self._next_hops.refresh()),
            (self._resolution.due, self._resolution.tick),
            (self._proxies.due, self._proxies.tick),
            (self._ports.due, lambda _: self._ports.follow(self._config, self._links, self._table)),
            (self._retire_at, self._retire),
            (self._manager.due, self._manager.feed),
        )
        for due, call in dues:
            if due is not None and due <= now:
                call(now)

    # --- changes of the machine ---------------------------------------------------------------------------

    def _on_link_change(self) -> None:
        try:
            if self._netlink.on_change():
                self._later()
        except MachineError as error:
            self._retry(error)

    def _on_route_change(self) -> None:
        if self._next_hops.on_change():
            self._later()

    def _on_route_dump(self) -> None:
        if self._next_hops.on_dump():
            self._later()

    def _later(self) -> None:
        if self._refresh_at is None:
            self._refresh_at = self._refresh_not_before

    def _refresh(self) -> None:
        """Make the table follow the machine."""
        began = time.thread_time()
        self._refresh_at = None
        try:
            self._netlink.on_change()  # reads all, where that has failed before
            links = self._facts(self._config)
            changed = links != self._links
            if changed:
                self._log_changes(links)
                self._decide_by(self._config, links, build(self._config, links, self._table))
                self._manager.status(self._summary())
        except MachineError as error:
            self._retry(error)
            changed = False
        else:
            self._failed = ""
        cost = time.thread_time() - began
        self._refresh_not_before = time.monotonic() + min(cost * _REFRESH_PAUSE, max(cost, _UNNOTICED))
        if changed:
            self._ports.follow(self._config, links, self._table)  # attaching waits for the kernel, and works little

    def _retry(self, error: MachineError) -> None:
        """Look again later; said once, until it goes well."""
        if str(error) != self._failed:
            self._failed = str(error)
            log.error("%s; going on with what is known", error)
        self._refresh_at = time.monotonic() + _RETRY

    def _log_changes(self, links: Mapping[str, LinkFacts]) -> None:
        """Once each: what can't be followed at once is tried again."""
        known, self._logged = self._logged, links
        named = {entry.port for entry in self._table.entries.values()}
        for name, before in known.items():
            if name not in named:
                continue
            now = links.get(name)
            if now is None or now.ifindex != before.ifindex:
                log.warning("%s: the interface is gone%s", name, "" if now is None else ", and another has its name")
                continue
            if now.up != before.up:
                log.info("%s: %s", name, "up" if now.up else "down")
            if now.mac != before.mac:
                log.info("%s: the MAC address is now %s", name, now.mac.hex(":"))
            if now.addresses != before.addresses or now.next_hops != before.next_hops:
                log.info("%s: addresses or next hops changed", name)
        for name in links.keys() - known.keys():
            if self._config.entries(name):
                log.info("%s: the interface is there", name)

    # --- requests -----------------------------------------------------------------------------------------

    def _note_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._signalled.append(self.reload)
        elif number == signal.SIGUSR1:
            self._signalled.append(self._log_status)
        else:
            log.info("%s: ending", signal.Signals(number).name)
            self._stopping = True

    def _on_signal(self) -> None:
        self._signals.recv(64)

    def _answer_control(self, question: dict[str, Any]) -> dict[str, Any]:
        match question.get("verb"):
            case "status":
                return self.overview() if question.get("brief") is True else self.status()
            case "reload":
                error = self.reload()
                return {"error": f"the old configuration stays: {error}"} if error else self._view.in_use()
            case verb:
                return {"error": f"unknown verb {verb!r}: it knows status and reload"}

    def reload(self) -> str:
        """Read the configuration again and go by it, all or nothing. Why not; "" if it is in use."""
        began = time.monotonic()
        self._manager.reloading()
        try:
            with _uncollected():
                config = self._load()
                loaded = time.monotonic()
                self._change_to(config)
        except Npd6Error as error:
            self._view.reload_failed(str(error))
            for line in str(error).splitlines():
                log.error("reload: %s", line)
            log.error("reload: the old configuration stays")
            self._manager.ready(f"{self._summary()}; the last reload failed, and the old configuration stays")
            return str(error)
        log.info("reload: the new configuration is in use")
        self._manager.ready(self._summary())
        log.debug("reload: read in %.3f s, applied in %.3f s", loaded - began, time.monotonic() - loaded)
        gc.unfreeze()
        gc.collect()  # a responder and its caches hold one another, and the table before
        gc.freeze()
        return ""

    def _change_to(self, config: Config) -> None:
        """Whatever can fail comes first, so that failing leaves all as it was."""
        Ports.check(config, self._links)
        with ExitStack() as undo:
            undo.callback(lambda: self._facts(self._config))
            links = self._facts(config)
            table = build(config, links, self._table)
            self._make_room(config, table)
            endpoint, control = self._endpoint, self._control
            if config.metrics_listen != self._config.metrics_listen:
                endpoint = self._offer_metrics(config)
                undo.callback(lambda: endpoint.close() if endpoint else None)
            if config.control != self._config.control:
                control = self._listen(config)
                undo.callback(control.close)
            self._ports.admit(config, links, table)
            undo.pop_all()
        self._decide_by(config, links, table)
        self._logged = links
        self._ports.follow(config, links, table)
        if self._endpoint is not endpoint:
            self._close_endpoint()
            if endpoint is not None:
                endpoint.serve()
        if self._control is not control:
            self._control.stop_listening()  # who has asked for this is yet to hear
        self._endpoint, self._control = endpoint, control
        self._configured(config)
        self._view.reloaded()

    # --- end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Detach, answer what is still in the ring, and let go of everything."""
        self._ports.detach_all()
        for kept in self._rings:
            while self._answering.answer(kept.ring.read()):
                pass
        self._answering.settle()
        self._stack.close()
        self._epoll.close()
        self._selector.close()

    # --- look -------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All counters at this moment, the kernel's read now. Called by the metrics' thread."""
        return self._view.snapshot(self._answering.times)

    def status(self) -> dict[str, Any]:
        """All that there is to know, as plain values."""
        self._answering.settle()
        return status_json(self._view.status(self.snapshot()))

    def overview(self) -> dict[str, Any]:
        """The same without addresses, and of bounded length. Called by the status page's threads, too."""
        return overview_json(self._view.overview(self.snapshot()))

    def ailing(self) -> str:
        """Why nobody should rely on this daemon; "" if it is well. Called by the status page's threads."""
        silent = time.monotonic() - self._turned
        if silent > _HUNG:
            return f"the main loop has not turned for {silent:.0f} s"
        return self._view.ailing()

    def _log_status(self) -> None:
        for line in filter(None, status_text(self.status()).splitlines()):
            log.info("%s", line)


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
    with closing(Netlink()) as netlink, closing(NextHops()) as next_hops:
        next_hops.watch(netlink.l3_interfaces(lambda name: bool(config.entries(name))))
        return netlink.facts(next_hops.of)


def run(load: Callable[[], Config], configured: Callable[[Config], None], file: str) -> None:
    """`npd6-xdp run`: the daemon in the foreground."""
    with Daemon(load, configured, file) as daemon:
        daemon.run()
