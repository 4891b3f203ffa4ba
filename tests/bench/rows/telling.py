# SPDX-License-Identifier: GPL-2.0-or-later
"""Row 17: what it takes to be asked for the metrics and the status of very many rules, and who waits meanwhile."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.control import reply_to
from tests.bench.generators import Order, paced
from tests.bench.plan import Run
from tests.bench.reloads import Latency
from tests.bench.results import at_most, middle
from tests.netns.wire import configuration, scan, until

_BASE = int(IPv6Address("2001:db9::"))
_RATE = 100_000.0  # NS/s that can be sent at the least, or it takes longer
_PATIENCE = 120.0
_SCRAPE, _STATUS = "a scrape of the metrics", "the status"
_OF_A_RULE = {_SCRAPE: "npd6_rule_solicitations_total{", _STATUS: '"rule": "'}
"""What stands in the text once for each rule, or more often."""
_LIBRARY = """
import sys, time
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
with open(sys.argv[1]) as file:
    families = list(text_string_to_metric_families(file.read()))
registry = CollectorRegistry(auto_describe=False)
registry.register(type("All", (), {"collect": lambda self: iter(families), "describe": lambda self: []})())
began = time.monotonic()
generate_latest(registry)
print(time.monotonic() - began)
"""
"""The same page by the library alone, which has all values at hand."""
_JSON = """
import json, sys, time
with open(sys.argv[1]) as file:
    document = json.load(file)
began = time.monotonic()
json.dumps(document)
print(time.monotonic() - began)
"""
"""The same document by the standard library's fastest, which has all values at hand."""


@dataclass(slots=True)
class _Found:
    """A value a turn: seconds."""

    took: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)


def measure(run: Run) -> None:
    """One daemon is asked for both in turns, with solicitations that only Python can answer all the time."""
    rules = [f"{IPv6Address(_BASE + (number << 64))}/64 static" for number in range(run.plan.rules - 1)]
    found: defaultdict[str, _Found] = defaultdict(_Found)
    quiet: list[float] = []
    with Topology() as topology:
        topology.xdp_pass("upstream", "eth0")  # or what XDP sends back is lost
        text = configuration("2001:db8:1::/64 static", *rules, attach='"native"', events_per_source="0")
        with RunningDaemon(topology, text, timeout=_PATIENCE) as daemon:
            _count_all(topology, daemon, run.plan.rules - 1)
            with closing(Latency(topology)) as latency:
                asked: dict[str, tuple[Callable[[], str], str]] = {
                    _SCRAPE: (lambda: daemon.metrics_text(timeout=_PATIENCE), _LIBRARY),
                    # not understood here: json.loads() of all that would keep the thread that asks waiting for 0.1 s
                    _STATUS: (lambda: reply_to(daemon.control, {"verb": "status"}).decode(), _JSON),
                }
                for _ in range(run.plan.tellings):
                    for name, (what, library) in asked.items():
                        document, took, pause = _asked(latency, what)
                        if document.count(_OF_A_RULE[name]) < len(rules):
                            raise RuntimeError(f"{name} hasn't all of the rules")
                        found[name].took.append(took)
                        found[name].pauses.append(pause)
                        found[name].alone.append(_by_library(topology.directory / "document", document, library))
                    quiet.append(_asked(latency, _nothing)[2])
    for name, each in found.items():
        _figures(run, name, each, quiet)


def _figures(run: Run, name: str, found: _Found, quiet: list[float]) -> None:
    rules = f"{run.plan.rules:,} rules"
    took, alone, pauses = found.took, found.alone, found.pauses
    note = f"{middle(took):.2f} over {middle(alone):.2f} s"
    raw = {"s": took, "by the library alone, s": alone}
    library = "prometheus_client's own writing" if name == _SCRAPE else "json.dumps"
    limit = _LIMITS[name]
    run.results.ratio(
        17,
        f"{rules}: {name}, over {library} of the same",
        list(zip(took, alone, strict=True)),
        at_most(limit.whole),
        note,
        raw,
    )
    note = f"{1000 * middle(pauses):.0f} ms of {middle(took):.2f} s; without, {1000 * middle(quiet):.0f} ms"
    raw = {"longest answer, s": pauses, "the whole, s": took, "longest without, s": quiet}
    label = f"{rules}: the longest answer of Python during {name}, of its time"
    run.results.ratio(17, label, list(zip(pauses, took, strict=True)), at_most(limit.pause), note, raw)
    run.say(f"row 17: {name}: {middle(took):.2f} s ({middle(alone):.2f} alone), pause {note}")


@dataclass(frozen=True, slots=True)
class _Limit:
    whole: float
    pause: float


_LIMITS = {_SCRAPE: _Limit(4.0, 0.1), _STATUS: _Limit(10.0, 0.1)}


def _asked(latency: Latency, what: Callable[[], str]) -> tuple[str, float, float]:
    """What was asked for, how long it took, and the longest that an answer to a solicitation took meanwhile."""
    latency.begin()
    began = time.monotonic()
    document = what()
    took = time.monotonic() - began
    time.sleep(0.05)  # what was asked under way is answered
    return document, took, latency.longest


def _nothing() -> str:
    time.sleep(1.0)
    return ""


def _count_all(topology: Topology, daemon: RunningDaemon, count: int) -> None:
    """Have each rule count a solicitation."""
    frames = [next(scan(1, str(IPv6Address(_BASE + (number << 64))))) for number in range(count)]

    before, seconds = sum(daemon.solicitations().values()), count / _RATE + 0.1
    with paced(topology, frames) as generator:
        while generator.do(Order(None, seconds)).frames < count:  # it begins anew each time
            seconds *= 2
    if not until(lambda: sum(daemon.solicitations().values()) - before >= count):
        raise RuntimeError("the daemon has not counted what was sent")


def _by_library(file: Path, document: str, script: str) -> float:
    file.write_text(document)
    words = [sys.executable, "-c", script, str(file)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
