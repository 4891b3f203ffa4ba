# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket behind `status`, `reload` and `announce`: one question, one answer, in JSON, over a connection."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import selectors
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from npd6_xdp.core.errors import MachineError, Npd6Error, is_used_up, refusal, remedy
from npd6_xdp.core.logged import fields
from npd6_xdp.core.said import Said

log = logging.getLogger("npd6-xdp")

_MOST_ASKED = 4096  # bytes of a question
_MOST_CLIENTS = 32
_MOST_COPIES = 2  # different long answers that are being sent; clients that are slow with an older one are disconnected
_REST = 1.0  # seconds until the next try to take a connection, where there is no file descriptor for one
_COMPLAIN = 60.0  # seconds before that is said again
AT_WORK = 5.0
"""Seconds after which a client that waits is sent a sign again that its answer will come."""

_NOT_PERMITTED = (errno.EACCES, errno.EPERM)


Answer = dict[str, Any] | bytes
"""A value to be sent as JSON, or the JSON itself, one copy of which may go to many clients."""

Reply = Callable[[Answer], None]
"""To be called once, at any time, with the answer to a question."""

Connection = socket.socket
"""A client's, for whoever keeps it."""

Keep = Callable[[dict[str, Any], Connection], bool]
"""Whether it is asked by a question whose connection stays; from then on that is the callee's. Raises Npd6Error."""


class Waiting(Protocol):
    """The loop that waits for our sockets, and calls."""

    def add(self, source: socket.socket, call: Callable[[], object], where: str, events: int) -> None:
        """Call, whenever it is ready for selectors.EVENT_*; failures are counted under `where`."""
        ...

    def remove(self, source: socket.socket) -> None:
        """Wait for it no more."""
        ...


