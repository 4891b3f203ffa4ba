# SPDX-License-Identifier: GPL-2.0-or-later
"""The few rtnetlink messages that concern us: bytes to values, and back.

Neighbours are asked for at the rate of solicitations, routing tables have hundreds of thousands of lines, and a
router may have thousands of links. pyroute2, whose words the tests compare these with, takes 0.16 ms a message
where this takes microseconds, and 12 MB of memory. Layouts: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h,
linux/if_addr.h, linux/neighbour.h; all integers in host order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum, IntFlag
from typing import NamedTuple

from npd6_xdp.core.names import shown

PROTOCOL = 136
"""Our number in rtm_protocol and NDA_PROTOCOL: the routes and proxy entries that bear it are npd6-xdp's."""

AF_INET6 = 10

HOST_ROUTE_METRIC = 1024
"""That of a host's route: what the kernel gives a route that names none."""

TABLE_MAIN = 254
"""RT_TABLE_MAIN: where routes are looked up, but for those of a VRF's interfaces."""


class Type(IntEnum):
    """nlmsg_type."""

    ERROR = 2
    DONE = 3
    NEWLINK = 16
    DELLINK = 17
    GETLINK = 18
    NEWADDR = 20
    DELADDR = 21
    GETADDR = 22
    GETMULTICAST = 58
    NEWROUTE = 24
    DELROUTE = 25
    GETROUTE = 26
    NEWNEIGH = 28
    DELNEIGH = 29
    GETNEIGH = 30
    NEWRULE = 32
    DELRULE = 33
    GETRULE = 34
    NEWNEIGHTBL = 64
    GETNEIGHTBL = 66
    NEWNETCONF = 80
    DELNETCONF = 81
    GETNETCONF = 82
    NEWNEXTHOP = 104
    DELNEXTHOP = 105
    GETNEXTHOP = 106


class Flag(IntFlag):
    """nlmsg_flags."""

    REQUEST = 0x1
    MULTI = 0x2
    ACK = 0x4
    DUMP_INTERRUPTED = 0x10
    REPLACE = 0x100
    EXCL = 0x200
    DUMP = 0x300
    CREATE = 0x400


class RouteType(IntEnum):
    """rtm_type, as far as it concerns us: what becomes of a packet that a route is for."""

    UNSPEC = 0
    UNICAST = 1
    LOCAL = 2
    ANYCAST = 4
    THROW = 9


class NeighbourState(IntFlag):
    """NUD_*: what the kernel knows of a neighbour (RFC 4861 §7.3.2).

    The last two aren't the kernel's states but flags beside them: somebody else looks after the entry, a control plane
    that has learned it elsewhere (NTF_EXT_LEARNED) or the kernel, which resolves it again and again (NTF_EXT_MANAGED).
    """

    NONE = 0x00
    INCOMPLETE = 0x01
    REACHABLE = 0x02
    STALE = 0x04
    DELAY = 0x08
    PROBE = 0x10
    FAILED = 0x20
    NOARP = 0x40
    PERMANENT = 0x80
    LEARNED = 0x100
    MANAGED = 0x200


PRESENT = (
    NeighbourState.REACHABLE
    | NeighbourState.STALE
    | NeighbourState.DELAY
    | NeighbourState.PROBE
    | NeighbourState.PERMANENT
)
"""The states in which a neighbour counts as there: its link-layer address is known, and no probe has failed yet."""

CONFIRMED = NeighbourState.REACHABLE | NeighbourState.PERMANENT
"""Those of them in which nobody needs to ask the host."""

LOOKED_AFTER = NeighbourState.LEARNED | NeighbourState.MANAGED
"""What a probe of ours must not take away, nor we the entry."""

