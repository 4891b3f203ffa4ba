# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink sockets: opened with room for a storm, read until nothing waits, emptied. Whoever speaks stands on it."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import time
from collections.abc import Iterator

from npd6_xdp.core.errors import MachineError, remedy

DATAGRAM = 1 << 18
"""Bytes: more than the kernel puts into one."""
TIMEOUT = 5.0
"""Seconds for the kernel to answer who waits for it, which it does at once."""
RECEIVE_BUFFER = 8 << 20
"""Bytes of announcements that may wait."""

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP, _NETLINK_DROP_MEMBERSHIP = 1, 2
_NETLINK_GET_STRICT_CHK = 12
_SO_RCVBUFFORCE = 33
_SO_ATTACH_FILTER = 26
_INSTRUCTION = 8  # bytes of a struct sock_filter


def opened(groups: int = 0, *, blocking: bool = False, buffer: int = 0) -> socket.socket:
    """A socket that hears the groups of a mask (RTMGRP_*). A blocking one waits TIMEOUT at most. `buffer` 0: as above.

    Dumps are of what is asked for only (NETLINK_GET_STRICT_CHK). Raises MachineError where the kernel gives none:
    there are no more file descriptors, say.
    """
    try:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            made.settimeout(TIMEOUT if blocking else 0.0)
            try:
                made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer or RECEIVE_BUFFER)
            except PermissionError:  # takes CAP_NET_ADMIN in the first namespace; as much as anybody may have, then
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer or RECEIVE_BUFFER)
            made.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
            made.bind((0, groups))
        except BaseException:
            made.close()
            raise
    except OSError as error:
        raise MachineError(f"can't open a netlink socket: {remedy(error)}") from error
    return made


def join(netlink: socket.socket, group: int, *, wanted: bool) -> None:
    """Hear a group (RTNLGRP_*), or no longer."""
    netlink.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP if wanted else _NETLINK_DROP_MEMBERSHIP, group)


def attach_filter(netlink: socket.socket, code: bytes) -> None:
    """Let a classic BPF program (its struct sock_filters) choose among what comes in from now on."""
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // _INSTRUCTION, ctypes.addressof(buffer))  # struct sock_fprog
    netlink.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def received(netlink: socket.socket, deadline: float = float("inf")) -> Iterator[bytes]:
    """The datagrams that wait, and no further once it is `deadline` (seconds, monotonic): the rest waits.

    Raises OSError with ENOBUFS where the kernel had to drop some: see unless_full().
    """
    while True:
        try:
            datagram = netlink.recv(DATAGRAM)
        except BlockingIOError:
            return
        yield datagram
        if time.monotonic() >= deadline:
            return


def unless_full(error: OSError, what: str = "changes") -> None:
    """ENOBUFS says that announcements were dropped, and is to be made up for. Raises MachineError for all else."""
    if error.errno != errno.ENOBUFS:
        raise MachineError(f"can't read {what} from the kernel: {error.strerror or error}") from error


def discard(netlink: socket.socket) -> None:
    """Drop what waits: what is read anew now is younger, and must not be overwritten by it. Raises MachineError."""
    while True:
        try:
            netlink.recv(DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            unless_full(error)
