# SPDX-License-Identifier: GPL-2.0-or-later
"""Packet sockets that hear Multicast Router Solicitations on ports (RFC 4286 §4), with the VLAN tags that they have.

A raw ICMPv6 socket would hear only what the kernel takes in: nothing of a VLAN without a device, nor what netfilter
drops.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import select
import socket
import struct
from collections.abc import Set

from npd6_xdp.core.errors import MachineError, remedy
from npd6_xdp.core.mrd import SOLICITATIONS
from npd6_xdp.core.route_filter import pack
from npd6_xdp.system.msghdr import IoVec, MsgHdr

_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_SOL_PACKET = 263
_PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 8, 23
_SOCKADDR = struct.Struct("@HHiHBB8s")  # struct sockaddr_ll
_CONTROL = struct.Struct("@nii")  # struct cmsghdr
_AUXDATA = struct.Struct("@IIIHHHH")  # struct tpacket_auxdata
_SPACE = 64  # bytes for control messages
_VLAN_VALID, _TPID_VALID = 0x10, 0x40  # TP_STATUS_VLAN_*
_DOT1Q = 0x8100
_LARGEST = 256  # bytes of a frame: a solicitation has 66, and its tags
_BUFFER = 1 << 14  # bytes: some 20 frames, and what comes beyond is dropped before it is copied
_MOST_READ = 32  # frames
_MOST_SOCKETS = 8
"""Ports with a socket each. Closing one takes the kernel some 13 ms, so further ones share one that hears all
interfaces, whose filter then runs for each packet that comes to this machine."""
_ALL = 0
_INTERFACE_GONE = (errno.ENETDOWN, errno.ENODEV)  # said once

_libc = ct.CDLL(None, use_errno=True)


class Solicitations:
    """The sockets. `fileno` becomes readable when something was heard, and then no more until listen() is called: what
    a storm of them costs is bounded by how often that is.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._resting: set[int] = set()

    def close(self) -> None:
        """Close all of them."""
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()
        self._epoll.close()

    def fileno(self) -> int:
        """Readable: call heard()."""
        return self._epoll.fileno()

    def follow(self, ports: Set[int]) -> None:
        """Listen on these interfaces. Raises MachineError where the kernel refuses some; the others are heard then."""
        kept = self._sockets.keys() & ports
        wanted = kept | set(sorted(ports - kept)[: _MOST_SOCKETS - len(kept)])
        if len(wanted) < len(ports):
            wanted.add(_ALL)
        for ifindex, each in tuple(self._sockets.items()):
            if ifindex not in wanted or _interface(each) != ifindex:  # its interface was deleted
                self._resting.discard(ifindex)
                self._sockets.pop(ifindex).close()
        refused = None
        for ifindex in wanted - self._sockets.keys():
            try:
                self._hear(ifindex)
            except OSError as error:
                if error.errno not in _INTERFACE_GONE:  # of those, follow() comes again
                    refused = error
        if refused is not None:
            raise MachineError(f"can't listen for Multicast Router Solicitations: {remedy(refused)}") from refused

    def _hear(self, ifindex: int) -> None:
        each = _open(ifindex)
        try:
            self._epoll.register(each.fileno(), select.EPOLLIN)
        except BaseException:
            each.close()
            raise
        self._sockets[ifindex] = each

    def heard(self) -> list[tuple[int, bytes]]:
        """What came of late: the interface's index, and the frame with its tags, cut where it is longer than a
        solicitation is. Where something came, nobody listens until listen() is called.

        Raises OSError where a socket is broken.
        """
        ready = {fd for fd, _ in self._epoll.poll(0)}
        found = []
        for ifindex, each in self._sockets.items():
            if each.fileno() not in ready:
                continue
            self._epoll.modify(each.fileno(), 0)
            self._resting.add(ifindex)
            for _ in range(_MOST_READ):
                try:
                    found.append(_receive(each))
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno not in _INTERFACE_GONE:
                        raise
        return found

    def listen(self) -> None:
        """Listen everywhere again; what has come since and still waits is heard."""
        for ifindex in self._resting & self._sockets.keys():
            self._epoll.modify(self._sockets[ifindex].fileno(), select.EPOLLIN)
        self._resting.clear()


def _open(ifindex: int) -> socket.socket:
    # one of no protocol hears nothing until it is bound, so nothing comes before it has its filter
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        code = pack(SOLICITATIONS)
        buffer = ct.create_string_buffer(code, len(code))
        program = struct.pack("@HP", len(SOLICITATIONS), ct.addressof(buffer))  # struct sock_fprog
        made.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        made.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        made.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        address = _SOCKADDR.pack(socket.AF_PACKET, socket.htons(_ETH_P_ALL), ifindex, 0, 0, 0, b"")
        _call(_libc.bind(made.fileno(), address, len(address)))
    except BaseException:
        made.close()
        raise
    return made


def _receive(each: socket.socket) -> tuple[int, bytes]:
    """The interface's index and the next frame. Raises OSError if there is none."""
    address, control = ct.create_string_buffer(_SOCKADDR.size), ct.create_string_buffer(_SPACE)
    data = ct.create_string_buffer(_LARGEST)
    part = IoVec(ct.addressof(data), _LARGEST)
    # Python's own call makes a name of the interface's index, which needn't be text
    header = MsgHdr(
        msg_name=ct.addressof(address),
        msg_namelen=len(address),
        msg_iov=ct.addressof(part),
        msg_iovlen=1,
        msg_control=ct.addressof(control),
        msg_controllen=len(control),
    )
    size = _call(_libc.recvmsg(each.fileno(), ct.byref(header), socket.MSG_DONTWAIT))
    ifindex, frame = int(_SOCKADDR.unpack(address.raw)[2]), data.raw[:size]
    if header.msg_controllen >= _CONTROL.size + _AUXDATA.size:
        _, level, kind = _CONTROL.unpack_from(control)
        status, _, _, _, _, tci, tpid = _AUXDATA.unpack_from(control, _CONTROL.size)
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and status & _VLAN_VALID:
            tag = struct.pack("!HH", tpid if status & _TPID_VALID else _DOT1Q, tci)
            frame = frame[:12] + tag + frame[12:]  # the kernel holds it beside the frame
    return ifindex, frame


def _interface(each: socket.socket) -> int:
    """The index of the interface that a socket is bound to: _ALL for none, -1 for one that is gone."""
    address, size = ct.create_string_buffer(_SOCKADDR.size), ct.c_uint32(_SOCKADDR.size)
    _call(_libc.getsockname(each.fileno(), address, ct.byref(size)))
    return int(_SOCKADDR.unpack(address.raw)[2])


def _call(result: int) -> int:
    if result < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    return result
