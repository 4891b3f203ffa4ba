# SPDX-License-Identifier: GPL-2.0-or-later
"""The ports that the XDP program sits on: attached as they come, given up as they go, put back where taken away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.config import Config, Wish
from npd6_xdp.core.entries import Entry, by_port
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import Steps
from npd6_xdp.core.table import Table
from npd6_xdp.daemon.attaching import AttachedAs
from npd6_xdp.daemon.in_force import NOTHING, Change, Follower, InForce
from npd6_xdp.daemon.lines import Damper
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.port_groups import PortGroups
from npd6_xdp.daemon.port_lines import PortLines
from npd6_xdp.daemon.port_looks import Attached, PortLooks
from npd6_xdp.daemon.ways import Ways, look_for_hidden_tags
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.claims import Claims
from npd6_xdp.system.groups import Groups
from npd6_xdp.system.netlink.links import Netlink
from npd6_xdp.system.sender import NOBODY, Holder, Outbox, Sockets

log = logging.getLogger("npd6-xdp")

_RETRY = 2.0  # seconds after which an interface that refused is tried again
_RETRY_PAUSE = 10  # times what the trying took, where that is longer


class Ports(Follower):
    """The attached ports, by interface index."""

    def __init__(
        self,
        ns_filter: NsFilter,
        netlink: Callable[[], Netlink],
        damper: Damper | None = None,
        holder: Holder = NOBODY,
        claims: Claims | None = None,
    ) -> None:
        self._ns_filter = ns_filter
        self._claims = claims or Claims(None)
        self._sockets = Sockets(holder)
        self._groups = Groups(lambda *which: netlink().groups(*which), *holder)
        self._port_groups = PortGroups(self._groups)
        self._attached: dict[int, Attached] = {}
        self._named: dict[str, Attached] = {}
        self._lines = PortLines(damper)
        self._here: dict[int, LinkFacts] = {}
        self._entries: dict[int, list[Entry]] = {}
        self._in_force = NOTHING
        self._admitted: set[int] = set()  # ports as a table wants them which isn't in force yet
        self._came: set[int] = set()  # those of them that weren't attached before
        self._retry_at: float | None = None
        self._ways = Ways(ns_filter, self._lines, self._moved)
        self._looks = PortLooks(ns_filter, netlink, self._groups, self._lines, self._attached, self._look_at_port)
        self.changes = 0
        """How often a program was attached or taken off, or tags were hidden or shown from then on."""
        self.due: float | None = None
        """When to call tick(): an interface has refused, or it is time to look (seconds, monotonic)."""

    def close(self, *, leave: bool = False) -> None:
        """Detach everywhere, or leave that to a successor; let go of the sockets."""
        if not leave:
            self.detach_all()
        self._attached.clear()
        self._named.clear()
        self._sockets.close()  # and with them all that they hold, at once
        self._groups.close()

    def detach_all(self) -> None:
        """Take the program off all ports; what it has handed up can still be answered."""
        for ifindex in self._attached:
            self._ns_filter.detach(ifindex)

    def get(self, ifindex: int) -> Attached | None:
        """The port with that index, if the program sits on it."""
        return self._attached.get(ifindex)

    def hiding_tags(self) -> frozenset[int]:
        """The ports on which VLAN tags may stand beside the frames."""
        return frozenset(ifindex for ifindex, port in self._attached.items() if port.hides_tags)

    def generic(self) -> frozenset[int]:
        """The ports in generic mode, where a tap sees each frame right after the program, and not a batch later."""
        return frozenset(ifindex for ifindex, port in self._attached.items() if port.mode is AttachMode.GENERIC)

    def by_name(self, name: str) -> Attached | None:
        """The port of that name, if the program sits on it."""
        return self._named.get(name)

    def send(self, ifindex: int, frame: bytes) -> bool:
        """Send a frame out of a port; False if it couldn't be sent."""
        port = self._attached.get(ifindex)
        return port is not None and port.socket.send(frame)

    def send_all(self, outbox: Outbox) -> list[int]:
        """Send the frames of an outbox, in as few system calls as their ports allow. The numbers of the unsent ones."""
        shapes = outbox.frames.shapes
        outbox.prepare()
        failed: list[int] = []
        first, count = 0, len(shapes)
        while first < count:
            shape, end = shapes[first], first + 1
            if shapes.count(shape) == count:  # nearly always, and a tenth of the time
                end = count
            port = self._attached.get(shape.ifindex)
            while end < count and (shapes[end] is shape or self._leaves_with(port, shapes[end].ifindex)):
                end += 1
            failed += range(first, end) if port is None else outbox.send(port.socket.way, first, end)
            first = end
        return failed

    def _leaves_with(self, port: Attached | None, ifindex: int) -> bool:
        """Whether frames of another interface leave by the same socket as a port's."""
        other = self._attached.get(ifindex)
        return other is port or (port is not None and other is not None and other.socket.way is port.socket.way)

    @staticmethod
    def check(config: Config, links: Mapping[str, LinkFacts]) -> None:
        """Raise MachineError for interfaces that the configuration names and that can't be ports."""
        for name in dict.fromkeys(interface.name for interface in config.interfaces):
            if name in links and (why := links[name].why_no_port):
                raise MachineError(f"{name}: {why}")

    def join(self, loop: Loop) -> None:
        """Have the loop call when it is time to look."""
        loop.at(lambda: self.due, self.tick, "ports")

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        """Attach where the table wants it besides, if somebody has asked for that. At the start, nothing is attached
        before the table is in force.
        """
        yield from self._port_groups.finding(new.table, change.undo)
        if change.asked and self._in_force is not NOTHING:
            self.admit(new, change)

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """Have the program sit where the table in force wants it."""
        if new.is_but_for_roles(old):
            return  # what it is to do for a change that is under way is done with that
        yield  # a turn of its own
        if old is NOTHING and not self._ns_filter.inherits:  # else one that refuses is tried again: the others go on
            with ExitStack() as undo:
                self.admit(new, Change(undo, asked=True))
                undo.pop_all()
        self._admitted.clear()
        self._came.clear()
        self.follow(new)
        if old is NOTHING:
            self._ns_filter.let_go()

    def admit(self, new: InForce, change: Change) -> None:
        """Attach to what the table wants beside what there is, and as the configuration wants it.

        Nothing answers there before the table is in force. Raises MachineError, with all as it was, if one refuses
        that the configuration names; one that only a glob catches, or that has refused before, is follow()'s to retry.
        """
        config = new.config
        named = {interface.name for interface in config.interfaces}
        here = self._wanted(new.links, new.table)
        admitted, came = set[int](), set[int]()
        wishes = ((self._attached.get(link.ifindex), config.wish(link.name)) for link in here.values())
        self._ways.expect((port, wish) for port, wish in wishes if port is not None and port.wish != wish)
        change.undo.callback(setattr, self, "_entries", self._entries)
        with ExitStack() as undo:
            self._entries = by_port(new.table.entries.values())
            for link in here.values():
                before = self._attached.get(link.ifindex)
                if before is not None and before.generation != link.generation:
                    continue  # follow() deals with what is another interface by now
                wish = config.wish(link.name)
                if before is None:
                    try:
                        self._attach(wish, link)
                    except MachineError:
                        if link.name in named and not self._lines.has_refused(link.ifindex):
                            raise
                        continue
                    undo.callback(self._detach, link.ifindex)
                    came.add(link.ifindex)
                elif before.wish != wish:
                    undo.callback(self._go, before, before.wish, link, says=False)
                    self._move(before, wish, link)
                    admitted.add(link.ifindex)
            undo.pop_all()
        self._admitted |= admitted | came
        self._came |= came
        change.undo.callback(self._give_up)
        for link in here.values():
            if link.ifindex in self._attached and not self._lines.is_announced(link.ifindex):
                self._say_attached(link)
        self._lines.say()

    def _give_up(self) -> None:
        """What was attached for a table isn't wanted after all: follow() attaches as the one in force wants it, and has
        those go back that were attached in another way.
        """
        for ifindex in self._came & self._attached.keys():
            name = self._attached[ifindex].name
            self._detach(ifindex)
            self._lines.add(logging.INFO, name, "detached")
        self._came.clear()
        if self._admitted:
            self._admitted.clear()
            self._lines.say()
            self._retry_at = time.monotonic()
            self._plan()

    def follow(self, new: InForce) -> None:
        """Attach to what is there now and wanted, detach from the rest; what refuses is tried again, see `due`."""
        began = time.monotonic()
        self._retry_at = None
        self._in_force = new
        config, links, table = new.config, new.links, new.table
        self._entries = by_port(table.entries.values())
        here = self._here = self._wanted(links, table)
        taken_off = {*self._ns_filter.taken_off(self._attached)}
        for ifindex, port in tuple(self._attached.items()):
            link = here.get(ifindex)
            if link is None and ifindex in self._admitted:
                continue  # for a table that is about to be in force
            if link is None:
                self._detach(ifindex)
                self._lines.add(logging.INFO, port.name, "detached", ifindex=ifindex)
            elif link.generation != port.generation:  # of the one before, nothing is here any more
                self._detach(ifindex)
                self._lines.add(
                    logging.INFO, port.name, "detached: it has gone, and another has its index", ifindex=ifindex
                )
            elif ifindex in taken_off and self._looks.is_here(port):
                self._take_note(port)
            elif link.name != port.name:
                self._lines.add(logging.INFO, port.name, f"is now {link.name}", ifindex=ifindex)
                self._rename(port, link.name)
                self._go(port, config.wish(link.name), link)
            elif config.wish(link.name) != port.wish and ifindex not in self._admitted:
                self._go(port, config.wish(link.name), link)  # back: the table of another wish never came
            elif self._ways.is_lossy(port, link) and not self._ways.leave_native(port, link):
                self._detach(ifindex)
            elif port.mode is AttachMode.NATIVE and self._is_trunk(link) is not port.trunk:
                port.trunk = not port.trunk
                self.changes += look_for_hidden_tags(port, link)
        for link in here.values():
            if link.ifindex not in self._attached:
                self._try(config, link)
        self._lines.what_cannot_be(config, links)
        self._port_groups.follow(table, links)
        self._lines.say()
        if self._retry_at is not None:
            now = time.monotonic()
            self._retry_at = now + max(_RETRY, _RETRY_PAUSE * (now - began))
        self._plan()

    @staticmethod
    def _wanted(links: Mapping[str, LinkFacts], table: Table) -> dict[int, LinkFacts]:
        """The interfaces that the table has entries for, by index."""
        return {link.ifindex: link for link in links.values() if link.ifindex in table.ports}

    # --- what the kernel has ------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Try again what has refused, and look at what the kernel has."""
        if self._retry_at is not None and self._retry_at <= now:
            self.follow(self._in_force)
        if self._looks.due is not None and self._looks.due <= now:
            for port in self._looks.look(now):
                self._put_back(port)
        self._plan()

    def _plan(self) -> None:
        self._looks.plan(wanted=bool(self._attached or self._lines.have_refusals))
        self.due = min((due for due in (self._retry_at, self._looks.due) if due is not None), default=None)

    def _is_trunk(self, link: LinkFacts) -> bool:
        """Whether there are VLANs on a port, by devices or by what is configured."""
        return len(link.l3) > 1 or any(
            entry.spoken and (entry.vlan.any or entry.vlan.tags) for entry in self._entries.get(link.ifindex, ())
        )

    def _look_at_port(self, port: Attached, entry: LinkEntry) -> None:
        """What the kernel says of a port's link now, of which nothing is lacking."""
        if (link := self._here.get(port.ifindex)) is not None:
            if port.trunk:
                self.changes += look_for_hidden_tags(port, link)
            self._ways.look(port, link, entry)

    def leave_for_tags(self, ifindex: int) -> bool:
        """A tag was seen beside a port's frame: whether the program is at tc from now on, where it sees them."""
        port, link = self._attached.get(ifindex), self._here.get(ifindex)
        if port is None or link is None or not self._ways.leave_native(port, link, tags_beside=True):
            return False
        self._lines.say()
        return True

    def _moved(self, port: Attached, attached: AttachedAs, link: LinkFacts) -> None:
        """The program sits on a port in another way."""
        port.attached = attached
        self._see_tags(port, link)
        self.changes += 1
        self._say_attached(link)

    def _put_back(self, port: Attached) -> None:
        """Attach anew what was taken away, and say so; or say why it can't be, and try again."""
        self._take_note(port)
        if (link := self._here.get(port.ifindex)) is not None:
            self._try(self._in_force.config, link)

    def _take_note(self, port: Attached) -> None:
        what = "tc" if port.mode is AttachMode.TC else "XDP"
        self._looks.complain(port, f"another process has detached the {what} program; attaching it again")
        self._detach(port.ifindex)

    # --- attach -------------------------------------------------------------------------------------------

    def _try(self, config: Config, link: LinkFacts) -> None:
        try:
            self._attach(config.wish(link.name), link)
        except MachineError as error:
            self._retry_at = time.monotonic() + _RETRY
            self._lines.refused(link.ifindex, f"{error}; trying again every {_RETRY:.0f} s")
        else:
            self._say_attached(link)
            self._lines.accepted(link.ifindex)

    def _attach(self, wish: Wish, link: LinkFacts) -> None:
        with ExitStack() as undo:
            self._claims.take(link.ifindex, link.name)
            undo.callback(self._claims.give_up, link.ifindex)
            socket = self._sockets.open(link.name, link.ifindex)
            undo.callback(self._sockets.close_port, socket)
            attached = self._ways.attach(link, wish)
            undo.pop_all()
        port = Attached(link.name, link.ifindex, wish, attached, socket, link.generation)
        self._attached[link.ifindex] = self._named[link.name] = port
        self._see_tags(port, link)
        self.changes += 1

    def _move(self, port: Attached, wish: Wish, link: LinkFacts) -> None:
        """As Ways.move()."""
        before = port.attached
        self._ways.move(port, wish, link)
        if (port.mode, port.attached.why) != (before.mode, before.why):
            self._lines.forget(link.ifindex)
        self._see_tags(port, link)
        self.changes += 1

    def _go(self, port: Attached, wish: Wish, link: LinkFacts, *, says: bool = True) -> None:
        """The same, if it is another wish; where that can't be, the port is given up, for follow() to try it."""
        if wish == port.wish:
            return
        try:
            self._move(port, wish, link)
        except MachineError:
            self._detach(link.ifindex)
            self._retry_at = time.monotonic()
            self._plan()
        else:
            if not says:
                self._lines.announce_none(link.ifindex)
            elif not self._lines.is_announced(link.ifindex):
                self._say_attached(link)

    def _see_tags(self, port: Attached, link: LinkFacts) -> None:
        """Whether tags may be hidden, the way that a port has the program now."""
        self._ways.note(port)
        port.hides_tags = port.mode is AttachMode.GENERIC
        port.trunk = port.mode is AttachMode.NATIVE and self._is_trunk(link)
        if port.trunk:
            self.changes += look_for_hidden_tags(port, link)

    def _say_attached(self, link: LinkFacts) -> None:
        self._lines.attached(link, self._attached[link.ifindex].attached, self._entries.get(link.ifindex, ()))

    def _detach(self, ifindex: int) -> None:
        self.changes += 1
        self._ns_filter.detach(ifindex)
        self._claims.give_up(ifindex)
        self._lines.forget(ifindex)
        self._ways.forget(ifindex)
        port = self._attached.pop(ifindex)
        if self._named.get(port.name) is port:
            del self._named[port.name]
        self._sockets.close_port(port.socket)

    def _rename(self, port: Attached, name: str) -> None:
        if self._named.get(port.name) is port:
            del self._named[port.name]
        port.name = name
        self._named[name] = port
