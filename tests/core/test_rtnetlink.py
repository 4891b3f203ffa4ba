# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink messages in both directions, with pyroute2, which shares no code with ours, on the other end."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.ndtmsg import ndtmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from npd6_xdp.core import link_messages, neighbour_messages, route_messages
from npd6_xdp.core.link_messages import AddressEntry, LinkEntry, LinkFlag, parse_address, parse_group, parse_link
from npd6_xdp.core.neighbour_messages import (
    PRESENT,
    NeighbourEntry,
    NeighbourState,
    parse_neighbour,
    parse_neighbour_hash,
    parse_neighbour_table,
)
from npd6_xdp.core.route_messages import (
    NextHopEntry,
    RouteEntry,
    RouteReply,
    RouteType,
    RuleEntry,
    parse_nexthop,
    parse_route,
    parse_route_reply,
    parse_rule,
)
from npd6_xdp.core.rtnetlink import AF_INET6, PROTOCOL, Flag, Message, Type, error_code, messages

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


NEIGHBOURS = (
    (
        "probe",
        neighbour_messages.probe_neighbour(7, 3, ADDRESS),
        Type.NEWNEIGH,
        Flag.REQUEST | Flag.CREATE,
        {"ifindex": 3, "state": 0, "flags": NTF_USE, "NDA_DST": TEXT},
    ),
    (
        "delete",
        neighbour_messages.delete_neighbour(7, 3, ADDRESS),
        Type.DELNEIGH,
        Flag.REQUEST,
        {"ifindex": 3, "state": 0, "flags": 0, "NDA_DST": TEXT},
    ),
    (
        "add a proxy entry",
        neighbour_messages.add_proxy(7, 3, ADDRESS),
        Type.NEWNEIGH,
        Flag.REQUEST | Flag.CREATE | Flag.ACK,
        {"ifindex": 3, "state": 0, "flags": NTF_PROXY, "NDA_DST": TEXT, "NDA_PROTOCOL": PROTOCOL},
    ),
    (
        "delete a proxy entry",
        neighbour_messages.delete_proxy(7, 3, ADDRESS),
        Type.DELNEIGH,
        Flag.REQUEST | Flag.ACK,
        {"ifindex": 3, "flags": NTF_PROXY, "NDA_DST": TEXT},
    ),
    (
        "get a proxy entry",
        neighbour_messages.get_proxy(7, 3, ADDRESS),
        Type.GETNEIGH,
        Flag.REQUEST,
        {"ifindex": 3, "flags": NTF_PROXY, "NDA_DST": TEXT},
    ),
    (
        "dump",
        neighbour_messages.dump_neighbours(7),
        Type.GETNEIGH,
        Flag.REQUEST | Flag.DUMP,
        {"ifindex": 0, "flags": 0},
    ),
    (
        "dump the proxy entries",
        neighbour_messages.dump_neighbours(7, proxies=True),
        Type.GETNEIGH,
        Flag.REQUEST | Flag.DUMP,
        {"ifindex": 0, "flags": NTF_PROXY},
    ),
)
MAIN, UNIVERSE, UNICAST = 254, 0, 1
ROUTES = (
    (
        "add a host route",
        route_messages.host_route(Type.NEWROUTE, 7, 3, ADDRESS),
        Type.NEWROUTE,
        Flag.REQUEST | Flag.ACK | Flag.CREATE | Flag.EXCL,
        {"dst_len": 128, "proto": PROTOCOL, "table": MAIN, "scope": UNIVERSE, "type": UNICAST}
        | {"RTA_DST": TEXT, "RTA_OIF": 3, "RTA_PRIORITY": 1024},
    ),
    (
        "remove a host route",
        route_messages.host_route(Type.DELROUTE, 7, 3, ADDRESS),
        Type.DELROUTE,
        Flag.REQUEST | Flag.ACK,
        {"dst_len": 128, "proto": PROTOCOL, "table": MAIN, "RTA_DST": TEXT, "RTA_OIF": 3, "RTA_PRIORITY": 1024},
    ),
    (
        "dump all routes",
        route_messages.dump_routes(7),
        Type.GETROUTE,
        Flag.REQUEST | Flag.DUMP,
        {"dst_len": 0, "proto": 0},
    ),
    (
        "dump those of a protocol",
        route_messages.dump_routes(7, protocol=PROTOCOL),
        Type.GETROUTE,
        Flag.REQUEST | Flag.DUMP,
        {"proto": PROTOCOL, "type": UNICAST},
    ),
    (
        "dump those of all types",
        route_messages.dump_routes(7, kind=RouteType.UNSPEC),
        Type.GETROUTE,
        Flag.REQUEST | Flag.DUMP,
        {"proto": 0, "type": 0},
    ),
    (
        "ask what becomes of a packet",
        route_messages.get_route(7, 3, GATEWAY, ADDRESS),
        Type.GETROUTE,
        Flag.REQUEST,
        {"dst_len": 128, "src_len": 128, "RTA_DST": TEXT, "RTA_SRC": "fe80::1", "RTA_IIF": 3},
    ),
    (
        "ask what becomes of a packet from nobody in particular",
        route_messages.get_route(7, 3, bytes(16), ADDRESS),
        Type.GETROUTE,
        Flag.REQUEST,
        {"dst_len": 128, "src_len": 0, "RTA_DST": TEXT, "RTA_IIF": 3},
    ),
)
RULES = (
    (
        "dump the rules",
        route_messages.dump_rules(7),
        Type.GETRULE,
        Flag.REQUEST | Flag.DUMP,
        {"dst_len": 0, "src_len": 0, "table": 0, "action": 0, "flags": 0},
    ),
)
REQUESTS = [
    *((ndmsg, *case) for case in NEIGHBOURS),
    *((rtmsg, *case) for case in ROUTES),
    *((fibmsg, *case) for case in RULES),
]


