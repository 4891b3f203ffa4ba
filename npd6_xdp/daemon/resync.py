# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour`: the neighbour table read anew, a piece at a time, where notifications were lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.neighbour_messages import Word
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.pending import Pending
from npd6_xdp.core.places import Places
from npd6_xdp.daemon.lines import Once
from npd6_xdp.system.netlink.neighbours import NeighbourWatch
from npd6_xdp.system.netlink.nlsocket import ATTEMPTS, Overflow
from npd6_xdp.system.netlink.requests import Requests

TICK = 1.0
"""Seconds between two looks at what is under way."""


class Resync:
    """What the kernel has, beside what it announces. `on_word` takes its word of a host, `resolve` has one asked.

    `watch` returns the socket of now, `places` has the hosts that were known before, `pending` who is looked for.
    """

    def __init__(
        self,
        watch: Callable[[], NeighbourWatch],
        requests: Requests,
        places: Places,
        pending: Pending,
        once: Once,
        on_word: Callable[[Host, Word], None],
        resolve: Callable[[Host], None],
    ) -> None:
        self._watch = watch
        self._requests = requests
        self._places = places
        self._pending = pending
        self._once = once
        self._on_word = on_word
        self._resolve = resolve
        self._reading: Iterator[None] | None = None
        self._changed_meanwhile: set[Host] | None = None  # while the table is read
        self.again = False
        """Whether it is to be done again, TICK later."""

    @property
    def is_under_way(self) -> bool:
        """Whether there is more to read."""
        return self._reading is not None

    def begin(self) -> None:
        """Notifications were lost: what they would have said is read."""
        if self._changed_meanwhile is None:
            self._changed_meanwhile = announced = set[Host]()
            self._reading, self.again = self._read(announced), False
        else:
            self.again = True  # when what is under way has ended

    def begin_again(self) -> None:
        """Read once more, if notifications were lost while the last reading was under way."""
        if self.again and self._changed_meanwhile is None:
            self.begin()

    def stop(self) -> None:
        """What is under way is needless, and so is what was to be done again."""
        self._reading = self._changed_meanwhile = None
        self.again = False

    def announced(self, host: Host) -> None:
        """The kernel has said something of a host meanwhile."""
        if self._changed_meanwhile is not None:
            self._changed_meanwhile.add(host)

    def go_on(self, deadline: float) -> bool:
        """Read on until then (seconds, monotonic); whether that was all."""
        for _ in self._reading or ():
            if time.monotonic() >= deadline:
                return False
        self._reading = self._changed_meanwhile = None
        return True

    def first(self) -> Iterator[list[tuple[Host, Word]]]:
        """The whole table in pieces, for who knows nothing of it; where the kernel doesn't tell, it is asked again.

        What changes meanwhile is announced, and whoever was announced isn't in it: what is read of him may be older.
        """
        self._reading, self._changed_meanwhile, self.again = None, set(), False
        try:
            for _ in range(ATTEMPTS):
                with suppress(Overflow):  # what two of them have together lacks less
                    yield from map(self._unless_announced, self._watch().table())
                    return
            self.again = True
        except MachineError as error:
            self._fails(error)
        finally:
            self._changed_meanwhile = None

    def _unless_announced(self, piece: list[tuple[Host, Word]]) -> list[tuple[Host, Word]]:
        announced = self._changed_meanwhile or ()
        return [(host, word) for host, word in piece if host not in announced]

    def _read(self, announced: set[Host]) -> Iterator[None]:
        """Take in the whole neighbour table, in steps that take a few milliseconds each.

        What changes meanwhile is announced as ever, and then what is read of it may be older.
        """
        there: set[Host] = set()
        try:
            for piece in self._watch().table():
                for host, word in piece:
                    there.add(host)
                    if host not in announced:
                        self._on_word(host, word)
                    yield
                yield
            for host in self._places.hosts():
                if host not in there and host not in announced:
                    # one that shares a bucket with it may have gone just when a piece ended there: then it was skipped
                    self._on_word(host, self._requests.neighbour(host))
                yield
        except Overflow:
            self.again = True
            return
        except MachineError as error:
            self._fails(error)
            return
        for key in self._pending.targets():
            for host in self._pending.hosts(*key):
                if host not in there and host not in announced:
                    self._resolve(host)
            yield

    def _fails(self, error: MachineError) -> None:
        self.again = True
        self._once.warn(f"{error}; trying again every {TICK:.0f} s", error=str(error))
