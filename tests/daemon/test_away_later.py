# SPDX-License-Identifier: GPL-2.0-or-later
"""Routes of hosts that are away, beyond a restart and while the entry stands by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

import pytest

from npd6_xdp.core.neighbour_messages import NeighbourState, Word
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.route_messages import TABLE_MAIN
from npd6_xdp.daemon.resolution import Resolution
from tests.daemon.test_away import DMZ, GONE, HOST, LED, RULE, THERE, WAN, Edge, Kernel, Map, at

STALE = Word(NeighbourState.STALE, THERE.mac)


@contextmanager
def succeeding(left: Iterable[Host], there: dict[Host, Word] | None = None, table: int = TABLE_MAIN) -> Iterator[Edge]:
    """A successor, where these hosts' routes are left, and those hosts are in the neighbour table."""
    kernel, ns_filter = Kernel(), Map()
    kernel.routes = dict.fromkeys(left, table)
    with closing(Resolution(ns_filter, kernel, lambda _: None)) as resolution:  # type: ignore[arg-type]
        resolution._hosts._resync.first = lambda: iter([[*(there or {}).items()]])  # type: ignore[method-assign]
        yield Edge(kernel, resolution, ns_filter.present)


# --- over a restart --------------------------------------------------------------------------------------------


def test_a_predecessors_route_of_a_host_that_is_away_is_kept_for_the_whole_time_from_the_start_on() -> None:
    """Since when it is away, isn't known."""
    with succeeding([HOST, at(2)]) as edge:
        edge.use(host_route_keep=60)
        assert (edge.routes, edge.answered) == ({HOST, at(2)}, set())
        edge.tick(59.0)
        assert edge.routes == {HOST, at(2)}
        edge.says(THERE, HOST)
        edge.tick(61.0)
        assert (edge.routes, edge.answered) == ({HOST}, {HOST.address})


def test_a_host_that_a_predecessor_led_to_counts_as_one_that_has_answered() -> None:
    """And what is only found in the kernel's table doesn't, as ever."""
    with succeeding([HOST], {HOST: STALE, at(2): STALE}) as edge:
        edge.use()
        assert edge.routes == {HOST, at(2)}
        edge.says(GONE, HOST, at(2))
        edge.tick()
        assert edge.routes == {HOST}


@pytest.mark.parametrize(
    ("rule", "keep", "left"),
    [
        (LED, 0, HOST),
        (RULE, 120, HOST),
        (LED.replace("db8:1::", "db8:2::"), 120, HOST),
        (LED.replace('"lan0", ', ""), 120, HOST),
        ('prefix = "::/0"\nmethod = "static"', 120, HOST),
        (LED, 120, at(1, WAN)),
    ],
    ids=["no time", "no host routes", "another prefix", "another via", "another method", "no via"],
)
def test_what_no_rule_keeps_goes_with_the_start(rule: str, keep: int, left: Host) -> None:
    with succeeding([left]) as edge:
        edge.use(rule, host_route_keep=keep)
        assert edge.routes == set()
        edge.use(LED)
        assert edge.routes == set(), "nor does it come back"


def test_what_isnt_in_its_table_goes_with_the_start() -> None:
    with succeeding([HOST], table=1000) as edge:
        edge.use()
        assert edge.routes == set()


def test_of_a_predecessors_routes_no_more_are_kept_than_there_is_space_for() -> None:
    with succeeding(map(at, range(1, 9)), {at(number): THERE for number in (7, 8, 9)}) as edge:
        edge.use(neighbours=5)
        edge.tick()
        assert len(edge.routes) == 5
        assert edge.routes > {at(7), at(8), at(9)}


