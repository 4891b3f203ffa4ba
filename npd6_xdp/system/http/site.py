# SPDX-License-Identifier: GPL-2.0-or-later
"""What there is to read over HTTP, by path: the status page, its data, the metrics, and whether the daemon is well."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from npd6_xdp.core.judgement import Judgement, State
from npd6_xdp.core.logged import fields
from npd6_xdp.core.said import Said
from npd6_xdp.core.warnings import MOST_SAID

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication, WSGIEnvironment

log = logging.getLogger("npd6-xdp")

_FRESH = 0.5  # seconds that an overview is good for
_SHARE = 10  # and so many times what it took to make
_MOST_SAID = 100  # different failures
_TEXT = "text/plain; charset=utf-8"
READING = ("GET", "HEAD")
"""The methods that are answered."""

_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; `headers` are those beside the usual ones."""

    status: HTTPStatus
    kind: str
    body: bytes
    headers: Sequence[tuple[str, str]] = ()
    policy: str = _NOTHING


def say(status: HTTPStatus, line: str, *headers: tuple[str, str]) -> Response:
    """An answer of text: a line, or some."""
    return Response(status, _TEXT, f"{line}\n".encode(errors="replace"), headers)


def _health(judgement: Judgement) -> Response:
    """For load balancers, which look at the status, and for who reads: a line a problem."""
    if judgement.state is State.WORKING:
        return say(HTTPStatus.OK, "ok")
    is_ill = judgement.state is State.NOT_ANSWERING
    lines = (" ".join(each.text.splitlines()) for each in judgement.problems[:MOST_SAID])
    status = HTTPStatus.SERVICE_UNAVAILABLE if is_ill else HTTPStatus.OK
    return say(status, "\n".join([judgement.headline, *lines]))


class Site:
    """What there is to read, by path.

    `more` has documents by their paths. `judgement` may be called by many threads at once, the others by one at a time.
    """

    def __init__(
        self,
        metrics: WSGIApplication,
        overview: Callable[[], dict[str, Any]],
        judgement: Callable[[], Judgement],
        more: Mapping[str, Callable[[], dict[str, Any]]],
    ) -> None:
        self._metrics = metrics
        self._scrapes = _Shared()
        self._json = {path: _Fresh(make) for path, make in {"/status.json": overview, **more}.items()}
        self._judgement = judgement
        self._page = _page()
        self._said = Said()

    def answer(self, host: str, method: str, target: str, headers: dict[str, str]) -> Response:
        """What to say to a question that has come at the address `host`; the names of its headers are in lower case."""
        if method not in READING:
            return say(HTTPStatus.METHOD_NOT_ALLOWED, "This only reads: GET and HEAD.", ("Allow", ", ".join(READING)))
        names = _own_names(host)
        if not _is_meant(headers.get("host"), names):
            known = ", ".join(sorted(names))
            return say(HTTPStatus.MISDIRECTED_REQUEST, f"Ask for this by one of its own names: {known}.")
        path, _, query = target.partition("?")
        try:
            match path:
                case "/":
                    return self._page
                case "/metrics":
                    return self._scrape(query, headers)
                case "/healthz":
                    return _health(self._judgement())
            if path in self._json:
                return Response(HTTPStatus.OK, "application/json", self._json[path].get())
        except Exception as error:
            self._complain(path, error)
            return say(HTTPStatus.INTERNAL_SERVER_ERROR, "This failed; the daemon's log says why.")
        return say(
            HTTPStatus.NOT_FOUND, "There are /, /metrics, /healthz, /status.json, /samples.json and /rules.json."
        )

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
        if len(self._said) < _MOST_SAID and self._said.note(line):
            log.error("%s", line, extra=fields(error=f"{type(error).__name__}: {error}"))
        log.debug("where it happened", exc_info=error, extra=fields(error=f"{type(error).__name__}: {error}"))


class _Fresh:
    """A document that is made when it is asked for, but not so often that it is work, however many ask."""

    def __init__(self, values: Callable[[], dict[str, Any]]) -> None:
        self._values = values
        self._lock = threading.Lock()
        self._document = b""
        self._until = float("-inf")

    def get(self) -> bytes:
        with self._lock:
            began = time.monotonic()
            if began >= self._until:
                self._document = json.dumps(self._values(), separators=(",", ":")).encode()
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


@cache
def _own_names(host: str) -> frozenset[str]:
    """By what a loopback address is asked for; none, which is any, where it is another address."""
    address = ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if not (mapped or address).is_loopback:
        return frozenset()
    return frozenset({"localhost", "::1", "127.0.0.1", str(address)})


def _is_meant(asked: str | None, names: frozenset[str]) -> bool:
    """Whether a question is meant for us, where only this machine may ask.

    A page of somebody else's whose name resolves to ::1 has a browser here ask us, and may read what we say (DNS
    rebinding). The browser says the name.
    """
    if not names or asked is None:  # a browser always says it; a load balancer's HTTP/1.0 may not
        return True
    name = re.sub(r":[0-9]*$", "", asked.strip()).strip("[]").lower().removesuffix(".")
    with suppress(ValueError):
        name = str(ip_address(name))
    return name in names


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
