# SPDX-License-Identifier: GPL-2.0-or-later
"""The bench with the XDP program on it, and small tables to put there."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Any

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, InterfaceConfig, Limits, RuleConfig, Vlan
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.steps import finish
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Method
from npd6_xdp.system.bpf.load import load
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.bpf.program import Program
from npd6_xdp.system.bpf.testrun import LOOPBACK
from npd6_xdp.system.bpf.testrun import XDP_ABORTED as XDP_ABORTED
from npd6_xdp.system.bpf.testrun import XDP_DROP as XDP_DROP
from npd6_xdp.system.bpf.testrun import XDP_PASS as XDP_PASS
from npd6_xdp.system.bpf.testrun import XDP_TX as XDP_TX
from npd6_xdp.tools.bench import UNLIMITED as UNLIMITED
from npd6_xdp.tools.bench import Seen as Seen
from tests.frames import SETTING
from tests.hooks import Bench as Bench
from tests.hooks import Hook as Hook

PORT = "port0"
IFINDEX = LOOPBACK  # where a bench's frames come in


def rule(prefix: str, method: Method = Method.STATIC) -> RuleConfig:
    return RuleConfig(prefix, (Prefix.of(prefix),), method)


def entry(*rules: RuleConfig, vlan: Vlan = Vlan(), **keys: Any) -> InterfaceConfig:  # noqa: B008 (frozen)
    keys = {"events_per_source": 0, **keys}
    return InterfaceConfig(PORT, rules or (rule("2001:db8::/32"),), vlan=vlan, **keys)


def link(own: Iterable[str] = (), next_hops: Iterable[str] = (), mac: bytes = SETTING.mac) -> LinkFacts:
    return LinkFacts(
        PORT,
        IFINDEX,
        mac,
        addresses={(): tuple(OwnAddress(IPv6Address(address), 128) for address in own)},
        next_hops={(): frozenset(IPv6Address(hop) for hop in next_hops)},
    )


def table(*entries: InterfaceConfig, facts: LinkFacts | None = None) -> Table:
    facts = facts or link()
    return build(Config(entries), {PORT: facts})


def successor(ns_filter: NsFilter, table: Table, limits: Limits = Limits()) -> Program:  # noqa: B008 (frozen)
    """A program that is ready to take over with a table."""
    sizes = ns_filter.sizes(table, limits)
    program = ns_filter.add_successor(load(sizes), sizes)
    finish(ns_filter.filling(program, table))
    return program


def taken_over(ns_filter: NsFilter, table: Table, limits: Limits = Limits()) -> None:  # noqa: B008 (frozen)
    """Let another program take over with a table."""
    ns_filter.switch(successor(ns_filter, table, limits), table)
