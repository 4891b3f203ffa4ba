# SPDX-License-Identifier: GPL-2.0-or-later
"""Where HTTP is served: it listens, takes connections, and has the site answer each one's question. It only reads.

Each connection has a thread of its own and brings one answer, so a slow one is in nobody's way. There are never more
than _MOST_CLIENTS of them: the oldest gives way to a newcomer.
"""

from __future__ import annotations

import ctypes
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, cast

from npd6_xdp.core.errors import MachineError, is_used_up, remedy, want_of_threads
from npd6_xdp.core.said import Said
from npd6_xdp.system.http.site import Response, Site, say

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

log = logging.getLogger("npd6-xdp")

_MOST_CLIENTS = 24
_MOST_THREADS = 48  # with those of clients that were hung up on, and have yet to notice
_PATIENCE = 10.0  # seconds for a line of the question to come in, and for the answer to go out
_LIFETIME = 30.0  # seconds for all of it
_LONG = 1 << 18  # bytes of an answer
_MOST_COPIES = 3  # different long answers that are being sent: who is slow with an older one is hung up on
_LINGER = 0.5  # seconds for the rest of a question that was refused: unread, it would cost the asker our answer
_MOST_LINGERED = 1 << 16  # bytes
_REST = 0.5  # seconds until the next try to take a connection, where there is no file descriptor for one
_COMPLAIN = 60.0  # seconds before that is said again
_M_ARENA_MAX = -8  # of malloc.h

_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)


