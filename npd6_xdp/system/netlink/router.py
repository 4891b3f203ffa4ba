# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel does as a router, and as one that hears other routers: forwarding, accept_ra, the default route.

That an interface's forwarding is switched is announced (RTNLGRP_IPV6_NETCONF), so thousands of sysctls needn't be read
again and again; accept_ra isn't, so those few are read that matter.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

from npd6_xdp.core import link_messages, route_messages
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.names import raw
from npd6_xdp.core.rtnetlink import Message, Type
from npd6_xdp.system.netlink.nlsocket import Announcements, Asking, Group, Overflow

_PROTOCOL_RA = 9  # RTPROT_RA
_PROC = Path("/proc")
_FAR = (socket.inet_pton(socket.AF_INET6, "2000::1"), socket.inet_pton(socket.AF_INET6, "2600::1"))
"""Addresses for which hardly anybody has a route but a default one. Nothing is ever sent there."""


class Router:
    """Knows which interfaces forward, and tells when that changed: `fileno` becomes readable."""

    def __init__(self) -> None:
        self._asking = Asking()
        self._changes = Announcements(Group.IPV6_NETCONF, what="which interfaces forward")
        self._unread = False  # some were lost
        self._forwarding: dict[int, bool] = {}
        self._read()

    def close(self) -> None:
        """Close both sockets."""
        self._changes.close()
        self._asking.close()

    def fileno(self) -> int:
        """The socket that changes are announced on."""
        return self._changes.fileno()

    def forwards(self, ifindex: int) -> bool | None:
        """Whether what comes in by an interface is forwarded; None: it isn't known, or has no IPv6."""
        return self._forwarding.get(ifindex)

    def on_change(self) -> bool:
        """Take in what was announced; whether anything is different. Raises MachineError if it can't be read."""
        before = dict(self._forwarding)
        try:
            for message in self._changes.take_messages():
                self._take(message)
        except Overflow:
            self._unread = True
        if self._unread:
            self._read()
            self._unread = False
        return before != self._forwarding

    def _take(self, message: Message) -> None:
        if found := link_messages.parse_forwarding(message.body):
            self._forwarding[found[0]] = found[1]
        elif message.type == Type.DELNETCONF and (gone := link_messages.parse_netconf_ifindex(message.body)):
            self._forwarding.pop(gone, None)

    def _read(self) -> None:
        try:
            found = self._asking.dump(link_messages.dump_forwarding)
        except OSError as error:
            raise MachineError(
                f"can't read from the kernel which interfaces forward: {error.strerror or error}"
            ) from error
        self._forwarding = dict(filter(None, (link_messages.parse_forwarding(message.body) for message in found)))

    def default_route(self) -> tuple[int, bool] | None:
        """The index of the interface that the default route leads out of, and whether a router has advertised it.

        None: there is none. Of several it is one that no router has advertised, if the kernel prefers such a one.
        """
        found = None
        for address in _FAR:
            try:
                messages = self._asking.ask(partial(route_messages.match_route, address)).messages
            except OSError:
                continue  # ENETUNREACH, or a route that says so
            for route in filter(None, (route_messages.parse_route(message.body) for message in messages)):
                if route.protocol != _PROTOCOL_RA:
                    return route.ifindex, False
                found = route.ifindex, True
        return found

    @staticmethod
    def accept_ra(name: str) -> int:
        """The sysctl of an interface; 0, which is to ignore router advertisements, where it can't be read."""
        try:
            return int((_PROC / "sys/net/ipv6/conf" / os.fsdecode(raw(name)) / "accept_ra").read_text())
        except (OSError, ValueError):
            return 0

    @staticmethod
    def heard(name: str) -> bool:
        """Whether router advertisements have come in by an interface."""
        try:
            text = (_PROC / "self/net/dev_snmp6" / os.fsdecode(raw(name))).read_text()
        except OSError:
            return False
        return any(words[0] == "Icmp6InType134" and words[1] != "0" for words in map(str.split, text.splitlines()))
