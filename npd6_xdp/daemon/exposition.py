# SPDX-License-Identifier: GPL-2.0-or-later
"""Metrics and status page over HTTP, where the configuration has them."""

from __future__ import annotations

from npd6_xdp.core.steps import Steps
from npd6_xdp.daemon.documents import Documents
from npd6_xdp.daemon.in_force import Change, Follower, InForce
from npd6_xdp.system.http.endpoint import Endpoint
from npd6_xdp.system.http.metrics import metrics_app

Place = tuple[str, int] | None


class Exposition(Follower):
    """The endpoint, and the one that is to take over from it; nobody is answered before serve()."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._place: Place = None
        self._endpoint: Endpoint | None = None
        self._next: tuple[Place, Endpoint | None] | None = None
        self._serves = False

    def close(self) -> None:
        """Stop serving: nobody asks for anything any more once this returns."""
        self._give_up()
        if self._endpoint is not None:
            self._endpoint.close()

    def serve(self) -> None:
        """Answer from now on. Raises MachineError if there is no thread for it."""
        self._serves = True
        if self._endpoint is not None:
            self._endpoint.serve()

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        """Listen where it is to be. Raises MachineError if that can't be."""
        place = new.config.metrics_listen
        if self._next is None or self._next[0] != place:
            self._give_up()
            if place != self._place:
                self._next = place, self._listen(place)
                change.undo.callback(self._give_up)
        yield from ()

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """The new one takes over."""
        if self._next is not None and self._next[0] == new.config.metrics_listen:  # and not that of one to come
            if self._endpoint is not None:
                self._endpoint.close()
            (self._place, self._endpoint), self._next = self._next, None
            if self._serves and self._endpoint is not None:
                self._endpoint.serve()
        yield from ()

    def _listen(self, place: Place) -> Endpoint | None:
        if place is None:
            return None
        told = self._documents
        return Endpoint(place, metrics_app(told.snapshot), told.overview, told.unhealthy, beside=self._endpoint)

    def _give_up(self) -> None:
        if self._next is not None:
            endpoint, self._next = self._next[1], None
            if endpoint is not None:
                endpoint.close()
