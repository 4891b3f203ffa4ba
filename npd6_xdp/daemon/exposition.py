# SPDX-License-Identifier: GPL-2.0-or-later
"""Metrics and status page over HTTP, where the configuration has them."""

from __future__ import annotations

from npd6_xdp.core.steps import Steps
from npd6_xdp.daemon.documents import Documents
from npd6_xdp.daemon.in_force import Change, Follower, InForce
from npd6_xdp.daemon.listening import Listening
from npd6_xdp.system.http.endpoint import Endpoint
from npd6_xdp.system.http.metrics import metrics_app

Addresses = tuple[tuple[str, int], ...]


class Exposition(Follower):
    """The endpoint, and the one that is to take over from it; nobody is answered before serve()."""

    def __init__(self, documents: Documents) -> None:
        self._serves = False

        def listen(addresses: Addresses) -> Endpoint | None:
            if not addresses:
                return None
            app = metrics_app(documents.snapshot)
            return Endpoint(addresses, app, documents.overview, documents.unhealthy, beside=self._listening.server)

        self._listening: Listening[Addresses, Endpoint | None] = Listening((), None, listen, _close, _close)

    def close(self) -> None:
        """Stop serving: nobody asks for anything any more once this returns."""
        self._listening.close()

    def serve(self) -> None:
        """Answer from now on."""
        self._serves = True
        if self._listening.server is not None:
            self._listening.server.serve()

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        """Listen where it is to be, with all that takes to answer. Raises MachineError if that can't be."""
        self._listening.prepare(new.config.metrics_listen, change)
        yield from ()

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """The new one takes over."""
        if self._listening.take_over(new.config.metrics_listen) and self._serves:
            self.serve()
        yield from ()


def _close(endpoint: Endpoint | None) -> None:
    if endpoint is not None:
        endpoint.close()
