# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames of a capture on `any`: rebuilds the Ethernet header from the one that Linux puts in its place ("cooked")."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from npd6_xdp.tools.pcap import ETHERNET, SLL, SLL2, Frame

OTHER_HOST = bytes.fromhex("020000000000")
"""Where a frame went that was for another station, whose address a cooked header doesn't have."""

_BROADCAST = b"\xff" * 6
_ETHERNET_HEADER = 14  # bytes
_HEADERS = {SLL: 16, SLL2: 20}  # bytes
_ARPHRD_ETHER = 1
_TAGS = (b"\x81\x00", b"\x88\xa8")
_IPV6 = b"\x86\xdd"


class PacketType(IntEnum):
    """What the kernel says of a frame's destination (packet(7))."""

    HOST = 0
    BROADCAST = 1
    MULTICAST = 2
    OTHERHOST = 3
    OUTGOING = 4


class Cooked(NamedTuple):
    """What a cooked header says: `ifindex` is 0 where it doesn't say which interface (SLL), and `source` is the
    sender's address (6 bytes). `rest` has the EtherType, tags in front of it, and what follows.
    """

    kind: int
    device: int
    ifindex: int
    source: bytes
    rest: bytes


def parse(frame: Frame) -> Cooked | None:
    """A cooked frame's parts; None for one that is cut off in its header."""
    data = frame.data
    if len(data) < _HEADERS[frame.link]:
        return None
    if frame.link == SLL:
        kind, device, _, address = struct.unpack_from("!HHH8s", data)
        return Cooked(kind, device, 0, address[:6], _tagged(data[14:]))
    ifindex, device, kind, _, address = struct.unpack_from("!4xIHBB8s", data)
    return Cooked(kind, device, ifindex, address[:6], _tagged(data[:2] + data[20:]))


def _tagged(rest: bytes) -> bytes:
    """What begins with an EtherType, with the one of an inner tag put right.

    Where a tag is left in the frame (the inner one of QinQ), Linux says the EtherType behind it, and the frame goes on
    with the tag (vlan_get_protocol_dgram() in net/packet/af_packet.c).
    """
    at = _ethertype(rest)
    if len(rest) > at + 6 and rest[at : at + 2] == _IPV6 and rest[at + 4 : at + 6] == _IPV6 and rest[at + 6] >> 4 == 6:
        return rest[:at] + _TAGS[0] + rest[at + 2 :]
    return rest


def _ethertype(rest: bytes) -> int:
    """Where the EtherType behind the tags is."""
    at = 0
    while rest[at : at + 2] in _TAGS:
        at += 4
    return at


def rebuilt(frame: Frame, cooked: Cooked, mac: bytes) -> Frame | None:
    """The frame as it was on the wire of an interface with this MAC address; None where it has no Ethernet header.

    A multicast destination is made of the IPv6 destination (RFC 2464 §7), which is all that decides about it; another
    station's is OTHER_HOST.
    """
    if cooked.device != _ARPHRD_ETHER:
        return None
    destination = {
        PacketType.HOST: mac,
        PacketType.BROADCAST: _BROADCAST,
        PacketType.MULTICAST: _group(cooked.rest),
    }.get(PacketType(cooked.kind) if cooked.kind <= PacketType.OUTGOING else PacketType.OTHERHOST, OTHER_HOST)
    return frame._replace(
        data=destination + cooked.source + cooked.rest,
        size=frame.size - _HEADERS[frame.link] + _ETHERNET_HEADER,
        link=ETHERNET,
    )


def _group(rest: bytes) -> bytes:
    """The group's MAC address of an IPv6 packet behind its EtherType and tags; of anything else, all nodes'."""
    at = _ethertype(rest)
    destination = rest[at + 26 : at + 42]
    if rest[at : at + 2] != _IPV6 or len(destination) < 16:
        return b"\x33\x33\x00\x00\x00\x01"
    return b"\x33\x33" + destination[12:]
