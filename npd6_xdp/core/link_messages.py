# SPDX-License-Identifier: GPL-2.0-or-later
"""Links, their addresses and groups, and who forwards, in rtnetlink: bytes to values, and back."""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import NamedTuple

from npd6_xdp.core.names import shown
from npd6_xdp.core.rtnetlink import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    Flag,
    Type,
    attributes_of,
    number,
    pack_attribute,
    pack_message,
)

_ARPHRD_ETHER = 1
_IFF_UP = 1
_IF_OPER_UNKNOWN, _IF_OPER_UP = 0, 6
_IFLA_ADDRESS = 1
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINK = 5
_IFLA_MASTER = 10
_IFLA_WIRELESS = 11
_IFLA_OPERSTATE = 16
_IFLA_LINKINFO = 18
_IFLA_PROMISCUITY = 30
_IFLA_LINK_NETNSID = 37
_IFLA_XDP = 43
_IFLA_XDP_PROG_IDS = (5, 6, 7)  # native, generic, offloaded
_IFLA_PROP_LIST = 52
_IFLA_ALT_IFNAME = 53
_IFLA_ALLMULTI = 61  # Linux 6.0
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_IFLA_BOND_SLAVE_STATE = 1
_BOND_STATE_BACKUP = 1
_IFLA_VLAN_ID, _IFLA_VLAN_PROTOCOL = 1, 5
_DOT1Q = 0x8100  # ETH_P_8021Q
_IFLA_VRF_TABLE = 1
_IFLA_EXT_MASK = 29
_RTEXT_FILTER_SKIP_STATS = 8  # three quarters of what the kernel tells of a link
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_MULTICAST = 7
_IFA_FLAGS = 8
_IFA_PROTO = 11
_IFAPROT_KERNEL_RA, _IFAPROT_KERNEL_LL = 2, 3
_IFA_F_OPTIMISTIC = 0x04
_IFA_F_DADFAILED = 0x08
_IFA_F_DEPRECATED = 0x20
_IFA_F_TENTATIVE = 0x40
_NETCONFA_IFINDEX, _NETCONFA_FORWARDING = 1, 2
_IFINFOMSG = struct.Struct("=BxHiII")  # struct ifinfomsg
_IFADDRMSG = struct.Struct("=BBBBI")  # struct ifaddrmsg
_NETCONFMSG = struct.Struct("=Bxxx")  # struct netconfmsg
_NETCONFA = struct.Struct("=i")
_ADDRESS_SIZES = {AF_INET: 4, AF_INET6: 16}


class LinkFlag(IntFlag):
    """IFF_*, as far as they concern us."""

    UP = 0x1
    POINTOPOINT = 0x10
    NOARP = 0x80


class LinkEntry(NamedTuple):
    """A link, as far as it concerns us: `mac` is empty where there is no Ethernet framing.

    `kind` is the driver's ("veth", "vlan"), "" for hardware; `slave_kind` what its master makes of it ("bridge",
    "bond"). `parent` is the link that a device is on (a VLAN device with id `vlan`, a macvlan); 0 is none, as for
    `master`. `type` is ARPHRD_*, `flags` IFF_*. `altnames` are other names that it has. `table` is the routing table
    of a VRF device, else 0. `allmulti` counts who wants all multicast frames; -1: the kernel doesn't say. `xdp` has the
    programs' ids that sit on it: native, generic, offloaded; 0 is none. `backup` says that it is a bond's slave, one
    that the bond takes no frames from at the moment.
    """

    ifindex: int
    name: str
    mac: bytes
    up: bool
    kind: str
    master: int
    parent: int
    vlan: int
    type: int = 1
    flags: int = 0
    mtu: int = 0
    slave_kind: str = ""
    altnames: tuple[str, ...] = ()
    table: int = 0
    allmulti: int = -1
    xdp: tuple[int, int, int] = (0, 0, 0)
    backup: bool = False
    tpid: int = _DOT1Q
    """The TPID of a VLAN device's tags."""


