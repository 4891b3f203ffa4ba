# SPDX-License-Identifier: GPL-2.0-or-later
"""perf(1), where there is one: in which functions the processors' time goes, by a timer's interrupts."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PERF = "perf"
_HERTZ = 1999  # no multiple of what else is periodic
_LINE = re.compile(r"^\s*([\d.]+)%\s+([\d.]+)%\s+\[([k.])\]\s+(.+?)\s*$")
_IDLE = re.compile(r"(safe_halt|default_idle|intel_idle|cpuidle_enter|poll_idle)")
MISSING = "no perf(1) here, or none that works: the kernel's functions are left out"


@dataclass(frozen=True, slots=True)
class Symbols:
    """Shares of the samples of processors that weren't idle: user space's, each function's, and with what it calls."""

    user: float
    own: dict[str, float]
    inclusive: dict[str, float]

    def top(self, count: int, nanoseconds: float) -> list[tuple[str, ...]]:
        """The kernel's largest functions, as rows: name, its share, and that share of `nanoseconds`."""
        ranked = sorted(self.own.items(), key=lambda each: -each[1])[:count]
        return [(f"`{name}`", *part(share, nanoseconds)) for name, share in ranked]


class Recording:
    """Records a process, and what softirqs it carries, from start() to finish()."""

    def __init__(self, path: Path, pid: int) -> None:
        self._path = path
        self._pid = str(pid)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float) -> None:
        if shutil.which(_PERF) is None:
            return
        words = [
            _PERF,
            "record",
            "-q",
            "-e",
            "cpu-clock",
            "-F",
            str(_HERTZ),
            "-g",
            "-p",
            self._pid,
            "-o",
            str(self._path),
        ]
        self._process = subprocess.Popen(
            [*words, "--", "sleep", str(seconds)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def finish(self) -> Symbols | None:
        """None where perf is missing or can't."""
        if self._process is None or self._process.wait(30) != 0:
            return None
        words = [_PERF, "report", "-i", str(self._path), "--stdio", "--children", "-g", "none", "--sort", "sym"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        self._path.unlink(missing_ok=True)
        return read(done.stdout)


def read(report: str) -> Symbols | None:
    """What perf report says; None if that is nothing of the kernel."""
    user, idle = 0.0, 0.0
    own: dict[str, float] = {}
    inclusive: dict[str, float] = {}
    for line in report.splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        with_called, alone, where, name = float(found[1]), float(found[2]), found[3], found[4]
        if _IDLE.search(name):
            idle += alone
        elif where == ".":
            user += alone
        else:
            name = re.sub(r"^bpf_prog_[0-9a-f]{16}_", "BPF program ", name)
            own[name] = own.get(name, 0.0) + alone
            inclusive[name] = max(inclusive.get(name, 0.0), with_called)
    busy = user + sum(own.values())
    if not own or not busy:
        return None
    return Symbols(
        user / busy,
        {name: share / busy for name, share in own.items()},
        {name: share / busy for name, share in inclusive.items()},
    )


def part(share: float, nanoseconds: float) -> tuple[str, str]:
    """The last two cells of a row."""
    return f"{100 * share:.0f} %", f"{share * nanoseconds:,.0f} ns"
