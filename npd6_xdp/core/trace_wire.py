# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wanted of a trace, and the bytes that it is asked for and told by: a filter, records, and messages.

A record is the XDP program's, by a ring that the client reads himself. Messages are Python's, by the control socket:
what the program leaves to it, and how things stand. The two are told to be of one solicitation by its Key.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from ipaddress import IPv6Network
from typing import Any, NamedTuple

from npd6_xdp.core.errors import UsageError
from npd6_xdp.core.event import EventFlag, NsEvent
from npd6_xdp.core.frames import STRIDE, Frames
from npd6_xdp.core.layout import TRACE_FILTER, TRACE_NOTHING, TRACE_RECORD
from npd6_xdp.core.macs import mac_of
from npd6_xdp.core.prefix import MASKS, Prefix
from npd6_xdp.core.table import NO_RULE, VLAN_ANY, Decision
from npd6_xdp.core.verdict import Limit, Outcome, Reason

_OUTCOMES, _REASONS, _LIMITS = tuple(Outcome), tuple(Reason), tuple(Limit)
_EVERYTHING = Prefix(0, 0)
_MAC_SIZE = 6
_MOST_TAGS = 2
_LAST_VLAN = 4094
MOST_SAMPLE = 1 << 31
"""One of so many, at most, is seen."""


class Filter(NamedTuple):
    """What is wanted: None, and an empty set, is all.

    `interface` is a port's name; `vlan` has the VLAN ids, outermost first, and () is untagged; `rule` is a rule's
    prefix as the file spells it. Of what is wanted, each `sample`-th is seen, on each CPU.
    """

    interface: str | None = None
    vlan: tuple[int, ...] | None = None
    target: Prefix | None = None
    source: Prefix | None = None
    source_mac: bytes | None = None
    outcomes: frozenset[Outcome] = frozenset()
    rule: str | None = None
    sample: int = 1

    def question(self) -> dict[str, Any]:
        """As values that JSON has, with the verb."""
        return {
            "verb": "trace",
            "interface": self.interface,
            "vlan": None if self.vlan is None else list(self.vlan),
            "target": None if self.target is None else str(self.target),
            "source": None if self.source is None else str(self.source),
            "source_mac": None if self.source_mac is None else self.source_mac.hex(":"),
            "outcomes": sorted(self.outcomes),
            "rule": self.rule,
            "sample": self.sample,
        }

    @classmethod
    def of(cls, question: Mapping[str, Any]) -> Filter:
        """What question() made. Raises UsageError, with one line, for what can't be wanted."""
        vlan, mac = question.get("vlan"), question.get("source_mac")
        return cls(
            interface=_text(question, "interface"),
            vlan=None if vlan is None else _vlan(vlan),
            target=_prefix(question, "target"),
            source=_prefix(question, "source"),
            source_mac=None if mac is None else _mac(mac),
            outcomes=_outcomes(question.get("outcomes") or ()),
            rule=_text(question, "rule"),
            sample=_sample(question.get("sample", 1)),
        )

    def wants(self, outcome: Outcome) -> bool:
        """Whether it wants to see what had this outcome."""
        return not self.outcomes or outcome in self.outcomes

    def pack(self) -> bytes:
        """The program's `struct trace_filter`. Interface and rules are elsewhere: in entries and `trace_rules`."""
        target, source = self.target or _EVERYTHING, self.source or _EVERYTHING
        vlan = (VLAN_ANY, VLAN_ANY) if self.vlan is None else (*self.vlan, 0, 0)[:_MOST_TAGS]
        return TRACE_FILTER.pack_named(
            target=target.address.to_bytes(16),
            target_mask=MASKS[target.length].to_bytes(16),
            source=source.address.to_bytes(16),
            source_mask=MASKS[source.length].to_bytes(16),
            mac=self.source_mac or bytes(_MAC_SIZE),
            by_mac=self.source_mac is not None,
            outer=vlan[0],
            inner=vlan[1],
            outcomes=sum(1 << number for number, outcome in enumerate(_OUTCOMES) if self.wants(outcome)),
            by_rule=self.rule is not None,
            sample=self.sample,
        )


def _text(question: Mapping[str, Any], key: str) -> str | None:
    value = question.get(key)
    if value is not None and (not isinstance(value, str) or not value.isprintable()):
        raise UsageError(f"trace: {key}: must be a name")
    return value


def _prefix(question: Mapping[str, Any], key: str) -> Prefix | None:
    value = question.get(key)
    if value is None:
        return None
    try:
        return Prefix.of(IPv6Network(value if isinstance(value, str) else b""))
    except ValueError:
        raise UsageError(f"trace: {key}: must be an IPv6 address or prefix, with no bits set behind it") from None


