# SPDX-License-Identifier: GPL-2.0-or-later
"""Where HTTP is served: it listens, takes connections, and has the site answer each one's question. It only reads.

Each connection has a thread of its own and brings one answer, so a slow one is in nobody's way, neither while TLS is
agreed on. There are never more than _MOST_CLIENTS of them: the oldest gives way to a newcomer.
"""

from __future__ import annotations

import ctypes
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from npd6_xdp.core.errors import MachineError, as_machine_error, is_used_up, remedy, want_of_threads
from npd6_xdp.core.judgement import Judgement
from npd6_xdp.core.logged import fields
from npd6_xdp.core.said import Said
from npd6_xdp.system.http.secured import Secured, hang_up, part, read_rest, shake_hands
from npd6_xdp.system.http.site import READING, Response, Site, say

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

_CHALLENGE = ("WWW-Authenticate", 'Basic realm="npd6-xdp", charset="UTF-8"')
_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)


_Sockets = dict[tuple[str, int], socket.socket]
"""Those that are listened on, each by the address that was asked for."""


class _Handler(BaseHTTPRequestHandler):
    """One connection: one question, one answer."""

    timeout = _PATIENCE
    server_version = "npd6-xdp"
    sys_version = ""
    default_request_version = "HTTP/1.0"  # a question that makes no sense gets headers with its answer, too

    def __init__(
        self,
        answer: Callable[[str, str, dict[str, str]], Response],
        connection: socket.socket,
        address: Any,
        hold: Callable[[socket.socket, bytes], None],
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._answer = answer
        self._more_headers = headers
        self._hold = hold
        super().__init__(connection, address, cast(Any, None))

    def do_GET(self) -> None:
        self._respond(
            self._answer(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        )

    do_HEAD = do_GET  # noqa: N815 (http.server's name)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class can't make sense of, or has no method for."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._respond(self._answer(self.command, self.path, {}))
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
            *self._more_headers,
            *response.headers,
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)
        part(self.connection)

    def _linger(self) -> None:
        """Take in what the asker has yet to say: closing before resets the connection, and our answer is lost."""
        with suppress(OSError):
            hang_up(self.connection, socket.SHUT_WR)
            self.connection.settimeout(_LINGER)
            left = _MOST_LINGERED
            while left > 0 and (data := read_rest(self.connection, left)):
                left -= len(data)


class Endpoint:
    """Serves a Site from serve() until close(): see there for what it takes. Raises MachineError if it can't listen, or
    there is no thread for it.

    It has one site and bounds for all addresses that it listens at. Who comes before serve() waits. `beside` is one of
    ours that this one is to take over from: they may have addresses or ports in common.
    """

    def __init__(
        self,
        listen: Sequence[tuple[str, int]],
        metrics: WSGIApplication,
        overview: Callable[[], dict[str, Any]],
        judgement: Callable[[], Judgement],
        more: Mapping[str, Callable[[], dict[str, Any]]] = MappingProxyType({}),
        beside: Endpoint | None = None,
    ) -> None:
        _share_memory()
        with as_machine_error("metrics.listen"):
            self._site = Site(metrics, overview, judgement, more)
        self._sockets: _Sockets = _listen(listen, beside._sockets if beside else {})
        self._lock = threading.Lock()
        self._said = Said(again=_COMPLAIN)
        self._clients: dict[socket.socket, float] = {}  # and when they came, the oldest first
        self._hung_up: set[socket.socket] = set()
        self._answers: dict[socket.socket, bytes] = {}  # long ones that are being sent, the oldest first
        self._threads: set[threading.Thread] = set()
        self._secured = Secured()
        self._serves = threading.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        with ExitStack() as own:
            for each in self._sockets.values():
                own.callback(each.close)
            try:  # all of it now, when nothing hangs on it yet: later, there may be no descriptor and no thread for it
                self._wake, self._waker = map(own.enter_context, socket.socketpair())
                self._selector = own.enter_context(selectors.DefaultSelector())
                self._thread.start()
            except OSError as error:
                raise MachineError(f"metrics.listen: {remedy(error)}") from error
            except RuntimeError as error:
                raise MachineError(f"metrics.listen: {want_of_threads()}") from error
            self._own = own.pop_all()

    def secure(self, secured: Secured) -> None:
        """Serve whoever connects from now on in this way."""
        self._secured = secured

    def serve(self) -> None:
        """Answer from now on."""
        self._serves.set()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens: the ports are real ones, even if 0 was asked for."""
        return [_address(each) for each in self._sockets.values()]

    def close(self) -> None:
        """Stop serving: nobody asks for anything any more once this returns."""
        self._waker.send(b"\0")
        self._serves.set()
        self._thread.join()
        for each in self._sockets.values():
            each.close()
        with self._lock:
            for client in tuple(self._clients):
                self._hang_up(client)
            threads = tuple(self._threads)
        for thread in threads:
            thread.join(_PATIENCE)
        self._own.close()

    def _run(self) -> None:
        self._serves.wait()
        self._watch()
        self._selector.register(self._wake, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in self._selector.select(1.0 if self._clients else None)]
            if self._wake in ready:
                return
            if not all(self._accept(cast(socket.socket, each)) for each in ready):
                for each in self._sockets.values():
                    self._selector.unregister(each)  # who waits for us would wake us all the time
                if self._selector.select(_REST):
                    return
                self._watch()
            self._expire(time.monotonic() - _LIFETIME)

    def _watch(self) -> None:
        for each in self._sockets.values():
            self._selector.register(each, selectors.EVENT_READ)

    def _accept(self, listening: socket.socket) -> bool:
        """Take one connection; False if it is no use to try again at once."""
        try:
            connection, address = listening.accept()
        except OSError as error:
            if is_used_up(error.errno or 0):
                self._complain(listening, remedy(error))
                return False
            return True
        secured = self._secured
        try:
            connection = secured.wrap(connection)
        except (OSError, ValueError):  # it has hung up already, or sent something before
            connection.close()
            return True
        host, _ = _address(listening)
        connection.settimeout(_PATIENCE)
        thread = threading.Thread(
            target=self._serve, args=(connection, secured, host, address), name="web client", daemon=True
        )
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
            self._complain(listening, want_of_threads())
            return False
        return True

    def _complain(self, listening: socket.socket, why: str) -> None:
        if self._said.note(now=time.monotonic()):
            where = _spelled(*_address(listening))
            said = "%s: no connection can be taken: %s; trying again every %.1f s"
            log.error(said, where, why, _REST, extra=fields(error=why))

    def _serve(self, connection: socket.socket, secured: Secured, host: str, address: Any) -> None:
        def answer(method: str, target: str, headers: dict[str, str]) -> Response:
            if secured.passwords and method in READING:
                said = headers.get("authorization")
                if not secured.passwords.allow(said, str(address[0]), lambda: connection not in self._hung_up):
                    return say(HTTPStatus.UNAUTHORIZED, "Say a user's name and password.", _CHALLENGE)
            return self._site.answer(host, method, target, headers)

        try:
            with suppress(OSError):  # whatever became of the client
                shake_hands(connection)
                _Handler(answer, connection, address, self._hold, secured.headers)
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
        hang_up(client)


def _share_memory() -> None:
    """Let the C library's threads share two arenas: one for each of 24 would keep megabytes for the next time."""
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _listen(addresses: Sequence[tuple[str, int]], beside: _Sockets) -> _Sockets:
    """A socket for each address: where another of ours listens already, the same one, so that nobody is turned away."""
    listening: _Sockets = {}
    try:
        for address in addresses:
            listening[address] = beside[address].dup() if address in beside else _listen_at(address, beside)
    except OSError as error:
        for each in listening.values():
            each.close()
        raise MachineError(
            f"metrics.listen: can't listen on {_spelled(*address)}: {error.strerror}; choose another address, or"
            ' "" for none'
        ) from error
    return listening


def _listen_at(address: tuple[str, int], beside: _Sockets) -> socket.socket:
    host, port = address
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listening.family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # whatever the sysctl bindv6only says
        others = [each for each in beside.values() if _address(each)[1] == port]
        with _sharing(*((*others, listening) if others else ())):
            listening.bind(address)
            listening.listen(128)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _address(listening: socket.socket) -> tuple[str, int]:
    host, port = listening.getsockname()[:2]
    return str(host), int(port)


def _spelled(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
