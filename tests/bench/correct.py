# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether answers are right: looked at by scapy, which shares no code with npd6-xdp; ids as in docs/rules.md, B."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6, in6_chksum
from scapy.layers.l2 import Ether

from tests.frames import ip6
from tests.netns.wire import EDGE

_MAC, _SOURCE, _TARGET = slice(6, 12), slice(22, 38), slice(62, 78)  # of a plain, untagged solicitation


def wrong(frames: Iterable[bytes], asked: Iterable[bytes], *, ours: bool) -> list[str]:
    """What is wrong with these advertisements, a line for each that isn't right.

    `asked` are the solicitations. `ours` also wants what npd6-xdp's configuration promises beyond the standard.
    """
    askers: defaultdict[bytes, set[tuple[bytes, bytes]]] = defaultdict(set)
    for question in asked:
        askers[question[_TARGET]].add((question[_MAC], question[_SOURCE]))
    return [fault for frame in frames if (fault := _fault(frame, askers, ours=ours))]


def _fault(frame: bytes, askers: Mapping[bytes, set[tuple[bytes, bytes]]], *, ours: bool) -> str:
    ether = Ether(frame)
    if ICMPv6ND_NA not in ether or ICMPv6NDOptDstLLAddr not in ether:
        return f"no advertisement with a target link-layer address: {frame.hex()}"
    ip, na = ether[IPv6], ether[ICMPv6ND_NA]
    message = bytes(ip.payload)
    to = frame[:6], ip6(ip.dst)
    at_fault = [
        what
        for what, right in {
            "target": ip6(na.tgt) in askers,  # B1
            "destination": to in askers.get(ip6(na.tgt), ()),  # B2, B8
            "solicited": na.S == 1,  # B2
            "link-layer address": na[ICMPv6NDOptDstLLAddr].lladdr == EDGE.hex(":"),  # B5
            "hop limit, code": (ip.hlim, na.code) == (255, 0),  # B7
            "checksum": in6_chksum(58, ip, message) == 0,
            "Ethernet source": frame[_MAC] == EDGE,
            "flags": not ours or (na.O, na.R) == (0, 1),  # B3, B4
            "source": not ours or ip.src == na.tgt,  # B6
        }.items()
        if not right
    ]
    return f"{', '.join(at_fault)}: {frame.hex()}" if at_fault else ""