def _vlan(value: object) -> tuple[int, ...]:
    is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes)) and len(value) <= _MOST_TAGS
    if not is_list or not all(type(each) is int and 1 <= each <= _LAST_VLAN for each in value):  # type: ignore[attr-defined]
        raise UsageError("trace: vlan: must be one or two VLAN ids of 1 to 4094, or none for what is untagged")
    return tuple(value)  # type: ignore[arg-type]


def _mac(value: object) -> bytes:
    with suppress(ValueError):
        if isinstance(value, str):
            return mac_of(value)
    raise UsageError("trace: source_mac: must be a MAC address such as 02:00:00:00:00:01")


def _outcomes(value: object) -> frozenset[Outcome]:
    try:
        return frozenset(Outcome(each) for each in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise UsageError(f"trace: outcome: must be of {', '.join(Outcome)}") from None


def _sample(value: object) -> int:
    if type(value) is not int or not 1 <= value < MOST_SAMPLE:
        raise UsageError("trace: sample: must be a whole number from 1 on: one of so many is seen")
    return value


# --- records -----------------------------------------------------------------------------------------------


class TraceKind(IntEnum):
    """`enum trace_kind`: what a record tells."""

    DECIDED = 0
    HANDED_UP = 1
    HELD = 2
    FOUND = 3


class Key(NamedTuple):
    """What a record and a message of one solicitation have in common; `time_us` and `rule` are its event's."""

    time_us: int
    target: bytes
    source: bytes
    rule: int


_MICROSECONDS = 0xFFFFFFFF
_HEAD_STRUCT = struct.Struct("=" + TRACE_RECORD.format.removesuffix(TRACE_RECORD.fields["frame"].format))
_BEFORE_KEPT = [*TRACE_RECORD.fields].index("kept")
RECORD_LEAST = _HEAD_STRUCT.size
"""Bytes of a record without a frame."""


class Record(NamedTuple):
    """One `struct trace_record`; see core/traced.py for what the fields are."""

    time: int
    ifindex: int
    entry: int
    rule: int
    size: int
    target: bytes
    source: bytes
    kind: TraceKind
    outcome: Outcome
    reason: Reason | None
    limit: Limit | None
    decision: Decision | None
    advertisement: bytes | None
    frame: bytes

    @classmethod
    def unpack(cls, data: bytes) -> Record:
        """From its bytes on the ring. Raises ValueError for what the program can't have written."""
        try:
            fields = _HEAD_STRUCT.unpack_from(data)
            kept, kind, outcome, reason, limit, decision, is_answered, macs, advert = fields[_BEFORE_KEPT:]
            frame = data[RECORD_LEAST : RECORD_LEAST + kept]
            if len(frame) != kept:
                raise ValueError("a trace record is cut short")
            words = (
                _KINDS[kind],
                _OUTCOMES[outcome],
                None if reason == TRACE_NOTHING else _REASONS[reason],
                None if limit == TRACE_NOTHING else _LIMITS[limit],
                None if decision == TRACE_NOTHING else _DECISIONS[decision],
            )
            advertisement = macs + _tags(frame) + advert if is_answered else None
            return cls._make((*fields[:_BEFORE_KEPT], *words, advertisement, frame))
        except (struct.error, IndexError) as error:
            raise ValueError(f"no trace record: {error}") from error

    @property
    def key(self) -> Key:
        """What its messages have as well."""
        return Key(self.time // 1000 & _MICROSECONDS, self.target, self.source, self.rule)

    @property
    def rule_id(self) -> int | None:
        """The id of the rule that covers its target, if one does."""
        return None if self.rule == NO_RULE else self.rule


def _tags(frame: bytes) -> bytes:
    """What stands between the MAC addresses and the IPv6 header: VLAN tags, two at the most, and the EtherType."""
    at = 2 * _MAC_SIZE
    while frame[at : at + 2] in _TPIDS and at < 2 * _MAC_SIZE + 4 * _MOST_TAGS:
        at += 4
    return frame[2 * _MAC_SIZE : at + 2]


_TPIDS = (b"\x81\x00", b"\x88\xa8")
_KINDS, _DECISIONS = tuple(TraceKind), tuple(Decision)

# --- messages ----------------------------------------------------------------------------------------------


class MessageKind(IntEnum):
    """What a message holds: words in JSON, verdicts, or those of plain events, which Python has answered."""

    WORDS = 0
    VERDICTS = 1
    PLAIN = 2


class Verdict(NamedTuple):
    """What Python has found of a solicitation; `late`: the advertisement to one that was pending."""

    key: Key
    outcome: Outcome
    limit: Limit | None
    advertisement: bytes | None
    late: bool = False


HEADER = struct.Struct("=IB")
"""Before each message: how many bytes follow, and its kind."""
MOST_BYTES = 1 << 20
"""Of one message."""
_VERDICT = struct.Struct("=I16s16sIBBBB")  # a Key, outcome, limit, late, bytes of the advertisement behind it
_ADVERT = 96  # bytes of space for it
VERDICT_SIZE = _VERDICT.size + _ADVERT
MOST_VERDICTS = MOST_BYTES // VERDICT_SIZE


def pack_verdicts(verdicts: Iterable[Verdict]) -> bytes:
    """The message's bytes, header included, for at most MOST_VERDICTS of them."""
    parts = [
        _VERDICT.pack(
            *key,
            _NUMBERS[outcome],
            TRACE_NOTHING if limit is None else _LIMITS.index(limit),
            late,
            len(advertisement or b""),
        )
        + (advertisement or b"").ljust(_ADVERT, b"\0")
        for key, outcome, limit, advertisement, late in verdicts
    ]
    return framed(MessageKind.VERDICTS, b"".join(parts))


_NUMBERS = {outcome: number for number, outcome in enumerate(_OUTCOMES)}


def unpack_verdicts(body: bytes) -> Iterator[Verdict]:
    """The verdicts of a message's body. Raises ValueError for what isn't one."""
    if len(body) % VERDICT_SIZE:
        raise ValueError("a message of verdicts is cut short")
    for at in range(0, len(body), VERDICT_SIZE):
        time_us, target, source, rule, outcome, limit, late, size = _VERDICT.unpack_from(body, at)
        start = at + _VERDICT.size
        try:
            yield Verdict(
                Key(time_us, target, source, rule),
                _OUTCOMES[outcome],
                None if limit == TRACE_NOTHING else _LIMITS[limit],
                body[start : start + size] if size else None,
                bool(late),
            )
        except IndexError:
            raise ValueError("a message of verdicts has a number that means nothing") from None


_COUNT = struct.Struct("=I")
_TARGET_AT, _SOURCE_AT = 48, 24  # in an advertisement, behind the tags: its target, and to whom it goes, who has asked


def pack_plain(frames: Frames, numbers: Sequence[int] | None = None) -> bytes:
    """A message's bytes, header included, of advertisements that lie side by side: of these, or of all. No bytes of a
    single one are touched: a flood comes this way.
    """
    shapes, times, buffer = frames.shapes, frames.times, memoryview(frames.buffer)
    count = len(shapes)
    if numbers is None:
        body = bytes(buffer[: count * STRIDE])
    else:
        count = len(numbers)
        shapes, times = [shapes[number] for number in numbers], [times[number] for number in numbers]
        body = b"".join([buffer[number * STRIDE : (number + 1) * STRIDE] for number in numbers])
    if count and shapes.count(shapes[0]) == count:  # nearly always
        rules, sizes = array("I", [shapes[0].rule]) * count, array("B", [shapes[0].size]) * count
    else:
        rules, sizes = array("I", [shape.rule for shape in shapes]), array("B", [shape.size for shape in shapes])
    columns = array("I", times).tobytes(), rules.tobytes(), sizes.tobytes()
    return framed(MessageKind.PLAIN, b"".join((_COUNT.pack(count), *columns, body)))


def unpack_plain(body: bytes) -> Iterator[Verdict]:
    """The verdicts of such a message's body. Raises ValueError for what isn't one."""
    if len(body) < _COUNT.size or len(body) != _COUNT.size + (count := _COUNT.unpack_from(body)[0]) * (9 + STRIDE):
        raise ValueError("a message of plain answers is cut short")
    columns = struct.unpack_from(f"={count}I{count}I{count}B", body, _COUNT.size)
    start = len(body) - count * STRIDE
    for number in range(count):
        size = columns[2 * count + number]
        advertisement = body[start : start + min(size, STRIDE)]
        yield Verdict(_plain_key(advertisement, columns[number], columns[count + number]), _PLAIN, None, advertisement)
        start += STRIDE


_PLAIN = Outcome.ANSWERED_PYTHON
_BARE = 72  # bytes of an advertisement from the IPv6 header on


def _plain_key(advertisement: bytes, time_us: int, rule: int) -> Key:
    """The key of the solicitation that has such an advertisement, which isn't to a group."""
    l3 = max(len(advertisement) - _BARE, 0)
    target, source = l3 + _TARGET_AT, l3 + _SOURCE_AT
    return Key(time_us, advertisement[target : target + 16], advertisement[source : source + 16], rule)


def plain_key(frames: Frames, number: int) -> Key:
    """The key of the solicitation of one of such advertisements."""
    return _plain_key(frames.frame(number), frames.times[number], frames.shapes[number].rule)


def framed(kind: MessageKind, body: bytes) -> bytes:
    """A message with its header."""
    return HEADER.pack(len(body), kind) + body


def key_of(event: NsEvent) -> Key:
    """The key of the solicitation that an event is of."""
    return Key(event.time_us, event.target, event.source, event.rule)


def is_traced(event: NsEvent) -> bool:
    """Whether somebody waits to hear what becomes of it."""
    return bool(event.flags & EventFlag.TRACED)
