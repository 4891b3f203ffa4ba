# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of what the daemon reads and writes: its log, its sockets, its descriptors. Answers go on, and it says why.

Faults that end a start are in test_faults_start.py; what one room does alone is in tests/system and tests/tools.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.lab.daemon import PROGRAM, RunningDaemon
from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.control import ask
from tests.bench.turns import PROGRAM as MEASURED
from tests.bench.turns import Turns
from tests.netns.test_under_way import LONGEST, ROOT, for_python
from tests.netns.wire import (
    Wire,
    configuration,
    cpu_seconds,
    open_files_of,
    private_megabytes,
    question,
    says,
    settled_files,
    standing_still,
    until,
)

Start = Callable[..., RunningDaemon]

PYTHON_ANSWERS = configuration(datapath='"python"')
RELOADS = 8
"""Of a file with as many mistakes as are said one by one."""
LOST = ("npd6_log_lines_dropped_total", frozenset[tuple[str, str]]())


class Unheard(RunningDaemon):
    """A daemon whose stdout and stderr are `output`, and no file: it is ready once it takes a question."""

    def __init__(self, topology: Topology, config: str, output: int, program: tuple[str, ...] = PROGRAM) -> None:
        super().__init__(topology, config, program=program)
        self._output = output

    def __enter__(self) -> Self:
        self._process = self.topology.popen(
            self.namespace, *self._argv, stdout=self._output, stderr=self._output, env=self._environment
        )
        self.ready = until(self._is_up, 20.0)
        return self

    def _is_up(self) -> bool:
        with suppress(MachineError):
            return bool(ask(self.control, {"verb": "status", "brief": True}))
        return self.process.poll() is not None

    def reload(self) -> str:
        """What became of it; "" if it is in use."""
        try:
            ask(self.control, {"verb": "reload"})
        except MachineError as error:
            return str(error)
        return ""


def answers(topology: Topology, target: str = "2001:db8:1::42") -> bool:
    with Wire(topology) as wire:
        return until(lambda: wire.ask(question(target), 1.0) is not None)


def lives_on_and_ends(running: Unheard) -> None:
    """It answers, says how it is, takes a configuration, refuses another, and ends at once."""
    assert running.process.poll() is None
    assert answers(running.topology)
    assert running.command("status").returncode == 0
    assert running.reload() == ""
    whole = running.config_file.read_text()
    running.write("nonsense = 1\n")
    assert "nonsense" in running.reload()
    running.config_file.write_text(whole)
    running.process.send_signal(signal.SIGUSR1)
    running.process.send_signal(signal.SIGHUP)
    assert answers(running.topology)
    began = time.monotonic()
    assert running.stop() == 0
    print(f"ended in {time.monotonic() - began:.2f} s")


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_standard_files_that_are_closed_are_no_other_files_of_the_daemon(topology: Topology, closed: str) -> None:
    """(On 0665297 an epoll instance was in the place of the first that was closed.)"""
    program = ("bash", "-c", f'exec "$@" {closed}', "-", *PROGRAM)
    with Path(os.devnull).open("w") as nowhere, Unheard(topology, PYTHON_ANSWERS, nowhere.fileno(), program) as running:
        assert running.ready
        for fd in range(3):
            assert Path(f"/proc/{running.process.pid}/fd/{fd}").readlink() == Path(os.devnull)
        lives_on_and_ends(running)


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_a_log_whose_reader_is_gone_ends_nothing_and_its_lines_are_counted(topology: Topology, when: str) -> None:
    """It lived on at 0665297, too; the count is new."""
    reader, writer = os.pipe()
    if when == "at the start":
        os.close(reader)
    with Unheard(topology, PYTHON_ANSWERS, writer) as running:
        os.close(writer)
        assert running.ready
        if when == "later":
            os.close(reader)
            running.process.send_signal(signal.SIGUSR1)
        assert until(lambda: running.metrics()[LOST] > 0)
        lives_on_and_ends(running)


@contextmanager
def unread(kind: str) -> Iterator[tuple[int, int]]:
    """What holds a few lines, and then takes nothing: its reading and its writing end."""
    if kind == "socket":  # as journald's stream is one
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            yield ours.fileno(), theirs.fileno()
        return
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    if kind == "pipe that somebody made non-blocking":
        os.set_blocking(writer, False)
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("kind", "style"),
    [("pipe", "text"), ("socket", "json"), ("pipe that somebody made non-blocking", "text")],
    ids=["pipe", "socket", "non-blocking"],
)
def test_a_log_that_nobody_reads_holds_up_neither_answers_nor_the_end_and_is_whole_for_who_reads_later(
    topology: Topology, kind: str, style: str
) -> None:
    text = f'[daemon]\nlog_format = "{style}"\n{PYTHON_ANSWERS}'
    with unread(kind) as (reader, writer), Unheard(topology, text, writer) as running:
        assert running.ready
        running.write("".join(f"{'n' * 400}{number} = 1\n" for number in range(20)))
        for _ in range(RELOADS):  # 40 kilobytes, one after the other
            assert "the old configuration stays" in running.reload()
        assert answers(topology)
        assert running.metrics()[LOST] == 0, "there was space for them"
        said = b""
        while said.count(b"reload: the old configuration stays") < RELOADS:
            assert select.select([reader], [], [], 60.0)[0], said[-200:]
            said += os.read(reader, 65536)
        assert b"ready: 1 rule on wan0" in said
        for line in said.decode().splitlines():
            assert json.loads(line)["level"] in ("info", "error") if style == "json" else line.startswith("npd6-xdp: ")
        for _ in range(RELOADS):  # and full again
            running.reload()
        running.write(text)
        lives_on_and_ends(running)


