# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `route` where bpf_fib_lookup() can't tell: the kernel is asked what it would do with a packet, and that kept.

What it said is in a kernel map, where XDP goes by it, of a generation that ends with the first change of routes:
then all is asked anew. While changes follow each other, nothing is kept, and none of them costs us anything.
"""

from __future__ import annotations

import time

from npd6_xdp.core.event import EventFlag, NsEvent
from npd6_xdp.core.routes import RoutingFlag, question_of
from npd6_xdp.core.table import Rule
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.daemon.in_force import NOTHING, Follower, InForce
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.netlink.route_questions import RouteChanges, RouteQuestions

_PAUSE = 0.05  # seconds without a look at changes, after one


class Routing(Follower):
    """Which targets the kernel would send packets on for, asked one by one."""

    def __init__(self, ns_filter: NsFilter) -> None:
        self._ns_filter = ns_filter
        self._questions = RouteQuestions()
        self._changes = RouteChanges()
        self._in_force = NOTHING
        self._flags = RoutingFlag(0)
        self._generation = 0
        self._keeps = False
        self._not_before = 0.0

    def close(self) -> None:
        """Close the sockets."""
        self._questions.close()
        self._changes.close()

    def reopen(self) -> None:
        """With other sockets, where these fail."""
        self._forget()
        self.close()
        self._questions = RouteQuestions()
        self._changes = RouteChanges()

    def fileno(self) -> int:
        """Readable: on_change() is to be called."""
        return self._changes.fileno()

    def join(self, loop: Loop) -> None:
        """Have the loop wait for changes."""
        loop.watch("routes", lambda: [(self.fileno(), self.on_change)], self.reopen)

    def apply(self, new: InForce) -> None:
        """Go by it from now on."""
        self._in_force = new
        self._keep_none()  # the next change is still heard of, at the cost of one call: the kernel may refuse a filter

    def use(self, flags: RoutingFlag) -> None:
        """There are such routes and rules: XDP is to know."""
        if flags != self._flags:
            self._flags = flags
            self._forget()
            self._ns_filter.set_routing(flags)

    def handle(self, event: NsEvent, rule: Rule) -> Outcome | None:
        """An event of a rule of method route. None: its target is there, answer."""
        return self.ask(event, rule) if event.flags & EventFlag.MISS else None

    def ask(self, event: NsEvent, rule: Rule) -> Outcome | None:
        """A target is asked for of which bpf_fib_lookup() couldn't tell. None: it is there, answer."""
        if rule.entry not in self._in_force.table.entries:
            return Outcome.ABSENT
        by_source = RoutingFlag.SOURCE in self._flags
        if not self._keeps and not by_source and time.monotonic() >= self._not_before:
            self._changes.listen()
            self._keeps = True
            self._generation = self._generation % 0xFFFFFFFF + 1
            self._ns_filter.keep_routes(self._generation)
        there = self._questions.is_behind(question_of(event, rule, self._in_force.table, self._flags))
        if self._keeps and there is not None:
            self._ns_filter.keep_route(rule.entry, event.target, self._generation, there=there)
        return None if there else Outcome.ABSENT

    def leads_to(self, event: NsEvent, rule: Rule) -> bool:
        """Whether a target is there, for who asks seldom."""
        return bool(self._questions.is_behind(question_of(event, rule, self._in_force.table, self._flags)))

    @property
    def flags(self) -> RoutingFlag:
        """What of routes and rules there is that bpf_fib_lookup() can't tell of."""
        return self._flags

    def kept(self, entry: int, target: bytes) -> bool | None:
        """What XDP goes by of what the kernel was asked of a target; None: nothing."""
        return self._ns_filter.kept_route(entry, target, self._generation) if self._keeps else None

    def on_change(self) -> None:
        """Something about routes has changed."""
        self._forget()
        self._not_before = time.monotonic() + _PAUSE

    def _forget(self) -> None:
        self._keep_none()
        self._changes.ignore()

    def _keep_none(self) -> None:
        if self._keeps:
            self._keeps = False
            self._ns_filter.keep_routes(0)
