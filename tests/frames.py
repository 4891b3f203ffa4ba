# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames for all test rooms: the kinds of docs/rules.md, G, random ones, valid ones, and a judge of the answers.

KINDS and the judge are scapy's work: an oracle that shares no code with npd6_xdp. random_frames and
solicitations are built by hand, for speed and for shapes that scapy won't write.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from ipaddress import IPv6Address
from operator import attrgetter
from random import Random
from typing import Any

from hypothesis import strategies as st
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    in6_chksum,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from npd6_xdp.core.icmpv6 import checksum
from npd6_xdp.core.verdict import Reason

SLLAO, TLLAO, NONCE = 1, 2, 14  # option types; the Nonce: RFC 3971 §5.3.2
TAGS_8021Q = bytes.fromhex("81000064")  # VLAN 100
TAGS_PRIORITY = bytes.fromhex("8100e000")  # VID 0, priority 7: no VLAN (IEEE 802.1Q)
TAGS_QINQ = bytes.fromhex("88a8006481000007")  # 100.7
TAGS_PRIORITY_Q = bytes.fromhex("81000000810000c8")  # a priority tag, then VLAN 200
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


# --- kinds, by scapy ------------------------------------------------------------------------------


def option(kind: int, body: bytes, units: int | None = None) -> bytes:
    """An ND option, `units` of 8 bytes long as its length octet says; by default what the body asks for."""
    units = (len(body) + 2) // 8 if units is None else units
    return bytes(ICMPv6NDOptUnknown(type=kind, len=units, data=body))


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

    ends = {"src": str(IPv6Address(source)), "dst": str(IPv6Address(destination))}
    fixed = ICMPv6ND_NS(type=icmp_type, code=code, cksum=0, res=reserved, tgt=str(IPv6Address(target)))
    message = (bytes(fixed) + options)[:cut]
    field = (in6_chksum(58, IPv6(**ends) / Raw(message), message) + checksum_error) & 0xFFFF
    message = message[:2] + struct.pack("!H", field) + message[4:]

    packet: Packet = IPv6(version=version, hlim=hop_limit, plen=payload_length, **ends)
    for header in headers:
        packet /= header.copy()
    packet.lastlayer().nh = 58
    ethernet = Ether(dst=eth_destination.hex(":"), src=eth_source.hex(":"), type=0x86DD)
    frame = bytes(ethernet / packet / Raw(message))
    return frame[:12] + setting.tags + frame[12:] + trailer


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
FOREIGN_MAC = ether("02:00:00:00:00:99")
OTHER_MAC = ether("02:00:00:00:00:03")
MULTICAST_MAC, BROADCAST_MAC, ZERO_MAC = group_mac(ALL_NODES), b"\xff" * 6, bytes(6)
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


# --- random frames, by hand -----------------------------------------------------------------------

ASKER_MACS = 8 * (SETTING.asker_mac, OTHER_MAC) + (SETTING.mac, MULTICAST_MAC, ZERO_MAC)
SOURCES = (
    *(8 * (SETTING.asker_link_local, SETTING.asker_global, ip6("2001:db8:1::7"))),
    *(4 * (UNSPECIFIED,)),
    ALL_NODES,
    LOOPBACK,
)
TARGETS = tuple(
    ip6(text)
    for text in (
        *("2001:db8:1::42", "2001:db8:1::1", "2001:db8:1::", "2001:db8:1:0:ffff:ffff:ffff:ffff"),
        *("2001:db8:1::ff42", "2001:db8:2::42", "2001:db8:1:1::1", "2001:db8:ffff::1", "2001:db9::1"),
        *("fe80::1", "fe80::42", "::", "::1", "ff02::1"),
    )
)


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


