# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces that are made anew under their index while the loop stands: whatever role they play, all is as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import (
    EDGE_LAN_ADDRESS,
    EDGE_LAN_MAC,
    EDGE_WAN_ADDRESS,
    EDGE_WAN_MAC,
    HOST_ADDRESS,
    UPSTREAM_ADDRESS,
    Topology,
)
from tests.netns.test_host_routes import kernels
from tests.netns.test_taken_away import GROUP
from tests.netns.wire import Asker, Wire, configuration, on_edge, standing_still, until

Start = Callable[..., RunningDaemon]

SOON = 15.0
WAN, BRIDGE, LAN = 777, 778, 779  # indexes that no namespace has
UP = ("npd6_interface_up", frozenset({("interface", "wan0")}))


def make(topology: Topology, name: str, index: int, mac: str, namespace: str, peer_address: str) -> None:
    """A cable anew: its end on the edge, with that index, and eth0 of the other namespace."""
    peer = f"peer name eth0 netns {topology.name(namespace)}"  # type: ignore[arg-type]
    on_edge(topology, f"link del {name}", f"link add {name} index {index} address {mac} type veth {peer}")
    for words in ("link set eth0 up", f"address add {peer_address}/64 dev eth0 nodad"):
        topology.run(namespace, "ip", *words.split(), check=True)  # type: ignore[arg-type]
    on_edge(topology, f"link set {name} up")


def make_wan(topology: Topology) -> None:
    make(topology, "wan0", WAN, EDGE_WAN_MAC, "upstream", UPSTREAM_ADDRESS)


def make_lan(topology: Topology) -> None:
    make(topology, "lan0", LAN, EDGE_LAN_MAC, "host", HOST_ADDRESS)
    on_edge(topology, f"address add {EDGE_LAN_ADDRESS}/64 dev lan0 nodad")


def make_bridge(topology: Topology) -> None:
    on_edge(
        topology,
        f"link add br0 index {BRIDGE} address {EDGE_WAN_MAC} type bridge",
        "link set br0 up",
        "link set wan0 master br0",
        f"address add {EDGE_WAN_ADDRESS}/64 dev br0 nodad",
    )


def groups(topology: Topology, interface: str) -> set[str]:
    found = topology.ip("edge", "-6", "maddress", "show", "dev", interface)
    return {group["address"] for each in found for group in each["maddr"] if "address" in group}


@pytest.mark.parametrize("anew", ["the port", "the bridge", "both"])
def test_a_port_of_a_bridge_answers_again_and_its_groups_are_joined_on_the_bridge(
    topology: Topology, daemon: Start, anew: str
) -> None:
    """(On 0665297 none was answered on a port made anew, and no group joined again on a bridge that was.)"""
    on_edge(topology, f"address flush dev wan0 to {EDGE_WAN_ADDRESS}")
    make_wan(topology)
    make_bridge(topology)
    running = daemon(configuration("2001:db8:1::/64 static", "2001:db8:7::42 static"))
    assert until(lambda: GROUP in groups(topology, "br0"))
    with standing_still(running):
        if anew != "the port":
            on_edge(topology, "link del br0")
        if anew != "the bridge":
            make_wan(topology)
        if anew == "the port":
            on_edge(topology, "link set wan0 master br0")
        else:
            make_bridge(topology)
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert until(lambda: asker.answered(HOST_ADDRESS), SOON)
        assert until(lambda: asker.outcome(EDGE_WAN_ADDRESS) == "own", SOON)
    assert until(lambda: GROUP in groups(topology, "br0"), SOON)
    (link,) = topology.ip("edge", "link", "show", "dev", "wan0")
    assert link["allmulti"] >= 1
    assert until(lambda: running.metrics()[UP] == 1)
    running.stop()
    assert GROUP not in groups(topology, "br0")


def test_hosts_behind_a_via_interface_are_found_again_and_have_their_routes(topology: Topology, daemon: Start) -> None:
    """(On 0665297 it held already.)"""
    make_lan(topology)
    on_edge(topology, f"neigh replace {HOST_ADDRESS} lladdr 02:00:00:00:00:42 nud permanent dev lan0")
    running = daemon(configuration("2001:db8:1::/64 neighbour via=lan0 host_routes=true"))
    assert until(lambda: kernels(topology) == [f"{HOST_ADDRESS} lan0"])
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.answered(HOST_ADDRESS)
        with standing_still(running):
            make_lan(topology)
        assert until(lambda: asker.outcome("2001:db8:1::77") == "pending", SOON)
        assert until(lambda: not asker.answered("2001:db8:1::77", 0.1))
        assert until(lambda: asker.answered(HOST_ADDRESS, 1.0), SOON)
    assert until(lambda: kernels(topology) == [f"{HOST_ADDRESS} lan0"], SOON)
    assert running.stop() == 0
    assert kernels(topology) == []
