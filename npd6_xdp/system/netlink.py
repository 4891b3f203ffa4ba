# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink, through pyroute2: what the machine says about links, addresses and routes, and that it changed.

A notification is only a reason to look again: facts are always read whole, so a lost notification costs
nothing but the next one's wait, and there is one way to learn a thing, not two.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.rules import LinkFacts, OwnAddress

_ARPHRD_ETHER = 1
_IFF_UP = 1
_IFA_F_OPTIMISTIC = 0x04
_IFA_F_DADFAILED = 0x08
_IFA_F_DEPRECATED = 0x20
_IFA_F_TENTATIVE = 0x40
_RTN_UNICAST = 1
_RTMGRP_LINK = 0x1
_RTMGRP_IPV6_IFADDR = 0x100
_RTMGRP_IPV6_ROUTE = 0x400
_SIOCETHTOOL = 0x8946
_ETHTOOL_GFLAGS = 0x25
_ETH_FLAG_RXVLAN = 1 << 8
_ATTEMPTS = 5

Tags = tuple[int, ...]


class Netlink:
    """Reads link facts, and tells when to read them again: `fileno` becomes readable on a change."""

    def __init__(self) -> None:
        self._route = IPRoute()
        self._changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._changes.bind((0, _RTMGRP_LINK | _RTMGRP_IPV6_IFADDR | _RTMGRP_IPV6_ROUTE))

    def close(self) -> None:
        """Close both sockets."""
        self._changes.close()
        self._route.close()

    def fileno(self) -> int:
        """The socket that changes are announced on."""
        return self._changes.fileno()

    def drain(self) -> None:
        """Take all announcements off the socket, unread."""
        while True:
            try:
                self._changes.recv(1 << 16, socket.MSG_TRUNC)
            except BlockingIOError:
                return
            except OSError:
                continue  # ENOBUFS: some were dropped, which is as good as read

    def facts(self, ports: Iterable[str]) -> dict[str, LinkFacts]:
        """The facts of the named ports that exist.

        Raises MachineError for one that has no Ethernet framing, or if the kernel doesn't let itself be read.
        """
        ports = tuple(ports)
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._read_facts(ports)
            except NetlinkError:
                continue  # something changed while the kernel told it: what was read may not fit together
        try:
            return self._read_facts(ports)
        except NetlinkError as error:
            raise MachineError(f"can't read links, addresses and routes from the kernel: {error}") from error

    def _read_facts(self, ports: Iterable[str]) -> dict[str, LinkFacts]:
        links = {link["index"]: link for link in self._route.get_links()}
        by_name = {_name(link): link for link in links.values()}
        found = {port: by_name[port] for port in ports if port in by_name}
        l3 = {port: _l3_interfaces(link, links.values()) for port, link in found.items()}
        wanted = {ifindex for interfaces in l3.values() for ifindex in interfaces.values()}
        addresses = self._addresses(wanted)
        next_hops = self._next_hops(wanted)
        return {
            port: LinkFacts(
                name=port,
                ifindex=link["index"],
                mac=_mac(port, link),
                up=bool(link["flags"] & _IFF_UP) and link.get_attr("IFLA_OPERSTATE") in ("UP", "UNKNOWN"),
                kind=_kind(link),
                addresses={tags: addresses[ifindex] for tags, ifindex in l3[port].items()},
                next_hops={tags: next_hops[ifindex] for tags, ifindex in l3[port].items()},
            )
            for port, link in found.items()
        }

    def _addresses(self, wanted: set[int]) -> Mapping[int, tuple[OwnAddress, ...]]:
        held: defaultdict[int, tuple[OwnAddress, ...]] = defaultdict(tuple)
        for message in self._route.get_addr(family=socket.AF_INET6):
            if message["index"] in wanted:
                flags = message.get_attr("IFA_FLAGS") or message["flags"]
                unusable = flags & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED) and not flags & _IFA_F_OPTIMISTIC
                held[message["index"]] += (
                    OwnAddress(
                        # with a point-to-point peer, IFA_ADDRESS is the peer's
                        IPv6Address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")),
                        message["prefixlen"],
                        usable=not unusable,
                        deprecated=bool(flags & _IFA_F_DEPRECATED),
                    ),
                )
        return held

    def _next_hops(self, wanted: set[int]) -> Mapping[int, frozenset[IPv6Address]]:
        hops: defaultdict[int, frozenset[IPv6Address]] = defaultdict(frozenset)
        for route in self._route.get_routes(family=socket.AF_INET6):
            if route["type"] != _RTN_UNICAST:
                continue
            for gateway, ifindex in _gateways(route):
                if ifindex in wanted:
                    hops[ifindex] |= {IPv6Address(gateway)}
        return hops


def receive_vlan_offload(port: str) -> bool:
    """Whether the NIC takes VLAN tags out of the frames before XDP sees them (`ethtool -k`: rx-vlan-offload)."""
    value = array.array("I", (_ETHTOOL_GFLAGS, 0))  # struct ethtool_value
    request = struct.pack("16sP", port.encode(), value.buffer_info()[0])  # struct ifreq
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ioctl_socket:
        try:
            fcntl.ioctl(ioctl_socket, _SIOCETHTOOL, request)
        except OSError:
            return False
    return bool(value[1] & _ETH_FLAG_RXVLAN)


def _l3_interfaces(port: Any, links: Iterable[Any]) -> dict[Tags, int]:
    """The L3 interface that a port's frames come in by, for each of the VLAN ids that have one of their own.

    () is the port, or the bridge that it belongs to; (100,) the VLAN device with that id on it; (100, 7) one on that.
    """
    by_index = {link["index"]: link for link in links}
    master = by_index.get(port.get_attr("IFLA_MASTER"))
    base = master if master is not None and _kind(master) == "bridge" else port
    children: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for link in by_index.values():
        if _kind(link) == "vlan":
            vid = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA", "IFLA_VLAN_ID")
            children[link.get_attr("IFLA_LINK")].append((vid, link["index"]))
    found: dict[Tags, int] = {(): base["index"]}
    for outer, device in children[base["index"]]:
        found[(outer,)] = device
        found.update({(outer, inner): stacked for inner, stacked in children[device]})
    return found


def _gateways(route: Any) -> Iterable[tuple[str, int]]:
    """The (gateway, outgoing interface) pairs of a route, of each of its paths if it has several."""
    paths = route.get_attr("RTA_MULTIPATH")
    if not paths:
        gateway = route.get_attr("RTA_GATEWAY")
        return [(gateway, route.get_attr("RTA_OIF"))] if gateway else []
    return [(path.get_attr("RTA_GATEWAY"), path["oif"]) for path in paths if path.get_attr("RTA_GATEWAY")]


def _name(link: Any) -> str:
    return str(link.get_attr("IFLA_IFNAME"))


def _kind(link: Any) -> str:
    return link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""


def _mac(port: str, link: Any) -> bytes:
    if link["ifi_type"] != _ARPHRD_ETHER:
        raise MachineError(
            f"{port}: not an Ethernet interface: there is no Neighbor Discovery to proxy on tunnels, PPP and loopback"
        )
    return bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", ""))
