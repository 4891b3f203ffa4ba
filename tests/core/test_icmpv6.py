# SPDX-License-Identifier: GPL-2.0-or-later
"""Solicitations and advertisements, bytes and values in both directions; ids in names are those of docs/rules.md."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet6 import IPv6, in6_chksum
from scapy.packet import Raw

from npd6_xdp.core.icmpv6 import (
    ALL_NODES,
    ALL_NODES_MAC,
    MAX_MESSAGE,
    UNSPECIFIED,
    AdvertisementTemplate,
    NeighborAdvertisement,
    NeighborSolicitation,
    checksum,
)
from npd6_xdp.core.verdict import Outcome, Reason
from tests.frames import (
    BROADCAST_MAC,
    MULTICAST_MAC,
    OTHER_MAC,
    SETTING,
    SLLAO,
    TAGS_MENU,
    ZERO_MAC,
    Setting,
    ether,
    ip6,
)
from tests.judge import judge_advertisement
from tests.kinds import (
    FRAGMENT,
    HBH,
    KINDS,
    PEER_KINDS,
    Kind,
    Wanted,
    nonce,
    option,
    oversized,
    sllao,
    solicit,
    three_tags,
)
from tests.random_frames import random_frames
from tests.valid_solicitations import macs, solicitations, unicast_addresses, vlan_tags

OURS, ASKER = ether("02:00:00:00:00:01"), ether("02:00:00:00:00:02")
TARGET = ip6("2001:db8:1::42")
QINQ = bytes.fromhex("88a8 0064 8100 0007")

# Name, frame (Ethernet, tags, IPv6, ICMPv6, option) and value; the frames are scapy's.
GOLDEN_SOLICITATIONS = (
    (
        "multicast with SLLAO",
        "3333ff000042 020000000002 86dd"
        "60000000 0020 3a ff fe800000000000000000000000000002 ff0200000000000000000001ff000042"
        "87 00 4adc 00000000 20010db8000100000000000000000042"
        "01 01 020000000002",
        NeighborSolicitation(
            ether("33:33:ff:00:00:42"), ASKER, b"", ip6("fe80::2"), ip6("ff02::1:ff00:42"), TARGET, ASKER
        ),
    ),
    (
        "DAD probe",
        "3333ff000042 020000000002 86dd"
        "60000000 0018 3a ff 00000000000000000000000000000000 ff0200000000000000000001ff000042"
        "87 00 4c6a 00000000 20010db8000100000000000000000042",
        NeighborSolicitation(ether("33:33:ff:00:00:42"), ASKER, b"", UNSPECIFIED, ip6("ff02::1:ff00:42"), TARGET, None),
    ),
    (
        "unicast without SLLAO, two tags",
        "020000000001 020000000002 88a80064 81000007 86dd"
        "60000000 0018 3a ff 20010db8ffff00000000000000000002 20010db8000100000000000000000042"
        "87 00 eef9 00000000 20010db8000100000000000000000042",
        NeighborSolicitation(OURS, ASKER, QINQ, ip6("2001:db8:ffff::2"), TARGET, TARGET, None),
    ),
    (
        "checksum 0000",
        "020000000001 020000000002 86dd"
        "60000000 0018 3a ff fe800000000000000000000000000002 20010db8000100000000000000000f5b"
        "87 00 0000 00000000 20010db8000100000000000000000f5b",
        NeighborSolicitation(OURS, ASKER, b"", ip6("fe80::2"), ip6("2001:db8:1::f5b"), ip6("2001:db8:1::f5b"), None),
    ),
)
GOLDEN_ADVERTISEMENTS = (
    (
        "solicited, of a router",
        "020000000002 020000000001 86dd"
        "60000000 0020 3a ff 20010db8000100000000000000000042 fe800000000000000000000000000002"
        "88 00 5927 c0000000 20010db8000100000000000000000042"
        "02 01 020000000001",
        NeighborAdvertisement(ASKER, OURS, b"", TARGET, ip6("fe80::2"), TARGET, True, True, OURS),
    ),
    (
        "to a DAD probe, of a host",
        "333300000001 020000000001 86dd"
        "60000000 0020 3a ff 20010db8000100000000000000000042 ff020000000000000000000000000001"
        "88 00 18a7 00000000 20010db8000100000000000000000042"
        "02 01 020000000001",
        NeighborAdvertisement(ALL_NODES_MAC, OURS, b"", TARGET, ALL_NODES, TARGET, False, False, OURS),
    ),
    (
        "all flags, two tags, source of its own",
        "020000000003 020000000001 88a80064 81000007 86dd"
        "60000000 0020 3a ff fe800000000000000000000000000001 20010db8ffff00000000000000000002"
        "88 00 3969 e0000000 20010db8000100000000000000000042"
        "02 01 020000000001",
        NeighborAdvertisement(
            *(OTHER_MAC, OURS, QINQ, ip6("fe80::1"), ip6("2001:db8:ffff::2"), TARGET),
            router=True,
            solicited=True,
            override=True,
            link_layer_address=OURS,
        ),
    ),
)
PLAIN = GOLDEN_SOLICITATIONS[0][2]
ANSWER = GOLDEN_ADVERTISEMENTS[0][2]


def named(table: Any) -> pytest.MarkDecorator:
    """Parametrize by a table whose rows start with their name."""
    return pytest.mark.parametrize("row", table, ids=lambda row: row[0])


def parsed(frame: bytes) -> NeighborSolicitation:
    """What a valid frame says."""
    ns = NeighborSolicitation.parse(frame)
    assert isinstance(ns, NeighborSolicitation), ns
    return ns


# --- solicitations ---


@named(GOLDEN_SOLICITATIONS)
def test_a_golden_solicitation_parses_to_its_value(row: Any) -> None:
    assert NeighborSolicitation.parse(bytes.fromhex(row[1])) == row[2]


@named(GOLDEN_SOLICITATIONS)
def test_a_golden_solicitation_serializes_to_its_frame(row: Any) -> None:
    assert row[2].serialize() == bytes.fromhex(row[1])


@pytest.mark.parametrize("tags", TAGS_MENU, ids=bytes.hex)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.rfc}: {kind.name}")
def test_each_kind_is_valid_invalid_or_unseen_as_the_rfc_says(kind: Kind, tags: bytes) -> None:
    got = NeighborSolicitation.parse(kind.build(Setting(tags=tags)))
    if kind.wanted is Wanted.UNSEEN:
        assert got is None
    elif isinstance(kind.wanted, Reason):
        assert got is kind.wanted
    else:
        assert isinstance(got, NeighborSolicitation)
        assert got.tags == tags


def test_the_peers_were_measured_with_26_kinds_of_which_9_are_answered() -> None:
    assert len(PEER_KINDS) == 26
    assert sum(kind.wanted is Wanted.ANSWERED for kind in PEER_KINDS) == 9
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_a1_to_a10_the_first_check_that_fails_names_the_reason() -> None:
    lladdr = sllao(SETTING.asker_mac)
    faults: tuple[tuple[Reason, dict[str, Any]], ...] = (
        (Reason.FRAGMENT, {"headers": [FRAGMENT]}),
        (Reason.LENGTH, {"payload_length": 200}),
        (Reason.HOP_LIMIT, {"hop_limit": 1}),
        (Reason.CODE, {"code": 1}),
        (Reason.CHECKSUM, {"checksum_error": 1}),
        (Reason.TARGET, {"target": ip6("ff02::42")}),
        (Reason.SOURCE, {"source": ALL_NODES}),
        (Reason.OPTION_LENGTH, {"options": lladdr + b"\1"}),
        (Reason.DAD_DESTINATION, {"destination": ALL_NODES}),
        (Reason.DAD_SLLAO, {"source": UNSPECIFIED, "options": lladdr}),
    )
    got = []
    for first in range(len(faults)):
        fields: dict[str, Any] = {}
        for _, fault in reversed(faults[first:]):
            fields |= fault
        got.append(NeighborSolicitation.parse(solicit(SETTING, **fields)))
    assert got == [reason for reason, _ in faults] == list(Reason)


def test_a4_a_message_of_4096_bytes_is_read_and_a_longer_one_is_unmatched() -> None:
    longest = solicit(SETTING, options=option(253, bytes(255 * 8 - 2)) + option(253, bytes(254 * 8 - 2)))
    assert len(longest) == 14 + 40 + MAX_MESSAGE
    assert isinstance(NeighborSolicitation.parse(longest), NeighborSolicitation)
    assert NeighborSolicitation.parse(oversized(SETTING)) is Outcome.UNMATCHED


def test_a4_an_oversized_message_is_unmatched_before_other_checks_but_after_its_length() -> None:
    frame = oversized(SETTING)
    assert NeighborSolicitation.parse(frame[:21] + b"\1" + frame[22:]) is Outcome.UNMATCHED  # hop limit 1
    assert NeighborSolicitation.parse(frame[:-1]) is Reason.LENGTH


def test_a2_the_two_zeros_of_one_s_complement_are_the_same_checksum() -> None:
    frame = bytes.fromhex(GOLDEN_SOLICITATIONS[3][1])
    assert frame[56:58] == b"\0\0"
    assert parsed(frame[:56] + b"\xff\xff" + frame[58:]) == GOLDEN_SOLICITATIONS[3][2]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (b"", None),
        (sllao(OTHER_MAC), OTHER_MAC),
        (nonce() + sllao(OTHER_MAC) + nonce(), OTHER_MAC),
        (sllao(OTHER_MAC) + sllao(ASKER), OTHER_MAC),
        (option(SLLAO, ASKER + bytes(8)) + sllao(OTHER_MAC), OTHER_MAC),
        (option(SLLAO, ASKER + bytes(8)), None),
        (sllao(MULTICAST_MAC), None),
        (sllao(BROADCAST_MAC), None),
        (sllao(ZERO_MAC), None),
        (sllao(ZERO_MAC) + sllao(OTHER_MAC), None),
        (option(2, OTHER_MAC), None),
    ],
)
def test_b8_the_first_sllao_of_length_1_counts_unless_it_is_a_group_or_zero(
    options: bytes, wanted: bytes | None
) -> None:
    assert parsed(solicit(SETTING, options=options)).link_layer_address == wanted


def test_a_solicitation_behind_options_headers_is_extended_and_else_the_same() -> None:
    assert parsed(solicit(SETTING, headers=[HBH])) == replace(parsed(solicit(SETTING)), extended=True)


def test_three_tags_hide_a_solicitation() -> None:
    assert NeighborSolicitation.parse(three_tags(SETTING)) is None


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_frame_cut_at_any_length_is_unseen_or_invalid_or_has_lost_its_trailer(kind: Kind) -> None:
    frame = kind.build(Setting(tags=QINQ))
    whole = NeighborSolicitation.parse(frame)
    got = [NeighborSolicitation.parse(frame[:length]) for length in range(len(frame))]
    allowed = {None, whole, Reason.LENGTH} - ({None} if whole is None else set())
    assert {ns for ns in got if ns is not None} <= allowed


@given(st.binary(max_size=200))
@example(b"")
def test_any_bytes_parse_without_an_exception(frame: bytes) -> None:
    NeighborSolicitation.parse(frame)


@given(vlan_tags(), st.sampled_from((0, 44, 58, 60)), st.binary(max_size=120))
def test_any_bytes_behind_an_ethernet_header_parse_without_an_exception(
    tags: bytes, next_header: int, tail: bytes
) -> None:
    frame = OURS + ASKER + tags + bytes.fromhex("86dd6000000000") + bytes([len(tail), next_header, 255])
    NeighborSolicitation.parse(frame + tail)
    NeighborSolicitation.parse(frame + bytes(32) + tail)


@given(solicitations())
def test_every_valid_shape_parses_as_valid(frame: bytes) -> None:
    ns = parsed(frame)
    assert frame.startswith(ns.eth_destination + ns.eth_source + ns.tags + b"\x86\xdd")
    assert ns.source + ns.destination in frame
    assert ns.target in frame


@given(
    st.builds(
        NeighborSolicitation,
        *(macs(), macs(), vlan_tags(), unicast_addresses(), unicast_addresses(), unicast_addresses()),
        st.none() | macs(),
    )
)
def test_a_solicitation_parses_to_what_was_serialized(ns: NeighborSolicitation) -> None:
    assert NeighborSolicitation.parse(ns.serialize()) == ns


def test_serialize_takes_other_options_than_its_own() -> None:
    assert PLAIN.serialize(nonce() + sllao(ASKER)) == solicit(SETTING, options=nonce() + sllao(ASKER))


def test_serialize_refuses_a_solicitation_whose_extension_headers_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="extension headers"):
        replace(PLAIN, extended=True).serialize()


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("eth_source", bytes(5), "MAC address has 6 bytes, not 5"),
        ("link_layer_address", bytes(7), "MAC address has 6 bytes, not 7"),
        ("target", bytes(15), "IPv6 address has 16 bytes, not 15"),
        ("tags", bytes.fromhex("8100"), "8100 is not up to two VLAN tags"),
        ("tags", bytes.fromhex("86dd0001"), "86dd0001 is not up to two VLAN tags"),
        ("tags", bytes.fromhex("8100000186dd0001"), "is not up to two VLAN tags"),
        ("tags", 3 * bytes.fromhex("81000001"), "is not up to two VLAN tags"),
    ],
)
def test_values_are_made_valid_or_not_at_all(field: str, value: bytes, complaint: str) -> None:
    for message in (PLAIN, ANSWER):
        with pytest.raises(ValueError, match=complaint):
            replace(message, **{field: value})  # type: ignore[arg-type]


# --- checksum ---


@given(unicast_addresses(), unicast_addresses(), st.binary(max_size=2000))
@example(bytes(15) + b"\1", bytes(15) + b"\2", b"")
@example(b"\xff" * 16, b"\xff" * 16, b"\xff" * 64)
def test_a2_b7_the_checksum_is_scapy_s(source: bytes, destination: bytes, message: bytes) -> None:
    network = IPv6(src=source_text(source), dst=source_text(destination)) / Raw(message)
    assert checksum(source, destination, message) == in6_chksum(58, network, message)


def source_text(address: bytes) -> str:
    """An address as scapy takes it."""
    return address.hex(":", 2)


def test_a2_a_sum_of_ffff_goes_out_as_0000_as_the_kernel_folds_it() -> None:
    source = (0xFFFF - 58 - 2).to_bytes(16)
    assert checksum(source, bytes(16), b"\0\0") == 0
    assert checksum((0xFFFF - 58 - 2 + 1).to_bytes(16), bytes(16), b"\0\0") == 0xFFFE


# --- random frames ---


def test_random_frames_reach_every_reason_and_are_valid_for_the_most_part() -> None:
    seen = Counter[str]()
    shapes = Counter[str]()
    for frame in random_frames(1, 20_000):
        ns = NeighborSolicitation.parse(frame)
        seen["valid" if isinstance(ns, NeighborSolicitation) else str(ns)] += 1
        if isinstance(ns, NeighborSolicitation):
            shapes["dad"] += ns.source == UNSPECIFIED
            shapes["extended"] += ns.extended
            shapes["tagged"] += bool(ns.tags)
            shapes["no sllao"] += ns.link_layer_address is None
    assert set(seen) == {"valid", "None", *Reason}
    assert min(seen.values()) >= 50
    assert seen["valid"] > 10_000
    assert min(shapes.values()) > 500, shapes


def test_random_frames_are_the_same_for_the_same_seed() -> None:
    assert list(random_frames(7, 100)) == list(random_frames(7, 100))
    assert list(random_frames(7, 100)) != list(random_frames(8, 100))


# --- advertisements ---


@named(GOLDEN_ADVERTISEMENTS)
def test_a_golden_advertisement_serializes_to_its_frame(row: Any) -> None:
    assert row[2].serialize() == bytes.fromhex(row[1])


@named(GOLDEN_ADVERTISEMENTS)
def test_a_golden_advertisement_parses_to_its_value(row: Any) -> None:
    assert NeighborAdvertisement.parse(bytes.fromhex(row[1])) == row[2]


def test_b3_override_is_0_unless_asked_for() -> None:
    assert not ANSWER.override


def test_b9_b10_an_advertisement_has_86_bytes_and_the_tags() -> None:
    for tags in TAGS_MENU:
        frame = replace(ANSWER, tags=tags).serialize()
        assert len(frame) == 86 + len(tags)
        assert frame[12:].startswith(tags + b"\x86\xdd")


def advertisements() -> st.SearchStrategy[NeighborAdvertisement]:
    """Any advertisements."""
    address = st.binary(min_size=16, max_size=16)
    mac = st.binary(min_size=6, max_size=6)
    return st.builds(
        NeighborAdvertisement,
        *(mac, mac, vlan_tags(), address, address, address, st.booleans(), st.booleans(), mac, st.booleans()),
    )


@given(advertisements())
def test_an_advertisement_parses_to_what_was_serialized(na: NeighborAdvertisement) -> None:
    assert NeighborAdvertisement.parse(na.serialize()) == na


@given(advertisements())
@example(ANSWER)
def test_the_template_gives_the_very_bytes_of_serialize(na: NeighborAdvertisement) -> None:
    na = replace(na, override=False, link_layer_address=na.eth_source)
    template = AdvertisementTemplate(na.eth_source, na.tags, na.router)
    frame = template.fill(na.eth_destination, na.source, na.destination, na.target, na.solicited)
    assert frame == na.serialize()


@pytest.mark.parametrize("router", [False, True])
@pytest.mark.parametrize("solicited", [False, True])
def test_b7_the_template_folds_to_0000_where_serialize_does(router: bool, solicited: bool) -> None:
    template = AdvertisementTemplate(OURS, b"", router)
    na = replace(ANSWER, router=router, solicited=solicited, source=UNSPECIFIED)
    # The word that would be the checksum, added as the source, makes the sum 0xffff.
    na = replace(na, source=bytes(14) + na.serialize()[56:58])
    frame = template.fill(na.eth_destination, na.source, na.destination, na.target, solicited)
    assert frame == na.serialize()
    assert frame[56:58] == b"\0\0"
    with pytest.raises(ValueError, match="the checksum is 0xffff, not 0x0000"):
        NeighborAdvertisement.parse(frame[:56] + b"\xff\xff" + frame[58:])


@pytest.mark.parametrize(
    ("offset", "value", "complaint"),
    [
        (12, "0800", "no IPv6 header"),
        (14, "50", "no IPv6 header"),
        (14, "60100000", "traffic class and flow label are 0x100000, not 0"),
        (18, "0021", "the payload length is 33, not 32"),
        (20, "11", "the next header is 17, not 58"),
        (21, "fe", "the hop limit is 254, not 255"),
        (54, "87", "the ICMPv6 type is 135, not 136"),
        (55, "01", "the ICMPv6 code is 1, not 0"),
        (56, "0000", "the checksum is 0x0000, not 0x5927"),
        (58, "d0", "the reserved bits are 0x10000000, not 0"),
        (78, "01", "the option's type and length are 1 and 1, not 2 and 1"),
        (79, "02", "the option's type and length are 2 and 2, not 2 and 1"),
        (86, "00", "33 bytes follow the IPv6 header, not 32"),
    ],
)
def test_an_advertisement_of_another_shape_is_a_value_error_that_says_what_is_wrong(
    offset: int, value: str, complaint: str
) -> None:
    frame = bytearray(ANSWER.serialize())
    frame[offset : offset + len(value) // 2] = bytes.fromhex(value)
    with pytest.raises(ValueError, match=complaint):
        NeighborAdvertisement.parse(bytes(frame))


def test_an_advertisement_cut_at_any_length_is_a_value_error() -> None:
    frame = replace(ANSWER, tags=QINQ).serialize()
    for length in range(len(frame)):
        with pytest.raises(ValueError, match=r"no IPv6 header|follow the IPv6 header"):
            NeighborAdvertisement.parse(frame[:length])


@given(st.binary(max_size=100), st.integers(0, 86))
def test_only_what_serialize_writes_parses_as_an_advertisement(junk: bytes, at: int) -> None:
    frame = ANSWER.serialize()
    frame = frame[:at] + junk + frame[at + len(junk) :]
    try:
        na = NeighborAdvertisement.parse(frame)
    except ValueError:
        return
    assert na.serialize() == frame


# --- the judge of advertisements ---


def answer(ns: NeighborSolicitation, router: bool = True) -> NeighborAdvertisement:
    """What the judge should find right (docs/rules.md, B)."""
    dad = ns.source == UNSPECIFIED
    return NeighborAdvertisement(
        eth_destination=ALL_NODES_MAC if dad else ns.link_layer_address or ns.eth_source,
        eth_source=OURS,
        tags=ns.tags,
        source=ns.target,
        destination=ALL_NODES if dad else ns.source,
        target=ns.target,
        router=router,
        solicited=not dad,
        link_layer_address=OURS,
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.wanted in (Wanted.ANSWERED, Wanted.DAD)], ids=str)
def test_the_judge_finds_a_right_answer_right(kind: Kind) -> None:
    for tags in TAGS_MENU:
        frame = kind.build(Setting(tags=tags))
        judge_advertisement(answer(parsed(frame)).serialize(), frame, OURS, True)


@given(solicitations(mac=OURS))
def test_the_judge_finds_answers_to_every_valid_shape_right(frame: bytes) -> None:
    judge_advertisement(answer(parsed(frame), router=False).serialize(), frame, OURS, False)


def test_the_judge_finds_any_changed_byte() -> None:
    frame = solicit(Setting(tags=QINQ))
    right = answer(parsed(frame)).serialize()
    for at in range(len(right)):
        wrong = right[:at] + bytes([right[at] ^ 4]) + right[at + 1 :]
        with pytest.raises(AssertionError, match=r" is .* not |not a "):
            judge_advertisement(wrong, frame, OURS, True)
    for wrong in (right[:-1], right + b"\0"):
        with pytest.raises(AssertionError, match=r"not a whole|frame length"):
            judge_advertisement(wrong, frame, OURS, True)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"override": True}, "B3 Override flag is 1, not 0"),
        ({"router": False}, "B4 Router flag is 0, not 1"),
        ({"solicited": False}, "B2 Solicited flag is 0, not 1"),
        ({"target": ip6("2001:db8:1::43")}, "B1 target is '2001:db8:1::43', not '2001:db8:1::42'"),
        ({"source": ip6("fe80::1")}, "B6 source is 'fe80::1', not '2001:db8:1::42'"),
        ({"eth_destination": OTHER_MAC}, "B8 Ethernet destination is '02:00:00:00:00:03', not"),
        ({"tags": b""}, "B10 VLAN tags is '', not '88a8006481000007'"),
        ({"link_layer_address": OTHER_MAC}, "B5 target link-layer address is '02:00:00:00:00:03', not"),
    ],
)
def test_the_judge_names_the_rule(change: dict[str, Any], complaint: str) -> None:
    frame = solicit(Setting(tags=QINQ))
    with pytest.raises(AssertionError, match=complaint):
        judge_advertisement(replace(answer(parsed(frame)), **change).serialize(), frame, OURS, True)


def test_b6_the_judge_takes_another_source_where_it_is_told() -> None:
    frame = solicit(SETTING)
    na = replace(answer(parsed(frame)), source=ip6("fe80::1"))
    judge_advertisement(na.serialize(), frame, OURS, True, source=ip6("fe80::1"))
