# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a solicitation has its outcome, in words: the one source of what `explain`, `replay` and `trace` say of it."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core.asked import Asked
from npd6_xdp.core.config import DadPolicy, Datapath
from npd6_xdp.core.described import EntryFacts, RuleFacts
from npd6_xdp.core.icmpv6 import MAX_MESSAGE, UNSPECIFIED
from npd6_xdp.core.table import Decision
from npd6_xdp.core.verdict import Limit, Method, Outcome, Reason

_NO_MAC = bytes(6)

INVALID = {
    Reason.FRAGMENT: "it has a fragment header (RFC 6980 §5)",
    Reason.LENGTH: "it is shorter than it says, or than 24 bytes (RFC 4861 §7.1.1)",
    Reason.HOP_LIMIT: "its hop limit isn't 255, so it came through a router (RFC 4861 §7.1.1)",
    Reason.CODE: "its code isn't 0 (RFC 4861 §7.1.1)",
    Reason.CHECKSUM: "its checksum is wrong (RFC 4861 §7.1.1)",
    Reason.TARGET: "its target is a multicast address (RFC 4861 §7.1.1)",
    Reason.SOURCE: "its source is a multicast address, or ::1 (RFC 4291 §2.7, §2.5.3)",
    Reason.OPTION_LENGTH: "an option has length 0, or goes on behind the end (RFC 4861 §7.1.1)",
    Reason.DAD_DESTINATION: "from ::, but not to a solicited-node address (RFC 4861 §7.1.1)",
    Reason.DAD_SLLAO: "from ::, but with a source link-layer address (RFC 4861 §7.1.1)",
}
"""Why a solicitation is invalid."""

REFUSED = {
    Limit.SOURCE: "its source MAC address has sent as much up to Python as events_per_source allows",
    Limit.ALL: "all together have sent as much up to Python as limits.events_per_second allows",
    Limit.PENDING: "as many targets are pending as limits.pending, or the kernel's neighbour table, has space for",
    Limit.CROWDED: "its asker or its interface has its share of limits.pending, or too many wait for this target",
    Limit.FULL: "as many hosts are there as limits.neighbours allows",
    Limit.NEW_TARGET: "as many targets that weren't answered lately have been as new_targets_per_second allows",
}
"""Why a solicitation is refused: each names the key that is its limit (docs/operation.md, "Which limit")."""

DAD_IGNORED = f'a DAD probe, and dad = "{DadPolicy.IGNORE}"'
LOST = "the ring to Python was full"
KERNEL = "the kernel's proxy entry for it answers"
WOULD_BE = "it would be answered or resolved"
HIDDEN_TAG = "a VLAN tag stood beside the frame, so that it may be another VLAN's (see the log)"


class Decided(NamedTuple):
    """A solicitation with its outcome, and what is known of why.

    `decision` is of the line that covers the target, None where there is none, or where it didn't come so far. `reason`
    is of what is invalid, `limit` of what is rate_limited. `is_held` says whether the target is an address of this
    host; None: it is to be concluded from the decision. `would`: nothing is done, only said.
    """

    outcome: Outcome
    asked: Asked
    entry: EntryFacts
    rule: RuleFacts | None = None
    decision: Decision | None = None
    reason: Reason | None = None
    limit: Limit | None = None
    late: bool = False
    is_held: bool | None = None
    would: bool = False

    @property
    def goes_on(self) -> str:
        """What is to be said besides of one that isn't answered at once, and goes on."""
        onward = self.entry.shared and self.asked.eth_destination[:1] and self.asked.eth_destination[0] & 1
        return f", and it goes on to the others behind {self.entry.port}" if onward else ""

    @property
    def via(self) -> str:
        """The interfaces behind which its target may live; "" for any."""
        return " or ".join(self.rule.via) if self.rule else ""

    @property
    def behind(self) -> str:
        """The same, to be put behind other words; "" where that isn't known: the rule may be gone by now."""
        return f" behind {self.via}" if self.via else ""


