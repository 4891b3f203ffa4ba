# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports in native mode: whether tags may stand beside their frames follows the card's offload, and the VLANs."""

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

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import finish
from npd6_xdp.daemon import ports
from npd6_xdp.daemon.in_force import NOTHING, Change, InForce
from npd6_xdp.daemon.ports import Ports
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
    monkeypatch.setattr(ports, "receive_vlan_offload", found)
    monkeypatch.setattr(ports, "Sockets", Sockets)
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
        there.admit(new, Change(ExitStack(), asked=True))
    there.follow(new)


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
    assert "somebody has taken" not in caplog.text
    monkeypatch.setattr(Netlink, "behind", False)
    looked(attached)
    assert "somebody has taken" in caplog.text


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
    attached.follow(old)
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
    attached.follow(old)
    assert (attached.generic(), attached.changes) == (frozenset(), changes), "by the loop, where another has refused"
    finish(attached.settle(old, new))
    assert (attached.generic(), attached.changes) == (frozenset(), changes)
