# SPDX-License-Identifier: GPL-2.0-or-later
"""Who traces a daemon, in this process or in one of its own, and what the kernel has switched on for that."""

from __future__ import annotations

import ctypes as ct
import errno
import os
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from npd6_xdp.core.entries import EntryFlag
from npd6_xdp.core.layout import ENTRY, ENTRY_KEY, INDEX
from npd6_xdp.core.trace_wire import Filter
from npd6_xdp.core.traced import Traced
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.tools.trace_session import Session, Summary
from tests.netns.wire import Wire, until

T = TypeVar("T")
_BATCH = 500  # frames
_CLIENT = """
import sys
from pathlib import Path
from select import select
from npd6_xdp.core.trace_wire import Filter
from npd6_xdp.tools.trace_session import Session
session = Session(Path(sys.argv[1]), Filter())
print("on", flush=True)
while True:
    select(session.filenos(), [], [], 0.5)
    session.read()
"""


class Trace:
    """A session, and the lines that it gave so far."""

    def __init__(self, running: RunningDaemon, wanted: Filter = Filter()) -> None:  # noqa: B008 (frozen)
        self.session = Session(running.control, wanted)
        self.lines: list[Traced] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.session.close()

    def read(self) -> list[Traced]:
        select.select(self.session.filenos(), [], [], 0.1)
        self.lines += self.session.read()
        return self.lines

    def has(self, count: int) -> bool:
        """Whether so many lines have come, which are waited for."""
        return until(lambda: len(self.read()) >= count)

    def during(self, call: Callable[[], T]) -> T:
        """What something gives that takes a while; he who traces has to be heard of meanwhile."""
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(call)
            while not under_way.done():
                self.read()
            return under_way.result()

    def unread(self, call: Callable[[], T]) -> T:
        """What something gives, by one who is there and reads nothing."""
        self.session.stay()
        return call()

    @property
    def decided(self) -> list[Traced]:
        """Those that aren't late answers."""
        return [line for line in self.lines if not line.late]

    def has_decided(self, count: int) -> bool:
        """The same of those."""
        return until(lambda: bool(self.read()) and len(self.decided) >= count)

    def end(self) -> Summary:
        """Switch it off; the lines are complete then."""
        self.lines += self.session.stop()
        return self.session.end()


def flood_paced(wire: Wire, frames: Iterable[bytes], counted: Callable[[], int]) -> bool:
    """Send frames at the pace at which they are counted, so that none is lost before; whether all are."""
    sent = 0
    while batch := tuple(islice(frames, _BATCH)):
        for frame in batch:
            assert until(partial(_takes, wire, frame))
        sent += len(batch)
        if not until(partial(_is_at, counted, sent)):
            return False
    return counted() == sent


def _is_at(counted: Callable[[], int], least: int) -> bool:
    return counted() >= least


def _takes(wire: Wire, frame: bytes) -> bool:
    try:
        wire.send(frame)
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # the other end has no time now
            raise
        return False
    return True


@contextmanager
def client(running: RunningDaemon) -> Iterator[subprocess.Popen[str]]:
    """A process that traces."""
    with subprocess.Popen(
        [sys.executable, "-c", _CLIENT, str(running.control)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "on\n"
            yield process
        finally:
            process.kill()


def switched_on(running: RunningDaemon) -> set[str]:
    """What is switched on in the maps that a daemon holds, by the kernel's word: a ring, entries that are traced."""
    import bcc

    found: set[str] = set()
    by_id: Any = ct.CFUNCTYPE(ct.c_int, ct.c_uint32)(("bpf_map_get_fd_by_id", bcc.lib))
    for number in _map_ids(running.process.pid):
        if (fd := by_id(number)) < 0:
            continue
        try:
            name = _name(bcc.lib, fd)
            if name == "trace_ring" and bcc.lib.bpf_lookup_elem(fd, INDEX.pack(0), ct.create_string_buffer(4)) == 0:
                found.add("a ring")
            if name == "entries" and any(
                ENTRY.get(value, "flags") & EntryFlag.TRACED for value in _values(bcc.lib, fd)
            ):
                found.add("an entry")
        finally:
            os.close(fd)
    return found


def _map_ids(pid: int) -> set[int]:
    ids: set[int] = set()
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(OSError):
            ids |= {int(number) for number in re.findall(r"^map_id:\s*(\d+)", path.read_text(), re.MULTILINE)}
    return ids


def _name(lib: Any, fd: int) -> str:
    info, length = ct.create_string_buffer(40), ct.c_uint32(40)  # struct bpf_map_info, up to its name
    assert lib.bpf_obj_get_info_by_fd(fd, info, ct.byref(length)) == 0
    return info.raw[24:40].partition(b"\0")[0].decode()


def _values(lib: Any, fd: int) -> Iterator[bytes]:
    key, value, last = ct.create_string_buffer(ENTRY_KEY.size), ct.create_string_buffer(ENTRY.size), None
    while lib.bpf_get_next_key(fd, last, key) == 0:
        last = key.raw
        if lib.bpf_lookup_elem(fd, last, value) == 0:
            yield value.raw
