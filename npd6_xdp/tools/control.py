# SPDX-License-Identifier: GPL-2.0-or-later
"""The other end of the control socket: what `status` and `reload` ask a running daemon."""

from __future__ import annotations

import json
import socket
import stat
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from npd6_xdp.core.errors import MachineError, UsageError

_TIMEOUT = 60.0  # seconds without a byte; a daemon that works on the answer sends one every 5
_TIMEVAL = struct.Struct("ll")
_TRIES = 10  # where the daemon closes the connection before it has read the question: it has too many clients
_PAUSE = 0.02  # seconds between them


class Declined(MachineError):
    """The daemon says why what was asked of it can't be. `answer` is all that it says."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(str(answer["error"]))
        self.answer = answer


def ask(path: Path, question: dict[str, Any], patience: float = _TIMEOUT) -> dict[str, Any]:
    """The answer of the daemon at `path`, however long it takes, unless it says nothing for `patience` (seconds).
    Raises MachineError if there is none, and UsageError if it says that such a thing can't be asked.
    """
    with suppress(OSError):  # who may not look hears that below
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise MachineError(f"{path}: no socket; --control takes what daemon.control says, not the configuration")
    try:
        answer = reply_to(path, question, patience)
    except TimeoutError as error:
        raise MachineError(f"{path}: not a word in {patience:.0f} s") from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise MachineError(f"{path}: no npd6-xdp is running there; see --control, and daemon.control") from error
    except PermissionError as error:
        raise MachineError(
            f"{path}: not permitted; ask as root, or as a member of the group that the socket is of"
        ) from error
    except OSError as error:
        raise MachineError(f"{path}: no answer: {error}") from error
    return understood(path, answer)


def understood(path: Path, answer: bytes) -> dict[str, Any]:
    """The answer that some bytes are. Raises MachineError if they are none, or say why there is none, and UsageError
    where it is for what was asked.
    """
    if not answer.strip():
        raise MachineError(f"{path}: npd6-xdp ended before it answered; its log says why")
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise MachineError(f"{path}: no answer: {error}") from error
    if not isinstance(found, dict):
        raise MachineError(f"{path}: no answer of npd6-xdp's; is it the right socket?")
    if "error" in found:
        raise UsageError(str(found["error"])) if found.get("usage") else Declined(found)
    return found


def connect(connection: socket.socket, path: Path, seconds: float) -> None:
    """Connect a socket to the daemon, within so many seconds, which are its timeout from then on. Raises OSError."""
    # with a timeout of Python's own, connect() would fail at once where other clients wait as well
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(seconds), 0))
    try:
        connection.connect(str(path))
    except BlockingIOError as error:
        raise TimeoutError from error
    connection.settimeout(seconds)


def reply_to(path: Path, question: dict[str, Any], patience: float = _TIMEOUT) -> bytes:
    """The reply as it comes, JSON; nothing, if the daemon closes the connection each time. Raises OSError."""
    for _ in range(_TRIES):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connect(connection, path, patience)
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(json.dumps(question).encode() + b"\n")
                if answer := b"".join(iter(lambda: connection.recv(1 << 16), b"")):
                    return answer
        time.sleep(_PAUSE)
    return b""
