# SPDX-License-Identifier: GPL-2.0-or-later
"""Next hops, read while they and the interfaces change: one that is lost would be impersonated."""

from __future__ import annotations

import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv6Address

import pytest

from npd6_xdp.core import rtnetlink
from npd6_xdp.lab.topology import UPSTREAM_ADDRESS, Topology
from npd6_xdp.system.rtnetlink import NextHops
from tests.netns.wire import on_edge, until

GATEWAYS = frozenset({IPv6Address(UPSTREAM_ADDRESS)})
ROUTES = 4000  # more than the kernel tells at once


@pytest.fixture
def hops(topology: Topology) -> Iterator[NextHops]:
    routes = "\n".join(
        f"route add 3fff:{number >> 8:x}:{number & 255:x}::/48 via {UPSTREAM_ADDRESS} dev wan0"
        for number in range(ROUTES)
    )
    on_edge_at_once(topology, routes)
    with topology.inside("edge"):
        found = NextHops()
        with closing(found):
            yield found


def on_edge_at_once(topology: Topology, lines: str) -> None:
    subprocess.run(["ip", "-6", "-n", topology.name("edge"), "-batch", "-"], input=lines, text=True, check=True)


def index(name: str) -> int:
    return socket.if_nametoindex(name)


def settle(hops: NextHops) -> list[frozenset[IPv6Address]]:
    """Read on until nothing more is to be read; what was known of wan0 meanwhile."""
    seen = [hops.of(index("wan0"))]

    def settled() -> bool:
        if hops.due is not None:
            hops.refresh()
        while select.select([hops.filenos()[1]], [], [], 0.05)[0]:
            hops.on_dump()
            seen.append(hops.of(index("wan0")))
        return hops.due is None

    assert until(settled)
    return seen


def test_interfaces_that_come_while_all_is_read_anew_lose_no_next_hop(hops: NextHops) -> None:
    wan, lan = index("wan0"), index("lan0")
    hops.watch({wan})
    assert hops.of(wan) == GATEWAYS
    hops.refresh()
    hops.watch({wan, lan})
    assert set(settle(hops)) == {GATEWAYS}
    hops.refresh()
    hops.refresh()
    assert set(settle(hops)) == {GATEWAYS}


def test_next_hops_of_an_interface_that_comes_while_others_are_read_anew_stay(hops: NextHops) -> None:
    wan, lan = index("wan0"), index("lan0")
    hops.watch({lan})
    hops.refresh()
    hops.watch({wan, lan})
    assert set(settle(hops)) == {GATEWAYS}


def test_what_the_kernel_refuses_to_tell_stays_as_it_was_and_is_asked_for_again(
    hops: NextHops, monkeypatch: pytest.MonkeyPatch
) -> None:
    wan = index("wan0")
    hops.watch({wan})
    with monkeypatch.context() as patched:
        patched.setattr(rtnetlink, "error_code", lambda _: 16)
        hops.refresh()
        while hops.due is None:
            hops.on_dump()
    assert hops.of(wan) == GATEWAYS
    assert set(settle(hops)) == {GATEWAYS}


def test_a_next_hop_that_comes_while_it_is_read_is_known_and_one_that_goes_is_forgotten(
    topology: Topology, hops: NextHops
) -> None:
    wan = index("wan0")
    hops.watch({wan})
    hops.refresh()
    on_edge(topology, "route add 2001:db8:77::/64 via 2001:db8::77 dev wan0")
    hops.on_change()
    both = GATEWAYS | {IPv6Address("2001:db8::77")}
    assert set(settle(hops)) == {both}
    on_edge(topology, "route del 2001:db8:77::/64 via 2001:db8::77 dev wan0")
    hops.on_change()
    assert settle(hops)[-1] == GATEWAYS


def test_an_interface_that_is_gone_has_no_next_hops_and_is_no_error(topology: Topology, hops: NextHops) -> None:
    on_edge(topology, "link add gone0 type veth")
    gone = index("gone0")
    on_edge(topology, "link del gone0")
    hops.watch({index("wan0"), gone})
    assert hops.of(gone) == frozenset()
    hops.refresh()
    assert set(settle(hops)) == {GATEWAYS}
