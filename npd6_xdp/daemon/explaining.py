# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket's verb `explain`: what all rooms know of one target, for who asks what the next question gets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from ipaddress import AddressValueError, IPv6Address
from typing import Any, NamedTuple

from npd6_xdp.core import reasons
from npd6_xdp.core.described import EntryFacts, RuleFacts
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.errors import MachineError, UsageError, refusal
from npd6_xdp.core.links import SourceFlag, advert_sources, held_addresses
from npd6_xdp.core.live import Known, Waiting
from npd6_xdp.core.macs import mac_of
from npd6_xdp.core.neighbour_messages import LOOKED_AFTER, NeighbourState
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.pending import MAX_ASKERS
from npd6_xdp.core.snapshot import TargetSnapshot
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.core.table import Decision, Match, Rule, RuleFlag
from npd6_xdp.core.verdict import Limit, Outcome
from npd6_xdp.daemon.in_force import NOTHING, Follower, InForce
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.daemon.recent_targets import RecentTargets
from npd6_xdp.daemon.resolution import Resolution
from npd6_xdp.daemon.routing import Routing
from npd6_xdp.daemon.telling import Answer, Telling
from npd6_xdp.system.bpf.budgets import used_up
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.clock import machine_ns
from npd6_xdp.system.control import Reply
from npd6_xdp.system.netlink.requests import Requests

_MOST = 16  # entries that one question is answered for
_MOST_NAMED = 8
_BIT = 64  # entries whose rules are looked through at once
_NOBODY = IPv6Address("fe80::1")  # who asks, where nobody is named and nobody has


class _Question(NamedTuple):
    """What is asked: `source` is None for whoever asked last, `interface` and `vlan` for all that may be concerned."""

    target: IPv6Address
    source: IPv6Address | None
    interface: str | None
    vlan: tuple[int, ...] | None

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> _Question:
        """Raises UsageError."""
        try:
            source, vlan, interface = said.get("source"), said.get("vlan"), said.get("interface")
            target = IPv6Address(str(said.get("target")))
            return cls(
                target,
                None if source is None else IPv6Address(str(source)),
                None if interface is None else str(interface),
                None if vlan is None else tuple(map(int, vlan)),
            )
        except (AddressValueError, TypeError, ValueError) as error:
            raise UsageError(f"explain: {error}") from error


