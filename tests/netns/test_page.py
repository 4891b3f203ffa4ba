# SPDX-License-Identifier: GPL-2.0-or-later
"""The status page in a real browser, its data and the daemon's health, from a real daemon under real traffic."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address
from itertools import cycle
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from npd6_xdp.lab.daemon import PROGRAM, RunningDaemon
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from tests.frames import ether, ip6
from tests.kinds import sllao
from tests.netns.browser import URL, Page
from tests.netns.verb import verb
from tests.netns.wire import Wire, configuration, flood, on_edge, private_megabytes, question, scan, until

Start = Callable[..., RunningDaemon]

RULES = (
    "2001:db8:1::/64 neighbour via=lan0 host_routes=true",
    "2001:db8:2::/64 kernel",
    "2001:db8:3::/64 static",
    "2001:db8:4::/64 ignore",
)

PATHS = ("/", "/status.json", "/samples.json", "/rules.json", "/metrics", "/healthz")

needs_browser = pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium here: deploy/setup.sh --test")


def get(running: RunningDaemon, path: str, method: str = "GET") -> tuple[int, bytes]:
    """What the daemon's HTTP says, asked from within its namespace."""
    connection = http.client.HTTPConnection("::1", 9846, timeout=60)
    with running.topology.inside(running.namespace):
        connection.request(method, path)
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


def data(running: RunningDaemon) -> Any:
    status, body = get(running, "/status.json")
    assert status == 200
    return json.loads(body)


@needs_browser
def test_the_page_shows_the_real_counters_and_they_move(topology: Topology, daemon: Start, page: Page) -> None:
    running = daemon("[limits]\npending = 16\n" + configuration(*RULES))  # for which any neighbour table has space
    with Wire(topology) as wire:
        assert wire.ask(question(HOST_ADDRESS)) is not None
        wire.send(question("2001:db8:2::7"), question("2001:db8:4::1"), question("2001:db8:9::1"))
        wire.send(question("2001:db8:3::1")[:-1] + b"\0")
    with flood(topology, cycle(scan(64, "2001:db8:3::")), 300):
        page.open()
        before = page.total("answered_xdp")
        assert page.becomes(lambda: page.total("answered_xdp") > before + 600, 6.0)
        assert page.becomes(lambda: 200 < float(page.text("#outcome-answered_xdp .rate span")) < 400)
        assert page.text("#state span") == "working"
        drawn = page.run("return document.querySelector('#plot path.line').getAttribute('d')")
        assert drawn.count(",") >= 2
        label = page.run("return document.querySelector('#outcome-answered_xdp svg').getAttribute('aria-label')")
        assert re.fullmatch(r"answered_xdp: now [\d,]+ per second, at most [\d,.]+ in the last 5 minutes", label)
    final = running.solicitations()
    assert page.becomes(lambda: all(page.total(outcome) == n for outcome, n in final.items()))
    assert set(final) >= {"answered_xdp", "answered_python", "pending", "ignored", "unmatched", "invalid"}
    assert "checksum 1" in page.text("#outcome-invalid .what")
    assert re.fullmatch(r"\d+ sent for resolution", page.text("#outcome-pending .sum span"))
    assert page.texts("#rules-title ~ div th")[-1] == "Outcomes since start"
    (row,) = page.texts("#interfaces tr")
    assert "2, 1 after resolution" in " ".join(row.split())
    reason = "not native: native XDP_TX is lost on veth unless the peer has a program, too"
    assert re.match(rf"wan0\s+up\s+tc ingress\s+{reason}\s+hybrid\s", row)
    rows = page.texts("#rules tr")
    assert [tuple(re.split(r"\s+", row)[:3]) for row in rows] == [
        (rule.split()[0], "wan0", rule.split()[1]) for rule in RULES
    ]
    assert f"answered_xdp {final['answered_xdp']:,}" in " ".join(rows).replace("\n", " ")
    figures = " ".join(page.texts("#figures > div")).replace("\n", " ")
    for words in (
        "Pending 0 being resolved",
        "Neighbours 1 lan0 1",
        "Proxy entries 1 wan0 1",
        "Host routes 1",
        "Losses 0 nothing lost",
    ):
        assert words in figures
    assert HOST_ADDRESS not in page.run("return document.documentElement.outerHTML")
    running.write("[limits]\npending = 16\n" + configuration(*RULES, attach='"tc"'))
    assert verb(running, "reload").returncode == 0
    assert page.becomes(
        lambda: re.match(r"wan0\s+up\s+tc ingress\s+hybrid\s", page.texts("#interfaces tr")[0]) is not None
    )
    whole = " ".join(page.texts("body")[0].split())
    for words in ("Solicitations per second", f"{sum(final.values()):,} total", "None since start: "):
        assert words in whole
    assert page.complaints() == []
    assert page.requested() == {URL, f"{URL}status.json", f"{URL}samples.json"}


