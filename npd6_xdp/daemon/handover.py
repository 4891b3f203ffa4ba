# SPDX-License-Identifier: GPL-2.0-or-later
"""What outlives this process, for its successor: the program on its ports, and what brings solicitations to it.

Where a service manager keeps descriptors (system/fd_store.py), the XDP links go on answering by what this process knew,
and its sockets hold the ports' multicast filters and groups, until a successor has taken over, whatever ended this one.
Host routes, proxy entries and sysctls stay as well. Whether a successor comes is the service manager's to know: else it
drops what it keeps, and the unit has the rest taken away (`npd6-xdp clean`).
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import NamedTuple, Protocol, TypeVar

from npd6_xdp.core.logged import Fields, fields, named
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.daemon.in_force import Follower, InForce
from npd6_xdp.daemon.lines import some
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.system.bpf.attach import Inherited, Keeper
from npd6_xdp.system.ended import seconds_since_end
from npd6_xdp.system.fd_store import FdStore
from npd6_xdp.system.sender import Holder

log = logging.getLogger("npd6-xdp")

_MACS = 5
_TOKEN = 3
_NAME = re.compile(rf"l([0-9a-z]{{1,7}})-([2-7a-z]{{{_MACS}}})[0-9a-z]{{{_TOKEN}}}")
"""A link's: the interface's index to base 36, a digest of MAC addresses, and which process has put it there."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class _Leaves(Protocol):
    def close(self, *, leave: bool = False) -> None: ...


Left = TypeVar("Left", bound=_Leaves)
"""A room that may leave what it has."""


class _Kept(NamedTuple):
    name: str
    fd: int


class LinkKeeper(Keeper):
    """Has the store hold links: by the interface's index, the MAC addresses that its program answers by, and which
    process has put it there, as the store would add to a name that it has.
    """

    def __init__(self, store: FdStore, token: str, first: InForce, went_on: Callable[[], object]) -> None:
        self._store = store
        self._went_on = went_on
        self._token = token
        self._answers_by = _macs(first)
        self._kept: dict[int, _Kept] = {}
        self.adopted = 0
        """How many links were a predecessor's until this process took its place."""
        self.inherited = self._inherit(first)

    def _inherit(self, first: InForce) -> list[Inherited]:
        found: list[Inherited] = []
        needless: list[str] = []
        changed: list[str] = []
        for name in [*self._store.inherited]:
            if (found_in := _NAME.fullmatch(name)) is None:
                continue  # whatever it is, taken_over() lets go of it
            ifindex, macs = int(found_in[1], 36), found_in[2]
            is_port, is_same = ifindex in first.table.ports, self._macs(ifindex) == macs
            if not is_port or not is_same:
                (changed if is_port else needless).append(first.names.get(ifindex, f"interface {ifindex}"))
            fds = self._store.take(name)
            found += [Inherited(ifindex, fd, name, is_port and is_same and len(fds) == 1) for fd in fds]
        for names, why in ((needless, "no port of this configuration"), (changed, "another MAC address since then")):
            if names:
                known: Fields = {**named(*names), "error": why}
                log.info("a predecessor's program is taken off %s: %s", some(names), why, extra=fields(**known))
        return found

    @property
    def holds(self) -> bool:
        """Whether any link is held for this process."""
        return bool(self._kept)

    def keep(self, ifindex: int, fd: int) -> None:
        """Have a link of this process's held."""
        name = f"{self._stem(ifindex)}{self._token}"
        self._kept[ifindex] = _Kept(name, fd)
        self._store.keep(name, fd)

    def adopt(self, link: Inherited) -> None:
        """It is held already, and stays so: the store has each descriptor once."""
        self._kept[link.ifindex] = _Kept(link.name, link.fd)
        self.adopted += 1

    def drop(self, link: Inherited) -> None:
        """Have one that was inherited held no longer."""
        self._store.release(link.name)
        self._went_on()

    def release(self, ifindex: int) -> None:
        """Have the link of an interface held no longer."""
        if (kept := self._kept.pop(ifindex, None)) is not None:
            self._store.release(kept.name)

    def follow(self, new: InForce) -> Steps[None]:
        """Programs answer by other MAC addresses from now on, and the names are to say so."""
        self._answers_by = _macs(new)
        for ifindexes in pieces([*self._kept]):
            for ifindex in ifindexes:
                kept = self._kept.get(ifindex)
                if kept is not None and ifindex in self._answers_by and not kept.name.startswith(self._stem(ifindex)):
                    self._store.release(kept.name)
                    self.keep(ifindex, kept.fd)
            yield

    def _stem(self, ifindex: int) -> str:
        """A name's begin. Names are short, since all of them together have to fit into one string."""
        return f"l{_base36(ifindex)}-{self._macs(ifindex)}"

    def _macs(self, ifindex: int) -> str:
        """A digest of the MAC addresses by which the program on a port answers."""
        if (macs := self._answers_by.get(ifindex)) is None:
            return ""
        return (
            base64.b32encode(hashlib.blake2s(b"".join(sorted(macs)), digest_size=5).digest()).decode()[:_MACS].lower()
        )


