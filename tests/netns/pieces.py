# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that arrive in pieces: of each, only so many first bytes stand in one, as some drivers hand frames over.

They are sent from a ring that the kernel shares with us (PACKET_TX_RING): it copies those bytes, and takes the rest
from where it lies. A veth hands the frame to its other end as it is.
"""

from __future__ import annotations

import mmap
import socket
import struct
from types import TracebackType
from typing import Self

from npd6_xdp.lab.topology import Topology

_SOL_PACKET, _PACKET_VERSION, _PACKET_TX_RING, _PACKET_VNET_HDR = 263, 10, 13, 15
_TPACKET_V2 = 1
_SPACE, _SPACES = 1 << 13, 8
_DATA_AT = 32  # in each: sizeof(struct tpacket2_hdr)
_SEND_REQUEST, _AVAILABLE = 1, 0
_VNET_HEADER = struct.Struct("=BBHHHH")  # struct virtio_net_hdr
_ETH_P_ALL = 3


class Pieces:
    """The upstream's eth0, for sending."""

    def __init__(self, topology: Topology) -> None:
        with topology.inside("upstream"):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        ring = struct.pack("=4I", _SPACE * _SPACES, 1, _SPACE, _SPACES)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_TX_RING, ring)
        self._ring = mmap.mmap(self._socket.fileno(), _SPACE * _SPACES)
        self._socket.bind(("eth0", 0))
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ring.close()
        self._socket.close()

    def send(self, frame: bytes, first: int) -> None:
        """Send a frame, of which the first piece has so many bytes: 14 at least."""
        at = self._next * _SPACE
        self._next = (self._next + 1) % _SPACES
        data = _VNET_HEADER.pack(0, 0, first, 0, 0, 0) + frame
        self._ring[at + _DATA_AT : at + _DATA_AT + len(data)] = data
        self._ring[at + 4 : at + 8] = struct.pack("=I", len(data))
        self._ring[at : at + 4] = struct.pack("=I", _SEND_REQUEST)
        self._socket.send(b"")
        assert struct.unpack_from("=I", self._ring, at)[0] == _AVAILABLE
