# SPDX-License-Identifier: GPL-2.0-or-later
"""Packet sockets that tell of VLAN tags which XDP doesn't see: those that the kernel holds beside the frame.

Their filter is the function hidden_tag() of bpf/ns_filter.c, which says what it takes and why.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.layout import FIRST_TAG
from npd6_xdp.system.packets import ALL, PortSockets, bind, frames, prepare, receive

_ETH_P_ALL = 3
_SO_ATTACH_BPF = 50
_VID = 0x0FFF
_RECEIVE_BUFFER = 1 << 16  # bytes: what waits there is a few frames per second
_MOST_READ = 64


class Taps:
    """The sockets. `fileno` becomes readable when one has something to tell."""

    def __init__(self) -> None:
        self._sockets = PortSockets()
        self._program = -1

    def close(self) -> None:
        """Close all of them."""
        self._sockets.close()

    def fileno(self) -> int:
        """Readable: call take_tags()."""
        return self._sockets.fileno()

    def follow(self, ports: Set[int], program: int) -> Set[int]:
        """Listen on these interfaces, by the filter with this file descriptor; its maps are the XDP program's.

        Those that are listened on now. Raises MachineError where the kernel refuses the filter, or any packet socket.
        """
        lacking = self._sockets.keep(ports)
        self.go_by(program)
        for ifindex in lacking:
            with suppress(OSError):  # the interface has just gone, or there are too many open files
                self._sockets.add(ifindex, _open(ifindex, program))
        return self._sockets.heard(ports)

    def go_by(self, program: int) -> None:
        """Another filter for all of them, as in follow()."""
        if program != self._program:
            for tap in self._sockets:
                _attach(tap, program)
            self._program = program

    @contextmanager
    def beside(self, program: int) -> Iterator[None]:
        """Use this filter, too, until go_by(), while the XDP program that it belongs to takes over: only this filter
        finds the frames that this program holds.
        """
        tap = None
        with suppress(OSError, MachineError):  # it goes without
            tap = _open(ALL, program)
        try:
            yield
        finally:
            if tap is not None:
                tap.close()

    def take_tags(self) -> Iterator[tuple[int, int, bool]]:
        """What came of late: the interface's index, the VLAN id (0 where it has none), and whether it is a
        solicitation's and hidden.

        Raises OSError where a socket is broken.
        """
        for tap in self._sockets.ready():
            for frame in frames(tap, _MOST_READ):
                _, tci = frame.tag or (0, 0)
                yield frame.ifindex, tci & _VID, frame.length > FIRST_TAG


def _open(ifindex: int, program: int) -> socket.socket:
    try:
        # one of no protocol hears nothing until it is bound
        protocol = 0 if ifindex else socket.htons(_ETH_P_ALL)
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    except PermissionError as error:
        raise MachineError("not permitted to open a packet socket: run as root, or give CAP_NET_RAW") from error
    try:
        _attach(tap, program)
        prepare(tap, _RECEIVE_BUFFER)
        if ifindex:
            bind(tap, ifindex)
        else:
            _drain(tap)  # what came before it had its filter
    except BaseException:
        tap.close()
        raise
    return tap


def _drain(tap: socket.socket) -> None:
    with suppress(OSError):
        while True:
            receive(tap)


def _attach(tap: socket.socket, program: int) -> None:
    try:
        tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)
    except OSError as error:
        raise MachineError(f"the kernel takes no filter for VLAN tags beside the frame: {error.strerror}") from error