@pytest.mark.parametrize(("reader", "what", "data", "kind", "flags", "wanted"), REQUESTS, ids=[c[1] for c in REQUESTS])
def test_pyroute2_reads_what_we_write(
    reader: type[Any], what: str, data: bytes, kind: Type, flags: Flag, wanted: dict[str, Any]
) -> None:
    found = decoded(reader, data)
    header = found["header"]
    assert (header["length"], header["type"], header["flags"]) == (len(data), kind, flags)
    assert (header["sequence_number"], found["family"]) == (7, AF_INET6)
    assert {name: found.get(name) for name in wanted} == wanted
    attributes = {name for name in found if name.startswith(("NDA_", "RTA_", "FRA_"))}
    assert attributes == {name for name in wanted if name.startswith(("NDA_", "RTA_", "FRA_"))}
    (message,) = messages(data)
    assert (message.type, message.flags, message.sequence) == (kind, flags, 7)


def encoded(kind: type[Any], fields: dict[str, Any], attributes: list[tuple[str, Any]]) -> bytes:
    """The body of a message that pyroute2 writes."""
    message = kind()
    for name, value in {"family": AF_INET6, **fields}.items():
        message[name] = value
    message["attrs"] = attributes
    message.encode()
    (found,) = messages(bytes(message.data))
    return found.body


@pytest.mark.parametrize("state", NeighbourState)
def test_we_read_the_neighbours_that_pyroute2_writes(state: NeighbourState) -> None:
    attributes = [("NDA_DST", TEXT), ("NDA_LLADDR", "02:00:00:00:00:07"), ("NDA_PROBES", 4)]
    body = encoded(ndmsg, {"ifindex": 3, "state": int(state), "flags": 0}, attributes)
    assert parse_neighbour(body) == NeighbourEntry(3, ADDRESS, state, False, 0, bytes.fromhex("020000000007"))


def test_we_read_proxy_entries_and_whose_they_are() -> None:
    for protocol in (0, 2, PROTOCOL, 255):
        body = encoded(ndmsg, {"ifindex": 3, "flags": NTF_PROXY}, [("NDA_DST", TEXT), ("NDA_PROTOCOL", protocol)])
        assert parse_neighbour(body) == NeighbourEntry(3, ADDRESS, 0, True, protocol)


def test_a_neighbour_of_another_family_or_without_an_address_is_none() -> None:
    assert parse_neighbour(encoded(ndmsg, {"ifindex": 3}, [])) is None
    ipv4 = encoded(ndmsg, {"family": socket.AF_INET, "ifindex": 3}, [("NDA_DST", "192.0.2.1")])
    assert parse_neighbour(ipv4) is None
    bridge = encoded(ndmsg, {"family": socket.AF_BRIDGE, "ifindex": 3}, [("NDA_LLADDR", "02:00:00:00:00:07")])
    assert parse_neighbour(bridge) is None


def test_the_states_that_count_as_present_are_those_with_an_address_that_no_probe_has_refuted() -> None:
    states = NeighbourState
    assert {state for state in states if state & PRESENT} == {
        states.REACHABLE,
        states.STALE,
        states.DELAY,
        states.PROBE,
        states.PERMANENT,
    }


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


