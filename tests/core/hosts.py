# SPDX-License-Identifier: GPL-2.0-or-later
"""A table of method neighbour, and the addresses of its hosts, for the tests of hosts and of pending targets."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Address

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.neighbour_messages import NeighbourState
from npd6_xdp.core.neighbours import Host, Neighbours, PresentTarget
from npd6_xdp.core.table import Table

MAC = bytes.fromhex("020000000001")
LINKS = {name: LinkFacts(name, ifindex, MAC) for name, ifindex in (("wan0", 7), ("lan0", 8), ("lan1", 9))}


def table(*rules: str, before: Table | None = None) -> Table:
    """A table of method neighbour: "PREFIX lan0 lan1 ...", a rule each."""
    lines = ['[[interface]]\nname = "wan0"']
    for prefix, *via in map(str.split, rules):
        lines.append(f'[[interface.rule]]\nprefix = "{prefix}"\nmethod = "neighbour"\nvia = {via}')
    lines += [] if rules else ['[[interface.rule]]\nprefix = "::/0"\nmethod = "static"']
    return build(parse("\n".join(lines), "test"), LINKS, before)


def told(neighbours: Neighbours, states: Mapping[Host, NeighbourState]) -> list[PresentTarget]:
    """All of the neighbour table, as it is read once notifications were lost: first who is in it, then who isn't."""
    gone = dict.fromkeys([host for host in neighbours.all_hosts() if host not in states], NeighbourState.NONE)
    changes = [neighbours.changed(host, state) for host, state in (*states.items(), *gone.items())]
    return [change for some in changes for change in some]


def at(suffix: int, prefix: str = "2001:db8:1::") -> bytes:
    return IPv6Address(int(IPv6Address(prefix)) + suffix).packed
