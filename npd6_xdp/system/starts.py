# SPDX-License-Identifier: GPL-2.0-or-later
"""How many starts in a row didn't get ready: what a dead process's program answers grows older with each of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

MOST = 3
"""Starts in a row that may come to nothing before what was handed over is let go of."""
_FILE = "starts"
_MOST_DIGITS = 4


class Starts:
    """Counts them in the service's directory below /run, which RUNTIME_DIRECTORY names; nowhere, if there is none.

    The count is only worth what that directory is, which the service's user can write: it decides on nothing but how
    long an old program answers.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        directory = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        self._file = Path(directory) / _FILE if directory else None

    def begin(self) -> int:
        """One more begins: how many before it didn't get ready."""
        if self._file is None:
            return 0
        text = ""
        with suppress(OSError, UnicodeDecodeError), self._file.open() as file:
            text = file.read(_MOST_DIGITS).strip()
        failed = int(text) if text.isascii() and text.isdigit() else 0
        self._write(failed + 1)
        return failed

    def ready(self) -> None:
        """This one is ready."""
        self._write(0)

    def _write(self, count: int) -> None:
        if self._file is not None:
            with suppress(OSError):  # /run is full or read-only: then what is handed over is kept
                fresh = self._file.with_suffix(".new")
                fresh.write_text(f"{min(count, 10**_MOST_DIGITS - 1)}\n")
                fresh.replace(self._file)
