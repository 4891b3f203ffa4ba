# SPDX-License-Identifier: GPL-2.0-or-later
"""What Prometheus scrapes: a collector that reads a snapshot each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from npd6_xdp.core.snapshot import ANSWER_BUCKETS, Snapshot

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication


class SnapshotCollector(Collector):
    """Turns a Snapshot into the metric families of DESIGN.md's table."""

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        self._take = take

    def describe(self) -> list[Metric]:
        """None beforehand: registering this must not read the kernel's counters."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, from one snapshot."""
        now = self._take()
        yield from _interface_metrics(now)
        yield from _rule_metrics(now)
        yield _answer_seconds(now)
        yield _by_interface("npd6_neighbours", "Hosts that are there, by the interface towards them.", now.neighbours)
        yield _by_interface("npd6_kernel_proxy_entries", "The kernel's proxy entries that are ours.", now.proxies)
        yield GaugeMetricFamily(
            "npd6_config_last_reload_success_timestamp_seconds",
            "When the configuration in use was loaded.",
            value=now.last_reload,
        )
        yield GaugeMetricFamily(
            "npd6_config_last_reload_successful",
            "0 if the last reload left the old configuration in use, else 1.",
            value=not now.reload_failed,
        )
        yield CounterMetricFamily(
            "npd6_config_reload_failures",
            "Reloads that left the old configuration in use.",
            value=now.reload_failures,
        )
        warned = GaugeMetricFamily(
            "npd6_warnings", "What there is to warn of now, by what it is about; `status` has each.", labels=["kind"]
        )
        for kind, count in now.warnings.items():
            warned.add_metric([kind], count)
        yield warned
        errors = CounterMetricFamily(
            "npd6_internal_errors",
            "Mistakes of npd6-xdp's own, by the part of it that made them, and went on; the log has each.",
            labels=["where"],
        )
        for where, count in now.internal_errors.items():
            errors.add_metric([where], count)
        yield errors
        build = GaugeMetricFamily("npd6_build_info", "Versions, as labels.", labels=list(now.build))
        build.add_metric(list(now.build.values()), 1)
        yield build


def _by_interface(name: str, help: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, help, labels=["interface"])
    for interface, value in values.items():
        family.add_metric([interface], value)
    return family


def _interface_metrics(now: Snapshot) -> Iterator[Metric]:
    solicitations = CounterMetricFamily(
        "npd6_solicitations",
        "Neighbor Solicitations received, by what became of them.",
        labels=["interface", "outcome"],
    )
    invalid = CounterMetricFamily(
        "npd6_invalid_solicitations",
        "Invalid Neighbor Solicitations, by the first check that failed.",
        labels=["interface", "reason"],
    )
    advertisements = CounterMetricFamily(
        "npd6_advertisements",
        "Neighbor Advertisements sent, late ones too, by who wrote them.",
        labels=["interface", "path"],
    )
    lost = CounterMetricFamily(
        "npd6_events_lost", "Solicitations that the ring to Python had no room for.", labels=["interface"]
    )
    info = GaugeMetricFamily(
        "npd6_interface_info",
        "How the XDP program is attached; 1 where it is.",
        labels=["interface", "attach", "datapath"],
    )
    up = GaugeMetricFamily(
        "npd6_interface_up",
        "1 if the interface is there and up and the XDP program attached, and sees the VLAN tags.",
        labels=["interface"],
    )
    for interface in now.interfaces:
        for outcome, count in interface.outcomes.items():
            solicitations.add_metric([interface.label, outcome], count)
        for reason, count in interface.reasons.items():
            invalid.add_metric([interface.label, reason], count)
        for path, count in interface.advertisements.items():
            advertisements.add_metric([interface.label, path], count)
        lost.add_metric([interface.label], interface.lost)
        if interface.attach:
            info.add_metric([interface.label, interface.attach, interface.datapath], 1)
        up.add_metric([interface.label], interface.up)
    return iter((solicitations, invalid, advertisements, lost, info, up))


def _rule_metrics(now: Snapshot) -> Iterator[Metric]:
    family = CounterMetricFamily(
        "npd6_rule_solicitations",
        "Neighbor Solicitations for targets that a rule covers.",
        labels=["interface", "rule", "outcome"],
    )
    for rule in now.rules:
        for outcome, count in now.rule_outcomes(rule).items():
            family.add_metric([rule.label, rule.prefix, outcome], count)
    yield family


def _answer_seconds(now: Snapshot) -> Metric:
    family = HistogramMetricFamily(
        "npd6_answer_seconds",
        "Seconds from the XDP program's timestamp to the send; of late answers with the time that resolving took.",
        labels=["path"],
    )
    bounds = [*(str(bound) for bound in ANSWER_BUCKETS), "+Inf"]
    buckets = list(zip(bounds, accumulate(now.answer_times.counts), strict=True))
    family.add_metric(["python"], buckets, now.answer_times.total)
    return family


def metrics_app(take: Callable[[], Snapshot]) -> WSGIApplication:
    """The metrics as a WSGI application, which reads a snapshot each time; the process's own are among them."""
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(take))
    ProcessCollector(registry=registry)
    return make_wsgi_app(registry)
