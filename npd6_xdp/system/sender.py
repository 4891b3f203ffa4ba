# SPDX-License-Identifier: GPL-2.0-or-later
"""AF_PACKET: sends advertisements, and keeps each port's multicast filter open (PACKET_MR_ALLMULTI)."""

from __future__ import annotations

import ctypes as ct
import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from npd6_xdp.core.errors import MachineError, remedy
from npd6_xdp.core.frames import STRIDE, Frames, Shape
from npd6_xdp.system.packets import IoVec, MsgHdr

_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_DROP_MEMBERSHIP = 1, 2
_PACKET_MR_ALLMULTI = 2
_MEMBERSHIP = struct.Struct("=iHH8s")  # struct packet_mreq

MAX_SEND_BUFFER = 4 << 20

_OWN_SOCKETS = 16
"""How many ports get a socket of their own, bound to them: so a frame costs 50 to 100 ns less, and a full queue of one
port doesn't delay another's answers.
"""
_SHARED_SOCKETS = 8
"""Sockets that all further ports share. Closing one waits for the kernel (synchronize_net(), 13 ms: 8 s for 600 such);
and for each membership more, the kernel walks the socket's others, so a single one isn't best either."""


class _MMsgHdr(ct.Structure):
    """struct mmsghdr."""

    _fields_ = (("msg_hdr", MsgHdr), ("msg_len", ct.c_uint))


class _SockAddrLl(ct.Structure):
    """struct sockaddr_ll: who says which interface. (Python's own form wants a name, which may be another's by now.)"""

    _fields_ = (
        ("sll_family", ct.c_uint16),
        ("sll_protocol", ct.c_uint16),
        ("sll_ifindex", ct.c_int32),
        ("sll_hatype", ct.c_uint16),
        ("sll_pkttype", ct.c_uint8),
        ("sll_halen", ct.c_uint8),
        ("sll_addr", ct.c_uint8 * 8),
    )


def _interface(ifindex: int) -> _SockAddrLl:
    return _SockAddrLl(sll_family=socket.AF_PACKET, sll_ifindex=ifindex)


_libc: Any = ct.CDLL(None, use_errno=True)
_libc.sendmmsg.argtypes = (ct.c_int, ct.c_void_p, ct.c_uint, ct.c_int)
_libc.sendto.argtypes = (ct.c_int, ct.c_void_p, ct.c_size_t, ct.c_int, ct.c_void_p, ct.c_uint32)
_libc.bind.argtypes = (ct.c_int, ct.c_void_p, ct.c_uint32)


def _bind(fd: int, ifindex: int) -> None:
    if _libc.bind(fd, ct.byref(_interface(ifindex)), ct.sizeof(_SockAddrLl)):
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))


class Outbox:
    """Frames with the structs that let one system call send many of them (sendmmsg(2)).

    Each frame has two headers: one that says which interface it leaves by, for a socket that several ports share, and
    one that doesn't, for a bound one.
    """

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self._lent: Any = (ct.c_char * len(frames.buffer)).from_buffer(frames.buffer)
        base = ct.addressof(self._lent)
        self._iovecs: Any = (IoVec * frames.capacity)(
            *(IoVec(base + index * STRIDE, 0) for index in range(frames.capacity))
        )
        self._interfaces: Any = (_SockAddrLl * frames.capacity)(*(_interface(0) for _ in range(frames.capacity)))
        self._bound: Any = (_MMsgHdr * frames.capacity)()
        self._shared: Any = (_MMsgHdr * frames.capacity)()
        for index in range(frames.capacity):
            for headers in (self._bound, self._shared):
                headers[index].msg_hdr.msg_iov = ct.addressof(self._iovecs) + index * ct.sizeof(IoVec)
                headers[index].msg_hdr.msg_iovlen = 1
            header = self._shared[index].msg_hdr
            header.msg_name = ct.addressof(self._interfaces) + index * ct.sizeof(_SockAddrLl)
            header.msg_namelen = ct.sizeof(_SockAddrLl)
        self._shapes: list[Shape | None] = [None] * frames.capacity  # those that sizes and interfaces are for

    def prepare(self) -> None:
        """Take over the sizes of the frames that are to be sent, and where they go."""
        shapes = self.frames.shapes
        if shapes == self._shapes[: len(shapes)]:  # nearly always
            return
        for index, shape in enumerate(shapes):
            if shape is not self._shapes[index]:
                self._iovecs[index].iov_len = shape.size
                self._interfaces[index].sll_ifindex = shape.ifindex
                self._shapes[index] = shape

    def send(self, way: PacketSocket, first: int, end: int) -> list[int]:
        """Send the frames from `first` to before `end`, by one socket. The numbers of those that couldn't be sent."""
        failed = []
        fd = way.fileno()
        address = ct.addressof(self._bound if way.bound else self._shared)
        while first < end:
            sent = _libc.sendmmsg(fd, address + first * ct.sizeof(_MMsgHdr), end - first, 0)
            if sent > 0:
                first += sent
            else:  # the first of them is what failed: the interface is down, or its queue is full
                failed.append(first)
                first += 1
        return failed


