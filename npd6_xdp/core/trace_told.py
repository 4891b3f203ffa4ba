# SPDX-License-Identifier: GPL-2.0-or-later
"""How `trace` tells of a solicitation: as a line to read, as an object of JSON, and as packets of a capture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core import pcapng
from npd6_xdp.core.asked import Asked
from npd6_xdp.core.described import EntryFacts, RuleFacts
from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.core.reasons import Decided, why
from npd6_xdp.core.traced import Traced
from npd6_xdp.core.verdict import Outcome

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_GREEN, _YELLOW, _RED, _FAINT = "32", "33", "31", "2"
_COLOURS = {
    Outcome.ANSWERED_XDP: _GREEN,
    Outcome.ANSWERED_PYTHON: _GREEN,
    Outcome.KERNEL: _GREEN,
    Outcome.PENDING: _YELLOW,
    Outcome.ABSENT: _YELLOW,
    Outcome.RATE_LIMITED: _RED,
    Outcome.LOST: _RED,
    Outcome.FAILED: _RED,
    Outcome.INVALID: _RED,
}
"""By ECMA-48, of those that stand out; the others are faint."""

LATE = "late answer"


class Told(NamedTuple):
    """A solicitation with the words for it. `at` is nanoseconds since 1970, `interface` the port's name, `rule` the
    prefix as the file spells it.
    """

    at: int
    interface: str
    asked: Asked
    why: str
    rule: str | None
    traced: Traced

    @classmethod
    def of(cls, traced: Traced, at: int, entry: EntryFacts, rule: RuleFacts | None) -> Told:
        """Say why it has its outcome."""
        asked = Asked.of(traced.frame)
        decided = Decided(
            traced.outcome, asked, entry, rule, traced.decision, traced.reason, traced.limit, late=traced.late
        )
        return cls(at, entry.port, asked, why(decided), rule.prefix if rule else None, traced)


# --- JSON ---


def as_json(told: Told) -> str:
    """An object in a line, without the line's end."""
    traced, asked = told.traced, told.asked
    found = {
        "time": _rfc3339(told.at),
        "interface": told.interface,
        "vlan": list(asked.vlan),
        "source": _address(asked.source),
        "source_mac": asked.eth_source.hex(":"),
        "target": _address(asked.target),
        "outcome": traced.outcome.value,
        "reason": told.why,
        "rule": told.rule,
        "by": traced.by,
        "advertisement": None if traced.advertisement is None else traced.advertisement.hex(),
    }
    return json.dumps(found | {"late": True} if traced.late else found, ensure_ascii=False)


def summary_json(seen: int, lost: int, counted: int) -> str:
    """The last object."""
    return json.dumps({"summary": {"seen": seen, "lost": lost, "counted": counted}})


def _rfc3339(at: int) -> str:
    return (_EPOCH + timedelta(microseconds=at // 1000)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _address(packed: bytes | None) -> str | None:
    return None if packed is None else str(IPv6Address(packed))


# --- text ---


class Lines:
    """Lines with columns, each as wide as the widest that it has had; what is usual fits from the first line on."""

    def __init__(self, *, coloured: bool) -> None:
        self._coloured = coloured
        # wan0:100; a link-local address made of a MAC address, and one of a host as people write it
        self._widths = [15, 8, 25, 17, 25, len(Outcome.ANSWERED_PYTHON)]

    def line(self, told: Told) -> str:
        """A solicitation, without the line's end."""
        asked, traced = told.asked, told.traced
        outcome = LATE if traced.late else traced.outcome.value
        cells = (
            (_EPOCH + timedelta(microseconds=told.at // 1000)).astimezone().strftime("%H:%M:%S.%f"),
            ":".join(filter(None, (told.interface, ".".join(map(str, asked.vlan))))),
            _address(asked.source) or "somebody",
            asked.eth_source.hex(":"),
            _address(asked.target) or "something",
            outcome,
        )
        self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, cells, strict=True)]
        time, interface, source, mac, target, _ = (
            f"{cell:<{width}}" for cell, width in zip(cells, self._widths, strict=True)
        )
        padding = " " * (self._widths[-1] - len(outcome))
        colour = _GREEN if traced.late else _COLOURS.get(traced.outcome, _FAINT)
        painted = f"\x1b[{colour}m{outcome}\x1b[0m" if self._coloured else outcome
        return f"{time}  {interface}  {source}  {mac}  > {target}  {painted}{padding}  {_words(told)}"


def _words(told: Told) -> str:
    """Why, by which rule, and what was answered."""
    words = [told.why]
    if told.rule is not None:
        words.append(f"rule {told.rule}")
    if told.traced.advertisement is not None:
        words.append(_advertisement(told.traced.advertisement, told.traced.by))
    return "; ".join(words)


def _advertisement(frame: bytes, by: str | None) -> str:
    sent = f"NA by {'XDP' if by == 'xdp' else 'Python'}"
    try:
        na = NeighborAdvertisement.parse(frame)
    except ValueError as error:  # none of ours looks so
        return f"{sent}: {error}"
    flags = f"R={int(na.router)} S={int(na.solicited)} O={int(na.override)}"
    source = "" if na.source == na.target else f" from {IPv6Address(na.source)}"
    return f"{sent}: {na.link_layer_address.hex(':')}, {flags}{source} to {na.eth_destination.hex(':')}"


def summary_text(seen: int, lost: int, counted: int) -> str:
    """The counts, in words."""
    return f"{seen:,} seen, {lost:,} lost, {counted:,} counted"


# --- capture ---


class Packets:
    """The blocks of a capture. A late answer is a packet of its own, `now`; else the answer follows its question."""

    def __init__(self, application: str) -> None:
        self.begin = pcapng.section(application)
        self._interfaces: dict[str, int] = {}

    def blocks(self, told: Told, now: int) -> Iterator[bytes]:
        """Those of a solicitation; `now` is in nanoseconds since 1970."""
        number = self._interfaces.get(told.interface)
        if number is None:
            number = self._interfaces[told.interface] = len(self._interfaces)
            yield pcapng.interface(told.interface)
        traced = told.traced
        rule = f"; rule {told.rule}" if told.rule is not None else ""
        if not traced.late:
            comment = f"{traced.outcome}: {told.why}{rule}"
            yield pcapng.packet(number, told.at, traced.frame, traced.size, pcapng.Direction.INBOUND, comment)
        if traced.advertisement is not None:
            answer, at = traced.advertisement, max(now, told.at) if traced.late else told.at
            comment = f"{LATE if traced.late else traced.outcome}: by {traced.by}; {told.why}{rule}"
            yield pcapng.packet(number, at, answer, len(answer), pcapng.Direction.OUTBOUND, comment)
