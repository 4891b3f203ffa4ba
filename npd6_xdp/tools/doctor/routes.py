# SPDX-License-Identifier: GPL-2.0-or-later
"""Where what is sent to a rule's targets goes from here: to the hosts, nowhere, or back where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address

from npd6_xdp.core.absent import absent_names
from npd6_xdp.core.config import is_glob
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.names import word
from npd6_xdp.core.prefix import BITS, Prefix
from npd6_xdp.core.route_messages import HERE, REFUSALS, RouteType
from npd6_xdp.core.rtnetlink import PROTOCOL
from npd6_xdp.core.survey import Way
from npd6_xdp.core.table import Decision, Rule
from npd6_xdp.core.table_space import enlarged
from npd6_xdp.tools.doctor import edits, running
from npd6_xdp.tools.doctor.covered import without_length
from npd6_xdp.tools.doctor.facts import Facts, Sample, is_unicast
from npd6_xdp.tools.doctor.finding import Finding, fail, note, ok, warn
from npd6_xdp.tools.doctor.samples import MOST_RULES

_WIDE = 20  # bits: routes of shorter prefixes are for the rest of the world, whatever they are called
_ALIKE = 3  # digits by which a prefix may differ from the one that is meant


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of the ways of packets."""
    live = set(facts.table.entry_ids.values())
    rules = [each for each in facts.table.rules.values() if each.entry in live and each.decision is not Decision.IGNORE]
    for rule in rules[:MOST_RULES]:
        yield _rule(facts, rule)
    if len(rules) > MOST_RULES:
        yield note("route", f"only the first {MOST_RULES} of {len(rules)} rules were looked at one by one")
    yield from _both_sides(facts, rules)
    yield _neighbour_table(facts)


def _place(facts: Facts, rule: Rule) -> edits.Place:
    entry = facts.table.entries[rule.entry]
    name = next((each.name for each in facts.config.entries(entry.port) if rule.config in each.rules), entry.port)
    return edits.rule_place(facts.path, facts.text, name, rule.prefix)


def _rule(facts: Facts, rule: Rule) -> Finding:
    """The first cause that is found, of one rule."""
    entry = facts.table.entries[rule.entry]
    name = f"{entry.label}: {rule.method} rule {rule.prefix}"
    for judge in (_no_length, _unknown_prefix, _other_side, _to_a_port, _way):
        if (found := judge(facts, rule, entry, name)) is not None:
            return found
    return ok("route", f"{name}: {_led(facts, rule)}")


def _led(facts: Facts, rule: Rule) -> str:
    replies = [each.reply for each in facts.samples if each.rule == rule.id and each.reply is not None]
    names = sorted({facts.name(reply.ifindex) for reply in replies if reply.type == RouteType.UNICAST})
    if rule.host_routes:
        return "each host gets a route of its own"
    return f"leads out of {', '.join(names)}" if names else "leads to this machine" if replies else "nothing to ask for"


# --- a prefix that this machine knows nothing of ---


def _no_length(facts: Facts, rule: Rule, entry: Entry, name: str) -> Finding | None:
    meant = without_length(rule)
    if meant is None:
        return None
    mend = _place(facts, rule).replace(("prefix", rule.prefix, str(meant)))
    return fail("prefix", f"{name}: without a length, that is one address alone; is {meant} meant?", *mend)


def _unknown_prefix(facts: Facts, rule: Rule, entry: Entry, name: str) -> Finding | None:
    if rule.config.follows or not rule.networks or any(_is_known(facts, each) for each in rule.networks):
        return None
    meant = _meant(facts, rule)
    text = f"{name}: no address, route or neighbour of this machine is in it"
    unmatched = _unmatched(facts, entry)
    if unmatched:
        text += f", and {unmatched} solicitations there were for targets of no rule"
    if meant is None:
        return (fail if rule.decision is Decision.ROUTE else warn)("prefix", f"{text}; a typing error?")
    mend = _place(facts, rule).replace(("prefix", rule.prefix, str(meant)))
    return fail("prefix", f"{text}; is {meant} meant?", *mend)


def _unmatched(facts: Facts, entry: Entry) -> int:
    rows = facts.status["interfaces"] if facts.status else ()
    return sum(int(row["solicitations"]["unmatched"]) for row in rows if row["interface"] == entry.label)


