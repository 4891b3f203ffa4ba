# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports behind which there are devices that netlink doesn't list: macvlan and ipvlan devices in other network
namespaces.

Such a device is listed in the namespace that it lives in only, a container's, but its multicast groups are in its
parent's filter, where this namespace can read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from npd6_xdp.core.steps import Steps

_SOLICITED_NODE = b"3333ff"  # what ff02::1:ff00:0/104 is on Ethernet (RFC 4291 §2.7.1, RFC 2464 §7)
_PIECE = 1 << 14  # bytes that are read at most at once
_FILTERS = Path("/proc/thread-self/net/dev_mcast")
_MEMBERSHIPS = Path("/proc/thread-self/net/igmp6")


def ports_with_guests(filters: Path = _FILTERS, memberships: Path = _MEMBERSHIPS) -> Steps[frozenset[int]]:
    """The indexes of interfaces that listen to solicited-node groups which no interface of this namespace has joined,
    bit by bit: the kernel tells of some dozens of groups at a time, and of thousands of ports in 100 ms.

    None of them where the kernel doesn't tell. What is joined or left meanwhile is ours: who has joined is asked for
    before and after. Where links go while the kernel tells, it leaves out lines of others, and not the same ones twice.
    """
    listened: list[tuple[bytes, bytes]] = []
    ours: set[bytes] = set()
    try:
        yield from _take_in(memberships, ours)
        for lines in _lines(filters):
            found = [fields for fields in lines if len(fields) == 5 and fields[4].startswith(_SOLICITED_NODE)]
            listened += [(fields[0], fields[4]) for fields in found]
            yield
        yield from _take_in(memberships, ours)
    except OSError:
        return frozenset()
    return frozenset(int(ifindex) for ifindex, group in listened if group not in ours)


def _take_in(memberships: Path, ours: set[bytes]) -> Steps[None]:
    for lines in _lines(memberships):
        ours.update([b"3333" + fields[2][-8:] for fields in lines if len(fields) > 2])
        yield


def _lines(path: Path) -> Iterator[list[list[bytes]]]:
    """The fields of a file's lines, as many at a time as the kernel tells at once."""
    with path.open("rb", buffering=0) as file:
        rest = b""
        while piece := file.read(_PIECE):
            # bytes, since names needn't be text, and what Linux takes for a space is what bytes.split() does
            *lines, rest = (rest + piece).split(b"\n")
            yield [line.split() for line in lines]
        yield [rest.split()]
