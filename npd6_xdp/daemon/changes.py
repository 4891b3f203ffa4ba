# SPDX-License-Identifier: GPL-2.0-or-later
"""From what is in force to what is to be: the same way for a reload and for a change of the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace

from npd6_xdp.core.altnames import naming
from npd6_xdp.core.build import building
from npd6_xdp.core.config import Config
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import Steps, finish
from npd6_xdp.core.vias import finding_used_vias, refused
from npd6_xdp.daemon.garbage import Remains, size_of
from npd6_xdp.daemon.in_force import NOTHING, Change, Follower, InForce
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.machine import Machine, NextLook
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.daemon.turns import Turns

_TRIES = 3  # of a reload


class Changes:
    """Leads all rooms (`followers`, in the order in which a verb reaches them; but the one that commits applies first)
    from one InForce to the next.

    `changing` is held while the meaning of counters changes. One change is made at a time: who begins one sees to it.
    """

    def __init__(
        self,
        machine: Machine,
        look: NextLook,
        turns: Turns,
        changing: AbstractContextManager[object],
        followers: Sequence[Follower],
    ) -> None:
        self._machine = machine
        self._look = look
        self._turns = turns
        self._changing = changing
        self._followers = followers
        self._committing = [follower for follower in followers if follower.commits]
        self._others = [follower for follower in followers if not follower.commits]
        self._remains = Remains()
        self._letting_go: Steps[None] | None = None  # tables and configurations that are not needed any more
        self._former = NOTHING.table  # events by it may still be under way
        self._change: Change | None = None
        self.in_force = NOTHING
        self.whole = True
        """Whether all rooms go by what is in force; else some of them go by what was to be."""

    def join(self, loop: Loop) -> None:
        """Have the loop let roles change at once, and let go of what isn't needed any more, a bit at a time."""
        loop.at(lambda: 0.0 if self._look.roles else None, lambda _: self.take_roles(), "table")
        loop.at(lambda: None if self._letting_go is None else self._turns.go_on_at, lambda _: self._let_go(), "table")

    @property
    def asleep_until(self) -> float | None:
        """Until then (seconds, monotonic) there is nothing to do for the change that is under way."""
        return None if self._change is None else self._change.asleep_until

    @property
    def size(self) -> int:
        """How many rules and the like of what is in force, and parts of what was, are held."""
        config = self.in_force.config
        here = len(config.interfaces) + len(config.searched) + size_of(self.in_force.table)
        return here + size_of(self._former) + len(self._remains)

    # --- who sets out ---

    def begin(self, first: InForce, went_on: Callable[[], object] = lambda: None) -> None:
        """The first one, at once: it is made already, as rooms are made for it. `went_on` is told of each step. Raises
        Npd6Error: then the daemon can't start.
        """
        finish(self._walk(first.written, Change(ExitStack(), asked=True), first), went_on)

    def going_to(self, written: Config) -> Steps[None]:
        """A configuration that was read comes in force. Raises what is the reason why it can't be; then all is as it
        was.

        What changes of the machine until then is in it, or taken in afterwards.
        """
        yield from self._remains.letting_go()  # with change upon change they would pile up without end
        yield from self._under_way(written, Change(ExitStack(), asked=True, tries=_TRIES))

    def tracking(self) -> Steps[None]:
        """What is in force comes to go by the machine as it is now.

        Raises MachineError if that can't be now; then all is as it was.
        """
        return self._under_way(self.in_force.written, Change(ExitStack(), asked=False))

    def anew(self) -> None:
        """What is in force stays so, and something that rooms look at besides is different. At once, also while a
        change is under way.
        """
        finish(self._walk(self.in_force.written, Change(ExitStack(), asked=False, tries=0)))

    def take_roles(self) -> None:
        """What is in force stays so, but for who is active by now. At once, also while a change is under way, and
        whatever else of the machine can't be taken in: until then nobody answers, or two do.
        """
        self._look.roles = False
        if (new := self._by_roles()) is not self.in_force:
            finish(self._walk(self.in_force.written, Change(ExitStack(), asked=False, tries=0), new))

    def _by_roles(self) -> InForce:
        """What is in force, with the roles of now. It has no decision besides, so nothing is to be prepared for it, and
        the kernel needs no memory: lines of the map `entries` are written over.
        """
        known, held = self.in_force, self._machine.held(self.in_force.config)
        return known if held == known.held else replace(known, table=known.table.with_roles(held), held=held)

    def _under_way(self, written: Config, change: Change) -> Steps[None]:
        self._change = change
        try:
            yield from self._walk(written, change)
        finally:
            self._change = None

    # --- the walk ---

    def _walk(self, written: Config, change: Change, made: InForce | None = None) -> Steps[None]:
        """From what is in force to what is to be by a configuration as it was read, whoever has set out.

        It is made of the machine as that is now, and once more where that has changed meanwhile, as often as the change
        has tries; `made` is one that was made already. Without a try, what is in force is put in force once more, or
        the one that was made: so roles may be others by the end of another walk than they were at its beginning.
        """
        old, whole, again = self.in_force, self.whole, not change.tries
        known = old if whole and not change.asked else None  # needn't be made again if the machine is as it was then
        new = made if made is not None and again else old
        coming, leaving = (NOTHING.config, NOTHING.config) if written is old.written else (written, old.written)
        with change.undo as undo:
            undo.callback(self._let_go_of_remains)
            undo.callback(self._remains.keep, NOTHING.table, coming)
            for _ in range(change.tries):
                new = made or (yield from to_be(self._machine, written, change, known, old))
                if new is known:
                    break
                known = new
                undo.callback(self._remains.keep, new.table, NOTHING.config)
                for follower in self._followers:
                    yield from follower.prepare(new, change)
            if not again:
                if new is old:
                    return
                yield from self._remains.holding(self._former, leaving)
                is_known = self.in_force.is_but_for_roles(old)
                if not is_known or not (change.asked or new.meant == self._machine.meant(written)):
                    self._look.later()  # it is of another one, or speaks of other interfaces, by now
                    return
                old = self.in_force
            else:
                self.whole = False  # until all rooms have what is different besides
                undo.callback(self._look.later)
            self._put_in_force(new)
            undo.pop_all()
        self._let_go_of_remains()
        with ExitStack() as otherwise:
            otherwise.callback(self._look.later)  # those that have yet to settle do then
            if (now := self._by_roles()) is not new:  # they have changed while it was made ready
                self._put_in_force(now)
            for follower in self._followers:
                yield from follower.settle(old, self.in_force)  # roles may change in between
            otherwise.pop_all()
        self.whole = whole or not again  # rooms that had yet to settle, or to do it again, still have

    def _put_in_force(self, new: InForce) -> None:
        """All rooms go by it, within one turn. Raises MachineError where the one that commits was refused it: then
        none does, and all is as it was.
        """
        with self._changing, ExitStack() as otherwise:
            for follower in self._committing:
                follower.apply(new)
            self.whole = False
            otherwise.callback(self._look.later)  # a mistake of ours, somewhere: all is done again
            for follower in self._others:
                follower.apply(new)
            if not new.is_but_for_roles(self.in_force):  # else its rules are those of the one before
                self._former = self.in_force.table
            self.in_force = new
            otherwise.pop_all()

    # --- what is left of former ones ---

    def _let_go_of_remains(self) -> None:
        """From now on, bit by bit; what is held for a change that came to nothing, too: it may be tried each second."""
        if len(self._remains):
            self._letting_go = self._remains.letting_go()

    def _let_go(self) -> None:
        if self._letting_go is not None and self._turns.go_on(self._letting_go):
            self._letting_go = None


