# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of frames of docs/rules.md, G, by scapy: an oracle that shares no code with npd6_xdp."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from ipaddress import IPv6Address
from operator import attrgetter
from typing import Any

from scapy.layers.inet6 import (
    ICMPv6ND_NS,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PseudoIPv6,
)
from scapy.packet import Packet, Raw
from scapy.utils import checksum

from npd6_xdp.core.verdict import Reason
from tests.frames import (
    ALL_NODES,
    BROADCAST_MAC,
    FOREIGN_MAC,
    LOOPBACK,
    MULTICAST_MAC,
    NONCE,
    OTHER_MAC,
    SLLAO,
    TAGS_8021Q,
    TLLAO,
    UNSPECIFIED,
    ZERO_MAC,
    Setting,
    group_mac,
    ip6,
    solicited_node,
)


class Wanted(Enum):
    """What a kind of frame that isn't invalid gets from an entry with a `static` rule over its target."""

    ANSWERED = "answered"
    DAD = "dad"  # valid; answered only where policy says defend
    IGNORED = "ignored"  # valid, but never answered (docs/rules.md, C)
    UNSEEN = "unseen"  # no solicitation: passed on, uncounted


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of frame: its name, the ids of docs/rules.md or sections that decide, what it gets, how it is made."""

    name: str
    rfc: str
    wanted: Wanted | Reason
    build: Callable[[Setting], bytes]

    def __str__(self) -> str:
        return self.name


# What is so marked takes scapy up to a tenth of a millisecond, and thousands of frames have the same.
_remembered = lru_cache(4096)


@_remembered
def option(kind: int, body: bytes, units: int | None = None) -> bytes:
    """An ND option, `units` of 8 bytes long as its length octet says; by default what the body asks for."""
    units = (len(body) + 2) // 8 if units is None else units
    return bytes(ICMPv6NDOptUnknown(type=kind, len=units, data=body))


@_remembered
def sllao(address: bytes) -> bytes:
    """A source link-layer address option (RFC 4861 §4.6.1)."""
    return bytes(ICMPv6NDOptSrcLLAddr(lladdr=address.hex(":")))


def nonce(seed: bytes = b"nonce!") -> bytes:
    """A Nonce option (RFC 3971 §5.3.2), as RFC 7527 puts it into DAD probes."""
    return option(NONCE, seed)


def solicit(
    setting: Setting,
    *,
    source: bytes | None = None,
    destination: bytes | None = None,
    target: bytes | None = None,
    options: bytes | None = None,
    icmp_type: int = 135,
    code: int = 0,
    reserved: int = 0,
    cut: int | None = None,
    checksum_error: int = 0,
    hop_limit: int = 255,
    version: int = 6,
    payload_length: int | None = None,
    headers: Sequence[Packet] = (),
    trailer: bytes = b"",
    eth_source: bytes | None = None,
    eth_destination: bytes | None = None,
) -> bytes:
    """A solicitation by scapy: multicast, from the asker's link-local address, with SLLAO, unless told else.

    `cut` leaves that many bytes of the message; the checksum is right for what is left, but for what
    `checksum_error` adds. The last of `headers` is led to ICMPv6, the others to the next. `trailer` stands
    behind the IPv6 payload.
    """
    target = setting.target if target is None else target
    source = setting.asker_link_local if source is None else source
    destination = solicited_node(target) if destination is None else destination
    options = sllao(setting.asker_mac) if options is None else options
    eth_source = setting.asker_mac if eth_source is None else eth_source
    if eth_destination is None:
        eth_destination = group_mac(destination) if destination[0] == 0xFF else setting.mac

    message = (_fixed(icmp_type, code, reserved, target) + options)[:cut]
    field = (checksum(_pseudo_header(source, destination, len(message)) + message) + checksum_error) & 0xFFFF
    message = message[:2] + struct.pack("!H", field) + message[4:]
    ethernet = eth_destination + eth_source + setting.tags + b"\x86\xdd"
    if not headers:
        length = len(message) if payload_length is None else payload_length
        return ethernet + _ip_header(version, length, hop_limit, source, destination) + message + trailer

    packet: Packet = IPv6(
        version=version,
        hlim=hop_limit,
        plen=payload_length,
        src=str(IPv6Address(source)),
        dst=str(IPv6Address(destination)),
    )
    for header in headers:
        packet /= header.copy()
    packet.lastlayer().nh = 58
    return ethernet + bytes(packet / Raw(message)) + trailer


@_remembered
def _fixed(icmp_type: int, code: int, reserved: int, target: bytes) -> bytes:
    """A solicitation without its options and checksum."""
    return bytes(ICMPv6ND_NS(type=icmp_type, code=code, cksum=0, res=reserved, tgt=str(IPv6Address(target))))


@_remembered
def _pseudo_header(source: bytes, destination: bytes, length: int) -> bytes:
    """What the checksum of an ICMPv6 message of that length covers besides it (RFC 8200 §8.1)."""
    ends = {"src": str(IPv6Address(source)), "dst": str(IPv6Address(destination))}
    return bytes(PseudoIPv6(uplen=length, nh=58, **ends))


@_remembered
def _ip_header(version: int, length: int, hop_limit: int, source: bytes, destination: bytes) -> bytes:
    ends = {"src": str(IPv6Address(source)), "dst": str(IPv6Address(destination))}
    return bytes(IPv6(version=version, plen=length, nh=58, hlim=hop_limit, **ends))


def three_tags(setting: Setting) -> bytes:
    """A solicitation behind one tag more than we look behind: no solicitation that we see."""
    frame = solicit(setting)
    return frame[:12] + 3 * TAGS_8021Q + frame[12 + len(setting.tags) :]


def oversized(setting: Setting) -> bytes:
    """A valid one, whose message of 4,104 bytes is left to the kernel: `unmatched` (H5).

    No kind, since BPF_PROG_TEST_RUN takes no frame as long as that.
    """
    return solicit(setting, options=2 * option(253, bytes(255 * 8 - 2)))


def kind(name: str, rfc: str, wanted: Wanted | Reason, **fields: Any) -> Kind:
    """A kind that `solicit` makes; a field may be a function of the setting."""

    def build(setting: Setting) -> bytes:
        values = {name: field(setting) if callable(field) else field for name, field in fields.items()}
        return solicit(setting, **values)

    return Kind(name, rfc, wanted, build)


HBH, DSTOPT, FRAGMENT = IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(id=1)
LONG_DSTOPT = IPv6ExtHdrDestOpt(len=2, autopad=0, options=Raw(b"\x01\x14" + bytes(20)))
ANSWERED, DAD, IGNORED, UNSEEN = Wanted.ANSWERED, Wanted.DAD, Wanted.IGNORED, Wanted.UNSEEN
TARGET, OUR_MAC = attrgetter("target"), attrgetter("mac")


# The first 26 are those that the peers were measured with (docs/design.md).
KINDS: tuple[Kind, ...] = (
    kind("multicast with SLLAO", "B2 B8", ANSWERED),
    kind("from a global source", "B2 B6", ANSWERED, source=attrgetter("asker_global")),
    kind("unicast with SLLAO", "B2 RFC 4861 §7.3.3", ANSWERED, destination=TARGET),
    kind("unicast without SLLAO", "B5 B8 B9", ANSWERED, destination=TARGET, options=b""),
    kind("multicast without SLLAO", "B5 B8 B9", ANSWERED, options=b""),
    kind("Nonce after SLLAO", "A6 B9", ANSWERED, options=lambda s: sllao(s.asker_mac) + nonce()),
    kind("unknown option", "A6 H4", ANSWERED, options=lambda s: sllao(s.asker_mac) + option(200, b"6bytes")),
    kind("reserved bits set", "H4", ANSWERED, reserved=0xFFFFFFFF),
    kind("Ethernet trailer", "B9 H3", ANSWERED, options=b"", trailer=b"trailer"),
    kind("hop limit 254", "A1", Reason.HOP_LIMIT, hop_limit=254),
    kind("hop limit 0", "A1", Reason.HOP_LIMIT, hop_limit=0),
    kind("bad checksum", "A2", Reason.CHECKSUM, checksum_error=1),
    kind("code 1", "A3", Reason.CODE, code=1),
    kind("ICMP length 8", "A4", Reason.LENGTH, cut=8),
    kind("ICMP length 16", "A4", Reason.LENGTH, cut=16),
    kind("ICMP length 23", "A4", Reason.LENGTH, cut=23),
    kind("option length 0", "A6", Reason.OPTION_LENGTH, options=option(SLLAO, OTHER_MAC, units=0)),
    kind("option past the end", "A6", Reason.OPTION_LENGTH, options=option(SLLAO, OTHER_MAC, units=2)),
    kind("option cut short", "A6", Reason.OPTION_LENGTH, cut=28),
    kind("payload past the frame", "A4", Reason.LENGTH, payload_length=40),
    kind(":: with SLLAO", "A8", Reason.DAD_SLLAO, source=UNSPECIFIED),
    kind(
        *(":: to a unicast destination", "A7", Reason.DAD_DESTINATION),
        source=UNSPECIFIED,
        destination=TARGET,
        options=b"",
    ),
    kind(
        *(":: to all-nodes", "A7", Reason.DAD_DESTINATION),
        source=UNSPECIFIED,
        destination=ALL_NODES,
        options=b"",
    ),
    kind("atomic fragment", "A10", Reason.FRAGMENT, headers=[FRAGMENT]),
    kind("multicast source", "A9", Reason.SOURCE, source=ALL_NODES),
    kind("multicast target", "A5", Reason.TARGET, target=ip6("ff02::42")),
    # Ours. Sources:
    kind("source ::1", "A9", Reason.SOURCE, source=LOOPBACK),
    kind("source ::1 and an option of length 0", "A9", Reason.SOURCE, source=LOOPBACK, options=option(SLLAO, b"", 0)),
    kind("source ::1 and a multicast target", "A5 A9", Reason.TARGET, source=LOOPBACK, target=ip6("ff02::42")),
    kind("source ::2", "A9", ANSWERED, source=ip6("::2")),
    # Options:
    kind("Nonce before SLLAO", "A6 B8 H4", ANSWERED, options=nonce() + sllao(OTHER_MAC)),
    kind("Nonce alone", "A6 B8", ANSWERED, options=nonce()),
    kind("SLLAO of another station", "B8", ANSWERED, options=sllao(OTHER_MAC)),
    kind("two SLLAOs", "B8", ANSWERED, options=sllao(OTHER_MAC) + sllao(FOREIGN_MAC)),
    kind("multicast SLLAO", "B8", ANSWERED, options=sllao(MULTICAST_MAC)),
    kind("broadcast SLLAO", "B8", ANSWERED, options=sllao(BROADCAST_MAC)),
    kind("zero SLLAO", "B8", ANSWERED, options=sllao(ZERO_MAC)),
    kind("zero SLLAO before a good one", "B8", ANSWERED, options=sllao(ZERO_MAC) + sllao(OTHER_MAC)),
    kind("SLLAO of length 2", "B8", ANSWERED, options=option(SLLAO, OTHER_MAC + bytes(8))),
    kind(
        *("SLLAO of length 2 before one of length 1", "B8", ANSWERED),
        options=option(SLLAO, FOREIGN_MAC + bytes(8)) + sllao(OTHER_MAC),
    ),
    kind("240 bytes of options", "A6 B9", ANSWERED, options=29 * nonce() + sllao(OTHER_MAC)),
    kind("one option of 240 bytes", "A6 B9", ANSWERED, options=option(253, b"\xff" * 238)),
    kind("1,400 bytes of options", "A2 A6", ANSWERED, options=5 * option(253, b"\xa5" * 278)),
    kind("TLLAO", "A6 B8", ANSWERED, options=option(TLLAO, OTHER_MAC)),
    # Lengths:
    kind("Nonce and trailer", "A4 B9", ANSWERED, options=nonce(), trailer=bytes(6)),
    kind("message of 25 bytes", "A6", Reason.OPTION_LENGTH, cut=25),
    kind("message of 31 bytes", "A6", Reason.OPTION_LENGTH, cut=31),
    kind("message of 33 bytes", "A6", Reason.OPTION_LENGTH, options=sllao(OTHER_MAC) + b"\1"),
    kind("25 bytes and a trailer", "A4 A6", Reason.OPTION_LENGTH, cut=25, trailer=b"1234567"),
    kind("message of 1 byte", "A4", Reason.LENGTH, payload_length=1),
    kind("24 bytes, the rest a trailer", "A2 A4", Reason.CHECKSUM, payload_length=24),
    kind("payload length 0", "H3 RFC 2675", UNSEEN, payload_length=0),
    # Extension headers:
    kind("hop-by-hop options", "H2", ANSWERED, headers=[HBH]),
    kind("destination options", "H2", ANSWERED, headers=[DSTOPT]),
    kind("hop-by-hop and destination options", "H2", ANSWERED, headers=[HBH, DSTOPT]),
    kind("destination options twice", "H2", ANSWERED, headers=[DSTOPT, DSTOPT]),
    kind("24 bytes of destination options", "H2", ANSWERED, headers=[LONG_DSTOPT]),
    kind("hop limit 64 behind options", "A1", Reason.HOP_LIMIT, headers=[HBH], hop_limit=64),
    kind("bad checksum behind options", "A2", Reason.CHECKSUM, headers=[HBH], checksum_error=1),
    kind("three options headers", "H2", UNSEEN, headers=[HBH, DSTOPT, DSTOPT]),
    kind("hop-by-hop options not first", "H2", UNSEEN, headers=[DSTOPT, HBH]),
    kind("routing header", "H2", UNSEEN, headers=[IPv6ExtHdrRouting()]),
    kind("first fragment", "A10", Reason.FRAGMENT, headers=[IPv6ExtHdrFragment(m=1, id=1)]),
    kind("later fragment", "RFC 8200 §4.5", UNSEEN, headers=[IPv6ExtHdrFragment(offset=1, id=1)]),
    kind("fragment behind options", "A10", Reason.FRAGMENT, headers=[HBH, FRAGMENT]),
    kind("fragment between options", "A10", Reason.FRAGMENT, headers=[HBH, FRAGMENT, DSTOPT]),
    kind("two fragment headers", "A10", Reason.FRAGMENT, headers=[FRAGMENT, FRAGMENT]),
    kind("four headers", "H2", UNSEEN, headers=[HBH, DSTOPT, FRAGMENT, FRAGMENT]),
    kind("fragment with a bad checksum", "A10", Reason.FRAGMENT, headers=[FRAGMENT], checksum_error=1),
    # Not a solicitation:
    kind("another ICMPv6 type", "H1", UNSEEN, icmp_type=136),
    kind("IP version 4", "RFC 8200 §3", UNSEEN, version=4),
    Kind("three tags", "H1", UNSEEN, three_tags),
    # Who asks whom:
    kind("DAD probe", "B2 D1 D2", DAD, source=UNSPECIFIED, options=b""),
    kind("DAD probe with Nonce", "D1 D2 D4", DAD, source=UNSPECIFIED, options=nonce()),
    kind(
        *(":: with SLLAO of length 2", "A8", Reason.DAD_SLLAO),
        source=UNSPECIFIED,
        options=option(SLLAO, OTHER_MAC + bytes(8)),
    ),
    kind("multicast at our unicast MAC", "F2", ANSWERED, eth_destination=OUR_MAC),
    kind("to all-nodes from an address", "A7", ANSWERED, destination=ALL_NODES),
    kind("foreign unicast MAC", "C5", IGNORED, destination=TARGET, eth_destination=FOREIGN_MAC),
    kind("multicast at a foreign unicast MAC", "C5", IGNORED, eth_destination=FOREIGN_MAC),
    kind("looped-back source MAC", "C4", IGNORED, eth_source=OUR_MAC),
    kind("looped-back DAD probe", "C4", IGNORED, source=UNSPECIFIED, options=b"", eth_source=OUR_MAC),
    kind("from a group's MAC", "C9", IGNORED, options=b"", eth_source=MULTICAST_MAC),
    kind("from a zero MAC", "C9", IGNORED, options=b"", eth_source=ZERO_MAC),
    kind("target ::", "C3", IGNORED, target=UNSPECIFIED),
    kind("target ::1", "C3", IGNORED, target=ip6("::1")),
    kind("link-local target", "C2", IGNORED, target=ip6("fe80::42")),
)


PEER_KINDS = KINDS[:26]