@pytest.mark.parametrize(("what", "attributes", "ifindex", "gateways"), ROUTE_CASES, ids=[c[0] for c in ROUTE_CASES])
def test_we_read_the_routes_that_pyroute2_writes(
    what: str, attributes: list[tuple[str, Any]], ifindex: int, gateways: tuple[tuple[int, bytes], ...]
) -> None:
    network = IPv6Address("2001:db8:7::").packed
    body = encoded(rtmsg, ROUTE, [("RTA_DST", "2001:db8:7::"), *attributes])
    assert parse_route(body) == RouteEntry(network, 64, ifindex, 3, gateways)


def test_the_default_route_has_no_destination() -> None:
    body = encoded(rtmsg, ROUTE | {"dst_len": 0}, [("RTA_GATEWAY", "fe80::1"), ("RTA_OIF", 3)])
    assert parse_route(body) == RouteEntry(bytes(16), 0, 3, 3, ((3, GATEWAY),))


@pytest.mark.parametrize("kind", [1, 2, 4, 6, 7, 8])
def test_we_read_what_the_kernel_would_do_with_a_packet(kind: int) -> None:
    body = encoded(rtmsg, ROUTE | {"type": kind}, [("RTA_DST", TEXT), ("RTA_OIF", 3), ("RTA_IIF", 2)])
    assert parse_route_reply(body) == RouteReply(kind, 3)
    assert parse_route_reply(encoded(rtmsg, ROUTE | {"family": socket.AF_INET}, [("RTA_OIF", 3)])) is None


RULE_CASES: tuple[tuple[str, dict[str, int], list[tuple[str, Any]], RuleEntry], ...] = (
    ("all", {}, [("FRA_PRIORITY", 32766), ("FRA_SUPPRESS_PREFIXLEN", 0xFFFFFFFF)], RuleEntry(False, False)),
    ("by mark", {}, [("FRA_FWMARK", 7), ("FRA_FWMASK", 7)], RuleEntry(False, False)),
    ("by target", {"dst_len": 48}, [("FRA_DST", "2001:db8::")], RuleEntry(False, False)),
    ("by source", {"src_len": 48}, [("FRA_SRC", "2001:db8::")], RuleEntry(True, False)),
    ("without the default route", {}, [("FRA_SUPPRESS_PREFIXLEN", 0)], RuleEntry(False, True)),
    ("without short prefixes", {}, [("FRA_SUPPRESS_PREFIXLEN", 32)], RuleEntry(False, True)),
    ("without a group of interfaces", {}, [("FRA_SUPPRESS_IFGROUP", 1)], RuleEntry(False, True)),
    ("with all groups", {}, [("FRA_SUPPRESS_IFGROUP", 0xFFFFFFFF)], RuleEntry(False, False)),
)


@pytest.mark.parametrize(("what", "fields", "attributes", "wanted"), RULE_CASES, ids=[c[0] for c in RULE_CASES])
def test_we_read_the_rules_that_pyroute2_writes(
    what: str, fields: dict[str, int], attributes: list[tuple[str, Any]], wanted: RuleEntry
) -> None:
    assert parse_rule(encoded(fibmsg, {"table": MAIN, "action": 1, **fields}, attributes)) == wanted
    assert parse_rule(encoded(fibmsg, {"family": socket.AF_INET, **fields}, attributes)) is None


class nhmsg(nlmsg):  # type: ignore[misc]  # noqa: N801 (as pyroute2 and the kernel have it)
    """struct nhmsg of linux/nexthop.h, for pyroute2 to write."""

    fields = (("family", "B"), ("scope", "B"), ("protocol", "B"), ("resvd", "B"), ("flags", "I"))
    nla_map = (
        (1, "NHA_ID", "uint32"),
        (2, "NHA_GROUP", "hex"),
        (4, "NHA_BLACKHOLE", "flag"),
        (5, "NHA_OIF", "uint32"),
        (6, "NHA_GATEWAY", "ip6addr"),
    )


NEXTHOP_CASES: tuple[tuple[str, dict[str, int], list[tuple[str, Any]], NextHopEntry], ...] = (
    ("a gateway", {}, [("NHA_OIF", 3), ("NHA_GATEWAY", "fe80::1")], NextHopEntry(7, 3, GATEWAY)),
    ("on link", {}, [("NHA_OIF", 3)], NextHopEntry(7, 3, b"")),
    ("a blackhole", {}, [("NHA_BLACKHOLE", None)], NextHopEntry(7, 0, b"")),
    ("a group", {"family": 0}, [("NHA_GROUP", "0800000000000000")], NextHopEntry(7, 0, b"")),
    ("another family's", {"family": socket.AF_INET}, [("NHA_OIF", 3)], NextHopEntry(7, 3, b"")),
)


