# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour`: between which links questions are answered, and whose places on them that concerns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv6Address

from npd6_xdp.core.config import Datapath
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.core.table import Decision, Match, Table


class AnsweredLinks:
    """The part of a table that concerns places: on which links questions are asked, and which links belong together.
    `vrfs` has the routing tables of those links that belong to a VRF.
    """

    def __init__(self, table: Table, vrfs: Mapping[int, int]) -> None:
        self._table = table
        self._vrfs = vrfs
        self._asked_on: defaultdict[int, list[int]] = defaultdict(list)  # entries by the link of their frames
        self._entries: defaultdict[int, list[int]] = defaultdict(list)  # and by the via sets of their rules
        self._behind: defaultdict[int, list[int]] = defaultdict(list)  # via sets by via
        self._together: dict[int, int] = {}
        self.asks = True
        """Whether any of the entries is at work: on standby, nobody is asked."""

    @classmethod
    def finding(cls, table: Table, vrfs: Mapping[int, int]) -> Steps[AnsweredLinks]:
        """All that a table says of links, bit by bit: there may be thousands."""
        found = cls(table, vrfs)
        found.asks = bool(table.at_work(Decision.NEIGHBOUR))
        # those on standby, too: who claims an address then has to be confirmed when they get active
        live = [entry for entry in table.live(Decision.NEIGHBOUR) if entry.datapath is not Datapath.MONITOR]
        yield
        for some in pieces(live):
            for entry in some:
                found._asked_on[entry.l3_ifindex].append(entry.id)
                for via_set in table.origins[entry.id].via_sets & table.vias.keys():
                    found._entries[via_set].append(entry.id)
            yield
        for via_set, entries in found._entries.items():
            together = defaultdict[int, list[int]](list)  # in two VRFs, one address is two hosts
            for ifindex in table.vias[via_set]:
                found._behind[ifindex].append(via_set)
                together[vrfs.get(ifindex, 0)].append(ifindex)
            for links in together.values():
                found._join(links)
            for entry_id in entries:
                link = table.entries[entry_id].l3_ifindex
                found._join([link, *together.get(vrfs.get(link, 0), ())[:1]])
            yield
        for piece in pieces(tuple(found._together)):
            found._together.update([(ifindex, found._number(ifindex)) for ifindex in piece])
            yield
        return found

    def _number(self, ifindex: int) -> int:
        """The least of the links that it is known by now to belong together with: each leads to a lesser one."""
        first = ifindex
        while (lesser := self._together.setdefault(first, first)) != first:
            first = lesser
        while ifindex != first:
            self._together[ifindex], ifindex = first, self._together[ifindex]
        return first

    def _join(self, links: Iterable[int]) -> None:
        numbers = {self._number(ifindex) for ifindex in links}
        first = min(numbers)
        for number in numbers:
            self._together[number] = first

    def is_of(self, table: Table, vrfs: Mapping[int, int]) -> bool:
        """Whether it is what that table says."""
        return self._table is table and self._vrfs == vrfs

    def is_like(self, other: AnsweredLinks) -> bool:
        """Whether another table says the same for all hosts."""
        return (
            self._asked_on == other._asked_on
            and self._entries == other._entries
            and self._behind == other._behind
            and self._table.vias == other._table.vias
            and self._vrfs == other._vrfs
            and all(
                self._table.decisions[entry] is other._table.decisions.get(entry)
                for entries in self._asked_on.values()
                for entry in entries
            )
        )

    def belongs_to(self, ifindex: int) -> int:
        """The same number for all links between which questions are answered."""
        return self._together.get(ifindex, 0)

    def concerns(self, host: Host) -> bool:
        """Whether it matters on which link such an address is. A link-local one on another link is another host's."""
        if host.ifindex not in self._together:
            return False
        address = IPv6Address(host.address)
        if address.is_link_local:
            return False
        return any(True for _ in self._matches(host.ifindex, address))

    def _matches(self, ifindex: int, address: IPv6Address) -> Iterator[Match]:
        for entry in self._asked_on.get(ifindex, ()):
            match = self._table.lookup(entry, address)
            if isinstance(match, Match) and match.decision in (Decision.NEIGHBOUR, Decision.NEXT_HOP):
                yield match
        for via_set in self._behind.get(ifindex, ()):
            for entry in self._entries[via_set]:
                match = self._table.lookup(entry, address)
                if isinstance(match, Match) and match.decision is Decision.NEIGHBOUR and match.via_set == via_set:
                    yield match

    def is_next_hop(self, host: Host) -> bool:
        """Whether a router of ours is there."""
        address = IPv6Address(host.address)
        return any(match.decision is Decision.NEXT_HOP for match in self._matches(host.ifindex, address))
