# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts of this machine that help to convert its own file. A file of another machine is converted without them."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Network
from pathlib import Path

_ROUTES = Path("/proc/self/net/ipv6_route")
_SIOCGIFHWADDR = 0x8927
_ARPHRD_ETHER = 1
_NOT_ON_LINK = 0x80000000 | 0x00100000 | 0x0200  # RTF_LOCAL, RTF_ANYCAST, RTF_REJECT (linux/ipv6_route.h)
_NOBODY = "0" * 32


@dataclass(frozen=True, slots=True)
class Facts:
    """Of the interfaces that are here: whether each is Ethernet, and the global prefixes that are on-link there."""

    ethernet: Mapping[str, bool] = field(default_factory=dict)
    on_link: Mapping[str, tuple[IPv6Network, ...]] = field(default_factory=dict)


NOTHING_KNOWN = Facts()


def facts() -> Facts:
    """This machine's. What can't be asked is left unknown: no privilege is needed, and no interface has to be there."""
    ethernet: dict[str, bool] = {}
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has gone since
                answer = fcntl.ioctl(asking, _SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))
                ethernet[name] = struct.unpack_from("H", answer, 16)[0] == _ARPHRD_ETHER
    with suppress(OSError), _ROUTES.open() as routes:
        return Facts(ethernet, on_link(routes))
    return Facts(ethernet)


def on_link(routes: Iterable[str]) -> dict[str, tuple[IPv6Network, ...]]:
    """The prefixes that lines of /proc/net/ipv6_route have without a gateway, by interface."""
    found: defaultdict[str, dict[IPv6Network, None]] = defaultdict(dict)
    for line in routes:
        with suppress(ValueError):  # a name with a space in it, say
            destination, length, _, _, gateway, *_, flags, name = line.split()
            if gateway == _NOBODY and not int(flags, 16) & _NOT_ON_LINK and 0 < int(length, 16) < 128:
                network = IPv6Network((int(destination, 16), int(length, 16)))
                if not network.network_address.is_link_local and not network.network_address.is_multicast:
                    found[name][network] = None
    return {name: tuple(networks) for name, networks in found.items()}
