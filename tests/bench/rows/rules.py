# SPDX-License-Identifier: GPL-2.0-or-later
"""Row 12: a configuration of very many rules, at the start and at a reload."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path

from npd6_xdp.tools.control import ask
from tests.bench.generators import Generator, Order, paced
from tests.bench.ground import TARGETS, Ground, questions
from tests.bench.plan import Run
from tests.bench.rates import look_at_answers, settled
from tests.bench.results import Figure, at_most, middle
from tests.bench.rows.start import started
from tests.bench.subjects import HYBRID
from tests.netns.wire import configuration

_RATE = {"hybrid": 10_000.0, "python": 2_000.0}  # NS/s while it reloads
_SLICE = 0.25  # seconds of an order, so that it ends soon after the reload does
_PATIENCE = 120.0  # seconds for a start
_TOMLLIB = """
import sys, time, tomllib
began = time.monotonic()
with open(sys.argv[1], "rb") as file:
    tomllib.load(file)
print(time.monotonic() - began)
"""


@dataclass(slots=True)
class _Stream:
    """What was sent while something else went on."""

    sent: int = 0
    answered: int = 0


@dataclass(slots=True)
class _Found:
    """Seconds, a value a repeat, in which tomllib.load of the same file stood beside."""

    starts: list[float] = field(default_factory=list)
    reloads: list[float] = field(default_factory=list)
    by_tomllib: list[float] = field(default_factory=list)
    missed: dict[str, list[float]] = field(default_factory=lambda: {datapath: [] for datapath in _RATE})


def measure(run: Run) -> None:
    """The hybrid, which everybody has, and python, where one thread answers and reloads: that one's NS are counted."""
    before, after = _configs(run.plan.rules, run.plan.changed)
    found = _Found()
    for _ in range(run.plan.repeats):
        for datapath in _RATE:
            _start_and_reload(run, found, datapath, before, after)
    rules, changed = f"{run.plan.rules:,} rules", f"{run.plan.changed:,} changed"
    alone = "tomllib.load of the file"
    for name, times, limit in (
        (f"{rules}: from exec to the first NA, over {alone}", found.starts, 1.7),
        (f"{rules}: a reload with {changed}, the whole of it, over {alone}", found.reloads, 0.6),
    ):
        raw = {"s": times, "tomllib.load, s": found.by_tomllib}
        note = f"{middle(times):.2f} over {middle(found.by_tomllib):.2f} s"
        run.results.ratio(12, name, list(zip(*raw.values(), strict=True)), at_most(limit), note, raw)
    run.results.figures += [
        Figure(12, f"NS missed during that reload, {name}", sum(each), "NS", at_most(0), {name: each})
        for name, each in found.missed.items()
    ]


def _start_and_reload(run: Run, found: _Found, datapath: str, before: _Config, after: _Config) -> None:
    with Ground() as ground:
        file = ground.topology.directory / "rules.toml"
        file.write_text(before(datapath))
        alone = [_seconds_of_tomllib(file)]
        with started(ground, before(datapath), _PATIENCE) as (daemon, first):
            alone.append(_seconds_of_tomllib(file))
            with paced(ground.topology, questions(TARGETS)) as generator:
                daemon.write(after(datapath))
                with _stream(ground, generator, _RATE[datapath]) as stream:
                    began = time.monotonic()
                    ask(daemon.control, {"verb": "reload"})
                    total = time.monotonic() - began
            look_at_answers(run, ground, HYBRID)
        alone.append(_seconds_of_tomllib(file))
    missed = stream.sent - stream.answered
    found.missed[datapath].append(missed)
    if datapath == "hybrid":
        found.starts.append(first)
        found.reloads.append(total)
        found.by_tomllib.append(middle(alone))
    run.say(
        f"{run.plan.rules:,} rules, {datapath}: first answer after {first:.2f} s; reload {total:.2f} s; tomllib alone"
        f" {middle(alone):.2f}; {missed} of {stream.sent:,} NS missed"
    )


def _configs(rules: int, changed: int) -> tuple[_Config, _Config]:
    """Two configurations: of the changed rules, half have another prefix, and half another flag."""
    asked = ["2001:db8:1::/64 static"]
    base = int(IPv6Address("2001:db9::"))
    before = [f"{IPv6Address(base + (number << 64))}/64 static" for number in range(rules - 1)]
    after = list(before)
    step = max(1, len(before) // changed)
    for place in range(changed):
        number = place * step
        if place % 2:
            after[number] += " router=false"
        else:
            after[number] = f"{IPv6Address(base + ((rules + number) << 64))}/64 static"
    return _Config([*asked, *before]), _Config([*asked, *after])


@dataclass(frozen=True, slots=True)
class _Config:
    """The rules of a configuration; calling it makes the text."""

    rules: list[str]

    def __call__(self, datapath: str) -> str:
        keys = {"datapath": f'"{datapath}"', "attach": '"native"', "events_per_source": "0"}
        return configuration(*self.rules, **keys)


@contextmanager
def _stream(ground: Ground, generator: Generator, rate: float) -> Iterator[_Stream]:
    """Solicitations while the block runs, and a little before and after."""
    stream, ending = _Stream(), threading.Event()

    def send() -> None:
        while not ending.is_set():
            stream.sent += generator.do(Order(rate, _SLICE)).frames

    before = ground.counter.counts().answers
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    time.sleep(_SLICE)
    try:
        yield stream
    finally:
        ending.set()
        thread.join()
        stream.answered = settled(ground) - before


def _seconds_of_tomllib(path: Path) -> float:
    """What the standard library takes to read a file, in a process of its own of the same Python."""
    words = [sys.executable, "-c", _TOMLLIB, str(path)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
