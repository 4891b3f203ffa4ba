# SPDX-License-Identifier: GPL-2.0-or-later
"""sysctls that are set for a while and then put back, also by a successor if this process is killed."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("npd6-xdp")

_ROOT = Path("/proc/sys/net/ipv6")


def read(key: str) -> str | None:
    """A sysctl below net.ipv6, as "conf/wan0/forwarding"; None if it isn't there."""
    try:
        return (_ROOT / key).read_text().strip()
    except OSError:
        return None


class Sysctls:
    """Sets sysctls and remembers what they were, in a file too: what a killed predecessor left there is put back."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._before: dict[str, str] = {}
        with suppress(OSError, ValueError):
            found = json.loads(memory.read_text())
            self._before = {str(key): str(value) for key, value in found.items()}

    def set(self, key: str, value: str) -> None:
        """Set one; a warning says so if that can't be."""
        now = read(key)
        if now == value or now is None:
            return
        if key not in self._before:
            self._before[key] = now
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

    def put_back(self, kept: frozenset[str] = frozenset()) -> None:
        """Give each its value from before, but for those in `kept`; an interface that is gone took its own along."""
        for key in [key for key in self._before if key not in kept]:
            with suppress(OSError):
                (_ROOT / key).write_text(self._before[key])
            del self._before[key]
        self._remember()

    def _remember(self) -> None:
        try:
            if self._before:
                self._memory.write_text(json.dumps(self._before))
            else:
                self._memory.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: can't remember what sysctls were: %s", self._memory, error.strerror)
