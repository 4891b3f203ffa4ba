# SPDX-License-Identifier: GPL-2.0-or-later
"""Several edges between the same two links, each with one /64 on both sides: they hear each other, to no effect."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement, NeighborSolicitation
from npd6_xdp.core.rtnetlink import PROTOCOL
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Namespace, Topology
from tests.frames import Setting, ether, ip6
from tests.kinds import solicit
from tests.netns.warm import warm
from tests.netns.wire import Wire, until

pytestmark = pytest.mark.needs_table

PREFIX = "2001:db8:1::"
BOTH_SIDES = "\n".join(
    f"""[[interface]]
name = "{name}"
[[interface.rule]]
prefix = "{PREFIX}/64"
method = "neighbour"
via = ["{other}"]
host_routes = true"""
    for name, other in (("wan0", "lan0"), ("lan0", "wan0"))
)
HOST, WAN_HOST = f"{PREFIX}42", f"{PREFIX}77"  # one on each link
ROUTER, WAN_ROUTER = f"{PREFIX}4:1", f"{PREFIX}7:1"  # and a subscriber's router, which sets the R flag
ABSENT, LATER = f"{PREFIX}dead", f"{PREFIX}beef"
SIDES: dict[str, Namespace] = {"wan": "upstream", "lan": "host"}


class Scene:
    """Edges between two bridges, `wan` and `lan`. A bridge's own namespace is also its hosts, another its router.

    Each edge is a topology's of its own, whose cables end in the first one's bridges.
    """

    def __init__(self, stack: ExitStack, count: int) -> None:
        self.stack = stack
        self.topologies = [stack.enter_context(Topology()) for _ in range(count)]
        self.daemons: list[RunningDaemon] = []
        self.first = self.topologies[0]
        for side, namespace in SIDES.items():
            self._bridge(side, namespace)
        for number, topology in enumerate(self.topologies):
            for name, suffix in (("wan0", 0xA), ("lan0", 0xB)):
                self._ip(
                    topology,
                    "edge",
                    f"link set {name} address 02:00:00:00:{suffix:02x}:{number:02x}",
                    f"-6 addr flush dev {name} scope global",
                    f"addr add {PREFIX}{suffix:x}:{number}/{64 if name == 'wan0' else 128} dev {name} nodad",
                )
                # a host's entry gets old in a second or two
                topology.sysctl("edge", f"net/ipv6/neigh/{name}/base_reachable_time_ms", 1500)
                topology.sysctl("edge", f"net/ipv6/neigh/{name}/delay_first_probe_time", 1)
        self.wires = {
            side: stack.enter_context(Wire(self.first, namespace, "br0")) for side, namespace in SIDES.items()
        }

    def _bridge(self, side: str, namespace: Namespace) -> None:
        first, router = self.first, self.topologies[1]
        self._ip(first, namespace, "link add br0 type bridge mcast_snooping 0", "-6 addr flush dev eth0 scope global")
        for number, topology in enumerate(self.topologies[1:], 1):
            self._ip(topology, namespace, f"link set eth0 down netns {first.name(namespace)} name eth{number}")
        self._ip(router, namespace, f"link add sub0 type veth peer name sub netns {first.name(namespace)}")
        for port in (*(f"eth{number}" for number in range(len(self.topologies))), "sub"):
            self._ip(first, namespace, f"link set {port} master br0 up")
        mac = {"wan": "02:00:00:00:00:01", "lan": "02:00:00:00:00:02"}[side]
        host, address = {"wan": (WAN_HOST, WAN_ROUTER), "lan": (HOST, ROUTER)}[side]
        self._ip(first, namespace, f"link set br0 address {mac} up", f"addr add {host}/64 dev br0 nodad")
        router.sysctl(namespace, "net/ipv6/conf/all/forwarding", 1)
        self._ip(router, namespace, "link set sub0 up", f"addr add {address}/64 dev sub0 nodad")
        self.settings = getattr(self, "settings", {})
        self.settings[side] = Setting(mac=bytes(6), asker_mac=ether(mac), asker_global=ip6(host))

    @staticmethod
    def _ip(topology: Topology, namespace: Namespace, *lines: str) -> None:
        for line in lines:
            topology.run(namespace, "ip", *line.split(), check=True)

    def start(self, topology: Topology, limits: str = "") -> RunningDaemon:
        running = self.stack.enter_context(warm(topology, limits + BOTH_SIDES))
        self.daemons.append(running)
        return running

    def macs(self, side: str) -> set[bytes]:
        suffix = {"wan": 0xA, "lan": 0xB}[side]
        return {ether(f"02:00:00:00:{suffix:02x}:{number:02x}") for number in range(len(self.topologies))}

    def answering(self, side: str, target: str, seconds: float = 0.3) -> set[bytes]:
        """The MACs of those edges that answer a question on one side."""
        wire = self.wires[side]
        wire.advertisements(0.001)
        wire.send(solicit(replace(self.settings[side], target=ip6(target)), source=self.settings[side].asker_global))
        found = wire.advertisements(seconds)
        return {frame[6:12] for frame in found if NeighborAdvertisement.parse(frame).target == ip6(target)} & self.macs(
            side
        )

    def routes(self) -> list[dict[str, str]]:
        """Each edge's host routes."""
        found = []
        for topology in self.topologies:
            lines = topology.ip("edge", "-6", "route", "show", "proto", str(PROTOCOL))
            found.append({line["dst"]: line["dev"] for line in lines})
        return found

    def frames_about(self, target: str, seconds: float) -> dict[str, int]:
        """How many solicitations and advertisements for a target either link carries for so long, and until both have
        been quiet for longer than a kernel waits that asks again.
        """
        for wire in self.wires.values():
            wire.waiting()
        self.wires["wan"].send(
            solicit(replace(self.settings["wan"], target=ip6(target)), source=self.settings["wan"].asker_global)
        )
        found = dict.fromkeys(self.wires, 0)
        quiet = time.monotonic() + seconds
        ends = quiet + 30.0
        while time.monotonic() < min(quiet, ends):
            for side in self.wires:
                if heard := self.heard(side, target, 0.05):
                    found[side] += heard
                    quiet = max(quiet, time.monotonic() + 1.5)
        return found

    def heard(self, side: str, target: str, seconds: float) -> int:
        """How many a link carries in so long from now, those that wait included."""
        return sum(1 for frame in self.wires[side].received(seconds) if _is_about(frame, target))


