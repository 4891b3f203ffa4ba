# SPDX-License-Identifier: GPL-2.0-or-later
"""Neighbours and proxy entries in rtnetlink: bytes to values, and back (linux/neighbour.h)."""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import NamedTuple

from npd6_xdp.core.rtnetlink import AF_INET6, PROTOCOL, Flag, Type, attributes_of, number, pack_attribute, pack_message


class NeighbourState(IntFlag):
    """NUD_*: what the kernel knows of a neighbour (RFC 4861 §7.3.2).

    The last two aren't the kernel's states but flags beside them: somebody else looks after the entry, a control plane
    that has learned it elsewhere (NTF_EXT_LEARNED) or the kernel, which resolves it again and again (NTF_EXT_MANAGED).
    """

    NONE = 0x00
    INCOMPLETE = 0x01
    REACHABLE = 0x02
    STALE = 0x04
    DELAY = 0x08
    PROBE = 0x10
    FAILED = 0x20
    NOARP = 0x40
    PERMANENT = 0x80
    LEARNED = 0x100
    MANAGED = 0x200


PRESENT = (
    NeighbourState.REACHABLE
    | NeighbourState.STALE
    | NeighbourState.DELAY
    | NeighbourState.PROBE
    | NeighbourState.PERMANENT
)
"""The states in which a neighbour counts as there: its link-layer address is known, and no probe has failed yet."""

CONFIRMED = NeighbourState.REACHABLE | NeighbourState.PERMANENT
"""Those of them in which the host needn't be probed."""

LOOKED_AFTER = NeighbourState.LEARNED | NeighbourState.MANAGED
"""Flags that a probe of ours must leave, on entries that we must not remove."""

_NDTA_THRESHOLDS = (2, 3, 4)
_NDTA_CONFIG = 5
_NTF_USE = 0x01
_NTF_PROXY = 0x08
_NTF_EXT_LEARNED = 0x10
_NTF_EXT_MANAGED = 0x01  # in NDA_FLAGS_EXT
_NDA_DST = 1
_NDA_LLADDR = 2
_NDA_PROTOCOL = 12
_NDA_FLAGS_EXT = 15
_NDTMSG = struct.Struct("=Bxxx")  # struct ndtmsg
_NDT_CONFIG = struct.Struct("=HHI")  # struct ndt_config, as far as the number of entries
_NDT_HASH = struct.Struct("=16xII")  # of the same: hash_rnd and hash_mask
_NDMSG = struct.Struct("=BxxxiHBB")  # struct ndmsg


class Word(NamedTuple):
    """What the neighbour table says of a host: its state, and its link-layer address (b"" where it has none)."""

    state: int
    mac: bytes = b""


class NeighbourEntry(NamedTuple):
    """A line of the neighbour table, or of its proxy entries: `address` has 16 bytes, `state` is a NeighbourState.

    `mac` is the link-layer address, empty where none is known.
    """

    ifindex: int
    address: bytes
    state: int
    proxy: bool
    protocol: int
    mac: bytes = b""


def parse_neighbour_table(body: bytes) -> tuple[int, tuple[int, int, int]] | None:
    """The body of NEWNEIGHTBL: how many entries the IPv6 table has, and gc_thresh1 to 3; None if it isn't that."""
    if len(body) < _NDTMSG.size or _NDTMSG.unpack_from(body)[0] != AF_INET6:
        return None
    attributes = dict(attributes_of(body, _NDTMSG.size))
    config = attributes.get(_NDTA_CONFIG, b"")
    if len(config) < _NDT_CONFIG.size or any(kind not in attributes for kind in _NDTA_THRESHOLDS):
        return None  # an interface's parameters, without any of these
    first, second, third = (number(attributes[kind]) for kind in _NDTA_THRESHOLDS)
    return int(_NDT_CONFIG.unpack_from(config)[2]), (first, second, third)


def parse_neighbour_hash(body: bytes) -> tuple[int, int] | None:
    """The body of NEWNEIGHTBL: the IPv6 table's hash (seed, mask), another when it has grown; None if it isn't that."""
    if len(body) < _NDTMSG.size or _NDTMSG.unpack_from(body)[0] != AF_INET6:
        return None
    config = dict(attributes_of(body, _NDTMSG.size)).get(_NDTA_CONFIG, b"")
    if len(config) < _NDT_HASH.size:
        return None
    seed, mask = _NDT_HASH.unpack_from(config)
    return seed, mask


def parse_neighbour(body: bytes) -> NeighbourEntry | None:
    """The body of NEWNEIGH or DELNEIGH; None if it is no IPv6 neighbour."""
    if len(body) < _NDMSG.size:
        return None
    family, ifindex, state, flags, _ = _NDMSG.unpack_from(body)
    attributes = dict(attributes_of(body, _NDMSG.size))
    address = attributes.get(_NDA_DST, b"")
    if family != AF_INET6 or len(address) != 16:
        return None
    protocol = (attributes.get(_NDA_PROTOCOL) or b"\0")[0]
    if flags & _NTF_EXT_LEARNED:
        state |= NeighbourState.LEARNED
        # FRR writes remote hosts of an EVPN so; NOARP alone, Linux gives to groups and to loopback
        if state & NeighbourState.NOARP:
            state |= NeighbourState.PERMANENT
    if number(attributes.get(_NDA_FLAGS_EXT, b"")) & _NTF_EXT_MANAGED:
        state |= NeighbourState.MANAGED
    mac = attributes.get(_NDA_LLADDR, b"")
    return NeighbourEntry(ifindex, address, state, bool(flags & _NTF_PROXY), protocol, mac)


