# SPDX-License-Identifier: GPL-2.0-or-later
"""Long work, done in a process of its own: it may hang, or be killed for its memory, and the daemon goes on. A thread
would not do: Python has one lock for all threads, a regular expression holds it from its start to its end, and no
thread can be ended from outside. A forked process runs the same code as this one, even if another version has been
installed since.
"""

from __future__ import annotations

import array
import ctypes
import errno
import gc
import os
import pickle
import resource
import signal
import socket
import struct
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from npd6_xdp.core.errors import ConfigError, MachineError, Npd6Error, as_machine_error, remedy

_HEADER = struct.Struct("=cI")
_PART, _HANDED, _REFUSED, _BROKEN, _DONE = b"p", b"h", b"r", b"b", b"d"
_PIECE = 1 << 16  # bytes taken at once: what a pipe holds
_SAID = 1 << 16  # characters of an error that come over
_MOST_MEMORY = 4 << 30  # bytes beyond what we have; a million rules take 1.3 GiB
_PR_SET_PDEATHSIG = 1
_MOST_DESCRIPTORS = 253  # SCM_MAX_FD of the kernel

_left: list[int] = []
"""Processes that were killed and haven't ended yet."""

_prctl = ctypes.CDLL(None).prctl  # found before a fork: nothing is loaded behind one


class AsideError(Exception):
    """It failed by a mistake of ours; the notes have the traceback."""


class Descriptors(NamedTuple):
    """Hands over open files: take() has their descriptors in this process."""

    numbers: tuple[int, ...]


class Doing(NamedTuple):
    """What a process does, for the errors: the verb in two forms, as in "can't read" and "the process that read"."""

    does: str
    did: str


READING, LOADING = Doing("read", "read"), Doing("load", "loaded")
LONGEST_LOADING = 600.0
"""Seconds that the program may take to be compiled and loaded. It takes one, and half a minute where the machine is an
emulated one.
"""


class Aside:
    """Runs `make` in a process of its own, from now on; take() has what it yields, in its order, as it comes.

    `hands_over` says that there may be Descriptors among that. Raises MachineError if there can't be another process.
    """

    def __init__(
        self, make: Callable[[], Iterable[object]], doing: Doing = READING, *, hands_over: bool = False
    ) -> None:
        self._doing = doing
        with as_machine_error("can't start a process beside this one"):
            reader, writer = _connected() if hands_over else os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                _run(writer, make, self._out_of_memory)
        except OSError as error:
            os.close(reader)
            raise MachineError(f"can't start a process beside this one: {remedy(error)}; see TasksMax=") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            os.close(writer)
        self._pid = pid
        self._reader = reader
        self._socket = socket.socket(fileno=reader) if hands_over else None
        self._data = bytearray()
        self._handed: list[int] = []
        self._over = False

    def fileno(self) -> int:
        """Readable when there is something to take."""
        return self._reader

    @property
    def over(self) -> bool:
        """Whether all was taken."""
        return self._over

    def take(self) -> list[Any]:
        """What has come since. Raises what `make` has raised: ConfigError with its mistakes, any other Npd6Error with
        its words, or AsideError; MachineError if the process was killed.
        """
        try:
            piece = self._read()
        except BlockingIOError:
            return []
        if not piece:
            raise MachineError(self._how_it_ended())
        self._data += piece
        found, at = [], 0
        while len(self._data) - at >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._data, at)
            end = at + _HEADER.size + size
            if end > len(self._data):
                break
            body = pickle.loads(self._data[at + _HEADER.size : end])  # noqa: S301  our own
            at = end
            if kind == _REFUSED:
                raise body if isinstance(body, ConfigError) else Npd6Error(body)
            if kind == _BROKEN:
                error = AsideError(body[0])
                error.add_note(body[1])
                raise error
            if kind == _DONE:
                self._over = True
            elif kind == _HANDED:
                found.append(Descriptors(tuple(self._handed[:body])))
                del self._handed[:body]
            else:
                found.append(body)
        del self._data[:at]
        return found

    def _read(self) -> bytes:
        if self._socket is None:
            return os.read(self._reader, _PIECE)
        size = socket.CMSG_SPACE(_MOST_DESCRIPTORS * array.array("i").itemsize)
        piece, ancillary, flags, _ = self._socket.recvmsg(_PIECE, size, socket.MSG_CMSG_CLOEXEC)
        for _, _, numbers in ancillary:  # SCM_RIGHTS is all that there can be
            self._handed += array.array("i", numbers)
        if flags & socket.MSG_CTRUNC:
            error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            raise MachineError(f"can't take what is handed over: {remedy(error)}")
        return piece

    def close(self) -> None:
        """Kill it. This doesn't wait, since freeing its memory may take a while: see reap()."""
        if self._socket is None:
            os.close(self._reader)
        else:
            self._socket.close()
        for number in self._handed:
            os.close(number)
        self._handed.clear()
        if self._pid:  # not yet waited for, so nobody else's number
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            _left.append(self._pid)

    def _how_it_ended(self) -> str:
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._pid = 0
        if status == -signal.SIGKILL:
            return f"{self._out_of_memory}, or so it seems: the process that {self._doing.did} it was killed"
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return f"the process that {self._doing.did} it ended by {how}"

    @property
    def _out_of_memory(self) -> str:
        return f"it takes more memory to {self._doing.does} than there is"