_AF_UNSPEC = 0
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
_IFLA_LINK_NETNSID = 37
_IFLA_XDP = 43
_IFLA_XDP_PROG_IDS = (5, 6, 7)  # native, generic, offloaded
_IFLA_PROP_LIST = 52
_IFLA_ALT_IFNAME = 53
_IFLA_ALLMULTI = 61  # Linux 6.0
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
_IFLA_BOND_SLAVE_STATE = 1
_BOND_STATE_BACKUP = 1
_IFLA_VLAN_ID = 1
_IFLA_VRF_TABLE = 1
_IFLA_EXT_MASK = 29
_RTEXT_FILTER_SKIP_STATS = 8  # three quarters of what the kernel tells of a link
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_MULTICAST = 7
_IFA_FLAGS = 8
_IFA_PROTO = 11
_IFAPROT_KERNEL_RA = 2
_IFA_F_OPTIMISTIC = 0x04
_IFA_F_DADFAILED = 0x08
_IFA_F_DEPRECATED = 0x20
_IFA_F_TENTATIVE = 0x40
_NDTA_THRESHOLDS = (2, 3, 4)
_NDTA_CONFIG = 5
_NTF_USE = 0x01
_NTF_PROXY = 0x08
_NTF_EXT_LEARNED = 0x10
_NTF_EXT_MANAGED = 0x01  # in NDA_FLAGS_EXT
_NDA_DST = 1
_NDA_LLADDR = 2
_NDA_PROTOCOL = 12
_NDA_FLAGS_EXT = 15
_RTA_DST = 1
_RTA_SRC = 2
_RTA_IIF = 3
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_RTA_MULTIPATH = 9
_RTA_TABLE = 15
_RTM_F_FIB_MATCH = 0x2000
_NETCONFA_IFINDEX, _NETCONFA_FORWARDING = 1, 2
_FRA_SRC = 2
_FRA_SUPPRESS_IFGROUP = 13
_FRA_SUPPRESS_PREFIXLEN = 14
_SUPPRESS_NOTHING = 0xFFFFFFFF
_NHA_ID = 1
_NHA_OIF = 5
_NHA_GATEWAY = 6
_RT_SCOPE_UNIVERSE = 0

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_IFINFOMSG = struct.Struct("=BxHiII")  # struct ifinfomsg
_IFADDRMSG = struct.Struct("=BBBBI")  # struct ifaddrmsg
_NETCONFMSG = struct.Struct("=Bxxx")  # struct netconfmsg
_NETCONFA = struct.Struct("=i")
_NDTMSG = struct.Struct("=Bxxx")  # struct ndtmsg
_NDT_CONFIG = struct.Struct("=HHI")  # struct ndt_config, as far as the number of entries
_NDT_HASH = struct.Struct("=16xII")  # of the same: hash_rnd and hash_mask
_NDMSG = struct.Struct("=BxxxiHBB")  # struct ndmsg
_RTMSG = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_NEXTHOP = struct.Struct("=HBBi")  # struct rtnexthop
_RULE = struct.Struct("=8BI")  # struct fib_rule_hdr
_NHMSG = struct.Struct("=BBBBI")  # struct nhmsg
_ERROR = struct.Struct("=i")


class Message(NamedTuple):
    """One message of a datagram; `body` is what follows the header.

    `sender` of an announcement is the netlink socket on which it was asked for, 0 where the kernel did it by itself.
    """

    type: int
    flags: int
    sequence: int
    body: bytes
    sender: int = 0


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


class AddressEntry(NamedTuple):
    """An IPv6 address (16 bytes) that an interface holds; `usable` as a source: neither tentative nor a duplicate."""

    ifindex: int
    address: bytes
    length: int
    usable: bool
    deprecated: bool
    advertised: bool = False
    """The kernel made it by a router's advertisement."""


class NeighbourEntry(NamedTuple):
    """A line of the neighbour table, or of its proxy entries: `address` has 16 bytes, `state` is a NeighbourState.

    `mac` is the link-layer address, empty where none is known.
    """

    ifindex: int
    address: bytes
    state: int
    proxy: bool
    protocol: int
    mac: bytes = b""


class RouteEntry(NamedTuple):
    """A route, as far as it concerns us: its paths through a gateway, as (ifindex, 16 bytes).

    Of several routes to one destination in a table, the one with the lowest `metric` counts.
    """

    destination: bytes
    length: int
    ifindex: int
    protocol: int
    gateways: tuple[tuple[int, bytes], ...]
    table: int = TABLE_MAIN
    metric: int = 0


class RouteReply(NamedTuple):
    """What the kernel does with a packet: `type` is a RouteType (or another of its numbers), `ifindex` its way out."""

    type: int
    ifindex: int


class RuleEntry(NamedTuple):
    """A rule that chooses among routing tables: whether it goes by the source, and whether it passes over routes."""

    by_source: bool
    suppresses: bool


