# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's ground: it stands as described, and nothing of it outlives its process for long."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.lab import topology as lab
from npd6_xdp.lab.capture import Capture
from npd6_xdp.lab.daemon import RunningDaemon, StartError
from npd6_xdp.lab.topology import Stopped, Topology
from tests.netns.wire import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

BUILD_AND_WAIT = """
import time
from npd6_xdp.lab.topology import Topology
with Topology() as topology:
    topology.popen("host", "sleep", "1000")
    print(topology.label, flush=True)
    time.sleep(60)
"""


def left_of(label: str) -> list[str]:
    """What of a topology is still there: namespaces, files."""
    places = (Path("/run/netns"), Path("/run"))
    return sorted(str(path) for place in places if place.exists() for path in place.glob(f"{label}*"))


def build_in_a_child() -> tuple[subprocess.Popen[str], str]:
    """Another process with a topology: the process and the topology's label."""
    child = subprocess.Popen(
        [sys.executable, "-c", BUILD_AND_WAIT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(lab.__file__).parents[2],
    )
    assert child.stdout
    label = child.stdout.readline().strip()
    assert label.startswith(f"npd6-{child.pid}-")
    assert len(left_of(label)) == 4
    assert until(lambda: len(sleepers(label)) == 1)
    return child, label


def sleepers(label: str) -> list[Path]:
    """The processes that a child of build_in_a_child() started in its namespace."""
    try:
        namespace = Path(f"/run/netns/{label}-host").stat()
    except FileNotFoundError:
        return []
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/net").stat().st_ino == namespace.st_ino:
                found.append(process)
        except OSError:
            continue  # ended meanwhile
    return found


def test_edge_reaches_both_sides(topology: Topology) -> None:
    for address in (lab.UPSTREAM_ADDRESS, lab.HOST_ADDRESS):
        ping = topology.run("edge", "ping", "-6", "-n", "-c", "1", "-W", "2", address)
        assert ping.returncode == 0, ping.stdout


def test_edge_forwards_from_the_host_to_the_upstream(topology: Topology) -> None:
    # The upstream is told the host's MAC address, so the answer needs no resolution.
    topology.ip("upstream", "neigh", "add", lab.HOST_ADDRESS, "lladdr", lab.EDGE_WAN_MAC, "dev", "eth0")
    ping = topology.run("host", "ping", "-6", "-n", "-c", "1", "-W", "2", lab.UPSTREAM_ADDRESS)
    assert ping.returncode == 0, ping.stdout


def test_host_is_unreachable_from_the_upstream_without_a_daemon(topology: Topology) -> None:
    ping = topology.run("upstream", "ping", "-6", "-n", "-c", "1", "-W", "5", lab.HOST_ADDRESS)
    assert ping.returncode == 1
    assert "Address unreachable" in ping.stdout
    entry = topology.neighbour("upstream", "eth0", lab.HOST_ADDRESS)
    assert entry in (lab.Neighbour("FAILED", None), None), "or has the kernel thrown it out already"


@pytest.mark.parametrize(
    ("namespace", "interface", "mac"),
    [
        ("upstream", "eth0", lab.UPSTREAM_MAC),
        ("edge", "wan0", lab.EDGE_WAN_MAC),
        ("edge", "lan0", lab.EDGE_LAN_MAC),
        ("host", "eth0", lab.HOST_MAC),
    ],
)
def test_interfaces_have_the_macs_that_the_module_says(
    topology: Topology, namespace: lab.Namespace, interface: str, mac: str
) -> None:
    (link,) = topology.ip(namespace, "link", "show", "dev", interface)
    assert link["address"] == mac


def test_no_address_is_tentative_and_later_ones_are_checked_for_duplicates(topology: Topology) -> None:
    (link,) = topology.ip("upstream", "-6", "address", "show", "dev", "eth0")
    assert not any(address.get("tentative") for address in link["addr_info"])
    topology.sysctl("upstream", "net/ipv6/neigh/eth0/retrans_time_ms", 60_000)  # how long it is tentative
    topology.ip("upstream", "address", "add", "2001:db8::99/64", "dev", "eth0")
    (link,) = topology.ip("upstream", "-6", "address", "show", "dev", "eth0", "to", "2001:db8::99")
    assert link["addr_info"][0]["tentative"]


def test_two_topologies_stand_side_by_side() -> None:
    with Topology() as one, Topology() as other:
        assert one.name("edge") != other.name("edge")
        assert one.run("edge", "ip", "link", "show", "dev", "wan0").returncode == 0
        assert other.run("edge", "ip", "link", "show", "dev", "wan0").returncode == 0


def test_inside_moves_the_calling_thread_only(topology: Topology) -> None:
    def interfaces() -> set[str]:
        return {name for _, name in socket.if_nameindex()}

    home = interfaces()
    with ThreadPoolExecutor(1) as other_thread:
        assert other_thread.submit(interfaces).result() == home
        with topology.inside("edge"):
            assert interfaces() == {"lo", "wan0", "lan0"}
            assert other_thread.submit(interfaces).result() == home
        assert interfaces() == home


def test_inside_comes_back_after_an_exception(topology: Topology) -> None:
    home = Path("/proc/thread-self/ns/net").readlink()
    with pytest.raises(ZeroDivisionError), topology.inside("edge"):
        _ = 1 / 0
    assert Path("/proc/thread-self/ns/net").readlink() == home


def test_xdp_pass_sits_natively_and_lets_everything_through(topology: Topology) -> None:
    assert topology.xdp_mode("upstream", "eth0") is None
    topology.xdp_pass("upstream", "eth0")
    assert topology.xdp_mode("upstream", "eth0") == "native"
    ping = topology.run("edge", "ping", "-6", "-n", "-c", "1", "-W", "2", lab.UPSTREAM_ADDRESS)
    assert ping.returncode == 0, ping.stdout


def test_a_command_that_fails_or_takes_too_long_is_told_in_one_line(topology: Topology) -> None:
    with pytest.raises(MachineError, match=r"ip link show dev nope.* exit status 1: .*nope"):
        topology.run("edge", "ip", "link", "show", "dev", "nope", check=True)
    with pytest.raises(MachineError, match=r"sleep 9: not done after 0 s"):
        topology.run("edge", "sleep", "9", timeout=0.1)


def test_nothing_is_left_after_the_block() -> None:
    with Topology() as topology:
        sleeper = topology.popen("host", "sleep", "1000")
        assert len(left_of(topology.label)) == 4
    assert left_of(topology.label) == []
    assert sleeper.poll() == -signal.SIGKILL


def test_nothing_is_left_after_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), Topology() as topology:
        _ = 1 / 0
    assert left_of(topology.label) == []


