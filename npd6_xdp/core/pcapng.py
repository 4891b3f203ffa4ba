# SPDX-License-Identifier: GPL-2.0-or-later
"""The blocks of a pcapng capture that we write: section, interfaces, packets with their direction and a comment.

Of draft-ietf-opsawg-pcapng: §4.1 section header, §4.2 interface description, §4.3 enhanced packet; §3.5 options.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum

_SECTION_HEADER, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER = 0x1A2B3C4D
_ANY_LENGTH = -1  # of a section
_ETHERNET = 1  # LINKTYPE_ETHERNET
_SNAP = 262_144  # bytes; libpcap takes only interfaces that agree about it
_END, _COMMENT, _NAME, _FLAGS, _APPLICATION, _TIME_UNIT = 0, 1, 2, 2, 4, 9  # options
_NANOSECONDS = b"\x09"  # 10^-9 s
_MOST_COMMENT = 65_000  # bytes: an option's length has 16 bits
_BROADCAST = b"\xff" * 6


class Direction(IntEnum):
    """Whether a frame came in or went out (epb_flags, bits 0 and 1)."""

    INBOUND = 1
    OUTBOUND = 2


class _Cast(IntEnum):
    """How a frame was addressed (epb_flags, bits 2 to 4)."""

    UNICAST = 1
    MULTICAST = 2
    BROADCAST = 3


def section(application: str) -> bytes:
    """What a capture begins with: by whom it is written."""
    body = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, _ANY_LENGTH)
    return _block(_SECTION_HEADER, body, [(_APPLICATION, application.encode())])


def interface(name: str) -> bytes:
    """An Ethernet interface; the first in the section is number 0. Times of its packets are in nanoseconds."""
    body = struct.pack("<HHI", _ETHERNET, 0, _SNAP)
    return _block(_INTERFACE, body, [(_NAME, name.encode()), (_TIME_UNIT, _NANOSECONDS)])


def packet(number: int, at: int, frame: bytes, size: int, direction: Direction, comment: str) -> bytes:
    """A frame on interface `number`, at a time in nanoseconds since 1970; of its `size` bytes, `frame` may be the first
    ones.
    """
    cast = _Cast.BROADCAST if frame[:6] == _BROADCAST else _Cast.MULTICAST if frame[0] & 1 else _Cast.UNICAST
    flags = struct.pack("<I", direction | cast << 2)
    body = struct.pack("<IIIII", number, at >> 32, at & 0xFFFFFFFF, len(frame), size) + _padded(frame)
    text = comment.encode()[:_MOST_COMMENT].decode(errors="ignore").encode()
    return _block(_PACKET, body, [(_COMMENT, text), (_FLAGS, flags)])


def _block(kind: int, body: bytes, options: Iterable[tuple[int, bytes]]) -> bytes:
    for code, value in (*options, (_END, b"")):
        body += struct.pack("<HH", code, len(value)) + _padded(value)
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def _padded(data: bytes) -> bytes:
    """To whole words of 32 bits."""
    return data + bytes(-len(data) % 4)
