# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules for an uplink: by which method its prefixes, and those routed behind, are answered for, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.prefix import BITS, Prefix
from npd6_xdp.core.survey import Way
from npd6_xdp.tools.init.behind import Behind, Found, behind
from npd6_xdp.tools.init.machine import BareMachine, has_neighbours, what_it_is
from npd6_xdp.tools.init.plan import Entry, Rule
from npd6_xdp.tools.init.uplinks import Uplink

_MOST = 16
"""Routes to single parts that get a rule each."""
_NEIGHBOUR = "neighbour: answers for the hosts that are there, and for nobody else; one that isn't known is looked for."
_ROUTE = "route: answers for all that the routing table leads to by {}, whether a host is there or not"
_HOST_ROUTES = (
    "host_routes: the prefix itself leads to {}, so each host that is there gets a /128 route to where it is."
)
_IF_ROUTED = (
    "If nobody ever asks while an address of it is pinged from outside (npd6-xdp status), the prefix is routed to this"
    " machine after all: make the address of {} a /128 and give {} the prefix (docs/recipes/hetzner.md)."
)


class Shared(NamedTuple):
    """A prefix on an uplink's link, hosts of which are behind `vias` as well: they are to find the upstream's."""

    uplink: Uplink
    text: str
    vias: tuple[LinkEntry, ...]


class Ruled(NamedTuple):
    """The rules of an uplink; the prefixes that are on both of its sides; and interfaces and hosts behind it."""

    rules: tuple[Rule, ...]
    shared: tuple[Shared, ...]
    lans: tuple[LinkEntry, ...]
    hosts: tuple[IPv6Address, ...]


def on_link_rules(machine: BareMachine, uplink: Uplink, inside: Sequence[LinkEntry], *, guess: bool) -> Ruled:
    """Rules for the prefixes that are on an uplink's link: its upstream asks for each address of them.

    With `guess`, hosts of them may be on interfaces of which nothing says so.
    """
    rules: dict[str, Rule] = {}
    shared: list[Shared] = []
    lans: dict[int, LinkEntry] = {}
    hosts: list[IPv6Address] = []
    for prefix in machine.on_link(uplink.link):
        if prefix.length >= BITS - 2:  # a link between two routers
            continue
        found = behind(machine, uplink, prefix, inside)
        mains, vias = _for_prefix(machine, uplink, prefix, found, guess=guess)
        followed = _followed(machine, uplink, prefix)
        for main in mains:
            text = followed if main.prefix == str(prefix) and followed else main.prefix
            before = rules.get(text)
            if before is not None and (before.method, before.active) != (main.method, main.active):
                text, before = main.prefix, None  # the one that follows is another method's
            rules[text] = merged(before, main._replace(prefix=text))
        if vias:
            shared.append(Shared(uplink, followed or str(prefix), vias))
        lans |= {link.ifindex: link for link in (*vias, *(link for link, _ in found.longer))}
        hosts += [host for each in found.found for host in each.hosts]
    return Ruled(tuple(rules.values()), tuple(dict.fromkeys(shared)), tuple(lans.values()), tuple(hosts))


def _followed(machine: BareMachine, uplink: Uplink, prefix: Prefix) -> str:
    """How a rule says a prefix that may change: by the interface that has it; "" where it stays."""
    follows = machine.passes(uplink.link, prefix) and machine.follows(uplink.link, prefix)
    return f"interface:{uplink.link.name}" if follows else ""


def merged(before: Rule | None, rule: Rule) -> Rule:
    """A rule for what two have the same prefix for; `before` may be none."""
    if before is None or (rule.active and not before.active):
        return rule
    if before.method != rule.method or before.active != rule.active:
        return before
    return rule._replace(
        via=tuple(dict.fromkeys([*before.via, *rule.via])),
        why=tuple(dict.fromkeys([*before.why, *rule.why])),
        host_routes=before.host_routes or rule.host_routes,
    )


def _for_prefix(
    machine: BareMachine, uplink: Uplink, prefix: Prefix, found: Behind, *, guess: bool
) -> tuple[list[Rule], tuple[LinkEntry, ...]]:
    """The rules for one of them, and the interfaces that have hosts of it without a part of their own."""
    name = uplink.link.name
    why = [f"{prefix} is on the link of {name}, so the upstream asks there for each address of it."]
    if _followed(machine, uplink, prefix):
        why[0] += (
            f" It was given for a time, so the rule follows {name}: interface:{name} is the prefix that it has then."
        )
    elif machine.passes(uplink.link, prefix):
        why[0] += f" It was given for a time, and {name} has no address of it: where another one comes, change it here."
    asked = [each for each in found.found if has_neighbours(each.link)]
    if not asked and not found.longer and guess:
        asked = list(found.idle)
    passed_over = [f"Passed over: {'; '.join(found.passed_over)}."] if found.passed_over else []
    if asked:
        host_routes = machine.has_route(uplink.link, prefix)
        why += _sentences(asked)
        vias = tuple(each.link for each in asked)
        why += [
            _NEIGHBOUR,
            *([_HOST_ROUTES.format(name), _IF_ROUTED.format(name, vias[0].name)] if host_routes else []),
        ]
        main = Rule(str(prefix), "neighbour", _names(vias), (*why, *passed_over), host_routes=host_routes)
        return [main, *_parts(found)], vias
    if found.longer:
        links = tuple(dict.fromkeys(link for link, _ in found.longer))
        ways = ", ".join(f"{way.destination} by {link.name}" for link, way in found.longer[:4])
        more = f" and {len(found.longer) - 4} more" if len(found.longer) > 4 else ""
        said = f"Parts of it are routed behind: {ways}{more}. {_ROUTE.format(', '.join(_names(links)))}."
        return [Rule(str(prefix), "route", _names(links), (*why, said, *passed_over))], ()
    why += (
        [f"{'; '.join(each.how for each in found.idle)}. But other prefixes are behind. If hosts of this one are, too:"]
        if found.idle
        else ["Nothing is behind yet that could have hosts of it. Once there is, it takes this, with its name in via:"]
    )
    names = _names([each.link for each in found.idle]) or ("br0",)
    return [Rule(str(prefix), "neighbour", names, (*why, *passed_over), host_routes=True, active=False)], ()


