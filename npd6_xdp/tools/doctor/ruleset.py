# SPDX-License-Identifier: GPL-2.0-or-later
"""A firewall's chains as values, and what becomes of a packet in one: passed, dropped, or nobody can tell from here.

A match is true, false, or not known: of a packet only that is said which all packets of its kind have in common, and
rules may ask for anything. So a fate is certain only where no rule that may apply says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from fnmatch import fnmatchcase
from ipaddress import IPv6Address
from typing import NamedTuple

_DEEPEST = 16  # jumps, as in the kernel (NFT_JUMP_STACK_SIZE)
_DISCOVERY = range(133, 138)  # types of ICMPv6


class Packet(NamedTuple):
    """A kind of packet at a hook; None of what differs among them. `state` is conntrack's."""

    hook: str
    iif: str = ""
    oif: str = ""
    source: IPv6Address | None = None
    destination: IPv6Address | None = None
    icmp: int | None = None
    """The ICMPv6 type; None: of any protocol."""
    state: str = "new"
    returns: bool | None = None
    """Whether the route to its source leads out of where it came in; None: not known."""


Test = Callable[[Packet], bool | None]
"""Whether a packet has what a rule asks for; None: not known."""


class Rule(NamedTuple):
    """A rule: `text` names it, all `tests` must hold. `verdict` is accept, drop, return, jump, goto or nothing."""

    text: str
    tests: tuple[Test, ...]
    verdict: str = ""
    target: str = ""


@dataclass(frozen=True)
class Chain:
    """A base chain: `where` names it, `others` are the chains of its table. `insert` is the command that puts a rule
    at its head, up to the rule itself, in the words of `tool` (nft or ip6tables).
    """

    where: str
    tool: str
    insert: str
    hook: str
    drops: bool
    """Its policy."""
    rules: tuple[Rule, ...]
    others: Mapping[str, tuple[Rule, ...]]
    devices: tuple[str, ...] = ()
    """Of a chain that sees some interfaces' packets alone: their names."""


class Certainty(Enum):
    """What becomes of all packets of a kind."""

    PASSED = auto()
    PERHAPS = auto()
    DROPPED = auto()


class Fate(NamedTuple):
    """That, and by which rule or policy it is dropped, or may be."""

    certainty: Certainty
    by: str = ""


def fate(chain: Chain, packet: Packet) -> Fate:
    """What becomes of a packet in a chain."""
    walk = _Walk(chain, packet)
    end = walk.through(chain.rules, certain=True, depth=0)
    if end == "drop" or (end != "accept" and chain.drops):
        by = walk.by if end == "drop" else f"{chain.where}: policy drop"
        return Fate(Certainty.PERHAPS if walk.may_pass else Certainty.DROPPED, by)
    return Fate(Certainty.PERHAPS, walk.may_drop) if walk.may_drop else Fate(Certainty.PASSED)


class _Walk:
    def __init__(self, chain: Chain, packet: Packet) -> None:
        self._chain = chain
        self._packet = packet
        self.by = ""
        self.may_drop = ""
        self.may_pass = False
        self._seen: set[tuple[str, bool]] = set()  # chains that decide nothing: what they may do is noted

    def through(self, rules: tuple[Rule, ...], *, certain: bool, depth: int) -> str:
        """How it ends there: accept or drop, both for certain; else the end of the rules, or what is as good as that.

        Not `certain`: it may not have come there at all.
        """
        for rule in rules:
            found = self._holds(rule)
            if found is False:
                continue
            sure = certain and found is True
            if rule.verdict in ("accept", "drop"):
                if sure:
                    self.by = f"{self._chain.where}: {rule.text}"
                    return rule.verdict
                self._note(rule)
                if found is True:
                    return ""
            elif rule.verdict == "return":
                if found is True:
                    return ""
                certain = False
            elif rule.verdict in ("jump", "goto") and depth < _DEEPEST:
                end = self._jump(rule.target, certain=sure, depth=depth + 1)
                if end or (found is True and rule.verdict == "goto"):
                    return end
        return ""

    def _jump(self, target: str, *, certain: bool, depth: int) -> str:
        """Through a chain, or not once more: chains that jump from several places to others make no tree of it."""
        if (target, certain) in self._seen:
            return ""
        end = self.through(self._chain.others.get(target, ()), certain=certain, depth=depth)
        if not end:
            self._seen.add((target, certain))
        return end

    def _note(self, rule: Rule) -> None:
        if rule.verdict == "accept":
            self.may_pass = True
        elif not self.may_drop:
            self.may_drop = f"{self._chain.where}: {rule.text}"

    def _holds(self, rule: Rule) -> bool | None:
        known: bool | None = True
        for test in rule.tests:
            found = test(self._packet)
            if found is False:
                return False
            if found is None:
                known = None
        return known


