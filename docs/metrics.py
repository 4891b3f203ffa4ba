# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes docs/metrics.md from the code: python -m docs.metrics > docs/metrics.md"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from prometheus_client.metrics_core import Metric

from docs.markdown import table, words
from npd6_xdp.core.config import Attach, Datapath
from npd6_xdp.core.judgement import ProblemKind, State
from npd6_xdp.core.snapshot import (
    ANSWER_BUCKETS,
    MOST_RULES_WITH_ZEROS,
    RULE_OUTCOMES,
    AnswerTimes,
    InterfaceSnapshot,
    RuleSnapshot,
    Snapshot,
    TableSnapshot,
)
from npd6_xdp.core.verdict import Limit, Method, Outcome, Reason
from npd6_xdp.core.warnings import WarningKind
from npd6_xdp.system.http.metrics import SnapshotCollector

PATHS = ("xdp", "python")

EXAMPLE = Snapshot(
    interfaces=[
        InterfaceSnapshot(
            "wan0",
            "wan0",
            Attach.NATIVE,
            Datapath.HYBRID,
            True,
            dict.fromkeys(Outcome, 0),
            dict.fromkeys(Reason, 0),
            dict.fromkeys(PATHS, 0),
            dict.fromkeys(Limit, 0),
            "192.0.2.1",
        )
    ],
    rules=[RuleSnapshot("wan0", "2001:db8:1::/64", Method.STATIC, {})],
    neighbours={"lan0": 0},
    proxy_entries={"wan0": 0},
    answer_times=AnswerTimes(),
    last_reload=0.0,
    reload_failures=0,
    build={"version": "", "bcc": "", "kernel": ""},
    warnings=dict.fromkeys(WarningKind, 0),
    internal_errors={"events": 0},
    tables={"pending": TableSnapshot(0, 512), "neighbours": TableSnapshot(0, 65_536, 0)},
    tx_errors={"wan0": 0},
)
"""One of everything, so that every family has a sample, and a sample its labels."""

LABELS: Mapping[str, str] = {
    "interface": "the port, with the VLAN where its entry has one (`wan0:100`); of `npd6_neighbours` the `via` one, of"
    " `npd6_xdp_tx_errors_total` the port alone",
    "outcome": "{outcomes}; [operation.md](operation.md#outcomes) says what they mean",
    "reason": "of `npd6_invalid_solicitations_total` {reasons}, in the order in which they are checked: the first that"
    " fails counts; of `npd6_rate_limited_total` {limits}: [operation.md](operation.md#which-limit)",
    "rule": "the `prefix` as the configuration has it",
    "path": "{paths}: who wrote the advertisement; of `npd6_answer_seconds` always `python`",
    "attach": "{modes}: how it is attached, which `auto` leaves open",
    "datapath": "{datapaths}",
    "state": "{states}: [operation.md](operation.md#the-status-page) says what they mean",
    "kind": "what it is about: {kinds}; of `npd6_problems` also {problems}",
    "table": "`pending`, `neighbours`, `kernel_entries`, `remembered_targets`: the key in"
    " [`limits`](configuration.md#limits); of `npd6_table_refused_total` `neighbours` and `kernel_entries`, as what"
    " `pending` refuses is in `npd6_rate_limited_total`, and what is remembered makes space by itself",
    "where": "the part of the daemon: `events`, `rings`, `links`, `routes`, `neighbours`, `control`, `reload`, others;"
    " see [operation.md](operation.md#mistakes-of-its-own)",
    "active_with": "the address of [`active_with`](failover.md); entries without it have no sample",
    "version": "npd6-xdp's",
    "bcc": "bcc's",
    "kernel": "Linux's",
}

PAGE = """\
# Metrics

<!-- Written by docs/metrics.py from the code. Change it there, and write it anew. -->

At `http://[::1]:9846/metrics`, or where `metrics.listen` says. Names and labels are a contract: they stay. Counters
go on over a reload, and begin at 0 with the process. No label holds an address of a packet, so nobody on the wire can
make the metrics grow.

[operation.md](operation.md#prometheus) says how to scrape them, and which alerts and dashboard there are.

{metrics}

Besides, prometheus-client's `process_` metrics: processor time, memory, file descriptors, start time.

`npd6_xdp_tx_errors_total` is the driver's own count: it is there before the process, and begins at 0 with the driver.
Where the program sits at tc, and on drivers without such a count, it has no sample. Prometheus itself has how long a
scrape takes (`scrape_duration_seconds`); `npd6_scrape_cpu_seconds` says what it costs this machine.

`npd6_state` and `npd6_problems` are the [one judgement](operation.md#the-status-page) that the page's head, `/healthz`,
`status` and `doctor` tell; each problem has [its alert](alerts.md). They are made beside the main loop, so they tell of
one that hangs.

## Labels

{labels}

## Sums that hold

- `npd6_solicitations_total` over all outcomes is the number of solicitations received: each has exactly one.
- `npd6_invalid_solicitations_total` over all reasons is its outcome `invalid`.
- `npd6_rate_limited_total` over all reasons is the outcome `rate_limited`.
- `npd6_advertisements_total` by `xdp` is the outcome `answered_xdp`; by `python` it is `answered_python`, and the late
  answers to those that were `pending`.
- `npd6_events_lost_total` is the outcome `lost`.

## What can become of a rule's solicitations

By its method. `npd6_rule_solicitations_total` has all of these for each rule, with 0 for what never happened; of more
than {most_rules_with_zeros:,} rules it has only what did happen.

{rule_outcomes}

## Buckets of `npd6_answer_seconds`

{buckets} seconds, and `+Inf`.
"""


def labels(family: Metric) -> list[str]:
    """The labels of a family's samples; what belongs to the type (a histogram's le) left out."""
    return list(dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le"))


def described(family: Metric) -> tuple[str, str, str, str]:
    """A family's row: what to ask Prometheus for, its type, its labels, and its help."""
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return f"`{name}`", family.type, ", ".join(labels(family)), family.documentation


def page() -> str:
    """The text of docs/metrics.md."""
    families = list(SnapshotCollector(lambda: EXAMPLE).collect())
    known = {
        "outcomes": words(Outcome),
        "reasons": words(Reason),
        "limits": words(Limit),
        "paths": words(PATHS),
        "states": words(State),
        "kinds": words(WarningKind),
        "problems": words(ProblemKind),
        "modes": words(mode for mode in Attach if mode is not Attach.AUTO),
        "datapaths": words(Datapath),
    }
    used = dict.fromkeys(label for family in families for label in labels(family))
    return PAGE.format(
        metrics=table(("metric", "type", "labels", "says"), *map(described, families)),
        labels=table(("label", "values"), *((f"`{label}`", LABELS[label].format(**known)) for label in used)),
        most_rules_with_zeros=MOST_RULES_WITH_ZEROS,
        rule_outcomes=table(
            ("method", "outcomes"),
            *((f"`{method}`", words((*outcomes, Outcome.IGNORED))) for method, outcomes in RULE_OUTCOMES.items()),
        ),
        buckets=", ".join(f"{bound:g}" for bound in ANSWER_BUCKETS),
    )


if __name__ == "__main__":
    sys.stdout.write(page())