def _is_known(facts: Facts, network: Prefix) -> bool:
    own = (held.address for link in facts.links.values() for held in link.own(()))
    there = (IPv6Address(each.address) for each in facts.neighbours)
    if any(network.covers(Prefix(int(address), BITS)) for address in (*own, *there)):
        return True
    known = (*facts.prefixes, *facts.refusing)
    return any(network.covers(route) or (route.covers(network) and route.length >= _WIDE) for route in known)


def _meant(facts: Facts, rule: Rule) -> Prefix | None:
    """The one prefix of this machine that looks so much alike that it may be meant."""
    if len(rule.networks) != 1:
        return None
    (network,) = rule.networks
    taken = {each for other in facts.table.rules.values() if other.entry == rule.entry for each in other.networks}
    known = {held.network for link in facts.links.values() for held in link.own(())}
    known |= {*facts.prefixes}
    if rule.decision is not Decision.NEIGHBOUR:  # what is on the questions' own link isn't to be answered for
        here = facts.table.entries[rule.entry].l3_ifindex
        known -= {prefix for prefix, routes in facts.direct.items() if any(each.ifindex == here for each in routes)}
    alike = [
        each
        for each in known - taken
        if each.length == network.length and is_unicast(each) and _differing_digits(each, network) <= _ALIKE
    ]
    best = min((_differing_digits(each, network) for each in alike), default=0)
    alike = [each for each in alike if _differing_digits(each, network) == best]
    return alike[0] if len(alike) == 1 else None


def _differing_digits(one: Prefix, other: Prefix) -> int:
    return sum(a != b for a, b in zip(f"{one.address:032x}", f"{other.address:032x}", strict=True))


# --- the wrong side ---


def _other_side(facts: Facts, rule: Rule, entry: Entry, name: str) -> Finding | None:
    """Whether the questions come in by another interface, to which the default route leads, and no entry is there."""
    upstream = facts.default.interface if facts.default else ""
    port = facts.links.get(upstream)
    if port is None or port.ifindex == entry.l3_ifindex or port.why_no_port or _is_spoken_for(facts, port):
        return None
    if absent_names(facts.config, facts.links):
        return None  # one that isn't here may be meant for it, and is told of
    behind = facts.table.vias.get(rule.via_set, frozenset())
    if port.ifindex in behind:
        mend = _place(facts, rule).replace(("via", upstream, entry.port))
        named = edits.interface_place(facts.path, facts.text, entry.port).replace(("name", entry.port, upstream))
        return fail(
            "side",
            f"{name}: the default route leads out of {upstream}, so the upstream asks there, and no [[interface]] is"
            " for it: name and via look swapped",
            *edits.both(named, mend),
        )
    ways = [each.reply.ifindex for each in facts.samples if each.rule == rule.id and each.reply is not None]
    if not behind and ways and set(ways) == {entry.l3_ifindex}:
        named = edits.interface_place(facts.path, facts.text, entry.port).replace(("name", entry.port, upstream))
        return fail(
            "side",
            f"{name}: the targets are where the questions would come in; the default route leads out of {upstream}, so"
            " the upstream asks there, and no [[interface]] is for it",
            *named,
        )
    return None


def _is_spoken_for(facts: Facts, link: LinkFacts) -> bool:
    return any(entry.l3_ifindex == link.ifindex for entry in facts.table.entries.values())


# --- the way to the targets ---


def _way(facts: Facts, rule: Rule, entry: Entry, name: str) -> Finding | None:
    ours = [each for each in facts.samples if each.rule == rule.id]
    asked = [each for each in ours if each.reply is not None]
    if not asked:
        return note("route", f"{name}: the kernel doesn't say where it leads") if ours else None
    wrong = [each for each in asked if not _is_right(facts, rule, entry, each)]
    if rule.decision is Decision.NEIGHBOUR:
        return _to_neighbours(facts, rule, name, wrong)
    if not wrong or _has_routes_within(facts, rule, entry):
        return None
    reply = wrong[0].reply
    assert reply is not None
    if reply.type == RouteType.UNICAST and reply.ifindex != entry.l3_ifindex:
        return _not_by_via(facts, rule, name, facts.name(reply.ifindex))
    side = behind_of(facts, rule, entry)
    if rule.decision is Decision.ROUTE and _is_on_link(facts, rule, entry):
        way = {"method": '"neighbour"', "via": f"[{edits.string(side)}]", "host_routes": "true"}
        return fail(
            "route",
            f"{name}: it is on-link at {entry.port}, so the routes lead back there and method route finds nobody; write"
            f' method = "neighbour", via = ["{side or "..."}"] and host_routes = true',
            *(_place(facts, rule).put(way) if side else ()),
        )
    what = (
        f"the routes lead back out of {facts.name(reply.ifindex)}, where the questions come in"
        if reply.type == RouteType.UNICAST
        else f"a route of the type {REFUSALS[reply.type]} is all that there is for it"
        if reply.type in REFUSALS
        else "no route leads to it"
    )
    lost = "so method route finds nobody" if rule.decision is Decision.ROUTE else "so what is sent to the hosts is lost"
    mends = [f"ip -6 route replace {network} dev {word(side)}" for network in rule.networks] if side else []
    return fail("route", f"{name}: {what}, {lost}", *mends)


