# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports: what they become under `auto`; in native mode, whether tags may stand beside their frames."""

from __future__ import annotations

import gc
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import finish
from npd6_xdp.daemon import attached_ports, ways
from npd6_xdp.daemon.attaching import MOST_BY_AUTO
from npd6_xdp.daemon.in_force import NOTHING, Change, InForce
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.system.bpf.refusals import Refused, Taken
from tests.daemon.forces import in_force
from tests.netns.wire import configuration

NATIVE = configuration(attach='"native"')
TRUNK = NATIVE + configuration("2001:db8:2::/64 static", vlan="100", attach='"native"')
WAN = LinkFacts("wan0", 7, bytes((2, 0, 0, 0, 0, 7)), up=True)
WITH_DEVICE = replace(WAN, l3={(): 7, (100,): 8})
_ATTACHED = SimpleNamespace(xdp={1}, allmulti=1)


class NsFilter:
    """Takes what it is told, and has a program everywhere."""

    program_id = 1
    inherits = False

    def attach(self, *_: object) -> bool:
        """As if it were there."""
        return False

    detach = let_go = attach

    def go_by_tc(self, *, wanted: bool) -> None:
        """For a machine that tells which way it went."""

    def take_gap(self) -> float:
        """There is none."""
        return 0.0

    def sits(self, _: int) -> None:
        """Neither ours nor one that was left."""

    def inherited(self, _: int) -> None:
        """Nobody has left one."""

    def taken_off(self, _: object) -> list[int]:
        return []


class Netlink:
    """Links that never change by themselves."""

    losses, behind = 0, False

    def link(self, _: int) -> Any:
        return _ATTACHED

    def generation(self, _: int) -> int:
        return 0

    def groups(self, _: int) -> frozenset[bytes]:
        return frozenset()


class Sockets:
    """None are opened."""

    def __init__(self, _: object) -> None: ...

    def __getattr__(self, _: str) -> Callable[..., Any]:
        return lambda *_: SimpleNamespace(way=None)


class Card:
    """Whose receive VLAN offload is switched; how often somebody asked."""

    def __init__(self) -> None:
        self.offload, self.asked = False, 0

    def __call__(self, _: str) -> bool:
        self.asked += 1
        return self.offload


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    found = Card()
    monkeypatch.setattr(ways, "receive_vlan_offload", found)
    monkeypatch.setattr(attached_ports, "Sockets", Sockets)
    return found


@pytest.fixture
def attached(card: Card) -> Iterator[Ports]:
    with closing(Ports(NsFilter(), lambda: Netlink())) as found:  # type: ignore[arg-type,return-value]
        yield found


def follow(there: Ports, text: str, link: LinkFacts, *, admit: bool = False) -> None:
    config, links = parse(text, "test"), {"wan0": link}
    table = build(config, links)
    new = in_force(table, links, config)
    if admit:
        finish(there.admitting(new, Change(ExitStack(), asked=True)))
    finish(there.following(new))


def looked(there: Ports) -> None:
    """A round of looks has passed."""
    for turn in range(1, 7):
        there.tick(there.due + turn if there.due is not None else 0.0)


@pytest.mark.parametrize("admit", [False, True])
@pytest.mark.parametrize(("text", "link"), [(TRUNK, WAN), (NATIVE, WITH_DEVICE)], ids=["configured", "a device"])
def test_an_offload_that_is_switched_later_counts_from_the_next_look_on(
    attached: Ports, card: Card, text: str, link: LinkFacts, *, admit: bool
) -> None:
    follow(attached, text, link, admit=admit)
    assert attached.hiding_tags() == frozenset()
    for offload in (True, False, True):
        card.offload, before = offload, attached.changes
        looked(attached)
        assert attached.hiding_tags() == ({7} if offload else frozenset())
        assert attached.changes == before + 1, "so that the taps follow"


def test_vlans_that_come_later_make_the_offload_matter_and_nobody_asks_for_it_without(
    attached: Ports, card: Card
) -> None:
    card.offload = True
    follow(attached, NATIVE, WAN)
    looked(attached)
    assert (attached.hiding_tags(), card.asked) == (frozenset(), 0)
    for text, link, hides in (
        (TRUNK, WAN, True),
        (NATIVE, WAN, False),
        (NATIVE, WITH_DEVICE, True),
        (NATIVE, WAN, False),
    ):
        follow(attached, text, link)
        assert attached.hiding_tags() == ({7} if hides else frozenset())


