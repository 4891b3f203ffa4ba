# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink sockets: opened with buffers for a storm, asked, heard, emptied. Whoever speaks rtnetlink stands on it."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple

from npd6_xdp.core import rtnetlink
from npd6_xdp.core.errors import BrokenSource, MachineError, remedy
from npd6_xdp.core.rtnetlink import Flag, Message, Type

DATAGRAM = 1 << 18
"""Bytes: more than the kernel puts into one."""
TIMEOUT = 5.0
"""Seconds for the kernel to answer who waits for it, which it does at once."""
RECEIVE_BUFFER = 8 << 20
"""Bytes of announcements that may wait."""
ATTEMPTS = 5
"""At a dump that nothing changes under."""

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP, _NETLINK_DROP_MEMBERSHIP = 1, 2
_NETLINK_GET_STRICT_CHK = 12
_SO_RCVBUFFORCE = 33


class Group(IntEnum):
    """Of announcements: RTNLGRP_* of linux/rtnetlink.h."""

    LINK = 1
    NEIGH = 3
    IPV4_IFADDR = 5
    IPV6_IFADDR = 9
    IPV6_ROUTE = 11
    IPV6_RULE = 19
    IPV6_NETCONF = 25
    NEXTHOP = 32


def opened(*groups: Group, blocking: bool = False, buffer: int = 0) -> socket.socket:
    """A socket that hears these groups. A blocking one waits TIMEOUT at most. `buffer` 0: as above.

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
            made.bind((0, sum(1 << group - 1 for group in groups)))
        except BaseException:
            made.close()
            raise
    except OSError as error:
        raise MachineError(f"can't open a netlink socket: {remedy(error)}") from error
    return made


def join(netlink: socket.socket, group: Group, *, wanted: bool) -> None:
    """Hear a group, or no longer."""
    netlink.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP if wanted else _NETLINK_DROP_MEMBERSHIP, group)


def take_datagrams(netlink: socket.socket, deadline: float = float("inf")) -> Iterator[bytes]:
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
    """A socket on which the kernel tells of changes of some groups."""

    def __init__(self, *groups: Group, what: str = "changes") -> None:
        self.socket = opened(*groups)
        self.lost = False
        """Whether some were lost, and what waits has to be dropped before the machine is read anew."""
        self._what = what

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def fileno(self) -> int:
        """The socket."""
        return self.socket.fileno()

    def take_messages(self, deadline: float = float("inf")) -> Iterator[Message]:
        """What was announced, in order, until the deadline (seconds, monotonic); what is left waits.

        Raises Overflow where some were lost and nothing older than that waits any more; BrokenSource where it tells
        nothing but errors.
        """
        try:
            if not self.lost:
                for datagram in take_datagrams(self.socket, deadline):
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

    def __init__(self, group: Group) -> None:
        super().__init__()
        self._group = group
        self.listening = False
        """Whether it is heard."""

    def listen(self, *, wanted: bool) -> bool:
        """Hear of changes from now on, or no longer; whether that is news. Each listener costs the kernel something.

        Raises MachineError where the kernel has no space for one more; all is as before, then.
        """
        if wanted == self.listening:
            return False
        try:
            join(self.socket, self._group, wanted=wanted)
        except OSError as error:
            raise MachineError(f"can't hear from the kernel what changes: {remedy(error)}") from error
        self.listening, self.lost = wanted, False
        if not wanted:
            discard(self.socket)
        return True


class Refused(OSError):
    """The kernel has answered that it doesn't do what it was asked for: `errno` says why."""


class Told(NamedTuple):
    """What the kernel has told. A dump may lack a line unless it is `whole`: something changed meanwhile."""

    messages: list[Message]
    whole: bool


class Telling:
    """An answer as it comes, datagram by datagram: whether it has `ended`, and is `whole` so far."""

    def __init__(self, sequence: int) -> None:
        self._sequence = sequence
        self.whole = True
        self.ended = False

    def add(self, datagram: bytes) -> list[Message]:
        """Take in a datagram, and return what it adds. Raises Refused where the kernel says why there is none."""
        found: list[Message] = []
        for message in rtnetlink.messages(datagram):
            if message.sequence != self._sequence:
                continue  # of a question that was given up
            self.whole = self.whole and not message.flags & Flag.DUMP_INTERRUPTED
            if _is_last(message):
                self.ended = True
                break
            found.append(message)
            if not message.flags & Flag.MULTI:
                self.ended = True
                break
        return found


def _is_last(message: Message) -> bool:
    """Whether an answer ends here, with what is no part of it. Raises Refused where the kernel says why it is none."""
    if message.type not in (Type.DONE, Type.ERROR):
        return False
    if code := rtnetlink.error_code(message.body):
        raise Refused(code, os.strerror(code))
    return True


class Asking:
    """A socket on which the kernel is asked, and its answer waited for: that is there when the question is sent.

    A request is made of the number that it is to bear.
    """

    def __init__(self) -> None:
        self.socket = opened(blocking=True)
        self._number = 0

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def take_number(self) -> int:
        """The number of the next question."""
        self._number = (self._number + 1) & 0x7FFFFFFF
        return self._number

    def ask(self, request: Callable[[int], bytes]) -> Told:
        """Ask, and wait for all of the answer: the lines of a dump, one message, or none where it is done as asked.

        Raises Refused, or another OSError if there is no answer.
        """
        number = self.take_number()
        self.socket.send(request(number))
        telling, found = Telling(number), list[Message]()
        while not telling.ended:
            found += telling.add(self.socket.recv(DATAGRAM))
        return Told(found, telling.whole)

    def dump(self, request: Callable[[int], bytes], *, all_lines: bool = False) -> list[Message]:
        """The lines of a dump that nothing changed under, or of the last of ATTEMPTS. Raises OSError as ask() does.

        A dump that something changed under may lack a line. With `all_lines`, what ATTEMPTS such dumps have is taken
        together, and one that fails is asked for again: while thousands of links are made no dump is ever whole, and
        together they lack none. The same line may be there several times, the latest last.
        """
        found: list[Message] | None = None
        failure: OSError | None = None
        for _ in range(ATTEMPTS):
            try:
                answer = self.ask(request)
            except OSError as error:
                if not all_lines:
                    raise
                failure = error
                continue
            if answer.whole:
                return answer.messages
            found = [*(found or []), *answer.messages] if all_lines else answer.messages
        if found is None and failure is not None:
            raise failure
        return found or []


def discard(netlink: socket.socket) -> None:
    """Drop what waits: what is read anew now is younger, and must not be overwritten by it. Raises BrokenSource."""
    while True:
        try:
            netlink.recv(DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            unless_full(error)
