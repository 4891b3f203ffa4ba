# SPDX-License-Identifier: GPL-2.0-or-later
"""Who traces: switched on for one client of the control socket, told what Python finds, and switched off for good."""

from __future__ import annotations

import json
import logging
import selectors
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

from npd6_xdp.core.errors import MachineError, UsageError, remedy
from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.frames import Frames
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.steps import Steps
from npd6_xdp.core.table import Table
from npd6_xdp.core.trace_wire import (
    MOST_VERDICTS,
    Filter,
    MessageKind,
    Verdict,
    framed,
    key_of,
    pack_plain,
    pack_verdicts,
    plain_key,
)
from npd6_xdp.core.verdict import Limit, Outcome
from npd6_xdp.daemon.answering import Answering
from npd6_xdp.daemon.in_force import NOTHING, Change, Follower, InForce
from npd6_xdp.daemon.lines import some
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.rings import Rings
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.bpf.program import InDoubt
from npd6_xdp.system.bpf.trace import MOST_RULES, Looking, TraceRing
from npd6_xdp.system.control import Connection
from npd6_xdp.system.tracer import END, Tracer

log = logging.getLogger("npd6-xdp")

SILENCE = 5.0
"""Seconds after which a client that says nothing is given up: he says each second that he is there."""
_STOPS = "npd6-xdp ends: a successor, if there is one, traces when it is asked"


