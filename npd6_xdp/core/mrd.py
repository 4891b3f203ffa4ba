# SPDX-License-Identifier: GPL-2.0-or-later
"""Multicast Router Discovery on the wire (RFC 4286): Advertisements and Terminations out, Solicitations in.

A switch with MLD snooping passes all groups to a port behind which a multicast router is. So who announces himself as
one gets the solicitations for all targets of a prefix, which are too many to join the groups of (core/groups.py).
Addresses are 16 `bytes`, MACs 6, and VLAN tags as core/icmpv6.py has them. The ids are those of docs/rules.md.
"""

from __future__ import annotations

import struct

from npd6_xdp.core.icmpv6 import (
    ETHERTYPE_IPV6,
    HOP_BY_HOP,
    ICMPV6,
    IPV6_SIZE,
    IPV6_VERSION,
    VLAN_TPIDS,
    checksum,
    ipv6_offset,
)
from npd6_xdp.core.route_filter import ACCEPT, DROP, Instruction

ADVERTISEMENT, SOLICITATION, TERMINATION = 151, 152, 153  # ICMPv6 types, RFC 4286
HOP_LIMIT = 1  # I1: no router passes them on
INTERVAL = 20  # seconds: AdvertisementInterval, §3.1.1

ALL_SNOOPERS = bytes.fromhex("ff02000000000000000000000000006a")
ALL_SNOOPERS_MAC = bytes.fromhex("33330000006a")  # RFC 2464 §7
ALL_ROUTERS = bytes.fromhex("ff020000000000000000000000000002")

_ROUTER_ALERT = b"\x05\x02\0\0"  # RFC 2711 §2.1, value 0: for MLD, of which these are messages
_PAD = b"\x01\0"  # PadN of no bytes, RFC 8200 §4.2: the header is a multiple of 8
_HEADER = bytes([ICMPV6, 0]) + _ROUTER_ALERT + _PAD
_SOLICITATION_SIZE = 4  # §4
_VID = 0x0FFF

Tags = tuple[int, ...]


def advertisement(mac: bytes, source: bytes, tags: bytes = b"") -> bytes:
    """The frame of a Multicast Router Advertisement (I1).

    Its query interval and robustness variable are 0 (I2): §3 wants those of the MLD querier that the sender is, and
    this machine is none on account of us.
    """
    return _frame(mac, source, tags, struct.pack("!BBHHH", ADVERTISEMENT, INTERVAL, 0, 0, 0))


def termination(mac: bytes, source: bytes, tags: bytes = b"") -> bytes:
    """The frame of a Multicast Router Termination (I1, §5)."""
    return _frame(mac, source, tags, struct.pack("!BBH", TERMINATION, 0, 0))


def solicited(frame: bytes) -> Tags | None:
    """The VLAN ids of a frame that is a valid Multicast Router Solicitation, tags with VID 0 left out; else None.

    I4: ICMPv6 type 152 from a link-local address to ff02::2, with the hop limit 1 and a right checksum. The Router
    Alert isn't asked for, nor is what its header has besides, and the reserved octet is ignored (§4).
    """
    ip6 = ipv6_offset(frame)
    if ip6 is None:
        return None
    start = ip6 + IPV6_SIZE
    end = start + int.from_bytes(frame[ip6 + 4 : ip6 + 6])
    next_header, hop_limit = frame[ip6 + 6 : ip6 + 8]
    source, destination = frame[ip6 + 8 : ip6 + 24], frame[ip6 + 24 : start]
    if hop_limit != HOP_LIMIT or destination != ALL_ROUTERS or not _is_link_local(source) or end > len(frame):
        return None
    if next_header == HOP_BY_HOP and start + 8 <= end:
        next_header = frame[start]
        start += 8 * (frame[start + 1] + 1)  # RFC 8200 §4.3
    message = frame[start:end]
    if next_header != ICMPV6 or len(message) < _SOLICITATION_SIZE or message[0] != SOLICITATION:
        return None
    if checksum(source, destination, message) != 0:
        return None
    vids = (int.from_bytes(frame[at + 2 : at + 4]) & _VID for at in range(12, ip6 - 2, 4))
    return tuple(vid for vid in vids if vid)


def tags_of(vids: Tags, tpids: tuple[int, ...] = ()) -> bytes:
    """The VLAN tags of a frame with these ids, outermost first, and these TPIDs.

    Where none are known, the outer one of two is a service provider's (802.1ad), and every other one is 802.1Q's.
    """
    if len(tpids) != len(vids):
        tpids = _TPIDS[len(vids)]
    return b"".join(struct.pack("!HH", tpid, vid) for tpid, vid in zip(tpids, vids, strict=True))


_DOT1Q, _DOT1AD = (int.from_bytes(tpid) for tpid in VLAN_TPIDS)
_TPIDS = {0: (), 1: (_DOT1Q,), 2: (_DOT1AD, _DOT1Q)}


def _is_link_local(address: bytes) -> bool:
    """Whether an address is in fe80::/10 (RFC 4291 §2.5.6)."""
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def _frame(mac: bytes, source: bytes, tags: bytes, message: bytes) -> bytes:
    """The Ethernet frame with a message whose checksum field is still 0."""
    field = checksum(source, ALL_SNOOPERS, message).to_bytes(2)
    size = len(_HEADER) + len(message)
    ip6 = struct.pack("!IHBB", IPV6_VERSION, size, HOP_BY_HOP, HOP_LIMIT) + source + ALL_SNOOPERS
    return ALL_SNOOPERS_MAC + mac + tags + ETHERTYPE_IPV6 + ip6 + _HEADER + message[:2] + field + message[4:]


# --- What a packet socket is to hear: classic BPF, on frames without their outermost tag, which stands beside them ---

_LD_ABS_H, _LD_IND_H, _LD_IND_B, _LDX_IMM = 0x28, 0x48, 0x50, 0x01
_LSH, _ADD_X, _TAX, _JEQ = 0x64, 0x0C, 0x07, 0x15
_ETHERTYPE, _NEXT_HEADER, _BEHIND_IPV6 = 12, 14 + 6, 14 + IPV6_SIZE

SOLICITATIONS = (
    Instruction(_LDX_IMM, 0),
    Instruction(_LD_ABS_H, _ETHERTYPE),
    Instruction(_JEQ, _DOT1Q, 1, 0),
    Instruction(_JEQ, _DOT1AD, 0, 1),
    Instruction(_LDX_IMM, 4),  # X: the size of an inner tag
    Instruction(_LD_IND_H, _ETHERTYPE),
    Instruction(_JEQ, int.from_bytes(ETHERTYPE_IPV6), 0, 14),
    Instruction(_LD_IND_B, _NEXT_HEADER),
    Instruction(_JEQ, ICMPV6, 9, 0),
    Instruction(_JEQ, HOP_BY_HOP, 0, 11),
    Instruction(_LD_IND_B, _BEHIND_IPV6),
    Instruction(_JEQ, ICMPV6, 0, 9),
    Instruction(_LD_IND_B, _BEHIND_IPV6 + 1),
    Instruction(_LSH, 3),
    Instruction(_ADD_X, 0),
    Instruction(_TAX, 0),  # X: that, and the size of the options, the first 8 bytes left out
    Instruction(_LD_IND_B, _BEHIND_IPV6 + 8),
    Instruction(_JEQ, SOLICITATION, 2, 3),
    Instruction(_LD_IND_B, _BEHIND_IPV6),
    Instruction(_JEQ, SOLICITATION, 0, 1),
    ACCEPT,
    DROP,
)
"""Lets pass what may be a Multicast Router Solicitation: type 152, behind at most one header of options."""
