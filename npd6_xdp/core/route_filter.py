# SPDX-License-Identifier: GPL-2.0-or-later
"""Classic BPF for a netlink socket: only those announcements of routes pass that may concern us.

The kernel drops the others before they are queued, so that a table of any size costs nothing here while it changes.
"""

from __future__ import annotations

import struct
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from npd6_xdp.core.route_messages import RouteType
from npd6_xdp.core.rtnetlink import PROTOCOL, Flag, Type

_RTPROT_KERNEL = 2
_RT_TABLE_LOCAL = 255
_LD_IMM, _LD_MEM, _LDX_IMM, _LDX_MEM = 0x00, 0x60, 0x01, 0x61
_LD_ABS_W, _LD_ABS_H, _LD_ABS_B, _LD_IND_B = 0x20, 0x28, 0x30, 0x50
_ST, _STX, _TAX, _RET, _JA = 0x02, 0x03, 0x07, 0x06, 0x05
_JEQ, _JGE, _JSET = 0x15, 0x35, 0x45
_AND, _LSH, _RSH, _OR_X, _RSH_X = 0x54, 0x64, 0x74, 0x4C, 0x7C
_SKF_AD_NLATTR = 0xFFFFF000 + 12  # finds the attribute of type X from offset A on
_TYPE, _FLAGS, _SENDER = 4, 6, 12  # of struct nlmsghdr
# of struct rtmsg behind it
_LENGTH, _SOURCE_LENGTH, _TABLE, _PROTOCOL, _ROUTE_TYPE = 16 + 1, 16 + 2, 16 + 4, 16 + 5, 16 + 7
_FIRST_ATTRIBUTE = 16 + 12
_RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH = 4, 5, 9
_OFFSET, _VALUE, _BIT = 0, 1, 2  # scratch memory
_MOST_WORDS = 256
"""Words of 32 interfaces each that are compared, one after another; programs of this size are granted everywhere."""


class Instruction(NamedTuple):
    """struct sock_filter: a jump skips so many instructions."""

    code: int
    k: int
    if_true: int = 0
    if_false: int = 0


ACCEPT, DROP = Instruction(_RET, 0xFFFFFFFF), Instruction(_RET, 0)
NOTHING = (DROP,)
"""Lets nothing pass."""
SIGNS = (Instruction(_RET, 16),)
"""Lets the header of each message pass: that something has changed."""


def routes_that_concern(ifindexes: Iterable[int]) -> tuple[Instruction, ...]:
    """A filter that passes all that isn't a route, and the routes that core/routes.py has to hear of.

    Those are the ones out of `ifindexes` with a gateway, or that can't be told from them; local prefixes, throw routes
    and routes by source. Where the interfaces' indexes are many and far apart, their neighbours' pass, too.
    """
    words, shift = _words(ifindexes)
    member: list[Instruction] = []
    test = 3 * len(words) + 1
    for word, bits in sorted(words.items()):
        member += [
            Instruction(_JEQ, word, 0, 2),
            Instruction(_LD_IMM, bits),
            Instruction(_JA, test - len(member) - 3),
        ]
    return (
        Instruction(_LD_ABS_H, _TYPE),
        Instruction(_JEQ, _swapped("H", Type.NEWROUTE), 2, 0),
        Instruction(_JEQ, _swapped("H", Type.DELROUTE), 1, 0),
        ACCEPT,
        Instruction(_LD_ABS_H, _FLAGS),  # a route in another's place: the other may have had a gateway
        Instruction(_JSET, _swapped("H", Flag.REPLACE), 0, 1),
        ACCEPT,
        Instruction(_LD_ABS_B, _SOURCE_LENGTH),
        Instruction(_JEQ, 0, 1, 0),
        ACCEPT,
        Instruction(_LD_ABS_B, _ROUTE_TYPE),
        Instruction(_JEQ, RouteType.THROW, 6, 0),
        Instruction(_JEQ, RouteType.LOCAL, 1, 0),
        Instruction(_JEQ, RouteType.ANYCAST, 0, 5),
        Instruction(_LD_ABS_B, _PROTOCOL),
        Instruction(_JEQ, _RTPROT_KERNEL, 0, 2),
        Instruction(_LD_ABS_B, _LENGTH),
        Instruction(_JGE, 128, 1, 0),
        ACCEPT,
        *_find(_RTA_MULTIPATH),
        Instruction(_JEQ, 0, 1, 0),
        ACCEPT,
        *_find(_RTA_GATEWAY),
        Instruction(_JEQ, 0, 0, 1),
        DROP,
        *_find(_RTA_OIF),
        *_load_value(),
        *((Instruction(_RSH, shift),) if shift else ()),
        Instruction(_ST, _VALUE),
        Instruction(_AND, 31),
        Instruction(_ST, _BIT),
        Instruction(_LD_MEM, _VALUE),
        Instruction(_RSH, 5),
        *member,
        DROP,
        # the word's bit
        Instruction(_LDX_MEM, _BIT),
        Instruction(_RSH_X, 0),
        Instruction(_JSET, 1, 0, 1),
        ACCEPT,
        DROP,
    )