def dump_neighbour_tables(sequence: int) -> bytes:
    """Ask how large the IPv6 neighbour table is."""
    return pack_message(Type.GETNEIGHTBL, Flag.REQUEST | Flag.DUMP, sequence, _NDTMSG.pack(AF_INET6))


def use_neighbour(sequence: int, ifindex: int, address: bytes, keep: NeighbourState = NeighbourState.NONE) -> bytes:
    """Have the kernel resolve a neighbour, or confirm a stale one in its time (NTF_USE).

    The state is NUD_NONE: any other would make a permanent entry, beyond the reach of gc_thresh3. `keep` is what of
    LOOKED_AFTER the entry has, which it would lose else.
    """
    flags = Flag.REQUEST | Flag.CREATE
    return _neighbour(Type.NEWNEIGH, flags, sequence, ifindex, address, NeighbourState.NONE, _NTF_USE, keep=keep)


def probe_neighbour(sequence: int, ifindex: int, address: bytes, keep: NeighbourState = NeighbourState.NONE) -> bytes:
    """Have the kernel probe at once a neighbour that it has an entry of (RFC 4861 §7.3.3).

    NTF_USE would wait for DELAY_FIRST_PROBE_TIME (5 s), in which an upper layer may confirm it. Without NLM_F_CREATE:
    where there is no entry any more, none is made. One that is in doubt already is asked when the kernel's next
    question is due, but behind a delay_neighbour().
    """
    return _neighbour(Type.NEWNEIGH, Flag.REQUEST, sequence, ifindex, address, NeighbourState.PROBE, 0, keep=keep)


def delay_neighbour(sequence: int, ifindex: int, address: bytes, keep: NeighbourState = NeighbourState.NONE) -> bytes:
    """Let a neighbour that the kernel has an entry of wait for a probe (RFC 4861 §7.3.3), whatever has been asked."""
    return _neighbour(Type.NEWNEIGH, Flag.REQUEST, sequence, ifindex, address, NeighbourState.DELAY, 0, keep=keep)


def delete_neighbour(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Take a neighbour out of the table."""
    return _neighbour(Type.DELNEIGH, Flag.REQUEST, sequence, ifindex, address, NeighbourState.NONE, 0)


def add_proxy(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Add a proxy entry of ours."""
    flags = Flag.REQUEST | Flag.CREATE | Flag.ACK
    return _neighbour(Type.NEWNEIGH, flags, sequence, ifindex, address, NeighbourState.NONE, _NTF_PROXY, ours=True)


def delete_proxy(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Remove a proxy entry."""
    flags = Flag.REQUEST | Flag.ACK
    return _neighbour(Type.DELNEIGH, flags, sequence, ifindex, address, NeighbourState.NONE, _NTF_PROXY)


def get_neighbour(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Ask for a neighbour."""
    return _neighbour(Type.GETNEIGH, Flag.REQUEST, sequence, ifindex, address, NeighbourState.NONE, 0)


def get_proxy(sequence: int, ifindex: int, address: bytes) -> bytes:
    """Ask for a proxy entry, whoever it belongs to."""
    return _neighbour(Type.GETNEIGH, Flag.REQUEST, sequence, ifindex, address, NeighbourState.NONE, _NTF_PROXY)


def dump_neighbours(sequence: int, *, proxy_entries: bool = False) -> bytes:
    """Ask for the IPv6 neighbour table, or for its proxy entries."""
    body = _NDMSG.pack(AF_INET6, 0, 0, _NTF_PROXY if proxy_entries else 0, 0)
    return pack_message(Type.GETNEIGH, Flag.REQUEST | Flag.DUMP, sequence, body)


def _neighbour(
    kind: Type,
    flags: int,
    sequence: int,
    ifindex: int,
    address: bytes,
    state: int,
    ntf: int,
    *,
    ours: bool = False,
    keep: NeighbourState = NeighbourState.NONE,
) -> bytes:
    if keep & NeighbourState.LEARNED:
        ntf |= _NTF_EXT_LEARNED
    body = _NDMSG.pack(AF_INET6, ifindex, state, ntf, 0) + pack_attribute(_NDA_DST, address)
    if ours:
        body += pack_attribute(_NDA_PROTOCOL, bytes([PROTOCOL]))
    if keep & NeighbourState.MANAGED:
        body += pack_attribute(_NDA_FLAGS_EXT, struct.pack("=I", _NTF_EXT_MANAGED))
    return pack_message(kind, flags, sequence, body)
