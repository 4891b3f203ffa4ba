# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets that are the edge's own addresses, those of its other side, or the gateway's; followed while they change."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_LAN_ADDRESS, EDGE_WAN_ADDRESS, HOST_ADDRESS, UPSTREAM_ADDRESS, Topology
from tests.frames import ether, ip6, solicited_node
from tests.kinds import solicit
from tests.netns.wire import EDGE, SETTING, Wire, configuration, until

Start = Callable[..., RunningDaemon]


def question(target: str, mac: bytes = EDGE) -> bytes:
    address = ip6(target)
    return solicit(replace(SETTING, mac=mac, target=address), destination=solicited_node(address))


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_own_addresses_are_left_to_the_kernel_and_those_of_the_other_side_answered(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    running = daemon(configuration("2001:db8::/32 static", datapath=f'"{datapath}"'))
    answered = "answered_xdp" if datapath == "hybrid" else "answered_python"
    with Wire(topology) as wire:
        before = running.solicitations()
        own = wire.ask_kernel(question(EDGE_WAN_ADDRESS))
        assert own is not None
        assert NeighborAdvertisement.parse(own).override, "the kernel's, for it owns the address"
        assert running.solicitations()["own"] > before.get("own", 0)
        assert running.solicitations().get(answered, 0) == before.get(answered, 0)

        other = wire.ask(question(EDGE_LAN_ADDRESS))
        assert other is not None
        assert not NeighborAdvertisement.parse(other).override
        assert until(lambda: running.solicitations().get(answered) == before.get(answered, 0) + 1)


def test_the_gateway_is_never_impersonated(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8::/32 static"))
    asker = replace(SETTING, asker_mac=ether("02:00:00:00:00:77"), asker_link_local=ip6("fe80::77"))
    target = ip6(UPSTREAM_ADDRESS)
    frame = solicit(replace(asker, target=target), destination=solicited_node(target))
    with Wire(topology) as wire:
        assert wire.ask(frame, 0.3) is None
    assert running.solicitations()["ignored"] == 1
    assert until(
        lambda: (
            "warning: wan0: the static rule 2001:db8::/32 covers 2001:db8::/64, which is on-link there" in running.log
        )
    )


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_addresses_mac_and_next_hops_are_followed_while_it_runs(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    running = daemon(configuration("2001:db8::/32 static", datapath=f'"{datapath}"'))

    def edge(*argv: str) -> None:
        topology.run("edge", *argv, check=True)

    with Wire(topology) as wire:

        def answer(target: str, mac: bytes = EDGE) -> NeighborAdvertisement | None:
            frame = wire.ask(question(target, mac), 0.3)
            return None if frame is None else NeighborAdvertisement.parse(frame)

        def overrides(target: str) -> bool | None:
            na = answer(target)
            return None if na is None else na.override

        assert until(lambda: overrides("2001:db8:7::7") is False)
        edge("ip", "addr", "add", "2001:db8:7::7/128", "dev", "wan0", "nodad")
        assert until(lambda: overrides("2001:db8:7::7") is True, 1.0), "the kernel answers for its new address"
        edge("ip", "addr", "del", "2001:db8:7::7/128", "dev", "wan0")
        assert until(lambda: overrides("2001:db8:7::7") is False, 1.0)

        assert until(lambda: overrides("2001:db8::9") is False)
        edge("ip", "-6", "route", "add", "2001:db8:9::/48", "via", "2001:db8::9")
        assert until(lambda: overrides("2001:db8::9") is None, 1.0), "a next hop now"
        edge("ip", "-6", "route", "del", "2001:db8:9::/48", "via", "2001:db8::9")
        assert until(lambda: overrides("2001:db8::9") is False, 1.0)

        mac = ether("02:00:00:00:00:99")
        edge("ip", "link", "set", "wan0", "address", mac.hex(":"))

        def has_new_mac() -> bool:
            na = answer("2001:db8:7::8", mac)
            return na is not None and na.link_layer_address == na.eth_source == mac

        assert until(has_new_mac, 1.0)
    assert until(lambda: "wan0: the MAC address is now 02:00:00:00:00:99" in running.log)


def test_explain_and_check_see_the_machine_they_run_on(topology: Topology) -> None:
    file = topology.directory / "explained.toml"
    file.write_text(configuration("2001:db8::/32 static", na_source='"interface"'))

    def npd6(*argv: str) -> str:
        done = topology.run("edge", sys.executable, "-m", "npd6_xdp", *argv, "--config", str(file))
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def explain(target: str, *argv: str) -> str:
        return npd6("explain", target, "--interface", "wan0", *argv)

    assert "outcome: own (wan0 holds this address itself" in explain(EDGE_WAN_ADDRESS)
    assert "outcome: ignored (it is a next hop of a route out of wan0" in explain(UPSTREAM_ADDRESS)
    told = explain(HOST_ADDRESS, "--source", UPSTREAM_ADDRESS)
    assert f"{EDGE.hex(':')} > the asker's MAC; {EDGE_WAN_ADDRESS} > {UPSTREAM_ADDRESS}" in told
    assert "warning: wan0: the static rule 2001:db8::/32 covers 2001:db8::/64, which is on-link there" in npd6("check")


def test_up_and_down_are_on_the_metrics_page(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    key = ("npd6_interface_up", frozenset({("interface", "wan0")}))
    assert running.metrics()[key] == 1
    topology.run("edge", "ip", "link", "set", "wan0", "down", check=True)
    assert until(lambda: running.metrics()[key] == 0)
    topology.run("edge", "ip", "link", "set", "wan0", "up", check=True)
    assert until(lambda: running.metrics()[key] == 1)


@pytest.mark.needs_table
@pytest.mark.parametrize("datapath", ["hybrid", "python"])
@pytest.mark.parametrize("policy", ["ignore", "defend"])
def test_an_upstream_keeps_an_address_inside_the_prefix_only_if_nobody_defends_it(
    topology: Topology, daemon: Start, policy: str, datapath: str
) -> None:
    running = daemon(configuration(dad=f'"{policy}"', datapath=f'"{datapath}"'))
    topology.sysctl("upstream", "net/ipv6/conf/eth0/accept_dad", 1)
    topology.sysctl("upstream", "net/ipv6/conf/eth0/dad_transmits", 1)
    if policy == "defend":  # the end of its wait is no end for us
        topology.sysctl("upstream", "net/ipv6/neigh/eth0/retrans_time_ms", 60_000)
    topology.run("upstream", "ip", "addr", "add", "2001:db8:1::99/128", "dev", "eth0", check=True)

    def flags() -> dict[str, object]:
        (link,) = topology.ip("upstream", "-6", "addr", "show", "dev", "eth0")
        address: dict[str, object]
        (address,) = [a for a in link["addr_info"] if a.get("local") == "2001:db8:1::99"]
        return address

    assert until(lambda: "dadfailed" in flags() or "tentative" not in flags(), 5.0)
    assert ("dadfailed" in flags()) == (policy == "defend")
    outcome = "answered_python" if policy == "defend" else "dad"
    assert running.solicitations().get(outcome, 0) >= 1
