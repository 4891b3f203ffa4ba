# SPDX-License-Identifier: GPL-2.0-or-later
"""What ethtool tells of a real interface: its settings are others whenever somebody changes one, and else the same;
its features are those that ethtool(8) shows.
"""

from __future__ import annotations

import socket

import pytest

from npd6_xdp.core.vlan_filter import Feature
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.ethtool import feature, settings, vlan_filter
from npd6_xdp.system.netlink.inspection import is_promiscuous

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


_STATES = {"on": Feature.ON, "on [fixed]": Feature.FIXED, "off": Feature.OFF, "off [fixed]": Feature.OFF}
_SAME = ("tx-gre", "tx-udp", "rx-vlan-f", "rx-vlan-s", "rx-gro", "vlan-challenged", "tx-nocache", "loopback", "highdma")


def shown(topology: Topology, name: str) -> dict[str, str]:
    """What ethtool(8) says of an interface's features."""
    lines = topology.run("edge", "ethtool", "-k", name, check=True).stdout.splitlines()[1:]
    return dict(line.strip().split(": ") for line in lines)


def test_features_are_those_that_ethtool_shows(topology: Topology, card: int) -> None:
    states = set()
    for switched in ("on", "off"):
        topology.run("edge", "ethtool", "-K", PORT, "tx-gre-segmentation", switched, "rxvlan", switched, check=True)
        for name in (PORT, "lo"):
            # ethtool(8) has names of its own for some, and sums of several
            its = {key: value for key, value in shown(topology, name).items() if key.startswith(_SAME)}
            assert len(its) > 8
            states |= {(key, value) for key, value in its.items() if name == PORT}
            states |= {("", value) for value in its.values()}
            with topology.inside("edge"):
                assert {key: feature(name, key.encode()) for key in its} == {k: _STATES[v] for k, v in its.items()}
                assert vlan_filter(name) is Feature.OFF, "neither has any"
    assert {value for _, value in states} == {*_STATES}, "else it shows nothing"
    assert {("tx-gre-segmentation", "on"), ("tx-gre-segmentation", "off")} <= states


def test_an_interface_is_promiscuous_for_a_user_and_for_a_bridge(topology: Topology, card: int) -> None:
    def now() -> bool:
        with topology.inside("edge"):
            return is_promiscuous(card)

    def ip(words: str) -> None:
        topology.run("edge", "ip", *words.split(), check=True)

    assert not now()
    ip(f"link set {PORT} promisc on")
    assert now()
    ip(f"link set {PORT} promisc off")
    assert not now()
    ip("link add br7 type bridge")
    ip(f"link set {PORT} master br7")
    assert now()
    ip(f"link del {PORT}")
    assert not now()