def why(decided: Decided) -> str:
    """Why a solicitation has its outcome, in one sentence without a full stop."""
    match decided.outcome:
        case Outcome.INVALID if decided.reason is not None:
            return INVALID[decided.reason]
        case Outcome.OWN | Outcome.IGNORED | Outcome.UNMATCHED:
            return _why_not_ours(decided)
        case Outcome.DAD:
            return DAD_IGNORED
        case Outcome.ABSENT:
            return _why_absent(decided)
        case Outcome.PENDING:
            return _why_pending(decided) + decided.goes_on
        case Outcome.RATE_LIMITED if decided.limit is not None:
            return REFUSED[decided.limit] + decided.goes_on
        case Outcome.LOST:
            return LOST + decided.goes_on
        case Outcome.FAILED:
            return f"its advertisement couldn't be sent out of {decided.entry.port}"
        case Outcome.KERNEL:
            return KERNEL
        case Outcome.STANDBY:
            return though_standby(WOULD_BE, decided.entry)
        case Outcome.MONITORED if decided.entry.datapath is not Datapath.MONITOR:
            return HIDDEN_TAG
        case Outcome.MONITORED:
            return though_monitored(WOULD_BE)
    return _why_there(decided)


# --- not ours ---


def why_unanswered(
    entry: EntryFacts, rule: RuleFacts | None, found: Decision | Outcome, target: IPv6Address, frames: str
) -> tuple[Outcome, str] | None:
    """The outcome and the reason where the table, which has `found` for a target, says that it isn't answered; else
    None.

    `rule` is that of the line, if it has one; `frames` says which frames those are that the entry is for.
    """
    if found is Outcome.IGNORED:
        exactly = ", unless a rule names exactly this address" if target.is_link_local else ""
        return found, f"such a target is never answered{exactly}"
    if isinstance(found, Outcome):  # C7 of docs/rules.md
        return found, "no rule covers it" if entry.spoken else f"no [[interface]] entry matches {frames}"
    if found is Decision.OWN:
        return Outcome.OWN, f"{entry.port} holds this address itself; the kernel answers"
    if found is Decision.NEXT_HOP:
        return Outcome.IGNORED, f"it is a next hop of a route out of {entry.port}; never impersonated"
    if found is not Decision.IGNORE:  # C8
        return None
    by_rule = rule is not None and rule.method is Method.IGNORE
    return Outcome.IGNORED, "the rule says so" if by_rule else "its include and exclude leave it out"


def _why_not_ours(decided: Decided) -> str:
    asked, entry = decided.asked, decided.entry
    if decided.outcome is Outcome.IGNORED and (odd := why_frame_ignored(asked, entry)):
        return odd
    if asked.is_long:
        return f"it is longer than {MAX_MESSAGE:,} bytes"
    found = decided.outcome if decided.decision is None else decided.decision
    target = IPv6Address(asked.target or UNSPECIFIED)
    unanswered = why_unanswered(entry, decided.rule, found, target, frames_of(entry.port, asked.vlan))
    return "such a frame is never answered" if unanswered is None else unanswered[1]


def why_frame_ignored(asked: Asked, entry: EntryFacts) -> str:
    """Why a frame is never answered, whatever it asks for; "" where it may be (docs/rules.md, C)."""
    if not entry.macs:
        return ""  # the entry is gone, and what it had is forgotten
    if asked.eth_source in entry.macs:
        return f"it comes from {entry.port}'s own MAC address"
    if not asked.eth_destination[0] & 1 and asked.eth_destination not in entry.macs:
        return f"it went to {asked.eth_destination.hex(':')}, which isn't {entry.port}'s MAC address"
    if asked.answer_mac[0] & 1 or asked.answer_mac == _NO_MAC:
        return "its answer would go to a multicast or zero MAC address"
    return ""


def frames_of(interface: str, tags: tuple[int, ...]) -> str:
    """The frames with these VLAN ids on an interface, in words."""
    vlan = ".".join(map(str, tags))
    return f"VLAN {vlan} of {interface}" if vlan else interface


