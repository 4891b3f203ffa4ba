# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a host is: one that moves is followed, and another station's claim doesn't move it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from npd6_xdp.core.rtnetlink import PROTOCOL
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import (
    EDGE_LAN_ADDRESS,
    EDGE_LAN_MAC,
    EDGE_WAN_ADDRESS,
    HOST_ADDRESS,
    HOST_MAC,
    UPSTREAM_ADDRESS,
    UPSTREAM_MAC,
    Namespace,
    Topology,
)
from npd6_xdp.tools.control import ask
from tests.frames import ether, ip6
from tests.kinds import solicit
from tests.netns.moved import (
    GONE,
    INTERVAL,
    MOST_SILENT,
    SHARED,
    WAYS,
    Pings,
    Ports,
    ask_there,
    is_in_reach,
    move,
    move_under_pings,
    ping_from_there,
    routes,
    settle_down,
    sides,
    state,
    two_ports,
)
from tests.netns.sleeper import Sleeper
from tests.netns.wire import SETTING, Asker, Wire, configuration, on_edge, question, until

pytestmark = pytest.mark.needs_table

Start = Callable[..., RunningDaemon]

CHAIN = 6
"""How many processes, one after the other, a move waits for: the host's, the daemon's turns, who looks."""
BUSY = 1.0
"""Seconds in which a host is asked twice more, which a machine with other work may miss at first: at a load of 14 it
was 0.8 s late. An idle one is held to MOST_SILENT by `python -m tests.netns.moved`.
"""
KERNELS_NEXT = 1.0
"""Seconds to the kernel's next question (RetransTimer, RFC 4861 §10) for a host that it asks for already. That such a
host speaks there meanwhile, it tells nobody.
"""


def is_there(running: RunningDaemon, address: str) -> bool:
    return any(each["address"] == address for each in ask(running.control, {"verb": "status"})["neighbours"])


@pytest.fixture
def ports(topology: Topology) -> Iterator[Ports]:
    with two_ports(topology) as ports:
        yield ports


@pytest.mark.parametrize("name", WAYS)
def test_a_host_that_moves_and_moves_back_under_ping_is_out_of_reach_for_a_second_at_most(
    topology: Topology, ports: Ports, daemon: Start, name: str
) -> None:
    way = WAYS[name]
    daemon(way.configuration)
    settle_down(topology, way)
    with Sleeper() as sleeper:
        for new in ("lan1", "lan0"):
            moved = move_under_pings(topology, ports, way, new)
            late = sleeper.worst(moved.began, CHAIN)
            print(f"the machine was late by {late:.2f} s")
            assert max(moved.followed, moved.silent) <= MOST_SILENT + BUSY + late


def test_a_host_that_was_away_and_turns_up_behind_another_interface_is_reached_there(
    topology: Topology, ports: Ports, daemon: Start
) -> None:
    """Its route was kept where it was; a second after it has spoken, nothing leads there any more."""
    for name, value in (("base_reachable_time_ms", 1000), ("delay_first_probe_time", 1), ("ucast_solicit", 1)):
        topology.sysctl("edge", f"net/ipv6/neigh/lan0/{name}", value)
    running = daemon(configuration("2001:db8:1::/64 neighbour via=lan0,lan1 host_routes=true"))
    topology.run("host", "ip", "addr", "replace", f"{HOST_ADDRESS}/128", "dev", "eth0", "nodad", check=True)
    with Wire(topology) as wire:
        assert until(lambda: wire.ask(question(HOST_ADDRESS)) is not None)
    pings = Pings(topology)
    topology.run("host", "ip", "addr", "flush", "dev", "eth0", "to", HOST_ADDRESS, check=True)
    assert until(lambda: not is_there(running, HOST_ADDRESS))
    assert routes(topology) == [f"{HOST_ADDRESS} lan0"]
    ports["lan1"].run("host", "ip", "addr", "add", f"{HOST_ADDRESS}/128", "dev", "eth1", "nodad", check=True)
    with Sleeper() as sleeper:
        began = time.monotonic()
        ping_from_there(ports["lan1"], "eth1")
        assert until(lambda: routes(topology) == [f"{HOST_ADDRESS} lan1"])
        took = time.monotonic() - began
        assert took <= MOST_SILENT + BUSY + sleeper.worst(began, CHAIN)
    assert until(lambda: is_in_reach(topology, HOST_ADDRESS))
    pings.silence()


