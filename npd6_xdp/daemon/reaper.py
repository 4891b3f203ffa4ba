# SPDX-License-Identifier: GPL-2.0-or-later
"""Waits for processes of ours that have been let go of, so that none of them stays as a zombie."""

from __future__ import annotations

import time

from npd6_xdp.daemon.loop import Loop
from npd6_xdp.system.aside import reap

_PAUSE = 1.0  # seconds between two looks


class Reaper:
    """Looks at once, and again until all have ended."""

    def __init__(self) -> None:
        self._at: float | None = None

    def join(self, loop: Loop) -> None:
        """Have the loop look again."""
        loop.at(lambda: self._at, lambda _: self.reap(), "reload")

    def reap(self) -> None:
        """One has been let go of."""
        self._at = None if reap() else time.monotonic() + _PAUSE
