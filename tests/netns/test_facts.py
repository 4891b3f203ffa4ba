# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts of links after changes are the same as if they were read anew; what didn't change is the same object."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv6Address

from npd6_xdp.core.links import LinkFacts
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.netlink.links import Netlink
from tests.netns.wire import on_edge, until

CHANGES = (
    "link set wan0 mtu 1400",
    "address add 2001:db8:5::1/64 dev wan0 nodad",
    "link add br0 type bridge",
    "link set br0 up",
    "link set wan0 master br0",
    "address add 2001:db8:6::1/64 dev br0 nodad",
    "link set br0 address 02:00:00:00:77:77",
    "link set br0 name br1",
    "link add mac0 link lan0 type macvlan",
    "address add 2001:db8:7::1/64 dev mac0 nodad",
    "link set mac0 up",
    "link del mac0",
    "link set wan0 nomaster",
    "link del br1",
    "link set lan0 name other0",
    "link property add dev other0 altname another0",
    "address flush dev other0",
    "link set wan0 down",
)


def test_facts_after_each_change_are_those_that_a_later_one_reads_and_others_stay_the_very_same(
    topology: Topology,
) -> None:
    def none(_: int) -> frozenset[IPv6Address]:
        return frozenset()

    def plain(facts: Mapping[str, LinkFacts]) -> dict[str, LinkFacts]:
        return {name: replace(link, generation=0) for name, link in facts.items()}

    for name in ("default", "wan0", "lan0"):
        topology.sysctl("edge", f"net/ipv6/conf/{name}/accept_dad", 0)  # of a tentative address nothing is announced
    with topology.inside("edge"), closing(Netlink()) as netlink:
        before = now = netlink.facts(none)

        def agrees() -> bool:
            """The kernel goes on with addresses for a while."""
            nonlocal before, now
            netlink.on_change()
            before, now = now, netlink.facts(none)
            same = {name for name in before.keys() & now.keys() if now[name] == before[name]}
            assert "lo" in same
            assert all(now[name] is before[name] for name in same)
            with closing(Netlink()) as fresh:
                ports = netlink.l3_interfaces(lambda _: True), fresh.l3_interfaces(lambda _: True)
                return plain(now) == plain(fresh.facts(none)) and ports[0] == ports[1]

        for change in CHANGES:
            on_edge(topology, change)
            assert until(agrees), change
        before = now
        hop = frozenset({IPv6Address("fe80::1")})
        index = before["wan0"].ifindex
        now = netlink.facts(lambda ifindex: hop if ifindex == index else frozenset())
        assert now["wan0"].next_hops == {(): hop}
        assert now["other0"] is before["other0"]
