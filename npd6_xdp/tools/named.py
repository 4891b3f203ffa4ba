# SPDX-License-Identifier: GPL-2.0-or-later
"""What the entries and rules are that solicitations were decided by: asked of the daemon, and kept for a while."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from npd6_xdp.core.config import Datapath
from npd6_xdp.core.described import EntryFacts, RuleFacts
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.names import shown
from npd6_xdp.core.traced import Traced
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.tools.control import ask

_AT_ONCE = 100  # ids in a question, which has at most 4,096 bytes (daemon/names.py)
_FRESH = 2.0  # seconds that an answer holds: a reload gives what stays the same id, and other keys maybe
_MOST_DOUBTS = 10  # questions in a second for what doesn't go with an outcome: a flood of these may come
_MOST = 100_000  # rules that are remembered


class Named:
    """Entries and rules by their ids. A daemon that doesn't answer isn't reported here: what else it is asked fails."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._entries: dict[int, tuple[float, EntryFacts | None]] = {}
        self._rules: dict[int, tuple[float, RuleFacts | None]] = {}
        self._doubts: list[float] = []  # when something was asked for in doubt, in the last second

    def learn(self, several: Iterable[Traced]) -> None:
        """Ask for those of some solicitations that aren't known, or were asked for long ago."""
        now = time.monotonic()
        entries, rules, doubted = set(), set(), set()
        for traced in several:
            entries.add(traced.entry)
            if self._is_doubted(traced):
                doubted.add(traced.entry)
            if traced.rule is not None:
                rules.add(traced.rule)
        in_doubt = doubted if self._may_doubt(doubted, now) else ()
        asked_entries = sorted({*_due(entries, self._entries, now), *in_doubt})
        asked_rules = _due(rules, self._rules, now)
        for some_entries, some_rules in _pieces(asked_entries, asked_rules):
            try:
                said = ask(self._control, {"verb": "names", "entries": some_entries, "rules": some_rules})
            except MachineError:
                return
            if len(self._rules) > _MOST:
                self._rules.clear()
            self._entries |= {number: (now, _entry(said, number)) for number in some_entries}
            self._rules |= {number: (now, _rule(said, number)) for number in some_rules}

    def _may_doubt(self, doubted: Set[int], now: float) -> bool:
        """Whether to ask for these once more; if so, that counts."""
        self._doubts = [asked for asked in self._doubts if now - asked < 1]
        if not doubted or len(self._doubts) == _MOST_DOUBTS:
            return False
        self._doubts.append(now)
        return True

    def _is_doubted(self, traced: Traced) -> bool:
        """Whether what is known of its entry tells another story than its outcome: a reload may have come between."""
        found = self._entries.get(traced.entry, (0.0, None))[1]
        if found is None:
            return False
        if traced.outcome is Outcome.MONITORED:
            return found.datapath is not Datapath.MONITOR
        return traced.outcome is Outcome.STANDBY and not found.standby

    def entry(self, traced: Traced) -> EntryFacts:
        """The entry of a solicitation; of one that is gone, what the kernel knows of its port."""
        _, found = self._entries.get(traced.entry, (0.0, None))
        if found is not None:
            return found
        try:
            port = shown(os.fsencode(socket.if_indextoname(traced.ifindex)))
        except OSError:
            port = f"interface {traced.ifindex}"
        unknown = "it was on standby"
        return EntryFacts(port, port, "", frozenset(), True, False, Datapath.MONITOR, False, unknown)

    def rule(self, traced: Traced) -> RuleFacts | None:
        """The rule of a solicitation; None if there is none, or it is gone."""
        return None if traced.rule is None else self._rules.get(traced.rule, (0.0, None))[1]


def _due(wanted: Iterable[int], known: Mapping[int, tuple[float, object]], now: float) -> list[int]:
    return sorted(number for number in wanted if number not in known or now - known[number][0] > _FRESH)


def _pieces(entries: Sequence[int], rules: Sequence[int]) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    for first in range(0, max(len(entries), len(rules)), _AT_ONCE):
        yield entries[first : first + _AT_ONCE], rules[first : first + _AT_ONCE]


def _entry(said: Mapping[str, Any], number: int) -> EntryFacts | None:
    found = said["entries"].get(str(number))
    return None if found is None else EntryFacts.parse(found)


def _rule(said: Mapping[str, Any], number: int) -> RuleFacts | None:
    found = said["rules"].get(str(number))
    return None if found is None else RuleFacts.parse(found)