def negated(test: Test) -> Test:
    """The other way round."""

    def other(packet: Packet) -> bool | None:
        found = test(packet)
        return None if found is None else not found

    return other


def unknown(_: Packet) -> bool | None:
    """What nobody here understands."""
    return None


def never(_: Packet) -> bool | None:
    """What no IPv6 packet has."""
    return False


def always(_: Packet) -> bool | None:
    """What each has."""
    return True


def any_of(tests: tuple[Test, ...]) -> Test:
    """Whether one of them holds."""

    def one(packet: Packet) -> bool | None:
        found = [test(packet) for test in tests]
        return True if True in found else None if None in found else False

    return one


def all_of(tests: tuple[Test, ...]) -> Test:
    """Whether all of them hold."""

    def all_(packet: Packet) -> bool | None:
        found = [test(packet) for test in tests]
        return False if False in found else None if None in found else True

    return all_


def by_interface(field: str, pattern: str) -> Test:
    """Whether `iif` or `oif` has a name; a pattern may end with an asterisk."""

    def named(packet: Packet) -> bool | None:
        name = packet.iif if field == "iif" else packet.oif
        return fnmatchcase(name, pattern) if name else None if _has(packet.hook, field) else False

    return named


def _has(hook: str, field: str) -> bool:
    with_it = ("input", "forward", "prerouting", "ingress") if field == "iif" else ("output", "forward", "postrouting")
    return hook in with_it


def by_address(field: str, first: IPv6Address, last: IPv6Address) -> Test:
    """Whether the source or the destination is among these."""

    def within(packet: Packet) -> bool | None:
        address = packet.source if field == "saddr" else packet.destination
        return None if address is None else first <= address <= last

    return within


def by_icmp_type(first: int, last: int | None = None) -> Test:
    """Whether it is ICMPv6 of a type, or of one of several."""
    return lambda packet: None if packet.icmp is None else first <= packet.icmp <= (first if last is None else last)


def by_icmp_code(code: int | str) -> Test:
    """Whether it has a code (one by its name isn't 0): 0 with Neighbor Discovery (RFC 4861 §4)."""
    return lambda packet: code == 0 if packet.icmp in _DISCOVERY else None


def by_hop_limit(first: int, last: int) -> Test:
    """Whether its hop limit is among these: 255 with Neighbor Discovery (RFC 4861 §7.1)."""
    return lambda packet: first <= 255 <= last if packet.icmp in _DISCOVERY else None


def by_protocol(*, is_icmp: bool) -> Test:
    """Whether it is ICMPv6, or of another protocol, of which nothing is known."""

    def of_it(packet: Packet) -> bool | None:
        if packet.icmp is None:
            return None
        return is_icmp

    return of_it


def by_way_back(*, exists: bool) -> Test:
    """Whether there is a route to its source, out of where it came in: neighbours discover each other on their link."""

    def there(packet: Packet) -> bool | None:
        returns = True if packet.icmp in _DISCOVERY and packet.iif else packet.returns
        return None if returns is None else returns is exists

    return there


def by_state(state: str) -> Test:
    """Whether conntrack has it in a state."""
    return lambda packet: packet.state == state


ICMP_TYPES: Mapping[str, int] = {
    "destination-unreachable": 1,
    "packet-too-big": 2,
    "time-exceeded": 3,
    "parameter-problem": 4,
    "echo-request": 128,
    "echo-reply": 129,
    "mld-listener-query": 130,
    "mld-listener-report": 131,
    "mld-listener-done": 132,
    "nd-router-solicit": 133,
    "router-solicitation": 133,
    "nd-router-advert": 134,
    "router-advertisement": 134,
    "nd-neighbor-solicit": 135,
    "neighbour-solicitation": 135,
    "neighbor-solicitation": 135,
    "nd-neighbor-advert": 136,
    "neighbour-advertisement": 136,
    "neighbor-advertisement": 136,
    "nd-redirect": 137,
    "redirect": 137,
    "router-renumbering": 138,
    "mld2-listener-report": 143,
}
"""As nft(8) and ip6tables(8) name them."""