@pytest.mark.parametrize(("what", "fields", "attributes", "wanted"), NEXTHOP_CASES, ids=[c[0] for c in NEXTHOP_CASES])
def test_we_read_nexthop_objects(
    what: str, fields: dict[str, int], attributes: list[tuple[str, Any]], wanted: NextHopEntry
) -> None:
    assert parse_nexthop(encoded(nhmsg, fields, [("NHA_ID", 7), *attributes])) == wanted


def test_nexthop_objects_are_asked_for_of_all_families_since_a_group_has_none() -> None:
    (message,) = messages(route_messages.dump_nexthops(7))
    assert message == Message(Type.GETNEXTHOP, Flag.REQUEST | Flag.DUMP, 7, bytes(8))


def test_routes_that_lead_nowhere_and_those_of_another_family_are_none() -> None:
    for kind in (2, 3, 4, 5, 6, 7, 8, 9):  # local, broadcast, anycast, multicast, blackhole, unreachable, ...
        assert parse_route(encoded(rtmsg, ROUTE | {"type": kind}, [("RTA_OIF", 3)])) is None
    assert parse_route(encoded(rtmsg, ROUTE | {"family": socket.AF_INET}, [("RTA_OIF", 3)])) is None


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


ADDRESSES: tuple[tuple[str, int, list[tuple[str, Any]], tuple[bool, bool]], ...] = (
    ("settled", 0x80, [], (True, False)),
    ("tentative", 0x40, [], (False, False)),
    ("tentative and optimistic", 0x44, [], (True, False)),
    ("a duplicate", 0x48, [], (False, False)),
    ("deprecated", 0x20, [], (True, True)),
    ("flags that need more than a byte", 0x40, [("IFA_FLAGS", 0x320)], (True, True)),
    ("a peer's beside it", 0, [("IFA_LOCAL", TEXT)], (True, False)),
)


@pytest.mark.parametrize(("what", "flags", "attributes", "wanted"), ADDRESSES, ids=[what for what, *_ in ADDRESSES])
def test_we_read_the_addresses_that_pyroute2_writes(
    what: str, flags: int, attributes: list[tuple[str, Any]], wanted: tuple[bool, bool]
) -> None:
    fields = {"index": 3, "prefixlen": 64, "flags": flags}
    address = "fe80::1" if attributes and attributes[0][0] == "IFA_LOCAL" else TEXT
    body = encoded(ifaddrmsg, fields, [("IFA_ADDRESS", address), *attributes])
    assert parse_address(body) == AddressEntry(3, ADDRESS, 64, *wanted)
    ipv4 = encoded(ifaddrmsg, {**fields, "family": socket.AF_INET}, [("IFA_ADDRESS", "192.0.2.1")])
    assert parse_address(ipv4) is None


def test_we_read_the_size_of_the_neighbour_table_that_the_kernel_tells() -> None:
    limits = [("NDTA_NAME", "ndisc_cache"), *((f"NDTA_THRESH{n}", 128 * n) for n in (1, 2, 3))]
    config = struct.pack("=HHI", 16, 320, 77) + bytes(24)
    attribute = struct.pack("=HH", 4 + len(config), 5) + config
    whole = encoded(ndtmsg, {}, limits) + attribute
    assert parse_neighbour_table(whole) == (77, (128, 256, 384))
    assert parse_neighbour_table(encoded(ndtmsg, {}, [])) is None, "an interface's parameters"
    assert parse_neighbour_table(encoded(ndtmsg, {"family": socket.AF_INET}, limits) + attribute) is None


def test_we_read_the_hash_of_the_neighbour_table_that_the_kernel_tells() -> None:
    config = struct.pack("=HHIIIIIII", 16, 320, 77, 1, 2, 4070953779, 0xFF, 0, 0)  # struct ndt_config
    attribute = struct.pack("=HH", 4 + len(config), 5) + config
    assert parse_neighbour_hash(encoded(ndtmsg, {}, []) + attribute) == (4070953779, 0xFF)
    assert parse_neighbour_hash(encoded(ndtmsg, {}, [])) is None, "an interface's parameters"
    assert parse_neighbour_hash(encoded(ndtmsg, {"family": socket.AF_INET}, []) + attribute) is None


def test_what_is_cut_short_is_none() -> None:
    for parse in (
        *(parse_link, parse_address, parse_neighbour_table, parse_neighbour_hash, parse_neighbour),
        *(parse_route, parse_route_reply, parse_rule, parse_nexthop),
    ):
        assert parse(b"\x0a\0\0") is None


