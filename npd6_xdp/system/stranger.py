# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks a neighbour for an echo (RFC 4443 §4.1) by a packet socket, so from an address that this machine needn't have.

What a host sends back to an address off its link shows its way out: it comes back to us, or it asks for its gateway
(which nobody is), or nothing comes. Routes and filters of this machine have no part in it.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core.icmpv6 import checksum
from npd6_xdp.core.names import raw

STRANGER = IPv6Address("100::1")
"""An address that nobody has: of the prefix that is for discarding (RFC 6666), where what goes further ends."""

_IPV6 = struct.Struct("!IHBB16s16s")
_ECHO = struct.Struct("!BBHHH")
_REQUEST, _REPLY, _SOLICITATION = 128, 129, 135
_ETH_P_IPV6 = 0x86DD
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_MR_ALLMULTI = 263, 1, 2
_MEMBERSHIP = struct.Struct("=iHH8s")  # struct packet_mreq
_REQUESTS, _PAUSE = 4, 0.4
"""How often, in all for longer than a second: for so long a host is silent that has just asked for its gateway in vain
(RetransTimer, RFC 4861 §10), before it begins anew."""
_LEAST = 2


class Heard(NamedTuple):
    """Whether the neighbour replied, and whose link-layer address it asked for instead."""

    replied: bool
    asked: frozenset[IPv6Address] = frozenset()


class Neighbour(NamedTuple):
    """A host on an interface's link, with its link-layer address."""

    interface: str
    ifindex: int
    mac: bytes
    address: IPv6Address


def ask(neighbour: Neighbour, source: IPv6Address) -> Heard:
    """Some requests as if from `source`, and what comes of them. Raises OSError (EPERM without CAP_NET_RAW)."""
    number, asked = os.getpid() & 0xFFFF, set[IPv6Address]()
    name = os.fsdecode(raw(neighbour.interface))
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IPV6)) as packets:
        packets.bind((name, _ETH_P_IPV6))
        membership = _MEMBERSHIP.pack(neighbour.ifindex, _PACKET_MR_ALLMULTI, 0, b"")  # its questions are multicast
        packets.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
        for sequence in range(_REQUESTS):
            if asked and sequence >= _LEAST:
                break
            packets.sendto(
                _request(source, neighbour.address, number, sequence), (name, _ETH_P_IPV6, 0, 0, neighbour.mac)
            )
            deadline = time.monotonic() + _PAUSE
            while (left := deadline - time.monotonic()) > 0:
                packets.settimeout(left)
                try:
                    packet, sender = packets.recvfrom(2048)
                except TimeoutError:
                    break
                if sender[2] == socket.PACKET_OUTGOING or sender[4] != neighbour.mac:
                    continue
                if _is_reply(packet, neighbour.address, source, number):
                    return Heard(True)
                if (target := _asked(packet)) is not None:
                    asked.add(target)
    return Heard(False, frozenset(asked))


def _request(source: IPv6Address, host: IPv6Address, number: int, sequence: int) -> bytes:
    echo = _ECHO.pack(_REQUEST, 0, 0, number, sequence)
    echo = _ECHO.pack(_REQUEST, 0, checksum(source.packed, host.packed, echo), number, sequence)
    return _IPV6.pack(6 << 28, len(echo), socket.IPPROTO_ICMPV6, 64, source.packed, host.packed) + echo


def _is_reply(packet: bytes, host: IPv6Address, source: IPv6Address, number: int) -> bool:
    if len(packet) < _IPV6.size + _ECHO.size:
        return False
    _, _, protocol, _, sender, receiver = _IPV6.unpack_from(packet)
    kind, _, _, its, _ = _ECHO.unpack_from(packet, _IPV6.size)
    ours = protocol, sender, receiver, kind, its
    return bool(ours == (socket.IPPROTO_ICMPV6, host.packed, source.packed, _REPLY, number))


def _asked(packet: bytes) -> IPv6Address | None:
    """The target of a Neighbor Solicitation."""
    if len(packet) < _IPV6.size + 24 or packet[6] != socket.IPPROTO_ICMPV6 or packet[_IPV6.size] != _SOLICITATION:
        return None
    return IPv6Address(packet[_IPV6.size + 8 : _IPV6.size + 24])