def test_a_veth_hides_tags_whatever_its_switch_says(attached: Ports, card: Card) -> None:
    follow(attached, TRUNK, replace(WAN, lossy=True))
    assert attached.hiding_tags() == {7}


def test_what_was_made_anew_in_the_middle_of_a_look_is_not_taken_for_robbed(
    attached: Ports, card: Card, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Announcements came after the look had begun."""
    monkeypatch.setattr(logging.getLogger("npd6-xdp"), "propagate", True)
    follow(attached, NATIVE, WAN)
    tampered = SimpleNamespace(xdp=set(), allmulti=0)
    monkeypatch.setattr(Netlink, "link", lambda *_: tampered)
    monkeypatch.setattr(NsFilter, "taken_off", lambda _, ports: [*ports])
    waiting = itertools.cycle((False, True, True))  # a look asks before it begins, and before it complains
    monkeypatch.setattr(Netlink, "behind", property(lambda _: next(waiting)))
    for _ in range(3):
        attached.tick(attached.due or 0.0)
    assert "another process has detached" not in caplog.text
    monkeypatch.setattr(Netlink, "behind", False)
    looked(attached)
    assert "another process has detached" in caplog.text


def between(attached: Ports) -> tuple[InForce, InForce]:
    """In the middle of a reload: what is in force, in generic mode, and what is to be, in native mode."""
    links = {"wan0": WAN}
    generic, native = (parse(configuration(attach=f'"{mode}"'), "test") for mode in ("generic", "native"))
    old, new = (in_force(build(config, links), links, config) for config in (generic, native))
    finish(attached.settle(NOTHING, old))
    finish(attached.prepare(new, Change(ExitStack(), asked=True)))
    return old, new


def test_a_port_that_is_put_back_before_a_reload_is_settled_is_attached_as_that_wants_it_in_the_end(
    attached: Ports, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then, the loop puts back and tries again by the configuration that is in force."""
    old, new = between(attached)
    assert attached.generic() == frozenset()
    port = attached.get(WAN.ifindex)
    assert port is not None
    attached._put_back(port)
    finish(attached.settle(old, new))
    assert attached.generic() == frozenset()
    follow(attached, configuration(attach='"native"'), WAN)
    assert attached.generic() == frozenset()


def test_nothing_is_held_of_a_table_that_ports_were_attached_for_and_that_came_to_nothing(
    attached: Ports, card: Card
) -> None:
    """A large one goes bit by bit, and only whoever holds it last does that at once."""
    config, links = parse(NATIVE, "test"), {"wan0": WAN}
    first, never = (in_force(build(config, links), links, config) for _ in range(2))
    finish(attached.settle(NOTHING, first))
    with ExitStack() as undo:
        finish(attached.prepare(never, Change(undo, asked=True)))
    assert gc.get_referrers(never.table) == [never]
    assert gc.get_referrers(never) == []


def test_a_port_that_is_attached_for_a_reload_stays_so_while_another_is_tried_again(
    attached: Ports, card: Card
) -> None:
    old, new = between(attached)
    changes = attached.changes
    finish(attached.following(old))
    assert (attached.generic(), attached.changes) == (frozenset(), changes)
    finish(attached.settle(old, new))
    assert (attached.generic(), attached.changes) == (frozenset(), changes)
    with ExitStack() as undo:
        finish(attached.prepare(old, Change(undo, asked=True)))
        assert attached.generic() == {WAN.ifindex}
    attached.tick(attached.due or 0.0)
    assert attached.generic() == frozenset(), "it was given up"


def test_a_port_that_is_attached_for_a_reload_stays_so_while_roles_change(attached: Ports, card: Card) -> None:
    """All rooms go by the table in force with the roles of now, and settle; what is made ready is for another one."""
    old, new = between(attached)
    changes = attached.changes
    finish(attached.settle(old, replace(old, table=old.table.with_roles({"192.0.2.1"}), held=frozenset({"192.0.2.1"}))))
    assert (attached.generic(), attached.changes) == (frozenset(), changes)
    finish(attached.following(old))
    assert (attached.generic(), attached.changes) == (frozenset(), changes), "by the loop, where another has refused"
    finish(attached.settle(old, new))
    assert (attached.generic(), attached.changes) == (frozenset(), changes)


MANY = {f"sub{n}": replace(WAN, name=f"sub{n}", ifindex=n) for n in range(1, 41)}


def of_many(attach: str, name: str = "sub*") -> InForce:
    config = parse(configuration(attach=f'"{attach}"').replace("wan0", name), "test")
    return in_force(build(config, MANY), MANY, config)


def modes(there: Ports) -> list[AttachMode]:
    return [port.mode for port in map(there.get, range(1, 41)) if port is not None]


def test_many_ports_are_attached_and_moved_and_detached_one_at_a_time_and_the_loop_turns_between(
    attached: Ports, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel waits for each at tc: the watchdog's bite is nearer than the end of thousands."""
    done = 0

    def takes_long(*_: object) -> bool:
        nonlocal done
        done += 1
        return False

    monkeypatch.setattr(NsFilter, "attach", takes_long)
    monkeypatch.setattr(NsFilter, "detach", takes_long)
    generic, tc, none = of_many("generic"), of_many("tc"), of_many("tc", "wan*")
    with ExitStack() as undo:
        for old, new in ((NOTHING, generic), (generic, tc), (tc, none)):
            before = done
            for steps in (attached.prepare(new, Change(undo, asked=True)), attached.settle(old, new)):
                at = done
                for _ in steps:
                    assert done - at <= 1
                    at = done
            assert done - before == 40
        undo.pop_all()


def test_where_one_of_many_refuses_those_before_it_go_back_and_a_change_that_is_given_up_is_taken_back_by_the_loop(
    attached: Ports, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    generic, tc = of_many("generic"), of_many("tc")
    finish(attached.settle(NOTHING, generic))

    def refuses(_: object, ifindex: int, _name: str, mode: AttachMode, *_more: object) -> bool:
        if ifindex == 30 and mode is AttachMode.TC:
            raise MachineError("sub30: no memory")
        return False

    with monkeypatch.context() as patch, ExitStack() as undo:
        patch.setattr(NsFilter, "attach", refuses)
        steps = attached.prepare(tc, Change(undo, asked=True))
        with pytest.raises(MachineError, match="sub30"):
            finish(steps)
    assert modes(attached) == [AttachMode.GENERIC] * 40

    with ExitStack() as undo:
        steps = attached.prepare(tc, Change(undo, asked=True))
        while modes(attached).count(AttachMode.TC) < 25:
            next(steps)
        attached.tick(attached.due or 0.0)
        assert modes(attached).count(AttachMode.TC) == 25, "what is in force waits"
        steps.close()
    turns = 0
    monkeypatch.setattr("npd6_xdp.daemon.turns.HELD", 0.0)
    while AttachMode.TC in modes(attached):
        assert attached.due is not None
        attached.tick(attached.due)
        turns += 1
    assert turns == 25
    assert modes(attached) == [AttachMode.GENERIC] * 40


def test_a_change_that_comes_while_the_loop_tries_ports_again_goes_first_and_they_are_tried_behind_it(
    attached: Ports, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = {1, 2, 3}

    def refuses(_: object, ifindex: int, *_more: object) -> bool:
        if ifindex in refusals:
            raise MachineError(f"sub{ifindex}: not now")
        return False

    monkeypatch.setattr(NsFilter, "attach", refuses)
    generic = of_many("generic")
    finish(attached.settle(NOTHING, generic))
    assert len(modes(attached)) == 37
    refusals.clear()
    monkeypatch.setattr("npd6_xdp.daemon.turns.HELD", 0.0)
    assert attached.due is not None
    attached.tick(attached.due + 10.0)
    assert len(modes(attached)) == 38, "one a turn"
    with ExitStack() as undo:
        finish(attached.prepare(generic, Change(undo, asked=False)))
        undo.pop_all()
    config = replace(generic, links={**MANY})
    steps = attached.settle(generic, config)
    next(steps)
    next(steps)
    assert len(modes(attached)) == 39
    attached.tick(attached.due or 0.0)
    assert len(modes(attached)) == 39
    finish(steps)
    assert len(modes(attached)) == 40


AUTO = configuration()
AUTO_TRUNK = AUTO + configuration("2001:db8:2::/64 static", vlan="100")
OTHER = 99  # the id of somebody else's program


class Machine:
    """Where the program may be: how many times somebody asked for native mode, and the way it sits now."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.native: MachineError | None = None
        self.tc: MachineError | None = None
        self.generic: MachineError | None = None
        self.asked = 0
        self.sits: list[AttachMode] = []
        self.mtu, self._other = 1500, 0
        self.now = 1000.0
        monkeypatch.setattr(NsFilter, "attach", self._attach)
        monkeypatch.setattr(Netlink, "link", self._link)
        monkeypatch.setattr(ways, "time", SimpleNamespace(monotonic=lambda: self.now))

    def _attach(self, _ifindex: int, _name: str, mode: AttachMode, _order: object) -> bool:
        self.asked += mode is AttachMode.NATIVE
        refusal = {AttachMode.NATIVE: self.native, AttachMode.TC: self.tc, AttachMode.GENERIC: self.generic}[mode]
        if refusal is not None:
            raise refusal
        self.sits.append(mode)
        return False

    def _link(self, *_: object) -> SimpleNamespace:
        ours = int(bool(self.sits) and self.sits[-1].is_xdp)
        return SimpleNamespace(xdp=(self._other or ours, 0, 0), allmulti=1, mtu=self.mtu)

    def taken(self) -> None:
        """Somebody else's program has the place of XDP."""
        self.native, self._other = Taken(f"wan0: another XDP program is attached in native mode: id {OTHER}"), OTHER

    def refuses(self, why: str = "Operation not supported") -> None:
        self.native = Refused(f"wan0: the driver refuses an XDP program in native mode: {why}")
        self._other = 0

    def free(self) -> None:
        self.native, self._other = None, 0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def now_at(attached: Ports) -> tuple[AttachMode, str]:
    port = attached.get(WAN.ifindex)
    assert port is not None
    return port.mode, port.attached.why


def test_auto_is_native_else_by_tc_else_generic_and_says_why(
    attached: Ports, card: Card, machine: Machine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("npd6-xdp"), "propagate", True)
    caplog.set_level(logging.INFO)
    follow(attached, AUTO, WAN)
    assert now_at(attached) == (AttachMode.NATIVE, "")
    follow(attached, AUTO, replace(WAN, generation=1, lossy=True, kind="veth"))
    mode, why = now_at(attached)
    assert mode is AttachMode.TC
    assert why.startswith("native XDP_TX is lost on veth")
    assert machine.asked == 1, "nobody asks for what would lose answers"
    machine.refuses()
    follow(attached, AUTO, replace(WAN, generation=2))
    assert now_at(attached) == (
        AttachMode.TC,
        "the driver refuses an XDP program in native mode: Operation not supported",
    )
    assert "wan0: attached at tc ingress, datapath " in caplog.text
    assert "; not native: the driver refuses an XDP program in native mode" in caplog.text
    assert "slower" not in caplog.text
    machine.tc = Refused("wan0: Linux 6.1 has no links at tc (tcx)")
    follow(attached, AUTO, replace(WAN, generation=3))
    mode, why = now_at(attached)
    assert mode is AttachMode.GENERIC
    assert why.endswith("Operation not supported; Linux 6.1 has no links at tc (tcx)")
    assert "falling back to generic mode, which is slower" in caplog.text


def test_beside_another_xdp_program_it_is_by_tc_and_without_tcx_it_cannot_be(
    attached: Ports, card: Card, machine: Machine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("npd6-xdp"), "propagate", True)
    machine.taken()
    machine.tc = Refused("wan0: Linux 6.1 has no links at tc (tcx)")
    for text, line in (
        (AUTO, "id 99; detach it first, or leave this interface out: Linux 6.1 has no links at tc (tcx)"),
        (NATIVE, 'id 99; detach it first, leave this interface out, or write attach = "auto" to sit beside it by tc'),
    ):
        follow(attached, text, WAN)
        assert attached.get(WAN.ifindex) is None
        assert line in caplog.text
    machine.tc = None
    follow(attached, AUTO, WAN)
    assert now_at(attached) == (AttachMode.TC, "another XDP program is attached in native mode: id 99")


@pytest.mark.parametrize("cause", ["another program", "the MTU", "a bond's slaves"])
def test_what_stood_in_the_way_of_native_mode_goes_and_a_port_moves_once_a_minute_at_most(
    attached: Ports, card: Card, machine: Machine, cause: str
) -> None:
    link = WAN
    if cause == "another program":
        machine.taken()
    else:
        machine.refuses("Numerical result out of range")
    follow(attached, AUTO, link)
    looked(attached)
    looked(attached)
    assert machine.asked == 1, "while nothing changes, nobody asks the driver again"

    machine.free()
    machine.mtu -= 100 * (cause == "the MTU")
    if cause == "a bond's slaves":
        link = replace(WAN, lower=(8,))
        follow(attached, AUTO, link)
    looked(attached)
    assert now_at(attached) == (AttachMode.NATIVE, "")
    assert machine.asked == 2

    machine.taken()  # it was taken off, and another came
    attached._put_back(attached.get(WAN.ifindex))  # type: ignore[arg-type]
    assert now_at(attached)[0] is AttachMode.TC
    machine.free()
    looked(attached)
    assert now_at(attached)[0] is AttachMode.TC, "not again so soon"
    machine.now += 61.0
    looked(attached)
    assert now_at(attached)[0] is AttachMode.NATIVE


def test_a_port_that_cannot_be_native_after_all_stays_at_tc_and_says_the_new_reason(
    attached: Ports, card: Card, machine: Machine
) -> None:
    machine.taken()
    follow(attached, AUTO, WAN)
    machine.refuses()
    looked(attached)
    mode, why = now_at(attached)
    assert (mode, machine.sits) == (AttachMode.TC, [AttachMode.TC])
    assert why.startswith("the driver refuses")


def test_a_tag_beside_a_frame_takes_a_port_under_auto_to_tc_and_an_offload_that_goes_off_back(
    attached: Ports, card: Card, machine: Machine
) -> None:
    card.offload = True
    follow(attached, AUTO_TRUNK, WAN)
    assert (now_at(attached)[0], attached.hiding_tags()) == (AttachMode.NATIVE, frozenset({7}))
    assert attached.leave_for_tags(7)
    assert now_at(attached) == (AttachMode.TC, "VLAN tags stand beside the frames, where XDP can't see them")
    assert attached.hiding_tags() == frozenset(), "the program sees them"
    machine.now += 61.0
    looked(attached)
    assert now_at(attached)[0] is AttachMode.TC
    card.offload = False
    looked(attached)
    assert (now_at(attached)[0], attached.hiding_tags()) == (AttachMode.NATIVE, frozenset())


@pytest.mark.parametrize("text", [TRUNK, AUTO_TRUNK], ids=["native said explicitly", "no tcx"])
def test_a_tag_beside_a_frame_leaves_a_port_that_cannot_be_at_tc_where_it_is(
    attached: Ports, card: Card, machine: Machine, text: str
) -> None:
    card.offload = True
    machine.tc = Refused("wan0: Linux 6.1 has no links at tc (tcx)") if text is AUTO_TRUNK else None
    follow(attached, text, WAN)
    assert not attached.leave_for_tags(7)
    assert (now_at(attached), attached.hiding_tags()) == ((AttachMode.NATIVE, ""), frozenset({7}))


def test_a_bond_that_gets_a_veth_goes_to_tc_and_comes_back_without_it(
    attached: Ports, card: Card, machine: Machine
) -> None:
    follow(attached, AUTO, WAN)
    follow(attached, AUTO, replace(WAN, kind="bond", lossy=True))
    assert machine.sits == [AttachMode.NATIVE, AttachMode.TC]
    assert "bond of veths" in now_at(attached)[1]
    follow(attached, AUTO, WAN)
    machine.now += 61.0
    looked(attached)
    assert now_at(attached) == (AttachMode.NATIVE, "")


def test_beyond_so_many_ports_auto_is_generic_but_where_another_xdp_program_is(
    attached: Ports, card: Card, machine: Machine
) -> None:
    """The kernel takes its time for each at tc."""
    veths = {f"veth{n}": replace(WAN, name=f"veth{n}", ifindex=n, kind="veth", lossy=True) for n in range(1, 36)}
    config = parse(AUTO.replace("wan0", "veth*"), "test")
    finish(attached.following(in_force(build(config, veths), veths, config)))
    modes = [machine.sits.count(mode) for mode in (AttachMode.TC, AttachMode.GENERIC)]
    assert modes == [MOST_BY_AUTO, 35 - MOST_BY_AUTO]
    last = attached.get(35)
    assert last is not None
    assert (last.mode, last.attached.why.partition("; ")[2]) == (
        AttachMode.GENERIC,
        "32 ports are at tc already, and each takes the kernel some hundredths of a second",
    )
    assert attached.hiding_tags() == {33, 34, 35}
    machine.generic = Taken("veth36: another XDP program is attached in native mode: id 99")
    veths["veth36"] = replace(WAN, name="veth36", ifindex=36, kind="veth", lossy=True)
    finish(attached.following(in_force(build(config, veths), veths, config)))
    beside = attached.get(36)
    assert beside is not None
    assert (beside.mode, beside.attached.why) == (
        AttachMode.TC,
        "another XDP program is attached in native mode: id 99",
    )
    del veths["veth1"], veths["veth2"]
    machine.generic = None
    veths["veth37"] = replace(WAN, name="veth37", ifindex=37, kind="veth", lossy=True)
    finish(attached.following(in_force(build(config, veths), veths, config)))
    assert machine.sits[-1] is AttachMode.TC, "there is room again"
