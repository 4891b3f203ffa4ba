# SPDX-License-Identifier: GPL-2.0-or-later
"""The ports that the XDP program sits on: attached as they come, given up as they go, put back where taken away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.config import Config, Wish
from npd6_xdp.core.entries import by_port
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import Steps
from npd6_xdp.core.table import Table
from npd6_xdp.daemon.attached_ports import AttachedPorts
from npd6_xdp.daemon.in_force import NOTHING, Change, Follower, InForce
from npd6_xdp.daemon.lines import Damper
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.port_groups import PortGroups
from npd6_xdp.daemon.port_looks import Attached, PortLooks
from npd6_xdp.daemon.turns import HELD, take_slice
from npd6_xdp.daemon.ways import look_for_hidden_tags
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.claims import Claims
from npd6_xdp.system.groups import Groups
from npd6_xdp.system.netlink.links import Netlink
from npd6_xdp.system.sender import NOBODY, Holder, Outbox

log = logging.getLogger("npd6-xdp")

_RETRY = 2.0  # seconds after which an interface that refused is tried again
_RETRY_PAUSE = 10  # times what the trying took, where that is longer


class Ports(AttachedPorts, Follower):
    """They follow what is in force, a port a step: where the kernel takes its time for each, the loop turns between."""

    def __init__(
        self,
        ns_filter: NsFilter,
        netlink: Callable[[], Netlink],
        damper: Damper | None = None,
        holder: Holder = NOBODY,
        claims: Claims | None = None,
    ) -> None:
        super().__init__(ns_filter, damper, holder, claims)
        self._groups = Groups(lambda *which: netlink().groups(*which), *holder)
        self._port_groups = PortGroups(self._groups)
        self._in_force = NOTHING
        self._admitted: set[int] = set()  # ports as a table wants them which isn't in force yet
        self._retry_at: float | None = None
        self._following: Steps[None] | None = None  # what is tried again, or put back, between two changes
        self._is_changing = False  # a change is at the ports: what is to be tried again comes behind it
        self._looks = PortLooks(ns_filter, netlink, self._groups, self._lines, self._attached, self._look_at_port)
        self.due: float | None = None
        """When to call tick(): an interface has refused, or it is time to look (seconds, monotonic)."""

    def close(self, *, leave: bool = False) -> None:
        """Detach everywhere, or leave that to a successor; let go of the sockets."""
        self._stop_following()
        self._lines.say()
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

    def leave_for_tags(self, ifindex: int) -> bool:
        """A tag was seen beside a port's frame: whether the program is at tc from now on, where it sees them."""
        port, link = self._attached.get(ifindex), self._here.get(ifindex)
        if port is None or link is None or not self._ways.leave_for_tags(port, link):
            return False
        self._say()
        return True

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
            yield from self._alone(self.admitting(new, change))

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """Have the program sit where the table in force wants it."""
        if new.is_but_for_roles(old):
            return  # what it is to do for a change that is under way is done with that
        yield  # a turn of its own
        if old is NOTHING and not self._ns_filter.inherits:  # else one that refuses is tried again: the others go on
            with ExitStack() as undo:
                yield from self._alone(self.admitting(new, Change(undo, asked=True)))
                undo.pop_all()
        self._admitted.clear()
        yield from self._alone(self.following(new))
        if old is NOTHING:
            self._ns_filter.let_go()

    def _alone(self, steps: Steps[None]) -> Steps[None]:
        """A change's steps: what the loop was at, and what refuses meanwhile, is tried again behind them."""
        self._stop_following()
        self._is_changing = True
        try:
            yield from steps
        finally:
            self._is_changing = False
            self._lines.say()  # also of a change that came to nothing
            self._plan()

    def admitting(self, new: InForce, change: Change) -> Steps[None]:
        """Attach to what the table wants beside what there is, and as the configuration wants it, a port a step: the
        kernel may take its time for each.

        Nothing answers there before the table is in force. Raises MachineError, with all as it was, if one refuses
        that the configuration names; one that only a glob catches, or that has refused before, is for following().
        """
        config = new.config
        named = {interface.name for interface in config.interfaces}
        here = self._wanted(new.links, new.table)
        before = dict[int, Wish | None]()  # of those that are attached or moved here
        wishes = ((self._attached.get(link.ifindex), config.wish(link.name)) for link in here.values())
        self._ways.expect((port, wish) for port, wish in wishes if port is not None and port.wish != wish)
        change.undo.callback(setattr, self, "_entries", self._entries)
        change.undo.callback(self._give_up)
        self._entries = by_port(new.table.entries.values())
        try:
            for link in here.values():
                port, wish = self._attached.get(link.ifindex), config.wish(link.name)
                if port is not None and (port.generation != link.generation or port.wish == wish):
                    continue  # what is another interface by now is for following()
                was = None if port is None else port.wish
                try:
                    if port is None:
                        self._attach(wish, link)
                    else:
                        self._move(port, wish, link)
                except MachineError:
                    if port is not None or (link.name in named and not self._lines.has_refused(link.ifindex)):
                        raise
                else:
                    before[link.ifindex] = was
                    self._admitted.add(link.ifindex)
                yield
        except MachineError:
            yield from self._taking_back(before, here)
            raise
        for link in here.values():
            if link.ifindex in self._attached and not self._lines.is_announced(link.ifindex):
                self._say_attached(link)
        self._lines.say()

    def _taking_back(self, before: Mapping[int, Wish | None], here: Mapping[int, LinkFacts]) -> Steps[None]:
        """Detach those that weren't attached before, and have the others go back to what they were, the last first."""
        for ifindex, wish in reversed([*before.items()]):
            if (port := self._attached.get(ifindex)) is not None:
                if wish is None:
                    self._detach(ifindex)
                elif not self._go(port, wish, here[ifindex], says=False):
                    self._retry_at = time.monotonic()
            self._admitted.discard(ifindex)
            yield

    def _give_up(self) -> None:
        """What was attached for a table isn't wanted after all: it is detached, or goes back, in turns of the loop."""
        if self._admitted:
            self._admitted.clear()
            self._retry_at = time.monotonic()
            self._plan()

    def following(self, new: InForce) -> Steps[None]:
        """Attach to what is there now and wanted, detach from the rest, a port a step; what refuses is tried again, see
        `due`.
        """
        self._retry_at = None
        self._in_force = new
        config, links, table = new.config, new.links, new.table
        self._entries = by_port(table.entries.values())
        here = self._here = self._wanted(links, table)
        taken_off = {*self._ns_filter.taken_off(self._attached)}
        for ifindex, port in tuple(self._attached.items()):
            if self._attached.get(ifindex) is port and self._fit(
                port, here.get(ifindex), config, is_taken_off=ifindex in taken_off
            ):
                yield
        in_vain = 0.0
        for link in here.values():
            if link.ifindex in self._attached:
                continue
            began = time.monotonic()
            if self._looks.is_there(link.ifindex):
                self._try(config, link)
            else:
                self._retry_at = began
            in_vain += 0.0 if link.ifindex in self._attached else time.monotonic() - began
            yield
        self._lines.what_cannot_be(config, links)
        self._port_groups.follow(table, links)
        self._lines.say()
        if self._retry_at is not None:
            self._retry_at = time.monotonic() + max(_RETRY, _RETRY_PAUSE * in_vain)
        self._plan()

    def _fit(self, port: Attached, link: LinkFacts | None, config: Config, *, is_taken_off: bool) -> bool:
        """Have the program on a port as what is in force wants it; whether anything was to be done there."""
        ifindex = port.ifindex
        if link is None and ifindex in self._admitted:
            return False  # for a table that is about to be in force
        if link is None:
            self._detach(ifindex)
            self._lines.add(logging.INFO, port.name, "detached", ifindex=ifindex)
        elif link.generation != port.generation:  # of the one before, nothing is here any more
            self._detach(ifindex)
            self._lines.add(
                logging.INFO, port.name, "detached: it has gone, and another has its index", ifindex=ifindex
            )
        elif is_taken_off and self._looks.is_here(port):
            self._take_note(port)
        elif link.name != port.name:
            self._lines.add(logging.INFO, port.name, f"is now {link.name}", ifindex=ifindex)
            self._rename(port, link.name)
            self._go(port, config.wish(link.name), link)
        elif config.wish(link.name) != port.wish and ifindex not in self._admitted:
            self._go(port, config.wish(link.name), link)  # back: the table of another wish never came
        elif self._ways.is_lossy(port, link) and not self._ways.leave_native(port, link):
            self._go(port, port.wish, link)
        elif port.mode is AttachMode.NATIVE and self._is_trunk(link) is not port.trunk:
            port.trunk = not port.trunk
            self.changes += look_for_hidden_tags(port, link)
        else:
            return False
        return True

    @staticmethod
    def _wanted(links: Mapping[str, LinkFacts], table: Table) -> dict[int, LinkFacts]:
        """The interfaces that the table has entries for, by index."""
        return {link.ifindex: link for link in links.values() if link.ifindex in table.ports}

    # --- what the kernel has ------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Try again what has refused, and look at what the kernel has."""
        is_due = self._retry_at is not None and self._retry_at <= now and not self._is_changing
        if self._following is None and is_due:
            self._following = self.following(self._in_force)
        if self._following is not None:
            self._go_on(self._following)
        if self._looks.due is not None and self._looks.due <= now:
            held = time.monotonic() + HELD
            for port in self._looks.look(now):
                if time.monotonic() < held:
                    self._put_back(port)
                else:
                    self._take_note(port)
                    self._retry_at = now
            self._say()
        self._plan()

    def _say(self) -> None:
        """Log what was found between changes. One that is under way says it at its end, of many ports in one line."""
        if not self._is_changing and self._following is None:
            self._lines.say()

    def _go_on(self, following: Steps[None]) -> None:
        self._following = None
        try:
            if not take_slice(following):
                self._following = following
        except Exception:
            self._retry_at = time.monotonic() + _RETRY
            raise

    def _stop_following(self) -> None:
        if self._following is not None:
            self._following.close()
            self._following, self._retry_at = None, time.monotonic()

    def _plan(self) -> None:
        self._looks.plan(wanted=bool(self._attached or self._lines.have_refusals))
        retry_at = None if self._is_changing else 0.0 if self._following is not None else self._retry_at
        self.due = min((due for due in (retry_at, self._looks.due) if due is not None), default=None)

    def _look_at_port(self, port: Attached, entry: LinkEntry) -> None:
        """What the kernel says of a port's link now, of which nothing is lacking."""
        if (link := self._here.get(port.ifindex)) is not None:
            if port.trunk:
                self.changes += look_for_hidden_tags(port, link)
            self._ways.look(port, link, entry)

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
