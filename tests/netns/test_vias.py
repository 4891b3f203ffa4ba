# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces behind which method neighbour can't find any host: refused, or warned of for as long as it is so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from npd6_xdp.lab.daemon import RunningDaemon, StartError
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from npd6_xdp.tools.control import ask
from tests.netns.verb import verb
from tests.netns.wire import Asker, Wire, configuration, on_edge, until

Start = Callable[..., RunningDaemon]

RULE = "2001:db8:1::/64 neighbour via={}"
WHERE = "wan0: rule 2001:db8:1::/64: via {}: "
ROUTE = 'use method = "route"'


def warned(running: RunningDaemon) -> list[str]:
    """What `status` warns of."""
    found = ask(running.control, {"verb": "status"})["warnings"]
    return [str(line) for line in found if ": via " in line]


def test_a_tunnel_is_refused_at_the_start_and_at_a_reload_and_warned_of_when_it_comes_later(
    topology: Topology, daemon: Start
) -> None:
    on_edge(topology, "tuntap add tun9 mode tun", "link set tun9 up")
    with pytest.raises(StartError) as refused:
        daemon(configuration(RULE.format("tun9,lan0")))
    place = WHERE.format("tun9")
    assert place in refused.value.log
    assert ROUTE in refused.value.log
    running = daemon(configuration(RULE.format("lan0")))
    running.write(configuration(RULE.format("tun9")))
    done = verb(running, "reload")
    assert (done.returncode, place in done.stderr, ROUTE in done.stderr) == (1, True, True)
    with Wire(topology) as wire:
        assert until(lambda: Asker(wire, running).answered(HOST_ADDRESS, 0.5)), "the old configuration stays"
    on_edge(topology, "link del tun9")
    running.write(configuration(RULE.format("tun9,lan0")))
    assert verb(running, "reload").returncode == 0
    assert warned(running) == []
    on_edge(topology, "tuntap add tun9 mode tun", "link set tun9 up")
    assert until(lambda: place in running.log, 3.0)
    assert any(line.startswith(place) and line.endswith(ROUTE) for line in warned(running))
    checked = running.command("check", "--config", str(running.config_file))
    assert f"warning: {place}" in checked.stderr
    words = ("explain", HOST_ADDRESS, "--interface", "wan0", "--config", str(running.config_file))
    assert "note: via tun9: it is a tunnel" in running.command(*words).stdout
    on_edge(topology, "link del tun9")
    assert until(lambda: warned(running) == [], 3.0)


def test_what_keeps_it_from_working_now_is_said_with_its_mend_and_no_longer_once_it_is_mended(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(configuration(RULE.format("lan0")))
    assert warned(running) == []
    for break_it, why, mend in (
        ("ip link set lan0 down", "it is down", "ip link set lan0 up"),
        ("sysctl -w net/ipv6/conf/lan0/disable_ipv6=1", "IPv6 is off", "sysctl -w net/ipv6/conf/lan0/disable_ipv6=0"),
        ("ip -6 address flush dev lan0 scope link", "no link-local", "ip -6 address add fe80::1/64 dev lan0"),
    ):
        topology.run("edge", *break_it.split(), check=True)
        assert until(lambda why=why: any(why in line for line in warned(running)), 5.0), why  # type: ignore[misc]
        (line,) = warned(running)
        assert line.startswith(WHERE.format("lan0"))
        assert line.endswith(mend), "the very command"
        topology.run("edge", *mend.split(), check=True)
        assert until(lambda: warned(running) == [], 5.0), mend
    with Wire(topology) as wire:
        on_edge(topology, "address replace 2001:db8:1::1/64 dev lan0 nodad")
        assert until(lambda: Asker(wire, running).answered(HOST_ADDRESS, 1.0), 5.0), "and works"


def test_a_link_that_comes_up_is_no_reason_to_warn_while_the_kernel_looks_for_duplicates_of_its_address(
    topology: Topology, daemon: Start
) -> None:
    """The kernel announces an address when it has found that nobody else has it, which takes up to two seconds."""

    def is_announced() -> bool:
        (shown,) = topology.ip("edge", "-6", "address", "show", "dev", "lan9") or ({"addr_info": []},)
        return any(not address.get("tentative") for address in shown["addr_info"])

    running = daemon(configuration(RULE.format("lan9")))
    assert until(lambda: "via lan9: no such interface; waiting for it" in running.log)
    on_edge(topology, "link add lan9 type veth peer name lan9p", "link set lan9p up", "link set lan9 up")
    assert until(is_announced, 10.0)
    assert until(lambda: "via lan9: cleared" in running.log, 5.0)
    assert warned(running) == []
    assert WHERE.format("lan9") not in running.log


def test_an_interface_without_arp_is_refused_and_a_bridges_port_leads_to_the_bridge(
    topology: Topology, daemon: Start
) -> None:
    on_edge(topology, "link set lan0 arp off")
    with pytest.raises(StartError, match="didn't start") as refused:
        daemon(configuration(RULE.format("lan0")))
    assert f"{WHERE.format('lan0')}Neighbor Discovery is off there (NOARP)" in refused.value.log
    on_edge(topology, "link set lan0 arp on", "link add br0 type bridge", "link set lan0 master br0")
    running = daemon(configuration(RULE.format("lan0")))
    assert any('via = ["br0"]' in line for line in warned(running))
