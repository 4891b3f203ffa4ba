# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour`: where a host is, if the neighbour tables of several links have its address.

The kernel keeps a table for each link and doesn't compare them. Whoever sends it a solicitation gets an entry, with no
proof of the address that it claims; an entry outlives a host that went to another link; and a station that answers for
others has entries like theirs. So each entry is judged here:

- **confirmed**: the host has answered a probe (REACHABLE), or somebody vouches for it (PERMANENT, a next hop of ours);
- **proven**: it was confirmed, and the word is old (STALE, DELAY, PROBE);
- **claimed**: somebody said so, and that is all (RFC 4861 §7.2.3, §7.2.5 make a STALE entry of it).

A claim counts once the host has answered for it; it is asked at once. Among links between which questions are answered,
an address is in one place. Another that turns up doesn't displace it: both are asked, and only a host that leaves its
probe unanswered loses its place. A host that speaks where the table hasn't got it is looked for there (core/heard.py).
What a proxy beside us answers is no place at all (core/loops.py finds those).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from npd6_xdp.core.answered_links import AnsweredLinks
from npd6_xdp.core.contests import NEVER, NO_TIME, PATIENCE, Contests, Key, Place
from npd6_xdp.core.heard import Heard
from npd6_xdp.core.neighbour_messages import CONFIRMED, LOOKED_AFTER, PRESENT, NeighbourState, Word
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.other_proxies import OtherProxies
from npd6_xdp.core.steps import Steps, finish, pieces
from npd6_xdp.core.table import Table

ASKED_PER_SECOND = 256
"""Probes at once that we send by ourselves. Hosts that somebody is asking for are probed besides."""

# as plain numbers: an enum's `&` takes a microsecond, and the table may change by thousands at once
_PRESENT, _CONFIRMED, _LOOKED_AFTER = int(PRESENT), int(CONFIRMED), int(LOOKED_AFTER)
_STALE, _PROBE, _PERMANENT = int(NeighbourState.STALE), int(NeighbourState.PROBE), int(NeighbourState.PERMANENT)
_PAUSE = 0.02  # seconds between two looks at who is to be asked
_BIT = 512  # addresses that are gone over at once
_SETTLED = 128  # and of which it is decided anew what counts
_NO_TABLE = Table({}, {}, {}, {}, {})


