# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames of every shape, right and wrong ones, by hand: the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from tests.frames import (
    ALL_NODES,
    BROADCAST_MAC,
    FOREIGN_MAC,
    LOOPBACK,
    MULTICAST_MAC,
    NONCE,
    OTHER_MAC,
    SETTING,
    TAGS_MENU,
    UNSPECIFIED,
    ZERO_MAC,
    assemble,
    group_mac,
    ip6,
    solicited_node,
    with_checksum,
)

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
