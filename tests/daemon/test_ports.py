# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports under a reload and the looks; in native mode, whether tags may stand beside their frames."""

from __future__ import annotations

import gc
import itertools
import logging
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import finish
from npd6_xdp.daemon.in_force import NOTHING, Change, InForce
from npd6_xdp.daemon.ports import Ports
from tests.daemon.forces import in_force
from tests.daemon.port_machine import NATIVE, TRUNK, WAN, WITH_DEVICE, Card, Netlink, NsFilter, follow, looked
from tests.netns.wire import configuration


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


def test_of_many_ports_that_change_one_line_is_logged_also_where_the_loop_looks_at_them_meanwhile(
    attached: Ports, card: Card, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    generic, tc = of_many("generic"), of_many("tc")
    finish(attached.settle(NOTHING, generic))
    monkeypatch.setattr(NsFilter, "take_gap", lambda _: 0.001, raising=False)
    now = 0.0
    with caplog.at_level(logging.INFO, "npd6-xdp"), ExitStack() as undo:
        for steps in (attached.prepare(tc, Change(undo, asked=True)), attached.settle(generic, tc)):
            for _ in steps:
                now = max(now, attached.due or 0.0)
                attached.tick(now)
        undo.pop_all()
    assert sum("no program was there" in line for line in caplog.messages) == 1, caplog.messages


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
