# SPDX-License-Identifier: GPL-2.0-or-later
"""Other proxies between the same links: how they are found, and which of their questions are echoes of ours.

Two that answer on link A for what is behind link B, and on B for what is behind A, hear each other. One asks B for a
target that somebody on A has asked for; the other hears that on B, and asks A. Each takes the other's answer as proof
that the host is there, and answers in turn, even for hosts that have long gone (RFC 4389 §4.1.3 leaves that to the
proxy). An advertisement doesn't show whether a proxy or a host sent it: the R flag is set by subscribers' routers as
well, and these, too, answer for many addresses by one MAC. But a proxy's behaviour shows it. So now and then we have
the kernel ask on one of the links for an address that nobody can know, drawn at random. Whoever then asks for that
address on another link has heard our question, and forwards it. That MAC is another proxy's on this link, and what it
answers proves no host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.prefix import BITS, Prefix
from npd6_xdp.core.steps import Steps, finish, in_order, pieces
from npd6_xdp.core.table import Decision, Match, Origin, Table

PERIOD = 30.0
"""Seconds between two tests of the same links."""
LEAST = 2.0
"""Seconds between two tests of the same links where something calls for one."""
TESTS_AT_ONCE = 8
"""So many tests begin together, and the next ones a second later."""
OTHER_PROXY_SECONDS = 600.0
"""After so long with no sign of it, another proxy is forgotten."""
HOLD = 6.5
"""Seconds after our question in which another proxy's question may be caused by it. The kernel asks for 3 s; another
proxy that hears its last try asks for 3 s more, and so does a third that hears that one's.
"""

_NONCE_SECONDS = 10.0  # for which an answer may come; whoever hears of it late asks for 3 s more
_ASK_SECONDS = 1.0  # for which the kernel looks for it; once it asks, and we only want to hear of that
_BREAK = 1.0
_MOST_ASKED = 4096
_MOST_MET = 4096
_MOST_OTHER_PROXIES = 64  # on one link
_LEAST_BITS = 16  # of a prefix's that are drawn at random: with fewer, a host's address may be drawn
_DRAWS = 8
_NEVER = float("-inf")


class _Way(NamedTuple):
    """Two links, between which we carry questions both ways: `asked` is where the test asks, for one of `prefixes`.

    `back` are the entries on the other link whose targets are behind this one, `here` those of this one.
    """

    asked: int
    other: int
    here: tuple[int, ...]
    back: tuple[int, ...]
    prefixes: tuple[Prefix, ...]


class _Wide(NamedTuple):
    """The prefixes of an entry's rules that addresses are drawn from, by the rules' via set."""

    origin: Origin
    prefixes: Mapping[int, Mapping[Prefix, None]]


@dataclass(slots=True)
class _Nonce:
    asked: int
    began: float
    taken_back: bool = False


class Loops:
    """The tests under way, and the proxies that they have found. `draw` gives a random integer below its argument."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        self._draw = draw
        self._table = Table({}, {}, {}, {}, {})
        self._ways: list[_Way] = []
        self._wide: dict[int, _Wide] = {}
        self._expected: tuple[Table, list[_Way], dict[int, _Wide]] | None = None
        self._links: frozenset[int] = frozenset()
        self._todo: dict[int, None] = {}  # indexes of ways
        self._tested: dict[int, float] = {}
        self._all_at = self._broke_at = _NEVER
        self.due: float | None = None
        """When to call take_tests() (seconds, monotonic); None: there is nothing to test."""
        self._nonces: dict[bytes, _Nonce] = {}
        self._other_proxies: dict[int, dict[bytes, float]] = {}
        self._asked: dict[Host, float] = {}
        self._asking_too: dict[Host, tuple[bytes, float]] = {}
        self._met: dict[tuple[int, bytes], None] = {}

    def expecting(self, table: Table) -> Steps[None]:
        """Find what is to be tested by a table that is to come, bit by bit; use() has it then."""
        ways, wide = yield from _ways(table, self._wide)
        self._expected = table, ways, wide

    def give_up(self) -> None:
        """The table that was expected isn't to come."""
        self._expected = None

    def use(self, table: Table) -> None:
        """Go by another table."""
        if table is self._table:
            return  # and what is expected may still come
        if self._expected is None or self._expected[0] is not table:
            finish(self.expecting(table))
        assert self._expected is not None
        (self._table, ways, self._wide), self._expected = self._expected, None
        if ways == self._ways:
            return
        self._ways = ways
        self._links = frozenset(way.asked for way in ways)
        self._tested.clear()
        self._todo = dict.fromkeys(range(len(ways)))
        self._schedule()
        self._other_proxies = {link: macs for link, macs in self._other_proxies.items() if link in self._links}

    @property
    def links(self) -> frozenset[int]:
        """The links on which another proxy could echo our questions: we ask there, and answer there for hosts on other
        links.
        """
        return self._links

    @property
    def other_proxies(self) -> Mapping[int, Iterable[bytes]]:
        """The MACs of other proxies, by link."""
        return {link: frozenset(macs) for link, macs in self._other_proxies.items()}

    # --- tests ---

    def take_tests(self, now: float) -> tuple[list[Host], list[Host]]:
        """Whom the kernel is to look for now, and whose entries aren't needed any longer; call it when it is `due`."""
        if self._ways and now >= self._all_at + PERIOD:
            self._all_at = now
            self._todo.update(dict.fromkeys(range(len(self._ways))))
        look = []
        if now >= self._broke_at + _BREAK:
            ready = [index for index in self._todo if now - self._tested.get(index, _NEVER) >= LEAST]
            for index in ready[:TESTS_AT_ONCE]:
                del self._todo[index]
                self._tested[index] = self._broke_at = now
                address = self._unknown(self._ways[index])
                if address is not None:
                    self._nonces[address] = _Nonce(self._ways[index].asked, now)
                    look.append(Host(self._ways[index].asked, address))
        needless = self._tidy(now)
        self._schedule()
        return look, needless

    def _schedule(self) -> None:
        times = [
            nonce.began + (_NONCE_SECONDS if nonce.taken_back else _ASK_SECONDS) for nonce in self._nonces.values()
        ]
        if self._ways:
            times.append(self._all_at + PERIOD)
        if self._todo:
            tested = min(self._tested.get(index, _NEVER) for index in self._todo)
            times.append(max(self._broke_at + _BREAK, tested + LEAST))
        self.due = min(times, default=None)

    def _tidy(self, now: float) -> list[Host]:
        needless = []
        for address, nonce in tuple(self._nonces.items()):
            if not nonce.taken_back and now - nonce.began >= _ASK_SECONDS:
                nonce.taken_back = True
                needless.append(Host(nonce.asked, address))
            if now - nonce.began >= _NONCE_SECONDS:
                del self._nonces[address]
        for link, macs in tuple(self._other_proxies.items()):
            self._other_proxies[link] = {mac: seen for mac, seen in macs.items() if now - seen < OTHER_PROXY_SECONDS}
            if not self._other_proxies[link]:
                del self._other_proxies[link]
        return needless

    def _unknown(self, way: _Way) -> bytes | None:
        """An address that rules cover both ways, and that no host is likely to have; None if none was drawn."""
        for _ in range(_DRAWS):
            prefix = way.prefixes[self._draw(len(way.prefixes))]
            address = IPv6Address(prefix.address + self._draw(1 << (BITS - prefix.length)))
            if any(self._is_behind(entry, address, way.asked) for entry in way.back) and any(
                self._is_neighbours(entry, address) for entry in way.here
            ):
                return address.packed
        return None

    def _is_behind(self, entry: int, address: IPv6Address, link: int) -> bool:
        match = self._table.lookup(entry, address)
        return (
            isinstance(match, Match)
            and match.decision is Decision.NEIGHBOUR
            and link in self._table.vias.get(match.via_set, ())
        )

    def _is_neighbours(self, entry: int, address: IPv6Address) -> bool:
        match = self._table.lookup(entry, address)
        return isinstance(match, Match) and match.decision is Decision.NEIGHBOUR

    def call_for(self, link: int) -> None:
        """Another proxy may be active on a link: test soon."""
        self._todo.update({index: None for index, way in enumerate(self._ways) if link in (way.asked, way.other)})
        self._schedule()

    def met(self, link: int, mac: bytes) -> None:
        """A station has answered on a link. One that is new there may be a proxy."""
        if link not in self._links or (link, mac) in self._met:
            return
        if len(self._met) >= _MOST_MET:
            del self._met[next(iter(self._met))]
        self._met[link, mac] = None
        self.call_for(link)

    # --- what is heard ---

    def is_test(self, address: bytes) -> bool:
        """Whether an address is one that we have drawn."""
        return address in self._nonces

    def heard(self, target: bytes, link: int, mac: bytes, now: float) -> bool:
        """A target is asked for on a link, by a MAC; whether that shows another proxy that wasn't known there."""
        nonce = self._nonces.get(target)
        if nonce is None or nonce.asked == link:
            return False
        macs = self._other_proxies.setdefault(link, {})
        new = mac not in macs
        if new and len(macs) >= _MOST_OTHER_PROXIES:
            return False
        macs[mac] = now
        return new

    def began(self, host: Host, now: float) -> None:
        """We begin to look for a target on a link."""
        if host.ifindex not in self._links:
            return
        self._asked.pop(host, None)
        while len(self._asked) >= _MOST_ASKED:
            del self._asked[next(iter(self._asked))]
        self._asked[host] = now

    def is_echo(self, host: Host, mac: bytes, now: float) -> bool:
        """Whether a question that comes in on a link, for a target that isn't pending there, is because of ours."""
        return mac in self._other_proxies.get(host.ifindex, ()) and now - self._asked.get(host, _NEVER) < HOLD

    def asks_too(self, host: Host, mac: bytes, now: float) -> None:
        """A target that we look for on a link is asked for there by a MAC as well: by another proxy, or by a host."""
        self._asking_too.pop(host, None)
        while len(self._asking_too) >= _MOST_ASKED:
            del self._asking_too[next(iter(self._asking_too))]
        self._asking_too[host] = mac, now
        self.call_for(host.ifindex)

    def is_asking(self, host: Host, mac: bytes, now: float) -> bool:
        """Whether a MAC that answers for a target has just asked for it itself: then it isn't the target's host."""
        asking = self._asking_too.get(host)
        return asking is not None and asking[0] == mac and now - asking[1] < HOLD


