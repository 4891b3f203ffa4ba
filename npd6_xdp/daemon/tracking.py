# SPDX-License-Identifier: GPL-2.0-or-later
"""When changes of the machine are taken in: soon, and at a pace that leaves most of the time to solicitations."""

from __future__ import annotations

import time
from collections.abc import Callable

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.steps import Steps
from npd6_xdp.daemon.changes import Changes
from npd6_xdp.daemon.in_force import NOTHING
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.machine import NextLook
from npd6_xdp.daemon.programs import Programs
from npd6_xdp.daemon.turns import take_slice
from npd6_xdp.system.manager import ServiceManager

# After a change was taken in comes a pause, so that a storm of changes takes a tenth of our time: so many times the
# processor time that it took. It is cut to what may pass unnoticed, and then a storm takes half of our time at most.
_PAUSE = 10
_UNNOTICED = 0.05  # seconds


class Tracking:
    """Makes one change at a time of whatever of the machine has changed. `look` says when."""

    def __init__(
        self, loop: Loop, look: NextLook, changes: Changes, programs: Programs, manager: ServiceManager
    ) -> None:
        self._loop = loop
        self._look = look
        self._changes = changes
        self._programs = programs
        self._manager = manager
        self._steps: Steps[None] | None = None  # of the change that is taken in
        self._before = NOTHING  # what was in force when that began
        self._cost = 0.0  # seconds of processor time that it has taken so far
        self._waits: Callable[[], bool] = lambda: False

    def join(self, waits: Callable[[], bool]) -> None:
        """Have the loop look when it is time. While it `waits`, none is begun: a reload comes to its end first."""
        self._waits = waits
        self._loop.at(self._due, lambda _: self.go_on(), "table")

    @property
    def is_under_way(self) -> bool:
        """Whether a change is being taken in."""
        return self._steps is not None

    def close(self) -> None:
        """Give up the one that is under way."""
        steps, self._steps = self._steps, None
        try:
            if steps is not None:
                steps.close()
        except Exception as error:  # what it leaves behind goes with the process
            self._loop.failed("table", error)

    def doubt(self) -> None:
        """Something went wrong in the middle of a change: a program of its own gets the table whole, soon."""
        self._programs.doubtful = True
        self._changes.whole = False
        self._look.in_a_while()

    def _due(self) -> float | None:
        if self._steps is not None:
            return self._changes.asleep_until or 0.0
        return None if self._waits() else self._look.at

    def go_on(self) -> None:
        """Begin, and go on with it: among thousands of interfaces it takes a while."""
        began = time.thread_time()
        if self._steps is None:
            self._look.at, self._cost, self._before = None, 0.0, self._changes.in_force
            self._steps = self._changes.tracking()
        steps, self._steps = self._steps, None
        try:
            if not take_slice(steps, lambda: self._changes.asleep_until is not None):
                self._steps = steps
                return
        except MachineError as error:
            self._look.retry(error)
        except Exception:
            self.doubt()
            raise
        else:
            self._look.went_well()
            if self._changes.in_force is not self._before:
                self._manager.status(self._changes.in_force.summary)
        finally:
            self._cost += time.thread_time() - began
            if self._steps is None:
                self._before = NOTHING  # a large one goes bit by bit, unless somebody holds it
        cost = self._cost
        self._look.not_before = time.monotonic() + min(cost * _PAUSE, max(cost, _UNNOTICED))
