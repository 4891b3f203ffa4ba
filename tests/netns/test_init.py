# SPDX-License-Identifier: GPL-2.0-or-later
"""`init`, from bare namespaces to pings from the upstream to hosts behind: one command, what it advises, the daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_RA,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from npd6_xdp.lab.topology import Namespace, Topology
from tests.netns.warm import warm
from tests.netns.wire import Wire, until

pytestmark = pytest.mark.needs_table

UPSTREAM_MAC = "02:00:00:00:00:01"
UPSTREAM = "fe80::ff:fe00:1"

Cable = tuple[Namespace, str, Namespace, str]
Setup = Mapping[Namespace, tuple[str, ...]]


class Bare(Topology):
    """Namespaces as a scene has them: `cables` as (namespace, interface, namespace, interface), and lines for ip(8)."""

    def __init__(self, cables: tuple[Cable, ...], setup: Setup) -> None:
        super().__init__()
        self.namespaces = tuple(dict.fromkeys(ns for a, _, b, _ in cables for ns in (a, b)))
        self.interfaces = {}
        self.setup = {namespace: ("link set lo up", *setup[namespace]) for namespace in self.namespaces}
        self._cables = cables

    def connect(self) -> None:
        for cable in self._cables:
            self.cable(*cable)

    @property
    def etc(self) -> Path:
        """The edge's /etc, as its commands see it: the machine's own stays as it is."""
        return self.directory / "etc"

    def npd6(self, *words: str, read_only: str = "") -> subprocess.CompletedProcess[str]:
        """A command of the program on the edge; it can't write to the file `read_only`."""
        self.etc.mkdir(exist_ok=True)
        barrier = (
            f"mount --bind {read_only} {read_only} && mount -o remount,ro,bind {read_only} &&" if read_only else ""
        )
        script = f'mount --bind "$0" /etc && {barrier} exec "$@"'
        program = (sys.executable, "-m", "npd6_xdp")
        return self.run("edge", "sh", "-c", script, str(self.etc), *program, *words, env=dict(os.environ))

    def tell(self, namespace: Namespace, *lines: str) -> None:
        for line in lines:
            self.run(namespace, *line.split(), check=True)

    def ping(self, address: str, namespace: Namespace) -> bool:
        return self.run(namespace, "ping", "-6", "-n", "-c", "1", "-W", "1", address).returncode == 0

    def pings(self, address: str, namespace: Namespace) -> bool:
        """Whether it is reached, now or soon."""
        return until(lambda: self.ping(address, namespace))

    def default(self) -> list[str]:
        """The edge's default routes."""
        return self.run("edge", "ip", "-6", "route", "show", "default").stdout.splitlines()

    def sysctls(self) -> list[str]:
        """The edge's, of all forwarding and of eth0's accept_ra."""
        keys = ("net.ipv6.conf.all.forwarding", "net.ipv6.conf.eth0.accept_ra")
        return self.run("edge", "sysctl", "-n", *keys).stdout.split()

    def is_settled(self) -> bool:
        """Whether no address is tentative any more."""
        return not any(self.run(each, "ip", "-6", "address", "show", "tentative").stdout for each in self.namespaces)

    def text(self) -> str:
        """The configuration that was written."""
        return (self.etc / "npd6-xdp/npd6-xdp.toml").read_text()


@contextmanager
def scene(cables: tuple[Cable, ...], setup: Setup) -> Iterator[Bare]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Bare(cables, setup) as bare:
        assert until(bare.is_settled, 30.0)
        yield bare


def advertised(bare: Bare, prefix: str) -> list[str]:
    """The default route that router advertisements of the upstream give; they have a prefix, as radvd sends them."""
    advertisement: Packet = (
        Ether(src=UPSTREAM_MAC, dst="33:33:00:00:00:01")
        / IPv6(src=UPSTREAM, dst="ff02::1", hlim=255)
        / ICMPv6ND_RA(routerlifetime=1800)
        / ICMPv6NDOptPrefixInfo(prefix=prefix, prefixlen=64, L=1, A=1, validlifetime=7200, preferredlifetime=3600)
        / ICMPv6NDOptSrcLLAddr(lladdr=UPSTREAM_MAC)
    )
    with Wire(bare) as wire:

        def is_heard() -> bool:
            wire.send(bytes(advertisement))
            return bool(bare.default()) and bare.is_settled()

        assert until(is_heard)
    return bare.default()


