# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trace is asked for and told by: read as it was written, and whatever else comes is refused in one way."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.errors import UsageError
from npd6_xdp.core.frames import STRIDE, Frames, Shape
from npd6_xdp.core.layout import TRACE_RECORD
from npd6_xdp.core.prefix import MASKS, Prefix
from npd6_xdp.core.table import Decision
from npd6_xdp.core.trace_wire import (
    HEADER,
    MOST_SAMPLE,
    RECORD_LEAST,
    Filter,
    Key,
    MessageKind,
    Record,
    TraceKind,
    Verdict,
    pack_plain,
    pack_verdicts,
    plain_key,
    unpack_plain,
    unpack_verdicts,
)
from npd6_xdp.core.verdict import Limit, Outcome, Reason
from tests.frames import SETTING, TAGS_8021Q, TAGS_MENU, TAGS_QINQ

u32 = st.integers(0, 2**32 - 1)
address, mac = st.binary(min_size=16, max_size=16), st.binary(min_size=6, max_size=6)
prefixes = st.builds(
    lambda address, length: Prefix(address & MASKS[length], length), st.integers(0, 2**128 - 1), st.integers(0, 128)
)
vlans = st.lists(st.integers(1, 4094), max_size=2).map(tuple)
names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=12)
filters = st.builds(
    Filter,
    interface=st.none() | names,
    vlan=st.none() | vlans,
    target=st.none() | prefixes,
    source=st.none() | prefixes,
    source_mac=st.none() | mac,
    outcomes=st.frozensets(st.sampled_from(Outcome)),
    rule=st.none() | names,
    sample=st.integers(1, MOST_SAMPLE - 1),
)
keys = st.builds(Key, u32, address, address, u32)
verdicts = st.builds(
    Verdict,
    keys,
    st.sampled_from(Outcome),
    st.none() | st.sampled_from(Limit),
    st.none() | st.binary(min_size=1, max_size=96),
    st.booleans(),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(filters)
def test_a_filter_comes_through_json_as_it_was(wanted: Filter) -> None:
    assert Filter.of(json.loads(json.dumps(wanted.question()))) == wanted
    assert len(wanted.pack()) == len(Filter().pack())


@given(st.sampled_from(sorted(Filter().question().keys() - {"verb"})), anything)
def test_a_filter_of_anything_is_one_or_refused_in_one_line(key: str, value: Any) -> None:
    said = ""
    try:
        Filter.of({key: value}).pack()
    except UsageError as error:
        said = str(error)
    assert said == "" or said.startswith("trace: ")
    assert "\n" not in said


@pytest.mark.parametrize("outcome", Outcome)
def test_what_is_wanted_is_a_bit_of_the_programs_numbers(outcome: Outcome) -> None:
    (bits,) = struct.unpack_from("=I", Filter(outcomes=frozenset({outcome})).pack(), 76)
    assert bits == 1 << [*Outcome].index(outcome)


records = st.tuples(
    *(st.integers(0, 2**64 - 1), u32, u32, u32, u32, address, address),
    *(st.sampled_from(TraceKind), st.sampled_from(Outcome), st.none() | st.sampled_from(Reason)),
    *(st.none() | st.sampled_from(Limit), st.none() | st.sampled_from(Decision)),
    *(st.none() | st.binary(min_size=84, max_size=84), st.sampled_from((b"", *TAGS_MENU)), st.binary(max_size=200)),
).map(lambda fields: _record(*fields))


def _record(*fields: Any) -> Record:
    """Of a frame with these tags, which the advertisement has as well."""
    *others, answered, tags, rest = fields
    between = tags + b"\x86\xdd"
    frame = bytes(12) + between + rest if answered or rest else b""
    return Record._make((*others, answered and answered[:12] + between + answered[12:], frame))


def written(record: Record) -> bytes:
    """As the program writes it."""

    def number(word: Any, words: Any) -> int:
        return 255 if word is None else [*words].index(word)

    return TRACE_RECORD.pack(
        *record[:7],
        len(record.frame),
        record.kind,
        number(record.outcome, Outcome),
        number(record.reason, Reason),
        number(record.limit, Limit),
        number(record.decision, Decision),
        record.advertisement is not None,
        (record.advertisement or b"")[:12],
        (record.advertisement or b"")[-72:],
        record.frame,
    )[: RECORD_LEAST + len(record.frame)]


@given(records)
def test_a_record_is_read_as_the_program_writes_it(record: Record) -> None:
    assert Record.unpack(written(record)) == record


@given(records, st.data())
def test_a_record_that_is_cut_or_garbled_is_refused_or_means_something_else(
    record: Record, data: st.DataObject
) -> None:
    whole = bytearray(written(record))
    with suppress(ValueError):
        Record.unpack(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(ValueError):
        Record.unpack(bytes(whole))


@given(st.lists(verdicts, max_size=20))
def test_verdicts_are_read_as_they_were_written(told: list[Verdict]) -> None:
    message = pack_verdicts(told)
    assert HEADER.unpack_from(message) == (len(message) - HEADER.size, MessageKind.VERDICTS)
    assert list(unpack_verdicts(message[HEADER.size :])) == told


@given(st.binary(max_size=400))
def test_a_message_of_anything_is_one_or_refused(body: bytes) -> None:
    for unpack in (unpack_verdicts, unpack_plain):
        with suppress(ValueError):
            list(unpack(body))


@pytest.mark.parametrize("numbers", [None, [0, 2], []])
def test_plain_answers_are_read_with_the_keys_of_their_questions(numbers: list[int] | None) -> None:
    frames = Frames(3)
    for number, tags in enumerate((b"", TAGS_8021Q, TAGS_QINQ)):
        target, source = SETTING.target[:15] + bytes([number]), SETTING.asker_global
        ipv6 = bytes(8) + target + source
        frame = SETTING.asker_mac + SETTING.mac + tags + b"\x86\xdd" + ipv6 + bytes(8) + target + bytes(8)
        frames.buffer[number * STRIDE : number * STRIDE + len(frame)] = frame
        frames.shapes.append(Shape(7 + number, 1, len(frame), traced=True))
        frames.times.append(100 + number)
    told = list(unpack_plain(pack_plain(frames, numbers)[HEADER.size :]))
    assert [verdict.key.rule - 7 for verdict in told] == ([0, 1, 2] if numbers is None else numbers)
    for verdict in told:
        number = verdict.key.rule - 7
        target = SETTING.target[:15] + bytes([number])
        assert verdict.key == Key(100 + number, target, SETTING.asker_global, 7 + number) == plain_key(frames, number)
        assert (verdict.outcome, verdict.advertisement) == (Outcome.ANSWERED_PYTHON, frames.frame(number))
