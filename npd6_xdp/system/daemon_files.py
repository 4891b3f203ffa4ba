# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of daemons in their directory below /run: which of them live, and what dead ones have left.

Each has one, locked for as long as it lives. The directory is the service's user's, and so is each file in it, root's
daemon's too: that user has to see it, and its lock, and could take it away anyhow; nobody else can touch it. A reader,
who may be root, follows no link there, and takes only plain files of the right owners.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import logging
import os
import re
import secrets
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from npd6_xdp.core.logged import fields

log = logging.getLogger("npd6-xdp")

DIRECTORY = Path("/run/npd6-xdp")
_SO_NETNS_COOKIE = 71
_NAME = re.compile(r"sysctl-[0-9]{1,20}-[1-9][0-9]{0,9}-\w+")
_MOST_SWEPT = 1024  # files that a start looks into
_MOST_KEPT = 64  # files of dead daemons of other network namespaces, for a start there
_KEPT = 7 * 86400.0  # seconds for which they are kept: most of those namespaces are gone, and nobody is to come
_TURN = 1.0  # seconds to wait for another daemon that is at work there: it may have been stopped in the middle
_MOST_LEFT = 4 << 20  # bytes of a file that is read: 4,000 interfaces have 400,000


class Remembered(NamedTuple):
    """A daemon's file: its name, whose it is, whether that one lives, and what it says; None if it can't be read."""

    name: str
    pid: int
    lives: bool
    text: bytes | None


def netns_cookie() -> int:
    """A number that no other network namespace has or will have, while names and inode numbers come again."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as here:
        return int.from_bytes(here.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)


@contextmanager
def turn(directory: Path) -> Iterator[int]:
    """A descriptor of the directory, locked against other daemons; but it waits for them for a limited time only."""
    locked = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        ends = time.monotonic() + _TURN
        while not _try_lock(locked) and time.monotonic() < ends:
            time.sleep(0.001)
        yield locked
    finally:
        os.close(locked)


def _try_lock(file: int) -> bool:
    """Lock a file, if no living process has locked it; whether it is ours now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def create(directory: int, prefix: str) -> tuple[str, int]:
    """This process's file, locked: its name and a descriptor. Raises OSError."""
    name = f"{prefix}{os.getpid()}-{secrets.token_hex(4)}"
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    fcntl.flock(file, fcntl.LOCK_EX)
    owner = os.fstat(directory)
    with suppress(OSError):  # only root may; who isn't the owner otherwise is seen by his process's id
        os.fchown(file, owner.st_uid, owner.st_gid)
    return name, file


def remembered(directory: int, prefix: str, path: Path, *, quiet: bool = False) -> Iterator[Remembered]:
    """The files of daemons in a directory, the oldest first. Anything else with such a name is left alone, with a
    warning unless `quiet`: a link, a pipe, a file of another user.
    """
    said = logging.DEBUG if quiet else logging.WARNING
    found = []
    for name in os.listdir(directory):
        if not name.startswith(prefix):
            continue
        try:
            found.append(_opened(directory, name, prefix))
        except FileNotFoundError:
            continue  # its daemon has just ended
        except OSError as error:
            why = "it is a link" if error.errno == errno.ELOOP else error.strerror
        except ValueError as error:
            why = str(error)
        else:
            continue
        extra = fields(file=str(path / name), error=why or "")
        log.log(said, "%s: ignored, as it is no file of a daemon's: %s", path / name, why, extra=extra)
    for _, name, file, is_readable in sorted(found):
        pid = int(name.split("-")[2])
        if is_readable:
            with os.fdopen(file, "rb") as opened:
                yield Remembered(name, pid, not _try_lock(file), opened.read(_MOST_LEFT))
            continue
        os.close(file)
        if _runs(pid):
            yield Remembered(name, pid, lives=True, text=None)
        else:
            extra = fields(file=str(path / name))
            line = "%s: can't be read, and its daemon has gone: run `npd6-xdp clean` as root"
            log.log(said, line, path / name, extra=extra)


def _opened(directory: int, name: str, prefix: str) -> tuple[int, str, int, bool]:
    """A file of a daemon's: when it was written, its name, a descriptor, and whether that can read. It can't where the
    file is another user's alone. Raises OSError, or ValueError if no daemon has such a file.
    """
    flags, is_readable = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, True
    try:
        file = os.open(name, os.O_RDONLY | flags, dir_fd=directory)
    except PermissionError:
        file, is_readable = os.open(name, os.O_PATH | flags, dir_fd=directory), False
    status = os.fstat(file)
    owners = {0, os.geteuid(), os.fstat(directory).st_uid}
    why = ""
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_uid not in owners:
        why = "it is no plain file, or somebody else's"
    elif not re.fullmatch(re.escape(prefix) + r"[1-9][0-9]{0,9}-[\w]+", name):
        why = "no daemon has such a name"
    if why:
        os.close(file)
        raise ValueError(why)
    return status.st_mtime_ns, name, file, is_readable


def _runs(pid: int) -> bool:
    """Whether there is such a process besides this one, whoever's it is."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid != os.getpid()


def sweep(directory: int, ours: str) -> None:
    """Remove what dead daemons of other network namespaces have left, except what a start there may need. Whether such
    a namespace still exists can't be known here, so files with content are kept for a while, up to a number. While the
    directory is locked, each living daemon has a lock on its file.
    """
    kept = []
    names = (name for name in os.listdir(directory) if _NAME.fullmatch(name) and not name.startswith(ours))
    for name in itertools.islice(names, _MOST_SWEPT):
        with suppress(OSError):
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            with os.fdopen(file, "rb") as opened:
                status = os.fstat(file)
                if not stat.S_ISREG(status.st_mode) or not _try_lock(file):
                    continue
                if opened.read(2) in (b"", b"[]") or time.time() - status.st_mtime > _KEPT:
                    os.unlink(name, dir_fd=directory)
                else:
                    kept.append((status.st_mtime_ns, name))
    for _, name in sorted(kept)[:-_MOST_KEPT]:
        with suppress(OSError):
            os.unlink(name, dir_fd=directory)
