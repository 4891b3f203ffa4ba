# SPDX-License-Identifier: GPL-2.0-or-later
"""The families of the metrics, made of a snapshot; those that have many samples in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from npd6_xdp.core.judgement import State
from npd6_xdp.core.snapshot import ANSWER_BUCKETS, InterfaceSnapshot, Snapshot
from npd6_xdp.core.steps import pieces

_INTERFACES = 32  # of which there are samples in one part of a family
_RULES = 256


def _judged(now: Snapshot) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "npd6_state", "1 of what it is: as /healthz, the page's head and `status` have it.", labels=["state"]
    )
    for name in State:
        state.add_metric([name], now.judgement.state is name)
    yield state
    problems = "Why it isn't working, by what that is about; `status` has each."
    yield _each("npd6_problems", problems, "kind", now.judgement.by_kind)


def other_metrics(now: Snapshot) -> Iterator[Metric]:
    """Those of the daemon as a whole."""
    yield from _judged(now)
    yield _answer_seconds(now)
    hosts = "Hosts that are there, by the interface towards them."
    yield _each("npd6_neighbours", hosts, "interface", now.neighbours)
    proxied = "The kernel's proxy entries that are ours."
    yield _each("npd6_kernel_proxy_entries", proxied, "interface", now.proxy_entries)
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
    yield GaugeMetricFamily(
        "npd6_handover_uncounted_seconds",
        "For how long before this start a predecessor's program answered uncounted; 0 if there was none.",
        value=now.handover_uncounted,
    )
    warned = "What there is to warn of now, by what it is about; `status` has each."
    yield _each("npd6_warnings", warned, "kind", now.warnings)
    yield CounterMetricFamily(
        "npd6_log_lines_dropped",
        "Lines of the log that were dropped, as the reader of stderr was too slow.",
        value=now.log_lines_dropped,
    )
    errors = "Mistakes of npd6-xdp's own, by the part of it that made them, and went on; the log has each."
    yield _each("npd6_internal_errors", errors, "where", now.internal_errors, CounterMetricFamily)
    build = GaugeMetricFamily("npd6_build_info", "Versions, as labels.", labels=list(now.build))
    build.add_metric(list(now.build.values()), 1)
    yield build


def table_metrics(now: Snapshot) -> Iterator[Metric]:
    """Those of how full it is, and of what the kernel and drivers do."""
    entries = GaugeMetricFamily(
        "npd6_table_entries", "What there is now of what `limits` bounds, by its key there.", labels=["table"]
    )
    limit = GaugeMetricFamily(
        "npd6_table_limit",
        "How much of it there may be; of pending targets fewer than the file says, where the kernel has less space; of"
        " remembered ones, of each kind.",
        labels=["table"],
    )
    refused = CounterMetricFamily(
        "npd6_table_refused", "Hosts and proxy entries that there was no space for.", labels=["table"]
    )
    for name, table in now.tables.items():
        entries.add_metric([name], table.entries)
        limit.add_metric([name], table.limit)
        if table.refused is not None:
            refused.add_metric([name], table.refused)
    yield from (entries, limit, refused)
    yield GaugeMetricFamily("npd6_host_routes", "Host routes of ours that the kernel has.", value=now.host_routes)
    yield GaugeMetricFamily(
        "npd6_host_routes_missing",
        "Hosts that are there, and whose routes the kernel doesn't take or others take away.",
        value=now.host_routes_missing,
    )
    dropped = (
        "Frames that XDP sent back, answers mostly, and the driver dropped, where it says so; since the driver began."
    )
    yield _each("npd6_xdp_tx_errors", dropped, "interface", now.tx_errors, CounterMetricFamily)


def _each(
    name: str,
    help: str,
    label: str,
    values: Mapping[str, int],
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily] = GaugeMetricFamily,
) -> Metric:
    """A family with a sample for each value of its only label."""
    family = kind(name, help, labels=[label])
    for of, value in values.items():
        family.add_metric([of], value)
    return family


def _of_interfaces(
    now: Snapshot, make: Callable[[], Metric], add: Callable[[Any, InterfaceSnapshot], object]
) -> Iterator[Metric]:
    """The parts of a family that has samples of each interface."""
    yield make()
    for interfaces in pieces(now.interfaces, _INTERFACES):
        family = make()
        for interface in interfaces:
            add(family, interface)
        yield family


def _counted(
    now: Snapshot, name: str, help: str, label: str, counts: Callable[[InterfaceSnapshot], Mapping[Any, int]]
) -> Iterator[Metric]:
    return _of_interfaces(
        now,
        lambda: CounterMetricFamily(name, help, labels=["interface", label]),
        lambda family, each: _add_all(family, each.label, counts(each)),
    )


def _interface_counters(now: Snapshot) -> Iterator[Iterator[Metric]]:
    yield _counted(
        now,
        "npd6_solicitations",
        "Neighbor Solicitations received, by what became of them.",
        "outcome",
        lambda each: each.outcomes,
    )
    yield _counted(
        now,
        "npd6_invalid_solicitations",
        "Invalid Neighbor Solicitations, by the first check that failed.",
        "reason",
        lambda each: each.reasons,
    )
    yield _counted(
        now,
        "npd6_rate_limited",
        "Neighbor Solicitations that were refused, by the limit that was in their way.",
        "reason",
        lambda each: each.limits,
    )
    yield _counted(
        now,
        "npd6_advertisements",
        "Neighbor Advertisements sent, late ones too, by who wrote them.",
        "path",
        lambda each: each.advertisements,
    )


def interface_metrics(now: Snapshot) -> Iterator[Iterator[Metric]]:
    """Those of interfaces, each family in parts."""
    yield from _interface_counters(now)
    yield _of_interfaces(
        now,
        lambda: CounterMetricFamily(
            "npd6_events_lost", "Solicitations that the ring to Python had no space for.", labels=["interface"]
        ),
        lambda family, each: family.add_metric([each.label], each.lost),
    )
    yield _of_interfaces(
        now,
        lambda: GaugeMetricFamily(
            "npd6_interface_info",
            "How the program is attached (native, tc, generic); 1 where it is.",
            labels=["interface", "attach", "datapath"],
        ),
        lambda family, each: each.attach and family.add_metric([each.label, each.attach, each.datapath], 1),
    )
    yield _of_interfaces(
        now,
        lambda: GaugeMetricFamily(
            "npd6_interface_up",
            "1 if the interface is there and up and the XDP program attached, and sees the VLAN tags.",
            labels=["interface"],
        ),
        lambda family, each: family.add_metric([each.label], each.up),
    )
    yield _of_interfaces(
        now,
        lambda: GaugeMetricFamily(
            "npd6_interface_native_possible",
            "1 if native mode is worth a try on such a device; 0 for bridges, VLAN devices, veth and the like.",
            labels=["interface"],
        ),
        lambda family, each: family.add_metric([each.label], each.native_possible),
    )
    yield _roles(now)
    yield _of_interfaces(
        now,
        lambda: CounterMetricFamily(
            "npd6_announcements",
            "Unsolicited Neighbor Advertisements sent, by an edge that has become active or by hand.",
            labels=["interface"],
        ),
        lambda family, each: family.add_metric([each.label], each.announcements),
    )


def _roles(now: Snapshot) -> Iterator[Metric]:
    return _of_interfaces(
        now,
        lambda: GaugeMetricFamily(
            "npd6_interface_active",
            "1 if this machine holds the address that the interface is active with, 0 on standby.",
            labels=["interface", "active_with"],
        ),
        lambda family, each: each.active_with and family.add_metric([each.label, each.active_with], each.active),
    )


def _add_all(family: CounterMetricFamily, label: str, counts: Mapping[Any, int]) -> None:
    for name, count in counts.items():
        family.add_metric([label, name], count)


def rule_metrics(now: Snapshot) -> Iterator[Metric]:
    """The one of rules, in parts."""

    def empty() -> CounterMetricFamily:
        return CounterMetricFamily(
            "npd6_rule_solicitations",
            "Neighbor Solicitations for targets that a rule covers.",
            labels=["interface", "rule", "outcome"],
        )

    yield empty()
    for rules in pieces(now.rules, _RULES):
        family = empty()
        for rule in rules:
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
