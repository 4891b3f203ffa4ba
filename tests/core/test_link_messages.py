# SPDX-License-Identifier: GPL-2.0-or-later
"""Links, addresses and groups, as pyroute2 writes them and the kernel tells of them."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv6Address
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from npd6_xdp.core import link_messages
from npd6_xdp.core.link_messages import AddressEntry, LinkEntry, LinkFlag, parse_address, parse_group, parse_link
from npd6_xdp.core.rtnetlink import Flag, Type
from tests.core.pyroute2_words import ADDRESS, MAC_BYTES, TEXT, decoded, encoded

MAC = ("IFLA_ADDRESS", "02:00:00:00:00:07")
UP = ("IFLA_OPERSTATE", "UP")


def info(kind: str, *data: tuple[str, Any]) -> tuple[str, Any]:
    more = [("IFLA_INFO_DATA", {"attrs": list(data)})] if data else []
    return "IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", kind), *more]}


ETHER = LinkEntry(3, "wan0", MAC_BYTES, True, "", 0, 0, 0, flags=LinkFlag.UP)
DOWN = ETHER._replace(up=False)
VLAN = ETHER._replace(kind="vlan", parent=9, vlan=100)


LINKS: tuple[tuple[str, dict[str, int], list[tuple[str, Any]], LinkEntry], ...] = (
    ("hardware", {}, [MAC, UP], ETHER),
    ("a state unknown", {}, [MAC, ("IFLA_OPERSTATE", "UNKNOWN")], ETHER),
    ("without carrier", {}, [MAC, ("IFLA_OPERSTATE", "DOWN")], DOWN),
    ("of no state", {}, [MAC], DOWN),
    ("administratively down", {"flags": 0}, [MAC, UP], DOWN._replace(flags=0)),
    ("a tunnel", {"ifi_type": 768}, [UP], ETHER._replace(mac=b"", type=768)),
    ("a VLAN device", {}, [MAC, UP, ("IFLA_LINK", 9), info("vlan", ("IFLA_VLAN_ID", 100))], VLAN),
    (
        "a VLAN device of 802.1ad",
        {},
        [MAC, UP, ("IFLA_LINK", 9), info("vlan", ("IFLA_VLAN_ID", 100), ("IFLA_VLAN_PROTOCOL", 0x88A8))],
        VLAN._replace(tpid=0x88A8),
    ),
    (
        "a VLAN device on an interface of another namespace",
        {},
        [MAC, UP, ("IFLA_LINK", 9), info("vlan", ("IFLA_VLAN_ID", 100)), ("IFLA_LINK_NETNSID", 1)],
        VLAN._replace(parent=0),
    ),
    (
        "a bridge's port",
        {},
        [MAC, UP, ("IFLA_MASTER", 70_000), info("veth")],
        ETHER._replace(kind="veth", master=70_000),
    ),
    (
        "a bond's slave",
        {},
        [MAC, UP, ("IFLA_MASTER", 9), ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_SLAVE_KIND", "bond")]})],
        ETHER._replace(master=9, slave_kind="bond"),
    ),
    ("a VRF", {}, [MAC, UP, info("vrf", ("IFLA_VRF_TABLE", 1010))], ETHER._replace(kind="vrf", table=1010)),
    ("a macvlan", {}, [MAC, UP, ("IFLA_LINK", 9), info("macvlan")], ETHER._replace(kind="macvlan", parent=9)),
    (
        "without address resolution, of another size, with other names",
        {"flags": 0x81},
        [
            MAC,
            UP,
            ("IFLA_MTU", 1280),
            ("IFLA_PROP_LIST", {"attrs": [("IFLA_ALT_IFNAME", "enp1s0"), ("IFLA_ALT_IFNAME", "uplink")]}),
        ],
        ETHER._replace(flags=LinkFlag.UP | LinkFlag.NOARP, mtu=1280, altnames=("enp1s0", "uplink")),
    ),
)


@pytest.mark.parametrize(("what", "fields", "attributes", "wanted"), LINKS, ids=[what for what, *_ in LINKS])
def test_we_read_the_links_that_pyroute2_writes(
    what: str, fields: dict[str, int], attributes: list[tuple[str, Any]], wanted: LinkEntry
) -> None:
    fields = {"family": socket.AF_UNSPEC, "index": 3, "ifi_type": 1, "flags": 1, **fields}
    assert parse_link(encoded(ifinfmsg, fields, [("IFLA_IFNAME", "wan0"), *attributes])) == wanted
    assert parse_link(encoded(ifinfmsg, {**fields, "family": socket.AF_BRIDGE}, attributes)) is None


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value.ljust((len(value) + 3) & ~3, b"\0")


def test_we_read_which_xdp_programs_sit_on_a_link_and_who_wants_all_multicast_frames() -> None:
    fields = {"family": socket.AF_UNSPEC, "index": 3, "ifi_type": 1, "flags": 1}
    ids = attribute(2, b"\4") + attribute(5, struct.pack("=I", 70)) + attribute(6, struct.pack("=I", 71))
    body = encoded(ifinfmsg, fields, [("IFLA_IFNAME", "wan0"), MAC, UP])
    body += attribute(43 | 0x8000, ids) + attribute(61, struct.pack("=I", 2))
    assert parse_link(body) == ETHER._replace(xdp=(70, 71, 0), allmulti=2)
    assert ETHER.allmulti == -1, "a kernel before 6.0 doesn't say"


def test_pyroute2_reads_what_we_ask_of_one_link() -> None:
    asked = decoded(ifinfmsg, link_messages.get_link(7, 3))
    assert (asked["index"], asked["header"]["type"], asked["header"]["flags"]) == (3, Type.GETLINK, Flag.REQUEST)
    asked = decoded(ifaddrmsg, link_messages.dump_groups(7, 3))
    assert (asked["index"], asked["family"]) == (3, socket.AF_INET6)
    assert (asked["header"]["type"], asked["header"]["flags"]) == (Type.GETMULTICAST, Flag.REQUEST | Flag.DUMP)


def test_we_read_the_groups_that_pyroute2_writes() -> None:
    fields = {"family": socket.AF_INET6, "index": 3}
    group = "ff02::1:ff00:42"
    assert parse_group(encoded(ifaddrmsg, fields, [("IFA_MULTICAST", group)])) == (3, IPv6Address(group).packed)
    assert parse_group(encoded(ifaddrmsg, fields, [])) is None
    other = {**fields, "family": socket.AF_INET}
    assert parse_group(encoded(ifaddrmsg, other, [("IFA_MULTICAST", "224.0.0.1")])) is None
    assert parse_group(b"\x0a") is None


@pytest.mark.parametrize(("kind", "state", "backup"), [(b"bond", 0, False), (b"bond", 1, True), (b"bridge", 1, False)])
def test_we_read_whether_a_bond_uses_its_slave(kind: bytes, state: int, backup: bool) -> None:
    slave = attribute(4, kind + b"\0") + attribute(5, attribute(1, bytes([state])) + attribute(2, b"\0"))
    body = struct.pack("=BxHiII", 0, 1, 3, 1, 0) + attribute(3, b"s0\0") + attribute(18, slave)
    link = parse_link(body)
    assert link is not None
    assert (link.slave_kind, link.backup) == (kind.decode(), backup)


def test_a_radios_event_which_says_nothing_of_the_link_is_none() -> None:
    attributes = [("IFLA_IFNAME", "wan0"), ("IFLA_WIRELESS", "aa")]
    assert parse_link(encoded(ifinfmsg, {"family": socket.AF_UNSPEC, "index": 3, "ifi_type": 1}, attributes)) is None


ADDRESSES: tuple[tuple[str, int, list[tuple[str, Any]], tuple[bool, bool, bool]], ...] = (
    # usable, deprecated, settled
    ("settled", 0x80, [], (True, False, True)),
    ("tentative", 0x40, [], (False, False, False)),
    ("tentative and optimistic", 0x44, [], (True, False, False)),
    ("a duplicate", 0x48, [], (False, False, False)),
    ("deprecated", 0x20, [], (True, True, True)),
    ("flags that need more than a byte", 0x40, [("IFA_FLAGS", 0x320)], (True, True, True)),
    ("a peer's beside it", 0, [("IFA_LOCAL", TEXT)], (True, False, True)),
)


@pytest.mark.parametrize(
    ("maker", "wanted"), [(None, (False, False)), (2, (True, False)), (3, (False, True)), (18, (False, False))]
)
def test_who_made_an_address_is_a_router_the_kernel_or_somebody_else_such_as_keepalived(
    maker: int | None, wanted: tuple[bool, bool]
) -> None:
    attributes: list[tuple[str, Any]] = [("IFA_ADDRESS", TEXT)] + ([("IFA_PROTO", maker)] if maker else [])
    entry = parse_address(encoded(ifaddrmsg, {"index": 3, "prefixlen": 64}, attributes))
    assert entry is not None
    assert (entry.advertised, entry.by_kernel) == wanted


@pytest.mark.parametrize(("what", "flags", "attributes", "wanted"), ADDRESSES, ids=[what for what, *_ in ADDRESSES])
def test_we_read_the_addresses_that_pyroute2_writes(
    what: str, flags: int, attributes: list[tuple[str, Any]], wanted: tuple[bool, bool, bool]
) -> None:
    usable, deprecated, settled = wanted
    fields = {"index": 3, "prefixlen": 64, "flags": flags}
    address = "fe80::1" if attributes and attributes[0][0] == "IFA_LOCAL" else TEXT
    body = encoded(ifaddrmsg, fields, [("IFA_ADDRESS", address), *attributes])
    assert parse_address(body) == AddressEntry(3, ADDRESS, 64, usable, deprecated, settled=settled)


def test_we_read_ipv4_addresses_for_which_nothing_is_ever_tentative() -> None:
    """With a point-to-point peer, IFA_ADDRESS is the peer's. A bit of IPv6's flags means something else there."""
    attributes = [("IFA_ADDRESS", "192.0.2.9"), ("IFA_LOCAL", "192.0.2.1"), ("IFA_LABEL", "wan0")]
    fields = {"index": 3, "prefixlen": 24, "flags": 0x40}
    body = encoded(ifaddrmsg, {**fields, "family": socket.AF_INET}, attributes)
    assert parse_address(body) == AddressEntry(3, bytes([192, 0, 2, 1]), 24, usable=True, deprecated=False)
    assert parse_address(encoded(ifaddrmsg, {**fields, "family": socket.AF_INET, "prefixlen": 33}, attributes)) is None
