# SPDX-License-Identifier: GPL-2.0-or-later
"""The recipes of docs/recipes as scenes: configuration and commands come out of the page, the rest is built around.

No page's commands are repeated here. What of them can't be done as it stands (a container engine, WireGuard) is done as
it would be. Needs neither pytest nor scapy, so that another harness can run them: `run()` says what was seen, and so
does `python -m tests.recipes [--timeout SECONDS] [PAGE...]`.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from fcntl import ioctl
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import NamedTuple

from npd6_xdp.core.config import Config
from npd6_xdp.core.config_file import parse
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Namespace, Topology
from npd6_xdp.system.bpf.compiler import compile_program, load_bcc

OUTSIDE = "2001:db8:ffff::1"
"""The source of the pings: the upstream's router has this address, in place of a host beyond it."""
PAGES = Path(__file__).resolve().parents[1] / "docs/recipes"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


# --- Pages ---


class Page(NamedTuple):
    """A page, by its sections: commands that set it up, the configuration, and the addresses that are pinged."""

    name: str
    setup: tuple[str, ...]
    configuration: str
    pinged: tuple[str, ...]

    @property
    def config(self) -> Config:
        """The configuration, read."""
        return parse(self.configuration, f"{self.name}.md")


def page(name: str) -> Page:
    """Read docs/recipes/NAME.md."""
    text = (PAGES / f"{name}.md").read_text()
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))

    def blocks(title: str, kind: str) -> list[str]:
        return [block for its, block in _FENCE.findall(sections[title]) if its == kind]

    setup = tuple(line for block in blocks("Set up", "sh") for line in block.splitlines())
    (configuration,) = blocks("Configuration", "toml")
    seen = [line for block in blocks("See that it works", "sh") for line in block.splitlines()]
    return Page(
        name, setup, configuration, tuple(line.split()[-1] for line in seen if re.match(r"ping .*-c 3 \S+$", line))
    )


def names() -> list[str]:
    """All pages but the index."""
    return sorted(path.stem for path in PAGES.glob("*.md") if path.name != "README.md")


# --- The place that a page is about ---


