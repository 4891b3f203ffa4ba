# SPDX-License-Identifier: GPL-2.0-or-later
"""`status --watch` at a terminal and into a pipe: each second anew, and the terminal left as it was."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import npd6_xdp
from npd6_xdp.core.status import overview_json
from npd6_xdp.lab.processes import state_of
from tests.core.test_overview import OVERVIEW

ROOT = Path(npd6_xdp.__file__).parent.parent
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


class Daemon:
    """Something at the other end of the control socket, which counts 100 solicitations a second."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.questions: list[Any] = []
        self.asked_at: list[float] = []
        self._began = time.monotonic()
        self._listen()

    def _listen(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.path))
        self._socket.listen()
        threading.Thread(target=self._serve, args=(self._socket,), daemon=True).start()

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, suppress(OSError, ValueError):  # a client is killed while it asks
                self.asked_at.append(time.monotonic())
                self.questions.append(json.loads(connection.recv(4096)))
                said = overview_json(OVERVIEW)
                passed = time.monotonic() - self._began
                said["time"] += passed
                said["totals"]["solicitations"]["answered_xdp"] = int(passed * 100)
                connection.sendall(json.dumps(said).encode())

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def start(self) -> None:
        self._listen()


class Terminal:
    """`status --watch` on a terminal of its own."""

    def __init__(self, control: Path, *, lines: int = 40, columns: int = 200) -> None:
        self._master, slave = pty.openpty()
        self.resize(lines, columns)
        environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "npd6_xdp", "status", "--watch", "--control", str(control)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.output = ""
        self.rest = ""
        """What has been read, and is behind what was waited for."""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read_until(self, text: str, seconds: float = 60.0) -> str:
        """What came up to and with a text, from where the last one ended."""
        found, deadline = self.rest, time.monotonic() + seconds
        while text not in found:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} didn't come, but {found!r}"
            if select.select([self._master], [], [], left)[0]:
                try:
                    found += os.read(self._master, 65536).decode()
                except OSError:  # nobody is at the other end any more
                    assert text in found, f"{text!r} didn't come, but {found!r}"
        ends = found.index(text) + len(text)
        found, self.rest = found[:ends], found[ends:]
        self.output += found
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "control.sock")
    yield daemon
    daemon.stop()


@pytest.fixture
def terminal(served: Daemon) -> Iterator[Terminal]:
    terminal = Terminal(served.path)
    yield terminal
    terminal.close()


def test_it_draws_again_each_second_with_rates_and_ctrl_c_leaves_the_terminal_as_it_was(
    served: Daemon, terminal: Terminal
) -> None:
    assert terminal.read_until("\x1b[J").startswith(ENTER + "\x1b[H\x1b[2K")
    second, third = terminal.read_until("\x1b[J"), terminal.read_until("\x1b[J")
    assert 1.5 < served.asked_at[2] - served.asked_at[0] < 20
    assert "asked - per second" in terminal.output
    for screen in (second, third):
        assert re.search(r"answered (99|100|101) per second", screen)
    terminal.type("\x03")
    assert terminal.read_until(LEAVE).endswith(LEAVE)
    assert terminal.process.wait(60) == 0
    assert served.questions[0] == {"verb": "status", "brief": True}
    assert "Traceback" not in terminal.output


def test_a_resize_is_followed_at_once(terminal: Terminal) -> None:
    terminal.read_until("\x1b[J")
    for columns in range(29, 20, -1):  # a busy machine may take its time, but not each time
        terminal.rest = ""
        terminal.resize(6, columns + 1)
        began = time.monotonic()
        screen = terminal.read_until("more lines")
        if (took := time.monotonic() - began) < 0.8:
            break
    assert took < 0.8
    lines = screen.rpartition("\x1b[H")[2].split("\r\n")
    assert len(lines) == 6
    for line in lines:
        text = line.rstrip("\r")
        for code in ("\x1b[2K", "\x1b[0m", "\x1b[1;7m", "\x1b[1m", "\x1b[2m"):
            text = text.replace(code, "")
        assert len(text) <= 30


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_on_a_terminal_of_any_width_all_is_shown_and_nothing_cut(served: Daemon, columns: int) -> None:
    terminal = Terminal(served.path, lines=80, columns=columns)
    try:
        terminal.read_until("\x1b[J")
        screen = terminal.read_until("\x1b[J")
    finally:
        terminal.close()
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).strip("\r") for line in screen.split("\n")]
    assert max(map(len, lines)) <= columns
    shown = " ".join(" ".join(lines).split())
    for words in (
        "working npd6-xdp 1.0",
        "pid 4711",
        "configuration in use for",
        "sent for resolution",
        "3 being resolved",
        "2 after resolution",
        "kernel proxy entries 2",
        "host routes 4",
        "OUTCOME per second total last minute",
        "INTERFACE state attached datapath per second total by XDP by Python lost",
        "wan0 up native hybrid",
        "lan0:100 NOT ATTACHED - monitor",
        "RULE interface method per second outcomes since start",
        "2001:db8:1::/64 wan0 static",
        "none yet: answered_python, ",
    ):
        assert words in shown, (columns, words)
    assert "more lines" not in shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was_too(terminal: Terminal, number: int) -> None:
    terminal.read_until("\x1b[J")
    terminal.process.send_signal(number)
    terminal.read_until(LEAVE)
    assert terminal.process.wait(60) == 128 + number


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(terminal: Terminal) -> None:
    terminal.read_until("\x1b[J")
    terminal.process.send_signal(signal.SIGTSTP)
    terminal.read_until(LEAVE)
    deadline = time.monotonic() + 30
    process = Path(f"/proc/{terminal.process.pid}")
    while state_of(process) != "T":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    terminal.process.send_signal(signal.SIGCONT)
    terminal.read_until(ENTER)
    terminal.read_until("\x1b[J")


def test_a_daemon_that_goes_is_waited_for(served: Daemon, terminal: Terminal) -> None:
    terminal.read_until("\x1b[J")
    served.stop()
    assert "! " + str(served.path) in terminal.read_until("no npd6-xdp is running there")
    served.start()
    terminal.read_until("\x1b[J")
    assert "no npd6-xdp is running" not in terminal.read_until("\x1b[J")


def watch(served: Daemon, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "npd6_xdp", "status", "--watch", "--control", str(served.path), *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C"},
    )


def test_into_a_pipe_it_writes_a_block_a_second_without_a_control_character(served: Daemon) -> None:
    process = watch(served)
    assert process.stdout
    blocks: list[list[str]] = [[]]
    while len(blocks) < 3:
        line = process.stdout.readline()
        assert line.rstrip("\n").isprintable()
        if line.startswith("working   npd6-xdp 1.0   pid 4711"):
            blocks.append([])
        blocks[-1].append(line)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert process.communicate()[1] == ""


def test_as_json_it_writes_an_object_a_line_and_a_reader_who_leaves_ends_it(served: Daemon) -> None:
    process = watch(served, "--json")
    assert process.stdout
    times = [json.loads(process.stdout.readline())["time"] for _ in range(5)]
    # on a busy machine one may be late, and the next one the sooner
    assert any(0.8 < later - earlier < 2 for earlier, later in pairwise(times)), times
    process.stdout.close()
    assert process.wait(60) == 1
    assert process.stderr
    assert process.stderr.read() == ""
    process.stderr.close()


def test_without_a_daemon_it_ends_with_an_error(tmp_path: Path, served: Daemon) -> None:
    served.path = tmp_path / "other.sock"
    process = watch(served)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert error.startswith(f"npd6-xdp: {tmp_path}/other.sock: no npd6-xdp is running there")
