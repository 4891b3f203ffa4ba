# SPDX-License-Identifier: GPL-2.0-or-later
"""The composition root: builds the rooms, connects them, runs, closes. No policy and no packet bytes.

One thread does it all but the metrics' HTTP: a selector waits for events of the XDP program, for changes of the
machine, and for signals.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from types import FrameType

import npd6_xdp
from npd6_xdp.core.config import Attach, Config
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.responder import Responder
from npd6_xdp.core.rules import LinkFacts, Table, build, warnings
from npd6_xdp.core.snapshot import AnswerTimes, InterfaceSnapshot, RuleSnapshot, Snapshot
from npd6_xdp.core.verdict import Outcome, Reason
from npd6_xdp.system.datapath import AttachMode, Datapath, Refused, load_bcc
from npd6_xdp.system.events import RING_PAGES, EventRing
from npd6_xdp.system.metrics import Endpoint
from npd6_xdp.system.netlink import Netlink, receive_vlan_offload
from npd6_xdp.system.sender import Port

log = logging.getLogger("npd6-xdp")

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_REFRESH_PAUSE = 10  # times what reading the facts took: a storm of changes takes at most a tenth of our time
_COUNTED_HERE = (Outcome.ANSWERED_PYTHON, Outcome.FAILED)


@dataclass(slots=True)
class _Attached:
    """A port that the program sits on."""

    ifindex: int
    mode: str
    socket: Port


class Daemon:
    """npd6-xdp at work, from start() to close(); use it as a context manager."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._loaded_at = time.time()
        self._stack = ExitStack()
        self._selector = selectors.DefaultSelector()
        self._ports: dict[str, _Attached] = {}
        self._by_ifindex: dict[int, Port] = {}
        self._entry_counts: dict[int, dict[Outcome, int]] = {}
        self._rule_counts: dict[int, dict[Outcome, int]] = {}
        self._answer_times = AnswerTimes()
        self._refresh_at: float | None = None
        self._refresh_not_before = 0.0
        self._stopping = False

    def __enter__(self) -> Daemon:
        try:
            self.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- start ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Load, attach and serve. Raises MachineError, with nothing left behind, when one of these can't be."""
        self._netlink = Netlink()
        self._stack.callback(self._netlink.close)
        names = _port_names(self._config)
        self._links = self._netlink.facts(names)
        for name in names:
            if name not in self._links:
                raise MachineError(f"{name}: no such interface here; see `ip link`, or correct interface.name")
        self._use(build(self._config, self._links))
        for line in warnings(self._table):
            log.warning("%s", line)

        self._datapath = Datapath(self._table)
        self._stack.callback(self._datapath.close)
        self._datapath.apply(self._table)
        self._ring = EventRing(self._datapath.bpf)
        self._stack.callback(self._ring.close)
        if self._ring.pages < RING_PAGES:
            log.warning(
                "the kernel grants %d pages a CPU for the ring to Python, not %d: raise LimitMEMLOCK= (ulimit -l)",
                self._ring.pages,
                RING_PAGES,
            )
        for name in names:
            self._attach(self._links[name])
        self._serve_metrics()
        self._watch()
        rules = len(self._table.rules)
        log.info("ready: %d rule%s on %s", rules, "" if rules == 1 else "s", ", ".join(names))

    def _use(self, table: Table) -> None:
        """Decide by this table from now on."""
        # The metrics' thread reads these: all keys are there before it sees the table that names them.
        for entry_id in table.entries:
            self._entry_counts.setdefault(entry_id, dict.fromkeys(_COUNTED_HERE, 0))
        for rule_id in table.rules:
            self._rule_counts.setdefault(rule_id, dict.fromkeys(_COUNTED_HERE, 0))
        self._table = table
        self._responder = Responder(table)

    def _attach(self, link: LinkFacts) -> None:
        port = Port(link.name, link.ifindex)
        self._stack.callback(port.close)
        mode = self._attach_as(link, self._config.attach(link.name))
        self._ports[link.name] = _Attached(link.ifindex, mode.name.lower(), port)
        self._by_ifindex[link.ifindex] = port
        tagged = any(i.name == link.name and (i.vlan.any or i.vlan.tags) for i in self._config.interfaces)
        if (tagged or len(link.addresses) > 1) and receive_vlan_offload(link.name):
            log.warning(
                "%s: receive VLAN offload is on, which can hide VLAN tags from XDP: ethtool -K %s rxvlan off",
                link.name,
                link.name,
            )
        entries = [e for e in self._table.entries.values() if e.port == link.name and e.spoken]
        log.info(
            "%s: attached in %s mode; %s",
            link.name,
            mode.name.lower(),
            ", ".join(f"{e.label} {e.datapath}" for e in entries),
        )

    def _attach_as(self, link: LinkFacts, wish: Attach) -> AttachMode:
        if wish is Attach.AUTO and link.kind == "veth":
            # Native XDP_TX on veth is lost unless the peer has a program too; generic always arrives.
            wish = Attach.GENERIC
        if wish is not Attach.GENERIC:
            try:
                self._datapath.attach(link.ifindex, link.name, AttachMode.NATIVE)
            except Refused as refused:
                if wish is Attach.NATIVE:
                    raise MachineError(f'{refused}; allow attach = "auto" or "generic"') from refused
                log.warning("%s; falling back to generic mode, which is slower", refused)
            else:
                return AttachMode.NATIVE
        self._datapath.attach(link.ifindex, link.name, AttachMode.GENERIC)
        return AttachMode.GENERIC

    def _serve_metrics(self) -> None:
        if self._config.metrics_listen is None:
            return
        self._build_info = {
            "version": npd6_xdp.__version__,
            "bcc": load_bcc().__version__,
            "kernel": os.uname().release,
        }
        endpoint = Endpoint(self._config.metrics_listen, self.snapshot)
        self._stack.callback(endpoint.close)

    def _watch(self) -> None:
        for fd in self._ring.filenos():
            self._selector.register(fd, selectors.EVENT_READ, None)
        self._selector.register(self._netlink.fileno(), selectors.EVENT_READ, self._on_change)
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
            self._stack.callback(end.close)
        self._signals = reader
        self._selector.register(reader, selectors.EVENT_READ, self._on_signal)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._stack.callback(signal.set_wakeup_fd, -1)
        for number in _STOP_SIGNALS:
            self._stack.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(number, self._stop)

    # --- run --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Answer until a signal ends it."""
        while not self._stopping:
            busy = self._answer(self._ring.read())
            if self._refresh_at is not None and time.monotonic() >= self._refresh_at:
                self._refresh()
            for key, _ in self._selector.select(0 if busy else self._timeout()):
                if key.data is not None:
                    key.data()

    def _timeout(self) -> float | None:
        return None if self._refresh_at is None else max(0.0, self._refresh_at - time.monotonic())

    def _answer(self, batch: list[bytes]) -> bool:
        """Answer a batch of events; whether there were any."""
        for data in batch:
            event = NsEvent.unpack(data)
            answer = self._responder.answer(event)
            port = self._by_ifindex.get(answer.ifindex)
            sent = port is not None and port.send(answer.frame)
            outcome = Outcome.ANSWERED_PYTHON if sent else Outcome.FAILED
            self._entry_counts[self._table.rules[event.rule].entry][outcome] += 1
            self._rule_counts[event.rule][outcome] += 1
            if sent:
                waited = (time.monotonic_ns() // 1000 - event.time_us) & 0xFFFFFFFF
                self._answer_times.observe(waited / 1e6)
        return bool(batch)

    def _on_change(self) -> None:
        self._netlink.drain()
        if self._refresh_at is None:
            self._refresh_at = self._refresh_not_before

    def _refresh(self) -> None:
        """Look at the machine again, and make the kernel's maps follow."""
        began = time.monotonic()
        self._refresh_at = None
        try:
            links = self._netlink.facts(self._ports)
        except MachineError as error:
            log.warning("%s; going on with what is known", error)
            self._refresh_at = self._refresh_not_before = began + 1.0
            return
        if links != self._links:
            self._log_changes(links)
            self._links = links
            self._use(build(self._config, links, self._table))
            self._datapath.apply(self._table)
        now = time.monotonic()
        self._refresh_not_before = now + (now - began) * _REFRESH_PAUSE

    def _log_changes(self, links: Mapping[str, LinkFacts]) -> None:
        for name, before in self._links.items():
            now = links.get(name)
            if now is None:
                log.warning("%s: the interface is gone; restart npd6-xdp when it is back", name)
                continue
            if now.up != before.up:
                log.info("%s: %s", name, "up" if now.up else "down")
            if now.mac != before.mac:
                log.info("%s: the MAC address is now %s", name, now.mac.hex(":"))
            if now.addresses != before.addresses or now.next_hops != before.next_hops:
                log.info("%s: addresses or next hops changed", name)

    def _on_signal(self) -> None:
        self._signals.recv(64)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        log.info("%s: ending", signal.Signals(number).name)
        self._stopping = True

    # --- end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Detach, answer what is still in the ring, and let go of everything."""
        for attached in self._ports.values():
            self._datapath.detach(attached.ifindex)
        while self._answer(self._ring.read()):
            pass
        self._stack.close()
        self._selector.close()

    # --- look -------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All counters at this moment, the kernel's read now. Called by the metrics' thread."""
        table = self._table
        outcomes: defaultdict[str, Counter[Outcome]] = defaultdict(Counter)
        reasons: defaultdict[str, Counter[Reason]] = defaultdict(Counter)
        shown: dict[str, tuple[str, str]] = {}
        for entry in table.entries.values():
            counted = self._datapath.entry_counters(entry.id)
            for source in (counted.outcomes, self._entry_counts[entry.id]):
                outcomes[entry.label].update(source)
            reasons[entry.label].update(counted.reasons)
            if entry.spoken or entry.label not in shown:
                shown[entry.label] = (entry.port, entry.datapath)
        rules: defaultdict[tuple[str, str], Counter[Outcome]] = defaultdict(Counter)
        methods = {}
        for rule in table.rules.values():
            key = (table.entries[rule.entry].label, rule.prefix)
            methods[key] = rule.method
            for source in (self._datapath.rule_counters(rule.id), self._rule_counts[rule.id]):
                rules[key].update(source)
        return Snapshot(
            [
                InterfaceSnapshot(
                    label,
                    port,
                    self._ports[port].mode if self._is_attached(port) else "",
                    datapath,
                    self._is_attached(port) and self._links[port].up,
                    outcomes[label],
                    reasons[label],
                    {
                        "xdp": outcomes[label][Outcome.ANSWERED_XDP],
                        "python": outcomes[label][Outcome.ANSWERED_PYTHON],
                    },
                )
                for label, (port, datapath) in shown.items()
            ],
            [RuleSnapshot(label, prefix, methods[label, prefix], counts) for (label, prefix), counts in rules.items()],
            AnswerTimes(list(self._answer_times.counts), self._answer_times.total),
            self._loaded_at,
            0,
            self._build_info,
        )

    def _is_attached(self, port: str) -> bool:
        attached, link = self._ports.get(port), self._links.get(port)
        return attached is not None and link is not None and link.ifindex == attached.ifindex


def link_facts(config: Config) -> dict[str, LinkFacts]:
    """The facts of those of the configuration's interfaces that this machine has."""
    with closing(Netlink()) as netlink:
        return netlink.facts(_port_names(config))


def _port_names(config: Config) -> list[str]:
    """The ports that a configuration speaks of, each once, in its order."""
    return list(dict.fromkeys(interface.name for interface in config.interfaces))


def run(config: Config) -> None:
    """`npd6-xdp run`: the daemon in the foreground."""
    with Daemon(config) as daemon:
        daemon.run()
