# SPDX-License-Identifier: GPL-2.0-or-later
"""When a line is for systemd's journal, and what it looks like then. tests/package has the journal itself; here a
socket of the same kind stands in its place, to see each byte that it is sent.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from npd6_xdp.tools import journal
from npd6_xdp.tools.log import LogThread


def test_an_error_has_its_priority_only_where_the_journal_reads(tmp_path: Path) -> None:
    words = (sys.executable, "-m", "npd6_xdp", "check", "--config", str(tmp_path / "none.toml"))
    with (tmp_path / "stderr").open("w+") as stderr:
        there = os.fstat(stderr.fileno())
        for stream in (f"{there.st_dev}:{there.st_ino}", f"{there.st_dev}:1", None):
            environment = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
            if stream:
                environment["JOURNAL_STREAM"] = stream
            subprocess.run(words, env=environment, stderr=stderr, check=False)
        stderr.seek(0)
        heard = stderr.read().splitlines()
    assert [line.partition("npd6-xdp: ")[0] for line in heard] == ["<3>", "", ""]


def test_each_line_has_the_priority_of_its_level() -> None:
    assert journal.prefixed("a\nb", 40) == "<3>a\n<3>b"
    assert [journal.prefixed("a", level) for level in (50, 30, 20, 10)] == ["<3>a", "<4>a", "<6>a", "<7>a"]


def received(there: socket.socket) -> dict[str, list[str]]:
    """An entry, as https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ has it read."""
    data, files, _, _ = socket.recv_fds(there, 1 << 20, 1)
    if files:
        assert data == b""
        wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        assert fcntl.fcntl(files[0], fcntl.F_GET_SEALS) == wanted, "else it has to be a file on a disk"
        with os.fdopen(files[0], "rb") as file:
            file.seek(0)
            data = file.read()
    found: dict[str, list[str]] = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, is_short, value = line.partition(b"=")
        if not is_short:
            (size,) = struct.unpack_from("<Q", data)
            value, data = data[8 : 8 + size], data[8 + size + 1 :]
        found.setdefault(name.decode(), []).append(value.decode())
    return found


@contextmanager
def standing_in(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(str(path))
        there.settimeout(10)
        yield there


def record(text: str, **known: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "levelno": logging.ERROR, "levelname": "ERROR", "fields": known})


@pytest.mark.parametrize("text", ["short", "two\nlines = 1", "", "é" * 300_000, "\udcff"])
def test_a_record_is_one_entry_with_its_fields_however_long_it_is(tmp_path: Path, text: str) -> None:
    with standing_in(tmp_path / "socket") as there:
        sender = journal.Journal(logging.Formatter("%(message)s"), str(tmp_path / "socket"))
        assert sender.send(sender.entry(record(text, interface="wan0", ifindex=7, error="", interfaces=("a", "b"))))
        assert received(there) == {
            "MESSAGE": [text.encode(errors="backslashreplace").decode()],
            "PRIORITY": ["3"],
            "SYSLOG_IDENTIFIER": ["npd6-xdp"],
            "SYSLOG_PID": [str(os.getpid())],
            "NPD6_INTERFACE": ["wan0", "a", "b"],
            "NPD6_IFINDEX": ["7"],
        }
    assert not sender.send(b"MESSAGE=nobody\n")


def test_lines_go_where_stderr_goes_while_the_journals_socket_is_away(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    thread = LogThread(writer)
    thread.setFormatter(logging.Formatter("<3>%(message)s"))
    thread.journal = journal.Journal(logging.Formatter("%(message)s"), str(tmp_path / "socket"))
    thread.emit(record("before"))
    assert os.read(reader, 100) == b"<3>before\n"
    with standing_in(tmp_path / "socket") as there:
        thread.emit(record("there"))
        assert received(there)["MESSAGE"] == ["there"]
    thread.emit(record("after"))
    thread.say("as it is")
    thread.finish()
    assert os.read(reader, 100) == b"<3>after\nas it is\n"
    assert thread.dropped == 0
    os.close(reader)
    os.close(writer)


def test_a_journal_that_reads_nothing_holds_up_no_log_call(tmp_path: Path) -> None:
    with standing_in(tmp_path / "socket"):
        thread = LogThread(os.open(os.devnull, os.O_WRONLY))
        thread.setFormatter(logging.Formatter("%(message)s"))
        thread.journal = journal.Journal(logging.Formatter("%(message)s"), str(tmp_path / "socket"))
        began = time.monotonic()
        for number in range(5_000):  # the kernel keeps net.unix.max_dgram_qlen of them
            thread.emit(record(f"{number} {'x' * 500}"))
        assert time.monotonic() - began < 5.0
        assert thread.dropped > 1_000
        thread.finish()
