# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that doesn't tell what it is asked for: that is said once, and tried again."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.event import EventFlag, NsEvent
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.neighbour_messages import NeighbourState, Word
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.roles import MacDevice
from npd6_xdp.core.routes import RoutingFlag
from npd6_xdp.core.steps import Steps, finish
from npd6_xdp.core.table import Table
from npd6_xdp.daemon import turns
from npd6_xdp.daemon.changes import Changes
from npd6_xdp.daemon.in_force import NO_TABLE, Change, Follower, InForce
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.machine import Machine, NextLook
from npd6_xdp.daemon.programs import Programs
from npd6_xdp.daemon.proxy_entries import ProxyEntries
from npd6_xdp.daemon.resolution import Resolution
from npd6_xdp.daemon.rings import Ring, Rings
from npd6_xdp.daemon.tracking import Tracking
from npd6_xdp.daemon.turns import Turns
from npd6_xdp.system.bpf.program import Fit
from npd6_xdp.system.netlink import nlsocket
from npd6_xdp.system.netlink.nlsocket import Group, Overflow
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.system.sysctl import Memory
from tests.daemon.forces import go_by, in_force
from tests.frames import ip6
from tests.netns.wire import configuration

LINKS = {
    name: LinkFacts(name, ifindex, bytes((2, 0, 0, 0, 0, ifindex))) for ifindex, name in ((7, "wan0"), (8, "lan0"))
}
LIMITS = Config(()).limits
TARGET = ip6("2001:db8:1::42")
WHY = "can't read from the kernel: it is tired"


def table(method: str) -> Table:
    lines = ["[[interface]]", 'name = "wan0"', "[[interface.rule]]", 'prefix = "2001:db8:1::/64"', method]
    return build(parse("\n".join(lines), "test"), LINKS)


KERNEL = table('method = "kernel"')
NEIGHBOUR = table('method = "neighbour"\nvia = ["lan0"]')
LED = table('method = "neighbour"\nvia = ["lan0"]\nhost_routes = true')


class NsFilter:
    """Takes in all that it is told."""

    def __init__(self) -> None:
        self.known: list[bytes] = []

    def set_present(self, _via_set: int, address: bytes, _flags: int) -> None:
        self.known.append(address)

    def fitting(self, *_: object) -> Steps[Fit]:
        return Fit.FEW
        yield

    def preparing(self, _: Table) -> Steps[None]:
        yield

    def __getattr__(self, name: str) -> Any:
        return lambda *_: 0


class Tired:
    """Requests that the kernel refuses to answer, until it `rests`."""

    def __init__(self) -> None:
        self.rests = False
        self.port = 0

    def proxy_entries(self) -> dict[Host, int]:
        return self._tell({})

    def has_proxy(self, _: Host) -> bool:
        return self._tell({})  # type: ignore[return-value]

    def neighbours(self) -> dict[Host, Word]:
        return self._tell({Host(8, TARGET): Word(NeighbourState.REACHABLE)})

    def host_routes(self) -> dict[Host, int]:
        return {}

    def neighbour_table_size(self) -> None:
        return None

    def _tell(self, answer: dict[Host, Any]) -> dict[Host, Any]:
        if not self.rests:
            raise MachineError(WHY)
        return answer

    def __getattr__(self, name: str) -> Any:
        return lambda *_: 0


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("npd6-xdp"), "propagate", True)
    return caplog


def test_method_kernel_goes_on_without_the_kernels_proxy_entries(
    tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    proxy_entries = ProxyEntries(NsFilter(), Tired(), Memory(tmp_path))  # type: ignore[arg-type]
    go_by(proxy_entries, in_force(KERNEL, {}))
    proxy_entries.ask(NsEvent(TARGET, TARGET, 0, 0, bytes(6), bytes(4), EventFlag.MISS), KERNEL.rules[0])
    proxy_entries.tick(0.0)
    assert proxy_entries.due is not None
    assert proxy_entries.refused == 1
    assert said.text.count(WHY) == 2, "once for the entries, once for the target"


@pytest.fixture
def resolution(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Resolution, Tired, NsFilter]]:
    """Which reads its table anew by the same words that `requests` says at the start."""
    ns_filter, requests = NsFilter(), Tired()
    resolution = Resolution(ns_filter, requests, lambda _: None)  # type: ignore[arg-type]

    def table() -> Iterator[list[tuple[Host, Word]]]:
        yield [*requests.neighbours().items()]

    monkeypatch.setattr(resolution._hosts.watch, "table", table)
    with closing(resolution):
        yield resolution, requests, ns_filter


