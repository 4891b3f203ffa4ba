# SPDX-License-Identifier: GPL-2.0-or-later
"""sysctls that are set for a while and then put back, also by a successor if this process is killed.

A successor reads files in a directory of the service's user, and may itself be root. So it follows no link there, takes
only plain files of the right owners, and from these only what a daemon can have written.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import logging
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from npd6_xdp.core.errors import remedy
from npd6_xdp.core.names import raw, shown
from npd6_xdp.core.said import Said

log = logging.getLogger("npd6-xdp")

_ROOT = Path("/proc/sys/net/ipv6")
_DIRECTORY = Path("/run/npd6-xdp")
_SO_NETNS_COOKIE = 71
_RENAMING = 0.25  # seconds
_NAME = re.compile(r"sysctl-[0-9]{1,20}-[1-9][0-9]{0,9}-\w+")
_MOST_SWEPT = 1024  # files that a start looks into
_MOST_KEPT = 64  # files of dead daemons of other network namespaces, for a start there
_KEPT = 7 * 86400.0  # seconds for which they are kept: most of those namespaces are gone, and nobody is to come
_TURN = 1.0  # seconds to wait for another daemon that is at work there: it may have been stopped in the middle
_MOST_LEFT = 4 << 20  # bytes of a file that is read: 4,000 interfaces have 400,000
_NO_INTERFACES = ("all", "default")  # below conf/ and neigh/; an interface may have such a name all the same
_ROUTES = ["host routes"]  # a line that says that there may be some
_VALUE = re.compile(r"-?[0-9]{1,10}")
_AT_ONCE = 256  # sysctls that are looked at in one go: 3 ms
_REMEDIES = {
    errno.EACCES: ": give CAP_NET_ADMIN",
    errno.EPERM: ": give CAP_NET_ADMIN",
    errno.EROFS: ": in a systemd unit, ReadWritePaths=/proc/sys/net",
}


def _path(key: str) -> Path:
    """Where a sysctl is, in which an interface's name is as the whole program has it (core/names.py)."""
    return _ROOT / os.fsdecode(raw(key))


def read(key: str) -> str | None:
    """A sysctl below net.ipv6, as "conf/wan0/forwarding"; None if it isn't there."""
    try:
        return _path(key).read_text().strip()
    except OSError:
        return None


PROXY_NDP, PROXY_DELAY, ALL_PROXY_NDP = "conf/{}/proxy_ndp", "neigh/{}/proxy_delay", "conf/all/proxy_ndp"
"""All that is ever set, as Setting.key."""


class Setting(NamedTuple):
    """A sysctl of an interface: `key` has {} where the interface's name goes. One of no interface has index 0."""

    key: str
    ifindex: int = 0

    def path(self) -> str | None:
        """What it is called now; None if the interface is gone."""
        if not self.ifindex:
            return self.key
        try:
            name = shown(os.fsencode(socket.if_indextoname(self.ifindex)))
        except (OSError, OverflowError):
            return None
        return None if name in _NO_INTERFACES else self.key.replace("{}", name)

    def settled(self) -> str | None:
        """As path(), but waits until it exists: the kernel announces a new name before it moves the sysctls."""
        deadline = time.monotonic() + _RENAMING
        while (key := self.path()) and not _path(key).exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        return key


