# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon that is dead can't follow the address: its program goes on in its role until the next one is ready."""

from __future__ import annotations

import signal
import time

from npd6_xdp.lab.topology import Topology
from tests.netns.handovers import CONTROL
from tests.netns.service import UnderSystemd
from tests.netns.test_handover import LATE, back, die
from tests.netns.wire import Wire, configuration, flood, hearing, on_edge, question, scan, until
from tests.netns.xdp_links import handed_over

ADDRESS = "192.0.2.1"
CONFIG = CONTROL + configuration("2001:db8:1::/64 static", active_with=f'"{ADDRESS}"')
TARGET = "2001:db8:1::42"
TRIES = 5
"""A busy machine may take so long that a process that was to be dead for a while isn't any more."""


def answers_dead(topology: Topology, service: UnderSystemd, wire: Wire, verb: str) -> bool:
    """Whether its program answers once the address has come ("add") or gone ("del") while nobody ran; then one does."""
    undo = {"add": "del", "del": "add"}[verb]
    for _ in range(TRIES):
        with handed_over(topology):
            die(service)
            on_edge(topology, f"address {verb} {ADDRESS}/32 dev lo")
            found = wire.ask(question(TARGET), 0.5) is not None
            was_dead = service.show("ActiveState") != "active"
            back(service)
        if was_dead:
            return found
        on_edge(topology, f"address {undo} {ADDRESS}/32 dev lo")
    raise AssertionError("it was never dead for long enough")


def test_an_address_that_moves_while_nobody_runs_is_followed_by_the_successor_from_its_start_on(
    topology: Topology,
) -> None:
    with UnderSystemd(topology, CONFIG, LATE) as service, Wire(topology) as wire:
        on_edge(topology, f"address add {ADDRESS}/32 dev lo")
        assert until(lambda: wire.ask(question(TARGET), 0.1) is not None)
        assert answers_dead(topology, service, wire, "del"), "so both edges do"
        assert wire.ask(question(TARGET), 0.3) is None
        assert not answers_dead(topology, service, wire, "add"), "so neither does"
        assert wire.ask(question(TARGET)) is not None


def test_both_edges_answer_for_no_longer_than_until_the_next_start_is_ready(topology: Topology) -> None:
    """With the unit's own RestartSec=; docs/failover.md has what this prints."""
    last = 0.0

    def hear(_: bytes) -> None:
        nonlocal last
        last = time.monotonic()

    with UnderSystemd(topology, CONFIG) as service, Wire(topology) as wire:
        on_edge(topology, f"address add {ADDRESS}/32 dev lo")
        assert until(lambda: wire.ask(question(TARGET), 0.1) is not None)
        with hearing(topology, hear), flood(topology, scan(1 << 24), 500):
            assert until(lambda: last > 0.0)
            service.send(signal.SIGSTOP)  # it hears of nothing any more
            on_edge(topology, f"address del {ADDRESS}/32 dev lo")
            restarts = service.show("NRestarts")
            service.send(signal.SIGKILL)
            died = time.monotonic()
            assert until(lambda: service.show("NRestarts") != restarts and service.show("ActiveState") == "active")
            ready = time.monotonic()
            assert wire.ask(question(TARGET), 0.3) is None
        assert last > died
        print(f"both would answer for {last - died:.2f} s, and the successor was ready within {ready - died:.2f} s")
