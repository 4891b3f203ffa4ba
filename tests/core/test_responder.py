# SPDX-License-Identifier: GPL-2.0-or-later
"""Events and their answers, judged by what NeighborAdvertisement reads."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, DadPolicy, InterfaceConfig, NaSource, RuleConfig
from npd6_xdp.core.event import EVENT_SIZE, EventFlag, NsEvent
from npd6_xdp.core.frames import Frames
from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.responder import Responder
from npd6_xdp.core.table import RuleFlag
from npd6_xdp.core.verdict import Method

MAC = bytes.fromhex("020000000001")
ASKER = bytes.fromhex("020000000002")
TARGET = IPv6Address("2001:db8:1::42").packed
SOURCE = IPv6Address("fe80::2").packed


def event(source: bytes = SOURCE, tci: bytes = bytes(4), flags: int = 0) -> NsEvent:
    return NsEvent(TARGET, source, 5, 0, ASKER, tci, flags)


def answer(ns: NsEvent, held: tuple[str, ...] = (), **keys: object) -> NeighborAdvertisement:
    rule = RuleConfig("::/0", (Prefix.of("::/0"),), Method.STATIC)
    addresses = tuple(OwnAddress(IPv6Address(address)) for address in held)
    links = {"wan0": LinkFacts("wan0", 7, MAC, addresses={(): addresses})}
    table = build(Config((InterfaceConfig("wan0", (rule,), **keys),)), links)  # type: ignore[arg-type]
    made = Responder(table).answer(ns)
    assert made.ifindex == 7
    return NeighborAdvertisement.parse(made.frame)


@pytest.mark.parametrize("router", [True, False])
def test_an_asker_gets_a_solicited_advertisement_without_override(router: bool) -> None:
    assert answer(event(), router=router) == NeighborAdvertisement(
        ASKER, MAC, b"", TARGET, SOURCE, TARGET, router=router, solicited=True, link_layer_address=MAC
    )


def test_a_defended_probe_is_answered_to_all_nodes_unsolicited() -> None:
    na = answer(event(source=bytes(16)), dad=DadPolicy.DEFEND)
    assert (na.eth_destination.hex(), IPv6Address(na.destination)) == ("333300000001", IPv6Address("ff02::1"))
    assert (na.solicited, na.override) == (False, False)


@pytest.mark.parametrize(
    ("held", "wanted"),
    [(("fe80::1", "2001:db8::1"), "fe80::1"), ((), "2001:db8:1::42"), (("2001:db8::1",), "2001:db8:1::42")],
)
def test_under_interface_the_source_is_the_interfaces_own_or_for_want_of_one_the_target(
    held: tuple[str, ...], wanted: str
) -> None:
    assert IPv6Address(answer(event(), held, na_source=NaSource.INTERFACE).source) == IPv6Address(wanted)


TAGS = (
    (0, "", ""),
    (1, "00640000", "81000064"),
    (1 | EventFlag.OUTER_8021AD, "f0640000", "88a8f064"),
    (2, "00640007", "8100006481000007"),
    (2 | EventFlag.OUTER_8021AD, "00640007", "88a8006481000007"),
    (2 | EventFlag.OUTER_8021AD | EventFlag.INNER_8021AD, "0064e007", "88a8006488a8e007"),
)


@pytest.mark.parametrize(("flags", "tci", "wanted"), TAGS)
def test_the_tags_of_the_question_are_those_of_the_answer(flags: int, tci: str, wanted: str) -> None:
    assert answer(event(tci=bytes.fromhex(tci).ljust(4, b"\0"), flags=flags)).tags.hex() == wanted


address = st.binary(min_size=16, max_size=16)


@given(
    st.builds(
        NsEvent,
        address,
        address,
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.binary(min_size=6, max_size=6),
        st.binary(min_size=4, max_size=4),
        st.integers(0, 2**16 - 1),
    ),
    st.binary(max_size=12),
)
def test_an_event_is_read_as_it_was_written_whatever_follows(ns: NsEvent, padding: bytes) -> None:
    assert len(ns.pack()) == EVENT_SIZE
    assert NsEvent.unpack(ns.pack() + padding) == ns


PORTS = {name: LinkFacts(name, index, MAC[:5] + bytes([index])) for index, name in ((7, "wan0"), (9, "wan1"))}
BOTH_PORTS = build(
    Config(
        tuple(
            InterfaceConfig(name, tuple(RuleConfig(p, (Prefix.of(p),), Method.STATIC, **keys) for p, keys in rules))
            for name, rules in (
                ("wan0", [("2001:db8::/32", {}), ("2001:db8:1::/48", {"router": False})]),
                ("wan1", [("::/0", {}), ("2001::/16", {"na_source": NaSource.INTERFACE})]),
            )
        )
    ),
    PORTS,
)
GONE = max(BOTH_PORTS.rules) + 1

few_rules_and_tags = st.builds(
    NsEvent,
    address,
    st.one_of(address, st.just(bytes(16))),
    st.integers(0, 2**32 - 1),
    st.sampled_from([*BOTH_PORTS.rules, GONE]),
    st.binary(min_size=6, max_size=6),
    st.sampled_from([bytes(4), bytes.fromhex("00640007")]),
    st.sampled_from([0, 0, 0, 1, 1 | EventFlag.OUTER_8021AD, 2, 0 | EventFlag.MISS, EventFlag.STALE]),
)


@given(st.lists(st.lists(few_rules_and_tags, max_size=20), max_size=3))
def test_a_run_is_answered_with_the_same_bytes_as_one_event_at_a_time(runs: list[list[NsEvent]]) -> None:
    responder, frames = Responder(BOTH_PORTS), Frames(60)
    others = [each for run in runs for each in responder.answer_run(b"".join(ns.pack_record() for ns in run), frames)]
    events = [ns for run in runs for ns in run]
    plain = [ns for ns in events if ns not in others]
    made = [
        (shape.rule, shape.ifindex, time, frames.frame(number))
        for number, (shape, time) in enumerate(zip(frames.shapes, frames.times, strict=True))
    ]
    assert made == [(ns.rule, *_timed(responder, ns)) for ns in plain]
    for ns in others:
        more_than_an_answer = ns.rule == GONE or ns.is_dad or ns.flags & (EventFlag.MISS | EventFlag.STALE)
        assert more_than_an_answer or BOTH_PORTS.rules[ns.rule].flags & RuleFlag.SOURCE_INTERFACE
    assert len(others) + len(made) == len(events)


@given(few_rules_and_tags)
def test_what_comes_alone_is_answered_with_the_same_bytes_as_in_a_run(ns: NsEvent) -> None:
    responder, frames = Responder(BOTH_PORTS), Frames(1)
    others = responder.answer_run(ns.pack_record(), frames)
    alone = responder.answer_one(ns.pack_record())
    if others:
        assert alone is None
    else:
        assert alone == (frames.shapes[0], frames.frame(0), frames.times[0])


def _timed(responder: Responder, ns: NsEvent) -> tuple[int, int, bytes]:
    whole = responder.answer(ns)
    return whole.ifindex, ns.time_us, whole.frame


def test_a_short_event_is_an_error() -> None:
    with pytest.raises(struct.error):
        NsEvent.unpack(event().pack()[:-1])