class Explaining(Follower):
    """Asks the other rooms, and changes nothing."""

    def __init__(
        self,
        ns_filter: NsFilter,
        requests: Requests,
        ports: Ports,
        recent_targets: RecentTargets,
        resolution: Resolution,
        routing: Routing,
    ) -> None:
        self._ns_filter = ns_filter
        self._requests = requests
        self._ports = ports
        self._recent_targets = recent_targets
        self._resolution = resolution
        self._routing = routing
        self._in_force = NOTHING
        self._telling = Telling()

    def apply(self, new: InForce) -> None:
        """Tell of this from now on."""
        self._in_force = new

    def join(self, loop: Loop, is_busy: Callable[[], bool]) -> None:
        """Have the loop go on with what was asked."""
        loop.at(lambda: self._telling.due, lambda _: self._telling.tick(busy=is_busy()), "explain")

    def answer(self, question: dict[str, Any], reply: Reply) -> None:
        """The verb: `target`, and `source`, `interface`, `vlan` (a list of ids) or null, to `entries`, a Known each."""
        try:
            asked = _Question.parse(question)
        except UsageError as error:
            reply(refusal(error))
            return
        self._telling.ask(asked, lambda: self._tell(asked), reply)

    def _tell(self, question: _Question) -> Steps[Answer]:
        found = []
        for entry, vlan in (yield from self._concerned(question)):
            found.append(self._known(question, entry, vlan).as_json())
            yield
        return {"entries": found}

    # --- which entries ---

    def _concerned(self, question: _Question) -> Steps[Sequence[tuple[Entry, tuple[int, ...]]]]:
        """The entries that the question is about, and by frames of which VLAN it comes."""
        table = self._in_force.table
        found: dict[int, tuple[Entry, tuple[int, ...]]] = {}
        if question.vlan is not None:
            for ifindex in table.ports:
                entry = table.entry_of(ifindex, question.vlan)
                if entry is not None and question.interface in (None, entry.port):
                    found[entry.id] = entry, question.vlan
        else:
            for number in set(table.entry_ids.values()):
                entry = table.entries[number]
                if entry.spoken and question.interface in (None, entry.port, entry.label):
                    found[number] = entry, entry.vlan.tags
        if not found:
            labels = sorted({table.entries[number].label for number in table.entry_ids.values()})
            known, where = ", ".join(labels[:_MOST_NAMED]) or "none", question.interface or "that VLAN"
            raise UsageError(f"{where}: no interface of the configuration that is here; it has {known}")
        if len(found) > 1:
            covering: dict[int, tuple[Entry, tuple[int, ...]]] = {}
            for some in pieces(found, _BIT):
                covering |= {number: found[number] for number in some if self._covers(number, question.target)}
                yield
            found = covering or found
        return sorted(found.values(), key=lambda each: each[0].label)[:_MOST]

    def _covers(self, entry: int, target: IPv6Address) -> bool:
        return isinstance(self._in_force.table.lookup(entry, target), Match)

    # --- what is known ---

    def _known(self, question: _Question, entry: Entry, vlan: tuple[int, ...]) -> Known:
        table, target = self._in_force.table, question.target
        recent = self._recent_targets.one(entry.id, target.packed)
        source = question.source or (_NOBODY if recent is None else recent.source)
        attached, link = self._ports.by_name(entry.port), self._in_force.links.get(entry.port)
        facts = EntryFacts.of(entry)
        found = table.lookup(entry.id, target)
        rule = table.rules.get(found.rule) if isinstance(found, Match) else None
        rule_facts = None if rule is None else RuleFacts.of(rule, has_via=bool(table.vias.get(rule.via_set)))
        known = Known(
            str(target),
            str(source),
            self._mac_of(source, entry, recent),
            vlan,
            facts,
            entry.role,
            attached.mode.name.lower() if attached else "",
            link is not None and link.up,
            (self._name(entry.l3_ifindex), entry.l3_ifindex),
            rule_facts,
            found.decision if isinstance(found, Match) else None,
            self._unanswered(facts, rule_facts, found, source, target, vlan),
            hidden=self._hidden(entry),
            recent=None if recent is None else _row(recent),
            collects=entry.collect > 0,
        )
        if known.unanswered or rule is None or not isinstance(found, Match):
            return known
        return self._covered(known, entry, rule, found)

    def _covered(self, known: Known, entry: Entry, rule: Rule, match: Match) -> Known:
        """The same, of a target that a rule covers and may have answered."""
        table, target = self._in_force.table, IPv6Address(known.target).packed
        neighbour = match.decision is Decision.NEIGHBOUR
        vias = table.vias.get(match.via_set, frozenset()) if neighbour or match.flags & RuleFlag.VIA else frozenset()
        sources, _, _ = advert_sources(entry.addresses)
        needed = SourceFlag.LINK_LOCAL if IPv6Address(known.source).is_link_local else SourceFlag.GLOBAL
        known = known._replace(
            is_held=match.decision is Decision.STATIC and self._is_held(IPv6Address(known.target)),
            defends=bool(match.flags & RuleFlag.DEFEND),
            xdp_source=not match.flags & RuleFlag.SOURCE_INTERFACE or bool(sources & needed),
            via={self._name(via): via for via in sorted(vias)},
            nowhere=tuple(sorted(table.nowhere)),
            routing=self._routing.flags,
            kept=self._routing.kept(entry.id, target) if match.decision is Decision.ROUTE else None,
            refuses=tuple(sorted(self._budgets(entry, match, target, known.mac))),
        )
        if match.decision is Decision.KERNEL:
            asked = self._asked_ago(match.via_set, target)
            return known._replace(proxied=asked is not None, asked=asked)
        return self._looked_for(known, entry, rule, target, vias) if neighbour else known

    def _looked_for(self, known: Known, entry: Entry, rule: Rule, target: bytes, vias: Set[int]) -> Known:
        """The same, of a target of method neighbour."""
        resolution, here = self._resolution, entry.l3_ifindex
        places = resolution.places_of(target, {*vias, here})
        states = {ifindex: state for ifindex, (state, counts) in places.items() if counts}
        behind = {self._name(via): _word(state) for via, state in states.items() if via in vias}
        now, capacity = time.monotonic(), resolution.capacity or (0, 0)
        waiting = resolution.pending.waiting(rule.via_set, target, now)
        full = (Limit.FULL,) if resolution.neighbours.full else ()
        limit = None if behind else resolution.refuses(entry.id, known.mac)
        return known._replace(
            behind=behind,
            doubted=tuple(self._name(via) for via, (_, counts) in places.items() if not counts),
            confirmed=resolution.neighbours.is_confirmed(rule.via_set, target),
            elsewhere=_word(states[here]) if here in states and here not in vias else "",
            away=tuple(map(self._name, resolution.away_at(target))),
            waiting=waiting
            and Waiting(
                waiting.seconds,
                waiting.askers,
                waiting.askers < MAX_ASKERS,
                tuple(map(self._name, waiting.ifindexes)),
            ),
            asked=self._asked_ago(rule.via_set, target),
            refuses=(*known.refuses, *(() if behind else full), *([limit] if limit else [])),
            space=f"{len(resolution.pending)} of {capacity[0]} targets are pending,"
            f" {len(resolution.neighbours)} of {resolution.neighbours.limit} hosts are there",
        )

    def _unanswered(
        self,
        entry: EntryFacts,
        rule: RuleFacts | None,
        found: Match | Outcome,
        source: IPv6Address,
        target: IPv6Address,
        vlan: tuple[int, ...],
    ) -> tuple[Outcome, str] | None:
        if invalid := reasons.why_invalid(source, target):
            return Outcome.INVALID, invalid
        decided = found.decision if isinstance(found, Match) else found
        return reasons.why_unanswered(entry, rule, decided, target, reasons.frames_of(entry.port, vlan))

    def _budgets(self, entry: Entry, match: Match, target: bytes, mac: bytes) -> Set[Limit]:
        per_second = self._in_force.config.limits.events_per_second
        found = used_up(self._ns_filter.program, entry, per_second, target, mac)
        return found - {Limit.NEW_TARGET} if match.decision is Decision.NEIGHBOUR else found

    def _asked_ago(self, via_set: int, target: bytes) -> float | None:
        """For how many seconds nobody has asked for a present target; None: the program doesn't have it."""
        asked = self._ns_filter.asked(via_set, target)
        return max(machine_ns() / 1e9 - asked, 0.0) if asked else None

    def _mac_of(self, source: IPv6Address, entry: Entry, recent: TargetSnapshot | None) -> bytes:
        """The MAC address that a source asks from, as far as it is known."""
        if recent is not None and recent.source == source:
            return mac_of(recent.source_mac)
        with suppress(MachineError):
            return self._requests.neighbour(Host(entry.l3_ifindex, source.packed)).mac
        return b""

    def _hidden(self, entry: Entry) -> str:
        """What a port with tags beside its frames means for untagged ones."""
        tapped = self._ns_filter.program.tapped
        for name in ("silent", "guarded", "sampled"):
            if entry.ifindex in getattr(tapped, name):
                return name
        return ""

    def _is_held(self, target: IPv6Address) -> bool:
        """Whether it is an address of this host."""
        links = self._in_force.links.values()
        return any(target in held_addresses(own) for link in links for own in link.addresses.values())

    def _name(self, ifindex: int) -> str:
        return self._in_force.names.get(ifindex, str(ifindex))


def _word(state: NeighbourState) -> str:
    """The neighbour table's word for a state."""
    return str((state & ~LOOKED_AFTER).name or "unknown").lower()


def _row(recent: TargetSnapshot) -> dict[str, Any]:
    return {
        "outcome": str(recent.outcome),
        "source": str(recent.source),
        "source_mac": recent.source_mac,
        "count": recent.count,
        "first": recent.first,
        "last": recent.last,
    }
