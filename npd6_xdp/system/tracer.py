# SPDX-License-Identifier: GPL-2.0-or-later
"""Who looks at solicitations, at the other end of a connection: what he says, and what he is sent without ever waiting.

He is sent one line in JSON first, with the ring's descriptor (SCM_RIGHTS), then messages (core/trace_wire.py); he sends
lines: ALIVE each second, END once.
"""

from __future__ import annotations

import socket
import struct
from array import array
from collections import deque

ALIVE, END = b"alive", b"end"
MOST_UNSENT = 4 << 20
"""Bytes of messages that wait for him, besides what the kernel takes."""

_MOST_SAID = 4096  # bytes that he may have said without a line's end
_SEND_BUFFER = 1 << 20
_SO_SNDBUFFORCE = 32
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid


class Tracer:
    """The connection. `unsent` says whether messages wait until it takes more: call send_rest() then."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._said = b""
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid: int = _CREDENTIALS.unpack(credentials)[0]
        """His process."""

    def fileno(self) -> int:
        """The connection's descriptor."""
        return self._socket.fileno()

    @property
    def unsent(self) -> bool:
        """Whether messages wait."""
        return bool(self._unsent)

    def begin(self, line: bytes, ring: int) -> None:
        """Send the first line, and a descriptor with it. Raises OSError."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [ring]))]
        if self._socket.sendmsg([line], rights) != len(line):
            raise BlockingIOError("there is no space for a line")

    def lines(self) -> list[bytes] | None:
        """What he has said since; None: he has gone, or says what nobody does."""
        try:
            data = self._socket.recv(_MOST_SAID)
        except BlockingIOError:
            return []
        except OSError:
            return None
        *lines, self._said = (self._said + data).split(b"\n")
        return lines if data and len(self._said) < _MOST_SAID else None

    def send(self, message: bytes, *, is_last: bool = False) -> bool:
        """Send a message, or keep it until the connection takes more; False: there is no space for it. For the last
        one, a few words, there always is.
        """
        if self._unsent_bytes + len(message) > MOST_UNSENT and not is_last:
            return False
        self._unsent.append(memoryview(message))
        self._unsent_bytes += len(message)
        self.send_rest()
        return True

    def send_rest(self) -> None:
        """As much as the connection takes. Where it is broken, lines() will tell."""
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent[0])
                self._unsent_bytes -= sent
                if sent < len(self._unsent[0]):
                    self._unsent[0] = self._unsent[0][sent:]
                else:
                    self._unsent.popleft()
        except OSError:
            return

    def close(self) -> None:
        """Hang up."""
        self._unsent.clear()
        self._socket.close()
