# SPDX-License-Identifier: GPL-2.0-or-later
"""The program, compiled beside a start with a long file, in a process that is forked before all else is imported."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from npd6_xdp.core.errors import MachineError, Npd6Error
from npd6_xdp.system import cgroup
from npd6_xdp.system.aside import LOADING, LONGEST_LOADING, Aside, AsideError
from npd6_xdp.system.bpf.compiler import load_bcc
from npd6_xdp.system.bpf.load import COMPILER_BYTES, compile_ahead, is_kept, take_text

_LONG = 1 << 19  # bytes of a file, 7,000 rules, that take longer to read than a process takes to be forked
_READING = 32  # bytes that each of a file takes, at the most, until a table is made of it
_HERE = 26_000_000  # bytes: what this process has yet to import, and the compiler's library, which it loads as well


class Compiling:
    """The program, compiled beside the start, from now on: it takes a second of a processor, where the imports and
    100,000 rules take as long.

    No part of what is loaded depends on the file but the maps' sizes, which the compiled program doesn't have.
    """

    @classmethod
    def worth_it(cls, file: Path) -> Compiling | None:
        """Where the file is long, and there is memory for both at a time."""
        try:
            size = file.stat().st_size
        except OSError:
            return None  # whoever reads it says why
        limit = cgroup.nearest_limit() if size >= _LONG else None
        if size < _LONG or (limit and limit.left < COMPILER_BYTES + _HERE + _READING * size):
            return None
        try:
            return cls()
        except MachineError:
            return None  # no process more, or no text: it is compiled in this one, which says why it can't

    def __init__(self) -> None:
        take_text()
        self._aside = Aside(_compiled, LOADING)
        self._is_open = True

    def take(self) -> bytes:
        """Wait for it. b"" where an earlier start has kept it, and where it came to nothing: whoever loads the program
        compiles it, and says why it can't.
        """
        with suppress(MachineError):
            load_bcc()  # which takes a while as well, in each process
        found, ends = b"", time.monotonic() + LONGEST_LOADING
        try:
            while not self._aside.over and select.select([self._aside], [], [], max(0.0, ends - time.monotonic()))[0]:
                for part in self._aside.take():
                    found = part
        except (Npd6Error, AsideError):
            return b""
        finally:
            self.close()
        return found if self._aside.over else b""

    def close(self) -> None:
        """Let go of it, however far it is; nothing happens if it was taken."""
        if self._is_open:
            self._is_open = False
            self._aside.close()


def _compiled() -> Iterator[bytes]:
    yield b"" if is_kept() else compile_ahead()
