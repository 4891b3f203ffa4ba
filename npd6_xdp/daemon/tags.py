# SPDX-License-Identifier: GPL-2.0-or-later
"""Tags beside the frame: taps where there may be some, and ports that are at tc, or silent, because there are."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.hidden import HiddenTags, Tapped
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.logged import fields
from npd6_xdp.core.said import Said
from npd6_xdp.core.steps import Steps
from npd6_xdp.core.table import VLAN_ANY, Table
from npd6_xdp.daemon.in_force import NOTHING, Follower, InForce
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.bpf.program import Program
from npd6_xdp.system.bpf.taps import Taps

log = logging.getLogger("npd6-xdp")

_LOOK = 1.0  # seconds between two looks at ports that are silent, and the first ones at others
_LOOK_LAST = 64.0
_PAUSE = 10  # times what it took to have taps follow ports: it takes longer the more there are, which come one by one


class Tags(Follower):
    """Watches the ports. `counted` tells how many solicitations an entry has had; `changing` is held while the maps are
    changed that HTTP's threads read.
    """

    def __init__(
        self,
        ns_filter: NsFilter,
        ports: Ports,
        counted: Callable[[int], int],
        changing: AbstractContextManager[object],
    ) -> None:
        self._ns_filter = ns_filter
        self._ports = ports
        self._counted = counted
        self._changing = changing
        self._in_force = NOTHING
        self._followed = 0  # Ports.changes when the taps followed them last
        self._follow_at = 0.0  # when the loop may have them do so again
        self._anew: Callable[[], None] = lambda: None
        self._taps = Taps()
        self._hidden = HiddenTags()
        self._tagged_entries: Mapping[int, Set[int]] = {}
        self._trunks: set[int] = set()  # ports with VLANs
        self._within: set[int] = set()  # those of them on which tags were seen within frames
        self._tagged_ports: set[int] = set()  # ports, with VLANs or without, on which a tag of any kind was seen
        self._said = Said()
        self._silence_at: float | None = None
        self._look_at: float | None = None
        self._pause = _LOOK

    def close(self) -> None:
        """Close the taps."""
        self._taps.close()

    def join(self, loop: Loop, anew: Callable[[], None]) -> None:
        """Have the loop wait for what the taps tell. `anew` puts what is in force in force once more."""
        self._anew = anew
        loop.watch("tags", lambda: [(self.fileno(), self._on_readable)], self._reopen)
        loop.at(lambda: self._followed_at, lambda _: self.follow_ports(), "ports")
        loop.at(lambda: self.due, self._look, "tags")

    def _reopen(self) -> None:
        self.reopen()
        self.follow_ports()

    def apply(self, new: InForce) -> None:
        """Go by it: until settle(), the loop may have taps follow ports that were attached for it."""
        self._in_force = new

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """Have taps where the ports are by now."""
        if not new.is_but_for_roles(old):
            self.follow_ports()
        yield from ()

    @property
    def _followed_at(self) -> float | None:
        return None if self._followed == self._ports.changes else self._follow_at

    def follow_ports(self) -> None:
        """Ports have come or gone, or hide tags."""
        began, self._followed = time.monotonic(), self._ports.changes
        if self.follow(self._in_force.table, self._in_force.links, self._ports.hiding_tags(), self._ports.generic()):
            with self._changing:
                self._ns_filter.apply(self._in_force.table)
        ended = time.monotonic()
        self._follow_at = ended + _PAUSE * (ended - began)

    def _on_readable(self) -> None:
        if self.on_hidden():
            self.follow_ports()  # silence first: there may be wrong answers until then
            self._anew()

    def _look(self, now: float) -> None:
        if self.tick(now):
            self.follow_ports()
            self._anew()

    def reopen(self) -> None:
        """Give up the taps for new ones, which follow() opens; fileno() is another."""
        self._taps.close()
        self._taps = Taps()

    def fileno(self) -> int:
        """Readable: call on_hidden()."""
        return self._taps.fileno()

    @property
    def due(self) -> float | None:
        """When to call tick() (seconds, monotonic)."""
        return min((due for due in (self._silence_at, self._look_at) if due is not None), default=None)

    @property
    def silent(self) -> frozenset[int]:
        """The ports where nothing untagged is answered."""
        return self._hidden.ports

    def sees(self, ifindex: int) -> bool:
        """Whether the program sees tags beside the frames of a port, too: it is at tc."""
        port = self._ports.get(ifindex)
        return port is not None and port.mode is AttachMode.TC

    def follow(
        self, table: Table, links: Mapping[str, LinkFacts], ports: frozenset[int], generic: frozenset[int]
    ) -> bool:
        """Listen on these ports, some of them in generic mode. Whether the table is to be applied anew for that."""
        self._hidden.forget_others(ports)
        before = self._trunks
        self._trunks = {link.ifindex for link in links.values() if len(link.l3) > 1 and link.ifindex in ports}
        self._trunks |= {port for port, outer, _ in table.entry_ids if outer not in (0, VLAN_ANY) and port in ports}
        self._tagged_entries = _tagged_entries(table, ports)
        self._within &= self._trunks
        self._tagged_ports &= ports
        if self._trunks != before:
            self._pause = _LOOK
            self._look_for_tags(time.monotonic())
        try:
            tapped = frozenset(self._taps.follow(ports, self._ns_filter.program.tap_fd))
        except MachineError as error:
            self._warn(error)
            return self._ns_filter.tap(Tapped())
        looked_at = generic & tapped
        guarded = frozenset(self._trunks & looked_at - self._within - self.silent)
        sampled = frozenset(looked_at & (self._trunks | self._tagged_ports | self.silent))
        return self._ns_filter.tap(Tapped(tapped, self.silent, guarded, sampled, looked_at - sampled))

    @contextmanager
    def follow_program(self, successor: Program) -> Iterator[None]:
        """Another program takes over in this block: what that one passes is in maps of its own."""
        tapped = self._ns_filter.program.tapped
        with self._taps.beside(successor.tap_fd) if tapped.guarded or tapped.sampled else nullcontext():
            yield
            try:
                self._taps.go_by(successor.tap_fd)
            except MachineError as error:
                self._warn(error)

    def _warn(self, error: MachineError) -> None:
        if self._said.note(what=str(error)):
            log.warning("%s", error, extra=fields(error=str(error)))

    def _look_for_tags(self, now: float) -> None:
        """On which trunks tags have come within the frames by now; looked at ever less often where none come."""
        for port in self._trunks - self._within:
            if self._tagged(port):
                self._within.add(port)
        if self._trunks == self._within:
            self._look_at = None
        else:
            self._look_at = now + self._pause
            self._pause = min(2 * self._pause, _LOOK_LAST)

    def warnings(self, links: Mapping[str, LinkFacts]) -> list[str]:
        """What there is to say of silent ports."""
        return self._hidden.warnings(links)

    def on_hidden(self) -> bool:
        """A tap has something to tell. Whether anything is looked at otherwise now, or silent, or for more reasons."""
        now, news = time.monotonic(), False
        for ifindex, vlan, is_hidden in self._taps.take_tags():
            if ifindex not in self._ns_filter.program.tapped.ports:
                continue
            if not is_hidden:
                news |= ifindex not in self._tagged_ports
                self._tagged_ports.add(ifindex)
            elif self._ports.leave_for_tags(ifindex):
                news = True
            else:
                news |= self._hidden.seen(ifindex, vlan, self._tagged(ifindex), now)
                self._silence_at = now + _LOOK
        return news

    def tick(self, now: float) -> bool:
        """Look whether a silent port is mended, and whether tags come within the frames. Whether one is, or some do."""
        mended = [port for port in self.silent if self._hidden.take_mended(port, self._tagged(port), now)]
        for port in mended:
            name = str(self._in_force.names.get(port, port))
            again = fields(interface=name, ifindex=port)
            log.info("%s: VLAN tags stand in the frames again; it answers", name, extra=again)
        self._silence_at = now + _LOOK if self.silent else None
        before = set(self._within)
        if self._look_at is not None and self._look_at <= now:
            self._look_for_tags(now)
        return bool(mended) or before != self._within

    def _tagged(self, ifindex: int) -> int:
        """How many solicitations came by a port with tags in the frame, as far as their entries have nothing else."""
        with suppress(MachineError):
            return sum(map(self._counted, self._tagged_entries.get(ifindex, ())))
        return 0


def _tagged_entries(table: Table, ports: Set[int]) -> dict[int, set[int]]:
    """The entries of each port that untagged frames don't come to."""
    found: dict[int, set[int]] = {port: set() for port in ports}
    for (port, _, _), entry in table.entry_ids.items():
        if port in found:
            found[port].add(entry)
    for port, entries in found.items():
        entries.discard(table.entry_ids.get((port, 0, 0), table.entry_ids.get((port, VLAN_ANY, VLAN_ANY), -1)))
    return found
