# SPDX-License-Identifier: GPL-2.0-or-later
"""Packet filters that drop what the configuration needs: Neighbor Discovery, and packets to the hosts and from them.

What the XDP program takes in passes no filter, so solicitations from the upstream are no matter here. A filter that
lets replies through, and no new connections from outside, is as somebody has meant it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core.names import word
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.route_messages import RouteType
from npd6_xdp.tools.doctor.facts import Facts
from npd6_xdp.tools.doctor.finding import Finding, Level, note, ok
from npd6_xdp.tools.doctor.routes import behind_of
from npd6_xdp.tools.doctor.ruleset import Certainty, Chain, Fate, Packet, fate

_SOLICITATION, _ADVERTISEMENT, _ROUTER_ADVERTISEMENT = 135, 136, 134
_NEIGHBOUR_DISCOVERY = (_SOLICITATION, _ADVERTISEMENT)
_NFT_TYPES = {
    _SOLICITATION: "nd-neighbor-solicit",
    _ADVERTISEMENT: "nd-neighbor-advert",
    _ROUTER_ADVERTISEMENT: "nd-router-advert",
}
_WORDS = {
    _SOLICITATION: "solicitations",
    _ADVERTISEMENT: "advertisements",
    _ROUTER_ADVERTISEMENT: "router advertisements, which give the default route,",
}
_IN, _OUT = ("prerouting", "input", "ingress"), ("output", "postrouting")
_THROUGH = ("prerouting", "forward", "postrouting", "ingress")
_UNTRACKED = "untracked"  # conntrack leaves Neighbor Discovery alone


class Way(NamedTuple):
    """Where packets for a prefix come in and go out: the questions' side, and the hosts'."""

    near: str
    behind: str
    network: Prefix
    host: IPv6Address
    near_returns: bool = False
    """Whether what comes in at the near side, from wherever, has its way back there: by the default route."""
    host_returns: bool = False
    """Whether the route to the host leads to where it is."""


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of the filters."""
    for line in facts.firewall.unread:
        missing = line.partition(": ")[2].endswith("isn't installed")
        tool = "nftables" if " nft " in f" {line.replace(':', ' ')} " else "iptables"
        yield note("firewall", line, *([f"apt-get install {tool}"] if missing else []))
    ways = list(_ways(facts))
    found = list(_told([*_discovery(facts, ways), *_forwarded(facts.firewall.chains, ways)]))
    yield from found
    if facts.firewall.bridged:
        yield note("firewall", f"filters of bridges aren't looked at: {', '.join(facts.firewall.bridged)}")
    if not found and not facts.firewall.unread and not facts.firewall.bridged:
        number = len(facts.firewall.chains)
        yield ok(
            "firewall", f"nothing that is needed is dropped ({number} chains looked at)" if number else "no filter"
        )


def along(facts: Facts, way: Way) -> Iterator[Finding]:
    """What there is to say of one way, there and back."""
    yield from _told([*_discovery(facts, [way]), *_forwarded(facts.firewall.chains, [way])])


class _Loss(NamedTuple):
    """What is dropped, `how` ("is dropped"), and by what."""

    level: Level
    what: str
    how: str
    by: str
    mend: Sequence[str]


def _told(losses: Sequence[_Loss]) -> Iterator[Finding]:
    """A finding a cause: all that a rule or a policy drops, with all that lets it through."""
    causes: dict[tuple[Level, str, str], list[_Loss]] = {}
    for loss in losses:
        causes.setdefault((loss.level, loss.how.removeprefix("is ").removeprefix("are "), loss.by), []).append(loss)
    for (level, how, by), some in causes.items():
        whats = list(dict.fromkeys(loss.what for loss in some))
        what = f"{whats[0]} {some[0].how}" if len(whats) == 1 else f"{'; '.join(whats)}: all {how}"
        mend = tuple(dict.fromkeys(command for loss in some for command in loss.mend))
        yield Finding("firewall", level, f"{what} by {by}", mend)