class AddressEntry(NamedTuple):
    """An address (of IPv6: 16 bytes, of IPv4: 4) that an interface holds; `usable` as a source: neither tentative nor a
    duplicate, or an optimistic one. `settled`: it isn't an optimistic one either.
    """

    ifindex: int
    address: bytes
    length: int
    usable: bool
    deprecated: bool
    advertised: bool = False
    """The kernel made it by a router's advertisement."""
    settled: bool = True
    by_kernel: bool = False
    """It is the link-local one that the kernel made for the interface."""


def parse_link(body: bytes) -> LinkEntry | None:
    """The body of NEWLINK or DELLINK; None if it isn't all of a link: a bridge's word about its port, a radio event."""
    if len(body) < _IFINFOMSG.size:
        return None
    family, kind, index, flags, _ = _IFINFOMSG.unpack_from(body)
    if family != AF_UNSPEC:
        return None
    attributes = dict(attributes_of(body, _IFINFOMSG.size))
    if _IFLA_WIRELESS in attributes:  # with the name and nothing else (net/wireless/wext-core.c)
        return None
    info = dict(attributes_of(attributes.get(_IFLA_LINKINFO, b""), 0))
    driver = _text(info.get(_IFLA_INFO_KIND, b""))
    data = dict(attributes_of(info.get(_IFLA_INFO_DATA, b""), 0)) if driver in ("vlan", "vrf") else {}
    slave_kind = _text(info.get(_IFLA_INFO_SLAVE_KIND, b""))
    slave = dict(attributes_of(info.get(_IFLA_INFO_SLAVE_DATA, b""), 0)) if slave_kind == "bond" else {}
    properties = attributes_of(attributes.get(_IFLA_PROP_LIST, b""), 0)
    operational = attributes.get(_IFLA_OPERSTATE, b"")[:1] in (bytes([_IF_OPER_UNKNOWN]), bytes([_IF_OPER_UP]))
    return LinkEntry(
        index,
        _name(attributes.get(_IFLA_IFNAME, b"")),
        attributes.get(_IFLA_ADDRESS, b"") if kind == _ARPHRD_ETHER else b"",
        bool(flags & _IFF_UP) and operational,
        driver,
        number(attributes.get(_IFLA_MASTER, b"")),
        # in another network namespace, that index means another interface
        0 if _IFLA_LINK_NETNSID in attributes else number(attributes.get(_IFLA_LINK, b"")),
        number(data.get(_IFLA_VLAN_ID, b"")) if driver == "vlan" else 0,
        kind,
        flags,
        number(attributes.get(_IFLA_MTU, b"")),
        slave_kind,
        tuple(_name(value) for attribute, value in properties if attribute == _IFLA_ALT_IFNAME),
        number(data.get(_IFLA_VRF_TABLE, b"")) if driver == "vrf" else 0,
        number(attributes[_IFLA_ALLMULTI]) if _IFLA_ALLMULTI in attributes else -1,
        _programs(attributes.get(_IFLA_XDP, b"")),
        number(slave.get(_IFLA_BOND_SLAVE_STATE, b"")) == _BOND_STATE_BACKUP,
        int.from_bytes(data[_IFLA_VLAN_PROTOCOL]) if driver == "vlan" and _IFLA_VLAN_PROTOCOL in data else _DOT1Q,
    )


def parse_promiscuity(body: bytes) -> int:
    """Of the body of NEWLINK: how many want the link promiscuous. Its flag IFF_PROMISC tells of a user's wish alone."""
    return number(dict(attributes_of(body, _IFINFOMSG.size)).get(_IFLA_PROMISCUITY, b""))


def _programs(xdp: bytes) -> tuple[int, int, int]:
    """The ids of the XDP programs that IFLA_XDP tells of: native, generic, offloaded."""
    inner = dict(attributes_of(xdp, 0))
    native, generic, offloaded = (number(inner.get(kind, b"")) for kind in _IFLA_XDP_PROG_IDS)
    return native, generic, offloaded


