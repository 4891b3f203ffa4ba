# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket behind `status` and `reload`: one question, one answer, both JSON, each over a connection."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from npd6_xdp.core.errors import MachineError, Npd6Error

_MOST_ASKED = 4096  # bytes of a question
_MOST_CLIENTS = 32

_NOT_PERMITTED = (errno.EACCES, errno.EPERM)


class ControlServer:
    """Listens; each question goes to `answer`, which runs in the loop of the selector."""

    def __init__(
        self, path: str, selector: selectors.BaseSelector, answer: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        self._path = Path(path)
        self._selector = selector
        self._answer = answer
        self._clients: dict[socket.socket, _Client] = {}
        self._socket = _listen(self._path)
        self._identity = self._path.stat().st_ino
        selector.register(self._socket, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Stop listening, and hang up."""
        for client in tuple(self._clients):
            self._drop(client)
        self.stop_listening()

    def stop_listening(self) -> None:
        """Take no more questions; those that came in are still answered."""
        if self._socket.fileno() < 0:
            return
        self._selector.unregister(self._socket)
        self._socket.close()
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._identity:  # and no successor's
                self._path.unlink()

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return
        if len(self._clients) >= _MOST_CLIENTS:
            self._drop(next(iter(self._clients)))  # who has been silent longest, lest the silent lock all others out
        connection.setblocking(False)
        self._clients[connection] = _Client()
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._serve(connection))

    def _serve(self, connection: socket.socket) -> None:
        if connection not in self._clients:
            return  # hung up on since the selector has told of it
        client = self._clients[connection] = self._clients.pop(connection)  # the last that was heard of
        try:
            if client.unsent:
                client.unsent = client.unsent[connection.send(client.unsent) :]
                if not client.unsent:
                    self._drop(connection)
                return
            data = connection.recv(_MOST_ASKED)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        client.asked += data
        if b"\n" in client.asked:
            client.unsent = json.dumps(self._understand(client.asked)).encode() + b"\n"
            self._selector.modify(connection, selectors.EVENT_WRITE, lambda: self._serve(connection))
        elif not data or len(client.asked) >= _MOST_ASKED:
            self._drop(connection)

    def _understand(self, asked: bytes) -> dict[str, Any]:
        try:
            question = json.loads(asked.partition(b"\n")[0])
        except (ValueError, RecursionError):  # the latter by brackets within brackets
            question = None
        if not isinstance(question, dict) or not isinstance(question.get("verb"), str):
            return {"error": 'not a question: send one line with a JSON object that has a "verb"'}
        try:
            return self._answer(question)
        except Npd6Error as error:
            return {"error": str(error)}

    def _drop(self, connection: socket.socket) -> None:
        del self._clients[connection]
        self._selector.unregister(connection)
        connection.close()


class _Client:
    """What a connection has said, and what it has yet to hear."""

    def __init__(self) -> None:
        self.asked = b""
        self.unsent = b""


def _listen(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.setblocking(False)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(path)
        before = os.umask(0o117)  # root and its group, nobody else: a reload is as good as a configuration
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        listening.listen(_MOST_CLIENTS)
    except OSError as error:
        listening.close()
        instead = "run as root, or choose another path" if error.errno in _NOT_PERMITTED else "choose another path"
        raise MachineError(f"daemon.control: can't listen on {path}: {error.strerror}; {instead}") from error
    return listening


def _remove_stale(path: Path) -> None:
    """Take away the socket of a process that no longer lives. Raises MachineError if one does."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "there is a file of that name, and it is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        else:
            raise MachineError(f"daemon.control: another npd6-xdp is at {path}; stop it, or give this one another path")