def read_on(resolution: Resolution, after: float = 0.0) -> None:
    """As the loop does: all that is due within three seconds, so many seconds after now."""
    now = time.monotonic() + after
    end = now + 3
    while resolution.due is not None and resolution.due <= end:
        now = max(now, resolution.due)
        resolution.tick(now)


def test_hosts_that_the_kernel_did_not_tell_of_at_the_start_are_known_once_it_does(
    resolution: tuple[Resolution, Tired, NsFilter], said: pytest.LogCaptureFixture
) -> None:
    at_work, requests, ns_filter = resolution
    go_by(at_work, in_force(NEIGHBOUR, LINKS))
    read_on(at_work)
    assert ns_filter.known == []
    requests.rests = True
    assert at_work.due is not None
    read_on(at_work, after=3)
    assert ns_filter.known == [TARGET]
    assert at_work.due is None
    assert said.text.count(WHY) == 1


@pytest.mark.parametrize("group", [Group.NEIGH, Group.IPV6_ROUTE], ids=["hosts", "host routes"])
def test_hosts_are_known_though_the_kernel_had_no_space_for_a_listener_when_their_table_came_in_force(
    resolution: tuple[Resolution, Tired, NsFilter], monkeypatch: pytest.MonkeyPatch, group: Group
) -> None:
    at_work, requests, ns_filter = resolution
    requests.rests, new = True, in_force(LED, LINKS)
    whole, refused = nlsocket.join, [group]

    def join(netlink: socket.socket, which: Group, *, wanted: bool) -> None:
        if which in refused:
            refused.remove(which)
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        whole(netlink, which, wanted=wanted)

    monkeypatch.setattr(nlsocket, "join", join)
    with pytest.raises(MachineError, match="can't hear from the kernel what changes: Cannot allocate memory"):
        go_by(at_work, new)
    go_by(at_work, new)  # all is done again
    assert not refused
    assert ns_filter.known == [TARGET]


@pytest.mark.parametrize("before", [NO_TABLE, NEIGHBOUR], ids=["nothing", "hosts"])
@pytest.mark.parametrize("in_time", [False, True], ids=["given up", "in force"])
def test_what_a_table_needs_to_hear_of_is_heard_when_that_is_prepared_and_no_longer_where_that_comes_to_nothing(
    resolution: tuple[Resolution, Tired, NsFilter], monkeypatch: pytest.MonkeyPatch, before: Table, *, in_time: bool
) -> None:
    """All rooms go by it within one turn after that, and none of them may be refused."""
    at_work, requests, _ = resolution
    requests.rests = True
    heard: set[Group] = set()
    whole = nlsocket.join

    def join(netlink: socket.socket, group: Group, *, wanted: bool) -> None:
        whole(netlink, group, wanted=wanted)
        (heard.add if wanted else heard.discard)(group)

    monkeypatch.setattr(nlsocket, "join", join)
    old, new = in_force(before, LINKS), in_force(LED, LINKS)
    go_by(at_work, old)
    heard_before = set(heard)
    with ExitStack() as undo:
        finish(at_work.prepare(new, Change(undo, asked=True)))
        assert heard == {Group.NEIGH, Group.IPV6_ROUTE}
        at_work.apply(old)  # once more: hidden tags are seen meanwhile, say
        assert heard == {Group.NEIGH, Group.IPV6_ROUTE}
        assert not at_work.routes._unread
        if in_time:
            undo.pop_all()
            monkeypatch.setattr(nlsocket, "join", closed)
            at_work.apply(new)
            assert at_work.routes._unread, "what was there before anybody told"
    assert heard == ({Group.NEIGH, Group.IPV6_ROUTE} if in_time else heard_before)


def test_host_routes_that_are_prepared_for_are_heard_of_by_other_sockets_too(
    resolution: tuple[Resolution, Tired, NsFilter],
) -> None:
    at_work, requests, _ = resolution
    requests.rests = True
    go_by(at_work, in_force(NEIGHBOUR, LINKS))
    new = in_force(LED, LINKS)
    with ExitStack() as undo:
        finish(at_work.prepare(new, Change(undo, asked=True)))
        at_work.reopen()
        undo.pop_all()
    at_work.apply(new)
    assert at_work.routes._watch.listening
    assert at_work.routes._unread


