# SPDX-License-Identifier: GPL-2.0-or-later
"""When the garbage collector may look, and what becomes of large things that are not needed any more.

With 100,000 rules, one look at all objects takes 0.4 s, and to let go of a table 0.1 s: both would be one turn.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from itertools import chain
from typing import Any

from npd6_xdp.core.config import Config
from npd6_xdp.core.steps import Steps, emptied, finish, pieces
from npd6_xdp.core.table import Table

LARGE = 4096
"""Rules from which on a table is so large that this matters."""

_MANY = 512  # lines or rules of an entry that are let go of by themselves

_held = 0


def size_of(table: Table) -> int:
    """How many rules, entries and lines there are of it."""
    return len(table.rules) + len(table.entries) + sum(len(each.lines) for each in table.decisions.values())


def hold() -> None:
    """The collector looks at nothing until release(): much is made, little thrown away, nothing of it in circles."""
    global _held
    _held += 1
    gc.disable()


def release() -> None:
    """It may look again, once for each hold()."""
    global _held
    _held -= 1
    if not _held:
        gc.enable()


class Remains:
    """What large things were made of, held so that they can be let go of bit by bit, when they themselves have gone."""

    def __init__(self) -> None:
        self._lists: list[list[Any]] = []

    def __len__(self) -> int:
        return sum(map(len, self._lists))

    def keep(self, table: Table, config: Config) -> None:
        """As holding(), at once: of what came to nothing."""
        finish(self.holding(table, config))

    def holding(self, table: Table, config: Config) -> Steps[None]:
        """What a table and a configuration are made of, where that is much, before they go."""
        if size_of(table) >= LARGE:
            lines = [each.lines for each in table.decisions.values() if len(each.lines) >= _MANY]
            origins = [each for each in table.origins.values() if len(each.rules) >= _MANY]
            for some in lines:
                yield from self._hold(some, some.values())
            for origin in origins:
                yield from self._hold(origin.config, origin.bases.owners, origin.rules, origin.rules.values())
            yield from self._hold(table.rules.values(), table.entries.values())
            # themselves, too: each takes some milliseconds, and goes before what was in it, and who has it before that
            self._lists += [[each] for each in lines]
            self._lists += [[each] for origin in origins for each in (origin.bases.owners, origin.rules)]
            self._lists.append([table.rules])
            yield from self._hold(table.decisions.values(), table.origins.values())
        if len(searched := vars(config).get("searched", ())) >= LARGE:
            yield from self._hold(searched.values())
        for interfaces in pieces(config.interfaces):
            for interface in interfaces:
                if len(interface.rules) >= LARGE:
                    yield from self._hold(interface.rules)
                for rules in pieces(interface.rules):
                    for chosen in chain.from_iterable((rule.include, rule.exclude) for rule in rules):
                        if len(chosen) >= LARGE:
                            yield from self._hold(chosen)
                    yield
            yield
        if len(config.interfaces) >= LARGE:
            yield from self._hold(config.interfaces)

    def _hold(self, *several: Iterable[Any]) -> Steps[None]:
        for items in several:
            self._lists.append([*items])
            yield

    def letting_go(self) -> Steps[None]:
        """Do, a bit at a time."""
        while self._lists:
            items = self._lists[-1]
            yield from emptied(items)
            for at in reversed(range(len(self._lists))):  # others may be behind it by now, or it may have gone
                if self._lists[at] is items:
                    del self._lists[at]
                    break
