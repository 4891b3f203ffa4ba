# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour`: which targets are pending (the kernel resolves them at the moment), and who waits for which.

They are bounded by what the kernel's own table has space for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from npd6_xdp.core.event import EventFlag, NsEvent
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.table import Table

_TAGS = EventFlag.COUNT | EventFlag.OUTER_8021AD | EventFlag.INNER_8021AD  # of the flags, what tells askers apart
MAX_ASKERS = 32
"""Askers that are remembered for one pending target."""
PENDING_SECONDS = 10.0
"""After so long a target is given up, whatever the kernel does: it takes 3 s with its defaults."""


class Asker(NamedTuple):
    """Who asks, as far as shares go: on which entry, and the MAC (6 bytes) that the answer goes to."""

    entry: int
    mac: bytes


class Waiting(NamedTuple):
    """Of a pending target: for how long it has been (seconds), how many wait, and behind which interfaces."""

    seconds: float
    askers: int
    ifindexes: tuple[int, ...]


NOBODY = bytes(6)
"""Stands for all askers of an entry, where an Asker has a MAC. No solicitation is answered to this address."""


@dataclass(slots=True)
class _Pending:
    """A pending target: behind which interfaces it is looked for, whose share it counts in, who asked, and when it is
    given up (seconds, monotonic).
    """

    ifindexes: set[int]
    began_by: Asker
    until: float
    askers: dict[tuple[int, bytes, bytes, bytes, int], NsEvent] = field(default_factory=dict)


class _Share:
    """How many of the pending targets one entry's askers have, in all and each of them."""

    def __init__(self) -> None:
        self.count = 0
        self.each: dict[bytes, int] = {}
        self._having: defaultdict[int, set[bytes]] = defaultdict(set)

    def change(self, mac: bytes, by: int) -> None:
        before = self.each.get(mac, 0)
        self.count += by
        if before:
            self._having[before].discard(mac)
            if not self._having[before]:
                del self._having[before]
        if before + by:
            self.each[mac] = before + by
            self._having[before + by].add(mac)
        else:
            del self.each[mac]

    def having(self, least: int) -> Iterator[bytes]:
        """The askers that have at least so many. Takes time in proportion to how many these are."""
        for count in [count for count in self._having if count >= least]:
            yield from self._having[count]