def advised(said: str) -> tuple[list[str], list[str]]:
    """The commands that are to be given by hand: here, and on the hosts behind."""
    _, begins, rest = said.partition("npd6-xdp: by hand")
    lines = rest.partition("\nnpd6-xdp: ")[0].splitlines() if begins else []
    here = [line.strip() for line in lines if line.startswith("      ") and line[6] != " "]
    return here, [line.strip() for line in lines if line.startswith("        ")]


def ways_back(said: str) -> list[str]:
    """The commands that undo what was set."""
    return [line.strip() for line in said.partition("the way back:\n")[2].splitlines() if "sysctl -w" in line]


def from_nothing(bare: Bare, hosts: tuple[Namespace, ...] = ("host",)) -> str:
    """The one command, and what it advises; returns what it said."""
    done = bare.npd6("init", "--write", "--apply")
    print(bare.text() if done.returncode == 0 else done.stdout, done.stderr, sep="\n")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    here, there = advised(done.stderr)
    bare.tell("edge", *here)
    for host in hosts:
        bare.tell(host, *there)
    return done.stderr


def is_reached(bare: Bare, hosts: Mapping[str, tuple[Namespace, str]]) -> None:
    """With the daemon, each host is reached; hosts as {address: (who pings, the edge's interface there)}."""
    checked = bare.npd6("check")
    assert (checked.returncode, checked.stderr) == (0, ""), checked
    for address, (asker, interface) in hosts.items():
        explained = bare.npd6("explain", address, "--interface", interface).stdout
        assert "outcome: answered_xdp" in explained, explained
        assert not bare.ping(address, asker)
        bare.run(asker, "ip", "-6", "neigh", "flush", "all")
    with ExitStack() as stack:
        running = stack.enter_context(warm(bare, bare.text()))
        for address, (asker, _) in hosts.items():
            assert bare.pings(address, asker), f"{address} isn't reached by {asker}\n{running.log}"
        found = running.command("doctor", "--config", str(running.config_file))
        lines = [
            line for line in found.stdout.splitlines() if "neighbour" not in line or "table" not in line
        ]  # all namespaces share it
        assert found.returncode == 0, found.stdout
        assert not [line for line in lines if line.startswith(("fail", "warn"))], found.stdout


VPS: tuple[Cable, ...] = (
    ("upstream", "eth0", "edge", "eth0"),
    ("edge", "veth1", "host", "eth0"),
    ("edge", "veth2", "second", "eth0"),
)
CONTAINERS: Setup = {
    "host": ("link set eth0 up", "address add 2001:db8:1::10/64 dev eth0 nodad"),
    "second": ("link set eth0 up", "address add 2001:db8:1::11/128 dev eth0 nodad"),
}
VPS_UPSTREAM = (
    f"link set eth0 address {UPSTREAM_MAC} up",
    "address add 2001:db8:1::1/64 dev eth0 nodad",
)
VPS_BRIDGE = (
    "link add br0 type bridge",
    "link set veth1 master br0 up",
    "link set veth2 master br0 up",
    "link set br0 up",
)


def test_a_vps_with_one_on_link_64_and_two_containers_behind_a_bridge() -> None:
    edge = (
        "link set eth0 up",
        *VPS_BRIDGE,
        "address add 2001:db8:1::2/64 dev eth0 nodad",
        "route add default via 2001:db8:1::1 dev eth0",
    )
    with scene(VPS, {"upstream": VPS_UPSTREAM, "edge": edge, **CONTAINERS}) as bare:
        said = from_nothing(bare, ("host", "second"))
        assert "accept_ra" not in said, "the default route is no router advertisement's"
        is_reached(bare, {"2001:db8:1::10": ("upstream", "eth0"), "2001:db8:1::11": ("upstream", "eth0")})


