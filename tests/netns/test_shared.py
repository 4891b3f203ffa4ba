# SPDX-License-Identifier: GPL-2.0-or-later
"""A port with others behind it, on the wire: a bridge's port beside a virtual machine, a parent of macvlan devices."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_MAC, HOST_ADDRESS, Topology
from tests.frames import ether
from tests.netns.wire import LATE, Wire, configuration, on_edge, question, until

Start = Callable[..., RunningDaemon]

BRIDGE_MAC, GUEST_MAC = "02:00:00:00:00:b0", "02:00:00:00:00:50"
GUEST = "2001:db8:1::50"  # of the same /64 as the host behind lan0
NOBODY = "2001:db8:1::dead"
RULES = configuration("2001:db8:1::/64 neighbour via=lan0")
each_way = pytest.mark.parametrize("attach", ["generic", "tc"])
"""As XDP, and by tc, which `auto` is on veth; each comes before the bridge."""


def with_bridge(topology: Topology) -> None:
    """wan0 is a port of br0, and so is a virtual machine's tap0, whose other end is in the host's namespace."""
    host = topology.name("host")
    on_edge(
        topology,
        f"link add br0 address {BRIDGE_MAC} type bridge mcast_snooping 0",
        f"link add tap0 type veth peer name guest0 address {GUEST_MAC} netns {host}",
        "address del 2001:db8::2/64 dev wan0",
        "link set wan0 master br0",
        "link set tap0 master br0",
        "link set tap0 up",
        "link set br0 up",
        "address add 2001:db8::2/64 dev br0 nodad",
    )
    guest_up(topology)


def with_macvlan(topology: Topology) -> None:
    """A container's macvlan device is on wan0; its other end, as it were, is the container's namespace."""
    host = topology.name("host")
    on_edge(topology, f"link add link wan0 name guest0 address {GUEST_MAC} netns {host} type macvlan mode bridge")
    guest_up(topology)
    assert until(lambda: topology.ip("host", "link", "show", "dev", "guest0")[0]["operstate"] == "UP", 5.0)
    assert until(lambda: is_told(topology), 5.0), "its groups are there"


def guest_up(topology: Topology) -> None:
    for line in ("link set guest0 up", f"address add {GUEST}/64 dev guest0 nodad"):
        topology.run("host", "ip", *line.split(), check=True)


def answer(wire: Wire, target: str, seconds: float = LATE) -> NeighborAdvertisement | None:
    found = wire.ask(question(target), seconds)
    return None if found is None else NeighborAdvertisement.parse(found)


@each_way
def test_a_virtual_machine_behind_the_same_bridge_is_found_and_so_is_a_host_behind_us(
    topology: Topology, daemon: Start, attach: str
) -> None:
    with_bridge(topology)
    running = daemon(configuration("2001:db8:1::/64 neighbour via=lan0", attach=f'"{attach}"'))
    assert topology.attach_mode("edge", "wan0") == attach
    with Wire(topology) as wire:
        assert until(lambda: answer(wire, GUEST, 0.3) is not None), "the bridge forwards by now"
        guest = answer(wire, GUEST)
        assert guest is not None
        assert (guest.eth_source, guest.override) == (ether(GUEST_MAC), True)
        host = answer(wire, HOST_ADDRESS)
        assert host is not None, "it was resolved, and answered late"
        assert (host.eth_source, host.link_layer_address, host.override) == (ether(BRIDGE_MAC),) * 2 + (False,)
        for mac in (BRIDGE_MAC, EDGE_WAN_MAC):  # probes of what it was told, and of what it may have been told before
            again = wire.ask(ether(mac) + question(HOST_ADDRESS)[6:], LATE)
            assert again is not None
            assert NeighborAdvertisement.parse(again).link_layer_address == ether(BRIDGE_MAC)
        assert answer(wire, NOBODY, 0.3) is None
    assert running.solicitations()["pending"] >= 3
    ping = topology.run("upstream", "ping", "-6", "-n", "-c", "1", "-W", "3", HOST_ADDRESS)
    assert ping.returncode == 0, ping.stdout


@each_way
def test_a_container_with_a_macvlan_device_on_the_port_is_found_though_its_namespace_is_another(
    topology: Topology, daemon: Start, attach: str
) -> None:
    with_macvlan(topology)
    daemon(configuration("2001:db8:1::/64 neighbour via=lan0", attach=f'"{attach}"'))
    assert topology.attach_mode("edge", "wan0") == attach
    with Wire(topology) as wire:
        guest = answer(wire, GUEST)  # the very first question
        assert guest is not None
        assert (guest.eth_source, guest.override) == (ether(GUEST_MAC), True)
        host = answer(wire, HOST_ADDRESS)
        assert host is not None
        assert (host.link_layer_address, host.override) == (ether(EDGE_WAN_MAC), False)


def test_a_container_that_starts_beside_us_loses_not_even_its_first_question(topology: Topology, daemon: Start) -> None:
    """The kernel says of the port what it has said before when a device is made on it, and of its groups nothing."""
    running = daemon(RULES)
    began = time.monotonic()
    with_macvlan(topology)
    # each look comes after twice as long as the one before, and a busy machine has some time beside
    time.sleep(time.monotonic() - began + 2.0)
    with Wire(topology) as wire:
        assert answer(wire, GUEST) is not None, running.solicitations()


def is_told(topology: Topology) -> bool:
    """Whether the edge's kernel says that wan0 listens to the guest's group."""
    return "3333ff000050" in topology.run("edge", "cat", "/proc/net/dev_mcast").stdout


def test_a_container_that_starts_right_after_a_look_is_found_at_the_next_question(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(RULES)
    with Wire(topology) as wire:
        assert answer(wire, NOBODY, 0.3) is None, "which had us look"
        with_macvlan(topology)
        began = time.monotonic()
        assert until(lambda: answer(wire, GUEST, 0.3) is not None), running.log
    assert time.monotonic() - began < 10, "such a device takes a moment to come up"


def test_a_port_that_joins_a_bridge_and_leaves_it_again_speaks_by_the_mac_address_of_the_moment(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(configuration())
    on_edge(topology, f"link add br0 address {BRIDGE_MAC} type bridge mcast_snooping 0", "link set br0 up")

    def spoken() -> bytes | None:
        with Wire(topology) as wire:
            found = answer(wire, "2001:db8:1::77", 0.3)
            return found.link_layer_address if found else None

    assert spoken() == ether(EDGE_WAN_MAC)
    on_edge(topology, "link set wan0 master br0")
    assert until(lambda: spoken() == ether(BRIDGE_MAC))
    on_edge(topology, "link set wan0 nomaster")
    assert until(lambda: spoken() == ether(EDGE_WAN_MAC)), running.log


def test_an_address_on_a_macvlan_device_of_ours_is_answered_by_the_kernel_from_that_devices_mac(
    topology: Topology, daemon: Start
) -> None:
    on_edge(
        topology,
        f"link add link wan0 name vrrp0 address {GUEST_MAC} type macvlan mode bridge",
        "link set vrrp0 up",
        f"address add {GUEST}/128 dev vrrp0 nodad",
    )
    running = daemon(configuration("2001:db8:1::/64 route"))
    with Wire(topology) as wire:
        said = wire.ask_kernel(question(GUEST))
    assert said is not None
    found = NeighborAdvertisement.parse(said)
    assert (found.link_layer_address, found.override) == (ether(GUEST_MAC), True)
    assert until(lambda: running.solicitations().get("own", 0) >= 1)
