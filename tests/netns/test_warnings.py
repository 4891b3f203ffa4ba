# SPDX-License-Identifier: GPL-2.0-or-later
"""Warnings hold for as long as the machine is as they say: in the log, in `status`, on the page and in the metrics."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable

from scapy.layers.inet6 import (
    ICMPv6ND_RA,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.control import ask
from tests.frames import SETTING
from tests.netns.verb import verb
from tests.netns.wire import Wire, configuration, on_edge, says, until

Start = Callable[..., RunningDaemon]


def warnings(running: RunningDaemon) -> list[str]:
    """What `status` warns of, but for the neighbour table: all namespaces share that, and others may have it full."""
    found: list[str] = ask(running.control, {"verb": "status"})["warnings"]
    return [line for line in found if "neighbour table" not in line]


def counted(running: RunningDaemon, kind: str) -> float:
    return running.metrics()["npd6_warnings", frozenset({("kind", kind)})]


def page(topology: Topology, running: RunningDaemon) -> list[str]:
    """What the status page's data say."""
    connection = http.client.HTTPConnection("::1", 9846, timeout=15)
    with topology.inside("edge"):
        connection.request("GET", "/status.json")
    found: list[str] = json.loads(connection.getresponse().read())["warnings"]
    connection.close()
    return found


def test_forwarding_is_followed_as_it_is_switched(topology: Topology, daemon: Start) -> None:
    topology.sysctl("edge", "net/ipv6/conf/all/forwarding", 0)
    running = daemon(configuration("2001:db8:1::/64 route", "2001:db8:2::/64 kernel"))
    line = "wan0: forwarding is off"
    assert says(running, f"warning: {line}")
    assert counted(running, "forwarding") == 1
    for times in (1, 2):
        assert len(warnings(running)) == len(page(topology, running)) == 1
        topology.sysctl("edge", "net/ipv6/conf/all/forwarding", 1)
        assert until(lambda: warnings(running) == [], 1.0)
        assert until(lambda: page(topology, running) == [])  # it is made anew once a second
        assert counted(running, "forwarding") == 0
        assert says(running, "info: wan0: cleared: forwarding is off", times)
        topology.sysctl("edge", "net/ipv6/conf/all/forwarding", 0)
        assert until(lambda: len(warnings(running)) == 1, 1.0)
        assert until(lambda: len(page(topology, running)) == 1)
        assert counted(running, "forwarding") == 1
        assert says(running, f"warning: {line}", times + 1)
    # of one interface alone: methods find their targets, and the kernel passes nothing on to them
    topology.sysctl("edge", "net/ipv6/conf/wan0/forwarding", 1)
    assert until(lambda: "what is sent to them gets no further" in " ".join(warnings(running)), 1.0)
    topology.sysctl("edge", "net/ipv6/conf/all/forwarding", 1)
    topology.sysctl("edge", "net/ipv6/conf/wan0/forwarding", 0)
    assert until(lambda: "method route finds no target there" in " ".join(warnings(running)), 1.0)
    topology.run("edge", *warnings(running)[0].rpartition(": ")[2].split(), check=True)
    assert until(lambda: warnings(running) == [], 1.0)


def advertise(topology: Topology, *, prefix: bool = True) -> None:
    """A router at the upstream says that it is one, and gives a prefix."""
    frame = (
        Ether(src=SETTING.asker_mac, dst="33:33:00:00:00:01")
        / IPv6(src="fe80::1", dst="ff02::1", hlim=255)
        / ICMPv6ND_RA(routerlifetime=1800)
        / ICMPv6NDOptSrcLLAddr(lladdr=SETTING.asker_mac)
    )
    if prefix:
        frame /= ICMPv6NDOptPrefixInfo(
            prefix="2001:db8:ada::", prefixlen=64, validlifetime=86400, preferredlifetime=14400
        )
    with Wire(topology) as wire:
        wire.send(bytes(frame))


def default_route(topology: Topology) -> str:
    return topology.run("edge", "ip", "-6", "route", "show", "default").stdout


