# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's end, while its program goes on handing up events."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

from npd6_xdp.daemon import Daemon
from npd6_xdp.daemon.in_force import NOTHING
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.rings import Ring, Rings


class Endless:
    """A ring into which events come as fast as they are read."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self) -> list[bytes]:
        self.reads += 1
        assert self.reads < 1_000_000, "it comes to no end"
        return [b""]

    def close(self) -> None: ...


def test_what_comes_without_end_doesnt_keep_it_from_ending_where_the_program_stays() -> None:
    ring, loop = Endless(), Loop()
    rings = Rings(loop)
    rings._rings.append(Ring(ring))  # type: ignore[arg-type]
    answering = SimpleNamespace(answer=len, count=lambda: None)
    nothing = SimpleNamespace(close=lambda: None, end=lambda *, leave: None)
    daemon = Daemon.__new__(Daemon)
    changes = SimpleNamespace(in_force=NOTHING)
    documents = SimpleNamespace(leave_samples=lambda: None)
    left_targets = SimpleNamespace(leave=lambda _: None)
    rooms: Any = SimpleNamespace(
        reloads=nothing,
        tracking=nothing,
        discovery=nothing,
        rings=rings,
        answering=answering,
        documents=documents,
        left_targets=left_targets,
        changes=changes,
    )
    daemon._rooms = rooms
    daemon._hand_over = SimpleNamespace(lasts=True)  # type: ignore[assignment]
    daemon._stack, daemon._loop = ExitStack(), loop
    daemon.close()
    assert 0 < ring.reads < 1_000_000
    loop.close()
