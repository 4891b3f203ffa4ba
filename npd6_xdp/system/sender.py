# SPDX-License-Identifier: GPL-2.0-or-later
"""AF_PACKET: advertisements out, and the hold on each port's multicast filter."""

from __future__ import annotations

import socket
import struct

from npd6_xdp.core.errors import MachineError

_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_MR_ALLMULTI = 2
_MEMBERSHIP = struct.Struct("=iHH8s")  # struct packet_mreq

MAX_SEND_BUFFER = 4 << 20


class Port:
    """A packet socket on one interface. It receives nothing (protocol 0).

    While it is open, the interface takes all multicast frames in: a NIC's filter comes before XDP, and most
    solicitations go to groups that the host isn't a member of. The kernel counts such holds and lets go of
    this one when the process ends.
    """

    def __init__(self, name: str, ifindex: int) -> None:
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except PermissionError as error:
            raise MachineError("not permitted to open a packet socket: run as root, or give CAP_NET_RAW") from error
        try:
            self._socket.bind((name, 0))
            membership = _MEMBERSHIP.pack(ifindex, _PACKET_MR_ALLMULTI, 0, b"")
            self._socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_SEND_BUFFER)
        except OSError as error:
            self._socket.close()
            raise MachineError(f"{name}: can't open a packet socket on it: {error.strerror}") from error

    def send(self, frame: bytes) -> bool:
        """Send one frame as it is. False if it could not be sent: the interface is down, or its queue is full."""
        try:
            return self._socket.send(frame) == len(frame)
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket and give the multicast filter back."""
        self._socket.close()
