# SPDX-License-Identifier: GPL-2.0-or-later
"""Metrics and status page over HTTP, where the configuration has them, and secured as its web configuration says."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from functools import partial

from npd6_xdp.core.config import Config
from npd6_xdp.core.errors import MachineError, want_of_threads
from npd6_xdp.core.steps import Steps
from npd6_xdp.core.web_config import WebConfig, warnings
from npd6_xdp.daemon.documents import Documents
from npd6_xdp.daemon.in_force import Change, Follower, InForce
from npd6_xdp.daemon.listening import Listening
from npd6_xdp.system.http.endpoint import Endpoint
from npd6_xdp.system.http.metrics import metrics_app
from npd6_xdp.system.http.passwords import Verdicts
from npd6_xdp.system.http.secured import Secured, secured

Addresses = tuple[tuple[str, int], ...]

log = logging.getLogger("npd6-xdp")

_LOOK = 0.01  # seconds until the next look whether the files have been read


class Exposition(Follower):
    """The endpoint, and the one that is to take over from it; nobody is answered before serve().

    Certificates and keys are read when somebody asks for it, by a start or a reload, also where nothing else is new.
    """

    def __init__(self, documents: Documents) -> None:
        self._serves = False
        self._verdicts = Verdicts()
        self._secured = Secured()
        self._next: tuple[Config, Secured] | None = None

        def listen(addresses: Addresses) -> Endpoint | None:
            if not addresses:
                return None
            app = metrics_app(documents.snapshot)
            more = {"/samples.json": documents.samples, "/rules.json": documents.rules}
            told = documents.overview, documents.judgement, more
            return Endpoint(addresses, app, *told, beside=self._listening.server)

        self._listening: Listening[Addresses, Endpoint | None] = Listening((), None, listen, _close, _close)

    def close(self) -> None:
        """Stop serving: nobody asks for anything any more once this returns."""
        self._listening.close()

    def warnings(self) -> Sequence[str]:
        """What there is to warn of at the moment: a certificate that ends soon, or has ended."""
        return self._secured.warnings(time.time())

    def serve(self) -> None:
        """Answer from now on."""
        self._serves = True
        if self._listening.server is not None:
            self._listening.server.serve()

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        """Listen where it is to be, with all that takes to answer. Raises MachineError if that can't be."""
        self._listening.prepare(new.config.metrics_listen, change)
        if change.asked:
            self._next = new.config, (yield from self._securing(new.config.web, change))

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """The new one takes over."""
        if self._next is not None and self._next[0] is new.config:
            (_, self._secured), self._next = self._next, None
            for line in warnings(new.config.web, new.config.metrics_listen):
                log.warning("%s", line)
        is_another = self._listening.take_over(new.config.metrics_listen)
        if self._listening.server is not None:
            self._listening.server.secure(self._secured)
        if is_another and self._serves:
            self.serve()
        yield from ()

    def _securing(self, web: WebConfig, change: Change) -> Steps[Secured]:
        """What it comes to, made by a thread: a file with many CAs takes the loop's time otherwise."""
        make = partial(secured, web, self._verdicts)
        if web.tls is None or not self._serves:  # nobody is answered yet
            return make()
        found: list[Secured | Exception] = []

        def run() -> None:
            try:
                found.append(make())
            except Exception as error:  # the loop's to tell
                found.append(error)

        try:
            threading.Thread(target=run, name="web files", daemon=True).start()
        except RuntimeError as error:
            raise MachineError(f"metrics.web_config: {want_of_threads()}") from error
        while not found:
            change.asleep_until = time.monotonic() + _LOOK
            yield
        change.wake()
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]


def _close(endpoint: Endpoint | None) -> None:
    if endpoint is not None:
        endpoint.close()
