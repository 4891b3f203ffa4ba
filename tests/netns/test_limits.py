# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits that protect Python: budgets in the XDP program, and what happens to solicitations beyond them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.core.pending import MAX_ASKERS
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from npd6_xdp.tools.control import ask
from tests.frames import ether, ip6
from tests.kinds import solicit
from tests.netns.wire import (
    LATE,
    SETTING,
    Flood,
    Wire,
    became,
    configuration,
    cpu_seconds,
    flood,
    on_edge,
    question,
    scan,
    until,
)

Start = Callable[..., RunningDaemon]

OTHER = replace(
    SETTING,
    asker_mac=ether("02:00:00:00:00:77"),
    asker_link_local=ip6("fe80::77"),
    asker_global=ip6("2001:db8::77"),
    target=ip6(HOST_ADDRESS),
)


def is_each_counted(running: RunningDaemon, sent: int) -> bool:
    """Whether so many are counted, or a few more: the longer it takes, the more the upstream's kernel asks besides."""
    return until(lambda: 0 <= sum(running.solicitations().values()) - sent < 10)


@pytest.mark.fills_table
@pytest.mark.parametrize(
    ("rule", "datapath", "outcomes"),
    [
        ("2001:db8:1::/64 static", "python", {"answered_python", "rate_limited"}),
        ("2001:db8:1::/64 neighbour via=lan0", "python", {"answered_python", "pending", "rate_limited"}),
        ("2001:db8:1::/64 neighbour via=lan0", "hybrid", {"answered_xdp", "pending", "rate_limited"}),
    ],
    ids=["static-python", "neighbour-python", "neighbour-hybrid"],
)
def test_a_flood_from_one_mac_keeps_no_other_from_being_answered(
    topology: Topology, daemon: Start, rule: str, datapath: str, outcomes: set[str]
) -> None:
    running = daemon(configuration(rule, datapath=f'"{datapath}"', events_per_source="100"))
    asked = 40
    with Wire(topology) as wire, flood(topology, scan(1_000_000), 5_000) as flooding:
        assert until(lambda: running.solicitations().get("rate_limited", 0) > 0, 5.0)
        answers = 0
        for _ in range(asked):
            answers += answered(wire, [HOST_ADDRESS], LATE)
            time.sleep(0.02)
    assert answers == asked
    assert flooding.rate > 500, "the generator is at fault"
    assert is_each_counted(running, flooding.sent + asked)
    counts = became(running)
    assert set(counts) == outcomes
    assert counts["rate_limited"] > flooding.sent / 2
    # where others have filled the kernel's table, its share of what is left there is what a flood meets first
    assert set(refused_by(running)) <= ({"source"} if "static" in rule else {"source", "crowded"})


def refused_by(running: RunningDaemon) -> dict[str, int]:
    """The solicitations on wan0 that were refused, by the limit that was in their way."""
    found = {
        dict(labels)["reason"]: int(count)
        for (name, labels), count in running.metrics().items()
        if name == "npd6_rate_limited_total" and count and ("interface", "wan0") in labels
    }
    assert sum(found.values()) == running.solicitations().get("rate_limited", 0), "each has one reason"
    return found


def answered(wire: Wire, targets: Sequence[str], seconds: float) -> int:
    """For how many targets an answer comes in that time, when the other MAC asks for each of them once."""
    return len(targets) - len(unanswered(wire, targets, seconds))


def unanswered(wire: Wire, targets: Sequence[str], seconds: float) -> list[str]:
    """The others."""
    for target in targets:
        wire.send(solicit(replace(OTHER, target=ip6(target))))
    wanted = {ip6(target) for target in targets}
    deadline = time.monotonic() + seconds
    while wanted and (left := deadline - time.monotonic()) > 0:
        for answer in wire.advertisements(left, enough=1):
            if answer[:6] == OTHER.asker_mac:
                wanted.discard(NeighborAdvertisement.parse(answer).target)
    return [target for target in targets if ip6(target) in wanted]


def asks_as_a_router(wire: Wire, targets: Sequence[str]) -> int:
    """Have all of them answered, when the other MAC asks for each up to three times (MAX_MULTICAST_SOLICIT, RFC 4861
    §10): what it asks for first may be what the kernel, whose table all namespaces share, has no space for just then.

    How many questions that took.
    """
    asked, left = 0, list(targets)
    for seconds in (1.0, 1.0, LATE):  # RetransTimer
        asked += len(left)
        left = unanswered(wire, left, seconds)
        if not left:
            return asked
    pytest.fail(f"no answer for {left}")


