# SPDX-License-Identifier: GPL-2.0-or-later
"""Bridges that snoop MLD: which of them keep questions from coming in, or from getting to the hosts behind."""

from __future__ import annotations

from collections.abc import Iterator

from npd6_xdp.core.names import word
from npd6_xdp.core.vias import used_vias
from npd6_xdp.tools.doctor.facts import Facts
from npd6_xdp.tools.doctor.finding import Finding, note, ok, warn

_ALWAYS = 2  # multicast_router: it takes in all groups


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of them."""
    for name in sorted(facts.ports):
        link = facts.links[name]
        parent = facts.name(facts.ports[name].entry.parent)
        if name in facts.bridges:
            yield _port(facts, name, name)
        elif parent in facts.bridges:  # a VLAN device on it, a macvlan
            yield _port(facts, name, parent)
        elif link.bridge in facts.bridges and facts.bridges[link.bridge].snooping:
            yield ok("snooping", f"{name}: the program sees what comes in before {link.bridge}, which snoops MLD")
    seen = set()
    for via in used_vias(facts.config, facts.links):
        name = via.link.bridge or via.link.name
        if name in facts.bridges and name not in seen:
            seen.add(name)
            yield _via(facts, via.link.name, name)


def _port(facts: Facts, name: str, bridge: str) -> Finding:
    """A bridge takes in groups itself only where it has joined them, once it snoops and somebody asks for listeners."""
    its = facts.bridges[bridge]
    which = "the bridge" if name == bridge else f"the bridge {bridge}, which it is on,"
    if not its.snooping or its.router == _ALWAYS:
        return ok("snooping", f"{name}: {which} takes in all groups")
    mend = f"ip link set dev {word(bridge)} type bridge mcast_router 2"
    text = f"{name}: {which} snoops MLD, so solicitations of a larger prefix don't get in"
    return warn("snooping", text, mend) if its.querier else note("snooping", f"{text} once there is a querier", mend)


def _via(facts: Facts, via: str, bridge: str) -> Finding:
    """Without a querier a bridge sends each question out of all ports (br_multicast_querier_exists)."""
    its = facts.bridges[bridge]
    what = f"via {via}" if via == bridge else f"via {via}, a port of {bridge}"
    if not its.snooping:
        return ok("snooping", f"{what}: questions for hosts go out of all ports")
    if not its.querier:
        return ok(
            "snooping",
            f"{what}: it snoops MLD and is no querier itself: while there is none, questions for hosts go out of all"
            " ports; a switch behind it that snoops needs one",
        )
    return note(
        "snooping",
        f"{what}: it snoops MLD, with a querier, so a host that doesn't say by MLD that it listens (RFC 4861 §7.2.1) is"
        " never asked, and not found",
        f"ip link set dev {word(bridge)} type bridge mcast_snooping 0",
    )
