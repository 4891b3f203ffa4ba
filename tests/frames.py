# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses and tags of frames, for all test rooms, and settings of who asks for which target."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address

from npd6_xdp.core.icmpv6 import checksum

SLLAO, TLLAO, NONCE = 1, 2, 14  # option types; the Nonce: RFC 3971 §5.3.2
TAGS_8021Q = bytes.fromhex("81000064")  # VLAN 100
TAGS_PRIORITY = bytes.fromhex("8100e000")  # VID 0, priority 7: no VLAN (IEEE 802.1Q)
TAGS_QINQ = bytes.fromhex("88a8006481000007")  # 100.7
TAGS_PRIORITY_Q = bytes.fromhex("81000000810000c8")  # a priority tag, then VLAN 200
TAGS = {
    "none": b"",
    "802.1Q": TAGS_8021Q,
    "802.1ad": bytes.fromhex("88a80064"),
    "one of each": TAGS_QINQ,
    "two of 802.1Q": bytes.fromhex("8100006481000007"),
    "a priority": TAGS_PRIORITY,
}
TAGS_MENU = (b"", TAGS_8021Q, TAGS_PRIORITY, TAGS_QINQ, TAGS_PRIORITY_Q, bytes.fromhex("88a83064"))


def ip6(text: str) -> bytes:
    """An address as its 16 bytes."""
    return IPv6Address(text).packed


def ether(text: str) -> bytes:
    """A MAC address as its 6 bytes."""
    return bytes.fromhex(text.replace(":", ""))


def solicited_node(address: bytes) -> bytes:
    """The group that a solicitation for this address goes to (F1)."""
    return ip6("ff02::1:ff00:0")[:13] + address[13:]


def group_mac(address: bytes) -> bytes:
    """The MAC of a multicast address (RFC 2464 §7)."""
    return b"\x33\x33" + address[12:]


ALL_NODES = ip6("ff02::1")
UNSPECIFIED = bytes(16)
LOOPBACK = bytes(15) + b"\x01"


@dataclass(frozen=True, slots=True)
class Setting:
    """Who asks for what: `mac` is the port's own, the rest is the asker's; `tags` are the raw VLAN tags."""

    mac: bytes = ether("02:00:00:00:00:01")
    asker_mac: bytes = ether("02:00:00:00:00:02")
    asker_link_local: bytes = ip6("fe80::2")
    asker_global: bytes = ip6("2001:db8:ffff::2")
    target: bytes = ip6("2001:db8:1::42")
    tags: bytes = b""


SETTING = Setting()
FOREIGN_MAC = ether("02:00:00:00:00:99")
OTHER_MAC = ether("02:00:00:00:00:03")
MULTICAST_MAC, BROADCAST_MAC, ZERO_MAC = group_mac(ALL_NODES), b"\xff" * 6, bytes(6)


def assemble(
    ethernet: bytes,
    source: bytes,
    destination: bytes,
    message: bytes,
    *,
    first_word: int = 6 << 28,
    chain: Sequence[tuple[int, bytes]] = (),
    hop_limit: int = 255,
    payload_length: int | None = None,
    trailer: bytes = b"",
) -> bytes:
    """A frame: `ethernet` is the MACs and tags, `chain` the extension headers, each as (number, bytes)."""
    numbers = [number for number, _ in chain] + [58]
    headers = [bytes([after]) + header[1:] for after, (_, header) in zip(numbers[1:], chain, strict=True)]
    payload = b"".join((*headers, message))
    length = len(payload) if payload_length is None else payload_length
    ip = struct.pack("!IHBB", first_word, length & 0xFFFF, numbers[0], hop_limit)
    return b"".join((ethernet, b"\x86\xdd", ip, source, destination, payload, trailer))


def with_checksum(source: bytes, destination: bytes, message: bytes) -> bytes:
    """The message with the right checksum in its field (which tests/core holds against scapy's)."""
    message = message[:2] + b"\0\0" + message[4:]
    return message[:2] + checksum(source, destination, message).to_bytes(2) + message[4:]


def plain_solicitation(setting: Setting) -> bytes:
    """What solicit() of tests/kinds.py makes of a setting alone, in a hundredth of scapy's time: for who asks for
    thousands of targets (tests/test_frames.py holds the two together).
    """
    destination = solicited_node(setting.target)
    option = bytes((SLLAO, 1)) + setting.asker_mac
    message = with_checksum(setting.asker_link_local, destination, b"\x87" + bytes(7) + setting.target + option)
    ethernet = group_mac(destination) + setting.asker_mac + setting.tags
    return assemble(ethernet, setting.asker_link_local, destination, message)