def test_a_default_route_that_forwarding_has_taken_away_is_warned_of_until_it_can_come_back(
    topology: Topology, daemon: Start
) -> None:
    topology.sysctl("edge", "net/ipv6/conf/all/forwarding", 0)
    topology.sysctl("edge", "net/ipv6/conf/wan0/accept_ra", 1)
    on_edge(topology, "-6 route del default")
    advertise(topology)
    assert until(lambda: "proto ra" in default_route(topology))
    running = daemon(configuration("2001:db8:1::/64 route"))
    # the advice of before would have cut this machine off
    keep = "sysctl -w net/ipv6/conf/wan0/accept_ra=2 net.ipv6.conf.all.forwarding=1"
    (line,) = warnings(running)
    assert line.startswith("wan0: forwarding is off")
    assert line.endswith(keep)

    topology.sysctl("edge", "net/ipv6/conf/all/forwarding", 1)
    assert until(lambda: any("the default route that they give is gone" in line for line in warnings(running)), 2.0)
    assert default_route(topology) == ""
    assert counted(running, "router_advertisements") == 1
    assert says(running, "warning: wan0: forwarding is on and accept_ra is 1")

    on_edge(topology, "-6 route add default via fe80::1 dev wan0")  # another one will do, too
    assert until(lambda: warnings(running) == [], 3.0)
    on_edge(topology, "-6 route del default via fe80::1 dev wan0")
    assert until(lambda: len(warnings(running)) == 1, 3.0)

    said = running.log.count("wan0: cleared: forwarding is on")
    topology.sysctl("edge", "net/ipv6/conf/wan0/accept_ra", 2)
    coming = "wan0: the kernel takes in router advertisements again, and the default route that they give comes with"
    assert until(lambda: [line.startswith(coming) for line in warnings(running)] == [True], 3.0)
    assert says(running, "wan0: cleared: forwarding is on", said), "it isn't back"
    advertise(topology)
    assert until(lambda: "proto ra" in default_route(topology))
    assert until(lambda: warnings(running) == [], 3.0)
    assert counted(running, "router_advertisements") == 0


def test_who_does_what_the_line_on_forwarding_says_keeps_a_default_route_by_advertisements_that_give_no_address(
    topology: Topology, daemon: Start
) -> None:
    topology.sysctl("edge", "net/ipv6/conf/all/forwarding", 0)
    topology.sysctl("edge", "net/ipv6/conf/wan0/accept_ra", 1)
    on_edge(topology, "-6 route del default")
    advertise(topology, prefix=False)
    assert until(lambda: "proto ra" in default_route(topology))
    running = daemon(configuration("2001:db8:1::/64 neighbour via=lan0"))
    (line,) = warnings(running)
    mend = line.rpartition(": ")[2]
    told = running.command(
        "explain", "2001:db8:1::42", "--interface", "wan0", "--config", str(running.config_file)
    ).stdout
    assert f"note: {line}" in told, "one advice, whoever gives it"
    topology.run("edge", *mend.split(), check=True)
    assert until(lambda: warnings(running) == [])
    assert "proto ra" in default_route(topology)


def test_advertisements_that_were_never_taken_in_are_noticed_and_their_absence_is_no_alarm(
    topology: Topology, daemon: Start
) -> None:
    """Forwarding was on before the first one came, as after a boot."""
    topology.sysctl("edge", "net/ipv6/conf/wan0/accept_ra", 1)
    on_edge(topology, "-6 route del default")
    running = daemon(configuration("2001:db8:1::/64 static"))
    assert warnings(running) == []
    assert default_route(topology) == ""
    advertise(topology)
    assert until(lambda: any("ignores router advertisements" in line for line in warnings(running)), 3.0)


def test_a_glob_that_no_interface_has_is_said_until_one_comes(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:1::/64 static").replace("wan0", "wna*"))
    line = "wna*: no interface matches; waiting for one"
    assert until(lambda: f"warning: {line}" in running.log)
    assert warnings(running) == [line]
    on_edge(topology, "link add wna1 type bridge", "link set wna1 up")
    assert until(lambda: warnings(running) == [])


def test_loopback_as_a_via_is_refused_by_its_name(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    running.write(configuration("2001:db8:1::/64 neighbour via=lo"))
    refused = verb(running, "reload")
    assert refused.returncode == 1
    assert "via lo: it leads to this host itself, so the kernel asks for nobody" in refused.stderr