class ControlServer:
    """Listens. Each question is passed to `keep`, which may take the connection over, else to `answer`, with a function
    to call with the answer, at once or later.

    `due` is when to call tick() (seconds, monotonic): it can take no connection for the moment.
    """

    WHERE = "control"

    def __init__(
        self,
        path: str,
        loop: Waiting,
        answer: Callable[[dict[str, Any], Reply], None],
        keep: Keep = lambda *_: False,
    ) -> None:
        self._path = Path(path)
        self._loop = loop
        self._answer = answer
        self._keep = keep
        self._clients: dict[socket.socket, _Client] = {}
        self._copies: list[bytes] = []  # long answers that are being sent, the oldest first
        self._said = Said(again=_COMPLAIN)
        self.due: float | None = None
        self._socket = _listen(self._path)
        self._identity = self._path.stat().st_ino
        loop.add(self._socket, self._accept, self.WHERE, selectors.EVENT_READ)

    def close(self) -> None:
        """Stop listening, and hang up."""
        for client in tuple(self._clients):
            self._drop(client)
        self.stop_listening()

    def stop_listening(self) -> None:
        """Take no more questions; those that came in are still answered."""
        if self._socket.fileno() < 0:
            return
        if self.due is None:
            self._loop.remove(self._socket)
        self.due = None
        self._socket.close()
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self._identity:  # and no successor's
                self._path.unlink()

    def say_at_work(self) -> None:
        """Let clients that wait know that their answer will come: by white space, which JSON allows around a value."""
        for connection, client in self._clients.items():
            if not client.events:
                with contextlib.suppress(OSError):
                    connection.send(b" ")

    def _accept(self) -> None:
        """Take in the questions of all clients, so that those who ask at the same time hear of the same reload."""
        for _ in range(_MOST_CLIENTS):
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if is_used_up(error.errno or 0):
                    self._rest(error)
                return
            self._drop_one()
            connection.setblocking(False)
            client = self._clients[connection] = _Client()
            self._wait(connection, client, selectors.EVENT_READ)

    def _rest(self, error: OSError) -> None:
        """Take no connections for a while: one that waits would wake the loop all the time."""
        self._loop.remove(self._socket)
        self.due = now = time.monotonic()
        self.due += _REST
        if self._said.note(now=now):
            said = "%s: no connection can be taken: %s; trying again every second"
            log.error(said, self._path, remedy(error), extra=fields(file=str(self._path), error=remedy(error)))

    def tick(self, _now: float) -> None:
        """Try again."""
        self.due = None
        self._loop.add(self._socket, self._accept, self.WHERE, selectors.EVENT_READ)

    def _drop_one(self) -> None:
        """Disconnect one client where there are as many as may be: the one that has been silent longest, or idle
        clients would keep all others out. One that waits for an answer is spared if possible. What a client has sent
        just now is read first.
        """
        for connection, client in tuple(self._clients.items()):
            if len(self._clients) < _MOST_CLIENTS:
                return
            if client.events:
                self._serve(connection)
                if client.events and connection in self._clients:
                    self._drop(connection)
        if len(self._clients) >= _MOST_CLIENTS:
            self._drop(next(iter(self._clients)))

    def _wait(self, connection: socket.socket, client: _Client, events: int) -> None:
        """Have the loop wait for these events of a client; 0 is none: the client waits for its answer."""
        if client.events:
            self._loop.remove(connection)
        if events:
            self._loop.add(connection, lambda: self._serve(connection), self.WHERE, events)
        client.events = events

    def _serve(self, connection: socket.socket) -> None:
        if connection not in self._clients:
            return  # hung up on since the selector has told of it
        client = self._clients[connection] = self._clients.pop(connection)  # the last that was heard of
        if client.unsent:
            self._send(connection, client)
            return
        try:
            data = connection.recv(_MOST_ASKED)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        client.asked += data
        if b"\n" in client.asked:
            self._wait(connection, client, 0)
            self._understand(client.asked, connection, lambda answer: self._reply(connection, answer))
        elif not data or len(client.asked) >= _MOST_ASKED:
            self._drop(connection)

    def _understand(self, asked: bytes, connection: Connection, reply: Reply) -> None:
        try:
            question = json.loads(asked.partition(b"\n")[0])
        except (ValueError, RecursionError):  # the latter by brackets within brackets
            question = None
        if not isinstance(question, dict) or not isinstance(question.get("verb"), str):
            reply({"error": 'not a question: send one line with a JSON object that has a "verb"'})
            return
        try:
            if self._keep(question, connection):
                del self._clients[connection]
            else:
                self._answer(question, reply)
        except Exception as error:  # whatever it is: the client is told, and so is the loop
            reply(refusal(error))
            if not isinstance(error, Npd6Error):
                raise

    def _reply(self, connection: socket.socket, answer: Answer) -> None:
        client = self._clients.get(connection)
        if client is not None:  # else it was hung up on
            whole = answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n"
            client.whole, client.unsent = whole, memoryview(whole)
            self._send(connection, client)
            self._share()

    def _share(self) -> None:
        """Keep only a few different answers, however many clients don't read theirs."""
        unread = {id(client.whole): client.whole for client in self._clients.values() if client.unsent}
        self._copies = [copy for copy in self._copies if unread.pop(id(copy), None) is not None]
        self._copies += unread.values()
        for copy in self._copies[:-_MOST_COPIES]:
            for connection in [each for each, client in self._clients.items() if client.whole is copy]:
                self._drop(connection)
        del self._copies[:-_MOST_COPIES]

    def _send(self, connection: socket.socket, client: _Client) -> None:
        """As much as it takes; the rest when it takes more."""
        try:
            client.unsent = client.unsent[connection.send(client.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)
            return
        if not client.unsent:
            self._drop(connection)
        elif client.events != selectors.EVENT_WRITE:
            self._wait(connection, client, selectors.EVENT_WRITE)

    def _drop(self, connection: socket.socket) -> None:
        self._wait(connection, self._clients.pop(connection), 0)
        connection.close()


class _Client:
    """What a client has sent, and what is still to be sent to it."""

    def __init__(self) -> None:
        self.asked = b""
        self.whole = b""
        self.unsent = memoryview(b"")
        self.events = 0  # what the loop waits for


def _listen(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.setblocking(False)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(path)
        before = os.umask(0o117)  # for root and its group only: whoever may reload may put a configuration in force
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        listening.listen(_MOST_CLIENTS)
    except OSError as error:
        listening.close()
        instead = "run as root, or choose another path" if error.errno in _NOT_PERMITTED else "choose another path"
        raise MachineError(f"daemon.control: can't listen on {path}: {remedy(error)}; {instead}") from error
    return listening


def _remove_stale(path: Path) -> None:
    """Remove the socket of a process that has ended. Raises MachineError if it lives."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, "there is a file of that name, and it is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # whoever is there may take no connection, and the backlog be full
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except BlockingIOError:
            raise MachineError(
                f"daemon.control: another npd6-xdp is at {path}, and takes no connection; stop it (fuser {path} says"
                " which process it is), or give this one another path"
            ) from None
        else:
            raise MachineError(f"daemon.control: another npd6-xdp is at {path}; stop it, or give this one another path")
