# SPDX-License-Identifier: GPL-2.0-or-later
"""BPF run-time statistics: how often each program ran and for how long, and what else the kernel says of open files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_SWITCH = Path("/proc/sys/kernel/bpf_stats_enabled")
_XDP = "6"  # enum bpf_prog_type


@dataclass(frozen=True, slots=True)
class Runs:
    """How often a program ran, and how many nanoseconds that took in all."""

    count: int
    nanoseconds: int

    def __sub__(self, other: Runs) -> Runs:
        return Runs(self.count - other.count, self.nanoseconds - other.nanoseconds)

    @property
    def each(self) -> float:
        return self.nanoseconds / self.count if self.count else 0.0


@contextmanager
def counted() -> Iterator[None]:
    """The kernel counts while the block runs (kernel.bpf_stats_enabled)."""
    before = _SWITCH.read_text()
    _SWITCH.write_text("1")
    try:
        yield
    finally:
        _SWITCH.write_text(before)


def programs(pid: int) -> dict[int, Runs]:
    """The XDP programs that a process has open, by their ids."""
    every = [words for words in open_files(pid) if words.get("prog_type") == _XDP]
    return {int(words["prog_id"]): Runs(int(words["run_cnt"]), int(words["run_time_ns"])) for words in every}


def open_files(pid: int) -> Iterator[dict[str, str]]:
    """What the kernel says of each of a process's file descriptors."""
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(OSError):  # closed meanwhile
            yield dict(re.findall(r"^(\w+):\s*(\d+)$", path.read_text(), re.MULTILINE))
