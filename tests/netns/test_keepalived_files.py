# SPDX-License-Identifier: GPL-2.0-or-later
"""The files for keepalived that are shipped: a real keepalived takes them, and the role that it gives is followed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import npd6_xdp
from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.keepalived import Keepalived
from npd6_xdp.lab.topology import EDGE_WAN_MAC, Topology
from tests.frames import ether
from tests.netns.test_roles import role
from tests.netns.wire import Wire, configuration, on_edge, question, until

Start = Callable[..., RunningDaemon]

FILES = Path(npd6_xdp.__file__).parents[1] / "deploy/keepalived"
TARGET = "2001:db8:1::42"


def keys(text: str) -> dict[str, str]:
    """What a file says that npd6-xdp.toml has with it."""
    return dict(re.findall(r'\b(active_with|link_address) *= *("[^"]+")', text))


def has_gateway(topology: Topology) -> bool:
    """Whether the edge has what the hosts send to."""
    shown = topology.run("edge", "ip", "-6", "-o", "address", "show", "dev", "lan0", check=True)
    return " fe80::1/" in shown.stdout


@pytest.mark.parametrize("name", ["keepalived.conf", "virtual-mac.conf"])
def test_the_edge_answers_once_keepalived_has_put_the_address_there_and_no_longer_when_it_is_stopped(
    topology: Topology, daemon: Start, name: str
) -> None:
    text = (FILES / name).read_text()
    wanted = keys(text)
    address = wanted["active_with"].strip('"')
    on_edge(topology, "address add 192.0.2.2/24 dev lan0")  # as an edge has of its own, from which VRRP is spoken
    topology.sysctl("edge", "net/ipv6/conf/default/forwarding", 1)
    running = daemon(configuration(**wanted))
    keepalived = Keepalived(topology, "edge", "own")  # type: ignore[arg-type]
    keepalived.file.write_text(text)
    with Wire(topology) as wire:
        assert role(running) == {address: 0}
        assert wire.ask(question(TARGET), 0.1) is None
        keepalived.start()
        try:
            assert until(lambda: role(running) == {address: 1}), keepalived.log
            answer = wire.ask(question(TARGET))
            assert answer is not None
            mac = ether(wanted.get("link_address", EDGE_WAN_MAC).strip('"'))
            assert NeighborAdvertisement.parse(answer).link_layer_address == mac
            assert has_gateway(topology), "the hosts' default route goes with the role"
            topology.run("host", "ip", "link", "set", "eth0", "down", check=True)
            assert until(lambda: role(running) == {address: 0}), "an edge that has lost its hosts is no active one"
            topology.run("host", "ip", "link", "set", "eth0", "up", check=True)
            assert until(lambda: role(running) == {address: 1}), keepalived.log
            assert keepalived.stop() == 0
            assert until(lambda: role(running) == {address: 0}), keepalived.log
            assert not has_gateway(topology)
            assert wire.ask(question(TARGET), 0.1) is None
        finally:
            print(keepalived.log)
            keepalived.process.kill()
            keepalived.process.wait()


def test_both_files_say_what_npd6_xdp_is_to_have() -> None:
    found = {path.name: set(keys(path.read_text())) for path in FILES.glob("*.conf")}
    assert found == {"keepalived.conf": {"active_with"}, "virtual-mac.conf": {"active_with", "link_address"}}
