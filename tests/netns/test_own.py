# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left to the kernel besides plain global addresses: link-local, anycast and tagged; and the gateway again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_LAN_ADDRESS, EDGE_WAN_ADDRESS, UPSTREAM_ADDRESS, Topology
from tests.frames import TAGS_8021Q, ether, ip6
from tests.kinds import solicit
from tests.netns.wire import SETTING, Wire, configuration, until

Start = Callable[..., RunningDaemon]
EDGE_LINK_LOCAL = "fe80::ff:fe00:2"  # of EDGE_WAN_MAC
STRANGER = replace(SETTING, asker_mac=ether("02:00:00:00:00:77"), asker_link_local=ip6("fe80::77"))

both = pytest.mark.parametrize(
    ("datapath", "answered"), [("hybrid", "answered_xdp"), ("python", "answered_python")], ids=["hybrid", "python"]
)


def question(target: str, **fields: bytes) -> bytes:
    return solicit(replace(SETTING, target=ip6(target), **fields))


def grown(running: RunningDaemon, before: dict[str, int]) -> dict[str, int]:
    now = running.solicitations()
    return {outcome: n - before.get(outcome, 0) for outcome, n in now.items() if n != before.get(outcome, 0)}


@both
def test_the_gateway_is_never_impersonated_not_even_by_a_rule_for_its_very_address(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    rules = ("2001:db8::/32 static", f"{UPSTREAM_ADDRESS} static")
    running = daemon(configuration(*rules, datapath=f'"{datapath}"'))
    with Wire(topology) as wire:
        frames = [
            solicit(replace(STRANGER, target=ip6(UPSTREAM_ADDRESS))),
            solicit(replace(STRANGER, target=ip6(UPSTREAM_ADDRESS)), options=b""),
        ]
        wire.send(*frames)
        assert wire.advertisements(0.3) == []
        assert until(lambda: grown(running, {}).get("ignored") == len(frames))
        assert wire.ask(solicit(replace(STRANGER, target=ip6("2001:db8::77")))) is not None
    assert grown(running, {})[answered] == 1


@both
def test_the_link_local_address_of_the_port_is_its_own_even_where_a_rule_names_it(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    rules = ("2001:db8:1::/64 static", f"{EDGE_LINK_LOCAL} static", "fe80::1234 static")
    running = daemon(configuration(*rules, datapath=f'"{datapath}"'))
    with Wire(topology) as wire:
        answer = wire.ask_kernel(question(EDGE_LINK_LOCAL))
        assert answer is not None
        assert NeighborAdvertisement.parse(answer).override, "the kernel's"
        assert answered not in running.solicitations()
        named = wire.ask(question("fe80::1234"))
        assert named is not None
        assert not NeighborAdvertisement.parse(named).override, "ours, since a rule names exactly that address"
        assert wire.ask(question("fe80::1235"), 0.2) is None
    assert running.solicitations()[answered] == 1


def test_the_kernels_anycast_address_of_the_port_is_left_to_it(topology: Topology, daemon: Start) -> None:
    """C1: the subnet-router anycast address of its prefix, which every router has (RFC 4291 §2.6.1)."""
    running = daemon(configuration("2001:db8::/32 static"))
    with Wire(topology) as wire:
        assert wire.ask_kernel(question("2001:db8::")) is not None, "after up to a second (RFC 4861 §7.2.7)"
        assert wire.advertisements(0.1) == []
    assert "answered_xdp" not in running.solicitations()


def test_an_own_address_is_own_under_a_tag_too(topology: Topology, daemon: Start) -> None:
    """Where no VLAN device stands for the tag, the port's own addresses count: answering there helps nobody."""
    running = daemon(configuration("2001:db8::/32 static", vlan="100"))
    with Wire(topology) as wire:
        assert wire.ask(question(EDGE_WAN_ADDRESS, tags=TAGS_8021Q), 0.3) is None
        assert wire.ask(question(EDGE_LAN_ADDRESS, tags=TAGS_8021Q)) is not None
    assert (
        running.metrics()["npd6_solicitations_total", frozenset({("interface", "wan0:100"), ("outcome", "own")})] == 1
    )


def test_an_ignore_rule_leaves_the_other_sides_address_alone(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:1::/64 static", f"{EDGE_LAN_ADDRESS} ignore"))
    with Wire(topology) as wire:
        assert wire.ask(question(EDGE_LAN_ADDRESS), 0.3) is None
    assert until(lambda: running.solicitations().get("ignored") == 1)


@both
def test_a_thousand_addresses_that_come_and_go_leave_the_table_right(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    """A storm of changes: none is lost, and the last state counts."""
    running = daemon(configuration("2001:db8::/32 static", datapath=f'"{datapath}"'))
    addresses = [f"2001:db8:5::{number:x}" for number in range(1, 1001)]

    def batch(verb: str, chosen: list[str]) -> None:
        file = topology.directory / "batch"
        file.write_text("".join(f"address {verb} {address}/128 dev wan0 nodad\n" for address in chosen))
        topology.run("edge", "ip", "-batch", str(file), check=True)

    batch("add", addresses)
    batch("del", addresses[::2])

    def overrides(address: str) -> bool | None:
        answer = wire.ask(question(address), 0.3)
        return None if answer is None else NeighborAdvertisement.parse(answer).override

    with Wire(topology) as wire:
        for address in (addresses[-1], addresses[1], addresses[499]):
            assert until(lambda a=address: overrides(a) is True, 10.0), address  # type: ignore[misc]
        for address in (addresses[-2], addresses[0], addresses[500]):
            assert until(lambda a=address: overrides(a) is False, 10.0), address  # type: ignore[misc]
    assert running.process.poll() is None


def test_the_own_addresses_of_a_bridge_port_are_the_bridges(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8::/32 static"))
    for words in (
        "link add br0 type bridge",
        "link set br0 address 02:00:00:00:00:02 up",
        "link set wan0 master br0",
        "addr del 2001:db8::2/64 dev wan0",
        "addr add 2001:db8::2/64 dev br0 nodad",
        "-6 route replace default via 2001:db8::1 dev br0",
    ):
        topology.run("edge", "ip", *words.split(), check=True)
    with Wire(topology) as wire:

        def asked(target: str) -> str:
            before = running.solicitations()
            wire.send(solicit(replace(STRANGER, target=ip6(target))))
            wire.advertisements(0.1)
            return " ".join(grown(running, before))

        assert until(lambda: asked(EDGE_WAN_ADDRESS) == "own", 2.0)
        assert until(lambda: asked(UPSTREAM_ADDRESS) == "ignored", 2.0)
        assert until(lambda: asked("2001:db8:1::42") == "answered_xdp")
