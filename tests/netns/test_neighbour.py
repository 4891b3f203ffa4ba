# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour`: a target is there if the kernel's neighbour table has it behind a via interface."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.core.rtnetlink import PROTOCOL
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_LAN_ADDRESS, HOST_ADDRESS, HOST_MAC, Topology
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.tools.control import ask
from tests.frames import ether, ip6
from tests.kinds import solicit
from tests.netns.verb import verb
from tests.netns.wire import (
    LATE,
    SETTING,
    Asker,
    Wire,
    became,
    configuration,
    cpu_seconds,
    on_edge,
    private_megabytes,
    question,
    says,
    scan,
    until,
)

Start = Callable[..., RunningDaemon]

RULE = "2001:db8:1::/64 neighbour via=lan0"
SHARED = "2001:db8::77"  # the host's, in the prefix that is on-link at the upstream, too

UPSTREAMS = "2001:db8::78"  # the upstream's own, in the same prefix

both = pytest.mark.parametrize(
    ("datapath", "answered"), [("hybrid", "answered_xdp"), ("python", "answered_python")], ids=["hybrid", "python"]
)


def state(topology: Topology, address: str = HOST_ADDRESS) -> str:
    found = topology.neighbour("edge", "lan0", address)
    return found.state if found else ""


def is_known_as(running: RunningDaemon, state: str) -> bool:
    """Whether the daemon has heard that the one host is in a state."""
    return [each["state"] for each in ask(running.control, {"verb": "status"})["neighbours"]] == [state]


def quicken(topology: Topology) -> None:
    """Have the edge's kernel age its neighbours in one or two seconds, not in half a minute, and probe them at once."""
    for key, value in (("base_reachable_time_ms", 1500), ("delay_first_probe_time", 0), ("retrans_time_ms", 200)):
        topology.sysctl("edge", f"net/ipv6/neigh/lan0/{key}", value)