def random_frames(
    seed: int,
    count: int,
    *,
    mac: bytes = SETTING.mac,
    asker_macs: Sequence[bytes] = ASKER_MACS,
    sources: Sequence[bytes] = SOURCES,
    targets: Sequence[bytes] = TARGETS,
    tags: Sequence[bytes] = TAGS_MENU,
) -> Iterator[bytes]:
    """`count` frames, the same for the same arguments: solicitations of every shape, right and wrong ones.

    Over half are valid; each Reason, unseen frames and mutated bytes occur. Repeat in a pool to weight it.
    Frames have at most 1,500 bytes or so.
    """
    rng = Random(seed)  # noqa: S311 (repeatable on purpose)
    chance, pick, randbytes = rng.random, rng.choice, rng.randbytes

    for _ in range(count):
        target = pick(targets)
        if chance() < 0.2:  # near the pool's, or anywhere
            kept = pick((0, 8, 14, 15))
            target = target[:kept] + randbytes(16 - kept)
        source = pick(sources)
        destination = solicited_node(target)
        if chance() < 0.3 and (source != UNSPECIFIED or chance() < 0.2):
            destination = pick((target, target, ALL_NODES, source, randbytes(16)))
        eth_destination = group_mac(destination) if destination[0] == 0xFF else mac
        if chance() < 0.05:
            eth_destination = pick((mac, FOREIGN_MAC, BROADCAST_MAC, ZERO_MAC))
        eth_source = pick(asker_macs)
        tag = pick(tags) if chance() < 0.5 else b""

        options = _random_options(rng, eth_source, source == UNSPECIFIED)
        code = 0 if chance() < 0.97 else rng.randrange(256)
        reserved = bytes(4) if chance() < 0.9 else randbytes(4)
        message = b"".join((b"\x87", bytes((code,)), b"\0\0", reserved, target, options))
        if chance() < 0.03:
            message = message[: rng.randrange(4, 33)]
        message = with_checksum(source, destination, message)
        if chance() < 0.03:
            message = message[:2] + randbytes(2) + message[4:]

        chain = _random_chain(rng) if chance() < 0.15 else ()
        frame = assemble(
            eth_destination + eth_source + tag,
            source,
            destination,
            message,
            first_word=6 << 28 | (0 if chance() < 0.9 else rng.getrandbits(28)),
            chain=chain,
            hop_limit=255 if chance() < 0.97 else rng.randrange(256),
            payload_length=None if chance() < 0.98 else pick((0, 1, 8, 23, 24, 31, 32, 33, 40, 65535)),
            trailer=b"" if chance() < 0.85 else randbytes(rng.randrange(1, 48)),
        )
        yield frame if chance() < 0.92 else _mutate(rng, frame)


def _random_options(rng: Random, eth_source: bytes, dad: bool) -> bytes:
    """Plain for the most part: what Linux sends; else up to five of a menu, now and then a broken one."""
    dice = rng.random()
    if dice < 0.5 and not dad:
        return b"\1\1" + eth_source
    if dice < 0.7:
        return b""
    options = b""
    for _ in range(rng.randrange(1, 6)):
        dice = rng.random()
        if dice < 0.45:
            units = rng.choice((1, 1, 1, 2, 3, 30))
            octets = (rng.choice((0, 2, 3, 5, NONCE, NONCE, 253)), units)
            options += bytes(octets) + rng.randbytes(8 * units - 2)
        elif dice < 0.95:
            if not dad or rng.random() < 0.3:
                address = rng.choice((eth_source, OTHER_MAC, OTHER_MAC, MULTICAST_MAC, ZERO_MAC))
                options += b"\1\1" + address if rng.random() < 0.85 else b"\1\2" + address + address + b"\1\1"
        else:
            broken = (b"\1\0" + eth_source, b"\1\xff" + eth_source, b"\1", b"\1\1\0\0", b"\x0e\1\1")
            options += rng.choice(broken)
    return options


def _random_chain(rng: Random) -> list[tuple[int, bytes]]:
    """One to four extension headers; those that make a solicitation unseen are rare."""
    chain = []
    for position in range(rng.choice((1, 1, 1, 1, 2, 2, 2, 3, 4))):
        number = rng.choice((0, 60) if position == 0 else (60,))
        dice = rng.random()
        if dice < 0.15:
            offset = rng.choice((b"\0\0", b"\0\0", b"\0\1", b"\0\6", b"\0\x08"))
            chain.append((44, b"\0\0" + offset + rng.randbytes(4)))
            continue
        if dice < 0.2:
            number = rng.choice((0, 43, 50, 51, 59, 6, 135, 255))
        units = rng.choice((0, 0, 0, 1, 3))
        chain.append((number, bytes((0, units)) + rng.randbytes(6 + 8 * units)))
    return chain


def _mutate(rng: Random, frame: bytes) -> bytes:
    """The frame with a few bytes changed, cut short, or cut and padded."""
    dice = rng.random()
    if dice < 0.3:
        return frame[: rng.randrange(14, len(frame))]
    changed = bytearray(frame)
    for _ in range(rng.randrange(1, 4)):
        changed[rng.randrange(len(changed))] = rng.choice((0, 1, 255, rng.randrange(256)))
    return bytes(changed) if dice < 0.9 else bytes(changed) + rng.randbytes(rng.randrange(1, 9))


# --- valid solicitations of every shape -----------------------------------------------------------

# Strategies are made once: most of the time that a new one takes goes into hypothesis's looking into it.


@cache
def macs(but: bytes = ZERO_MAC) -> st.SearchStrategy[bytes]:
    """MACs of single stations."""
    stations = st.binary(min_size=6, max_size=6).map(lambda b: bytes([b[0] & 0xFE]) + b[1:])
    return stations.filter(lambda mac: mac not in (ZERO_MAC, but))


