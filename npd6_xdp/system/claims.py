# SPDX-License-Identifier: GPL-2.0-or-later
"""Which interface is which daemon's: by locks on the bytes of a file, which the kernel ends with their process.

The kernel tells the names of programs to CAP_SYS_ADMIN only, which the service hasn't got. So at tc, where it has many
programs side by side, nothing else says that another one there is an npd6-xdp's.

They are a process's own (F_SETLK), not an open file's: a process that is forked off the daemon and outlives it has none
of them, and whoever is refused can be told whose they are. So nobody else in the daemon may open that file: the kernel
ends all of a process's locks on a file when it closes any descriptor of it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import struct
from contextlib import suppress
from pathlib import Path

from npd6_xdp.core.errors import MachineError, remedy
from npd6_xdp.core.logged import fields
from npd6_xdp.core.said import Said
from npd6_xdp.system.daemon_files import DIRECTORY, netns_cookie, turn

log = logging.getLogger("npd6-xdp")

_NAME = "interfaces"
_FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, first byte, how many, whose
_COOKIE_BITS, _IFINDEX_BITS = 31, 32  # of a byte's number
_PRESENT = 0  # the byte that each has, to read, who has the file open: no interface has index 0
_TRIES = 8  # at an interface that whoever had it gives up at the same moment


class Claims:
    """Those of this process. Where there is no such file to be had, as in no directory, others' claims aren't seen."""

    def __init__(self, directory: Path | None = DIRECTORY) -> None:
        self._file = -1
        self._said = Said()
        if directory is None:
            return
        self._directory = directory
        try:
            self._base = (netns_cookie() & ((1 << _COOKIE_BITS) - 1)) << _IFINDEX_BITS
            self._file = _opened(directory)
        except OSError as error:
            self._cannot_see(error)

    def close(self) -> None:
        """Give up all of them, and take the file away if nobody else has it."""
        if self._file < 0:
            return
        with suppress(OSError), turn(self._directory) as inside:  # nobody opens it within
            if _holder(self._file, 0, 0) is None and _is(self._file, inside):
                os.unlink(_NAME, dir_fd=inside)
        os.close(self._file)
        self._file = -1

    def take(self, ifindex: int, name: str) -> None:
        """Claim an interface. Raises MachineError if it is another process's."""
        if self._file < 0:
            return
        try:
            pid = self._try(self._base | ifindex)
        except OSError as error:  # of memory
            self._cannot_see(error)
            return
        if pid is not None:
            whose = f": pid {pid}" if pid > 0 else ""  # else it can't be seen from here
            raise MachineError(
                f"{name}: another npd6-xdp's program is there already{whose}; end that one, or leave this interface out"
            )

    def _try(self, byte: int) -> int | None:
        """Lock a byte; None: it is ours, else whose it is. Raises OSError."""
        pid = None
        for _ in range(_TRIES):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            except BlockingIOError:
                pid = _holder(self._file, byte, 1)
                if pid is not None:
                    return pid
            else:
                return None
        return 0

    def give_up(self, ifindex: int) -> None:
        """Claim an interface no longer."""
        if self._file >= 0:
            with suppress(OSError):  # of memory: to end one in the middle of many takes some
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._base | ifindex)

    def _cannot_see(self, error: OSError) -> None:
        """Say so once: a start isn't to fail for it."""
        if self._said.note():
            path, why = self._directory / _NAME, remedy(error)
            log.warning(
                "%s: can't see there which interfaces are another npd6-xdp's: %s", path, why, extra=fields(error=why)
            )


def remove(directory: Path = DIRECTORY) -> None:
    """Take the file away that daemons have left which are dead, where none lives."""
    with suppress(OSError), turn(directory) as inside:
        file = os.open(_NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inside)
        try:
            if stat.S_ISREG(os.fstat(file).st_mode) and _holder(file, 0, 0) is None:
                os.unlink(_NAME, dir_fd=inside)
        finally:
            os.close(file)


def _holder(file: int, byte: int, count: int) -> int | None:
    """Another process that has one of so many bytes from one on (0: all); None: there is none. 0: one that can't be
    seen from here.
    """
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, count, 0)
    kind, *_, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else max(int(pid), 0)


def _is(file: int, directory: int) -> bool:
    """Whether an open file is the one that has the name in a directory."""
    there, ours = os.stat(_NAME, dir_fd=directory, follow_symlinks=False), os.fstat(file)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _opened(directory: Path) -> int:
    """The file, which is the directory's owner's, so that the service and root see each other. Raises OSError."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    with turn(directory) as inside:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(_NAME, flags, 0o600, dir_fd=inside)
        try:
            _check(file)
            owner = os.fstat(inside)
            with suppress(OSError):  # only root may, and only root's isn't the owner's already
                os.fchown(file, owner.st_uid, owner.st_gid)
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, _PRESENT)
        except OSError:
            os.close(file)
            raise
        return file


def _check(file: int) -> None:
    """Raise OSError if an open file is none that a daemon makes."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise OSError(errno.EINVAL, "it is no plain file")
