# SPDX-License-Identifier: GPL-2.0-or-later
"""The service manager's store of file descriptors: what is in it outlives this process (sd_notify(3), FDSTORE=1).

systemd hands them over by LISTEN_FDS and LISTEN_FDNAMES, as it does sockets, and drops them when the unit is stopped or
has failed for good. Whether there is a store says FDSTORE, which systemd sets from version 254 on, and the unit before.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from itertools import islice

from npd6_xdp.core.said import Said

log = logging.getLogger("npd6-xdp")

FIRST = 3  # SD_LISTEN_FDS_START
MOST_NAMES = 128 * 1024 - 1024
"""Bytes of all names together, with what parts them: they are handed over in one string, of which the kernel takes
128 KiB (MAX_ARG_STRLEN). With more, no successor could be started.
"""
_NAMELESS = "unknown"  # systemd's word
_RELEASED = -1  # stands where a descriptor does: what is under the name is to be let go of
_MOST_SAID = 64  # in one turn: a millisecond or two
_BEHIND = 2  # with each more: so it catches up where no loop turns yet
_SOON, _AGAIN = 0.02, 1.0  # seconds until it is tried again, behind some that went out, and behind none
_UNNOTICED = 1.0  # seconds that something may be unsaid for before the log says so
_LAST = 5.0  # seconds that may pass with it at the end
_COUNT = re.compile(r"[0-9]{1,6}")

Notify = Callable[[str, Sequence[int]], bool]
"""Sends a message to the service manager, and descriptors beside it; whether it went out."""


class FdStore:
    """Keeps descriptors under names of ASCII, without a colon. `inherited` is what a predecessor has left, by name.

    A name may stand for several descriptors, and release() removes all of them; one that is kept already keeps its
    name. All of it does nothing where there is no store. What is said is done in order.

    What the manager is too busy to hear is said again by say(), which the loop calls when it is `due` (seconds,
    monotonic; None: all is said), and behind it whatever comes after it. That is bounded by the names that are wanted
    and those that the manager has: what is let go of before it was heard of, isn't said at all.
    """

    def __init__(self, notify: Notify, environment: MutableMapping[str, str] = os.environ) -> None:
        self._notify = notify
        size = environment.get("FDSTORE", "") if environment.get("NOTIFY_SOCKET") else ""
        self._is_there = _COUNT.fullmatch(size) is not None and int(size) > 0
        self.inherited = _inherited(environment)
        self._names = {name: [*fds] for name, fds in self.inherited.items()}
        self._size = sum(len(fds) * (len(name) + 1) for name, fds in self._names.items())
        self._unsaid: dict[tuple[str, int], int] = {}
        """In order: a name and the descriptor to be kept, or _RELEASED; and a descriptor of ours for the same file, as
        by the time that it is said the other may be closed, and its number be another's.
        """
        self._unsaid_since = 0.0
        self._said = Said()
        self.due: float | None = None

    def __bool__(self) -> bool:
        """Whether there is a store: what is kept there outlives this process."""
        return self._is_there

    def take(self, name: str) -> list[int]:
        """What was inherited by a name, which is whoever's takes it; it stays in the store."""
        return self.inherited.pop(name, [])

    def keep(self, name: str, fd: int) -> bool:
        """Have a descriptor kept under a name; whether that was said already.

        What there is no space for isn't kept, and that is said once.
        """
        if not self._is_there:
            return False
        if self._size + len(name) + 1 > MOST_NAMES:
            if self._said.note("size"):
                log.warning("the service manager keeps no more than %d of what our successor needs", self._count())
            return False
        self._names.setdefault(name, []).append(fd)
        self._size += len(name) + 1
        return self._say(name, fd)

    def release(self, name: str) -> None:
        """Let go of all that is kept under a name; what was inherited by it, is closed here, too."""
        for fd in self.take(name):
            os.close(fd)
        kept = self._names.pop(name, [])
        self._size -= len(kept) * (len(name) + 1)
        unsaid = [self._unsaid.pop((name, fd)) for fd in kept if (name, fd) in self._unsaid]
        for fd in unsaid:
            os.close(fd)
        if self._is_there and (len(kept) > len(unsaid) or not kept):
            self._say(name, _RELEASED)

    def say(self, now: float) -> None:
        """Say what is still to be said, but no more than a turn may hold."""
        some_went_out = self._go_on(_MOST_SAID) > 0
        if not self._unsaid:
            self.due = None
            if "unsaid" in self._said:
                self._said.over("unsaid")
                log.info("the service manager has heard all that our successor needs")
            return
        self.due = now + (_SOON if some_went_out else _AGAIN)
        if now - self._unsaid_since >= _UNNOTICED and self._said.note("unsaid"):
            log.warning(
                "the service manager is too busy to hear %d of what our successor needs: said again until it does",
                len(self._unsaid),
            )

    def close(self) -> None:
        """The end: whatever is unsaid is tried for the last time, and lost where that fails."""
        ends = time.monotonic() + _LAST
        while self._unsaid and self._go_on(1) and time.monotonic() < ends:
            pass
        if self._unsaid:
            log.warning(
                "the service manager was too busy to hear %d of what our successor needs: until it is ready, some"
                " ports may be unanswered",
                len(self._unsaid),
            )
        for fd in self._unsaid.values():
            if fd != _RELEASED:
                os.close(fd)
        self._unsaid.clear()
        self.due = None

    def _say(self, name: str, fd: int) -> bool:
        """Say one thing behind what is to be said before; whether it was. Else it is remembered."""
        if not self._unsaid:
            if self._notify(*_message(name, fd)):
                return True
            self._unsaid_since = time.monotonic()
            self.due = self._unsaid_since + _SOON
        with suppress(OSError):  # no descriptor is left, as is said of what else wants one: nothing is remembered
            self._unsaid[name, fd] = _RELEASED if fd == _RELEASED else os.dup(fd)
        self._go_on(_BEHIND)
        return not self._unsaid

    def _go_on(self, most: int) -> int:
        """Say what is unsaid, up to what can't be; how many were said."""
        said = 0
        for key, fd in [*islice(self._unsaid.items(), most)]:
            if not self._notify(*_message(key[0], fd)):
                break
            del self._unsaid[key]
            if fd != _RELEASED:
                os.close(fd)
            said += 1
        return said

    def _count(self) -> int:
        return sum(map(len, self._names.values()))


def _message(name: str, fd: int) -> tuple[str, Sequence[int]]:
    """FDPOLL=0: it is kept whatever becomes of it."""
    if fd == _RELEASED:
        return f"FDSTOREREMOVE=1\nFDNAME={name}", []
    return f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", [fd]


def _inherited(environment: MutableMapping[str, str]) -> dict[str, list[int]]:
    """What stands in the environment, which is taken out of it: it isn't for whom we start. None is handed on."""
    pid, fds = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    words = environment.pop("LISTEN_FDNAMES", "")
    found: dict[str, list[int]] = {}
    if pid != str(os.getpid()) or not _COUNT.fullmatch(fds):
        return found
    count = int(fds)
    names = words.split(":") if words else []
    names += [_NAMELESS] * (count - len(names))
    for fd, name in zip(range(FIRST, FIRST + count), names, strict=False):
        with suppress(OSError):  # what isn't open was never handed over
            os.set_inheritable(fd, False)
            found.setdefault(name, []).append(fd)
    return found
