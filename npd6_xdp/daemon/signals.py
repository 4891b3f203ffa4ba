# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals: noted from the start on, and done what they ask for once the loop turns."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import FrameType

from npd6_xdp.daemon.loop import Loop
from npd6_xdp.system.wakeup import Wakeup

log = logging.getLogger("npd6-xdp")


class Ended(Exception):
    """A signal has ended a start, between two of its steps."""


class Signals:
    """SIGTERM and SIGINT end the loop, or the start before it; SIGHUP and SIGUSR1 are what join() says."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._noted: list[int] = []
        self._calls: Mapping[int, Callable[[], object]] = {}
        self._stack = ExitStack()
        self._stack.callback(self._let_go)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            self._stack.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(number, self._note)
        self._wakeup = Wakeup()
        loop.watch("signals", lambda: [(self._wakeup, self._wakeup.take)], self._reopen)

    def close(self) -> None:
        """As it was before."""
        self._stack.close()

    def check(self) -> None:
        """A step of the start is done, and the loop doesn't turn yet. Raises Ended if there is to be no other one."""
        if self._loop.stopped:
            raise Ended

    def join(self, loop: Loop, calls: Mapping[int, Callable[[], object]]) -> None:
        """From now on, what signals ask for is done by these calls, in a turn of the loop."""
        self._calls = calls
        loop.at(lambda: 0.0 if self._noted else None, lambda _: self._do(), "signals")

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number in (signal.SIGHUP, signal.SIGUSR1):
            if number not in self._noted:
                self._noted.append(number)
            return
        if not self._loop.stopped:
            log.info("%s: ending", signal.Signals(number).name)
        self._loop.stop()

    def _do(self) -> None:
        while self._noted:
            self._calls[self._noted.pop(0)]()

    def _reopen(self) -> None:
        before, self._wakeup = self._wakeup, Wakeup()
        before.close()

    def _let_go(self) -> None:
        self._wakeup.close()