def test_nothing_is_left_when_building_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lab._SETUP, "host", ("link set lo up", "address add nonsense dev eth0"))
    topology = Topology()
    with pytest.raises(MachineError, match="nonsense"), topology:
        pytest.fail("it was built")
    assert left_of(topology.label) == []


def test_signal_handlers_are_put_back() -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(Stopped), Topology():
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_after_a_signal(signum: signal.Signals) -> None:
    child, label = build_in_a_child()
    child.send_signal(signum)
    child.communicate(timeout=60)
    assert child.returncode != 0
    assert left_of(label) == []


@pytest.mark.alone
def test_what_a_killed_process_left_is_swept_by_the_next_topology() -> None:
    child, label = build_in_a_child()
    child.kill()
    child.communicate(timeout=60)
    assert len(left_of(label)) == 4
    (sleeper,) = sleepers(label)
    with Topology():
        assert left_of(label) == []
    # Its parent is dead, so whether it is reaped at once is up to init.
    assert not (sleeper / "exe").exists()


def test_a_living_process_is_not_swept() -> None:
    child, label = build_in_a_child()
    try:
        lab.sweep()
        assert len(left_of(label)) == 4
        assert len(sleepers(label)) == 1
    finally:
        child.terminate()
        child.communicate(timeout=60)


def test_capture_sees_who_asks_and_who_answers(topology: Topology) -> None:
    with Capture(topology, "upstream", "eth0") as capture:
        topology.run("edge", "ping", "-6", "-n", "-c", "1", "-W", "2", lab.UPSTREAM_ADDRESS)
    (exchange,) = (
        each for each in capture.exchanges(lab.EDGE_WAN_MAC) if each.solicitation.target == lab.UPSTREAM_ADDRESS
    )
    asked, answer = exchange.solicitation, exchange.advertisement
    assert answer is not None
    assert (asked.eth_source, asked.link_layer_address) == (lab.EDGE_WAN_MAC, lab.EDGE_WAN_MAC)
    assert (answer.eth_source, answer.eth_destination) == (lab.UPSTREAM_MAC, lab.EDGE_WAN_MAC)
    assert (answer.source, answer.link_layer_address) == (lab.UPSTREAM_ADDRESS, lab.UPSTREAM_MAC)
    assert (answer.solicited, answer.override, answer.hop_limit) == (1, 1, 255)
    assert asked.checksum_right
    assert answer.checksum_right
    assert 0 <= exchange.seconds < 60


def test_a_daemon_that_ends_at_once_is_told_with_its_log(daemon: Callable[..., RunningDaemon]) -> None:
    began = time.monotonic()
    with pytest.raises(StartError, match="exit status 3") as caught:
        daemon("", program=("sh", "-c", "echo already gone >&2; exit 3", "--"))
    assert caught.value.log == "already gone\n"
    assert time.monotonic() - began < 15


def test_a_daemon_that_never_gets_ready_is_killed(daemon: Callable[..., RunningDaemon]) -> None:
    with pytest.raises(StartError, match="not ready within 0 s"):
        daemon("", program=("sh", "-c", "echo not yet >&2; exec sleep 1000", "--"), timeout=0.3)


def test_a_daemon_that_ignores_sigterm_is_killed(daemon: Callable[..., RunningDaemon]) -> None:
    stubborn = daemon("", program=("sh", "-c", "trap '' TERM; echo ready: 1 rule >&2; while :; do sleep 1; done", "--"))
    assert stubborn.stop(timeout=0.3) == -signal.SIGKILL
