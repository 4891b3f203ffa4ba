# SPDX-License-Identifier: GPL-2.0-or-later
"""The targets that a program's entries remember: those that were answered lately, and those that were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from npd6_xdp.core.layout import ADDRESS_KEY, ANSWERED, ASKED, BUDGET, INDEX
from npd6_xdp.core.presumed import AskedTarget
from npd6_xdp.core.remembered import AnsweredTarget
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.system.bpf.counters import PIECE
from npd6_xdp.system.bpf.program import Program

_MAPS = {"answered": ANSWERED, "asked_targets": ASKED}


def each_answered(program: Program) -> Iterator[AnsweredTarget]:
    """The targets that were answered lately, by this edge or by the other."""
    for key, value in _items(program, "answered"):
        yield AnsweredTarget(*ADDRESS_KEY.unpack(key), *ANSWERED.unpack(value))


def counting_answered(program: Program) -> Steps[int]:
    """How many those are."""
    return program.counting("answered", ADDRESS_KEY.size, ANSWERED.size)


def each_asked(program: Program) -> Iterator[AskedTarget]:
    """The targets that were asked for, and that may not be there."""
    for key, value in _items(program, "asked_targets"):
        entry, target = ADDRESS_KEY.unpack(key)
        asked, tci, flags, again, _ = ASKED.unpack(value)
        yield AskedTarget(AnsweredTarget(entry, target, asked, tci, flags), again)


def forget_asked(program: Program, targets: Iterable[AnsweredTarget]) -> None:
    """Forget that these were asked for."""
    program.delete_all("asked_targets", [ADDRESS_KEY.pack(each.entry, each.target) for each in targets])


def remember(program: Program, targets: Iterable[AnsweredTarget]) -> None:
    """Take these for answered lately, those that were asked for last at the end: the map forgets the first ones."""
    for some in pieces(targets, PIECE):
        keys = [ADDRESS_KEY.pack(each.entry, each.target) for each in some]
        program.update_all("answered", keys, [ANSWERED.pack(each.asked, each.tci, each.flags) for each in some])


def handing_answered(program: Program, successor: Program, entries: Set[int]) -> Steps[None]:
    """Tell a successor which targets were answered lately on these entries, and what they have spent of their budgets:
    a reload is no reason to answer more new ones, or to announce less.
    """
    for some_entries in pieces(entries):
        for entry in some_entries:
            spent = program.lookup("target_budgets", INDEX.pack(entry), BUDGET.size)
            if spent is not None:
                successor.update("target_budgets", INDEX.pack(entry), spent)
        yield
    for name in _MAPS:
        for some in pieces(_items(program, name), PIECE):
            kept = {key: value for key, value in some if ADDRESS_KEY.get(key, "scope") in entries}
            if kept:
                successor.update_all(name, [*kept], [*kept.values()])
            yield


def forgetting_answered(program: Program, entries: Set[int]) -> Steps[None]:
    """Forget which targets were answered on entries that are gone: their numbers may be others' by and by."""
    for name in _MAPS if entries else ():
        gone: list[bytes] = []
        for remembered in pieces(_items(program, name), PIECE):
            gone += (key for key, _ in remembered if ADDRESS_KEY.get(key, "scope") in entries)
            yield
        for some in pieces(gone, PIECE):  # not before: the kernel finds no way on from a key that is gone
            program.delete_all(name, some)
            yield


def _items(program: Program, name: str) -> Iterator[tuple[bytes, bytes]]:
    """What is remembered in a map: keys and values."""
    return program.all_items(name, ADDRESS_KEY.size, _MAPS[name].size)
