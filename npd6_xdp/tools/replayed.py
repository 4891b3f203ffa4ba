# SPDX-License-Identifier: GPL-2.0-or-later
"""What would become of a replayed solicitation: why, and how that is told, as text and as JSON."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from npd6_xdp.core.entries import Entry
from npd6_xdp.core.explain import DAD_IGNORED, why_surely_there, why_unanswered
from npd6_xdp.core.icmpv6 import NeighborAdvertisement, NeighborSolicitation
from npd6_xdp.core.table import Decision, Match, Rule, RuleFlag, Table
from npd6_xdp.core.verdict import Method, Outcome, Reason
from npd6_xdp.tools import cooked

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
"""Why a solicitation is invalid, in words."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What would become of one solicitation. `answer` is the advertisement; a `late` one is for when the target is
    found to be there. Addresses are None where the frame is too broken to have them.
    """

    number: int
    seconds: float
    eth_source: bytes
    vlan: tuple[int, ...]
    source: str | None
    target: str | None
    outcome: Outcome
    why: str
    reason: Reason | None = None
    rule: Rule | None = None
    answer: bytes | None = None
    late: bool = False


def why(
    table: Table,
    held: Container[IPv6Address],
    asked: NeighborSolicitation,
    entry: Entry,
    match: Match | Outcome,
    outcome: Outcome,
    where: str,
) -> str:
    """Why a solicitation has its outcome. `held` are the host's addresses, `where` says which frames are meant."""
    if outcome is Outcome.IGNORED and (odd := _why_frame_ignored(asked, entry)):
        return odd
    unanswered = why_unanswered(table, entry, match, IPv6Address(asked.target), where)
    if unanswered is not None:
        return unanswered[1]
    if outcome is Outcome.DAD:
        return DAD_IGNORED
    assert isinstance(match, Match), "a rule covers it"
    rule = table.rules[match.rule]
    via = " or ".join(rule.via)
    if outcome is Outcome.ABSENT:
        if rule.method is Method.NEIGHBOUR:
            return f"there is no {via} on this machine"
        return f"the routing table doesn't lead to it by {via or 'another interface'}"
    if outcome is Outcome.PENDING:
        onward = f", and it goes on to the others behind {entry.port}" if _goes_on(asked, entry) else ""
        return f"the neighbour table doesn't have it behind {via}; the kernel would resolve it{onward}"
    if outcome is Outcome.KERNEL:
        return "the kernel's proxy entry for it answers"
    if outcome is Outcome.STANDBY:
        return f"it would be answered or resolved, but {entry.why_standby}"
    if outcome is Outcome.MONITORED:
        return 'it would be answered or resolved, but for datapath = "monitor"'
    return _why_there(held, asked, rule, match)


def _why_there(held: Container[IPv6Address], asked: NeighborSolicitation, rule: Rule, match: Match) -> str:
    dad = "a DAD probe to be defended; " if match.flags & RuleFlag.DEFEND and not any(asked.source) else ""
    match match.decision:
        case Decision.ROUTE:
            return f"{dad}the routing table leads to it"
        case Decision.NEIGHBOUR:
            return f"{dad}the neighbour table has it behind {' or '.join(rule.via)}"
        case Decision.KERNEL:
            return f"{dad}the first time; the kernel's proxy entry answers from then on"
        case _:
            return dad + why_surely_there(rule, is_held=IPv6Address(asked.target) in held)


def _why_frame_ignored(asked: NeighborSolicitation, entry: Entry) -> str:
    """Why a frame is never answered, whatever it asks for; "" where it may be."""
    if asked.eth_source in entry.macs:
        return f"it comes from {entry.port}'s own MAC address"
    if asked.eth_destination == cooked.OTHER_HOST and cooked.OTHER_HOST not in entry.macs:
        return f"it went to another station, not to {entry.port}"
    if not asked.eth_destination[0] & 1 and asked.eth_destination not in entry.macs:
        return f"it went to {asked.eth_destination.hex(':')}, which isn't {entry.port}'s MAC address"
    asker = asked.link_layer_address or asked.eth_source
    if asker[0] & 1 or asker == _NO_MAC:
        return "its answer would go to a group, or to nobody"
    return ""


