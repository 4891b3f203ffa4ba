# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine, looked at once. Needs no privilege."""

from __future__ import annotations

from ipaddress import IPv6Address

from npd6_xdp.core.neighbour_messages import PRESENT
from npd6_xdp.system.firewall import find
from npd6_xdp.system.netlink.router import Router
from npd6_xdp.system.netlink.survey import look
from npd6_xdp.system.sysctl import read
from npd6_xdp.tools.init.machine import BareMachine

_KEYS = ("accept_ra", "forwarding", "disable_ipv6")


def machine() -> BareMachine:
    """As it is now. Raises MachineError where the kernel doesn't tell."""
    seen = look()
    names = [link.name for link in seen.links]
    sysctls = {key: read(key) for name in ("all", *names) for key in (f"conf/{name}/{each}" for each in _KEYS)}
    return BareMachine(
        {link.ifindex: link for link in seen.links},
        seen.addresses,
        seen.routes,
        tuple(
            (entry.ifindex, IPv6Address(entry.address))
            for entry in seen.neighbours
            if entry.state & PRESENT and not entry.proxy
        ),
        {key: value for key, value in sysctls.items() if value is not None},
        frozenset(name for name in names if Router.heard(name)),
        find("rdisc6") is not None,
    )
