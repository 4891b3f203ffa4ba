# SPDX-License-Identifier: GPL-2.0-or-later
"""`via = ["br-*"]`: the bridges that are there, and those that come later, as a container engine makes them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Namespace, Topology
from tests.netns.verb import verb
from tests.netns.wire import LATE, Asker, Wire, configuration, on_edge, until

Start = Callable[..., RunningDaemon]

BRIDGES = {"br-a1b2": "a", "br-c3d4": "c", "br-e5f6": "e"}
"""Each with the fifth group of its part of the one /64."""


def container(bridge: str) -> str:
    return f"2001:db8:1:0:{BRIDGES[bridge]}::2"


def make(topology: Topology, bridge: str) -> None:
    """A bridge with an /80 of the /64, and a container's end of a cable on it, which is in a namespace of its own."""
    part, port = BRIDGES[bridge], f"veth-{BRIDGES[bridge]}"
    on_edge(
        topology,
        f"link add {bridge} type bridge",
        f"link set {bridge} up",
        f"-6 addr add 2001:db8:1:0:{part}::1/80 dev {bridge} nodad",
        f"link add {port} type veth peer name {part}0 netns {topology.name('host')}",
        f"link set {port} master {bridge} up",
    )
    for line in (
        f"link set {part}0 up",
        f"-6 addr add {container(bridge)}/80 dev {part}0 nodad",
        f"-6 route replace default via 2001:db8:1:0:{part}::1 dev {part}0",
    ):
        topology.run("host", "ip", *line.split(), check=True)
    assert until(lambda: carries(topology, "edge", port) and carries(topology, "host", f"{part}0"))


def carries(topology: Topology, namespace: Namespace, interface: str) -> bool:
    """Whether the kernel has noted that a cable is plugged: it sends nothing before, which takes a while under load."""
    return bool(topology.ip(namespace, "link", "show", "dev", interface)[0]["operstate"] == "UP")


@pytest.mark.parametrize("method", ["route", "neighbour"])
def test_hosts_behind_all_that_a_glob_matches_are_there_and_no_others(
    topology: Topology, daemon: Start, method: str
) -> None:
    for bridge in ("br-a1b2", "br-c3d4"):
        make(topology, bridge)
    # lan0 has the rest of the /64 on-link, and isn't among what the glob matches
    elsewhere = "2001:db8:1::42"
    running = daemon(configuration(f"2001:db8:1::/64 {method} via=br-*"))
    table = running.command("check", "--config", str(running.config_file))
    assert f"2001:db8:1::/64  {method} via br-* (now br-a1b2, br-c3d4)" in table.stdout
    assert "via br-*" not in running.log, "nothing to warn about"
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert until(lambda: asker.answered(container("br-a1b2"), 1.0))
        assert until(lambda: asker.answered(container("br-c3d4"), 1.0))
        assert not asker.answered(elsewhere, 0.3)
        make(topology, "br-e5f6")
        late = until(lambda: asker.answered(container("br-e5f6"), 0.3), 2.0)
        assert late, "a bridge that appears is followed"
        status = json.loads(verb(running, "status", "--json").stdout)
        assert status["vias"] == {"br-*": sorted(BRIDGES)}
        assert "br-*: br-a1b2, br-c3d4, br-e5f6" in verb(running, "status").stdout
        on_edge(topology, "link del br-c3d4")
        assert until(lambda: not asker.answered(container("br-c3d4"), 0.2), 2.0)
        assert asker.answered(container("br-a1b2"), LATE)
    ping = ("ping", "-6", "-n", "-c", "1", "-W", "1", container("br-e5f6"))
    assert until(lambda: topology.run("upstream", *ping).returncode == 0)


def test_a_glob_that_matches_nothing_is_said_until_it_does(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:1::/64 neighbour via=br-*"))
    assert until(lambda: "via br-*: no such interface; waiting for it" in running.log)
    with Wire(topology) as wire:
        assert Asker(wire, running).outcome(container("br-a1b2")) == "absent"
        make(topology, "br-a1b2")
        assert until(lambda: Asker(wire, running).answered(container("br-a1b2"), 0.3), 2.0)
    assert "via br-*" not in verb(running, "reload").stderr


def test_who_asks_on_a_bridge_isn_t_told_of_its_own_side(topology: Topology, daemon: Start) -> None:
    """The bridges are both ports and vias: each one's hosts are there for the other's questions, not for its own."""
    for bridge in ("br-a1b2", "br-c3d4"):
        make(topology, bridge)
    text = configuration("2001:db8:1::/64 neighbour via=br-*").replace('"wan0"', '"br-*"')
    running = daemon(text)
    with Wire(topology, "host", "a0") as wire:
        # the bridge's own port carries a program; the container asks
        asker = Asker(wire, running)
        assert until(lambda: asker.answered(container("br-c3d4"), 1.0))
        assert not asker.answered("2001:db8:1:0:a::77", 0.5)
        neighbours = topology.run("edge", "ip", "-6", "neigh", "show", "2001:db8:1:0:a::77").stdout
        assert "dev br-c3d4" in neighbours or not neighbours
        assert "dev br-a1b2" not in neighbours, "nobody is looked for on the side that asks"