@dataclass
class Place:
    """The three namespaces without addresses: the edge's two cables have the names that the page gives them."""

    topology: Topology
    port: str
    lan: str
    files: ExitStack
    bridges: dict[str, str] = field(default_factory=dict)
    """What a container engine would make, by the prefix that it is for."""

    def run(self, namespace: Namespace, *lines: str) -> None:
        for line in lines:
            self.topology.run(namespace, *line.split(), check=True)

    def strip(self) -> None:
        """Take from the topology all that is its own story."""
        for namespace in ("upstream", "edge", "host"):
            self.topology.sysctl(namespace, "net/ipv6/conf/all/forwarding", 0)
            for key in ("accept_dad", "router_solicitations"):
                for conf in ("default", *(("wan0", "lan0") if namespace == "edge" else ("eth0",))):
                    self.topology.sysctl(namespace, f"net/ipv6/conf/{conf}/{key}", 0)
        self.run("upstream", "ip -6 addr flush dev eth0 scope global", f"ip -6 addr add {OUTSIDE}/128 dev lo")
        self.run("host", "ip -6 addr flush dev eth0 scope global")
        for now, name in (("wan0", self.port), ("lan0", self.lan)):
            self.run("edge", f"ip -6 addr flush dev {now} scope global")
            if now != name:
                self.run("edge", f"ip link set {now} down", f"ip link set {now} name {name}", f"ip link set {name} up")
        for namespace in ("upstream", "edge", "host"):
            self.run(namespace, "ip -6 route flush proto boot", "ip -6 neigh flush all")  # type: ignore[arg-type]

    def set_up(self, steps: tuple[str, ...]) -> None:
        """The page's commands, one by one."""
        for step in steps:
            for pattern, instead in _INSTEAD.items():
                if match := re.match(pattern, step):
                    instead(self, match)
                    break
            else:
                self.run("edge", step)

    def bridge(self, name: str, address: str) -> None:
        self.run(
            "edge", f"ip link add {name} type bridge", f"ip link set {name} up", f"ip -6 addr add {address} dev {name}"
        )

    def plug(self, bridge: str, address: str, gateway: str, number: int = 0) -> None:
        """A host behind a bridge of the edge's: the first is the topology's own, others have cables of their own."""
        inner = f"eth{number}"
        if number:
            host = self.topology.name("host")
            self.run("edge", f"ip link add tap{number} type veth peer name {inner} netns {host}")
        self.run("edge", f"ip link set {f'tap{number}' if number else self.lan} master {bridge} up")
        self.host(address, gateway, inner)

    def host(self, address: str, gateway: str, interface: str = "eth0") -> None:
        self.run(
            "host",
            f"ip link set {interface} up",
            f"ip -6 addr add {address} dev {interface}",
            f"ip -6 route replace default via {gateway} dev {interface}",
        )

    def on_link(self, gateway: str, *prefixes: str) -> None:
        """The provider's router, which believes prefixes to be on its wire."""
        self.run("upstream", f"ip -6 addr add {gateway} dev eth0")
        self.run("upstream", *(f"ip -6 route replace {prefix} dev eth0" for prefix in prefixes))

    def settle(self) -> None:
        """Wait until the kernel has taken note of each cable that was plugged: it sends nothing before (linkwatch)."""
        named = {"upstream": {"eth0"}, "edge": {self.port}, "host": set[str]()}

        def settled() -> bool:
            for namespace, needed in named.items():
                links = {link["ifname"]: link for link in self.topology.ip(namespace, "link", "show")}  # type: ignore[arg-type]
                plugged = {name for name, link in links.items() if "LOWER_UP" in link["flags"]}
                if needed - plugged or any(links[name]["operstate"] not in ("UP", "UNKNOWN") for name in plugged):
                    return False
            return True

        _wait(settled, "all cables carry")

    def pings(self, address: str, seconds: float = 30.0) -> bool:
        """Whether the upstream's kernel reaches an address within some seconds."""
        deadline = time.monotonic() + seconds
        while True:
            done = self.topology.run("upstream", "ping", "-6", "-c", "1", "-W", "1", "-I", OUTSIDE, address)
            if done.returncode == 0 or time.monotonic() > deadline:
                return done.returncode == 0


def _docker(place: Place, match: re.Match[str]) -> None:
    network = IPv6Network(match[1])
    name = f"br-{len(place.bridges) + 1:x}a2b3c4d5e6f"[:15]
    place.bridges[match[1]] = name
    place.bridge(name, f"{network[1]}/{network.prefixlen}")


def _tunnel(place: Place, match: re.Match[str]) -> None:
    """A tun device, which like a WireGuard device has no Ethernet header, with the host at its other end."""
    ends = []
    for namespace, name in (("edge", match[1]), ("host", "tun0")):
        with place.topology.inside(namespace):  # type: ignore[arg-type]
            end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            ioctl(end, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1001))  # TUNSETIFF: IFF_TUN | IFF_NO_PI
        ends.append(end)
    stop = threading.Event()

    def carry() -> None:
        while not stop.is_set():
            for end in select.select(ends, [], [], 0.05)[0]:
                try:
                    os.write(ends[end == ends[0]], os.read(end, 65535))
                except OSError:
                    continue  # one of them is down

    carrier = threading.Thread(target=carry)
    carrier.start()
    for end in ends:
        place.files.callback(os.close, end)
    place.files.callback(carrier.join)
    place.files.callback(stop.set)


_FLAGS = {"txvlan": 1 << 7, "rxvlan": 1 << 8}  # ETH_FLAG_TXVLAN, ETH_FLAG_RXVLAN (linux/ethtool.h)


