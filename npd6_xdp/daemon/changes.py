# SPDX-License-Identifier: GPL-2.0-or-later
"""From what is in force to what is to be: the same way for a reload and for a change of the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack

from npd6_xdp.core.build import building
from npd6_xdp.core.config import Config
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import Steps, finish
from npd6_xdp.core.table import Table
from npd6_xdp.core.vias import refused_vias
from npd6_xdp.daemon.garbage import Remains
from npd6_xdp.daemon.in_force import NOTHING, Change, Follower, InForce
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.machine import Machine, NextLook
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.daemon.turns import Turns

_TRIES = 3  # to build a table of a machine that doesn't change meanwhile; what has then changed is followed afterwards


class Changes:
    """Leads all rooms (`followers`, in the order in which a verb reaches them) from one InForce to the next.

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
        self._remains = Remains()
        self._letting_go: Steps[None] | None = None  # tables and configurations that are not needed any more
        self._former = NOTHING.table  # events by it may still be under way
        self._change: Change | None = None
        self.in_force = NOTHING
        self.whole = True
        """Whether all rooms go by what is in force; else some of them go by what was to be."""

    def join(self, loop: Loop) -> None:
        """Have the loop let go of what isn't needed any more, a bit at a time."""
        loop.at(lambda: None if self._letting_go is None else self._turns.go_on_at, lambda _: self._let_go(), "table")

    @property
    def asleep(self) -> float | None:
        """Until then (seconds, monotonic) there is nothing to do for the change that is under way."""
        return None if self._change is None else self._change.asleep

    @property
    def size(self) -> int:
        """How many rules and parts of former tables are held."""
        return len(self.in_force.table.rules) + len(self._former.rules) + len(self._remains)

    # --- the first ---

    def begin(self, new: InForce) -> None:
        """The first one, at once. Raises Npd6Error: then the daemon can't start."""
        with ExitStack() as undo:
            finish(self._prepare(new, Change(undo, asked=True)))
            self._put_in_force(new)
            undo.pop_all()
        finish(self._settling(NOTHING, new))

    # --- those that follow ---

    def going_to(self, written: Config) -> Steps[None]:
        """A configuration that was read comes in force. Raises what is the reason why it can't be; then all is as it
        was.

        What changes of the machine until then is in it, or followed afterwards.
        """
        old = self.in_force
        with ExitStack() as undo:
            undo.callback(self._let_go_of_remains)
            tables: list[Table] = []
            undo.callback(self._remains.keep, tables, written)
            undo.callback(lambda: self._machine.facts(old.config))  # watches the old one's routes again
            change = self._change = Change(undo, asked=True)
            yield from self._remains.holding(self._former, old.written)
            new = yield from self._made_ready(written, change, tables)
            undo.callback(self._look.later)  # some of it may be in the kernel: the old one is put in force again
            self._put_in_force(new)
            undo.pop_all()
        self._let_go_of_remains()
        with ExitStack() as otherwise:
            otherwise.callback(self._look.later)  # those that have yet to settle do then
            yield from self._settling(old, new)
            otherwise.pop_all()

    def _made_ready(self, written: Config, change: Change, tables: list[Table]) -> Steps[InForce]:
        """What is to be in force by a configuration, prepared in all rooms; `tables` gets those that were made for it.

        Where the machine has changed meanwhile, it is made anew, a few times at most.
        """
        old, new = self.in_force, self.in_force
        for attempt in range(_TRIES):
            self._take_in_links()
            config = self._machine.named(written)
            yield
            links = yield from self._machine.all_facts(config, change)
            if attempt and new.config is config and new.links == links:
                break
            check(config, links)
            yield
            table = yield from building(config, links, new.table, old.table)
            tables.append(table)
            new = InForce(written, config, links, table)
            yield from self._prepare(new, change)
        return new

    def following(self) -> Steps[None]:
        """What is in force follows the machine. Raises MachineError if that can't be now; then all is as it was."""
        self._machine.hear_of_links()
        old = self.in_force
        config = self._machine.named(old.written)
        links = self._machine.facts(config, wait=False)
        if links == old.links and config is old.config and self.whole:
            return
        with ExitStack() as undo:
            undo.callback(self._let_go_of_remains)
            change = self._change = Change(undo, asked=False)
            table = yield from building(config, links, old.table)
            new = InForce(old.written, config, links, table)
            yield from self._prepare(new, change)
            yield from self._remains.holding(self._former, NOTHING.config)
            if self.in_force is not old or config is not self._machine.named(old.written):
                self._look.later()
                return
            self._put_in_force(new)
            undo.pop_all()
        self._let_go_of_remains()
        yield from self._settling(old, new)

    def anew(self) -> None:
        """What is in force stays so, and something that rooms look at besides is different."""
        whole = self.whole  # rooms that have yet to settle, or to do it again, still have
        self._put_in_force(self.in_force)
        finish(self._settling(self.in_force, self.in_force))
        self.whole = whole

    def _prepare(self, new: InForce, change: Change) -> Steps[None]:
        for follower in self._followers:
            yield from follower.prepare(new, change)

    def _put_in_force(self, new: InForce) -> None:
        self.whole = False
        with self._changing:
            for follower in self._followers:
                follower.apply(new)
            self._former, self.in_force = self.in_force.table, new

    def _settling(self, old: InForce, new: InForce) -> Steps[None]:
        for follower in self._followers:
            yield from follower.settle(old, new)
        self.whole = True

    def _take_in_links(self) -> None:
        """What has just come is to be looked at, too."""
        try:
            if self._machine.hear_of_links():
                self._look.later()
        except MachineError as error:
            self._look.retry(error)

    # --- what is left of former ones ---

    def _let_go_of_remains(self) -> None:
        """From now on, bit by bit; what is held for a change that came to nothing, too: it may be tried each second."""
        self._letting_go = self._remains.letting_go()

    def _let_go(self) -> None:
        if self._letting_go is not None and self._turns.is_over(self._letting_go):
            self._letting_go = None


def check(config: Config, links: Mapping[str, LinkFacts]) -> None:
    """Raise MachineError for what a configuration asks of interfaces that are there, and that they can never do."""
    Ports.check(config, links)
    if refused := refused_vias(config, links):
        raise MachineError("\n".join(refused))
