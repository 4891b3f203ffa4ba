# SPDX-License-Identifier: GPL-2.0-or-later
"""The recent targets in a program's maps: those that rules may answer, and apart from them all others."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

from npd6_xdp.core.layout import ADDRESS_KEY, RECENT
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.system.bpf.maps import Maps

_MAPS = ("recent_targets", "other_targets")
_OUTCOMES = tuple(Outcome)
_PIECE = 512  # that are handed on at once


@dataclass(frozen=True, slots=True)
class Recent:
    """A target that was asked for: when first and last (CLOCK_MONOTONIC, nanoseconds), and how often.

    `source` and `source_mac` are those of the last solicitation, `outcome` what the program made of it: of an event,
    what is to be expected, and `last` is the event's time.
    """

    entry: int
    target: bytes
    first: int
    last: int
    count: int
    source: bytes
    source_mac: bytes
    outcome: Outcome


def each_recent(maps: Maps) -> Iterator[Recent]:
    """All that is remembered, what no rule answers at the end."""
    for name in _MAPS:
        for key, value in maps.items(name, ADDRESS_KEY.size, RECENT.size):
            yield _recent(key, value)


def recent_of(maps: Maps, entry: int, target: bytes) -> Recent | None:
    """What is remembered of one target; None: nothing."""
    key = ADDRESS_KEY.pack(entry, target)
    found = (maps.lookup(name, key, RECENT.size) for name in _MAPS)
    return next((_recent(key, value) for value in found if value is not None), None)


def forget_recent(maps: Maps, entries: Set[int]) -> None:
    """Forget what was asked for on entries that are gone: their numbers may be others' by and by."""
    for recent in [*each_recent(maps)]:
        if recent.entry in entries:
            for name in _MAPS:
                maps.delete(name, ADDRESS_KEY.pack(recent.entry, recent.target))


def handing_recent(maps: Maps, successor: Maps) -> Steps[None]:
    """Tell another program what is remembered, bit by bit."""
    for name in _MAPS:
        for some in pieces(maps.items(name, ADDRESS_KEY.size, RECENT.size), _PIECE):
            for key, value in some:
                successor.update(name, key, value)
            yield


def _recent(key: bytes, value: bytes) -> Recent:
    first, last, count, source, mac, outcome = RECENT.unpack(value)
    entry, target = ADDRESS_KEY.unpack(key)
    return Recent(entry, target, first, last, count, source, mac, _OUTCOMES[outcome])
