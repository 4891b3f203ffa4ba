# SPDX-License-Identifier: GPL-2.0-or-later
"""Links and addresses, through pyroute2: what the machine says of them, and that it changed.

All is read whole at the start, then each announcement is taken in as it comes. When the kernel had to drop some, all
is read whole again.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.links import LinkFacts, OwnAddress

_ARPHRD_ETHER = 1
_IFF_UP = 1
_IFA_F_OPTIMISTIC = 0x04
_IFA_F_DADFAILED = 0x08
_IFA_F_DEPRECATED = 0x20
_IFA_F_TENTATIVE = 0x40
_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR, _RTM_DELADDR = 16, 17, 20, 21
_RTMGRP_LINK = 0x1
_RTMGRP_IPV6_IFADDR = 0x100
_SO_RCVBUFFORCE = 33
_RECEIVE_BUFFER = 4 << 20
_HEADER = struct.Struct("=IHH")  # struct nlmsghdr: length, type, flags
_SIOCETHTOOL = 0x8946
_ETHTOOL_GFLAGS = 0x25
_ETHTOOL_GSTRINGS, _ETHTOOL_GSTATS, _ETHTOOL_GSSET_INFO = 0x1B, 0x1D, 0x37
_ETH_SS_STATS = 1
_ETH_FLAG_RXVLAN = 1 << 8
_U32 = struct.Struct("=I")
_ATTEMPTS = 5

Tags = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Link:
    """A link, as far as it concerns us. `parent` is the link that a VLAN device with id `vlan` is on."""

    index: int
    name: str
    mac: bytes
    up: bool
    kind: str
    master: int
    parent: int
    vlan: int


class Netlink:
    """Knows links and addresses, and tells when they changed: `fileno` becomes readable."""

    def __init__(self) -> None:
        self._route = IPRoute()
        self._changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        try:
            self._changes.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except PermissionError:
            self._changes.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._changes.bind((0, _RTMGRP_LINK | _RTMGRP_IPV6_IFADDR))
        self._links: dict[int, _Link] = {}
        self._addresses: dict[tuple[int, IPv6Address], OwnAddress] = {}
        self._lost = False
        self._read()

    def close(self) -> None:
        """Close both sockets."""
        self._changes.close()
        self._route.close()

    def fileno(self) -> int:
        """The socket that changes are announced on."""
        return self._changes.fileno()

    def on_change(self) -> bool:
        """Take in what was announced; whether anything is different. Raises MachineError if it can't be read."""
        before = self._links, self._addresses
        self._links, self._addresses = dict(self._links), dict(self._addresses)
        while True:
            try:
                datagram = self._changes.recv(1 << 18)
            except BlockingIOError:
                if self._lost:
                    self._read()
                    self._lost = False
                return before != (self._links, self._addresses)
            except OSError:  # ENOBUFS: some were dropped; what still waits is older than what is read anew, then
                self._lost = True
                continue
            if self._lost:
                continue
            start = 0
            while start + _HEADER.size <= len(datagram):
                length, kind, _ = _HEADER.unpack_from(datagram, start)
                self._take(kind, datagram[start : start + length])
                start += max(_HEADER.size, (length + 3) & ~3)

    def facts(self, next_hops: Callable[[int], frozenset[IPv6Address]]) -> dict[str, LinkFacts]:
        """The facts of all interfaces, by name; `next_hops` says what is known of an interface's gateways."""
        addresses: defaultdict[int, tuple[OwnAddress, ...]] = defaultdict(tuple)
        for (ifindex, _), address in sorted(self._addresses.items()):
            addresses[ifindex] += (address,)
        children = self._vlans()
        found = {}
        for link in self._links.values():
            l3 = self._l3_interfaces(link, children)
            found[link.name] = LinkFacts(
                link.name,
                link.index,
                link.mac,
                link.up,
                link.kind,
                {tags: addresses[ifindex] for tags, ifindex in l3.items()},
                {tags: next_hops(ifindex) for tags, ifindex in l3.items()},
                l3,
            )
        return found

    def l3_interfaces(self, wanted: Callable[[str], bool]) -> set[int]:
        """The indexes of the interfaces that frames on the ports of wanted names come in by."""
        children = self._vlans()
        ports = [link for link in self._links.values() if wanted(link.name)]
        return {ifindex for link in ports for ifindex in self._l3_interfaces(link, children).values()}

    def _read(self) -> None:
        """All links and addresses, whole."""
        for attempt in range(_ATTEMPTS):
            try:
                links = [_link(message) for message in self._route.get_links()]
                held = [_address(message) for message in self._route.get_addr(family=socket.AF_INET6)]
            except NetlinkError as error:
                # something changed while the kernel told it: what was read may not fit together
                if attempt == _ATTEMPTS - 1:
                    raise MachineError(f"can't read links and addresses from the kernel: {error}") from error
            else:
                self._links = {link.index: link for link in links}
                self._addresses = {(ifindex, own.address): own for ifindex, own in held}
                return

    def _take(self, kind: int, data: bytes) -> None:
        """One announcement."""
        if kind in (_RTM_NEWLINK, _RTM_DELLINK):
            message = ifinfmsg(data)
            message.decode()
            if message["family"] != socket.AF_UNSPEC:
                return  # a bridge's word about its port; the port's own follows
            if kind == _RTM_NEWLINK:
                self._links[message["index"]] = _link(message)
                return
            self._links.pop(message["index"], None)
            for key in [key for key in self._addresses if key[0] == message["index"]]:
                del self._addresses[key]
        elif kind in (_RTM_NEWADDR, _RTM_DELADDR):
            message = ifaddrmsg(data)
            message.decode()
            ifindex, own = _address(message)
            if kind == _RTM_NEWADDR:
                self._addresses[ifindex, own.address] = own
            else:
                self._addresses.pop((ifindex, own.address), None)

    def _vlans(self) -> Mapping[int, list[tuple[int, int]]]:
        """The VLAN devices on each link: (VLAN id, index)."""
        children: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for link in self._links.values():
            if link.kind == "vlan":
                children[link.parent].append((link.vlan, link.index))
        return children

    def _l3_interfaces(self, port: _Link, vlans: Mapping[int, list[tuple[int, int]]]) -> dict[Tags, int]:
        """The L3 interface that a port's frames come in by, for each of the VLAN ids that have one of their own.

        () is the port, or the bridge that it belongs to; (100,) the VLAN device with that id on it; (100, 7) one on
        that.
        """
        master = self._links.get(port.master)
        base = master if master is not None and master.kind == "bridge" else port
        found: dict[Tags, int] = {(): base.index}
        for outer, device in vlans.get(base.index, ()):
            found[(outer,)] = device
            found.update({(outer, inner): stacked for inner, stacked in vlans.get(device, ())})
        return found


