# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that is compiled and loaded beside the loop, in a process of its own that hands it over."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from npd6_xdp.core.errors import MachineError, Npd6Error
from npd6_xdp.system import cgroup
from npd6_xdp.system.aside import LOADING, Aside, AsideError, Descriptors
from npd6_xdp.system.bpf.load import Loaded, compile_ahead, is_kept, load
from npd6_xdp.system.bpf.sizes import COMPILER_BYTES

_LONG = 1 << 19  # bytes of a file, 7,000 rules, that take longer to read than a process takes to be forked
_READING = 32  # bytes that each of a file takes, at the most, until a table is made of it
PATIENCE = 600.0
"""Seconds. It takes one, and half a minute where the machine is an emulated one."""


class Loading:
    """One program with maps of these sizes, from now on. Raises MachineError if there can't be a process for it."""

    def __init__(self, sizes: Mapping[str, int], patience: float = PATIENCE) -> None:
        self._aside = Aside(lambda: _load(sizes), LOADING, hands_over=True)
        self._loaded: Loaded | None = None
        self._patience = patience
        self.due = time.monotonic() + patience
        """When it is given up (seconds, monotonic)."""

    def fileno(self) -> int:
        """Readable when there is something to take."""
        return self._aside.fileno()

    def take(self) -> Loaded | None:
        """The program, once it is loaded; it is the caller's then. Raises MachineError if it can't be."""
        if time.monotonic() >= self.due:
            raise MachineError(f"loading the XDP program has taken {self._patience:.0f} s, and was given up")
        try:
            for part in self._aside.take():
                self._loaded = Loaded.of(part.numbers)
        except MachineError:
            raise
        except Npd6Error as error:  # what it was refused there
            raise MachineError(str(error)) from error
        if not self._aside.over:
            return None
        loaded, self._loaded = self._loaded, None
        return loaded

    def close(self) -> None:
        """Let go of it, however far it is."""
        if self._loaded is not None:
            self._loaded.close()
        self._aside.close()


class Compiling:
    """The program, compiled beside the reading of a long file, from now on: it takes a second of a processor, where the
    reading of 100,000 rules takes a third.

    No part of what is loaded depends on the file but the maps' sizes, which the compiled program doesn't have.
    """

    @classmethod
    def worth_it(cls, file: str) -> Compiling | None:
        """Where the file is long, an earlier start has kept nothing, and there is memory for both at a time."""
        try:
            size = Path(file).stat().st_size
        except OSError:
            return None  # whoever reads it says why
        limit = cgroup.nearest_limit() if size >= _LONG else None
        if size < _LONG or is_kept() or (limit and limit.left < COMPILER_BYTES + _READING * size):
            return None
        try:
            return cls()
        except MachineError:
            return None  # no process more: it is compiled in this one

    def __init__(self) -> None:
        self._aside = Aside(lambda: iter((compile_ahead(),)), LOADING)

    def take(self) -> bytes:
        """Wait for it. b"" where it came to nothing: whoever loads the program compiles it, and says why it can't."""
        found, ends = b"", time.monotonic() + PATIENCE
        try:
            while not self._aside.over and select.select([self._aside], [], [], max(0.0, ends - time.monotonic()))[0]:
                for part in self._aside.take():
                    found = part
        except (Npd6Error, AsideError):
            return b""
        return found if self._aside.over else b""

    def close(self) -> None:
        """Let go of it, however far it is."""
        self._aside.close()


def _load(sizes: Mapping[str, int]) -> Iterator[Descriptors]:
    yield Descriptors(tuple(load(sizes).descriptors))