def _ways(table: Table, wide: Mapping[int, _Wide]) -> Steps[tuple[list[_Way], dict[int, _Wide]]]:
    """The links between which questions are carried both ways, and what was gathered of entries for that. `wide` is
    what was gathered for the table before.

    This is asked with each table, of which some have 100,000 rules: no rule is looked at that is as it was.
    """
    entries = table.at_work(Decision.NEIGHBOUR)
    behind: dict[tuple[int, int], dict[tuple[int, int], None]] = {}  # (entry, via set) by (their link, a via of theirs)
    for entry in entries:
        for via_set in table.origins[entry.id].via_sets & table.vias.keys():
            for via in table.vias[via_set]:
                behind.setdefault((entry.l3_ifindex, via), {})[entry.id, via_set] = None
        yield
    ways: list[_Way] = []
    known: dict[int, _Wide] = {}
    for link, via in (yield from in_order(behind)):
        if link == via or (via, link) not in behind:
            continue
        prefixes: dict[Prefix, None] = {}
        for number, via_set in behind[link, via]:
            if number not in known:
                origin, before = table.origins[number], wide.get(number)
                if before is None or before.origin is not origin:
                    before = yield from _gather(origin)
                known[number] = before
            prefixes.update(known[number].prefixes.get(via_set, {}))
        if prefixes:
            here, back = (tuple(dict.fromkeys(each for each, _ in behind[key])) for key in ((via, link), (link, via)))
            ways.append(_Way(via, link, here, back, tuple(prefixes)))
        yield
    return ways, known


def _gather(origin: Origin) -> Steps[_Wide]:
    prefixes: dict[int, dict[Prefix, None]] = {}
    for some in pieces(origin.rules.values()):
        for rule in some:
            if rule.decision is Decision.NEIGHBOUR:
                wide = [prefix for prefix in rule.networks if BITS - prefix.length >= _LEAST_BITS]
                prefixes.setdefault(rule.via_set, {}).update(dict.fromkeys(wide))
        yield
    return _Wide(origin, prefixes)


def about_other_proxy(mac: bytes, table: Table) -> str:
    """What to say of one that was found, behind the name of its link."""
    if any(entry.mac == mac for entry in table.entries.values()):
        what = "that is this machine, so two of its interfaces are on one link: it can't tell who is behind which"
    else:
        what = "it is another proxy between the same links, so what it answers there isn't taken for a host"
    return f"{mac.hex(':')} asks for what is asked for elsewhere: {what}"
