# SPDX-License-Identifier: GPL-2.0-or-later
"""Who traces is sent whole messages or none, however he reads, and never waited for."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from npd6_xdp.system.tracer import MOST_UNSENT, Tracer

Pair = tuple[Tracer, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    theirs.setblocking(False)
    tracer = Tracer(ours)
    yield tracer, theirs
    tracer.close()
    theirs.close()


def test_his_process_is_known(pair: Pair) -> None:
    assert pair[0].pid == os.getpid()


def test_the_ring_comes_with_the_first_line(pair: Pair) -> None:
    tracer, client = pair
    with Path(os.devnull).open() as file:
        tracer.begin(b"line\n", file.fileno())
        data, fds, _, _ = socket.recv_fds(client, 64, 4)
        assert data == b"line\n"
        (fd,) = fds
        assert os.path.samestat(os.fstat(fd), os.fstat(file.fileno()))
        os.close(fd)


def test_to_one_who_reads_nothing_so_much_is_kept_and_what_he_reads_later_are_whole_messages(pair: Pair) -> None:
    tracer, client = pair
    taken: list[int] = []
    size = 60_000
    for number in range(10 * MOST_UNSENT // size):
        if tracer.send(number.to_bytes(4) * (size // 4)):
            taken.append(number)
    assert tracer.unsent
    assert MOST_UNSENT < len(taken) * size < 3 * MOST_UNSENT
    got = bytearray()
    while tracer.unsent or len(got) < len(taken) * size:
        got += client.recv(1 << 20)
        tracer.send_rest()
    assert len(got) == len(taken) * size
    for at, number in zip(range(0, len(got), size), taken, strict=True):
        assert got[at : at + size] == number.to_bytes(4) * (size // 4)
    assert all(one < other for one, other in pairwise(taken))
    assert tracer.send(b"and it goes on")


def test_the_last_word_reaches_him_however_much_waits_before_it(pair: Pair) -> None:
    tracer, client = pair
    message = bytes(60_000)
    while tracer.send(message):
        pass
    assert tracer.send(b"the end", is_last=True)
    got = bytearray()
    while tracer.unsent or not got.endswith(b"the end"):
        got += client.recv(1 << 20)
        tracer.send_rest()
    assert len(got) % len(message) == len(b"the end"), "behind whole messages"


def test_what_he_says_is_lines_and_he_is_gone_when_he_hangs_up_or_talks_nonsense(pair: Pair) -> None:
    tracer, client = pair
    assert tracer.lines() == []
    client.sendall(b"alive\nal")
    assert tracer.lines() == [b"alive"]
    client.sendall(b"ive\nend\n")
    assert tracer.lines() == [b"alive", b"end"]
    client.sendall(b"x" * 5000)
    assert tracer.lines() is None
    client.close()
    assert tracer.lines() is None
    assert tracer.send(b"to nobody"), "which is no failure"