class Memory:
    """What a daemon leaves to its successor if it is killed: a file in `directory`, locked for as long as it lives.

    `left` is what dead ones of this network namespace have left there, the oldest first; it is this one's now.
    `others` are the process ids of those that live, as of the last look: at the start, or in turn(). `left_routes`
    says whether a dead one may have left host routes.
    """

    def __init__(self, directory: Path = _DIRECTORY) -> None:
        self.left: list[Any] = []
        self.others: list[int] = []
        self.left_routes = self._has_routes = False
        self._values: Sequence[Any] = ()
        self._path: Path | None = None
        self._prefix = ""
        self._file = -1
        self._size = 0
        self._said = Said()
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._take_over(directory)
        except OSError as error:
            log.warning("%s: can't remember there what sysctls were: %s", directory, error.strerror)

    def _take_over(self, directory: Path) -> None:
        # a number that no other namespace has or will have, while names and inode numbers come again
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as here:
            cookie = int.from_bytes(here.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
        self._prefix = f"sysctl-{cookie}-"
        with _turn(directory) as turn:
            dead = []
            for name, file in _remembered(turn, self._prefix, directory):
                with os.fdopen(file, "rb") as opened:
                    if not _try_lock(file):
                        self.others.append(int(name.split("-")[2]))
                        continue
                    self.left += _values(opened.read(_MOST_LEFT), directory / name)
                    dead.append(name)
            name = f"{self._prefix}{os.getpid()}-{secrets.token_hex(4)}"
            self._file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=turn)
            self._path = directory / name
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self.left_routes = self._has_routes = _ROUTES in self.left
            self.left = [line for line in self.left if line != _ROUTES]
            self.write(self.left)
            for name in dead:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=turn)
            _sweep(turn, self._prefix)

    @contextmanager
    def turn(self) -> Iterator[list[Any]]:
        """What living others of this network namespace remember at the moment. None of them changes that within."""
        found: list[Any] = []
        self.others = []
        if self._path is None:
            yield found
            return
        with ExitStack() as stack:
            with suppress(OSError):  # somebody may have removed it
                turn = stack.enter_context(_turn(self._path.parent))
                for name, file in _remembered(turn, self._prefix, self._path.parent, quiet=True):
                    with os.fdopen(file, "rb") as opened:
                        if name != self._path.name and not _try_lock(file):
                            self.others.append(int(name.split("-")[2]))
                            found += _values(opened.read(_MOST_LEFT), self._path.parent / name)
            yield found

    def look_for_others(self) -> bool:
        """Look once more for other daemons in this network namespace; whether one lives."""
        with self.turn():
            return bool(self.others)

    def write(self, values: Sequence[Any]) -> None:
        """Remember this instead; JSON has to be able to say it."""
        self._values = values
        self._write()

    def remember_routes(self, *, some: bool) -> None:
        """Remember that there may be host routes, or no longer."""
        if some is not self._has_routes:
            self._has_routes = some
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        # at once, and over all of what was there: whenever this process is killed, the file is whole
        values = [*self._values, *([_ROUTES] if self._has_routes else [])]
        text = json.dumps(values).encode().ljust(self._size)
        try:
            self._size = os.pwrite(self._file, text, 0)
        except OSError as error:
            if self._said.note():
                log.warning("%s: can't remember what sysctls were: %s", self._path, remedy(error))
        else:
            self._said.over()

    def close(self, *, leave: bool = False) -> None:
        """There is nothing to remember any more; or a successor is to find it."""
        if self._path is not None:
            if not leave:
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._path = None


@contextmanager
def _turn(directory: Path) -> Iterator[int]:
    """A descriptor of the directory, locked against other daemons; but it waits for them for a limited time only."""
    turn = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        ends = time.monotonic() + _TURN
        while not _try_lock(turn) and time.monotonic() < ends:
            time.sleep(0.001)
        yield turn
    finally:
        os.close(turn)


def _try_lock(file: int) -> bool:
    """Lock a file, if no living process has locked it; whether it is ours now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remembered(directory: int, prefix: str, path: Path, *, quiet: bool = False) -> Iterator[tuple[str, int]]:
    """The files of daemons in a directory, the oldest first: their names, and descriptors to be closed. Anything else
    with such a name is left alone, with a warning unless `quiet`: a link, a pipe, a file of another user.
    """
    said = logging.DEBUG if quiet else logging.WARNING
    found = []
    for name in os.listdir(directory):
        if not name.startswith(prefix):
            continue
        try:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            continue  # its daemon has just ended
        except OSError as error:
            why = "it is a link" if error.errno == errno.ELOOP else error.strerror
            log.log(said, "%s: ignored, as it is no file of a daemon's: %s", path / name, why)
            continue
        status = os.fstat(file)
        owners = {0, os.geteuid(), os.fstat(directory).st_uid}
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_uid not in owners:
            why = "it is no plain file, or somebody else's"
        elif not re.fullmatch(re.escape(prefix) + r"[1-9][0-9]{0,9}-[\w]+", name):
            why = "no daemon has such a name"
        else:
            found.append((status.st_mtime_ns, name, file))
            continue
        log.log(said, "%s: ignored, as it is no file of a daemon's: %s", path / name, why)
        os.close(file)
    for _, name, file in sorted(found):
        yield name, file


def _sweep(directory: int, ours: str) -> None:
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


def _values(text: bytes, path: Path) -> list[Any]:
    """What a dead daemon has left in a file; nothing where it makes no sense."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        log.warning("%s: ignored: it doesn't say what sysctls were", path)
        return []
    return found