def test_a_vps_with_the_networks_of_libvirt_and_podman_as_they_make_them() -> None:
    """Bridges by their names and with their addresses of IPv4; the second has a prefix of its own as well (ULA)."""
    edge = (
        "link set eth0 up",
        "link add virbr0 type bridge stp_state 1 forward_delay 200",
        "address add 192.168.122.1/24 brd 192.168.122.255 dev virbr0",
        "link add podman1 type bridge",
        "address add 10.89.0.1/24 brd 10.89.0.255 dev podman1",
        "address add fd00:abcd::1/64 dev podman1 nodad",
        "link set veth1 master virbr0 up",
        "link set veth2 master podman1 up",
        "link set virbr0 up",
        "link set podman1 up",
        "address add 2001:db8:1::2/64 dev eth0 nodad",
        "route add default via 2001:db8:1::1 dev eth0",
    )
    with scene(VPS, {"upstream": VPS_UPSTREAM, "edge": edge, **CONTAINERS}) as bare:
        # with its spanning tree on, a bridge forwards a few seconds later, and has no carrier until then
        assert until(lambda: bare.ip("edge", "link", "show", "dev", "virbr0")[0]["operstate"] == "UP")
        said = from_nothing(bare, ())
        networks: tuple[tuple[str, str, Namespace], ...] = (
            ("libvirt", "virbr0", "host"),
            ("Podman", "podman1", "second"),
        )
        for who, bridge, host in networks:
            assert f"{who} gives the hosts behind {bridge} their addresses" in said
            (link,) = bare.ip("edge", "-6", "address", "show", "dev", bridge, "scope", "link")
            (gateway,) = (each["local"] for each in link["addr_info"] if "local" in each)
            bare.tell(host, f"ip -6 route add default via {gateway} dev eth0")  # as it does with them
        text = bare.text()
        assert "a bridge of libvirt" in text
        assert "a bridge of Podman" in text
        assert "fd00:abcd::" not in "".join(line for line in text.splitlines() if not line.startswith("#"))
        is_reached(bare, {"2001:db8:1::10": ("upstream", "eth0"), "2001:db8:1::11": ("upstream", "eth0")})


def test_a_vps_whose_default_route_comes_by_router_advertisements_keeps_it() -> None:
    """accept_ra is 2 before forwarding is on; the other way round the kernel throws the route away."""
    edge = ("link set eth0 up", *VPS_BRIDGE)
    with scene(VPS, {"upstream": VPS_UPSTREAM, "edge": edge, **CONTAINERS}) as bare:
        (before,) = advertised(bare, "2001:db8:1::")
        assert "proto ra" in before
        refused = bare.npd6("init", "--apply", read_only="/proc/sys/net/ipv6/conf/eth0/accept_ra")
        assert refused.returncode == 1
        assert "can't set net/ipv6/conf/eth0/accept_ra to 2" in refused.stderr.splitlines()[-1]
        assert bare.sysctls() == ["0", "1"], "what is second waits for what is first"
        assert list(bare.etc.iterdir()) == []
        # what is done in part is said, with the way back from there
        (bare.etc / "sysctl.d").mkdir()
        for barrier, were in (("/proc/sys/net/ipv6/conf/all/forwarding", ["0", "2"]), ("/etc/sysctl.d", ["1", "2"])):
            refused = bare.npd6("init", "--apply", read_only=barrier)
            assert refused.returncode == 1
            assert bare.sysctls() == were
            assert "only until the next boot" in refused.stderr
            bare.tell("edge", *ways_back(refused.stderr))
            assert bare.sysctls() == ["0", "1"]
        (bare.etc / "sysctl.d/90-npd6-xdp.conf").write_text("# of somebody's\n")
        refused = bare.npd6("init", "--write", "--apply")
        assert (refused.returncode, bare.sysctls()) == (1, ["0", "1"]), "it is seen before anything is done"
        assert "add to it: net/ipv6/conf/eth0/accept_ra = 2" in refused.stderr
        assert not (bare.etc / "npd6-xdp").exists()
        (bare.etc / "sysctl.d/90-npd6-xdp.conf").unlink()
        said = from_nothing(bare, ("host", "second"))
        assert said.index("net/ipv6/conf/eth0/accept_ra = 2, was 1") < said.index("all.forwarding = 1, was 0")
        (after,) = bare.default()
        assert after.partition("expires")[0] == before.partition("expires")[0]
        kept = (bare.etc / "sysctl.d/90-npd6-xdp.conf").read_text()
        assert kept.index("net/ipv6/conf/eth0/accept_ra = 2\n") < kept.index("net.ipv6.conf.all.forwarding = 1\n")
        assert 'prefix = "interface:eth0"' in bare.text(), "the prefix may become another one"
        is_reached(bare, {"2001:db8:1::10": ("upstream", "eth0")})
        # once more: nothing is left to set, and no file is written over
        again = bare.npd6("init", "--write", "--apply")
        assert (again.returncode, again.stdout) == (1, "")
        assert again.stderr.startswith("npd6-xdp: /etc/npd6-xdp/npd6-xdp.toml is there already")
        assert again.stderr.endswith("; nothing was set either\n")
        assert again.stderr.count("\n") == 1
        bare.tell("edge", *ways_back(said))
        assert bare.sysctls() == ["0", "1"]


