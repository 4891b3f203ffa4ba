# SPDX-License-Identifier: GPL-2.0-or-later
"""The targets that entries remember, from one process to the next: what a takeover announces, and a budget lets by.

The program's maps aren't inherited. This process writes down what it knows at its end, and its successor takes that for
what was asked for, no more. Whether any of it is announced, or answered, the rules of that moment decide.
"""

from __future__ import annotations

import logging

from npd6_xdp.core import remembered
from npd6_xdp.core.logged import fields
from npd6_xdp.core.table import Table
from npd6_xdp.daemon.remembering import Remembering
from npd6_xdp.system.clock import machine_ns
from npd6_xdp.system.left import Left

log = logging.getLogger("npd6-xdp")


class LeftTargets:
    """`file` is where they are; `lasts` says whether a successor may come, or a predecessor may have been there."""

    def __init__(self, remembering: Remembering, *, lasts: bool) -> None:
        self._remembering = remembering
        self._lasts = lasts
        self._file = file()

    def take(self, table: Table, most: int) -> None:
        """Have the maps remember what a predecessor did, before anything is asked: the `most` that came last."""
        data = self._file.read() if self._lasts else None
        if data is None:
            return
        try:
            found = remembered.unpack(table, data, machine_ns())
        except ValueError as error:
            log.warning(
                "the targets that a process before has left as answered can't be used: %s",
                error,
                extra=fields(error=str(error)),
            )
            return
        self._remembering.take(found[-most:])

    def taken(self) -> None:
        """Nobody needs the file any more."""
        self._file.remove()

    def leave(self, table: Table) -> None:
        """Write down what is remembered now."""
        if self._lasts and any(entry.remembers for entry in table.entries.values()):
            self._file.write(remembered.pack(table, self._remembering.each()))


def file() -> Left:
    """Where they are left."""
    return Left("remembered", remembered.MOST_BYTES)
