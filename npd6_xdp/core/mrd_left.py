# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a process has announced a multicast router, as bytes, for whoever comes after it and ends that."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from npd6_xdp.core.icmpv6 import VLAN_TPIDS
from npd6_xdp.core.mrd import termination
from npd6_xdp.core.mrd_segments import Segment

MOST_BYTES = 1 << 22
_ROW = struct.Struct(">I6s16sB8s")
_TAG = 4  # bytes
_VID = 0x0FFF


class LeftRouter(NamedTuple):
    """An interface's index, and from where it was announced there: MAC and link-local address, and raw VLAN tags."""

    ifindex: int
    mac: bytes
    source: bytes
    tags: bytes

    @property
    def segment(self) -> Segment:
        """Where that is."""
        vids = (int.from_bytes(self.tags[at + 2 : at + _TAG]) & _VID for at in range(0, len(self.tags), _TAG))
        return Segment(self.ifindex, tuple(vid for vid in vids if vid))

    @property
    def end(self) -> bytes:
        """The frame that ends it (I6)."""
        return termination(self.mac, self.source, self.tags)


def pack(routers: Iterable[LeftRouter]) -> bytes:
    """Some of them."""
    rows = (_ROW.pack(each.ifindex, each.mac, each.source, len(each.tags), each.tags) for each in routers)
    return b"".join(rows)


def unpack(data: bytes) -> list[LeftRouter]:
    """The same again; what can't be is left out."""
    found = []
    for ifindex, mac, source, size, tags in _ROW.iter_unpack(data[: len(data) // _ROW.size * _ROW.size]):
        is_tagged = size <= len(tags) and size % _TAG == 0
        tpids = (tags[at : at + 2] for at in range(0, size, _TAG))
        is_sender = not mac[0] & 1 and source[0] == 0xFE and source[1] & 0xC0 == 0x80  # link-local
        if 0 < ifindex < 1 << 31 and is_sender and is_tagged and all(tpid in VLAN_TPIDS for tpid in tpids):
            found.append(LeftRouter(ifindex, mac, source, tags[:size]))
    return found