@pytest.mark.fills_table
@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_one_mac_that_scans_keeps_no_other_from_having_present_hosts_resolved(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    """At 900/s it stays below events_per_source, yet would soon have as many targets pending as there is space for."""
    hosts = [f"2001:db8:1::1:{number:x}" for number in range(10)]
    for address in hosts:
        topology.run("host", "ip", "addr", "add", f"{address}/128", "dev", "eth0", "nodad", check=True)
    rule = "2001:db8:1::/64 neighbour via=lan0"
    running = daemon(configuration(rule, datapath=f'"{datapath}"', events_per_source="1000"))
    with Wire(topology) as wire, flood(topology, scan(1_000_000), 900) as flooding:
        assert until(lambda: running.solicitations().get("rate_limited", 0) > 300, 10.0), "it has its share"
        asked = asks_as_a_router(wire, hosts)
    assert flooding.rate > 400, "the generator is at fault"
    assert is_each_counted(running, flooding.sent + asked)
    outcomes = {"pending", "rate_limited"} | ({"answered_xdp", "answered_python"} if asked > len(hosts) else set())
    assert {"pending", "rate_limited"} <= set(became(running)) <= outcomes


@pytest.mark.fills_table
def test_a_scan_by_one_mac_costs_little_where_no_budget_of_a_source_stands_before_it(
    topology: Topology, daemon: Start
) -> None:
    rule = "2001:db8:1::/64 neighbour via=lan0"
    running = daemon(configuration(rule, datapath='"python"'))
    with flood(topology, scan(1_000_000), 20_000) as flooding:
        assert until(lambda: running.solicitations().get("rate_limited", 0) > 300, 10.0)
        before, cpu, began = flooding.sent, cpu_seconds(running), time.monotonic()
        time.sleep(2.0)
        assert until(lambda: flooding.sent - before > 6_000), "the generator is at fault"
        scanned, spent, seconds = flooding.sent - before, cpu_seconds(running) - cpu, time.monotonic() - began
    print(f"{scanned} scanned in {seconds:.2f} s: {spent:.2f} s of CPU")
    assert spent < 0.1 * seconds
    assert is_each_counted(running, flooding.sent)
    assert set(became(running)) == {"pending", "rate_limited"}


@pytest.mark.needs_table
def test_who_asks_beyond_those_that_one_target_remembers_is_refused_and_counted_so(
    topology: Topology, daemon: Start
) -> None:
    rule = "2001:db8:1::/64 neighbour via=lan0"
    running = daemon(configuration(rule))
    topology.sysctl("edge", "net/ipv6/neigh/lan0/mcast_solicit", 30)  # it goes on looking for the host
    topology.run("host", "ip", "addr", "del", f"{HOST_ADDRESS}/64", "dev", "eth0", check=True)
    with Wire(topology) as wire:
        for number in range(MAX_ASKERS + 8):
            wire.send(solicit(replace(OTHER, asker_mac=bytes((2, 0, 0, 1, 0, number)))))
        assert until(lambda: running.solicitations() == {"pending": MAX_ASKERS, "rate_limited": 8}, 2.0)
        assert refused_by(running) == {"crowded": 8}
        topology.run("host", "ip", "addr", "add", f"{HOST_ADDRESS}/64", "dev", "eth0", "nodad", check=True)
        assert len(wire.advertisements(20.0, enough=MAX_ASKERS)) == MAX_ASKERS
        assert wire.advertisements(0.2) == []


def test_what_xdp_answers_is_never_limited(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(events_per_source="1"))
    frames = list(scan(2_000))
    with Wire(topology) as wire:
        wire.deafen()
        wire.send(*frames)
    assert until(lambda: running.solicitations() == {"answered_xdp": len(frames)})


def test_a_budget_for_all_holds_whoever_asks(topology: Topology, daemon: Start) -> None:
    limits = "[limits]\nevents_per_second = 50\n"
    running = daemon(limits + configuration(datapath='"python"', events_per_source="0"))
    began = time.monotonic()
    with Wire(topology) as wire:
        for number in range(400):
            mac = bytes((2, 0, 0, 1, number >> 8, number & 0xFF))
            wire.send(solicit(replace(OTHER, asker_mac=mac)))
    assert until(lambda: sum(running.solicitations().values()) == 400)
    counts = running.solicitations()
    assert set(counts) == {"answered_python", "rate_limited"}
    assert set(refused_by(running)) == {"all"}
    assert 50 <= counts["answered_python"] <= 50 * (time.monotonic() - began + 2)


@pytest.mark.needs_table
def test_hosts_beyond_the_limit_are_refused_and_those_that_are_known_stay(topology: Topology, daemon: Start) -> None:
    """E2 of docs/rules.md."""
    addresses = [f"2001:db8:1::1:{number:x}" for number in range(20)]
    for address in addresses:
        topology.run("host", "ip", "addr", "add", f"{address}/128", "dev", "eth0", "nodad", check=True)
    rule = "2001:db8:1::/64 neighbour via=lan0"
    running = daemon(f"[limits]\nneighbours = 10\n{configuration(rule, events_per_source='0')}")
    with Wire(topology) as wire:
        for address in addresses[:10]:
            assert wire.ask(question(address)) is not None
        for address in addresses[10:]:
            wire.send(question(address))
        for address in addresses[:10]:
            assert wire.ask(question(address)) is not None
    assert until(lambda: running.solicitations() == {"pending": 10, "answered_xdp": 10, "rate_limited": 10})
    assert refused_by(running) == {"full": 10}
    assert until(lambda: "limits.neighbours: 10 hosts are there" in running.log)
    assert running.metrics()["npd6_neighbours", frozenset({("interface", "lan0")})] == 10


@pytest.mark.needs_table
def test_no_more_targets_are_under_way_than_the_limit_allows(topology: Topology, daemon: Start) -> None:
    """E1 of docs/rules.md."""
    rule = "2001:db8:1::/64 neighbour via=lan0"
    running = daemon(f"[limits]\npending = 20\n{configuration(rule, events_per_source='0')}")
    topology.sysctl("edge", "net/ipv6/neigh/lan0/mcast_solicit", 30)  # nobody is given up while others are asked for
    with Wire(topology) as wire:
        for number in range(1, 201):  # one each, since a single MAC gets no more than half
            wire.send(*scan(1, first=number << 32, mac=bytes((2, 0, 0, 1, 0, number))))
    assert until(lambda: sum(running.solicitations().values()) == 200)
    counts = running.solicitations()
    assert set(counts) == {"pending", "rate_limited"}
    assert set(refused_by(running)) == {"pending"}
    assert 16 <= counts["pending"] <= 20, "fewer, where other namespaces fill the kernel's table"
    topology.sysctl("edge", "net/ipv6/neigh/lan0/mcast_solicit", 1)
    assert until(lambda: ask(running.control, {"verb": "status"})["pending"] == [], 6.0), "given up in time"
    assert topology.ip("edge", "-6", "neigh", "show", "dev", "lan0", "nud", "failed") == []


@pytest.mark.fills_table
def test_a_scan_from_hundreds_of_macs_on_one_link_keeps_no_other_links_new_hosts_out(
    topology: Topology, daemon: Start
) -> None:
    on_edge(topology, "link add wan1 type veth peer name bad0", "link set wan1 up", "link set bad0 up")
    hosts = [f"2001:db8:1::1:{number:x}" for number in range(24)]
    for host in hosts:
        topology.run("host", "ip", "addr", "add", f"{host}/128", "dev", "eth0", "nodad", check=True)
    text = configuration("2001:db8:1::/64 neighbour via=lan0")
    running = daemon(text + text.replace('"wan0"', '"wan1"'))
    macs = [bytes([2, 0x66, 0, 0, *divmod(number, 256)]) for number in range(300)]

    def scans() -> Iterator[bytes]:
        for number in count(1):
            yield from scan(1, first=number << 20, mac=macs[number % len(macs)])

    with Wire(topology) as wire, Wire(topology, "edge", "bad0") as bad:
        bad.deafen()
        sending = Flood()
        thread = threading.Thread(
            target=sending.run, args=(bad, scans(), 500), kwargs={"lossy": False, "waits": lambda: False}
        )
        thread.start()
        try:
            assert until(lambda: running.solicitations("wan1").get("rate_limited", 0) > 200, 10.0)
            answers = sum(answered(wire, [host], LATE) for host in hosts)
            found = became(running)
        finally:
            sending.stop()
            thread.join()
    assert answers == len(hosts)
    assert found == {"pending": len(hosts)}, "each at the first asking"
    status = ask(running.control, {"verb": "status"})
    assert len(status["pending"]) > 0
