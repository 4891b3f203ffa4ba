# SPDX-License-Identifier: GPL-2.0-or-later
"""What has become of interfaces that entries speak for, in the log, once each."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import Steps
from npd6_xdp.daemon.in_force import NOTHING, Change, Follower, InForce
from npd6_xdp.daemon.lines import Damper, Lines


class LinkLog(Follower):
    """What can't be taken in at once is tried again, and isn't said again."""

    def __init__(self, damper: Damper) -> None:
        self._lines = Lines(damper)
        self._said: Mapping[str, LinkFacts] = {}
        self._in_force = NOTHING

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        """Say what is different, where nobody has asked for it."""
        if not change.asked:
            self._say(new.links)
        yield from ()

    def apply(self, new: InForce) -> None:
        """All of it is known."""
        if new is not self._in_force:  # else what was said since is known as well
            self._in_force, self._said = new, new.links

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """Say which entries have got another role, or one at all."""
        before = old.table.entries
        for entry in new.table.entries.values():
            if (role := entry.role) and (entry.id not in before or before[entry.id].role != role):
                self._lines.add(logging.INFO, entry.label, role, ifindex=entry.ifindex)
        self._lines.say()
        yield from ()

    def _say(self, links: Mapping[str, LinkFacts]) -> None:
        known, self._said = self._said, links
        changed = [name for name, before in known.items() if links.get(name) is not before]
        named = {entry.port for entry in self._in_force.table.entries.values()} if changed else set()
        for name in changed:
            if name in named:
                self._say_of(name, known[name], links.get(name))
        for name in links.keys() - known.keys():
            if self._in_force.config.entries(name):
                self._lines.add(logging.INFO, name, "the interface has appeared", ifindex=links[name].ifindex)
        self._lines.say()

    def _say_of(self, name: str, before: LinkFacts, now: LinkFacts | None) -> None:
        add = self._lines.add
        if now is None or now.ifindex != before.ifindex or now.generation != before.generation:
            another = "" if now is None else ", and another has its name"
            add(logging.WARNING, name, f"the interface is gone{another}", ifindex=before.ifindex)
            return
        if now.up != before.up:
            add(logging.INFO, name, "up" if now.up else "down", ifindex=now.ifindex)
        if now.mac != before.mac:
            add(
                logging.INFO, name, f"the MAC address is now {now.mac.hex(':')}", "the MAC changed", ifindex=now.ifindex
            )
        if now.addresses != before.addresses or now.next_hops != before.next_hops:
            add(logging.INFO, name, "addresses or next hops changed", ifindex=now.ifindex)
