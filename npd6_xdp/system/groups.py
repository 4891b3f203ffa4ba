# SPDX-License-Identifier: GPL-2.0-or-later
"""Multicast groups: joined by sockets, so that the kernel reports them (MLD), and left when the process ends."""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from npd6_xdp.core.errors import is_used_up, remedy
from npd6_xdp.core.logged import fields
from npd6_xdp.core.said import Said

log = logging.getLogger("npd6-xdp")

_MOST_SOCKETS = 64  # each has space for some 400 groups where net.core.optmem_max is 20 KiB, as it was for long
_NONE: frozenset[bytes] = frozenset()
_NO_IPV6 = (errno.EINVAL, errno.ENODEV)  # what the kernel says where the interface has no IPv6 at the moment


class Groups:
    """The groups that this process holds, by interface index. `keep` and `release` are called with the descriptors of
    the sockets that hold them, so that somebody may keep them beyond this process's end.

    `held` says which groups the kernel has an interface in: memberships are lost, without an error, when an interface
    goes, or is without IPv6 for a while (an MTU below 1280).
    """

    def __init__(
        self,
        held: Callable[[int], frozenset[bytes]],
        keep: Callable[[int], object] = lambda fd: None,
        release: Callable[[int], object] = lambda fd: None,
    ) -> None:
        self._held = held
        self._keep, self._release = keep, release
        self._sockets = [_opened()]
        keep(self._sockets[0].fileno())
        self._joined: dict[int, dict[bytes, socket.socket]] = {}
        self._wanted: Mapping[int, frozenset[bytes]] = {}
        self._names: Mapping[int, str] = {}
        self._said = Said()

    def close(self) -> None:
        """Leave all."""
        for each in self._sockets:
            each.close()

    @property
    def interfaces(self) -> Iterable[int]:
        """Where there are groups to be in."""
        return self._wanted.keys()

    def follow(self, wanted: Mapping[int, frozenset[bytes]], names: Mapping[int, str]) -> None:
        """Join what is wanted and isn't held, and leave what is held and isn't wanted."""
        self._wanted, self._names = wanted, names
        for ifindex in [*self._joined]:
            self._leave(ifindex, self._joined[ifindex].keys() - wanted.get(ifindex, _NONE))
        for ifindex in wanted:
            self._join(ifindex)
        used = {id(by) for joined in self._joined.values() for by in joined.values()}
        for each in [each for each in self._sockets[1:] if id(each) not in used]:
            self._sockets.remove(each)
            self._release(each.fileno())
            each.close()
        self._said.keep(wanted)

    def check(self, ifindex: int) -> None:
        """Join again what the kernel has lost on an interface, and what it has refused before."""
        joined = self._joined.get(ifindex)
        if joined and (lost := joined.keys() - self._held(ifindex)):
            self._leave(ifindex, lost)  # the socket has them on its list still, and would be told EADDRINUSE
            if self._join(ifindex):
                name = self._names.get(ifindex, ifindex)
                known = fields(interface=str(name), ifindex=ifindex)
                log.info(
                    "%s: joined %d solicited-node groups again that the kernel had lost", name, len(lost), extra=known
                )
        else:
            self._join(ifindex)

    def _leave(self, ifindex: int, groups: Iterable[bytes]) -> None:
        joined = self._joined[ifindex]
        for group in [*groups]:
            with suppress(OSError):  # gone with its interface
                self._membership(joined.pop(group), socket.IPV6_LEAVE_GROUP, ifindex, group)
        if not joined:
            del self._joined[ifindex]

    def _join(self, ifindex: int) -> bool:
        """Join what is wanted on an interface and isn't held; returns whether all of it is held now."""
        joined = self._joined.get(ifindex, {})
        for group in sorted(self._wanted.get(ifindex, _NONE) - joined.keys()):
            try:
                joined[group] = self._join_one(ifindex, group)
            except OSError as error:
                # what is said of one group goes for the others, too
                self._say(ifindex, len(self._wanted[ifindex] - joined.keys()), error)
                break
        else:
            self._said.over(ifindex)
        if joined:
            self._joined[ifindex] = joined
        return self._wanted.get(ifindex, _NONE) <= joined.keys()

    def _join_one(self, ifindex: int, group: bytes) -> socket.socket:
        """Join by the first socket that has space (net.core.optmem_max is what one may use); which one."""
        for each in reversed(self._sockets):
            try:
                self._membership(each, socket.IPV6_JOIN_GROUP, ifindex, group)
            except OSError as error:
                if not is_used_up(error.errno or 0) or len(self._sockets) == _MOST_SOCKETS:
                    raise
            else:
                return each
        fresh = _opened()
        try:
            self._membership(fresh, socket.IPV6_JOIN_GROUP, ifindex, group)
        except OSError:
            fresh.close()
            raise
        self._sockets.append(fresh)
        self._keep(fresh.fileno())
        return fresh

    @staticmethod
    def _membership(by: socket.socket, option: int, ifindex: int, group: bytes) -> None:
        by.setsockopt(socket.IPPROTO_IPV6, option, group + struct.pack("@i", ifindex))

    def _say(self, ifindex: int, count: int, error: OSError) -> None:
        """Warn once for each reason."""
        code = error.errno or 0
        if (code == errno.ENODEV and _is_gone(ifindex)) or not self._said.note(ifindex, code):
            return
        why = remedy(error)
        if code in _NO_IPV6:
            why = f"{error.strerror}: it has no IPv6 now (an MTU below 1280, say); tried again when it has"
        elif code in (errno.ENOMEM, errno.ENOBUFS):
            why = f"{error.strerror}: the sysctl net.core.optmem_max is the limit"
        log.warning(
            "%s: the kernel doesn't join %d of the solicited-node groups (%s); switches with MLD snooping may keep"
            " their solicitations",
            self._names.get(ifindex, ifindex),
            count,
            why,
            extra=fields(interface=str(self._names.get(ifindex, "")), ifindex=ifindex, error=why),
        )


def _opened() -> socket.socket:
    """UDP, and never bound: it receives nothing."""
    return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)


def _is_gone(ifindex: int) -> bool:
    """Whether the interface is gone; then follow() comes soon, and no error need be logged."""
    try:
        socket.if_indextoname(ifindex)
    except OSError:
        return True
    return False
