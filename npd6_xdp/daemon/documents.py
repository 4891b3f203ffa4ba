# SPDX-License-Identifier: GPL-2.0-or-later
"""What is told of the daemon: metrics, status and overview, to whoever asks, and in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from npd6_xdp.core.snapshot import Snapshot, Status
from npd6_xdp.core.status import overview_values, status_lines, status_pieces, status_values
from npd6_xdp.core.steps import Steps, finish
from npd6_xdp.daemon.answering import Answering
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.rings import Rings
from npd6_xdp.daemon.telling import Answer, Telling
from npd6_xdp.daemon.view import View
from npd6_xdp.system.control import Reply

log = logging.getLogger("npd6-xdp")

_HUNG = 10.0  # seconds without a turn after which it is taken for hung; a reload of 100,000 rules takes less


class Documents:
    """Made bit by bit, for the loop; at once for threads of HTTP's. `unread` says how many lines of the log were
    dropped.
    """

    def __init__(self, loop: Loop, view: View, answering: Answering, rings: Rings, unread: Callable[[], int]) -> None:
        self._loop = loop
        self._view = view
        self._answering = answering
        self._rings = rings
        self._unread = unread
        self._telling = Telling()

    def join(self, loop: Loop) -> None:
        """Have the loop go on with those that were asked for."""
        loop.at(lambda: self._telling.due, lambda _: self._telling.tick(busy=self._rings.busy), "status")

    # --- by threads of HTTP's ---

    def snapshot(self) -> Snapshot:
        """All counters at this moment, the kernel's read now."""
        return finish(self._snapshot())

    def overview(self) -> dict[str, Any]:
        """The status without addresses, and of bounded length, as plain values."""
        return finish(self._overview())

    def unhealthy(self) -> str:
        """Why nobody should rely on this daemon; "" if it is well."""
        silent = time.monotonic() - self._loop.turned
        if silent > _HUNG:
            return f"the main loop has not turned for {silent:.0f} s"
        return self._view.unhealthy()

    # --- by the loop ---

    def answer_status(self, question: dict[str, Any], reply: Reply) -> None:
        """The control socket's verb `status`; `brief` is the overview."""
        make = self._tell_overview if question.get("brief") is True else self._tell_status
        self._telling.ask(make.__name__, make, reply)

    def log_status(self) -> None:
        """The state, into the log."""
        self._telling.ask("log", self._log_bit_by_bit, lambda _: None)

    def _snapshot(self) -> Steps[Snapshot]:
        return self._view.snapshot_bit_by_bit(self._answering.times, self._loop.failures, self._unread())

    def _status(self) -> Steps[Status]:
        """All that there is to know."""
        self._answering.count()
        snapshot = yield from self._snapshot()
        return (yield from self._view.status(snapshot))

    def _overview(self) -> Steps[dict[str, Any]]:
        snapshot = yield from self._snapshot()
        return (yield from overview_values(self._view.overview(snapshot)))

    def _tell_status(self) -> Steps[Answer]:
        """A line of JSON."""
        status = yield from self._status()
        text = []
        for piece in status_pieces(status):
            text.append(piece.encode())
            yield
        return b"".join([*text, b"\n"])

    def _tell_overview(self) -> Steps[Answer]:
        self._answering.count()
        return (yield from self._overview())

    def _log_bit_by_bit(self) -> Steps[Answer]:
        status = yield from self._status()
        values = yield from status_values(status)
        for line in filter(None, status_lines(values)):
            log.info("%s", line)
            yield
        return {}
