# SPDX-License-Identifier: GPL-2.0-or-later
"""Other answerers on this machine: two on one link are a mistake."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

_NAMES = ("ndppd", "npd6")


def _is_ours(process: Path) -> bool:
    """Whether a process called ndppd is npd6-xdp by that name: the others are no Python's."""
    program, _, _ = (process / "cmdline").read_bytes().partition(b"\0")
    return program.rpartition(b"/")[2].startswith(b"python")


def unit_of(pid: int) -> str:
    """The unit of systemd that a process is of; "" where it is of none that is a service."""
    with suppress(OSError):
        for line in (Path("/proc") / str(pid) / "cgroup").read_text().splitlines():
            if (unit := line.rpartition("/")[2]).endswith(".service"):
                return unit
    return ""


def other_daemons(names: Collection[str] = _NAMES) -> list[tuple[str, int]]:
    """The processes in our network namespace that have one of these names: names and process ids."""
    ours = Path("/proc/self/ns/net").readlink()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or isn't ours to look at
            name = os.fsdecode((process / "comm").read_bytes()).strip()  # anybody may call a process anything
            if name in names and (process / "ns/net").readlink() == ours and not _is_ours(process):
                found.append((name, int(process.name)))
    return sorted(found)
