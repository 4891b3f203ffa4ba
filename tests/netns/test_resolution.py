# SPDX-License-Identifier: GPL-2.0-or-later
"""Method neighbour against the edge's real neighbour table and routes, without the program: hosts that move or go."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

import pytest

from npd6_xdp.core import neighbour_messages, pending
from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.event import EventFlag, NsEvent
from npd6_xdp.core.neighbour_messages import NeighbourState
from npd6_xdp.core.neighbours import Host, Quiet
from npd6_xdp.core.rtnetlink import Message
from npd6_xdp.core.steps import finish
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Limit, Outcome
from npd6_xdp.daemon import hosts as hosts_room
from npd6_xdp.daemon.in_force import Change, InForce
from npd6_xdp.daemon.resolution import Resolution
from npd6_xdp.lab.topology import HOST_ADDRESS, HOST_MAC, Topology
from npd6_xdp.system.netlink import nlsocket
from npd6_xdp.system.netlink.neighbours import NeighbourWatch
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.tools.facts import link_facts
from tests.daemon.forces import go_by, in_force
from tests.frames import ip6
from tests.netns.wire import configuration, on_edge, until

HOST = "2001:db8:1::99"
LLADDR = "lladdr 02:00:00:00:01:01"


class NsFilter:
    """Takes in all that it is told."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Edge:
    """A resolution at work on the edge, by one rule."""

    def __init__(
        self, topology: Topology, rule: str = "2001:db8:1::/64 neighbour via=lan0,lan1 host_routes=true"
    ) -> None:
        self.topology = topology
        self.answered: list[NsEvent] = []
        on_edge(topology, "link add lan1 type veth peer name lan1-peer", "link set lan1 up", "link set lan1-peer up")
        with topology.inside("edge"):
            self.requests = Requests()
            self.resolution = Resolution(NsFilter(), self.requests, self.answered.append)  # type: ignore[arg-type]
        self.go_by(rule)

    def go_by(self, rule: str, tables: Mapping[str, int] = {}, before: Table | None = None) -> None:
        """`tables` are the routing tables of VRFs that interfaces are said to be in; they needn't be there for that."""
        go_by(self.resolution, self.to_be(rule, tables, before))

    def to_be(self, rule: str, tables: Mapping[str, int] = {}, before: Table | None = None) -> InForce:
        """What is to be in force by a rule."""
        config = parse("[limits]\nhost_route_keep = 0\n" + configuration(rule), "test")  # a route goes with its host
        with self.topology.inside("edge"):
            links = link_facts(config)
        links = {name: replace(link, table=tables.get(name, 0)) for name, link in links.items()}
        self.table = build(config, links, before)
        return in_force(self.table, links, config)

    def close(self) -> None:
        self.resolution.close()
        self.requests.close()

    def neighbour(self, *words: str) -> None:
        """Have the neighbour table changed, and take that in."""
        on_edge(self.topology, *(f"neigh {line}" for line in words))
        self.take_in()

    def change(self, *lines: str) -> None:
        """Have whatever changed by ip(8), and take that in."""
        on_edge(self.topology, *lines)
        self.take_in()

    def take_in(self) -> bool:
        """Take in what the kernel has announced, and do what there is to do now; False, for conditions."""
        calls = dict(self.resolution.readable())
        while ready := select.select(list(calls), [], [], 0.02)[0]:
            for fd in ready:
                calls[fd]()
        self.settle()
        return False

    def receive_buffer(self, size: int) -> None:
        """How many bytes of announcements about neighbours may wait, before some are dropped."""
        self.resolution._hosts.watch._changes.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def settle(self) -> None:
        """Let it do what it has to do now, a slice at a time."""
        while (due := self.resolution.due) is not None and due <= time.monotonic():
            self.resolution.tick(time.monotonic())

    def routes(self, table: str = "main") -> list[tuple[str, str]]:
        """The kernel's; what is shown of them is the same."""
        found = self.topology.ip("edge", "-6", "route", "show", "table", "all", "proto", "136")
        names = {link["ifindex"]: link["ifname"] for link in self.topology.ip("edge", "link")}
        shown = {(str(IPv6Address(host.address)), names[host.ifindex]) for host in self.resolution.routes.hosts()}
        assert shown == {(route["dst"], route["dev"]) for route in found}
        return [(route["dst"], route["dev"]) for route in found if route.get("table", "main") == table]

    def state(self, address: str) -> str:
        found = self.topology.neighbour("edge", "lan0", address)
        return found.state if found else ""

    def ask(self, target: str, asker: int = 0) -> Outcome | Limit | None:
        (rule,) = self.table.rules.values()
        mac = bytes([2, 0]) + asker.to_bytes(4)
        event = NsEvent(ip6(target), ip6("2001:db8::1"), 0, rule.id, mac, bytes(4), EventFlag.MISS)
        return self.resolution.ask(event, rule)