def _link(message: Any) -> _Link:
    ethernet = message["ifi_type"] == _ARPHRD_ETHER
    mac = message.get_attr("IFLA_ADDRESS") or ""
    kind = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""
    vlan = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_VLAN_ID") if kind == "vlan" else 0
    return _Link(
        message["index"],
        str(message.get_attr("IFLA_IFNAME")),
        bytes.fromhex(mac.replace(":", "")) if ethernet else b"",
        bool(message["flags"] & _IFF_UP) and message.get_attr("IFLA_OPERSTATE") in ("UP", "UNKNOWN"),
        kind,
        message.get_attr("IFLA_MASTER") or 0,
        message.get_attr("IFLA_LINK") or 0,
        vlan or 0,
    )


def _address(message: Any) -> tuple[int, OwnAddress]:
    flags = message.get_attr("IFA_FLAGS") or message["flags"]
    unusable = flags & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED) and not flags & _IFA_F_OPTIMISTIC
    own = OwnAddress(
        # with a point-to-point peer, IFA_ADDRESS is the peer's
        IPv6Address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")),
        message["prefixlen"],
        usable=not unusable,
        deprecated=bool(flags & _IFA_F_DEPRECATED),
    )
    return message["index"], own


def receive_vlan_offload(port: str) -> bool:
    """Whether the NIC takes VLAN tags out of the frames before XDP sees them (`ethtool -k`: rx-vlan-offload)."""
    flags = _ethtool(port, struct.pack("=II", _ETHTOOL_GFLAGS, 0))  # struct ethtool_value
    return bool(flags and _U32.unpack_from(flags, 4)[0] & _ETH_FLAG_RXVLAN)


def xdp_tx_errors(port: str) -> int | None:
    """How many frames that XDP sent back the driver dropped (`ethtool -S`); None where it doesn't say."""
    asked = _ethtool(port, struct.pack("=IIQI", _ETHTOOL_GSSET_INFO, 0, 1 << _ETH_SS_STATS, 0))
    length = _U32.unpack_from(asked, 16)[0] if asked else 0
    names = _ethtool(port, struct.pack("=III", _ETHTOOL_GSTRINGS, _ETH_SS_STATS, length) + bytes(32 * length))
    values = _ethtool(port, struct.pack("=II", _ETHTOOL_GSTATS, length) + bytes(8 * length))
    if not length or names is None or values is None:
        return None
    named = zip(struct.iter_unpack("32s", names[12:]), struct.iter_unpack("=Q", values[8:]), strict=True)
    errors = [value for (name,), (value,) in named if name.rstrip(b"\0").endswith(b"xdp_tx_errors")]
    return sum(errors) if errors else None


def _ethtool(port: str, request: bytes) -> bytes | None:
    """What the driver makes of an ethtool request; None if it doesn't know it."""
    buffer = array.array("B", request)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ioctl_socket:
        try:
            fcntl.ioctl(ioctl_socket, _SIOCETHTOOL, struct.pack("16sP", port.encode(), buffer.buffer_info()[0]))
        except OSError:
            return None
    return buffer.tobytes()
