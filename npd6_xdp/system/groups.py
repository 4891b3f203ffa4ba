# SPDX-License-Identifier: GPL-2.0-or-later
"""Multicast groups: joined by a socket, so that the kernel reports them (MLD), and left when the process ends."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Mapping

from npd6_xdp.core.groups import joins_and_leaves

log = logging.getLogger("npd6-xdp")


class Groups:
    """The groups that this process holds, by interface index."""

    def __init__(self) -> None:
        # UDP, and never bound: it receives nothing
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._joined: dict[int, frozenset[bytes]] = {}

    def close(self) -> None:
        """Leave all."""
        self._socket.close()

    def follow(self, wanted: Mapping[int, frozenset[bytes]]) -> None:
        """Join what is wanted and isn't held, and leave what is held and isn't wanted."""
        joins, leaves = joins_and_leaves(self._joined, wanted)
        self._joined = dict(wanted)
        for ifindex, group in leaves:
            self._membership(socket.IPV6_LEAVE_GROUP, ifindex, group)
        failed = [ifindex for ifindex, group in joins if not self._membership(socket.IPV6_JOIN_GROUP, ifindex, group)]
        for ifindex in sorted(set(failed)):
            log.warning(
                "interface %d: the kernel doesn't join %d of the solicited-node groups; switches with MLD snooping may"
                " keep their solicitations (net.core.optmem_max is the limit)",
                ifindex,
                failed.count(ifindex),
            )

    def _membership(self, option: int, ifindex: int, group: bytes) -> bool:
        try:
            self._socket.setsockopt(socket.IPPROTO_IPV6, option, group + struct.pack("@i", ifindex))
        except OSError:
            return False
        return True
