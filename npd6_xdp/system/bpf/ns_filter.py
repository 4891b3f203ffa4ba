# SPDX-License-Identifier: GPL-2.0-or-later
"""The XDP program at work: fills its maps, attaches it, tells it which targets are present, and replaces it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import suppress

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.config import Limits, TcOrder
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.hidden import Tapped
from npd6_xdp.core.layout import (
    ADDRESS_KEY,
    FLAG,
    INDEX,
    KEPT_ROUTE,
    MAC_KEY,
    PRESENT_TARGET,
    SETTINGS,
)
from npd6_xdp.core.presumed import AskedTarget
from npd6_xdp.core.remembered import AnsweredTarget
from npd6_xdp.core.routes import RoutingFlag
from npd6_xdp.core.steps import Steps, finish, pieces
from npd6_xdp.core.table import PresentFlag, Table
from npd6_xdp.system.bpf.answered import (
    counting_answered,
    each_answered,
    each_asked,
    forget_asked,
    forgetting_answered,
    handing_answered,
    remember,
)
from npd6_xdp.system.bpf.attach import Keeper, Links
from npd6_xdp.system.bpf.compiler import give_back_memory
from npd6_xdp.system.bpf.counted import CountedPrograms
from npd6_xdp.system.bpf.early_maps import EarlyMaps
from npd6_xdp.system.bpf.load import Loaded, load
from npd6_xdp.system.bpf.program import Fit, Program
from npd6_xdp.system.bpf.recent import Recent, each_recent, forget_recent, handing_recent, recent_of
from npd6_xdp.system.bpf.sizes import sizes_for
from npd6_xdp.system.bpf.trace import Looking, Looks, TraceCounts
from npd6_xdp.system.clock import machine_ns

_NO_SCOPE = 0
_SET = FLAG.pack(1)
_NANOSECONDS = 1_000_000_000


class NsFilter(CountedPrograms):
    """The program at work: loaded, attached, filled. It answers nothing until it is attached; closing detaches it.

    When a table or the limits outgrow the maps, or much is to be different at once, a program with maps of its own
    takes over: filling() makes its maps say all that these say, switch() puts it where the old one sits, so that each
    frame is seen by one of them. The old one's counts are added to the new one's.
    """

    def __init__(
        self,
        table: Table,
        limits: Limits,
        keeper: Keeper | None = None,
        ahead: bytes = b"",
        early: EarlyMaps | None = None,
    ) -> None:
        sizes = sizes_for([table], limits)
        super().__init__(Program(load(sizes, ahead, early), sizes))
        give_back_memory()
        self._links = Links(keeper)
        self._present: dict[bytes, int] = {}
        self._limits = limits
        self._pending_full = False
        self._refused_askers: Set[tuple[int, bytes]] = frozenset()
        self._routing = RoutingFlag(0)
        self._kept_generation = 0
        self._table = Table({}, {}, {}, {}, {})
        self._successors: list[Program] = []  # made ready to take over; they are told of hosts, too
        self._looks = Looks()
        self.limit(limits)

    def close(self, *, leave: bool = False) -> None:
        """Detach from every interface, or leave the program there to a successor; then give up program and maps."""
        self._links.close(leave=leave)
        super().close(leave=leave)

    # --- table and limits ---

    def limit(self, limits: Limits) -> None:
        """The budget of events that all sources share."""
        self._limits = limits
        self._set(self.program)

    def set_pending_full(self, full: bool) -> None:
        """Whether no more targets may be pending: solicitations for unknown ones are refused for the moment."""
        if full != self._pending_full:
            self._pending_full = full
            self._set(self.program)

    def refuse_askers(self, askers: Set[tuple[int, bytes]]) -> None:
        """Whose solicitations (entry, MAC) for targets that would have to be resolved are refused for the moment.

        A MAC of zeros is all who ask on that entry.
        """
        if askers == self._refused_askers:
            return
        before, self._refused_askers = self._refused_askers, askers
        for program in self._programs():
            for asker in before - askers:
                program.delete("refused_askers", MAC_KEY.pack(*asker))
            self._refuse(program, askers - before)

    @staticmethod
    def _refuse(program: Program, askers: Iterable[tuple[int, bytes]]) -> None:
        with suppress(MachineError):  # full, where the limit has just been lowered: then Python refuses
            for asker in askers:
                program.update("refused_askers", MAC_KEY.pack(*asker), _SET)

    def _set(self, program: Program) -> None:
        cost = _NANOSECONDS // self._limits.events_per_second
        routing = self._routing | (RoutingFlag.NOWHERE if self._table.nowhere else 0)
        settings = SETTINGS.pack_named(
            event_cost=cost, pending_full=self._pending_full, routing=routing, kept_generation=self._kept_generation
        )
        program.update("settings_space", INDEX.pack(0), settings)

    def _programs(self) -> list[Program]:
        """The program at work, and those that are made ready to take over."""
        return [self.program, *self._successors]

    def apply(self, table: Table) -> None:
        """Make the kernel's maps say what `table` says; see fitting()."""
        self.program.apply(table)
        self.follow(table)

    def follow(self, table: Table) -> None:
        """A table is in the maps of the program at work, whoever has put it there."""
        self._count_by(self._table, table)
        self._forget_recent_targets(self._table.entries.keys() - table.entries.keys())
        for decisions in table.decisions.values():
            decisions.forget_made_of()
        nowhere, self._table = self._table.nowhere, table
        if bool(nowhere) != bool(table.nowhere):
            self._set(self.program)

    def tap(self, tapped: Tapped) -> bool:
        """From the next apply() on: on which ports a tap looks for hidden tags. False if nothing is different."""
        before, self.program.tapped = self.program.tapped, tapped
        return before != tapped

    def _forget_recent_targets(self, entries: Set[int]) -> None:
        if any(self._table.entries[entry].collect for entry in entries):
            forget_recent(self.program, entries)

    def has_space(self, table: Table, limits: Limits) -> bool:
        """Whether the maps have space for a table."""
        return finish(self.fitting(table, limits)) is not Fit.NOT

    def fitting(self, table: Table, limits: Limits) -> Steps[Fit]:
        """How a table fits. For one that doesn't fit, or differs by much, another program is to take over."""
        return self.program.fitting(table, limits)

    def sizes(self, table: Table, limits: Limits) -> dict[str, int]:
        """Of the maps of a program that is to take over: it has space for `table` and for the one in force."""
        return sizes_for([self._table, table], limits, len(self._present))

    def add_successor(self, loaded: Loaded, sizes: Mapping[str, int]) -> Program:
        """A program that is to take over: it is told of hosts, too, until switch() or give_up()."""
        program = Program(loaded, sizes)
        self._successors.append(program)
        return program

    def filling(self, program: Program, table: Table) -> Steps[None]:
        """Make the maps of a successor say what `table` says, and whatever else is known.

        Another table may be filled in after that.
        """
        self._set(program)
        for some in pieces(tuple(self._present)):
            for key in some:
                if (flags := self._present.get(key)) is not None:  # it may have gone meanwhile
                    program.update("present_targets", key, PRESENT_TARGET.pack(flags, _now()))
            yield
        self._refuse(program, self._refused_askers)
        program.tapped, program.traced = self.program.tapped, self.program.traced
        with suppress(MachineError):  # who looks misses something
            self._looks.take_in(program)
        yield from program.applying(table)
        yield from handing_recent(self.program, program)
        yield from handing_answered(
            self.program, program, {id for id, entry in table.entries.items() if entry.remembers}
        )

    def each_answered_target(self) -> Iterator[AnsweredTarget]:
        """The targets that were answered lately, by this edge or by the other."""
        return each_answered(self.program)

    def counting_answered_targets(self) -> Steps[int]:
        """How many those are, bit by bit."""
        return counting_answered(self.program)

    def each_asked_target(self) -> Iterator[AskedTarget]:
        """The targets that were asked for, and that may not be there."""
        return each_asked(self.program)

    def forget_asked(self, targets: Iterable[AnsweredTarget]) -> None:
        """Forget that these were asked for."""
        forget_asked(self.program, targets)

    def remember(self, targets: Iterable[AnsweredTarget]) -> None:
        """Take these for answered lately, those that were asked for last at the end: the map forgets the first ones."""
        remember(self.program, targets)

    def forgetting(self, entries: Set[int]) -> Steps[None]:
        """Forget which targets were answered on entries that are gone: their numbers may be others' by and by."""
        yield from forgetting_answered(self.program, entries)

    def give_up(self, program: Program) -> None:
        """Close a successor that isn't to take over after all; nothing happens if it is closed, or has taken over."""
        if program in self._successors:
            self._successors.remove(program)
            program.close()

    def switch(self, program: Program, table: Table) -> None:
        """Let a program that is filled with a table take over on every interface; retire() the old one when its ring is
        empty.

        Raises MachineError, with the old one on all of them, if it can't be.
        """
        if program.seen_by != self.program.seen_by:
            program.tapped, program.traced = self.program.tapped, self.program.traced
            program.apply(table)
        self._set(program)  # else it would go by no settings at all for a moment
        self._links.replace(program.functions, self.program.functions)
        self._succeed(program)
        self._successors.remove(program)
        self.follow(table)
        self._set(program)

    # --- who looks on ---

    def look(self, looking: Looking, rules: Set[int]) -> None:
        """Have the program tell of solicitations, by these rules if it goes by any. What was counted for the last who
        looked is forgotten. Raises MachineError: look_away() then.
        """
        self._looks.begin(looking, rules, self._programs(), self._retired)
        self.program.traced = looking.port
        self.program.apply(self._table)

    def look_at_rules(self, rules: Set[int]) -> None:
        """By these rules from now on. Raises MachineError."""
        self._looks.at_rules(rules, self._programs())

    def look_away(self) -> None:
        """Nobody looks any more; see Looks.end(). Where the entries can't be told so, the ring is taken out all the
        same. Raises MachineError then.
        """
        self.program.traced = None
        try:
            self.program.apply(self._table)
        finally:
            self._looks.end((*self._retired, *self._programs()))

    def looked(self) -> TraceCounts:
        """What the programs have counted for who looks."""
        return self._looks.counts((*self._retired, *self._programs()))

    def _retires(self, program: Program) -> None:
        self._looks.leave(program)

    # --- present targets ---

    def set_present(self, via_set: int, address: bytes, flags: PresentFlag) -> None:
        """Count a target as there, for the rules of a via set; MachineError when there is no space for it."""
        key = ADDRESS_KEY.pack(via_set, address)
        if self._present.get(key) != flags or flags:  # the program clears flags by itself
            value = PRESENT_TARGET.pack(flags, _now())
            self.program.update("present_targets", key, value)
            self._present[key] = flags
            for program in self._successors:
                with suppress(MachineError):  # no space under lower limits: there it is looked for when it is asked for
                    program.update("present_targets", key, value)

    def forget(self, via_set: int, address: bytes) -> None:
        """Count a target as not there any more."""
        key = ADDRESS_KEY.pack(via_set, address)
        if self._present.pop(key, None) is not None:
            for program in self._programs():
                program.delete("present_targets", key)

    def forget_heard(self, address: bytes) -> None:
        """Forget where this address was heard, so that it is new wherever it is heard next."""
        self.program.delete("heard_addresses", ADDRESS_KEY.pack(_NO_SCOPE, address))

    def asked(self, via_set: int, address: bytes) -> int:
        """When a present target was last asked for: seconds (system/clock.py). 0: it isn't there."""
        value = self.program.lookup("present_targets", ADDRESS_KEY.pack(via_set, address), PRESENT_TARGET.size)
        return 0 if value is None else int(PRESENT_TARGET.get(value, "asked"))

    # --- routes that the kernel was asked about ---

    def set_routing(self, flags: RoutingFlag) -> None:
        """What of routes and rules there is that bpf_fib_lookup() can't decide by; Python asks the kernel then."""
        self._routing = flags
        self._set(self.program)

    def keep_routes(self, generation: int) -> None:
        """Go by what is kept of this generation from now on, and by nothing that was kept before; 0: by nothing."""
        self._kept_generation = generation
        self._set(self.program)

    def keep_route(self, entry: int, target: bytes, generation: int, *, there: bool) -> None:
        """What the kernel would do with packets for a target that came in by an entry."""
        with suppress(MachineError):  # no space, where all is in use: then it is asked again
            self.program.update("kept_routes", ADDRESS_KEY.pack(entry, target), KEPT_ROUTE.pack(generation, there))

    def kept_route(self, entry: int, target: bytes, generation: int) -> bool | None:
        """What was kept of a target, of a generation; None: nothing."""
        value = self.program.lookup("kept_routes", ADDRESS_KEY.pack(entry, target), KEPT_ROUTE.size)
        if value is None or KEPT_ROUTE.get(value, "generation") != generation:
            return None
        return bool(KEPT_ROUTE.get(value, "there"))

    # --- recent targets ---

    def each_recent_target(self) -> Iterator[Recent]:
        """The targets that were asked for on entries that collect them, what no rule answers at the end."""
        return each_recent(self.program)

    def recent_target(self, entry: int, target: bytes) -> Recent | None:
        """The same of one target; None: it isn't remembered, or its entry collects none."""
        return recent_of(self.program, entry, target)

    def recent_targets(self) -> list[Recent]:
        """The same, all at once."""
        return list(self.each_recent_target())

    # --- attach ---

    def attach(self, ifindex: int, name: str, mode: AttachMode, order: TcOrder = TcOrder.FIRST) -> bool:
        """Attach to an interface, as Links.attach(). Raises Refused and MachineError as that does."""
        return self._links.attach(self.program.functions, ifindex, name, mode, order)

    def go_by_tc(self, *, wanted: bool) -> bool:
        """Whether attach() has a third program at tc between native and generic mode: see Links.goes_by_tc. What it was
        before.
        """
        before, self._links.goes_by_tc = self._links.goes_by_tc, wanted
        return before

    def take_gap(self) -> float:
        """The seconds for which attach() has had no program on an interface: see Links.take_gap()."""
        return self._links.take_gap()

    def inherited(self, ifindex: int) -> AttachMode | None:
        """In which mode a predecessor's program answers on an interface until attach() puts this one there."""
        return self._links.inherited(ifindex)

    def sits(self, ifindex: int) -> AttachMode | None:
        """In which mode the program is on an interface, or a predecessor's is that attach() can take over."""
        return self._links.sits(ifindex)

    @property
    def inherits(self) -> bool:
        """Whether a predecessor's program answers anywhere until attach() or let_go() is called."""
        return self._links.inherits

    def let_go(self) -> list[int]:
        """Take a predecessor's program off where attach() wasn't called: from which interfaces."""
        return self._links.let_go()

    def detach(self, ifindex: int) -> None:
        """Take the program off an interface; nothing happens if it isn't there."""
        self._links.detach(ifindex)

    def attached_to(self, ifindex: int) -> bool:
        """Whether this process has the program on that interface."""
        return ifindex in self._links.fds

    def taken_off(self, ifindexes: Iterable[int]) -> list[int]:
        """Those of the interfaces that the kernel doesn't have the program on: see Links.taken_off()."""
        return self._links.taken_off(ifindexes)

    @property
    def program_id(self) -> int:
        """The kernel's number of the program at work, where it is attached as XDP; 0 where the kernel doesn't tell."""
        return self.program.id


def _now() -> int:
    return machine_ns() // _NANOSECONDS
