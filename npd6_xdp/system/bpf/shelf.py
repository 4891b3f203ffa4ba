# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are kept for the next start, where no other user can have written them; a missing one is no error.

The directory and the files are this user's, and nobody else may write to them: root never reads what another user has
written. What was cut off or changed on the disk is found by a digest, and removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from npd6_xdp.core.logged import Fields, fields

T = TypeVar("T")

USUAL = "/var/cache/npd6-xdp"
"""Where files are kept, unless somebody says otherwise."""
MOST_FILES = 8
"""Those that weren't used for longest go first."""
MOST_BYTES = 1 << 22
"""Of one file. What is kept has some 25,000."""

_ENDING, _UNDER_WAY = ".kept", ".new"
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_DIGEST = hashlib.sha256

log = logging.getLogger("npd6-xdp")


def directory() -> Path:
    """Where files are kept: the directory that systemd has made for it (CacheDirectory=), else the usual one."""
    return Path(os.environ.get("CACHE_DIRECTORY", "").partition(":")[0] or USUAL)


def read(name: str, unpack: Callable[[bytes], T]) -> T | None:
    """What is kept under a name. None: nothing, or nothing that can be trusted or used; what is broken is removed.

    `unpack` raises ValueError if it can't make anything of it.
    """
    try:
        with _opened() as folder:
            file = os.open(name + _ENDING, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                data = _content(file, name)
                found = unpack(data)
                with suppress(OSError):
                    os.utime(file)  # used now
            except ValueError as error:
                log.debug(
                    "what is kept in %s can't be used, and is removed: %s", directory(), error, extra=_failed(error)
                )
                os.unlink(name + _ENDING, dir_fd=folder)
                return None
            finally:
                os.close(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.debug("nothing can be read of what is kept in %s: %s", directory(), error.strerror, extra=_failed(error))
        return None
    return found


def write(name: str, data: bytes) -> None:
    """Keep something, in the place of what was kept under that name; if that can't be, it isn't kept."""
    try:
        with suppress(FileExistsError):
            directory().mkdir(0o700)
        with _opened() as folder:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever has the lock most likely keeps the same
            _write(folder, name, _digest(name, data) + data)
            _forget_oldest(folder)
    except OSError as error:
        log.debug("nothing can be kept in %s: %s", directory(), error.strerror, extra=_failed(error))


def remove(name: str) -> None:
    """Keep it no longer."""
    with suppress(OSError), _opened() as folder:
        os.unlink(name + _ENDING, dir_fd=folder)


@contextmanager
def _opened() -> Iterator[int]:
    """The directory. Raises OSError if it isn't there, or others may write to it."""
    folder = os.open(directory(), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _require_ours(os.fstat(folder))
        yield folder
    finally:
        os.close(folder)


def _require_ours(found: os.stat_result) -> None:
    if found.st_uid != os.geteuid() or found.st_mode & _OTHERS_MAY_WRITE:
        raise PermissionError(0, "it is another user's, or others may write to it")


def _content(file: int, name: str) -> bytes:
    """What a file has, if it is ours and whole. Raises OSError or ValueError if it isn't."""
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "it is no regular file")
    _require_ours(found)
    if found.st_size > MOST_BYTES:
        raise ValueError("it is too large")
    whole = os.read(file, MOST_BYTES)
    size = _DIGEST().digest_size
    if whole[:size] != _digest(name, whole[size:]):
        raise ValueError("it isn't as it was written")
    return whole[size:]


def _digest(name: str, data: bytes) -> bytes:
    return _DIGEST(name.encode() + b"\0" + data).digest()


def _write(folder: int, name: str, data: bytes) -> None:
    for left in os.listdir(folder):  # by somebody who was killed: nobody else writes now
        if left.endswith(_UNDER_WAY):
            os.unlink(left, dir_fd=folder)
    beside = name + _UNDER_WAY
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        try:
            if os.write(file, data) != len(data):
                raise OSError(0, "there is no space for all of it")
        finally:
            os.close(file)
        os.rename(beside, name + _ENDING, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(beside, dir_fd=folder)
        raise


def _forget_oldest(folder: int) -> None:
    names = [name for name in os.listdir(folder) if name.endswith(_ENDING)]
    used = {name: os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns for name in names}
    for name in sorted(used, key=used.__getitem__)[:-MOST_FILES]:
        os.unlink(name, dir_fd=folder)


def _failed(error: OSError | ValueError) -> dict[str, Fields]:
    return fields(file=str(directory()), error=str(error))
