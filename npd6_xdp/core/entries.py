# SPDX-License-Identifier: GPL-2.0-or-later
"""An entry of the table: one [[interface]] on one port, and what is known of that."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from enum import IntFlag

from npd6_xdp.core.config import Datapath, Vlan
from npd6_xdp.core.links import OwnAddress
from npd6_xdp.core.roles import MacDevice, lack_text, role_text


class EntryFlag(IntFlag):
    """`enum entry_flag`: what is known of an entry's port."""

    SHARED = 1
    TAPPED = 2
    GUARDED = 4
    SAMPLED = 8
    TAGLESS = 16
    HEARS = 32
    BUDGETED = 64
    REMEMBERS = 128
    STANDBY = 256
    TRACED = 512
    PLAIN = 1024


DATAPATHS = (Datapath.HYBRID, Datapath.PYTHON, Datapath.MONITOR)
"""In the order of `enum datapath`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One [[interface]] on one port. `id` is the scope in the kernel maps and the index of its counters.

    `spoken` is False for the frames of a port that no [[interface]] entry matches: those have no rules, and
    whatever is asked there is `unmatched`. `source_limit` is in NS/s, `new_target_limit`
    in targets per second, 0 is none.

    `active_with` is the address that it is active with ("" is always); on `standby`, this machine doesn't hold that, or
    it `lacks_device`, where it `needs_device`: no device here takes in what is sent to `mac`.

    `mac` is what is advertised: the port's, or that of the bridge that it belongs to, or the link_address. `port_mac`
    is the port's own, where that is another one. `shared` says that others live behind the port, so what isn't surely
    ours goes on to them. `lower` are the indexes of interfaces whose frames are this port's, too (a bond's slaves).
    """

    id: int
    label: str
    port: str
    ifindex: int
    mac: bytes
    datapath: Datapath
    vlan: Vlan
    addresses: tuple[OwnAddress, ...]
    spoken: bool = True
    l3_ifindex: int = 0
    source_limit: int = 0
    collect: int = 0
    port_mac: bytes = b""
    shared: bool = False
    lower: tuple[int, ...] = ()
    multicast_router: bool = False
    new_target_limit: int = 0
    active_with: str = ""
    standby: bool = False
    lacks_device: bool = False
    needs_device: bool = False

    def in_role(self, held: Set[str | MacDevice]) -> Entry:
        """The same, where this machine has these (core/roles.py); itself, where it has that role already."""
        lacks_device = self.needs_device and MacDevice(self.l3_ifindex, self.mac) not in held
        standby = lacks_device or (bool(self.active_with) and self.active_with not in held)
        if (lacks_device, standby) == (self.lacks_device, self.standby):
            return self
        return replace(self, lacks_device=lacks_device, standby=standby)

    @property
    def role(self) -> str:
        """Which role it has, and why, in words; "" where it has none."""
        if self.lacks_device:
            return f"on standby: {self.why_standby}"
        return role_text(self.active_with, active=not self.standby)

    @property
    def why_standby(self) -> str:
        """Why it is on standby, if it is."""
        if self.lacks_device:
            return lack_text(self.port, self.mac)
        return f"{self.active_with} isn't on this machine"

    @property
    def is_at_work(self) -> bool:
        """Whether anything is answered, or done for an answer: it is neither on standby nor only counts."""
        return not self.standby and self.datapath is not Datapath.MONITOR

    @property
    def remembers(self) -> bool:
        """Whether its targets are remembered: it has a budget of new ones, or it is one of two edges'."""
        return bool(self.new_target_limit or self.active_with)

    @property
    def is_plain(self) -> bool:
        """Whether the program answers by the short way (ns_answer_plain() of bpf/ns_filter.c), which knows nothing of
        budgets, of roles, and of targets that are remembered.
        """
        return self.datapath is Datapath.HYBRID and not (
            self.collect or self.new_target_limit or self.active_with or self.standby
        )

    @property
    def macs(self) -> frozenset[bytes]:
        """The MAC addresses by which frames come to the port, and leave it."""
        return frozenset({self.mac, self.port_mac or self.mac})


def by_port(entries: Iterable[Entry]) -> dict[int, list[Entry]]:
    """Entries by the index of their port."""
    found: dict[int, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.ifindex, []).append(entry)
    return found