# --- descriptors --------------------------------------------------------------------------------------------


def test_without_a_descriptor_left_both_servers_say_so_once_rest_and_come_back_while_answers_go_on(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(PYTHON_ANSWERS)
    pid = running.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    with ExitStack() as stack:
        for _ in range(5):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(running.control))
            client.sendall(b'{"verb": "status"}\n')
            with topology.inside("edge"):
                browser = stack.enter_context(socket.create_connection(("::1", 9846)))
            browser.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        refused = "no connection can be taken: Too many open files: raise LimitNOFILE= (ulimit -n); trying again every"
        assert says(running, refused, 2), running.log
        assert until(lambda: f"{running.control}: {refused} second" in running.log)
        assert until(lambda: f"[::1]:9846: {refused} 0.5 s" in running.log)
        spent = cpu_seconds(running)
        time.sleep(2.2)
        assert cpu_seconds(running) - spent < 1.0
        assert answers(topology)
        assert says(running, refused, 2)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert client.recv(1) == b"{", "who has waited is answered"
        assert browser.recv(15) == b"HTTP/1.0 200 OK"
    assert running.command("status").returncode == 0
    assert sum(running.solicitations().values()) >= 1
    assert "Traceback" not in running.log
    assert running.stop() == 0


# --- the control socket, and who crowds it --------------------------------------------------------------------

CONNECTIONS = 10_000
WAITING = 33  # that the kernel keeps for a server which takes none: listen(32) and one more
SERVED = 32  # that the server has open at a time


