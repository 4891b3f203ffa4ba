# SPDX-License-Identifier: GPL-2.0-or-later
"""What a daemon takes of the machine at one moment, and whether a row of such moments is flat."""

from __future__ import annotations

import ctypes as ct
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

from npd6_xdp.system.bpf.compiler import load_bcc

_HASH = 1  # enum bpf_map_type
_XDP = 6  # enum bpf_prog_type
_STATS_RUN_TIME = 0  # enum bpf_stats_type
_INFO = struct.Struct("=6I16s")  # the begin of struct bpf_map_info
_BATCH = 4096
_LOOK = 0.1  # seconds between two looks for other programs; one stays for half a second after it was replaced


@dataclass(frozen=True, slots=True)
class Sample:
    """`time` in seconds since the begin; memory in bytes; `entries` of the maps that are plain hashes, by name."""

    time: float
    resident: int
    private: int
    descriptors: int
    threads: int
    maps: int
    map_capacity: int
    map_memory: int
    entries: Mapping[str, int] = field(default_factory=dict)


@contextmanager
def runs_counted() -> Iterator[None]:
    """Have the kernel count the runs of BPF programs, of all of them, while the block runs."""
    switch = load_bcc().lib.bpf_enable_stats(_STATS_RUN_TIME)
    if switch < 0:
        raise OSError(-switch, os.strerror(-switch), "BPF_ENABLE_STATS")
    try:
        yield
    finally:
        os.close(switch)


class Watcher:
    """Looks at a process, from outside: /proc, and its maps by their ids."""

    def __init__(self, pid: int) -> None:
        self._proc = Path(f"/proc/{pid}")
        self._lib: Any = load_bcc().lib
        self._lib.bpf_map_get_fd_by_id.restype = ct.c_int
        self._lib.bpf_prog_get_fd_by_id.restype = ct.c_int

    def look(self, time: float, *, entries: bool = False) -> Sample:
        """A sample; with `entries` it walks the maps, which takes some milliseconds."""
        memory = _fields(self._proc / "smaps_rollup")
        maps = self._maps()
        return Sample(
            time,
            memory["Rss"] << 10,
            (memory["Private_Clean"] + memory["Private_Dirty"]) << 10,
            len(list((self._proc / "fd").iterdir())),
            _fields(self._proc / "status")["Threads"],
            len(maps),
            sum(each["max_entries"] for each in maps),
            sum(each["memlock"] for each in maps),
            self._entries(maps) if entries else {},
        )

    @contextmanager
    def counting_runs(self) -> Iterator[Callable[[], int]]:
        """Tells how often its XDP programs have run since the block began, while the block runs (runs_counted()).

        A program that another takes over from goes soon, and its count with it: a thread holds on to each.
        """
        programs: dict[int, int] = {}  # their descriptors here, by their numbers
        over = Event()

        def follow() -> None:
            while not over.wait(_LOOK):
                self._hold_programs(programs)

        def runs() -> int:
            return sum(_fields(Path(f"/proc/self/fdinfo/{fd}"))["run_cnt"] for fd in list(programs.values()))

        self._hold_programs(programs)
        before = runs()
        thread = Thread(target=follow)
        thread.start()
        try:
            yield lambda: runs() - before
        finally:
            over.set()
            thread.join()
            for fd in programs.values():
                os.close(fd)

    def _hold_programs(self, programs: dict[int, int]) -> None:
        for path in (self._proc / "fdinfo").iterdir():
            with suppress(OSError):  # closed meanwhile
                told = _fields(path)
                if told.get("prog_type") == _XDP and (number := told["prog_id"]) not in programs:
                    fd = self._lib.bpf_prog_get_fd_by_id(number)
                    if fd >= 0:
                        programs[number] = fd

    def _maps(self) -> list[dict[str, int]]:
        """What the kernel says of each of its maps (fdinfo)."""
        found: dict[int, dict[str, int]] = {}
        for path in (self._proc / "fdinfo").iterdir():
            with suppress(OSError):  # closed meanwhile
                told = _fields(path)
                if "map_id" in told:
                    found[told["map_id"]] = told
        return list(found.values())

    def _entries(self, maps: Sequence[Mapping[str, int]]) -> dict[str, int]:
        found: dict[str, int] = {}
        for each in maps:
            # An LRU map is full sooner or later, and as large from the start; a walk through a trie isn't safe before
            # Linux 6.13.
            if each["map_type"] != _HASH:
                continue
            fd = self._lib.bpf_map_get_fd_by_id(each["map_id"])
            if fd < 0:
                continue
            try:
                name = self._name(fd)
                found[name] = found.get(name, 0) + self._count(fd, each["key_size"], each["value_size"])
            finally:
                os.close(fd)
        return found

    def _name(self, fd: int) -> str:
        info, length = ct.create_string_buffer(256), ct.c_uint32(256)
        if self._lib.bpf_obj_get_info_by_fd(fd, info, ct.byref(length)) != 0:
            return "?"
        return str(_INFO.unpack_from(info)[-1].rstrip(b"\0").decode())

    def _count(self, fd: int, key_size: int, value_size: int) -> int:
        keys, values = (ct.create_string_buffer(size * _BATCH) for size in (key_size, value_size))
        places = [ct.create_string_buffer(max(key_size, 8)) for _ in range(2)]
        total, before = 0, None
        while True:
            count = ct.c_uint32(_BATCH)
            failed = self._lib.bpf_map_lookup_batch(fd, before, places[0], keys, values, ct.byref(count), None)
            total += count.value
            if failed or not count.value:
                return total
            places.reverse()
            before = places[1]