def _offload_off(topology: Topology, namespace: Namespace, interface: str, name: str) -> None:
    """`ethtool -K INTERFACE NAME off`, where there may be no ethtool."""

    def ask(command: int, flags: int = 0) -> int:
        value = ctypes.create_string_buffer(struct.pack("II", command, flags), 8)
        ioctl(asking, 0x8946, struct.pack("16sP16x", interface.encode(), ctypes.addressof(value)))  # SIOCETHTOOL
        return int(struct.unpack("II", value)[1])

    with topology.inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        ask(0x26, ask(0x25) & ~_FLAGS[name])  # ETHTOOL_SFLAGS, ETHTOOL_GFLAGS


_INSTEAD: Mapping[str, Callable[[Place, re.Match[str]], None]] = {
    r"docker network create .*--subnet (\S+)": _docker,
    r"incus network set (\S+) ipv6.address=(\S+)": lambda place, match: place.bridge(match[1], match[2]),
    r"ip link add (\S+) type wireguard": _tunnel,
    r"wg setconf": lambda place, match: None,
    r"ethtool -K (\S+) (\S+) off": lambda place, match: _offload_off(place.topology, "edge", match[1], match[2]),
}
"""What is done where a page's command can't be run here."""


# --- What is around each page ---


@dataclass(frozen=True)
class Scene:
    """What a page leaves to the rest of the network: `upstream` before its commands, `behind` after them.

    `absent` are addresses that must not answer. `needs` is a kind of device that the kernel may lack.
    """

    port: str
    upstream: Callable[[Place], None]
    behind: Callable[[Place], None]
    absent: tuple[str, ...] = ()
    needs: str = ""
    lan: str = "lan0"
    routed: bool = False
    """Whether it works without npd6-xdp, too."""
    warned: str = ""
    """What the daemon warns of, and the page says so."""


_ONE = "2001:db8:1::/64"
_ROOM = "the kernel's neighbour table"


def _wire(place: Place) -> None:
    place.on_link("2001:db8:1::ff/64")


def _routed(place: Place) -> None:
    (link,) = place.topology.ip("edge", "-6", "addr", "show", "dev", place.port, "scope", "link")
    place.run("upstream", "ip -6 addr add fe80::1/64 dev eth0")
    place.run("upstream", f"ip -6 route add {_ONE} via {link['addr_info'][0]['local']} dev eth0")


def _docker_containers(place: Place) -> None:
    for number, (prefix, bridge) in enumerate(place.bridges.items()):
        network = IPv6Network(prefix)
        place.plug(bridge, f"{network[2]}/{network.prefixlen}", str(network[1]), number)


def _behind_tunnel(place: Place) -> None:
    place.run("host", "ip link set tun0 up", "ip -6 addr add 2001:db8:1:0:5::2/128 dev tun0")
    place.run("host", "ip -6 route add default dev tun0")


def _second_slave(place: Place) -> None:
    """Two ports of a switch, on which the upstream's router is."""
    upstream = place.topology.name("upstream")
    place.run("edge", f"ip link add eno2 type veth peer name eth2 netns {upstream}")
    place.run("upstream", "ip link add br0 type bridge", "ip link set br0 up")
    place.run("upstream", "ip link set eth0 master br0", "ip link set eth2 master br0 up")
    place.run("upstream", "ip -6 addr add 2001:db8::1/64 dev br0", f"ip -6 route add {_ONE} dev br0")


def _trunk(place: Place) -> None:
    place.run("edge", "ip link add lan1 type veth peer name lan1p", "ip link set lan1 up")
    _offload_off(place.topology, "upstream", "eth0", "txvlan")
    for vlan in (100, 200):
        place.run(
            "upstream",
            f"ip link add link eth0 name eth0.{vlan} type vlan id {vlan}",
            f"ip link set eth0.{vlan} up",
            f"ip -6 addr add 2001:db8:0:{vlan}::1/64 dev eth0.{vlan}",
            f"ip -6 route add 2001:db8:{vlan}::/64 dev eth0.{vlan}",
        )