class Pending:
    """The pending targets, each with all who asked meanwhile.

    The space is shared between the entries first, and an entry's part between its askers: no entry has more targets
    than are left free, and within its part no asker has more than are left to the others. An entry that is the only one
    (`alone`) need not leave any free. So one scan gets half of the space, and two get a third each; where there are
    other entries, one scan gets a quarter. An asker with few targets always finds space.
    """

    def __init__(self) -> None:
        self._targets: dict[tuple[int, bytes], _Pending] = {}  # in the order of their time
        self._via_sets: dict[bytes, set[int]] = {}
        self._shares: dict[int, _Share] = {}
        self.alone = True

    def __len__(self) -> int:
        return len(self._targets)

    def __contains__(self, key: tuple[int, bytes]) -> bool:
        return key in self._targets

    def targets(self) -> list[tuple[int, bytes]]:
        """Those that are pending: (via set, address)."""
        return list(self._targets)

    def has_space_for(self, asker: Asker, capacity: int) -> bool:
        """Whether one more target of an asker's may be pending, where there is space for so many."""
        share = self._shares.get(asker.entry)
        return (share.each.get(asker.mac, 0) if share else 0) < self._left_to(asker.entry, capacity)

    def _left_to(self, entry: int, capacity: int) -> int:
        """How many more an entry may have."""
        free = capacity - len(self._targets)
        if self.alone:
            return free
        count = self._shares[entry].count if entry in self._shares else 0
        return (free - count + 1) // 2  # the last of them is one where as many are free as it has then

    def refused_askers(self, capacity: int) -> frozenset[Asker]:
        """The askers that have targets pending and may not have more. NOBODY's MAC stands for all of an entry. If
        there is no space for any asker at all, it is empty.
        """
        if len(self._targets) >= capacity:
            return frozenset()
        found: list[Asker] = []
        for entry, share in self._shares.items():
            left = self._left_to(entry, capacity)
            found += [Asker(entry, mac) for mac in ((NOBODY,) if left <= 0 else share.having(left))]
        return frozenset(found)

    def add(
        self, via_set: int, event: NsEvent, interfaces: Iterable[int], now: float, entry: int = 0
    ) -> list[Host] | None:
        """Remember who asks, on which entry. Returns where the kernel is to look, nothing if it does already.

        None: so many wait for this target that one more can't be remembered.
        """
        key = via_set, event.target
        pending = self._targets.get(key)
        hosts = []
        if pending is None:
            began_by = Asker(entry, event.answer_mac)
            pending = self._targets[key] = _Pending(set(interfaces), began_by, now + PENDING_SECONDS)
            self._via_sets.setdefault(event.target, set()).add(via_set)
            self._shares.setdefault(entry, _Share()).change(event.answer_mac, 1)
            hosts = [Host(ifindex, event.target) for ifindex in sorted(pending.ifindexes)]
        question = (event.rule, event.source, event.answer_mac, event.tci, event.flags & _TAGS)
        if len(pending.askers) >= MAX_ASKERS and question not in pending.askers:
            return None
        pending.askers[question] = event
        return hosts

    def resolved(self, host: Host, *, confirmed: bool = True) -> list[NsEvent]:
        """A target is there: returns those who wait for it. A DAD probe for it goes on waiting until the host is
        `confirmed`: a stale entry may be of a host that has gone, and defending that would keep the address from its
        next holder (RFC 6957 §4.2).
        """
        waiting: list[NsEvent] = []
        for key in self._looked_for(host):
            askers = self._targets[key].askers
            ready = [asker for asker, event in askers.items() if confirmed or not event.is_dad]
            waiting += [askers.pop(asker) for asker in ready]
            if not askers:
                self._end(key)
        return waiting

    def failed(self, host: Host) -> bool:
        """The kernel found nobody behind one interface; whether that had been looked for here."""
        keys = self._looked_for(host)
        for key in keys:
            pending = self._targets[key]
            pending.ifindexes.discard(host.ifindex)
            if not pending.ifindexes:
                self._end(key)
        return bool(keys)

    def hosts(self, via_set: int, address: bytes) -> list[Host]:
        """Whom the kernel looks for by a target's address: a host behind each interface; none, if it isn't pending."""
        pending = self._targets.get((via_set, address))
        return [Host(ifindex, address) for ifindex in sorted(pending.ifindexes)] if pending else []

    def waiting(self, via_set: int, address: bytes, now: float) -> Waiting | None:
        """Who waits for a target at the moment (seconds, monotonic); None: it isn't pending."""
        pending = self._targets.get((via_set, address))
        if pending is None:
            return None
        return Waiting(now - pending.until + PENDING_SECONDS, len(pending.askers), tuple(sorted(pending.ifindexes)))

    def awaits(self, host: Host) -> bool:
        """Whether the kernel is looking for a target behind that interface."""
        return bool(self._looked_for(host))

    def expire(self, now: float, at_most: int = 1 << 30) -> bool:
        """Give up targets that have taken too long, at most so many at once; returns whether these were all."""
        gone: list[tuple[int, bytes]] = []
        for key, pending in self._targets.items():
            if pending.until > now or len(gone) >= at_most:
                break
            gone.append(key)
        for key in gone:
            self._end(key)
        return len(gone) < at_most

    def forget(self, table: Table) -> list[NsEvent]:
        """Give up the targets of rules that aren't in a table; returns those who wait for them. Who waits on an entry
        that is on standby now isn't answered any more.
        """
        unanswered: list[NsEvent] = []
        for key, pending in tuple(self._targets.items()):
            for asker, event in tuple(pending.askers.items()):
                if event.rule in table.rules and table.on_standby(table.rules[event.rule].entry):
                    del pending.askers[asker]
            gone = {asker for asker, event in pending.askers.items() if event.rule not in table.rules}
            unanswered += [pending.askers.pop(asker) for asker in sorted(gone)]
            if not pending.askers or key[0] not in table.vias:
                unanswered += pending.askers.values()
                self._end(key)
        return unanswered

    def _end(self, key: tuple[int, bytes]) -> None:
        via_set, address = key
        pending = self._targets.pop(key)
        via_sets = self._via_sets[address]
        via_sets.discard(via_set)
        if not via_sets:
            del self._via_sets[address]
        share = self._shares[pending.began_by.entry]
        share.change(pending.began_by.mac, -1)
        if not share.count:
            del self._shares[pending.began_by.entry]

    def _looked_for(self, host: Host) -> list[tuple[int, bytes]]:
        keys = [(via_set, host.address) for via_set in self._via_sets.get(host.address, ())]
        return [key for key in keys if host.ifindex in self._targets[key].ifindexes]


def capacity_for_pending(limit: int, entries: int, thresholds: tuple[int, int, int] | None) -> int:
    """How many targets may be pending at once, by limits.pending and by the kernel's neighbour table.

    Above gc_thresh2 the kernel throws out entries that have been quiet for 5 s, hosts that are there among them
    (neigh_forced_gc in net/core/neighbour.c), so what we have resolved stays below it: half of what is free.
    """
    if thresholds is None:
        return limit
    free = thresholds[1] - entries
    return min(limit, max(16, free // 2))