@needs_browser
def test_it_can_be_read_on_a_phone_in_the_dark_and_by_a_machine_and_what_a_file_says_is_no_markup(
    topology: Topology, daemon: Start, page: Page
) -> None:
    long = "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1111-2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff static"
    evil = "<b>wan<hr>"
    on_edge(topology, f"link add {evil} type veth peer name peer0", f"link set {evil} up")
    running = daemon(configuration(*RULES, long) + configuration().replace("wan0", evil))
    running.write(f"'<script>alert(1)</script><img src=x>{'nonsense' * 30}' = 1\n")
    assert verb(running, "reload").returncode == 1
    with Wire(topology) as wire:
        wire.send(*scan(50, "2001:db8:3::"), *scan(50, "2001:db8:4::"), *scan(5, "2001:db8:9::"))
    page.open()
    grounds = set()
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        for width in (320, 390, 768, 860, 861, 1024, 1440):
            page.resize(width)
            assert page.run("return document.scrollingElement.scrollWidth <= innerWidth"), f"{width} scrolls sideways"
            faint = {text: round(ratio, 2) for text, ratio in page.contrasts().items() if ratio < 4.5}
            assert faint == {}, f"{scheme} at {width}"
        grounds.add(page.run("return getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2
    assert page.run("return [...document.querySelectorAll('svg[role=img]')].every((s) => s.ariaLabel)")
    assert page.run("return document.documentElement.lang") == "en"
    assert "<script>alert(1)</script><img src=x>" in page.text("#notes pre")
    assert page.texts("#interfaces td:first-child") == ["wan0", evil]
    assert not page.has("img, b.name, hr, main script")
    assert page.complaints() == []
    assert page.text("#state").startswith("degraded: ")
    assert re.fullmatch(r"▲ [\d.]+/s · .* · npd6-xdp", page.run("return document.title"))


@needs_browser
def test_it_shows_which_of_two_edges_it_is(topology: Topology, daemon: Start, page: Page) -> None:
    address = "192.0.2.1"
    daemon(configuration(active_with=f'"{address}"'))
    page.open()
    assert page.becomes(lambda: page.text("#interfaces .flag span") == "up, on standby")
    assert page.texts("#interfaces .role") == [f"on standby: {address} isn't on this machine"], (
        "to be read, not hovered"
    )
    on_edge(topology, f"address add {address}/32 dev lo")
    assert page.becomes(lambda: page.text("#interfaces .flag span") == "up, active")
    assert page.texts("#interfaces .role") == [f"active: {address} is on this machine"]
    assert not page.has("#interfaces [title]")


@needs_browser
def test_it_says_when_the_daemon_is_gone_and_goes_on_with_the_next(
    topology: Topology, daemon: Start, page: Page
) -> None:
    first = daemon(configuration("2001:db8:3::/64 static"))
    with Wire(topology) as wire:
        wire.send(*scan(50, "2001:db8:3::"))
    page.open()
    assert page.becomes(lambda: page.total("answered_xdp") == 50)
    first.kill()
    assert page.becomes(lambda: page.text("#state") == "not answering")
    daemon(configuration("2001:db8:3::/64 static"))
    assert page.becomes(lambda: page.text("#state") == "working")
    assert page.total("answered_xdp") == 0
    assert "answered_xdp" in " ".join(page.texts(".quiet"))
    page.tab_to("#pause")
    page.press_focused(Keys.ENTER)
    assert page.text("#state") == "paused"
    page.press_focused(Keys.SPACE)
    assert page.becomes(lambda: page.text("#state") == "working")


TARGETS = (
    "2001:db8:1::5ca1:ab1e:7a1e",  # resolved, and never there
    "2001:db8:2::5ca1:ab1e:7a1e",  # the kernel's to answer for, from now on
    "2001:db8:3::5ca1:ab1e:7a1e",  # answered
    "2001:db8:4::5ca1:ab1e:7a1e",  # ignored
    "2001:db8:5::5ca1:ab1e:7a1e",  # no rule's
)
TELLTALE = ip6("2001:db8:77::f00d:cafe:beef"), ip6("fe80::f00d:cafe:beef"), ether("02:5e:c2:e7:1d:ea")
SLLA = ether("02:d1:5c:10:5e:d5")


def spellings(raw: bytes) -> set[bytes]:
    """The ways to write down an address of a packet, in lower case, and those of its last 6 bytes."""
    tail = raw[-6:]
    found = {raw, base64.b64encode(raw).rstrip(b"="), ", ".join(map(str, raw)).encode(), repr(raw)[2:-1].encode()}
    for each in (raw, tail):
        found |= {each.hex(separator, size).encode() for separator in ":-._ " for size in (1, 2)}
        found |= {each.hex().encode(), str(int.from_bytes(each)).encode(), ".".join(each.hex()[::-1]).encode()}
        found |= {",".join(map(str, each)).encode(), b"".join(b"%%%02x" % byte for byte in each)}
    if len(raw) == 16:
        address = IPv6Address(raw)
        found |= {str(address).encode(), address.exploded.encode()}
    return {spelled.lower() for spelled in found}


def everything(running: RunningDaemon) -> Iterator[tuple[str, bytes]]:
    """All kinds of answers that HTTP gives, each whole: what was asked, and the answer with its headers."""
    encodings = {"Accept": "application/openmetrics-text; version=1.0.0"}, {"Accept-Encoding": "gzip"}
    for method, path, headers in (
        *(
            (method, path, {})
            for method in ("GET", "HEAD", "POST")
            for path in (*PATHS, "/metrics?name[]=npd6_warnings")
        ),
        *(("GET", "/metrics", headers) for headers in encodings),
        ("GET", "/nothing", {}),
        ("GET", "/", {"Host": "example.net"}),
    ):
        connection = http.client.HTTPConnection("::1", 9846, timeout=60)
        with running.topology.inside(running.namespace):
            connection.request(method, path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if response.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        yield f"{method} {path} {headers}", response.headers.as_bytes() + body


@pytest.mark.needs_table  # the kernel asks for the host once in 10 s
@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_no_address_of_a_packet_or_a_host_is_served(topology: Topology, daemon: Start, datapath: str) -> None:
    topology.sysctl("edge", "net/ipv6/neigh/lan0/retrans_time_ms", 10_000)  # who isn't there is looked for long enough
    running = daemon(configuration(*RULES, collect_targets="20", datapath=f'"{datapath}"'))
    asked = [ip6(target) for target in TARGETS]
    source, link_local, mac = TELLTALE
    with Wire(topology) as wire:
        assert wire.ask(question(HOST_ADDRESS)) is not None
        wire.send(question("2001:db8:2::7"), question("2001:db8:1::dead"), question("2001:db8:3::beef"))
        for target in TARGETS:
            for fields in ({"source": source}, {"source": link_local}, {"source": source, "hop_limit": 64}):
                wire.send(question(target, eth_source=mac, options=sllao(SLLA), **fields))
            wire.send(question(target, source=bytes(16), options=b"", eth_source=mac))  # a DAD probe
    assert until(lambda: running.solicitations().get("pending", 0) >= 4)
    assert until(lambda: running.solicitations().get("invalid", 0) == len(TARGETS))
    assert until(lambda: data(running)["pending"] == 2), "an overview is half a second old at most"
    found = data(running)
    full = verb(running, "status", "--json").stdout
    plain = (HOST_ADDRESS, "2001:db8:2::7", "2001:db8:1::dead", "2001:db8:3::beef")
    secret = {spelled for raw in (*asked, *TELLTALE, SLLA) for spelled in spellings(raw)}
    for asked_for, served in everything(running):
        assert not [spelled for spelled in secret if spelled in served.lower()], asked_for
        for address in plain:
            assert address in full
            assert address.encode() not in served, asked_for
    assert all(target in full for target in TARGETS[:3]), "the targets are remembered, and told on the control socket"
    assert found["neighbours"] == {"lan0": 1}
    assert (found["pending"], found["host_routes"], found["kernel_proxy_entries"]) == (2, 1, {"wan0": 2})
    kept = json.loads(full)
    for key in ("pid", "started", "build", "last_reload", "reload_error", "rules"):
        assert found[key] == kept[key]
    assert {each["interface"]: each["attach"] for each in found["interfaces"]} == {"wan0": "tc"}


def test_health_follows_the_interface(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    assert get(running, "/healthz") == (200, b"ok\n")
    on_edge(topology, "link set wan0 down")
    assert until(lambda: get(running, "/healthz")[0] == 503)
    line = b"not answering\nno interface is attached and up: wan0 is down\n"
    assert get(running, "/healthz") == (503, line)
    on_edge(topology, "link set wan0 up")
    assert until(lambda: get(running, "/healthz")[0] == 200)


# With a signal that keeps the loop for as long as a file is there: nothing that the daemon waits for does so by itself.
IMPATIENT = """
import os, signal, sys, time
import npd6_xdp.cli
from npd6_xdp.core import judgement
from npd6_xdp.daemon import documents, loop, outlook, port_looks
loop.HEARTBEAT, judgement.HUNG = 0.4, 4.0
documents.EVERY = outlook._PAUSE = port_looks._TURN = 60.0  # so that it has nothing to do but to turn
hold = sys.argv.pop(1)
def held(*_):
    while os.path.exists(hold):
        time.sleep(0.05)
signal.signal(signal.SIGUSR2, held)
npd6_xdp.cli.main()
"""


def test_a_loop_with_nothing_to_do_is_well_and_one_that_hangs_is_not(topology: Topology, daemon: Start) -> None:
    hold = topology.directory / "hold"
    running = daemon(configuration(), program=(sys.executable, "-c", IMPATIENT, str(hold)))
    until_when = time.monotonic() + 7.0  # longer than HUNG
    while time.monotonic() < until_when:
        assert get(running, "/healthz") == (200, b"ok\n")
        time.sleep(0.1)
    hold.touch()
    running.process.send_signal(signal.SIGUSR2)
    assert until(lambda: get(running, "/healthz")[0] == 503)
    assert re.fullmatch(rb"not answering\nthe main loop has been stuck for \d+ s\n", get(running, "/healthz")[1])
    assert data(running)["interfaces"][0]["up"]
    hold.unlink()
    assert until(lambda: get(running, "/healthz")[0] == 200)


@pytest.mark.exec  # its memory is looked at
def test_many_and_slow_readers_cost_little_and_take_no_answers(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:3::/64 static", datapath='"python"'))
    until_when = time.monotonic() + 1.5
    seen: list[int] = []

    def read() -> None:
        while time.monotonic() < until_when or len(seen) <= 10:
            seen.append(get(running, "/status.json")[0])

    slow = []
    with topology.inside("edge"):
        for _ in range(40):
            connection = http.client.HTTPConnection("::1", 9846, timeout=60)
            connection.connect()
            connection.sock.sendall(b"GET / HT")
            slow.append(connection)
    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    with Wire(topology) as wire:
        while time.monotonic() < until_when:
            assert wire.ask(question("2001:db8:3::1")) is not None
    for thread in threads:
        thread.join()
    for connection in slow:
        connection.close()
    assert len(seen) > 10
    assert set(seen) == {200}
    assert private_megabytes(running) < 45


def test_status_watch_shows_the_rate_of_real_traffic(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:3::/64 static"))
    with flood(topology, cycle(scan(64, "2001:db8:3::")), 200):
        process = topology.popen(
            "edge", *PROGRAM, "status", "--watch", "--control", str(running.control),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout
        rates: list[str] = []

        def right() -> bool:
            """Whether one of the rates so far is; a busy machine has the flood stop and catch up."""
            return any(150 < float(rate.replace(",", "")) < 250 for rate in rates[1:])

        while len(rates) < 3 or (len(rates) < 12 and not right()):
            if match := re.match(r"answered_xdp +(\S+) +[\d,]+", process.stdout.readline()):
                rates.append(match[1])
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert rates[0] == "-"
    assert right(), rates