@pytest.fixture
def edge(topology: Topology) -> Iterator[Edge]:
    with closing(Edge(topology)) as edge:
        yield edge


def test_a_host_route_follows_a_host_that_moves(edge: Edge) -> None:
    edge.neighbour(f"replace {HOST} {LLADDR} nud stale dev lan0")
    assert edge.routes() == [], "a claim, and nobody answers for it"
    edge.neighbour(f"replace {HOST} {LLADDR} nud reachable dev lan0")
    assert edge.routes() == [(HOST, "lan0")]
    edge.neighbour(f"replace {HOST} {LLADDR} nud stale dev lan0")
    assert edge.routes() == [(HOST, "lan0")], "it was there"
    edge.neighbour(f"replace {HOST} {LLADDR} nud stale dev lan1")
    assert edge.routes() == [(HOST, "lan0")], "no reason to think that it has moved"
    edge.neighbour(f"replace {HOST} {LLADDR} nud reachable dev lan1")
    assert until(lambda: edge.take_in() or edge.routes() == [(HOST, "lan1")], 2.0), "it answers there, and here no more"
    edge.neighbour(f"del {HOST} dev lan0")
    assert edge.routes() == [(HOST, "lan1")]
    edge.neighbour(f"replace {HOST} {LLADDR} nud reachable dev lan0", f"del {HOST} dev lan1")
    assert edge.routes() == [(HOST, "lan0")], "and back, when it is there no more"
    edge.neighbour(f"del {HOST} dev lan0")
    assert edge.routes() == []


def test_a_predecessors_host_route_is_no_hindrance_for_a_host_that_moved_meanwhile(topology: Topology) -> None:
    on_edge(topology, f"route add {HOST}/128 dev lan0 proto 136 metric 1024")
    with closing(Edge(topology)) as edge:
        edge.neighbour(f"replace {HOST} {LLADDR} nud reachable dev lan1")
        assert edge.routes() == [(HOST, "lan1")]


def test_somebody_elses_route_stays(edge: Edge) -> None:
    on_edge(edge.topology, f"route add {HOST}/128 dev lan1 metric 1024")
    edge.neighbour(f"replace {HOST} {LLADDR} nud reachable dev lan0")
    assert edge.routes() == []
    edge.neighbour(f"del {HOST} dev lan0")
    assert len(edge.topology.ip("edge", "-6", "route", "show", f"{HOST}/128")) == 1


BOTH = (HOST, "2001:db8:1::9a")
REMOVED = "another process removes our host routes"
FOREIGN = "another route is in the place of the host route to"


def both_there(edge: Edge) -> None:
    edge.neighbour(*(f"replace {host} {LLADDR} nud reachable dev lan0" for host in BOTH))
    assert edge.routes() == [(host, "lan0") for host in BOTH]


