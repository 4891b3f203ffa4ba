# SPDX-License-Identifier: GPL-2.0-or-later
"""The ground that every subject stands on: the lab's namespaces, the counter on the asker's side, and the questions."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from npd6_xdp.lab.topology import Topology
from tests.bench.counter import Counter
from tests.netns.wire import SETTING, question, scan

TARGETS = 4096
"""So many different targets are asked for in turn, where a subject can answer for that many."""
QUEUES = 2
"""Of each end of the cable, so that two CPUs can send and answer at once."""


class Ground:
    """Fresh namespaces, while the `with` block runs. One of `sample` answers is kept, to be looked at.

    veth gives each end one queue unless it is told to; the counter is there from the start, since a native XDP_TX
    needs a program at the other end, too.
    """

    def __init__(self, sample: int = 64) -> None:
        self._sample = sample
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.topology = stack.enter_context(Topology())
            for namespace, interface in (("upstream", "eth0"), ("edge", "wan0")):
                words = ("ethtool", "-L", interface, "rx", str(QUEUES), "tx", str(QUEUES))
                self.topology.run(namespace, *words, check=True)  # type: ignore[arg-type]
            self.counter = stack.enter_context(Counter(self.topology, sample=self._sample))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()


def questions(targets: int, first: int = 0, mac: bytes = SETTING.asker_mac) -> list[bytes]:
    """One solicitation for each of so many targets in a row, the lowest 16 bits of which start with `first`."""
    return list(scan(targets, first=first, mac=mac))


def for_address(address: str) -> bytes:
    """A solicitation for one address, from the same asker as all others."""
    return question(address, source=SETTING.asker_global)
