# SPDX-License-Identifier: GPL-2.0-or-later
"""Remembered targets as bytes, for the next process of the same service: what it takes for answered, and announces."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from enum import IntEnum
from heapq import nlargest
from operator import attrgetter
from typing import Any, NamedTuple

from npd6_xdp.core.event import EventFlag
from npd6_xdp.core.table import Table

MOST = 65_536
"""Targets: 2 MiB."""
MOST_BYTES = 1 << 22
_MOST_ENTRIES = 0xFFFF
_MOST_TAGS = 2
_ROW = struct.Struct(">H16sQ4sH")
_DOUBT_SHIFT = 14  # in its flags
_DOUBTS = range(3)
_TAG_FLAGS = EventFlag.COUNT | EventFlag.OUTER_8021AD | EventFlag.INNER_8021AD

_Name = tuple[str, str, tuple[int, ...], bool]
"""Which entry: numbers are others' in another process."""


class Doubt(IntEnum):
    """Whether a target is there that was asked for."""

    NONE = 0
    """It is, or it was."""
    SEEMS_ANSWERED = 1
    """It isn't known to be, but who asked seems to have had an answer."""
    IN_VAIN = 2
    """Who asked seems to have had none."""


class AnsweredTarget(NamedTuple):
    """A target that was answered: on which entry, when it was asked for last (CLOCK_MONOTONIC of the machine,
    nanoseconds), and with which tags: `tci` and `flags` are an NsEvent's. `doubt`: whether it is there.
    """

    entry: int
    target: bytes
    asked: int
    tci: bytes
    flags: int
    doubt: Doubt = Doubt.NONE


def pack(table: Table, targets: Iterable[AnsweredTarget]) -> bytes:
    """Those of entries that remember their targets; of too many, the known ones, and those that were asked for last."""
    names = _names(table)
    numbers = {entry: number for number, entry in enumerate([*names][:_MOST_ENTRIES])}
    chosen = nlargest(MOST, (each for each in targets if each.entry in numbers), key=_worth)
    head = json.dumps([names[entry] for entry in numbers], separators=(",", ":"))
    return b"".join([head.encode(), b"\n", *(_row(numbers[each.entry], each) for each in chosen)])


def unpack(table: Table, data: bytes, now: int) -> list[AnsweredTarget]:
    """Those whose entries remember targets in this table, too, the ones that were asked for last at the end; what can't
    be is left out. `now` is that clock's. Raises ValueError if it isn't what pack() makes.
    """
    head, _, rows = data.partition(b"\n")
    entries = {name: entry for entry, name in _names(table).items()}
    numbers = [entries.get(name) for name in _read(head)]
    found = []
    for number, target, asked, tci, flags in _ROW.iter_unpack(rows[: min(len(rows) // _ROW.size, MOST) * _ROW.size]):
        entry = numbers[number] if number < len(numbers) else None
        doubt, flags = flags >> _DOUBT_SHIFT, flags & ((1 << _DOUBT_SHIFT) - 1)
        if entry is not None and asked <= now and _is_of_tags(flags) and doubt in _DOUBTS:
            found.append(AnsweredTarget(entry, target, asked, tci, flags, Doubt(doubt)))
    return sorted(found, key=attrgetter("asked"))


def _worth(each: AnsweredTarget) -> tuple[int, int]:
    return -each.doubt, each.asked


def _row(number: int, each: AnsweredTarget) -> bytes:
    return _ROW.pack(number, each.target, each.asked, each.tci, each.flags | each.doubt << _DOUBT_SHIFT)


def _is_of_tags(flags: int) -> bool:
    """Whether an event's flags say how many tags there are, two at the most, and nothing else."""
    return not flags & ~_TAG_FLAGS and flags & EventFlag.COUNT <= _MOST_TAGS


def _names(table: Table) -> Mapping[int, _Name]:
    live = sorted({*table.entry_ids.values()})
    chosen = [table.entries[number] for number in live if table.entries[number].remembers]
    return {entry.id: (entry.label, entry.port, tuple(entry.vlan.tags), entry.vlan.any) for entry in chosen}


def _read(head: bytes) -> list[_Name]:
    lines: Any = json.loads(head)
    try:
        return [(str(label), str(port), tuple(map(int, tags)), bool(any_vlan)) for label, port, tags, any_vlan in lines]
    except TypeError as error:
        raise ValueError(str(error)) from error
