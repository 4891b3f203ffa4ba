# SPDX-License-Identifier: GPL-2.0-or-later
"""A file that a process leaves to its successor, in the service's directory below /run (RUNTIME_DIRECTORY).

Only a plain file of this very user's is read to which nobody else may write: root reads nothing that another user has
written. A process that is killed leaves none.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from npd6_xdp.core.logged import fields

log = logging.getLogger("npd6-xdp")

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Left:
    """The file of a name, of at most so many bytes. All of it does nothing where there is no such directory."""

    def __init__(self, name: str, most: int, environment: Mapping[str, str] = os.environ) -> None:
        directory = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        self._file = Path(directory) / name if directory else None
        self._most = most

    def write(self, data: bytes) -> None:
        """Leave this. Where there is no space for it, nothing is left."""
        if self._file is None:
            return
        fresh = self._file.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "wb") as opened:
                opened.write(data)
            fresh.replace(self._file)
        except OSError as error:
            why = error.strerror or str(error)
            extra = fields(file=str(self._file), error=why)
            log.warning("%s: can't leave this to our successor: %s", self._file, why, extra=extra)
            with suppress(OSError):
                fresh.unlink(missing_ok=True)

    def read(self) -> bytes | None:
        """What was left; None: nothing, or nothing that can be trusted."""
        if self._file is None:
            return None
        try:
            file = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        found = os.fstat(file)
        is_ours = found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_MAY_WRITE and found.st_nlink == 1
        if not stat.S_ISREG(found.st_mode) or not is_ours or found.st_size > self._most:
            log.warning("%s: ignored, as it is no file of a daemon's", self._file, extra=fields(file=str(self._file)))
            os.close(file)
            return None
        with os.fdopen(file, "rb") as opened:
            return opened.read(self._most)

    def remove(self) -> None:
        """It is known by now, or nobody is to come."""
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)