BOTH_SIDES = f"""
{configuration("2001:db8::/64 neighbour via=lan0 host_routes=true")}
[[interface]]
name = "lan0"
[[interface.rule]]
prefix = "2001:db8::/64"
method = "neighbour"
via = ["wan0"]
"""
GHOST = "2001:db8::99"  # an upstream's neighbour, whom this machine has never heard of
PERMANENT = "2001:db8::98"


def claim(topology: Topology, namespace: Namespace, address: str) -> None:
    """One forged solicitation: an ordinary question for the edge, from an address that isn't the asker's."""
    side = {
        "host": replace(SETTING, mac=ether(EDGE_LAN_MAC), asker_mac=ether(HOST_MAC), target=ip6(EDGE_LAN_ADDRESS)),
        "upstream": replace(SETTING, asker_mac=ether(UPSTREAM_MAC), target=ip6(EDGE_WAN_ADDRESS)),
    }[namespace]
    with Wire(topology, namespace, "eth0") as wire:
        wire.send(solicit(side, source=ip6(address)))


@pytest.fixture
def both_sides(topology: Topology) -> Topology:
    """One /64 on both sides; the kernel's probes fail in 0.6 s."""
    topology.run("host", "ip", "addr", "add", f"{SHARED}/128", "dev", "eth0", "nodad", check=True)
    for interface in ("wan0", "lan0"):
        topology.sysctl("edge", f"net/ipv6/neigh/{interface}/retrans_time_ms", 200)
    on_edge(topology, f"neigh replace {PERMANENT} lladdr {UPSTREAM_MAC} nud permanent dev wan0")
    assert until(lambda: topology.run("edge", "ping", "-6", "-c", "1", "-W", "2", UPSTREAM_ADDRESS).returncode == 0)
    return topology


def test_nobody_is_taken_from_one_side_to_the_other_by_a_claim(both_sides: Topology, daemon: Start) -> None:
    topology = both_sides
    running = daemon(BOTH_SIDES)
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert until(lambda: asker.answered(SHARED))
        assert routes(topology) == [f"{SHARED} lan0"]
        pings = Pings(topology, SHARED)

        def judge(seconds: float) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                assert routes(topology) == [f"{SHARED} lan0"]
                for victim in (UPSTREAM_ADDRESS, GHOST, PERMANENT):
                    assert not asker.answered(victim, 0.05), victim

        for _ in range(2):
            for victim in (UPSTREAM_ADDRESS, GHOST, PERMANENT):
                claim(topology, "host", victim)
            claim(topology, "upstream", SHARED)
            judge(1.5)
        assert topology.run("edge", "ping", "-6", "-c", "1", "-W", "2", UPSTREAM_ADDRESS).returncode == 0
        assert pings.silence() == 0, "the host is where it was"
        # a claim upstream for a host that isn't known yet
        topology.run("edge", "ip", "neigh", "flush", "dev", "lan0", check=True)
        assert until(lambda: not is_there(running, SHARED), 2)
        claim(topology, "upstream", SHARED)
        assert until(lambda: asker.answered(SHARED), 2)
        # what comes while nobody watches
        running.kill()
        assert routes(topology) == [f"{SHARED} lan0"]
        for victim in (UPSTREAM_ADDRESS, GHOST):
            claim(topology, "host", victim)
            on_edge(topology, f"-6 route add {victim}/128 dev lan0 proto {PROTOCOL} metric 1024")
        claim(topology, "upstream", SHARED)
        running = daemon(f"[limits]\nhost_route_keep = 1\n{BOTH_SIDES}")  # whom it doesn't find, it takes for away
        assert f"{UPSTREAM_ADDRESS} lan0" not in routes(topology), "it is known to be upstream"
        assert until(lambda: routes(topology) == [f"{SHARED} lan0"], 3)
        asker = Asker(wire, running)
        assert until(lambda: asker.answered(SHARED), 2)
        judge(1.0)


def test_a_host_that_goes_over_to_the_upstreams_link_is_let_go(both_sides: Topology, daemon: Start) -> None:
    topology = both_sides
    running = daemon(BOTH_SIDES)
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert until(lambda: asker.answered(SHARED))
        topology.run("host", "ip", "addr", "del", f"{SHARED}/128", "dev", "eth0", check=True)
        topology.run("upstream", "ip", "addr", "add", f"{SHARED}/128", "dev", "eth0", "nodad", check=True)
        words = ("ping", "-6", "-c", "1", "-W", "1", "-I", SHARED, EDGE_WAN_ADDRESS)
        topology.run("upstream", "ip", "neigh", "flush", "all", check=True)
        topology.run("upstream", *words)
        assert until(lambda: routes(topology) == [], 2)
        assert not asker.answered(SHARED)
        assert until(lambda: topology.run("upstream", *words).returncode == 0)
        # and for who asks on the other side, it is behind us now
        with Wire(topology, "host", "eth0") as lan:
            asks = replace(SETTING, mac=ether(EDGE_LAN_MAC), asker_mac=ether(HOST_MAC), target=ip6(SHARED))
            assert lan.ask(solicit(asks, source=ip6("2001:db8::78"))) is not None