def advertise(place: Place) -> None:
    """A Router Advertisement of the upstream's, for the one /64 and a default route (RFC 4861 §4.2, §4.6.2)."""
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + IPv6Address("2001:db8:1::").packed
    with place.topology.inside("upstream"), socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = socket.if_nametoindex("eth0")
        with suppress(OSError):  # its own address may be about to come
            raw.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix, ("ff02::1", 0, 0, index))


def _has_default_route(place: Place) -> bool:
    return "default" in place.topology.run("edge", "ip", "-6", "route").stdout


def _announced(place: Place) -> None:
    _wire(place)
    place.topology.sysctl("edge", f"net/ipv6/conf/{place.port}/accept_ra", 1)

    def heard() -> bool:
        advertise(place)
        return _has_default_route(place)

    _wait(heard, "the edge takes the Router Advertisement", pause=0.3)


def _still_announced(place: Place) -> None:
    assert _has_default_route(place), "forwarding has cut it off"
    place.host("2001:db8:1::42/128", "fe80::1")


_DROPS = """
int drops(struct xdp_md *ctx) {
    unsigned char *at = (void *)(long)ctx->data;
    if (at + 55 > (unsigned char *)(long)ctx->data_end)
        return 2;
    return at[12] == 0x86 && at[13] == 0xdd && at[20] == 58 && at[22] == 0xfe && at[23] == 0x80 ? 1 : 2;
}
"""


def _filtering(place: Place) -> None:
    """What comes from link-local addresses doesn't get to the upstream."""
    _wire(place)
    program, function = compile_program(_DROPS, "drops", {})
    with place.topology.inside("upstream"):
        link = load_bcc().lib.bpf_link_create(function.fd, socket.if_nametoindex("eth0"), 37, None)
    program.cleanup()
    assert link >= 0
    place.files.callback(os.close, link)


SCENES: Mapping[str, Scene] = {
    "anyip": Scene("eth0", _wire, lambda place: None, ("2001:db8:1:0:e::1",), warned="which is on-link there"),
    "bond": Scene("eno1", _second_slave, lambda place: place.host("2001:db8:1::42/64", "2001:db8:1::1"), needs="bond"),
    "docker": Scene("eth0", _wire, _docker_containers, ("2001:db8:1:0:c::2", "2001:db8:1::77"), lan="tap0"),
    "hetzner": Scene(
        "eth0",
        _routed,
        lambda place: place.plug("vmbr1", "2001:db8:1::42/64", "2001:db8:1::1"),
        lan="tap0",
        routed=True,
    ),
    "incus": Scene(
        "eth0",
        _wire,
        lambda place: place.plug("incusbr0", "2001:db8:1::42/64", "2001:db8:1::1"),
        ("2001:db8:1::dead",),
        lan="tap0",
        warned=_ROOM,
    ),
    "link-local-filter": Scene(
        "eth0",
        _filtering,
        lambda place: place.host("2001:db8:1:0:8::42/80", "2001:db8:1:0:8::1"),
        ("2001:db8:1:0:9::1",),
    ),
    "ovh": Scene(
        "eno1",
        lambda place: place.on_link("2001:db8:1:ff:ff:ff:ff:ff/64", "2001:db8:1:1::/64"),
        lambda place: place.plug("vmbr1", "2001:db8:1:1::42/64", "2001:db8:1:1::1"),
        lan="tap0",
    ),
    "proxmox": Scene(
        "eno1", _wire, lambda place: place.plug("vmbr1", "2001:db8:1::42/64", "2001:db8:1::1"), lan="tap0"
    ),
    "slaac": Scene("eth0", _announced, _still_announced, ("2001:db8:1::dead",), warned=_ROOM),
    "vlan-trunk": Scene(
        "eno1", _trunk, lambda place: place.host("2001:db8:100::42/64", "2001:db8:100::1"), needs="vlan"
    ),
    "vrf": Scene(
        "eth0",
        _wire,
        lambda place: place.host("2001:db8:1::42/128", "fe80::1"),
        ("2001:db8:1::dead",),
        needs="vrf",
        warned=_ROOM,
    ),
    "wireguard": Scene("eth0", _wire, _behind_tunnel, ("2001:db8:1:0:6::2",)),
}


