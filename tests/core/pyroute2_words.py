# SPDX-License-Identifier: GPL-2.0-or-later
"""Our messages as pyroute2 reads them, and messages that it writes: an oracle that shares no code with npd6_xdp."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any

from npd6_xdp.core.rtnetlink import AF_INET6, messages

TEXT = "2001:db8:1::42"
ADDRESS = IPv6Address(TEXT).packed
GATEWAY = IPv6Address("fe80::1").packed
NTF_USE, NTF_PROXY = 0x01, 0x08
MAC_BYTES = bytes.fromhex("020000000007")


def decoded(kind: type[Any], data: bytes) -> dict[str, Any]:
    """A message as pyroute2 reads it: its fields and attributes in one."""
    message = kind(data)
    message.decode()
    fields = {name: message[name] for name, _ in message.fields}
    return {**fields, **dict(message["attrs"]), "header": message["header"]}


MAIN, UNIVERSE, UNICAST = 254, 0, 1


def encoded(kind: type[Any], fields: dict[str, Any], attributes: list[tuple[str, Any]]) -> bytes:
    """The body of a message that pyroute2 writes."""
    message = kind()
    for name, value in {"family": AF_INET6, **fields}.items():
        message[name] = value
    message["attrs"] = attributes
    message.encode()
    (found,) = messages(bytes(message.data))
    return found.body


ROUTE = {"dst_len": 64, "proto": 3, "type": UNICAST, "table": MAIN}


def hop(ifindex: int, *attributes: tuple[str, Any]) -> dict[str, Any]:
    return {"oif": ifindex, "hops": 0, "flags": 0, "attrs": list(attributes)}


ROUTE_CASES: tuple[tuple[str, list[tuple[str, Any]], int, tuple[tuple[int, bytes], ...]], ...] = (
    ("on link", [("RTA_OIF", 3)], 3, ()),
    ("through a gateway", [("RTA_GATEWAY", "fe80::1"), ("RTA_OIF", 3)], 3, ((3, GATEWAY),)),
    (
        "through several",
        [("RTA_MULTIPATH", [hop(3, ("RTA_GATEWAY", "fe80::1")), hop(4, ("RTA_GATEWAY", TEXT))])],
        0,
        ((3, GATEWAY), (4, ADDRESS)),
    ),
    (
        "through several, one of them on link",
        [("RTA_MULTIPATH", [hop(3), hop(4, ("RTA_GATEWAY", TEXT)), hop(5)])],
        0,
        ((4, ADDRESS),),
    ),
)