class _Handler(BaseHTTPRequestHandler):
    """One connection: one question, one answer."""

    timeout = _PATIENCE
    server_version = "npd6-xdp"
    sys_version = ""
    default_request_version = "HTTP/1.0"  # a question that makes no sense gets headers with its answer, too

    def __init__(
        self, site: Site, connection: socket.socket, address: Any, hold: Callable[[socket.socket, bytes], None]
    ) -> None:
        self._site = site
        self._hold = hold
        super().__init__(connection, address, cast(Any, None))

    def do_GET(self) -> None:
        self._respond(
            self._site.answer(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        )

    do_HEAD = do_GET  # noqa: N815 (http.server's name)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class can't make sense of, or has no method for."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._respond(self._site.answer(self.command, self.path, {}))
        else:
            self.command = self.command or ""
            status = HTTPStatus(code)
            self._respond(say(status, f"{status.phrase}."))
        self._linger()

    def log_message(self, format: str, *args: Any) -> None:
        """One line for each scrape is not what a log is for."""

    def _respond(self, response: Response) -> None:
        self.close_connection = True
        self.request_version = self.request_version.replace("HTTP/0.", "HTTP/1.")  # which would have no headers
        if self.command != "HEAD":
            self._hold(self.connection, response.body)
        self.send_response(response.status)
        for name, value in (
            ("Content-Type", response.kind),
            ("Content-Length", str(len(response.body))),
            ("Content-Security-Policy", response.policy),
            *_HEADERS,
            *response.headers,
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def _linger(self) -> None:
        """Take in what the asker has yet to say: closing before resets the connection, and our answer is lost."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER)
            left = _MOST_LINGERED
            while left > 0 and (data := self.connection.recv(left)):
                left -= len(data)


class Endpoint:
    """Serves a Site from serve() until close(): see there for what it takes. Raises MachineError if it can't listen, or
    there is no thread for it.

    Who comes before serve() waits. `beside` is one of ours that this one is to take over from: they may have a port in
    common.
    """

    def __init__(
        self,
        listen: tuple[str, int],
        metrics: WSGIApplication,
        overview: Callable[[], dict[str, Any]],
        unhealthy: Callable[[], str],
        beside: Endpoint | None = None,
    ) -> None:
        host, port = listen
        _share_memory()
        self._site = Site(host, metrics, overview, unhealthy)
        self._socket: socket.socket = _listen(host, port, beside._socket if beside else None)
        self._wake, self._waker = socket.socketpair()
        self._lock = threading.Lock()
        self._said = Said(again=_COMPLAIN)
        self._clients: dict[socket.socket, float] = {}  # and when they came, the oldest first
        self._hung_up: set[socket.socket] = set()
        self._answers: dict[socket.socket, bytes] = {}  # long ones that are being sent, the oldest first
        self._threads: set[threading.Thread] = set()
        self._serves = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        try:
            self._thread.start()  # now, when nothing hangs on it yet
        except RuntimeError as error:
            self._close_sockets()
            raise MachineError(f"metrics.listen: {want_of_threads()}") from error

    def serve(self) -> None:
        """Answer from now on."""
        self._serves.set()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: the port is a real one, even if 0 was asked for."""
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    def close(self) -> None:
        """Stop serving: nobody asks for anything any more once this returns."""
        self._waker.send(b"\0")
        self._serves.set()
        self._thread.join()
        self._socket.close()
        with self._lock:
            for client in tuple(self._clients):
                self._hang_up(client)
            threads = tuple(self._threads)
        for thread in threads:
            thread.join(_PATIENCE)
        self._close_sockets()

    def _close_sockets(self) -> None:
        for each in (self._socket, self._wake, self._waker):
            each.close()

    def _run(self) -> None:
        self._serves.wait()
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                ready = selector.select(1.0 if self._clients else None)
                if any(key.fileobj is self._wake for key, _ in ready):
                    return
                if ready and not self._accept():
                    selector.unregister(self._socket)  # who waits for us would wake us all the time
                    if selector.select(_REST):
                        return
                    selector.register(self._socket, selectors.EVENT_READ)
                self._expire(time.monotonic() - _LIFETIME)

    def _accept(self) -> bool:
        """Take one connection; False if it is no use to try again at once."""
        try:
            connection, address = self._socket.accept()
        except OSError as error:
            if is_used_up(error.errno or 0):
                self._complain(remedy(error))
                return False
            return True
        connection.settimeout(_PATIENCE)
        thread = threading.Thread(target=self._serve, args=(connection, address), name="web client", daemon=True)
        with self._lock:
            if len(self._threads) >= _MOST_THREADS:
                connection.close()
                return True
            waiting = [client for client in self._clients if client not in self._hung_up]
            if len(waiting) >= _MOST_CLIENTS:
                self._hang_up(waiting[0])
            self._clients[connection] = time.monotonic()
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # the machine gives us no more of them
            self._forget(connection, thread)
            self._complain(want_of_threads())
            return False
        return True

    def _complain(self, why: str) -> None:
        if self._said.note(now=time.monotonic()):
            host, port = self.address
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            log.error("%s: no connection can be taken: %s; trying again every %.1f s", where, why, _REST)

    def _serve(self, connection: socket.socket, address: Any) -> None:
        try:
            with suppress(OSError):  # whatever became of the client
                _Handler(self._site, connection, address, self._hold)
        finally:
            self._forget(connection, threading.current_thread())

    def _hold(self, connection: socket.socket, answer: bytes) -> None:
        """It is about to be sent. Of long answers there are few different ones, however many don't read theirs."""
        if len(answer) < _LONG:
            return
        with self._lock:
            self._answers[connection] = answer
            different = {id(each): each for each in self._answers.values()}
            for old in tuple(different.values())[:-_MOST_COPIES]:
                for client in [client for client, held in self._answers.items() if held is old]:
                    self._hang_up(client)

    def _forget(self, connection: socket.socket, thread: threading.Thread) -> None:
        with self._lock:  # so that nobody hangs up on who has the number of this socket next
            self._clients.pop(connection, None)
            self._hung_up.discard(connection)
            self._answers.pop(connection, None)
            self._threads.discard(thread)
            connection.close()

    def _expire(self, since: float) -> None:
        with self._lock:
            for client, came in tuple(self._clients.items()):
                if came > since:
                    break
                self._hang_up(client)

    def _hang_up(self, client: socket.socket) -> None:
        """Its thread finds the connection closed, and ends. With the lock held."""
        self._hung_up.add(client)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


def _share_memory() -> None:
    """Let the C library's threads share two arenas: one for each of 24 would keep megabytes for the next time."""
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _listen(host: str, port: int, beside: socket.socket | None) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with _sharing(*((beside, listening) if beside and beside.getsockname()[1] == port else ())):
            listening.bind((host, port))
            listening.listen(128)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise MachineError(
            f'metrics.listen: can\'t listen on {where}: {error.strerror}; choose another address, or "" for none'
        ) from error
    return listening


@contextmanager
def _sharing(*sockets: socket.socket) -> Iterator[None]:
    """Let bind() and listen() of one pass though another has the port: [::] where [::1] is still listened on.

    Another process has the port to itself, unless it says this too, as the same user.
    """
    try:
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield
    finally:
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
