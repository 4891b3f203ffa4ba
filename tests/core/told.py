# SPDX-License-Identifier: GPL-2.0-or-later
"""Solicitations as `trace` has them, for the tests of how it tells of them."""

from __future__ import annotations

from dataclasses import replace

from npd6_xdp.core.config import Datapath
from npd6_xdp.core.described import EntryFacts, RuleFacts
from npd6_xdp.core.icmpv6 import AdvertisementTemplate
from npd6_xdp.core.table import Decision
from npd6_xdp.core.trace_told import Told
from npd6_xdp.core.traced import Traced
from npd6_xdp.core.verdict import Limit, Method, Outcome, Reason
from tests.frames import SETTING, TAGS_8021Q
from tests.kinds import solicit

AT = 1_764_459_000_123_456_789
"""Nanoseconds since 1970: 2025-11-29T23:30:00.123456789Z."""
ENTRY = EntryFacts(
    "wan0", "wan0", "any", frozenset({SETTING.mac}), True, False, Datapath.HYBRID, False, "192.0.2.1 isn't here"
)
STATIC = RuleFacts("2001:db8:1::/64", Method.STATIC, ())
BEHIND = RuleFacts("2001:db8:1::/64", Method.NEIGHBOUR, ("lan0",))


def advertisement(tags: bytes = b"") -> bytes:
    """The answer to the plain solicitation."""
    template = AdvertisementTemplate(SETTING.mac, tags, router=True)
    return template.fill(SETTING.asker_mac, SETTING.target, SETTING.asker_link_local, SETTING.target, solicited=True)


def told(
    outcome: Outcome = Outcome.ANSWERED_XDP,
    *,
    frame: bytes | None = None,
    tags: bytes = b"",
    rule: RuleFacts | None = STATIC,
    decision: Decision | None = Decision.STATIC,
    reason: Reason | None = None,
    limit: Limit | None = None,
    size: int | None = None,
    answered: bool | None = None,
    late: bool = False,
) -> Told:
    """One that was decided so; an advertisement goes with what is answered, by whom the outcome says."""
    frame = solicit(replace(SETTING, tags=tags)) if frame is None else frame
    answered = late or outcome in (Outcome.ANSWERED_XDP, Outcome.ANSWERED_PYTHON) if answered is None else answered
    by = "xdp" if outcome is Outcome.ANSWERED_XDP else "python"
    traced = Traced(
        time=1,
        ifindex=7,
        entry=1,
        rule=None if rule is None else 3,
        decision=decision,
        outcome=outcome,
        reason=reason,
        limit=limit,
        frame=frame,
        size=len(frame) if size is None else size,
        advertisement=advertisement(tags) if answered else None,
        by=by if answered else None,
        late=late,
    )
    return Told.of(traced, AT, ENTRY, rule)


def examples() -> list[Told]:
    """One each: answered, untagged and tagged, invalid, cut off, pending and answered late, refused, and unmatched."""
    return [
        told(),
        told(Outcome.ANSWERED_PYTHON, tags=TAGS_8021Q),
        told(Outcome.INVALID, frame=solicit(SETTING, hop_limit=64), rule=None, decision=None, reason=Reason.HOP_LIMIT),
        told(Outcome.UNMATCHED, frame=solicit(SETTING)[:60], size=4158, rule=None, decision=None),
        told(Outcome.PENDING, rule=BEHIND, decision=Decision.NEIGHBOUR),
        told(Outcome.ANSWERED_PYTHON, rule=BEHIND, decision=Decision.NEIGHBOUR, late=True),
        told(Outcome.RATE_LIMITED, limit=Limit.ALL),
        told(Outcome.UNMATCHED, rule=None, decision=None),
    ]
