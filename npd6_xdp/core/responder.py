# SPDX-License-Identifier: GPL-2.0-or-later
"""What Python answers to a solicitation that XDP handed up: the very bytes that XDP would have written."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core.event import UNSPECIFIED, EventFlag, NsEvent, fields_of_record, fields_of_run
from npd6_xdp.core.frames import STRIDE, Frames, Shape
from npd6_xdp.core.icmpv6 import ALL_NODES, ALL_NODES_MAC, AdvertisementTemplate, Plain
from npd6_xdp.core.links import choose_source
from npd6_xdp.core.table import RuleFlag, Table

_NOT_PLAIN = EventFlag.MISS | EventFlag.STALE | EventFlag.ANSWERED | EventFlag.HEARD
_TYPE_AND_CODE = 0x8800  # type 136, code 0
_MOST_TEMPLATES = 4096  # E1 of docs/rules.md
"""One for each rule and tags in use; the tags are the asker's choice, so their number has to be bounded."""


class Answer(NamedTuple):
    """An advertisement to be sent: the whole Ethernet frame, and the port that it leaves by."""

    ifindex: int
    frame: bytes


class Responder:
    """Answers events by a table. A new table makes a new responder.

    An event with a rule has a target that is present and, if it is a DAD probe, one that is to be defended: the XDP
    program has decided both, and hands up only what is to be answered.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._template = lru_cache(_MOST_TEMPLATES)(self._make_template)
        self._interface_source = lru_cache(_MOST_TEMPLATES)(self._choose_source)
        self._plain = lru_cache(_MOST_TEMPLATES)(self._make_plain)

    def answer(self, event: NsEvent) -> Answer:
        """The advertisement for one event (RFC 4861 §7.2.4, §7.2.8; docs/rules.md, B1 to B10)."""
        rule = self._table.rules[event.rule]
        entry = self._table.entries[rule.entry]
        template = self._template(event.rule, event.vlan_tags())
        dad = event.is_dad
        destination = ALL_NODES if dad else event.source
        source = event.target
        if rule.flags & RuleFlag.SOURCE_INTERFACE:
            source = self._interface_source(rule.entry, destination) or event.target
        eth_destination = ALL_NODES_MAC if dad else event.answer_mac
        return Answer(
            entry.ifindex,
            template.fill(eth_destination, source, destination, event.target, solicited=not dad),
        )

    def announcement(self, event: NsEvent) -> Answer:
        """The unsolicited advertisement for the target of an event that nobody has sent: its rule and tags count."""
        rule = self._table.rules[event.rule]
        source = event.target
        if rule.flags & RuleFlag.SOURCE_INTERFACE:
            source = self._interface_source(rule.entry, ALL_NODES) or event.target
        frame = self._template(event.rule, event.vlan_tags()).unsolicited(source, event.target)
        return Answer(self._table.entries[rule.entry].ifindex, frame)

    def answer_one(self, record: bytes) -> tuple[Shape, bytes, int] | None:
        """The answer to a plain event (see answer_run()) that came alone, and when it was seen; None to any other.

        The bytes are those of the others. Nobody else's answer waits for what this one leaves for later, so it has few
        steps: the way from a wake-up to the answer goes by code that isn't in the processor's caches, mostly.
        """
        target, source, time_us, rule, answer_mac, tci, event_flags = fields_of_record(record)
        shape, (pack, _, before_source, checksum, flags, option) = self._plain(rule, tci, event_flags)
        if shape is None or source == UNSPECIFIED:
            return None
        field = (checksum - int.from_bytes(source) - 2 * int.from_bytes(target)) % 65535
        frame = pack(answer_mac, before_source, target, source, _TYPE_AND_CODE, field, flags, target, option)
        return shape, frame, time_us

    def answer_run(self, run: bytes, frames: Frames) -> list[NsEvent]:
        """Write the answers to a run's plain events into `frames`, which has space for them; the others come back.

        Plain is what nothing else is to be done for, and what answer() would answer from the target with the
        Solicited flag set: its bytes are the same. This loop is what a flood costs: 0.3 us an event here, where
        answer() takes 1.7. What earns that: plain tuples; one struct call that writes a whole frame where it is
        sent from; and nothing looked up as long as rule and tags are the last one's.
        """
        others: list[NsEvent] = []
        shapes, times, buffer = frames.shapes, frames.times, frames.buffer
        offset = len(shapes) * STRIDE
        last_rule = last_tci = last_flags = None
        integer = int.from_bytes
        shape = None
        for target, source, time_us, rule, answer_mac, tci, event_flags in fields_of_run(run):
            if rule != last_rule or event_flags != last_flags or tci != last_tci:
                last_rule, last_tci, last_flags = rule, tci, event_flags
                shape, parts = self._plain(rule, tci, event_flags)
                _, pack_into, before_source, checksum, flags, option = parts
            if shape is None or source == UNSPECIFIED:
                others.append(NsEvent(target, source, time_us, rule, answer_mac, tci, event_flags))
                continue
            field = (checksum - integer(source) - 2 * integer(target)) % 65535
            pack_into(
                buffer,
                offset,
                answer_mac,
                before_source,
                target,
                source,
                _TYPE_AND_CODE,
                field,
                flags,
                target,
                option,
            )
            shapes.append(shape)
            times.append(time_us)
            offset += STRIDE
        return others

    def discard(self) -> None:
        """Let go of the table. The caches and this object refer to each other, so without this it would wait for the
        garbage collector.
        """
        self.__dict__.clear()

    def _make_template(self, rule_id: int, tags: bytes) -> AdvertisementTemplate:
        rule = self._table.rules[rule_id]
        mac = self._table.entries[rule.entry].mac
        return AdvertisementTemplate(mac, tags, router=bool(rule.flags & RuleFlag.ROUTER))  # B4

    def _make_plain(self, rule_id: int, tci: bytes, flags: int) -> tuple[Shape | None, Plain]:
        """How the plain events with this rule and these tags are answered; no Shape where none are plain."""
        rule = self._table.rules.get(rule_id)
        if rule is None or flags & _NOT_PLAIN or rule.flags & RuleFlag.SOURCE_INTERFACE:
            return None, _NOTHING
        if self._table.on_standby(rule.entry):  # the program has matched it by the table before
            return None, _NOTHING
        template = self._template(rule_id, NsEvent(UNSPECIFIED, UNSPECIFIED, 0, 0, b"", tci, flags).vlan_tags())
        plain = template.plain
        size = len(template.fill(bytes(6), UNSPECIFIED, UNSPECIFIED, UNSPECIFIED, solicited=True))
        traced = bool(flags & EventFlag.TRACED)
        return Shape(rule_id, self._table.entries[rule.entry].ifindex, size, traced), plain

    def _choose_source(self, entry: int, destination: bytes) -> bytes | None:
        """The interface's own address; None if it has none: then the target is the source."""
        chosen = choose_source(self._table.entries[entry].addresses, IPv6Address(destination))
        return None if chosen is None else chosen.packed


_NOTHING = AdvertisementTemplate(bytes(6), b"", router=False).plain
