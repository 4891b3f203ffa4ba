# SPDX-License-Identifier: GPL-2.0-or-later
"""Links that outlive who has made them: taken over with the program's place, or let go of."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.config import TcOrder
from npd6_xdp.core.errors import MachineError
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.bpf.attach import Functions, Inherited, Keeper, Links
from npd6_xdp.system.bpf.compiler import compile_program, load_bcc, load_function
from npd6_xdp.system.bpf.others import MOST_AT_TC, program_name, tc_programs
from npd6_xdp.system.bpf.refusals import Refused, Taken
from tests.bench.many_ports import make
from tests.netns.wire import on_edge

GENERIC, NATIVE, TC = AttachMode.GENERIC, AttachMode.NATIVE, AttachMode.TC
MODES = pytest.mark.parametrize("mode", [GENERIC, TC])


@pytest.fixture(scope="module")
def programs() -> Iterator[list[Functions]]:
    """Of two programs that pass all frames, as XDP and at tc, where -1 is TCX_NEXT."""
    found, modules = [], []
    for n in (1, 2):
        text = f"int pass{n}(void *ctx) {{ return 2; }}\nint next{n}(void *ctx) {{ return -1; }}\n"
        module, function = compile_program(text, f"pass{n}", {})
        at_tc = load_function(module, f"next{n}", load_bcc().BPF.SCHED_CLS)
        found.append(Functions(int(function.fd), int(at_tc.fd)))
        modules.append(module)
    yield found
    for module in modules:
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


def sits(topology: Topology) -> dict[str, Any] | None:
    """What sits on wan0: how, and the program's id."""
    (link,) = topology.ip("edge", "link", "show", "dev", "wan0")
    if "xdp" in link:
        return {"mode": link["xdp"]["mode"], "program": link["xdp"]["prog"]["id"]}
    with topology.inside("edge"):
        found = tc_programs(socket.if_nametoindex("wan0"))
    return {"mode": TC, "program": found[0]} if found else None


def leave(shelf: Shelf, program: Functions, *names: str, mode: AttachMode = GENERIC) -> None:
    """A predecessor's program sits on these, and it has ended."""
    links = Links(shelf.keeper())
    for name in names:
        links.attach(program, socket.if_nametoindex(name), name, mode)
    links.close(leave=True)


@MODES
def test_a_program_stays_when_its_links_are_left_and_its_successor_takes_its_place(
    topology: Topology, programs: list[Functions], shelf: Shelf, mode: AttachMode
) -> None:
    before = open_files()
    with topology.inside("edge"):
        wan0 = socket.if_nametoindex("wan0")
        first = Links(shelf.keeper())
        first.attach(programs[0], wan0, "wan0", mode)
        left = sits(topology)
        first.close(leave=True)
        assert left is not None
        assert sits(topology) == left
        keeper = shelf.keeper()
        second = Links(keeper)
        assert second.inherited(wan0) is mode
        assert second.attach(programs[1], wan0, "wan0", mode)
        assert keeper.adopted == [wan0]
        now = sits(topology)
        assert now is not None
        assert now["mode"] == left["mode"]
        assert now["program"] != left["program"]
        assert (second.let_go(), second.taken_off([wan0])) == ([], [])
        second.close()
        assert sits(topology) is None, "though the shelf had it, too"
    assert shelf.fds == {}
    assert open_files() == before


@pytest.mark.parametrize("has_tcx", [True, False])
def test_one_that_sits_in_another_mode_stays_or_goes_first_where_there_is_no_tc_to_go_by(
    topology: Topology, programs: list[Functions], shelf: Shelf, *, has_tcx: bool
) -> None:
    with topology.inside("edge"):
        wan0 = socket.if_nametoindex("wan0")
        leave(shelf, programs[0], "wan0")
        second = Links(shelf.keeper())
        ours = programs[1] if has_tcx else programs[1]._replace(tc=-1)
        assert second.attach(ours, wan0, "wan0", NATIVE) is has_tcx
        assert [*shelf.fds] == [wan0]
        assert second.inherited(wan0) is None
        assert (second.take_gap() > 0, second.take_gap()) == (not has_tcx, 0), "it says for how long none was there"
        for mode in (GENERIC, NATIVE):
            assert not second.attach(ours, wan0, "wan0", mode)
            assert (second.take_gap() > 0) is not has_tcx
            assert second.sits(wan0) is mode
            (link,) = topology.ip("edge", "link", "show", "dev", "wan0")
            assert link["xdp"]["mode"] == (1 if mode is NATIVE else 2)
            assert tc_programs(wan0) == []
            assert [*shelf.fds] == [wan0]
        second.close()


