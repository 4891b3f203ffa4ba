# SPDX-License-Identifier: GPL-2.0-or-later
"""What is served over HTTP: the status page, its data, the metrics, and whether the daemon is well. It only reads.

Each connection has a thread of its own and brings one answer, so a slow one is in nobody's way. There are never more
than _MOST_CLIENTS of them: the oldest gives way to a newcomer.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import json
import logging
import re
import selectors
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, cast

from npd6_xdp.core.errors import MachineError, is_want_of_room, remedy, want_of_threads

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

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
_FRESH = 0.5  # seconds that an overview is good for
_SHARE = 10  # and so many times what it took to make
_M_ARENA_MAX = -8  # of malloc.h
_TEXT = "text/plain; charset=utf-8"
_READING = ("GET", "HEAD")

_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; `headers` are those beside the usual ones."""

    status: HTTPStatus
    kind: str
    body: bytes
    headers: Sequence[tuple[str, str]] = ()
    policy: str = _NOTHING


def _say(status: HTTPStatus, line: str, *headers: tuple[str, str]) -> Response:
    return Response(status, _TEXT, f"{line}\n".encode(errors="replace"), headers)


class Site:
    """What there is to read, by path. `host` is the address that is listened on.

    `ailing` says why the daemon isn't well, "" if it is. The others are called by one thread at a time.
    """

    def __init__(
        self,
        host: str,
        metrics: WSGIApplication,
        overview: Callable[[], dict[str, Any]],
        ailing: Callable[[], str],
    ) -> None:
        self._names = _own_names(host)
        self._metrics = metrics
        self._scrapes = _Shared()
        self._overview = _Fresh(lambda: json.dumps(overview(), separators=(",", ":")).encode())
        self._ailing = ailing
        self._page = _page()
        self._complained: set[str] = set()

    def answer(self, method: str, target: str, headers: dict[str, str]) -> Response:
        """What to say to a question; the names of its headers are in lower case."""
        if method not in _READING:
            return _say(HTTPStatus.METHOD_NOT_ALLOWED, "This only reads: GET and HEAD.", ("Allow", ", ".join(_READING)))
        if not self._is_meant(headers.get("host")):
            known = ", ".join(sorted(self._names))
            return _say(HTTPStatus.MISDIRECTED_REQUEST, f"Ask for this by one of its own names: {known}.")
        path, _, query = target.partition("?")
        try:
            match path:
                case "/":
                    return self._page
                case "/status.json":
                    return Response(HTTPStatus.OK, "application/json", self._overview.get())
                case "/metrics":
                    return self._scrape(query, headers)
                case "/healthz":
                    why = self._ailing()
                    return _say(HTTPStatus.SERVICE_UNAVAILABLE, why) if why else _say(HTTPStatus.OK, "ok")
        except Exception as error:
            self._complain(path, error)
            return _say(HTTPStatus.INTERNAL_SERVER_ERROR, "This failed; the daemon's log says why.")
        return _say(HTTPStatus.NOT_FOUND, "There are /, /status.json, /metrics and /healthz.")

    def _is_meant(self, host: str | None) -> bool:
        """Whether a question is meant for us, where only this machine may ask.

        A page of somebody else's whose name resolves to ::1 has a browser here ask us, and may read what we say (DNS
        rebinding). The browser says the name.
        """
        if not self._names or host is None:  # a browser always says it; a load balancer's HTTP/1.0 may not
            return True
        name = re.sub(r":[0-9]*$", "", host.strip()).strip("[]").lower().removesuffix(".")
        with suppress(ValueError):
            name = str(ip_address(name))
        return name in self._names

    def _scrape(self, query: str, headers: dict[str, str]) -> Response:
        said: list[Any] = []
        environ: WSGIEnvironment = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/metrics",
            "QUERY_STRING": query,
        }
        for name in ("accept", "accept-encoding"):
            if name in headers:
                environ[f"HTTP_{name.upper().replace('-', '_')}"] = headers[name]

        def start(status: str, headers: list[tuple[str, str]], _: Any = None) -> Callable[[bytes], object]:
            said[:] = status, headers
            return lambda _: None

        def scrape() -> tuple[str, list[tuple[str, str]], bytes]:
            body = b"".join(self._metrics(environ, start))
            return (*said, body)

        status, found, body = self._scrapes.get((query, *environ.items()), scrape)
        kinds = [value for name, value in found if name.lower() == "content-type"]
        rest = [(name, value) for name, value in found if name.lower() not in ("content-type", "content-length")]
        return Response(HTTPStatus(int(status.split()[0])), (*kinds, _TEXT)[0], body, rest)

    def _complain(self, path: str, error: Exception) -> None:
        """Once each: who asks again must not fill the log."""
        line = f"{path} can't be shown: {type(error).__name__}: {error}"
        if line not in self._complained and len(self._complained) < 100:
            self._complained.add(line)
            log.error("%s", line)
        log.debug("where it happened", exc_info=error)


