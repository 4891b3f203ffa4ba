# SPDX-License-Identifier: GPL-2.0-or-later
"""What Python answers to a solicitation that XDP handed up: the very bytes that XDP would have written."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.icmpv6 import ALL_NODES, ALL_NODES_MAC, AdvertisementTemplate
from npd6_xdp.core.links import choose_source
from npd6_xdp.core.rules import Rule, RuleFlag, Table


class Answer(NamedTuple):
    """An advertisement to be sent: the whole Ethernet frame, and the port that it leaves by."""

    ifindex: int
    frame: bytes


class Responder:
    """Answers events by a table. A new table makes a new responder.

    An event's rule says that its target is present and, for a DAD probe, that it is to be defended: the XDP
    program has decided both, and keeps to itself what isn't answered.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        # One template for each rule and tags in use; the tags are the asker's choice, so the number is bounded.
        self._template = lru_cache(maxsize=4096)(self._make_template)
        self._interface_source = lru_cache(maxsize=4096)(self._choose_source)

    def answer(self, event: NsEvent) -> Answer:
        """The advertisement for one event (RFC 4861 §7.2.4, §7.2.8; RFC.md B1 to B10)."""
        rule = self._table.rules[event.rule]
        entry = self._table.entries[rule.entry]
        template = self._template(event.rule, event.vlan_tags())
        dad = event.is_dad
        destination = ALL_NODES if dad else event.source
        source = event.target
        if rule.flags & RuleFlag.SOURCE_INTERFACE:
            source = self._interface_source(rule.entry, destination) or event.target
        eth_destination = ALL_NODES_MAC if dad else event.eth_destination
        return Answer(
            entry.ifindex,
            template.fill(eth_destination, source, destination, event.target, solicited=not dad),
        )

    def rule(self, event: NsEvent) -> Rule:
        """The rule that covers an event's target."""
        return self._table.rules[event.rule]

    def _make_template(self, rule_id: int, tags: bytes) -> AdvertisementTemplate:
        rule = self._table.rules[rule_id]
        mac = self._table.entries[rule.entry].mac
        return AdvertisementTemplate(mac, tags, router=bool(rule.flags & RuleFlag.ROUTER))

    def _choose_source(self, entry: int, destination: bytes) -> bytes | None:
        """The interface's own address, None if it has none: then the target stands in, as nothing else can."""
        chosen = choose_source(self._table.entries[entry].addresses, IPv6Address(destination))
        return None if chosen is None else chosen.packed
