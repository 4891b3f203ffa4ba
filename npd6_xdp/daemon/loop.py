# SPDX-License-Identifier: GPL-2.0-or-later
"""The loop, which knows nobody: it is handed file descriptors, due times and calls, each with a name for its failures.

Nothing but stop() ends it, and a source of events that fails again and again. What a call raises is logged with its
traceback (once for each line of the code), counted, and survived.
"""

from __future__ import annotations

import logging
import math
import select
import selectors
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.judgement import HUNG
from npd6_xdp.core.logged import fields

log = logging.getLogger("npd6-xdp")

HEARTBEAT = 2.0  # seconds after which it turns, if nothing else wakes it: so it is known to be alive
FAILURES = 3  # of one source within so many seconds, and it is opened anew: it may be what fails, and would spin
WITHIN = 1.0
HELPED = 60.0  # seconds that a source has to go well after that; else nothing helps
EXACT = 0.001  # seconds: what is due may be so late; else each turn would ask all for their times
PAUSE = 1.0  # seconds that a due call which failed waits before it is tried again
_MOST_READY = 16  # file descriptors that one wait tells of


class HasFileno(Protocol):
    """What can be waited on."""

    def fileno(self) -> int:
        """The file descriptor."""
        ...


Readable = int | HasFileno


class _Call:
    """What is done for a source of events."""

    __slots__ = ("call", "where")

    def __init__(self, where: str, call: Callable[[], object]) -> None:
        self.where = where
        self.call = call


class _Timer:
    """What is done when it is time. `not_before`: it has failed, and waits."""

    __slots__ = ("call", "due", "not_before", "where")

    def __init__(self, where: str, due: Callable[[], float | None], call: Callable[[float], object]) -> None:
        self.where = where
        self.due = due
        self.call = call
        self.not_before = 0.0


class _Record:
    """How a source has done: when it failed last, and when it was opened anew."""

    __slots__ = ("failed", "renewed")

    def __init__(self) -> None:
        self.failed: deque[float] = deque(maxlen=FAILURES)
        self.renewed = -math.inf


