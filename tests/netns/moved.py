# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that moves from one via interface to the other and back, under the upstream's pings.

    python -m tests.netns.moved [--rounds N]

It says for how long pings were lost, and when the host route led to the new place: exit status 1 if one of them took
more than 1 s. That is for an idle machine; the tests allow for what a busy one is late (tests/netns/sleeper.py).
"""

from __future__ import annotations

import argparse
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from tempfile import TemporaryFile
from typing import NamedTuple

from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.rtnetlink import PROTOCOL
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_LAN_ADDRESS, EDGE_WAN_ADDRESS, HOST_ADDRESS, HOST_MAC, UPSTREAM_ADDRESS, Topology
from npd6_xdp.system.netlink.host_routes import HostRouteWatch
from tests.frames import ether, ip6
from tests.kinds import solicit
from tests.netns.wire import SETTING, Wire, configuration, on_edge, question, until

INTERVAL = 0.1  # seconds between two pings
MOST_SILENT = 1.0  # seconds
SHARED = "2001:db8::77"  # the host's, where one /64 is on both sides
GONE = ("FAILED", "")
PATIENCE = 60.0  # seconds
INTERFACES = {"lan0": "eth0", "lan1": "eth1"}
"""The host's, by the edge's ports."""

Ports = Mapping[str, Topology]
"""The edge's two ports, and whose host is behind each."""


# --- the ground ---


@contextmanager
def two_ports(topology: Topology) -> Iterator[Ports]:
    """Two ports of the edge, each with a station on it; only /128 routes lead to either, so that these decide."""
    with Topology() as second:
        on_edge(
            topology,
            "link add lan1 type veth peer name lan1p",
            f"link set lan1p netns {second.name('host')} name eth1",
            f"addr del {EDGE_LAN_ADDRESS}/64 dev lan0",
            *(f"link set {name} up" for name in ("lan0", "lan1")),
            *(f"addr add fe80::e/64 dev {name} nodad" for name in ("lan0", "lan1")),
        )
        for line in (
            "link set eth0 down",
            f"link set eth1 address {HOST_MAC} up",
            "-6 addr add fe80::42/64 dev eth1 nodad",
            "-6 route add default via fe80::e dev eth1",
        ):
            second.run("host", "ip", *line.split(), check=True)
        topology.run("host", "ip", "-6", "route", "replace", "default", "via", "fe80::e", "dev", "eth0", check=True)
        yield {"lan0": topology, "lan1": second}


def sides(*ports: str, datapath: str = "hybrid") -> str:
    """One /64 on both sides, with several ports behind which hosts are."""
    entry = f'[[interface]]\nname = "{{}}"\ndatapath = "{datapath}"\n[[interface.rule]]\nprefix = "2001:db8::/64"\n'
    back = "".join(entry.format(port) + 'method = "neighbour"\nvia = ["wan0"]\n' for port in ports)
    return configuration(f"2001:db8::/64 neighbour via={','.join(ports)} host_routes=true") + back


def routes(topology: Topology) -> list[str]:
    """Our host routes, each as "ADDRESS INTERFACE"."""
    found = topology.ip("edge", "-6", "route", "show", "proto", str(PROTOCOL))
    return [f"{route['dst']} {route['dev']}" for route in found]


def state(topology: Topology, interface: str, address: str) -> str:
    """What the edge's neighbour table says of a host; "" where it has none."""
    found = topology.neighbour("edge", interface, address)
    return found.state if found else ""


