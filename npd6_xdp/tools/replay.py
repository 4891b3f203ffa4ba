# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp replay`: runs a capture through the XDP program and the Python path, and touches no network.

The program is loaded and attached to nothing; BPF_PROG_TEST_RUN gives it the frames (tools/bench.py). What the daemon
would do beside answering (have the kernel resolve a target, add a proxy entry) is only said.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Set
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv6Address
from itertools import chain
from pathlib import Path
from typing import Any

from scapy.config import conf
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import Ether

from npd6_xdp.core.asked import Asked, vlan_ids
from npd6_xdp.core.build import build
from npd6_xdp.core.config import UNTAGGED, Config
from npd6_xdp.core.described import EntryFacts, RuleFacts
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.errors import MachineError, UsageError
from npd6_xdp.core.event import EventFlag, NsEvent
from npd6_xdp.core.icmpv6 import UNSPECIFIED, NeighborSolicitation
from npd6_xdp.core.links import LinkFacts, held_addresses
from npd6_xdp.core.neighbour_messages import PRESENT
from npd6_xdp.core.places import Places
from npd6_xdp.core.reasons import Decided, why
from npd6_xdp.core.routes import RoutingFlag, question_of
from npd6_xdp.core.table import Decision, Match, PresentFlag
from npd6_xdp.core.verdict import Method, Outcome, Reason
from npd6_xdp.system.bpf.events import LEAST_PAGES
from npd6_xdp.system.bpf.testrun import LOOPBACK
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.system.netlink.route_questions import RouteQuestions
from npd6_xdp.system.netlink.routes import RouteWatch
from npd6_xdp.tools import cooked
from npd6_xdp.tools.bench import Bench, Seen
from npd6_xdp.tools.pcap import ETHERNET, SLL2, STDIN, Frame, frames
from npd6_xdp.tools.replayed import Replayed, as_dict, as_text, some, summary_text

_NO_MAC = bytes(6)
_UNLIMITED = 1_000_000_000  # events per second
_SHORTEST, _LONGEST = 14, 3000  # bytes that a test run takes at the least, and surely takes


def run(
    file: Path,
    config: Config,
    links: Mapping[str, LinkFacts],
    interface: str,
    mac: bytes | None,
    held: Set[str],
    *,
    as_json: bool,
) -> None:
    """Say what would become of each solicitation in a capture, as if it had come in by `interface`.

    `mac` is that interface's MAC address, where it isn't among `links`. `held` are the role addresses that this machine
    has; of another machine's interface, it is supposed to have all. What comes by standard input (STDIN) is told as
    it comes. Raises UsageError for a file that can't be used, and MachineError at the end if parts of it couldn't: what
    could be is printed then; and so it is on a Ctrl-C.
    """
    capture = frames(file)
    first = next(capture, None)  # before anything is loaded
    with closing(_Replay(config, links, interface, mac, held)) as replay:
        told = []
        incomplete: MachineError | KeyboardInterrupt | None = None
        if not as_json:
            print(*(f"note: {note}\n" for note in replay.notes), sep="", end="", flush=True)
        noted = len(replay.notes)
        try:
            for frame in chain(() if first is None else (first,), capture):
                found = replay.see(frame)
                if not as_json:
                    print(*(f"note: {note}\n" for note in replay.notes[noted:]), sep="", end="")
                    noted = len(replay.notes)
                if found is None:
                    continue
                if as_json:
                    told.append(as_dict(found))
                else:
                    print(as_text(found), flush=file == STDIN)
        except (MachineError, KeyboardInterrupt) as error:
            incomplete = error
        if as_json:
            whole = {"file": str(file), "interface": interface, "notes": replay.notes, "solicitations": told}
            print(json.dumps(whole | {"summary": replay.summary()}, indent=2))
        else:
            print(summary_text(replay.summary()))
    if incomplete is not None:
        raise incomplete
    if replay.unseen:
        name = "standard input" if file == STDIN else file
        raise MachineError(
            f"{name}: {some(replay.unseen, 'solicitation')} couldn't be run: cut short by the capture"
            " (tcpdump -s 0 takes all), or too long for a test run"
        )


