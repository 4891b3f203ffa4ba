# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a configuration file, of whatever format, with an error that says what is wrong with it.

Its path may lead to anything: a pipe, a device that never ends, a file that is being written. Other users or a broken
script may have put it there.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from npd6_xdp.core.errors import ConfigError, Mistake
from npd6_xdp.core.text import TextError, decode

MOST = 128 << 20
"""Bytes of a file: a million rules have 134 each, and take 88 as `prefix`, `method` and `via` of usual length."""

_PIECE = 1 << 20
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_text(path: Path, most: int = MOST) -> str:
    """A file's text. Never blocks.

    Raises ConfigError, with one mistake, if it can't be read, is no regular file, has more than `most` bytes, changes
    while it is read, or isn't UTF-8.
    """
    try:
        return decode(_read(path, most))
    except OSError as error:
        raise _refused(path, f"can't read it: {error.strerror}") from error
    except TextError as error:
        raise _refused(path, str(error), error.line, error.column) from error
    except ValueError as error:
        raise _refused(path, str(error)) from error


def _refused(path: Path, why: str, line: int = 0, column: int = 0) -> ConfigError:
    return ConfigError(str(path), [Mistake("", why, line, column)])


def _read(path: Path, most: int) -> bytes:
    """The whole of a regular file, as it was at one time. ValueError says why not."""
    # opening a pipe would wait for its writer; a terminal would become our controlling one
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # open(2): of a socket, and of a device that isn't there
            raise _no_file(path.stat().st_mode) from None
        raise
    try:
        before = os.fstat(file)
        if not stat.S_ISREG(before.st_mode):
            raise _no_file(before.st_mode)
        if before.st_size > most:
            raise ValueError(
                f"it is too long: {before.st_size:,} bytes, of {most:,} at most; what is alike fits into wider prefixes"
            )
        pieces, size = [], 0
        # some files of /proc and /sys say that they have no bytes; one that grows for ever ends here as well
        while size <= most and (piece := os.read(file, _PIECE)):
            pieces.append(piece)
            size += len(piece)
        after = os.fstat(file)
    finally:
        os.close(file)
    if size > most:
        raise ValueError(f"it is too long: more than {most:,} bytes")
    if (before.st_size and size != before.st_size) or _version(before) != _version(after):
        raise ValueError("it was written to while it was read; once that is done, try again")
    return b"".join(pieces)


def _no_file(mode: int) -> ValueError:
    kind = next((name for fits, name in _KINDS if fits(mode)), "something else")
    return ValueError(f"can't read it: it is {kind}, not a regular file")


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
