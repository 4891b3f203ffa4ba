# SPDX-License-Identifier: GPL-2.0-or-later
"""Row 12: a configuration of very many rules, at the start and at a reload."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

from npd6_xdp.tools.control import ask
from tests.bench.generators import Generator, Order, paced
from tests.bench.ground import TARGETS, Ground, questions
from tests.bench.machine import HOME
from tests.bench.plan import Run
from tests.bench.rates import look_at_answers, settled
from tests.bench.results import Figure, at_most, middle
from tests.bench.rows.start import started
from tests.bench.subjects import HYBRID
from tests.netns.wire import configuration

_RATE = {"hybrid": 10_000.0, "python": 2_000.0}  # NS/s while it reloads
_SLICE = 0.25  # seconds of an order, so that it ends soon after the reload does
_PATIENCE = 120.0  # seconds for a start
_APPLIED = re.compile(r"applied in ([0-9.]+) s")  # the daemon's own word, where it has one

_PARSE = """
import sys, time
from pathlib import Path
from npd6_xdp.core.config_file import parse
began = time.monotonic()
parse(Path(sys.argv[1]).read_text(), sys.argv[1])
print(time.monotonic() - began)
"""


@dataclass(slots=True)
class _Stream:
    """What was sent while something else went on."""

    sent: int = 0
    answered: int = 0


def measure(run: Run) -> None:
    """The hybrid, which everybody has, and python, where one thread answers and reloads."""
    before, after = _configs(run.plan.rules, run.plan.changed)
    starts: list[float] = []
    totals: list[float] = []
    applied: list[float] = []
    missed: dict[str, list[float]] = {datapath: [] for datapath in _RATE}
    parsing = ""
    for _ in range(run.plan.repeats):
        for datapath, rate in _RATE.items():
            with Ground() as ground, started(ground, before(datapath), _PATIENCE) as (daemon, first):
                with paced(ground.topology, questions(TARGETS)) as generator:
                    daemon.write(after(datapath))
                    parse = _seconds_to_parse(daemon.config_file)
                    with _stream(ground, generator, rate) as stream:
                        began = time.monotonic()
                        ask(daemon.control, {"verb": "reload"})
                        total = time.monotonic() - began
                missed[datapath].append(stream.sent - stream.answered)
                look_at_answers(run, ground, HYBRID)
                said = _APPLIED.findall(daemon.log)
                parsing = "by the daemon's own log" if said else f"less {parse:.2f} s that parsing alone takes"
                apply = float(said[-1]) if said else total - parse
                run.say(
                    f"{run.plan.rules:,} rules, {datapath}: first answer after {first:.2f} s; reload {total:.2f} s,"
                    f" of which applying {apply:.2f}; {missed[datapath][-1]:.0f} of {stream.sent:,} NS missed"
                )
            if datapath == "hybrid":
                starts.append(first)
                totals.append(total)
                applied.append(apply)
    rules, changed = f"{run.plan.rules:,} rules", f"{run.plan.changed:,} changed"
    note = f"reload as a whole {middle(totals):.2f} s; {parsing}"
    raw = {"applying, s": applied, "whole reload, s": totals}
    run.results.figures += [
        Figure(12, f"{rules}: from exec to the first NA", middle(starts), "s", at_most(4), {"s": starts}),
        Figure(12, f"{rules}: applying a reload with {changed}", middle(applied), "s", at_most(0.3), raw, note),
        *(
            Figure(12, f"NS missed during that reload, {name}", sum(each), "NS", at_most(0), {name: each})
            for name, each in missed.items()
        ),
    ]


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


def _seconds_to_parse(path: Path) -> float:
    """What reading the file takes by itself, in a process that has nothing else in its memory."""
    words = [sys.executable, "-c", _PARSE, str(path)]
    done = [subprocess.run(words, capture_output=True, text=True, check=True, cwd=HOME) for _ in range(3)]
    return middle([float(each.stdout) for each in done])