def test_an_attribute_with_flags_in_its_type_is_read_as_without() -> None:
    nested = struct.pack("=HH", 20, 1 | 0x8000) + ADDRESS
    body = struct.pack("=BxxxiHBB", AF_INET6, 3, 2, 0, 0) + nested
    assert parse_neighbour(body) == NeighbourEntry(3, ADDRESS, 2, False, 0)


def test_errors_are_errnos_and_an_acknowledgement_is_none() -> None:
    assert error_code(struct.pack("=i", -17) + bytes(16)) == 17
    assert error_code(struct.pack("=i", 0)) == 0
    assert error_code(b"\0\0\0") == 0


def packed(kind: int, body: bytes, sequence: int = 1) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body


@given(st.lists(st.tuples(st.integers(0, 2**16 - 1), st.binary(max_size=40)), max_size=5))
def test_the_messages_of_a_datagram_come_in_order_each_aligned(sent: list[tuple[int, bytes]]) -> None:
    datagram = b""
    for number, (kind, body) in enumerate(sent):
        datagram = datagram.ljust((len(datagram) + 3) & ~3, b"\0") + packed(kind, body, number)
    assert list(messages(datagram)) == [Message(kind, 0, number, body) for number, (kind, body) in enumerate(sent)]


WHOLE = {
    "neighbour": encoded(ndmsg, {"ifindex": 3, "state": 2}, [("NDA_DST", TEXT), ("NDA_PROTOCOL", PROTOCOL)]),
    "route": encoded(rtmsg, ROUTE, [("RTA_DST", "2001:db8:7::"), ("RTA_GATEWAY", "fe80::1"), ("RTA_OIF", 3)]),
    "multipath route": encoded(rtmsg, ROUTE, ROUTE_CASES[2][1]),
}


@pytest.mark.parametrize("body", WHOLE.values(), ids=WHOLE)
def test_what_is_cut_short_is_never_an_exception_nor_more_than_the_whole(body: bytes) -> None:
    datagram = packed(Type.NEWROUTE, body)
    for length in range(len(datagram)):
        assert list(messages(datagram[:length])) == []
        assert len(list(messages(datagram + datagram[:length]))) == 1
    whole = parse_route(body)
    for length in range(len(body)):
        neighbour = parse_neighbour(body[:length])
        assert neighbour is None or len(neighbour.address) == 16
        route = parse_route(body[:length])
        if route is not None:
            assert whole is not None
            assert set(route.gateways) <= {(0, gateway) for _, gateway in whole.gateways} | set(whole.gateways)


@given(st.binary(max_size=200))
def test_random_bytes_as_a_datagram_never_raise(data: bytes) -> None:
    for message in messages(data):
        assert len(message.body) <= len(data) - 16
        error_code(message.body)


@st.composite
def attributes(draw: st.DrawFn) -> bytes:
    """Attributes that are nearly right: their lengths may lie."""
    data = b""
    for _ in range(draw(st.integers(0, 6))):
        value = draw(st.one_of(st.just(b""), st.binary(max_size=40)))
        length = draw(st.one_of(st.just(len(value) + 4), st.integers(0, 80)))
        kind = draw(st.one_of(st.sampled_from([1, 4, 5, 6, 9, 12]), st.integers(0, 2**16 - 1)))
        data += struct.pack("=HH", length, kind) + value.ljust((len(value) + 3) & ~3, b"\0")
    return data


@given(st.binary(max_size=12), st.one_of(st.binary(max_size=200), attributes()))
def test_a_route_of_random_bytes_never_raises(header: bytes, rest: bytes) -> None:
    usual = struct.pack("=BBBBBBBBI", AF_INET6, 64, 0, 0, MAIN, 3, 0, UNICAST, 0)
    for body in (header, usual + rest, header.ljust(12, b"\0") + rest):
        route = parse_route(body)
        assert route is None or all(len(gateway) == 16 for _, gateway in route.gateways)


@given(st.binary(max_size=12), st.one_of(st.binary(max_size=200), attributes()))
def test_a_neighbour_of_random_bytes_never_raises(header: bytes, rest: bytes) -> None:
    usual = struct.pack("=BxxxiHBB", AF_INET6, 3, 2, 0, 0)
    for body in (header, usual + rest, usual + struct.pack("=HH", 20, 1) + bytes(16) + rest):
        entry = parse_neighbour(body)
        assert entry is None or len(entry.address) == 16


def test_an_empty_protocol_attribute_is_as_none() -> None:
    body = struct.pack("=BxxxiHBB", AF_INET6, 1, 2, 0, 0) + struct.pack("=HH", 20, 1) + bytes(16)
    entry = parse_neighbour(body + struct.pack("=HH", 4, 12))
    assert entry is not None
    assert entry.protocol == 0
