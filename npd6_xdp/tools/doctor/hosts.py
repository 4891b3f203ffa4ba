# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the hosts find their way out: some are asked for an echo, from their own link and from off it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv6Address

from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.names import word
from npd6_xdp.core.neighbour_messages import PRESENT, NeighbourEntry
from npd6_xdp.core.prefix import BITS, Prefix
from npd6_xdp.system import stranger
from npd6_xdp.tools.doctor.facts import Echo, Facts
from npd6_xdp.tools.doctor.finding import Finding, fail, note, ok, warn

_MOST_OF_A_LINK = 3
_MOST = 12
_USUAL_LENGTH = (
    64  # of a link's prefix (RFC 4291 §2.5.1): who is within it may be on the host's own link, as it sees it
)


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of them."""
    for echo in facts.echoes:
        yield from told(facts, echo)
    well = [str(echo.host) for echo in facts.echoes if echo.from_far]
    if well:
        yield ok("hosts", f"{', '.join(well)}: answers from off its link, too")
    behind = _behind(facts)
    elsewhere = len(_covered(facts)) - len(behind)
    if elsewhere:
        yield ok("hosts", f"{elsewhere} behind rules that are on standby: their way out is by the other edge now")
    if facts.echoes:
        return
    if not behind:
        if not elsewhere:
            nobody = "no host is known that could be asked whether it has a default route"
            yield ok("hosts", f"{nobody}; once the daemon runs, npd6-xdp doctor ADDRESS asks one")
    elif "CAP_NET_RAW" in facts.machine.missing:
        yield note("hosts", "whether they have a default route can't be tried without CAP_NET_RAW")
    else:
        yield note("hosts", "none could be asked whether it has a default route")


def told(facts: Facts, echo: Echo, check: str = "hosts") -> Iterator[Finding]:
    """What there is to say of one that doesn't answer from off its link."""
    host, link = echo.host, facts.links.get(echo.interface)
    here = f"{host} behind {echo.interface}"
    if echo.from_far:
        return
    if not echo.from_near:
        look = f"on that host, `ip -6 route show default` is to name {echo.near} or another address of this machine"
        yield note(check, f"{here} answers no echo request, so its default route isn't known: {look}")
        return
    gone = [each for each in sorted(echo.asked) if each != echo.far and not _is_somebodys(facts, echo.interface, each)]
    if gone and link is not None:
        gateway = gone[0]
        length = 64 if gateway.is_link_local else BITS
        yield fail(
            check,
            f"{here} sends what is for other links to {gateway}, and asks in vain who that is: no interface here has it"
            f" (an address that was added by hand is gone once {link.name} was down)",
            f"ip -6 address add {gateway}/{length} dev {word(link.name)} nodad",
        )
        return
    on_link = " (it takes that one to be on its own link)" if echo.far in echo.asked else ""
    yield warn(
        check,
        f"{here} answers {echo.near}, and not {echo.far}, which is off its link{on_link}: it has no default route by"
        " this machine, or filters; on that host",
        f"ip -6 route replace default via {echo.near}{_on_its_link(echo)}",
    )


def _on_its_link(echo: Echo) -> str:
    """Its own name of the interface, which a gateway with a link-local address takes."""
    if not echo.near.is_link_local:
        return ""
    return f" dev $(ip -6 -o address show to {echo.host} | cut -d ' ' -f 2)"


def _is_somebodys(facts: Facts, name: str, address: IPv6Address) -> bool:
    """Whether we have an address, or a neighbour has it; a link-local one, on that link."""
    links = [link for link in facts.links.values() if link.name == name or not address.is_link_local]
    if any(held.address == address for link in links for held in link.own(())):
        return True
    there = {link.ifindex for link in links}
    return any(
        each.address == address.packed and each.ifindex in there and each.state & PRESENT for each in facts.neighbours
    )


# --- asking ---


def asked(facts: Facts) -> Iterator[Echo]:
    """Some hosts that are there, of each link."""
    if "CAP_NET_RAW" in facts.machine.missing:
        return
    counts: dict[int, int] = {}
    for entry in _behind(facts):
        if counts.get(entry.ifindex, 0) >= _MOST_OF_A_LINK or sum(counts.values()) >= _MOST:
            continue
        counts[entry.ifindex] = counts.get(entry.ifindex, 0) + 1
        if (echo := ask(facts, facts.name(entry.ifindex), entry.mac, IPv6Address(entry.address))) is not None:
            yield echo


def ask(facts: Facts, name: str, mac: bytes, host: IPv6Address) -> Echo | None:
    """One of them; None where it can't be asked."""
    link = facts.links.get(name)
    near = None if link is None else _near(link, host)
    if link is None or near is None:
        return None
    far = _far(facts.links, link, host)
    neighbour = stranger.Neighbour(name, link.ifindex, mac, host)
    try:
        heard = stranger.ask(neighbour, far)
        from_near = heard.replied or stranger.ask(neighbour, near).replied
    except OSError:
        return None
    return Echo(host, name, near, far, from_near, heard.replied, heard.asked)


def _behind(facts: Facts) -> list[NeighbourEntry]:
    """The neighbours that are hosts which a rule covers, and whose way out we are: of one that is on standby, the other
    edge is, and a mend here would take them away from it.
    """
    active = {
        sample.target
        for sample in facts.samples
        if (rule := facts.table.rules.get(sample.rule)) is not None and not facts.table.on_standby(rule.entry)
    }
    return [entry for entry in _covered(facts) if IPv6Address(entry.address) in active]


def _covered(facts: Facts) -> list[NeighbourEntry]:
    """The neighbours that are hosts which a rule covers, in whatever role: not who is one of our own ways, and nobody
    on the link of the default route, who has the same way out as we.
    """
    upstream = facts.default.interface if facts.default else ""
    targets = {sample.target.packed for sample in facts.samples if sample.found}
    gateways = {gateway.packed for route in facts.routes for _, gateway in route.hops if gateway is not None}
    return [
        entry
        for entry in facts.neighbours
        if entry.state & PRESENT
        and entry.mac
        and entry.address in targets
        and entry.address not in gateways
        and facts.name(entry.ifindex) != upstream
    ]


def _near(link: LinkFacts, host: IPv6Address) -> IPv6Address | None:
    """An address of ours on a host's own link, that it can have as its gateway."""
    own = [each for each in link.own(()) if each.usable]
    covering = [each.address for each in own if not each.address.is_link_local and _holds(each.network, host)]
    local = sorted(each.address for each in own if each.address.is_link_local)
    return next(iter([*covering, *local]), None)


def _far(links: Mapping[str, LinkFacts], link: LinkFacts, host: IPv6Address) -> IPv6Address:
    """An address that is surely off a host's link: one of ours, if there is one; else a stranger's."""
    mine = [each.network for each in link.own(())]
    others = [
        each.address
        for other in links.values()
        if other.ifindex != link.ifindex
        for each in other.own(())
        if each.usable and not each.address.is_link_local and not each.address.is_loopback
    ]
    off = [each for each in others if is_surely_off(each, host) and not any(_holds(network, each) for network in mine)]
    return next(iter(off), stranger.STRANGER)


def is_surely_off(address: IPv6Address, host: IPv6Address) -> bool:
    """Whether a host doesn't take an address to be on its own link, whatever of its prefix that has."""
    return int(address) >> (BITS - _USUAL_LENGTH) != int(host) >> (BITS - _USUAL_LENGTH)


def _holds(network: Prefix, address: IPv6Address) -> bool:
    return network.covers(Prefix(int(address), BITS))
