# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a server listens, and where it is to listen: the one that is to take over is there before it is in force."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from npd6_xdp.daemon.in_force import Change

Place = TypeVar("Place")
Server = TypeVar("Server")


class Listening(Generic[Place, Server]):
    """A server at its place, and its successor at another.

    `listen` makes one, and raises MachineError if that can't be; `close` gives up one that is not to take over after
    all, and `leave` one that another has taken over from.
    """

    def __init__(
        self,
        place: Place,
        server: Server,
        listen: Callable[[Place], Server],
        close: Callable[[Server], object],
        leave: Callable[[Server], object],
    ) -> None:
        self.place = place
        self.server = server
        self._listen = listen
        self._close = close
        self._leave = leave
        self._next: tuple[Place, Server] | None = None

    def close(self) -> None:
        """Close both."""
        self._give_up()
        self._close(self.server)

    def prepare(self, place: Place, change: Change) -> None:
        """Listen where it is to be. Raises MachineError if that can't be."""
        if self._next is None or self._next[0] != place:
            self._give_up()
            if place != self.place:
                self._next = place, self._listen(place)
                change.undo.callback(self._give_up)

    def take_over(self, place: Place) -> bool:
        """Serve at this place from now on. Returns whether that is another one than before."""
        if self._next is None or self._next[0] != place:  # that of one to come
            return False
        self._leave(self.server)
        (self.place, self.server), self._next = self._next, None
        return True

    def renew(self) -> None:
        """Another at the same place, because something is wrong with the one there is. Raises MachineError."""
        self._close(self.server)
        self.server = self._listen(self.place)

    def _give_up(self) -> None:
        if self._next is not None:
            (_, server), self._next = self._next, None
            self._close(server)
