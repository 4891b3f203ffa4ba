# SPDX-License-Identifier: GPL-2.0-or-later
"""A pair of edges on one link (docs/rules.md, J1, J4): one answers, and when the address moves, the other one does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.topology import Topology
from tests.frames import ether, ip6
from tests.kinds import solicit
from tests.netns.test_roles import ADDRESS, role
from tests.netns.test_two_edges import Scene
from tests.netns.warm import warm
from tests.netns.wire import configuration, until

pytestmark = pytest.mark.needs_table

MACS = [ether(f"02:00:00:00:0a:{number:02x}") for number in range(2)]
TARGETS = [f"2001:db8:9::{number:x}" for number in range(1, 9)]


class Pair:
    """Two edges between two links, each with a daemon; of the first one's is the address."""

    def __init__(self, stack: ExitStack) -> None:
        self.scene = Scene(stack, 2)
        text = configuration("2001:db8:9::/64 static", active_with=f'"{ADDRESS}"')
        self.daemons = [stack.enter_context(warm(edge, text)) for edge in self.edges]
        self.move(to=0)
        assert until(lambda: self.roles() == [1, 0])

    @property
    def edges(self) -> list[Topology]:
        return self.scene.topologies

    def move(self, *, to: int, of: int | None = None) -> None:
        if of is not None:
            self.edges[of].run("edge", "ip", "address", "del", f"{ADDRESS}/32", "dev", "lo", check=True)
            # else both answer for a moment, and rightly; how soon it is, test_failover_bounds.py holds
            assert until(lambda: self.roles()[of] == 0.0)
        self.edges[to].run("edge", "ip", "address", "add", f"{ADDRESS}/32", "dev", "lo", check=True)

    def roles(self) -> list[float]:
        return [role(running)[ADDRESS] for running in self.daemons]

    def ask(self, target: str) -> None:
        setting = self.scene.settings["wan"]
        self.scene.wires["wan"].send(solicit(replace(setting, target=ip6(target)), source=setting.asker_global))

    def answers(self, seconds: float) -> Iterator[NeighborAdvertisement]:
        """The edges' word on TARGETS; their kernels have one on their own addresses, where another's asks."""
        targets = {ip6(target) for target in TARGETS}
        for frame in self.scene.wires["wan"].advertisements(seconds):
            found = NeighborAdvertisement.parse(frame)
            if found.eth_source in MACS and found.target in targets:
                yield found


@pytest.fixture
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        found = Pair(stack)
        yield found
        for number, running in enumerate(found.daemons):
            print(f"--- edge {number}\n{running.log}")


def test_one_of_two_answers_and_the_other_one_takes_over_with_all_that_it_has_heard(pair: Pair) -> None:
    for target in TARGETS:
        pair.ask(target)
    answers = list(pair.answers(1.0))
    assert Counter(answer.eth_source for answer in answers) == {MACS[0]: len(TARGETS)}, "the first one, and it alone"
    assert until(lambda: pair.daemons[1].solicitations().get("standby", 0) >= len(TARGETS))
    for old, new in ((0, 1), (1, 0)):
        pair.move(of=old, to=new)
        began = time.monotonic()
        announced: Counter[bytes] = Counter()
        answered: list[NeighborAdvertisement] = []
        while any(announced[ip6(target)] < 3 for target in TARGETS):
            pair.ask(TARGETS[0])
            for found in pair.answers(0.05):
                if found.solicited:
                    answered.append(found)
                else:
                    assert (found.eth_source, found.override) == (MACS[new], True)
                    announced[found.target] += 1
            assert time.monotonic() - began < 120, f"{announced} of {TARGETS}"
        by = [answer.eth_source for answer in answered]
        assert by == sorted(by, key=[MACS[old], MACS[new]].index), "first the old one, perhaps; then the new one only"
        assert by[-1] == MACS[new]
        assert set(announced) == {ip6(target) for target in TARGETS}
        assert pair.roles() == [float(new == 0), float(new == 1)]
