# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory our control group leaves us. The kernel kills a process that goes beyond it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from npd6_xdp.core.errors import MachineError

_MEGABYTE = 1_000_000


class MemoryLimit(NamedTuple):
    """A group's limit and what of it is left, in bytes; `key` is the file that has the limit."""

    key: Path
    limit: int
    left: int


class _Files(NamedTuple):
    """The names of a hierarchy's files, and of the statistics that count memory which can be reclaimed."""

    limit: str
    usage: str
    reclaimable: tuple[str, ...]
    swap_limit: str
    swap_usage: str
    swap_is_more: bool
    """Whether these two are of swap alone; else of memory and swap together."""


_V2 = _Files(
    "memory.max",
    "memory.current",
    ("inactive_file", "active_file", "slab_reclaimable"),
    "memory.swap.max",
    "memory.swap.current",
    swap_is_more=True,
)
_V1 = _Files(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
    "memory.memsw.limit_in_bytes",
    "memory.memsw.usage_in_bytes",
    swap_is_more=False,
)


def require(wanted: int, what: str) -> None:
    """Raise MachineError if there is surely no space for so many bytes more. `what` takes them, in a few words."""
    limit = nearest_limit()
    if limit is None or wanted <= limit.left + free_swap():
        return
    short = wanted - limit.left
    raise MachineError(
        f"{what} takes some {_megabytes(wanted)} MB of memory, and of the {_megabytes(limit.limit)} MB that"
        f" {limit.key} allows {_megabytes(max(limit.left, 0))} are left: allow {_megabytes(limit.limit + short)}"
        " at the least (MemoryMax= of the service)"
    )


def nearest_limit(root: Path = Path("/")) -> MemoryLimit | None:
    """The limit that is nearest, of our group and those that it is in. None: there is none, or it can't be seen."""
    found: list[MemoryLimit] = []
    with suppress(OSError, ValueError):
        for group, files in _groups(root):
            with suppress(OSError, ValueError):  # the root has no limit
                limit = int((group / files.limit).read_text())  # "max" is none
                usage = int((group / files.usage).read_text())
                lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
                back = sum(int(value) for name, value in lines if name in files.reclaimable)
                found.append(MemoryLimit(group / files.limit, limit, limit - usage + back))
    return min(found, key=lambda limit: limit.left, default=None)


def _groups(root: Path) -> Iterator[tuple[Path, _Files]]:
    """The directories of our group and of those that it is in, in the hierarchies that may limit memory."""
    ours = {}
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or "memory" in controllers.split(","):
            ours[_V2 if number == "0" else _V1] = path
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        fields, _, (kind, _, options) = (part.split() for part in line.partition(" - "))
        files = _V2 if kind == "cgroup2" else _V1 if kind == "cgroup" and "memory" in options.split(",") else None
        if files is None or files not in ours:
            continue
        mounted = root / fields[4].lstrip("/")
        inside = Path(ours[files]).relative_to(fields[3])  # ValueError: our group isn't in what is mounted
        for each in (inside, *inside.parents):
            yield mounted / each, files


def free_swap(root: Path = Path("/")) -> int:
    """How much swap our group may take yet, in bytes: of what the machine has, and of what each group around allows."""
    left = 0
    with suppress(OSError, ValueError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("SwapFree:"):
                left = int(line.split()[1]) * 1024
        for group, files in _groups(root):
            with suppress(OSError, ValueError):  # there is no limit
                allowed = _left(group, files.swap_limit, files.swap_usage)
                if not files.swap_is_more:
                    allowed -= _left(group, files.limit, files.usage)
                left = min(left, max(allowed, 0))
    return left


def _left(group: Path, limit: str, usage: str) -> int:
    return int((group / limit).read_text()) - int((group / usage).read_text())


def _megabytes(count: int) -> str:
    return f"{count / _MEGABYTE:.0f}"
