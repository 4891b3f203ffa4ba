# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `neighbour`: the neighbour table read anew, a piece at a time, where notifications were lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.pending import Pending
from npd6_xdp.core.places import Places, Word
from npd6_xdp.daemon.lines import Once
from npd6_xdp.system.netlink.neighbours import NeighbourWatch
from npd6_xdp.system.netlink.nlsocket import Overflow
from npd6_xdp.system.netlink.requests import Requests

TICK = 1.0
"""Seconds between two looks at what is under way."""


class Resync:
    """What the kernel has, beside what it announces. `hear_of` takes its word of a host, `probe` has one asked.

    `watch` returns the socket of now, `places` has the hosts that were known before, `pending` who is looked for.
    """

    def __init__(
        self,
        watch: Callable[[], NeighbourWatch],
        requests: Requests,
        places: Places,
        pending: Pending,
        once: Once,
        hear_of: Callable[[Host, Word], None],
        probe: Callable[[Host], None],
    ) -> None:
        self._watch = watch
        self._requests = requests
        self._places = places
        self._pending = pending
        self._once = once
        self._hear_of = hear_of
        self._probe = probe
        self._reading: Iterator[None] | None = None
        self._changed_meanwhile: set[Host] = set()
        self.again = False
        """Whether it is to be done again, TICK later."""

    @property
    def is_under_way(self) -> bool:
        """Whether there is more to read."""
        return self._reading is not None

    def begin(self) -> None:
        """Notifications were lost: what they would have said is read."""
        if self._reading is None:
            self._reading, self.again = self._read(), False
        else:
            self.again = True  # when what is under way has ended

    def begin_again(self) -> None:
        """The same, if it is to be done again."""
        if self.again and self._reading is None:
            self.begin()

    def stop(self) -> None:
        """What is under way is needless."""
        self._reading = None

    def announced(self, host: Host) -> None:
        """The kernel has said something of a host meanwhile."""
        if self._reading is not None:
            self._changed_meanwhile.add(host)

    def go_on(self, deadline: float) -> bool:
        """Read on until then (seconds, monotonic); whether that was all."""
        for _ in self._reading or ():
            if time.monotonic() >= deadline:
                return False
        self._reading, self._changed_meanwhile = None, set()
        return True

    def words(self) -> dict[Host, Word]:
        """The whole table at once; what is known of it where the kernel doesn't tell, and then it is asked again."""
        try:
            return self._requests.neighbours()
        except MachineError as error:
            self._fails(error)
            return self._places.words()

    def _read(self) -> Iterator[None]:
        """Take in the whole neighbour table, in steps that take a few milliseconds each.

        What changes meanwhile is announced as ever, and then what is read of it may be older.
        """
        self._changed_meanwhile = set()
        there: set[Host] = set()
        try:
            for piece in self._watch().table():
                for host, word in piece:
                    there.add(host)
                    if host not in self._changed_meanwhile:
                        self._hear_of(host, word)
                    yield
                yield
            for host in self._places.hosts():
                if host not in there and host not in self._changed_meanwhile:
                    # one that shares a bucket with it may have gone just when a piece ended there: then it was skipped
                    self._hear_of(host, self._requests.neighbour(host))
                yield
        except Overflow:
            self.again = True
            return
        except MachineError as error:
            self._fails(error)
            return
        for key in self._pending.targets():
            for host in self._pending.places(*key):
                if host not in there and host not in self._changed_meanwhile:
                    self._probe(host)
            yield

    def _fails(self, error: MachineError) -> None:
        self.again = True
        self._once.warn(f"{error}; trying again every {TICK:.0f} s")