def has(kind: str) -> bool:
    """Whether this kernel makes devices of a kind; it is asked in a namespace of its own."""
    make = {
        "vlan": "ip link add kind1 type veth peer name kind2 && ip link add link kind1 name kind0 type vlan id 5",
        "vrf": "ip link add kind0 type vrf table 5",
    }.get(kind, f"ip link add kind0 type {kind}")
    return not kind or os.system(f"unshare -n sh -c '{make}' 2>/dev/null") == 0  # noqa: S605


# --- Running one ---


@contextmanager
def built(topology: Topology, name: str, without: str = "") -> Iterator[tuple[Place, Page]]:
    """A page's place, set up by its commands, with hosts behind it and an upstream that asks.

    `without` leaves out the commands with these words, to see that they are needed.
    """
    scene, its = SCENES[name], page(name)
    with ExitStack() as files:
        place = Place(topology, scene.port, scene.lan, files)
        place.strip()
        scene.upstream(place)
        place.set_up(tuple(step for step in its.setup if not without or without not in step))
        scene.behind(place)
        place.settle()
        yield place, its


class Seen(NamedTuple):
    """What was seen of a page's place: which of its addresses answer without the daemon and with it, which answer of
    those that mustn't, the log's warnings, and the daemon's exit status.
    """

    before: Mapping[str, bool]
    reached: Mapping[str, bool]
    strays: Sequence[str]
    warned: Sequence[str]
    ended: int

    def wrong(self, scene: Scene) -> list[str]:
        """What of that isn't as the page says; nothing, where all is."""
        found = [f"{address} isn't reached" for address, answers in self.reached.items() if not answers]
        if not scene.routed:
            found += [f"{address} answers without the daemon" for address, answers in self.before.items() if answers]
        found += [f"{address} answers, and isn't there" for address in self.strays]
        found += [line for line in self.warned if not scene.warned or scene.warned not in line]
        return found + ([f"the daemon ended with {self.ended}"] if self.ended else [])


def run(
    topology: Topology,
    name: str,
    configuration: str = "",
    *,
    without: str = "",
    timeout: float = 60.0,
    patience: float = 30.0,
) -> Seen:
    """Build a page's place and see what it does; by another configuration, or without one of its commands, if told so.

    `timeout` is for the daemon's start, `patience` for an answer to come (seconds).
    """
    scene = SCENES[name]
    with built(topology, name, without) as (place, its):
        before = {address: place.pings(address, 0.0) for address in its.pinged}
        with RunningDaemon(topology, configuration or its.configuration, timeout=timeout) as running:
            reached = {address: place.pings(address, patience) for address in its.pinged}
            strays = [address for address in scene.absent if place.pings(address, 0.0)]
            warned = [line for line in running.log.splitlines() if re.search("warning|error|Traceback", line)]
            ended = running.stop()
    return Seen(before, reached, strays, warned, ended)


def main(argv: list[str]) -> int:
    """Run the scenes of pages, of all by default: python -m tests.recipes [--timeout SECONDS] [PAGE...]"""
    parser = argparse.ArgumentParser(prog="python -m tests.recipes", description=main.__doc__)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for the daemon's start")
    parser.add_argument("pages", nargs="*", metavar="PAGE")
    arguments = parser.parse_args(argv)
    failed = 0
    for name in arguments.pages or SCENES:
        if not has(SCENES[name].needs):
            print(f"{name}: this kernel has no {SCENES[name].needs}", flush=True)
            continue
        with Topology() as topology:
            wrong = run(topology, name, timeout=arguments.timeout).wrong(SCENES[name])
        print(f"{name}: {'; '.join(wrong) or 'as the page says'}", flush=True)
        failed += bool(wrong)
    return 1 if failed else 0


def _wait(condition: Callable[[], bool], what: str, seconds: float = 60.0, pause: float = 0.05) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(pause)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
