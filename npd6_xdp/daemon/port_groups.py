# SPDX-License-Identifier: GPL-2.0-or-later
"""The multicast groups that are joined for the table in force, so that switches send solicitations here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from npd6_xdp.core.groups import finding_groups, wanted_groups
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import Steps
from npd6_xdp.core.table import Table
from npd6_xdp.daemon.in_force import NO_TABLE
from npd6_xdp.system.groups import Groups


class PortGroups:
    """Has `groups` follow a table and its links."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._wanted: tuple[Table, Mapping[int, frozenset[bytes]]] = (NO_TABLE, {})
        self._seen: dict[int, LinkFacts] = {}

    def finding(self, table: Table, undo: ExitStack) -> Steps[None]:
        """Find out what a table that is to come wants, bit by bit; `undo`, if it doesn't come."""
        undo.callback(setattr, self, "_wanted", self._wanted)
        self._wanted = table, (yield from finding_groups(table))

    def follow(self, table: Table, links: Mapping[str, LinkFacts]) -> None:
        """Join what the table wants, and again what a link that has changed may have lost."""
        if self._wanted[0] is not table:
            self._wanted = table, wanted_groups(table)
        self._groups.follow(self._wanted[1], {link.ifindex: link.name for link in links.values()})
        here = {*self._groups.interfaces}
        seen = {link.ifindex: link for link in links.values() if link.ifindex in here}
        for ifindex, link in seen.items():
            before = self._seen.get(ifindex)
            if before is not None and before != link:
                self._groups.check(ifindex)
        self._seen = seen
