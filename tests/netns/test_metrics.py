# SPDX-License-Identifier: GPL-2.0-or-later
"""Metrics whose sums have to agree, and other traffic, which arrives and isn't counted."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from scapy.layers.inet6 import UDP, IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from npd6_xdp.lab.daemon import Metrics, RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_MAC, HOST_ADDRESS, UPSTREAM_ADDRESS, Topology
from tests.frames import ip6
from tests.kinds import nonce, solicit
from tests.netns.test_page import get
from tests.netns.wire import SETTING, Wire, configuration, on_edge, scan, until

Start = Callable[..., RunningDaemon]
NPD6_PORT = 34560  # 0x8700: npd6 takes the first byte of the port for an ICMPv6 type, 135


def question(target: str, **fields: object) -> bytes:
    return solicit(replace(SETTING, target=ip6(target)), **fields)  # type: ignore[arg-type]


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics[name, frozenset(labels.items())]


@pytest.mark.parametrize("datapath", ["hybrid", "python", "monitor"])
def test_a_datagram_that_looks_like_a_solicitation_arrives_and_is_not_counted(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    running = daemon(configuration(datapath=f'"{datapath}"'))
    payload = question("2001:db8:1::42")[54:]
    with topology.inside("host"):
        receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with receiver:
        receiver.bind((HOST_ADDRESS, 9))
        receiver.settimeout(10.0)
        datagram = (
            Ether(src=SETTING.asker_mac.hex(":"), dst=EDGE_WAN_MAC)
            / IPv6(src=UPSTREAM_ADDRESS, dst=HOST_ADDRESS, hlim=255)
            / UDP(sport=NPD6_PORT, dport=9)
            / Raw(payload)
        )
        with Wire(topology) as wire:
            wire.send(bytes(datagram))
            data, (address, port, *_) = receiver.recvfrom(2048)
    assert (data, address, port) == (payload, UPSTREAM_ADDRESS, NPD6_PORT)
    counts = running.solicitations()
    counts.pop("own", None)  # the upstream's kernel may ask for the edge meanwhile
    assert counts == {}


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_advertisements_rules_and_answer_times_add_up_to_the_solicitations(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    running = daemon(configuration("2001:db8:1::/64 static", "2001:db8:1::7 static", datapath=f'"{datapath}"'))
    hop = [IPv6ExtHdrHopByHop()]
    began = time.monotonic()
    with Wire(topology) as wire:
        wire.send(
            *[question("2001:db8:1::42")] * 5,
            *[question("2001:db8:1::42", options=nonce())] * 2,
            *[question("2001:db8:1::42", headers=hop)] * 3,
            *[question("2001:db8:1::7")] * 4,
        )
        assert len(wire.advertisements(20.0, enough=14)) == 14
    took = time.monotonic() - began
    by_xdp = 11 if datapath == "hybrid" else 0
    by_python = 14 - by_xdp

    def settled() -> bool:
        return sample(running.metrics(), "npd6_answer_seconds_count", path="python") == by_python

    assert until(settled, 2.0)
    found = running.metrics()
    for outcome, path, wanted in (("answered_xdp", "xdp", by_xdp), ("answered_python", "python", by_python)):
        assert sample(found, "npd6_solicitations_total", interface="wan0", outcome=outcome) == wanted
        assert sample(found, "npd6_advertisements_total", interface="wan0", path=path) == wanted
        per_rule = [
            sample(found, "npd6_rule_solicitations_total", interface="wan0", rule=rule, outcome=outcome)
            for rule in ("2001:db8:1::/64", "2001:db8:1::7")
        ]
        assert per_rule == ([wanted - 4, 4] if wanted > 3 else [wanted, 0])
    assert sample(found, "npd6_answer_seconds_bucket", path="python", le="+Inf") == by_python
    assert 0 < sample(found, "npd6_answer_seconds_sum", path="python") <= by_python * took
    assert sample(found, "npd6_events_lost_total", interface="wan0") == 0


def test_tables_say_how_full_they_are_and_whom_they_had_no_space_for(topology: Topology, daemon: Start) -> None:
    limits = "[limits]\npending = 40\nneighbours = 1\nkernel_entries = 2\n"
    rules = "2001:db8:1::/64 neighbour via=lan0", "2001:db8:3::/64 kernel"
    running = daemon(limits + configuration(*rules))
    on_edge(topology, *(f"neigh replace 2001:db8:1::7{n} lladdr 02:00:00:00:00:7{n} dev lan0" for n in (1, 2, 3)))

    def are(entries: dict[str, int], refused: dict[str, int]) -> bool:
        found = running.metrics()
        return all(
            sample(found, name, table=table) == value
            for name, values in (("npd6_table_entries", entries), ("npd6_table_refused_total", refused))
            for table, value in values.items()
        )

    with Wire(topology) as wire:
        for number in (1, 2, 3):
            assert wire.ask(question(f"2001:db8:3::{number}")) is not None
    tables = {"pending": 0, "neighbours": 1, "kernel_entries": 2}
    assert until(lambda: are(tables, {"neighbours": 2, "kernel_entries": 1})), running.metrics()
    found = running.metrics()
    bounds = {table: sample(found, "npd6_table_limit", table=table) for table in tables}
    assert 16 <= bounds.pop("pending") <= 40, "the kernel's own table may have less space"
    assert bounds == {"neighbours": 1, "kernel_entries": 2}
    assert ("npd6_table_refused_total", frozenset({("table", "pending")})) not in found, "npd6_rate_limited_total is it"


def test_targets_that_are_being_resolved_are_counted(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:1::/64 neighbour via=lan0"))
    topology.sysctl("edge", "net/ipv6/neigh/lan0/mcast_solicit", 60)  # so long, in seconds, as may pass until we look
    with Wire(topology) as wire:
        wire.send(*[question(f"2001:db8:1::dead:{number}") for number in range(5)])
        assert until(lambda: sample(running.metrics(), "npd6_table_entries", table="pending") == 5)
    topology.sysctl("edge", "net/ipv6/neigh/lan0/mcast_solicit", 1)
    assert until(lambda: sample(running.metrics(), "npd6_table_entries", table="pending") == 0, 10.0)


def test_host_routes_are_counted_and_those_that_another_is_in_the_place_of(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:1::/64 neighbour via=lan0 host_routes=true"))
    address = "2001:db8:1::77"

    def are(there: int, missing: int) -> bool:
        found = running.metrics()
        return (sample(found, "npd6_host_routes"), sample(found, "npd6_host_routes_missing")) == (there, missing)

    assert are(0, 0)
    on_edge(topology, f"neigh replace {address} lladdr 02:00:00:00:00:77 nud permanent dev lan0")
    assert until(lambda: are(1, 0))
    on_edge(topology, f"-6 route replace {address}/128 dev wan0 proto static metric 1024")
    assert until(lambda: are(0, 1))
    on_edge(topology, f"-6 route del {address}/128 dev wan0")
    assert until(lambda: are(1, 0))


def test_what_the_driver_drops_of_our_answers_is_counted(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(attach='"native"'))
    before = sample(running.metrics(), "npd6_xdp_tx_errors_total", interface="wan0")
    with Wire(topology) as wire:
        wire.send(*[question("2001:db8:1::42")] * 7)
        after = before + 7
        assert until(lambda: sample(running.metrics(), "npd6_xdp_tx_errors_total", interface="wan0") >= after)


def test_native_mode_is_possible_where_a_device_may_have_it(topology: Topology, daemon: Start) -> None:
    on_edge(
        topology,
        "tuntap add dev tap0 mode tap",
        "link add br0 type bridge",
        "link add lone0 type veth peer name lone1",
    )
    names = ("tap0", "br0", "lone0", "gone0")
    running = daemon("".join(configuration().replace("wan0", name) for name in names))
    found = running.metrics()
    possible = {name: sample(found, "npd6_interface_native_possible", interface=name) for name in names}
    assert possible == {"tap0": 1, "br0": 0, "lone0": 0, "gone0": 0}


def test_what_scrapes_cost_is_known_at_the_next_one(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    scrapes = [running.metrics() for _ in range(3)]
    counts = [sample(found, "npd6_scrape_cpu_seconds_count") for found in scrapes]
    assert counts == [counts[0], counts[0] + 1, counts[0] + 2]
    sums = [sample(found, "npd6_scrape_cpu_seconds_sum") for found in scrapes]
    assert sums[0] < sums[1] < sums[2] < 3.0
    assert "npd6_warnings" in get(running, "/metrics?name[]=npd6_warnings")[1].decode()
    assert sample(running.metrics(), "npd6_scrape_cpu_seconds_count") == counts[2] + 2


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_how_many_targets_are_remembered_is_told_beside_how_many_may_be(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    keys = {"datapath": f'"{datapath}"', "new_targets_per_second": "100000"}
    running = daemon("[limits]\nremembered_targets = 4000\n" + configuration(**keys))
    before, table = running.metrics(), {"table": "remembered_targets"}
    assert sample(before, "npd6_table_entries", **table) == 0
    assert sample(before, "npd6_table_limit", **table) == 4000
    with Wire(topology) as wire:
        wire.send(*scan(1500))  # more than are counted at once
        assert until(lambda: sample(running.metrics(), "npd6_table_entries", **table) == 1500)
        wire.send(*scan(9000, first=1 << 33))
    assert until(lambda: 3000 < sample(running.metrics(), "npd6_table_entries", **table) <= 4000)


def test_counters_never_fall_while_addresses_and_the_mac_change(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(datapath='"python"'))
    with Wire(topology) as wire:
        wire.send(*[question("2001:db8:1::42")] * 10)
        assert len(wire.advertisements(20.0, enough=10)) == 10
    for words in ("link set wan0 address 02:00:00:00:00:99", "addr add 2001:db8:1::42/128 dev wan0 nodad"):
        topology.run("edge", "ip", *words.split(), check=True)
    assert until(lambda: "the MAC address is now" in running.log)
    found = running.metrics()
    assert sample(found, "npd6_solicitations_total", interface="wan0", outcome="answered_python") == 10
