# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells the upstream which MAC address is its targets' now: when an entry becomes active, and by hand."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from ipaddress import AddressValueError, IPv6Address
from operator import itemgetter
from typing import Any

from npd6_xdp.core.announcements import Announced, Announcements, Fate
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.event import UNSPECIFIED, NsEvent
from npd6_xdp.core.icmpv6 import ALL_NODES_MAC
from npd6_xdp.core.remembered import Doubt
from npd6_xdp.core.responder import Responder
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.core.table import Decision, Match, Rule
from npd6_xdp.daemon.in_force import NOTHING, Follower, InForce
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.daemon.remembering import Remembering
from npd6_xdp.daemon.resolution import Resolution
from npd6_xdp.daemon.routing import Routing
from npd6_xdp.daemon.turns import SLICE
from npd6_xdp.system.control import Reply

_BIT = 256  # targets that are read from the map at once
_RUN = 2048  # and sorted
_WORTH = itemgetter(0)
_MOST_BY_HAND = 64  # turns of entries that may be under way where somebody asks for one more


_Worth = tuple[int, int]
"""How little a target is in doubt, and when it was asked for."""
_Asked = tuple[dict[int, dict[str, Any]], Callable[[], None]]
"""The rows of an answer by their entries, and how to give it once all is read that is remembered."""


