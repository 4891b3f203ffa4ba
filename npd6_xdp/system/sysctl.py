# SPDX-License-Identifier: GPL-2.0-or-later
"""sysctls that are set for a while and then put back, also by a successor if this process is killed.

A successor reads files in a directory of the service's user, and may itself be root. So it takes from these
(daemon_files.py) only what a daemon can have written, which that user may set anyhow.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from npd6_xdp.core.errors import remedy
from npd6_xdp.core.logged import Fields, fields
from npd6_xdp.core.names import raw, shown
from npd6_xdp.core.said import Said
from npd6_xdp.system import daemon_files

log = logging.getLogger("npd6-xdp")

_ROOT = Path("/proc/sys/net/ipv6")
_RENAMING = 0.25  # seconds
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


def _failed(path: object, error: OSError) -> dict[str, Fields]:
    return fields(file=str(path), error=error.strerror or str(error))


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

    def __init__(self, directory: Path = daemon_files.DIRECTORY) -> None:
        self.left: list[Any] = []
        self.others: list[int] = []
        self.left_routes = self._has_routes = False
        self._values: Sequence[Any] = ()
        self._directory: Path | None = None
        self._path: Path | None = None
        self._prefix = ""
        self._file = -1
        self._size = 0
        self._said = Said()
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._take_over(directory)
        except OSError as error:
            log.warning(
                "%s: can't remember there what sysctls were: %s",
                directory,
                error.strerror,
                extra=_failed(directory, error),
            )

    def _take_over(self, directory: Path) -> None:
        self._prefix = f"sysctl-{daemon_files.netns_cookie()}-"
        with daemon_files.turn(directory) as turn:
            self._directory = directory
            found = [*daemon_files.remembered(turn, self._prefix, directory)]
            self.others = [each.pid for each in found if each.lives]
            name, self._file = daemon_files.create(turn, self._prefix)
            self._path = directory / name
            dead = [each for each in found if not each.lives]
            left = [line for each in dead for line in _values(each.text, directory / each.name)]
            self.left_routes = self._has_routes = _ROUTES in left
            self.left = [line for line in left if line != _ROUTES]
            self.write(self.left)
            for each in dead:
                with suppress(FileNotFoundError):
                    os.unlink(each.name, dir_fd=turn)
            daemon_files.sweep(turn, self._prefix)

    @contextmanager
    def turn(self) -> Iterator[list[Any]]:
        """What living others of this network namespace remember at the moment. None of them changes that within."""
        found: list[Any] = []
        self.others = []
        if (directory := self._directory) is None:
            yield found
            return
        with ExitStack() as stack:
            with suppress(OSError):  # somebody may have removed it
                turn = stack.enter_context(daemon_files.turn(directory))
                for each in daemon_files.remembered(turn, self._prefix, directory, quiet=True):
                    if each.lives and (self._path is None or each.name != self._path.name):
                        self.others.append(each.pid)
                        found += _values(each.text, directory / each.name)
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
                log.warning(
                    "%s: can't remember what sysctls were: %s",
                    self._path,
                    remedy(error),
                    extra=_failed(self._path, error),
                )
        else:
            self._said.over()

    def close(self, *, leave: bool = False) -> None:
        """There is nothing to remember any more; or a successor is to find it."""
        if self._path is not None:
            if not leave:
                with suppress(OSError):  # the directory may be another user's by now
                    self._path.unlink()
            os.close(self._file)
            self._path = None


def _values(text: bytes | None, path: Path) -> list[Any]:
    """What a daemon says in its file; nothing where it makes no sense. Of a living one's that can't be read, it is that
    it needs what all share, and has found it as it is.
    """
    if text is None:
        return [[ALL_PROXY_NDP, 0, read(ALL_PROXY_NDP) or "0"]]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        log.warning("%s: ignored: it doesn't say what sysctls were", path, extra=fields(file=str(path)))
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
                extra=_failed(_path(key), error),
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
