# SPDX-License-Identifier: GPL-2.0-or-later
"""sysctls that are set for a while and then put back, also by a successor if this process is killed."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import tempfile
import time
from collections.abc import Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

log = logging.getLogger("npd6-xdp")

_ROOT = Path("/proc/sys/net/ipv6")
_DIRECTORY = Path("/run/npd6-xdp")
_SO_NETNS_COOKIE = 71
_RENAMING = 0.25  # seconds
_AT_ONCE = 256  # sysctls that are looked at in one go: 3 ms
_REMEDIES = {
    errno.EACCES: ": give CAP_NET_ADMIN",
    errno.EPERM: ": give CAP_NET_ADMIN",
    errno.EROFS: ": in a systemd unit, ReadWritePaths=/proc/sys/net",
}


def read(key: str) -> str | None:
    """A sysctl below net.ipv6, as "conf/wan0/forwarding"; None if it isn't there."""
    try:
        return (_ROOT / key).read_text().strip()
    except OSError:
        return None


class Setting(NamedTuple):
    """A sysctl of an interface: `key` has {} where the interface's name goes. One of no interface has index 0."""

    key: str
    ifindex: int = 0

    def path(self) -> str | None:
        """What it is called now; None if the interface is gone."""
        if not self.ifindex:
            return self.key
        try:
            return self.key.format(socket.if_indextoname(self.ifindex))
        except OSError:
            return None

    def settled(self) -> str | None:
        """As path(), once it is there: the kernel tells of a new name before it moves the sysctls there."""
        deadline = time.monotonic() + _RENAMING
        while (key := self.path()) and not (_ROOT / key).exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        return key


class Memory:
    """What a daemon leaves to its successor if it is killed: a file in `directory`, locked for as long as it lives.

    `left` is what dead ones of this network namespace have left there, the oldest first; it is this one's now.
    `others` are the process ids of those that live.
    """

    def __init__(self, directory: Path = _DIRECTORY) -> None:
        self.left: list[Any] = []
        self.others: list[int] = []
        self._path: Path | None = None
        self._file = -1
        self._size = 0
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._take_over(directory)
        except OSError as error:
            log.warning("%s: can't remember there what sysctls were: %s", directory, error.strerror)

    def _take_over(self, directory: Path) -> None:
        # a number that no other namespace has or will have, while names and inode numbers come again
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as here:
            cookie = int.from_bytes(here.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
        turn = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            dead = []
            for path in sorted(directory.glob(f"sysctl-{cookie}-*"), key=_age):
                with suppress(FileNotFoundError), path.open() as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        self.others.append(int(path.name.split("-")[2]))
                        continue
                    with suppress(ValueError):
                        found = json.load(file)
                        self.left += found if isinstance(found, list) else []
                    dead.append(path)
            self._file, name = tempfile.mkstemp(prefix=f"sysctl-{cookie}-{os.getpid()}-", dir=directory)
            self._path = Path(name)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self.write(self.left)
            for path in dead:
                path.unlink(missing_ok=True)
        finally:
            os.close(turn)

    def write(self, values: Sequence[Any]) -> None:
        """Remember this instead; JSON has to be able to say it."""
        if self._path is None:
            return
        # at once, and over all of what was there: whenever this process is killed, the file is whole
        text = json.dumps(values).encode().ljust(self._size)
        try:
            self._size = os.pwrite(self._file, text, 0)
        except OSError as error:
            log.warning("%s: can't remember what sysctls were: %s", self._path, error.strerror)

    def close(self) -> None:
        """There is nothing to remember any more."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._path = None


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # its daemon has just ended
        return 0.0


class Sysctls:
    """Sets sysctls and remembers what they were, in a file too: what a killed predecessor left there is put back.

    Interfaces are remembered by their index, since their sysctls go along when they are renamed.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._before: dict[Setting, str] = {}
        self._wanted: dict[Setting, str] = {}
        for line in memory.left:
            with suppress(ValueError, TypeError):
                key, ifindex, value = line
                self._before.setdefault(Setting(str(key), int(ifindex)), str(value))

    def set(self, setting: Setting, value: str) -> None:
        """Set one; a warning says so if that can't be."""
        self._wanted[setting] = value
        key = setting.settled()
        now = None if key is None else read(key)
        if key is None or now is None or now == value:
            return
        if setting not in self._before:
            self._before[setting] = now
            self._remember()
        try:
            (_ROOT / key).write_text(value)
        except OSError as error:
            log.warning(
                "can't set net.ipv6.%s to %s: %s; method kernel needs it%s",
                key.replace("/", "."),
                value,
                error.strerror,
                _REMEDIES.get(error.errno or 0, ""),
            )

    def hold(self) -> list[str]:
        """Set those anew that somebody else has changed: their names. Of many, some at a time: it is called often."""
        changed = []
        for setting in list(self._wanted)[:_AT_ONCE]:
            value = self._wanted.pop(setting)
            self._wanted[setting] = value  # behind all others
            key = setting.path()
            if key is None or (now := read(key)) is None or now == value:
                continue
            with suppress(OSError):  # as it was said when it was set first
                (_ROOT / key).write_text(value)
                changed.append("net.ipv6." + key.replace("/", "."))
        return changed

    def put_back(self, kept: Set[Setting] = frozenset()) -> None:
        """Give each its value from before, but for those in `kept`; an interface that is gone took its own along."""
        self._wanted = {setting: value for setting, value in self._wanted.items() if setting in kept}
        for setting in [setting for setting in self._before if setting not in kept]:
            value = self._before.pop(setting)
            if key := setting.settled():
                with suppress(OSError):
                    (_ROOT / key).write_text(value)
        self._remember()

    def _remember(self) -> None:
        self._memory.write([(*setting, value) for setting, value in self._before.items()])
