# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports in a VRF: host routes go into its table, where what comes in there finds them; method route looks there."""

from __future__ import annotations

from tests.kernels.ground import Rule, interface, until
from tests.kernels.machine import init, ping
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER, SILENCE

# One above what the eight bits of struct rtmsg's table hold.
TABLES = {1: 10, 2: 1000}


class Vrfs(Scene):
    """Both sides of each VRF are on one /64, as README has it; another /64 is routed to the host."""

    kinds = ("vrf",)

    def build(self) -> str:
        ground, text = self.ground, ""
        for number, table in TABLES.items():
            wan, lan, vrf, prefix = f"vwan{number}", f"vlower{number}", f"vrf{number}", f"2001:db8:4{number}"
            ground.ip("edge", f"link add {vrf} type vrf table {table}", f"link set {vrf} up")
            ground.cable(wan, f"{wan}-ask")
            ground.ip("upstream", f"address add {prefix}::1/64 dev {wan}-ask nodad")
            ground.ip("edge", f"link set {wan} master {vrf}", f"address add {prefix}::b/64 dev {wan} nodad")
            ground.host(
                lan,
                f"vhost{number}",
                f"address add {prefix}::42/128 dev vhost{number} nodad",
                f"route add {prefix}::/64 via fe80::e dev vhost{number}",
                edge=(
                    f"link set {lan} master {vrf}",
                    f"address add {prefix}::e/128 dev {lan} nodad",
                    f"address add fe80::e/64 dev {lan} nodad",
                ),
            )
            ground.ip("edge", f"route add {prefix}:1::/64 via fe80::42 dev {lan} table {table}")
            # What only the main table leads to isn't there for packets of the VRF.
            ground.ip("edge", f"route add unreachable {prefix}:2::/64 table {table}")
            ground.ip("edge", f"route add {prefix}:2::/64 dev lan0")
            text += interface(
                wan,
                Rule(f"{prefix}::/64", "neighbour", f'via = ["{lan}"]\nhost_routes = true'),
                Rule(f"{prefix}:1::/64", "route"),
                Rule(f"{prefix}:2::/64", "route"),
                datapath="hybrid" if number == 1 else "python",
            )
        return text

    def check(self) -> None:
        ground = self.ground
        for number, table in TABLES.items():
            wan, prefix, what = f"vwan{number}", f"2001:db8:4{number}", f"table {table}"
            ground.check_auto(wan, "native XDP_TX is lost on veth")
            wire, mac, host = ground.wire(f"{wan}-ask"), ground.mac(wan), f"{prefix}::42"
            ground.check(f"{what}: method neighbour", wire.ask(host, mac, tries=3), ANSWER)
            there = until(lambda host=host, table=table: host in self._routes(table), 30.0)  # type: ignore[misc]
            ground.check(f"{what}: the host route is in it", there)
            ground.check(f"{what}: and not in the main table", host in self._routes(254), False)
            pong = ping(ground.topology, "upstream", host, f"{wan}-ask")
            ground.check(f"{what}: the upstream reaches the host", pong)
            ground.check(f"{what}: method route", wire.ask(f"{prefix}:1::1", mac), ANSWER)
            found = wire.silent(f"{prefix}:2::1")
            ground.check(f"{what}: method route, what only the main table leads to", found, SILENCE)

        text = init(ground.topology)
        ground.check("init finds the uplink of the main table", 'name = "wan0"' in text)
        ground.check("init leaves out what is in a VRF", [each for each in TABLES if f'"vlower{each}"' in text], [])

    def after_growth(self) -> None:
        for number, table in TABLES.items():
            host = f"2001:db8:4{number}::42"
            pong = ping(self.ground.topology, "upstream", host, f"vwan{number}-ask")
            self.ground.check(f"table {table}: the upstream reaches the host, after growth", pong)
            # Where minutes have passed, the kernel may have given the host up, and the question has found it again.
            read = lambda host=host, table=table: host in self._routes(table)  # noqa: E731
            self.ground.check_soon(f"table {table}: the host route is there, after growth", read, True)

    def _routes(self, table: int) -> set[str]:
        """Where the daemon's routes in a table lead to."""
        words = ("-6", "route", "show", "table", str(table), "proto", "136")
        return {route["dst"] for route in self.ground.topology.ip("edge", *words)}
