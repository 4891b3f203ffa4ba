# SPDX-License-Identifier: GPL-2.0-or-later
"""The asker's side: solicitations written by hand, and advertisements compared byte by byte with what RFC 4861 wants.

It shares no code with npd6_xdp, and needs no scapy, whose import alone takes ten seconds on an emulated machine.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from ipaddress import IPv6Address

from npd6_xdp.lab.topology import Namespace, Topology

ANSWER = "one answer"
SILENCE = "silence"

_SOURCE = "fe80::ff:fe00:1"
"""The asker's address. No interface has it; the answer goes to the MAC address in the question."""

_ETH_P_IPV6 = 0x86DD
_SOLICITATION, _ADVERTISEMENT = 135, 136
_TYPE, _TARGET = 54, slice(62, 78)  # where an untagged frame has the ICMPv6 type, and a solicitation's target
_ROUTER_SOLICITED = 0xC0000000


def solicitation(target: str, source: str, mac: bytes, *, checksum_error: int = 0) -> bytes:
    """A multicast Neighbor Solicitation with its source link-layer address (RFC 4861 §4.3), as an Ethernet frame."""
    wanted = IPv6Address(target).packed
    group = IPv6Address("ff02::1:ff00:0").packed[:13] + wanted[13:]
    message = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + wanted + b"\1\1" + mac
    return _frame(b"\x33\x33" + group[12:], mac, IPv6Address(source).packed, group, message, checksum_error)


def advertisement(target: str, source: str, mac: bytes, edge: bytes) -> bytes:
    """What the answer must be: from the target, by a router, solicited, without Override (RFC 4861 §7.2.8)."""
    wanted = IPv6Address(target).packed
    message = struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, _ROUTER_SOLICITED) + wanted + b"\2\1" + edge
    return _frame(mac, edge, wanted, IPv6Address(source).packed, message)


def _frame(
    eth_destination: bytes, eth_source: bytes, source: bytes, destination: bytes, message: bytes, error: int = 0
) -> bytes:
    pseudo = source + destination + struct.pack("!II", len(message), socket.IPPROTO_ICMPV6)
    # A sum of 16-bit words with the carries folded in is the remainder by 65535 (RFC 1071).
    checksum = -int.from_bytes(pseudo + message) % 65535 ^ error
    message = message[:2] + checksum.to_bytes(2) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(message), socket.IPPROTO_ICMPV6, 255)
    return eth_destination + eth_source + _ETH_P_IPV6.to_bytes(2) + header + source + destination + message


class Wire:
    """Packet sockets on interfaces of the upstream's, which all lead to one port of the edge (a bond has several)."""

    def __init__(self, topology: Topology, *interfaces: str, namespace: Namespace = "upstream") -> None:
        self.interfaces = interfaces
        self.asked = 0
        """How many solicitations went out in all, and how many right answers came."""
        self.answered = 0
        self._sockets = []
        with topology.inside(namespace):
            for interface in interfaces:
                one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                one.bind((interface, _ETH_P_IPV6))
                one.setblocking(False)
                self._sockets.append(one)
        self.mac: bytes = self._sockets[0].getsockname()[4]

    def ask(
        self,
        target: str,
        edge: bytes,
        *,
        by: tuple[int, ...] = (0,),
        tries: int = 1,
        seconds: float = 10.0,
        more: float = 0.0,
    ) -> str:
        """Ask for a target, and say what came back: ANSWER, SILENCE, "2 answers", or which bytes are wrong.

        The question goes out of the interfaces `by`, all at once, and again up to `tries` times while nothing comes for
        so many `seconds`; after an answer, others are waited for as long as `more` says. `edge` is the answer's MAC.
        """
        question = solicitation(target, _SOURCE, self.mac)
        wanted = advertisement(target, _SOURCE, self.mac, edge)
        self._received(0.0)
        for _ in range(tries):
            self._send(question, by)
            if found := [frame for frame in self._received(seconds, more, target) if frame[_TARGET] == _packed(target)]:
                break
        else:
            return SILENCE
        self.answered += sum(frame == wanted for frame in found)
        if wrong := [frame.hex() for frame in found if frame != wanted]:
            return f"wrong: {', '.join(wrong)}; right would be: {wanted.hex()}"
        return ANSWER if len(found) == 1 else f"{len(found)} answers"

    def silent(self, *targets: str, by: tuple[int, ...] = (0,), seconds: float = 0.5, checksum_error: int = 0) -> str:
        """Ask for targets that nobody is to answer for: SILENCE, or for which of them an answer came."""
        self._received(0.0)
        for target in targets:
            self._send(solicitation(target, _SOURCE, self.mac, checksum_error=checksum_error), by)
        found = self._received(seconds, seconds)
        heard = [target for target in targets if any(frame[_TARGET] == _packed(target) for frame in found)]
        return f"an answer for {', '.join(heard)}" if heard else SILENCE

    def _send(self, question: bytes, by: tuple[int, ...]) -> None:
        for number in by:
            self._sockets[number].send(question)
            self.asked += 1

    def _received(self, seconds: float, more: float = 0.0, target: str | None = None) -> list[bytes]:
        """The advertisements that come: the first (for `target`, if given) within `seconds`, and others for `more`."""
        wanted, found = target and _packed(target), list[bytes]()
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select(self._sockets, [], [], left)
            for one in ready:
                try:
                    frame, sender = one.recvfrom(2048)
                except OSError:  # once, when the interface has gone down
                    continue
                if sender[2] == socket.PACKET_OUTGOING or len(frame) < _TARGET.stop or frame[_TYPE] != _ADVERTISEMENT:
                    continue
                if wanted in (None, frame[_TARGET]) and not any(wanted in (None, each[_TARGET]) for each in found):
                    deadline = time.monotonic() + more
                found.append(frame)
            if not ready and left == 0.0:
                return found


def _packed(address: str) -> bytes:
    return IPv6Address(address).packed
