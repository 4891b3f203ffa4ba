# SPDX-License-Identifier: GPL-2.0-or-later
"""Reloads: asked for by a signal or on the control socket, read beside the loop, put in force, and told of."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from typing import Any

from npd6_xdp.core.config import Config
from npd6_xdp.core.differences import differences
from npd6_xdp.core.errors import ConfigError, MachineError, Mistake, Npd6Error, in_few_lines
from npd6_xdp.core.logged import Fields, fields, named
from npd6_xdp.core.steps import Steps
from npd6_xdp.daemon import garbage
from npd6_xdp.daemon.changes import Changes
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.reading import Reading, Source
from npd6_xdp.daemon.tracking import Tracking
from npd6_xdp.daemon.turns import Turns, take_slice
from npd6_xdp.daemon.view import View
from npd6_xdp.system.control import AT_WORK, Reply
from npd6_xdp.system.manager import ServiceManager

log = logging.getLogger("npd6-xdp")

_TOGETHER = 0.01  # seconds: who asks for a reload within them of the first one asks for the same


def _of_mistake(mistake: Mistake, file: str) -> Fields:
    known = Fields(line=mistake.line, column=mistake.column, place=mistake.where, error=mistake.message)
    return Fields(file=file, **known)


class Reloads:
    """One at a time; who asks while one is under way hears of the next. `source` is read in a process of its own;
    `configured` is told of each one in use, and `reap` that such a process is to end.
    """

    def __init__(
        self,
        loop: Loop,
        source: Source,
        configured: Callable[[Config], None],
        changes: Changes,
        tracking: Tracking,
        view: View,
        manager: ServiceManager,
        turns: Turns,
        reap: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._source = source
        self._configured = configured
        self._changes = changes
        self._tracking = tracking
        self._view = view
        self._manager = manager
        self._turns = turns
        self._reap = reap
        self._at: float | None = None
        self._to_hear: list[Reply] = []  # who waits for what becomes of the reload to come
        self._asked: list[Reply] = []  # and of the one that is under way
        self._reading: Reading | None = None  # what that is to put in force
        self._changed: dict[str, Any] = {}  # by it, for those who have asked
        self._applying: Steps[None] | None = None  # a configuration that was read, and is to be in force
        self._size = 0  # of what was in force before
        self._say_at_work: Callable[[], None] = lambda: None
        self._say_at = 0.0  # when those who wait are told again that we are at it

    def join(self, say_at_work: Callable[[], None]) -> None:
        """Have the loop begin them and go on with them; `say_at_work` lets those who wait know that we are at it."""
        loop, self._say_at_work = self._loop, say_at_work
        loop.at(lambda: None if self.is_under_way else self._at, lambda _: self._begin(), "reload")
        loop.at(lambda: self._reading.due if self._reading else None, lambda _: self._give_up_reading(), "reload")
        loop.at(self._due, lambda _: self._go_on(), "reload")
        loop.at(lambda: self._say_at if self.is_under_way else None, self._tell_at_work, "control")

    @property
    def is_under_way(self) -> bool:
        """Whether a configuration is read, or about to be in force."""
        return self._reading is not None or self._applying is not None

    @property
    def is_applying(self) -> bool:
        """Whether a configuration that was read is about to be in force."""
        return self._applying is not None

    def ask(self, reply: Reply | None = None) -> None:
        """One that begins after now; it is the same for all who ask before it begins."""
        if reply is not None:
            self._to_hear.append(reply)
        if self._at is None:
            self._at = time.monotonic() + _TOGETHER

    def close(self) -> None:
        """Give up the one that is under way, and tell those who wait."""
        if self.is_under_way:
            garbage.release()
        self._close_reading()
        applying, self._applying = self._applying, None
        try:
            if applying is not None:
                applying.close()
        except Exception as error:  # what it leaves behind goes with the process
            self._loop.failed("table", error)
        self._asked += self._to_hear
        self._tell({"error": "npd6-xdp is ending; the reload was given up"})

    # --- one ---

    def _begin(self) -> None:
        """Read the configuration again, and go by it when it is read: all or nothing."""
        self._at = None  # who asks from now on asks for another
        self._size = self._changes.size
        self._asked, self._to_hear = self._to_hear, []
        self._say_at = time.monotonic() + AT_WORK
        self._manager.reloading()
        garbage.hold()
        try:
            self._reading = Reading(self._source, self._changes.in_force.written)
            self._loop.add(self._reading, self._on_read, "reload")
        except Exception as error:
            self._end(self._refuse(error))

    def _on_read(self) -> None:
        if self._reading is None:
            return
        try:
            config = self._reading.take()
        except Exception as error:
            self._end(self._refuse(error))
            return
        if config is not None:
            took = time.monotonic() - self._reading.began
            self._close_reading()
            self._applying = self._going_by(config, took)

    def _due(self) -> float | None:
        """When to go on with a configuration that was read; a change of the machine that is under way comes first."""
        if self._applying is None or self._tracking.is_under_way:
            return None
        return self._changes.asleep_until or self._turns.go_on_at

    def _go_on(self) -> None:
        going_on, self._applying = self._applying, None
        if going_on is None:
            return
        self._manager.went_on()
        refusal = None
        try:
            if not take_slice(going_on, lambda: self._changes.asleep_until is not None):
                self._applying = going_on
                self._turns.rest()
                return
        except Exception as error:
            refusal = self._refuse(error)
        self._look_for_garbage()
        self._end(refusal)

    def _going_by(self, config: Config, took: float) -> Steps[None]:
        """Put a configuration that was read in force. Raises what is the reason why it can't be."""
        began = time.monotonic()
        self._changed = (yield from differences(self._changes.in_force.written, config)) if self._asked else {}
        try:
            yield from self._changes.going_to(config)
        except MachineError:
            if self._changes.in_force.written is not config:
                raise
            # a room has yet to settle: it is done again at once, and told of where it fails again
        self._configured(self._changes.in_force.config)
        self._view.reloaded()
        applied = time.monotonic() - began
        log.info("reload: the new configuration is in use", extra=fields(duration=took + applied))
        self._manager.ready(self._changes.in_force.summary)
        log.debug("reload: read in %.3f s, applied in %.3f s", took, applied, extra=fields(duration=took + applied))

    def _refuse(self, error: Exception) -> dict[str, Any]:
        """Log why the old configuration stays; returns what those who have asked hear of it."""
        why = in_few_lines(str(error)) if not isinstance(error, ConfigError) else str(error)
        if not isinstance(error, Npd6Error):  # a mistake of ours, and how far it came nobody knows
            self._loop.failed("reload", error)
            self._tracking.doubt()
            why = f"internal error: {error}; see the log"
        self._view.reload_failed(why)
        if isinstance(error, ConfigError):
            for mistake in error.mistakes:
                log.error("reload: %s", mistake.told(error.source), extra=fields(**_of_mistake(mistake, error.source)))
        elif isinstance(error, Npd6Error):  # what isn't, the loop has logged
            for line in why.splitlines():
                name = line.partition(": ")[0]
                known = named(name) if name in self._changes.in_force.links else Fields()
                log.error("reload: %s", line, extra={"fields": known | Fields(error=line)})
        log.error("reload: the old configuration stays")
        self._manager.ready(
            f"{self._changes.in_force.summary}; the last reload failed, and the old configuration stays"
        )
        mistakes = {"mistakes": error.fields()} if isinstance(error, ConfigError) else {}
        return {"error": f"the old configuration stays: {why}", **mistakes}

    def _give_up_reading(self) -> None:
        if self._reading is not None:
            self._end(self._refuse(self._reading.overdue()))

    def _close_reading(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            self._loop.remove(reading)
            reading.close()
            self._reap()

    def _look_for_garbage(self) -> None:
        """After much was made in this process. It takes 20 ms, which a file that is refused as it is read spares."""
        if max(self._size, self._changes.size) < 2 * garbage.LARGE:  # each rule is a line, too
            gc.unfreeze()
            gc.collect()
        gc.freeze()  # all that there is stays, and isn't looked at again and again

    # --- what becomes of it ---

    def _tell_at_work(self, now: float) -> None:
        self._say_at = now + AT_WORK
        self._say_at_work()
        self._manager.went_on()  # whatever another process is at has a time of its own

    def _end(self, refusal: dict[str, Any] | None) -> None:
        """Tell those who have asked what became of it; None: the new configuration is in use."""
        self._close_reading()
        self._applying = None
        garbage.release()
        self._tell({**self._view.in_use(), "changed": self._changed} if refusal is None else refusal)
        if self._at is not None:  # by a signal; who has asked on the socket meanwhile is yet to be read
            self._at = time.monotonic() + _TOGETHER

    def _tell(self, answer: dict[str, Any]) -> None:
        asked, self._asked = self._asked, []
        for reply in asked:
            reply(answer)
