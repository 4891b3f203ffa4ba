# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports from one way of having the program to another: where a wish for it has changed; and under `attach = "auto"`,
from native to tc and back, when what stands in the way of native mode comes or goes.

Whichever comes is there before the other goes, so no frame is missed in between. Both see one then, but answer it once:
XDP comes first, and what it answers or consumes doesn't reach tc. What it passes is counted by both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from npd6_xdp.core.attached import AttachMode, Obstacle, known_obstacle
from npd6_xdp.core.config import Attach, Wish
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.daemon.attaching import MOST_BY_AUTO, AttachedAs, attach, try_native
from npd6_xdp.daemon.port_lines import PortLines
from npd6_xdp.daemon.port_looks import Attached
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.ethtool import receive_vlan_offload

_PAUSE = 60.0  # seconds between two attempts to have a port native again


class _Driver(NamedTuple):
    """What a driver's refusal may be for: the interface's MTU, and a bond's slaves."""

    mtu: int
    lower: tuple[int, ...]


class Ways:
    """Moves ports. `moved` is told of each that moves by itself under `auto`, once the program is there."""

    def __init__(
        self, ns_filter: NsFilter, lines: PortLines, moved: Callable[[Attached, AttachedAs, LinkFacts], None]
    ) -> None:
        self._ns_filter = ns_filter
        self._lines = lines
        self._moved = moved
        self._tried: dict[int, float] = {}
        self._drivers: dict[int, _Driver] = {}
        self._at_tc: set[int] = set()

    def attach(self, link: LinkFacts, wish: Wish) -> AttachedAs:
        """Attach as it is wished for. Raises MachineError if that can't be."""
        is_crowded = len(self._at_tc) >= MOST_BY_AUTO
        try:
            return attach(self._ns_filter, link, wish, self._lines, is_crowded=is_crowded)
        finally:
            if gap := self._ns_filter.take_gap():
                self._lines.unanswered(link, gap)

    def expect(self, moves: Iterable[tuple[Attached, Wish]]) -> None:
        """These ports go from one way to another now. If more than a few may go from native to generic or back, they do
        so with no program at tc in between: that would take the kernel a hundred times as long.
        """
        by_xdp = (port.mode.is_xdp and wish.attach is not Attach.TC for port, wish in moves)
        self._ns_filter.go_by_tc(wanted=sum(by_xdp) <= MOST_BY_AUTO)

    def move(self, port: Attached, wish: Wish, link: LinkFacts) -> None:
        """Have the program on a port as another wish has it, with no frame missed but for what expect() says. Raises
        MachineError; then it is as it was.
        """
        port.attached = self.attach(link, wish)
        port.wish = wish

    def note(self, port: Attached) -> None:
        """The program sits on a port, in another way than before if it did."""
        (self._at_tc.add if port.mode is AttachMode.TC else self._at_tc.discard)(port.ifindex)

    def forget(self, ifindex: int) -> None:
        """The program is taken off an interface."""
        self._at_tc.discard(ifindex)
        self._drivers.pop(ifindex, None)
        if self._tried.get(ifindex, 0.0) + _PAUSE < time.monotonic():
            self._tried.pop(ifindex, None)

    @staticmethod
    def is_lossy(port: Attached, link: LinkFacts) -> bool:
        """Whether native mode is none any more for a port under `auto`: a bond that has got a veth."""
        return link.lossy and port.mode is AttachMode.NATIVE and port.wish.attach is Attach.AUTO

    def leave_native(self, port: Attached, link: LinkFacts, *, tags_beside: bool = False) -> bool:
        """Something stands in the way of native mode by now; whether the port is at tc instead, or was already.

        Where it can't be there, it stays as it is.
        """
        if port.wish.attach is not Attach.AUTO or port.mode is AttachMode.GENERIC:
            return False
        if port.mode is AttachMode.TC:
            return True
        known = known_obstacle(link.why_lossy, tags_beside=tags_beside)
        assert known is not None, "else there is nothing to leave for"
        obstacle, why = known
        try:
            self._ns_filter.attach(port.ifindex, port.name, AttachMode.TC, port.wish.tc_order)
        except MachineError:
            return False
        self._tried[port.ifindex] = time.monotonic()
        self._moved(port, AttachedAs(AttachMode.TC, False, why, obstacle), link)
        return True

    def look(self, port: Attached, link: LinkFacts, entry: LinkEntry) -> None:
        """Have a port native where what stood in the way has gone, or may have, by what the kernel says of it now."""
        if port.wish.attach is not Attach.AUTO or port.mode is not AttachMode.TC:
            return
        driver = _Driver(entry.mtu, link.lower)
        before = self._drivers.setdefault(port.ifindex, driver)
        now = time.monotonic()
        if not self._may_be(port, link, entry, changed=driver != before):
            return
        if self._tried.get(port.ifindex, -_PAUSE) + _PAUSE > now:
            return
        self._tried[port.ifindex], self._drivers[port.ifindex] = now, driver
        try:
            found = try_native(self._ns_filter, link, port.wish.tc_order)
        except MachineError as error:
            found = Obstacle.DRIVER, str(error).removeprefix(f"{link.name}: ")
        if isinstance(found, AttachedAs):
            self._moved(port, found, link)
        else:
            port.attached = port.attached._replace(obstacle=found[0], why=found[1])

    def _may_be(self, port: Attached, link: LinkFacts, entry: LinkEntry, *, changed: bool) -> bool:
        if link.lossy:
            return False
        if port.attached.obstacle is Obstacle.TAKEN:
            return not any(entry.xdp)
        if port.attached.obstacle is Obstacle.TAGS:
            return not _may_hide_tags(link)
        return port.attached.obstacle is Obstacle.LOSSY or changed


def look_for_hidden_tags(port: Attached, link: LinkFacts) -> bool:
    """Note whether VLAN tags may stand beside the frames of a port in native mode: where the program is in the driver,
    it sees the tags unless something takes them out of the frames. Whether that is different from before.
    """
    before, port.hides_tags = port.hides_tags, port.trunk and _may_hide_tags(link)
    return port.hides_tags is not before


def _may_hide_tags(link: LinkFacts) -> bool:
    """Whether the card takes tags out of the frames, or a veth's other end; the card may be told so at any time."""
    return link.lossy or receive_vlan_offload(link.name)
