# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks one question at a time, and says how long each answer took.

A question's time starts before send(2), and ends when the answer reaches the driver of the asker's interface, where
the counter notes the moment (CLOCK_MONOTONIC, both): so how the asker gets to hear of it is no part of it.
Waiting is spinning on the counter's memory, or, where asker and answerer share one CPU, sleeping in recv(2).
"""

from __future__ import annotations

import gc
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.ground import Ground
from tests.netns.wire import SETTING, Wire

LOST = float("inf")
_PATIENCE = 0.5  # seconds until an answer counts as lost
_NUMBER = slice(76, 78)  # in the frame: the target's last 16 bits


class Asker:
    """Asks from the upstream, while the `with` block runs; `ground`'s counter is set for it."""

    def __init__(self, ground: Ground, *, spin: bool, mac: bytes = SETTING.asker_mac) -> None:
        self._counter = ground.counter
        self._wire = Wire(ground.topology)
        self._wire.only_advertisements()
        self._spin = spin
        self._mac = mac

    def __enter__(self) -> Self:
        self._counter.set(deliver=bytes(6) if self._spin else self._mac, timed=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._counter.set()
        self._wire.close()

    def ask(
        self, frames: Sequence[bytes], count: int, after: Callable[[float, int], None] | None = None
    ) -> list[float]:
        """Microseconds of `count` answers, one question after the other; LOST for those that never came.

        `after` is called after each: with its time, and the moment at which the answer came.
        """
        numbers = [int.from_bytes(frame[_NUMBER]) for frame in frames]
        taken = []
        with _no_collection():
            for i in range(count):
                number = numbers[i % len(frames)]
                taken.append(self._one(frames[i % len(frames)], number))
                if after is not None:
                    after(taken[-1], self._counter.arrivals[number])
        return taken

    def _one(self, frame: bytes, number: int) -> float:
        arrivals, clock, sock = self._counter.arrivals, time.monotonic_ns, self._wire.socket
        arrivals[number] = 0
        began = clock()
        sock.send(frame)
        deadline = began + int(_PATIENCE * 1e9)
        while not arrivals[number]:
            if clock() > deadline:
                return LOST
            if not self._spin:
                _sleep_until_some(sock)
        found = (arrivals[number] - began) / 1000
        if not self._spin:
            _drain(sock)
        return found


def ask_evenly(ground: Ground, frames: Sequence[bytes], rate: float) -> list[float]:
    """Microseconds of the answers to all of these frames, sent at a rate whether answers come or not.

    No two of them may be for targets with the same last 16 bits.
    """
    counter, clock = ground.counter, time.monotonic_ns
    numbers = [int.from_bytes(frame[_NUMBER]) for frame in frames]
    for number in numbers:
        counter.arrivals[number] = 0
    counter.set(timed=True)
    sent = []
    with Wire(ground.topology) as wire, _no_collection():
        wire.deafen()
        sock, start = wire.socket, time.monotonic()
        for i, frame in enumerate(frames):
            time.sleep(max(0.0, start + i / rate - time.monotonic()))
            sent.append(clock())
            sock.send(frame)
        time.sleep(_PATIENCE)
    counter.set()
    came = [counter.arrivals[number] for number in numbers]
    return [(to - since) / 1000 if to else LOST for since, to in zip(sent, came, strict=True)]


def _sleep_until_some(sock: socket.socket) -> None:
    sock.settimeout(_PATIENCE)
    try:
        sock.recv(128)
    except TimeoutError:
        return


def _drain(sock: socket.socket) -> None:
    sock.setblocking(False)
    try:
        while True:
            sock.recv(128)
    except BlockingIOError:
        return


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def pinned(cpu: int, *pids: int) -> Iterator[None]:
    """This process, and all threads of others, on one CPU while the block runs; the others stay there."""
    before = os.sched_getaffinity(0)
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {cpu})
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