def test_a_default_route_that_forwarding_has_taken_away_comes_back_with_the_next_advertisement() -> None:
    edge = ("link set eth0 up", *VPS_BRIDGE)
    with scene(VPS, {"upstream": VPS_UPSTREAM, "edge": edge, **CONTAINERS}) as bare:
        assert advertised(bare, "2001:db8:1::")
        bare.sysctl("edge", "net/ipv6/conf/all/forwarding", 1)
        assert bare.default() == []
        done = bare.npd6("init", "--apply")
        assert (done.returncode, bare.sysctls()) == (0, ["1", "2"]), done.stderr
        assert advised(done.stderr)[0][0] == "rdisc6 -1 eth0", "asks for it"
        assert advertised(bare, "2001:db8:1::")


def test_where_nothing_is_behind_one_line_says_so_and_nothing_is_written_or_set() -> None:
    edge = (
        "link set wan0 up",
        "address add 2001:db8:1::2/64 dev wan0 nodad",
        f"route add default via {UPSTREAM} dev wan0",
    )
    cables: tuple[Cable, ...] = (("upstream", "eth0", "edge", "wan0"),)
    with scene(cables, {"upstream": VPS_UPSTREAM, "edge": edge}) as bare:
        done = bare.npd6("init", "--write", "--apply")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("npd6-xdp: nothing is behind wan0 that could have hosts of 2001:db8:1::/64")
        assert done.stderr.count("\n") == 1
        assert list(bare.etc.iterdir()) == []
        assert bare.run("edge", "sysctl", "-n", "net.ipv6.conf.all.forwarding").stdout == "0\n"


HOME: tuple[Cable, ...] = (("upstream", "eth0", "edge", "wan0"), ("edge", "lan0", "host", "eth0"))


def test_one_64_that_is_routed_behind_and_that_the_upstream_believes_on_its_link() -> None:
    setup: Setup = {
        "upstream": (
            *VPS_UPSTREAM[:1],
            "address add 2001:db8::1/64 dev eth0 nodad",
            "route add 2001:db8:1::/64 dev eth0",
        ),
        "edge": (
            "link set wan0 up",
            "link set lan0 up",
            "address add 2001:db8::2/64 dev wan0 nodad",
            "address add 2001:db8:1::1/64 dev lan0 nodad",
            "route add default via 2001:db8::1 dev wan0",
        ),
        "host": ("link set eth0 up", "address add 2001:db8:1::42/64 dev eth0 nodad"),
    }
    with scene(HOME, setup) as bare:
        from_nothing(bare)
        assert 'prefix = "2001:db8:1::/64"\nmethod = "route"\nvia = ["lan0"]\n' in bare.text()
        is_reached(bare, {"2001:db8:1::42": ("upstream", "wan0")})


