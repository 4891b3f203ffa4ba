# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts of thousands of links are made in bits, and are those of one moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv6Address

import pytest

from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.links import OwnAddress
from npd6_xdp.system.netlink.links import Netlink
from tests.core.test_steps import timed

PORTS = 1_000
BRIDGE = 1
HELD = OwnAddress(IPv6Address("2001:db8::2"))


def none(_: int) -> frozenset[IPv6Address]:
    return frozenset()


@pytest.fixture
def netlink() -> Iterator[Netlink]:
    """Which knows of a bridge with all ports that Linux lets it have: what is known of each depends on it."""
    with closing(Netlink()) as netlink:
        bridge = LinkEntry(BRIDGE, "br0", bytes((2, 0, 0, 0, 0, 1)), True, "bridge", 0, 0, 0)
        ports = range(2, PORTS + 2)
        netlink._links = {BRIDGE: bridge} | {
            n: bridge._replace(ifindex=n, name=f"p{n}", kind="", master=1) for n in ports
        }
        netlink._addresses = {BRIDGE: {HELD.address: HELD}}
        yield netlink


def test_they_are_made_in_bits_and_a_change_meanwhile_is_in_none_of_them(netlink: Netlink) -> None:
    """With 4,000 of them it was a turn of 57 ms, at each change of any."""
    before = netlink.facts(none)
    assert len(before) == PORTS + 1
    assert {link.bridge for name, link in before.items() if name != "br0"} == {"br0"}
    steps = netlink.finding_facts(none)
    next(steps)
    netlink.on_change()
    other = netlink._links[BRIDGE]._replace(name="br9", mac=bytes((2, 0, 0, 0, 0, 9)))
    netlink._links = {n: link for n, link in netlink._links.items() if n != 2} | {BRIDGE: other}
    netlink._addresses = {}
    _, (*bits, now) = timed(steps)
    assert len(bits) >= 5
    assert now == before
    assert all(now[name] is link for name, link in before.items()), "who compares has less to do"
    after = netlink.facts(none)
    assert "p2" not in after
    assert after["p3"].bridge_macs == {(): other.mac}
    assert after["p3"].own(()) == ()


def test_facts_that_nobody_takes_to_their_end_change_nothing(netlink: Netlink) -> None:
    before = netlink.facts(none)
    steps = netlink.finding_facts(none)
    next(steps)
    steps.close()
    now = netlink.facts(none)
    assert all(now[name] is link for name, link in before.items())
