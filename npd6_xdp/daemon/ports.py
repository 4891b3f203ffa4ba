# SPDX-License-Identifier: GPL-2.0-or-later
"""The ports that the XDP program sits on: attached as they come, given up as they go."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from npd6_xdp.core.config import Attach, Config
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.groups import wanted_groups
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.rules import Table
from npd6_xdp.system.datapath import AttachMode, Datapath, Refused
from npd6_xdp.system.groups import Groups
from npd6_xdp.system.netlink import receive_vlan_offload
from npd6_xdp.system.sender import Outbox, Port

log = logging.getLogger("npd6-xdp")

_RETRY = 2.0  # seconds after which an interface that refused is tried again


@dataclass(slots=True)
class Attached:
    """A port that the program sits on; `wish` is how it was asked to."""

    name: str
    ifindex: int
    wish: Attach
    mode: AttachMode
    socket: Port


class Ports:
    """The attached ports, by interface index."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._groups = Groups()
        self._attached: dict[int, Attached] = {}
        self._announced: set[int] = set()
        self._refused: dict[int, str] = {}
        self.due: float | None = None
        """When to call follow() again, for an interface that refused (seconds, monotonic)."""

    def close(self) -> None:
        """Detach everywhere, and leave the groups."""
        for ifindex in tuple(self._attached):
            self._detach(ifindex)
        self._groups.close()

    def detach_all(self) -> None:
        """Take the program off all ports; what it has handed up can still be answered."""
        for ifindex in self._attached:
            self._datapath.detach(ifindex)

    def get(self, ifindex: int) -> Attached | None:
        """The port with that index, if the program sits on it."""
        return self._attached.get(ifindex)

    def by_name(self, name: str) -> Attached | None:
        """The port of that name, if the program sits on it."""
        return next((port for port in tuple(self._attached.values()) if port.name == name), None)

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
            while end < count and shapes[end].ifindex == shape.ifindex:
                end += 1
            port = self._attached.get(shape.ifindex)
            failed += range(first, end) if port is None else outbox.send(port.socket, first, end)
            first = end
        return failed

    @staticmethod
    def check(config: Config, links: Mapping[str, LinkFacts]) -> None:
        """Raise MachineError for interfaces that the configuration names and that can't be ports."""
        for name in dict.fromkeys(interface.name for interface in config.interfaces):
            if name in links and not links[name].mac:
                raise MachineError(_no_ethernet(name))

    def admit(self, config: Config, links: Mapping[str, LinkFacts], table: Table) -> None:
        """Attach to what the table wants beside what there is, and as the configuration wants it.

        Nothing answers there before the table is in force. Raises MachineError, with all as it was, if one refuses
        that the configuration names; one that only a glob catches, or that has refused before, is follow()'s to retry.
        """
        named = {interface.name for interface in config.interfaces}
        wanted = {ifindex for ifindex, _, _ in table.slots}
        here = [link for link in links.values() if link.ifindex in wanted]
        with ExitStack() as undo:
            for link in here:
                before = self._attached.get(link.ifindex)
                wish = config.attach(link.name)
                if before is None:
                    try:
                        self._attach(wish, link)
                    except MachineError:
                        if link.name in named and link.ifindex not in self._refused:
                            raise
                        continue
                    undo.callback(self._detach, link.ifindex)
                elif before.wish is not wish:
                    self._detach(link.ifindex)
                    undo.callback(self._attach, before.wish, link)
                    self._attach(wish, link)
                    undo.callback(self._detach, link.ifindex)
            undo.pop_all()
        for link in here:
            if link.ifindex in self._attached and link.ifindex not in self._announced:
                self._say_attached(link, table)

    def follow(self, config: Config, links: Mapping[str, LinkFacts], table: Table) -> None:
        """Attach to what is there now and wanted, detach from the rest; what refuses is tried again, see `due`."""
        self.due = None
        wanted = {ifindex for ifindex, _, _ in table.slots}
        here = {link.ifindex: link for link in links.values() if link.ifindex in wanted}
        for ifindex, port in tuple(self._attached.items()):
            link = here.get(ifindex)
            if link is None or not self._datapath.attached_to(ifindex):
                self._detach(ifindex)
                log.info("%s: detached", port.name)
            elif link.name != port.name:
                log.info("%s: is now %s", port.name, link.name)
                port.name = link.name
                if config.attach(link.name) is not port.wish:
                    self._detach(ifindex)
        for link in here.values():
            if link.ifindex not in self._attached:
                self._try(config, link, table)
        self._say_what_cannot_be(config, links)
        self._groups.follow(wanted_groups(table))

    def _try(self, config: Config, link: LinkFacts, table: Table) -> None:
        try:
            self._attach(config.attach(link.name), link)
        except MachineError as error:
            self.due = time.monotonic() + _RETRY
            self._say_once(link.ifindex, f"{error}; trying again every {_RETRY:.0f} s")
        else:
            self._say_attached(link, table)
            self._refused.pop(link.ifindex, None)

    def _attach(self, wish: Attach, link: LinkFacts) -> None:
        socket = Port(link.name, link.ifindex)
        try:
            mode = self._attach_as(link, wish)
        except BaseException:
            socket.close()
            raise
        self._attached[link.ifindex] = Attached(link.name, link.ifindex, wish, mode, socket)

    def _say_attached(self, link: LinkFacts, table: Table) -> None:
        self._announced.add(link.ifindex)
        entries = [entry for entry in table.entries.values() if entry.ifindex == link.ifindex and entry.spoken]
        tagged = any(entry.vlan.any or entry.vlan.tags for entry in entries)
        if (tagged or len(link.addresses) > 1) and receive_vlan_offload(link.name):
            log.warning(
                "%s: receive VLAN offload is on, which can hide VLAN tags from XDP: ethtool -K %s rxvlan off",
                link.name,
                link.name,
            )
        log.info(
            "%s: attached in %s mode; %s",
            link.name,
            self._attached[link.ifindex].mode.name.lower(),
            ", ".join(dict.fromkeys(f"{entry.label} {entry.datapath}" for entry in entries)),
        )

    def _attach_as(self, link: LinkFacts, wish: Attach) -> AttachMode:
        if wish is Attach.AUTO and link.kind == "veth":
            # Native XDP_TX on veth is lost unless the peer has a program too; generic always arrives.
            wish = Attach.GENERIC
        if wish is not Attach.GENERIC:
            try:
                self._datapath.attach(link.ifindex, link.name, AttachMode.NATIVE)
            except Refused as refused:
                if wish is Attach.NATIVE:
                    raise MachineError(f'{refused}; allow attach = "auto" or "generic"') from refused
                log.warning("%s; falling back to generic mode, which is slower", refused)
            else:
                return AttachMode.NATIVE
        self._datapath.attach(link.ifindex, link.name, AttachMode.GENERIC)
        return AttachMode.GENERIC

    def _detach(self, ifindex: int) -> None:
        self._datapath.detach(ifindex)
        self._announced.discard(ifindex)
        self._attached.pop(ifindex).socket.close()

    def _say_what_cannot_be(self, config: Config, links: Mapping[str, LinkFacts]) -> None:
        for link in links.values():
            if not link.mac and link.name != "lo" and config.entries(link.name):
                self._say_once(link.ifindex, _no_ethernet(link.name))
        here = {link.ifindex for link in links.values()}
        self._refused = {ifindex: said for ifindex, said in self._refused.items() if ifindex in here}

    def _say_once(self, ifindex: int, line: str) -> None:
        if self._refused.get(ifindex) != line:
            self._refused[ifindex] = line
            log.error("%s", line)


def _no_ethernet(name: str) -> str:
    return f"{name}: not an Ethernet interface: there is no Neighbor Discovery to proxy on tunnels, PPP and loopback"
