# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether this machine is a router: forwarding, and the default route that forwarding may take away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from npd6_xdp.core.names import word
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.route_messages import HERE, TABLE_MAIN
from npd6_xdp.core.table import Decision
from npd6_xdp.core.warnings import Receiver, advertisement_warnings, forwarding_mend, solicited
from npd6_xdp.tools.doctor.facts import Facts
from npd6_xdp.tools.doctor.finding import Finding, fail, note, ok, warn

"""What is sent there is for this machine."""
_EVERYWHERE = Prefix(0x2000 << 112, 3)  # all global unicast addresses (RFC 4291 §2.4)
_BY_THE_PORT = (Decision.ROUTE, Decision.KERNEL)
"""What needs forwarding on the interface that the question comes in by, too: packets are forwarded by `all` alone."""
_FORWARDED = (Decision.ROUTE, Decision.KERNEL, Decision.NEIGHBOUR, Decision.STATIC)


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of it."""
    yield from _forwarding(facts)
    yield from _default_route(facts)


def _forwarding(facts: Facts) -> Iterator[Finding]:
    whole = facts.sysctls.get("conf/all/forwarding")
    if whole is None:
        yield note("forwarding", "net.ipv6.conf.all.forwarding can't be read: is /proc/sys mounted?")
        return
    off = [name for name in _ports(facts, _BY_THE_PORT) if _is_off(facts, name)]
    if whole == "0" and not _is_needed(facts):
        yield ok("forwarding", "off, and all targets are this machine's own")
    elif whole == "0":
        yield fail(
            "forwarding",
            "forwarding is off, so nothing that is sent to the hosts gets to them",
            *mends(facts.receivers),
        )
    elif off:
        text = f"forwarding is off on {', '.join(off)}, so no target of method route or kernel is found there"
        yield fail("forwarding", text, *dict.fromkeys(each for name in off for each in mends(facts.receivers, name)))
    else:
        yield ok("forwarding", "on")


def mends(receivers: Sequence[Receiver], name: str = "") -> list[str]:
    """The commands that switch forwarding on, a line each: in the order in which the default route stays."""
    return [f"sysctl -w {each}" for each in forwarding_mend(receivers, name)]


def _is_off(facts: Facts, name: str) -> bool:
    return facts.forwards.get(facts.links[name].l3_ifindex(())) is False


def _is_needed(facts: Facts) -> bool:
    """Whether any rule's targets are elsewhere than on this machine."""
    here = {sample.rule for sample in facts.samples if sample.reply is not None and sample.reply.type in HERE}
    elsewhere = {sample.rule for sample in facts.samples if sample.reply is None or sample.reply.type not in HERE}
    return any(
        rule.decision in _FORWARDED and not (rule.decision is Decision.STATIC and rule.id in here - elsewhere)
        for rule in facts.table.rules.values()
    )


def _ports(facts: Facts, decisions: Iterable[Decision] = _FORWARDED) -> list[str]:
    live = {entry.l3_ifindex for decision in decisions for entry in facts.table.live(decision)}
    return sorted(name for name, link in facts.links.items() if link.ifindex in live)


def _default_route(facts: Facts) -> Iterator[Finding]:
    lost = advertisement_warnings(facts.receivers, facts.default)
    for line in lost:
        text, _, mend = line.rpartition(": ")
        name = line.partition(": ")[0]
        if facts.default is None:
            yield fail("default_route", text, mend, *solicited(name, can_ask=facts.can_ask_routers))
        else:
            yield fail("default_route", f"{text}{_within(facts)}", mend)
    if lost:
        return
    if facts.default is not None:
        how = f", by router advertisements{_within(facts, 'runs out ')}" if facts.default.advertised else ""
        yield ok("default_route", f"out of {facts.default.interface}{how}")
        return
    if there := elsewhere(facts):
        yield ok("default_route", f"none in the table main; out of {there}")
        return
    yield warn("default_route", *no_default(facts))


def no_default(facts: Facts) -> tuple[str, ...]:
    """What to say where there is no default route, and the command that brings one, if a router is known."""
    ports = _ports(facts)
    added = [
        f"ip -6 route add default via {address} dev {word(name)}" for name, address in facts.routers if name in ports
    ]
    accepting = [each.name for each in facts.receivers if each.accept_ra and not each.ignores_ra]
    asked = [solicited(name, can_ask=facts.can_ask_routers) for name in accepting if name in ports]
    text = "there is none, so what hosts send to the rest of the world is lost"
    if added:
        return text, added[0]
    return (text, *asked[0]) if asked else (f"{text}: add one by the upstream's router",)


def elsewhere(facts: Facts) -> str:
    """A default route of a VRF, or of a table that rules choose (`ip -6 rule`)."""
    found = (
        f"{facts.name(route.ifindex)}, by the table {route.table}"
        for prefix, route in zip(facts.prefixes, facts.routes, strict=True)
        if prefix.length <= _EVERYWHERE.length and prefix.covers(_EVERYWHERE) and route.table != TABLE_MAIN
    )
    return next(found, "")


def _within(facts: Facts, what: str = "") -> str:
    if facts.default_expires is None:
        return ""
    return f" ({what}in {max(facts.default_expires, 0):.0f} s, if no advertisement comes until then)"
