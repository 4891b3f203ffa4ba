# SPDX-License-Identifier: GPL-2.0-or-later
"""The rings by which the XDP program hands events up: looked into each turn, and at whose pace."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from npd6_xdp.core.pace import STREAM, Pace
from npd6_xdp.daemon.answering import Answering
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.system.bpf.events import BATCH, RING_PAGES, EventRing

log = logging.getLogger("npd6-xdp")

_NAP = 20e-6  # seconds (the kernel makes some 80 us of it) between two looks at a stream
_FEW = 64  # events of a look, from which on there is no time for a nap
_MOST_BATCHES = 2 * RING_PAGES * 4096 // 64 // BATCH  # more than a ring holds
_BUSY = 1000  # events a second, from which on what can wait leaves them time: a fiftieth of a processor's
_NOTED = 0.002  # seconds in which they are counted, at the least
_RETIREMENT = 0.5  # seconds that a replaced program may still be running on some CPU


@dataclass(slots=True)
class Ring:
    """A program's ring; `until` says when it is given up (seconds, monotonic), if another program has taken over."""

    ring: EventRing
    until: float | None = None


class Rings:
    """The ring of the program at work, and those of programs that it has just taken over from."""

    WHERE = "rings"

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._pace = Pace()
        self._rings: list[Ring] = []
        self._events = 0  # since then:
        self._since = 0.0
        self.busy = False
        """Whether so many events come in that what can wait is to leave time to them."""

    def close(self) -> None:
        """Let go of them."""
        for kept in self._rings:
            kept.ring.close()

    @property
    def open_rings(self) -> tuple[Ring, ...]:
        """All of them, the oldest first."""
        return tuple(self._rings)

    def open(self, ring: EventRing) -> None:
        """The ring of a program that is at work from now on."""
        if ring.pages < RING_PAGES:
            log.warning(
                "the kernel grants %d pages a CPU for the ring to Python, not %d: raise LimitMEMLOCK= (ulimit -l)",
                ring.pages,
                RING_PAGES,
            )
        for fd in ring.filenos():
            self._loop.add_doorbell(fd)
        self._rings.append(Ring(ring))

    def taken_over(self, successor: EventRing) -> float:
        """Another program sits where that of these rings did; when (seconds, monotonic) it can't be running any more,
        and they are given up.
        """
        until = time.monotonic() + _RETIREMENT
        for kept in self._rings:
            kept.until = kept.until or until
        self.open(successor)
        return until

    def retire(self, now: float, answer: Callable[[list[bytes]], int]) -> float | None:
        """Give up those whose time has come, once what is in them is answered; when that of the next comes."""
        for kept in [kept for kept in self._rings if kept.until is not None and kept.until <= now]:
            while answer(kept.ring.read()):
                pass
            self.give_up(kept)
        return min((kept.until for kept in self._rings if kept.until is not None), default=None)

    def give_up(self, kept: Ring) -> None:
        """Let go of one, whatever is in it."""
        for fd in kept.ring.filenos():
            self._loop.remove_doorbell(fd)
        kept.ring.close()
        self._rings.remove(kept)

    def look(self, answering: Answering) -> float:
        """Answer what is in the rings; how long (seconds) the next look has time."""
        pace, events, began = self._pace, 0, time.monotonic()
        watched, others = pace.watched, answering.others
        for kept in tuple(self._rings):
            events = max(events, answering.answer(kept.ring.read(watched=watched)))
        self._events += events
        if (passed := began - self._since) >= _NOTED:
            self.busy = self._events >= _BUSY * passed
            self._events, self._since = 0, began
        if answering.others == others:
            self._loop.keep_due()
        if STREAM <= events < _FEW:
            time.sleep(_NAP)
        elif watched and not events:
            answering.count()
        return pace.looked(events, began)

    def drain(self, answering: Answering) -> None:
        """Answer what is in them, so that no event is older than the table before the one to come."""
        for kept in self._rings:
            for _ in range(_MOST_BATCHES):
                if not answering.answer(kept.ring.read()):
                    break

    def empty(self, answering: Answering) -> None:
        """Answer all that is still in them: nothing writes into them any more."""
        for kept in self._rings:
            while answering.answer(kept.ring.read()):
                pass
        answering.count()