def test_where_the_driver_refuses_it_stays_as_it_was(topology: Topology, programs: list[Functions]) -> None:
    before = open_files()
    with topology.inside("edge"), closing(Links()) as links:
        on_edge(topology, "link set wan0 mtu 9000")  # more than veth takes natively
        topology.run("upstream", "ip", "link", "set", "eth0", "mtu", "9000", check=True)
        wan0 = socket.if_nametoindex("wan0")
        for ours in (programs[0], programs[0]._replace(tc=-1)):
            for mode in (GENERIC, TC):
                links.attach(programs[0], wan0, "wan0", mode)
                with pytest.raises(Refused, match="the driver refuses an XDP program in native mode"):
                    links.attach(ours, wan0, "wan0", NATIVE)
                assert links.sits(wan0) is mode
                assert links.taken_off([wan0]) == []
                assert len(tc_programs(wan0)) == (mode is TC)
    assert open_files() == before


def test_at_tc_it_goes_from_one_place_to_the_other(
    topology: Topology, programs: list[Functions], others: tuple[Links, list[Functions]], shelf: Shelf
) -> None:
    before = open_files()
    with topology.inside("edge"), closing(Links(shelf.keeper())) as links:
        wan0 = socket.if_nametoindex("wan0")
        others[0].attach(others[1][0], wan0, "wan0", TC)
        for order in (TcOrder.FIRST, TcOrder.LAST, TcOrder.LAST, TcOrder.FIRST):
            assert not links.attach(programs[0], wan0, "wan0", TC, order)
            assert names_at_tc() == (["next1", "other0"] if order is TcOrder.FIRST else ["other0", "next1"])
            assert [*shelf.fds] == [wan0]
    others[0].close()
    assert shelf.fds == {}
    assert open_files() == before


def test_what_nobody_attaches_to_is_let_go(topology: Topology, programs: list[Functions], shelf: Shelf) -> None:
    before = open_files()
    with topology.inside("edge"):
        wan0, lan0 = (socket.if_nametoindex(name) for name in ("wan0", "lan0"))
        leave(shelf, programs[0], "wan0", "lan0")
        second = Links(shelf.keeper())
        second.attach(programs[1], lan0, "lan0", GENERIC)
        assert second.let_go() == [wan0]
        assert sits(topology) is None
        assert [*shelf.fds] == [lan0]
        second.close()
    assert open_files() == before


def test_what_is_no_link_of_that_interface_isnt_believed(
    topology: Topology, programs: list[Functions], shelf: Shelf
) -> None:
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
    topology: Topology, programs: list[Functions], shelf: Shelf
) -> None:
    before = open_files()
    with topology.inside("edge"):
        wan0 = socket.if_nametoindex("wan0")
        leave(shelf, programs[0], "wan0")
        second = Links(shelf.keeper(unwanted=[wan0]))
        assert (second.inherited(wan0), sits(topology), shelf.fds) == (None, None, {})
        assert not second.attach(programs[1], wan0, "wan0", GENERIC)
        second.close()
    assert open_files() == before


def test_what_nobody_has_taken_over_yet_is_left_as_well(
    topology: Topology, programs: list[Functions], shelf: Shelf
) -> None:
    """By a start that fails: the program before it goes on."""
    before = open_files()
    with topology.inside("edge"):
        wan0 = socket.if_nametoindex("wan0")
        first = Links(shelf.keeper())
        first.attach(programs[0], wan0, "wan0", GENERIC)
        left = sits(topology)
        first.close(leave=True)
        Links(shelf.keeper()).close(leave=True)
        assert sits(topology) == left
        third = Links(shelf.keeper())
        assert third.let_go() == [wan0]
        assert sits(topology) is None
    assert open_files() == before


