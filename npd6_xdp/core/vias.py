# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces that rules of method neighbour name as `via`, and on which the kernel finds no neighbours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from npd6_xdp.core.config import Config, is_glob, matches
from npd6_xdp.core.link_messages import LinkFlag
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.names import word
from npd6_xdp.core.steps import Steps, finish, pieces
from npd6_xdp.core.table import Decision, Rule

ReadSysctl = Callable[[str], str | None]
"""A sysctl below net.ipv6, as "conf/lan0/disable_ipv6"; None if it isn't there, or nobody knows."""

# ARPHRD_* of links whose frames bear no addresses of stations (linux/if_arp.h): Neighbor Discovery has nothing to find
_WITHOUT_STATIONS = frozenset({512, 519, 768, 769, 772, 776, 778, 823, 0xFFFE, 0xFFFF})
_LOOPBACK = 772
_NO_DISCOVERY = LinkFlag.NOARP | LinkFlag.POINTOPOINT


_AT_ONCE, _AFTER_UP, _CARRIER = 0.0, 1.0, 5.0  # seconds
_DAD = 3.0  # seconds until an address is announced: up to one of delay (RFC 4862 §5.4.2), a busy machine's, and probes
_MOST_PROBES = 8


class Reason(NamedTuple):
    """Why nobody is found behind an interface, `text`; "" where somebody may be. `kind` stays the same while it is so.

    Some are so for a moment on each link that comes up: `lasts` is for how long (seconds) before they are worth a word.
    """

    text: str
    kind: str = ""
    lasts: float = _AT_ONCE


class UsedVia(NamedTuple):
    """A via interface that is there: where the file names it first, how many `others` do, and whether by its name."""

    where: str
    others: int
    link: LinkFacts
    named: bool

    def say(self, why: str) -> str:
        """A line about it."""
        others = f" (and {self.others} more rule{'' if self.others == 1 else 's'})" if self.others else ""
        return f"{self.where}{others}: {why}"


_IS_DOWN = "it is down: "
_DOWN_VIA = re.compile(rf": via (\S+)(?: \(and \d+ more rules?\))?: {_IS_DOWN}")


def down_via(line: str) -> str:
    """The interface that a line of via_warnings() says to be down; "" where it says something else."""
    found = _DOWN_VIA.search(line)
    return found[1] if found else ""


def refused_vias(config: Config, links: Mapping[str, LinkFacts]) -> list[str]:
    """The via interfaces that are there, and behind which no rule can ever find anybody, a line each."""
    return refused(used_vias(config, links))


def refused(used: Iterable[UsedVia]) -> list[str]:
    """The same, of those that are there."""
    return [via.say(why) for via in used if via.named and (why := _why_never(via.link))]


def via_warnings(
    used: Iterable[UsedVia], sysctl: ReadSysctl, is_lasting: Callable[[LinkFacts, Reason], bool] = lambda *_: True
) -> list[str]:
    """The same, and those where nobody can be found at the moment, with what mends it.

    `is_lasting` says of what is so for a moment only where all goes well, whether it has been so for longer.
    """
    return [
        via.say(why.text)
        for via in used
        if (why := why_nobody(via.link, sysctl)).text
        and (via.named or _is_news(via.link))
        and is_lasting(via.link, why)
    ]


class Patience:
    """Since when there have been reasons that are reported only after a while. Times are of any one clock."""

    def __init__(self) -> None:
        self._since: dict[int, tuple[tuple[int, str], float]] = {}
        self.due: float | None = None
        """When the next one will have lasted for long enough."""

    def look(self, used: Iterable[UsedVia], sysctl: ReadSysctl, now: float) -> list[str]:
        """As via_warnings(), of what lasts."""
        before, self._since, self.due = self._since, {}, None

        def note(link: LinkFacts, reason: Reason) -> bool:
            key = link.generation, reason.kind
            known, since = before.get(link.ifindex, (None, now))
            since = since if known == key else now
            self._since[link.ifindex] = key, since
            over = since + reason.lasts
            if now >= over:
                return True
            self.due = over if self.due is None else min(self.due, over)
            return False

        return via_warnings(used, sysctl, note)


def _is_news(link: LinkFacts) -> bool:
    """Whether to warn of it for an interface that only a glob matches: such interfaces come and go, and may be idle."""
    return link.up and not _why_never(link)


