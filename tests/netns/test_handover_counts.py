# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters over a hand-over: they start at 0, as after any restart, and it is said for how long nobody counted."""

from __future__ import annotations

import time
from contextlib import closing
from http.client import HTTPConnection

from prometheus_client.parser import text_string_to_metric_families

from npd6_xdp.lab.topology import Topology
from tests.netns.handovers import CONTROL, restart
from tests.netns.service import UnderSystemd
from tests.netns.test_handover import LATE, back, die
from tests.netns.wire import Wire, configuration, question, until
from tests.netns.xdp_links import handed_over

RULE = "2001:db8:3::/64"
_BY_XDP = {
    "npd6_solicitations_total": "answered_xdp",
    "npd6_rule_solicitations_total": "answered_xdp",
    "npd6_advertisements_total": "xdp",
}
"""Which label says that the program has answered, by the counter."""
_OTHERS = ""  # no label's
TRIES = 5
"""A busy machine may take so long that a process that was to be dead for a while isn't any more."""


class Counts:
    """What the edge's metrics say now of the rule that is asked; of other addresses its kernel may be asked as well."""

    def __init__(self, topology: Topology) -> None:
        with closing(HTTPConnection("::1", 9846, timeout=60)) as connection:
            with topology.inside("edge"):
                connection.request("GET", "/metrics")
            page = connection.getresponse().read().decode()
        self.answered: set[float] = set()
        """How often it was answered, by each of the counters that say so."""
        self.uncounted = -1.0
        for sample in (each for family in text_string_to_metric_families(page) for each in family.samples):
            if sample.name == "npd6_handover_uncounted_seconds":
                self.uncounted = sample.value
            elif _BY_XDP.get(sample.name, _OTHERS) in sample.labels.values() and RULE in sample.labels.get(
                "rule", RULE
            ):
                self.answered.add(sample.value)


def ask(wire: Wire, count: int) -> None:
    for number in range(count):
        assert wire.ask(question(f"2001:db8:3::{number + 1:x}")) is not None


def test_counters_start_at_zero_with_the_successor_which_says_for_how_long_nobody_counted(topology: Topology) -> None:
    config = CONTROL + configuration(f"{RULE} static")
    with UnderSystemd(topology, config, LATE) as service, Wire(topology) as wire:
        assert Counts(topology).uncounted == 0.0, "there was none before"
        ask(wire, 7)
        assert until(lambda: Counts(topology).answered == {7})
        began = time.monotonic()
        with handed_over(topology):
            restart(service)
        after = Counts(topology)
        assert after.answered <= {0}
        assert 0.0 < after.uncounted < time.monotonic() - began
        ask(wire, 3)
        assert until(lambda: Counts(topology).answered == {3}), "and no more than what came since"

        # what a program answers whose process is dead, nobody counts, however long that is
        for _ in range(TRIES):
            with handed_over(topology):
                began = time.monotonic()
                die(service)
                ask(wire, 5)
                is_dead = service.show("ActiveState") != "active"
                back(service)
            if is_dead:
                break
        after = Counts(topology)
        assert is_dead
        assert after.answered <= {0}
        assert 2.0 < after.uncounted < time.monotonic() - began, "RestartSec= at the least"
        ask(wire, 2)
        assert until(lambda: Counts(topology).answered == {2})