class NextHopEntry(NamedTuple):
    """A nexthop object, as far as it concerns us: `gateway` has 16 bytes or none."""

    id: int
    ifindex: int
    gateway: bytes


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages of a datagram; what is cut short ends it."""
    start = 0
    while start + _HEADER.size <= len(datagram):
        length, kind, flags, sequence, sender = _HEADER.unpack_from(datagram, start)
        if not _HEADER.size <= length <= len(datagram) - start:
            return
        yield Message(kind, flags, sequence, datagram[start + _HEADER.size : start + length], sender)
        start += _aligned(length)


def error_code(body: bytes) -> int:
    """The errno of an ERROR message, 0 for an acknowledgement; of DONE, too."""
    return -int(_ERROR.unpack_from(body)[0]) if len(body) >= _ERROR.size else 0


def parse_link(body: bytes) -> LinkEntry | None:
    """The body of NEWLINK or DELLINK; None if it isn't all of a link: a bridge's word about its port, a radio event."""
    if len(body) < _IFINFOMSG.size:
        return None
    family, kind, index, flags, _ = _IFINFOMSG.unpack_from(body)
    if family != _AF_UNSPEC:
        return None
    attributes = dict(_attributes(body, _IFINFOMSG.size))
    if _IFLA_WIRELESS in attributes:  # with the name and nothing else (net/wireless/wext-core.c)
        return None
    info = dict(_attributes(attributes.get(_IFLA_LINKINFO, b""), 0))
    driver = _text(info.get(_IFLA_INFO_KIND, b""))
    data = dict(_attributes(info.get(_IFLA_INFO_DATA, b""), 0)) if driver in ("vlan", "vrf") else {}
    slave_kind = _text(info.get(_IFLA_INFO_SLAVE_KIND, b""))
    slave = dict(_attributes(info.get(_IFLA_INFO_SLAVE_DATA, b""), 0)) if slave_kind == "bond" else {}
    properties = _attributes(attributes.get(_IFLA_PROP_LIST, b""), 0)
    operational = attributes.get(_IFLA_OPERSTATE, b"")[:1] in (bytes([_IF_OPER_UNKNOWN]), bytes([_IF_OPER_UP]))
    return LinkEntry(
        index,
        _name(attributes.get(_IFLA_IFNAME, b"")),
        attributes.get(_IFLA_ADDRESS, b"") if kind == _ARPHRD_ETHER else b"",
        bool(flags & _IFF_UP) and operational,
        driver,
        _number(attributes.get(_IFLA_MASTER, b"")),
        # in another network namespace, that index means another interface
        0 if _IFLA_LINK_NETNSID in attributes else _number(attributes.get(_IFLA_LINK, b"")),
        _number(data.get(_IFLA_VLAN_ID, b"")) if driver == "vlan" else 0,
        kind,
        flags,
        _number(attributes.get(_IFLA_MTU, b"")),
        slave_kind,
        tuple(_name(value) for attribute, value in properties if attribute == _IFLA_ALT_IFNAME),
        _number(data.get(_IFLA_VRF_TABLE, b"")) if driver == "vrf" else 0,
        _number(attributes[_IFLA_ALLMULTI]) if _IFLA_ALLMULTI in attributes else -1,
        _programs(attributes.get(_IFLA_XDP, b"")),
        _number(slave.get(_IFLA_BOND_SLAVE_STATE, b"")) == _BOND_STATE_BACKUP,
    )


def _programs(xdp: bytes) -> tuple[int, int, int]:
    """The ids of the XDP programs that IFLA_XDP tells of: native, generic, offloaded."""
    inner = dict(_attributes(xdp, 0))
    native, generic, offloaded = (_number(inner.get(kind, b"")) for kind in _IFLA_XDP_PROG_IDS)
    return native, generic, offloaded


def parse_address(body: bytes) -> AddressEntry | None:
    """The body of NEWADDR or DELADDR; None if it is no IPv6 address."""
    if len(body) < _IFADDRMSG.size:
        return None
    family, length, flags, _, ifindex = _IFADDRMSG.unpack_from(body)
    attributes = dict(_attributes(body, _IFADDRMSG.size))
    # with a point-to-point peer, IFA_ADDRESS is the peer's
    address = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS, b""))
    if family != AF_INET6 or len(address) != 16 or length > 128:
        return None
    flags = _number(attributes.get(_IFA_FLAGS, b"")) or flags
    unusable = flags & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED) and not flags & _IFA_F_OPTIMISTIC
    advertised = attributes.get(_IFA_PROTO, b"\0")[0] == _IFAPROT_KERNEL_RA
    return AddressEntry(ifindex, address, length, not unusable, bool(flags & _IFA_F_DEPRECATED), advertised)


def parse_netconf_ifindex(body: bytes) -> int:
    """The body of DELNETCONF: the index of the interface that is gone; 0 if it doesn't say."""
    attributes = dict(_attributes(body, _NETCONFMSG.size))
    return _number(attributes.get(_NETCONFA_IFINDEX, b"")) if body[:1] == bytes([AF_INET6]) else 0


