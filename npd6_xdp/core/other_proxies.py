# SPDX-License-Identifier: GPL-2.0-or-later
"""The MAC addresses of other proxies, by link: what they answer proves no host (core/loops.py finds them)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set


class OtherProxies:
    """Those that are known now."""

    def __init__(self) -> None:
        self._macs: dict[int, frozenset[bytes]] = {}

    def has(self, ifindex: int, mac: bytes) -> bool:
        """Whether a MAC address on a link is another proxy's."""
        return mac in self._macs.get(ifindex, ())

    def use(self, macs: Mapping[int, Iterable[bytes]]) -> dict[int, Set[bytes]]:
        """Go by others: which have come or gone, by link."""
        before, self._macs = self._macs, {ifindex: frozenset(some) for ifindex, some in macs.items()}
        none, links = frozenset[bytes](), before.keys() | self._macs.keys()
        differ = {link: self._macs.get(link, none) ^ before.get(link, none) for link in links}
        return {link: some for link, some in differ.items() if some}
