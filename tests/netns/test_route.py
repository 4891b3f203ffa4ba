# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `route`: there is what the routing table leads to, out of another interface."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import (
    EDGE_LAN_ADDRESS,
    EDGE_WAN_ADDRESS,
    HOST_ADDRESS,
    HOST_MAC,
    UPSTREAM_ADDRESS,
    Topology,
)
from tests.netns.wire import Asker, Wire, configuration, cpu_seconds, on_edge, question, until

Start = Callable[..., RunningDaemon]

both = pytest.mark.parametrize(
    ("datapath", "answered"), [("hybrid", "answered_xdp"), ("python", "answered_python")], ids=["hybrid", "python"]
)


@both
def test_a_routed_64_is_answered_and_the_ping_arrives(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    running = daemon(configuration("2001:db8:1::/64 route", datapath=f'"{datapath}"'))
    done = topology.run("upstream", "ping", "-6", "-n", "-c", "2", "-i", "0.2", "-W", "3", HOST_ADDRESS)
    assert done.returncode == 0, done.stdout
    assert running.solicitations()[answered] >= 1


@both
def test_only_what_a_route_leads_to_behind_us_is_there(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    """Default route, blackhole, unreachable, on-link at the upstream, own, next hop, and routes that are none."""
    on_edge(
        topology,
        f"-6 neigh add 2001:db8:1::99 lladdr {HOST_MAC} dev lan0",
        "-6 route add 2001:db8:2::/64 via 2001:db8:1::99 dev lan0",
        "-6 route add blackhole 2001:db8:3::/64",
        "-6 route add unreachable 2001:db8:4::/64",
        "-6 route add prohibit 2001:db8:5::/64",
        f"-6 route add 2001:db8:6::/64 via {UPSTREAM_ADDRESS} dev wan0",
    )
    running = daemon(configuration("::/0 route", datapath=f'"{datapath}"'))
    wanted = {
        HOST_ADDRESS: answered,
        "2001:db8:1::4711": answered,  # on-link behind us, resolved or not
        "2001:db8:2::1": answered,
        "2001:db8:3::1": "absent",
        "2001:db8:4::1": "absent",
        "2001:db8:5::1": "absent",
        "2001:db8:6::1": "absent",
        "2001:db8:7::1": "absent",  # only the default route, back to the upstream
        "2001:db8::77": "absent",  # on-link at the upstream
        EDGE_LAN_ADDRESS: answered,  # the edge's own, on the other side
        EDGE_WAN_ADDRESS: "own",
        UPSTREAM_ADDRESS: "ignored",
    }
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert {target: asker.outcome(target) for target in wanted} == wanted
        assert asker.all_answered(wanted) == {target for target, outcome in wanted.items() if outcome == answered}


@both
def test_a_route_added_or_withdrawn_changes_the_very_next_answer(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    running = daemon(configuration("2001:db8::/32 route", datapath=f'"{datapath}"'))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        for _ in range(3):
            assert asker.outcome("2001:db8:2::1") == "absent"
            on_edge(topology, "-6 route add 2001:db8:2::/64 dev lan0")
            assert asker.outcome("2001:db8:2::1") == answered
            on_edge(topology, "-6 route replace blackhole 2001:db8:2::/64")
            assert asker.outcome("2001:db8:2::1") == "absent"
            on_edge(topology, "-6 route del blackhole 2001:db8:2::/64")


@both
def test_via_restricts_the_interfaces_that_count(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    on_edge(
        topology,
        "link add lan1 type veth peer name lan1p",
        "link set lan1 up",
        "link set lan1p up",
        "-6 route add 2001:db8:2::/64 dev lan1",
    )
    rules = ("2001:db8:1::/64 route via=lan0", "2001:db8:2::/64 route via=lan0", "2001:db8:2::/96 route via=lan1,lan0")
    running = daemon(configuration(*rules, datapath=f'"{datapath}"'))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.outcome(HOST_ADDRESS) == answered
        assert asker.outcome("2001:db8:2::1") == answered
        assert asker.outcome("2001:db8:2:0:1::1") == "absent"
        # the via interface goes and comes back, with another index
        on_edge(
            topology,
            "link del lan1",
            "link add lan1 type veth peer name lan1p",
            "link set lan1 up",
            "link set lan1p up",
        )
        assert asker.outcome("2001:db8:2::1") == "absent"
        on_edge(topology, "-6 route add 2001:db8:2::/64 dev lan1")
        assert until(lambda: asker.outcome("2001:db8:2::1") == answered, 1.0)


def test_forwarding_that_is_off_is_said_with_what_to_set(topology: Topology, daemon: Start) -> None:
    topology.sysctl("edge", "net/ipv6/conf/all/forwarding", 0)
    running = daemon(configuration("2001:db8:1::/64 route"))
    (line,) = [line for line in running.log.splitlines() if "forwarding" in line]
    assert "wan0: forwarding is off" in line
    assert "sysctl -w net.ipv6.conf.all.forwarding=1" in line
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.outcome(HOST_ADDRESS) == "absent"
        topology.sysctl("edge", "net/ipv6/conf/all/forwarding", 1)
        assert asker.outcome(HOST_ADDRESS) == "answered_xdp"


def test_monitor_counts_what_it_would_have_answered(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8::/32 route", datapath='"monitor"'))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.outcome(HOST_ADDRESS) == "monitored"
        assert asker.outcome("2001:db8:2::1") == "absent"


ROUTES = 200_000


@pytest.mark.alone
def test_two_hundred_thousand_routes_cost_the_daemon_nothing_and_the_withdrawn_one_is_silent_at_once(
    topology: Topology, daemon: Start
) -> None:
    """They come under one datapath, and go under the other."""
    mine = "2001:db8:1::777"
    routes = [f"2001:db8:{n >> 8 | 0x1000:x}:{n & 0xFF:x}::/64 dev lan0" for n in range(ROUTES)]

    def change_all(verb: str, running: RunningDaemon) -> None:
        batch = topology.directory / "routes"
        batch.write_text("".join(f"route {verb} {route}\n" for route in routes))
        before, began = cpu_seconds(running), time.monotonic()
        topology.run("edge", "ip", "-6", "-batch", str(batch), check=True, timeout=600)
        assert cpu_seconds(running) - before <= 0.05 + 0.005 * (time.monotonic() - began)

    for datapath, answered in (("hybrid", "answered_xdp"), ("python", "answered_python")):
        running = daemon(configuration("2001:db8::/32 route", datapath=f'"{datapath}"'))
        if datapath == "hybrid":
            change_all("add", running)
        with Wire(topology) as wire:
            asker = Asker(wire, running)
            target = of(routes[-1])
            assert asker.outcome(target) == answered
            wire.advertisements(0.05)
            on_edge(topology, f"-6 route del {routes[-1]}")
            wire.send(*[question(target)] * 20)
            assert wire.advertisements(0.3) == []
            assert asker.outcome(target) == "absent"
            on_edge(topology, f"-6 route add {routes[-1]}")
            took = []
            for number in range(5):  # others use this machine, too
                on_edge(topology, f"addr add {mine}{number}/128 dev wan0 nodad")
                began = time.monotonic()
                assert until(lambda a=asker, n=number: a.outcome(f"{mine}{n}") == "own", 2.0)  # type: ignore[misc]
                took.append(time.monotonic() - began)
                on_edge(topology, f"addr del {mine}{number}/128 dev wan0")
                if took[-1] < 1.0:
                    break
            assert min(took) < 1.0, "an address of its own is followed as fast as without the routes"
        if datapath == "python":
            change_all("del", running)
        assert running.stop() == 0


def of(route: str) -> str:
    """An address that a route leads to."""
    return route.split("/")[0] + "1"
