# SPDX-License-Identifier: GPL-2.0-or-later
"""Packet sockets that hear Multicast Router Solicitations on ports (RFC 4286 §4), with the VLAN tags that they have.

A raw ICMPv6 socket would hear only what the kernel takes in: nothing of a VLAN without a device, nor what netfilter
drops.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Set
from contextlib import suppress

from npd6_xdp.core.errors import MachineError, remedy
from npd6_xdp.core.mrd import SOLICITATIONS
from npd6_xdp.core.mrd_left import LeftRouter
from npd6_xdp.core.route_filter import pack
from npd6_xdp.system.packets import (
    PortSockets,
    Received,
    attach_filter,
    bind,
    frames,
    is_of_a_gone_interface,
    prepare,
    to_send,
)

_LARGEST = 256  # bytes of a frame: a solicitation has 66, and its tags
_BUFFER = 1 << 14  # bytes: some 20 frames, and what comes beyond is dropped before it is copied
_MOST_READ = 32  # frames


def end_announced(routers: Iterable[LeftRouter]) -> int:
    """End what a process that is gone has announced: on how many interfaces and VLANs. Where the interface is down, or
    gone, nobody hears it anyway.
    """
    count = 0
    for each in routers:
        with suppress(OSError), to_send(each.ifindex) as made:
            count += made.send(each.end) > 0
    return count


class Solicitations:
    """The sockets. `fileno` becomes readable when something was heard, and then no more until listen() is called: what
    a storm of them costs is bounded by how often that is.
    """

    def __init__(self) -> None:
        self._sockets = PortSockets()
        self._resting: list[socket.socket] = []

    def close(self) -> None:
        """Close all of them."""
        self._sockets.close()

    def fileno(self) -> int:
        """Readable: call heard()."""
        return self._sockets.fileno()

    def follow(self, ports: Set[int]) -> None:
        """Listen on these interfaces. Raises MachineError where the kernel refuses some; the others are heard then."""
        refused = None
        for ifindex in self._sockets.keep(ports):
            try:
                self._sockets.add(ifindex, _open(ifindex))
            except OSError as error:
                if not is_of_a_gone_interface(error):  # of those, follow() comes again
                    refused = error
        if refused is not None:
            raise MachineError(f"can't listen for Multicast Router Solicitations: {remedy(refused)}") from refused

    def heard(self) -> list[tuple[int, bytes]]:
        """What came of late: the interface's index, and the frame with its tags, cut where it is longer than a
        solicitation is. Where something came, nobody listens until listen() is called.

        Raises OSError where a socket is broken.
        """
        found = []
        for each in self._sockets.ready():
            self._sockets.wake(each, wanted=False)
            self._resting.append(each)
            found += [(frame.ifindex, _tagged(frame)) for frame in frames(each, _MOST_READ, _LARGEST)]
        return found

    def listen(self) -> None:
        """Listen everywhere again; what has come since and still waits is heard."""
        for each in self._resting:
            if each.fileno() >= 0:  # else it was closed meanwhile
                self._sockets.wake(each, wanted=True)
        self._resting.clear()


def _open(ifindex: int) -> socket.socket:
    # one of no protocol hears nothing until it is bound, so nothing comes before it has its filter
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        attach_filter(made, pack(SOLICITATIONS))
        prepare(made, _BUFFER)
        bind(made, ifindex)
    except BaseException:
        made.close()
        raise
    return made


def _tagged(frame: Received) -> bytes:
    """A frame with the tag that the kernel holds beside it."""
    if frame.tag is None:
        return frame.data
    return frame.data[:12] + struct.pack("!HH", *frame.tag) + frame.data[12:]