def why_invalid(source: IPv6Address, target: IPv6Address) -> str:
    """Why a question from this address about that one is invalid, whatever frame it comes in; "" if it isn't."""
    if target.is_multicast:
        return "the target is a multicast address (RFC 4861 §7.1.1)"
    if source.is_multicast:
        return "the source is a multicast address (RFC 4291 §2.7)"
    if source.is_loopback:
        return "the source is ::1, which no frame on a link comes from (RFC 4291 §2.5.3)"
    return ""


# --- not answered ---


def _why_absent(decided: Decided) -> str:
    if decided.decision is not Decision.NEIGHBOUR:
        return f"no route to it out of {decided.via or 'another interface'}"
    if decided.would or (decided.rule is not None and not decided.rule.has_via):
        return f"there is no {decided.via} on this machine"
    behind = decided.behind or " where its rule looks for it"
    return f"it is not{behind}, but on the asker's link, or another proxy has asked for it"


def _why_pending(decided: Decided) -> str:
    if decided.would:
        return f"the neighbour table doesn't have it{decided.behind}; the kernel would resolve it"
    if decided.asked.source == UNSPECIFIED:
        return f"a DAD probe to be defended; the kernel asks whether it is still there{decided.behind}"
    return f"the neighbour table doesn't have it{decided.behind}; the kernel asks, and nobody has answered yet"


def though_standby(why: str, entry: EntryFacts) -> str:
    """Why one isn't answered that would be, if not for the role."""
    return f"{why}, but {entry.why_standby}"


def though_monitored(why: str) -> str:
    """Why one isn't answered that would be, if not for the datapath."""
    return f'{why}, but for datapath = "{Datapath.MONITOR}"'


# --- answered ---


def why_surely_there(method: Method, *, is_held: bool) -> str:
    """Why a target is there for which the table says `static`. `is_held` says that it is an address of this host."""
    if method is Method.KERNEL and not is_held:
        return "there is no VLAN device for such frames, so the kernel can't, and npd6-xdp does"
    if method is not Method.STATIC:
        return "this host holds the address on another interface"
    return f"present, by method {method}"


def if_there(decision: Decision, rule: RuleFacts, *, is_held: bool) -> tuple[str, list[str]]:
    """Why a target may be there, and under what condition where that shows only in the kernel at the moment."""
    out_of = " or ".join(rule.via) or "another interface"
    match decision:
        case Decision.ROUTE:
            return "if it is routed", [f"  if there is a route to it out of {out_of}; else {Outcome.ABSENT}"]
        case Decision.NEIGHBOUR:
            behind = f"if the neighbour table has it behind {' or '.join(rule.via)}"
            return "if it is there", [f"  {behind}; else {Outcome.PENDING}, and the kernel resolves it"]
        case Decision.KERNEL:
            return "the first time", [f"  from then on {Outcome.KERNEL}: the kernel's own proxy entry answers"]
        case _:
            return why_surely_there(rule.method, is_held=is_held), []


def _why_there(decided: Decided) -> str:
    dad = "a DAD probe to be defended; " if decided.asked.source == UNSPECIFIED else ""
    match decided.decision:
        case Decision.ROUTE:
            return f"{dad}there is a route to it"
        case Decision.NEIGHBOUR if decided.late:
            return f"{dad}it was {Outcome.PENDING}, and has been found{decided.behind}"
        case Decision.NEIGHBOUR:
            return f"{dad}the neighbour table has it{decided.behind}"
        case Decision.KERNEL if decided.would:
            return f"{dad}the first time; the kernel's proxy entry answers from then on"
        case Decision.KERNEL:
            return f"{dad}the first time; the kernel's proxy entry answers from then on, if it has got one"
        case _:
            method = decided.rule.method if decided.rule else Method.STATIC
            is_held = decided.entry.is_seen if decided.is_held is None else decided.is_held
            return dad + why_surely_there(method, is_held=is_held)
