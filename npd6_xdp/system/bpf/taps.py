# SPDX-License-Identifier: GPL-2.0-or-later
"""Packet sockets that tell of VLAN tags which XDP doesn't see: those that the kernel holds beside the frame.

Their filter is the function hidden_tag() of bpf/ns_filter.c, which says what it takes and why.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import select
import socket
import struct
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.layout import FIRST_TAG
from npd6_xdp.system.msghdr import MsgHdr

_ETH_P_ALL = 3
_SO_ATTACH_BPF = 50
_SOL_PACKET = 263
_PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 8, 23
_SOCKADDR = struct.Struct("@HHiHBB8s")  # struct sockaddr_ll
_CONTROL = struct.Struct("@nii")  # struct cmsghdr
_AUXDATA = struct.Struct("@IIIHHHH")  # struct tpacket_auxdata
_SPACE = 64  # bytes for control messages
_VLAN_VALID = 0x10  # TP_STATUS_VLAN_VALID
_VID = 0x0FFF
_RECEIVE_BUFFER = 1 << 16  # bytes: what waits there is a few frames a second
_MOST_SOCKETS = 8
"""Ports with a socket each. Closing one takes the kernel some 13 ms, so further ones share one that hears all
interfaces, whose filter then runs for each packet that comes to this machine (0.04 us)."""
_ALL = 0
_MOST_READ = 64
_INTERFACE_GONE = (errno.ENETDOWN, errno.ENODEV)  # said once


_libc = ct.CDLL(None, use_errno=True)


class Taps:
    """The sockets. `fileno` becomes readable when one has something to tell."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._program = -1

    def close(self) -> None:
        """Close all of them."""
        for tap in self._sockets.values():
            tap.close()
        self._sockets.clear()
        self._epoll.close()

    def fileno(self) -> int:
        """Readable: call take_tags()."""
        return self._epoll.fileno()

    def follow(self, ports: Set[int], program: int) -> Set[int]:
        """Listen on these interfaces, by the filter with this file descriptor; its maps are the XDP program's.

        Those that are listened on now. Raises MachineError where the kernel refuses the filter, or any packet socket.
        """
        kept = self._sockets.keys() & ports
        wanted = kept | set(sorted(ports - kept)[: _MOST_SOCKETS - len(kept)])
        if len(wanted) < len(ports):
            wanted.add(_ALL)
        for ifindex, tap in tuple(self._sockets.items()):
            if ifindex not in wanted or _interface(tap) != ifindex:  # its interface was deleted
                self._sockets.pop(ifindex).close()
        self.go_by(program)
        for ifindex in wanted - self._sockets.keys():
            with suppress(OSError):  # the interface has just gone, or there are too many open files
                self._sockets[ifindex] = tap = _open(ifindex, program)
                self._epoll.register(tap.fileno(), select.EPOLLIN)
        return ports if _ALL in self._sockets else self._sockets.keys() & ports

    def go_by(self, program: int) -> None:
        """Another filter for all of them, as in follow()."""
        if program != self._program:
            for tap in self._sockets.values():
                _attach(tap, program)
            self._program = program

    @contextmanager
    def beside(self, program: int) -> Iterator[None]:
        """Use this filter, too, until go_by(), while the XDP program that it belongs to takes over: only this filter
        finds the frames that this program holds.
        """
        tap = None
        with suppress(OSError, MachineError):  # it goes without
            tap = _open(_ALL, program)
        try:
            yield
        finally:
            if tap is not None:
                tap.close()

    def take_tags(self) -> Iterator[tuple[int, int, bool]]:
        """What came of late: the interface's index, the VLAN id, and whether it is a solicitation's and hidden.

        Raises OSError where a socket is broken.
        """
        ready = {fd for fd, _ in self._epoll.poll(0)}
        for tap in [tap for tap in self._sockets.values() if tap.fileno() in ready]:
            for _ in range(_MOST_READ):
                try:
                    yield _receive(tap)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno not in _INTERFACE_GONE:
                        raise
                    break


def _open(ifindex: int, program: int) -> socket.socket:
    try:
        # one of no protocol hears nothing until it is bound
        protocol = 0 if ifindex else socket.htons(_ETH_P_ALL)
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    except PermissionError as error:
        raise MachineError("not permitted to open a packet socket: run as root, or give CAP_NET_RAW") from error
    try:
        _attach(tap, program)
        tap.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        tap.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)  # else each would be cloned for us
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        if ifindex:
            _bind(tap, ifindex)
        else:
            _drain(tap)  # what came before it had its filter
    except BaseException:
        tap.close()
        raise
    return tap


def _receive(tap: socket.socket) -> tuple[int, int, bool]:
    """The interface's index and the VLAN id of the next frame, 0 where it has none, and whether that was hidden.

    Raises OSError if there is none.
    """
    address, control = ct.create_string_buffer(_SOCKADDR.size), ct.create_string_buffer(_SPACE)
    # Python's own call makes a name of the interface's index, which needn't be text
    header = MsgHdr(
        msg_name=ct.addressof(address),
        msg_namelen=len(address),
        msg_control=ct.addressof(control),
        msg_controllen=len(control),
    )
    _call(_libc.recvmsg(tap.fileno(), ct.byref(header), socket.MSG_DONTWAIT))
    ifindex = int(_SOCKADDR.unpack(address.raw)[2])
    if header.msg_controllen < _CONTROL.size + _AUXDATA.size:
        return ifindex, 0, False
    _, level, kind = _CONTROL.unpack_from(control)
    status, _, length, _, _, tci, _ = _AUXDATA.unpack_from(control, _CONTROL.size)
    has_tag = (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and status & _VLAN_VALID
    return ifindex, tci & _VID if has_tag else 0, length > FIRST_TAG


def _interface(tap: socket.socket) -> int:
    """The index of the interface that a tap is bound to: _ALL for none, -1 for one that is gone."""
    address, size = ct.create_string_buffer(_SOCKADDR.size), ct.c_uint32(_SOCKADDR.size)
    _call(_libc.getsockname(tap.fileno(), address, ct.byref(size)))
    return int(_SOCKADDR.unpack(address.raw)[2])


def _bind(tap: socket.socket, ifindex: int) -> None:
    address = _SOCKADDR.pack(socket.AF_PACKET, socket.htons(_ETH_P_ALL), ifindex, 0, 0, 0, b"")
    _call(_libc.bind(tap.fileno(), address, len(address)))


def _call(result: int) -> None:
    if result < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))


def _drain(tap: socket.socket) -> None:
    with suppress(OSError):
        while True:
            _receive(tap)


def _attach(tap: socket.socket, program: int) -> None:
    try:
        tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)
    except OSError as error:
        raise MachineError(f"the kernel takes no filter for VLAN tags beside the frame: {error.strerror}") from error
