# SPDX-License-Identifier: GPL-2.0-or-later
"""A descriptor that becomes readable when a signal arrives, so that a loop that waits wakes up."""

from __future__ import annotations

import signal
import socket


class Wakeup:
    """A pair of sockets: Python writes a byte into one for each signal, and the other is waited for.

    There is one for each process, and only the main thread may make it: signal.set_wakeup_fd().
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def fileno(self) -> int:
        """Readable: a signal has arrived since take() was called."""
        return self._reader.fileno()

    def take(self) -> None:
        """Read what was written for signals so far. Raises OSError where nothing was."""
        self._reader.recv(64)

    def close(self) -> None:
        """Close both sockets; signals wake nobody from now on, unless another Wakeup was made since."""
        current = signal.set_wakeup_fd(-1)
        if current != self._writer.fileno():
            signal.set_wakeup_fd(current, warn_on_full_buffer=False)
        self._reader.close()
        self._writer.close()
