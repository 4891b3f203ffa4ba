# SPDX-License-Identifier: GPL-2.0-or-later
"""Two edges side by side between a switch and a switch, and hosts behind both of them.

                         ┌─ edge:wan0     edge:lan0 ───┐
    upstream:eth0 ── wan ┤  2001:db8::2                ├ lan ── host:eth0
      2001:db8::1        └─ second:wan0 second:lan0 ───┘        2001:db8:1::/64
                            2001:db8::3

The switches are bridges in a namespace of their own, so that a cable can be cut, and each frame's edge be told by
the port that it comes in by. The host has all addresses of the /64, as a subscriber's router would; an edge needs
one neighbour for all of them, but for method neighbour, which asks for each: come().
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Final, Literal

from npd6_xdp.lab.topology import HOST_MAC, HOST_PREFIX, UPSTREAM_ADDRESS, UPSTREAM_MAC, Namespace, Topology

Edge = Literal["edge", "second"]
EDGES: Final[tuple[Edge, ...]] = ("edge", "second")

MACS: Final[dict[Edge, str]] = {"edge": "02:00:00:00:00:02", "second": "02:00:00:00:00:03"}
ADDRESSES: Final[dict[Edge, str]] = {"edge": "2001:db8::2", "second": "2001:db8::3"}
GATEWAY = "fe80::1"
"""What the hosts' packets go to, on lan0 of the edge that has it."""

_LAN_MACS: dict[Edge, str] = {"edge": "02:00:00:00:00:0a", "second": "02:00:00:00:00:0b"}
_HOST_LINK_LOCAL = "fe80::42"
_FIRST_HOST = int(IPv6Address("2001:db8:1::1:0"))


def host(number: int) -> str:
    """The address of a host, the first one being 0."""
    return str(IPv6Address(_FIRST_HOST + number))


def _edge(edge: Edge) -> tuple[str, ...]:
    return (
        "link set lo up",
        f"link set wan0 address {MACS[edge]} up",
        f"address add {ADDRESSES[edge]}/64 dev wan0 nodad",
        f"link set lan0 address {_LAN_MACS[edge]} up",
        f"route add {HOST_PREFIX} via {_HOST_LINK_LOCAL} dev lan0",
    )


class Pair(Topology):
    """The namespaces, up and addressed while the `with` block runs. Nobody has GATEWAY yet."""

    namespaces = ("upstream", "edge", "second", "switch", "host")
    setup = {  # noqa: RUF012  # read only, as the class's whose it overrides
        "switch": (
            *(f"link add {side} type bridge mcast_snooping 0" for side in ("wan", "lan")),
            *(f"link set {side}-{name} master {side} up" for side in ("wan", "lan") for name in (*EDGES, "end")),
            *(f"link set {side} up" for side in ("wan", "lan")),
        ),
        "upstream": (
            "link set lo up",
            f"link set eth0 address {UPSTREAM_MAC} up",
            f"address add {UPSTREAM_ADDRESS}/64 dev eth0 nodad",
            f"route add {HOST_PREFIX} dev eth0",
        ),
        "edge": _edge("edge"),
        "second": _edge("second"),
        "host": (
            "link set lo up",
            f"link set eth0 address {HOST_MAC} up",
            f"address add {_HOST_LINK_LOCAL}/64 dev eth0 nodad",
            f"route add local {HOST_PREFIX} dev lo",
            f"route add default via {GATEWAY} dev eth0",
        ),
    }
    interfaces = {  # noqa: RUF012
        "upstream": ("eth0",),
        "edge": ("wan0", "lan0"),
        "second": ("wan0", "lan0"),
        "host": ("eth0",),
    }

    def connect(self) -> None:
        """Put the cables in, all of which end in the switch."""
        self.sysctl("switch", "net/ipv6/conf/default/disable_ipv6", 1)
        ends: dict[str, Namespace] = {"wan": "upstream", "lan": "host"}
        for side, end in ends.items():
            self.cable(end, "eth0", "switch", f"{side}-end")
        for edge in EDGES:
            self.sysctl(edge, "net/ipv6/conf/all/forwarding", 1)
            for side in ends:
                self.cable(edge, f"{side}0", "switch", f"{side}-{edge}")

    def come(self, hosts: Iterable[str]) -> None:
        """Give the host these addresses: it answers for each on its link then, as method neighbour needs it."""
        lines = self.directory / "hosts"
        lines.write_text("".join(f"address add {each}/128 dev eth0 nodad\n" for each in hosts))
        self.run("host", "ip", "-6", "-batch", str(lines), check=True)

    def cut(self, edge: Edge, side: str) -> None:
        """Pull an edge's cable, of `side` wan or lan, out of the switch: the edge sees that it has no carrier."""
        self.run("switch", "ip", "link", "set", f"{side}-{edge}", "down", check=True)

    def mend(self, edge: Edge, side: str) -> None:
        """Put it in again."""
        self.run("switch", "ip", "link", "set", f"{side}-{edge}", "up", check=True)
