# SPDX-License-Identifier: GPL-2.0-or-later
"""All that the daemon knows of itself at one moment: what the metrics say, and `status`."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core.judgement import WORKING, Judgement
from npd6_xdp.core.verdict import Limit, Method, Outcome, Reason

ANSWER_BUCKETS = (
    10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1.0,
)  # fmt: skip
"""Upper bounds of npd6_answer_seconds, in seconds."""
_BUCKETS_US = [round(bound * 1e6) for bound in ANSWER_BUCKETS]

_ANSWERED = (
    Outcome.ANSWERED_XDP,
    Outcome.ANSWERED_PYTHON,
    Outcome.DAD,
    Outcome.MONITORED,
    Outcome.RATE_LIMITED,
    Outcome.LOST,
    Outcome.FAILED,
    Outcome.STANDBY,
)
RULE_OUTCOMES: Mapping[Method, tuple[Outcome, ...]] = {
    Method.STATIC: _ANSWERED,
    Method.ROUTE: (*_ANSWERED, Outcome.ABSENT),
    Method.NEIGHBOUR: (*_ANSWERED, Outcome.ABSENT, Outcome.PENDING),
    Method.KERNEL: (*_ANSWERED, Outcome.KERNEL),
    Method.IGNORE: (),
}
"""What can become of a solicitation that a rule of a method covers, beside `ignored` by include or exclude."""

MOST_RULES_WITH_ZEROS = 1000


@dataclass(slots=True)
class AnswerTimes:
    """A histogram of the time from the XDP program's timestamp to the send, in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(ANSWER_BUCKETS) + 1))
    total: float = 0.0

    def observe(self, microseconds: int) -> None:
        """Count one answer."""
        self.counts[bisect_left(_BUCKETS_US, microseconds)] += 1
        self.total += microseconds / 1e6

    def observe_all(self, microseconds: list[int]) -> None:
        """Count many answers, by as many searches as there are buckets among them; sorts the list."""
        microseconds.sort()
        start, count = 0, len(microseconds)
        while start < count:
            bucket = bisect_left(_BUCKETS_US, microseconds[start])
            end = count
            if bucket < len(_BUCKETS_US):
                end = bisect_right(microseconds, _BUCKETS_US[bucket], start)
            self.counts[bucket] += end - start
            start = end
        self.total += sum(microseconds) / 1e6


@dataclass(frozen=True, slots=True)
class InterfaceSnapshot:
    """One entry: `label` is what the metrics call it; `attach` is "native", "tc", "generic" or "" where detached.

    `attach_reason` says why `auto` has made that of it, where it isn't native; "" else. `active_with` is the address
    that it is active with, "" where it always is; `active` says whether it is now,
    `role` in words.
    """

    label: str
    port: str
    attach: str
    datapath: str
    up: bool
    outcomes: Mapping[Outcome, int]
    reasons: Mapping[Reason, int]
    advertisements: Mapping[str, int]
    limits: Mapping[Limit, int] = field(default_factory=dict)
    active_with: str = ""
    active: bool = True
    announcements: int = 0
    role: str = ""
    attach_reason: str = ""
    native_possible: bool = False
    """Whether a device of its kind can have XDP in native mode; False where there is none."""

    @property
    def lost(self) -> int:
        """Events that the ring had no space for: the solicitations of that outcome, seen from the ring."""
        return self.outcomes.get(Outcome.LOST, 0)


class RuleSnapshot(NamedTuple):
    """One rule of one entry, by the entry's label and the prefix as the file spells it.

    `outcomes` need not name those that it never had.
    """

    label: str
    prefix: str
    method: Method
    outcomes: Mapping[Outcome, int]


