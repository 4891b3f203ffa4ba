# SPDX-License-Identifier: GPL-2.0-or-later
"""What is behind an uplink: which interfaces hosts with addresses of its prefixes may be on, and how that is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core.link_messages import LinkEntry, LinkFlag
from npd6_xdp.core.prefix import BITS, Prefix
from npd6_xdp.core.survey import Way
from npd6_xdp.tools.init.machine import BareMachine, has_neighbours, what_it_is
from npd6_xdp.tools.init.uplinks import Uplink

_STATIONS = ("bridge", "veth", "tun", "vlan")
"""Kinds of interfaces that are made for others to be behind them. Hardware may lead anywhere."""
_ON_UPSTREAMS_LINK = ("macvlan", "macvtap", "ipvlan", "ipvtap")
"""Kinds of devices that share the link of what they are on."""


class Found(NamedTuple):
    """An interface behind which hosts of a prefix are, how that is known, and hosts that have been seen there."""

    link: LinkEntry
    how: str
    hosts: tuple[IPv6Address, ...] = ()


class Behind(NamedTuple):
    """What is behind for a prefix that is on an uplink's link.

    `found` have hosts of it by what they hold or have seen; `longer` are routes to parts of it. `idle` have no prefix
    of their own, and are up or, where none is, could be; they count only where there is nothing else. `passed_over`
    says of which interfaces it can't be told, and why.
    """

    found: tuple[Found, ...]
    longer: tuple[tuple[LinkEntry, Way], ...]
    idle: tuple[Found, ...]
    passed_over: tuple[str, ...]


def insides(machine: BareMachine, uplink: Uplink, others: Iterable[Uplink]) -> list[LinkEntry]:
    """The interfaces that may have hosts behind them which an uplink's upstream asks for, in order of their names."""
    outside = {link.ifindex for each in (uplink, *others) for link in (each.link, each.port)}
    return [
        link
        for link in sorted(machine.links.values(), key=lambda link: link.name)
        if link.ifindex not in outside
        and machine.may_be_behind(link)
        and machine.table(link) == machine.table(uplink.link)
        and not (link.kind in _ON_UPSTREAMS_LINK and link.parent in outside)
    ]


def behind(machine: BareMachine, uplink: Uplink, prefix: Prefix, inside: Sequence[LinkEntry]) -> Behind:
    """What is behind for a prefix that is on an uplink's link."""
    longer = tuple(
        (link, way)
        for link in inside
        for way in machine.ways(link)
        if way.destination.length > prefix.length and prefix.covers(way.destination)
    )
    found = [each for link in inside if (each := _found(machine, link, prefix, longer)) is not None]
    taken = {each.link.ifindex for each in found} | {link.ifindex for link, _ in longer}
    idle, passed_over = _idle(machine, uplink, [link for link in inside if link.ifindex not in taken])
    return Behind(tuple(found), longer, idle, passed_over)


def _found(
    machine: BareMachine, link: LinkEntry, prefix: Prefix, longer: Sequence[tuple[LinkEntry, Way]]
) -> Found | None:
    """An interface that holds an address of a prefix itself, or has hosts of it in its neighbour table."""
    parts = [way.destination for other, way in longer if other is link and way.destination.length < BITS]
    held = [h for h in machine.held(link) if prefix.covers(h.network) and h.length in (prefix.length, BITS)]
    wider = [h for h in machine.held(link) if h.length < prefix.length and h.network.covers(prefix)]
    hosts = tuple(
        host
        for host in machine.neighbours_in(link, prefix)
        if not any(part.covers(Prefix(int(host), BITS)) for part in parts)
    )
    name = f"{link.name} ({what_it_is(link)})"
    if own := [*held, *wider]:
        return Found(link, f"{name} has {own[0].address}/{own[0].length} of it{_seen(hosts)}", hosts)
    if hosts and has_neighbours(link):
        return Found(link, f"{name} has hosts of it{_seen(hosts)}", hosts)
    return None


def _seen(hosts: Sequence[IPv6Address]) -> str:
    more = f" and {len(hosts) - 2} more" if len(hosts) > 2 else ""
    return f", and {', '.join(map(str, hosts[:2]))}{more} in its neighbour table" if hosts else ""


def _idle(
    machine: BareMachine, uplink: Uplink, links: Iterable[LinkEntry]
) -> tuple[tuple[Found, ...], tuple[str, ...]]:
    """Interfaces without any prefix, which hosts may be on: those that are made for that, else other Ethernet ones."""
    free, passed_over = [], []
    for link in links:
        if not has_neighbours(link) or machine.on_link(link) or link.ifindex == uplink.port.parent:
            continue
        if link.ifindex == uplink.link.parent:  # of a VLAN device: what is untagged there may be anything
            continue
        if machine.sysctl(link, "disable_ipv6") == "1":
            passed_over.append(f"{link.name} ({what_it_is(link)}): IPv6 is off there (disable_ipv6)")
        else:
            free.append(link)
    made = [link for link in free if link.kind in _STATIONS]
    first = made or free
    up = [link for link in first if link.up]
    chosen = up or first
    for link in free:
        if link not in chosen:
            why = "nobody is there now" if link in first else "it may lead anywhere"
            down = "" if link.flags & LinkFlag.UP else "it is down"
            passed_over.append(f"{link.name} ({what_it_is(link)}): {down or why}")
    return tuple(Found(link, _how_idle(link)) for link in chosen), tuple(passed_over)


def _how_idle(link: LinkEntry) -> str:
    state = "is up" if link.up else "has nobody on it yet"
    return f"{link.name} ({what_it_is(link)}) {state}, and has no prefix of its own"