def test_hosts_are_read_again_after_an_overflow_that_could_not_be_made_up_for_at_once(
    resolution: tuple[Resolution, Tired, NsFilter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(_deadline: float) -> NoReturn:
        raise Overflow

    at_work, requests, ns_filter = resolution
    go_by(at_work, in_force(NEIGHBOUR, LINKS))
    monkeypatch.setattr(at_work._hosts.watch, "take_changes", overflow)
    at_work._hosts.on_change()
    read_on(at_work)
    assert ns_filter.known == []
    requests.rests = True
    read_on(at_work, after=3)
    assert ns_filter.known == [TARGET]


def test_the_kernels_table_is_measured_once_a_table_is_in_force_and_not_in_that_turn(
    resolution: tuple[Resolution, Tired, NsFilter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells of each interface besides: of 4,000 in 20 ms, and all rooms go by a table within one turn."""
    at_work, requests, _ = resolution
    asked: list[int] = []
    monkeypatch.setattr(requests, "neighbour_table_size", lambda: asked.append(1))
    new = in_force(NEIGHBOUR, LINKS)
    with ExitStack() as undo:
        finish(at_work.prepare(new, Change(undo, asked=True)))
        undo.pop_all()
    at_work.apply(new)
    settling = at_work.settle(in_force(NO_TABLE, {}), new)
    next(settling)
    assert asked == []
    finish(settling)
    assert asked == [1]


class Links:
    """Links and addresses that can't be read."""

    def on_change(self, _deadline: float) -> bool:
        raise MachineError(WHY)

    def held(self, _: Set[str]) -> frozenset[str]:
        return frozenset()

    def devices(self, _: Set[bytes]) -> frozenset[MacDevice]:
        return frozenset()


class Ground:
    """Whatever leads rooms from one table to the next, on a machine that has LINKS, and doesn't change."""

    def __init__(self, config: Config, *followers: Follower) -> None:
        self.look = NextLook()
        self.turns = Turns(lambda: False)
        self.changes = Changes(self, self.look, self.turns, nullcontext(), followers)  # type: ignore[arg-type]
        self.changes.in_force = in_force(NO_TABLE, {}, config)
        doubtful: Any = SimpleNamespace(doubtful=False)
        self.tracking = Tracking(Anything(), self.look, self.changes, doubtful, Anything())  # type: ignore[arg-type]

    def meant(self, _: Config) -> Mapping[str, str]:
        return {}

    def take_in(self, change: Change) -> None:
        """Nothing was announced."""

    def watch(self, _: Config, change: Change) -> Steps[None]:
        yield from ()

    def held(self, _: Config) -> frozenset[str]:
        return frozenset()

    def facts(self, _: Config) -> Steps[Mapping[str, LinkFacts]]:
        return LINKS
        yield


def test_links_that_cannot_be_read_are_looked_at_again(said: pytest.LogCaptureFixture) -> None:
    ground = Ground(Config(()))
    with closing(Loop()) as loop, closing(Machine(loop, ground.look)) as machine:
        there, machine.netlink = machine.netlink, Links()  # type: ignore[assignment]
        changes = Changes(machine, ground.look, ground.turns, nullcontext(), [])
        tracking = Tracking(loop, ground.look, changes, Anything(), Anything())  # type: ignore[arg-type]
        for look in (machine.on_link_change, tracking.go_on, tracking.go_on):
            ground.look.at = None
            look()
            assert ground.look.at is not None
        machine.netlink = there
    assert said.text.count(WHY) == 1


def test_what_kinds_of_routes_there_are_is_told_once_they_are_read_by_other_sockets() -> None:
    """Such a route may have come or gone while nothing was heard, and none is announced for long."""
    read: Any = SimpleNamespace(flags=RoutingFlag.UNFOUND, watch=lambda *_, **__: None)
    told: list[RoutingFlag] = []
    with closing(Loop()) as loop, closing(Machine(loop, NextLook())) as machine:
        machine.join(loop, told.append)
        before, machine._routes = machine._routes, read
        finish(machine.watch(Config(()), Change(ExitStack(), asked=False)))
        machine._routes = before
    assert told == [RoutingFlag.UNFOUND]


def test_a_change_that_could_not_be_taken_in_is_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    ground = Ground(Config(()))
    changes = ground.changes
    monkeypatch.setattr("npd6_xdp.daemon.garbage.LARGE", 1)
    changes._former = NEIGHBOUR
    tried = []

    def put_in_force(new: InForce) -> None:
        tried.append(new.links)
        raise MachineError(WHY)

    monkeypatch.setattr(changes, "_put_in_force", put_in_force)
    ground.tracking.go_on()
    ground.tracking.go_on()
    assert tried == [LINKS, LINKS]
    assert ground.look.at is not None
    changes._let_go()
    assert not len(changes._remains), "else each look would hold more of it"


class Successors:
    """A program whose successor can't take over; what is made for it is `open` until it is closed."""

    def __init__(self) -> None:
        self.program: Any = Anything()
        self.open: set[str] = set()

    def fitting(self, *_: object) -> Steps[Fit]:
        return Fit.NOT
        yield

    def sizes(self, *_: object) -> dict[str, int]:
        return {}

    def add_successor(self, *_: object) -> Part:
        return Part(self.open, "program")

    def filling(self, *_: object) -> Steps[None]:
        yield

    def give_up(self, program: Part) -> None:
        program.close()

    def switch(self, *_: object) -> NoReturn:
        raise MachineError(WHY)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: 0


class Part:
    def __init__(self, opened: set[str], name: str) -> None:
        self.maps = opened
        self._name = name
        opened.add(name)

    def close(self) -> None:
        self.maps.remove(self._name)


def programs(ns_filter: Successors, rings: Rings) -> Programs:
    anything: Any = Anything()
    found = Programs(
        anything,
        ns_filter,  # type: ignore[arg-type]
        rings,
        anything,
        anything,
        Turns(lambda: False),
        nullcontext(),
        lambda: None,
    )
    found._in_force = in_force(NO_TABLE, {})
    return found


def test_a_larger_program_that_cannot_take_over_is_given_up_and_the_old_ones_ring_stays(
    monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    successors, anything = Successors(), Anything()
    with closing(Loop()) as loop:
        rings = Rings(loop)
        kept = Ring(Part(set(), "ring"))  # type: ignore[arg-type]
        rings._rings.append(kept)
        room = programs(successors, rings)

        def loading(*_: object) -> Steps[Anything]:
            yield
            return anything

        monkeypatch.setattr(room, "_loading", loading)
        monkeypatch.setattr("npd6_xdp.daemon.programs.EventRing", lambda maps: Part(maps, "ring"))
        opened: list[set[str]] = []
        monkeypatch.setattr(rings, "drain", lambda _: opened.append(set(successors.open)))
        ground = Ground(parse(configuration(), "test"), room)
        ground.tracking.go_on()
        while ground.tracking.is_under_way:
            ground.tracking.go_on()
    assert opened == [{"program", "ring"}]
    assert said.text.count(WHY) == 1
    assert successors.open == set()
    assert rings._rings == [kept]
    assert kept.until is None


@pytest.mark.parametrize("fit", [Fit.MUCH, Fit.NOT])
def test_where_no_program_can_be_loaded_what_the_maps_have_space_for_is_put_there_at_once(
    fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else no change of the machine would be taken in until there can be another process again."""
    ns_filter, anything = Successors(), Anything()
    room = programs(ns_filter, anything)  # type: ignore[arg-type]

    def fitting(*_: object) -> Steps[Fit]:
        return fit
        yield

    def no_process(*_: object, **__: object) -> NoReturn:
        raise MachineError(WHY)

    monkeypatch.setattr(ns_filter, "fitting", fitting)
    monkeypatch.setattr("npd6_xdp.daemon.loading.Aside", no_process)
    undo = ExitStack()
    with undo, pytest.raises(MachineError) if fit is Fit.NOT else nullcontext():
        finish(room.prepare(in_force(NEIGHBOUR, LINKS), Change(undo, asked=True)))
    assert room._successor is None


class Anything:
    """Says nothing to whatever it is told."""

    def follow_program(self, _: object) -> AbstractContextManager[None]:
        return nullcontext()

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: ()


def test_a_request_that_stays_without_an_answer_is_a_reason_or_a_machine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(1, TARGET)
    with closing(Requests()) as requests:
        monkeypatch.setattr(requests._asking, "socket", closed())
        assert requests.delete_proxy(host) == errno.EBADF
        for ask in (
            requests.neighbours,
            requests.proxy_entries,
            requests.host_routes,
            lambda: requests.has_proxy(host),
        ):
            with pytest.raises(MachineError):
                ask()


def closed() -> socket.socket:
    found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    found.close()
    return found


class Seen(Follower):
    """Notes which tables come in force."""

    def __init__(self) -> None:
        self.decided: list[Table] = []
        self.followed: list[Table] = []

    def apply(self, new: InForce) -> None:
        self.decided.append(new.table)

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        self.followed.append(new.table)
        yield from ()


def test_a_change_among_thousands_is_taken_in_by_steps_and_anew_where_another_table_comes_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "SLICE", 0.0)
    seen = Seen()
    ground = Ground(parse(configuration().replace('"wan0"', '"*0"'), "test"), seen)
    changes, tracking = ground.changes, ground.tracking
    tracking.go_on()
    assert tracking.is_under_way
    changes.in_force = meanwhile = replace(changes.in_force, table=build(changes.in_force.config, {}))
    while tracking.is_under_way:
        tracking.go_on()
    assert seen.decided == seen.followed == []
    assert ground.look.at is not None, "it begins anew"
    tracking.go_on()
    assert changes.in_force is meanwhile
    while tracking.is_under_way:
        tracking.go_on()
    assert len(seen.decided) == 1
    assert seen.followed == seen.decided
    assert seen.decided[0].ports == {7, 8}
