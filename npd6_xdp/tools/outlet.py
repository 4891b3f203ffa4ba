# SPDX-License-Identifier: GPL-2.0-or-later
"""Output that goes on until a signal comes, or nobody reads it any more; neither is kept from being noticed by it."""

from __future__ import annotations

import os
import select
import signal
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from npd6_xdp.core.errors import MachineError, remedy

_GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL
_SECOND = 1.0
_GRACE = 2.0  # seconds that a slow reader is waited for, once a signal has come
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(Exception):
    """A signal has come while nobody took what was to be written."""


class Stop:
    """Whether a signal has come that ends us. `is_awaited`: somebody calls wait(); else, and at the second signal, it
    ends us at once.
    """

    def __init__(self, reader: int) -> None:
        self.reader = reader
        """Readable once it has come."""
        self.is_awaited = self.has_come = False
        self.meanwhile: Callable[[], None] = lambda: None
        """Called about each second while an outlet waits for a slow reader."""

    def come(self, number: int, _: FrameType | None) -> None:
        """A signal's handler."""
        if not self.is_awaited or self.has_come:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + number)
        self.has_come = True

    def wait(self, sources: Iterable[int], outlets: Iterable[Outlet], seconds: float) -> bool:
        """Wait until one of some descriptors can be read, or so long; whether a signal has come. Raises
        BrokenPipeError: nobody reads what was written.
        """
        poll = select.poll()
        for fd in (*sources, self.reader):
            poll.register(fd, select.POLLIN)
        watched = {outlet.fd for outlet in outlets}
        for fd in watched:
            poll.register(fd, 0)
        for fd, events in poll.poll(1000 * seconds):
            if fd in watched and events & _GONE:
                raise BrokenPipeError
        return self.has_come


@contextmanager
def stopping() -> Iterator[Stop]:
    """Have SIGINT, SIGTERM and SIGHUP noted within the block."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    stop = Stop(reader)
    before = {number: signal.signal(number, stop.come) for number in _ENDING}
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


class Outlet:
    """A descriptor that is written to at once, without a buffer; `name` says what it is."""

    def __init__(self, fd: int, name: str, stop: Stop) -> None:
        self.fd = fd
        self._name = name
        self._stop = stop
        self._blocks = not stat.S_ISREG(os.fstat(fd).st_mode)

    def empty(self) -> None:
        """Of a file, let go of what was in it before."""
        if not self._blocks:
            os.ftruncate(self.fd, 0)

    def write(self, data: bytes) -> None:
        """All of it. Raises StoppedError, BrokenPipeError: whoever read it has gone, and MachineError."""
        left = memoryview(data)
        while left:
            if self._blocks:
                self._wait()
            with suppress(BlockingIOError):
                try:
                    # so many can be written to a pipe that has any space, without waiting for more
                    left = left[os.write(self.fd, left[: select.PIPE_BUF] if self._blocks else left) :]
                except (BlockingIOError, BrokenPipeError):
                    raise
                except OSError as error:
                    raise MachineError(f"{self._name}: {remedy(error)}") from error

    def _wait(self) -> None:
        """Until somebody takes more. What is left when a signal comes is still taken, if not too slowly."""
        while True:
            poll = select.poll()
            poll.register(self.fd, select.POLLOUT)
            stopped = self._stop.has_come
            if not stopped:
                poll.register(self._stop.reader, select.POLLIN)
            ready = [fd for fd, _ in poll.poll(1000 * (_GRACE if stopped else _SECOND))]
            if self.fd in ready:
                return
            self._stop.meanwhile()
            if stopped:
                raise StoppedError
