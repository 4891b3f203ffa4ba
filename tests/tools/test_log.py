# SPDX-License-Identifier: GPL-2.0-or-later
"""The log, whether its reader reads or not: the daemon doesn't wait for it, and lines that it misses are counted."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.tools import log as room
from npd6_xdp.tools.log import LogThread

HELD = 64 << 10


class Logged:
    """A logger of its own, whose lines go to a pipe."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        self.writer = writer
        self.handler = LogThread(writer)
        self.handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        self.log = logging.Logger("of the test")
        self.log.addHandler(self.handler)

    def fill(self) -> None:
        """Have no byte more go into the pipe, which has empty lines now."""
        os.set_blocking(self.writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self.writer, b"\n" * 4096)
        os.set_blocking(self.writer, True)

    def read(self) -> list[str]:
        """All that comes until the writing end is closed."""
        with os.fdopen(self.reader, "rb") as pipe:
            return pipe.read().decode().splitlines()

    def end(self) -> None:
        self.handler.finish()
        os.close(self.writer)


def test_lines_come_in_their_order_and_at_once() -> None:
    logged = Logged()
    for number in range(100):
        logged.log.warning("line %d of %s", number, "one\nmore" if number == 7 else "some")
        if number == 50:
            assert os.read(logged.reader, 16) == b"WARNING: line 0 "
    logged.end()
    lines = logged.read()
    assert len(lines) == 101
    assert lines[-1] == "WARNING: line 99 of some"
    assert logged.handler.dropped == 0


def test_of_what_nobody_reads_as_much_is_kept_as_there_is_space_for_and_the_rest_is_counted_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "_MOST_HELD", HELD)
    logged = Logged()
    logged.fill()  # else the thread that writes may be late with the first lines, and some are dropped before others
    began = time.monotonic()
    for number in range(5_000):
        logged.log.warning("line %d of a log that nobody reads", number)
    assert time.monotonic() - began < 5.0, "waited for once, not each time"
    dropped = logged.handler.dropped
    assert 1_000 < dropped < 4_000
    reading: list[str] = []
    thread = threading.Thread(target=lambda: reading.extend(logged.read()))
    thread.start()
    while not any("dropped" in line for line in reading) and logged.handler._said == 0:
        time.sleep(0.01)
    logged.log.warning("the last line")
    logged.end()
    thread.join()
    said = [int(found[1]) for line in reading if (found := re.search(r"(\d+) lines of this log were dropped", line))]
    reading = [line for line in reading if line]
    assert said == [dropped]
    assert len(reading) == 5_000 - dropped + 2
    assert reading[-2:] == [
        f"WARNING: {dropped} lines of this log were dropped: its reader was too slow",
        "WARNING: the last line",
    ]
    numbers = [int(line.split()[2]) for line in reading[:-2]]
    assert numbers == list(range(len(numbers))), "the first ones, in their order"


def test_what_was_logged_is_written_before_the_descriptor_becomes_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A busy machine keeps the thread from it for longer than the log call waits."""
    monkeypatch.setattr(room, "_STALLED", 20.0)  # one may keep the reader from it, too
    monkeypatch.setattr(room, "_ENDING", 20.0)
    logged = Logged()
    logged.fill()
    found: list[bytes] = []

    def read() -> None:
        time.sleep(0.2)
        while b"ready" not in b"".join(found):
            found.append(os.read(logged.reader, 1 << 16))

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    logged.log.warning("ready")
    logged.handler.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), logged.writer)
    reading.join(20)
    assert b"".join(found).endswith(b"WARNING: ready\n")
    logged.end()
    began = time.monotonic()
    logged.handler.flush()
    assert time.monotonic() - began < 5.0, "there is nobody any more who would write"


def test_the_end_waits_for_nobody_who_does_not_read_and_for_who_reads_until_all_is_out() -> None:
    logged = Logged()
    for _ in range(3_000):
        logged.log.warning("a line that fills the pipe in the end, as nobody reads any of them")
    began = time.monotonic()
    logged.handler.finish()
    assert time.monotonic() - began < 5.0
    os.close(logged.reader)

    logged = Logged()
    reading: list[str] = []
    thread = threading.Thread(target=lambda: reading.extend(logged.read()))
    thread.start()
    for _ in range(3_000):
        logged.log.warning("a line")
    logged.end()
    thread.join()
    assert len(reading) == 3_000


def test_the_end_waits_for_a_thread_that_a_busy_machine_lets_run_late() -> None:
    """A start that had failed ended without a word on one that was busy."""
    logged = Logged()

    class Late:
        def entry(self, _: logging.LogRecord) -> bytes:
            return b"a message"

        def line(self, text: str) -> bytes:
            return text.encode()

        def send(self, _: bytes) -> bool:
            time.sleep(1.0)
            return False

    logged.handler.journal = Late()
    logged.handler.say("why it ends")
    logged.end()
    assert logged.read() == ["why it ends"]


def test_a_signals_handler_may_log_whatever_it_interrupts() -> None:
    """Its lines come within others': no lock that is held then is one that it needs."""
    logged = Logged()
    record = logging.LogRecord("of the test", logging.INFO, "", 0, "in between", None, None)
    format_record: Callable[[logging.LogRecord], str] = logged.handler.format

    def interrupted(given: logging.LogRecord) -> str:
        if given is not record:
            logged.log.handle(record)
        return format_record(given)

    logged.handler.format = interrupted  # type: ignore[method-assign, assignment]
    logged.log.warning("a line")
    logged.end()
    assert logged.read() == ["INFO: in between", "WARNING: a line"]


def test_a_reader_that_is_gone_costs_its_lines_and_nothing_else() -> None:
    logged = Logged()
    os.close(logged.reader)
    for _ in range(10):
        logged.log.warning("two\nlines")
    logged.end()
    assert logged.handler.dropped == 20


def test_without_a_thread_there_is_an_error_that_says_what_to_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(MachineError, match=r"the log: can't start a thread: raise TasksMax= .*LimitNPROC="):
        LogThread(2)
