# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done in a process beside this one: it hands over all, or says why not, and leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.core.errors import ConfigError, MachineError, Mistake, Npd6Error
from npd6_xdp.lab.processes import state_of
from npd6_xdp.system.aside import Aside, AsideError, reap

WAIT = 30.0  # seconds


def taken(make: Callable[[], Iterable[object]]) -> list[Any]:
    """All that comes of it."""
    aside = Aside(make)
    try:
        found: list[Any] = []
        while not aside.over:
            assert select.select([aside], [], [], WAIT)[0]
            found += aside.take()
        return found
    finally:
        aside.close()
        gone = time.monotonic() + WAIT
        while not reap():
            assert time.monotonic() < gone
            time.sleep(0.01)


def test_what_is_made_comes_whole_and_in_order_however_long_it_is() -> None:
    parts = [0, "x" * 3_000_000, *range(1_000), None]
    assert taken(lambda: parts) == parts


def refuse() -> Iterator[int]:
    yield 1
    raise ConfigError("f", [Mistake("a", "is wrong", 1, 2), *(Mistake("", "as well", 3) for _ in range(30))])


def fail() -> Iterator[int]:
    yield 1
    raise KeyError("ours")


def test_mistakes_in_a_file_are_said_as_they_are() -> None:
    with pytest.raises(ConfigError) as here:
        list(refuse())
    with pytest.raises(ConfigError) as caught:
        taken(refuse)
    assert str(caught.value) == str(here.value)
    assert caught.value.mistakes == here.value.mistakes
    assert str(caught.value).splitlines()[::20] == ["f:1:2: a: is wrong", "f: and 11 more mistakes; mend these first"]


def test_what_it_refuses_is_said_in_its_words() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise MachineError("no such thing")

    with pytest.raises(Npd6Error, match=r"^no such thing$"):
        taken(make)


def test_a_mistake_of_ours_comes_with_its_traceback() -> None:
    with pytest.raises(AsideError, match="KeyError: 'ours'") as caught:
        taken(fail)
    assert "in fail" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "more memory to read than there is, or so it seems"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "ended by SIGSEGV"),
        (lambda: os._exit(7), "ended by exit status 7"),
    ],
)
def test_one_that_is_killed_has_failed(end: Callable[[], object], words: str) -> None:
    def make() -> Iterator[int]:
        yield 1
        end()

    with pytest.raises(MachineError, match=words):
        taken(make)


def test_one_that_wants_too_much_memory_is_told_so_and_nobody_else_goes_without() -> None:
    """Address space, that is: nothing of it is touched."""

    def make() -> Iterator[int]:
        yield len(bytearray(1 << 40))

    with pytest.raises(Npd6Error, match="it takes more memory to read than there is"):
        taken(make)


def test_one_that_never_ends_is_ended() -> None:
    def make() -> Iterator[int]:
        yield os.getpid()
        while True:
            pass

    aside = Aside(make)
    assert select.select([aside], [], [], WAIT)[0]
    (pid,) = aside.take()
    aside.close()
    gone = time.monotonic() + WAIT
    while not reap():
        assert time.monotonic() < gone
        time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_holds_nothing_that_is_open_here() -> None:
    ours, theirs = os.pipe()
    try:
        (held,) = taken(lambda: [sorted(os.listdir("/proc/self/fd"))])  # noqa: PTH208
        assert str(ours) not in held
        assert str(theirs) not in held
    finally:
        os.close(ours)
        os.close(theirs)


PARENT = """
import os, sys, time
from npd6_xdp.system.aside import Aside
def make():
    yield os.getpid()
    time.sleep(600)
aside = Aside(make)
while not (found := aside.take()):
    time.sleep(0.01)
print(found[0], flush=True)
time.sleep(600)
"""


def test_none_outlives_who_started_it() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        parent.kill()
        gone = time.monotonic() + WAIT
        while alive(pid):
            assert time.monotonic() < gone
            time.sleep(0.01)


def alive(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return state_of(Path(f"/proc/{pid}")) != "Z"
    return False
