# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines for `init` to decide about, written as ip(8) shows them."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

from npd6_xdp.core.link_messages import LinkEntry, LinkFlag
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.survey import Held, Way
from npd6_xdp.tools.init.machine import BareMachine

PROTOCOLS = {"kernel": 2, "boot": 3, "static": 4, "ra": 9, "dhcp": 16, "136": 136}
TYPES = {"unreachable": 7, "blackhole": 6}


class Sketch:
    """A machine in the making. Links have indexes in the order in which they come."""

    def __init__(self) -> None:
        self.links: dict[str, LinkEntry] = {}
        self.addresses: list[Held] = []
        self.routes: list[Way] = []
        self.neighbours: list[tuple[int, IPv6Address]] = []
        self.sysctls = {"conf/all/forwarding": "0"}
        self.heard: set[str] = set()
        self.can_ask_routers = True

    def link(
        self,
        name: str,
        kind: str = "",
        *,
        master: str = "",
        parent: str = "",
        up: bool = True,
        table: int = 0,
        vlan: int = 0,
    ) -> Sketch:
        index = len(self.links) + 1
        tunnel = kind in ("wireguard", "ppp", "sit")
        flags = (LinkFlag.UP if up else 0) | (LinkFlag.NOARP | LinkFlag.POINTOPOINT if tunnel else 0)
        self.links[name] = LinkEntry(
            index,
            name,
            b"" if tunnel or name == "lo" else bytes([2, 0, 0, 0, index >> 8, index & 255]),
            up,
            kind,
            self.links[master].ifindex if master else 0,
            self.links[parent].ifindex if parent else 0,
            vlan,
            type=772 if name == "lo" else 0xFFFE if tunnel else 1,
            flags=int(flags),
            slave_kind=self.links[master].kind if master else "",
            table=table,
        )
        self.sysctls |= {f"conf/{name}/accept_ra": "1", f"conf/{name}/forwarding": "0"}
        return self

    def address(self, text: str, name: str, *words: str) -> Sketch:
        """As of `ip -6 address`, and the route for its prefix that comes with it."""
        address, _, length = text.partition("/")
        index = self.links[name].ifindex
        flags = {"advertised": "ra" in words, "passing": "dynamic" in words or "ra" in words, "bare": "bare" in words}
        held = Held(index, IPv6Address(address), int(length), **flags)
        self.addresses.append(held)
        if "bare" not in words:
            protocol = PROTOCOLS["ra" if "ra" in words else "kernel"]
            self.routes.append(Way(held.network, ((index, None),), 1, protocol, self._table(name), 256))
        return self

    def route(
        self, text: str, name: str = "", via: str = "", proto: str = "static", kind: str = "", metric: int = 1024
    ) -> Sketch:
        """As of `ip -6 route`."""
        destination = Prefix.of(IPv6Network("::/0" if text == "default" else text))
        hops = ((self.links[name].ifindex, IPv6Address(via) if via else None),) if name else ()
        table = self._table(name) if name else 254
        self.routes.append(Way(destination, hops, TYPES.get(kind, 1), PROTOCOLS[proto], table, metric))
        return self

    def neighbour(self, address: str, name: str) -> Sketch:
        self.neighbours.append((self.links[name].ifindex, IPv6Address(address)))
        return self

    def sysctl(self, key: str, value: str) -> Sketch:
        self.sysctls[key] = value
        return self

    def hears(self, name: str) -> Sketch:
        """Router advertisements have come in by it."""
        self.heard.add(name)
        return self

    def _table(self, name: str) -> int:
        master = next((link for link in self.links.values() if link.ifindex == self.links[name].master), None)
        return master.table if master is not None and master.kind == "vrf" else 254

    @property
    def machine(self) -> BareMachine:
        return BareMachine(
            {link.ifindex: link for link in self.links.values()},
            tuple(self.addresses),
            tuple(self.routes),
            tuple(self.neighbours),
            self.sysctls,
            frozenset(self.heard),
            self.can_ask_routers,
        )


def vps() -> Sketch:
    """One /64 on the wire, and nothing else yet."""
    return (
        Sketch()
        .link("lo")
        .link("eth0")
        .address("fe80::5/64", "eth0")
        .address("2001:db8:1::2/64", "eth0")
        .route("default", "eth0", "fe80::1")
    )
