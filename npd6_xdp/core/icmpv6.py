# SPDX-License-Identifier: GPL-2.0-or-later
"""Neighbor Solicitations and Advertisements on the wire: whole Ethernet frames to frozen values, and back.

Addresses are 16 `bytes`, MACs 6. VLAN tags are the raw 0, 4 or 8 bytes between the source MAC and the
EtherType (TPID and TCI each), kept as they are. Who is answered, and with what, is core/responder.py's.
bpf/check.h and bpf/advert.h follow the same rules in the same order; what differs is a bug in one of the two.
The ids at the lines are those of docs/rules.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from npd6_xdp.core.verdict import Outcome, Reason

VLAN_TPIDS = (b"\x81\x00", b"\x88\xa8")  # IEEE 802.1Q, 802.1ad
ETHERTYPE_IPV6 = b"\x86\xdd"  # RFC 2464 §3
IPV6_SIZE = 40
IPV6_VERSION = 6 << 28  # in the first word, with traffic class and flow label 0
HOP_LIMIT = 255  # the packet was not forwarded by a router (RFC 4861 §3.1)

HOP_BY_HOP = 0  # extension headers, RFC 8200 §4
FRAGMENT = 44
ICMPV6 = 58
DESTINATION_OPTIONS = 60
MAX_OPTIONS_HEADERS = 2  # H2, our limits: more of them, and the packet is no solicitation that we see
MAX_EXTENSION_HEADERS = 3

SOLICITATION = 135  # ICMPv6 types, RFC 4861 §4.3, §4.4
ADVERTISEMENT = 136
FIXED_SIZE = 24  # of both, without options
SOURCE_LINK_LAYER = 1  # option types, RFC 4861 §4.6.1
TARGET_LINK_LAYER = 2
OPTION_UNIT = 8  # octets that an option's length counts in (RFC 4861 §4.6)
MAX_MESSAGE = 4096  # octets (H5): the XDP program's scratch buffer

UNSPECIFIED = bytes(16)
LOOPBACK = bytes(15) + b"\x01"
ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
ALL_NODES_MAC = bytes.fromhex("333300000001")  # RFC 2464 §7
_OVERRIDE, _OVERRIDE_WORD = 0x20, 0x2000  # the flag, in the first byte of the flags and in its word
SOLICITED_NODE_PREFIX = bytes.fromhex("ff0200000000000000000001ff")  # ff02::1:ff00:0/104, RFC 4291 §2.7.1


def checksum(source: bytes, destination: bytes, message: bytes) -> int:
    """The checksum of a message whose field holds 0; of one that holds its checksum, 0 iff that is right.

    RFC 4443 §2.3, with the pseudo-header of RFC 8200 §8.1: addresses, upper-layer length, next header 58.
    One's complement addition of 16-bit words is addition modulo 65535, and 65536 is 1 there, so a big-endian
    integer is congruent to the sum of its words. The sum that goes on the wire as its complement is folded
    into 1..0xffff, as in C: it is never 0 here, since the 58 isn't, so the field is 0..0xfffe.
    """
    words = source + destination + message + bytes(len(message) % 2)  # zero padding to whole words
    return -(int.from_bytes(words) + len(message) + ICMPV6) % 0xFFFF


def is_multicast(address: bytes) -> bool:
    """Whether an IPv6 address is in ff00::/8 (RFC 4291 §2.7)."""
    return address[0] == 0xFF


@dataclass(frozen=True, slots=True)
class NeighborSolicitation:
    """A valid Neighbor Solicitation (RFC 4861 §4.3) and the Ethernet frame around it.

    `link_layer_address` is what the source link-layer address option says, or None where that is absent or
    as absent. `extended` says that it stood behind extension headers. A wrong size is a ValueError.
    """

    eth_destination: bytes
    eth_source: bytes
    tags: bytes
    source: bytes
    destination: bytes
    target: bytes
    link_layer_address: bytes | None = None
    extended: bool = False

    def __post_init__(self) -> None:
        _require_sizes(self)

    @staticmethod
    def parse(frame: bytes) -> NeighborSolicitation | Reason | Literal[Outcome.UNMATCHED] | None:
        """Read a frame; never raises.

        None: no solicitation that we can see; the kernel gets it uncounted. A Reason: an invalid one, by the
        first check that fails. Outcome.UNMATCHED: longer than MAX_MESSAGE; left to the kernel, but counted.
        """
        found = locate(frame)
        if found is None:
            return None
        ip6, start, length = found.ip6, found.start, found.length
        source, destination = frame[ip6 + 8 : ip6 + 24], frame[ip6 + 24 : ip6 + 40]
        message = frame[start : start + length]  # H3: an Ethernet trailer is no part of it
        if found.fragment:  # A10: RFC 6980 §5, atomic ones too
            return Reason.FRAGMENT
        if length < FIXED_SIZE or len(message) < length:  # A4: RFC 4861 §7.1.1, as all that follow but one
            return Reason.LENGTH
        if length > MAX_MESSAGE:
            return Outcome.UNMATCHED
        if frame[ip6 + 7] != HOP_LIMIT:  # A1
            return Reason.HOP_LIMIT
        if message[1] != 0:  # A3
            return Reason.CODE
        if checksum(source, destination, message) != 0:  # A2
            return Reason.CHECKSUM
        target = message[8:24]  # H4: the reserved field before it "MUST be ignored by the receiver" (§4.3)
        if is_multicast(target):  # A5
            return Reason.TARGET
        if is_multicast(source) or source == LOOPBACK:  # A9: RFC 4291 §2.7, §2.5.3
            return Reason.SOURCE
        options = _split_options(message[FIXED_SIZE:])  # A6
        if options is None:
            return Reason.OPTION_LENGTH
        if source == UNSPECIFIED:
            if not destination.startswith(SOLICITED_NODE_PREFIX):  # A7
                return Reason.DAD_DESTINATION
            if any(option[0] == SOURCE_LINK_LAYER for option in options):  # A8
                return Reason.DAD_SLLAO
        return NeighborSolicitation(
            eth_destination=frame[:6],
            eth_source=frame[6:12],
            tags=frame[12 : ip6 - 2],
            source=source,
            destination=destination,
            target=target,
            link_layer_address=_source_link_layer_address(options),
            extended=start != ip6 + IPV6_SIZE,
        )

    def serialize(self, options: bytes | None = None) -> bytes:
        """The frame, with the given option bytes instead of the one that `link_layer_address` asks for.

        Raises ValueError if `extended`: which headers those were is not kept.
        """
        if self.extended:
            raise ValueError("a solicitation behind extension headers can't be written")
        if options is None:
            options = _option(SOURCE_LINK_LAYER, self.link_layer_address) if self.link_layer_address else b""
        return _frame(self, struct.pack("!BBHI16s", SOLICITATION, 0, 0, 0, self.target) + options)


@dataclass(frozen=True, slots=True)
class NeighborAdvertisement:
    """A Neighbor Advertisement (RFC 4861 §4.4) and the Ethernet frame around it.

    `link_layer_address` goes out as its only option. A wrong size is a ValueError.
    """

    eth_destination: bytes
    eth_source: bytes
    tags: bytes
    source: bytes
    destination: bytes
    target: bytes
    router: bool
    solicited: bool
    link_layer_address: bytes
    override: bool = False  # B3: a proxy's MUST be so (RFC 4861 §7.2.8)

    def __post_init__(self) -> None:
        _require_sizes(self)

    def serialize(self) -> bytes:
        """The frame: 86 bytes and the tags."""
        flags = self.router << 31 | self.solicited << 30 | self.override << 29
        option = _option(TARGET_LINK_LAYER, self.link_layer_address)
        return _frame(self, struct.pack("!BBHI16s", ADVERTISEMENT, 0, 0, flags, self.target) + option)

    @staticmethod
    def parse(frame: bytes) -> NeighborAdvertisement:
        """Read what `serialize` writes; for any other bytes raises ValueError, which says what they are."""
        ip6 = ipv6_offset(frame)
        if ip6 is None:
            raise ValueError("no IPv6 header behind the MAC addresses and up to two VLAN tags")
        label, length, next_header, hop_limit = struct.unpack_from("!IHBB", frame, ip6)
        source, destination = frame[ip6 + 8 : ip6 + 24], frame[ip6 + 24 : ip6 + 40]
        if label != IPV6_VERSION:
            raise ValueError(f"traffic class and flow label are {label ^ IPV6_VERSION:#x}, not 0")
        if next_header != ICMPV6:
            raise ValueError(f"the next header is {next_header}, not {ICMPV6} (ICMPv6)")
        if length != FIXED_SIZE + OPTION_UNIT:
            raise ValueError(f"the payload length is {length}, not {FIXED_SIZE + OPTION_UNIT}")
        if hop_limit != HOP_LIMIT:
            raise ValueError(f"the hop limit is {hop_limit}, not {HOP_LIMIT}")
        message = frame[ip6 + IPV6_SIZE :]
        if len(message) != length:
            raise ValueError(f"{len(message)} bytes follow the IPv6 header, not {length}")
        kind, code, field, flags, target, option, units, address = struct.unpack("!BBHI16sBB6s", message)
        if kind != ADVERTISEMENT:
            raise ValueError(f"the ICMPv6 type is {kind}, not {ADVERTISEMENT} (Neighbor Advertisement)")
        if code != 0:
            raise ValueError(f"the ICMPv6 code is {code}, not 0")
        if flags & 0x1FFFFFFF:
            raise ValueError(f"the reserved bits are {flags & 0x1FFFFFFF:#x}, not 0")
        if (option, units) != (TARGET_LINK_LAYER, 1):
            raise ValueError(f"the option's type and length are {option} and {units}, not 2 and 1")
        wanted = checksum(source, destination, message[:2] + b"\0\0" + message[4:])
        if field != wanted:
            raise ValueError(f"the checksum is {field:#06x}, not {wanted:#06x}")
        return NeighborAdvertisement(
            eth_destination=frame[:6],
            eth_source=frame[6:12],
            tags=frame[12 : ip6 - 2],
            source=source,
            destination=destination,
            target=target,
            router=bool(flags & 1 << 31),
            solicited=bool(flags & 1 << 30),
            override=bool(flags & 1 << 29),
            link_layer_address=address,
        )


class Plain(NamedTuple):
    """The parts of a template's plain advertisements: Solicited = 1, and the target as their source.

    `pack_into(buffer, offset, eth_destination, before_source, target, destination, 0x8800, field, flags, target,
    option)` writes one, with the checksum `field = (checksum - destination - 2 * target) % 65535`, addresses being
    big-endian integers. `pack`, which takes the same but buffer and offset, returns it.
    """

    pack: Callable[..., bytes]
    pack_into: Callable[..., None]
    before_source: bytes
    checksum: int
    flags: bytes
    option: bytes


class AdvertisementTemplate:
    """Proxy advertisements of one sender: the bytes of NeighborAdvertisement.serialize, six times as fast.

    What stays the same (our MAC as source and in the option, tags, Router flag, Override 0) is summed once.
    """

    __slots__ = ("_before_source", "_checksums", "_flags", "_option", "plain")

    def __init__(self, eth_source: bytes, tags: bytes, router: bool) -> None:
        """Raises ValueError where an argument has not its size."""
        zero = UNSPECIFIED
        models = [
            NeighborAdvertisement(bytes(6), eth_source, tags, zero, zero, zero, router, solicited, eth_source)
            for solicited in (False, True)
        ]
        frames = [model.serialize() for model in models]
        self._before_source = frames[0][6:-64]  # from the source MAC to the hop limit
        self._option = frames[0][-8:]
        self._flags = [frame[-28:-24] for frame in frames]  # both indexed by the Solicited flag
        self._checksums = [int.from_bytes(frame[-30:-28]) for frame in frames]  # with all addresses zero
        frame = struct.Struct(f">6s{len(self._before_source)}s16s16sHH4s16s8s")
        self.plain = Plain(
            frame.pack,
            frame.pack_into,
            self._before_source,
            self._checksums[True],
            self._flags[True],
            self._option,
        )
        """What fill() does with `solicited` and the target as source, taken apart for core/responder.py's loop."""

    def fill(self, eth_destination: bytes, source: bytes, destination: bytes, target: bytes, solicited: bool) -> bytes:
        """The whole frame. The sizes are the caller's duty: 6, 16, 16 and 16 bytes."""
        addresses = source + destination
        field = (self._checksums[solicited] - int.from_bytes(addresses + target)) % 0xFFFF
        before = eth_destination + self._before_source + addresses + b"\x88\x00"  # type 136, code 0
        return before + field.to_bytes(2) + self._flags[solicited] + target + self._option

    def unsolicited(self, source: bytes, target: bytes) -> bytes:
        """The whole frame of one that nobody has asked for, to all nodes (J4, RFC 4861 §7.2.6). Override is 1: who has
        another proxy's address is to take this one. That it be 0 is said of answers (§7.2.8).
        """
        addresses = source + ALL_NODES
        field = (self._checksums[False] - _OVERRIDE_WORD - int.from_bytes(addresses + target)) % 0xFFFF
        before = ALL_NODES_MAC + self._before_source + addresses + b"\x88\x00"
        flags = bytes([self._flags[False][0] | _OVERRIDE]) + self._flags[False][1:]
        return before + field.to_bytes(2) + flags + target + self._option


