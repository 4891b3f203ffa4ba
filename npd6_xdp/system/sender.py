# SPDX-License-Identifier: GPL-2.0-or-later
"""AF_PACKET: advertisements out, and the hold on each port's multicast filter."""

from __future__ import annotations

import ctypes as ct
import socket
import struct
from typing import Any

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.frames import SLOT, Frames, Shape

_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_MR_ALLMULTI = 2
_MEMBERSHIP = struct.Struct("=iHH8s")  # struct packet_mreq

MAX_SEND_BUFFER = 4 << 20


class _IoVec(ct.Structure):
    """struct iovec."""

    _fields_ = (("iov_base", ct.c_void_p), ("iov_len", ct.c_size_t))


class _MsgHdr(ct.Structure):
    """struct msghdr."""

    _fields_ = (
        ("msg_name", ct.c_void_p),
        ("msg_namelen", ct.c_uint32),
        ("msg_iov", ct.c_void_p),
        ("msg_iovlen", ct.c_size_t),
        ("msg_control", ct.c_void_p),
        ("msg_controllen", ct.c_size_t),
        ("msg_flags", ct.c_int),
    )


class _MMsgHdr(ct.Structure):
    """struct mmsghdr."""

    _fields_ = (("msg_hdr", _MsgHdr), ("msg_len", ct.c_uint))


_libc: Any = ct.CDLL(None, use_errno=True)
_libc.sendmmsg.argtypes = (ct.c_int, ct.c_void_p, ct.c_uint, ct.c_int)


class Outbox:
    """Frames beside the kernel's words for them, so that one system call sends many (sendmmsg(2))."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self._lent: Any = (ct.c_char * len(frames.buffer)).from_buffer(frames.buffer)
        base = ct.addressof(self._lent)
        self._iovecs: Any = (_IoVec * frames.room)(*(_IoVec(base + index * SLOT, 0) for index in range(frames.room)))
        self._headers: Any = (_MMsgHdr * frames.room)()
        for index in range(frames.room):
            header = self._headers[index].msg_hdr
            header.msg_iov = ct.addressof(self._iovecs) + index * ct.sizeof(_IoVec)
            header.msg_iovlen = 1
        self._address = ct.addressof(self._headers)
        self._shapes: list[Shape | None] = [None] * frames.room  # those that the iovecs' sizes are for

    def prepare(self) -> None:
        """Take over the sizes of the frames that are to be sent."""
        shapes = self.frames.shapes
        if shapes == self._shapes[: len(shapes)]:  # nearly always
            return
        for index, shape in enumerate(shapes):
            if shape is not self._shapes[index]:
                self._iovecs[index].iov_len = shape.size
                self._shapes[index] = shape

    def send(self, port: Port, first: int, end: int) -> list[int]:
        """Send the frames from `first` to before `end` out of a port. The numbers of those that couldn't be sent."""
        failed = []
        fd = port.fileno()
        while first < end:
            sent = _libc.sendmmsg(fd, self._address + first * ct.sizeof(_MMsgHdr), end - first, 0)
            if sent > 0:
                first += sent
            else:  # the first of them is what failed: the interface is down, or its queue is full
                failed.append(first)
                first += 1
        return failed


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

    def fileno(self) -> int:
        """The socket's file descriptor."""
        return self._socket.fileno()

    def send(self, frame: bytes) -> bool:
        """Send one frame as it is. False if it could not be sent: the interface is down, or its queue is full."""
        try:
            return self._socket.send(frame) == len(frame)
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket and give the multicast filter back."""
        self._socket.close()
