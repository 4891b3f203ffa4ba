# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket's verb `names`: what entries and rules are, for who has heard of a solicitation by their ids."""

from __future__ import annotations

from typing import Any

from npd6_xdp.core.described import EntryFacts, RuleFacts
from npd6_xdp.core.errors import UsageError
from npd6_xdp.daemon.in_force import NOTHING, Follower, InForce
from npd6_xdp.system.control import Reply

MOST_NAMES = 100
"""Entries, and rules, that one question may name: all of it has to be in 4,096 bytes."""


class Names(Follower):
    """Describes what is in force, and what was before that: solicitations that were decided by it may be under way."""

    def __init__(self) -> None:
        self._in_force = self._former = NOTHING

    def apply(self, new: InForce) -> None:
        """Describe by this from now on, and by the one before what it doesn't have."""
        if new.table is not self._in_force.table:
            self._former = self._in_force
        self._in_force = new

    def answer(self, question: dict[str, Any], reply: Reply) -> None:
        """The verb: {"entries": [ids], "rules": [ids]} to the same with what each is, None for what is gone. Raises
        UsageError for anything else.
        """
        entries, rules = _ids(question, "entries"), _ids(question, "rules")
        reply(
            {
                "entries": {str(number): self._entry(number) for number in entries},
                "rules": {str(number): self._rule(number) for number in rules},
            }
        )

    def _entry(self, number: int) -> dict[str, Any] | None:
        for known in (self._in_force, self._former):
            if (entry := known.table.entries.get(number)) is not None:
                link, vlan = known.links.get(entry.port), entry.vlan
                is_seen = not vlan.any and (not vlan.tags or link is None or vlan.tags in link.l3)
                return EntryFacts.of(entry, is_seen=is_seen).as_json()
        return None

    def _rule(self, number: int) -> dict[str, Any] | None:
        for known in (self._in_force, self._former):
            if (rule := known.table.rules.get(number)) is not None:
                return RuleFacts.of(rule, has_via=bool(known.table.vias.get(rule.via_set))).as_json()
        return None


def _ids(question: dict[str, Any], key: str) -> list[int]:
    ids = question.get(key, [])
    if not isinstance(ids, list) or len(ids) > MOST_NAMES or any(type(each) is not int for each in ids):
        raise UsageError(f"names: {key}: must be a list of at most {MOST_NAMES} numbers")
    return ids
