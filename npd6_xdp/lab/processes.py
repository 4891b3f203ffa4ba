# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes that run in network namespaces: found and ended, without one of ours for each namespace."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

_SECONDS = 30.0
"""That processes may take to go, after SIGKILL."""


def kill_all(namespaces: Collection[Path]) -> None:
    """End all that runs in namespaces, which are named by their files, by SIGKILL; returns when it is gone."""
    deadline = time.monotonic() + _SECONDS
    while (pids := _pids(namespaces)) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _pids(namespaces: Collection[Path]) -> set[int]:
    """The processes in there, without this one."""
    inside: set[tuple[int, int]] = set()
    for path in namespaces:
        with suppress(OSError):
            inside.add(_identity(path))
    found: set[int] = set()
    for process in Path("/proc").glob("[0-9]*") if inside else ():
        with suppress(OSError):  # it has ended
            if _identity(process / "ns/net") in inside:
                found.add(int(process.name))
    return found - {os.getpid()}


def state_of(process: Path) -> str:
    """A process's or thread's, by its directory in /proc: "R" at work, "S" asleep, "T" stopped, "Z" ended but not
    waited for, ... (proc_pid_stat(5)). Raises OSError: it is gone.
    """
    return (process / "stat").read_text().rpartition(")")[2].split()[0]


def _identity(namespace: Path) -> tuple[int, int]:
    status = namespace.stat()
    return status.st_dev, status.st_ino