class _Replay:
    """The program with the configuration's table, and what it made of the frames so far."""

    def __init__(
        self, config: Config, links: Mapping[str, LinkFacts], interface: str, mac: bytes | None, held: Set[str]
    ) -> None:
        here = links.get(interface)
        if here is not None and here.why_no_port:
            raise UsageError(f"{interface} is {here.why_no_port}")
        self.notes = [] if here else _notes(interface, mac)
        link = here or LinkFacts(interface, LOOPBACK, mac or _NO_MAC)
        if here is not None and mac is not None:
            link = replace(link, mac=mac, bridge_macs={})
        # a replay has no clock, so limits can't be applied
        entries = tuple(
            replace(entry, name=interface, events_per_source=0, collect_targets=0, new_targets_per_second=0)
            for entry in config.entries(interface)
        )
        self._limits = config.limits
        config = replace(config, interfaces=entries, limits=replace(config.limits, events_per_second=_UNLIMITED))
        # first: where it isn't on this machine, the loopback interface stands in, and has the same index
        links = {interface: link, **{name: other for name, other in links.items() if name != interface}}
        self._table = build(config, links, held=held if here else None)
        self._is_here = here is not None
        self._mac = link.mac
        self._speaks_of_tags = any(entry.vlan != UNTAGGED for entry in entries)
        self._told_of_tags = False
        self._ifindex = link.ifindex
        self._held = {
            each for link in links.values() for own in link.addresses.values() for each in held_addresses(own)
        }
        self._bench = Bench(self._table, LEAST_PAGES, config.limits, link.ifindex)
        self._proxied = 0
        self._began: float | None = None
        self._frames = self._outgoing = self._elsewhere = 0
        self._outcomes: Counter[Outcome] = Counter()
        self._reasons: Counter[Reason] = Counter()
        self.unseen = 0
        self._questions = RouteQuestions()
        self._flags = RoutingFlag(0)
        self._meet_neighbours()
        self._meet_routes()

    def close(self) -> None:
        self._questions.close()
        self._bench.close()

    def _meet_routes(self) -> None:
        """Method route goes by this machine's routes and rules."""
        if self._table.live(Decision.ROUTE):
            with closing(RouteWatch()) as routes:
                routes.watch(())
                self._flags = routes.flags
            self._bench.ns_filter.set_routing(self._flags)

    def _meet_neighbours(self) -> None:
        """Method neighbour goes by this machine's neighbour table as it is now."""
        if not self._table.live(Decision.NEIGHBOUR):
            return
        places = Places()
        places.use(self._table, 0.0)
        with closing(Requests()) as requests:
            states = places.restart(requests.neighbours(), 0.0)
        known = {
            (via_set, host.address)
            for host, state in states.items()
            if state & PRESENT
            for via_set in self._table.neighbour_via_sets(host.ifindex, IPv6Address(host.address))
        }
        for via_set, address in sorted(known)[: self._limits.neighbours]:
            self._bench.ns_filter.set_present(via_set, address, PresentFlag(0))

    def summary(self) -> dict[str, Any]:
        """Counts of what was seen."""
        solicitations = self._outcomes.total()
        return {
            "frames": self._frames,
            "solicitations": solicitations,
            "others": self._frames - solicitations - self.unseen - self._outgoing - self._elsewhere,
            "not_run": self.unseen,
            "outgoing": self._outgoing,
            "elsewhere": self._elsewhere,
            "outcomes": {outcome.value: count for outcome, count in self._outcomes.most_common()},
            "reasons": {reason.value: count for reason, count in self._reasons.most_common()},
        }

    def see(self, frame: Frame) -> Replayed | None:
        """What would become of a frame; None if it is no solicitation, can't be run, or didn't come in there."""
        self._frames += 1
        self._began = frame.at if self._began is None else self._began
        if frame.link != ETHERNET:
            uncooked = self._uncook(frame)
            if uncooked is None:
                return None
            frame = uncooked
        asked = NeighborSolicitation.parse(frame.data)
        seen = None
        if len(frame.data) >= frame.size:
            try:
                seen = self._bench.see(frame.data)
            except OSError as error:
                if _SHORTEST <= len(frame.data) <= _LONGEST:
                    raise MachineError(f"can't run frame {frame.number}: {error.strerror}") from error
        if seen is None:
            self.unseen += asked is not None
            return None
        events = self._bench.events()
        if not seen.counted and not events:
            return None
        found = self._tell(frame, asked, seen, events)
        self._outcomes[found.outcome] += 1
        self._reasons.update(seen.reasons)
        return found

    def _uncook(self, frame: Frame) -> Frame | None:
        """A frame of a capture on `any` as it was on the wire; None if it went out, or came in elsewhere."""
        found = cooked.parse(frame)
        if found is None:
            return None
        if frame.link == SLL2 and not self._told_of_tags and self._speaks_of_tags:
            self._told_of_tags = True
            self.notes.append(
                "this capture on `any` (LINUX_SLL2) has no VLAN tags that were beside the frame: capture on the"
                " interface itself, or with tcpdump -y LINUX_SLL"
            )
        if found.kind == cooked.PacketType.OUTGOING:
            self._outgoing += 1
            return None
        wire = cooked.rebuilt(frame, found, self._mac)
        if wire is None or (self._is_here and found.ifindex not in (0, self._ifindex)):
            self._elsewhere += 1
            return None
        return wire

    def _tell(self, frame: Frame, asked: object, seen: Seen, events: list[NsEvent]) -> Replayed:
        vlan = vlan_ids(frame.data)
        at = frame.at - (self._began or 0.0)
        if not isinstance(asked, NeighborSolicitation):
            source, target = _addresses(frame.data)
            reason = seen.reasons[0] if seen.reasons else None
            entry = self._entry(vlan)
            decided = Decided(seen.counted[0], Asked.of(frame.data), EntryFacts.of(entry), reason=reason)
            return Replayed(
                *(frame.number, at, frame.data[6:12], vlan, source, target, decided.outcome, why(decided)),
                reason=reason,
            )
        entry = self._entry(vlan)
        match = self._table.lookup(entry.id, IPv6Address(asked.target))
        rule = self._table.rules.get(match.rule) if isinstance(match, Match) else None
        answer, late = None, False
        if Outcome.ANSWERED_XDP in seen.counted:
            outcome, answer = Outcome.ANSWERED_XDP, seen.frame
        elif seen.counted:
            outcome = seen.counted[0]
        else:
            (event,) = events
            outcome = self._hand_up(event)
            if outcome is not Outcome.ABSENT:
                answer, late = self._bench.responder.answer(event).frame, outcome is Outcome.PENDING
        return Replayed(
            frame.number,
            at,
            asked.eth_source,
            vlan,
            str(IPv6Address(asked.source)),
            str(IPv6Address(asked.target)),
            outcome,
            self._why(frame.data, entry, match, outcome),
            rule=rule,
            answer=answer,
            late=late,
        )

    def _entry(self, vlan: tuple[int, ...]) -> Entry:
        entry = self._table.entry_of(self._ifindex, vlan)
        assert entry is not None, "a port's frames all have an entry"
        return entry

    def _why(self, frame: bytes, entry: Entry, match: Match | Outcome, outcome: Outcome) -> str:
        """Why a valid solicitation has its outcome."""
        asked = Asked.of(frame)
        is_others = asked.eth_destination == cooked.OTHER_HOST
        if outcome is Outcome.IGNORED and is_others and not {asked.eth_source, cooked.OTHER_HOST} & entry.macs:
            return f"it went to another station, not to {entry.port}"
        rule = self._table.rules.get(match.rule) if isinstance(match, Match) else None
        decided = Decided(
            outcome,
            asked,
            EntryFacts.of(entry),
            None if rule is None else RuleFacts.of(rule),
            match.decision if isinstance(match, Match) else None,
            is_held=IPv6Address(asked.target or UNSPECIFIED) in self._held,
            would=True,
        )
        return why(decided)

    def _hand_up(self, event: NsEvent) -> Outcome:
        """What Python makes of an event (daemon/resolution.py, daemon/routing.py, daemon/proxy_entries.py)."""
        rule = self._table.rules[event.rule]
        if event.flags & EventFlag.MISS and rule.method is Method.ROUTE:
            there = self._questions.is_behind(question_of(event, rule, self._table, self._flags))
            return Outcome.ANSWERED_PYTHON if there else Outcome.ABSENT
        if event.flags & EventFlag.MISS and rule.method is Method.NEIGHBOUR:
            if self._is_here and not self._table.vias.get(rule.via_set):
                return Outcome.ABSENT
            return Outcome.PENDING
        if (
            event.flags & EventFlag.MISS
            and rule.method is Method.KERNEL
            and self._proxied < self._limits.kernel_entries
        ):
            self._proxied += 1
            self._bench.ns_filter.set_present(rule.via_set, event.target, PresentFlag(0))
        return Outcome.ANSWERED_PYTHON


def _notes(interface: str, mac: bytes | None) -> list[str]:
    notes = [
        f"{interface} is not on this machine: its own addresses and next hops are unknown; routes and neighbours are"
        " those of this machine"
    ]
    if mac is None:
        notes.append(f"{interface}'s MAC address is unknown: unicast solicitations are ignored; see --mac")
    return notes


def _addresses(frame: bytes) -> tuple[str | None, str | None]:
    """Source and target of an invalid solicitation, as far as scapy makes them out."""
    conf.debug_dissector = False
    packet = Ether(frame)
    source = packet[IPv6].src if IPv6 in packet else None
    return source, packet[ICMPv6ND_NS].tgt if ICMPv6ND_NS in packet else None
