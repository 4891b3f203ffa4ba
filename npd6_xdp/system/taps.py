# SPDX-License-Identifier: GPL-2.0-or-later
"""Packet sockets that tell of VLAN tags which XDP doesn't see: those that the kernel holds beside the frame.

Their filter is the function hidden_tag() of bpf/ns_filter.c, which says what it takes and why.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator, Set
from contextlib import suppress

from npd6_xdp.core.errors import MachineError

_ETH_P_ALL = 3
_SO_ATTACH_BPF = 50
_SOL_PACKET = 263
_PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 8, 23
_AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
_VLAN_VALID = 0x10  # TP_STATUS_VLAN_VALID
_VID = 0x0FFF
_ROOM = 1 << 16  # bytes: what waits there is a few frames a second
_MOST_SOCKETS = 8
"""Ports with a socket each. Closing one takes the kernel some 13 ms, so further ones share one that hears all
interfaces, whose filter then runs for each packet that comes to this machine (0.04 us)."""
_ALL = 0
_MOST_READ = 64


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
        """Readable: call hidden()."""
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
            if ifindex not in wanted or (ifindex and not tap.getsockname()[0]):  # nameless: its interface was deleted
                self._sockets.pop(ifindex).close()
        if program != self._program:
            for tap in self._sockets.values():
                _attach(tap, program)
            self._program = program
        for ifindex in wanted - self._sockets.keys():
            with suppress(OSError):  # the interface has just gone, or there are too many open files
                self._sockets[ifindex] = self._open(ifindex)
        return ports if _ALL in self._sockets else self._sockets.keys() & ports

    def hidden(self) -> Iterator[tuple[str, int]]:
        """The interfaces that solicitations with hidden tags came in by since the last call, and the VLAN ids."""
        ready = {fd for fd, _ in self._epoll.poll(0)}
        for tap in [tap for tap in self._sockets.values() if tap.fileno() in ready]:
            for _ in range(_MOST_READ):
                try:
                    _, ancillary, _, sender = tap.recvmsg(0, socket.CMSG_SPACE(_AUXDATA.size))
                except OSError:  # nothing more, or the interface went down
                    break
                for level, kind, data in ancillary:
                    if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and len(data) >= _AUXDATA.size:
                        status, _, _, _, _, tci, _ = _AUXDATA.unpack_from(data)
                        if status & _VLAN_VALID:
                            yield sender[0], tci & _VID

    def _open(self, ifindex: int) -> socket.socket:
        try:
            # one of no protocol hears nothing until it is bound
            protocol = 0 if ifindex else socket.htons(_ETH_P_ALL)
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        except PermissionError as error:
            raise MachineError("not permitted to open a packet socket: run as root, or give CAP_NET_RAW") from error
        try:
            _attach(tap, self._program)
            tap.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            tap.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)  # else each would be cloned for us
            tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
            if ifindex:
                tap.bind((socket.if_indextoname(ifindex), _ETH_P_ALL))
            else:
                _drain(tap)  # what came before it had its filter
            self._epoll.register(tap.fileno(), select.EPOLLIN)
        except BaseException:
            tap.close()
            raise
        return tap


def _drain(tap: socket.socket) -> None:
    with suppress(OSError):
        while True:
            tap.recv(1)


def _attach(tap: socket.socket, program: int) -> None:
    try:
        tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)
    except OSError as error:
        raise MachineError(f"the kernel takes no filter for VLAN tags beside the frame: {error.strerror}") from error