@cache
def unicast_addresses() -> st.SearchStrategy[bytes]:
    """Any IPv6 addresses but multicast, :: and ::1."""
    anywhere = st.binary(min_size=16, max_size=16).filter(lambda b: b[0] != 0xFF and b > LOOPBACK)
    return anywhere | st.binary(min_size=8, max_size=8).map(lambda b: ip6("fe80::")[:8] + b)


@cache
def vlan_tags() -> st.SearchStrategy[bytes]:
    """No tag, one or two, with any TCI."""
    tpids = st.sampled_from((b"\x81\x00", b"\x88\xa8"))
    tag = st.tuples(tpids, st.binary(min_size=2, max_size=2)).map(b"".join)
    return st.lists(tag, max_size=2).map(b"".join)


@cache
def valid_options(dad: bool) -> st.SearchStrategy[bytes]:
    """Up to six options of right lengths; where `dad`, none is an SLLAO (RFC 4861 §7.1.1)."""
    types = st.sampled_from((0, 2, 3, 5, NONCE, 253)) | st.integers(2, 255)
    other = st.tuples(types, st.integers(1, 4) | st.just(20)).flatmap(
        lambda t: st.binary(min_size=8 * t[1] - 2, max_size=8 * t[1] - 2).map(lambda body: bytes(t) + body)
    )
    address = macs() | st.sampled_from((MULTICAST_MAC, BROADCAST_MAC, ZERO_MAC))
    short = address.map(lambda a: b"\1\1" + a)
    long = address.map(lambda a: b"\1\2" + a + bytes(8))
    menu = other if dad else short | other | long
    several = st.lists(menu, max_size=6).map(b"".join)
    return several if dad else short | several


@cache
def extension_chains() -> st.SearchStrategy[list[tuple[int, bytes]]]:
    """No extension header, or those that a solicitation may stand behind: one or two with options."""
    # One unknown option that is to be skipped (type 0x1e, RFC 8200 §4.2) fills each.
    header = st.integers(0, 3).flatmap(
        lambda units: st.binary(min_size=4 + 8 * units, max_size=4 + 8 * units).map(
            lambda data: bytes([0, units, 0x1E, len(data)]) + data
        )
    )
    behind = st.tuples(st.just(60), header)
    first = st.tuples(st.sampled_from((0, 60)), header)
    chains = st.tuples(first, st.lists(behind, max_size=1)).map(lambda t: [t[0], *t[1]])
    return st.just([]) | st.just([]) | chains


_SOURCES = unicast_addresses() | st.just(UNSPECIFIED)
_PLACES = st.integers(0, 3) | unicast_addresses()
_MACS = st.integers(0, 2)
_RESERVED = st.just(bytes(4)) | st.binary(min_size=4, max_size=4)
_FIRST_WORDS = st.just(0) | st.integers(0, 0xFFFFFFF)
_TRAILERS = st.just(b"") | st.binary(max_size=20)


@st.composite
def solicitations(
    draw: st.DrawFn,
    *,
    mac: bytes = SETTING.mac,
    targets: st.SearchStrategy[bytes] | None = None,
    sources: st.SearchStrategy[bytes] | None = None,
    tags: st.SearchStrategy[bytes] | None = None,
    chains: st.SearchStrategy[list[tuple[int, bytes]]] | None = None,
) -> bytes:
    """Valid solicitations (docs/rules.md, A) of every shape, from a station that isn't us, to our MAC or a group's.

    By default `targets` is any unicast address, `sources` any or ::, `tags` and `chains` up to two.
    """
    target = draw(unicast_addresses() if targets is None else targets)
    source = draw(_SOURCES if sources is None else sources)
    dad = source == UNSPECIFIED
    group = solicited_node(target)
    place = 0 if dad else draw(_PLACES)
    destination = place if isinstance(place, bytes) else (group, group, target, ALL_NODES)[place]
    eth_destination = mac
    if destination[0] == 0xFF:  # RFC 6085: a group's packet may come to a unicast MAC
        eth_destination = (group_mac(destination), group_mac(destination), mac)[draw(_MACS)]
    eth_source = draw(macs(but=mac))
    reserved = draw(_RESERVED)
    message = b"\x87\0\0\0" + reserved + target + draw(valid_options(dad))
    return assemble(
        eth_destination + eth_source + draw(vlan_tags() if tags is None else tags),
        source,
        destination,
        with_checksum(source, destination, message),
        first_word=6 << 28 | draw(_FIRST_WORDS),
        chain=draw(extension_chains() if chains is None else chains),
        trailer=draw(_TRAILERS),
    )


# --- the judge ------------------------------------------------------------------------------------


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
