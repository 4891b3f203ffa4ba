# SPDX-License-Identifier: GPL-2.0-or-later
"""What is seen from outside: also while the loop goes on, and of interfaces that are not there."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.judgement import WORKING
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.neighbour_messages import NeighbourState
from npd6_xdp.core.neighbours import Host, Neighbours
from npd6_xdp.core.snapshot import AnswerTimes, Snapshot
from npd6_xdp.core.steps import Steps, finish
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.daemon.counts import Counts
from npd6_xdp.daemon.in_force import NOTHING
from npd6_xdp.daemon.view import View
from npd6_xdp.system.bpf.counters import EntryCounters
from tests.daemon.forces import in_force

LINKS = {
    name: LinkFacts(name, ifindex, bytes((2, 0, 0, 0, 0, ifindex))) for ifindex, name in ((7, "wan0"), (8, "lan0"))
}
CONFIG = """
[[interface]]
name = "wan0"
[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "neighbour"
via = ["lan0"]
"""


class Room(SimpleNamespace):
    """Any of the rooms that it looks into; none has anything."""

    def __len__(self) -> int:
        return 0


def none() -> Steps[int]:
    yield
    return 0


class NsFilter:
    changes = 0

    def counters(self) -> Steps[tuple[dict[int, EntryCounters], dict[int, dict[Outcome, int]]]]:
        yield
        return {}, {}


@pytest.fixture
def table() -> Table:
    return build(parse(CONFIG, "test"), LINKS)


@pytest.fixture
def _often() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def neighbours(table: Table) -> Neighbours:
    neighbours = Neighbours(10_000)
    neighbours.use(table, 10_000)
    return neighbours


@pytest.fixture
def counts(table: Table) -> Counts:
    counts = Counts()
    counts.apply(in_force(table, LINKS))
    return counts


@pytest.fixture
def view(table: Table, neighbours: Neighbours, counts: Counts, monkeypatch: pytest.MonkeyPatch) -> View:
    monkeypatch.setattr("npd6_xdp.daemon.view.load_bcc", lambda: SimpleNamespace(__version__="0"))
    rest: Any = Room(
        neighbours=neighbours,
        entries=list,
        counting=none,
        by_name=lambda _: None,
        sent=lambda _: 0,
        uncounted=0.0,
        pending={},
        capacity=(100, 512),
        routes=Room(displaced=set()),
        refused=0,
    )
    rooms = rest, rest, counts, rest, rest, rest, rest, rest, rest
    view = View(NsFilter(), *rooms, threading.RLock(), "")  # type: ignore[arg-type]
    view.apply(in_force(table, LINKS, parse(CONFIG, "test")))
    return view


def snapshot(view: View) -> Snapshot:
    return finish(view.snapshot(AnswerTimes(), {}, WORKING))


@pytest.mark.parametrize("vlan", ["untagged", "100", "any"])
def test_an_interface_that_went_before_the_file_changed_is_shown_as_the_file_has_it_now(
    view: View, table: Table, vlan: str
) -> None:
    before = CONFIG.replace('"wan0"', f'"wan0"\nvlan = "{vlan}"')
    table = build(parse(before, "test"), LINKS, table)
    for datapath in ("hybrid", "python"):  # the first time without the interface, then with another file
        config = parse(before.replace('"wan0"', f'"wan0"\ndatapath = "{datapath}"'), "test")
        table = build(config, {"lan0": LINKS["lan0"]}, table)
        view.apply(in_force(table, {"lan0": LINKS["lan0"]}, config))
        label = config.interfaces[0].label
        shown = {each.label: (each.port, each.datapath) for each in snapshot(view).interfaces}
        assert shown[label] == ("wan0", datapath)


@pytest.mark.usefixtures("_often")
def test_hosts_may_come_and_go_and_outcomes_be_counted_while_it_looks(
    view: View, table: Table, neighbours: Neighbours, counts: Counts
) -> None:
    (rule,) = table.rules.values()
    hosts = [Host(8, (0x20010DB8_0001 << 80 | number).to_bytes(16)) for number in range(500)]
    for host in hosts[:250]:
        neighbours.changed(host, NeighbourState.REACHABLE)
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for state in (NeighbourState.REACHABLE, NeighbourState.NONE):
                for host in hosts[250:]:
                    neighbours.changed(host, state)
            counts.apply(NOTHING)
            counts.apply(in_force(table, LINKS))
            for outcome in Outcome:
                counts.count(rule, outcome)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(300):
            assert 250 <= snapshot(view).neighbours["lan0"] <= 500
    finally:
        done.set()
        changing.join()