class HandOver(Follower):
    """Between a predecessor, this process and a successor. `lasts`: what is left at the end is somebody's to have.

    All is closed by `stack`. `went_on` is told of each link of a predecessor's that is taken off.
    """

    def __init__(self, store: FdStore, stack: ExitStack, went_on: Callable[[], object] = lambda: None) -> None:
        self._store, self._stack, self._went_on = store, stack, went_on
        stack.callback(self._close)
        self._token = _other_than(store.inherited)
        self._keeper: LinkKeeper | None = None
        self._sockets: dict[int, str] = {}
        self._is_over = False
        self.lasts = bool(store)
        self.uncounted = 0.0
        """For how long a predecessor's program has answered after that one's end, in seconds."""

    def links(self, first: InForce) -> Keeper:
        """For the XDP links, by what is about to be in force: they are handed over once."""
        self._keeper = LinkKeeper(self._store, self._token, first, self._went_on)
        return self._keeper

    def sockets(self) -> Holder:
        """For sockets whose memberships are to last."""

        def keep(fd: int) -> None:
            self._sockets[fd] = f"s{_base36(fd)}-{self._token}"
            self._store.keep(self._sockets[fd], fd)

        return Holder(keep, lambda fd: self._store.release(self._sockets.pop(fd)))

    def taken_over(self) -> None:
        """All is this process's by now: let go of what else the predecessor has left, and of what isn't known."""
        self._is_over = True
        if self._keeper is not None and self._keeper.adopted:
            self.uncounted = seconds_since_end()
        for name in [*self._store.inherited]:
            self._store.release(name)

    def join(self, loop: Loop) -> None:
        """Have what the manager is too busy to hear said again."""
        loop.at(lambda: self._store.due, self._store.say, "manager")

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """Ports may have other MAC addresses."""
        if self.lasts and self._keeper is not None and (old.links is not new.links or old.table is not new.table):
            yield from self._keeper.follow(new)

    def left(self, room: Left, has_company: Callable[[], bool] = lambda: False) -> Left:
        """It is closed at the end, and what it has in the kernel is left to a successor, where one may come.

        Not what bears our number only, in another daemon's company: who is to take it away couldn't tell whose it is.
        """
        self._stack.callback(lambda: room.close(leave=self.lasts and not has_company()))
        return room

    def _close(self) -> None:
        """What was inherited and not taken over is left in the store. A start that has attached to nothing leaves none
        of its own there: they would gather.
        """
        if not self._is_over and not (self._keeper and self._keeper.holds):
            for name in self._sockets.values():
                self._store.release(name)
        self._store.close()
        for fds in self._store.inherited.values():
            for fd in fds:
                with suppress(OSError):
                    os.close(fd)
        self._store.inherited.clear()


def _macs(new: InForce) -> dict[int, set[bytes]]:
    """The MAC addresses by which programs answer, by the port's index: its own, its bridges', and each link_address
    that a device takes in.
    """
    found = {link.ifindex: {link.mac, *link.bridge_macs.values()} for link in new.links.values()}
    for entry in new.table.entries.values():
        if entry.ifindex in found and not entry.lacks_device:
            found[entry.ifindex].add(entry.mac)
    return found


def _base36(number: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits


def _other_than(names: Iterable[str]) -> str:
    """A word with which none of the names ends."""
    taken = {name[-_TOKEN:] for name in names}
    while (token := "".join(secrets.choice(_DIGITS) for _ in range(_TOKEN))) in taken:
        pass
    return token
