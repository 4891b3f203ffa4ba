# SPDX-License-Identifier: GPL-2.0-or-later
"""All that the daemon knows of itself at one moment: what the metrics say, and later `status` and its page."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from npd6_xdp.core.verdict import Method, Outcome, Reason

ANSWER_BUCKETS = (
    10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1.0,
)  # fmt: skip
"""Upper bounds of npd6_answer_seconds, in seconds."""

RULE_OUTCOMES: Mapping[Method, tuple[Outcome, ...]] = {
    Method.STATIC: (
        Outcome.ANSWERED_XDP,
        Outcome.ANSWERED_PYTHON,
        Outcome.DAD,
        Outcome.MONITORED,
        Outcome.LOST,
        Outcome.FAILED,
    ),
    Method.IGNORE: (Outcome.IGNORED,),
}
"""What can become of a solicitation that a rule of a method covers."""


@dataclass(slots=True)
class AnswerTimes:
    """A histogram of the time from the XDP program's timestamp to the send, in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(ANSWER_BUCKETS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one answer."""
        self.counts[bisect_left(ANSWER_BUCKETS, seconds)] += 1
        self.total += seconds


@dataclass(frozen=True, slots=True)
class InterfaceSnapshot:
    """One entry: `label` is what the metrics call it; `attach` is "native", "generic" or "" where detached."""

    label: str
    port: str
    attach: str
    datapath: str
    up: bool
    outcomes: Mapping[Outcome, int]
    reasons: Mapping[Reason, int]
    advertisements: Mapping[str, int]

    @property
    def lost(self) -> int:
        """Events that the ring had no room for: the solicitations of that outcome, seen from the ring."""
        return self.outcomes.get(Outcome.LOST, 0)


@dataclass(frozen=True, slots=True)
class RuleSnapshot:
    """One rule of one entry, by the entry's label and the prefix as the file spells it."""

    label: str
    prefix: str
    method: Method
    outcomes: Mapping[Outcome, int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole; times are seconds since the epoch. Two entries never share a label, nor two rules both words."""

    interfaces: Sequence[InterfaceSnapshot]
    rules: Sequence[RuleSnapshot]
    answer_times: AnswerTimes
    last_reload: float
    reload_failures: int
    build: Mapping[str, str]