def _goes_on(asked: NeighborSolicitation, entry: Entry) -> bool:
    """Whether a solicitation that isn't answered at once is passed on."""
    return entry.shared and bool(asked.eth_destination[0] & 1)


def as_dict(told: Replayed) -> dict[str, Any]:
    """As --json has it."""
    found: dict[str, Any] = {
        "frame": told.number,
        "seconds": round(told.seconds, 6),
        "eth_source": told.eth_source.hex(":"),
        "vlan": list(told.vlan),
        "source": told.source,
        "target": told.target,
        "outcome": told.outcome.value,
        "why": told.why,
        "reason": told.reason.value if told.reason else None,
        "rule": told.rule.prefix if told.rule else None,
        "method": told.rule.method.value if told.rule else None,
        "advertisement": None,
    }
    if told.answer is not None:
        na = NeighborAdvertisement.parse(told.answer)
        found["advertisement"] = {
            "only_if_there": told.late,
            "eth_source": na.eth_source.hex(":"),
            "eth_destination": na.eth_destination.hex(":"),
            "source": str(IPv6Address(na.source)),
            "destination": str(IPv6Address(na.destination)),
            "target": str(IPv6Address(na.target)),
            "router": na.router,
            "solicited": na.solicited,
            "override": na.override,
            "target_link_layer_address": na.link_layer_address.hex(":"),
            "frame": told.answer.hex(),
        }
    return found


def as_text(told: Replayed) -> str:
    """As a few lines."""
    vlan = f", VLAN {'.'.join(map(str, told.vlan))}" if told.vlan else ""
    rule = f"rule {told.rule.prefix} ({told.rule.method}); " if told.rule else ""
    reason = f" {told.reason}" if told.reason else ""
    lines = [
        f"frame {told.number}, {told.seconds:.6f} s: {told.source or 'somebody'} ({told.eth_source.hex(':')}{vlan})"
        f" asks who has {told.target or 'something'}",
        f"  {told.outcome}{reason}: {rule}{told.why}",
    ]
    if told.answer is not None:
        na = NeighborAdvertisement.parse(told.answer)
        lines.append(
            f"  advertisement{', if it is there' if told.late else ''}:"
            f" {na.eth_source.hex(':')} > {na.eth_destination.hex(':')}{vlan};"
            f" {IPv6Address(na.source)} > {IPv6Address(na.destination)},"
            f" R={int(na.router)} S={int(na.solicited)} O={int(na.override)}, {len(told.answer)} bytes"
        )
    return "\n".join(lines)


def summary_text(summary: Mapping[str, Any]) -> str:
    """The counts of all that was seen, as a few lines."""
    line = f"{some(summary['frames'], 'frame')}: {some(summary['solicitations'], 'solicitation')}"
    line += f", {some(summary['others'], 'other')}"
    if summary["not_run"]:
        line += f", {some(summary['not_run'], 'solicitation')} that couldn't be run"
    if summary["outgoing"]:
        line += f", {summary['outgoing']} that went out"
    if summary["elsewhere"]:
        line += f", {summary['elsewhere']} that came in by other interfaces"
    lines = [line]
    if summary["outcomes"]:
        lines.append("  " + ", ".join(f"{name} {count}" for name, count in summary["outcomes"].items()))
    if summary["reasons"]:
        lines.append("  invalid by: " + ", ".join(f"{name} {count}" for name, count in summary["reasons"].items()))
    return "\n".join(lines)


def some(count: int, thing: str) -> str:
    """So many things, in words."""
    return f"{count} {thing}{'' if count == 1 else 's'}"