def test_what_a_link_costs_a_successor_does_not_grow_with_the_interfaces_around_it(
    topology: Topology, programs: list[Functions], shelf: Shelf
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


@pytest.fixture
def others(topology: Topology) -> Iterator[tuple[Links, list[Functions]]]:
    """Tc programs of others, and their links."""
    text = "".join(f"int other{n}(void *ctx) {{ return -1; }}\n" for n in range(3))
    module, _ = compile_program("int none(void *ctx) { return 2; }\n" + text, "none", {})
    kind = load_bcc().BPF.SCHED_CLS
    found = [Functions(-1, int(load_function(module, f"other{n}", kind).fd)) for n in range(3)]
    links = Links()
    yield links, found
    links.close()
    module.cleanup()


def names_at_tc() -> list[str]:
    return [program_name(each) for each in tc_programs(socket.if_nametoindex("wan0"))]


@pytest.mark.parametrize(("order", "now"), [(TcOrder.FIRST, ["next1", "other0"]), (TcOrder.LAST, ["other0", "next1"])])
def test_by_tc_it_stands_first_or_last_among_those_that_are_there(
    topology: Topology, programs: list[Functions], others: tuple[Links, list[Functions]], order: TcOrder, now: list[str]
) -> None:
    with topology.inside("edge"):
        wan0 = socket.if_nametoindex("wan0")
        others[0].attach(others[1][0], wan0, "wan0", TC)
        with closing(Links()) as ours:
            ours.attach(programs[0], wan0, "wan0", TC, order)
            assert names_at_tc() == now
            ours.replace(programs[1], programs[0])
            assert names_at_tc() == [name.replace("next1", "next2") for name in now], (
                "a successor stands where it stood"
            )
        assert names_at_tc() == ["other0"]


@pytest.mark.parametrize("order", TcOrder)
def test_a_successor_takes_over_by_tc_in_its_place_and_goes_there_where_somebody_has_come_between(
    topology: Topology,
    programs: list[Functions],
    others: tuple[Links, list[Functions]],
    shelf: Shelf,
    order: TcOrder,
) -> None:
    before = open_files()
    with topology.inside("edge"):
        wan0 = socket.if_nametoindex("wan0")
        others[0].attach(others[1][0], wan0, "wan0", TC)
        with closing(Links(shelf.keeper())) as first:
            first.attach(programs[0], wan0, "wan0", TC, order)
            first.close(leave=True)
        second = Links(shelf.keeper())
        assert second.attach(programs[1], wan0, "wan0", TC, order)
        second.close(leave=True)
        others[0].detach(wan0)
        others[0].attach(others[1][1], wan0, "wan0", TC, order)  # and this one has the place now
        third = Links(shelf.keeper())
        assert third.attach(programs[0], wan0, "wan0", TC, order), "the predecessor's stays until then"
        names = ["next1", "other1"]
        assert names_at_tc() == (names if order is TcOrder.FIRST else names[::-1])
        third.close()
        assert names_at_tc() == ["other1"]
    assert shelf.fds == {}
    others[0].close()
    assert open_files() == before


def test_from_xdp_to_tc_and_back_what_was_inherited_stays_until_its_successor_is_there(
    topology: Topology, programs: list[Functions], shelf: Shelf
) -> None:
    before_all = open_files()
    with topology.inside("edge"):
        wan0 = socket.if_nametoindex("wan0")
        for before, mode in ((GENERIC, TC), (TC, GENERIC)):
            leave(shelf, programs[0], "wan0", mode=before)
            with closing(Links(shelf.keeper())) as links:
                assert links.inherited(wan0) is before
                assert links.attach(programs[1], wan0, "wan0", mode), "no frame was missed"
                assert links.inherited(wan0) is None
                found = sits(topology)
                assert found is not None
                assert (found["mode"] is TC) is (mode is TC)
                assert len(names_at_tc()) == (mode is TC)
                assert [*shelf.fds] == [wan0]
            assert shelf.fds == {}
    assert open_files() == before_all


def test_what_sits_at_tc_stays_there_where_xdp_cannot_be_had(
    topology: Topology, programs: list[Functions], others: tuple[Links, list[Functions]], shelf: Shelf
) -> None:
    """Somebody else has the place of XDP, whether what is at tc is a predecessor's or ours by now."""
    with topology.inside("edge"), closing(Links()) as foreign:
        wan0 = socket.if_nametoindex("wan0")
        foreign.attach(programs[0], wan0, "wan0", GENERIC)
        leave(shelf, programs[0], "wan0", mode=TC)
        with closing(Links(shelf.keeper())) as links:
            for mode in (NATIVE, GENERIC):
                with pytest.raises(Taken, match=r"^wan0: another XDP program is attached in generic mode: id \d+"):
                    links.attach(programs[1], wan0, "wan0", mode)
                assert names_at_tc() == ["next1"]
                assert links.inherited(wan0) is TC
            assert links.attach(programs[1], wan0, "wan0", TC), "its place is taken over all the same"
            with pytest.raises(Taken):
                links.attach(programs[1], wan0, "wan0", NATIVE)
            assert (names_at_tc(), links.taken_off([wan0])) == (["next2"], [])
            foreign.detach(wan0)
            assert not links.attach(programs[1], wan0, "wan0", NATIVE)
            assert (names_at_tc(), links.taken_off([wan0])) == ([], [])
            assert [*shelf.fds] == [wan0]
        assert sits(topology) is None
    assert shelf.fds == {}


def test_ports_in_both_modes_are_replaced_together_or_stay_as_they_are(
    topology: Topology, programs: list[Functions]
) -> None:
    with topology.inside("edge"), closing(Links()) as links:
        wan0, lan0 = (socket.if_nametoindex(name) for name in ("wan0", "lan0"))
        links.attach(programs[0], lan0, "lan0", GENERIC)
        links.attach(programs[0], wan0, "wan0", TC)
        with pytest.raises(MachineError, match="can't replace our program"):
            links.replace(Functions(programs[1].xdp, programs[1].xdp), programs[0])
        assert names_at_tc() == ["next1"]
        (link,) = topology.ip("edge", "link", "show", "dev", "lan0")
        assert link["xdp"]["prog"]["name"] == "pass1"
        links.replace(programs[1], programs[0])
        assert names_at_tc() == ["next2"]
        (link,) = topology.ip("edge", "link", "show", "dev", "lan0")
        assert link["xdp"]["prog"]["name"] == "pass2"


def test_a_link_at_tc_that_is_detached_by_force_or_whose_interface_goes_is_noticed(
    topology: Topology, programs: list[Functions]
) -> None:
    with topology.inside("edge"), closing(Links()) as links:
        wan0, lan0 = (socket.if_nametoindex(name) for name in ("wan0", "lan0"))
        for ifindex, name in ((wan0, "wan0"), (lan0, "lan0")):
            links.attach(programs[0], ifindex, name, TC)
        assert links.taken_off([wan0, lan0]) == []
        assert load_bcc().lib.bpf_link_detach(links.fds[wan0]) == 0
        assert links.taken_off([wan0, lan0]) == [wan0]
        topology.run("edge", "ip", "link", "del", "lan0", check=True)
        assert links.taken_off([wan0, lan0]) == [wan0, lan0]
        links.replace(programs[1], programs[0])
        assert links.fds == {}, "both had gone"


def test_two_of_us_never_sit_on_one_interface_where_the_kernel_would_let_them(topology: Topology) -> None:
    """By tc, or one of them by tc: each frame would be counted twice."""
    text = "int ns_filter(void *ctx) { return 2; }\nint ns_filter_tc(void *ctx) { return -1; }\n"
    module, function = compile_program(text, "ns_filter", {})
    at_tc = load_function(module, "ns_filter_tc", load_bcc().BPF.SCHED_CLS)
    ours = Functions(int(function.fd), int(at_tc.fd))
    with topology.inside("edge"), closing(Links()) as one, closing(Links()) as other:
        wan0 = socket.if_nametoindex("wan0")
        for mode, another in ((TC, TC), (TC, GENERIC), (GENERIC, TC)):
            one.attach(ours, wan0, "wan0", mode)
            with pytest.raises(MachineError, match="wan0: another npd6-xdp's program is there already: id "):
                other.attach(ours, wan0, "wan0", another)
            one.detach(wan0)
        other.attach(ours, wan0, "wan0", TC)
    module.cleanup()


def test_where_as_many_sit_at_tc_as_can_it_is_told_how_many_that_are(
    topology: Topology, programs: list[Functions]
) -> None:
    text = "".join(f"int many{n}(void *ctx) {{ return -1; }}\n" for n in range(MOST_AT_TC))
    module, _ = compile_program(f"int none(void *ctx) {{ return 2; }}\n{text}", "none", {})
    kind, lib, links = load_bcc().BPF.SCHED_CLS, load_bcc().lib, []
    with topology.inside("edge"), closing(Links()) as ours:
        wan0 = socket.if_nametoindex("wan0")
        for n in range(MOST_AT_TC):
            links.append(lib.bpf_link_create(load_function(module, f"many{n}", kind).fd, wan0, 46, None))
        assert min(links) >= 0
        assert len(tc_programs(wan0)) == MOST_AT_TC
        with pytest.raises(MachineError, match=f"as many tc programs as can be are there already: {MOST_AT_TC}; "):
            ours.attach(programs[0], wan0, "wan0", TC)
        os.close(links.pop())
        ours.attach(programs[0], wan0, "wan0", TC)
    for link in links:
        os.close(link)
    module.cleanup()


def test_a_kernel_without_tcx_is_told_in_one_line(topology: Topology, programs: list[Functions]) -> None:
    """What such a kernel says to the call: tests/kernels has it from one that lacks tcx."""
    with topology.inside("edge"), closing(Links()) as links:
        wan0 = socket.if_nametoindex("wan0")
        with pytest.raises(Refused) as caught:
            links.attach(Functions(-1, programs[0].xdp), wan0, "wan0", TC)  # EINVAL, as there
        said = f"wan0: Linux {platform.release()} has no links at tc (tcx), which are there from 6.6 on"
        assert str(caught.value).startswith(said)
        assert links.fds == {}