def test_the_same_64_on_both_sides() -> None:
    setup: Setup = {
        "upstream": VPS_UPSTREAM,
        "edge": (
            "link set lan0 up",
            "link set wan0 up",
            "address add 2001:db8:1::3/64 dev lan0 nodad",  # before the uplink's: the kernel prefers its route
            "address add 2001:db8:1::2/64 dev wan0 nodad",
            f"route add default via {UPSTREAM} dev wan0",
        ),
        "host": ("link set eth0 up", "address add 2001:db8:1::42/64 dev eth0 nodad"),
    }
    with scene(HOME, setup) as bare:
        said = from_nothing(bare)
        assert "ip -6 address change 2001:db8:1::3/64 dev lan0 noprefixroute" in said
        routes = bare.run("edge", "ip", "-6", "route", "show", "2001:db8:1::/64").stdout.splitlines()
        assert [line.split()[2] for line in routes] == ["wan0"], "the advice has left one of the two"
        is_reached(bare, {"2001:db8:1::42": ("upstream", "wan0")})


def test_a_delegated_prefix() -> None:
    setup: Setup = {
        "upstream": (*VPS_UPSTREAM, "route add 2001:db8:100::/56 dev eth0"),
        "edge": ("link set wan0 up", "link set lan0 up"),
        "host": ("link set eth0 up", "address add 2001:db8:100:1::42/64 dev eth0 nodad"),
    }
    with scene(HOME, setup) as bare:
        assert advertised(bare, "2001:db8:1::")
        # as a DHCPv6 client does with what it was given
        bare.tell(
            "edge",
            "ip route add unreachable 2001:db8:100::/56 dev lo proto dhcp",
            "ip address add 2001:db8:100:1::1/64 dev lan0 valid_lft 7200 preferred_lft 3600",
        )
        assert until(bare.is_settled, 30.0)
        from_nothing(bare)
        assert 'prefix = "interface:lan0"\nmethod = "route"\nvia = ["lan0"]\n' in bare.text()
        assert bare.default(), "it came by a router advertisement"
        is_reached(bare, {"2001:db8:100:1::42": ("upstream", "wan0")})


def test_two_uplinks_each_with_a_64_of_its_own_and_a_prefix_behind_both() -> None:
    cables: tuple[Cable, ...] = (*HOME, ("switch", "eth0", "edge", "wan1"))
    setup: Setup = {
        "upstream": (
            *VPS_UPSTREAM[:1],
            "address add 2001:db8:a::1/64 dev eth0 nodad",
            "route add 2001:db8:1::/64 dev eth0",
        ),
        "switch": (
            "link set eth0 up",
            "address add 2001:db8:b::1/64 dev eth0 nodad",
            "route add 2001:db8:1::/64 dev eth0",
        ),
        "edge": (
            *(f"link set {name} up" for name in ("wan0", "wan1", "lan0")),
            "address add 2001:db8:a::2/64 dev wan0 nodad",
            "address add 2001:db8:b::2/64 dev wan1 nodad",
            "address add 2001:db8:1::1/64 dev lan0 nodad",
            "route add default via 2001:db8:a::1 dev wan0 metric 100",
            "route add default via 2001:db8:b::1 dev wan1 metric 200",
        ),
        "host": (
            "link set eth0 up",
            "address add 2001:db8:1::42/64 dev eth0 nodad",
        ),
    }
    with scene(cables, setup) as bare:
        said = from_nothing(bare)
        assert "2 uplinks" in bare.text()
        assert said
        is_reached(bare, {"2001:db8:1::42": ("upstream", "wan0")})
        with warm(bare, bare.text()):
            assert bare.pings("2001:db8:1::42", "switch")