def _setting(line: Any) -> tuple[Setting, str] | None:
    """A line of what was left: a sysctl that a daemon sets, and what it was; None if it isn't that."""
    if not isinstance(line, list) or len(line) != 3:
        return None
    key, ifindex, value = line
    of_interface = key in (PROXY_NDP, PROXY_DELAY) and type(ifindex) is int and 0 < ifindex < 1 << 31
    of_none = key == ALL_PROXY_NDP and type(ifindex) is int and ifindex == 0
    if not (of_interface or of_none) or not isinstance(value, str) or not _VALUE.fullmatch(value):
        return None
    return Setting(key, ifindex), value


class Sysctls:
    """Sets sysctls and remembers what they were, in a file too: what a killed predecessor left there is put back.

    Interfaces are remembered by their index, since their sysctls go along when they are renamed. Of those that several
    daemons need, each remembers what they were before the first, and the last one puts them back.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._before: dict[Setting, str] = {}
        self._wanted: dict[Setting, str] = {}
        for line in memory.left:
            if found := _setting(line):
                self._before.setdefault(*found)
            else:
                log.warning("ignored of what a daemon has left: %.80r is no sysctl that one sets", line)

    def __len__(self) -> int:
        """How many it remembers what they were."""
        return len(self._before)

    def set(self, setting: Setting, value: str) -> None:
        """Set one; a warning says so if that can't be."""
        self._wanted[setting] = value
        key = setting.settled()
        now = None if key is None else read(key)
        if key is None or now is None:
            return
        if setting in self._before:
            if now != value:
                self._write(key, value)
            return
        with self._memory.turn() as others:
            before = dict(filter(None, map(_setting, reversed(others)))).get(setting, now)
            if before == now == value:
                return
            self._before[setting] = before
            self._remember()
            if now != value:
                self._write(key, value)

    @staticmethod
    def _write(key: str, value: str) -> None:
        try:
            _path(key).write_text(value)
        except OSError as error:
            log.warning(
                "can't set net.ipv6.%s to %s: %s; method kernel needs it%s",
                key.replace("/", "."),
                value,
                error.strerror,
                _REMEDIES.get(error.errno or 0, ""),
            )

    def hold(self) -> list[str]:
        """Set those again that somebody else has changed; returns their names. It looks at some at a time, and is
        called often.
        """
        changed = []
        for setting in list(self._wanted)[:_AT_ONCE]:
            value = self._wanted.pop(setting)
            self._wanted[setting] = value  # behind all others
            key = setting.path()
            if key is None or (now := read(key)) is None or now == value:
                continue
            with suppress(OSError):  # as it was said when it was set first
                _path(key).write_text(value)
                changed.append("net.ipv6." + key.replace("/", "."))
        return changed

    def put_back(self, kept: Set[Setting] = frozenset()) -> None:
        """Put back each one's value from before, except those in `kept`; an interface that is gone has none any more. A
        sysctl that another daemon needs, too, is left to that one.
        """
        self._wanted = {setting: value for setting, value in self._wanted.items() if setting in kept}
        done = [setting for setting in self._before if setting not in kept]
        if done:
            with self._memory.turn() as others:
                held = dict(filter(None, map(_setting, others)))
                for setting in done:
                    value = self._before.pop(setting)
                    if setting not in held and (key := setting.settled()):
                        with suppress(OSError):
                            _path(key).write_text(value)
                self._remember()
        else:
            self._remember()

    def _remember(self) -> None:
        self._memory.write([(*setting, value) for setting, value in self._before.items()])
