# SPDX-License-Identifier: GPL-2.0-or-later
"""Multicast Router Discovery on the wire: what is sent as scapy has it, and which solicitations are taken for one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    ICMPv6MRD_Advertisement,
    ICMPv6MRD_Solicitation,
    ICMPv6MRD_Termination,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    PadN,
    RouterAlert,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from npd6_xdp.core.mrd import SOLICITATIONS, advertisement, solicited, tags_of, termination
from tests.core.test_route_filter import passing
from tests.frames import TAGS_8021Q, TAGS_MENU, TAGS_PRIORITY_Q, TAGS_QINQ, ether, ip6

MAC, SOURCE = "02:00:00:00:00:01", "fe80::1"
SNOOPERS = {"dst": "ff02::6a", "hlim": 1}
ALERT = IPv6ExtHdrHopByHop(options=[RouterAlert(value=0)])


def solicitation(source: str = "fe80::2", tags: bytes = b"", alert: Packet | None = ALERT, **ip: Any) -> bytes:
    """A frame as scapy makes it; `ip` has fields of the IPv6 header that are to be others."""
    ip6h = IPv6(**{"src": source, "dst": "ff02::2", "hlim": 1} | ip)
    icmp6h = ip6h / ICMPv6MRD_Solicitation() if alert is None else ip6h / alert / ICMPv6MRD_Solicitation()
    frame = bytes(Ether(src="02:00:00:00:00:02", dst="33:33:00:00:00:02", type=0x86DD) / icmp6h)
    return frame[:12] + tags + frame[12:]


# --- what is sent: I1, I2 ---


def test_i1_i2_an_advertisement_is_scapys_with_an_interval_of_20_s_and_no_querier_behind_it() -> None:
    wanted = (
        Ether(src=MAC, dst="33:33:00:00:00:6a")
        / IPv6(src=SOURCE, **SNOOPERS)
        / ALERT
        / ICMPv6MRD_Advertisement(advinter=20, queryint=0, robustness=0)
    )
    assert advertisement(ether(MAC), ip6(SOURCE)) == bytes(wanted)


def test_i1_a_termination_is_scapys() -> None:
    wanted = Ether(src=MAC, dst="33:33:00:00:00:6a") / IPv6(src=SOURCE, **SNOOPERS) / ALERT / ICMPv6MRD_Termination()
    assert termination(ether(MAC), ip6(SOURCE)) == bytes(wanted)


@given(mac=st.binary(min_size=6, max_size=6), source=st.binary(min_size=16, max_size=16))
def test_i1_scapy_reads_what_was_written_whoever_sends(mac: bytes, source: bytes) -> None:
    for write, layer in ((advertisement, ICMPv6MRD_Advertisement), (termination, ICMPv6MRD_Termination)):
        frame = write(mac, source, TAGS_QINQ)
        assert frame[12:20] == TAGS_QINQ
        packet = Ether(frame[:12] + frame[20:])
        said = packet[layer].cksum
        del packet[layer].cksum
        assert Ether(bytes(packet))[layer].cksum == said


@pytest.mark.parametrize(
    ("vids", "tpids", "wanted"),
    [
        ((), (), b""),
        ((100,), (), bytes(Dot1Q(vlan=100))[:2]),
        ((100,), (0x88A8,), bytes(Dot1AD(vlan=100))[:2]),
        ((100, 7), (), b""),
        ((100, 7), (0x8100, 0x8100), b""),
    ],
)
def test_tags_are_those_of_the_devices_and_else_a_providers_outside_and_a_customers_inside(
    vids: tuple[int, ...], tpids: tuple[int, ...], wanted: bytes
) -> None:
    tags = tags_of(vids, tpids)
    assert [int.from_bytes(tags[at + 2 : at + 4]) for at in range(0, len(tags), 4)] == [*vids]
    usual = {0: (), 1: (0x8100,), 2: (0x88A8, 0x8100)}[len(vids)]
    assert tuple(int.from_bytes(tags[at : at + 2]) for at in range(0, len(tags), 4)) == (tpids or usual)
    assert wanted in tags


# --- what is heard: I4 ---

VALID = {
    "plain": (solicitation(), ()),
    "without a Router Alert": (solicitation(alert=None), ()),
    "with other options": (solicitation(alert=IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(12))])), ()),
    "VLAN 100": (solicitation(tags=TAGS_8021Q), (100,)),
    "VLANs 100 and 7": (solicitation(tags=TAGS_QINQ), (100, 7)),
    "a priority, then VLAN 200": (solicitation(tags=TAGS_PRIORITY_Q), (200,)),
    "with a trailer": (solicitation() + bytes(9), ()),
    "from the upper end of fe80::/10": (solicitation("febf:ffff::1"), ()),
}
INVALID = {
    "the hop limit 2": solicitation(hlim=2),
    "the hop limit 255": solicitation(hlim=255),
    "a global source": solicitation("2001:db8::1"),
    "a source just above fe80::/10": solicitation("fec0::1"),
    "no source": solicitation("::"),
    "to all nodes": solicitation(dst="ff02::1"),
    "to all snoopers": solicitation(dst="ff02::6a"),
    "behind other headers": solicitation(alert=ALERT / IPv6ExtHdrDestOpt()),
    "a wrong checksum": solicitation()[:-1] + b"\x55",
    "an advertisement": advertisement(ether(MAC), ip6(SOURCE)),
    "a termination": termination(ether(MAC), ip6(SOURCE)),
}


@pytest.mark.parametrize("what", VALID)
def test_i4_a_valid_solicitation_is_taken_for_one_of_its_vlans(what: str) -> None:
    frame, vids = VALID[what]
    assert solicited(frame) == vids


@pytest.mark.parametrize("what", INVALID)
def test_i4_an_invalid_solicitation_is_none(what: str) -> None:
    assert solicited(INVALID[what]) is None


@pytest.mark.parametrize("what", VALID)
def test_i4_a_solicitation_that_is_cut_off_is_none(what: str) -> None:
    frame, _ = VALID[what]
    end = 14 + 40 + int.from_bytes(frame[18:20]) if what == "with a trailer" else len(frame)
    assert [solicited(frame[:length]) for length in range(end)] == [None] * end


@given(frame=st.binary(max_size=120))
@example(b"")
def test_whatever_comes_is_read_without_an_error_and_random_bytes_are_no_solicitation(frame: bytes) -> None:
    assert solicited(frame) is None


MADE = st.builds(
    solicitation,
    source=st.sampled_from(["fe80::2", "fe80::ffff:1", "2001:db8::1", "::", "ff02::1"]),
    tags=st.sampled_from(TAGS_MENU),
    alert=st.sampled_from([None, ALERT, IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(20))])]),
    hlim=st.sampled_from([0, 1, 2, 255]),
    dst=st.sampled_from(["ff02::2", "ff02::1", "ff05::2", "fe80::1"]),
    tc=st.integers(0, 255),
    fl=st.integers(0, (1 << 20) - 1),
)


def expected(frame: bytes, tags: bytes) -> bool:
    """Whether scapy reads a valid solicitation: §4."""
    packet = Ether(frame[:12] + frame[12 + len(tags) :])
    if IPv6 not in packet or ICMPv6MRD_Solicitation not in packet:
        return False
    ip, told = packet[IPv6], packet[ICMPv6MRD_Solicitation].cksum
    del packet[ICMPv6MRD_Solicitation].cksum
    right = Ether(bytes(packet))[ICMPv6MRD_Solicitation].cksum
    return bool(ip.hlim == 1 and ip.dst == "ff02::2" and ip.src.startswith("fe80:") and told == right)


@given(data=st.data(), tags=st.sampled_from(TAGS_MENU))
def test_i4_what_scapy_reads_as_a_valid_solicitation_is_one_and_nothing_else(data: st.DataObject, tags: bytes) -> None:
    alert = data.draw(st.sampled_from([None, ALERT]))
    ip = data.draw(st.fixed_dictionaries({}, optional={"hlim": st.integers(0, 3), "dst": st.sampled_from(["ff02::1"])}))
    source = data.draw(st.sampled_from(["fe80::2", "fe80::2", "2001:db8::1", "::"]))
    frame = bytearray(solicitation(source, tags, alert, **ip))
    if data.draw(st.booleans()):  # the reserved octet is ignored, but in the sum; the rest is wrong then
        at = data.draw(st.integers(len(frame) - 4, len(frame) - 1))
        frame[at] = data.draw(st.integers(0, 255))
    assert (solicited(bytes(frame)) is not None) == expected(bytes(frame), tags)


# --- what the kernel lets through to us ---


@given(frame=MADE)
def test_the_kernels_filter_passes_all_that_are_valid_with_the_outermost_tag_beside_them(frame: bytes) -> None:
    beside = frame[:12] + frame[16:] if frame[12:14] in (b"\x81\x00", b"\x88\xa8") else frame
    assert passing(SOLICITATIONS, [beside]) == [beside]
    assert passing(SOLICITATIONS, [beside[:-4]]) == [], "it ends before the type"


@pytest.mark.parametrize(
    "frame",
    [
        advertisement(ether(MAC), ip6(SOURCE)),
        termination(ether(MAC), ip6(SOURCE), TAGS_8021Q),
        bytes(Ether(type=0x0800) / (b"\0" * 80)),
        solicitation().replace(b"\x3a\0\5\2", b"\x11\0\5\2"),
        solicitation(tags=TAGS_QINQ),
        b"\x33" * 12,
    ],
    ids=["an advertisement", "a termination", "IPv4", "UDP behind options", "two tags within", "too short"],
)
def test_the_kernels_filter_keeps_the_rest_away(frame: bytes) -> None:
    assert passing(SOLICITATIONS, [frame]) == []
