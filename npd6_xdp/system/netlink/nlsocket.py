# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink sockets: opened with room for a storm, asked, heard, emptied. Whoever speaks rtnetlink stands on it."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple, NoReturn

from npd6_xdp.core import rtnetlink
from npd6_xdp.core.errors import BrokenSource, MachineError, remedy
from npd6_xdp.core.rtnetlink import Flag, Message, Type

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
_AHEAD = 16  # pieces that are read before they are wanted


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
    """ENOBUFS says that announcements were dropped, and is to be made up for. Raises BrokenSource for all else."""
    if error.errno != errno.ENOBUFS:
        raise BrokenSource(f"can't read {what} from the kernel: {error.strerror or error}") from error


class Overflow(Exception):
    """Announcements were lost: what they would have said is to be read anew."""


class Announcements:
    """A socket on which the kernel tells of changes of some groups (RTMGRP_*)."""

    def __init__(self, groups: int = 0, what: str = "changes") -> None:
        self.socket = opened(groups)
        self.lost = False
        """Whether some were lost, and what waits has to be dropped before the machine is read anew."""
        self._what = what

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def fileno(self) -> int:
        """The socket."""
        return self.socket.fileno()

    def messages(self, deadline: float = float("inf")) -> Iterator[Message]:
        """What was announced, in order, until the deadline (seconds, monotonic); what is left waits.

        Raises Overflow where some were lost and nothing older than that waits any more; BrokenSource where it tells
        nothing but errors.
        """
        try:
            if not self.lost:
                for datagram in received(self.socket, deadline):
                    yield from rtnetlink.messages(datagram)
                return
        except OSError as error:
            unless_full(error, self._what)
            self.lost = True
        # 8 MB of them: to drop them takes 20 ms
        while time.monotonic() < deadline:
            try:
                self.socket.recv(DATAGRAM)
            except BlockingIOError:
                self.lost = False
                raise Overflow from None
            except OSError as error:
                unless_full(error, self._what)


class Switched(Announcements):
    """A group of announcements, heard while listen() says so."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self._listening = False

    def listen(self, *, wanted: bool) -> bool:
        """Hear of changes from now on, or no longer; whether that is news. Each listener costs the kernel something."""
        if wanted == self._listening:
            return False
        self._listening, self.lost = wanted, False
        join(self.socket, self._number, wanted=wanted)
        if not wanted:
            discard(self.socket)
        return True


class Refused(OSError):
    """The kernel has answered that it doesn't do what it was asked for: `errno` says why."""


class Answer(NamedTuple):
    """What the kernel has told. A dump may lack a line unless it is `whole`: something changed meanwhile."""

    messages: list[Message]
    whole: bool


def ask(asking: socket.socket, request: bytes, sequence: int) -> Answer:
    """Ask, and wait for all of the answer: the lines of a dump, one message, or none where it is done as asked.

    Raises Refused, or another OSError if there is no answer.
    """
    asking.send(request)
    found: list[Message] = []
    whole = True
    while True:
        for message in rtnetlink.messages(asking.recv(DATAGRAM)):
            if message.sequence != sequence:
                continue  # of a question that was given up
            whole = whole and not message.flags & Flag.DUMP_INTERRUPTED
            if is_last(message):
                return Answer(found, whole)
            found.append(message)
            if not message.flags & Flag.MULTI:
                return Answer(found, whole)


def is_last(message: Message) -> bool:
    """Whether an answer ends here, with what is no part of it. Raises Refused where the kernel says why it is none."""
    if message.type not in (Type.DONE, Type.ERROR):
        return False
    if code := rtnetlink.error_code(message.body):
        raise Refused(code, os.strerror(code))
    return True


