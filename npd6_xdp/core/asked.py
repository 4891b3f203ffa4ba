# SPDX-License-Identifier: GPL-2.0-or-later
"""What a solicitation's frame says of who asks for what, valid or not, and whole or cut off."""

from __future__ import annotations

from typing import NamedTuple

from npd6_xdp.core.icmpv6 import FIXED_SIZE, MAX_MESSAGE, VLAN_TPIDS, NeighborSolicitation, locate

_MAX_TAGS = 2


class Asked(NamedTuple):
    """The frame's MAC addresses (6 bytes), the VLAN ids of its tags, and the addresses (16 bytes), as far as it has
    them.

    `answer_mac` is where an answer would go. `is_long`: its message is longer than we look at (MAX_MESSAGE).
    """

    eth_destination: bytes
    eth_source: bytes
    vlan: tuple[int, ...]
    source: bytes | None
    target: bytes | None
    answer_mac: bytes
    is_long: bool

    @classmethod
    def of(cls, frame: bytes) -> Asked:
        """As the frame has it; never raises."""
        source = target = None
        answer_mac, is_long = frame[6:12], False
        if (found := locate(frame)) is not None:
            source = frame[found.ip6 + 8 : found.ip6 + 24]
            is_long = found.length > MAX_MESSAGE
            if found.length >= FIXED_SIZE and len(frame) >= found.start + FIXED_SIZE:
                target = frame[found.start + 8 : found.start + FIXED_SIZE]
        valid = NeighborSolicitation.parse(frame)
        if isinstance(valid, NeighborSolicitation) and valid.link_layer_address is not None:
            answer_mac = valid.link_layer_address
        return cls(frame[:6], frame[6:12], vlan_ids(frame), source, target, answer_mac, is_long)


def vlan_ids(frame: bytes) -> tuple[int, ...]:
    """The VLAN ids of a frame; a tag with VID 0 names none."""
    found: list[int] = []
    at = 12
    while len(found) < _MAX_TAGS and frame[at : at + 2] in VLAN_TPIDS:
        found.append(int.from_bytes(frame[at + 2 : at + 4]) & 0xFFF)
        at += 4
    return tuple(found[1:] if found and not found[0] else found)
