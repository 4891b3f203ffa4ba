# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports from one way of having the program to another: where a wish for it has changed; and under `attach = "auto"`,
from native to tc and back, when what stands in the way of native mode comes or goes, and from generic to either.

Whichever comes is there before the other goes, so no frame is missed in between. Both see one then, but answer it once:
XDP comes first, and what it answers or consumes doesn't reach tc. What it passes is counted by both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from npd6_xdp.core.attached import AttachMode, Obstacle, known_obstacle
from npd6_xdp.core.config import Attach, Wish
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.daemon.attaching import CROWDED, MOST_BY_AUTO, AttachedAs, attach, try_native
from npd6_xdp.daemon.port_lines import PortLines
from npd6_xdp.daemon.port_looks import Attached
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.ethtool import receive_vlan_offload, settings

_PAUSE = 60.0  # seconds between two attempts to have a port another way than it is
_PACE = 1.0  # seconds between two ports that leave generic mode: the loop waits for the kernel with each


class Ways:
    """Moves ports. `moved` is told of each that moves by itself under `auto`, once the program is there."""

    def __init__(
        self, ns_filter: NsFilter, lines: PortLines, moved: Callable[[Attached, AttachedAs, LinkFacts], None]
    ) -> None:
        self._ns_filter = ns_filter
        self._lines = lines
        self._moved = moved
        self._tried: dict[int, float] = {}
        self._left_generic = -_PACE
        self._refused: dict[int, _Settings] = {}  # how the interfaces were when their drivers refused
        self._at_tc: set[int] = set()

    def attach(self, link: LinkFacts, wish: Wish) -> AttachedAs:
        """Attach as it is wished for. Raises MachineError if that can't be."""
        self._refused.pop(link.ifindex, None)
        asked = _settings(link) if wish.attach is Attach.AUTO and link.can_be_native else None
        is_crowded = len(self._at_tc) >= MOST_BY_AUTO
        try:
            attached = attach(self._ns_filter, link, wish, self._lines, is_crowded=is_crowded)
        finally:
            self._note_gap(link)
        if asked is not None and attached.obstacle is Obstacle.DRIVER:
            self._refused[link.ifindex] = asked
        return attached

    def _note_gap(self, link: LinkFacts) -> None:
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
        self._refused.pop(ifindex, None)
        if self._tried.get(ifindex, 0.0) + _PAUSE < time.monotonic():
            self._tried.pop(ifindex, None)

    @staticmethod
    def is_lossy(port: Attached, link: LinkFacts) -> bool:
        """Whether native mode is none any more for a port under `auto`: a bond that has got a veth."""
        return link.lossy and port.mode is AttachMode.NATIVE and port.wish.attach is Attach.AUTO

    def leave_native(self, port: Attached, link: LinkFacts) -> bool:
        """A port under `auto` can't be native any more (is_lossy()); whether it is at tc instead.

        Where it can't be there, it stays as it is.
        """
        return self._leave_native(port, link, known_obstacle(link.why_lossy))

    def leave_for_tags(self, port: Attached, link: LinkFacts) -> bool:
        """A tag stands beside a port's frame: whether it is at tc instead, where the program sees them, or was already.

        Those in generic mode since so many others are at tc go there one after another.
        """
        if port.wish.attach is not Attach.AUTO or port.mode is AttachMode.TC:
            return port.mode is AttachMode.TC
        if port.mode is AttachMode.GENERIC:
            return self._is_crowded_out(port) and self._may_leave_generic() and self._go_to_tc(port, link)
        return self._leave_native(port, link, known_obstacle(link.why_lossy, tags_beside=True))

    def _leave_native(self, port: Attached, link: LinkFacts, known: tuple[Obstacle, str] | None) -> bool:
        assert known is not None, "else there is nothing to leave for"
        self._tried[port.ifindex] = time.monotonic()
        return self._go_to_tc(port, link, *known)

    def look(self, port: Attached, link: LinkFacts, entry: LinkEntry) -> None:
        """Have a port under `auto` native where what stood in the way has gone, or may have, by what the kernel says of
        it now; and where it is generic since so many were at tc, by tc once there are fewer.
        """
        if port.wish.attach is not Attach.AUTO or port.mode is AttachMode.NATIVE:
            return
        now = time.monotonic()
        if self._tried.get(port.ifindex, -_PAUSE) + _PAUSE > now:
            return
        if self._may_be_native(port, link, entry) and (port.mode is AttachMode.TC or self._may_leave_generic()):
            self._tried[port.ifindex] = now
            self._try_native(port, link)
        elif self._is_crowded_out(port) and len(self._at_tc) < MOST_BY_AUTO and self._may_leave_generic():
            self._tried[port.ifindex] = now
            self._go_to_tc(port, link)

    def _may_be_native(self, port: Attached, link: LinkFacts, entry: LinkEntry) -> bool:
        if port.attached.obstacle is Obstacle.TAKEN:
            return not link.lossy and not any(entry.xdp)
        if port.attached.obstacle is Obstacle.TAGS:
            return not _may_hide_tags(link)
        if not link.can_be_native:
            return False  # to ask its driver in vain takes generic mode off: a gap, or some hundredths of a second
        if port.attached.obstacle is Obstacle.LOSSY:
            return True
        now = _settings(link)
        return self._refused.setdefault(port.ifindex, now) != now

    def _try_native(self, port: Attached, link: LinkFacts) -> None:
        """Ask the driver once more. From generic mode it goes by tc, whatever expect() says of many."""
        asked, before = _settings(link), self._ns_filter.go_by_tc(wanted=True)
        try:
            found = try_native(self._ns_filter, link, port.wish.tc_order)
        except MachineError:
            return  # no descriptor was left, say: that is no word of the driver's
        finally:
            self._ns_filter.go_by_tc(wanted=before)
            self._note_gap(link)
        if isinstance(found, AttachedAs):
            self._refused.pop(port.ifindex, None)
            self._moved(port, found, link)
        else:
            self._refused[port.ifindex] = asked
            port.attached = port.attached._replace(obstacle=found[0], why_not_native=found[1])

    def _go_to_tc(self, port: Attached, link: LinkFacts, obstacle: Obstacle | None = None, why: str = "") -> bool:
        """Have a port at tc, for another reason than before if one is given; whether it is there."""
        try:
            self._ns_filter.attach(port.ifindex, port.name, AttachMode.TC, port.wish.tc_order)
        except MachineError:
            return False
        at_tc = port.attached._replace(mode=AttachMode.TC, taken_over=False, why_not_tc="")
        self._moved(port, at_tc._replace(obstacle=obstacle, why_not_native=why) if obstacle else at_tc, link)
        return True

    @staticmethod
    def _is_crowded_out(port: Attached) -> bool:
        return port.attached.why_not_tc == CROWDED

    def _may_leave_generic(self) -> bool:
        """Whether it is a port's turn to do so; the next one's is a while later."""
        now = time.monotonic()
        if self._left_generic + _PACE > now:
            return False
        self._left_generic = now
        return True


_Settings = tuple[tuple[int, tuple[bytes, ...]], ...]
"""How an interface is set up, and each that it hands its XDP program down to: index, and settings()."""


def _settings(link: LinkFacts) -> _Settings:
    return tuple((ifindex, settings(ifindex)) for ifindex in (link.ifindex, *link.lower))


def look_for_hidden_tags(port: Attached, link: LinkFacts) -> bool:
    """Note whether VLAN tags may stand beside the frames of a port in native mode: where the program is in the driver,
    it sees the tags unless something takes them out of the frames. Whether that is different from before.
    """
    before, port.hides_tags = port.hides_tags, port.trunk and _may_hide_tags(link)
    return port.hides_tags is not before


def _may_hide_tags(link: LinkFacts) -> bool:
    """Whether the card takes tags out of the frames, or a veth's other end; the card may be told so at any time."""
    return link.lossy or receive_vlan_offload(link.name)