def parse_forwarding(body: bytes) -> tuple[int, bool] | None:
    """The body of NEWNETCONF: an interface's index (-1: all, -2: those to come) and whether it forwards IPv6."""
    if len(body) < _NETCONFMSG.size or body[0] != AF_INET6:
        return None
    attributes = dict(_attributes(body, _NETCONFMSG.size))
    ifindex, forwarding = attributes.get(_NETCONFA_IFINDEX, b""), attributes.get(_NETCONFA_FORWARDING)
    if len(ifindex) != _NETCONFA.size or forwarding is None:
        return None
    return int(_NETCONFA.unpack(ifindex)[0]), bool(_number(forwarding))


def parse_neighbour_table(body: bytes) -> tuple[int, tuple[int, int, int]] | None:
    """The body of NEWNEIGHTBL: how many entries the IPv6 table has, and gc_thresh1 to 3; None if it isn't that."""
    if len(body) < _NDTMSG.size or _NDTMSG.unpack_from(body)[0] != AF_INET6:
        return None
    attributes = dict(_attributes(body, _NDTMSG.size))
    config = attributes.get(_NDTA_CONFIG, b"")
    if len(config) < _NDT_CONFIG.size or any(kind not in attributes for kind in _NDTA_THRESHOLDS):
        return None  # an interface's parameters, without any of these
    first, second, third = (_number(attributes[kind]) for kind in _NDTA_THRESHOLDS)
    return int(_NDT_CONFIG.unpack_from(config)[2]), (first, second, third)


def parse_neighbour_hash(body: bytes) -> tuple[int, int] | None:
    """The body of NEWNEIGHTBL: the IPv6 table's hash (seed, mask), another when it has grown; None if it isn't that."""
    if len(body) < _NDTMSG.size or _NDTMSG.unpack_from(body)[0] != AF_INET6:
        return None
    config = dict(_attributes(body, _NDTMSG.size)).get(_NDTA_CONFIG, b"")
    if len(config) < _NDT_HASH.size:
        return None
    seed, mask = _NDT_HASH.unpack_from(config)
    return seed, mask


def parse_neighbour(body: bytes) -> NeighbourEntry | None:
    """The body of NEWNEIGH or DELNEIGH; None if it is no IPv6 neighbour."""
    if len(body) < _NDMSG.size:
        return None
    family, ifindex, state, flags, _ = _NDMSG.unpack_from(body)
    attributes = dict(_attributes(body, _NDMSG.size))
    address = attributes.get(_NDA_DST, b"")
    if family != AF_INET6 or len(address) != 16:
        return None
    protocol = (attributes.get(_NDA_PROTOCOL) or b"\0")[0]
    if flags & _NTF_EXT_LEARNED:
        state |= NeighbourState.LEARNED
        # FRR writes remote hosts of an EVPN so; NOARP alone, Linux gives to groups and to loopback
        if state & NeighbourState.NOARP:
            state |= NeighbourState.PERMANENT
    if _number(attributes.get(_NDA_FLAGS_EXT, b"")) & _NTF_EXT_MANAGED:
        state |= NeighbourState.MANAGED
    mac = attributes.get(_NDA_LLADDR, b"")
    return NeighbourEntry(ifindex, address, state, bool(flags & _NTF_PROXY), protocol, mac)


def parse_route(body: bytes) -> RouteEntry | None:
    """The body of NEWROUTE or DELROUTE; None if it is no IPv6 unicast route."""
    if len(body) < _RTMSG.size:
        return None
    family, length, _, _, table, protocol, _, kind, _ = _RTMSG.unpack_from(body)
    if family != AF_INET6 or kind != RouteType.UNICAST:
        return None
    attributes = dict(_attributes(body, _RTMSG.size))
    ifindex = _number(attributes.get(_RTA_OIF, b""))
    gateways = route_gateways(attributes)
    return RouteEntry(
        attributes.get(_RTA_DST, bytes(16)),
        length,
        ifindex,
        protocol,
        gateways,
        _number(attributes.get(_RTA_TABLE, b"")) or table,
        _number(attributes.get(_RTA_PRIORITY, b"")),
    )