def _ways(facts: Facts) -> Iterator[Way]:
    """Those of the samples, each pair of interfaces and network once."""
    seen = set()
    for sample in facts.samples:
        rule = facts.table.rules[sample.rule]
        behind = set(facts.table.vias.get(rule.via_set, ()))
        if sample.reply is not None and sample.reply.type == RouteType.UNICAST:
            behind.add(sample.reply.ifindex)
        behind -= {sample.interface, 0}
        if not behind:  # the route is missing, which is said elsewhere, and isn't all perhaps
            side = facts.links.get(behind_of(facts, rule, facts.table.entries[rule.entry]))
            behind = {side.ifindex} if side else set()
        for ifindex in sorted(behind):
            network = next((each for each in rule.networks if each.covers(Prefix(int(sample.target), 128))), None)
            key = sample.interface, ifindex, network
            if network is not None and key not in seen:
                seen.add(key)
                near = facts.name(sample.interface)
                default = facts.default is not None and facts.default.interface == near
                is_led = sample.reply is not None and (sample.reply.type, sample.reply.ifindex) == (
                    RouteType.UNICAST,
                    ifindex,
                )
                yield Way(near, facts.name(ifindex), network, sample.target, default, is_led)


def _seen_by(chain: Chain, hooks: Sequence[str], interface: str) -> bool:
    return chain.hook in hooks and (not chain.devices or interface in chain.devices)


def _discovery(facts: Facts, ways: Sequence[Way]) -> Iterator[_Loss]:
    names = dict.fromkeys(name for way in ways for name in (way.behind, way.near))
    asked_behind = {way.near for way in ways}
    advertised = facts.default.interface if facts.default is not None and facts.default.advertised else ""
    for chain in facts.firewall.chains:
        for name in names:
            dropped: list[tuple[int, Fate]] = []
            kinds = [
                *_NEIGHBOUR_DISCOVERY,
                *([_ROUTER_ADVERTISEMENT] if name == advertised and chain.hook in _IN else []),
            ]
            for kind in kinds:
                if _seen_by(chain, (*_IN, *_OUT), name):
                    iif, oif = (name, "") if chain.hook in _IN else ("", name)
                    its = fate(chain, Packet(chain.hook, iif, oif, icmp=kind, state=_UNTRACKED))
                    if its.certainty is not Certainty.PASSED:
                        dropped.append((kind, its))
            if not dropped:
                continue
            what = " and ".join(_WORDS[kind] for kind, _ in dropped)
            what = f"{name}: neighbor {what} {'from' if chain.hook in _IN else 'to'} there"
            what = what.replace(f"neighbor {_WORDS[_ROUTER_ADVERTISEMENT]}", _WORDS[_ROUTER_ADVERTISEMENT])
            mend = _open_discovery(chain, name, [kind for kind, _ in dropped])
            if any(its.certainty is Certainty.DROPPED for _, its in dropped):
                # from the upstream's side, XDP takes in the questions before any filter; advertisements it doesn't
                needed = name not in asked_behind or any(kind != _SOLICITATION for kind, _ in dropped)
                yield _Loss(Level.FAIL if needed else Level.WARN, what, "are dropped", dropped[0][1].by, mend)
            else:
                yield _Loss(Level.NOTE, what, "may be dropped", dropped[0][1].by, mend)


def _open_discovery(chain: Chain, name: str, kinds: Sequence[int]) -> list[str]:
    comes_in = chain.hook in _IN
    if not _may_be_said(chain, name):
        return []
    if chain.tool == "nft":
        where = "" if chain.devices else f"{'iifname' if comes_in else 'oifname'} {_name(name)} "
        types = ", ".join(_NFT_TYPES[kind] for kind in kinds)
        return [f"{chain.insert} {where}icmpv6 type '{{ {types} }}' accept"]
    option = "-i" if comes_in else "-o"
    return [f"{chain.insert} {option} {word(name)} -p ipv6-icmp --icmpv6-type {kind} -j ACCEPT" for kind in kinds]


