# SPDX-License-Identifier: GPL-2.0-or-later
"""npd6-xdp that says how long its loop's turns are: turns.py FILE ARGUMENT...; Turns reads what FILE has.

A turn is measured by the processor time of the loop's thread, so it is no matter what else the machine is at.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path

from npd6_xdp import cli
from npd6_xdp.daemon.loop import Loop

PROGRAM = (sys.executable, str(Path(__file__)))
_LONGEST = struct.Struct("=dd")
_SIZE = mmap.PAGESIZE


class Turns:
    """The other end: how long the longest turn was. Make it before the daemon is started."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(bytes(_SIZE))
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), _SIZE)

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()

    def begin(self) -> None:
        """Measure from now on."""
        self._map[: _LONGEST.size] = bytes(_LONGEST.size)

    @property
    def longest(self) -> float:
        """Seconds of processor time of the longest turn."""
        return float(_LONGEST.unpack_from(self._map)[0])

    @property
    def all_in_all(self) -> float:
        """Seconds of processor time of all turns."""
        return float(_LONGEST.unpack_from(self._map)[1])


def main(file: str, *arguments: str) -> int:
    """Run the command line, and measure."""
    with Path(file).open("r+b") as opened:
        noted = mmap.mmap(opened.fileno(), _SIZE)
    whole, began = Loop.turn, [0.0]

    def turn(self: Loop, wait: float) -> None:
        """From where one begins to where the next does: waiting takes no processor time."""
        now = time.thread_time()
        if began[0]:
            longest, total = _LONGEST.unpack_from(noted)
            took = now - began[0]
            _LONGEST.pack_into(noted, 0, max(longest, took), total + took)
        began[0] = now
        whole(self, wait)

    Loop.turn = turn  # type: ignore[method-assign]
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
