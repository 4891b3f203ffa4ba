# SPDX-License-Identifier: GPL-2.0-or-later
"""Which interfaces are on top of which: by which one the kernel takes a port's frames to come in, and who else gets
them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import NamedTuple

from npd6_xdp.core.link_messages import LinkEntry, LinkFlag
from npd6_xdp.core.roles import MacDevice

Tags = tuple[int, ...]

_RIDERS = ("macvlan", "macvtap", "ipvlan", "ipvtap")
_HANDS_XDP_DOWN = ("bond", "")
"""Kinds of masters whose native XDP program runs on their slaves, under the slaves' indexes: a bond, and Hyper-V's
synthetic device with a virtual function (drivers/net/hyperv/netvsc_bpf.c), which has no kind. A bridge has no native
mode, nor a team."""


def mac_devices(links: Iterable[LinkEntry], macs: Set[bytes]) -> frozenset[MacDevice]:
    """The devices among some links that are up and have one of these MAC addresses, by what each stands on."""
    return frozenset(
        MacDevice(link.parent, link.mac)
        for link in links
        if link.mac in macs and link.kind in _RIDERS and link.flags & LinkFlag.UP
    )


class Stack(NamedTuple):
    """What is above and below a port, for LinkFacts: see there.

    `l3`, `bridge_macs`, `shared`, `riders` and `rider_macs` are by VLAN ids; `riders` are the indexes of the devices
    that get such frames as well, `rider_macs` the MAC addresses of those that are up.
    """

    l3: Mapping[Tags, int]
    bridge_macs: Mapping[Tags, bytes]
    shared: frozenset[Tags]
    riders: Mapping[Tags, tuple[int, ...]]
    lower: tuple[int, ...]
    lossy: bool
    tpids: Mapping[Tags, tuple[int, ...]]
    rider_macs: Mapping[Tags, frozenset[bytes]]


class Stacking:
    """All links of the machine, with what is above and below each."""

    def __init__(self, links: Mapping[int, LinkEntry]) -> None:
        self._links = links
        self._vlans: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        self._riders: defaultdict[int, list[int]] = defaultdict(list)
        self._slaves: defaultdict[int, list[LinkEntry]] = defaultdict(list)
        for link in links.values():
            if link.kind == "vlan":
                self._vlans[link.parent].append((link.vlan, link.ifindex))
            elif link.kind in _RIDERS:
                self._riders[link.parent].append(link.ifindex)
            if link.master:
                self._slaves[link.master].append(link)

    def is_alone(self, port: LinkEntry) -> bool:
        """Whether no link is above or below this one; then of() depends on the link itself only."""
        number = port.ifindex
        return not (port.master or number in self._vlans or number in self._riders or number in self._slaves)

    def of(self, port: LinkEntry) -> Stack:
        """The stack of one port."""
        ways = dict(self._ways(port))
        riders = {tags: tuple(self._riders.get(way[-1].ifindex, ())) for tags, way in ways.items()}
        bridged = {tags for tags, way in ways.items() if any(link.kind == "bridge" for link in way[1:])}
        slaves = self._slaves.get(port.ifindex, []) if port.kind in _HANDS_XDP_DOWN else []
        return Stack(
            {tags: way[-1].ifindex for tags, way in ways.items()},
            {tags: ways[tags][-1].mac for tags in bridged if ways[tags][-1].mac},
            frozenset(tags for tags, way in ways.items() if tags in bridged or riders[tags] or self._switched(way[-1])),
            {tags: found for tags, found in riders.items() if found},
            # What a bond's slave gets that the bond isn't using now is a copy of what another one gets: the bond drops
            # it (bond_should_deliver_exact_match()), and to the program it is nobody's.
            tuple(sorted(slave.ifindex for slave in slaves if not slave.backup)),
            port.kind == "veth" or any(slave.kind == "veth" for slave in slaves),
            {tags: tuple(link.tpid for link in way[1:] if link.kind == "vlan") for tags, way in ways.items() if tags},
            {tags: frozenset(self._macs_of(found)) for tags, found in riders.items() if found},
        )

    def _macs_of(self, ifindexes: Iterable[int]) -> Iterator[bytes]:
        """The MAC addresses of those of some devices that are up, and so take in what is sent there."""
        for link in (self._links[ifindex] for ifindex in ifindexes):
            if link.mac and link.flags & LinkFlag.UP:
                yield link.mac

    def l3(self, port: LinkEntry) -> Mapping[Tags, int]:
        """The indexes of the L3 interfaces that a port's frames come in by."""
        return {tags: way[-1].ifindex for tags, way in self._ways(port)}

    def _ways(self, port: LinkEntry) -> Iterator[tuple[Tags, tuple[LinkEntry, ...]]]:
        """The interfaces that frames with these VLAN ids pass, from the port to the L3 interface that takes them in.

        () is the port, or the bridge that it belongs to; (100,) the VLAN device with that id on it; (100, 7) one on
        that. Of two ways for the same ids the later one counts: the kernel looks for VLAN devices on a port before a
        bridge gets the frame.
        """
        base = self._up_bridge((port,))
        yield (), base
        for below in dict.fromkeys((base, (port,))):
            for outer, device in self._devices(below):
                yield (outer,), self._up_bridge(device)
                for inner, stacked in self._devices(device):
                    yield (outer, inner), self._up_bridge(stacked)

    def _devices(self, way: tuple[LinkEntry, ...]) -> Iterator[tuple[int, tuple[LinkEntry, ...]]]:
        """The VLAN devices at the end of a way: the VLAN id, and the way to it."""
        for vlan, ifindex in self._vlans.get(way[-1].ifindex, ()):
            yield vlan, (*way, self._links[ifindex])

    def _up_bridge(self, way: tuple[LinkEntry, ...]) -> tuple[LinkEntry, ...]:
        master = self._links.get(way[-1].master)
        return (*way, master) if master is not None and master.kind == "bridge" else way

    def _switched(self, link: LinkEntry) -> bool:
        master = self._links.get(link.master)
        return master is not None and master.kind == "openvswitch"
