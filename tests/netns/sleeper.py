# SPDX-License-Identifier: GPL-2.0-or-later
"""How late this machine is: a process that sleeps for a moment, again and again, and notes each time that it overslept.

A bound of the daemon's holds for a machine that runs a process when its time has come. Where others keep the processors
busy, a chain of processes is late by as much as each of them was. So a test allows for the worst that a sleeper saw in
the same seconds, and what is late by more than that is so by itself.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

EVERY = 0.005  # seconds of a sleep
_WORTH_NOTING = 0.001  # seconds
_NOTE = struct.Struct("=dd")  # when it woke (seconds, monotonic), and how late
_SCRIPT = f"""\
import os, struct, sys, time
note, parent = struct.Struct("=dd"), os.getppid()
with open(sys.argv[1], "ab", buffering=0) as file:
    file.write(note.pack(time.monotonic(), 0.0))
    while os.getppid() == parent:
        began = time.monotonic()
        time.sleep({EVERY})
        woke = time.monotonic()
        if woke - began - {EVERY} > {_WORTH_NOTING}:
            file.write(note.pack(woke, woke - began - {EVERY}))
"""


class Sleeper:
    """Sleeps while the `with` block runs."""

    def __enter__(self) -> Self:
        self._file = Path(tempfile.mkstemp(prefix="npd6-xdp-sleeper-")[1])
        self._process = subprocess.Popen((sys.executable, "-IS", "-c", _SCRIPT, str(self._file)))
        while not self._file.stat().st_size:
            assert self._process.poll() is None, "it has ended"
            time.sleep(0.001)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self._file.unlink()

    def worst(self, since: float, times: int) -> float:
        """The sum of the so many times (seconds) that it overslept most, of those that ended after `since` (seconds,
        monotonic): how late a chain of so many processes may be by now through no fault of theirs.
        """
        time.sleep(2 * EVERY)  # what it is late with now counts as well
        notes = self._file.read_bytes()
        whole = notes[: len(notes) // _NOTE.size * _NOTE.size]
        overslept: list[float] = [late for woke, late in _NOTE.iter_unpack(whole) if woke >= since]
        return sum(sorted(overslept, reverse=True)[:times])
