# SPDX-License-Identifier: GPL-2.0-or-later
"""An edge that becomes active tells the upstream so (docs/rules.md, J4, J5): its kernel takes the new MAC address."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address

import pytest

from npd6_xdp.core.icmpv6 import ALL_NODES, ALL_NODES_MAC, NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_MAC, HOST_ADDRESS, Topology
from tests.frames import ip6
from tests.netns.test_roles import ADDRESS, gets
from tests.netns.verb import verb
from tests.netns.wire import EDGE, LATE, Asker, Wire, configuration, on_edge, question, until

pytestmark = pytest.mark.needs_table  # the upstream's kernel has the targets in it
Start = Callable[..., RunningDaemon]

OTHER_EDGE = "02:00:00:00:00:99"
TARGETS = [f"2001:db8:1::{number:x}" for number in range(0x100, 0x105)]
ACTIVE = {"active_with": f'"{ADDRESS}"'}


def announced(wire: Wire, enough: int, seconds: float = LATE) -> list[NeighborAdvertisement]:
    """The unsolicited advertisements that come in so long, or until there are enough."""
    found: list[NeighborAdvertisement] = []
    while len(found) < enough and (frames := wire.advertisements(seconds, enough=1)):
        one = NeighborAdvertisement.parse(frames[0])
        if not one.solicited:
            found.append(one)
    return found


def sent(running: RunningDaemon) -> int:
    return int(running.metrics()["npd6_announcements_total", frozenset({("interface", "wan0")})])


def caches(topology: Topology, address: str, mac: str) -> bool:
    """Whether the upstream's kernel has that MAC address for a target."""
    shown = topology.ip("upstream", "-6", "neigh", "show", address, "dev", "eth0")
    return [each.get("lladdr") for each in shown] == [mac]


