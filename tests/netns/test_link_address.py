# SPDX-License-Identifier: GPL-2.0-or-later
"""VRRP's virtual MAC address (docs/rules.md, J6): advertised while a macvlan device has it, which takes packets in."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_MAC, HOST_ADDRESS, Topology
from tests.frames import ether
from tests.netns.test_under_way import held, holding
from tests.netns.verb import verb
from tests.netns.wire import Asker, Wire, configuration, grown, on_edge, question, says, until

pytestmark = pytest.mark.needs_table
Start = Callable[..., RunningDaemon]

MAC = "00:00:5e:00:02:33"
__all__ = ["holding"]


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_the_virtual_mac_address_is_advertised_while_a_device_has_it_and_leads_to_the_host(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    keys = {"link_address": f'"{MAC}"', "datapath": f'"{datapath}"'}
    running = daemon(configuration("2001:db8:1::/64 static", **keys))
    why = f"no device on wan0 has its link_address, {MAC}, and is up"
    assert says(running, f"wan0: on standby: {why}")
    assert says(running, f"{why}: nothing is answered")
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.outcome("2001:db8:1::7") == "standby"
        on_edge(topology, f"link add vrrp0 link wan0 address {MAC} type macvlan mode private")
        topology.sysctl("edge", "net/ipv6/conf/vrrp0/forwarding", 1)
        on_edge(topology, "link set vrrp0 up")
        answers: list[NeighborAdvertisement] = []

        def answered() -> bool:
            answer = wire.ask(question("2001:db8:1::7"), 0.2)
            answers[:] = [] if answer is None else [NeighborAdvertisement.parse(answer)]
            return bool(answers)

        assert until(answered)
        assert (answers[0].eth_source, answers[0].link_layer_address) == (ether(MAC), ether(MAC))
        probe = question("2001:db8:1::7", eth_destination=ether(MAC))
        answer = wire.ask(probe)
        assert answer is not None, "as the upstream probes, by unicast"
        # the upstream's kernel gives up after three seconds, whatever ping's patience
        ping = ("ping", "-c", "1", "-W", "20", HOST_ADDRESS)
        is_forwarded = until(lambda: topology.run("upstream", *ping).returncode == 0)
        assert is_forwarded, "what is sent to the virtual address isn't"
        shown = topology.ip("upstream", "-6", "neigh", "show", HOST_ADDRESS, "dev", "eth0")
        assert [each.get("lladdr") for each in shown] == [MAC]
        on_edge(topology, "link del vrrp0")
        assert until(lambda: asker.outcome("2001:db8:1::7") == "standby")


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_the_virtual_address_is_the_kernels_and_what_comes_from_either_mac_address_is_our_own(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    """A rule that covers the address answers for it only once it isn't on this machine's device any more."""
    virtual = "2001:db8:1::fe"
    on_edge(topology, f"link add vrrp0 link wan0 address {MAC} type macvlan mode private", "link set vrrp0 up")
    on_edge(topology, f"address add {virtual}/128 dev vrrp0 nodad")
    running = daemon(configuration("2001:db8:1::/64 static", link_address=f'"{MAC}"', datapath=f'"{datapath}"'))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        by = "answered_xdp" if datapath == "hybrid" else "answered_python"
        assert until(lambda: asker.outcome("2001:db8:1::7") == by)
        assert asker.outcome(virtual) == "own"
        answer = wire.ask(question(virtual))
        assert answer is not None, "the kernel's"
        assert NeighborAdvertisement.parse(answer).link_layer_address == ether(MAC)
        for mac in (MAC, EDGE_WAN_MAC):
            before = running.solicitations()
            wire.send(question("2001:db8:1::7", eth_source=ether(mac)))
            assert until(lambda before=before: grown(before, running.solicitations()) == {"ignored": 1})  # type: ignore[misc]
        on_edge(topology, f"address del {virtual}/128 dev vrrp0")
        assert until(lambda: asker.outcome(virtual) == by)


def test_host_routes_come_and_go_with_the_device(topology: Topology, daemon: Start) -> None:
    """It is no address that changes, but the entry has another role."""
    on_edge(topology, f"link add vrrp0 link wan0 address {MAC} type macvlan mode private")
    daemon(configuration("2001:db8:1::/64 neighbour via=lan0 host_routes=true", link_address=f'"{MAC}"'))
    assert topology.run("edge", "ping", "-c", "1", "-W", "20", HOST_ADDRESS).returncode == 0

    def routes() -> int:
        return len(topology.run("edge", "ip", "-6", "route", "show", "proto", "136").stdout.splitlines())

    assert routes() == 0
    for words, wanted in (("up", 1), ("down", 0), ("up", 1)):
        on_edge(topology, f"link set vrrp0 {words}")
        assert until(lambda wanted=wanted: routes() == wanted)  # type: ignore[misc]


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_a_device_that_comes_or_goes_waits_for_no_reload_that_is_made_ready(
    topology: Topology, holding: Start, datapath: str
) -> None:
    """As a role's address doesn't: until then nobody answers, or two do."""
    keys = {"link_address": f'"{MAC}"', "datapath": f'"{datapath}"', "events_per_source": "0"}
    rules = ("2001:db8:1::/64 static",)
    running = holding(configuration(*rules, **keys))
    with Wire(topology) as wire:
        asker = Asker(wire, running)

        def comes_to(outcome: str) -> bool:
            return until(lambda: asker.outcome("2001:db8:1::7") == outcome)

        assert comes_to("standby")
        by = "answered_xdp" if datapath == "hybrid" else "answered_python"
        with held(running, rules, **keys):
            for _ in range(2):
                on_edge(topology, f"link add vrrp0 link wan0 address {MAC} type macvlan mode private")
                on_edge(topology, "link set vrrp0 up")
                assert comes_to(by)
                on_edge(topology, "link set vrrp0 down")
                assert comes_to("standby")
                on_edge(topology, "link set vrrp0 up")
                assert comes_to(by)
                on_edge(topology, "link del vrrp0")
                assert comes_to("standby")
            on_edge(topology, f"link add vrrp0 link wan0 address {MAC} type macvlan mode private", "link set vrrp0 up")
            assert comes_to(by)
            assert asker.outcome("2001:db9::1") == "unmatched", "it is still made ready"
        assert says(running, "the new configuration is in use")
        assert comes_to(by)
        assert until(lambda: asker.outcome("2001:db9::1") == by)
        assert until(lambda: "warnings" not in verb(running, "status").stdout)
        on_edge(topology, "link del vrrp0")
        assert comes_to("standby")
