# SPDX-License-Identifier: GPL-2.0-or-later
"""Valid solicitations of every shape (docs/rules.md, A), drawn at random."""

from __future__ import annotations

from functools import cache

from hypothesis import strategies as st

from tests.frames import (
    ALL_NODES,
    BROADCAST_MAC,
    LOOPBACK,
    MULTICAST_MAC,
    NONCE,
    SETTING,
    UNSPECIFIED,
    ZERO_MAC,
    assemble,
    group_mac,
    ip6,
    solicited_node,
    with_checksum,
)

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
