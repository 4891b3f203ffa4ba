# SPDX-License-Identifier: GPL-2.0-or-later
"""Warnings of the machine's state follow it while the daemon runs: the neighbour table, and a card's offload."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from npd6_xdp.core.config import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.rules import build
from npd6_xdp.core.table_room import AGE, TableRoom
from npd6_xdp.core.warnings import WarningKind
from npd6_xdp.daemon import outlook
from npd6_xdp.daemon.outlook import Outlook

TIGHT = "the kernel's neighbour table: it has room for 1024 entries"
SMALL, LARGE = (128, 512, 1024), (1024, 16384, 32768)


class Router:
    """A machine that forwards, with a default route of its own."""

    def default_route(self) -> tuple[int, bool]:
        return 1, False

    def forwards(self, _: int) -> bool:
        return True

    def accept_ra(self, _: str) -> int:
        return 0


def look_out(neighbour_table: Callable[[], list[str]] = list) -> Outlook:
    router: Any = Router()
    return Outlook(router, neighbour_table)


def test_a_small_neighbour_table_is_warned_of_until_it_is_larger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "npd6-xdp")
    room = TableRoom(512)
    found = look_out(lambda: room.warnings(0.0))
    for thresholds in (SMALL, SMALL, LARGE, LARGE):
        room.sized(512, 100, thresholds, 0.0)
        changed = found.look()
        (*lines,) = found.current[WarningKind.NEIGHBOUR_TABLE]
        assert [line.startswith(TIGHT) for line in lines] == ([True] if thresholds is SMALL else [])
    assert not changed
    (coming, going) = caplog.messages
    assert coming.startswith(TIGHT)
    assert going.startswith("the kernel's neighbour table: no longer so: it has room for 1024 entries")


def test_a_full_neighbour_table_is_warned_of_for_a_minute_and_asked_about_every_ten_seconds_at_most() -> None:
    room = TableRoom(512)
    assert room.is_old(0.0)
    room.sized(512, 0, LARGE, 0.0)
    assert room.warnings(0.0) == []
    assert not room.warns(0.0)
    room.refused(1.0)
    assert room.warns(1.0)
    assert ["it is full" in line for line in room.warnings(60.9)] == [True]
    assert room.warnings(61.0) == []
    assert [room.is_old(after) for after in (AGE, AGE + 0.1)] == [False, True]
    room.sized(512, 0, None, 20.0)
    assert (room.targets, room.warnings(70.0)) == (512, [])


def trunks(count: int, **facts: Any) -> tuple[Any, ...]:
    names = [f"wan{number}" for number in range(count)]
    links = {
        name: LinkFacts(name, number + 2, bytes((2, 0, 0, 0, number >> 8, number & 255)), **facts)
        for number, name in enumerate(names)
    }
    text = '[[interface]]\nname = "wan*"\nvlan = 100\n[[interface.rule]]\nprefix = "2001:db8::/64"\nmethod = "static"\n'
    return build(parse(text, "test"), links), links, (), {WarningKind.TAGS: ["wan0: tags of VLAN 7"]}


def test_receive_vlan_offload_is_warned_of_while_it_is_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "npd6-xdp")
    on = {"wan1"}
    monkeypatch.setattr(outlook, "receive_vlan_offload", on.__contains__)
    found = look_out()
    found.use(*trunks(2))
    offload = "wan1: receive VLAN offload is on, which can hide VLAN tags from XDP: ethtool -K wan1 rxvlan off"
    assert found.current[WarningKind.TAGS] == ["wan0: tags of VLAN 7", offload]
    assert not found.look()
    on.clear()
    assert found.look()
    assert found.current[WarningKind.TAGS] == ["wan0: tags of VLAN 7"]
    on.add("wan1")
    found.look()
    assert caplog.messages[1:] == [offload, offload.replace("wan1: ", "wan1: no longer so: "), offload]
    found.use(*trunks(2, kind="veth", lossy=True))
    assert found.current[WarningKind.TAGS] == ["wan0: tags of VLAN 7"], "the switch does nothing there"


def test_of_many_ports_each_look_asks_64_and_what_is_found_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(outlook, "receive_vlan_offload", lambda name: not asked.append(name))  # type: ignore[func-returns-value]
    found = look_out()
    found.use(*trunks(150))
    assert len(asked) == 64
    for wanted in (128, 150, 150):
        found.look()
        assert len(found.current[WarningKind.TAGS]) == 1 + wanted
    assert len(asked) == 150 + 64
    assert set(asked[:150]) == {f"wan{number}" for number in range(150)}
    many = "receive VLAN offload is on, which can hide VLAN tags from XDP: ethtool -K NAME rxvlan off"
    assert caplog.messages[1] == f"wan0, wan1, wan2 and 61 more: {many}"