def route_attributes(body: bytes) -> dict[int, bytes]:
    """The attributes (RTA_*) of a NEWROUTE or DELROUTE."""
    return dict(_attributes(body, _RTMSG.size))


def route_gateways(attributes: Mapping[int, bytes]) -> tuple[tuple[int, bytes], ...]:
    """The gateways of all paths of a route, by its attributes: (ifindex, 16 bytes)."""
    ifindex = _number(attributes.get(_RTA_OIF, b""))
    gateways = []
    if len(gateway := attributes.get(_RTA_GATEWAY, b"")) == 16:
        gateways.append((ifindex, gateway))
    paths = attributes.get(_RTA_MULTIPATH, b"")
    start = 0
    while start + _NEXTHOP.size <= len(paths):
        size, _, _, path_ifindex = _NEXTHOP.unpack_from(paths, start)
        if not _NEXTHOP.size <= size <= len(paths) - start:
            break
        path = dict(_attributes(paths[start : start + size], _NEXTHOP.size))
        if len(gateway := path.get(_RTA_GATEWAY, b"")) == 16:
            gateways.append((path_ifindex, gateway))
        start += _aligned(size)
    return tuple(gateways)


def parse_route_reply(body: bytes) -> RouteReply | None:
    """The body of the NEWROUTE that answers get_route(); None if it is no IPv6 route."""
    if len(body) < _RTMSG.size or body[0] != AF_INET6:
        return None
    attributes = dict(_attributes(body, _RTMSG.size))
    return RouteReply(body[7], _number(attributes.get(_RTA_OIF, b"")))


def parse_rule(body: bytes) -> RuleEntry | None:
    """The body of NEWRULE or DELRULE; None if it is no IPv6 rule."""
    if len(body) < _RULE.size or body[0] != AF_INET6:
        return None
    attributes = dict(_attributes(body, _RULE.size))
    suppress = (attributes.get(kind) for kind in (_FRA_SUPPRESS_PREFIXLEN, _FRA_SUPPRESS_IFGROUP))
    return RuleEntry(
        by_source=body[2] > 0 or _FRA_SRC in attributes,
        suppresses=any(value is not None and _number(value) != _SUPPRESS_NOTHING for value in suppress),
    )


def parse_nexthop(body: bytes) -> NextHopEntry | None:
    """The body of NEWNEXTHOP or DELNEXTHOP. `gateway` is b"" where there is none: of a group, the members have it."""
    if len(body) < _NHMSG.size:
        return None
    attributes = dict(_attributes(body, _NHMSG.size))
    gateway = attributes.get(_NHA_GATEWAY, b"") if body[0] == AF_INET6 else b""
    ifindex = _number(attributes.get(_NHA_OIF, b""))
    return NextHopEntry(_number(attributes.get(_NHA_ID, b"")), ifindex, gateway if len(gateway) == 16 else b"")


def dump_links(sequence: int) -> bytes:
    """Ask for all links."""
    body = _IFINFOMSG.pack(_AF_UNSPEC, 0, 0, 0, 0)
    body += _attribute(_IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS))
    return _message(Type.GETLINK, Flag.REQUEST | Flag.DUMP, sequence, body)


def get_link(sequence: int, ifindex: int) -> bytes:
    """Ask for one link."""
    body = _IFINFOMSG.pack(_AF_UNSPEC, 0, ifindex, 0, 0)
    body += _attribute(_IFLA_EXT_MASK, struct.pack("=I", _RTEXT_FILTER_SKIP_STATS))
    return _message(Type.GETLINK, Flag.REQUEST, sequence, body)


def dump_groups(sequence: int, ifindex: int) -> bytes:
    """Ask for the IPv6 multicast groups of one link (on a socket with NETLINK_GET_STRICT_CHK; else it sends all)."""
    return _message(Type.GETMULTICAST, Flag.REQUEST | Flag.DUMP, sequence, _IFADDRMSG.pack(AF_INET6, 0, 0, 0, ifindex))


