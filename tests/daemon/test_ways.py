# SPDX-License-Identifier: GPL-2.0-or-later
"""What ports become under `auto`, and from which to which they move by themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.steps import finish
from npd6_xdp.daemon.attaching import MOST_BY_AUTO
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.system.bpf.refusals import Refused, Taken
from tests.daemon.forces import in_force
from tests.daemon.port_machine import NATIVE, TRUNK, WAN, Card, Machine, NsFilter, follow, looked
from tests.netns.wire import configuration

AUTO = configuration()
AUTO_TRUNK = AUTO + configuration("2001:db8:2::/64 static", vlan="100")


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


BY_SETTING = {"the MTU": (7, 0), "a feature": (7, 1), "the channels": (7, 2), "a slave's MTU": (8, 0)}


@pytest.mark.parametrize("cause", ["another program", "a bond's slaves", *BY_SETTING])
def test_what_stood_in_the_way_of_native_mode_goes_and_a_port_moves_once_a_minute_at_most(
    attached: Ports, card: Card, machine: Machine, cause: str
) -> None:
    link = replace(WAN, lower=(8,))
    if cause == "another program":
        machine.taken()
    else:
        machine.refuses("Numerical result out of range")
    follow(attached, AUTO, link)
    if cause in BY_SETTING:
        machine.changes(*BY_SETTING[cause])  # before anybody has looked
    else:
        looked(attached)
        looked(attached)
        assert machine.asked == 1, "while nothing changes, nobody asks the driver again"

    machine.free()
    if cause == "a bond's slaves":
        follow(attached, AUTO, WAN)
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


def test_where_there_is_no_tcx_a_bond_that_gets_a_veth_goes_to_generic_mode_and_what_was_missed_is_told(
    attached: Ports,
    card: Card,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(logging.getLogger("npd6-xdp"), "propagate", True)
    caplog.set_level(logging.INFO)
    detached: list[int] = []
    monkeypatch.setattr(NsFilter, "detach", lambda _, ifindex: detached.append(ifindex))
    machine.tc = Refused("wan0: Linux 6.1 has no links at tc (tcx)")
    follow(attached, AUTO, WAN)
    monkeypatch.setattr(NsFilter, "take_gap", lambda _: 0.02)
    follow(attached, AUTO, replace(WAN, kind="bond", lossy=True))
    assert (machine.sits, detached) == ([AttachMode.NATIVE, AttachMode.GENERIC], [])
    assert "wan0: XDP attached (generic mode), datapath " in caplog.text
    assert "wan0: no program was there for 20.0 ms" in caplog.text


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


def test_a_driver_that_refuses_again_is_asked_once_a_minute_at_most_and_only_for_what_changed(
    attached: Ports, card: Card, machine: Machine
) -> None:
    machine.refuses()
    follow(attached, AUTO, WAN)
    for asked in (2, 3):
        machine.changes(7, 0)
        looked(attached)
        machine.changes(7, 1)
        looked(attached)
        assert machine.asked == asked, "once in that minute"
        machine.now += 61.0
    looked(attached)
    machine.now += 61.0
    looked(attached)
    assert machine.asked == 4, "the last change came in that minute, and nothing changes any more"
    assert machine.sits == [AttachMode.TC], "all the while"


def test_where_there_is_no_tcx_a_port_in_generic_mode_is_native_once_what_the_driver_refused_for_has_changed(
    attached: Ports,
    card: Card,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(logging.getLogger("npd6-xdp"), "propagate", True)
    machine.refuses()
    machine.tc = Refused("wan0: Linux 6.1 has no links at tc (tcx)")
    follow(attached, AUTO, WAN)
    looked(attached)
    assert (machine.asked, machine.sits) == (1, [AttachMode.GENERIC])
    machine.changes(7, 1)
    monkeypatch.setattr(NsFilter, "take_gap", lambda _: 0.02)
    looked(attached)
    assert (machine.asked, now_at(attached)[0]) == (2, AttachMode.GENERIC)
    assert "wan0: no program was there for 20.0 ms" in caplog.text
    machine.changes(7, 1)
    machine.free()
    looked(attached)
    assert machine.asked == 2, "not again so soon"
    machine.now += 61.0
    looked(attached)
    assert now_at(attached) == (AttachMode.NATIVE, "")


def test_what_is_no_word_of_the_drivers_is_tried_again_in_a_minute_though_nothing_changes(
    attached: Ports, card: Card, machine: Machine
) -> None:
    machine.refuses()
    follow(attached, AUTO, WAN)
    why = now_at(attached)
    machine.changes(7, 0)
    machine.native = MachineError(
        "wan0: can't attach an XDP program: Too many open files: raise LimitNOFILE= (ulimit -n)"
    )
    looked(attached)
    assert (machine.asked, now_at(attached)) == (2, why)
    machine.free()
    machine.now += 61.0
    looked(attached)
    assert now_at(attached)[0] is AttachMode.NATIVE


@pytest.mark.parametrize("tcx", [False, True])
def test_a_bridge_whose_mtu_changes_is_left_alone(attached: Ports, card: Card, machine: Machine, *, tcx: bool) -> None:
    """It can't be native, and to ask in generic mode would be a moment with no program there."""
    machine.refuses()
    if not tcx:
        machine.tc = Refused("wan0: Linux 6.1 has no links at tc (tcx)")
    follow(attached, AUTO, replace(WAN, kind="bridge"))
    machine.changes(7, 0)
    looked(attached)
    assert machine.asked == 1


