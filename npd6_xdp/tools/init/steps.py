# SPDX-License-Identifier: GPL-2.0-or-later
"""What `init` leaves to be done by hand: addresses and routes, which belong to whatever manages the network here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address

from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.names import word
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.warnings import solicited
from npd6_xdp.tools.init.machine import BareMachine, has_neighbours, manager
from npd6_xdp.tools.init.plan import Step
from npd6_xdp.tools.init.rules import Shared
from npd6_xdp.tools.init.uplinks import Uplink

_GATEWAY = IPv6Address("fe80::1")
_PAGES = {
    "Docker": "docs/recipes/docker.md",
    "Podman": "docs/recipes/docker.md",
    "Incus": "docs/recipes/incus.md",
    "LXD": "docs/recipes/incus.md",
}


def steps(
    machine: BareMachine, ups: Sequence[Uplink], lans: Sequence[LinkEntry], shared: Sequence[Shared]
) -> tuple[Step, ...]:
    """All of them, in the order in which they are worth doing."""
    found = [*_second_routes(machine, shared, lans), *_tunnels(machine, ups), *_advertised(machine, ups)]
    if len(ups) > 1:
        found.append(_several(ups))
    for link in filter(has_neighbours, lans):
        outside = [prefix for each in shared if link in each.vias for prefix in machine.on_link(each.uplink.link)]
        found += _ways_out(machine, link, [*machine.on_link(link), *outside])
    return tuple(found)


def _second_routes(machine: BareMachine, shared: Sequence[Shared], lans: Sequence[LinkEntry]) -> Iterator[Step]:
    """Interfaces behind that bring a second route for the uplink's prefix: the kernel takes one of the two for all."""
    for each in shared:
        outside = each.uplink.link
        for link in each.vias:
            for prefix in machine.on_link(outside):
                if machine.has_route(outside, prefix) and machine.has_route(link, prefix):
                    yield _second_route(machine, outside, link, prefix)


def _second_route(machine: BareMachine, outside: LinkEntry, link: LinkEntry, prefix: Prefix) -> Step:
    words = (
        f"{prefix} has two routes, by {outside.name} and by {link.name}, of which the kernel takes one for all: what is"
        " for the other side is lost."
    )
    held = [h for h in machine.held(link) if h.network == prefix and not h.bare]
    if (who := manager(link)) and held:
        return Step(
            f"{words} {who} would give {link.name} its address again, so make that of {outside.name} a /128, in the"
            f" network's configuration ({_PAGES.get(who, 'docs/recipes/incus.md')})."
        )
    if held:
        return Step(
            f"{words} Each host behind gets its own route, so keep the address of {link.name} without that for the"
            " prefix, and write it as a /128 into the network's configuration for the next boot:",
            tuple(f"ip -6 address change {h.address}/{h.length} dev {word(link.name)} noprefixroute" for h in held),
        )
    return Step(words, (f"ip -6 route del {prefix} dev {word(link.name)}",))


def _tunnels(machine: BareMachine, ups: Sequence[Uplink]) -> Iterator[Step]:
    """Tunnels with the uplink's very prefix: nobody can be asked for there, and no route tells who is."""
    outside = {up.link.ifindex for up in ups}
    prefixes = {prefix for up in ups for prefix in machine.on_link(up.link)}
    for link in machine.links.values():
        if link.ifindex in outside or has_neighbours(link) or not machine.may_be_behind(link):
            continue
        for prefix in sorted(prefixes & set(machine.on_link(link))):
            yield Step(
                f"{link.name} is a tunnel, and has all of {prefix}, as the uplink does: give it a smaller part, such as"
                f" a /80, or a /128 with a route for each peer, and run init again (docs/recipes/wireguard.md)."
            )


def _advertised(machine: BareMachine, ups: Sequence[Uplink]) -> Iterator[Step]:
    for up in ups:
        if up.advertised and machine.sysctl(up.link, "accept_ra") == "0":
            yield Step(
                f"The default route of {up.link.name} comes by router advertisements that a network manager takes in,"
                " not the kernel (accept_ra is 0). See that it goes on doing so on a router: systemd-networkd does with"
                " IPv6AcceptRA=yes in the .network file, NetworkManager by itself."
            )
        if up.lost:
            yield Step(
                f"Once accept_ra is 2, the default route of {up.link.name} comes with the next router advertisement:",
                solicited(up.link.name, can_ask=machine.can_ask_routers),
            )


def _several(ups: Sequence[Uplink]) -> Step:
    names = [up.link.name for up in ups]
    return Step(
        f"{' and '.join(names)} are uplinks. Which of them a prefix behind belongs to can't be told from here: npd6-xdp"
        " status shows on which it is asked for; take its rule out of the others. What the hosts send leaves by the"
        f" default route that the kernel prefers, now by {names[0]}; where a provider drops what comes from the other's"
        " prefix, routes by source (ip -6 rule add from PREFIX table N) send each out by its own."
    )


def _ways_out(machine: BareMachine, link: LinkEntry, prefixes: Sequence[Prefix]) -> Iterator[Step]:
    """The way out for the hosts behind an interface, with addresses of `prefixes`: this machine's address there."""
    if who := manager(link):
        if not machine.on_link(link):
            page = f" ({_PAGES[who]})" if who in _PAGES else ""
            yield Step(
                f"{who} gives the hosts behind {link.name} their addresses: give it the prefix, or a part of"
                f" it{page}; then run init again."
            )
        return
    own = machine.link_locals(link)
    # that of a bridge becomes another one when the port goes whose MAC address it has
    gateway = next((a for a in own if a == _GATEWAY), None) or (own[0] if own and link.kind != "bridge" else None)
    if gateway is None:
        yield Step(
            f"{link.name} needs an address that stays, for the hosts behind it to send to:",
            (f"ip -6 address add {_GATEWAY}/64 dev {word(link.name)}",),
        )
    of = f" of {prefixes[0]}" if prefixes else ""
    yield Step(
        f"The hosts behind {link.name} need an address{of} each, and a default route by this machine, if they"
        " have none:",
        (f"ip -6 route add default via {gateway or _GATEWAY} dev eth0",),
        f"on each host behind {link.name}",
    )