class Dump:
    """A socket for long answers, read by a thread of its own, since the kernel makes each piece as it is taken.

    While the routing table changes, it begins at its beginning for each of them and passes over what it has told: with
    100,000 routes that takes 10 to 30 ms a piece, for which nobody else would have his turn.
    """

    def __init__(self) -> None:
        self._socket = opened()
        self._told = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ending = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._pieces: deque[bytes] = deque()
        self._room = threading.Semaphore(_AHEAD)
        self._thread: threading.Thread | None = None
        self._broken: OSError | None = None

    def close(self) -> None:
        """End the thread, and close all."""
        if self._thread is not None:
            os.eventfd_write(self._ending, 1)
            self._room.release()
            self._thread.join()
            self._thread = None
        for fd in (self._told, self._ending):
            if fd >= 0:
                os.close(fd)
        self._told = self._ending = -1
        self._socket.close()

    def fileno(self) -> int:
        """Readable: recv() has a piece."""
        return self._told

    def send(self, request: bytes) -> None:
        """Ask. Raises OSError."""
        if self._thread is None:
            thread = threading.Thread(target=self._read, name="dump", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # a limit of processes
                raise OSError(errno.EAGAIN, str(error)) from error
            self._thread = thread
        self._socket.send(request)

    def recv(self) -> bytes:
        """The next piece. Raises BlockingIOError where there is none yet, and what OSError the socket has."""
        if not self._pieces:
            if self._broken is not None:
                self._say_broken(self._broken)
            os.eventfd_read(self._told)
            if self._pieces:  # some came meanwhile, and their bells may be among those that were just taken
                os.eventfd_write(self._told, 1)
        try:
            piece = self._pieces.popleft()
        except IndexError:
            raise BlockingIOError from None
        self._room.release()
        return piece

    def _say_broken(self, error: OSError) -> NoReturn:
        """The thread has ended by an error. The kernel may lack the memory for a piece, and have some when it is asked
        again; any other error stays, so that who listens opens another socket."""
        if error.errno == errno.ENOBUFS and self._thread is not None:
            self._thread.join()
            self._thread = self._broken = None
            with suppress(BlockingIOError):
                os.eventfd_read(self._told)
        raise error

    def _read(self) -> None:
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        waiting.register(self._ending, select.POLLIN)
        while self._ending not in (fd for fd, _ in waiting.poll()):
            try:
                piece = self._socket.recv(DATAGRAM)
            except BlockingIOError:
                continue
            except OSError as error:
                self._broken = error
                os.eventfd_write(self._told, 1)
                return
            self._room.acquire()
            self._pieces.append(piece)
            os.eventfd_write(self._told, 1)


class SlicedDump:
    """Reads what the kernel tells at length in pieces, which it makes as they are taken."""

    def __init__(self) -> None:
        self._socket = opened(blocking=True)
        self._number = 0
        self._telling = False  # the kernel hasn't come to the end of an answer

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def pieces(self, request: Callable[[int], bytes]) -> Iterator[list[Message]]:
        """The messages of an answer, some hundreds at a time.

        Raises MachineError where the kernel doesn't tell, and Overflow at the end if something changed meanwhile so
        that it may not be whole. Of an answer that was given up the rest comes first, as empty pieces: the kernel
        begins no other before that has ended (EBUSY).
        """
        self._number += 1
        whole, ended = True, False
        try:
            while self._telling:
                rest = rtnetlink.messages(self._socket.recv(DATAGRAM))
                self._telling = all(message.type != Type.DONE for message in rest)
                yield []
            self._socket.send(request(self._number))
            self._telling = True
            while not ended:
                piece: list[Message] = []
                for message in rtnetlink.messages(self._socket.recv(DATAGRAM)):
                    if message.sequence != self._number:
                        continue  # of a reading that was given up
                    whole = whole and not message.flags & Flag.DUMP_INTERRUPTED
                    if ended := is_last(message):
                        break
                    piece.append(message)
                self._telling = not ended
                yield piece
        except OSError as error:
            self._telling = error.errno == errno.EBUSY
            raise MachineError(f"can't read from the kernel: {error.strerror or error}") from error
        if not whole:
            raise Overflow


def discard(netlink: socket.socket) -> None:
    """Drop what waits: what is read anew now is younger, and must not be overwritten by it. Raises BrokenSource."""
    while True:
        try:
            netlink.recv(DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            unless_full(error)
