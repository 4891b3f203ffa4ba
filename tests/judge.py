# SPDX-License-Identifier: GPL-2.0-or-later
"""The judge of an advertisement: all that is wrong with one, by scapy and by hand, with nothing of npd6_xdp."""

from __future__ import annotations

from ipaddress import IPv6Address

from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6, in6_chksum
from scapy.layers.l2 import Ether
from scapy.packet import Raw


def judge_advertisement(frame: bytes, ns_frame: bytes, mac: bytes, router: bool, source: bytes | None = None) -> None:
    """Raise AssertionError that lists all that is wrong, unless `frame` answers `ns_frame` by docs/rules.md, B.

    `mac` is the port's, `source` the IPv6 source that the answer should have: the target where None (B6).
    By scapy and by hand only: nothing of npd6_xdp is used.
    """
    eth, tags, ip, message = _dissect(ns_frame)
    ns = ICMPv6ND_NS(message[:24])
    dad = ip.src == "::"
    asker = _asker(message[24:]) or eth.src
    source_text = ns.tgt if source is None else str(IPv6Address(source))

    na_eth, na_tags, na_ip, na_message = _dissect(frame)
    na, na_option = ICMPv6ND_NA(na_message[:24]), ICMPv6NDOptDstLLAddr(na_message[24:])
    zeroed = na_message[:2] + b"\0\0" + na_message[4:]
    ends = {"src": na_ip.src, "dst": na_ip.dst}
    differences = [
        f"{rule} {name} is {got!r}, not {wanted!r}"
        for rule, name, got, wanted in (
            ("B8", "Ethernet destination", na_eth.dst, "33:33:00:00:00:01" if dad else asker),
            ("B7", "Ethernet source", na_eth.src, mac.hex(":")),
            ("B10", "VLAN tags", na_tags.hex(), tags.hex()),
            ("B9", "frame length", len(frame), 86 + len(tags)),
            ("B7", "traffic class", na_ip.tc, 0),
            ("B7", "flow label", na_ip.fl, 0),
            ("B9", "payload length", na_ip.plen, 32),
            ("B7", "next header", na_ip.nh, 58),
            ("B7", "hop limit", na_ip.hlim, 255),
            ("B6", "source", na_ip.src, source_text),
            ("B2", "destination", na_ip.dst, "ff02::1" if dad else ip.src),
            ("B7", "type", na.type, 136),
            ("B7", "code", na.code, 0),
            ("B7", "checksum", na.cksum, in6_chksum(58, IPv6(**ends) / Raw(zeroed), zeroed)),
            ("B4", "Router flag", na.R, int(router)),
            ("B2", "Solicited flag", na.S, int(not dad)),
            ("B3", "Override flag", na.O, 0),
            ("B7", "reserved", na.res, 0),
            ("B1", "target", na.tgt, ns.tgt),
            ("B5", "option type", na_option.type, 2),
            ("B5", "option length", na_option.len, 1),
            ("B5", "target link-layer address", na_option.lladdr, mac.hex(":")),
        )
        if got != wanted
    ]
    if differences:
        raise AssertionError(
            "the advertisement isn't what docs/rules.md, B, asks: "
            + "; ".join(differences)
            + f"\n  asked:    {ns_frame.hex()}\n  answered: {frame.hex()}"
        )


def _dissect(frame: bytes) -> tuple[Ether, bytes, IPv6, bytes]:
    """Ethernet header, raw tags, IPv6 header and ICMPv6 message of a frame whose lengths are right."""
    end = 12
    while frame[end : end + 2] in (b"\x81\x00", b"\x88\xa8"):
        end += 4
    eth = Ether(frame[:12] + frame[end:])
    if IPv6 not in eth or len(frame) < end + 2 + 40 + eth[IPv6].plen:
        raise AssertionError(f"not a whole IPv6 packet: {frame.hex()}")
    ip = eth[IPv6]
    payload = frame[end + 42 : end + 42 + ip.plen]
    number = ip.nh
    while number in (0, 60):
        number, payload = payload[0], payload[8 * (payload[1] + 1) :]
    if number != 58 or len(payload) < 32 - 8:
        raise AssertionError(f"not a solicitation or advertisement: {frame.hex()}")
    return eth, frame[12:end], ip, payload


def _asker(options: bytes) -> str | None:
    """The MAC of the first source link-layer address option of length 1, unless it is a group's or zero."""
    while options:
        if options[:2] == b"\1\1":
            group_or_zero = options[2] & 1 or not any(options[2:8])
            return None if group_or_zero else options[2:8].hex(":")
        options = options[8 * options[1] :]
    return None
