# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel no longer has: the program, the hold on multicast, groups, the interface itself. All comes back."""

from __future__ import annotations

import ctypes
import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_ADDRESS, EDGE_WAN_MAC, HOST_ADDRESS, UPSTREAM_ADDRESS, Topology
from npd6_xdp.system.bpf.compiler import load_bcc
from npd6_xdp.system.netlink.links import Netlink
from tests.netns.verb import verb
from tests.netns.wire import Asker, Wire, configuration, on_edge, paused, until

Start = Callable[..., RunningDaemon]

RULES = ("2001:db8:1::/64 static", "2001:db8:7::42 static")
INDEX = 777
GROUP = "ff02::1:ff00:42"  # of the second
SOON = 15.0  # seconds: a round of looks takes five, and others use this machine, too
UP = ("npd6_interface_up", frozenset({("interface", "wan0")}))
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438
_libc = ctypes.CDLL(None, use_errno=True)


def force_off(running: RunningDaemon) -> None:
    """As `bpftool link detach` does."""
    lib = load_bcc().lib
    for path in Path(f"/proc/{running.process.pid}/fdinfo").iterdir():
        if number := re.search(r"^link_id:\s*(\d+)", path.read_text(), re.MULTILINE):
            link = lib.bpf_link_get_fd_by_id(int(number[1]))
            assert lib.bpf_link_detach(link) == 0
            os.close(link)


def foreign_program_on_wan0(topology: Topology) -> None:
    topology.xdp_pass("edge", "wan0")


def packet_sockets(topology: Topology, running: RunningDaemon) -> Iterator[socket.socket]:
    """The daemon's own, in this process's hands, too."""
    with topology.inside("edge"):
        lines = Path("/proc/thread-self/net/packet").read_text().splitlines()[1:]
    names = {f"socket:[{line.split()[8]}]" for line in lines}
    pid = running.process.pid
    process = _libc.syscall(_PIDFD_OPEN, pid, 0)
    for path in Path(f"/proc/{pid}/fd").iterdir():
        if str(path.readlink()) in names:
            with socket.socket(fileno=_libc.syscall(_PIDFD_GETFD, process, int(path.name), 0)) as found:
                yield found
    os.close(process)


def link(topology: Topology) -> dict[str, object]:
    (found,) = topology.ip("edge", "link", "show", "dev", "wan0")
    return found


def groups(topology: Topology) -> set[str]:
    found = topology.ip("edge", "-6", "maddress", "show", "dev", "wan0")
    return {group["address"] for each in found for group in each["maddr"] if "address" in group}


def is_whole(topology: Topology) -> bool:
    """Whether program, hold and group are there."""
    return (
        topology.attach_mode("edge", "wan0") is not None
        and link(topology)["allmulti"] == 1
        and GROUP in groups(topology)
    )


@pytest.mark.parametrize("mode", ["generic", "native"])
def test_a_program_that_is_taken_off_by_force_is_put_back(topology: Topology, daemon: Start, mode: str) -> None:
    topology.xdp_pass("upstream", "eth0")  # what native XDP_TX over veth needs
    running = daemon(configuration(*RULES, attach=f'"{mode}"'))
    with paused(running):
        force_off(running)
        assert topology.xdp_mode("edge", "wan0") is None
    assert until(lambda: topology.xdp_mode("edge", "wan0") == mode, SOON)
    with Wire(topology) as wire:
        assert Asker(wire, running).answered(HOST_ADDRESS)
    assert until(lambda: "wan0: another process has detached the XDP program; attaching it again" in running.log)
    assert is_whole(topology)