def to_be(
    machine: Machine, written: Config, change: Change, known: InForce | None = None, old: InForce = NOTHING
) -> Steps[InForce]:
    """What is to be in force by a configuration as it was read and the machine as it is; `known`, where it is as that.

    `old` is in force. Raises MachineError for what somebody has asked for and what can never be.
    """
    yield from written.knowing()
    machine.take_in(change)
    meant = machine.meant(written)
    config = known.config if known is not None and known.meant == meant else (yield from naming(written, meant))
    yield from config.knowing()
    yield from machine.watch(config, change)
    links = yield from machine.facts(config)
    held = machine.held(config)
    if known is not None and config is known.config and links == known.links:
        if held == known.held:
            return known
        return InForce(written, config, links, known.table.with_roles(held), meant, held)  # quick, whatever it has
    if change.asked:
        yield from checking(config, links)
    table = yield from building(config, links, (known or old).table, old.table, held=held)
    return InForce(written, config, links, table.with_roles(held), meant, held)  # the facts may be older than these


def checking(config: Config, links: Mapping[str, LinkFacts]) -> Steps[None]:
    """Raise MachineError for what a configuration asks of interfaces that are there, and that they can never do."""
    Ports.check(config, links)
    yield
    if lines := refused((yield from finding_used_vias(config, links))):
        raise MachineError("\n".join(lines))
