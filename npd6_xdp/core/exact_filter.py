# SPDX-License-Identifier: GPL-2.0-or-later
"""Which addresses surely have no line of their own among an entry's: 64 bits that the program asks before its map."""

from __future__ import annotations

import struct
from collections.abc import Iterable

ALL = (1 << 64) - 1
"""The filter that says nothing: any address may have a line."""
MOST = 64
"""More addresses than that set nearly all bits."""
_FACTOR, _SHIFT = 0x9E3779B97F4A7C15, 58  # FILTER_FACTOR and FILTER_SHIFT of bpf/plain.h
_HALVES = struct.Struct("=QQ")


def exact_filter(addresses: Iterable[int]) -> int:
    """The filter for these: is_filtered_out() of bpf/plain.h says of none of them that it surely isn't there."""
    bits = 0
    for address in addresses:
        upper, lower = _HALVES.unpack(address.to_bytes(16))
        bits |= 1 << (((upper ^ lower) * _FACTOR & ALL) >> _SHIFT)
    return bits
