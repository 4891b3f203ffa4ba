# SPDX-License-Identifier: GPL-2.0-or-later
"""The via sets that targets are scoped by: the via interfaces of rules, or the entry of a rule of method kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from npd6_xdp.core.config import RuleConfig, is_glob, matches
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.ids import Ids
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import Steps, weighed
from npd6_xdp.core.table import NO_VIA_SET, Table, ViaSetKey
from npd6_xdp.core.verdict import Method


class ViaSets:
    """Numbers for via sets, which stay as they are in `before`, and the interfaces that each one's key means now.

    `via_sets` are those that are in use.
    """

    def __init__(self, links: Mapping[str, LinkFacts], before: Table, other: Table) -> None:
        self.via_sets: dict[ViaSetKey, int] = {}
        self._links = links
        self._ids = Ids(before.via_sets, other.via_sets, NO_VIA_SET + 1)
        self._keys = {via_set: key for key, via_set in before.via_sets.items()}
        self._by_glob: dict[str, Sequence[LinkFacts]] = {}

    def of(self, config: RuleConfig, entry: Entry, here: str) -> int:
        """The via set of a rule; `here` is the interface that the entry's frames come in by."""
        if config.method is Method.NEIGHBOUR:  # of route, XDP itself finds no way back by where it came in
            return self._via_set(("via", *self._left_out(entry, config.via, here), *sorted({*config.via} - {here})))
        if config.via:
            return self._via_set(("via", *sorted(config.via)))
        if config.method is Method.KERNEL:
            return self._via_set(("kernel", str(entry.id)))
        return NO_VIA_SET

    def keep(self, via_set: int) -> None:
        """A via set of the table before is in use still."""
        self.via_sets[self._keys[via_set]] = via_set

    def vias(self) -> Steps[Mapping[int, frozenset[int]]]:
        """The interfaces of each via set that has any."""
        found: dict[int, frozenset[int]] = {}
        for keys in weighed(self.via_sets, len):
            found.update((self.via_sets[key], self._behind(key[1:])) for key in keys if key[0] == "via")
            yield
        return found

    def _left_out(self, entry: Entry, via: tuple[str, ...], here: str) -> list[str]:
        """What of a via set's key says which interfaces its globs don't mean: those that the question came by."""
        globs = [name for name in via if is_glob(name)]
        if not globs:
            return []
        ways = {here} if entry.vlan.tags else {here, entry.port}  # a tag's hosts aren't those of the port itself
        return [f"/{name}" for name in sorted(ways) if any(matches(name, glob) for glob in globs)] or ["/"]

    def named(self, via: tuple[str, ...]) -> set[str]:
        """The names that `via` says, and those on this machine that its globs match; globs that match none are left."""
        found: set[str] = set()
        for name in via:
            here = {link.name for link in self._matched(name)} if is_glob(name) else {name}
            found |= here or {name}
        return found

    def _behind(self, names: tuple[str, ...]) -> frozenset[int]:
        """The interfaces of this machine that a via set's key means."""
        left_out = {name[1:] for name in names if name.startswith("/")}
        found = {self._links[name].ifindex for name in names if name in self._links and not is_glob(name)}
        for name in names:
            if is_glob(name):
                links = [link for link in self._matched(name) if not left_out or link.mac]
                found.update(link.ifindex for link in links if link.name not in left_out)
        return frozenset(found)

    def _matched(self, glob: str) -> Sequence[LinkFacts]:
        if glob not in self._by_glob:
            self._by_glob[glob] = [link for link in self._links.values() if matches(link.name, glob)]
        return self._by_glob[glob]

    def _via_set(self, key: ViaSetKey) -> int:
        return self.via_sets.setdefault(key, self._ids[key])