def parse_address(body: bytes) -> AddressEntry | None:
    """The body of NEWADDR or DELADDR; None if it is no IP address."""
    if len(body) < _IFADDRMSG.size:
        return None
    family, length, flags, _, ifindex = _IFADDRMSG.unpack_from(body)
    attributes = dict(attributes_of(body, _IFADDRMSG.size))
    # with a point-to-point peer, IFA_ADDRESS is the peer's
    address = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS, b""))
    if len(address) != _ADDRESS_SIZES.get(family) or length > 8 * len(address):
        return None
    flags = number(attributes.get(_IFA_FLAGS, b"")) or flags
    settled = family == AF_INET or not flags & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED)
    usable = settled or bool(flags & _IFA_F_OPTIMISTIC)
    maker = attributes.get(_IFA_PROTO, b"\0")[0]
    return AddressEntry(
        ifindex,
        address,
        length,
        usable,
        deprecated=bool(flags & _IFA_F_DEPRECATED),
        advertised=maker == _IFAPROT_KERNEL_RA,
        settled=settled,
        by_kernel=maker == _IFAPROT_KERNEL_LL,
    )


def parse_netconf_ifindex(body: bytes) -> int:
    """The body of DELNETCONF: the index of the interface that is gone; 0 if it doesn't say."""
    attributes = dict(attributes_of(body, _NETCONFMSG.size))
    return number(attributes.get(_NETCONFA_IFINDEX, b"")) if body[:1] == bytes([AF_INET6]) else 0


def parse_forwarding(body: bytes) -> tuple[int, bool] | None:
    """The body of NEWNETCONF: an interface's index (-1: all, -2: those to come) and whether it forwards IPv6."""
    if len(body) < _NETCONFMSG.size or body[0] != AF_INET6:
        return None
    attributes = dict(attributes_of(body, _NETCONFMSG.size))
    ifindex, forwarding = attributes.get(_NETCONFA_IFINDEX, b""), attributes.get(_NETCONFA_FORWARDING)
    if len(ifindex) != _NETCONFA.size or forwarding is None:
        return None
    return int(_NETCONFA.unpack(ifindex)[0]), bool(number(forwarding))


def dump_links(sequence: int) -> bytes:
    """Ask for all links."""
    body = _IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0)
    body += pack_attribute(_IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS))
    return pack_message(Type.GETLINK, Flag.REQUEST | Flag.DUMP, sequence, body)


def get_link(sequence: int, ifindex: int) -> bytes:
    """Ask for one link."""
    body = _IFINFOMSG.pack(AF_UNSPEC, 0, ifindex, 0, 0)
    body += pack_attribute(_IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS))
    return pack_message(Type.GETLINK, Flag.REQUEST, sequence, body)


def dump_groups(sequence: int, ifindex: int) -> bytes:
    """Ask for the IPv6 multicast groups of one link (on a socket with NETLINK_GET_STRICT_CHK; else it sends all)."""
    return pack_message(
        Type.GETMULTICAST, Flag.REQUEST | Flag.DUMP, sequence, _IFADDRMSG.pack(AF_INET6, 0, 0, 0, ifindex)
    )


def parse_group(body: bytes) -> tuple[int, bytes] | None:
    """A line of those: the link's index, and the group; None if it is anything else."""
    if len(body) < _IFADDRMSG.size:
        return None
    family, _, _, _, ifindex = _IFADDRMSG.unpack_from(body)
    group = dict(attributes_of(body, _IFADDRMSG.size)).get(_IFA_MULTICAST, b"")
    return (ifindex, group) if family == AF_INET6 and len(group) == 16 else None


def dump_addresses(sequence: int) -> bytes:
    """Ask for all IPv6 addresses."""
    return pack_message(Type.GETADDR, Flag.REQUEST | Flag.DUMP, sequence, _IFADDRMSG.pack(AF_INET6, 0, 0, 0, 0))


def dump_ipv4_addresses(sequence: int) -> bytes:
    """Ask for all IPv4 addresses."""
    return pack_message(Type.GETADDR, Flag.REQUEST | Flag.DUMP, sequence, _IFADDRMSG.pack(AF_INET, 0, 0, 0, 0))


def dump_forwarding(sequence: int) -> bytes:
    """Ask which interfaces forward IPv6."""
    return pack_message(Type.GETNETCONF, Flag.REQUEST | Flag.DUMP, sequence, _NETCONFMSG.pack(AF_INET6))


def _name(value: bytes) -> str:
    """An interface's name, as the whole program has it (core/names.py)."""
    return shown(value.rstrip(b"\0"))


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="surrogateescape")