class Announcing(Follower):
    """Announces the targets that an entry remembers, as far as its rules answer them now."""

    WHERE = "announcements"

    def __init__(self, remembering: Remembering, ports: Ports, resolution: Resolution, routing: Routing) -> None:
        self._remembering = remembering
        self._ports = ports
        self._resolution = resolution
        self._routing = routing
        self._in_force = NOTHING
        self._responder = Responder(NOTHING.table)
        self._under_way = Announcements(self._say, self._seek)
        self._wanted: set[int] = set()  # entries whose targets are to be read
        self._reading: Iterator[None] | None = None
        self._asked: list[_Asked] = []  # who waits for what is remembered
        self._on_standby: set[int] = set()  # of the table that was in force last
        self._sent: Counter[int] = Counter()

    def join(self, loop: Loop) -> None:
        """Have the loop call when one is due."""
        loop.at(self._due, self._go_on, self.WHERE)

    def sent(self, entry: int) -> int:
        """How many of an entry have been sent."""
        return self._sent[entry]

    # --- what is in force ---

    def apply(self, new: InForce) -> None:
        """Nothing more is announced of an entry that isn't at work any more."""
        old, self._in_force = self._in_force.table, new
        self._responder.discard()
        self._responder = Responder(new.table)
        for number in old.entries:
            if number not in new.table.entries or not new.table.entries[number].is_at_work:
                self._under_way.end(number)
                self._wanted.discard(number)
        for number in self._sent.keys() - new.table.entries.keys():
            del self._sent[number]
        if self._reading is not None:  # of a program that another may have taken over from
            self._reading = self._read()  # also where none is wanted any more, for those who have asked

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """Entries that have become active announce what they remember."""
        before, entries = self._on_standby, new.table.entries
        self._on_standby = {number for number, entry in entries.items() if entry.standby}
        self._want(number for number in before if number in entries and entries[number].is_at_work)
        yield from ()

    def _want(self, entries: Iterable[int]) -> None:
        if wanted := set(entries):
            self._wanted |= wanted
            self._reading = self._read()

    def _read(self) -> Iterator[None]:
        """The targets that the wanted entries remember, a bit at a time: those in doubt go last, and first of each kind
        those that were asked for last.
        """
        wanted = frozenset(self._wanted)
        found: dict[int, dict[bytes, tuple[_Worth, Announced]]] = {entry: {} for entry in wanted}
        for some in pieces(self._remembering.each() if wanted else (), _BIT):
            for entry, target, asked, tci, flags, doubt in some:
                if entry in wanted:  # one may come twice
                    found[entry][target] = (-doubt, asked), Announced(target, tci, flags, doubt)
            yield
        for entry in wanted & self._wanted:  # others are on standby again
            runs: list[list[tuple[_Worth, Announced]]] = []
            for run in pieces(found[entry].values(), _RUN):
                runs.append(sorted(run, key=_WORTH, reverse=True))
                yield
            ordered: list[Announced] = []
            for part in pieces(merge(*runs, key=_WORTH, reverse=True), _BIT):
                ordered += [one for _, one in part]
                yield
            if entry in self._wanted:
                self._under_way.end(entry)  # what is under way is among these, or was asked for by hand
                self._under_way.begin(entry, ordered)
            for rows, _ in self._asked:
                if entry in self._wanted and entry in rows:
                    rows[entry]["remembered"] = len(ordered)
        self._wanted -= wanted
        answered, self._asked = self._asked, []
        for _, reply in answered:
            reply()

    # --- one after the other ---

    def _due(self) -> float | None:
        return 0.0 if self._reading is not None else self._under_way.due

    def _go_on(self, now: float) -> None:
        if self._reading is not None:
            deadline = time.monotonic() + SLICE
            for _ in self._reading:
                if time.monotonic() >= deadline:
                    break
            else:
                self._reading = None
        self._under_way.go_on(now, self._in_force.config.limits.announcements_per_second)

    def _rule_of(self, entry: Entry, target: bytes) -> tuple[Rule, Match] | None:
        """The rule that may have a target answered, and what the table says of it."""
        match = self._in_force.table.lookup(entry.id, IPv6Address(target))
        if not isinstance(match, Match) or match.rule not in self._in_force.table.rules:
            return None  # an address of this machine's own, or a next hop, too
        return None if match.decision is Decision.IGNORE else (self._in_force.table.rules[match.rule], match)

    def _say(self, number: int, one: Announced) -> Fate:
        entry = self._in_force.table.entries.get(number)
        found = self._rule_of(entry, one.target) if entry is not None and entry.is_at_work else None
        if found is None:
            return Fate.LEFT_OUT
        rule, match = found
        event = _event(rule, one)
        if match.decision is Decision.ROUTE and not self._routing.leads_to(event, rule):
            return Fate.LEFT_OUT
        if match.decision is Decision.NEIGHBOUR and not self._resolution.is_there(match.via_set, one.target):
            return Fate.UNKNOWN
        frame = self._responder.announcement(event)
        if self._ports.send(frame.ifindex, frame.frame):  # else the link is down: the next time, perhaps
            self._sent[number] += 1
        if one.doubt is not Doubt.NONE:
            self._remembering.found(event, rule)
        return Fate.SAID

    def _seek(self, number: int, one: Announced) -> bool:
        entry = self._in_force.table.entries.get(number)
        found = self._rule_of(entry, one.target) if entry is not None else None
        return found is None or self._resolution.seek(_event(found[0], one), found[0])

    def found(self, event: NsEvent, rule: Rule) -> None:
        """A target is there that was asked for, or looked for."""
        self._under_way.found(rule.entry, event.target)
        if not event.is_ours:
            self._remembering.found(event, rule)

    # --- by hand ---

    def ask(self, question: dict[str, Any], reply: Reply) -> None:
        """Announce some targets, or all that are remembered, on an interface or on all: the verb `announce`."""
        try:
            targets = [IPv6Address(str(target)).packed for target in question.get("targets") or ()]
        except (AddressValueError, TypeError) as error:
            reply({"error": f"no target: {error}"})
            return
        table, interface = self._in_force.table, question.get("interface")
        live = [table.entries[number] for number in sorted(set(table.entry_ids.values()))]
        chosen = [entry for entry in live if entry.spoken and interface in (None, entry.label, entry.port)]
        if not chosen:
            reply({"error": self._why_none(interface) if interface else "no configured interface exists"})
        elif len(self._under_way) + len(chosen) > _MOST_BY_HAND + len(live):
            reply({"error": "so many are being announced already; try again in some seconds"})
        else:
            rows = [self._begin(entry, targets) for entry in chosen]
            read = (
                {}
                if targets
                else {
                    entry.id: row
                    for entry, row in zip(chosen, rows, strict=True)
                    if entry.remembers and entry.is_at_work
                }
            )
            if read:  # what is remembered is known when the map has been read
                self._asked.append((read, lambda: reply({"interfaces": rows})))
                self._want(read)
            else:
                reply({"interfaces": rows})

    def _why_none(self, interface: str) -> str:
        """Why there is no entry of that name."""
        config = self._in_force.config
        port, _, vlan = interface.partition(":")
        if config.entries(interface) or any(each.labelled(port) == interface for each in config.entries(port) if vlan):
            return f"{port if vlan else interface} isn't there (yet)"
        return f"no [[interface]] entry matches {interface}"

    def _begin(self, entry: Entry, targets: list[bytes]) -> dict[str, Any]:
        """Begin with what the rules may have answered; what becomes of it."""
        ours = [target for target in targets if self._rule_of(entry, target) is not None]
        if ours and entry.is_at_work:
            tci, count = b"".join(tag.to_bytes(2, "big") for tag in entry.vlan.tags), len(entry.vlan.tags)
            self._under_way.begin(entry.id, [Announced(target, tci.ljust(4, b"\0"), count) for target in ours])
        return {
            "interface": entry.label,
            "active": not entry.standby,
            "role": entry.role,
            "at_work": entry.is_at_work,
            "remembers": entry.remembers,
            "remembered": 0,
            "targets": [str(IPv6Address(target)) for target in ours],
        }


def _event(rule: Rule, one: Announced) -> NsEvent:
    """As if somebody had asked, though nobody has: NsEvent.is_ours."""
    return NsEvent(one.target, UNSPECIFIED, 0, rule.id, ALL_NODES_MAC, one.tci, one.flags)
