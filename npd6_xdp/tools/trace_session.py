# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace, from the client's side: asks the daemon, reads the ring itself, and joins what both tell."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.trace_joined import Joined
from npd6_xdp.core.trace_wire import (
    HEADER,
    MOST_BYTES,
    Filter,
    MessageKind,
    Record,
    Verdict,
    unpack_plain,
    unpack_verdicts,
)
from npd6_xdp.core.traced import Traced
from npd6_xdp.tools.control import connect, understood
from npd6_xdp.tools.trace_ring import TraceRing

_ALIVE_EACH = 1.0  # seconds: the daemon gives us up after five of silence
_TIMEOUT = 60.0  # seconds without a byte, before it has begun and after we have asked it to end
_MOST_LINE = 1 << 16
_MOST_RECORDS = 4096  # of the ring, in one read()
_READ = 1 << 20


class Summary(NamedTuple):
    """Solicitations, but for late answers: those that were seen, and lost on their way here; together, those that were
    counted where they were decided.
    """

    seen: int
    lost: int
    counted: int


class Session:
    """A trace that is on, from its making to end() or close(). Raises MachineError, with one line, for what ends it.

    Call read() when one of filenos() is readable, and each second: it tells the daemon that we are there. Little is
    kept, whatever comes, and the rest counted as lost.
    """

    def __init__(self, control: Path, wanted: Filter) -> None:
        self._control = control
        self._wanted = wanted
        self._joined = Joined()
        self._received = bytearray()
        self._end: dict[str, Any] | None = None  # the daemon's last words
        self._is_over = False  # and the connection is closed
        self._told = {"counted": 0, "lost": 0}  # by its last words so far
        self._is_stopped = False
        self._alive_at = time.monotonic() + _ALIVE_EACH
        self._socket = self._connected()
        try:
            self._fd, self._ring = self._begun()
        except BaseException:
            self._socket.close()
            raise

    def filenos(self) -> tuple[int, int]:
        """Readable (poll(2)) when there is something to read(): the ring's descriptor, and the connection's."""
        return self._fd, self._socket.fileno()

    @property
    def lost(self) -> int:
        """Solicitations of which we know by now that they were lost; the daemon tells of its own each second."""
        return self._told["lost"] + self._joined.lost

    @property
    def undecided(self) -> int:
        """Those of which nobody has said what became of them, so that they weren't seen. They aren't counted either,
        since that is done where it is said; most are of an outcome that isn't wanted.
        """
        return self._joined.undecided

    def read(self) -> list[Traced]:
        """What was decided since. Never waits. Raises MachineError once the daemon has ended the trace, when all that
        came before was read.
        """
        self.stay()
        now = time.monotonic()
        size = self._receive()
        count = self._read_ring(now, _MOST_RECORDS)
        found = self._joined.take(now, is_all=size < _READ and count < _MOST_RECORDS)
        if not count and not found and self._is_over:
            raise MachineError(self._why_over())
        return found

    def stay(self) -> None:
        """Let the daemon know that we are there, once a second at most: for who can't read() for a while."""
        now = time.monotonic()
        if now >= self._alive_at and not self._is_over:
            self._alive_at = now + _ALIVE_EACH
            with contextlib.suppress(OSError):  # it has gone, or doesn't listen: _receive() tells
                self._socket.send(b"alive\n")

    def stop(self) -> list[Traced]:
        """Have the trace switched off; what was decided until then and not read yet. Raises MachineError."""
        if self._end is None and not self._is_over:
            self._socket.settimeout(_TIMEOUT)
            with contextlib.suppress(OSError):
                self._socket.sendall(b"end\n")
            while not self._is_over and self._receive():
                self._read_ring(time.monotonic(), _MOST_RECORDS)  # what is read makes no difference to what was counted
        if self._end is None:
            raise MachineError(self._why_over())
        while self._read_ring(now := time.monotonic(), _MOST_RECORDS):
            pass
        self._is_stopped = True
        return self._joined.finish(now)

    def end(self) -> Summary:
        """What was seen of all that there was. Calls stop(), if nobody has, and throws away what that gives."""
        if not self._is_stopped:
            self.stop()
        self.close()
        return Summary(self._joined.seen, self.lost, self._told["counted"])

    def close(self) -> None:
        """Hang up, whereupon it is switched off, and let go of the ring."""
        self._socket.close()
        if self._fd >= 0:
            self._ring.close()
            os.close(self._fd)
            self._fd = -1

    # --- the connection ---

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connect(connection, self._control, _TIMEOUT)
        except TimeoutError as error:
            connection.close()
            raise MachineError(f"{self._control}: not a word in {_TIMEOUT:.0f} s") from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            connection.close()
            raise MachineError(
                f"{self._control}: no npd6-xdp is running there; see --control, and daemon.control"
            ) from error
        except PermissionError as error:
            connection.close()
            raise MachineError(
                f"{self._control}: not permitted; ask as root, or as a member of the group that the socket is of"
            ) from error
        except OSError as error:
            connection.close()
            raise MachineError(f"{self._control}: no answer: {error}") from error
        return connection

    def _begun(self) -> tuple[int, TraceRing]:
        """Ask; the ring's descriptor, and the ring. Raises MachineError with the daemon's own line where it won't."""
        fds: list[int] = []
        try:
            size = self._answered(fds)
            if size is None or not fds:
                raise MachineError(f"{self._control}: no answer of npd6-xdp's; is it the right socket?")  # noqa: TRY301
            ring = TraceRing(fds[0], size)
        except BaseException as error:
            for fd in fds:
                os.close(fd)
            if isinstance(error, (OSError, ValueError)):
                raise MachineError(f"{self._control}: can't trace: {error}") from error
            raise
        self._socket.setblocking(False)
        return fds[0], ring

    def _answered(self, fds: list[int]) -> int | None:
        """The ring's size, by the daemon's first line; the descriptors that come with it go to `fds`."""
        self._socket.sendall(json.dumps(self._wanted.question()).encode() + b"\n")
        line = b""
        while b"\n" not in line and len(line) < _MOST_LINE:
            data, more, _, _ = socket.recv_fds(self._socket, _MOST_LINE, 1)
            fds += more
            if not data:
                break
            line += data
        said, _, rest = line.partition(b"\n")
        self._received += rest
        size = understood(self._control, said).get("ring")
        return size if isinstance(size, int) else None

    def _receive(self) -> int:
        """Take in what the daemon has sent, at most _READ bytes; how many there were."""
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return 0
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise MachineError(f"{self._control}: not a word in {_TIMEOUT:.0f} s") from error
            data = b""
        if not data:
            self._is_over = True
            return 0
        self._received += data
        now = time.monotonic()
        for kind, body in self._messages():
            if kind is MessageKind.WORDS:
                self._hear(json.loads(body))
            else:
                self._join(unpack_plain(body) if kind is MessageKind.PLAIN else unpack_verdicts(body), now)
        return len(data)

    def _messages(self) -> Iterator[tuple[MessageKind, bytes]]:
        while len(self._received) >= HEADER.size:
            length, kind = HEADER.unpack_from(self._received)
            if length > MOST_BYTES or kind not in (*MessageKind,):
                raise MachineError(f"{self._control}: what it tells isn't understood: is it of this version?")
            end = HEADER.size + length
            if len(self._received) < end:
                return
            body = bytes(self._received[HEADER.size : end])
            del self._received[:end]
            yield MessageKind(kind), body

    def _hear(self, words: dict[str, Any]) -> None:
        self._told = {name: int(words.get(name, 0)) for name in self._told}
        if "end" in words:
            self._end = words

    def _join(self, verdicts: Iterator[Verdict], now: float) -> None:
        for verdict in verdicts:
            self._joined.hear(verdict, now)

    def _read_ring(self, now: float, at_most: int) -> int:
        records = self._ring.read(at_most)
        for data in records:
            self._joined.see(Record.unpack(data), now)
        return len(records)

    def _why_over(self) -> str:
        why = "" if self._end is None else str(self._end.get("end", ""))
        if why:
            return f"{self._control}: the trace has ended: {why}"
        return f"{self._control}: the trace has ended: npd6-xdp has gone, or has heard nothing of this client for long"