@dataclass(frozen=True, slots=True)
class Located:
    """Where a message of type 135 stands in its frame: offsets, and the length that the IPv6 header tells."""

    ip6: int
    start: int
    length: int
    fragment: bool


def ipv6_offset(frame: bytes) -> int | None:
    """Where the IPv6 header starts, behind at most two tags; None if none does, or not all of it is there."""
    ethertype = 12
    while ethertype < 20 and frame[ethertype : ethertype + 2] in VLAN_TPIDS:
        ethertype += 4
    ip6 = ethertype + 2
    if frame[ethertype:ip6] != ETHERTYPE_IPV6 or len(frame) < ip6 + IPV6_SIZE or frame[ip6] >> 4 != 6:
        return None
    return ip6


def locate(frame: bytes) -> Located | None:
    """Find the ICMPv6 message of type 135, behind extension headers or not; None if none can be seen."""
    ip6 = ipv6_offset(frame)
    if ip6 is None:
        return None
    next_header = frame[ip6 + 6]
    first = start = ip6 + IPV6_SIZE
    headers = options_headers = 0
    fragment = False
    while next_header != ICMPV6:
        if len(frame) < start + 8:
            return None
        size = 8
        # H2, RFC 8200 §4.1: hop-by-hop options stand directly after the IPv6 header only.
        if next_header == DESTINATION_OPTIONS or (next_header == HOP_BY_HOP and start == first):
            options_headers += 1
            size = 8 * (frame[start + 1] + 1)  # RFC 8200 §4.3: in 8-octet units, the first not counted
        elif next_header == FRAGMENT and (frame[start + 2] << 8 | frame[start + 3]) & 0xFFF8 == 0:
            fragment = True
        else:  # no header of ours, or a later fragment, whose message type can't be seen
            return None
        headers += 1
        if options_headers > MAX_OPTIONS_HEADERS or headers > MAX_EXTENSION_HEADERS:
            return None
        next_header = frame[start]
        start += size
    length = int.from_bytes(frame[ip6 + 4 : ip6 + 6]) - (start - first)
    if length < 1 or frame[start : start + 1] != bytes([SOLICITATION]):
        return None
    return Located(ip6, start, length, fragment)


