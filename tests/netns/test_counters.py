# SPDX-License-Identifier: GPL-2.0-or-later
"""What is counted, exactly: a mixture, the names of the contract, and a flood that the ring can't hold."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace

from scapy.layers.inet6 import UDP, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from npd6_xdp.core.verdict import Outcome
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_MAC, HOST_ADDRESS, Topology
from tests.frames import TAGS_8021Q, ip6, solicited_node
from tests.kinds import nonce, sllao, solicit
from tests.netns.wire import EDGE, SETTING, Wire, configuration, grown, standing_still, until

Start = Callable[..., RunningDaemon]

NAMES = (
    "npd6_solicitations_total",
    "npd6_invalid_solicitations_total",
    "npd6_rate_limited_total",
    "npd6_rule_solicitations_total",
    "npd6_advertisements_total",
    "npd6_events_lost_total",
    "npd6_answer_seconds",
    "npd6_neighbours",
    "npd6_kernel_proxy_entries",
    "npd6_interface_info",
    "npd6_interface_up",
    "npd6_config_last_reload_success_timestamp_seconds",
    "npd6_config_last_reload_successful",
    "npd6_config_reload_failures_total",
    "npd6_build_info",
)


def question(target: str, **fields: object) -> bytes:
    address = ip6(target)
    return solicit(replace(SETTING, target=address), destination=solicited_node(address), **fields)  # type: ignore[arg-type]


def test_23_solicitations_of_mixed_kinds_are_23_outcomes_each_the_right_one(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:1::/64 static", "2001:db8:1::dead ignore", dad='"ignore"'))
    before = running.solicitations()
    dad = {"source": bytes(16), "options": nonce()}
    with Wire(topology) as wire:
        wire.send(
            *[question(f"2001:db8:1::{host:x}") for host in range(0x100, 0x107)],  # 7 answered
            question("2001:db8:1::42", options=b""),  # without SLLAO
            question("2001:db8:1::42", options=sllao(SETTING.asker_mac) + nonce()),
            question("2001:db8:1::dead"),  # 2 ignored
            question("fe80::99"),
            question("2001:db8:2::1"),  # 3 unmatched
            question("2001:db8:2::2"),
            solicit(replace(SETTING, tags=TAGS_8021Q)),  # of a VLAN that no entry speaks for
            question("2001:db8::2"),  # 2 own
            question("2001:db8::2"),
            question("2001:db8:1::7", **dad),  # 2 probes
            question("2001:db8:1::8", **dad),
            question("2001:db8:1::42", hop_limit=254),  # 5 invalid
            question("2001:db8:1::42", checksum_error=1),
            question("2001:db8:1::42", code=1),
            question("2001:db8:1::42", options=b"\x01\x00" + bytes(6)),
            question("2001:db8:1::42", options=b"\x0e\x09" + bytes(6)),
            # and what is none: npd6 takes the first byte of port 34560 for the type of a solicitation
            bytes(
                Ether(src=SETTING.asker_mac.hex(":"), dst=EDGE_WAN_MAC)
                / IPv6(src="2001:db8::1", dst=HOST_ADDRESS, hlim=255)
                / UDP(sport=34560, dport=9)
                / Raw(question("2001:db8:1::42")[54:])
            ),
        )
        wire.advertisements(0.5)
    wanted = {"answered_xdp": 9, "ignored": 2, "unmatched": 3, "own": 2, "dad": 2, "invalid": 5}
    assert until(lambda: grown(before, running.solicitations()) == wanted), running.solicitations()
    assert sum(wanted.values()) == 23

    samples = {(name, labels): value for (name, labels), value in running.metrics().items() if value}
    page = {dict(labels)["outcome"]: int(n) for (name, labels), n in samples.items() if name == NAMES[0]}
    assert grown(before, page) == wanted
    reasons = {dict(labels)["reason"]: n for (name, labels), n in samples.items() if "invalid_solicit" in name}
    assert reasons == {"hop_limit": 1, "checksum": 1, "code": 1, "option_length": 2}
    rules = {
        (dict(labels)["rule"], dict(labels)["outcome"]): n for (name, labels), n in samples.items() if "_rule_" in name
    }
    assert rules == {
        ("2001:db8:1::/64", "answered_xdp"): 9,
        ("2001:db8:1::/64", "dad"): 2,
        ("2001:db8:1::dead", "ignored"): 1,
    }


def test_the_page_has_every_metric_of_the_contract_and_every_outcome(topology: Topology, daemon: Start) -> None:
    page = daemon(configuration(datapath='"monitor"')).metrics_text()
    for name in NAMES:
        assert re.search(rf"^# HELP {name} ", page, re.MULTILINE), name
    outcomes = re.findall(r'^npd6_solicitations_total{interface="wan0",outcome="(\w+)"}', page, re.MULTILINE)
    assert sorted(outcomes) == sorted(Outcome)
    assert 'npd6_interface_info{attach="tc",datapath="monitor",interface="wan0"} 1.0' in page


def test_a_monitor_counts_and_touches_nothing(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(datapath='"monitor"'))
    with Wire(topology) as wire:
        assert wire.ask(question(HOST_ADDRESS), 0.3) is None
    assert until(lambda: running.solicitations().get("monitored") == 1)


def test_a_flood_that_the_ring_cannot_hold_is_counted_to_the_last_frame(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(datapath='"python"'))
    sent = 150_000  # the rings hold 65,536 events a CPU
    frame = question("2001:db8:1::42")

    def counted() -> dict[str, int]:
        found = running.solicitations()
        return {outcome: found.get(outcome, 0) for outcome in ("answered_python", "failed", "lost")}

    with Wire(topology) as wire:
        with standing_still(running):
            for _ in range(sent // 1000):
                wire.send(*[frame] * 1000)
        assert until(lambda: sum(counted().values()) == sent, 30.0), counted()
        assert counted()["lost"] > 0
        assert counted()["answered_python"] >= 16_000
        lost = running.metrics()["npd6_events_lost_total", frozenset({("interface", "wan0")})]
        assert lost == counted()["lost"]
    with Wire(topology) as wire:
        assert wire.ask(question("2001:db8:1::77")) is not None
    assert running.stop() == 0


def test_probe_decodes_what_the_edge_answers(topology: Topology, daemon: Start) -> None:
    program = (sys.executable, "-m", "npd6_xdp", "probe")
    running = daemon(configuration())
    done = topology.run("upstream", *program, HOST_ADDRESS, "--interface", "eth0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{HOST_ADDRESS} is at {EDGE_WAN_MAC}, R=1 S=1 O=0, from {HOST_ADDRESS}, after ")
    done = topology.run("upstream", *program, HOST_ADDRESS, "--interface", "eth0", "--count", "2", "--json")
    answers = json.loads(done.stdout)
    assert (answers["sent"], answers["received"]) == (2, 2)
    assert {answer["target_link_layer_address"] for answer in answers["answers"]} == {EDGE.hex(":")}
    assert running.stop() == 0
    done = topology.run("upstream", *program, HOST_ADDRESS, "--interface", "eth0")
    assert (done.returncode, done.stdout) == (1, f"{HOST_ADDRESS}: no answer within 1 s\n")
    done = topology.run("upstream", *program, HOST_ADDRESS, "--interface", "eth7")
    assert (done.returncode, done.stderr) == (1, "npd6-xdp: eth7: can't ask on it: No such device; see `ip link`\n")
