# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a server listens, and where it is to listen: the one that is to take over is there before it is in force."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from npd6_xdp.daemon.in_force import Change

Address = TypeVar("Address")
Server = TypeVar("Server")


class Listening(Generic[Address, Server]):
    """A server at its address, and its successor at another.

    `listen` makes one, and raises MachineError if that can't be; `close` gives up one that is not to take over after
    all, and `leave` one that another has taken over from.
    """

    def __init__(
        self,
        address: Address,
        server: Server,
        listen: Callable[[Address], Server],
        close: Callable[[Server], object],
        leave: Callable[[Server], object],
    ) -> None:
        self.address = address
        self.server = server
        self._listen = listen
        self._close = close
        self._leave = leave
        self._next: tuple[Address, Server] | None = None

    def close(self) -> None:
        """Close both."""
        self._give_up()
        self._close(self.server)

    def prepare(self, address: Address, change: Change) -> None:
        """Listen where it is to be. Raises MachineError if that can't be."""
        if self._next is None or self._next[0] != address:
            self._give_up()
            if address != self.address:
                self._next = address, self._listen(address)
                change.undo.callback(self._give_up)

    def take_over(self, address: Address) -> bool:
        """Serve at this address from now on. Returns whether that is another one than before."""
        if self._next is None or self._next[0] != address:  # that of one to come
            return False
        self._leave(self.server)
        (self.address, self.server), self._next = self._next, None
        return True

    def renew(self) -> None:
        """Another at the same address, because something is wrong with the one there is. Raises MachineError."""
        self._close(self.server)
        self.server = self._listen(self.address)

    def _give_up(self) -> None:
        if self._next is not None:
            (_, server), self._next = self._next, None
            self._close(server)
