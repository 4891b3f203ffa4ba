# SPDX-License-Identifier: GPL-2.0-or-later
"""Output that goes on and on: a reader that goes, or is slow, a full disk, and signals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.tools.outlet import Outlet, Stop, StoppedError, stopping

MUCH = bytes(range(256)) * 4096


@pytest.fixture
def stop() -> Iterator[Stop]:
    with stopping() as stop:
        stop.is_awaited = True
        yield stop


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:  # the test has
            continue


def test_all_of_it_gets_through_a_pipe_that_has_less_space(stop: Stop, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    found: list[bytes] = []

    def read() -> None:
        found.extend(iter(lambda: os.read(reader, 1000), b""))

    thread = threading.Thread(target=read)
    thread.start()
    Outlet(writer, "a pipe", stop).write(MUCH)
    os.close(writer)
    thread.join()
    assert b"".join(found) == MUCH


def test_a_reader_that_has_gone_is_noticed_while_there_is_nothing_to_write(stop: Stop, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    outlet = Outlet(writer, "a pipe", stop)
    assert not stop.wait([], [outlet], 0.0)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        stop.wait([], [outlet], 600.0)
    with pytest.raises(BrokenPipeError):
        outlet.write(b"x")


def test_a_reader_that_rests_leaves_time_for_something_else(stop: Stop, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.extend(iter(lambda: os.read(reader, 1 << 16), b"")))

    def begin() -> None:
        if not thread.is_alive():
            thread.start()

    stop.meanwhile = begin
    Outlet(writer, "a pipe", stop).write(MUCH)
    os.close(writer)
    thread.join()
    assert b"".join(found) == MUCH


def test_a_full_disk_is_one_line_that_says_what_is_full(stop: Stop) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(MachineError) as caught:
        Outlet(fd, "--write a.pcapng", stop).write(b"x")
    os.close(fd)
    assert str(caught.value) == "--write a.pcapng: No space left on device: free some space there"


def test_a_file_gets_it_at_once(stop: Stop, tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        Outlet(file.fileno(), "a", stop).write(MUCH)
        assert (tmp_path / "a").read_bytes() == MUCH
        assert not stop.wait([], [Outlet(file.fileno(), "a", stop)], 0.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_waiting_and_a_reader_that_takes_nothing_holds_nobody(
    stop: Stop, pipe: tuple[int, int], number: int
) -> None:
    _, writer = pipe
    assert not stop.wait([], [], 0.0)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), number))
    timer.start()
    with pytest.raises(StoppedError):
        Outlet(writer, "a pipe", stop).write(MUCH)
    timer.join()
    assert stop.wait([], [], 600.0)


def test_what_is_left_when_a_signal_comes_is_still_taken(stop: Stop, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.has_come
    Outlet(writer, "a pipe", stop).write(b"the end")
    assert os.read(reader, 100) == b"the end"


def test_the_second_signal_ends_it_at_once_and_so_does_the_first_where_nobody_waits(stop: Stop) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    stop.is_awaited = stop.has_come = False
    with pytest.raises(SystemExit) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 143


def test_signals_are_as_before_behind_it() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with stopping():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