class Loop:
    """Turns until stop(). `look` begins each turn, and returns how long the turn may wait at most (seconds).

    `turned` is when the last turn began (seconds, monotonic; before the first one inf: a long start is no loop that
    hangs), `failures` how often each `where` has failed.
    """

    def __init__(self) -> None:
        self._selector = selectors.EpollSelector()
        self._epoll = select.epoll()  # the doorbells, and all else behind the selector: one event costs half as much so
        self._others = self._selector.fileno()
        self._epoll.register(self._others, select.EPOLLIN)
        self._timers: list[_Timer] = []
        self._renewals: dict[str, list[Callable[[], object]]] = {}
        self._records: dict[str, _Record] = {}
        self._failures: dict[str, int] = {}
        self._logged: set[tuple[str, str, str, int]] = set()
        self._stopped = False
        self.turned = math.inf
        self._asked = -math.inf  # when it was last asked what is due
        self._due = math.inf  # what was said then: when the first of it is
        self._is_kept = False  # keep_due() was called since the last turn
        self._stands = False  # it was each time since then

    @property
    def failures(self) -> Mapping[str, int]:
        """What was raised and survived, by where; 0 of those that never did. Another thread may ask."""
        return dict(self._failures)

    @property
    def stopped(self) -> bool:
        """Whether this turn is the last."""
        return self._stopped

    # --- what there is to wait for ---

    def add(self, source: Readable, call: Callable[[], object], where: str, events: int = selectors.EVENT_READ) -> None:
        """Call, whenever a source is readable (or writable, by selectors.EVENT_*)."""
        self._failures.setdefault(where, 0)
        self._selector.register(source, events, _Call(where, call))

    def remove(self, source: Readable) -> None:
        """Wait for it no more. It is not closed."""
        self._selector.unregister(source)

    def add_doorbell(self, fd: int) -> None:
        """What is edge-triggered by nature, and only wakes: `look` finds what came by it."""
        self._epoll.register(fd, select.EPOLLIN)

    def remove_doorbell(self, fd: int) -> None:
        """It wakes us no more."""
        self._epoll.unregister(fd)

    def at(self, due: Callable[[], float | None], call: Callable[[float], object], where: str) -> None:
        """Call with the time of the turn, whenever the time that `due` says has come (seconds, monotonic; or None)."""
        self._failures.setdefault(where, 0)
        self._timers.append(_Timer(where, due, call))
        self._asked = -math.inf

    def renew(self, where: str, call: Callable[[], object]) -> None:
        """Register how a source is opened anew. Where several have one name, all of them are opened anew together."""
        self._renewals.setdefault(where, []).append(call)

    def watch(
        self,
        where: str,
        readable: Callable[[], Iterable[tuple[Readable, Callable[[], object]]]],
        reopen: Callable[[], object],
    ) -> None:
        """Call what `readable` says, whenever its source is readable; `reopen` opens others in their places, where one
        fails again and again.
        """

        def add() -> None:
            for source, call in readable():
                self.add(source, call, where)

        def anew() -> None:
            for source, _ in readable():
                self.remove(source)
            reopen()
            add()

        add()
        self.renew(where, anew)

    # --- turns ---

    def stop(self) -> None:
        """Let the turn under way be the last. A signal's handler may call this."""
        self._stopped = True

    def run(self, look: Callable[[], float], where: str) -> None:
        """Turn until stop(). Raises MachineError if a source fails again and again; `where` is that of `look`."""
        self._failures.setdefault(where, 0)
        while not self._stopped:
            try:
                wait = look()
            except Exception as error:
                wait = 0.0
                self._source_failed(where, error)
                self._asked = -math.inf
            self.turn(wait)

    def turn(self, wait: float) -> None:
        """Do what is due, wait (seconds) at most for what comes, and serve it."""
        now = time.monotonic()
        if now - self.turned > HUNG:
            silent = now - self.turned
            log.warning("the main loop was stuck for %.0f s", silent, extra=fields(duration=silent))
        self.turned = now
        self._stands, self._is_kept = self._stands and self._is_kept, False
        lasts = HEARTBEAT if self._stands and now < self._due else EXACT if wait <= EXACT else 0.0
        if now - self._asked >= lasts:
            self._asked, self._stands = now, True
            self._due = self._next_due()
            if self._due <= now:
                self._tick(now)
                self._due = self._next_due()
        wait = max(min(wait, self._due - now, HEARTBEAT), 0.0)
        for fd, _ in self._epoll.poll(wait, _MOST_READY):
            if fd == self._others:
                self._serve()

    def keep_due(self) -> None:
        """For `look` to say: what it has done changes nothing of what is due. To ask that takes longer than an answer,
        so that is done where something may have changed, and every HEARTBEAT.
        """
        self._is_kept = True

    def _serve(self) -> None:
        self._asked = -math.inf
        for key, _ in self._selector.select(0):
            try:
                key.data.call()
            except Exception as error:
                self._source_failed(key.data.where, error)

    def _next_due(self) -> float:
        """When there is something to do that nothing will wake us for."""
        first = math.inf
        for each in self._timers:
            due = each.due()
            if due is not None and due < first:
                first = min(first, max(due, each.not_before))
        return first

    def _tick(self, now: float) -> None:
        for each in self._timers:
            due = each.due()
            if due is None or due > now or each.not_before > now:
                continue
            each.not_before = 0.0
            try:
                each.call(now)
            except Exception as error:
                each.not_before = time.monotonic() + PAUSE
                self.failed(each.where, error)

    # --- failures ---

    def failed(self, where: str, error: BaseException) -> None:
        """Count what was raised, and log it with its traceback if it is new. Another thread may call this."""
        self._failures[where] = self._failures.get(where, 0) + 1
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        line = ("", 0) if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
        new = (where, type(error).__name__, *line)
        if new not in self._logged:
            self._logged.add(new)
            log.error(
                "internal error (%s): %s: %s; going on, and counting those that follow"
                " (npd6_internal_errors_total); please report this",
                where,
                type(error).__name__,
                error,
                exc_info=(type(error), error, error.__traceback__),
                extra=fields(error=f"{type(error).__name__}: {error}"),
            )

    def _source_failed(self, where: str, error: Exception) -> None:
        """As failed(); one that fails all the time is opened anew. Raises MachineError if that doesn't help either."""
        self.failed(where, error)
        record = self._records.setdefault(where, _Record())
        now = time.monotonic()
        record.failed.append(now)
        if len(record.failed) < FAILURES or now - record.failed[0] > WITHIN:
            return
        record.failed.clear()
        why = f"{where} failed {FAILURES} times within {WITHIN:.0f} s ({type(error).__name__}: {error})"
        renewals = self._renewals.get(where, ())
        if not renewals:
            raise MachineError(f"{why}, and can't be reopened: ending") from error
        if now - record.renewed < HELPED:
            raise MachineError(f"{why}, although it has just been reopened: ending") from error
        record.renewed = now
        log.error("%s: reopening it", why, extra=fields(error=f"{type(error).__name__}: {error}"))
        try:
            for renewal in renewals:
                renewal()
        except Exception as again:
            raise MachineError(f"{why}, and reopening it failed, too ({again}): ending") from again

    def close(self) -> None:
        """Let go of the descriptors of its own."""
        self._epoll.close()
        self._selector.close()
