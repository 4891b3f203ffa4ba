# SPDX-License-Identifier: GPL-2.0-or-later
"""What the dashboard's picture is taken of: an edge whose upstreams ask for all kinds of things, while much happens."""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scapy.layers.inet6 import IPv6ExtHdrHopByHop

from npd6_xdp.core.verdict import Reason
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_ADDRESS, HOST_ADDRESS, Topology
from tests.frames import TAGS_8021Q
from tests.kinds import KINDS
from tests.netns.wire import DAD, SETTING, Wire, configuration, on_edge, paused, question, scan

ACTIVE = "2001:db8:a::1"  # the address that makes this edge the active one
HOSTS = 60  # behind lan0, beside the lab's own
PORT = "ix0"  # a second upstream's; nothing but Python answers there

_RULES = (
    "2001:db8:1::/64 neighbour via=lan0 host_routes=true",
    "2001:db8:2::/64 kernel",
    "2001:db8:3::/64 static exclude=::1",
    "2001:db8:4::/47 route",
    "2001:db8:8::/64 ignore",
)
_USUAL = (
    "[limits]\nkernel_entries = 8\npending = 128\nevents_per_second = 1000000\n"
    + configuration(*_RULES, attach='"native"', events_per_source="200", active_with=f'"{ACTIVE}"')
    + configuration("2001:db8:3::/64 static", attach='"native"', vlan="100", datapath='"monitor"')
    + configuration("2001:db8:c::/64 static", datapath='"python"').replace('"wan0"', f'"{PORT}"')
)
_WITH_WARNING = _USUAL + configuration("2001:db8:d::/64 static").replace('"wan0"', '"wan1"')  # which isn't there
_BROKEN = configuration("2001:db8:1::/64 nowhere")

_TICK = 0.05  # seconds
_FLOOD = 20_000  # solicitations at once, of which the ring of one CPU holds 16,384
_IN_VAIN = 300  # solicitations that wait for Python when the port goes down
_INVALID = [kind.build(SETTING) for kind in KINDS if isinstance(kind.wanted, Reason)]


class Ground:
    """The lab with a second upstream link, more hosts, and an address that says which edge is active."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        topology.xdp_pass("upstream", "eth0")
        topology.cable("upstream", "eth1", "edge", PORT)
        topology.run("upstream", "ip", "link", "set", "eth1", "up", check=True)
        on_edge(
            topology,
            f"link set {PORT} up",
            f"route add 2001:db8:5::/64 via {HOST_ADDRESS} dev lan0",
            f"address add {ACTIVE}/128 dev lan0 nodad",
        )
        for number in range(HOSTS):
            address = f"2001:db8:1::{0x100 + number:x}/64"
            topology.run("host", "ip", "address", "add", address, "dev", "eth0", "nodad", check=True)

    def daemon(self) -> RunningDaemon:
        return RunningDaemon(self.topology, _USUAL)


@dataclass(slots=True)
class Tide:
    """What comes in by wan0, tick by tick. `now` is the part of the whole time that is over, from 0 to 1."""

    now: float = 0.0

    def frames(self) -> Iterator[list[bytes]]:
        chance = random.Random(1)  # noqa: S311
        live = list(scan(4_000, "2001:db8:3::"))
        tagged = [frame[:12] + TAGS_8021Q + frame[12:] for frame in live[:200]]
        hosts = [question(HOST_ADDRESS), *(question(f"2001:db8:1::{0x100 + number:x}") for number in range(HOSTS))]
        steady = [
            question("2001:db8:3::9", headers=[IPv6ExtHdrHopByHop()]),  # for Python
            question("2001:db8:3::1"),
            question("2001:db8:8::1"),
            question("2001:db8:3::7", **DAD),
            question("2001:db8:99::1"),
            question(EDGE_WAN_ADDRESS),
        ]
        first = 1
        while True:
            many = 45 + 20 * math.sin(11 * self.now) + 12 * math.sin(37 * self.now) + 6 * chance.random()
            frames = chance.sample(live, int(many)) + chance.sample(tagged, 1 + int(many) // 16)
            frames += chance.sample(hosts[: 1 + int(self.now * 2 * HOSTS)], 1)
            frames += chance.sample(steady, 2)
            frames.append(question(f"2001:db8:2::{chance.randrange(1, 12):x}"))
            frames += scan(2, chance.choice(("2001:db8:4::", "2001:db8:5::")), first=chance.randrange(1 << 40))
            if 0.2 < self.now < 0.3:  # somebody scans
                frames += scan(10, "2001:db8:1::", first=first << 33)
                first += 10
            if 0.45 < self.now < 0.52:  # somebody's stack is broken
                frames += chance.sample(_INVALID, 6)
            yield frames


def _sent(wire: Wire, frames: Iterator[list[bytes]], stopping: threading.Event) -> None:
    """Tick by tick until it is to stop; what a late machine missed is left out."""
    wire.deafen()
    while not stopping.wait(_TICK):
        wire.send(*next(frames))


def _to_port() -> Iterator[list[bytes]]:
    chance = random.Random(2)  # noqa: S311
    live = list(scan(500, "2001:db8:c::"))
    while True:
        yield chance.sample(live, chance.randrange(4, 12))


@contextmanager
def _sending(wire: Wire, frames: Iterator[list[bytes]]) -> Iterator[None]:
    stopping = threading.Event()
    thread = threading.Thread(target=_sent, args=(wire, frames, stopping))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _flood(ground: Ground, running: RunningDaemon) -> None:
    """More for Python than the ring of a CPU holds while Python doesn't look: some are lost."""
    frames = list(scan(_FLOOD, "2001:db8:c::"))
    cpus = os.sched_getaffinity(0)
    with Wire(ground.topology, interface="eth1") as wire:
        wire.deafen()
        os.sched_setaffinity(0, {min(cpus)})  # this thread, so that all come by one
        try:
            with paused(running):
                wire.send(*frames)
        finally:
            os.sched_setaffinity(0, cpus)


def _cut(ground: Ground, running: RunningDaemon) -> None:
    """The port goes down with some in the ring: they can't be answered any more."""
    with Wire(ground.topology, interface="eth1") as wire:
        wire.deafen()
        with paused(running):
            wire.send(*scan(_IN_VAIN, "2001:db8:c::"))
            on_edge(ground.topology, f"link set {PORT} down")


def events(ground: Ground, running: RunningDaemon) -> list[tuple[float, Callable[[], object]]]:
    """What happens, and when, as a part of the whole time."""

    def reload(text: str) -> None:
        running.write(text)
        running.command("reload")

    return [
        (0.12, lambda: _flood(ground, running)),
        (0.34, lambda: reload(_BROKEN)),
        (0.38, lambda: reload(_WITH_WARNING)),
        (0.56, lambda: reload(_USUAL)),
        (0.62, lambda: on_edge(ground.topology, f"address del {ACTIVE}/128 dev lan0")),
        (0.70, lambda: on_edge(ground.topology, f"address add {ACTIVE}/128 dev lan0 nodad")),
        (0.80, lambda: _cut(ground, running)),
        (0.84, lambda: on_edge(ground.topology, f"link set {PORT} up")),
    ]


def live(ground: Ground, running: RunningDaemon, seconds: float) -> None:
    """Have all of it happen once, in so long."""
    tide, due = Tide(), events(ground, running)
    with (
        Wire(ground.topology) as wan,
        Wire(ground.topology, interface="eth1") as port,
        _sending(wan, tide.frames()),
        _sending(port, _to_port()),
    ):
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            tide.now = now / seconds
            while due and due[0][0] <= tide.now:
                due.pop(0)[1]()
            time.sleep(0.05)
