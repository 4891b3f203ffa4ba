# SPDX-License-Identifier: GPL-2.0-or-later
"""A table into the kernel's maps: those that there are, or those of a program that takes over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.steps import Steps, finish
from npd6_xdp.core.table import Table
from npd6_xdp.daemon.answering import Answering
from npd6_xdp.daemon.in_force import NOTHING, Change, Follower, InForce
from npd6_xdp.daemon.loading import Loading
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.rings import Rings
from npd6_xdp.daemon.tags import Tags
from npd6_xdp.daemon.turns import Turns
from npd6_xdp.system import cgroup
from npd6_xdp.system.bpf.events import EventRing
from npd6_xdp.system.bpf.load import Loaded, load
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.bpf.program import Fit, Program
from npd6_xdp.system.bpf.sizes import memory_to_load

log = logging.getLogger("npd6-xdp")

_PAUSE = 0.001  # seconds between two slices of letting go of a program
_LOOK = 0.02  # seconds between two looks whether that is done, by a change that needs a program


@dataclass(frozen=True, slots=True)
class _Successor:
    """A program that is to take over, and its ring. `grown`: because the maps of the one at work are too small."""

    program: Program
    ring: EventRing
    grown: bool


class Programs(Follower):
    """The program at work, and the one that is to take over from it where a table doesn't fit, or much is different.

    `changing` is held while counters move from one to the other. `reap` is called when a process that has loaded one
    has ended.
    """

    commits = True

    def __init__(
        self,
        loop: Loop,
        ns_filter: NsFilter,
        rings: Rings,
        answering: Answering,
        tags: Tags,
        turns: Turns,
        changing: AbstractContextManager[object],
        reap: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._ns_filter = ns_filter
        self._rings = rings
        self._answering = answering
        self._tags = tags
        self._turns = turns
        self._changing = changing
        self._reap = reap
        self._in_force = NOTHING
        self._successor: _Successor | None = None
        self._filled = NOTHING  # what the successor was filled with
        self._retiring: Steps[None] | None = None
        self._retire_at: float | None = None
        self.doubtful = False
        """The kernel's maps may be neither the last table nor the one before: the next gets a program of its own."""

    def join(self) -> None:
        """Have the loop call when programs and rings are to be given up, and open a ring anew that fails."""
        self._loop.renew(Rings.WHERE, self._renew)
        self._loop.at(
            lambda: self._retire_at if self._retiring is None else self._turns.go_on_at, self._retire, Rings.WHERE
        )
        self._loop.at(lambda: self._ns_filter.program.show_due, lambda _: self._ns_filter.program.show(), "table")

    # --- the three verbs ---

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        """Where the maps have no space for a table, or much differs, another program is loaded and filled with it."""
        if self._in_force is NOTHING:
            return  # no frame comes to the program yet
        table, limits = new.table, new.config.limits
        change.undo.callback(lambda: self._ns_filter.program.give_up(table))
        successor = self._successor
        if successor is None or (yield from successor.program.fitting(table, limits)) is Fit.NOT:
            if successor is not None:
                self._give_up(successor)
            fit = yield from self._ns_filter.fitting(table, limits)
            if fit is Fit.FEW and not self.doubtful:
                return
            yield from self._retired(change)
            try:
                sizes = self._sizes(new)
                yield
                loaded = yield from self._loading(sizes, change)
            except MachineError:
                if fit is Fit.NOT or self.doubtful:
                    raise
                return  # by the maps that there are, in one go
            successor = self._successor = self._made(loaded, sizes, grown=fit is Fit.NOT)
            change.undo.callback(self._give_up, successor)
        yield from self._ns_filter.filling(successor.program, table)
        self._filled = new

    def apply(self, new: InForce) -> None:
        """Let each target be decided by the new table, with not one in between that neither it nor the last one
        decides. Raises MachineError where the kernel has no memory for a line of it, and all is as it was.
        """
        self._rings.drain(self._answering)
        if self._successor is None or self._filled is not new:
            self._ns_filter.program.apply(new.table)
            self._ns_filter.follow(new.table)
        else:
            self._switch(self._successor, new.table)
        self._ns_filter.limit(new.config.limits)
        self._in_force = new

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """What was known of entries that are gone is forgotten."""
        entries = old.table.entries
        gone = {number for number in entries.keys() - new.table.entries.keys() if entries[number].remembers}
        yield from self._ns_filter.forgetting(gone)

    # --- programs ---

    def _sizes(self, new: InForce) -> Mapping[str, int]:
        """Those of the maps of a program that is to take over. Raises MachineError if there is no memory for them."""
        what = f"loading {new.rules} beside those that are in use"
        cgroup.require(memory_to_load([self._in_force.table, new.table], new.config.limits), what)
        return self._ns_filter.sizes(new.table, new.config.limits)

    def _retired(self, change: Change) -> Steps[None]:
        """Wait until all is given up that was taken over from: with change upon change it would pile up without end."""
        while self._retire_at is not None or self._retiring is not None:
            change.asleep_until = time.monotonic() + _LOOK
            yield

    def _loading(self, sizes: Mapping[str, int], change: Change) -> Steps[Loaded]:
        """Wait until another process has loaded a program."""
        loading = Loading(sizes)
        self._loop.add(loading, change.wake, "table")
        try:
            while (loaded := loading.take()) is None:
                change.asleep_until = loading.due
                yield
            return loaded
        finally:
            change.wake()
            self._loop.remove(loading)
            loading.close()
            self._reap()

    def _made(self, loaded: Loaded, sizes: Mapping[str, int], *, grown: bool) -> _Successor:
        """A program that is to take over, and its ring."""
        with ExitStack() as otherwise:
            otherwise.callback(loaded.close)
            program = self._ns_filter.add_successor(loaded, sizes)
            otherwise.pop_all()
            otherwise.callback(self._ns_filter.give_up, program)
            ring = EventRing(program.maps)
            otherwise.pop_all()
        return _Successor(program, ring, grown)

    def _give_up(self, successor: _Successor) -> None:
        """It isn't to take over after all; nothing happens if it has been given up, or has taken over."""
        if successor is self._successor:
            self._successor, self._filled = None, NOTHING
            self._close(successor)

    def _close(self, successor: _Successor) -> None:
        successor.ring.close()
        self._ns_filter.give_up(successor.program)

    def _switch(self, successor: _Successor, table: Table) -> None:
        with self._tags.follow_program(successor.program):
            self._ns_filter.switch(successor.program, table)
        if successor is self._successor:
            self._successor, self._filled = None, NOTHING
        anew, self.doubtful = self.doubtful, False
        until = self._rings.taken_over(successor.ring)
        self._retire_at = self._retire_at or until
        if anew or successor.grown:
            log.info("the XDP program was loaded again" if anew else "the kernel maps have grown")

    def _renew(self) -> None:
        """A program of its own, as if the maps had to grow; what is in the old rings is lost.

        One that is being made ready for a change takes over after that all the same.
        """
        before = self._rings.open_rings
        self.doubtful = True
        sizes = self._sizes(self._in_force)
        with ExitStack() as undo:  # at once: nobody is answered by Python until then
            successor = self._made(load(sizes), sizes, grown=False)
            undo.callback(self._close, successor)
            finish(self._ns_filter.filling(successor.program, self._in_force.table))
            with self._changing:
                self._switch(successor, self._in_force.table)
            undo.pop_all()
        for kept in before:
            self._rings.give_up(kept)

    def _retire(self, now: float) -> None:
        """Let go of rings and programs that others have taken over from."""
        if self._retiring is None:
            self._retire_at = self._rings.retire(now, self._answering.answer)
            if self._retire_at is None:
                self._retiring = self._ns_filter.retiring()
            return
        with self._changing:
            if self._turns.go_on(self._retiring):
                self._retiring = None
            # what is taken out of its maps, the kernel frees in one go, or bit by bit where there are pauses
            self._turns.go_on_at = max(self._turns.go_on_at, time.monotonic() + _PAUSE)
