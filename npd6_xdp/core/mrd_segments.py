# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a multicast router is announced, and from which addresses (RFC 4286 §3): of a table and the links' facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from npd6_xdp.core.config import Datapath
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.links import LinkFacts, own_link_local
from npd6_xdp.core.mrd import Tags, tags_of
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.core.table import Table

_PIECE = 256  # entries that are looked at at once


class Segment(NamedTuple):
    """A port, and the VLAN ids of the frames that it is announced in, outermost first."""

    ifindex: int
    tags: Tags


class Sender(NamedTuple):
    """Who announces himself in a segment: another one, and all begins anew. `tags` are the raw VLAN tags.

    The MAC address is the port's own (or its bridge's), and so is the source (own_link_local()): this machine announces
    itself, also while an address that moves between two machines is here.
    """

    label: str
    mac: bytes
    source: bytes
    tags: bytes
    generation: int


class Segments(NamedTuple):
    """The segments by who announces himself there; and those where nobody can at the moment, by the reason's line.

    The line is "" where there is nothing to say: the link is down, or its address is yet to be confirmed.
    """

    senders: Mapping[Segment, Sender]
    waiting: Mapping[Segment, str]


NOWHERE = Segments({}, {})


def finding_segments(table: Table, links: Mapping[str, LinkFacts]) -> Steps[Segments]:
    """The segments of the entries with `multicast_router`, but for those of datapath "monitor", where nothing is sent.

    Under `vlan = "any"` those are the untagged frames, and each VLAN that this machine has a device for.
    """
    found = Segments(senders := {}, waiting := {})
    for some in pieces(table.entry_ids.values(), _PIECE):
        for entry in map(table.entries.__getitem__, some):
            if not entry.multicast_router or entry.vlan.any or entry.datapath is Datapath.MONITOR:
                continue
            segment, link = Segment(entry.ifindex, entry.vlan.tags), links[entry.port]
            sender = _sender(entry, link)
            if sender is not None:
                senders[segment] = sender
            else:
                waiting[segment] = _why_not(entry, link)
        yield
    return found


def _sender(entry: Entry, link: LinkFacts) -> Sender | None:
    tags = entry.vlan.tags
    mac = link.mac_of(tags)
    source = own_link_local(entry.addresses, mac) if link.up else None
    if source is None:
        return None
    return Sender(entry.label, mac, source.packed, tags_of(tags, link.tpids.get(tags, ())), link.generation)


def _why_not(entry: Entry, link: LinkFacts) -> str:
    if not link.up or any(own.address.is_link_local for own in entry.addresses):
        return ""
    return f"{entry.label}: no link-local address, so multicast_router announces nothing; it does once there is one"
