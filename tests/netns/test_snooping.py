# SPDX-License-Identifier: GPL-2.0-or-later
"""A switch with MLD snooping between the upstream and us: what of its solicitations gets through (RFC 4861 §7.2.8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.frames import ether, ip6
from tests.kinds import solicit
from tests.netns.wire import LATE, SETTING, Wire, configuration, until

Start = Callable[..., RunningDaemon]

NAMED = "2001:db8:1::12:3456"  # a rule of its own
RANGED = "2001:db8:1::34:5601"
COVERED = "2001:db8:1::56:7890"  # by the /64 only
# not eth0's MAC address, which is the bridge's own, too
ASKER = replace(SETTING, asker_mac=ether("02:00:00:00:00:77"), asker_link_local=ip6("fe80::77"))


def switch(topology: Topology) -> None:
    """A bridge in the upstream's namespace, with a querier on it: eth0 leads to the edge, asker0 to who asks."""
    pace = "mcast_query_response_interval 100 mcast_startup_query_interval 100"  # hundredths of a second
    for line in (
        "link add asker0 type veth peer name port0",
        f"link add br0 type bridge mcast_snooping 1 {pace}",
        "link set port0 master br0",
        "link set eth0 master br0",
        "link set asker0 up",
        "link set port0 up",
    ):
        topology.run("upstream", "ip", *line.split(), check=True)
    # MLD queries come from the bridge's link-local address, and there are none before it has one
    topology.sysctl("upstream", "net/ipv6/conf/br0/accept_dad", 0)
    for line in ("link set br0 up", "link set br0 type bridge mcast_querier 1"):
        topology.run("upstream", "ip", *line.split(), check=True)


def test_a_snooping_switch_passes_what_is_asked_of_single_addresses_and_of_a_prefix_only_to_a_router_port(
    topology: Topology, daemon: Start
) -> None:
    switch(topology)
    running = daemon(configuration(f"{NAMED} static", f"{RANGED}-2001:db8:1::34:560f static", "2001:db8:1::/64 static"))

    with Wire(topology, interface="asker0") as wire:

        def answered(target: str, seconds: float = 0.1) -> bool:
            return wire.ask(solicit(replace(ASKER, target=ip6(target))), seconds) is not None

        assert until(lambda: not answered(COVERED), 5.0), "from the first query on, the switch snoops"
        assert until(lambda: answered(NAMED), 2.0)
        assert answered(RANGED, LATE)
        before = running.solicitations()["answered_xdp"]
        assert not any(answered(COVERED) for _ in range(3))
        assert running.solicitations()["answered_xdp"] == before, "they never arrived"
        topology.run("upstream", "bridge", "link", "set", "dev", "eth0", "mcast_router", "2", check=True)
        assert answered(COVERED, LATE), "a router's port gets all groups"
        assert answered(NAMED, LATE)
        topology.run("upstream", "bridge", "link", "set", "dev", "eth0", "mcast_router", "1", check=True)
        assert not answered(COVERED)
        topology.run("upstream", "ip", "link", "set", "br0", "type", "bridge", "mcast_snooping", "0", check=True)
        assert answered(COVERED, LATE)