def _sentences(asked: Sequence[Found]) -> list[str]:
    return [f"Behind: {'; '.join(each.how for each in asked)}."]


def _parts(found: Behind) -> Iterator[Rule]:
    """Rules for parts of a prefix that routes lead to, where the rest of it is of another method."""
    parts: dict[Prefix, list[str]] = {}
    for link, way in found.longer:
        if way.destination.length < BITS or not has_neighbours(link):
            parts.setdefault(way.destination, []).append(link.name)
    for at, (part, names) in enumerate(parts.items()):
        why = [f"A part of it is routed behind. {_ROUTE.format(', '.join(names))}."]
        if at == _MOST - 1 and len(parts) > _MOST:
            why.append(f"{len(parts) - _MOST} more parts are routed, and have no rule here: ip -6 route")
        text = str(part.network.network_address) if part.length == BITS else str(part)
        yield Rule(text, "route", tuple(dict.fromkeys(names)), tuple(why))
        if at == _MOST - 1:
            return


def routed_rules(
    machine: BareMachine, uplink: Uplink, inside: Sequence[LinkEntry], on_links: Sequence[Prefix], several: bool
) -> Ruled:
    """Rules for prefixes that are routed behind, and lie in none of `on_links`, the uplinks' own."""
    rules: dict[str, Rule] = {}
    lans: dict[int, LinkEntry] = {}
    hosts: list[IPv6Address] = []
    left = 0
    for link in inside:
        for way in sorted(machine.ways(link), key=lambda way: way.destination):
            if any(prefix.covers(way.destination) for prefix in on_links):
                continue
            rule = _routed(machine, link, way, several)
            before = rules.get(rule.prefix)
            if before is None and len(rules) >= _MOST:
                left += 1
                continue
            rules[rule.prefix] = merged(before, rule)
            lans[link.ifindex] = link
            hosts += machine.neighbours_in(link, way.destination)
    if left:
        text, last = rules.popitem()
        more = f"{left} more prefix{'' if left == 1 else 'es'} routed behind and without a rule here: ip -6 route."
        rules[text] = last._replace(why=(*last.why, more))
    return Ruled(tuple(rules.values()), (), tuple(lans.values()), tuple(hosts))


def _routed(machine: BareMachine, link: LinkEntry, way: Way, several: bool) -> Rule:
    prefix = way.destination
    gateway = next((str(gateway) for ifindex, gateway in way.hops if ifindex == link.ifindex and gateway), "")
    aggregate = machine.aggregate(prefix)
    follows = machine.follows(link, prefix) and (machine.passes(link, prefix) or aggregate is not None)
    where = f"a route leads there by {gateway} out of {link.name}" if gateway else f"it is on the link of {link.name}"
    why = [f"{prefix} is behind this machine: {where} ({what_it_is(link)})."]
    if aggregate is not None:
        why.append(f"It is a part of {aggregate.destination}, delegated to this machine (it has an unreachable route).")
    if follows:
        why.append(
            f"The rule follows {link.name}: interface:{link.name} is the prefixes that it has, also when they change."
        )
    why.append(
        f"{_ROUTE.format(link.name)}; method neighbour would answer for those that are."
        if has_neighbours(link) and not gateway
        else f"{_ROUTE.format(link.name)}."
    )
    why.append(
        "If the upstream has a route for it by this machine, it never asks, and nothing is answered."
        + (
            " Of which uplink it is can't be told from here, so each has the rule; take it out where it isn't."
            if several
            else ""
        )
    )
    text = (
        f"interface:{link.name}"
        if follows
        else str(prefix.network.network_address if prefix.length == BITS else prefix)
    )
    return Rule(text, "route", (link.name,), tuple(why))


def other_sides(shared: Sequence[Shared]) -> list[Entry]:
    """Entries for interfaces behind whose hosts have the whole of an uplink's prefix on their link."""
    rules: dict[str, dict[str, Rule]] = {}
    for each in shared:
        for link in each.vias:
            others = [other.name for other in each.vias if other is not link]
            rule = Rule(each.text, "neighbour", (each.uplink.link.name, *others), ())
            found = rules.setdefault(link.name, {})
            found[each.text] = merged(found.get(each.text), rule)
    why = (
        "For hosts behind {} that believe the whole prefix to be on their link (they have their address as a /64): they"
        " ask there for hosts on the upstream's side. Without such hosts it does nothing."
    )
    return [Entry(name, (why.format(name),), ordered([*found.values()])) for name, found in rules.items()]


def ordered(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """Rules that follow an interface come last: where its prefix is another rule's as well, that one has it."""
    return tuple(sorted(rules, key=lambda rule: rule.prefix.startswith("interface:")))


def _names(links: Sequence[LinkEntry]) -> tuple[str, ...]:
    return tuple(link.name for link in links)