@pytest.mark.parametrize("elsewhere", [DMZ, WAN])
def test_a_host_that_has_moved_meanwhile_has_no_route_where_it_was(elsewhere: int) -> None:
    there = at(1, elsewhere)
    with succeeding([HOST], {there: THERE}) as edge:
        edge.use()
        edge.tick()
        assert edge.routes == ({there} if elsewhere == DMZ else set())
        edge.tick(1000.0)
        assert edge.routes == ({there} if elsewhere == DMZ else set())


def test_a_table_that_comes_before_it_is_settled_keeps_them_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("npd6_xdp.daemon.led_hosts._BIT", 1)
    monkeypatch.setattr("npd6_xdp.daemon.hosts.SLICE", 0.0)
    hosts = {at(number) for number in range(1, 9)}
    with succeeding(hosts) as edge:
        edge.use()
        edge.use(LED.replace("/64", "/63"))
        edge.tick()
        edge.tick()
        assert edge.routes == hosts


# --- on standby ------------------------------------------------------------------------------------------------


@pytest.fixture
def edge() -> Iterator[Edge]:
    with succeeding([]) as edge:
        yield edge
    assert not edge.kernel.routes, "at a clean end all are taken back"


def test_who_is_away_has_no_route_on_standby_and_has_it_again_when_the_entry_is_active_in_time(edge: Edge) -> None:
    edge.use(active=True)
    edge.says(THERE, HOST, at(2))
    edge.says(GONE, HOST)
    edge.use(active=False)
    edge.tick(60.0)
    assert edge.routes == set()
    edge.use(active=True)
    assert (edge.routes, edge.answered) == ({HOST, at(2)}, {at(2).address})
    edge.tick(60.0)
    assert edge.routes == {HOST, at(2)}
    edge.tick(120.0)
    assert edge.routes == {at(2)}, "its time has gone on"


def test_it_has_none_where_its_time_was_over_meanwhile(edge: Edge) -> None:
    edge.use(active=True)
    edge.says(THERE, HOST)
    edge.says(GONE, HOST)
    edge.use(active=False)
    edge.tick(120.0)
    edge.use(active=True)
    assert edge.routes == set()


def test_who_comes_and_goes_on_standby_is_there_and_away_as_ever(edge: Edge) -> None:
    edge.use(active=True)
    edge.says(THERE, HOST, at(2), at(3))
    edge.says(GONE, HOST)
    edge.use(active=False)
    edge.says(THERE, HOST, at(4))
    edge.says(GONE, at(2), at(4))
    edge.tick()
    assert edge.routes == set()
    edge.use(active=True)
    assert edge.routes == {HOST, at(2), at(3)}, "the last one has never been led to"
    edge.tick(121.0)
    assert edge.routes == {HOST, at(3)}


@pytest.mark.parametrize("elsewhere", [DMZ, WAN])
def test_who_turns_up_elsewhere_meanwhile_has_no_route_where_it_was(edge: Edge, elsewhere: int) -> None:
    there = at(1, elsewhere)
    edge.use(active=True)
    edge.says(THERE, HOST)
    edge.says(GONE, HOST)
    edge.use(active=False)
    edge.says(THERE, there)
    edge.use(active=True)
    edge.tick()
    assert edge.routes == ({there} if elsewhere == DMZ else set())


@pytest.mark.parametrize("rule", [RULE, LED.replace("db8:1::", "db8:2::"), LED.replace('"lan0", ', "")])
def test_what_a_reload_on_standby_takes_away_isnt_kept(edge: Edge, rule: str) -> None:
    edge.use(active=True)
    edge.says(THERE, HOST)
    edge.says(GONE, HOST)
    edge.use(active=False)
    edge.use(rule, active=False)
    edge.use(active=True)
    assert edge.routes == set()


def test_a_restart_on_standby_takes_the_route_away_and_has_it_again_when_active() -> None:
    """The address went while the process was dead."""
    with succeeding([HOST]) as edge:
        edge.use(active=False)
        assert edge.routes == set()
        edge.tick(60.0)
        edge.use(active=True)
        assert edge.routes == {HOST}