class Crowd:
    """So many clients that all want a connection at once, and keep what they get; every other one says half a line."""

    def __init__(self, path: Path, count: int) -> None:
        self._path = str(path)
        self._before = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = max(self._before[1], count + 1_000)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.left = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(count)]
        self.had: list[socket.socket] = []
        """Those that have got one, which the daemon may have hung up on since."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in (*self.left, *self.had):
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, self._before)

    def press(self) -> None:
        """Each that has had none tries once; whom the kernel has no space for hears that at once."""
        left = []
        for client in self.left:
            try:
                client.connect(self._path)
            except BlockingIOError:
                left.append(client)
                continue
            if len(self.had) % 2:
                with suppress(OSError):  # the daemon has hung up
                    client.send(b'{"verb": "stat')
            self.had.append(client)
        self.left = left


@pytest.mark.exec  # its memory is looked at
def test_ten_thousand_connections_half_lines_and_endless_lines_keep_nobody_from_asking_or_from_answers(
    topology: Topology, daemon: Start
) -> None:
    """(On 0665297 it held already.)"""
    running = daemon(PYTHON_ANSWERS)
    before, sockets = private_megabytes(running), settled_files(running)["socket"]
    most = rounds = 0
    with Crowd(running.control, CONNECTIONS) as crowd, ThreadPoolExecutor() as beside:
        with standing_still(running):
            crowd.press()
            assert len(crowd.had) == WAITING
            asking = beside.submit(ask, running.control, {"verb": "status"})
        while crowd.left:
            crowd.press()
            assert answers(topology)
            most, rounds = max(most, open_files_of(running)["socket"] - sockets), rounds + 1
        assert asking.result(60.0)["pid"] == running.process.pid
        assert ask(running.control, {"verb": "status"})["pid"] == running.process.pid, "and they are all still open"
        assert running.command("status").returncode == 0
        assert SERVED // 2 < most <= SERVED
    with socket.socket(socket.AF_UNIX) as endless:
        endless.connect(str(running.control))
        endless.settimeout(60.0)
        with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):
            endless.sendall(bytes(100 << 20))
    with ExitStack() as stack:
        for _ in range(40):  # who never read their answers
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(running.control))
            client.sendall(b'{"verb": "status"}\n' * 100)
        assert answers(topology)
        assert ask(running.control, {"verb": "status"})["pid"] == running.process.pid
    print(
        f"{CONNECTIONS} clients in {rounds} rounds, {most} open; {before:.0f} MB, {private_megabytes(running):.0f} then"
    )
    assert private_megabytes(running) < before + 8
    assert "Traceback" not in running.log


# --- HTTP -----------------------------------------------------------------------------------------------------


@pytest.mark.exec  # its memory is looked at
@pytest.mark.sliced
def test_slow_askers_pipelines_garbage_and_thousands_of_requests_take_neither_answers_nor_memory(
    topology: Topology, daemon: Start, full: bool
) -> None:
    """It held at 0665297, too."""
    requests = 100_000 if full else 2_000
    running = daemon(PYTHON_ANSWERS)

    def connect() -> socket.socket:
        with topology.inside("edge"):
            return socket.create_connection(("::1", 9846), timeout=60.0)

    def get(times: int) -> None:
        for _ in range(times):
            with connect() as client:
                client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                assert client.recv(15) == b"HTTP/1.0 200 OK"
                served.append(1)

    served: list[int] = []
    get(100)
    before = private_megabytes(running)
    with ExitStack() as stack:
        slow = [stack.enter_context(connect()) for _ in range(20)]
        for client in slow:
            client.sendall(b"GET / HTTP/1.0\r\nx-")
        threads = [threading.Thread(target=get, args=(requests // 4,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        asked = 0
        while any(thread.is_alive() for thread in threads):
            for client in slow:
                with suppress(OSError):
                    client.send(b"a")
            with connect() as garbage:
                garbage.sendall(os.urandom(2000) + b"\r\n\r\n")
            with connect() as pipeline:
                pipeline.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
                assert pipeline.recv(15) == b"HTTP/1.0 200 OK"
            assert answers(topology)
            asked += 1
        for thread in threads:
            thread.join()
    assert len(served) == 100 + requests
    assert asked >= 1
    with topology.inside("edge"):
        page = http.client.HTTPConnection("::1", 9846, timeout=60.0)
        page.request("GET", "/metrics")
    assert b"npd6_" in page.getresponse().read()
    page.close()
    print(f"{requests} requests beside {asked} solicitations; {before:.0f} MB, then {private_megabytes(running):.0f}")
    assert private_megabytes(running) < before + 8
    assert "Traceback" not in running.log


# --- long answers ---------------------------------------------------------------------------------------------


@pytest.mark.exec  # its memory is looked at
@pytest.mark.sliced
def test_who_asks_for_the_status_of_many_rules_keeps_no_solicitation_waiting_and_many_hold_two_copies(
    topology: Topology, daemon: Start, full: bool
) -> None:
    """On 0665297 each had a copy of its own, and a status of 100,000 rules was a turn of 0.6 to 0.9 s."""
    if full:
        for datapath in ("python", "hybrid"):
            unread_statuses(topology, daemon, datapath, count=100_000, clients=30, most=50)
    else:
        unread_statuses(topology, daemon, "python", count=20_000, clients=12, most=14)


def unread_statuses(topology: Topology, daemon: Start, datapath: str, count: int, clients: int, most: int) -> None:
    """So many ask for the status of so many rules, and never read it: that takes `most` megabytes at the most."""
    file = topology.directory / f"turns-{datapath}"
    turns = Turns(file)
    rules = [f"2001:db8:{2 + (number >> 16):x}:{number & 0xFFFF:x}::/64 static" for number in range(count)]
    running = daemon(
        configuration("2001:db8:1::/64 static", *rules, datapath=f'"{datapath}"', events_per_source="0"),
        program=(*MEASURED, str(file)),
        environment={"PYTHONPATH": str(ROOT)},
        timeout=600.0,
    )
    before = private_megabytes(running)
    turns.begin()
    with ExitStack() as stack, Wire(topology) as wire:
        wire.only_advertisements()
        waited = []
        for _ in range(clients):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(running.control))
            client.sendall(b'{"verb": "status"}\n')
            sent = answered = 0
            while not select.select([client], [], [], 0.01)[0]:
                wire.send(for_python("2001:db8:1::42"))
                sent, answered = sent + 1, answered + wire.waiting()
            waited.append((sent - answered - wire.waiting(), sent))
            assert client.recv(1) == b"{"
        now = private_megabytes(running)
        assert len(ask(running.control, {"verb": "status"})["rules"]) == count + 1
    running.settle()
    longest = turns.longest
    turns.close()
    assert running.stop() == 0
    print(
        f"{datapath}: unanswered when the status came, of so many: {waited}; {before:.0f} MB, then {now:.0f};"
        f" a turn of {1000 * longest:.0f} ms at the most"
    )
    # one is sent in 10 ms, or when the machine lets us; where all wait for the status, nearly all are unanswered then
    assert sorted(unanswered / max(sent, 10) for unanswered, sent in waited)[len(waited) // 2] <= 0.2
    assert longest < LONGEST
    assert now < before + most, "two copies, and not one for each"
