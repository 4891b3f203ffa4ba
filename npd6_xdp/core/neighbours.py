# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour`: which hosts are there, by the kernel's neighbour table.

The kernel resolves, retransmits and ages; this keeps what its notifications said. It is bounded by limits.neighbours
(E1 of docs/rules.md); when it is full, new hosts are refused and none is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core.neighbour_messages import CONFIRMED, LOOKED_AFTER, PRESENT, NeighbourState
from npd6_xdp.core.steps import pieces
from npd6_xdp.core.table import Decision, PresentFlag, Table

_BIT = 128  # hosts that a table is asked about at once: a millisecond


class Host(NamedTuple):
    """A host, by what an entry of the neighbour table has for its key: the interface, and the address (16 bytes)."""

    ifindex: int
    address: bytes


class PresentTarget(NamedTuple):
    """A change of one entry of the map of present targets: `flags` None removes it."""

    via_set: int
    address: bytes
    flags: PresentFlag | None


class Neighbours:
    """The hosts that are there. `refused` counts those for which there was no space."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.refused = 0
        self._table = Table({}, {}, {}, {}, {})
        self._states: dict[Host, NeighbourState] = {}
        self._via_sets: dict[Host, frozenset[int]] = {}
        self._by_interface: dict[int, int] = {}
        self._present: dict[tuple[int, bytes], dict[int, NeighbourState]] = {}
        self._left_out: set[Host] = set()
        self.unsettled = False
        """Whether a table was given to use() that may say something else of any host, and drop() wasn't called."""
        self.touched: set[bytes] = set()
        """The same, of the hosts at these addresses."""
        self._looked_after: dict[Host, NeighbourState] = {}  # of those that aren't there
        self._to_come: Table | None = None
        self._is_stray = False  # some may be known for a table that was expected, and isn't any more
        self._expected: tuple[Table, int, set[bytes] | None] | None = None

    def __len__(self) -> int:
        return len(self._via_sets)

    @property
    def held(self) -> int:
        """How many hosts are remembered, those that no rule covers too."""
        return len(self._states)

    @property
    def full(self) -> bool:
        """Whether there is no space for one more."""
        return len(self._via_sets) >= self.limit

    def hosts(self) -> Mapping[Host, NeighbourState]:
        """The hosts that rules of method neighbour cover, with their states."""
        return {host: self._states[host] for host in self._via_sets}

    def covered(self) -> list[Host]:
        """The same hosts; state() has theirs."""
        return list(self._via_sets)

    def by_interface(self) -> dict[int, int]:
        """How many of them there are behind each interface. Another thread may ask, so no loop over the hosts is
        needed.
        """
        return dict(self._by_interface)

    def expecting(self, table: Table, limit: int) -> Iterator[list[PresentTarget]]:
        """What the map must say before a table is in force, bit by bit, so that use() has nothing left to add. Until
        use() or give_up(), a host that appears is put in for both tables.
        """
        self._is_stray |= self._to_come is not None
        self._expected, self._to_come = None, table
        differs = _differs_at(self._table, table) if limit == self.limit else None
        for some in pieces(tuple(self._states) if differs is None else self.at(differs), _BIT):
            yield [change for host in some if host in self._states for change in self._add(host, self._states[host])]
        if self._to_come is table:
            self._expected = table, limit, differs

    def give_up(self) -> None:
        """The expected table won't come into force. drop() removes what is there for it only."""
        if self._to_come is not None:
            self._expected = self._to_come = None
            self.unsettled = True

    def use(self, table: Table, limit: int) -> list[PresentTarget]:
        """Go by another table: what the map must say before that table is in force. See drop()."""
        if table is self._table and limit == self.limit:
            return []  # and what is expected may still come
        expected, self._is_stray = self._expected, self._is_stray or (self._to_come or table) is not table
        self._expected = self._to_come = None
        self.unsettled |= self._is_stray
        self._is_stray = False
        if expected is not None and expected[0] is table and expected[1] == limit:
            self._table, self.limit = table, limit
            self.unsettled |= expected[2] is None
            self.touched |= expected[2] or set()
            return []
        differs = _differs_at(self._table, table) if limit == self.limit else None
        self._table, self.limit = table, limit
        if differs is None:
            self.unsettled = True
            return [change for host, state in self._states.items() for change in self._add(host, state)]
        self.touched |= differs
        return [change for host in self.at(differs) for change in self._add(host, self._states[host])]

    def drop(self) -> list[PresentTarget]:
        """What the map must no longer say once the table given to use() is in force."""
        return [change for changes in self.dropping() for change in changes]

    def dropping(self) -> Iterator[list[PresentTarget]]:
        """The same, bit by bit; `unsettled` and `touched` are as before until all of it is done."""
        hosts = (
            tuple(self._via_sets)
            if self.unsettled
            else [host for host in self.at(self.touched) if host in self._via_sets]
        )
        for some in pieces(hosts, _BIT):
            changes: list[PresentTarget] = []
            for host in some:
                if host in self._via_sets:  # it may have gone meanwhile
                    wanted = self._wanted(host)
                    for via_set in self._via_sets[host] - wanted:
                        changes += self._take_out(host, via_set)
                    self._note(host, wanted)
            yield changes
        self.unsettled, self.touched = False, set()
        while self._left_out and not self.full:
            yield self._let_in(_BIT)

    def changed(self, host: Host, state: int) -> list[PresentTarget]:
        """The neighbour table says `state` of a host; NUD_NONE says that it isn't there any more."""
        if state & PRESENT:
            self._states[host] = NeighbourState(state)
            self._looked_after.pop(host, None)
            return self._add(host, NeighbourState(state))
        self._states.pop(host, None)
        self._left_out.discard(host)
        if state & LOOKED_AFTER:
            self._looked_after[host] = NeighbourState(state & LOOKED_AFTER)
        else:
            self._looked_after.pop(host, None)
        changes: list[PresentTarget] = []
        via_sets = self._via_sets.get(host, frozenset())
        self._note(host, frozenset())
        for via_set in via_sets:
            changes += self._take_out(host, via_set)
        return changes + self._let_in(_BIT) if changes else []

    def forgetting(self) -> Iterator[list[PresentTarget]]:
        """None of them is there any more, bit by bit."""
        for some in pieces(self.all_hosts(), _BIT):
            yield [change for host in some for change in self.changed(host, NeighbourState.NONE)]

    def all_hosts(self) -> tuple[Host, ...]:
        """All hosts that the neighbour table has, those that no rule covers too."""
        return tuple(self._states)

    def at(self, addresses: Set[bytes]) -> list[Host]:
        """The hosts at some addresses, behind all via interfaces."""
        vias = {ifindex for ifindexes in self._table.vias.values() for ifindex in ifindexes}
        if len(addresses) * len(vias) > len(self._states):  # thousands of both, say
            return [host for host in self._states if host.address in addresses and host.ifindex in vias]
        hosts = (Host(ifindex, address) for address in addresses for ifindex in vias)
        return [host for host in hosts if host in self._states]

    def state(self, host: Host) -> NeighbourState:
        """The state of a host; NUD_NONE where it isn't there."""
        return self._states.get(host, NeighbourState.NONE)

    def looked_after(self, host: Host) -> NeighbourState:
        """What of LOOKED_AFTER the neighbour table says of a host, whether it is there or not."""
        return NeighbourState(self._states.get(host, NeighbourState.NONE) & LOOKED_AFTER) or self._looked_after.get(
            host, NeighbourState.NONE
        )

    def is_confirmed(self, via_set: int, address: bytes) -> bool:
        """Whether nobody needs to ask a host of a via set whether it is there."""
        return any(state & CONFIRMED for state in self._present.get((via_set, address), {}).values())

    def interfaces(self, via_set: int, address: bytes) -> Iterable[int]:
        """Behind which interfaces of a via set a host is; none if it isn't there."""
        return self._present.get((via_set, address), ())

    def _wanted(self, host: Host) -> frozenset[int]:
        address = IPv6Address(host.address)
        wanted = frozenset(self._table.neighbour_via_sets(host.ifindex, address))
        if self._to_come is None:
            return wanted
        return wanted.union(self._to_come.neighbour_via_sets(host.ifindex, address))

    def _add(self, host: Host, state: NeighbourState) -> list[PresentTarget]:
        held = self._via_sets.get(host)
        changes: list[PresentTarget] = []
        wanted = self._wanted(host)
        if held is None and self.full:  # E2
            if wanted and host not in self._left_out:
                self._left_out.add(host)
                self.refused += 1
            return []
        for via_set in wanted:
            there = self._present.setdefault((via_set, host.address), {})
            before = there.get(host.ifindex)
            there[host.ifindex] = state
            if before is None or (before ^ state) & NeighbourState.STALE:
                changes.append(PresentTarget(via_set, host.address, _flags(there.values())))
        self._note(host, wanted | (held or frozenset()))
        return changes

    def _let_in(self, most: int) -> list[PresentTarget]:
        """So many of the hosts that were refused and that there is space for now."""
        changes: list[PresentTarget] = []
        for _ in range(min(most, len(self._left_out))):
            if self.full:
                break
            host = self._left_out.pop()
            changes += self._add(host, self._states[host])
        return changes

    def _note(self, host: Host, via_sets: frozenset[int]) -> None:
        there = len(self._via_sets)
        if via_sets:
            self._via_sets[host] = via_sets
        else:
            self._via_sets.pop(host, None)
        if more := len(self._via_sets) - there:
            count = self._by_interface.get(host.ifindex, 0) + more
            if count:
                self._by_interface[host.ifindex] = count
            else:
                del self._by_interface[host.ifindex]

    def _take_out(self, host: Host, via_set: int) -> Iterator[PresentTarget]:
        there = self._present.get((via_set, host.address), {})
        there.pop(host.ifindex, None)
        if not there:
            self._present.pop((via_set, host.address), None)
        yield PresentTarget(via_set, host.address, _flags(there.values()) if there else None)


