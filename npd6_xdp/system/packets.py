# SPDX-License-Identifier: GPL-2.0-or-later
"""What our packet sockets (AF_PACKET) share: the structs to send or receive many frames, a frame with the VLAN tag that
the kernel holds beside it, and sockets that hear ports; and the filter of any socket.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import select
import socket
import struct
from collections.abc import Iterator, Set
from typing import NamedTuple

ALL = 0
"""Instead of an interface's index: all interfaces."""

_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_INSTRUCTION = 8  # bytes of a struct sock_filter
_SOL_PACKET = 263
_PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 8, 23
_SOCKADDR = struct.Struct("@HHiHBB8s")  # struct sockaddr_ll
_CONTROL = struct.Struct("@nii")  # struct cmsghdr
_AUXDATA = struct.Struct("@IIIHHHH")  # struct tpacket_auxdata
_SPACE = 64  # bytes for control messages
_VLAN_VALID, _TPID_VALID = 0x10, 0x40  # TP_STATUS_VLAN_*
_DOT1Q = 0x8100
_INTERFACE_GONE = (errno.ENETDOWN, errno.ENODEV)  # said once
_MOST_SOCKETS = 8
"""Ports with a socket each. Closing one takes the kernel some 13 ms, so further ones share one that hears all
interfaces, whose filter then runs for each packet that comes to this machine (0.04 us)."""

_libc = ct.CDLL(None, use_errno=True)


class IoVec(ct.Structure):
    """struct iovec."""

    _fields_ = (("iov_base", ct.c_void_p), ("iov_len", ct.c_size_t))


class MsgHdr(ct.Structure):
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


class Received(NamedTuple):
    """A frame that came by an interface: its first bytes, its length in all, and the tag beside it: TPID and TCI."""

    ifindex: int
    data: bytes
    length: int
    tag: tuple[int, int] | None


class PortSockets:
    """The sockets. `fileno` becomes readable when one has something to tell."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}

    def close(self) -> None:
        """Close all of them."""
        for each in self:
            each.close()
        self._sockets.clear()
        self._epoll.close()

    def fileno(self) -> int:
        """Readable: some are ready."""
        return self._epoll.fileno()

    def __iter__(self) -> Iterator[socket.socket]:
        return iter(self._sockets.values())

    def keep(self, ports: Set[int]) -> Set[int]:
        """Close those of other interfaces. The interfaces that one is lacking for now, ALL for the rest of them."""
        kept = self._sockets.keys() & ports
        wanted = kept | set(sorted(ports - kept)[: _MOST_SOCKETS - len(kept)])
        if len(wanted) < len(ports):
            wanted.add(ALL)
        for ifindex, each in tuple(self._sockets.items()):
            if ifindex not in wanted or _interface(each) != ifindex:  # its interface was deleted
                self._sockets.pop(ifindex).close()
        return wanted - self._sockets.keys()

    def add(self, ifindex: int, made: socket.socket) -> None:
        """One more, which is closed with the others. Raises OSError, and it is closed."""
        try:
            self._epoll.register(made.fileno(), select.EPOLLIN)
        except BaseException:
            made.close()
            raise
        self._sockets[ifindex] = made

    def heard(self, ports: Set[int]) -> Set[int]:
        """Those of these interfaces that are listened on."""
        return ports if ALL in self._sockets else self._sockets.keys() & ports

    def ready(self) -> list[socket.socket]:
        """Those that have something to tell."""
        ready = {fd for fd, _ in self._epoll.poll(0)}
        return [each for each in self if each.fileno() in ready]

    def wake(self, each: socket.socket, *, wanted: bool) -> None:
        """Whether one makes `fileno` readable."""
        self._epoll.modify(each.fileno(), select.EPOLLIN if wanted else 0)


def attach_filter(to: socket.socket, code: bytes) -> None:
    """Let a classic BPF program (its struct sock_filters) choose among what comes in from now on."""
    buffer = ct.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // _INSTRUCTION, ct.addressof(buffer))  # struct sock_fprog
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def prepare(made: socket.socket, buffer: int) -> None:
    """Have a socket tell of tags beside frames, and hear none that this machine sends, which would each be cloned for
    it; what comes beyond `buffer` bytes is dropped.
    """
    made.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    made.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)


def bind(made: socket.socket, ifindex: int) -> None:
    """Hear an interface, or ALL: one of no protocol hears nothing before. Raises OSError."""
    address = _SOCKADDR.pack(socket.AF_PACKET, socket.htons(_ETH_P_ALL), ifindex, 0, 0, 0, b"")
    _call(_libc.bind(made.fileno(), address, len(address)))


def to_send(ifindex: int) -> socket.socket:
    """A socket that hears nothing, and sends frames out of an interface. Raises OSError."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    address = _SOCKADDR.pack(socket.AF_PACKET, 0, ifindex, 0, 0, 0, b"")
    try:
        _call(_libc.bind(made.fileno(), address, len(address)))
    except BaseException:
        made.close()
        raise
    return made


def frames(each: socket.socket, most: int, size: int = 0) -> Iterator[Received]:
    """What waits there, so many at most, and of each so many bytes. Raises OSError where the socket is broken."""
    for _ in range(most):
        try:
            yield receive(each, size)
        except BlockingIOError:
            return
        except OSError as error:
            if not is_of_a_gone_interface(error):
                raise


def receive(each: socket.socket, size: int = 0) -> Received:
    """The next frame, of which so many bytes are read. Raises OSError if there is none."""
    address, control = ct.create_string_buffer(_SOCKADDR.size), ct.create_string_buffer(_SPACE)
    data = ct.create_string_buffer(size)
    part = IoVec(ct.addressof(data), size)
    # Python's own call makes a name of the interface's index, which needn't be text
    header = MsgHdr(
        msg_name=ct.addressof(address),
        msg_namelen=len(address),
        msg_iov=ct.addressof(part),
        msg_iovlen=1,
        msg_control=ct.addressof(control),
        msg_controllen=len(control),
    )
    read = _call(_libc.recvmsg(each.fileno(), ct.byref(header), socket.MSG_DONTWAIT))
    ifindex, length, tag = int(_SOCKADDR.unpack(address.raw)[2]), 0, None
    if header.msg_controllen >= _CONTROL.size + _AUXDATA.size:
        _, level, kind = _CONTROL.unpack_from(control)
        status, _, length, _, _, tci, tpid = _AUXDATA.unpack_from(control, _CONTROL.size)
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and status & _VLAN_VALID:
            tag = tpid if status & _TPID_VALID else _DOT1Q, tci
    return Received(ifindex, data.raw[:read], length, tag)


def is_of_a_gone_interface(error: OSError) -> bool:
    """Whether a refusal says only that the interface is down, or isn't there any more."""
    return error.errno in _INTERFACE_GONE


def _interface(each: socket.socket) -> int:
    """The index of the interface that a socket is bound to: ALL for none, -1 for one that is gone."""
    address, size = ct.create_string_buffer(_SOCKADDR.size), ct.c_uint32(_SOCKADDR.size)
    _call(_libc.getsockname(each.fileno(), address, ct.byref(size)))
    return int(_SOCKADDR.unpack(address.raw)[2])


def _call(result: int) -> int:
    if result < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    return result