def test_where_another_program_has_taken_its_place_the_port_is_down_until_that_is_gone(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(configuration(*RULES, attach='"generic"'))
    with paused(running):
        force_off(running)
        foreign_program_on_wan0(topology)
    assert until(lambda: running.metrics()[UP] == 0, SOON)
    assert until(lambda: "wan0: another XDP program is attached in native mode" in running.log)
    with topology.inside("edge"):
        health = verb(running, "status").stdout
    assert "wan0: not attached, datapath hybrid, down" in health
    topology.xdp_pass_end()
    assert until(lambda: running.metrics()[UP] == 1, SOON)


def test_a_hold_on_multicast_that_the_kernel_has_dropped_is_taken_again(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(*RULES))
    assert link(topology)["allmulti"] == 1
    with topology.inside("edge"):
        membership = struct.pack("=iHH8s", socket.if_nametoindex("wan0"), 2, 0, b"")
    with paused(running):
        for each in packet_sockets(topology, running):
            each.setsockopt(263, 2, membership)  # SOL_PACKET, PACKET_DROP_MEMBERSHIP
        assert link(topology)["allmulti"] == 0
    assert until(lambda: link(topology)["allmulti"] == 1, SOON)
    assert until(lambda: "wan0: the kernel had dropped its hold on all multicast frames" in running.log)
    running.stop()
    assert link(topology)["allmulti"] == 0, "once only"


def make_anew(topology: Topology) -> None:
    """wan0 with an index that no namespace has."""
    peer = f"peer name eth0 netns {topology.name('upstream')}"
    on_edge(topology, "link del wan0", f"link add wan0 index {INDEX} address {EDGE_WAN_MAC} type veth {peer}")
    for words in ("link set eth0 up", f"address add {UPSTREAM_ADDRESS}/64 dev eth0 nodad"):
        topology.run("upstream", "ip", *words.split(), check=True)


@pytest.mark.parametrize(
    ("how", "datapath", "attach"),
    [
        ("moved", "python", "auto"),
        ("made anew", "hybrid", "auto"),
        ("moved", "hybrid", "auto"),
        ("made anew", "python", "tc"),
        ("moved", "hybrid", "tc"),
    ],
)
def test_an_interface_with_the_same_index_is_attached_to_anew_though_the_loop_was_busy(
    topology: Topology, daemon: Start, how: str, datapath: str, attach: str
) -> None:
    make_anew(topology)
    on_edge(topology, "link set wan0 up")
    running = daemon(configuration(*RULES, datapath=f'"{datapath}"', attach=f'"{attach}"'))
    with paused(running):
        if how == "moved":
            on_edge(topology, f"link set wan0 netns {topology.name('host')}")
            topology.run("host", "ip", "link", "set", "wan0", "netns", topology.name("edge"), check=True)
        else:
            make_anew(topology)
        on_edge(topology, "link set wan0 up", f"address add {EDGE_WAN_ADDRESS}/64 dev wan0 nodad")
        assert link(topology)["ifindex"] == INDEX
    assert until(lambda: is_whole(topology), SOON)
    with Wire(topology) as wire:
        assert until(lambda: Asker(wire, running).answered(HOST_ADDRESS), SOON)
    assert running.metrics()[UP] == 1
    assert until(lambda: "wan0: the interface is gone, and another has its name" in running.log)
    assert "another process has detached" not in running.log
    running.stop()
    assert link(topology)["allmulti"] == 0
    assert GROUP not in groups(topology)
    assert topology.attach_mode("edge", "wan0") is None


@pytest.mark.parametrize(
    ("take", "give"),
    [
        (("ip link set wan0 mtu 1279",), ("ip link set wan0 mtu 1500",)),
        (("sysctl -qw net.ipv6.conf.wan0.disable_ipv6=1",), ("sysctl -qw net.ipv6.conf.wan0.disable_ipv6=0",)),
        (("ip link set wan0 down",), ("ip link set wan0 up",)),
    ],
    ids=["MTU", "disable_ipv6", "down"],
)
def test_groups_are_there_again_once_the_interface_has_ipv6_again(
    topology: Topology, daemon: Start, take: tuple[str], give: tuple[str]
) -> None:
    """(On 0665297 it held already, but for the MTU.)"""
    running = daemon(configuration(*RULES))
    assert GROUP in groups(topology)
    topology.run("edge", *take[0].split(), check=True)
    if "mtu" in take[0]:
        assert GROUP not in groups(topology), "the kernel has dropped it"
        assert until(
            lambda: "wan0: the kernel doesn't join 1 of the solicited-node groups (Invalid" in running.log, SOON
        )
    topology.run("edge", *give[0].split(), check=True)
    assert until(lambda: GROUP in groups(topology), SOON)
    assert "optmem_max" not in running.log
    running.stop()
    assert GROUP not in groups(topology)


def test_a_start_on_an_interface_without_ipv6_says_so_by_its_name_and_joins_when_it_has(
    topology: Topology, daemon: Start
) -> None:
    on_edge(topology, "link set wan0 mtu 1279")
    running = daemon(configuration(*RULES))
    (line,) = [line for line in running.log.splitlines() if "solicited-node" in line]
    assert line == (
        "npd6-xdp: warning: wan0: the kernel doesn't join 1 of the solicited-node groups (Invalid argument: it has no"
        " IPv6 now (an MTU below 1280, say); tried again when it has); switches with MLD snooping may keep their"
        " solicitations"
    )
    on_edge(topology, "link set wan0 mtu 1500")
    assert until(lambda: GROUP in groups(topology), SOON)


def test_a_link_has_another_generation_when_it_is_another_or_was_away(topology: Topology) -> None:
    with topology.inside("edge"), closing(Netlink()) as netlink:

        def generation(name: str) -> int:
            netlink.on_change()
            return netlink.facts(lambda _: frozenset())[name].generation

        before, other = generation("wan0"), generation("lan0")
        index = socket.if_nametoindex("wan0")
        on_edge(topology, "link set wan0 mtu 1400", "link set wan0 down", "link set wan0 up")
        assert generation("wan0") == before, "a change is no other link"
        on_edge(topology, f"link set wan0 netns {topology.name('host')}")
        topology.run("host", "ip", "link", "set", "wan0", "netns", topology.name("edge"), check=True)
        assert (moved := generation("wan0")) != before
        on_edge(topology, "link del wan0", f"link add wan0 index {index} type veth peer name wan0p")
        assert netlink.on_change(), "though all that is said of it may be as before"
        assert generation("wan0") not in (before, moved)
        assert generation("lan0") == other
        with closing(Netlink(netlink)) as successor:
            assert successor.facts(lambda _: frozenset())["wan0"].generation == generation("wan0")
            assert successor.losses == netlink.losses + 1
