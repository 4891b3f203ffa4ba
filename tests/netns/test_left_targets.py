# SPDX-License-Identifier: GPL-2.0-or-later
"""What was asked for before a restart: a takeover announces it, no budget bounds it (docs/rules.md, J3 to J5, E4)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import IPv6Address

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.topology import Topology
from tests.netns.handovers import CONTROL, kill, restart
from tests.netns.service import UnderSystemd
from tests.netns.test_announcements import announced
from tests.netns.wire import LATE, Wire, configuration, on_edge, question, until

ADDRESS = "192.0.2.1"
CONFIG = CONTROL + configuration("2001:db8:1::/64 static", active_with=f'"{ADDRESS}"')
FILE = "/run/npd6-xdp/remembered"


def standby(service: UnderSystemd) -> int:
    """How many have been asked for on standby."""
    found = json.loads(service.enter(*service.program("status", "--json")).stdout)
    return int(found["interfaces"][0]["solicitations"]["standby"])


def is_left(service: UnderSystemd) -> bool:
    return service.enter("test", "-e", FILE).returncode == 0


def test_a_standby_that_is_restarted_announces_at_a_takeover_what_was_asked_for_before(topology: Topology) -> None:
    asked = [f"2001:db8:1::{number:x}" for number in range(1, 41)]
    with UnderSystemd(topology, CONFIG) as service, Wire(topology) as wire:
        for some in (asked[:20], asked[20:]):
            wire.send(*map(question, some))
            assert until(lambda: standby(service) >= 20)
            restart(service)
            assert not is_left(service), "it has been read"
        on_edge(topology, f"address add {ADDRESS}/32 dev lo")
        found = announced(wire, len(asked))
        assert {IPv6Address(each.target).compressed for each in found} == {*asked}
        # a reload that takes the role away leaves nothing to the next one
        on_edge(topology, f"address del {ADDRESS}/32 dev lo")
        service.configure(CONTROL + configuration("2001:db8:1::/64 static"))
        restart(service)
        restart(service)
        service.configure(CONFIG)
        restart(service)
        said = service.enter(*service.program("announce"))
        assert "on standby" in said.stdout + said.stderr
        # one that is killed leaves nothing, nor does a stop
        wire.send(*map(question, asked))
        assert until(lambda: standby(service) >= 40)
        kill(service)
        on_edge(topology, f"address add {ADDRESS}/32 dev lo")
        assert until(lambda: "nothing is remembered" in service.enter(*service.program("announce")).stdout)
        assert service.stop() == 0
        assert not is_left(service)


BUDGET = 20
BUDGETED = CONTROL + configuration("2001:db8:1::/64 static", new_targets_per_second=f"{BUDGET}")


def answered(wire: Wire, targets: Sequence[str], seconds: float = LATE) -> set[str]:
    """Which of them are, when all are asked for at once."""
    wire.send(*map(question, targets))
    found = wire.advertisements(seconds, enough=len(targets))
    return {IPv6Address(NeighborAdvertisement.parse(each).target).compressed for each in found}


def test_a_restart_forgets_none_that_was_answered_within_a_budget_of_new_targets(topology: Topology) -> None:
    known = [f"2001:db8:1::{number:x}" for number in range(1, 3 * BUDGET + 1)]
    strange = [f"2001:db8:1::1:{number:x}" for number in range(1, 10 * BUDGET + 1)]
    with UnderSystemd(topology, BUDGETED) as service, Wire(topology) as wire:
        for first in range(0, len(known), BUDGET):  # each time by a program that has spent nothing
            some = known[first : first + BUDGET]
            assert answered(wire, some) == {*some}
            restart(service)
            assert not is_left(service), "it has been read"
        assert answered(wire, known) == {*known}, "it takes nothing of the budget of this one"
        assert 0 < len(answered(wire, strange, 1.0)) < len(strange)
        assert answered(wire, known) == {*known}
        # one that is killed leaves nothing, nor does a stop
        kill(service)
        assert len(answered(wire, known, 1.0)) < len(known)
        assert service.stop() == 0
        assert not is_left(service)
