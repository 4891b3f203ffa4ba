# SPDX-License-Identifier: GPL-2.0-or-later
"""What Prometheus scrapes: a collector that reads a snapshot each time."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Set
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from prometheus_client import ProcessCollector
from prometheus_client.core import SummaryMetricFamily
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from npd6_xdp.core.snapshot import Snapshot
from npd6_xdp.system.http.families import interface_metrics, other_metrics, rule_metrics, table_metrics

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_GZIP = 31  # the format, as zlib's wbits have it


class ScrapeCost:
    """The processor time of scrapes that have been answered in full."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._value = 0, 0.0

    def add(self, seconds: float) -> None:
        """One more. Any thread may say so."""
        with self._lock:
            count, total = self._value
            self._value = count + 1, total + seconds

    @property
    def value(self) -> tuple[int, float]:
        """How many there were, and the seconds that they took together."""
        return self._value


class SnapshotCollector(Collector):
    """Turns a Snapshot into the metric families of docs/metrics.md; `cost` is of the scrapes before."""

    def __init__(self, take: Callable[[], Snapshot], cost: ScrapeCost | None = None) -> None:
        self._take = take
        self._cost = cost or ScrapeCost()

    def describe(self) -> list[Metric]:
        """None beforehand: registering this must not read the kernel's counters."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, from one snapshot."""
        for parts in self.parts():
            family = next(parts)
            for part in parts:
                family.samples += part.samples
            yield family

    def parts(self) -> Iterator[Iterator[Metric]]:
        """The same, each family as one or more of that name, which have some of its samples each."""
        now = self._take()
        yield from interface_metrics(now)
        yield rule_metrics(now)
        for family in (*other_metrics(now), *table_metrics(now), _scrapes(self._cost)):
            yield iter((family,))


def _scrapes(cost: ScrapeCost) -> Metric:
    count, total = cost.value
    return SummaryMetricFamily(
        "npd6_scrape_cpu_seconds",
        "Processor time that the scrapes before this one took, the reading of the kernel's counters included.",
        count_value=count,
        sum_value=total,
    )


def metrics_app(take: Callable[[], Snapshot], cost: ScrapeCost | None = None) -> WSGIApplication:
    """The metrics as a WSGI application, which reads a snapshot each time; the process's own are among them.

    It says what prometheus_client's own application says, by the same encoders, but makes it in parts: all samples of
    4,000 interfaces at once are tens of megabytes. Only those samples are in it that are asked for by name (name[]).
    """
    cost = cost or ScrapeCost()
    ours = SnapshotCollector(take, cost)
    process = ProcessCollector(registry=None)

    def app(request: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        begun = time.thread_time()
        names = parse_qs(request.get("QUERY_STRING", "")).get("name[]")
        encoder, kind = choose_encoder(request.get("HTTP_ACCEPT", ""))
        headers = [("Content-Type", kind)]
        text = _in_parts(encoder, ours, process) if names is None else _of_names(encoder, {*names}, ours, process)
        if gzip_accepted(request.get("HTTP_ACCEPT_ENCODING", "")):
            headers.append(("Content-Encoding", "gzip"))
            text = _compressed(text)
        start("200 OK", headers)
        return _timed(text, cost, begun)

    return app


class _One(Collector):
    """A registry that has some families at hand."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _in_parts(encoder: Callable[[Collector], bytes], ours: SnapshotCollector, process: Collector) -> Iterator[bytes]:
    """What the encoder says of all families, in parts: the lines about a family stand before its first part only."""
    end = encoder(_One())
    for parts in ours.parts():
        for number, part in enumerate(parts):
            text = encoder(_One(part)).removesuffix(end)
            while number and text.startswith(b"#"):
                text = text.partition(b"\n")[2]
            yield text
    yield encoder(process)


def _of_names(
    encoder: Callable[[Collector], bytes], names: Set[str], ours: SnapshotCollector, process: Collector
) -> Iterator[bytes]:
    """What the encoder says of the samples of these names, at once: there are few."""
    families = [*ours.collect(), *process.collect()]
    for family in families:
        family.samples = [sample for sample in family.samples if sample.name in names]
    yield encoder(_One(*(family for family in families if family.samples)))


def _timed(text: Iterable[bytes], cost: ScrapeCost, begun: float) -> Iterator[bytes]:
    """The same; what it took is known once all of it was asked for, by the thread that has begun."""
    yield from text
    cost.add(time.thread_time() - begun)


def _compressed(text: Iterable[bytes]) -> Iterator[bytes]:
    stream = zlib.compressobj(wbits=_GZIP)
    for part in text:
        yield stream.compress(part)
    yield stream.flush()