def _split_options(area: bytes) -> list[bytes] | None:
    """The options that fill `area`, each with its type and length octet; None where a length is wrong.

    A6, RFC 4861 §7.1.1: a length of 0 is invalid, and an option ends within the message (§4.6 gives the shape).
    D4: a Nonce is an option like any other.
    """
    options = []
    start = 0
    while start < len(area):
        if len(area) - start < OPTION_UNIT:
            return None
        size = area[start + 1] * OPTION_UNIT
        if not 0 < size <= len(area) - start:
            return None
        options.append(area[start : start + size])
        start += size
    return options


def _source_link_layer_address(options: list[bytes]) -> bytes | None:
    """What the first source link-layer address option of length 1 says: Ethernet has no other (RFC 2464 §6).

    B8: where that is a group's address or zero, no single station could be answered there: as if absent.
    """
    for option in options:
        if option[:2] == bytes([SOURCE_LINK_LAYER, 1]):
            address = option[2:]
            return None if address[0] & 1 or address == bytes(6) else address
    return None


def _require_sizes(message: NeighborSolicitation | NeighborAdvertisement) -> None:
    """Raise ValueError unless MACs have 6 bytes, addresses 16, and the tags are at most two whole ones."""
    for mac in (message.eth_destination, message.eth_source, message.link_layer_address):
        if mac is not None and len(mac) != 6:
            raise ValueError(f"a MAC address has 6 bytes, not {len(mac)}")
    for address in (message.source, message.destination, message.target):
        if len(address) != 16:
            raise ValueError(f"an IPv6 address has 16 bytes, not {len(address)}")
    tags = message.tags
    if len(tags) > 8 or len(tags) % 4 or not {tags[:2], tags[4:6]}.issubset({b"", *VLAN_TPIDS}):
        raise ValueError(f"{tags.hex()} is not up to two VLAN tags of TPID 8100 or 88a8")


def _option(kind: int, link_layer_address: bytes) -> bytes:
    """A link-layer address option for Ethernet (RFC 4861 §4.6.1, RFC 2464 §6)."""
    return bytes([kind, 1]) + link_layer_address


def _frame(around: NeighborSolicitation | NeighborAdvertisement, message: bytes) -> bytes:
    """The Ethernet frame with an ICMPv6 message whose checksum field is still 0."""
    addresses = around.source + around.destination
    ethernet = around.eth_destination + around.eth_source + around.tags + ETHERTYPE_IPV6
    ip6 = struct.pack("!IHBB", IPV6_VERSION, len(message), ICMPV6, HOP_LIMIT) + addresses
    field = checksum(around.source, around.destination, message).to_bytes(2)
    return ethernet + ip6 + message[:2] + field + message[4:]