def parse_group(body: bytes) -> tuple[int, bytes] | None:
    """A line of those: the link's index, and the group; None if it is anything else."""
    if len(body) < _IFADDRMSG.size:
        return None
    family, _, _, _, ifindex = _IFADDRMSG.unpack_from(body)
    group = dict(_attributes(body, _IFADDRMSG.size)).get(_IFA_MULTICAST, b"")
    return (ifindex, group) if family == AF_INET6 and len(group) == 16 else None


def dump_addresses(sequence: int) -> bytes:
    """Ask for all IPv6 addresses."""
    return _message(Type.GETADDR, Flag.REQUEST | Flag.DUMP, sequence, _IFADDRMSG.pack(AF_INET6, 0, 0, 0, 0))


def dump_forwarding(sequence: int) -> bytes:
    """Ask which interfaces forward IPv6."""
    return _message(Type.GETNETCONF, Flag.REQUEST | Flag.DUMP, sequence, _NETCONFMSG.pack(AF_INET6))


def match_route(address: bytes, sequence: int, oif: int = 0) -> bytes:
    """Ask by which route a packet of this host's would go to an address, out of an interface if one is given.

    A VRF's table counts where that interface belongs to one.
    """
    body = _RTMSG.pack(AF_INET6, 128, 0, 0, 0, 0, 0, 0, _RTM_F_FIB_MATCH) + _attribute(_RTA_DST, address)
    if oif:
        body += _attribute(_RTA_OIF, struct.pack("=i", oif))
    return _message(Type.GETROUTE, Flag.REQUEST, sequence, body)


def dump_neighbour_tables(sequence: int) -> bytes:
    """Ask how large the IPv6 neighbour table is."""
    return _message(Type.GETNEIGHTBL, Flag.REQUEST | Flag.DUMP, sequence, _NDTMSG.pack(AF_INET6))


def probe_neighbour(sequence: int, ifindex: int, address: bytes, keep: NeighbourState = NeighbourState.NONE) -> bytes:
    """Have the kernel resolve a neighbour, or confirm a stale one in its time (NTF_USE).

    The state is NUD_NONE: any other would make a permanent entry, beyond the reach of gc_thresh3. `keep` is what of
    LOOKED_AFTER the entry has, which it would lose else.
    """
    flags = Flag.REQUEST | Flag.CREATE
    return _neighbour(Type.NEWNEIGH, flags, sequence, ifindex, address, NeighbourState.NONE, _NTF_USE, keep=keep)


def confirm_neighbour(sequence: int, ifindex: int, address: bytes, keep: NeighbourState = NeighbourState.NONE) -> bytes:
    """Have the kernel ask a neighbour that it has an entry of whether it is there, and now (RFC 4861 §7.3.3).

    NTF_USE would wait for DELAY_FIRST_PROBE_TIME (5 s), in which an upper layer may confirm it. Without NLM_F_CREATE:
    where there is no entry any more, none is made.
    """
    return _neighbour(Type.NEWNEIGH, Flag.REQUEST, sequence, ifindex, address, NeighbourState.PROBE, 0, keep=keep)