def crowd(attached: Ports, count: int, **more: Any) -> Callable[..., None]:
    """So many veths as ports under `auto`; the way to have some of them go."""
    links = {f"veth{n}": replace(WAN, name=f"veth{n}", ifindex=n, **more) for n in range(1, count + 1)}
    config = parse(AUTO.replace("wan0", "veth*"), "test")

    def go_on(*gone: str) -> None:
        for name in gone:
            del links[name]
        finish(attached.following(in_force(build(config, links), links, config)))

    go_on()
    return go_on


VETH = {"kind": "veth", "lossy": True}


def modes(attached: Ports) -> dict[int, AttachMode]:
    return {n: port.mode for n in range(1, 40) if (port := attached.get(n)) is not None}


def test_a_port_that_is_generic_for_many_others_at_tc_goes_there_once_some_have_gone_one_a_second(
    attached: Ports, card: Card, machine: Machine
) -> None:
    go_on = crowd(attached, MOST_BY_AUTO + 3, **VETH)
    looked(attached)
    assert [*modes(attached).values()].count(AttachMode.GENERIC) == 3
    go_on("veth1", "veth2")
    for still in (2, 1, 1):
        looked(attached)
        looked(attached)  # a round may have begun before
        assert [*modes(attached).values()].count(AttachMode.GENERIC) == still
        machine.now += 1.0
    found = [port.attached.why for n in modes(attached) if (port := attached.get(n)) and port.mode is AttachMode.TC]
    assert {*found} == {"native XDP_TX is lost on veth unless the peer has a program, too"}


def test_a_port_that_is_generic_for_many_others_at_tc_is_native_once_its_driver_takes_the_program(
    attached: Ports, card: Card, machine: Machine
) -> None:
    machine.refuses()
    crowd(attached, MOST_BY_AUTO + 1)
    machine.free()
    machine.changes(MOST_BY_AUTO + 1, 1)
    attached._ns_filter.go_by_tc(wanted=False)  # as it is after a reload that moved many
    looked(attached)
    assert modes(attached)[MOST_BY_AUTO + 1] is AttachMode.NATIVE
    assert machine.went_by_tc, "so that none is missed"
    assert not attached._ns_filter.go_by_tc(wanted=True), "that reload may have to go back"


def test_a_tag_beside_a_frame_takes_a_port_to_tc_that_is_generic_for_many_others_there(
    attached: Ports, card: Card, machine: Machine
) -> None:
    crowd(attached, MOST_BY_AUTO + 2, **VETH)
    assert attached.hiding_tags() == {MOST_BY_AUTO + 1, MOST_BY_AUTO + 2}
    assert attached.leave_for_tags(MOST_BY_AUTO + 1)
    assert not attached.leave_for_tags(MOST_BY_AUTO + 2), "silent for the moment: the kernel takes its time for each"
    machine.now += 1.0
    assert attached.leave_for_tags(MOST_BY_AUTO + 2)
    assert attached.hiding_tags() == frozenset()
