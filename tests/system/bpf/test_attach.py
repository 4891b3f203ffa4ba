# SPDX-License-Identifier: GPL-2.0-or-later
"""Links that outlive who has made them: taken over with the program's place, or let go of."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.bpf.attach import AttachMode, Inherited, Keeper, Links
from npd6_xdp.system.bpf.compiler import compile_program
from tests.bench.many_ports import make

GENERIC, NATIVE = AttachMode.GENERIC, AttachMode.NATIVE


@pytest.fixture(scope="module")
def programs() -> Iterator[list[int]]:
    """Descriptors of two programs that pass all frames."""
    modules = [compile_program(f"int pass{n}(void *ctx) {{ return 2; }}", f"pass{n}", {}) for n in (1, 2)]
    yield [int(function.fd) for _, function in modules]
    for module, _ in modules:
        module.cleanup()


class Holder(Keeper):
    """What a process has of a shelf."""

    def __init__(self, shelf: dict[int, int], unwanted: Sequence[int]) -> None:
        self._shelf = shelf
        self.inherited = [
            Inherited(ifindex, os.dup(fd), str(ifindex), ifindex not in unwanted) for ifindex, fd in shelf.items()
        ]
        self.adopted: list[int] = []

    def keep(self, ifindex: int, fd: int) -> None:
        assert ifindex not in self._shelf
        self._shelf[ifindex] = os.dup(fd)

    def adopt(self, link: Inherited) -> None:
        self.adopted.append(link.ifindex)

    def drop(self, link: Inherited) -> None:
        self.release(int(link.name))

    def release(self, ifindex: int) -> None:
        os.close(self._shelf.pop(ifindex))


class Shelf:
    """Keeps links as a service manager does: by descriptors of its own."""

    def __init__(self) -> None:
        self.fds: dict[int, int] = {}

    def keeper(self, unwanted: Sequence[int] = ()) -> Holder:
        """For somebody who comes anew."""
        return Holder(self.fds, unwanted)

    def close(self) -> None:
        for fd in self.fds.values():
            os.close(fd)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with closing(Shelf()) as shelf:
        yield shelf


def open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def xdp(topology: Topology) -> dict[str, Any] | None:
    """What sits on wan0: its mode and the program's id."""
    (link,) = topology.ip("edge", "link", "show", "dev", "wan0")
    return {"mode": link["xdp"]["mode"], "program": link["xdp"]["prog"]["id"]} if "xdp" in link else None


def leave(shelf: Shelf, program: int, *names: str) -> None:
    """A predecessor's program sits on these, and it has ended."""
    links = Links(shelf.keeper())
    for name in names:
        links.attach(program, socket.if_nametoindex(name), name, GENERIC)
    links.close(leave=True)


def test_a_program_stays_when_its_links_are_left_and_its_successor_takes_its_place(
    topology: Topology, programs: list[int], shelf: Shelf
) -> None:
    before = open_files()
    with topology.inside("edge"):
        wan0 = socket.if_nametoindex("wan0")
        first = Links(shelf.keeper())
        first.attach(programs[0], wan0, "wan0", GENERIC)
        left = xdp(topology)
        first.close(leave=True)
        assert left is not None
        assert xdp(topology) == left
        keeper = shelf.keeper()
        second = Links(keeper)
        assert second.inherited(wan0) is GENERIC
        assert second.attach(programs[1], wan0, "wan0", GENERIC)
        assert keeper.adopted == [wan0]
        now = xdp(topology)
        assert now is not None
        assert now["mode"] == left["mode"]
        assert now["program"] != left["program"]
        assert (second.let_go(), second.taken_off([wan0])) == ([], [])
        second.close()
        assert xdp(topology) is None, "though the shelf had it, too"
    assert shelf.fds == {}
    assert open_files() == before