class Holder(NamedTuple):
    """Who keeps sockets besides, by their descriptors, so that their memberships outlive this process."""

    keep: Callable[[int], object]
    release: Callable[[int], object]


NOBODY = Holder(lambda fd: None, lambda fd: None)


class PacketSocket:
    """A packet socket, bound to one interface or to none. It receives nothing (protocol 0). Raises OSError."""

    def __init__(self, bound: int = 0) -> None:
        self.bound = bound
        self.ports = 0
        """How many ports send by it."""
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_SEND_BUFFER)
            if bound:
                _bind(self.fileno(), bound)
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """The socket's file descriptor."""
        return self._socket.fileno()

    def send(self, frame: bytes, to: _SockAddrLl) -> bool:
        """Send one frame as it is; False if it could not be sent."""
        if self.bound:
            try:  # not suppress(), which takes as long as all else here
                return self._socket.send(frame) == len(frame)
            except OSError:
                return False
        sent = _libc.sendto(self.fileno(), frame, len(frame), 0, ct.byref(to), ct.sizeof(to))
        return bool(sent == len(frame))

    def membership(self, option: int, ifindex: int) -> None:
        """Have an interface take in all multicast frames (PACKET_MR_ALLMULTI), or no longer. Raises OSError."""
        self._socket.setsockopt(_SOL_PACKET, option, _MEMBERSHIP.pack(ifindex, _PACKET_MR_ALLMULTI, 0, b""))

    def close(self) -> None:
        """Close the socket; its memberships end."""
        self._socket.close()


class Port:
    """A way out of one interface, and a hold on its multicast filter.

    While it is open, the interface takes all multicast frames in: a NIC's filter comes before XDP, and most
    solicitations go to groups that the host isn't a member of. The kernel counts such holds and lets go of
    this one when the process ends. `way` is the socket that its frames leave by.
    """

    def __init__(self, name: str, ifindex: int, way: PacketSocket) -> None:
        self._ifindex = ifindex
        self.way = way
        try:
            way.membership(_PACKET_ADD_MEMBERSHIP, ifindex)
        except OSError as error:
            raise MachineError(f"{name}: can't take all multicast frames in: {remedy(error)}") from error
        way.ports += 1
        self._to = _interface(ifindex)

    def hold_again(self, name: str) -> None:
        """Take the hold anew, since the kernel says that it is gone. Raises MachineError if that fails."""
        try:
            self.way.membership(_PACKET_DROP_MEMBERSHIP, self._ifindex)  # what the socket still has on its list
            self.way.membership(_PACKET_ADD_MEMBERSHIP, self._ifindex)
        except OSError as error:
            raise MachineError(f"{name}: can't take all multicast frames in: {remedy(error)}") from error

    def send(self, frame: bytes) -> bool:
        """Send one frame as it is. False if it could not be sent: the interface is down, or its queue is full."""
        return self.way.send(frame, self._to)

    def close(self) -> None:
        """Give the multicast filter back."""
        with suppress(OSError):
            self.way.membership(_PACKET_DROP_MEMBERSHIP, self._ifindex)
        self.way.ports -= 1


class Sockets:
    """The packet sockets of all ports: each of the first ones has its own, the others share a few."""

    def __init__(self, holder: Holder = NOBODY) -> None:
        self._holder = holder
        self._own: dict[int, PacketSocket] = {}
        self._shared: list[PacketSocket] = []

    def open(self, name: str, ifindex: int) -> Port:
        """A way out of an interface. Raises MachineError where there can be none."""
        try:
            way = self._way(ifindex)
        except PermissionError as error:
            raise MachineError("not permitted to open a packet socket: run as root, or give CAP_NET_RAW") from error
        except OSError as error:
            raise MachineError(f"{name}: can't open a packet socket on it: {remedy(error)}") from error
        try:
            return Port(name, ifindex, way)
        except MachineError:
            self._drop(ifindex, way)
            raise

    def close_port(self, port: Port) -> None:
        """Let go of a port; a socket of its own goes with it."""
        port.close()
        self._drop(port.way.bound, port.way)

    def close(self) -> None:
        """Close all, side by side, so that they wait for the kernel together."""
        closing = []
        for way in (*self._own.values(), *self._shared):
            thread = threading.Thread(target=way.close)
            try:
                thread.start()
            except RuntimeError:  # the machine gives us no more of them
                way.close()
            else:
                closing.append(thread)
        for thread in closing:
            thread.join()
        self._own.clear()
        self._shared.clear()

    def _way(self, ifindex: int) -> PacketSocket:
        if len(self._own) < _OWN_SOCKETS:
            way = self._own[ifindex] = PacketSocket(ifindex)
            self._holder.keep(way.fileno())
            return way
        if len(self._shared) < _SHARED_SOCKETS:
            self._shared.append(PacketSocket())
            self._holder.keep(self._shared[-1].fileno())
        return min(self._shared, key=lambda way: way.ports)

    def _drop(self, ifindex: int, way: PacketSocket) -> None:
        if way.bound and not way.ports:
            del self._own[ifindex]
            self._holder.release(way.fileno())
            way.close()
