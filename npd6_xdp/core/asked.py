# SPDX-License-Identifier: GPL-2.0-or-later
"""What a solicitation's frame says of who asks for what, valid or not, and whole or cut off."""

from __future__ import annotations

from typing import NamedTuple

from npd6_xdp.core.icmpv6 import FIXED_SIZE, MAX_MESSAGE, VLAN_TPIDS, NeighborSolicitation, locate

_MAX_TAGS = 2


class Asked(NamedTuple):
    """The frame's MAC addresses (6 bytes), the VLAN ids of its tags, and the addresses (16 bytes), as far as it has
    them.

    `is_long`: its message is longer than we look at (MAX_MESSAGE).
    """

    frame: bytes
    vlan: tuple[int, ...]
    source: bytes | None
    target: bytes | None
    is_long: bool

    @classmethod
    def of(cls, frame: bytes) -> Asked:
        """As the frame has it; never raises."""
        source = target = None
        is_long = False
        if (found := locate(frame)) is not None:
            source = frame[found.ip6 + 8 : found.ip6 + 24]
            is_long = found.length > MAX_MESSAGE
            if found.length >= FIXED_SIZE and len(frame) >= found.start + FIXED_SIZE:
                target = frame[found.start + 8 : found.start + FIXED_SIZE]
        return cls(frame, vlan_ids(frame), source, target, is_long)

    @property
    def eth_destination(self) -> bytes:
        """Whom the frame went to."""
        return self.frame[:6]

    @property
    def eth_source(self) -> bytes:
        """Whom it came from."""
        return self.frame[6:12]

    @property
    def answer_mac(self) -> bytes:
        """Where an answer would go."""
        valid = NeighborSolicitation.parse(self.frame)
        link_layer = valid.link_layer_address if isinstance(valid, NeighborSolicitation) else None
        return self.eth_source if link_layer is None else link_layer


def vlan_ids(frame: bytes) -> tuple[int, ...]:
    """The VLAN ids of a frame; a tag with VID 0 names none."""
    found: list[int] = []
    at = 12
    while len(found) < _MAX_TAGS and frame[at : at + 2] in VLAN_TPIDS:
        found.append(int.from_bytes(frame[at + 2 : at + 4]) & 0xFFF)
        at += 4
    return tuple(filter(None, found))