def take_over(topology: Topology) -> None:
    on_edge(topology, f"address add {ADDRESS}/32 dev lo")


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_the_upstreams_kernel_takes_the_new_mac_address_without_asking(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    running = daemon(configuration("2001:db8:1::/64 static", datapath=f'"{datapath}"', **ACTIVE))
    for target in TARGETS:
        line = ["neigh", "replace", target, "lladdr", OTHER_EDGE, "nud", "reachable", "dev", "eth0"]
        topology.run("upstream", "ip", *line, check=True)
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert {asker.outcome(target) for target in TARGETS} == {"standby"}
        assert all(caches(topology, target, OTHER_EDGE) for target in TARGETS)
        take_over(topology)
        found = announced(wire, 3 * len(TARGETS))
    order = [str(IPv6Address(one.target)) for one in found]
    assert order == [*reversed(TARGETS)] * 3, "those that were asked for last go first"
    assert {(one.eth_destination, one.destination) for one in found} == {(ALL_NODES_MAC, ALL_NODES)}
    assert {(one.override, one.router, one.link_layer_address) for one in found} == {(True, True, EDGE)}
    assert all(one.source == one.target for one in found)
    assert until(lambda: all(caches(topology, target, EDGE_WAN_MAC) for target in TARGETS))
    assert until(lambda: sent(running) == 3 * len(TARGETS))
    assert "announcements: 15" in verb(running, "status").stdout


def test_only_hosts_that_are_there_are_announced_and_they_are_looked_for_first(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(configuration("2001:db8:1::/64 neighbour via=lan0", **ACTIVE))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        asked = [HOST_ADDRESS, *TARGETS]
        assert [asker.outcome(target) for target in asked] == ["standby"] * len(asked)
        assert topology.ip("edge", "-6", "neigh", "show", HOST_ADDRESS) == [], "nobody was looked for"
        take_over(topology)
        found = announced(wire, 3)
        assert {one.target for one in found} == {ip6(HOST_ADDRESS)}
        assert asker.outcome(HOST_ADDRESS) == "answered_xdp"
        assert announced(wire, 1, 0.5) == []


def test_what_no_route_leads_to_and_what_no_rule_answers_any_more_isnt_announced(
    topology: Topology, daemon: Start
) -> None:
    keys = {"active_with": f'"{ADDRESS}"'}
    running = daemon(configuration("2001:db8:1::/64 route", "2001:db8:7::/64 static", **keys))
    routed, unrouted, ignored = "2001:db8:1::7", "2001:db8:1::8", "2001:db8:7::7"
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert [asker.outcome(target) for target in (routed, unrouted, ignored)] == ["standby"] * 3
        on_edge(topology, f"-6 route add unreachable {unrouted}")
        running.write(configuration("2001:db8:1::/64 route", "2001:db8:7::/64 ignore", **keys))
        assert verb(running, "reload").returncode == 0
        take_over(topology)
        assert Counter(one.target for one in announced(wire, 3)) == {ip6(routed): 3}
        assert announced(wire, 1, 0.5) == []
    assert sent(running) == 3


def test_the_loss_of_the_address_ends_it(topology: Topology, daemon: Start) -> None:
    text = "[limits]\nannouncements_per_second = 4\n" + configuration("2001:db8:1::/64 static", **ACTIVE)
    running = daemon(text)
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        many = [f"2001:db8:1::{number:x}" for number in range(0x100, 0x120)]
        for target in many:
            wire.send(question(target))
        assert until(lambda: running.solicitations().get("standby", 0) >= len(many))
        take_over(topology)
        first = announced(wire, 3)
        assert [str(IPv6Address(one.target)) for one in first] == [*reversed(many)][:3]
        on_edge(topology, f"address del {ADDRESS}/32 dev lo")
        assert gets(running, 0)
        ended = sent(running)
        assert ended < len(many)
        wire.advertisements(0.1)
        assert announced(wire, 1, 1.0) == []
        assert sent(running) == ended
        assert asker.outcome(many[0]) == "standby"


def test_targets_are_announced_by_hand_as_far_as_role_and_rules_go(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:1::/64 static", "2001:db8:7::/64 ignore", **ACTIVE))
    with Wire(topology) as wire:
        refused = verb(running, "announce", TARGETS[0])
        assert (refused.returncode, refused.stderr) == (1, "")
        assert refused.stdout == f"wan0: on standby: {ADDRESS} isn't on this machine, so nothing is announced\n"
        take_over(topology)
        assert gets(running, 1)
        assert announced(wire, 1, 0.2) == [], "nothing is remembered"
        nothing = verb(running, "announce")
        assert (nothing.returncode, nothing.stdout, nothing.stderr) == (1, "wan0: nothing is remembered\n", "")
        done = verb(running, "announce", *TARGETS[:2], "2001:db8:7::1", "--interface", "wan0")
        assert (done.returncode, done.stdout) == (0, "wan0: 2 targets\n")
        assert done.stderr == "npd6-xdp: 2001:db8:7::1: no rule answers it on wan0\n"
        found = announced(wire, 6)
        assert [str(IPv6Address(one.target)) for one in found] == TARGETS[:2] * 3
        assert wire.ask(question(TARGETS[4])) is not None
        done = verb(running, "announce")
        assert (done.returncode, done.stdout, done.stderr) == (0, "wan0: all that are remembered\n", "")
        assert [str(IPv6Address(one.target)) for one in announced(wire, 3)] == [TARGETS[4]] * 3
    for words, said in (
        (["--interface", "wan9"], "npd6-xdp: no [[interface]] entry matches wan9\n"),
        (["2001:db8:9::1"], "npd6-xdp: 2001:db8:9::1: no rule answers it\n"),
    ):
        failed = verb(running, "announce", *words)
        assert (failed.returncode, failed.stderr) == (1, said)


def test_without_a_memory_targets_have_to_be_named(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:1::/64 static"))
    failed = verb(running, "announce")
    assert failed.returncode == 1
    why = "no target is remembered without active_with or new_targets_per_second; name some"
    assert failed.stdout == f"wan0: {why}\n"
    with Wire(topology) as wire:
        assert verb(running, "announce", TARGETS[0]).returncode == 0
        assert [one.target for one in announced(wire, 3)] == [ip6(TARGETS[0])] * 3
    (interface,) = json.loads(verb(running, "status", "--json").stdout)["interfaces"]
    assert interface["announcements"] == 3


@pytest.mark.parametrize("keys", [{}, ACTIVE], ids=["link_address", "both"])
def test_without_a_device_for_the_link_address_that_is_why_nothing_is_announced(
    topology: Topology, daemon: Start, keys: dict[str, str]
) -> None:
    take_over(topology)
    running = daemon(configuration("2001:db8:1::/64 static", link_address='"00:00:5e:00:02:33"', **keys))
    refused = verb(running, "announce", TARGETS[0])
    why = "on standby: no device on wan0 has its link_address, 00:00:5e:00:02:33, and is up"
    assert (refused.returncode, refused.stdout) == (1, f"wan0: {why}, so nothing is announced\n")
    assert why in verb(running, "status").stdout


def test_an_interface_that_is_yet_to_come_is_told_from_one_that_the_file_hasnt(
    topology: Topology, daemon: Start
) -> None:
    more = '\n[[interface]]\nname = "late0"\nvlan = "100"\nrule = [{prefix = "2001:db8:1::/64", method = "static"}]\n'
    running = daemon(configuration("2001:db8:1::/64 static") + more)
    for name in ("late0", "late0:100"):
        failed = verb(running, "announce", TARGETS[0], "--interface", name)
        assert (failed.returncode, failed.stderr) == (1, "npd6-xdp: late0 isn't there (yet)\n")
    failed = verb(running, "announce", TARGETS[0], "--interface", "late0:200")
    assert failed.stderr == "npd6-xdp: no [[interface]] entry matches late0:200\n"


def test_of_too_many_by_hand_it_is_said_how_many_were_taken(topology: Topology, daemon: Start) -> None:
    running = daemon("[limits]\nannouncements_per_second = 1\n" + configuration("2001:db8:1::/64 static"))
    many = [f"2001:db8:1::{number:x}" for number in range(1, 4201)]
    done = verb(running, "announce", *many[:100])
    assert (done.returncode, done.stdout, done.stderr) == (0, "wan0: 100 targets\n", "")
    failed = verb(running, "announce", *many)
    assert (failed.returncode, failed.stdout) == (1, "wan0: 4096 targets\n")
    why = "so many are being announced already; try again in some seconds"
    assert failed.stderr == f"npd6-xdp: {why}; the first 4096 of 4200 targets were taken\n"
