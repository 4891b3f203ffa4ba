# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP: it only reads, costs little however many clients ask, and one client doesn't delay another."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import json
import os
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from prometheus_client import CollectorRegistry, make_wsgi_app

from docs.metrics import EXAMPLE
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.judgement import WORKING, Judgement, Problem, ProblemKind, State
from npd6_xdp.core.snapshot import AnswerTimes, RuleSnapshot, Snapshot
from npd6_xdp.core.verdict import Method, Outcome
from npd6_xdp.system.http import site
from npd6_xdp.system.http.endpoint import Endpoint
from npd6_xdp.system.http.metrics import ScrapeCost, SnapshotCollector, metrics_app
from tests.netns.wire import until

NEXT = Judgement(State.NOT_ANSWERING, [Problem(ProblemKind.LOOP, "the next")])
PATHS = ("/", "/status.json", "/samples.json", "/rules.json", "/metrics", "/healthz")


class Served:
    """An endpoint on a port of its own, and what it serves."""

    def __init__(self, host: str = "::1") -> None:
        self.made = 0
        self.cost = 0.0
        self.judged = WORKING
        self.error: Exception | None = None
        self.scrapes = 0
        self.long = 0
        self.metrics_go = threading.Event()
        self.metrics_go.set()
        more = {"/samples.json": dict, "/rules.json": dict}
        app = metrics_app(lambda: Snapshot([], [], {"lan0": 3}, {}, AnswerTimes(), 1.0, 0, {"version": "1"}))

        def metrics(environ: WSGIEnvironment, start: StartResponse) -> Any:
            self.scrapes += 1
            self.metrics_go.wait(120)
            if self.long:
                start("200 OK", [("Content-Type", "text/plain")])
                return [str(self.scrapes).encode() * self.long]
            return app(environ, start)

        self.endpoint = Endpoint([(host, 0)], metrics, self._overview, lambda: self.judged, more)
        self.endpoint.serve()
        ((self.host, self.port),) = self.endpoint.addresses

    def _overview(self) -> dict[str, Any]:
        if self.error:
            raise self.error
        self.made += 1
        time.sleep(self.cost)
        return {"made": self.made}

    def connect(self) -> socket.socket:
        connection = socket.create_connection((self.host, self.port), timeout=60)
        connection.settimeout(60)
        return connection

    def raw(self, question: bytes) -> bytes:
        """What comes back for these very bytes."""
        with self.connect() as connection:
            connection.sendall(question)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def ask(
        self, path: str = "/healthz", method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        found = response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        connection.close()
        return found


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.metrics_go.set()
    served.endpoint.close()


def test_each_path_has_its_kind_and_the_headers_that_keep_it_to_itself(served: Served) -> None:
    kinds = {}
    for path in (*PATHS, "/nothing"):
        status, headers, body = served.ask(path)
        assert status == (404 if path == "/nothing" else 200)
        kinds[path] = headers["content-type"].partition(";")[0]
        assert int(headers["content-length"]) == len(body)
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["form-action"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers
    assert kinds == {
        "/": "text/html",
        "/status.json": "application/json",
        "/samples.json": "application/json",
        "/rules.json": "application/json",
        "/metrics": "text/plain",
        "/healthz": "text/plain",
        "/nothing": "text/plain",
    }


def test_the_page_may_use_its_own_style_and_script_and_nothing_else(served: Served) -> None:
    _, headers, body = served.ask("/")
    page, policy = body.decode(), headers["content-security-policy"]
    for tag in ("style", "script"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    outside = re.sub(r"http://www\.w3\.org/2000/svg", "", page)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", outside), "an asset from outside"
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", page)
    assert not re.search(r"\s(?:style|on[a-z]+)=", page), "the policy forbids what stands in attributes"


def test_head_is_get_without_the_body(served: Served) -> None:
    for path in ("/", "/healthz"):
        status, headers, body = served.ask(path, "HEAD")
        assert (status, body) == (200, b"")
        assert headers["content-length"] == served.ask(path)[1]["content-length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_nothing_but_reading_is_allowed(served: Served, method: str) -> None:
    for path in PATHS:
        status, headers, body = served.ask(path, method, b"x" * 20_000)
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        assert body == b"This only reads: GET and HEAD.\n"
    assert served.made == 0


def test_metrics_are_what_prometheus_client_makes_of_them(served: Served) -> None:
    status, headers, body = served.ask("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")
    assert 'npd6_neighbours{interface="lan0"} 3.0' in body.decode()
    assert "process_resident_memory_bytes" in body.decode()
    _, headers, body = served.ask("/metrics", accept_encoding="gzip")
    assert headers["content-encoding"] == "gzip"
    assert b"npd6_neighbours" in gzip.decompress(body)
    assert served.ask("/metrics?name[]=none_of_that_name")[::2] == (200, b"")
    _, headers, body = served.ask("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_healthz_is_ok_or_says_why_not(served: Served) -> None:
    assert served.ask("/healthz")[::2] == (200, b"ok\n")
    down = Problem(ProblemKind.DOWN, "no interface is attached and up: wan0 is down")
    served.judged = Judgement(State.NOT_ANSWERING, [down])
    said = b"not answering\nno interface is attached and up: wan0 is down\n"
    assert served.ask("/healthz")[::2] == (503, said)
    assert served.ask("/healthz", "HEAD")[0] == 503
    served.judged = Judgement(State.DEGRADED, [Problem(ProblemKind.LOST, "wan0:\nlost"), down])
    said = b"degraded: 2 problems\nwan0: lost\nno interface is attached and up: wan0 is down\n"
    assert served.ask("/healthz")[::2] == (200, said)
    served.judged = Judgement(State.DEGRADED, [down] * 4000)
    assert served.ask("/healthz")[2].count(b"\n") == 21


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9846", "[::1]", "[::1]:1", "127.0.0.1:80", "[0:0:0:0:0:0:0:1]:9846", "localhost."]
)
def test_on_loopback_its_own_names_are_served(served: Served, host: str) -> None:
    assert served.ask(host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:9846", "localhost.evil.example", "", "[::2]", "192.0.2.1", "a b", "[", "::1]x"],
)
def test_on_loopback_another_name_is_refused_so_that_no_foreign_page_reads_through_a_browser(
    served: Served, host: str
) -> None:
    for path in PATHS:
        status, _, body = served.ask(path, host=host)
        assert status == 421
        assert b"127.0.0.1, ::1, localhost" in body
    assert served.made == 0


def test_the_configured_address_is_a_name_too_and_others_are_not_looked_at_off_loopback() -> None:
    served = Served("127.0.0.2")
    assert [served.ask(host=name)[0] for name in ("127.0.0.2:9846", "localhost", "x.example")] == [200, 200, 421]
    served.endpoint.close()
    served = Served("0.0.0.0")  # noqa: S104
    assert served.ask(host="router.example:9846")[0] == 200
    served.endpoint.close()


def test_a_load_balancer_that_says_no_host_is_answered(served: Served) -> None:
    assert served.raw(b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200 ")


@pytest.mark.parametrize(
    ("question", "status"),
    [
        (b"\r\n\r\n", b""),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/9.9.9\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\r\n", b"400"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.0\r\n\r\n", b"414"),
        (b"GET / HTTP/1.0\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.0\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"431"),
        (b"GET /../etc/passwd HTTP/1.0\r\n\r\n", b"404"),
        (b"GET //evil.example/ HTTP/1.0\r\n\r\n", b"404"),
        (b"GET http://evil.example/ HTTP/1.0\r\n\r\n", b"404"),
        (b"GET /%00\xff HTTP/1.0\r\n\r\n", b"404"),
    ],
)
def test_nonsense_gets_an_error_and_the_next_an_answer(served: Served, question: bytes, status: bytes) -> None:
    answer = served.raw(question)
    assert answer[9:12] == status
    if status:
        assert b"nosniff" in answer
        assert b"default-src 'none'" in answer
        assert b"evil" not in answer
    assert served.ask()[0] == 200


def test_however_many_ask_an_overview_is_made_twice_a_second_at_most(served: Served) -> None:
    began = time.monotonic()
    answers: list[int] = []

    def ask() -> None:
        while time.monotonic() < began + (20 if served.made < 2 or len(answers) <= 50 else 1.2):
            answers.append(served.ask("/status.json")[0])

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) > 50
    assert set(answers) == {200}
    assert 2 <= served.made <= 2 + 2 * (time.monotonic() - began)


def test_what_takes_long_to_make_is_made_less_often(served: Served) -> None:
    served.cost = 0.5  # it is good for five seconds then
    first = json.loads(served.ask("/status.json")[2])
    time.sleep(0.7)
    assert json.loads(served.ask("/status.json")[2]) == first == {"made": 1}


def test_an_error_is_said_in_the_log_once_and_the_next_answer_is_right(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served.error = MachineError("the map is gone")
    for _ in range(3):
        status, _, body = served.ask("/status.json")
        assert (status, b"map" in body) == (500, False)
    said = ["/status.json can't be shown: MachineError: the map is gone"]
    # by the thread that has answered, maybe after the answer was read
    assert until(lambda: [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == said)
    served.error = None
    assert served.ask("/status.json")[0] == 200


def test_a_hundred_silent_clients_are_in_nobodys_way(served: Served) -> None:
    silent = [served.connect() for _ in range(100)]
    try:
        for path in PATHS:
            assert served.ask(path)[0] == 200
        assert threading.active_count() < 48 + 8
        assert silent[0].recv(1) == b"", "the oldest was hung up on"
    finally:
        for client in silent:
            client.close()


def test_slow_ones_and_those_who_never_read_hold_up_nobody(served: Served) -> None:
    clients = [served.connect() for _ in range(20)]
    try:
        for client in clients[:10]:
            client.sendall(b"GET / HT")
        for client in clients[10:]:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        began = time.monotonic()
        assert served.ask("/")[0] == 200
        assert time.monotonic() - began < 8, "ten seconds are what each of them has"
        for client in clients[:10]:  # and the slow one gets its answer, too
            client.sendall(b"TP/1.0\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.0 200"
    finally:
        for client in clients:
            client.close()


def test_health_is_told_while_the_metrics_take_their_time(served: Served) -> None:
    served.metrics_go.clear()
    with served.connect() as scraper:
        scraper.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        time.sleep(0.05)
        assert served.ask("/healthz")[0] == served.ask("/status.json")[0] == 200
        served.metrics_go.set()
        assert scraper.recv(12) == b"HTTP/1.0 200"


def test_more_who_wait_for_the_metrics_than_there_is_space_for_are_refused_and_come_back(served: Served) -> None:
    served.metrics_go.clear()
    before = threading.active_count()
    clients = []
    for _ in range(150):
        client = served.connect()
        clients.append(client)
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    time.sleep(0.2)
    assert threading.active_count() - before <= 48
    served.metrics_go.set()
    for client in clients:
        client.close()
    assert until(lambda: threading.active_count() == before)
    assert served.ask("/metrics")[0] == 200


def test_closing_hangs_up_at_once_and_frees_the_address() -> None:
    before = threading.active_count()
    served = Served()
    with served.connect(), served.connect() as half:
        half.sendall(b"GET")
        assert until(lambda: threading.active_count() == before + 3), "two are listened to"
        began = time.monotonic()
        served.endpoint.close()
        assert time.monotonic() - began < 8, "ten seconds are what each of them has"
        assert threading.active_count() == before
        assert half.recv(1) == b""
    again = Endpoint([(served.host, served.port)], lambda *_: [], dict, lambda: WORKING)
    again.close()


def test_it_takes_over_a_port_from_another_of_ours_and_from_nobody_else() -> None:
    served = Served()

    def take(beside: Endpoint | None) -> Endpoint:
        return Endpoint([("::", served.port)], lambda _, __: [], dict, lambda: WORKING, beside=beside)

    with pytest.raises(MachineError, match="Address already in use"):
        take(None)
    foreign = socket.create_server(("127.0.0.1", served.port))
    with foreign, pytest.raises(MachineError, match="Address already in use"):
        take(served.endpoint)
    after = take(served.endpoint)
    after.serve()
    assert served.ask()[0] == 200
    served.endpoint.close()
    assert served.ask()[0] == 200
    after.close()


def test_it_listens_at_several_addresses_with_one_site_and_the_names_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    app = metrics_app(lambda: Snapshot([], [], {}, {}, AnswerTimes(), 1.0, 0, {"version": "1"}))

    def overview() -> dict[str, Any]:
        made.append(1)
        return {}

    monkeypatch.setattr(site, "_FRESH", 60.0)  # however long this machine takes for ten questions
    endpoint = Endpoint([("::1", 0), ("127.0.0.1", 0), ("127.0.0.2", 0)], app, overview, lambda: WORKING)
    endpoint.serve()
    try:
        assert [host for host, _ in endpoint.addresses] == ["::1", "127.0.0.1", "127.0.0.2"]
        for host, port in endpoint.addresses:
            for name in (
                f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
                "localhost",
                "127.0.0.2",
                "x.example",
            ):
                connection = http.client.HTTPConnection(host, port, timeout=60)
                connection.request("GET", "/status.json", headers={"Host": name})
                found = connection.getresponse().status
                connection.close()
                refused = name == "x.example" or (name == "127.0.0.2" and host != name)
                assert found == (421 if refused else 200), (host, name)
        assert len(made) == 1, "one overview for all that ask while it is fresh"
    finally:
        endpoint.close()


def test_one_of_several_that_cant_be_had_is_named_and_the_others_are_let_go_of(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    listen = [("127.0.0.1", port), ("::1", served.port), ("127.0.0.2", port)]
    with pytest.raises(MachineError, match=rf"metrics.listen: can't listen on \[::1\]:{served.port}: Address already"):
        Endpoint(listen, lambda *_: [], dict, lambda: WORKING)
    socket.create_server(("127.0.0.1", port)).close()


def test_who_comes_while_another_of_ours_takes_over_the_same_address_is_answered() -> None:
    served = Served()
    after = Endpoint(
        [("::1", 0), ("127.0.0.1", served.port)], lambda *_: [], dict, lambda: NEXT, beside=served.endpoint
    )
    try:
        assert after.addresses[0] == (served.host, served.port)
        assert served.ask()[::2] == (200, b"ok\n"), "nobody is answered by the next before it serves"
        with socket.create_connection((served.host, served.port), timeout=60) as waiting:
            waiting.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert waiting.recv(12) == b"HTTP/1.0 200"
        served.endpoint.close()
        with socket.create_connection((served.host, served.port), timeout=60) as waiting:  # nobody is there to answer
            waiting.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            after.serve()
            assert waiting.recv(12) == b"HTTP/1.0 503"
    finally:
        after.close()


def test_an_address_that_cant_be_had_is_an_error_that_names_it(served: Served) -> None:
    with pytest.raises(MachineError, match=rf"metrics.listen: can't listen on \[::1\]:{served.port}: Address already"):
        Endpoint([("::1", served.port)], lambda *_: [], dict, lambda: WORKING)


def test_a_question_of_the_oldest_kind_gets_headers_too() -> None:
    """As BaseHTTPRequestHandler has it, none: and nothing then keeps a browser from taking the text for a page."""
    served = Served()
    try:
        with served.connect() as connection:
            connection.sendall(b"GET /healthz HTTP/0.9\r\n\r\n")
            said = b"".join(iter(lambda: connection.recv(4096), b""))
    finally:
        served.endpoint.close()
    assert said.startswith(b"HTTP/1.0 200 ")
    assert b"nosniff" in said


def test_who_asks_for_metrics_while_they_are_made_shares_the_next_and_none_gets_what_was_begun_before(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    get = site._Shared.get

    def counting(shared: site._Shared, key: Hashable, make: Callable[[], Any]) -> Any:
        asked.append(key)
        return get(shared, key, make)

    monkeypatch.setattr(site._Shared, "get", counting)
    served.metrics_go.clear()
    clients = []
    for _ in range(12):
        clients.append(served.connect())
        clients[-1].sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert until(lambda: served.scrapes == 1 and len(asked) == 12)
    time.sleep(0.2)  # the last one is on the list, too
    served.metrics_go.set()
    for client in clients:
        assert client.recv(12) == b"HTTP/1.0 200"
        client.close()
    assert served.scrapes <= 4, "one for the first, and one for nearly all others"


def test_of_long_answers_that_nobody_reads_there_are_three_and_the_newest_comes_whole(served: Served) -> None:
    served.long = 8 << 20
    clients = []
    for _ in range(8):
        clients.append(served.connect())
        clients[-1].sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert clients[-1].recv(12) == b"HTTP/1.0 200"
    whole = b"".join(iter(lambda: clients[-1].recv(1 << 20), b""))
    assert whole.endswith(b"8" * (8 << 20))
    cut = [len(b"".join(iter(lambda client=client: client.recv(1 << 20), b""))) < 8 << 20 for client in clients[:-1]]  # type: ignore[misc]
    assert cut == [True] * 5 + [False] * 2
    for client in clients:
        client.close()


class Free(ScrapeCost):
    """That of scrapes that cost nothing, each the same as the one before."""

    def add(self, seconds: float) -> None:
        pass


def test_the_metrics_are_byte_for_byte_what_prometheus_client_makes_of_the_whole() -> None:
    for count in (0, 1, 33, 300):
        interfaces = [
            replace(EXAMPLE.interfaces[0], label=f'w"{n}\\\n#', attach="native" if n % 2 else "") for n in range(count)
        ]
        rules = [RuleSnapshot("w", f"r{n}", Method.STATIC, {Outcome.LOST: n}) for n in range(count)]
        snapshot = replace(EXAMPLE, interfaces=interfaces, rules=rules)
        registry = CollectorRegistry()
        registry.register(SnapshotCollector(lambda: snapshot))  # noqa: B023
        whole, parts = make_wsgi_app(registry), metrics_app(lambda: snapshot, Free())  # noqa: B023
        for accept in ("", "text/plain;version=1.0.0", "application/openmetrics-text; version=1.0.0"):
            (said, wanted), (ours, found) = (scrape(app, accept) for app in (whole, parts))
            assert ours == said
            process = found.index(b"# HELP process_")
            assert found[:process] + b"# EOF\n" * (b"# EOF" in found) == wanted


def test_samples_that_are_asked_for_by_name_are_those_of_the_whole_and_every_scrape_has_its_cost() -> None:
    cost = ScrapeCost()
    app = metrics_app(lambda: EXAMPLE, cost)
    _, whole = scrape(app, "")
    for number, names in enumerate(
        (["npd6_warnings", "process_open_fds"], ["npd6_solicitations_total"], ["nothing"]), 2
    ):
        _, found = scrape(app, "", "&".join(f"name[]={name}" for name in names))
        samples = [re.split("[{ ]", line)[0] for line in found.decode().splitlines() if not line.startswith("#")]
        assert {*samples} == {*names} - {"nothing"}
        for line in found.splitlines():
            assert line in whole.splitlines() or line.startswith(b"process_open_fds ")
        assert cost.value[0] == number
    assert scrape(app, "", "other=1")[1].count(b"\n") == whole.count(b"\n")


def scrape(app: Any, accept: str, query: str = "") -> tuple[Any, bytes]:
    said: list[Any] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "QUERY_STRING": query, "HTTP_ACCEPT": accept}
    body = b"".join(app(environ, lambda status, headers: said.extend((status, headers))))
    return said, body


@contextmanager
def descriptors_left(count: int) -> Iterator[int]:
    """This process can have so many more while the block runs; says which the first of them is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(first := os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + count, hard))
    try:
        yield first
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_endpoint_that_was_made_needs_no_descriptor_to_serve() -> None:
    """They may be used up before its thread comes to that, on a busy machine: it ended, and nobody was served again."""
    endpoint = Endpoint([("::1", 0)], make_wsgi_app(CollectorRegistry()), dict, lambda: WORKING)
    try:
        with descriptors_left(0):
            endpoint.serve()
            time.sleep(0.2)
        ((host, port),) = endpoint.addresses
        connection = http.client.HTTPConnection(host, port, timeout=60)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        endpoint.close()


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_where_there_are_too_few_descriptors_for_an_endpoint_it_says_so_and_leaves_none(count: int) -> None:
    error = pytest.raises(MachineError, match=r"metrics.listen: .*Too many open files")
    with descriptors_left(count) as first, error:
        Endpoint([("::1", 0)], make_wsgi_app(CollectorRegistry()), dict, lambda: WORKING)
    os.close(found := os.dup(0))
    assert found == first
