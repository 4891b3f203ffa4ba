# SPDX-License-Identifier: GPL-2.0-or-later
"""What ports' cards do with VLAN tags, which nobody announces: each look asks some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

from npd6_xdp.core.config import Attach
from npd6_xdp.core.vlan_filter import Trunk, kept_back, unknown_trunks
from npd6_xdp.core.warnings import offload_warning
from npd6_xdp.daemon.in_force import InForce
from npd6_xdp.system.ethtool import receive_vlan_offload, vlan_filter
from npd6_xdp.system.netlink.inspection import is_promiscuous

MOST_ASKED = 64  # ports, at a look


class _Port(NamedTuple):
    ifindex: int
    name: str


_Asked = TypeVar("_Asked", _Port, Trunk)


class _InTurns(Generic[_Asked]):
    """Ports of which each look asks some, and what the others had to say before. `ask` finds a warning; "": none."""

    def __init__(self, ask: Callable[[_Asked], str]) -> None:
        self._ask: Callable[[_Asked], str] = ask
        self._ports: list[_Asked] = []
        self._found: dict[_Asked, str] = {}
        self._next = 0

    def use(self, ports: list[_Asked]) -> None:
        """These from now on."""
        self._ports = ports
        self._found = {port: self._found[port] for port in ports if port in self._found}

    def look(self) -> Iterator[tuple[_Asked, str]]:
        """Those of which there is something to warn of, each with that."""
        for port in self._ports[self._next : self._next + MOST_ASKED]:
            self._found[port] = self._ask(port)
        self._next += MOST_ASKED
        if self._next >= len(self._ports):
            self._next = 0
        return ((port, self._found[port]) for port in self._ports if self._found.get(port))


class Cards:
    """Ports with VLANs: whose card takes the tags out of the frames, and whose may keep the frames back."""

    def __init__(self) -> None:
        self._offloads = _InTurns[_Port](_of_offload)
        self._filters = _InTurns[Trunk](_of_filter)

    def use(self, new: InForce) -> None:
        """What is in force."""
        self._offloads.use(_offloading(new))
        self._filters.use(unknown_trunks(new.table, new.links))

    def look(self, sees: Callable[[int], bool]) -> list[str]:
        """Ask some, and say what there is to warn of all. `sees` says that tags beside the frames of a port, by its
        index, are no matter.
        """
        return [
            *(line for port, line in self._offloads.look() if not sees(port.ifindex)),
            *(line for _, line in self._filters.look()),
        ]


def _of_offload(port: _Port) -> str:
    return offload_warning(port.name) if receive_vlan_offload(port.name) else ""


def _of_filter(trunk: Trunk) -> str:
    found = kept_back(trunk, vlan_filter, is_promiscuous)
    return found.line if found else ""


def _offloading(new: InForce) -> list[_Port]:
    """The ports with VLANs, whose card may hide the tags. On veth, the switch does nothing: see core/hidden.py. At
    tc the tags are seen.
    """
    table, links = new.table, new.links
    tagged = {e.ifindex for e in table.entries.values() if e.spoken and e.vlan.has_tagged}
    found = [link for link in links.values() if link.ifindex in table.ports and not link.lossy]
    trunks = [link for link in found if link.ifindex in tagged or len(link.addresses) > 1]
    return sorted(_Port(link.ifindex, link.name) for link in trunks if new.config.attach(link.name) is not Attach.TC)
