# SPDX-License-Identifier: GPL-2.0-or-later
"""No event waits in a ring for a wake-up that nobody gives, however close it comes to the reader's going to sleep."""

from __future__ import annotations

import mmap
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle

import pytest

from npd6_xdp.core.config import Datapath
from npd6_xdp.core.event import RECORD_SIZE
from npd6_xdp.core.pace import Pace
from npd6_xdp.system.bpf.compiler import load_bcc
from npd6_xdp.system.bpf.events import EventRing
from npd6_xdp.system.bpf.testrun import TestRun
from tests.datapath.harness import Bench, entry, table
from tests.frames import SETTING
from tests.kinds import solicit

ROUNDS = int(os.environ.get("NPD6_WAKEUPS", "4000"))
"""Of each kind. NPD6_WAKEUPS=200000 takes some minutes."""
REST = 0.05  # seconds without a wake-up, after which there may be no event
DELAYED = 1.0  # seconds after which a wake-up that the hypervisor holds up has come
_SPIN = 40e-6  # seconds that the asker waits at the most after an answer: about what it takes the reader to fall asleep
_GOLDEN = 0.618034
_QUESTION = solicit(SETTING)


class Counts:
    """What two processes tell each other: how many questions were answered."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, mmap.PAGESIZE)
        self.answered = memoryview(self._map).cast("Q")


@contextmanager
def asking(bench: Bench, counts: Counts, sizes: list[int], cpu: int) -> Iterator[None]:
    """Another process asks so many questions at a time, on a CPU."""
    child = os.fork()
    if not child:
        try:
            os.sched_setaffinity(0, {cpu})
            ask(bench.ns_filter.program.fd, counts, sizes)
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def ask(program: int, counts: Counts, sizes: list[int]) -> None:
    """Each question comes at another moment after the last answer, and these are spread evenly."""
    runs, clock, asked = TestRun(), time.monotonic, 0
    for number, size in enumerate(sizes):
        until = clock() + number * _GOLDEN % 1 * _SPIN
        while clock() < until:
            pass
        for _ in range(size):
            runs.run(program, _QUESTION)
        asked += size
        while counts.answered[0] < asked:
            os.sched_yield()


def read_all(ring: EventRing, counts: Counts, total: int) -> None:
    """Read as the daemon does, but with no look by a timer: each event is to be found by a look behind a wake-up."""
    pace, read = Pace(), 0
    with select.epoll() as doorbells:
        for fd in ring.filenos():
            doorbells.register(fd, select.EPOLLIN)
        while read < total:
            events = count(ring.read(watched=pace.watched))
            wait = pace.looked(events, time.monotonic())
            read += events
            counts.answered[0] = read
            if not wait or doorbells.poll(REST, 1):
                continue
            if events := count(ring.read(watched=False)):
                assert doorbells.poll(DELAYED, 1), f"behind {read} events came {events} that waked nobody"
                read += events


def count(runs: list[bytes]) -> int:
    return sum(map(len, runs)) // RECORD_SIZE


@pytest.fixture
def hammered(fresh: Callable[..., Bench]) -> Bench:
    return fresh(table(entry(datapath=Datapath.PYTHON)))


@pytest.mark.parametrize("size", [1, 2, 0], ids=["one at a time", "in pairs", "one to three"])
@pytest.mark.parametrize("apart", [True, False], ids=["on two CPUs", "on one"])
def test_whoever_goes_to_sleep_is_waked_for_what_comes_in_that_moment(hammered: Bench, size: int, apart: bool) -> None:
    before = os.sched_getaffinity(0)
    cpus = sorted(before)
    sizes = [size or 1 + number % 3 for number in range(ROUNDS)]
    counts = Counts()
    os.sched_setaffinity(0, {cpus[0]})
    try:
        with asking(hammered, counts, sizes, cpus[-1 if apart else 0]):
            read_all(hammered.ring, counts, sum(sizes))
    finally:
        os.sched_setaffinity(0, before)


def test_of_what_comes_while_the_reader_is_at_work_only_the_first_wakes(hammered: Bench, one_cpu: None) -> None:
    assert hammered.ring.read() == []
    with select.epoll() as doorbells:
        for fd in hammered.ring.filenos():
            doorbells.register(fd, select.EPOLLIN)
        for come in (1, 300):  # of one raising of the flag
            hammered.run(_QUESTION)
            assert doorbells.poll(DELAYED)
            for _ in range(come - 1):
                hammered.run(_QUESTION)
            assert not doorbells.poll(REST)
            assert count(hammered.ring.read()) == come
            assert hammered.ring.read(watched=False) == []


@pytest.mark.parametrize("goes", [True, False], ids=["goes", "comes"])
def test_a_cpu_that_goes_or_comes_while_rings_are_opened_has_both_of_its_rings_or_none(
    hammered: Bench, one_cpu: None, goes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a ring of wake-ups would be read for events, or an event's wake-up not be heard."""
    utils = load_bcc().utils
    online = utils.get_online_cpus()
    if len(online) < 2:
        pytest.skip("needs two CPUs")
    said = cycle([online, online[:-1]] if goes else [online[:-1], online])
    monkeypatch.setattr(utils, "get_online_cpus", lambda: next(said))
    ring = EventRing(hammered.ns_filter.program.maps)
    assert len(ring.filenos()) == len(ring._rings)
    with select.epoll() as doorbells:
        for fd in ring.filenos():
            doorbells.register(fd, select.EPOLLIN)
        for _ in range(3):
            assert ring.read() == []
            hammered.run(_QUESTION)
            assert doorbells.poll(DELAYED)
            assert count(ring.read(watched=False)) == 1
    ring.close()
