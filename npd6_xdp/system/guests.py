# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports behind which there are devices that netlink doesn't list: macvlan and ipvlan devices in other network
namespaces.

Such a device is listed in the namespace that it lives in only, a container's, but its multicast groups are in its
parent's filter, where this namespace can read them.
"""

from __future__ import annotations

from pathlib import Path

_SOLICITED_NODE = b"3333ff"  # what ff02::1:ff00:0/104 is on Ethernet (RFC 4291 §2.7.1, RFC 2464 §7)
_FILTERS = Path("/proc/thread-self/net/dev_mcast")
_MEMBERSHIPS = Path("/proc/thread-self/net/igmp6")


def ports_with_guests(filters: Path = _FILTERS, memberships: Path = _MEMBERSHIPS) -> frozenset[int]:
    """The indexes of interfaces that listen to solicited-node groups which no interface of this namespace has joined.

    None of them where the kernel doesn't tell.
    """
    try:
        # bytes, since names needn't be text, and what Linux takes for a space is what bytes.split() does
        listened = [line.split() for line in filters.read_bytes().split(b"\n")]
        joined = [line.split() for line in memberships.read_bytes().split(b"\n")]
    except OSError:
        return frozenset()
    ours = {b"3333" + fields[2][-8:] for fields in joined if len(fields) > 2}
    return frozenset(
        int(fields[0])
        for fields in listened
        if len(fields) == 5 and fields[4].startswith(_SOLICITED_NODE) and fields[4] not in ours
    )