class Pings:
    """The upstream's pings of a host, while the block runs; then how long the host was silent for at most."""

    def __init__(self, topology: Topology, address: str = HOST_ADDRESS) -> None:
        words = ("ping", "-6", "-n", "-i", str(INTERVAL), "-W", "1", address)
        self._said = TemporaryFile()  # noqa: SIM115 (closed with this)
        self._process = topology.popen("upstream", *words, stdout=self._said)
        assert until(lambda: bool(self._answered())), "the host isn't there to begin with"

    def silence(self) -> float:
        """End; the longest time without an answer, in seconds."""
        self._process.terminate()
        self._process.wait(60)
        answered = self._answered()
        gaps = [after - before - 1 for before, after in pairwise(answered)]
        return max(gaps, default=0) * INTERVAL

    def _answered(self) -> list[int]:
        """The numbers of those that had an answer so far."""
        said = os.pread(self._said.fileno(), 1 << 24, 0).decode()
        return sorted({int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", said)})


def is_in_reach(topology: Topology, address: str) -> bool:
    """Whether a ping of the upstream's is answered."""
    return topology.run("upstream", "ping", "-6", "-n", "-c", "1", "-W", "1", address).returncode == 0


# --- how a host says where it is ---


def ask_there(topology: Topology, interface: str = "eth0", mac: str = HOST_MAC) -> None:
    """The host asks for the upstream, which it believes on its link: answered here, so the kernel doesn't hear it."""
    asks = replace(SETTING, asker_mac=ether(mac), target=ip6(UPSTREAM_ADDRESS))
    with Wire(topology, "host", interface) as wire:
        wire.send(solicit(asks, source=ip6(SHARED)))


def ping_from_there(topology: Topology, interface: str) -> None:
    """The host pings the edge, and has its kernel find that first: the edge's kernel hears where it is."""
    topology.run("host", "ip", "neigh", "flush", "all", check=True)
    words = ("ping", "-6", "-n", "-c", "1", "-W", "1", "-I", HOST_ADDRESS, EDGE_WAN_ADDRESS)
    topology.popen("host", *words, stdout=subprocess.DEVNULL)


class Way(NamedTuple):
    """How a host that has moved is noticed: by what it says, to whom, in which datapath."""

    address: str
    speak: Callable[[Topology, str], None]
    configuration: str


WAYS = {
    "the kernel hears it": Way(
        HOST_ADDRESS, ping_from_there, configuration("2001:db8:1::/64 neighbour via=lan0,lan1 host_routes=true")
    ),
    "it asks for what is answered here": Way(SHARED, ask_there, sides("lan0", "lan1")),
    "the same, datapath python": Way(SHARED, ask_there, sides("lan0", "lan1", datapath="python")),
}


# --- a move ---


def settle_down(topology: Topology, way: Way) -> None:
    """The host has the address behind lan0, and is found there by a daemon that is about to answer."""
    topology.run("host", "ip", "addr", "flush", "dev", "eth0", "to", way.address, check=True)
    topology.run("host", "ip", "addr", "add", f"{way.address}/128", "dev", "eth0", "nodad", check=True)
    with Wire(topology) as wire:
        assert until(lambda: wire.ask(question(way.address)) is not None)
    assert until(lambda: routes(topology) == [f"{way.address} lan0"])
    way.speak(topology, "eth0")


def move(topology: Topology, ports: Ports, way: Way, new: str) -> float:
    """The host's address goes to another port, where it speaks; the old port keeps its carrier, as an access point's
    does. Returns after how long (seconds) the kernel said that the route leads there.
    """
    (old,) = ports.keys() - {new}
    with topology.inside("edge"):
        place, watch = Host(socket.if_nametoindex(new), ip6(way.address)), HostRouteWatch(0)
    with closing(watch):
        watch.listen(wanted=True)
        for port, what in ((old, ("del",)), (new, ("add", "nodad"))):
            words = (what[0], f"{way.address}/128", "dev", INTERFACES[port], *what[1:])
            ports[port].run("host", "ip", "addr", *words, check=True)
        began = time.monotonic()
        way.speak(ports[new], INTERFACES[new])
        while (left := began + PATIENCE - time.monotonic()) > 0:
            select.select([watch], [], [], left)
            for change in watch.take_changes(time.monotonic() + 1.0):
                if not change.gone and Host(change.route.ifindex, change.route.destination) == place:
                    return time.monotonic() - began
    raise AssertionError(f"not followed within {PATIENCE:.0f} s")


class Moved(NamedTuple):
    """After how many seconds the route led to the new place, for how many the pings were lost, and when it began."""

    followed: float
    silent: float
    began: float


def move_under_pings(topology: Topology, ports: Ports, way: Way, new: str) -> Moved:
    """One move, until the old place is forgotten."""
    (old,) = ports.keys() - {new}
    pings = Pings(topology, way.address)
    time.sleep(1)  # so that the old port's entry is fresh
    began = time.monotonic()
    followed = move(topology, ports, way, new)
    assert until(lambda: is_in_reach(topology, way.address)), "or there is no end of its silence"
    time.sleep(2 * INTERVAL)
    moved = Moved(followed, pings.silence(), began)
    print(f"to {new}: the route after {moved.followed:.2f} s, {moved.silent:.1f} s silent", flush=True)
    assert until(lambda: state(topology, old, way.address) in GONE), "the old place is dropped"
    assert routes(topology) == [f"{way.address} {new}"]
    assert state(topology, new, way.address) not in GONE
    return moved


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.netns.moved", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often it goes there and back")
    arguments = parser.parse_args()
    moves: list[Moved] = []
    for name, way in WAYS.items():
        print(f"{name}:")
        with Topology() as topology, two_ports(topology) as ports, RunningDaemon(topology, way.configuration):
            settle_down(topology, way)
            for _ in range(arguments.rounds):
                moves += [move_under_pings(topology, ports, way, new) for new in ("lan1", "lan0")]
    followed, silent = max(each.followed for each in moves), max(each.silent for each in moves)
    print(f"{len(moves)} moves: the route after {followed:.2f} s, and {silent:.1f} s silent, at the most")
    return int(max(followed, silent) > MOST_SILENT)


if __name__ == "__main__":
    sys.exit(main())