NEW_MAC = "02:00:00:00:00:43"


def found_behind_lan0(topology: Topology, daemon: Start, text: str) -> None:
    """SHARED is an address of the host, and a daemon of that configuration has answered for it."""
    topology.run("host", "ip", "addr", "add", f"{SHARED}/128", "dev", "eth0", "nodad", check=True)
    daemon(text)
    with Wire(topology) as wire:
        assert until(lambda: wire.ask(question(SHARED)) is not None)


@pytest.mark.parametrize("name", WAYS)
def test_a_host_that_comes_back_at_once_and_speaks_once_is_followed_each_time(
    topology: Topology, ports: Ports, daemon: Start, name: str
) -> None:
    """Before the entry is gone that it has where it was: of that one, the kernel may say that it is REACHABLE."""
    way = WAYS[name]
    most = MOST_SILENT if way.speak is ask_there else MOST_SILENT + KERNELS_NEXT
    daemon(way.configuration)
    settle_down(topology, way)
    with Sleeper() as sleeper:
        for new in ("lan1", "lan0") * 4:
            began = time.monotonic()
            took, late = move(topology, ports, way, new), sleeper.worst(began, CHAIN)
            print(f"to {new}: {took:.2f} s; the machine was late by {late:.2f} s")
            assert took <= most + BUSY + late


def test_a_host_that_speaks_once_where_the_kernel_has_just_looked_for_it_in_vain_is_followed(
    topology: Topology, ports: Ports, daemon: Start
) -> None:
    """It speaks behind the kernel's last question there, with which that would have given up."""
    found_behind_lan0(topology, daemon, sides("lan0", "lan1"))
    assert until(lambda: state(topology, "lan1", SHARED) in GONE)
    topology.sysctl("edge", "net/ipv6/neigh/lan1/mcast_solicit", 1)
    topology.sysctl("edge", "net/ipv6/neigh/lan1/retrans_time_ms", 3_000)
    on_edge(topology, f"neigh replace {SHARED} dev lan1 use nud none")
    assert until(lambda: state(topology, "lan1", SHARED) == "INCOMPLETE")
    topology.run("host", "ip", "addr", "del", f"{SHARED}/128", "dev", "eth0", check=True)
    ports["lan1"].run("host", "ip", "addr", "add", f"{SHARED}/128", "dev", "eth1", "nodad", check=True)
    ask_there(ports["lan1"], "eth1")
    assert until(lambda: routes(topology) == [f"{SHARED} lan1"])


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_a_host_that_asks_with_another_mac_is_followed(topology: Topology, daemon: Start, datapath: str) -> None:
    found_behind_lan0(topology, daemon, sides("lan0", datapath=datapath))
    ask_there(topology)
    with Sleeper() as sleeper:
        pings = Pings(topology, SHARED)
        time.sleep(1)
        began = time.monotonic()
        topology.run("host", "ip", "link", "set", "eth0", "address", NEW_MAC, check=True)
        ask_there(topology, mac=NEW_MAC)
        assert until(lambda: is_in_reach(topology, SHARED), 3), "or there is no end of its silence"
        time.sleep(2 * INTERVAL)
        silence = pings.silence()
        overslept = sleeper.worst(began, CHAIN)
    print(f"{silence:.1f} s silent")
    assert silence <= 3.0 + overslept
    assert routes(topology) == [f"{SHARED} lan0"]


def test_a_mac_that_is_not_the_hosts_takes_nothing_from_a_host_that_answers(
    topology: Topology, ports: Ports, daemon: Start
) -> None:
    found_behind_lan0(topology, daemon, sides("lan0", "lan1"))
    pings = Pings(topology, SHARED)
    for _ in range(3):
        ask_there(ports["lan0"], mac=NEW_MAC)
        ask_there(ports["lan1"], "eth1", mac=NEW_MAC)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            found = topology.neighbour("edge", "lan0", SHARED)
            assert found is not None
            assert (routes(topology), found.mac) == ([f"{SHARED} lan0"], HOST_MAC)
            time.sleep(0.1)
    assert pings.silence() == 0
    assert until(lambda: state(topology, "lan1", SHARED) == "", 3), "nothing is left of it"