def _differs_at(one: Table, other: Table) -> set[bytes] | None:
    """The addresses of which two tables may say different things; None: any address. Checking each of 20,000 hosts
    takes a quarter of a second, and there is a new table with each address that this machine gets.
    """
    entries = {entry.id for entry in one.live(Decision.NEIGHBOUR)}
    if one.vias != other.vias or entries != {entry.id for entry in other.live(Decision.NEIGHBOUR)}:
        return None
    found: set[bytes] = set()
    for entry in entries:
        before, after = one.decisions[entry], other.decisions[entry]
        if before is after:
            continue
        if before.lines is not after.lines or one.origins[entry] is not other.origins[entry]:
            return None
        changed = before.exceptions.items() ^ after.exceptions.items()
        found.update(prefix.address.to_bytes(16) for prefix, _ in changed)
    return found


def _flags(states: Iterable[NeighbourState]) -> PresentFlag:
    """Stale only if it is so everywhere."""
    return PresentFlag.STALE if all(state & NeighbourState.STALE for state in states) else PresentFlag(0)


class Quiet:
    """Hosts that have been stale for long and are to be probed, a few at a time. Nothing else would probe them: the
    kernel keeps a stale entry for as long as its table is small, and a host that gives up an address doesn't announce
    that (with RFC 8981, it gives one up daily).
    """

    def __init__(self, seconds: float, per_second: int) -> None:
        self._seconds = seconds
        self._per_second = per_second
        self._since: dict[Host, float] = {}  # the longest first

    def __len__(self) -> int:
        return len(self._since)

    def heard(self, host: Host, state: int, now: float) -> None:
        """Note the state of a host that matters (`now`: seconds, monotonic)."""
        if not state & NeighbourState.STALE:
            self._since.pop(host, None)
        elif host not in self._since:
            self._since[host] = now

    def forget(self, host: Host) -> None:
        """A host doesn't matter any more."""
        self._since.pop(host, None)

    def take(self, now: float) -> list[Host]:
        """The hosts to probe now; call it once a second. For those that stay stale the time begins again."""
        found: list[Host] = []
        for host, since in self._since.items():
            if now - since < self._seconds or len(found) >= self._per_second:
                break
            found.append(host)
        for host in found:
            del self._since[host]
            self._since[host] = now
        return found
