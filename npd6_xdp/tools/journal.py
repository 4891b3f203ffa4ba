# SPDX-License-Identifier: GPL-2.0-or-later
"""systemd's journal, where it reads stderr: records with their priority and fields, by its native protocol
(https://systemd.io/JOURNAL_NATIVE_PROTOCOL/); and lines with their priority alone, by the prefixes of sd-daemon(3), for
what is no record, and where its socket isn't there.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import struct
import sys
from collections.abc import Mapping, Sequence

from npd6_xdp.core.logged import fields_of

_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))  # of syslog(3)


def reads_stderr(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the journal is what stderr goes to: JOURNAL_STREAM of systemd.exec(5), which children inherit, too."""
    try:
        stderr = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):  # there is none, or it is no file
        return False
    return environment.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}"


def prefixed(text: str, level: int) -> str:
    """Each line of a text with the priority of its level, one of logging's."""
    head = f"<{priority(level)}>"
    return "\n".join(f"{head}{line}" for line in text.splitlines())


class JournalFormatter(logging.Formatter):
    """What another formatter makes of a record, for the journal."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines, each with its priority."""
        return prefixed(self._formatter.format(record), record.levelno)


def priority(level: int) -> int:
    """That of syslog(3) for a level of logging's."""
    return next(priority for least, priority in _PRIORITIES if level >= least)


SOCKET = "/run/systemd/journal/socket"
_SIZE = struct.Struct("<Q")
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_TOO_LARGE = (errno.EMSGSIZE, errno.ENOBUFS)


class Journal:
    """Sends records to the journal. `formatter` makes the text of each, which is its MESSAGE: one entry, however many
    lines. A line's fields are called NPD6_INTERFACE and so on; of several interfaces, each has one such.
    """

    def __init__(self, formatter: logging.Formatter, path: str = SOCKET) -> None:
        self._formatter = formatter
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def entry(self, record: logging.LogRecord) -> bytes:
        """A record's message."""
        parts = [
            _field("MESSAGE", self._formatter.format(record)),
            _field("PRIORITY", str(priority(record.levelno))),
            _field("SYSLOG_IDENTIFIER", "npd6-xdp"),
            _field("SYSLOG_PID", str(os.getpid())),
        ]
        for name, value in fields_of(record).items():
            if name == "interfaces" and isinstance(value, Sequence):
                parts += [_field("NPD6_INTERFACE", str(each)) for each in value]
            else:
                parts.append(_field(f"NPD6_{name.upper()}", str(value)))
        return b"".join(parts)

    def line(self, text: str) -> bytes:
        """Nothing: it reads stderr, too."""
        return b""

    def send(self, entry: bytes) -> bool:
        """Send one, however long that takes; False: nobody takes it."""
        try:
            try:
                self._socket.sendto(entry, self._path)
            except OSError as error:
                if error.errno not in _TOO_LARGE:
                    raise
                self._hand_over(entry)
        except OSError:
            return False
        return True

    def _hand_over(self, entry: bytes) -> None:
        """What is too large for a datagram goes as a file in memory, sealed, so that the journal may read it."""
        file = os.memfd_create("npd6-xdp-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(os.dup(file), "wb") as opened:
                opened.write(entry)
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file))]
            self._socket.sendmsg([b""], rights, 0, self._path)
        finally:
            os.close(file)


def _field(name: str, text: str) -> bytes:
    value = text.encode(errors="backslashreplace")
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), _SIZE.pack(len(value)), value)