def host_routes_of_others(ours: int) -> tuple[Instruction, ...]:
    """A filter that passes the routes with our protocol number, and routes to one address that aren't in the table
    `local`; but no change that the sender `ours` has asked for.
    """
    return (
        Instruction(_LD_ABS_W, _SENDER),
        Instruction(_JEQ, _swapped("I", ours), 0, 1),
        DROP,
        Instruction(_LD_ABS_B, _PROTOCOL),
        Instruction(_JEQ, PROTOCOL, 0, 1),
        ACCEPT,
        Instruction(_LD_ABS_B, _TABLE),
        Instruction(_JEQ, _RT_TABLE_LOCAL, 2, 0),
        Instruction(_LD_ABS_B, _LENGTH),
        Instruction(_JEQ, 128, 1, 0),
        DROP,
        ACCEPT,
    )


def pack(program: Iterable[Instruction]) -> bytes:
    """As struct sock_filter, one after another."""
    return b"".join(struct.pack("=HBBI", i.code, i.if_true, i.if_false, i.k) for i in program)


def _words(ifindexes: Iterable[int]) -> tuple[dict[int, int], int]:
    """Sets of 32 neighbours as bits, by their number, of indexes that are shifted so far that there aren't too many."""
    wanted = tuple(ifindexes)
    for shift in range(32):
        words: defaultdict[int, int] = defaultdict(int)
        for ifindex in wanted:
            words[ifindex >> shift + 5] |= 1 << (ifindex >> shift & 31)
        if len(words) <= _MOST_WORDS:
            break
    return words, shift


def _find(attribute: int) -> tuple[Instruction, ...]:
    """A is the offset of an attribute, 0 without it."""
    return (
        Instruction(_LD_IMM, _FIRST_ATTRIBUTE),
        Instruction(_LDX_IMM, attribute),
        Instruction(_LD_ABS_W, _SKF_AD_NLATTR),
    )


def _load_value() -> list[Instruction]:
    """From the offset of an attribute in A to its value, an integer in host order."""
    offsets = range(4, 8) if sys.byteorder == "big" else range(7, 3, -1)
    found = [Instruction(_ST, _OFFSET), Instruction(_LD_IMM, 0), Instruction(_ST, _VALUE)]
    for offset in offsets:
        found += [
            Instruction(_LD_MEM, _VALUE),
            Instruction(_LSH, 8),
            Instruction(_ST, _VALUE),
            Instruction(_LDX_MEM, _OFFSET),
            Instruction(_LD_IND_B, offset),
            Instruction(_LDX_MEM, _VALUE),
            Instruction(_OR_X, 0),
            Instruction(_ST, _VALUE),
        ]
    return found


def _swapped(size: str, value: int) -> int:
    """What a load, which takes bytes in network order, makes of a value that netlink has in host order."""
    return int(struct.unpack(f">{size}", struct.pack(f"={size}", value))[0])
