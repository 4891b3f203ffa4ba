# SPDX-License-Identifier: GPL-2.0-or-later
"""Long answers, made a bit each turn of the loop, so that no solicitation waits for them; one copy for all who ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any

from npd6_xdp.core.errors import Npd6Error, refusal
from npd6_xdp.core.steps import Steps
from npd6_xdp.daemon import garbage

_SLICE = 0.003  # seconds of a turn; a bit that has begun is finished
_SHARE = 2  # times a slice that a turn with solicitations in it leaves to them

Answer = dict[str, Any] | bytes


class _Job:
    """A document that is being made, and who waits for it."""

    def __init__(self, make: Callable[[], Steps[Answer]]) -> None:
        self.make = make
        self.steps: Steps[Answer] | None = None
        self.replies: list[Callable[[Answer], None]] = []


class Telling:
    """Documents that are made when they are asked for. `due` is when to call tick() (seconds, monotonic).

    Who asks before one is begun gets that; who asks later gets another, as it is to say what is now.
    """

    def __init__(self) -> None:
        self._jobs: dict[Hashable, _Job] = {}
        self._under_way: _Job | None = None
        self.due: float | None = None

    def ask(self, name: Hashable, make: Callable[[], Steps[Answer]], reply: Callable[[Answer], None]) -> None:
        """Have the document of that name made, and given to `reply`."""
        self._jobs.setdefault(name, _Job(make)).replies.append(reply)
        if self.due is None:
            self.due = 0.0

    def tick(self, *, busy: bool) -> None:
        """Do a bit; `busy` says that solicitations come in."""
        began = time.monotonic()
        try:
            while self._under_way is not None or self._jobs:
                self._bit()
                now = time.monotonic()
                if now - began >= _SLICE:
                    break
        finally:
            if self._under_way is None and not self._jobs:
                self.due = None
            else:
                self.due = time.monotonic() + _SHARE * _SLICE if busy else 0.0

    def _bit(self) -> None:
        job = self._under_way
        if job is None:
            job = self._under_way = self._jobs.pop(next(iter(self._jobs)))
            job.steps = job.make()
            garbage.hold()
        assert job.steps is not None
        try:
            next(job.steps)
        except StopIteration as done:
            self._end()
            self._tell(job, done.value)
        except Exception as error:  # whatever it is: the askers hear of it, and the loop
            self._end()
            self._tell(job, refusal(error))
            if not isinstance(error, Npd6Error):
                raise

    def _end(self) -> None:
        self._under_way = None
        garbage.release()

    @staticmethod
    def _tell(job: _Job, answer: Answer) -> None:
        for reply in job.replies:
            reply(answer)
