# SPDX-License-Identifier: GPL-2.0-or-later
"""Which interface is which daemon's: by locks on the bytes of a file, which the kernel ends with their process.

The kernel tells the names of programs to CAP_SYS_ADMIN only, which the service hasn't got. So at tc, where it has many
programs side by side, nothing else says that another one there is an npd6-xdp's.
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

from npd6_xdp.system.daemon_files import DIRECTORY, netns_cookie, turn

log = logging.getLogger("npd6-xdp")

_NAME = "interfaces"
_FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, first byte, how many, whose
_COOKIE_BITS, _IFINDEX_BITS = 31, 32  # of a byte's number


class Claims:
    """Those of this process. Where there is no such file to be had, as in no directory, others' claims aren't seen."""

    def __init__(self, directory: Path | None = DIRECTORY) -> None:
        self._file = -1
        if directory is None:
            return
        self._base = (netns_cookie() & ((1 << _COOKIE_BITS) - 1)) << _IFINDEX_BITS
        try:
            self._file = _opened(directory)
        except OSError as error:
            path = directory / _NAME
            log.warning("%s: can't see there which interfaces are another npd6-xdp's: %s", path, error.strerror)

    def close(self) -> None:
        """Give up all of them."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def take(self, ifindex: int) -> int | None:
        """Claim an interface. None: it is ours; else the process that has it, 0 if that can't be seen from here."""
        if self._file < 0:
            return None
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._base | ifindex)
        except BlockingIOError:
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, self._base | ifindex, 1, 0)
            return int(_FLOCK.unpack(fcntl.fcntl(self._file, fcntl.F_GETLK, asked))[-1])
        except OSError as error:  # of memory
            log.warning("interface %d: can't be claimed: %s", ifindex, error.strerror)
        return None

    def give_up(self, ifindex: int) -> None:
        """Claim an interface no longer."""
        if self._file >= 0:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._base | ifindex)


def _opened(directory: Path) -> int:
    """The file, which is the directory's owner's, so that the service and root see each other. Raises OSError."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    with turn(directory) as inside:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(_NAME, flags, 0o600, dir_fd=inside)
        owner, status = os.fstat(inside), os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(file)
            raise OSError(errno.EINVAL, "it is no plain file")
        with suppress(OSError):  # only root may, and only root's isn't the owner's already
            os.fchown(file, owner.st_uid, owner.st_gid)
        return file
