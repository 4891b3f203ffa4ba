# SPDX-License-Identifier: GPL-2.0-or-later
"""The program that is to take over, while rings are opened anew; and what is held of tables that have gone."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, Limits, Vlan
from npd6_xdp.core.steps import Steps, finish
from npd6_xdp.core.table import Table
from npd6_xdp.daemon import programs
from npd6_xdp.daemon.in_force import Change
from npd6_xdp.daemon.programs import Programs
from npd6_xdp.daemon.turns import Turns
from npd6_xdp.system import cgroup
from npd6_xdp.system.bpf.program import Fit
from tests.daemon.forces import go_by, in_force
from tests.datapath.harness import IFINDEX, PORT, entry, link


class Program:
    """One with space for every table."""

    def __init__(self) -> None:
        self.says: Table | None = None
        self.closed = False
        self.maps: Mapping[str, int] = {}

    def fitting(self, _table: Table, _limits: Limits) -> Steps[Fit]:
        yield
        return Fit.MUCH

    def apply(self, table: Table) -> None:
        self.says = table

    def give_up(self, _: Table) -> None: ...


class NsFilter:
    """Fills a program in two steps, and never one that is closed."""

    def __init__(self) -> None:
        self.program, self.fit = Program(), Fit.FEW
        self.made: list[Program] = []
        self.forgot: set[int] = set()

    def limit(self, _: Limits) -> None: ...

    def sizes(self, _table: Table, _limits: Limits) -> dict[str, int]:
        return {}

    def fitting(self, _table: Table, _limits: Limits) -> Steps[Fit]:
        yield
        return self.fit

    def add_successor(self, _loaded: object, _sizes: object) -> Program:
        self.made.append(Program())
        return self.made[-1]

    def filling(self, program: Program, table: Table) -> Steps[None]:
        yield
        assert not program.closed, "its descriptors may be those of other maps by now"
        program.says = table

    def retiring(self) -> Steps[None]:
        yield

    def forgetting(self, entries: Set[int]) -> Steps[None]:
        yield
        self.forgot |= entries

    def give_up(self, program: Program) -> None:
        program.closed = True

    def switch(self, program: Program, table: Table) -> None:
        assert program.says is table
        self.program = program

    def follow(self, table: Table) -> None:
        assert self.program.says is table


class Ring:
    """Of a program."""

    def __init__(self, _maps: object) -> None: ...

    def close(self) -> None: ...


class Rings:
    """Those of all programs that were at work."""

    WHERE = "rings"
    open_rings: tuple[Ring, ...] = ()

    def drain(self, _: object) -> None: ...

    def taken_over(self, ring: Ring) -> float:
        self.open_rings = (ring,)
        return 0.0

    def retire(self, _now: float, _answer: object) -> None: ...

    def give_up(self, _: Ring) -> None: ...


class Tags:
    """None are hidden."""

    @contextmanager
    def follow_program(self, _: object) -> Iterator[None]:
        yield


class Loading:
    """Loads at once."""

    due = 0.0

    def __init__(self, _: object) -> None: ...

    def take(self) -> object:
        return SimpleNamespace(close=lambda: None)

    def close(self) -> None: ...


class Loop:
    """Waits for nothing."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


@pytest.fixture
def ns_filter() -> NsFilter:
    return NsFilter()


@pytest.fixture
def room(ns_filter: NsFilter, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setattr(programs, "Loading", Loading)
    monkeypatch.setattr(programs, "EventRing", Ring)
    monkeypatch.setattr(programs, "load", lambda _: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(cgroup, "require", lambda *_: None)
    parts: list[Any] = [
        Loop(),
        ns_filter,
        Rings(),
        SimpleNamespace(answer=None),
        Tags(),
        Turns(lambda: False),
        nullcontext(),
        lambda: None,
    ]
    found = Programs(*parts)
    found.join()
    go_by(found, in_force(a_table(), {}))
    return found


def a_table() -> Table:
    return Table({}, {}, {}, {}, {})


@pytest.mark.parametrize("steps", range(6))
def test_a_program_that_is_made_ready_takes_over_although_rings_were_opened_anew_meanwhile(
    room: Programs, ns_filter: NsFilter, steps: int
) -> None:
    """Given up, its file descriptors would be those of the maps of the one that takes over for the rings."""
    new = in_force(a_table(), {})
    ns_filter.fit = Fit.NOT
    with ExitStack() as undo:
        preparing = room.prepare(new, Change(undo, asked=True))
        for _ in range(steps):
            next(preparing, None)
        room._renew()
        finish(preparing, lambda: room._retire(0.0))
        before = ns_filter.program
        room.apply(new)
        undo.pop_all()
    assert ns_filter.program is not before
    assert ns_filter.program.says is new.table
    assert [program.closed for program in ns_filter.made] == [False] * 2


def test_a_program_that_is_made_ready_is_given_up_with_its_change_although_rings_were_opened_anew_meanwhile(
    room: Programs, ns_filter: NsFilter
) -> None:
    ns_filter.fit = Fit.NOT
    with ExitStack() as undo:
        finish(room.prepare(in_force(a_table(), {}), Change(undo, asked=True)))
        room._renew()
    ready, renewed = ns_filter.made
    assert (ready.closed, renewed.closed) == (True, False)
    assert ns_filter.program is renewed


def test_another_program_waits_until_the_one_before_the_last_is_given_up(room: Programs, ns_filter: NsFilter) -> None:
    """Change upon change, a program and a table of each stayed while the next came within half a second."""
    ns_filter.fit = Fit.MUCH
    for _ in range(2):
        new = in_force(a_table(), {})
        with ExitStack() as undo:
            preparing = room.prepare(new, Change(undo, asked=True))
            for _ in range(100):
                next(preparing, None)
            assert len(ns_filter.made) == 1, "the second waits"
            finish(preparing, lambda: room._retire(0.0))
            room.apply(new)
            undo.pop_all()
        assert ns_filter.program is ns_filter.made[-1]
    assert len(ns_filter.made) == 2


def test_no_table_is_held_that_a_program_was_filled_with_and_another_has_followed(
    room: Programs, ns_filter: NsFilter
) -> None:
    """With 100,000 rules, it goes bit by bit, and that begins when it is no longer in force."""
    ns_filter.fit = Fit.MUCH
    filled = in_force(a_table(), {})
    with ExitStack() as undo:
        finish(room.prepare(filled, Change(undo, asked=True)))
        room.apply(filled)
        undo.pop_all()
    ns_filter.fit = Fit.FEW
    last = in_force(a_table(), {})
    finish(room.prepare(last, Change(ExitStack(), asked=True)))
    room.apply(last)
    assert not [each for each in gc.get_referrers(filled) if each is not locals()]


def test_what_was_answered_on_entries_that_are_gone_is_forgotten_once_the_table_is_in_force(
    room: Programs, ns_filter: NsFilter
) -> None:
    keys: dict[str, Any] = {"new_targets_per_second": 1}
    vlans = [entry(vlan=Vlan(tags=(number,)), **keys) for number in (1, 2)]
    before = build(Config((entry(**keys), *vlans, entry(vlan=Vlan(tags=(3,))))), {PORT: link()})
    after = build(Config((entry(**keys), vlans[0])), {PORT: link()}, before)
    old, new = in_force(before, {}), in_force(after, {})
    go_by(room, old)
    assert ns_filter.forgot == set()
    go_by(room, new, old)
    assert ns_filter.forgot == {before.entry_ids[IFINDEX, 2, 0]}, "the other that is gone has no budget"
