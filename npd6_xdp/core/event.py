# SPDX-License-Identifier: GPL-2.0-or-later
"""A solicitation as the XDP program hands it up: valid, matched by a rule, and waiting for its answer.

Its fields are those of NS_EVENT in core/layout.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntFlag
from typing import NamedTuple

from npd6_xdp.core.layout import NS_EVENT

EVENT_SIZE = NS_EVENT.size
"""Bytes of one event."""
_RECORD = struct.Struct(f"=12x{NS_EVENT.format}")
RECORD_SIZE = _RECORD.size
"""Bytes of one event on the ring: behind a header of 8 bytes (struct perf_event_header) and its size, of 4."""
assert RECORD_SIZE == 64

UNSPECIFIED = bytes(16)
"""The address :: as a source marks a probe of Duplicate Address Detection (RFC 4862 §5.4.2)."""

fields_of_record = _RECORD.unpack
"""The fields of one event, as a plain tuple, from its RECORD_SIZE bytes on the ring."""
fields_of_run = _RECORD.iter_unpack
"""The same of each event of a run: a third of the time that NsEvents take."""

_TPID_8021Q = b"\x81\x00"
_TPID_8021AD = b"\x88\xa8"


class EventFlag(IntFlag):
    """`enum event_flag`: how many VLAN tags the frame has, which of them are 802.1ad's, and what is to be done.

    MISS: the target is to be resolved (method neighbour) or added (kernel), or the kernel asked about it (route).
    STALE: it is known, and the kernel is to probe whether that still holds. ANSWERED: XDP has answered and counted
    already. HEARD: the asker is new on this link, or has another MAC address than before, and the kernel doesn't see
    this solicitation. TRACED: somebody waits to hear what becomes of it.
    """

    COUNT = 3
    OUTER_8021AD = 4
    INNER_8021AD = 8
    MISS = 16
    STALE = 32
    ANSWERED = 64
    HEARD = 128
    TRACED = 256


class NsEvent(NamedTuple):
    """One event. Addresses are 16 bytes, MACs 6, in network order.

    `time_us` is CLOCK_MONOTONIC in microseconds modulo 2^32, read when the frame was seen; `rule` is the id of the
    rule that covers the target (core.table.Table.rules); `answer_mac` is where the answer goes; `tci` holds
    two VLAN tag control fields, of which `flags` says how many count.
    """

    target: bytes
    source: bytes
    time_us: int
    rule: int
    answer_mac: bytes
    tci: bytes
    flags: int

    @classmethod
    def unpack(cls, data: bytes) -> NsEvent:
        """From the bytes of one event; longer input (the ring's padding) is cut. struct.error when it is shorter."""
        return cls._make(NS_EVENT.unpack_from(data))

    @classmethod
    def unpack_run(cls, run: bytes) -> Iterator[NsEvent]:
        """From records that stand side by side. struct.error when the last one is cut."""
        return map(cls._make, fields_of_run(run))

    def pack(self) -> bytes:
        """The bytes that `unpack` reads."""
        return NS_EVENT.pack(*self)

    def pack_record(self) -> bytes:
        """As it stands on the ring; its header's contents are not ours."""
        return bytes(RECORD_SIZE - EVENT_SIZE) + self.pack()

    @property
    def is_ours(self) -> bool:
        """Whether nobody has asked: a target is looked for to be announced. No answer goes to a group (C9)."""
        return bool(self.answer_mac[0] & 1)

    @property
    def is_dad(self) -> bool:
        """Whether the asker probes an address that it wants for itself."""
        return self.source == UNSPECIFIED

    def vlan_tags(self) -> bytes:
        """The tags as they stand in the frame between MAC addresses and EtherType: 0, 4 or 8 bytes."""
        count = self.flags & EventFlag.COUNT
        if not count:
            return b""
        outer = (_TPID_8021AD if self.flags & EventFlag.OUTER_8021AD else _TPID_8021Q) + self.tci[:2]
        if count == 1:
            return outer
        return outer + (_TPID_8021AD if self.flags & EventFlag.INNER_8021AD else _TPID_8021Q) + self.tci[2:]
