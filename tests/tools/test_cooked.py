# SPDX-License-Identifier: GPL-2.0-or-later
"""Cooked headers as scapy writes them, and the Ethernet frame that they were taken from."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether

from npd6_xdp.tools.cooked import OTHER_HOST, PacketType, parse, rebuilt
from npd6_xdp.tools.pcap import ETHERNET, SLL, SLL2, Frame
from tests.frames import SETTING, ip6
from tests.kinds import solicit

FRAME = solicit(replace(SETTING, target=ip6("2001:db8:1::42")))
OURS, THEIRS = SETTING.mac, SETTING.asker_mac
both = pytest.mark.parametrize("link", [SLL, SLL2])


def cook(frame: bytes, link: int, kind: int, *, device: int = 1, ifindex: int = 7) -> Frame:
    """What the kernel puts in place of a frame's Ethernet header, by scapy."""
    ether = Ether(frame)
    address = bytes.fromhex(ether.src.replace(":", "")) + bytes(2)
    about: dict[str, Any] = {"pkttype": kind, "lladdrtype": device, "lladdrlen": 6, "src": address, "proto": ether.type}
    header = CookedLinux(**about) if link == SLL else CookedLinuxV2(**about, ifindex=ifindex)
    data = bytes(header) + frame[14:]
    return Frame(3, 1.5, data, len(data), link)


def rebuild(frame: Frame) -> bytes | None:
    found = parse(frame)
    assert found is not None
    whole = rebuilt(frame, found, OURS)
    assert whole is None or (whole.number, whole.at, whole.link, whole.size) == (3, 1.5, ETHERNET, len(whole.data))
    return whole and whole.data


@both
@pytest.mark.parametrize(
    ("kind", "destination"),
    [
        (PacketType.MULTICAST, FRAME[:6]),
        (PacketType.HOST, OURS),
        (PacketType.BROADCAST, b"\xff" * 6),
        (PacketType.OTHERHOST, OTHER_HOST),
        (7, OTHER_HOST),
    ],
)
def test_the_destination_is_what_the_kernel_has_said_of_it(link: int, kind: int, destination: bytes) -> None:
    cooked = cook(FRAME, link, kind)
    found = parse(cooked)
    assert found is not None
    assert (found.kind, found.source, found.ifindex) == (kind, THEIRS, 7 if link == SLL2 else 0)
    assert rebuild(cooked) == destination + FRAME[6:]


@both
@pytest.mark.parametrize(
    "tags", [Dot1Q(vlan=100), Dot1AD(vlan=100) / Dot1Q(vlan=7), Dot1Q(vlan=0, prio=3) / Dot1Q(vlan=4094)]
)
def test_tags_in_the_chain_are_kept(link: int, tags: Any) -> None:
    plain = Ether(FRAME)
    frame = bytes(Ether(src=plain.src, dst=plain.dst) / tags / plain.payload)
    assert rebuild(cook(frame, link, PacketType.MULTICAST)) == frame


@pytest.mark.parametrize("priority", range(8))
def test_an_inner_tag_whose_ethertype_linux_has_passed_over_is_put_right(priority: int) -> None:
    """With priority 3 it begins with the same four bits as an IPv6 header."""
    plain = Ether(FRAME)
    head = Ether(src=plain.src, dst=plain.dst)
    frame = bytes(head / Dot1AD(vlan=100) / Dot1Q(vlan=7, prio=priority) / plain.payload)
    cooked = cook(frame, SLL, PacketType.MULTICAST)
    said = cooked.data.replace(b"\x81\x00", b"\x86\xdd")
    assert rebuild(cooked._replace(data=said)) == frame
    outer = bytes(head / Dot1Q(vlan=7, prio=priority) / plain.payload)
    cooked = cook(outer, SLL2, PacketType.MULTICAST)
    assert rebuild(cooked._replace(data=b"\x86\xdd" + cooked.data[2:])) == outer


@both
@pytest.mark.parametrize("device", [772, 65534, 512])
def test_what_had_no_ethernet_header_is_no_frame(link: int, device: int) -> None:
    assert rebuild(cook(FRAME, link, PacketType.HOST, device=device)) is None


@both
def test_a_header_that_is_cut_off_is_none(link: int) -> None:
    cooked = cook(FRAME, link, PacketType.MULTICAST)
    for size in range(20 if link == SLL2 else 16):
        assert parse(cooked._replace(data=cooked.data[:size])) is None


@both
def test_what_was_cut_short_stays_so(link: int) -> None:
    cooked = cook(FRAME, link, PacketType.MULTICAST)
    short = cooked._replace(data=cooked.data[:60])
    found = parse(short)
    assert found is not None
    whole = rebuilt(short, found, OURS)
    assert whole is not None
    assert whole.size == len(FRAME)
    assert whole.data == FRAME[: len(whole.data)]


@given(st.sampled_from([SLL, SLL2]), st.binary(max_size=90), st.integers(0, 9))
def test_no_bytes_make_it_fail(link: int, data: bytes, kind: int) -> None:
    frame = Frame(1, 0.0, data, len(data), link)
    found = parse(frame)
    if found is not None:
        rebuilt(frame, found._replace(kind=kind, device=1), OURS)


@given(
    st.sampled_from([SLL, SLL2]),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 0xFFFFF),
    st.binary(max_size=60),
)
def test_any_ipv6_frame_to_a_group_comes_out_as_it_was(link: int, group: bytes, flow: int, payload: bytes) -> None:
    packet = bytes(IPv6(src="fe80::2", dst=str(IPv6Address(group)), fl=flow, nh=59) / payload)
    frame = b"\x33\x33" + group[12:] + THEIRS + b"\x86\xdd" + packet
    assert rebuild(cook(frame, link, PacketType.MULTICAST)) == frame