@pytest.mark.parametrize(
    "how",
    ["route flush proto 136", "route del 2001:db8:1::99/128 dev lan0", "route flush dev lan0", "route flush root ::/0"],
)
def test_a_host_route_that_somebody_else_removes_is_put_back_and_that_is_said_once(
    edge: Edge, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    both_there(edge)
    edge.change(f"-6 {how}")
    assert edge.routes() == [(host, "lan0") for host in BOTH]
    for _ in range(3):  # at most once a second
        edge.topology.run("edge", "ip", "-6", *how.split())
        edge.take_in()
    assert until(lambda: edge.take_in() or len(edge.routes()) == 2, 2.0)
    assert caplog.text.count(REMOVED) == 1
    edge.neighbour(f"del {HOST} dev lan0")
    edge.change("-6 route flush proto 136")
    assert until(lambda: edge.take_in() or edge.routes() == [(BOTH[1], "lan0")], 2.0), "what is gone stays gone"


def test_another_route_in_the_place_of_a_host_route_stays_and_is_said_until_it_goes(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    both_there(edge)
    edge.change(f"-6 route replace {HOST}/128 dev lan1 proto static metric 1024")
    assert edge.routes() == [(BOTH[1], "lan0")]
    assert caplog.text.count(FOREIGN) == 1
    edge.neighbour(f"replace {HOST} {LLADDR} nud stale dev lan0")
    edge.change(f"-6 route replace {HOST}/128 dev lan1 proto ra metric 1024")
    assert edge.routes() == [(BOTH[1], "lan0")]
    edge.change(f"-6 route del {HOST}/128 dev lan1")
    assert edge.routes() == [(host, "lan0") for host in BOTH]
    edge.change(f"-6 route replace {HOST}/128 dev lan1 proto 136 metric 1024")
    assert edge.topology.ip("edge", "-6", "route", "show", f"{HOST}/128")[0]["dev"] == "lan1", "by our number, even"
    edge.change(f"-6 route del {HOST}/128 dev lan1")
    assert until(lambda: edge.take_in() or len(edge.routes()) == 2, 15.0)
    assert caplog.text.count(FOREIGN) == 1
    assert REMOVED not in caplog.text


@pytest.mark.parametrize("kind", ["blackhole", "unreachable"])
def test_a_route_that_was_in_the_place_before_is_said_too(
    edge: Edge, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    edge.change(f"-6 route add {kind} {HOST}/128 metric 1024")
    edge.neighbour(f"replace {HOST} {LLADDR} nud reachable dev lan0")
    assert edge.routes() == []
    assert caplog.text.count(FOREIGN) == 1


def test_a_route_that_goes_before_ours_is_said(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    both_there(edge)
    edge.change(f"-6 route add {HOST}/128 dev lan0 metric 5")
    assert FOREIGN not in caplog.text, "it leads to the same"
    edge.change(f"-6 route add {BOTH[1]}/128 dev lan1 metric 5")
    assert caplog.text.count(FOREIGN) == 1
    assert edge.routes() == [(host, "lan0") for host in BOTH]


def test_host_routes_go_with_their_interface_and_nobody_is_blamed(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    for down, up in (
        ("link set lan0 down", "link set lan0 up"),
        ("link set lan0 down", "link set lan0 up"),
    ):
        both_there(edge)
        edge.change(down)
        assert edge.routes() == []
        edge.change(up)
        assert edge.routes() == [], "nobody is known to be there"
    both_there(edge)
    edge.change("link set lan0 down", "link set lan0 up")
    assert edge.routes() == [], "at once, before we have looked"
    edge.neighbour(f"replace {HOST} {LLADDR} nud reachable dev lan1")
    edge.change("link del lan1")
    assert edge.routes() == []
    assert caplog.text.count(REMOVED) == 0


def test_what_others_did_while_announcements_were_lost_is_read_and_mended(edge: Edge) -> None:
    both_there(edge)
    watch = edge.resolution.routes._watch._changes
    watch.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    edge.topology.run("edge", "ip", "-6", "route", "flush", "proto", "136", check=True)
    on_edge(edge.topology, *(f"-6 route add 2001:db8:77::{number:x}/128 dev lan0" for number in range(8)))
    ours = ("-6", "route", "show", "proto", "136")
    assert until(lambda: edge.take_in() or len(edge.topology.ip("edge", *ours)) == 2, 3.0), "read once a second at most"
    assert edge.routes() == [(host, "lan0") for host in BOTH]


def test_a_routing_table_that_changes_wakes_nobody_up_for_its_other_routes(edge: Edge) -> None:
    both_there(edge)
    on_edge(edge.topology, "-6 route add 2001:db8:5::/64 dev lan0", "-6 route add 2001:db8:5:1::/127 dev lan1")
    on_edge(edge.topology, "-6 addr add 2001:db8:6::1/64 dev lan1 nodad", "-6 route del 2001:db8:5::/64 dev lan0")
    fds = [edge.resolution.routes.fileno()]
    assert select.select(fds, [], [], 0.1)[0] == []
    on_edge(edge.topology, "-6 route add 2001:db8:5::1/128 dev lan0")
    assert select.select(fds, [], [], 1.0)[0] == fds
    edge.take_in()
    edge.neighbour(f"replace 2001:db8:1::9b {LLADDR} nud reachable dev lan0")
    assert select.select(fds, [], [], 0.1)[0] == [], "nor for ours, by us"


def test_host_routes_are_in_the_table_of_their_interfaces_vrf_and_follow_it(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel takes a route into any table; that it looks there is the VRF's doing (tests/kernels)."""
    rule = "2001:db8:1::/64 neighbour via=lan0,lan1 host_routes=true"
    there = [(host, "lan0") for host in BOTH]
    edge.go_by(rule, {"lan0": 1000})
    edge.neighbour(*(f"replace {host} {LLADDR} nud reachable dev lan0" for host in BOTH))
    edge.neighbour(f"replace {HOST} {LLADDR} nud reachable dev lan1")
    assert (edge.routes("1000"), edge.routes()) == (there, [(HOST, "lan1")]), "in another VRF, it is another host"
    edge.neighbour(f"del {HOST} dev lan1")
    edge.change("-6 route flush table 1000")
    assert edge.routes("1000") == there
    assert REMOVED in caplog.text
    for tables, table in (({"lan0": 10, "lan1": 1000}, "10"), ({}, "main"), ({"lan0": 70_000}, "70000")):
        edge.go_by(rule, tables)
        edge.take_in()
        assert edge.routes(table) == there, "moved"
        assert len(edge.resolution.routes) == 2
    edge.resolution.close()
    assert edge.topology.ip("edge", "-6", "route", "show", "table", "all", "proto", "136") == []


def test_a_reload_that_is_given_up_while_another_table_is_being_settled_leaves_no_host_route_behind(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = "2001:db8:1::/64 neighbour via=lan0,lan1 host_routes=true"
    both_there(edge)
    edge.go_by(rule)
    before = edge.table
    with monkeypatch.context() as patch:
        patch.setattr(hosts_room, "SLICE", 0.0)
        edge.change(f"address add {HOST}/128 dev wan0 nodad")  # it is the edge's own now
        edge.go_by(rule, before=before)
        assert edge.resolution.neighbours.touched
        assert edge.resolution._hosts._settling is not None
    with ExitStack() as undo:
        finish(edge.resolution.prepare(in_force(before, {}), Change(undo, asked=True)))
    edge.settle()
    assert edge.routes() == [(BOTH[1], "lan0")]


def test_a_dead_predecessors_routes_in_other_tables_go_too(topology: Topology) -> None:
    lines = [f"-6 route add 2001:db8:1::{number:x}/128 dev lan0 proto 136 table 1{number}" for number in range(3)]
    on_edge(topology, *lines, f"-6 route add {HOST}/128 dev lan0 proto 136 table 1000")
    with closing(Edge(topology)) as edge:
        edge.settle()
        assert edge.topology.ip("edge", "-6", "route", "show", "table", "all", "proto", "136") == []


def test_a_route_to_a_host_that_has_gone_in_silence_goes_when_nobody_asks_either(edge: Edge) -> None:
    """Its entry would stay stale for as long as the kernel's table is small."""
    edge.topology.sysctl("edge", "net/ipv6/neigh/lan0/retrans_time_ms", 100)
    edge.resolution._hosts.led._quiet = Quiet(1.0, 1)
    stale = "nud stale dev lan0"
    both_there(edge)
    began = time.monotonic()
    edge.neighbour(
        *(f"replace {host} {LLADDR} {stale}" for host in BOTH),
        f"replace 2001:db8:1::9c {LLADDR} {stale} extern_learn",
        f"replace {HOST_ADDRESS} lladdr {HOST_MAC} {stale}",
    )
    assert len(edge.routes()) == 4
    wanted = [("2001:db8:1::9c", "lan0"), (HOST_ADDRESS, "lan0")]
    assert until(lambda: edge.take_in() or sorted(edge.routes()) == sorted(wanted), 10.0)
    assert time.monotonic() - began > 2.0, "one a second"
    assert until(lambda: edge.take_in() or edge.state(HOST_ADDRESS) == "REACHABLE", 5.0), "that one is there"
    assert edge.state("2001:db8:1::9c") == "STALE", "that one is asked by who has learned it"


def looked_for(edge: Edge) -> bool:
    found = edge.topology.ip("edge", "-6", "neigh", "show", "to", HOST, "dev", "lan0")
    return any("INCOMPLETE" in entry["state"] for entry in found)


@pytest.mark.parametrize("how", ["link down", "overflown"])
def test_a_target_whose_entry_vanishes_while_it_is_looked_for_is_looked_for_again(
    edge: Edge, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.topology.sysctl("edge", "net/ipv6/neigh/lan0/mcast_solicit", 30)  # not given up while we look
    assert edge.ask(HOST) is Outcome.PENDING
    edge.resolution._hosts.on_change()
    assert looked_for(edge)
    if how == "link down":
        on_edge(edge.topology, "link set lan0 down", "link set lan0 up")
        edge.resolution._hosts.on_change()
    else:
        on_edge(edge.topology, f"neigh del {HOST} dev lan0")
        monkeypatch.setattr(edge.resolution._hosts.watch, "take_changes", overflow)
        edge.resolution._hosts.on_change()
        edge.settle()
    assert looked_for(edge)


def overflow(_deadline: float) -> Iterator[object]:
    raise nlsocket.Overflow


def test_a_reading_that_the_kernels_table_outgrew_meanwhile_forgets_nobody_and_is_begun_anew(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel leaves out whom another bucket has now, and doesn't say so. A table that grows once has grown for good
    until the machine starts anew, so here its hash is another, and the lines aren't told.
    """
    run_batch(edge, many("replace", 20))
    edge.take_in()
    watch, known = edge.resolution._hosts.watch, edge.resolution.neighbours
    assert len(known) == 20
    run_batch(edge, many("replace", 21))
    nlsocket.discard(watch._changes.socket)
    tell, hashes, readings = watch._dump.pieces, iter([(1, 7), (2, 15)]), []

    def told(request: Callable[[int], bytes]) -> Iterator[list[Message]]:
        is_table = request is neighbour_messages.dump_neighbours
        readings.extend([request] * is_table)
        for piece in tell(request):
            yield [] if is_table and len(readings) == 1 else piece

    monkeypatch.setattr(watch._dump, "pieces", told)
    monkeypatch.setattr(neighbour_messages, "parse_neighbour_hash", lambda _: next(hashes, (2, 15)))
    with monkeypatch.context() as patch:
        patch.setattr(watch, "take_changes", overflow)
        edge.resolution._hosts.on_change()
    while edge.resolution._hosts._resync.is_under_way:
        edge.resolution.tick(time.monotonic())
    assert (len(readings), len(known)) == (1, 20)
    assert until(lambda: edge.take_in() or len(known) == 21)
    assert len(readings) == 2


def test_a_host_that_a_reading_left_out_is_asked_about_before_it_is_forgotten(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel counts the entries of a bucket: when one that it has told goes between two pieces, it skips one."""
    run_batch(edge, many("replace", 20))
    edge.take_in()
    run_batch(edge, many("del", 3))
    watch, known = edge.resolution._hosts.watch, edge.resolution.neighbours
    nlsocket.discard(watch._changes.socket)
    monkeypatch.setattr(watch, "table", lambda: iter([[]]))
    assert len(known) == 20
    edge.resolution._hosts._resync.begin()
    while edge.resolution._hosts._resync.is_under_way:
        edge.resolution.tick(time.monotonic())
    assert len(known) == 17


def test_after_a_reading_that_was_given_up_the_next_one_is_whole(edge: Edge) -> None:
    """The kernel tells one thing at a time on a socket, and would refuse the next until somebody takes the rest."""
    count = 2000
    run_batch(edge, many("replace", count))
    with edge.topology.inside("edge"), closing(NeighbourWatch()) as watch:
        given_up = watch.table()
        assert any(given_up), "a piece of it"
        del given_up
        found = {host.address for piece in watch.table() for host, _ in piece}
    assert len(found & {ip6(f"2001:db8:1::{number:x}") for number in range(0x100, 0x100 + count)}) == count


@pytest.mark.parametrize("how", ["managed", "extern_learn"])
def test_an_entry_that_somebody_looks_after_is_not_ours_to_take_out_and_stays_what_it_is(
    edge: Edge, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as the kernel's own table goes; one that is full would take a failed one out, too."""
    mark = {"managed": NeighbourState.MANAGED, "extern_learn": NeighbourState.LEARNED}[how]
    resolution = edge.resolution
    deleted: list[Host] = []
    monkeypatch.setattr(resolution._hosts.watch, "delete", deleted.append)
    for mine in (False, True):
        assert edge.ask(HOST) is Outcome.PENDING
        hosts = resolution.pending.hosts(*resolution.pending.targets()[0])
        for host in hosts:
            resolution._hosts._state_changed(host, NeighbourState.FAILED | (0 if mine else mark))
        assert len(resolution.pending) == 0
        assert deleted == (hosts if mine else [])


# --- thousands at once ---

MANY = 20_000
HELD = 0.025  # seconds of processor time: what the loop may be held for is 50 ms, and other tests run beside this one


class Slices:
    """Has a resolution do its work as the loop does, and keeps what the longest piece of it took."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self.longest = 0.0
        self.count = 0

    def _timed(self, call: Callable[..., object], *arguments: object) -> None:
        began = time.thread_time()
        call(*arguments)
        self.longest = max(self.longest, time.thread_time() - began)
        self.count += 1

    def turn(self) -> bool:
        """What there is to do now; whether there was anything."""
        resolution = self._edge.resolution
        calls = dict(resolution.readable())
        due = resolution.due
        ready, _, _ = select.select(list(calls), [], [], 0.0 if due is not None and due <= time.monotonic() else 0.05)
        for fd in ready:
            self._timed(calls[fd])
        has_work = resolution.due is not None and resolution.due <= time.monotonic()
        if has_work:
            self._timed(resolution.tick, time.monotonic())
        return bool(ready) or has_work

    def until(self, done: Callable[[], bool], seconds: float = 240.0) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.turn() and done():
                return True
        return done()


def many(verb: str, count: int = MANY) -> str:
    """Lines for ip -batch: neighbours that a control plane has learned, which gc_thresh3 doesn't count."""
    tail = "lladdr 02:00:00:00:01:01 dev lan0 nud reachable extern_learn" if verb != "del" else "dev lan0"
    return "".join(f"neigh {verb} 2001:db8:1::{number:x} {tail}\n" for number in range(0x100, 0x100 + count))


def run_batch(edge: Edge, lines: str) -> None:
    batch = edge.topology.directory / "batch"
    batch.write_text(lines)
    edge.topology.run("edge", "ip", "-6", "-batch", str(batch), check=True, timeout=120.0)


@pytest.mark.alone
@pytest.mark.parametrize("host_routes", [False, True], ids=["hosts alone", "with host routes"])
def test_thousands_of_neighbours_that_come_and_go_never_hold_the_loop_for_long(
    topology: Topology, uncollected: None, host_routes: bool
) -> None:
    """More than announcements may wait, so that some are dropped and the table is read anew."""
    count = MANY // 10 if host_routes else MANY
    # else all of them would be announced as stale after 15 to 45 s, which is a flood more where the machine is slow
    topology.sysctl("edge", "net/ipv6/neigh/lan0/base_reachable_time_ms", 3_600_000)
    with closing(Edge(topology, "2001:db8:1::/64 neighbour via=lan0" + " host_routes=true" * host_routes)) as edge:
        slices = Slices(edge)
        known, routes = edge.resolution.neighbours, edge.resolution.routes
        edge.receive_buffer(1 << 20)
        for verb, wanted in (("replace", count), ("del", 0)):
            run_batch(edge, many(verb, count))
            assert slices.until(lambda: len(known) == wanted and len(routes) == wanted * host_routes)  # noqa: B023
            assert len(edge.routes()) == len(routes)
    print(f"{slices.count} slices, the longest {slices.longest * 1e3:.1f} ms")
    assert slices.count > 20
    assert slices.longest < HELD


@pytest.mark.alone
def test_thousands_of_targets_under_way_never_hold_the_loop_for_long_while_they_fail(
    edge: Edge, uncollected: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's table has no space for so many, so most of them are refused; the rest fails or is given up."""
    monkeypatch.setattr(pending, "PENDING_SECONDS", 3.0)
    slices = Slices(edge)
    for interface in ("lan0", "lan1"):  # it gives up in 0.3 s, not in 3
        edge.topology.sysctl("edge", f"net/ipv6/neigh/{interface}/retrans_time_ms", 100)
    edge.resolution._space.sized(1 << 14, 0, None, float("inf"))
    count = 16_000
    for number in range(count):
        assert edge.ask(f"2001:db8:1::{number:x}", asker=number) in (Outcome.PENDING, Limit.CROWDED)
    assert len(edge.resolution.pending) > 1000
    began = time.thread_time()
    for number in range(1000):
        edge.ask(f"2001:db8:1::5:{number:x}", asker=number)
    assert time.thread_time() - began < 1000 * 200e-6, "one more costs as much as the first"
    assert slices.until(lambda: len(edge.resolution.pending) == 0, 30.0)
    print(f"{slices.count} slices, the longest {slices.longest * 1e3:.1f} ms")
    assert slices.longest < HELD


def test_without_rules_of_method_neighbour_nobody_listens(topology: Topology) -> None:
    with closing(Edge(topology, "2001:db8:1::/64 static")) as edge:
        fds = [fd for fd, _ in edge.resolution.readable()]
        run_batch(edge, many("replace", 50))
        assert select.select(fds, [], [], 0.1)[0] == []
        assert len(edge.resolution.neighbours) == 0
        edge.go_by("2001:db8:1::/64 neighbour via=lan0")
        assert len(edge.resolution.neighbours) == 50, "those that were there before the rule"
        run_batch(edge, many("del", 20))
        edge.take_in()
        assert len(edge.resolution.neighbours) == 30
        edge.go_by("2001:db8:1::/64 static")
        run_batch(edge, many("replace", 20))
        assert select.select(fds, [], [], 0.1)[0] == []
        assert len(edge.resolution.neighbours) == 0