def _is_about(frame: bytes, target: str) -> bool:
    for kind in (NeighborSolicitation, NeighborAdvertisement):
        with suppress(ValueError):
            parsed = kind.parse(frame)
            if isinstance(parsed, NeighborSolicitation | NeighborAdvertisement):
                return parsed.target == ip6(target)
    return False


@pytest.fixture(params=[2, 3], ids=["two", "three"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with ExitStack() as stack:
        found = Scene(stack, request.param)
        yield found
        for number, running in enumerate(found.daemons):
            print(f"--- edge {number}\n{running.log}")


def test_edges_side_by_side_answer_for_hosts_find_each_other_and_let_who_is_gone_go(scene: Scene) -> None:
    edges = len(scene.topologies)
    for topology in scene.topologies[:-1]:
        scene.start(topology)
    # somebody asks while only some of them are there, and the last one starts with questions on their way
    some = scene.macs("wan") - {max(scene.macs("wan"))}
    assert until(lambda: scene.answering("wan", HOST) == some, 3)
    scene.start(scene.topologies[-1])
    # each answers for who is on the other side, be it a host or a router, and for nobody else
    real = {"wan": {HOST, ROUTER}, "lan": {WAN_HOST, WAN_ROUTER}}
    for side, targets in real.items():
        for target in targets:
            assert until(lambda s=side, t=target: scene.answering(s, t) == scene.macs(s), 3), (side, target)  # type: ignore[misc]
    there = {HOST: "lan0", ROUTER: "lan0", WAN_HOST: "wan0", WAN_ROUTER: "wan0"}

    def only_who_is_there(expected: dict[str, str]) -> bool:
        return scene.routes() == [expected] * edges

    assert until(lambda: only_who_is_there(there), 3), scene.routes()
    for side, other in (("wan", "lan"), ("lan", "wan")):
        for target in real[other]:
            assert scene.answering(side, target) == set(), "it answers for itself"
    assert only_who_is_there(there), scene.routes()

    # one question for nobody: each edge's kernel asks three times on the other side, and that is all
    heard = scene.frames_about(ABSENT, 4.0)
    assert heard["wan"] <= 1, heard
    assert heard["lan"] <= 3 * edges, heard
    assert [scene.heard(side, ABSENT, 1.0) for side in scene.wires] == [0, 0]

    # by then they have noticed each other on both links, and say so once
    def found(running: RunningDaemon) -> int:
        return running.log.count("another proxy between the same links")

    assert until(lambda: all(found(running) == 2 * (edges - 1) for running in scene.daemons), 2)
    # the host goes; the next question finds that out
    scene._ip(scene.first, "host", f"addr del {HOST}/64 dev br0", f"addr add {LATER}/64 dev br0 nodad")
    scene.settings["lan"] = replace(scene.settings["lan"], asker_global=ip6(LATER))
    began = time.monotonic()
    assert until(lambda: scene.answering("wan", HOST) == set(), 10 / 3), "for ten seconds at most"
    print(f"{edges} edges: the host was let go after {time.monotonic() - began:.1f} s")
    # and it stays so, whoever asks, wherever
    for _ in range(3):
        for side in scene.wires:
            assert scene.answering(side, HOST) == set()
        assert lead(scene) == {"lan0"}, "it may come back where it was"
    # nor do packets for it go round: each of three is at most resolved
    before = forwarded(scene)
    scene.first.run("upstream", "ping", "-6", "-n", "-c", "3", "-i", "0.3", "-W", "1", HOST)
    assert forwarded(scene) - before <= 20, "a packet that goes round makes 60 of itself"
    # it comes back on the other link
    scene._ip(scene.first, "upstream", f"addr add {HOST}/128 dev br0 nodad")
    assert until(lambda: scene.answering("lan", HOST) == scene.macs("lan"), 3)
    assert scene.answering("wan", HOST) == set()
    assert until(lambda: lead(scene) == {"wan0"}, 3), "nobody's route points to where it was"
    assert all(found(running) == 2 * (edges - 1) for running in scene.daemons), "said once"
    ends_and_leaves_nothing(scene)


def lead(scene: Scene) -> set[str]:
    """Where the edges' routes to the host lead."""
    return {routes.get(HOST, "") for routes in scene.routes()}


def ends_and_leaves_nothing(scene: Scene) -> None:
    """All are killed; new ones that start together know who is there, of nobody else, and end with nothing left."""
    for running in scene.daemons:
        running.kill()
    assert until(lambda: programs(scene) == []), programs(scene)
    # what a dead edge leaves in the kernel are routes of hosts: one of them goes while nobody looks
    scene._ip(scene.first, "upstream", f"addr del {HOST}/128 dev br0")
    for topology in scene.topologies:
        for name in ("wan0", "lan0"):
            topology.run("edge", "ip", "-6", "neigh", "del", HOST, "dev", name)
    scene.daemons.clear()
    for topology in scene.topologies:
        scene.start(topology, "[limits]\nhost_route_keep = 1\n")  # whom they don't find, they take for away
    ghosts = {HOST, ABSENT}
    for side in scene.wires:
        for target in ghosts:
            assert scene.answering(side, target) == set(), (side, target)
    for side, target in (("wan", ROUTER), ("lan", WAN_ROUTER)):
        assert until(lambda s=side, t=target: scene.answering(s, t) == scene.macs(s), 3), (side, target)  # type: ignore[misc]
    assert until(lambda: not any(ghosts & routes.keys() for routes in scene.routes()), 3), scene.routes()
    assert proxies(scene) == []
    for running in scene.daemons:
        assert running.stop() == 0
    assert programs(scene) == proxies(scene) == []
    assert scene.routes() == [{} for _ in scene.topologies]


def forwarded(scene: Scene) -> int:
    """How many packets the edges have sent on so far."""
    pages = [topology.run("edge", "cat", "/proc/net/snmp6").stdout for topology in scene.topologies]
    return sum(int(line.split()[1]) for page in pages for line in page.splitlines() if "Ip6OutForwDatagrams" in line)


def programs(scene: Scene) -> list[str]:
    """The edges' interfaces that a program sits on."""
    found = [(topology, topology.ip("edge", "link", "show")) for topology in scene.topologies]
    names = [(topology, link["ifname"]) for topology, links in found for link in links]
    return [name for topology, name in names if topology.attach_mode("edge", name)]


def proxies(scene: Scene) -> list[str]:
    """The kernel's proxy entries on the edges."""
    found = [topology.ip("edge", "-6", "neigh", "show", "proxy") for topology in scene.topologies]
    return [entry["dst"] for entries in found for entry in entries]
