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
from tests.netns.wire import SETTING, Wire, configuration, until

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
