# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon that is dead can't follow the address: its program goes on in its role until the next one is ready."""

from __future__ import annotations

import signal
import socket
import struct
import time
from contextlib import suppress

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.topology import Topology
from tests.frames import ip6
from tests.netns.handovers import CONTROL
from tests.netns.service import UnderSystemd
from tests.netns.test_handover import LATE, back, die
from tests.netns.wire import Wire, configuration, flood, on_edge, question, scan, until
from tests.netns.xdp_links import handed_over

ADDRESS = "192.0.2.1"
CONFIG = CONTROL + configuration("2001:db8:1::/64 static", active_with=f'"{ADDRESS}"')
TARGET = "2001:db8:1::42"
PREFIX = ip6("2001:db8:1::")[:8]
_SO_TIMESTAMPNS = 35  # and the name of what it has the kernel tell
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
    """With the unit's own RestartSec=, which is 0; docs/failover.md has what this prints."""
    with UnderSystemd(topology, CONFIG) as service, Wire(topology) as wire, Wire(topology) as hears:
        hears.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        hears.only_advertisements()
        on_edge(topology, f"address add {ADDRESS}/32 dev lo")
        assert until(lambda: wire.ask(question(TARGET), 0.1) is not None)
        with flood(topology, scan(1 << 24), 500):
            service.send(signal.SIGSTOP)  # it hears of nothing any more
            on_edge(topology, f"address del {ADDRESS}/32 dev lo")
            restarts = service.show("NRestarts")
            service.send(signal.SIGKILL)
            died = time.monotonic()
            assert service.comes_to(NRestarts=f"!{restarts}", ActiveState="active")
            assert wire.ask(question(TARGET), 0.3) is None
        ready = int(service.show("ActiveEnterTimestampMonotonic")) / 1_000_000
        last = last_answer(hears)
        print(f"both would answer for {last - died:.3f} s, and the successor was ready after {ready - died:.3f} s")
    assert died < last <= ready


def last_answer(wire: Wire) -> float:
    """When the last answer by the rule came, of those that wait, by the kernel's word: seconds, monotonic."""
    since_epoch, last = time.time() - time.monotonic(), 0.0
    wire.socket.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            frame, ancillary, _, _ = wire.socket.recvmsg(2048, 256)
            if not NeighborAdvertisement.parse(frame).target.startswith(PREFIX):
                continue  # the edge's kernel speaks for its own
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                    seconds, nanoseconds = struct.unpack_from("=qq", data)
                    last = seconds + nanoseconds / 1_000_000_000
    return last - since_epoch