def _to_a_port(facts: Facts, rule: Rule, entry: Entry, name: str) -> Finding | None:
    """Whether the routes lead out of a bridge's port, which takes in nothing for itself: what it sends comes by, and
    what comes back is the bridge's.
    """
    for sample in facts.samples:
        reply = sample.reply
        if sample.rule != rule.id or reply is None or reply.type != RouteType.UNICAST:
            continue
        port = facts.links.get(facts.name(reply.ifindex))
        if port is None or not port.bridge or port.name in rule.via:
            continue  # (a via is told of by itself)
        target = Prefix(int(sample.target), BITS)
        mends = [
            f"ip -6 route del {prefix} dev {word(port.name)}; ip -6 route replace {prefix} dev {word(port.bridge)}"
            for prefix, routes in facts.direct.items()
            if prefix.covers(target) and any(route.ifindex == port.ifindex for route in routes)
        ]
        text = f"the routes lead out of {port.name}, a port of the bridge {port.bridge}, so nobody is found there"
        return fail("route", f"{name}: {text}", *mends)
    return None


def _is_right(facts: Facts, rule: Rule, entry: Entry, sample: Sample) -> bool:
    reply = sample.reply
    assert reply is not None
    if rule.decision is not Decision.NEIGHBOUR and reply.type in HERE:
        return True
    behind = facts.table.vias.get(rule.via_set) if rule.via else None
    if behind is not None:
        return reply.type == RouteType.UNICAST and reply.ifindex in behind
    return reply.type == RouteType.UNICAST and reply.ifindex not in (entry.l3_ifindex, 0)


def _to_neighbours(facts: Facts, rule: Rule, name: str, wrong: Sequence[Sample]) -> Finding | None:
    if not wrong:
        return None
    if not rule.host_routes and any(each.covers(network) for each in _doubled(facts) for network in rule.networks):
        return note("route", f"{name}: its prefix has routes out of two interfaces: see both_sides")
    if not rule.host_routes:
        where = wrong[0].reply
        back = where is not None and where.type == RouteType.UNICAST
        return fail(
            "host_routes",
            f"{name}: hosts behind {', '.join(rule.via)} are answered for, and what is sent to them"
            f" {f'goes out of {facts.name(where.ifindex)}' if where and back else 'has no route'}, since no route leads"
            " to them; write host_routes = true",
            *_place(facts, rule).put({"host_routes": "true"}),
        )
    lost = [each for each in wrong if each.found]
    if lost and facts.status is not None and running.is_of_another_file(facts):
        return note(
            "route", f"{name}: {lost[0].target} is there, and has no route of its own: the daemon hasn't read this file"
        )
    if lost and facts.status is not None:
        return warn("route", f"{name}: {lost[0].target} is there, and no route of its own leads to it")
    return None


def _not_by_via(facts: Facts, rule: Rule, name: str, out: str) -> Finding | None:
    if any(via in facts.links and facts.links[via].bridge == out for via in rule.via):
        return None  # a bridge's port, which is said of the via
    named = [via for via in rule.via if not is_glob(via)]
    mend = _place(facts, rule).replace(("via", named[0], out)) if len(rule.via) == len(named) == 1 else ()
    return fail("route", f"{name}: the routes lead out of {out}, which via doesn't name", *mend)