def _fields(path: Path) -> dict[str, int]:
    """The lines "name: number" of a file of /proc."""
    found = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        number = value.split()[:1]
        if number and number[0].isdigit():
            found[name] = int(number[0])
    return found


class Bound(NamedTuple):
    """How much something may grow over the second half, and still be flat: a share of its mean, and so much beside."""

    share: float
    beside: float
    unit: str = ""


MIB = 1 << 20
CAPACITY = 4.0
"""A program has space for twice what it needs when it takes over, and at times one rule more is there then: so the
capacity differs by 2, and the line that fits best rises by 1.5 times as much at most.
"""
BOUNDS: Mapping[str, Bound] = {
    "resident": Bound(0.01, MIB, "bytes"),
    "private": Bound(0.02, MIB, "bytes"),
    "descriptors": Bound(0.0, 0.0),
    "threads": Bound(0.0, 0.0),
    "maps": Bound(0.0, 0.0),
    "map_capacity": Bound(0.0, CAPACITY),
    "map_memory": Bound(0.02, MIB // 4, "bytes"),
}
UNSETTLED = 8 * MIB  # 5.2 were seen on a busy machine, where a minute has 14 rounds; 2 bytes a solicitation are more
ENTRIES = Bound(0.02, 64)


class Growth(NamedTuple):
    """Of one quantity over the second half: by the slope of the line that fits best, and what it may be."""

    name: str
    mean: float
    growth: float
    allowed: float

    @property
    def flat(self) -> bool:
        return self.growth <= self.allowed


def growths(calm: Sequence[Sample], *, settled: bool = True) -> list[Growth]:
    """Of all that is sampled, over the second half of the moments of calm.

    Before it has `settled`, memory may grow by more: tables of bounded size fill, and Python takes memory by the MiB.
    """
    bounds = dict(BOUNDS)
    if not settled:
        bounds |= {name: bounds[name]._replace(beside=UNSETTLED) for name in ("resident", "private")}
    half = calm[len(calm) // 2 :]
    times = [sample.time for sample in half]
    found = [_growth(name, times, [getattr(sample, name) for sample in half], bound) for name, bound in bounds.items()]
    for name in sorted({name for sample in half for name in sample.entries}):
        found.append(_growth(f"{name} entries", times, [sample.entries.get(name, 0) for sample in half], ENTRIES))
    return found


def _growth(name: str, times: Sequence[float], values: Sequence[float], bound: Bound) -> Growth:
    count = len(times)
    if count < 2:
        return Growth(name, float(values[0]) if values else 0.0, 0.0, 0.0)
    middle, mean = sum(times) / count, sum(values) / count
    spread = sum((time - middle) ** 2 for time in times)
    slope = sum((time - middle) * (value - mean) for time, value in zip(times, values, strict=True)) / spread
    growth = slope * (times[-1] - times[0])
    if not bound.share and not bound.beside:  # what is counted one by one: not one more at the end than at the begin
        growth = float(values[-1] - values[0])
    return Growth(name, mean, growth, bound.share * mean + bound.beside)
