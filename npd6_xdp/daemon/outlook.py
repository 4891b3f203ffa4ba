# SPDX-License-Identifier: GPL-2.0-or-later
"""What there is to warn of, as things are now: logged when it comes, and shown for as long as it holds."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence

from npd6_xdp.core.absent import finding_absent_lines
from npd6_xdp.core.altnames import alternative_names, duplicates
from npd6_xdp.core.logged import rule_of
from npd6_xdp.core.steps import Steps, in_order, pieces
from npd6_xdp.core.table import Table
from npd6_xdp.core.vias import Patience, UsedVia, finding_used_vias
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
from npd6_xdp.daemon.turns import SLICE, Turns
from npd6_xdp.system.netlink.router import Router
from npd6_xdp.system.sysctl import read as read_sysctl

log = logging.getLogger("npd6-xdp")

_PAUSE = 5.0  # seconds between two looks at what nobody announces: accept_ra, the default route
_SWITCHING = 0.1  # seconds: the kernel switches forwarding on one interface after the other, and says each at once
_WORD = re.compile(r"[\w.-]+")
_LAST = object()
_MOST_READ = 64  # interfaces whose sysctls and counters are read at a look


class Outlook(Follower):
    """Warnings of the configuration and of the machine. `due` is when look() is to be called again.

    `neighbour_table` has those of the kernel's neighbour table, `certificate` those of the page's. `show` is given all
    of them, by kind and as lines, whenever they change.
    """

    def __init__(
        self,
        router: Router,
        neighbour_table: Callable[[], Sequence[str]],
        damper: Damper | None = None,
        show: Callable[[Warnings, Sequence[str]], None] = lambda *_: None,
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
        self._said: Mapping[str, None] = {}  # lines, in their order
        self._of_advertisements: frozenset[str] = frozenset()  # those of them
        self._damper = damper or Damper()
        self._saying: Steps[None] | None = None  # of what has changed
        self._turns = Turns(lambda: False)
        self._cards = Cards()
        self.due: float | None = None
        self.current: Warnings = {}
        """What holds now; replaced as a whole."""
        self._told: Warnings = self.current  # what was said of it last

    def join(self, loop: Loop, tags: Tags, has_news: Callable[[], bool], turns: Turns) -> None:
        """Have the loop look when it is time. `has_news` says that there are others of the neighbour table's."""
        self._tags, self._has_news, self._turns = tags, has_news, turns
        loop.watch("outlook", lambda: [(self.fileno(), self._on_readable)], self._reopen)
        loop.at(lambda: 0.0 if self._is_old else self.due, lambda _: self._tick(), "outlook")
        loop.at(lambda: None if self._saying is None else turns.go_on_at, lambda _: self.go_on(), "outlook")

    @property
    def _is_old(self) -> bool:
        """Whether there is something that others know, and that hasn't been looked at yet."""
        return self._has_news() or (self._tags is not None and self._tags.silent != self._silent)

    def _on_readable(self) -> None:
        if self.on_change():  # a look at once would find some interfaces as they were, and warn of that
            soon = time.monotonic() + _SWITCHING
            self.due = soon if self.due is None else min(self.due, soon)

    def _reopen(self) -> None:
        self.reopen()
        self.look()

    def _tick(self) -> None:
        if self._tags is not None and self._tags.silent != self._silent:
            self._configured = {**self._configured, **self._by_tags(self._in_force)}
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
        """Say what there is to warn of by now, in turns of its own: there may be 100,000 lines."""
        yield
        known, vias, configured = self._in_force, self._vias, self._configured
        if not (new.config is known.config and new.written is known.written and new.links is known.links):
            vias = yield from finding_used_vias(new.config, new.links)
            configured = yield from self._by(new)
        is_known = self._of_table[0].decisions is new.table.decisions  # also where roles have changed meanwhile
        rules = self._of_table[1] if is_known else warnings(new.table)
        of_config = {kind: configured.get(kind, ()) for kind in (WarningKind.INTERFACE, WarningKind.VIA)}
        self.use(new, vias, {WarningKind.RULE: rules, **of_config, **self._by_tags(new)})
        if new.written is not old.written:  # who has asked for it hears of its warnings
            yield from self._saying_all()

    def _saying_all(self) -> Steps[None]:
        """Wait until what holds now is said: behind what is being said, there may be one more."""
        for _ in range(2):
            saying = self._saying
            while saying is not None and self._saying is saying:
                yield
                self._bit()

    def _by(self, new: InForce) -> Steps[Warnings]:
        """What of the configuration doesn't do what its writer may think, with the links that there are."""
        names, vias = yield from finding_absent_lines(new.config, new.links)
        unfit: dict[str, str] = {}
        for some in pieces(new.config.interfaces):
            unfit.update({each.name: new.links[each.name].why_no_port for each in some if each.name in new.links})
            yield
        return {
            WarningKind.INTERFACE: [
                *names,
                *(f"{name}: {why}" for name, why in unfit.items() if why),
                *duplicates(new.written, alternative_names(new.links)),
            ],
            WarningKind.VIA: vias,
        }

    def _by_tags(self, new: InForce) -> Warnings:
        """The same of ports that have their tags beside the frames, as that is now."""
        if self._tags is None:
            return {WarningKind.TAGS: []}
        self._silent = self._tags.silent
        return {WarningKind.TAGS: self._tags.warnings(new.links)}

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
        """Look at the machine's state; whether what there is to warn of has changed. Then it is said at once, or, where
        that takes longer than a turn may, in those that follow.
        """
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
        if changed := current != self.current:
            self.current = current
        if self._saying is None and self._told is not self.current:  # else it comes behind what is being said
            self._saying = self._say(self.current)
            ends = time.thread_time() + SLICE
            while self._saying is not None and time.thread_time() < ends:
                self._bit()
            if self._saying is not None:
                self._turns.rest()
        return changed

    def go_on(self) -> bool:
        """Go on saying what has changed, for as long as a turn may take; whether there is more."""
        saying, self._saying = self._saying, None
        if saying is not None:
            self._saying = self._following() if self._turns.go_on(saying) else saying
        return self._saying is not None

    def _bit(self) -> None:
        saying, self._saying = self._saying, None
        if saying is not None:
            self._saying = self._following() if next(saying, _LAST) is _LAST else saying

    def _following(self) -> Steps[None] | None:
        """What is to be said next, where something has changed since the last was begun."""
        return None if self._told is self.current else self._say(self.current)

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

    def _say(self, current: Warnings) -> Steps[None]:
        """What has come, and what has gone, since the last that was said."""
        lines = yield from all_lines(current)
        self._show(current, [*lines])
        yield
        come: list[str] = []
        for some in pieces(lines):
            come += [line for line in some if line not in self._said]
            yield
        going_on = {line.partition(": ")[0] for line in current.get(WarningKind.ROUTER_ADVERTISEMENTS, ())}
        gone: list[str] = []
        for some in pieces(self._said):
            # of advertisements: else the default route is missing still, if for another reason
            gone += [
                line
                for line in some
                if line not in lines
                and (line not in self._of_advertisements or line.partition(": ")[0] not in going_on)
            ]
            yield
        gone = yield from in_order(gone)
        said = Lines(self._damper)
        more = yield from _add(said, come, logging.WARNING)
        fewer = yield from _add(said, gone, logging.INFO, "cleared: ")
        said.say()
        if more:
            log.warning("%s", more_of(more))
        if fewer:
            log.info("and %s more cleared", f"{fewer:,}")
        self._said, self._told = lines, current
        self._of_advertisements = frozenset(current.get(WarningKind.ROUTER_ADVERTISEMENTS, ()))


def _add(said: Lines, lines: Sequence[str], level: int, before: str = "") -> Steps[int]:
    """Lines that are to be said, the same of many interfaces together, with a word `before`; how many of them there are
    too many.
    """
    kinds: set[str] = set()
    more = 0
    for some in pieces(lines):
        for line in some:
            name, _, text = line.partition(": ")
            text = before + text
            kind = _kind(name, text)
            if len(kinds) == MOST_SAID and kind not in kinds:
                more += 1
                continue
            kinds.add(kind)
            said.add(level, name, text, kind, rule=rule_of(text))
        yield
    return more


def _kind(name: str, text: str) -> str:
    """The text without the interface's name in it. A pattern made of each of 4,000 names would take a while."""
    if not _WORD.fullmatch(name):
        return text.replace(name, "NAME")
    within = f"{name}."  # a VLAN device's, as it is usual
    return _WORD.sub(
        lambda word: f"NAME{word[0][len(name) :]}" if word[0] == name or word[0].startswith(within) else word[0], text
    )
