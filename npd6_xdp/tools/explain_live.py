# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp explain --live`: the daemon is asked what it knows of a target, and the kernel what its tables have."""

from __future__ import annotations

from contextlib import closing
from ipaddress import IPv6Address
from pathlib import Path
from typing import NamedTuple

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.event import UNSPECIFIED
from npd6_xdp.core.live import Foreseen, Kernel, Known, foresee
from npd6_xdp.core.live_text import live_text
from npd6_xdp.core.neighbour_messages import NeighbourState
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.routes import RouteQuestion, RoutingFlag
from npd6_xdp.core.table import Decision
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.system.netlink.route_questions import RouteQuestions, judge
from npd6_xdp.tools.control import ask

_MOST = 64  # interfaces whose neighbour tables are looked at


class Live(NamedTuple):
    """What is known of a target on one entry, and what the next solicitation for it gets there."""

    known: Known
    kernel: Kernel
    foreseen: Foreseen


def run(
    control: Path, target: IPv6Address, interface: str | None, vlan: tuple[int, ...] | None, source: IPv6Address | None
) -> None:
    """Print what is known. Raises MachineError where nobody can say."""
    found = look(control, target, interface, vlan, source)
    print("\n\n".join(live_text(*each) for each in found), flush=True)


def look(
    control: Path,
    target: IPv6Address,
    interface: str | None = None,
    vlan: tuple[int, ...] | None = None,
    source: IPv6Address | None = None,
) -> list[Live]:
    """Ask daemon and kernel: of each entry that is concerned. A `source` of None is whoever asked last."""
    question = {
        "verb": "explain",
        "target": str(target),
        "interface": interface,
        "vlan": None if vlan is None else list(vlan),
        "source": None if source is None else str(source),
    }
    said = ask(control, question)
    try:
        known = [Known.parse(each) for each in said["entries"]]
    except (ValueError, TypeError, KeyError) as error:
        raise MachineError(f"{control}: the daemon is of another version than this command: {error!r}") from error
    found = []
    with closing(Requests()) as requests, closing(RouteQuestions()) as routes:
        for each in known:
            kernel = _kernel(each, requests, routes)
            found.append(Live(each, kernel, foresee(each, kernel)))
    return found


def _kernel(known: Known, requests: Requests, routes: RouteQuestions) -> Kernel:
    """What its tables say now."""
    target, source = IPv6Address(known.target).packed, IPv6Address(known.source)
    by_source = known.routing & RoutingFlag.SOURCE and not source.is_link_local
    via = set(known.via.values()) if known.rule and known.rule.via and known.decision is Decision.ROUTE else None
    asked = RouteQuestion(target, source.packed if by_source else UNSPECIFIED, known.l3[1], via, {*known.nowhere})
    reply = routes.ask(asked)
    links = {**dict(list(known.via.items())[:_MOST]), known.l3[0]: known.l3[1]}
    neighbours = {}
    for name, ifindex in links.items():
        word = requests.neighbour(Host(ifindex, target))
        if word.state or word.mac:
            neighbours[name] = (str(NeighbourState(word.state).name or word.state).lower(), word.mac.hex(":"))
    return Kernel(reply, reply is not None and judge(reply, asked), routes.route(asked), neighbours)
