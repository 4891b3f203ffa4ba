# SPDX-License-Identifier: GPL-2.0-or-later
"""What would become of a replayed solicitation: why, and how that is told, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.core.table import Rule
from npd6_xdp.core.verdict import Outcome, Reason


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