class Places:
    """Which of the neighbour table's entries are hosts. distrust() says which MACs are other proxies'.

    changed() and the others return (host, state) in order, as corrected here: callers use these instead of what the
    neighbour table says. take_to_ask() hands out the hosts that are to be probed now.
    """

    def __init__(self) -> None:
        self._links = self._links_to_come = AnsweredLinks(_NO_TABLE, {})
        self._unsettled: dict[bytes, None] = {}  # addresses of which another place may count by now
        self._places: dict[bytes, dict[int, Place]] = {}
        self._claims: set[Host] = set()
        self._other_proxies = OtherProxies()
        self._heard = Heard(PATIENCE)
        self._urgent: dict[Host, None] = {}
        self._contests = Contests(self._urgent)
        self._sometime: dict[Host, None] = {}
        self._budget = float(ASKED_PER_SECOND)
        self._spent_at = NEVER

    # --- what is known ---

    def hosts(self) -> Iterator[Host]:
        """All hosts that the neighbour table has, whatever they count for. They may change meanwhile."""
        for address in tuple(self._places):
            for ifindex in tuple(self._places.get(address, ())):
                yield Host(ifindex, address)

    def has(self, host: Host) -> bool:
        """Whether the neighbour table has an entry with a link-layer address, whatever it counts for."""
        return host.ifindex in self._places.get(host.address, ())

    def looked_after(self, host: Host) -> NeighbourState:
        """What of LOOKED_AFTER the neighbour table says of a host."""
        place = self._places.get(host.address, {}).get(host.ifindex)
        return NeighbourState(place.state & _LOOKED_AFTER) if place else NeighbourState.NONE

    def state(self, host: Host) -> NeighbourState:
        """The state of a host that counts; NUD_NONE where it doesn't."""
        place = self._places.get(host.address, {}).get(host.ifindex)
        return NeighbourState(place.state) if place and place.counts else NeighbourState.NONE

    def is_elsewhere(self, host: Host) -> bool:
        """Whether another place of its address counts, among links that belong together."""
        return any(it.counts and link != host.ifindex for link, it in self._rivals(self._key(host)).items())

    # --- the neighbour table's word ---

    def expecting(self, table: Table, vrfs: Mapping[int, int] | None = None) -> Steps[None]:
        """Find out what a table that is to come says of links, bit by bit; use() has it then.

        `vrfs` has the routing tables of those links that belong to a VRF.
        """
        self._links_to_come = yield from AnsweredLinks.finding(table, vrfs or {})

    def give_up(self) -> None:
        """The table that was expected isn't to come."""
        self._links_to_come = self._links

    def use(self, table: Table, now: float, vrfs: Mapping[int, int] | None = None) -> list[tuple[Host, int]]:
        """Go by another table: other links may belong together, and other addresses matter. settle() is to follow."""
        if self._links.is_of(table, vrfs or {}):
            return []  # and what is expected may still come
        if not self._links_to_come.is_of(table, vrfs or {}):
            finish(self.expecting(table, vrfs))
        before, self._links = self._links, self._links_to_come
        if self._links.is_like(before):
            return []
        self._contests.clear()
        self._heard.clear()
        several = [address for address, found in self._places.items() if len(found) > 1]
        self._unsettled |= dict.fromkeys([*several, *(host.address for host in sorted(self._claims))])
        return self.settle(now)

    @property
    def unsettled(self) -> bool:
        """Whether settle() has more to do."""
        return bool(self._unsettled)

    def settle(self, now: float) -> list[tuple[Host, int]]:
        """Let another place count where that is so by now, of some hundred addresses: there may be thousands."""
        states: list[tuple[Host, int]] = []
        for address in tuple(islice(self._unsettled, _SETTLED)):
            del self._unsettled[address]
            states += self._settle(address, now)
        return states

    def restart(self, words: Mapping[Host, Word], now: float) -> dict[Host, int]:
        """Take in the whole table at the start, where nothing was known before; returns it as corrected."""
        return dict(state for states in self.beginning([[*words.items()]], now) for state in states)

    def beginning(self, table: Iterable[list[tuple[Host, Word]]], now: float) -> Iterator[list[tuple[Host, int]]]:
        """The same, bit by bit, and `table` in pieces. Between them, changed() may say more.

        Whether a STALE entry was ever confirmed can't be known any more. It counts as if it was, since hosts would have
        to wait after each start otherwise, and is probed in its turn. Who is in two places is known at the end only.
        """
        for words in table:
            for host, word in words:
                if word.state & _PRESENT:
                    place = Place(word.state, word.mac, True, now if word.state & _CONFIRMED else NEVER)
                    self._places.setdefault(host.address, {})[host.ifindex] = place
            yield [(host, word.state) for host, word in words if not word.state & _PRESENT]
        for some in pieces(tuple(self._places), _SETTLED):
            states: list[tuple[Host, int]] = []
            for address in some:
                found = self._places.get(address, {})
                if len(found) == 1:
                    ((ifindex, place),) = found.items()
                    place.counts = place.proven and not self._is_other_proxys(ifindex, place)
                    if place.counts:
                        states.append((Host(ifindex, address), place.state))
                else:
                    states += self._settle(address, now)
                for ifindex, place in found.items():
                    if place.state & (_STALE | _LOOKED_AFTER) == _STALE:
                        # to find out whether it matters takes a while: see take_to_ask()
                        self._sometime[Host(ifindex, address)] = None
            yield states

    def forgetting(self) -> Iterator[None]:
        """Forget all, bit by bit: nobody tells of changes any more."""
        for some in pieces(tuple(self._places), _BIT):
            for address in some:
                self._places.pop(address, None)
            yield
        self._links = self._links_to_come = AnsweredLinks(_NO_TABLE, {})
        self._other_proxies.use({})
        for known in (self._contests, self._heard, self._unsettled, self._claims, self._urgent, self._sometime):
            known.clear()

    def changed(self, host: Host, word: Word, now: float) -> list[tuple[Host, int]]:
        """The neighbour table says something of a host (now: seconds, monotonic)."""
        found = self._places.get(host.address)
        before = found.get(host.ifindex) if found else None
        if not word.state & _PRESENT:
            return self._gone(host, word, before, now)
        state = word.state
        if before is not None and before.mac != word.mac and self._is_other_proxys(host.ifindex, before):
            before = None  # the MAC is no longer the proxy's: another station claims the address
        was = before.state if before else 0
        place = before or Place(state, word.mac, False)
        place.state, place.mac = state, word.mac
        if state & (_CONFIRMED | _LOOKED_AFTER):
            place.proven = True
            place.confirmed = now if state & _CONFIRMED else place.confirmed
        if state & _CONFIRMED:
            self._heard.answered(host)
        if before is None:
            found = self._places.setdefault(host.address, {})
            found[host.ifindex] = place
        if not place.proven and not place.counts and not self._links.concerns(host):
            place.proven = True  # no rule covers it, so it doesn't matter here
        if place.proven:
            self._claims.discard(host)
        else:
            self._claims.add(host)
        if self._is_other_proxys(host.ifindex, place):
            return [*self._settle(host.address, now), (host, NeighbourState.FAILED)]
        if place.counts:
            if state & _CONFIRMED:
                self._contests.answered(self._key(host))
            return [(host, state)]
        if before is not None and not state & _CONFIRMED & ~was:
            return []  # no news: neither a new entry nor an answer
        if not place.proven:
            self._urgent[host] = None
        assert found is not None
        if len(found) > 1:
            return self._settle(host.address, now)
        place.counts = place.proven
        return [(host, state)] if place.proven else []

    def _gone(self, host: Host, word: Word, before: Place | None, now: float) -> list[tuple[Host, int]]:
        states: list[tuple[Host, int]] = [(host, word.state)]
        self._claims.discard(host)
        self._urgent.pop(host, None)
        self._sometime.pop(host, None)
        if before is None:
            return states
        found = self._places[host.address]
        del found[host.ifindex]
        self._heard.gone(host, now)
        if not found:
            del self._places[host.address]
        self._contests.end(self._key(host))
        # the place that takes over comes first: in between, nobody would be answered
        return self._settle(host.address, now) + states if found else states

    # --- who counts ---

    def _settle(self, address: bytes, now: float) -> list[tuple[Host, int]]:
        """Choose which place of an address counts among links that belong together; returns what has changed."""
        rivals: defaultdict[int, dict[int, Place]] = defaultdict(dict)
        winners: dict[int, Place] = {}
        found = self._places.get(address, {})
        for ifindex, place in found.items():
            host = Host(ifindex, address)
            if self._is_other_proxys(ifindex, place):
                continue
            if len(found) == 1 or not self._links.concerns(host):
                if place.proven:
                    winners[ifindex] = place
                elif not self._links.concerns(host):
                    place.proven = True
                    winners[ifindex] = place
            else:
                rivals[self._links.belongs_to(ifindex)][ifindex] = place
        for together, places in rivals.items():
            fixed = [
                ifindex
                for ifindex, place in places.items()
                if place.proven and self._is_fixed(Host(ifindex, address), place)
            ]
            winner = self._contests.choose((together, address), places, fixed, now)
            if winner:
                winners[winner] = places[winner]
        states: list[tuple[Host, int]] = []
        for ifindex, place in winners.items():
            if not place.counts:
                place.counts = True
                states.append((Host(ifindex, address), place.state))
                if place.state & (_STALE | _LOOKED_AFTER) == _STALE and self._links.concerns(Host(ifindex, address)):
                    self._urgent[Host(ifindex, address)] = None  # an old entry that matters now
        for ifindex, place in found.items():
            if place.counts and ifindex not in winners:
                place.counts = False
                states.append((Host(ifindex, address), NeighbourState.NONE))
        return states

    def tick(self, now: float) -> list[tuple[Host, int]]:
        """Go on with addresses of which two places were probed; call it when it is `due`."""
        self._heard.tick(now)
        states: list[tuple[Host, int]] = []
        for _, address in self._contests.going_on(now, self._rivals):
            states += self._settle(address, now)
        return states

    def _rivals(self, key: Key) -> dict[int, Place]:
        """The places of an address among links that belong together."""
        together, address = key
        return {
            ifindex: place
            for ifindex, place in self._places.get(address, {}).items()
            if self._links.belongs_to(ifindex) == together and self._links.concerns(Host(ifindex, address))
        }

    @property
    def due(self) -> float | None:
        """When to call tick() and the take_... again (seconds, monotonic); None: nothing is to be done."""
        due = min(self._contests.due, self._heard.due)
        if self._links.asks and (self._urgent or self._sometime or self._heard.has_work):
            due = min(due, self._spent_at + _PAUSE)
        return None if due == NO_TIME else due

    # --- probes ---

    def take_to_ask(self, now: float) -> list[Host]:
        """The hosts that are to be probed now: first those that somebody waits for, and no more than may be at once."""
        grown = self._budget + (now - self._spent_at) * ASKED_PER_SECOND
        self._budget = self._links.asks * min(float(ASKED_PER_SECOND), grown)
        found, self._spent_at = list[Host](), now
        for waiting in (self._urgent, self._sometime):
            while waiting and self._budget >= 1:
                host = next(iter(waiting))
                del waiting[host]
                place = self._places.get(host.address, {}).get(host.ifindex)
                if place is None or place.state & _PERMANENT:
                    continue
                self._budget -= 1
                if waiting is self._urgent or self._links.concerns(host):
                    found.append(host)
                    self._asked(host, place, now)
        return found

    def is_doubted(self, host: Host) -> bool:
        """Whether the kernel is about to find out whether a host is there, and has asked it already."""
        place = self._places.get(host.address, {}).get(host.ifindex)
        return place is not None and bool(place.state & _PROBE)

    def take_to_look_for(self, now: float) -> list[tuple[Host, bool]]:
        """The hosts that the kernel is to look for now, within what take_to_ask() leaves of the budget.

        True: not by the entry that it has.
        """
        found = self._heard.take_to_look_for(now, int(self._budget))
        self._budget -= len(found)
        return found

    def take_needless(self) -> list[Host]:
        """Hosts that were looked for and not found: entries that the kernel needn't keep."""
        return [host for host in self._heard.take_needless() if not self.has(host)]

    def _asked(self, host: Host, place: Place, now: float) -> None:
        self._heard.asked(host, now)
        if place.counts:
            self._contests.asked(self._key(host), now)

    # --- who speaks ---

    def heard(self, host: Host, mac: bytes, now: float) -> None:
        """A host has sent a solicitation from this address and MAC on a link, and the kernel hasn't seen it. Only
        addresses that are known there, or on a link that belongs together with it, are looked into: for all others, it
        is enough that the kernel asks when they are needed.

        An entry that lost to another place is asked as well, also where the kernel says that it is REACHABLE: that is
        from before, and without news of it both places would stay as they are until the kernel asks by itself.
        """
        found = self._places.get(host.address)
        if not found or self._other_proxies.has(host.ifindex, mac) or not self._links.concerns(host):
            return
        together = self._links.belongs_to(host.ifindex)
        places = {ifindex: place for ifindex, place in found.items() if self._links.belongs_to(ifindex) == together}
        if not places or any(
            place.state & _LOOKED_AFTER or self._is_fixed(Host(ifindex, host.address), place)
            for ifindex, place in places.items()
        ):
            return
        here = places.get(host.ifindex)
        if here is not None and here.mac == mac and here.counts:
            return
        if self._heard.begin(host, now, doubted=here is not None):
            self._urgent[host] = None

    # --- other proxies ---

    def distrust(self, other_proxies: Mapping[int, Iterable[bytes]], now: float) -> list[tuple[Host, int]]:
        """Take these MACs, by link, as other proxies'. What they answer, and have answered, proves no host.

        settle() is to follow.
        """
        if not (differ := self._other_proxies.use(other_proxies)):
            return []
        anew = (
            address
            for address, found in self._places.items()
            for link, place in found.items()
            if place.mac in differ.get(link, ())
        )
        self._unsettled |= dict.fromkeys(anew)
        return self.settle(now)

    def _is_other_proxys(self, ifindex: int, place: Place) -> bool:
        return self._other_proxies.has(ifindex, place.mac) and not place.state & _PERMANENT

    def _is_fixed(self, host: Host, place: Place) -> bool:
        """Whether no other place can displace it: it doesn't come from the wire, but from this machine."""
        return bool(place.state & _PERMANENT) or self._links.is_next_hop(host)

    def _key(self, host: Host) -> Key:
        return self._links.belongs_to(host.ifindex), host.address