def _forwarded(chains: Sequence[Chain], ways: Sequence[Way]) -> Iterator[_Loss]:
    for chain in chains:
        for way in _each_once(ways):
            to_host = {state: _passage(chain, way, state, inward=True) for state in ("new", "established")}
            from_host = {state: _passage(chain, way, state, inward=False) for state in ("new", "established")}
            yield from _judged(chain, way, to_host, inward=True, others=from_host)
            yield from _judged(chain, way, from_host, inward=False, others=to_host)


def _each_once(ways: Sequence[Way]) -> Iterator[Way]:
    """Without those that are the way back of another: who lets P through from there and to there lets these through."""
    seen = set()
    for way in ways:
        if (way.behind, way.near, way.network) not in seen:
            seen.add((way.near, way.behind, way.network))
            yield way


def _passage(chain: Chain, way: Way, state: str, *, inward: bool) -> Fate:
    come, go = (way.near, way.behind) if inward else (way.behind, way.near)
    if not _seen_by(chain, _THROUGH, go if chain.hook == "postrouting" else come):
        return Fate(Certainty.PASSED)
    source, destination = (None, way.host) if inward else (way.host, None)
    iif = come if chain.hook != "postrouting" else ""
    oif = go if chain.hook in ("forward", "postrouting") else ""
    returns = (way.near_returns if inward else way.host_returns) or None
    return fate(chain, Packet(chain.hook, iif, oif, source, destination, None, state, returns))


def _judged(
    chain: Chain, way: Way, fates: dict[str, Fate], *, inward: bool, others: dict[str, Fate]
) -> Iterator[_Loss]:
    new, established = fates["new"], fates["established"]
    direction = f"from {way.near} to {way.network}" if inward else f"from {way.network} to {way.near}"
    mend = _open_way(chain, way, inward=inward)
    if established.certainty is Certainty.DROPPED:
        yield _Loss(Level.FAIL, f"what is forwarded {direction}", "is dropped", established.by, mend)
    elif new.certainty is Certainty.DROPPED and others["new"].certainty is Certainty.DROPPED and inward:
        yield _Loss(Level.FAIL, f"connections {direction}, or back,", "are dropped", new.by, mend)
    elif new.certainty is Certainty.DROPPED:
        yield _Loss(Level.NOTE, f"new connections {direction}", "are dropped, and replies pass,", new.by, mend)
    elif Certainty.PERHAPS in (new.certainty, established.certainty):
        by = established.by or new.by
        yield _Loss(Level.NOTE, f"what is forwarded {direction}", "may be dropped", by, mend)


def _open_way(chain: Chain, way: Way, *, inward: bool) -> list[str]:
    come, go = (way.near, way.behind) if inward else (way.behind, way.near)
    if not _may_be_said(chain, come, go):
        return []
    has_iif = chain.hook != "postrouting" and not chain.devices
    has_oif = chain.hook in ("forward", "postrouting")
    if chain.tool == "nft":
        words = [chain.insert]
        words += ["iifname", _name(come)] if has_iif else []
        words += ["oifname", _name(go)] if has_oif else []
        return [" ".join([*words, "ip6", "daddr" if inward else "saddr", str(way.network), "accept"])]
    words = [chain.insert]
    words += ["-i", word(come)] if has_iif else []
    words += ["-o", word(go)] if has_oif else []
    return [" ".join([*words, "-d" if inward else "-s", str(way.network), "-j", "ACCEPT"])]


def _may_be_said(chain: Chain, *names: str) -> bool:
    """Whether a rule can be for these interfaces alone; where it can't, there is no command, as it would open more."""
    if chain.tool == "nft":
        return not any('"' in name or "\\" in name or name.endswith("*") for name in names)
    return not any(name.endswith("+") or name.startswith(("!", "-")) for name in names)


def _name(name: str) -> str:
    """An interface's name for nft(8), from a shell: in quotes, since some are words of nft's own."""
    return word(f'"{name}"')
