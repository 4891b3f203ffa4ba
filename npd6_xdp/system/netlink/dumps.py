# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps that are read between other work: in slices, or by a thread of their own."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NoReturn

from npd6_xdp.core import rtnetlink
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.rtnetlink import Message, Type
from npd6_xdp.system.netlink.nlsocket import DATAGRAM, Overflow, Telling, opened

_AHEAD = 16  # pieces that are read before they are wanted


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
        self._free = threading.Semaphore(_AHEAD)
        self._thread: threading.Thread | None = None
        self._broken: OSError | None = None

    def close(self) -> None:
        """End the thread, and close all."""
        if self._thread is not None:
            os.eventfd_write(self._ending, 1)
            self._free.release()
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
            if self._pieces:  # some came meanwhile, and the read may have taken the count that announced them
                os.eventfd_write(self._told, 1)
        try:
            piece = self._pieces.popleft()
        except IndexError:
            raise BlockingIOError from None
        self._free.release()
        return piece

    def _say_broken(self, error: OSError) -> NoReturn:
        """The thread has ended by an error. The kernel may lack the memory for a piece, and have some when it is asked
        again; any other error stays, so that who listens opens another socket.
        """
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
            self._free.acquire()
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
        answer = Telling(self._number)
        try:
            while self._telling:
                rest = rtnetlink.messages(self._socket.recv(DATAGRAM))
                self._telling = all(message.type != Type.DONE for message in rest)
                yield []
            self._socket.send(request(self._number))
            self._telling = True
            while not answer.ended:
                piece = answer.add(self._socket.recv(DATAGRAM))
                self._telling = not answer.ended
                yield piece
        except OSError as error:
            self._telling = error.errno == errno.EBUSY
            raise MachineError(f"can't read from the kernel: {error.strerror or error}") from error
        if not answer.whole:
            raise Overflow
