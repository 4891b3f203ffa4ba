# SPDX-License-Identifier: GPL-2.0-or-later
"""What there is to warn of, as things are now: logged when it comes, and shown for as long as it holds."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Sequence

from npd6_xdp.core.absent import absent_lines
from npd6_xdp.core.altnames import alternative_names, duplicates
from npd6_xdp.core.logged import rule_of
from npd6_xdp.core.steps import Steps
from npd6_xdp.core.table import Table
from npd6_xdp.core.vias import Patience, UsedVia, used_vias
from npd6_xdp.core.warnings import (
    MOST_SAID,
    DefaultRoute,
    Receiver,
    WarningKind,
    Warnings,
    advertisement_warnings,
    all_lines,
    finding_warnings,
    forwarding_warnings,
    more_of,
    warnings,
)
from npd6_xdp.daemon.cards import Cards
from npd6_xdp.daemon.in_force import NO_TABLE, NOTHING, Change, Follower, InForce
from npd6_xdp.daemon.lines import Damper, Lines
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.tags import Tags
from npd6_xdp.system.netlink.router import Router
from npd6_xdp.system.sysctl import read as read_sysctl

log = logging.getLogger("npd6-xdp")

_PAUSE = 5.0  # seconds between two looks at what nobody announces: accept_ra, the default route
_WORD = re.compile(r"[\w.-]+")
_MOST_READ = 64  # interfaces whose sysctls and counters are read at a look


class Outlook(Follower):
    """Warnings of the configuration and of the machine. `due` is when look() is to be called again.

    `neighbour_table` has those of the kernel's neighbour table, `certificate` those of the page's. `show` is given all
    of them, whenever they change.
    """

    def __init__(
        self,
        router: Router,
        neighbour_table: Callable[[], Sequence[str]],
        damper: Damper | None = None,
        show: Callable[[Warnings], None] = lambda _: None,
        certificate: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._router = router
        self._neighbour_table = neighbour_table
        self._show = show
        self._certificate = certificate
        self._tags: Tags | None = None
        self._has_news: Callable[[], bool] = lambda: False
        self._in_force = NOTHING
        self._silent: frozenset[int] = frozenset()
        self._of_table: tuple[Table, Sequence[str]] = (NO_TABLE, ())  # what there is to warn of by a table alone
        self._of_next: tuple[Table, Sequence[str]] = self._of_table  # and by one that is made ready
        self._vias: Sequence[UsedVia] = ()
        self._patience = Patience()
        self._missed: frozenset[str] = frozenset()  # interfaces whose advertisements gave the default route
        self._configured: Warnings = {}
        self._said: frozenset[str] = frozenset()
        self._of_advertisements: frozenset[str] = frozenset()  # those of them
        self._lines = Lines(damper)
        self._cards = Cards()
        self.due: float | None = None
        self.current: Warnings = {}
        """What holds now; replaced as a whole."""

    def join(self, loop: Loop, tags: Tags, has_news: Callable[[], bool]) -> None:
        """Have the loop look when it is time. `has_news` says that there are others of the neighbour table's."""
        self._tags, self._has_news = tags, has_news
        loop.watch("outlook", lambda: [(self.fileno(), self._on_readable)], self._reopen)
        loop.at(lambda: 0.0 if self._is_old else self.due, lambda _: self._tick(), "outlook")

    @property
    def _is_old(self) -> bool:
        """Whether there is something that others know, and that hasn't been looked at yet."""
        return self._has_news() or (self._tags is not None and self._tags.silent != self._silent)

    def _on_readable(self) -> None:
        if self.on_change():
            self.look()

    def _reopen(self) -> None:
        self.reopen()
        self.look()

    def _tick(self) -> None:
        if self._tags is not None and self._tags.silent != self._silent:
            self._follow(self._in_force)  # a port has its tags within the frames again, say
        else:
            self.look()

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        """Find what there is to warn of by a table alone."""
        change.undo.callback(self._give_up)
        self._of_next = new.table, (yield from finding_warnings(new.table))

    def _give_up(self) -> None:
        self._of_next = self._of_table

    def apply(self, new: InForce) -> None:
        """Another table, other links: settle() looks at them."""
        if self._of_next[0] is new.table:
            self._of_table = self._of_next
        elif self._of_table[0].decisions is new.table.decisions:
            self._of_table = new.table, self._of_table[1]  # but for roles, it is the same

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """Say what there is to warn of by now, in a turn of its own: of thousands of ports that takes 50 ms."""
        yield
        self._follow(new)

    def _follow(self, new: InForce) -> None:
        if self._tags is not None:
            self._silent = self._tags.silent
        self.use(new, used_vias(new.config, new.links), self._by(new))

    def _by(self, new: InForce) -> Warnings:
        """What of the configuration doesn't do what its writer may think, with the links that there are."""
        names, vias = absent_lines(new.config, new.links)
        unfit = {
            each.name: new.links[each.name].why_no_port for each in new.config.interfaces if each.name in new.links
        }
        return {
            WarningKind.RULE: self._of_table[1] if self._of_table[0] is new.table else warnings(new.table),
            WarningKind.INTERFACE: [
                *names,
                *(f"{name}: {why}" for name, why in unfit.items() if why),
                *duplicates(new.written, alternative_names(new.links)),
            ],
            WarningKind.VIA: vias,
            WarningKind.TAGS: [] if self._tags is None else self._tags.warnings(new.links),
        }

    def use(self, new: InForce, vias: Sequence[UsedVia], configured: Warnings) -> None:
        """What is in force, the via interfaces in use, and what these alone are reason to warn of."""
        self._in_force, self._vias, self._configured = new, vias, configured
        self._cards.use(new)
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
        now = time.monotonic()
        vias = self._patience.look(self._vias[:_MOST_READ], read_sysctl, now)
        self.due = min(now + _PAUSE, self._patience.due or math.inf)
        new, found = self._in_force, self._router.default_route()
        default = None if found is None else DefaultRoute(new.names.get(found[0], ""), found[1])
        receivers = self._receivers(default)
        advertisements = advertisement_warnings(receivers, default, self._missed)
        self._missed = frozenset(line.partition(": ")[0] for line in advertisements) if default is None else frozenset()
        sees = self._tags.sees if self._tags is not None else lambda _: False
        current = {
            **self._configured,
            WarningKind.VIA: [*self._configured.get(WarningKind.VIA, ()), *vias],
            WarningKind.FORWARDING: forwarding_warnings(new.table, new.links, self._router.forwards, receivers),
            WarningKind.NEIGHBOUR_TABLE: self._neighbour_table(),
            WarningKind.TAGS: [*self._configured.get(WarningKind.TAGS, ()), *self._cards.look(sees)],
            WarningKind.ROUTER_ADVERTISEMENTS: advertisements,
            WarningKind.CERTIFICATE: self._certificate(),
        }
        changed = current != self.current
        self.current = current
        self._show(current)
        self._say()
        return changed

    def _receivers(self, default: DefaultRoute | None) -> list[Receiver]:
        """Interfaces that have addresses by router advertisements, or whose default route was by one; then ours.

        The latter only where there is no default route at all: what their counters say is no matter else.
        """
        ours = {entry.l3_ifindex for entry in self._in_force.table.entries.values()} if default is None else set()
        found = []
        for link in self._in_force.links.values():
            if link.l3_ifindex(()) != link.ifindex:
                continue  # a port of a bridge, which is the one that hears
            advertised = any(address.advertised for address in link.own(()))
            by_one = default is not None and default.advertised and default.interface == link.name
            missed = link.name in self._missed
            if advertised or by_one or missed or (link.ifindex in ours and self._router.forwards(link.ifindex)):
                found.append((not (advertised or by_one), link.name, link.ifindex))
        return [
            self._receiver(name, ifindex, not other, default) for other, name, ifindex in sorted(found)[:_MOST_READ]
        ]

    def _receiver(self, name: str, ifindex: int, advertised: bool, default: DefaultRoute | None) -> Receiver:
        accept_ra = self._router.accept_ra(name)
        heard = default is None and not advertised and accept_ra == 1 and self._router.heard(name)
        return Receiver(name, bool(self._router.forwards(ifindex)), accept_ra, advertised, heard)

    def _say(self) -> None:
        lines = all_lines(self.current)
        said = frozenset(lines)
        more = self._add([line for line in lines if line not in self._said], logging.WARNING)
        going_on = {line.partition(": ")[0] for line in self.current.get(WarningKind.ROUTER_ADVERTISEMENTS, ())}
        past = [
            f"{line.partition(': ')[0]}: cleared: {line.partition(': ')[2]}"
            for line in sorted(self._said - said)
            # else the default route is missing still, if for another reason
            if line not in self._of_advertisements or line.partition(": ")[0] not in going_on
        ]
        fewer = self._add(past, logging.INFO)
        self._lines.say()
        if more:
            log.warning("%s", more_of(more))
        if fewer:
            log.info("and %s more cleared", f"{fewer:,}")
        self._said = said
        self._of_advertisements = frozenset(self.current.get(WarningKind.ROUTER_ADVERTISEMENTS, ()))

    def _add(self, lines: Sequence[str], level: int) -> int:
        """Lines that are to be said, the same of many interfaces together; how many of them there are too many."""
        kinds: set[str] = set()
        more = 0
        for line in lines:
            name, _, text = line.partition(": ")
            kind = _kind(name, text)
            if len(kinds) == MOST_SAID and kind not in kinds:
                more += 1
                continue
            kinds.add(kind)
            self._lines.add(level, name, text, kind, rule=rule_of(text))
        return more


def _kind(name: str, text: str) -> str:
    """The text without the interface's name in it. A pattern made of each of 4,000 names would take a while."""
    if not _WORD.fullmatch(name):
        return text.replace(name, "NAME")
    within = f"{name}."  # a VLAN device's, as it is usual
    return _WORD.sub(
        lambda word: f"NAME{word[0][len(name) :]}" if word[0] == name or word[0].startswith(within) else word[0], text
    )
