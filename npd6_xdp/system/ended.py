# SPDX-License-Identifier: GPL-2.0-or-later
"""When the process before this one has ended, as the service's unit has had it written down (deploy/systemd/next)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

SAID = Path("/run/npd6-xdp.next")
"""A line by root: whether another process was to come, and when that was, in seconds since the machine's start. That of
a unit with another name is where ENDED says.
"""
_UPTIME = Path("/proc/uptime")  # the same clock as the script's: a container may have one of its own there
_LINE = re.compile(r"[a-z]+ ([0-9]{1,12}(\.[0-9]{1,9})?)(\s.*)?", re.DOTALL)


def seconds_since_end(environment: Mapping[str, str] = os.environ) -> float:
    """Seconds since then; 0 if it isn't known."""
    try:
        now = float(_UPTIME.read_text().split()[0])
        with Path(environment.get("ENDED", SAID)).open(encoding="ascii") as file:
            found = _LINE.fullmatch(file.read(128))
    except (OSError, ValueError):
        return 0.0
    return max(0.0, now - float(found[1])) if found else 0.0
