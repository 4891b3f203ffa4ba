# SPDX-License-Identifier: GPL-2.0-or-later
"""The service manager's store of file descriptors: what is in it outlives this process (sd_notify(3), FDSTORE=1).

systemd hands them over by LISTEN_FDS and LISTEN_FDNAMES, as it does sockets, and drops them when the unit is stopped or
has failed for good. Whether there is a store says FDSTORE, which systemd sets from version 254 on, and the unit before.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress

from npd6_xdp.core.said import Said

log = logging.getLogger("npd6-xdp")

FIRST = 3  # SD_LISTEN_FDS_START
MOST_NAMES = 128 * 1024 - 1024
"""Bytes of all names together, with what parts them: they are handed over in one string, of which the kernel takes
128 KiB (MAX_ARG_STRLEN). With more, no successor could be started.
"""
_NAMELESS = "unknown"  # systemd's word
_COUNT = re.compile(r"[0-9]{1,6}")

Notify = Callable[[str, Sequence[int]], bool]
"""Sends a message to the service manager, and descriptors beside it; whether it went out."""


class FdStore:
    """Keeps descriptors under names of ASCII, without a colon. `inherited` is what a predecessor has left, by name.

    A name may stand for several descriptors, and release() removes all of them; one that is kept already keeps its
    name. All of it does nothing where there is no store. What is said is done in order, and before what the manager is
    told after it: that we are ready, say.
    """

    def __init__(self, notify: Notify, environment: MutableMapping[str, str] = os.environ) -> None:
        self._notify = notify
        size = environment.get("FDSTORE", "") if environment.get("NOTIFY_SOCKET") else ""
        self._is_there = _COUNT.fullmatch(size) is not None and int(size) > 0
        self.inherited = _inherited(environment)
        self._names = {name: len(fds) for name, fds in self.inherited.items()}
        self._size = sum(count * (len(name) + 1) for name, count in self._names.items())
        self._said = Said()

    def __bool__(self) -> bool:
        """Whether there is a store: what is kept there outlives this process."""
        return self._is_there

    def take(self, name: str) -> list[int]:
        """What was inherited by a name, which is whoever's takes it; it stays in the store."""
        return self.inherited.pop(name, [])

    def keep(self, name: str, fd: int) -> bool:
        """Have a descriptor kept under a name; whether that was said. FDPOLL=0: whatever becomes of it meanwhile.

        What there is no space for isn't kept, and that is said once.
        """
        if not self._is_there:
            return False
        if self._size + len(name) + 1 > MOST_NAMES:
            if self._said.note():
                log.warning("the service manager keeps no more than %d of what our successor needs", len(self._names))
            return False
        if not self._notify(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", [fd]):
            return False
        self._names[name] = self._names.get(name, 0) + 1
        self._size += len(name) + 1
        return True

    def release(self, name: str) -> None:
        """Let go of all that is kept under a name; what was inherited by it, is closed here, too."""
        for fd in self.take(name):
            os.close(fd)
        self._size -= self._names.pop(name, 0) * (len(name) + 1)
        if self._is_there:
            self._notify(f"FDSTOREREMOVE=1\nFDNAME={name}", [])


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
