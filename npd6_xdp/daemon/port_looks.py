# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel has of the ports, looked at in turns: it doesn't tell when somebody takes it away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.config import Wish
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.said import Said
from npd6_xdp.daemon.attaching import AttachedAs
from npd6_xdp.daemon.lines import Lines
from npd6_xdp.daemon.turns import HELD
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.groups import Groups
from npd6_xdp.system.netlink.links import Netlink
from npd6_xdp.system.sender import Port

# What the kernel has is looked at, as it doesn't tell when somebody takes it away. A turn a second, so that thousands
# of ports cost some thousandths of a CPU: the program's link by its descriptor (2 us), a part of them each turn; and,
# for as long as a turn may take, the interface's counts and groups (40 us), so that a round of all takes longer then.
_TURN = 1.0  # seconds
_ROUND = 5  # turns for all ports' links, while these are at most
_MOST_LOOKS = 500  # in a turn
_LOOKING = 0.001  # seconds of a turn
_HURRY = 0.05  # seconds between two turns of a round after announcements were lost
_PATIENCE = 60  # times that a turn is put off while announcements are yet to be taken in
_COMPLAIN = 60.0  # seconds before the same is said of an interface again


@dataclass(slots=True)
class Attached:
    """A port that the program sits on; `wish` is how it was asked to."""

    name: str
    ifindex: int
    wish: Wish
    attached: AttachedAs
    socket: Port
    generation: int
    hides_tags: bool = False
    """Whether VLAN tags may stand beside its frames, where an XDP program can't see them."""
    trunk: bool = False
    """Whether there are VLANs on it, so that it matters in native mode."""

    @property
    def mode(self) -> AttachMode:
        """Where the program sits."""
        return self.attached.mode


class PortLooks:
    """Looks at what the kernel has of the ports, a part of them each turn. `attached` are those that there are now.

    `look_at_port` is given what the kernel says of a port now, of which nothing is lacking.
    """

    def __init__(
        self,
        ns_filter: NsFilter,
        netlink: Callable[[], Netlink],
        groups: Groups,
        lines: Lines,
        attached: Mapping[int, Attached],
        look_at_port: Callable[[Attached, LinkEntry], None],
    ) -> None:
        self._ns_filter = ns_filter
        self._netlink = netlink
        self._groups = groups
        self._lines = lines
        self._attached = attached
        self._look_at_port = look_at_port
        self._links_to_look_at: list[int] = []
        self._interfaces_to_look_at: list[int] = []
        self._losses = netlink().losses
        self._hurried = 0
        self._postponed = 0
        self._said = Said(again=_COMPLAIN)
        self.due: float | None = None
        """When to call look() (seconds, monotonic)."""

    def plan(self, *, wanted: bool) -> None:
        """Look again in a while, where there is anything to look at."""
        if not wanted:
            self.due = None
        elif self.due is None:
            self.due = time.monotonic() + _TURN

    def look(self, now: float) -> Iterator[Attached]:
        """One turn: the ports whose program somebody has taken off, to be put back one by one.

        What is announced comes first: with an interface that went and came back nobody has tampered.
        """
        if self._netlink().behind and self._postponed < _PATIENCE:
            self._postponed += 1
            self.due = now + _HURRY
            return
        self._postponed = 0
        if self._losses != self._netlink().losses:
            self._losses = self._netlink().losses
            self._interfaces_to_look_at = self._interfaces()
            self._hurried = len(self._interfaces_to_look_at)
        if not self._links_to_look_at:
            self._links_to_look_at = [*self._attached]
        some = min(-(-len(self._attached) // _ROUND), _MOST_LOOKS)
        looked_at, self._links_to_look_at = self._links_to_look_at[:some], self._links_to_look_at[some:]
        for ifindex in self._ns_filter.taken_off(looked_at):
            port = self._attached.get(ifindex)
            if port is not None and self.is_here(port):
                yield port
        yield from self._look_closely()
        self.due = now + (_HURRY if self._hurried else _TURN)

    def _interfaces(self) -> list[int]:
        return [*{*self._attached, *self._groups.interfaces}]

    def _look_closely(self) -> Iterator[Attached]:
        """At the counts and groups of interfaces: as many as the time allows, and all within a round at best."""
        if not self._interfaces_to_look_at:
            self._interfaces_to_look_at = self._interfaces()
        ifindexes = self._interfaces_to_look_at
        ends, held = time.thread_time() + _LOOKING, time.monotonic() + HELD
        program = self._ns_filter.program_id
        for _ in range(max(-(-len(ifindexes) // _ROUND), self._hurried)):
            if not ifindexes or time.thread_time() > ends or time.monotonic() > held:
                break
            ifindex = ifindexes.pop()
            self._hurried = max(self._hurried - 1, 0)
            if (port := self._attached.get(ifindex)) is not None:
                yield from self._compare(port, program)
            if ifindex in self._groups.interfaces:
                self._groups.check(ifindex)

    def _compare(self, port: Attached, program: int) -> Iterator[Attached]:
        """What the kernel says of an interface beside what we believe of it."""
        link = self._netlink().link(port.ifindex)
        if link is None or port.generation != self._netlink().generation(port.ifindex):
            return  # it has gone, or another has its index: follow() is to come
        if port.mode.is_xdp and program and program not in link.xdp:  # at tc, the link's own word is enough
            if self.is_here(port):
                yield port
        elif link.allmulti == 0 and self.is_here(port):
            try:
                port.socket.hold_again(port.name)
            except MachineError:
                yield port
            else:
                self.complain(port, "the kernel had dropped its hold on all multicast frames; it has it again")
        else:
            self._look_at_port(port, link)

    def is_there(self, ifindex: int) -> bool:
        """Whether there is such an interface by now: while many are attached to, one may go before its turn comes."""
        return self._netlink().link(ifindex) is not None

    def is_here(self, port: Attached) -> bool:
        """Whether a port's interface is still there, and the same; else follow() is to come.

        It may have gone, and another come in its place, since announcements were taken in: then there are more by the
        time that the kernel has answered.
        """
        netlink = self._netlink()
        there = netlink.generation(port.ifindex) == port.generation and netlink.link(port.ifindex) is not None
        return there and not netlink.behind

    def complain(self, port: Attached, text: str) -> None:
        """Say something of a port, the same not again for a while."""
        if self._said.note(port.ifindex, now=time.monotonic()):
            self._lines.add(logging.WARNING, port.name, text, ifindex=port.ifindex)
