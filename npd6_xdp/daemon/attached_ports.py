# SPDX-License-Identifier: GPL-2.0-or-later
"""The ports that the program sits on, one by one: attached, moved to another way of having it, renamed, detached."""

from __future__ import annotations

from contextlib import ExitStack

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.config import Wish
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.daemon.attaching import AttachedAs
from npd6_xdp.daemon.lines import Damper
from npd6_xdp.daemon.port_lines import PortLines
from npd6_xdp.daemon.port_looks import Attached
from npd6_xdp.daemon.ways import Ways, look_for_hidden_tags
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.claims import Claims
from npd6_xdp.system.sender import Holder, Sockets


class AttachedPorts:
    """By interface index, and by name; `_here` are the links that are to be ports, and `_entries` those of each."""

    def __init__(self, ns_filter: NsFilter, damper: Damper | None, holder: Holder, claims: Claims | None) -> None:
        self._ns_filter = ns_filter
        self._claims = claims or Claims(None)
        self._sockets = Sockets(holder)
        self._attached: dict[int, Attached] = {}
        self._named: dict[str, Attached] = {}
        self._lines = PortLines(damper)
        self._here: dict[int, LinkFacts] = {}
        self._entries: dict[int, list[Entry]] = {}
        self._ways = Ways(ns_filter, self._lines, self._moved)
        self.changes = 0
        """How often a program was attached or taken off, or tags were hidden or shown from then on."""

    def _moved(self, port: Attached, attached: AttachedAs, link: LinkFacts) -> None:
        """The program sits on a port in another way."""
        port.attached = attached
        self._see_tags(port, link)
        self.changes += 1
        self._say_attached(link)

    def _is_trunk(self, link: LinkFacts) -> bool:
        """Whether there are VLANs on a port, by devices or by what is configured."""
        return len(link.l3) > 1 or any(
            entry.spoken and entry.vlan.has_tagged for entry in self._entries.get(link.ifindex, ())
        )

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

    def _go(self, port: Attached, wish: Wish, link: LinkFacts, *, says: bool = True) -> bool:
        """The same, if it is another wish, or native mode is none any more. Where that can't be, the port is given up,
        to be tried again: False.
        """
        if wish == port.wish and not self._ways.is_lossy(port, link):
            return True
        try:
            self._move(port, wish, link)
        except MachineError:
            self._detach(link.ifindex)
            return False
        if not says:
            self._lines.announce_none(link.ifindex)
        elif not self._lines.is_announced(link.ifindex):
            self._say_attached(link)
        return True

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