class _Fresh:
    """A document that is made when it is asked for, but not so often that it is work, however many ask."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._document = b""
        self._until = float("-inf")

    def get(self) -> bytes:
        with self._lock:
            began = time.monotonic()
            if began >= self._until:
                self._document = self._make()
                now = time.monotonic()
                self._until = max(began + _FRESH, now + (now - began) * _SHARE)
            return self._document


class _Scrape:
    """What is made once, for all who have asked before it was begun."""

    def __init__(self) -> None:
        self.result: tuple[str, list[tuple[str, str]], bytes] | None = None


class _Shared:
    """Documents that are made one at a time, each for all who ask for it before it is begun: it says what is then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._next: dict[Hashable, _Scrape] = {}

    def get(
        self, key: Hashable, make: Callable[[], tuple[str, list[tuple[str, str]], bytes]]
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        with self._lock:
            scrape = self._next.setdefault(key, _Scrape())
        with self._making:
            if scrape.result is None:
                with self._lock:
                    self._next.pop(key, None)  # who asks from now on gets another
                scrape.result = make()
            return scrape.result


def _own_names(host: str) -> frozenset[str]:
    """By what a loopback address is asked for; none, which is any, where it is another address."""
    address = ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if not (mapped or address).is_loopback:
        return frozenset()
    return frozenset({"localhost", "::1", "127.0.0.1", str(address)})


def _page() -> Response:
    """The page as the package has it; its own style and script, by their hashes, are all that it may use."""
    page = (files("npd6_xdp.system.http") / "status.html").read_text(encoding="utf-8")
    hashes = {
        tag: " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        )
        for tag in ("style", "script")
    }
    policy = f"style-src {hashes['style']}; script-src {hashes['script']}; connect-src 'self'; img-src data:"
    return Response(HTTPStatus.OK, "text/html; charset=utf-8", page.encode(), policy=f"{_NOTHING}; {policy}")


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

    do_HEAD = do_GET

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class can't make sense of, or has no method for."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self._respond(self._site.answer(self.command, self.path, {}))
        else:
            self.command = self.command or ""
            status = HTTPStatus(code)
            self._respond(_say(status, f"{status.phrase}."))
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
    """Serves a Site from serve() until close(): see there for what it takes. Raises MachineError if it can't listen.

    Who comes before serve() waits. `beside` is one of ours that this one is to take over from: they may have a port in
    common.
    """

    def __init__(
        self,
        listen: tuple[str, int],
        metrics: WSGIApplication,
        overview: Callable[[], dict[str, Any]],
        ailing: Callable[[], str],
        beside: Endpoint | None = None,
    ) -> None:
        host, port = listen
        _share_memory()
        self._site = Site(host, metrics, overview, ailing)
        self._socket: socket.socket = _listen(host, port, beside._socket if beside else None)
        self._wake, self._waker = socket.socketpair()
        self._lock = threading.Lock()
        self._complained = -_COMPLAIN
        self._clients: dict[socket.socket, float] = {}  # and when they came, the oldest first
        self._hung_up: set[socket.socket] = set()
        self._answers: dict[socket.socket, bytes] = {}  # long ones that are being sent, the oldest first
        self._threads: set[threading.Thread] = set()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def serve(self) -> None:
        """Answer from now on. Raises MachineError if there is no thread for it."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise MachineError(f"metrics.listen: {want_of_threads()}") from error

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: the port is a real one, even if 0 was asked for."""
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    def close(self) -> None:
        """Stop serving: nobody asks for anything any more once this returns."""
        self._waker.send(b"\0")
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()
        with self._lock:
            for client in tuple(self._clients):
                self._hang_up(client)
            threads = tuple(self._threads)
        for thread in threads:
            thread.join(_PATIENCE)
        self._wake.close()
        self._waker.close()

    def _run(self) -> None:
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
            if is_want_of_room(error.errno or 0):
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
        now = time.monotonic()
        if now - self._complained >= _COMPLAIN:
            self._complained = now
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