def test_one_that_sits_in_another_mode_is_taken_off_first(
    topology: Topology, programs: list[int], shelf: Shelf
) -> None:
    with topology.inside("edge"):
        wan0 = socket.if_nametoindex("wan0")
        leave(shelf, programs[0], "wan0")
        second = Links(shelf.keeper())
        assert not second.attach(programs[1], wan0, "wan0", NATIVE)
        assert [*shelf.fds] == [wan0]
        assert second.inherited(wan0) is None
        (link,) = topology.ip("edge", "link", "show", "dev", "wan0")
        assert link["xdp"]["mode"] == 1
        second.close()


def test_what_nobody_attaches_to_is_let_go(topology: Topology, programs: list[int], shelf: Shelf) -> None:
    before = open_files()
    with topology.inside("edge"):
        wan0, lan0 = (socket.if_nametoindex(name) for name in ("wan0", "lan0"))
        leave(shelf, programs[0], "wan0", "lan0")
        second = Links(shelf.keeper())
        second.attach(programs[1], lan0, "lan0", GENERIC)
        assert second.let_go() == [wan0]
        assert xdp(topology) is None
        assert [*shelf.fds] == [lan0]
        second.close()
    assert open_files() == before


def test_what_is_no_link_of_that_interface_isnt_believed(topology: Topology, programs: list[int], shelf: Shelf) -> None:
    """Whatever has the right name in there: a socket, another interface's link, one whose interface is gone."""
    before = open_files()
    with topology.inside("edge"):
        wan0, lan0 = (socket.if_nametoindex(name) for name in ("wan0", "lan0"))
        leave(shelf, programs[0], "wan0", "lan0")
        shelf.fds[7777] = os.dup(shelf.fds[wan0])
        with socket.socket() as other:
            shelf.fds[7778] = os.dup(other.fileno())
        topology.run("edge", "ip", "link", "del", "lan0", check=True)
        second = Links(shelf.keeper())
        assert [second.inherited(each) for each in (wan0, lan0, 7777, 7778)] == [GENERIC, None, None, None]
        assert [*shelf.fds] == [wan0]
        assert second.let_go() == [wan0]
    assert open_files() == before


def test_what_isnt_wanted_any_more_is_taken_off_before_anything_is_attached(
    topology: Topology, programs: list[int], shelf: Shelf
) -> None:
    before = open_files()
    with topology.inside("edge"):
        wan0 = socket.if_nametoindex("wan0")
        leave(shelf, programs[0], "wan0")
        second = Links(shelf.keeper(unwanted=[wan0]))
        assert (second.inherited(wan0), xdp(topology), shelf.fds) == (None, None, {})
        assert not second.attach(programs[1], wan0, "wan0", GENERIC)
        second.close()
    assert open_files() == before


def test_what_nobody_has_taken_over_yet_is_left_as_well(topology: Topology, programs: list[int], shelf: Shelf) -> None:
    """By a start that fails: the program before it goes on."""
    before = open_files()
    with topology.inside("edge"):
        wan0 = socket.if_nametoindex("wan0")
        first = Links(shelf.keeper())
        first.attach(programs[0], wan0, "wan0", GENERIC)
        left = xdp(topology)
        first.close(leave=True)
        Links(shelf.keeper()).close(leave=True)
        assert xdp(topology) == left
        third = Links(shelf.keeper())
        assert third.let_go() == [wan0]
        assert xdp(topology) is None
    assert open_files() == before


def test_what_a_link_costs_a_successor_does_not_grow_with_the_interfaces_around_it(
    topology: Topology, programs: list[int], shelf: Shelf
) -> None:
    """Where it did, a start behind 4,000 ports took longer than systemd waits for one."""

    def cost() -> float:
        """Of the processor's time, at the best."""
        found = []
        for _ in range(9):
            began = time.process_time()
            links = Links(shelf.keeper())
            found.append(time.process_time() - began)
            assert links.inherits
            links.close(leave=True)
        return min(found)

    with topology.inside("edge"):
        leave(shelf, programs[0], "wan0")
        few = cost()
        make(topology, 300)
        many = cost()
    print(f"{1e6 * few:.0f} us among a few, {1e6 * many:.0f} us among 300")
    assert many < 5 * few
