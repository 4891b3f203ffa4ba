# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's log to stderr, which never blocks the daemon, even if nobody reads it.

A write to a pipe or a socket waits for its reader. O_NONBLOCK would be set for all processes that share the descriptor,
and /proc/self/fd/2 can't be opened by another user, or if it is a socket. So a thread writes, and waits if need be.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from npd6_xdp.core.errors import MachineError, want_of_threads

_STDERR = 2
_MOST_HELD = 1 << 20  # bytes that wait to be written
_WAIT = 0.025  # seconds that a log call waits for its line to be written; it waits again only once all lines are
_STALLED = 0.3  # seconds without progress while the reader takes nothing, after which the end doesn't wait any more
_ENDING = 2.0  # seconds in which a slow reader may have taken nothing in all
_LATE = 10.0  # seconds that the end waits for the thread at the longest, which a busy machine may keep from writing


class Journal(Protocol):
    """Whoever takes records as they are, with their fields."""

    def entry(self, record: logging.LogRecord) -> bytes:
        """A record's message to it."""

    def line(self, text: str) -> bytes:
        """The same of a line that is no record; b"": it is to be written."""

    def send(self, entry: bytes) -> bool:
        """Send one; False: it can't be, so its lines are to be written."""


class _Entry(NamedTuple):
    """What waits: the lines as bytes, how many they are, the lock that is released once they are written; and instead
    of the lines what the journal is sent, if that takes it.
    """

    data: bytes
    lines: int
    written: threading.Lock
    message: bytes = b""

    @property
    def size(self) -> int:
        return len(self.data) + len(self.message)


class LogThread(logging.Handler):
    """A handler for all loggers, whose lines a thread writes to a file descriptor; those that it can't are counted.

    A line that there is no space for is dropped, and so are those that follow until half of the space is free; then the
    log says how many. Its formatter is to be set before anything is logged. Raises MachineError if there is no thread.

    No lock is held while it waits, but by logging itself, which lets a signal's handler log whatever it interrupts.
    """

    def __init__(self, fd: int = _STDERR) -> None:
        super().__init__()
        self._fd = fd
        self.journal: Journal | None = None
        """Where records are sent instead, as long as that can be."""
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._dropping = False
        # each of these is changed by one side only: the log call, or the thread
        self._put = self._dropped = 0
        self._written = self._lost = self._said = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise MachineError(f"the log: {want_of_threads()}") from error

    @property
    def dropped(self) -> int:
        """Lines that nobody will read: there was no space for them, or their reader is gone."""
        return self._dropped + self._lost

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written; returns once it is, or after a moment."""
        try:
            self._take(self.format(record), b"" if self.journal is None else self.journal.entry(record))
        except Exception:  # what a formatter may raise is no reason to end
            self._dropped += 1

    def say(self, text: str) -> None:
        """Have lines written as they are."""
        self._take(text, b"" if self.journal is None else self.journal.line(text))

    def _take(self, text: str, message: bytes) -> None:
        data = f"{text}\n".encode(errors="backslashreplace")
        size = len(data) + len(message)
        lines, held = data.count(b"\n"), self._put - self._written
        before = self._dropping
        self._dropping = held + size > (_MOST_HELD // 2 if before else _MOST_HELD)
        if self._dropping:
            self._dropped += lines
            return
        if before:
            self._queue.put(_Entry(b"", 0, threading.Lock()))  # where they are missing
        written = threading.Lock()
        written.acquire()
        self._put += size
        self._queue.put(_Entry(data, lines, written, message))
        if held == 0:
            written.acquire(timeout=_WAIT)

    def flush(self) -> None:
        """Wait until what was logged is written, as finish() does: the descriptor is about to be something else."""
        self._wait(lambda: self._written < self._put and self._thread.is_alive())

    def finish(self) -> None:
        """Write what is left as long as somebody reads it; it doesn't wait for a reader that has stopped."""
        self._queue.put(None)
        self._wait(self._thread.is_alive)

    def _wait(self, is_under_way: Callable[[], bool]) -> None:
        began = looked = time.monotonic()
        before, stalled, waited = self._written, 0.0, 0.0
        while is_under_way() and stalled < _STALLED and waited < _ENDING and looked < began + _LATE:
            self._thread.join(0.01)
            last, looked = looked, time.monotonic()
            if not self._takes_more():  # else it is the thread that is late, not the reader
                stalled, waited = stalled + looked - last, waited + looked - last
            if self._written != before:
                before, stalled = self._written, 0.0

    def _takes_more(self) -> bool:
        """Whether a write would come back at once, if only with an error."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(0))

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            if not self._sent(entry.message) and not self._write(entry.data):
                self._lost += entry.lines
            self._written += entry.size
            if entry.data:
                entry.written.release()
            if self.dropped > self._said and (not entry.data or self._put == self._written):
                self._tell()

    def _tell(self) -> None:
        """Log how many lines are missing. If that can't be written, it is tried again later."""
        count = self.dropped
        missing = count - self._said
        record = logging.LogRecord(
            "npd6-xdp",
            logging.WARNING,
            __file__,
            0,
            "%d line%s of this log %s dropped: its reader was too slow",
            (missing, "" if missing == 1 else "s", "was" if missing == 1 else "were"),
            None,
        )
        message = b"" if self.journal is None else self.journal.entry(record)
        if self._sent(message) or self._write(f"{self.format(record)}\n".encode(errors="backslashreplace")):
            self._said = count

    def _sent(self, message: bytes) -> bool:
        """Whether the journal has taken it."""
        return bool(message) and self.journal is not None and self.journal.send(message)

    def _write(self, data: bytes) -> bool:
        """Write all of it, however long that takes; False if it can't be."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # somebody who shares the descriptor has made it so
                with suppress(OSError):
                    poll = select.poll()
                    poll.register(self._fd, select.POLLOUT)
                    poll.poll()
            except OSError:
                return False
        return True
