# SPDX-License-Identifier: GPL-2.0-or-later
"""One solicitation as `trace` has it from the XDP program and from Python: what it was, and what became of it."""

from __future__ import annotations

from typing import NamedTuple

from npd6_xdp.core.table import Decision
from npd6_xdp.core.verdict import Limit, Outcome, Reason


class Traced(NamedTuple):
    """A solicitation that was decided, or the answer to one that was `pending`, which is `late` and has its frame.

    `time` is CLOCK_MONOTONIC in nanoseconds, when the frame was seen; `ifindex` is its port. `rule` is the id of the
    rule that covers the target, `decision` what the line says that decides about it; None where there is none, or
    where it didn't come so far. `reason` is of what is invalid, `limit` of what is rate_limited.

    `frame` is the solicitation as it came: what was kept of the `size` bytes that it had on the wire. `advertisement`
    is the whole frame that went out, if one did, sent `by` "xdp" or "python".
    """

    time: int
    ifindex: int
    entry: int
    rule: int | None
    decision: Decision | None
    outcome: Outcome
    reason: Reason | None
    limit: Limit | None
    frame: bytes
    size: int
    advertisement: bytes | None
    by: str | None
    late: bool
