# SPDX-License-Identifier: GPL-2.0-or-later
"""What ethtool tells of a real interface: its settings are others whenever somebody changes one, and else the same."""

from __future__ import annotations

import socket

import pytest

from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.ethtool import settings

PORT = "card0"
CHANGES = (
    f"ip link set {PORT} mtu 1400",
    f"ethtool -K {PORT} gro on",
    f"ethtool -K {PORT} tso off",
    f"ethtool -L {PORT} rx 1 tx 1",
)


def found(topology: Topology, ifindex: int) -> tuple[bytes, ...]:
    with topology.inside("edge"):
        return settings(ifindex)


@pytest.fixture
def card(topology: Topology) -> int:
    """The index of a veth with two queues each way."""
    add = f"link add {PORT} numrxqueues 2 numtxqueues 2 type veth peer name card1 numrxqueues 2 numtxqueues 2"
    for words in (add, f"link set {PORT} up", "link set card1 up"):
        topology.run("edge", "ip", *words.split(), check=True)
    with topology.inside("edge"):
        return socket.if_nametoindex(PORT)


def test_each_change_shows_and_what_changes_nothing_that_matters_does_not(topology: Topology, card: int) -> None:
    seen = [found(topology, card)]
    assert all(seen[0][:3]), "the MTU, the features, the channels"
    for line in CHANGES:
        topology.run("edge", *line.split(), check=True)
        seen.append(found(topology, card))
    assert len({*seen}) == 1 + len(CHANGES)
    for words in (
        "link set card0 txqueuelen 500",
        "link set card0 alias other",
        "address add 2001:db8:7::1/64 dev card0",
    ):
        topology.run("edge", "ip", *words.split(), check=True)
        assert found(topology, card) == seen[-1]
    topology.run("edge", "ip", "link", "set", PORT, "down", check=True)
    topology.run("edge", "ip", "link", "set", PORT, "name", "other0", check=True)
    assert found(topology, card) == seen[-1], "by its index, whatever it is called"


def test_of_an_interface_that_has_gone_there_is_nothing(topology: Topology, card: int) -> None:
    topology.run("edge", "ip", "link", "del", PORT, check=True)
    assert found(topology, card) == ()