class Tracing(Follower):
    """One who traces, or nobody. `changing` is held while the maps are changed that HTTP's threads read."""

    WHERE = "trace"

    def __init__(
        self,
        loop: Loop,
        ns_filter: NsFilter,
        rings: Rings,
        answering: Answering,
        changing: AbstractContextManager[object],
    ) -> None:
        self._loop, self._ns_filter, self._rings, self._answering = loop, ns_filter, rings, answering
        self._changing = changing
        self._in_force = NOTHING
        self._wanted = Filter()
        self._tracer: Tracer | None = None
        self._ring: TraceRing | None = None
        self._events = 0  # that the loop waits for
        self._is_on = False
        self._heard = 0.0
        self._verdicts: list[Verdict] = []
        self._told = self._dropped = 0  # solicitations of which Python has told, and of those, which had no space

    def close(self) -> None:
        """Switch off, and say why."""
        if self._tracer is not None:
            self._end(_STOPS)
            self._hang_up()

    def join(self) -> None:
        """Have the loop call when nothing was heard for too long."""
        self._loop.at(lambda: None if self._tracer is None else self._heard + SILENCE, self._silent, self.WHERE)

    # --- what is in force ---

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        """A rule of a table to come is traced from its first solicitation on."""
        self._go_by(new.table, self._in_force.table)
        yield from ()

    def apply(self, new: InForce) -> None:
        """Filters are understood by it."""
        self._in_force = new

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """Only its rules are left."""
        self._go_by(new.table)
        yield from ()

    def _go_by(self, *tables: Table) -> None:
        if self._is_on and self._wanted.rule is not None:
            with suppress(MachineError):  # they are too many by now: those that fit are traced
                self._ns_filter.look_at_rules(frozenset().union(*(_rules(each, self._wanted.rule) for each in tables)))

    # --- on ---

    def ask(self, question: dict[str, Any], connection: Connection) -> None:
        """A client wants to trace; the connection is ours from now on. Raises Npd6Error where that can't be."""
        wanted = Filter.of(question)
        if self._tracer is not None:
            raise MachineError(f"trace: another process is tracing already (pid {self._tracer.pid}): one at a time")
        table = self._in_force.table
        port = "" if wanted.interface is None else self._port(wanted.interface)
        rules = frozenset() if wanted.rule is None else _rules(table, wanted.rule)
        if wanted.rule is not None and not 0 < len(rules) <= MOST_RULES:
            raise UsageError(f"trace: rule: {_why_not(table, wanted.rule, len(rules))}")
        tracer, ring = Tracer(connection), TraceRing()
        try:
            self._told = self._dropped = 0
            with self._changing:
                self._ns_filter.look(Looking(ring.fileno(), wanted.pack(), port), rules)
            tracer.begin(json.dumps({"ring": ring.size}).encode() + b"\n", ring.fileno())
        except (MachineError, InDoubt, OSError) as error:
            try:
                with self._changing:
                    self._ns_filter.look_away()
            finally:
                ring.close()
            said = remedy(error) if isinstance(error, OSError) else str(error)
            raise MachineError(f"trace: can't be switched on: {said}") from error
        self._wanted, self._tracer, self._ring, self._is_on = wanted, tracer, ring, True
        self._answering.told = self
        self._heard = time.monotonic()
        self._wait(selectors.EVENT_READ)
        log.info("tracing for process %d", tracer.pid)

    def _port(self, interface: str) -> str:
        port = self._in_force.meant.get(interface, interface)
        ports = {entry.port for entry in self._in_force.table.entries.values()}
        if port not in ports:
            there = some(sorted(ports)) or "none"
            raise UsageError(f"trace: interface: {interface} has no rules; there are interfaces with rules: {there}")
        return port

    # --- what Python finds (Told of daemon/answering.py) ---

    def plain(self, frames: Frames, failed: Sequence[int]) -> None:
        """Advertisements were sent side by side, but for these."""
        shapes = frames.shapes
        if failed and self._wanted.wants(Outcome.FAILED):
            unsent = [number for number in failed if shapes[number].traced]
            self._verdicts += [Verdict(plain_key(frames, number), Outcome.FAILED, None, None) for number in unsent]
        if not self._wanted.wants(Outcome.ANSWERED_PYTHON):
            return
        if not failed and shapes[0].traced and shapes.count(shapes[0]) == len(shapes):
            self._send(pack_plain(frames), len(shapes))
            return
        gone = {*failed}
        sent = [number for number, shape in enumerate(shapes) if shape.traced and number not in gone]
        if sent:
            self._send(pack_plain(frames, sent), len(sent))

    def one(self, event: NsEvent, outcome: Outcome | Limit, advertisement: bytes | None) -> None:
        """What became of one."""
        limit = outcome if isinstance(outcome, Limit) else None
        became = Outcome.RATE_LIMITED if isinstance(outcome, Limit) else outcome
        if self._wanted.wants(became):
            self._verdicts.append(Verdict(key_of(event), became, limit, advertisement))

    def late(self, event: NsEvent, advertisement: bytes) -> None:
        """One who has waited was answered: it was told of when it was pending, and isn't counted again."""
        if self._wanted.wants(Outcome.PENDING):
            verdict = Verdict(key_of(event), Outcome.ANSWERED_PYTHON, None, advertisement, late=True)
            self._send(pack_verdicts([verdict]), 0)

    def pause(self) -> None:
        """Tell what was found in a look into the rings."""
        while self._verdicts:
            told, self._verdicts = self._verdicts[:MOST_VERDICTS], self._verdicts[MOST_VERDICTS:]
            self._send(pack_verdicts(told), len(told))

    def _send(self, message: bytes, solicitations: int, *, is_last: bool = False) -> None:
        """Have the client told of so many solicitations, if there is space."""
        self._told += solicitations
        if self._tracer is None or not self._tracer.send(message, is_last=is_last):
            self._dropped += solicitations
        self._follow_unsent()

    def _say(self, **words: object) -> None:
        """Tell the client how things stand."""
        matched, lost = self._ns_filter.looked()
        words |= {"counted": matched + self._told, "lost": lost + self._dropped}
        self._send(framed(MessageKind.WORDS, json.dumps(words).encode()), 0, is_last="end" in words)

    # --- what the client says ---

    def _on_ready(self) -> None:
        tracer = self._tracer
        if tracer is None:
            return
        tracer.send_rest()
        lines = tracer.lines()
        if lines is None:
            self._end("")
            self._hang_up()
            return
        if lines and self._is_on:
            self._heard = time.monotonic()
            if END in lines:
                self._end("asked")
            else:
                self._say()
        if not self._is_on and not tracer.unsent:
            self._hang_up()
            return
        self._follow_unsent()

    def _silent(self, _now: float) -> None:
        self._on_ready()  # it may be us who have stood still
        if self._tracer is None or time.monotonic() < self._heard + SILENCE:
            return
        if self._is_on:
            log.info("nothing was heard for %.0f s of process %d, which traces", SILENCE, self._tracer_pid)
        self._end(f"nothing was heard of this client for {SILENCE:.0f} s")
        self._hang_up()

    @property
    def _tracer_pid(self) -> int:
        return 0 if self._tracer is None else self._tracer.pid

    # --- off ---

    def _end(self, why: str) -> None:
        """Switch off; what is in the rings to Python is told before it is counted."""
        if not self._is_on:
            return
        self._is_on = False
        try:
            with self._changing:
                self._ns_filter.look_away()
            self._rings.drain(self._answering)
            self.pause()
        finally:
            self._answering.told = None
            self._verdicts.clear()
            if self._ring is not None:
                self._ring.close()
                self._ring = None
            self._say(end=why)  # whatever went wrong: he is to hear that nothing more comes
            self._heard = time.monotonic()
        log.info("tracing has ended for process %d", self._tracer_pid)

    def _hang_up(self) -> None:
        tracer, self._tracer = self._tracer, None
        if tracer is not None:
            self._loop.remove(tracer)
            self._events = 0
            tracer.send_rest()
            tracer.close()

    def _follow_unsent(self) -> None:
        if self._tracer is not None:
            self._wait(selectors.EVENT_READ | (selectors.EVENT_WRITE if self._tracer.unsent else 0))

    def _wait(self, events: int) -> None:
        """Have the loop wait for these events of the client."""
        if self._tracer is not None and events != self._events:
            if self._events:
                self._loop.remove(self._tracer)
            self._loop.add(self._tracer, self._on_ready, self.WHERE, events)
            self._events = events


def _rules(table: Table, prefix: str) -> frozenset[int]:
    """The rules of a table with this prefix, as the file spells it or another way, of whichever entry."""
    try:
        meant: Prefix | None = Prefix.of(prefix)
    except ValueError:  # a rule that follows an interface's prefixes, or is of a range
        meant = None
    return frozenset(
        number for number, rule in table.rules.items() if rule.prefix == prefix or (meant and rule.networks == (meant,))
    )


def _why_not(table: Table, prefix: str, count: int) -> str:
    if count:
        return f"{count} interfaces have a rule {prefix}, more than {MOST_RULES}; name an interface instead"
    prefixes = sorted({rule.prefix for rule in table.rules.values()})
    return f"there is no {prefix}; there are {some(prefixes) or 'none'}"
