# SPDX-License-Identifier: GPL-2.0-or-later
"""sysctls that are set for a while and then put back, also by a successor if this process is killed."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Set
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("npd6-xdp")

_ROOT = Path("/proc/sys/net/ipv6")


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


class Sysctls:
    """Sets sysctls and remembers what they were, in a file too: what a killed predecessor left there is put back.

    Interfaces are remembered by their index, since their sysctls go along when they are renamed.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._before: dict[Setting, str] = {}
        with suppress(OSError, ValueError, TypeError):
            found = json.loads(memory.read_text())
            self._before = {Setting(str(key), int(ifindex)): str(value) for key, ifindex, value in found}

    def set(self, setting: Setting, value: str) -> None:
        """Set one; a warning says so if that can't be."""
        key = setting.path()
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
                "can't set net.ipv6.%s to %s: %s; method kernel needs it",
                key.replace("/", "."),
                value,
                error.strerror,
            )

    def put_back(self, kept: Set[Setting] = frozenset()) -> None:
        """Give each its value from before, but for those in `kept`; an interface that is gone took its own along."""
        for setting in [setting for setting in self._before if setting not in kept]:
            value = self._before.pop(setting)
            if key := setting.path():
                with suppress(OSError):
                    (_ROOT / key).write_text(value)
        self._remember()

    def _remember(self) -> None:
        try:
            if self._before:
                self._memory.write_text(json.dumps([(*setting, value) for setting, value in self._before.items()]))
            else:
                self._memory.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: can't remember what sysctls were: %s", self._memory, error.strerror)