def notes(rule: Rule, links: Mapping[str, LinkFacts], sysctl: ReadSysctl) -> list[str]:
    """What there is to say of the `via` of one rule, for `explain`; nothing where no interface is known."""
    lines = []
    for via in rule.via if links else ():
        here = [links[name] for name in sorted(links) if matches(name, via)] if is_glob(via) else []
        if not is_glob(via) and via in links:
            here = [links[via]]
        if not here:
            lines.append(f"via {via}: no {'interface here has such a name' if is_glob(via) else 'such interface here'}")
        for link in here:
            why = why_nobody(link, sysctl).text if rule.decision is Decision.NEIGHBOUR else _why_no_route(link)
            if why and (not is_glob(via) or _is_news(link)):
                lines.append(f"via {link.name}: {why}")
    return lines


def why_nobody(link: LinkFacts, sysctl: ReadSysctl) -> Reason:
    """Why the kernel resolves nobody on an interface, and what to do about it."""
    return Reason(why) if (why := _why_never(link)) else _why_not_now(link, sysctl)


def used_vias(config: Config, links: Mapping[str, LinkFacts]) -> list[UsedVia]:
    """The via interfaces of rules of method neighbour that are there; of 100,000 rules that name one, it is one."""
    return finish(finding_used_vias(config, links))


def finding_used_vias(config: Config, links: Mapping[str, LinkFacts]) -> Steps[list[UsedVia]]:
    """The same, bit by bit: there may be 100,000 names and globs."""
    found: dict[tuple[str, bool], UsedVia] = {}
    for some in pieces(config.searched.items()):
        for via, (first, rules) in some:
            if not is_glob(via):
                names = [via] if via in links else []
            else:
                names = sorted(name for name in links if matches(name, via))
                yield
            for name in names:
                key = name, name == via
                if (before := found.get(key)) is not None:
                    found[key] = before._replace(others=before.others + rules)
                else:
                    found[key] = UsedVia(f"{first}: via {name}", rules - 1, links[name], name == via)
        yield
    return list(found.values())


def _why_never(link: LinkFacts) -> str:
    if link.flags & _NO_DISCOVERY or link.type in _WITHOUT_STATIONS:
        kind = f" ({link.kind})" if link.kind else ""
        off = link.mac and not link.flags & LinkFlag.POINTOPOINT
        what = "Neighbor Discovery is off there (NOARP)" if off else "it is a tunnel or another point-to-point link"
        if link.type == _LOOPBACK:
            what = "it leads to this host itself"
        return f'{what}{kind}, so the kernel asks for nobody; use method = "route"'
    return ""


def port_down(link: LinkFacts) -> str:
    """What keeps questions from coming in by a port that is not up."""
    if link.flags & LinkFlag.UP:
        return f"{link.name} has no carrier"
    return f"{link.name} is down: ip link set {word(link.name)} up"


def _why_no_route(link: LinkFacts) -> str:
    """Why no route leads out of an interface; "" where one may."""
    return "" if link.flags & LinkFlag.UP else f"{_IS_DOWN}ip link set {word(link.name)} up"


def _why_not_now(link: LinkFacts, sysctl: ReadSysctl) -> Reason:
    if link.bridge:
        return Reason(f'it is a port of {link.bridge}, whose neighbours its hosts are: via = ["{link.bridge}"]')
    if why := _why_no_route(link):
        return Reason(why, "down", _AFTER_UP)
    if not link.up:
        return Reason("it has no carrier: nobody is at the other end", "carrier", _CARRIER)
    key = f"conf/{link.name}/disable_ipv6"
    if sysctl(key) == "1":
        # with slashes, where the name has a dot ("lan0.100")
        return Reason(f"IPv6 is off there: sysctl -w {word(f'net/ipv6/{key}=0')}", "off", _AFTER_UP)
    if not any(held.address.is_link_local for held in link.own(())):
        return Reason(
            "it has no link-local address, from which the kernel asks: ip -6 address add fe80::1/64 dev"
            f" {word(link.name)}",
            "address",
            _until_announced(link, sysctl),
        )
    return Reason("")


def _until_announced(link: LinkFacts, sysctl: ReadSysctl) -> float:
    """Seconds from a link's coming up until its addresses are announced: not while the kernel probes for others'."""
    probes = sysctl(f"conf/{link.name}/dad_transmits") or "1"
    return _DAD + min(int(probes) if probes.isdigit() else 1, _MOST_PROBES)