class TableSnapshot(NamedTuple):
    """How full a table of bounded size is: `entries` of at most `limit`; `refused` counts what it had no space for.

    None where that is counted elsewhere.
    """

    entries: int
    limit: int
    refused: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the metrics say; times are seconds since the epoch. Labels are unique, and a rule's prefix is under one.

    `neighbours` has the present hosts by the name of the via interface, `proxy_entries` those of ours by that of
    the interface that they are on. `reload_failed` is of the last reload, as `reload_failures` is of all.
    """

    interfaces: Sequence[InterfaceSnapshot]
    rules: list[RuleSnapshot]
    neighbours: Mapping[str, int]
    proxy_entries: Mapping[str, int]
    answer_times: AnswerTimes
    last_reload: float
    reload_failures: int
    build: Mapping[str, str]
    time: float = 0.0
    reload_failed: bool = False
    warnings: Mapping[str, int] = field(default_factory=dict)
    """How many there are now, by kind (core/warnings.py)."""
    internal_errors: Mapping[str, int] = field(default_factory=dict)
    """Mistakes of ours that were survived, by the part of the daemon that made them."""
    log_lines_dropped: int = 0
    """Lines of the log that nobody read in time."""
    handover_uncounted: float = 0.0
    """Seconds for which a predecessor's program answered after its end, and nobody counted."""
    tables: Mapping[str, TableSnapshot] = field(default_factory=dict)
    """By the key of [limits] that bounds them."""
    host_routes: int = 0
    """How many of ours the kernel has."""
    host_routes_missing: int = 0
    """How many it doesn't take, though their hosts are there."""
    tx_errors: Mapping[str, int] = field(default_factory=dict)
    """By port, what the driver dropped of the frames that XDP sent back, where it says so."""
    judgement: Judgement = WORKING

    def rule_outcomes(self, rule: RuleSnapshot) -> Mapping[Outcome, int]:
        """What is shown of a rule: all that can become of its solicitations, with a 0 for what never did.

        With many rules, only what did happen: 100,000 with their zeros would be 800,000 lines of metrics, and take 7 s.
        """
        happened = {outcome: count for outcome, count in rule.outcomes.items() if count}
        if len(self.rules) > MOST_RULES_WITH_ZEROS:
            return happened
        # what happened may also be of a method that the rule had before a reload
        return dict.fromkeys((*RULE_OUTCOMES[rule.method], Outcome.IGNORED), 0) | happened


@dataclass(frozen=True, slots=True)
class HostSnapshot:
    """A host or proxy entry: `interface` is behind or on which, `state` the neighbour table's word for it."""

    interface: str
    address: IPv6Address
    state: str = ""


@dataclass(frozen=True, slots=True)
class TargetSnapshot:
    """A target that was asked for on an entry that collects them; times are seconds since the epoch.

    `outcome` is what became of the last solicitation, `source` and `source_mac` are that one's.
    """

    label: str
    target: IPv6Address
    first: float
    last: float
    count: int
    outcome: Outcome
    source: IPv6Address
    source_mac: str


@dataclass(frozen=True, slots=True)
class Details:
    """What only `status` says, to users who may read the control socket. Addresses of hosts and of packets are only
    here.

    `file` is the configuration's path.
    """

    file: str = ""
    hosts: Sequence[HostSnapshot] = ()
    pending: Sequence[IPv6Address] = ()
    proxy_entries: Sequence[HostSnapshot] = ()
    host_routes: Sequence[HostSnapshot] = ()
    host_routes_missing: Sequence[HostSnapshot] = ()
    targets: Sequence[TargetSnapshot] = ()
    vias: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The globs of `via`, each with the interfaces that it matches now."""
    capacity: tuple[int, int] | None = None
    """How many targets may be pending at once, and limits.pending; None: no rule has any resolved."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the status page and `status` say: the snapshot, and what is none of the metrics.

    The page's is without details, and so no address of a packet or a host is in it. `pending` and `host_routes` are how
    many there are; `refused` counts hosts and proxy entries that there was no space for. `reload_error` says why the
    last reload failed, "" if it didn't. `warnings` says where the configuration doesn't do at the moment what its
    writer may expect.
    """

    snapshot: Snapshot
    pending: int
    host_routes: int
    refused: Mapping[str, int]
    reload_error: str
    warnings: Sequence[str]
    started: float
    pid: int
    details: Details = Details()
    host: str = ""
    """This machine's name."""
    namespace: str = ""
    """The network namespace's name; its number ("net:[4026532288]"), where it has none."""
