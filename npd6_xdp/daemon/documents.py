# SPDX-License-Identifier: GPL-2.0-or-later
"""What is told of the daemon: metrics, status and overview, to whoever asks, and in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from npd6_xdp.core.errors import Npd6Error
from npd6_xdp.core.judgement import Judgement, judging
from npd6_xdp.core.logged import fields
from npd6_xdp.core.samples import EVERY, MOST_BYTES, Samples
from npd6_xdp.core.snapshot import Snapshot, Status
from npd6_xdp.core.status import overview_values, rules_values, status_lines, status_pieces, status_values
from npd6_xdp.core.steps import Steps, emptied, finish
from npd6_xdp.daemon.answering import Answering
from npd6_xdp.daemon.judging import ProblemLines
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.rings import Rings
from npd6_xdp.daemon.telling import Answer, Telling
from npd6_xdp.daemon.turns import measured
from npd6_xdp.daemon.view import View
from npd6_xdp.system.control import Reply
from npd6_xdp.system.left import Left

log = logging.getLogger("npd6-xdp")

_SHARE = 600  # times the processor time of a sample until the next one: a sixth of a percent of a processor at most


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
        self._samples = Samples()
        self._sample_at: float | None = 0.0
        self._lines = ProblemLines()
        self._file = samples_file()

    def join(self, loop: Loop) -> None:
        """Have the loop go on with those that were asked for."""
        loop.at(lambda: self._sample_at, lambda _: self._ask_for_sample(), "samples")
        loop.at(lambda: self._telling.due, lambda _: self._telling.tick(busy=self._rings.busy), "status")

    def take_samples(self) -> None:
        """Go on with what a process before has left."""
        if (data := self._file.read()) is not None:
            self._file.remove()
            try:
                self._samples.take(data)
            except ValueError as error:
                log.debug("the samples of a process before can't be used: %s", error, extra=fields(error=str(error)))

    def leave_samples(self) -> None:
        """For the next process."""
        with suppress(Npd6Error):  # the last seconds are missing, then
            self._samples.add(time.time(), *finish(self._view.tally(self._loop.failures, self._unread())))
        self._file.write(self._samples.pack(time.time()))

    # --- by threads of HTTP's ---

    def snapshot(self) -> Snapshot:
        """All counters at this moment, the kernel's read now."""
        return finish(self._snapshot())

    def overview(self) -> dict[str, Any]:
        """The status without addresses, and of bounded length, as plain values."""
        return finish(self._overview())

    def judgement(self) -> Judgement:
        """Whether the daemon works. It takes no lock, so it tells of a loop that hangs with one."""
        return finish(self._judging())

    def samples(self) -> dict[str, Any]:
        """What was counted in the last five minutes, as plain values."""
        return self._samples.values(time.time())

    def rules(self) -> dict[str, Any]:
        """All rules and what became of their solicitations, in brief, as plain values."""
        return finish(rules_values(finish(self._snapshot())))

    # --- by the loop ---

    def answer_status(self, question: dict[str, Any], reply: Reply) -> None:
        """The control socket's verb `status`; `brief` is the overview."""
        make = self._tell_overview if question.get("brief") is True else self._tell_status
        self._telling.ask(make.__name__, make, reply)

    def log_status(self) -> None:
        """The state, into the log."""
        self._telling.ask("log", self._log_bit_by_bit, lambda _: None)

    def _snapshot(self) -> Steps[Snapshot]:
        judgement = yield from self._judging()
        counting = self._view.snapshot(self._answering.times, self._loop.failures, judgement, self._unread())
        return (yield from counting)

    def _judging(self) -> Steps[Judgement]:
        facts = yield from self._view.facts(self._samples, time.monotonic() - self._loop.turned)
        return (yield from judging(facts))

    def _ask_for_sample(self) -> None:
        self._sample_at = None
        self._telling.ask("sample", self._sample, lambda _: None)

    def _sample(self) -> Steps[Answer]:
        began = time.monotonic()
        self._sample_at = began + EVERY  # also where it fails
        _, worked = yield from measured(self._taking_sample())
        self._sample_at = max(began + EVERY, time.monotonic() + worked * _SHARE)
        return {}

    def _taking_sample(self) -> Steps[None]:
        outcomes, counted = yield from self._view.tally(self._loop.failures, self._unread())
        self._samples.add(time.time(), outcomes, counted)
        judgement = yield from judging((yield from self._view.counted(self._samples)))
        self._lines.tell(judgement.problems, time.monotonic())

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
        yield from emptied(status.snapshot.rules)
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


def samples_file() -> Left:
    """Where samples are left."""
    return Left("samples", MOST_BYTES)