def reap() -> bool:
    """Reap those that have ended since they were killed; returns whether all have."""
    for pid in tuple(_left):
        with suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
        _left.remove(pid)
    return not _left


def _connected() -> tuple[int, int]:
    """Two sockets that files can be handed over by."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    return one.detach(), other.detach()


def _run(writer: int, make: Callable[[], Iterable[object]], out_of_memory: str) -> None:
    """What the process does; it never returns."""
    status = 1
    try:
        _settle(writer)
        _hand_over(writer, make, out_of_memory)
        status = 0
    finally:
        os._exit(status)


def _settle(writer: int) -> None:
    """Detach from the daemon: close what it has open, and take no signals that are meant for it."""
    gc.disable()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGHUP, signal.SIGUSR1):  # to all of that name, by pkill
        signal.signal(number, signal.SIG_IGN)
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.closerange(3, writer)
    os.closerange(writer + 1, most)
    os.set_blocking(writer, True)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with suppress(OSError, ValueError):
        here = int(_file("/proc/self/statm").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (here + _MOST_MEMORY,) * 2)
    with suppress(OSError):  # short of memory, the kernel is to end this one, not the daemon
        file = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(file, b"1000")
        os.close(file)


def _file(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)


def _hand_over(writer: int, make: Callable[[], Iterable[object]], out_of_memory: str) -> None:
    try:
        for part in make():
            if isinstance(part, Descriptors):
                message = _message(_HANDED, len(part.numbers))
                socket.send_fds(socket.socket(fileno=os.dup(writer)), [message], part.numbers)
            else:
                _send(writer, _PART, part)
        _send(writer, _DONE, None)
    except Npd6Error as error:
        text = str(error)
        _send(writer, _REFUSED, error if isinstance(error, ConfigError) and len(text) <= _SAID else text[:_SAID])
    except MemoryError:
        _send(writer, _REFUSED, out_of_memory)
    except Exception as error:
        said = (f"{type(error).__name__}: {error}"[:_SAID], traceback.format_exc()[-_SAID:])
        _send(writer, _BROKEN, said)


def _send(writer: int, kind: bytes, value: object) -> None:
    rest = memoryview(_message(kind, value))
    while rest:
        rest = rest[os.write(writer, rest) :]


def _message(kind: bytes, value: object) -> bytes:
    body = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return _HEADER.pack(kind, len(body)) + body