@both
def test_who_is_resolved_is_answered_and_who_is_not_is_resolved_first(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    running = daemon(configuration(RULE, datapath=f'"{datapath}"'))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert state(topology) == ""
        assert asker.answered(HOST_ADDRESS, LATE)
        assert state(topology) == "REACHABLE"
        assert running.solicitations() == {"pending": 1}
        assert asker.outcome(HOST_ADDRESS) == answered
        assert asker.outcome("2001:db8:1::dead") == "pending"
        assert not asker.answered("2001:db8:1::dead", 0.3)
        assert asker.outcome(EDGE_LAN_ADDRESS) == answered, "the edge's own, on the other side"
        metrics = running.metrics()
        assert metrics["npd6_neighbours", frozenset({("interface", "lan0")})] == 1
        path = frozenset({("interface", "wan0"), ("path", "python")})
        python = running.solicitations().get("answered_python", 0)
        assert metrics["npd6_advertisements_total", path] == 1 + python, "the late answer is an advertisement"
    done = topology.run("upstream", "ping", "-6", "-n", "-c", "2", "-i", "0.2", "-W", "3", HOST_ADDRESS)
    assert done.returncode == 0, done.stdout


@pytest.mark.needs_table
@both
def test_three_who_ask_at_once_for_an_unresolved_host_each_get_their_answer(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    daemon(configuration(RULE, datapath=f'"{datapath}"'))
    topology.sysctl("edge", "net/ipv6/neigh/lan0/mcast_solicit", 30)  # it goes on looking for the host
    askers = [
        (ether(f"02:00:00:00:01:{number:02x}"), ip6(f"2001:db8::1:{number:x}"), ip6(f"fe80::1:{number:x}"))
        for number in (1, 2, 3)
    ]
    took: list[float] = []
    with Wire(topology) as wire, Wire(topology, "edge", "lan0") as lan:
        for number in range(5):  # others use this machine, too
            host = f"2001:db8:1::7{number}"
            for mac, source, link_local in askers:
                asker = replace(SETTING, asker_mac=mac, asker_global=source, asker_link_local=link_local)
                wire.send(solicit(replace(asker, target=ip6(host)), source=source))
            assert wire.advertisements(0.3) == [], "the host isn't there yet"
            topology.run("host", "ip", "addr", "add", f"{host}/128", "dev", "eth0", "nodad", check=True)
            assert any(is_advertisement_of(frame, host) for frame in lan.received(LATE)), "it is there"
            began = time.monotonic()
            answers = wire.advertisements(LATE, enough=3)
            took.append(time.monotonic() - began)
            assert {answer[:6] for answer in answers} == {mac for mac, _, _ in askers}
            assert {NeighborAdvertisement.parse(answer).destination for answer in answers} == {
                source for _, source, _ in askers
            }
            if took[-1] < 0.5:
                break
    assert min(took) < 0.5, "not a second later, when they ask again"


def is_advertisement_of(frame: bytes, address: str) -> bool:
    return frame[12:14] == b"\x86\xdd" and frame[54:55] == b"\x88" and frame[62:78] == ip6(address)


@both
def test_a_host_that_leaves_is_answered_until_the_kernels_entry_fails(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    quicken(topology)
    running = daemon(configuration(RULE, datapath=f'"{datapath}"'))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.answered(HOST_ADDRESS, LATE)
        topology.run("host", "ip", "addr", "del", f"{HOST_ADDRESS}/64", "dev", "eth0", check=True)
        assert until(lambda: is_known_as(running, "stale"), 8.0)
        assert asker.answered(HOST_ADDRESS, LATE), "stale is there, and asking has it probed"
        assert until(lambda: state(topology) in ("FAILED", ""), 8.0)
        known = ("npd6_neighbours", frozenset({("interface", "lan0")}))
        assert until(lambda: running.metrics().get(known, 0) == 0)
        assert not asker.answered(HOST_ADDRESS)
        # who had asked last may still be waited for, in vain
        assert until(lambda: ask(running.control, {"verb": "status"})["pending"] == [])
        topology.run("host", "ip", "addr", "add", f"{HOST_ADDRESS}/64", "dev", "eth0", "nodad", check=True)
        assert asker.answered(HOST_ADDRESS, LATE), "it came back"


@both
def test_a_host_that_stays_is_confirmed_when_it_is_asked_for(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    quicken(topology)
    running = daemon(configuration(RULE, datapath=f'"{datapath}"'))
    with Wire(topology) as wire, Wire(topology, "edge", "lan0") as lan:
        asker = Asker(wire, running)
        assert asker.answered(HOST_ADDRESS, LATE)
        for _ in range(2):
            assert until(lambda: is_known_as(running, "stale"), 8.0)
            lan.waiting()
            assert asker.answered(HOST_ADDRESS, LATE)
            # by which it is reachable again, though for a second only
            assert any(is_advertisement_of(frame, HOST_ADDRESS) for frame in lan.received(LATE))
            assert asker.answered(HOST_ADDRESS, LATE)


def test_an_unplugged_host_is_silent_at_once(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(RULE))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.answered(HOST_ADDRESS, LATE)
        topology.run("host", "ip", "link", "set", "eth0", "down", check=True)
        assert until(lambda: not asker.answered(HOST_ADDRESS, 0.05), 1.0)
        topology.run("host", "ip", "link", "set", "eth0", "up", check=True)
        topology.run("host", "ip", "addr", "replace", f"{HOST_ADDRESS}/64", "dev", "eth0", "nodad", check=True)
        assert until(lambda: asker.answered(HOST_ADDRESS, 1.0), 5.0)


@both
def test_with_the_same_64_on_both_sides_host_routes_lead_to_who_is_behind_us(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    topology.run("host", "ip", "addr", "add", f"{SHARED}/128", "dev", "eth0", "nodad", check=True)
    topology.run("upstream", "ip", "addr", "add", f"{UPSTREAMS}/64", "dev", "eth0", "nodad", check=True)
    text = "[limits]\nhost_route_keep = 0\n" + configuration(
        "2001:db8::/64 neighbour via=lan0 host_routes=true", datapath=f'"{datapath}"'
    )

    def routes() -> list[str]:
        found = topology.ip("edge", "-6", "route", "show", "proto", str(PROTOCOL))
        return [f"{route['dst']} {route['dev']}" for route in found]

    def ping() -> bool:
        done = topology.run("upstream", "ping", "-6", "-n", "-c", "2", "-i", "0.2", "-W", "3", SHARED)
        return done.returncode == 0

    topology.sysctl("upstream", "net/ipv6/neigh/eth0/retrans_time_ms", 200)  # it gives up in 0.6 s
    assert not ping()
    topology.sysctl("upstream", "net/ipv6/neigh/eth0/retrans_time_ms", 1000)
    running = daemon(text)
    assert routes() == []
    assert ping()
    assert routes() == [f"{SHARED} lan0"]
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.outcome(UPSTREAMS) in ("pending", "absent"), "absent where the kernel has met it upstream"
        assert not asker.answered(UPSTREAMS, 0.2), "a host of the upstream's side, not one behind us"
    # a successor of one that was killed cleans up what it left, and keeps what is still true
    running.kill()
    assert routes() == [f"{SHARED} lan0"]
    on_edge(topology, f"-6 route add 2001:db8::99/128 dev lan0 proto {PROTOCOL}")
    running = daemon(text)
    assert routes() == [f"{SHARED} lan0"]
    assert ping()
    # the host leaves
    topology.run("host", "ip", "link", "set", "eth0", "down", check=True)
    assert until(lambda: routes() == [], 2.0)
    topology.run("host", "ip", "link", "set", "eth0", "up", check=True)
    topology.run("host", "ip", "addr", "replace", f"{SHARED}/128", "dev", "eth0", "nodad", check=True)
    topology.run("host", "ip", "-6", "route", "replace", "default", "via", EDGE_LAN_ADDRESS, "dev", "eth0", "onlink")
    # the upstream still believes in it, and so doesn't ask again; but the host is heard of when it speaks
    assert until(
        lambda: topology.run("host", "ping", "-6", "-c", "1", "-W", "1", EDGE_LAN_ADDRESS).returncode == 0, 5.0
    )
    assert until(ping, 2.0)
    assert running.stop() == 0
    assert routes() == []


@both
def test_a_probe_of_duplicate_address_detection_is_answered_for_who_is_there(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    running = daemon(configuration(RULE, datapath=f'"{datapath}"', dad='"defend"'))
    with Wire(topology) as wire:
        dad = question(HOST_ADDRESS, source=bytes(16), options=b"")
        for _ in range(2):  # resolved first, then known
            answer = wire.ask(dad)
            assert answer is not None
            na = NeighborAdvertisement.parse(answer)
            assert (na.solicited, na.destination) == (False, ip6("ff02::1"))
        assert wire.ask(question("2001:db8:1::dead", source=bytes(16), options=b""), 0.3) is None
    assert running.solicitations() == {"pending": 2, "answered_python": 1}


def test_monitor_resolves_nothing(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(RULE, datapath='"monitor"'))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.outcome(HOST_ADDRESS) == "monitored"
        assert state(topology) == ""


def test_a_via_interface_that_is_not_there_is_waited_for(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:1::/64 neighbour via=lan7,lan0", "2001:db8:2::/64 neighbour via=lan7"))
    assert until(lambda: "via lan7: no such interface" in running.log)
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.answered(HOST_ADDRESS, LATE)
        assert asker.outcome("2001:db8:2::1") == "absent"
        on_edge(
            topology,
            "link add lan7 type veth peer name lan7p",
            "link set lan7 up",
            "link set lan7p up",
            "-6 neigh add 2001:db8:2::1 lladdr 02:00:00:00:00:99 dev lan7 nud permanent",
        )
        assert until(lambda: asker.answered("2001:db8:2::1"), 2.0)


def thresholds() -> tuple[int, int, int]:
    """The kernel's gc_thresh1, 2 and 3, which hold for all namespaces together."""
    with closing(Requests()) as requests:
        size = requests.neighbour_table_size()
    assert size is not None
    return size[1]


def test_a_neighbour_table_that_is_too_small_for_what_the_file_asks_for_is_said_at_the_start(
    topology: Topology, daemon: Start
) -> None:
    def said(limits: str, rule: str = RULE) -> tuple[int, bool]:
        """How often the log says it, and whether `status` says how many are resolved at once."""
        running = daemon(f"[limits]\n{limits}\n{configuration(rule)}")
        shown = "targets are resolved at once: the kernel's neighbour table" in verb(running, "status").stdout
        running.stop()
        return running.log.count("the kernel's neighbour table: it has space for"), shown

    limit = max(1, min(65_536, thresholds()[1]) - 1)
    assert said(f"pending = {limit}") == (1, True)
    assert said("pending = 1") == (0, False)
    assert said("pending = 65536", "2001:db8:1::/64 static") == (0, False), "nothing is resolved there"


@pytest.mark.alone
def test_a_full_neighbour_table_is_said_and_the_daemon_goes_on_when_there_is_space(
    topology: Topology, daemon: Start
) -> None:
    """All namespaces share the table, so it is full for a moment only."""
    running = daemon(configuration(RULE, events_per_source="0"))
    full = topology.directory / "full"
    entries = range(thresholds()[2])
    full.write_text("".join(f"neigh add fd00::{n:x} lladdr {HOST_MAC} dev lan0 nud stale\n" for n in entries))
    with Wire(topology) as wire:

        def said(first: int) -> bool:
            topology.run("edge", "ip", "-6", "-force", "-batch", str(full))
            wire.send(*scan(3, first=first))
            ask(running.control, {"verb": "status"})  # it has come to them by then
            time.sleep(0.1)
            return "warning: the kernel's neighbour table: it is full" in running.log

        try:
            # the kernel makes space by what has failed in other namespaces, as long as there is any
            assert any(said(number << 32) for number in range(1, 16))
        finally:
            topology.run("edge", "ip", "-6", "neigh", "flush", "dev", "lan0", check=True)
        assert says(running, "warning: the kernel's neighbour table: it is full")
        assert until(lambda: Asker(wire, running).answered(HOST_ADDRESS, 0.5), 5.0)
    topology.sysctl("edge", "net/ipv6/neigh/lan0/retrans_time_ms", 200)  # the kernel gives up in 0.6 s, not in 3
    assert until(lambda: ask(running.control, {"verb": "status"})["pending"] == [], 6.0)


SCANNED = int(os.environ.get("NPD6_SCAN", "1000000"))


@pytest.mark.exec  # its memory is looked at
@pytest.mark.fills_table
@both
def test_a_scan_of_absent_targets_costs_little_and_who_is_known_is_answered_all_the_same(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    count = SCANNED if datapath == "hybrid" else SCANNED // 5
    running = daemon(configuration(RULE, datapath=f'"{datapath}"'))
    known = question(HOST_ADDRESS, options=b"")
    with Wire(topology) as wire, Wire(topology) as listening:
        assert Asker(wire, running).answered(HOST_ADDRESS, LATE)
        wire.close()
        listening.advertisements(0.05)
        listening.only_advertisements()  # a million questions are not to be looked at one by one
        before, cpu = private_megabytes(running), cpu_seconds(running)
        asked = answers = most = 0
        with Wire(topology) as wire:
            wire.deafen()
            for number, frame in enumerate(scan(count)):
                wire.send(frame)
                if number % 1000 == 0:
                    wire.send(known)
                    asked += 1
                    answers += len(listening.advertisements(LATE, enough=1))
                if number % (count // 10) == 0:
                    most = max(most, len(topology.ip("edge", "-6", "neigh", "show", "dev", "lan0")))
        after, spent = private_megabytes(running), cpu_seconds(running) - cpu
    assert until(lambda: sum(became(running).values()) == count + asked + 1)
    counts = running.solicitations()
    print(f"{count} absent targets: {after - before:.1f} MB more, {spent:.2f} s of CPU, {counts}")
    assert answers == asked
    assert after - before < 8
    assert spent < 3.0, "as good as nothing, what a busy machine adds to it included"
    assert counts[answered] == asked, "never a miss"
    assert counts["rate_limited"] > count / 2, "nobody can resolve so many at once"
    assert most < thresholds()[1], "above gc_thresh2, the kernel would throw out hosts that are there"


def test_a_host_that_nobody_covers_is_not_remembered(topology: Topology, daemon: Start) -> None:
    on_edge(topology, f"-6 neigh add 2001:db8:2::1 lladdr {HOST_MAC} dev lan0 nud permanent")
    running = daemon(configuration(RULE, "2001:db8:1::/96 ignore"))
    assert running.metrics().get(("npd6_neighbours", frozenset({("interface", "lan0")})), 0) == 0