def _has_routes_within(facts: Facts, rule: Rule, entry: Entry) -> bool:
    """Whether there are routes for parts of it that lead where they should."""
    behind = facts.table.vias.get(rule.via_set) if rule.via else None
    own = {Prefix(int(held.address), BITS) for link in facts.links.values() for held in link.own(())}
    return any(
        network.covers(prefix)
        and prefix not in own
        and route.protocol != PROTOCOL
        and route.ifindex not in (entry.l3_ifindex, 0)
        and (behind is None or route.ifindex in behind)
        for network in rule.networks
        for prefix, route in zip(facts.prefixes, facts.routes, strict=True)
    )


def _is_on_link(facts: Facts, rule: Rule, entry: Entry) -> bool:
    return any(
        prefix.length < BITS and (prefix.covers(network) or network.covers(prefix))
        for prefix, routes in facts.direct.items()
        if any(route.ifindex == entry.l3_ifindex for route in routes)
        for network in rule.networks
    )


def behind_of(facts: Facts, rule: Rule, entry: Entry) -> str:
    """The interface that the hosts are behind, if there is one only that may be it; else ""."""
    named = [via for via in rule.via if via in facts.links]
    if len(named) == 1:
        return named[0]
    there = {facts.name(each.ifindex) for each in facts.neighbours if _is_of(rule, each.address)} & facts.links.keys()
    there.discard(facts.name(entry.l3_ifindex))
    if len(there) == 1:
        return there.pop()
    default = facts.default.interface if facts.default else ""
    may = [
        link.name
        for link in facts.links.values()
        if link.mac and link.up and not link.bridge and link.ifindex != entry.l3_ifindex and link.name != default
    ]
    return may[0] if len(may) == 1 else ""


def _is_of(rule: Rule, address: bytes) -> bool:
    return any(network.covers(Prefix(int.from_bytes(address), BITS)) for network in rule.networks)


# --- the same prefix on both sides ---


def _doubled(facts: Facts) -> dict[Prefix, Sequence[Way]]:
    """The prefixes that have direct routes out of several interfaces, with these."""
    return {
        prefix: routes
        for prefix, routes in facts.direct.items()
        if prefix.length < BITS and len({route.ifindex for route in routes}) > 1
    }


def _both_sides(facts: Facts, rules: Sequence[Rule]) -> Iterator[Finding]:
    """Two routes for one prefix: one of the two sides is out of reach, whichever the kernel takes."""
    for prefix, routes in _doubled(facts).items():
        concerned = [
            facts.table.entries[rule.entry]
            for rule in rules
            if any(prefix.covers(each) or each.covers(prefix) for each in rule.networks)
        ]
        ifindexes = {route.ifindex for route in routes}
        entry = next((each for each in concerned if each.l3_ifindex in ifindexes), None)
        for other in sorted(ifindexes - {entry.l3_ifindex}) if entry else ():
            if entry and (link := facts.links.get(facts.name(other))) is not None:
                yield _on_both(facts, entry, link, prefix)


def _on_both(facts: Facts, entry: Entry, other: LinkFacts, prefix: Prefix) -> Finding:
    """The route to take away is the one that doesn't lead where the default route does."""
    here = facts.links[facts.name(entry.l3_ifindex)]
    upstream = facts.default.interface if facts.default else here.name
    wrong, right = (here, other) if other.name == upstream else (other, here)
    held = [f"{each.address}/{prefix.length}" for each in wrong.own(()) if each.network == prefix]
    mends = [f"ip -6 address change {each} dev {word(wrong.name)} noprefixroute" for each in held]
    return fail(
        "both_sides",
        f"{prefix} has a route out of {right.name} and one out of {wrong.name}: what is for {right.name}'s side turns"
        f" back into {wrong.name}, or the other way round",
        *(mends or [f"ip -6 route del {prefix} dev {word(wrong.name)}"]),
    )


# --- the neighbour table ---


def _neighbour_table(facts: Facts) -> Finding:
    if facts.table_size is None:
        return note("neighbour_table", "the kernel doesn't say how full it is")
    used, (first, second, third) = facts.table_size
    text = f"{used} entries, gc_thresh1, 2 and 3 are {first}, {second} and {third}"
    if 4 * used >= 3 * second:
        mend = enlarged(used, facts.config.limits.pending, (first, second, third))
        return warn("neighbour_table", f"{text}: the kernel soon throws out hosts that are there", mend)
    return ok("neighbour_table", text)
