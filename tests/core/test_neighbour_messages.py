# SPDX-License-Identifier: GPL-2.0-or-later
"""Neighbours, proxy entries and the size of their table, as pyroute2 writes them and the kernel tells of them."""

from __future__ import annotations

import socket
import struct

import pytest
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.ndtmsg import ndtmsg

from npd6_xdp.core.neighbour_messages import (
    PRESENT,
    NeighbourEntry,
    NeighbourState,
    parse_neighbour,
    parse_neighbour_hash,
    parse_neighbour_table,
)
from npd6_xdp.core.rtnetlink import AF_INET6, PROTOCOL
from tests.core.pyroute2_words import ADDRESS, NTF_PROXY, TEXT, encoded


@pytest.mark.parametrize("state", NeighbourState)
def test_we_read_the_neighbours_that_pyroute2_writes(state: NeighbourState) -> None:
    attributes = [("NDA_DST", TEXT), ("NDA_LLADDR", "02:00:00:00:00:07"), ("NDA_PROBES", 4)]
    body = encoded(ndmsg, {"ifindex": 3, "state": int(state), "flags": 0}, attributes)
    assert parse_neighbour(body) == NeighbourEntry(3, ADDRESS, state, False, 0, bytes.fromhex("020000000007"))


def test_we_read_proxy_entries_and_whose_they_are() -> None:
    for protocol in (0, 2, PROTOCOL, 255):
        body = encoded(ndmsg, {"ifindex": 3, "flags": NTF_PROXY}, [("NDA_DST", TEXT), ("NDA_PROTOCOL", protocol)])
        assert parse_neighbour(body) == NeighbourEntry(3, ADDRESS, 0, True, protocol)


def test_a_neighbour_of_another_family_or_without_an_address_is_none() -> None:
    assert parse_neighbour(encoded(ndmsg, {"ifindex": 3}, [])) is None
    ipv4 = encoded(ndmsg, {"family": socket.AF_INET, "ifindex": 3}, [("NDA_DST", "192.0.2.1")])
    assert parse_neighbour(ipv4) is None
    bridge = encoded(ndmsg, {"family": socket.AF_BRIDGE, "ifindex": 3}, [("NDA_LLADDR", "02:00:00:00:00:07")])
    assert parse_neighbour(bridge) is None


def test_the_states_that_count_as_present_are_those_with_an_address_that_no_probe_has_refuted() -> None:
    states = NeighbourState
    assert {state for state in states if state & PRESENT} == {
        states.REACHABLE,
        states.STALE,
        states.DELAY,
        states.PROBE,
        states.PERMANENT,
    }


def test_we_read_the_size_of_the_neighbour_table_that_the_kernel_tells() -> None:
    limits = [("NDTA_NAME", "ndisc_cache"), *((f"NDTA_THRESH{n}", 128 * n) for n in (1, 2, 3))]
    config = struct.pack("=HHI", 16, 320, 77) + bytes(24)
    attribute = struct.pack("=HH", 4 + len(config), 5) + config
    whole = encoded(ndtmsg, {}, limits) + attribute
    assert parse_neighbour_table(whole) == (77, (128, 256, 384))
    assert parse_neighbour_table(encoded(ndtmsg, {}, [])) is None, "an interface's parameters"
    assert parse_neighbour_table(encoded(ndtmsg, {"family": socket.AF_INET}, limits) + attribute) is None


def test_we_read_the_hash_of_the_neighbour_table_that_the_kernel_tells() -> None:
    config = struct.pack("=HHIIIIIII", 16, 320, 77, 1, 2, 4070953779, 0xFF, 0, 0)  # struct ndt_config
    attribute = struct.pack("=HH", 4 + len(config), 5) + config
    assert parse_neighbour_hash(encoded(ndtmsg, {}, []) + attribute) == (4070953779, 0xFF)
    assert parse_neighbour_hash(encoded(ndtmsg, {}, [])) is None, "an interface's parameters"
    assert parse_neighbour_hash(encoded(ndtmsg, {"family": socket.AF_INET}, []) + attribute) is None


def test_an_empty_protocol_attribute_is_as_none() -> None:
    body = struct.pack("=BxxxiHBB", AF_INET6, 1, 2, 0, 0) + struct.pack("=HH", 20, 1) + bytes(16)
    entry = parse_neighbour(body + struct.pack("=HH", 4, 12))
    assert entry is not None
    assert entry.protocol == 0
