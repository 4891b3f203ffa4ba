# SPDX-License-Identifier: GPL-2.0-or-later
"""A bridge with MLD snooping and a querier: a prefix is asked for behind the port that is announced, and no other.

And a VLAN of 802.1ad, where the announcement has the tag that its device makes.
"""

from __future__ import annotations

import select
import socket
import time

from tests.kernels.ground import Rule, interface, until
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER, SILENCE, Wire

_ANNOUNCED, _OTHER, _TAGGED = "snoop0", "snoop1", "snoop2"
_PREFIXES = {_ANNOUNCED: "2001:db8:70", _OTHER: "2001:db8:71", _TAGGED: "2001:db8:72"}
_BRIDGE, _ASKER = "snoopbr0", "snoop-ask"
_PACE = "mcast_query_response_interval 100 mcast_startup_query_interval 100"  # hundredths of a second
_ETH_P_IPV6 = 0x86DD
_ALL_SNOOPERS_MAC = bytes.fromhex("33330000006a")
_TYPE, _ADVERTISEMENT = 14 + 40 + 8, 151  # behind a hop-by-hop header with a Router Alert (RFC 4286 §3)
_PATIENCE = 60.0  # seconds; one comes each 20 s


class Snooping(Scene):
    kinds = ("bridge",)

    def build(self) -> str:
        ground = self.ground
        self.tagged = ground.may("vlan")
        ports = (_ANNOUNCED, _OTHER, *([_TAGGED] if self.tagged else []))
        for port in ports:
            ground.cable(port, f"{port}-ask")
        ground.ip(
            "upstream",
            f"link add {_BRIDGE} type bridge mcast_snooping 1 {_PACE}",
            f"link add {_ASKER} type veth peer name {_ASKER}-p",
            *(f"link set {port} master {_BRIDGE}" for port in (f"{_ANNOUNCED}-ask", f"{_OTHER}-ask", f"{_ASKER}-p")),
            *(f"link set {port} up" for port in (_ASKER, f"{_ASKER}-p", _BRIDGE)),
            f"link set {_BRIDGE} type bridge mcast_querier 1",  # by its link-local address, which it has by now
        )
        if self.tagged:
            for namespace, name in (("edge", _TAGGED), ("upstream", f"{_TAGGED}-ask")):
                ground.ip(
                    namespace,  # type: ignore[arg-type]
                    f"link add link {name} name {name}.200 type vlan proto 802.1ad id 200",
                    f"link set {name}.200 up",
                )
        text = interface(_OTHER, *(Rule(f"{_PREFIXES[_OTHER]}::{rest}", "static") for rest in ("/64", "12:3456")))
        for port in ports:
            if port != _OTHER:
                more = {"vlan": 200} if port == _TAGGED else {}
                text += interface(port, Rule(f"{_PREFIXES[port]}::/64", "static"), multicast_router=True, **more)
        return text

    def check(self) -> None:
        ground, wire = self.ground, self.ground.wire(_ASKER)
        self._check_bridge(wire, "")
        ground.ip("edge", f"link set {_ANNOUNCED} down", f"link set {_ANNOUNCED} up")
        self._check_bridge(wire, ", after its link was down")
        if self.tagged:
            with ground.topology.inside("upstream"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as tap:
                tap.bind((f"{_TAGGED}-ask.200", _ETH_P_IPV6))
                ground.check("the announcement in a VLAN of 802.1ad", _hears_one(tap))

    def _check_bridge(self, wire: Wire, when: str) -> None:
        ground, here, there = self.ground, _PREFIXES[_ANNOUNCED], _PREFIXES[_OTHER]
        mac, other = ground.mac(_ANNOUNCED), ground.mac(_OTHER)
        until(lambda: wire.silent(f"{there}::77:7777") == SILENCE, _PATIENCE)  # then the bridge snoops
        found = wire.ask(f"{there}::12:3456", other, tries=20, seconds=2.0)
        ground.check(f"the other port: a target with a group of its own{when}", found, ANSWER)
        ground.check(f"the other port: a prefix{when}", wire.silent(f"{there}::77:8888"), SILENCE)
        found = wire.ask(f"{here}::77:7777", mac, tries=30, seconds=2.0)
        ground.check(f"the announced port: a prefix{when}", found, ANSWER)


def _hears_one(tap: socket.socket) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while select.select([tap], [], [], max(0.0, deadline - time.monotonic()))[0]:
        frame = tap.recv(2048)
        if frame[:6] == _ALL_SNOOPERS_MAC and frame[_TYPE] == _ADVERTISEMENT:
            return True
    return False
