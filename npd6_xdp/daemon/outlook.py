# SPDX-License-Identifier: GPL-2.0-or-later
"""What there is to warn of, as things are now: logged when it comes, and shown for as long as it holds."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.rules import Table
from npd6_xdp.core.warnings import (
    DefaultRoute,
    Receiver,
    WarningKind,
    Warnings,
    advertisement_warnings,
    all_lines,
    forwarding_warnings,
)
from npd6_xdp.daemon.lines import Lines
from npd6_xdp.system.router import Router

log = logging.getLogger("npd6-xdp")

_PAUSE = 5.0  # seconds between two looks at what nobody announces: accept_ra, the default route
_MOST_READ = 64  # interfaces whose sysctls and counters are read at a look


class Outlook:
    """Warnings of the configuration and of the machine. `due` is when look() is to be called again."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._table = Table({}, {}, {}, {}, {})
        self._links: Mapping[str, LinkFacts] = {}
        self._configured: Warnings = {}
        self._said: frozenset[str] = frozenset()
        self.due: float | None = None
        self.current: Warnings = {}
        """What holds now; replaced as a whole."""

    def use(self, table: Table, links: Mapping[str, LinkFacts], configured: Warnings) -> None:
        """Another table, other links, and what these alone are reason to warn of."""
        self._table, self._links, self._configured = table, links, configured
        self.look()

    def reopen(self) -> None:
        """Another way to the kernel's word on forwarding, because something is wrong with the one there is."""
        self._router.close()
        self._router = Router()

    def fileno(self) -> int:
        """Readable: on_change() is to be called."""
        return self._router.fileno()

    def close(self) -> None:
        """Let go of the sockets."""
        self._router.close()

    def on_change(self) -> bool:
        """Forwarding was switched somewhere; whether look() may find something new. Raises MachineError."""
        return self._router.on_change()

    def look(self) -> bool:
        """Look at the machine's state; whether what there is to warn of has changed."""
        self.due = time.monotonic() + _PAUSE
        names = {link.ifindex: link.name for link in self._links.values()}
        found = self._router.default_route()
        default = None if found is None else DefaultRoute(names.get(found[0], ""), found[1])
        receivers = self._receivers(default)
        current = {
            **self._configured,
            WarningKind.FORWARDING: forwarding_warnings(self._table, self._links, self._router.forwards, receivers),
            WarningKind.ROUTER_ADVERTISEMENTS: advertisement_warnings(receivers, default),
        }
        changed = current != self.current
        self.current = current
        self._say()
        return changed

    def _receivers(self, default: DefaultRoute | None) -> list[Receiver]:
        """Interfaces that have addresses by router advertisements, or whose default route was by one; then ours.

        The latter only where there is no default route at all: what their counters say is no matter else.
        """
        ours = {entry.l3_ifindex for entry in self._table.entries.values()} if default is None else set()
        found = []
        for link in self._links.values():
            if link.l3_ifindex(()) != link.ifindex:
                continue  # a port of a bridge, which is the one that hears
            advertised = any(address.advertised for address in link.own(()))
            by_one = default is not None and default.advertised and default.interface == link.name
            if advertised or by_one or (link.ifindex in ours and self._router.forwards(link.ifindex)):
                found.append((not advertised, link.name, link.ifindex))
        return [
            self._receiver(name, ifindex, not other, default) for other, name, ifindex in sorted(found)[:_MOST_READ]
        ]

    def _receiver(self, name: str, ifindex: int, advertised: bool, default: DefaultRoute | None) -> Receiver:
        accept_ra = self._router.accept_ra(name)
        heard = default is None and not advertised and accept_ra == 1 and self._router.heard(name)
        return Receiver(name, bool(self._router.forwards(ifindex)), accept_ra, advertised, heard)

    def _say(self) -> None:
        said = frozenset(all_lines(self.current))
        lines = Lines()
        for line in all_lines(self.current):
            if line not in self._said:
                lines.add_line(logging.WARNING, line)
        for line in sorted(self._said - said):
            lines.add_line(logging.INFO, f"{line.partition(': ')[0]}: no longer so: {line.partition(': ')[2]}")
        lines.say()
        self._said = said
