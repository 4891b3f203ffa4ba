# SPDX-License-Identifier: GPL-2.0-or-later
"""syslog(3), for a daemon in the background, whose stderr nobody reads: records as datagrams of RFC 3164's form, as the
C library sends them, but by the log's thread, so that a syslog that stands never holds the daemon.
"""

from __future__ import annotations

import logging
import os
import socket

from npd6_xdp.tools.journal import priority

PATH = "/dev/log"
_DAEMON = 3 << 3  # the facility
_MOST = 8000  # bytes of a line: what more there is, many a syslog would throw away with it


class Syslog:
    """Sends records to syslog. `formatter` makes the text of each; each of its lines is a message."""

    def __init__(self, formatter: logging.Formatter, path: str = PATH) -> None:
        self._formatter = formatter
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def entry(self, record: logging.LogRecord) -> bytes:
        """A record's messages."""
        return self._messages(self._formatter.format(record), record.levelno)

    def line(self, text: str) -> bytes:
        """Lines that are no record are those of an end."""
        return self._messages(text, logging.ERROR)

    def _messages(self, text: str, level: int) -> bytes:
        head = f"<{_DAEMON | priority(level)}>npd6-xdp[{os.getpid()}]: ".encode()
        lines = (line.removeprefix("npd6-xdp: ") for line in text.splitlines())
        return b"\n".join(head + line.encode(errors="backslashreplace")[:_MOST] for line in lines)

    def send(self, entry: bytes) -> bool:
        """Send them, however long that takes; False: nobody takes them."""
        try:
            for message in entry.split(b"\n"):
                self._socket.sendto(message, self._path)
        except OSError:
            return False
        return True