def delete_neighbour(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Take a neighbour out of the table."""
    return _neighbour(Type.DELNEIGH, Flag.REQUEST, sequence, ifindex, address, NeighbourState.NONE, 0)


def add_proxy(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Add a proxy entry of ours."""
    flags = Flag.REQUEST | Flag.CREATE | Flag.ACK
    return _neighbour(Type.NEWNEIGH, flags, sequence, ifindex, address, NeighbourState.NONE, _NTF_PROXY, ours=True)


def delete_proxy(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Remove a proxy entry."""
    flags = Flag.REQUEST | Flag.ACK
    return _neighbour(Type.DELNEIGH, flags, sequence, ifindex, address, NeighbourState.NONE, _NTF_PROXY)


def get_neighbour(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Ask for a neighbour."""
    return _neighbour(Type.GETNEIGH, Flag.REQUEST, sequence, ifindex, address, NeighbourState.NONE, 0)


def get_proxy(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Ask for a proxy entry, whoever it belongs to."""
    return _neighbour(Type.GETNEIGH, Flag.REQUEST, sequence, ifindex, address, NeighbourState.NONE, _NTF_PROXY)


def dump_neighbours(sequence: int, *, proxies: bool = False) -> bytes:
    """Ask for the IPv6 neighbour table, or for its proxy entries."""
    body = _NDMSG.pack(AF_INET6, 0, 0, _NTF_PROXY if proxies else 0, 0)
    return _message(Type.GETNEIGH, Flag.REQUEST | Flag.DUMP, sequence, body)


def host_route(kind: Type, sequence: int, ifindex: int, address: bytes, table: int = TABLE_MAIN) -> bytes:
    """Add (NEWROUTE) or remove (DELROUTE) a /128 route of ours out of an interface, in a routing table."""
    flags = Flag.REQUEST | Flag.ACK
    if kind is Type.NEWROUTE:
        flags |= Flag.CREATE | Flag.EXCL
    short = table if table < 256 else 0  # a byte in the header; where that is too small, an attribute
    body = _RTMSG.pack(AF_INET6, 128, 0, 0, short, PROTOCOL, _RT_SCOPE_UNIVERSE, RouteType.UNICAST, 0)
    body += _attribute(_RTA_DST, address) + _attribute(_RTA_OIF, struct.pack("=i", ifindex))
    body += _attribute(_RTA_PRIORITY, struct.pack("=I", HOST_ROUTE_METRIC))
    if not short:
        body += _attribute(_RTA_TABLE, struct.pack("=I", table))
    return _message(kind, flags, sequence, body)


def dump_routes(sequence: int, *, protocol: int = 0, kind: RouteType = RouteType.UNICAST) -> bytes:
    """Ask for the IPv6 routes of a type, and of a protocol, where these are not 0.

    The kernel chooses among them only on a socket with NETLINK_GET_STRICT_CHK (Linux 4.20); else it sends all.
    """
    body = _RTMSG.pack(AF_INET6, 0, 0, 0, 0, protocol, 0, kind, 0)
    return _message(Type.GETROUTE, Flag.REQUEST | Flag.DUMP, sequence, body)


def get_route(sequence: int, iif: int, source: bytes, target: bytes) -> bytes:
    """Ask what the kernel would do with a packet that came in by the interface `iif`; :: as its source names none."""
    named = any(source)
    body = _RTMSG.pack(AF_INET6, 128, 128 if named else 0, 0, 0, 0, 0, 0, 0) + _attribute(_RTA_DST, target)
    if named:
        body += _attribute(_RTA_SRC, source)
    return _message(Type.GETROUTE, Flag.REQUEST, sequence, body + _attribute(_RTA_IIF, struct.pack("=i", iif)))


def dump_rules(sequence: int) -> bytes:
    """Ask for the IPv6 rules, which choose among routing tables."""
    return _message(Type.GETRULE, Flag.REQUEST | Flag.DUMP, sequence, _RULE.pack(AF_INET6, *(0,) * 8))


def dump_nexthops(sequence: int) -> bytes:
    """Ask for the nexthop objects, of all families: a group has none."""
    return _message(Type.GETNEXTHOP, Flag.REQUEST | Flag.DUMP, sequence, _NHMSG.pack(_AF_UNSPEC, 0, 0, 0, 0))


_LITTLE = struct.pack("=H", 1) == b"\x01\x00"


def _number(value: bytes) -> int:
    """An integer of any size in host order; 0 where there is none."""
    return int.from_bytes(value, "little" if _LITTLE else "big")


def _name(value: bytes) -> str:
    """An interface's name, as the whole program has it (core/names.py)."""
    return shown(value.rstrip(b"\0"))


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="surrogateescape")


def _aligned(length: int) -> int:
    return (length + 3) & ~3


def _attributes(body: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    while start + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, start)
        if not _ATTRIBUTE.size <= length <= len(body) - start:
            return
        yield kind & 0x3FFF, body[start + _ATTRIBUTE.size : start + length]
        start += _aligned(length)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value.ljust(_aligned(len(value)), b"\0")


def _message(kind: Type, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def _neighbour(
    kind: Type,
    flags: int,
    sequence: int,
    ifindex: int,
    address: bytes,
    state: int,
    ntf: int,
    *,
    ours: bool = False,
    keep: NeighbourState = NeighbourState.NONE,
) -> bytes:
    if keep & NeighbourState.LEARNED:
        ntf |= _NTF_EXT_LEARNED
    body = _NDMSG.pack(AF_INET6, ifindex, state, ntf, 0) + _attribute(_NDA_DST, address)
    if ours:
        body += _attribute(_NDA_PROTOCOL, bytes([PROTOCOL]))
    if keep & NeighbourState.MANAGED:
        body += _attribute(_NDA_FLAGS_EXT, struct.pack("=I", _NTF_EXT_MANAGED))
    return _message(kind, flags, sequence, body)
