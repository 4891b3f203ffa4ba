# SPDX-License-Identifier: GPL-2.0-or-later
"""Method neighbour against the edge's real neighbour table and routes, without the program: hosts that move or go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from npd6_xdp.core.config import Config, parse
from npd6_xdp.core.event import EventTags, NsEvent
from npd6_xdp.core.rules import build
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.daemon import link_facts
from npd6_xdp.daemon.resolution import Resolution
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system import rtnetlink
from npd6_xdp.system.rtnetlink import Requests
from tests.frames import ip6
from tests.netns.wire import configuration, on_edge

HOST = "2001:db8:1::99"
LLADDR = "lladdr 02:00:00:00:01:01"


class Datapath:
    """Takes in all that it is told."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Edge:
    """A resolution at work on the edge."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.answered: list[NsEvent] = []
        on_edge(topology, "link add lan1 type veth peer name lan1-peer", "link set lan1 up", "link set lan1-peer up")
        config = parse(configuration("2001:db8:1::/64 neighbour via=lan0,lan1 host_routes=true"), "test")
        with topology.inside("edge"):
            self.requests = Requests()
            links = link_facts(config)
            self.table = build(config, links)
            self.resolution = Resolution(Datapath(), self.requests, self.answered.append)  # type: ignore[arg-type]
            self.resolution.prepare(self.table, Config(()).limits, links)
        self.resolution.settle()

    def close(self) -> None:
        self.resolution.close()
        self.requests.close()

    def neighbour(self, *words: str) -> None:
        """Have the neighbour table changed, and take that in."""
        on_edge(self.topology, *(f"neigh {line}" for line in words))
        self.resolution.on_change()

    def settle(self) -> None:
        """Let it do what it has to do now, a slice at a time."""
        while (due := self.resolution.due) is not None and due <= time.monotonic():
            self.resolution.tick(time.monotonic())

    def routes(self) -> list[tuple[str, str]]:
        found = self.topology.ip("edge", "-6", "route", "show", "proto", "136")
        return [(route["dst"], route["dev"]) for route in found]

    def ask(self, target: str) -> Outcome | None:
        (rule,) = self.table.rules.values()
        event = NsEvent(ip6(target), ip6("2001:db8::1"), 0, rule.id, bytes(6), bytes(4), EventTags.MISS)
        return self.resolution.ask(event, rule)


@pytest.fixture
def edge(topology: Topology) -> Iterator[Edge]:
    with closing(Edge(topology)) as edge:
        yield edge


def test_a_host_route_follows_a_host_that_moves(edge: Edge) -> None:
    edge.neighbour(f"replace {HOST} {LLADDR} nud stale dev lan0")
    assert edge.routes() == [(HOST, "lan0")]
    edge.neighbour(f"replace {HOST} {LLADDR} nud stale dev lan1")
    assert edge.routes() == [(HOST, "lan0")], "no reason to think that it has moved"
    edge.neighbour(f"replace {HOST} {LLADDR} nud reachable dev lan1")
    assert edge.routes() == [(HOST, "lan1")]
    edge.neighbour(f"del {HOST} dev lan0")
    assert edge.routes() == [(HOST, "lan1")]
    edge.neighbour(f"replace {HOST} {LLADDR} nud stale dev lan0", f"del {HOST} dev lan1")
    assert edge.routes() == [(HOST, "lan0")], "and back, when it is there no more"
    edge.neighbour(f"del {HOST} dev lan0")
    assert edge.routes() == []


def test_a_predecessors_host_route_is_no_hindrance_for_a_host_that_moved_meanwhile(topology: Topology) -> None:
    on_edge(topology, f"route add {HOST}/128 dev lan0 proto 136 metric 1024")
    with closing(Edge(topology)) as edge:
        edge.neighbour(f"replace {HOST} {LLADDR} nud stale dev lan1")
        assert edge.routes() == [(HOST, "lan1")]


def test_somebody_elses_route_stays(edge: Edge) -> None:
    on_edge(edge.topology, f"route add {HOST}/128 dev lan1 metric 1024")
    edge.neighbour(f"replace {HOST} {LLADDR} nud reachable dev lan0")
    assert edge.routes() == []
    edge.neighbour(f"del {HOST} dev lan0")
    assert len(edge.topology.ip("edge", "-6", "route", "show", f"{HOST}/128")) == 1


def looked_for(edge: Edge) -> bool:
    found = edge.topology.ip("edge", "-6", "neigh", "show", "to", HOST, "dev", "lan0")
    return any("INCOMPLETE" in entry["state"] for entry in found)


@pytest.mark.parametrize("how", ["link down", "overflown"])
def test_a_target_whose_entry_vanishes_while_it_is_looked_for_is_looked_for_again(
    edge: Edge, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert edge.ask(HOST) is Outcome.PENDING
    edge.resolution.on_change()
    assert looked_for(edge)
    if how == "link down":
        on_edge(edge.topology, "link set lan0 down", "link set lan0 up")
        edge.resolution.on_change()
    else:
        on_edge(edge.topology, f"neigh del {HOST} dev lan0")
        monkeypatch.setattr(edge.resolution._watch, "changes", overflow)
        edge.resolution.on_change()
        edge.settle()
    assert looked_for(edge)


def overflow(_deadline: float) -> Iterator[object]:
    raise rtnetlink.Overflow
