# SPDX-License-Identifier: GPL-2.0-or-later
"""A via interface that joins a VRF, goes to another and leaves it, while the daemon runs: its host routes go along."""

from __future__ import annotations

from tests.kernels.ground import Rule, interface, until
from tests.kernels.machine import ping
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER

TABLES = {"mvrf1": 30, "mvrf2": 1030}
PREFIX, WAN, LAN = "2001:db8:49", "mwan", "mlan"
HOST = f"{PREFIX}::42"
MAIN = 254


class VrfMoves(Scene):
    """One /64 on both sides; at first, all is in the main table."""

    kinds = ("vrf",)

    def build(self) -> str:
        ground = self.ground
        for vrf, table in TABLES.items():
            ground.ip("edge", f"link add {vrf} type vrf table {table}", f"link set {vrf} up")
        ground.cable(WAN, f"{WAN}-ask")
        ground.ip("upstream", f"address add {PREFIX}::1/64 dev {WAN}-ask nodad")
        ground.ip("edge", *self._addresses(WAN), f"address add fe80::b/64 dev {WAN} nodad")
        ground.host(
            LAN,
            f"{LAN}-host",
            f"address add {HOST}/128 dev {LAN}-host nodad",
            f"route add {PREFIX}::/64 via fe80::e dev {LAN}-host",
            edge=(f"address add fe80::e/64 dev {LAN} nodad",),
        )
        rule = Rule(f"{PREFIX}::/64", "neighbour", f'via = ["{LAN}"]\nhost_routes = true')
        return interface(WAN, rule, datapath="hybrid")

    def check(self) -> None:
        for master, table in ((None, MAIN), *TABLES.items(), (None, MAIN)):
            self._move(master)
            what = f"in {master}" if master else "in none"
            wire, mac = self.ground.wire(f"{WAN}-ask"), self.ground.mac(WAN)
            self.ground.check(f"{what}: method neighbour", wire.ask(HOST, mac, tries=5), ANSWER)
            alone = {each: each == table for each in (MAIN, *TABLES.values())}
            there = until(lambda alone=alone: self._tables() == alone, 30.0)  # type: ignore[misc]
            self.ground.check(f"{what}: the host route is in its table alone", there)
            pong = ping(self.ground.topology, "upstream", HOST, f"{WAN}-ask")
            self.ground.check(f"{what}: the upstream reaches the host", pong)
        # A VRF takes a port down and up by the flags that it has (cycle_netdev in drivers/net/vrf.c), and so makes the
        # daemon's allmulti somebody's own.
        self.ground.ip("edge", f"link set {WAN} allmulticast off")

    def _move(self, master: str | None) -> None:
        """The kernel takes both down and up again, and their addresses go with that."""
        for name, fe80 in ((WAN, "fe80::b"), (LAN, "fe80::e")):
            self.ground.ip("edge", f"link set {name} {f'master {master}' if master else 'nomaster'}")
            self.ground.ip("edge", f"link set {name} up", f"address replace {fe80}/64 dev {name} nodad")
        self.ground.ip("edge", *(line.replace("address add", "address replace") for line in self._addresses(WAN)))

    @staticmethod
    def _addresses(name: str) -> list[str]:
        return [f"address add {PREFIX}::b/64 dev {name} nodad"]

    def _tables(self) -> dict[int, bool]:
        """Which routing tables lead to the host by a route of ours."""
        found = {}
        for table in (MAIN, *TABLES.values()):
            words = ("-6", "route", "show", "table", str(table), "proto", "136")
            found[table] = HOST in {route["dst"] for route in self.ground.topology.ip("edge", *words)}
        return found
