# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that is compiled and loaded beside the loop, in a process of its own that hands it over."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from npd6_xdp.core.errors import MachineError, Npd6Error
from npd6_xdp.system.aside import LOADING, LONGEST_LOADING, Aside, Descriptors
from npd6_xdp.system.bpf.load import Loaded, load


class Loading:
    """One program with maps of these sizes, from now on. Raises MachineError if there can't be a process for it."""

    def __init__(self, sizes: Mapping[str, int], patience: float = LONGEST_LOADING) -> None:
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


def _load(sizes: Mapping[str, int]) -> Iterator[Descriptors]:
    yield Descriptors(tuple(load(sizes).descriptors))
