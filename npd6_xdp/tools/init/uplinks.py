# SPDX-License-Identifier: GPL-2.0-or-later
"""Which interfaces face an upstream: those that the default route leads out of, or that a router has been heard on."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core.config import is_glob
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.route_messages import RouteType
from npd6_xdp.core.survey import Protocol, Way
from npd6_xdp.tools.init.machine import BareMachine

_EVERYWHERE = Prefix.of("2000::/3")
"""All global unicast addresses (RFC 4291 §2.4): a route for them does as a default route."""
_HARDWARE = ("", "bond", "vlan", "team")  # kinds of a bridge's port that leads out of this machine
_NO_PORT = ("ipvlan", "ipvtap")


class Uplink(NamedTuple):
    """`link` is where its addresses and routes are, `port` the interface to name. `advertised`: the default route comes
    by router advertisements; `lost`: it did, and is gone.
    """

    link: LinkEntry
    port: LinkEntry
    why: str
    advertised: bool = False
    lost: bool = False


def uplinks(machine: BareMachine) -> list[Uplink]:
    """The uplinks, the one that the kernel prefers first. Raises MachineError, in a line, where there are none."""
    defaults = list(_defaults(machine))
    found: dict[int, Uplink] = {}
    for way, link, gateway in defaults:
        if _is_port(link):
            found.setdefault(link.ifindex, _uplink(machine, way, link, gateway))
    if found:
        return list(found.values())
    if defaults:
        name, kind = defaults[0][1].name, defaults[0][1].kind
        if kind in _NO_PORT:
            raise MachineError(f"{name} is an {kind} device, which can't be answered on: use a macvlan device instead")
        raise MachineError(
            f"the default route leads out of {name}, which has no Ethernet framing: nobody asks for addresses there, so"
            " there is nothing to answer; what is routed to you only takes forwarding (net.ipv6.conf.all.forwarding)"
        )
    if lost := _lost(machine):
        return lost
    raise MachineError(
        "no IPv6 default route here, so it can't be told which interface faces the upstream: add one (ip -6 route add"
        " default via GATEWAY dev IF) and try again, or write the file by hand (npd6-xdp.toml(5))"
    )


def _defaults(machine: BareMachine) -> Iterator[tuple[Way, LinkEntry, IPv6Address | None]]:
    """The default routes by the interfaces that they lead out of, those first that the kernel prefers; and behind those
    of the usual table others, which rules (`ip -6 rule`) choose for some sources.
    """
    found = [
        (way.table != machine.table(link), way.metric, at, (way, link, gateway))
        for at, way in enumerate(machine.routes)
        if way.destination.covers(_EVERYWHERE) and way.type == RouteType.UNICAST
        for ifindex, gateway in way.hops
        if (link := machine.links.get(ifindex)) is not None
    ]
    yield from (each for *_, each in sorted(found, key=lambda each: each[:3]))


def _uplink(machine: BareMachine, way: Way, link: LinkEntry, gateway: IPv6Address | None) -> Uplink:
    advertised = way.protocol == Protocol.RA
    by = f", by {gateway}" if gateway else ""
    vrf = machine.vrf(link)
    of = f" of the VRF {vrf.name}" if vrf else ""
    source = ", and came by router advertisements" if advertised else ""
    return Uplink(link, port(machine, link), f"the default route{of} leads out of it{by}{source}", advertised)


def _lost(machine: BareMachine) -> list[Uplink]:
    """Where router advertisements came in and gave an address, while the kernel takes no default route from them."""
    found = []
    for link in sorted(machine.links.values(), key=lambda link: link.name):
        given = link.name in machine.heard and any(held.advertised for held in machine.held(link))
        if given and _is_port(link) and machine.sysctl(link, "accept_ra") != "0":
            why = (
                "router advertisements have given it an address; there is no default route any more, as"
                " forwarding is on there without accept_ra = 2"
            )
            found.append(Uplink(link, port(machine, link), why, advertised=True, lost=True))
    return found


def _is_port(link: LinkEntry) -> bool:
    return bool(link.mac) and link.kind not in _NO_PORT and not is_glob(link.name)


def port(machine: BareMachine, link: LinkEntry) -> LinkEntry:
    """The interface that frames of an uplink come in by: of a bridge the one port that leads out of this machine."""
    if link.kind != "bridge":
        return link
    ports = machine.ports(link)
    outward = [each for each in ports if each.kind in _HARDWARE and each.mac]
    for some in (outward, ports):
        if len(some) == 1 and not is_glob(some[0].name):
            return some[0]
    return link
