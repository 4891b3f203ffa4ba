# SPDX-License-Identifier: GPL-2.0-or-later
"""A reload to the first rule of method neighbour: thousands of hosts are there, and are taken in between other work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from ipaddress import IPv6Address

import pytest

from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.steps import finish
from npd6_xdp.daemon import hosts as hosts_room
from npd6_xdp.daemon.in_force import Change, InForce
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.netlink import nlsocket
from tests.netns.test_resolution import LLADDR, Edge, many, run_batch
from tests.netns.wire import on_edge

HOSTS = 3000
LEAST_BITS = 10
"""The kernel tells of some 300 at a time."""
STATIC, NEIGHBOUR = "2001:db8:1::/64 static", "2001:db8:1::/64 neighbour via=lan0,lan1"


@pytest.fixture
def edge(topology: Topology) -> Iterator[Edge]:
    """Which answers for all, and so has had no use for hosts yet."""
    with closing(Edge(topology, STATIC)) as edge:
        run_batch(edge, many("replace", HOSTS))
        yield edge


def known(edge: Edge) -> set[str]:
    return {str(IPv6Address(host.address)) for host in edge.resolution.neighbours.hosts()}


def there(edge: Edge) -> set[str]:
    """Whom the kernel has, link-local addresses aside."""
    shown = edge.topology.ip("edge", "-6", "neigh", "show", "nud", "all")
    found = {each["dst"] for each in shown if {"REACHABLE", "STALE"} & set(each["state"]) and each["dev"] != "wan0"}
    return {address for address in found if address.startswith("2001:db8:1:")}


def prepared(edge: Edge, undo: ExitStack, new: InForce) -> Iterator[None]:
    yield from edge.resolution.prepare(new, Change(undo, asked=True))


def read(edge: Edge, undo: ExitStack, new: InForce) -> Iterator[None]:
    """The same, of which those bits are told of that come once the kernel's words are heard."""
    for _ in prepared(edge, undo, new):
        if edge.resolution._hosts.watch.listening:
            yield


def in_force(edge: Edge, new: InForce) -> None:
    edge.resolution.apply(new)
    finish(edge.resolution.settle(new, new))


def test_it_is_read_in_bits_what_is_said_meanwhile_counts_more_and_nothing_shows_before_its_end(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = "2001:db8:1::100", f"2001:db8:1::{0x100 + HOSTS - 1:x}"
    new, bits = edge.to_be(NEIGHBOUR), 0
    asked: list[Host] = []
    monkeypatch.setattr(edge.resolution._hosts.watch, "probe", lambda host, *_, **__: asked.append(host))
    with ExitStack() as undo:
        for bits, _ in enumerate(read(edge, undo, new), 1):
            if bits == 1:  # some pieces of it are in the socket, or here
                on_edge(
                    edge.topology,
                    f"neigh del {first} dev lan0",
                    f"neigh del {last} dev lan0",
                    f"neigh add 2001:db8:1::99 {LLADDR} dev lan0 nud reachable",
                    f"neigh replace {last} {LLADDR} dev lan1 nud reachable",
                    f"neigh add 2001:db8:1::98 {LLADDR} dev lan0 nud stale",
                )
                edge.take_in()
        assert bits >= LEAST_BITS
        assert asked == []
        in_force(edge, new)
        undo.pop_all()
    assert "2001:db8:1::99" in known(edge)
    assert first not in known(edge)
    assert known(edge) == there(edge) - {"2001:db8:1::98"}, "that one is a claim, and is asked"
    (via_set,) = edge.table.vias
    (moved,) = edge.resolution.neighbours.interfaces(via_set, IPv6Address(last).packed)
    assert moved == new.links["lan1"].ifindex
    edge.take_in()
    assert Host(new.links["lan0"].ifindex, IPv6Address("2001:db8:1::98").packed) in asked


def test_once_it_is_in_force_nothing_is_left_to_be_read(edge: Edge) -> None:
    """Nobody hears that the reload is done, and is then told that a host is yet to be looked for."""
    edge.go_by(NEIGHBOUR)
    assert known(edge) == there(edge)
    assert not edge.resolution._hosts._resync.is_under_way


@pytest.mark.parametrize("done", [2, LEAST_BITS + 5, 10**6], ids=["at the start of it", "late", "when it is ready"])
def test_a_reload_that_is_given_up_leaves_no_host_and_nobody_listens(edge: Edge, done: int) -> None:
    new = edge.to_be(NEIGHBOUR)
    with ExitStack() as undo:
        steps = prepared(edge, undo, new)
        for _ in zip(range(done), steps, strict=False):
            pass
        steps.close()  # type: ignore[attr-defined]
    edge.settle()
    hosts = edge.resolution._hosts
    assert known(edge) == set()
    assert (hosts.neighbours.held, [*hosts.places.hosts()], hosts.watch.listening) == (0, [], False)
    edge.go_by(NEIGHBOUR)
    assert known(edge) == there(edge)


def test_hosts_that_no_rule_asks_for_any_more_are_forgotten_in_bits_and_known_again_with_the_next(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.go_by(NEIGHBOUR)
    with monkeypatch.context() as patch:
        patch.setattr(hosts_room, "SLICE", 0.0)
        edge.go_by(STATIC)
        turns = 0
        while edge.resolution.neighbours.held:
            assert edge.resolution.due is not None
            edge.resolution.tick(time.monotonic())
            turns += 1
            if turns == LEAST_BITS:
                on_edge(edge.topology, "neigh del 2001:db8:1::100 dev lan0")
    assert turns > 2 * LEAST_BITS
    edge.go_by(NEIGHBOUR)
    edge.go_by(STATIC)
    edge.go_by(NEIGHBOUR)
    assert known(edge) == there(edge)
    assert "2001:db8:1::100" not in known(edge)


def test_announcements_that_are_lost_while_it_is_read_are_made_up_for(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = edge.to_be(NEIGHBOUR)

    def overflow(_deadline: float) -> Iterator[object]:
        raise nlsocket.Overflow

    with ExitStack() as undo:
        for bits, _ in enumerate(read(edge, undo, new), 1):
            if bits == 3:
                run_batch(edge, "".join(f"neigh del 2001:db8:1::{n:x} dev lan0\n" for n in range(0x100, 0x100 + HOSTS)))
                nlsocket.discard(edge.resolution._hosts.watch._changes.socket)
                with monkeypatch.context() as patch:
                    patch.setattr(edge.resolution._hosts.watch, "take_changes", overflow)
                    edge.resolution._hosts.on_change()
                assert not edge.resolution._hosts._resync.is_under_way, "one at a time"
        in_force(edge, new)
        undo.pop_all()
    due = edge.resolution._hosts._look_at
    assert due is not None
    edge.resolution.tick(due)
    edge.settle()
    assert known(edge) == there(edge)


def test_what_is_in_force_being_put_in_force_once_more_meanwhile_takes_nothing_from_what_is_read(edge: Edge) -> None:
    """As hidden tags have it, at any time."""
    before, new, bits = edge.resolution._in_force, edge.to_be(NEIGHBOUR), 0
    with ExitStack() as undo:
        for bits, _ in enumerate(read(edge, undo, new), 1):
            if bits in (1, 3, LEAST_BITS):
                in_force(edge, before)
                edge.settle()
        in_force(edge, new)
        undo.pop_all()
    assert bits > LEAST_BITS
    assert known(edge) == there(edge)
    on_edge(edge.topology, f"neigh add 2001:db8:1::99 {LLADDR} dev lan0 nud reachable")
    edge.take_in()
    assert known(edge) == there(edge)
