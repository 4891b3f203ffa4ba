# SPDX-License-Identifier: GPL-2.0-or-later
"""Warnings of the machine's state follow it while the daemon runs: the neighbour table, and what cards do with tags."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Limits
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.pending import capacity_for_pending
from npd6_xdp.core.steps import finish
from npd6_xdp.core.table import Table
from npd6_xdp.core.table_space import AGE, TableSpace
from npd6_xdp.core.vlan_filter import Feature
from npd6_xdp.core.warnings import MOST_SAID, WarningKind, Warnings
from npd6_xdp.daemon import cards, outlook
from npd6_xdp.daemon.in_force import NOTHING, Change
from npd6_xdp.daemon.outlook import Outlook
from tests.core import test_many_names as many_names
from tests.core.tables import facts
from tests.core.test_steps import LONGEST, timed
from tests.daemon.forces import in_force

TIGHT = "the kernel's neighbour table: it has space for 1024 entries"
SMALL, LARGE = (128, 512, 1024), (1024, 16384, 32768)


class Router:
    """A machine that forwards, with a default route of its own."""

    def default_route(self) -> tuple[int, bool]:
        return 1, False

    def forwards(self, _: int) -> bool:
        return True

    def accept_ra(self, _: str) -> int:
        return 0

    def on_change(self) -> bool:
        return True


def look_out(neighbour_table: Callable[[], list[str]] = list) -> Outlook:
    router: Any = Router()
    return Outlook(router, neighbour_table)


def test_forwarding_is_looked_at_once_it_is_switched_on_all_interfaces_however_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[bool] = []
    monkeypatch.setattr(Router, "default_route", lambda _: looks.append(True))
    found = look_out()
    found.look()
    looks.clear()
    before = time.monotonic()
    found._on_readable()
    after, due = time.monotonic(), found.due
    assert due is not None
    assert 0.1 <= due - before <= 0.1 + after - before
    for _ in range(1000):
        found._on_readable()
    assert (looks, found.due) == ([], due), "from the first word on"


def test_a_small_neighbour_table_is_warned_of_until_it_is_larger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "npd6-xdp")
    space = TableSpace(500)
    found = look_out(lambda: space.warnings(0.0))
    for thresholds in (SMALL, SMALL, LARGE, LARGE):
        space.sized(500, 100, thresholds, 0.0)
        changed = found.look()
        (*lines,) = found.current[WarningKind.NEIGHBOUR_TABLE]
        assert [line.startswith(TIGHT) for line in lines] == ([True] if thresholds is SMALL else [])
    assert not changed
    (coming, going) = caplog.messages
    assert coming.startswith(TIGHT)
    assert going.startswith("the kernel's neighbour table: cleared: it has space for 1024 entries")


DEFAULT = Limits().pending


def test_the_kernels_own_thresholds_are_no_reason_to_warn_until_the_space_is_used_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    space = TableSpace(DEFAULT)
    space.sized(DEFAULT, 100, SMALL, 0.0)
    assert space.targets == 206
    assert space.warnings(0.0) == []
    assert not space.used(102, 1.0)
    assert space.warnings(1.0) == []
    assert space.used(103, 1.0), "no asker gets more than half"
    assert not space.used(150, 2.0), "no news any more"
    for now, warns in ((2.0, True), (601.9, True), (602.0, False)):
        assert [line.startswith(TIGHT) for line in space.warnings(now)] == ([True] if warns else [])
        assert space.warns(now) == warns
    assert space.used(103, 700.0)
    space.sized(DEFAULT, 100, LARGE, 701.0)
    assert space.warnings(701.0) == []
    assert not space.used(500, 702.0), "limits.pending is what bounds it"


def test_hosts_that_nearly_fill_the_table_are_reason_to_warn() -> None:
    space = TableSpace(DEFAULT)
    for entries, warns in ((384, False), (385, True)):
        space.sized(DEFAULT, entries, SMALL, 0.0)
        assert bool(space.warnings(0.0)) == warns


@pytest.mark.parametrize(
    ("limit", "entries", "thresholds", "values"),
    [
        (500, 100, SMALL, (1024, 2048, 4096)),
        (65_536, 100, SMALL, (131_072, 262_144, 524_288)),
        (8192, 5000, LARGE, (16_384, 32_768, 65_536)),
        (500, 400, (4096, 512, 100_000), (4096, 2048, 100_000)),  # none is lowered
    ],
)
def test_the_mend_has_the_values_that_make_space(
    limit: int, entries: int, thresholds: tuple[int, int, int], values: tuple[int, int, int]
) -> None:
    space = TableSpace(limit)
    space.sized(limit, entries, thresholds, 0.0)
    (line,) = space.warnings(0.0)
    words = line.partition(": sysctl -w ")[2].split()
    assert words == [f"net.ipv6.neigh.default.gc_thresh{n}={value}" for n, value in enumerate(values, 1)]
    assert capacity_for_pending(limit, entries, values) == limit, "so it does"
    space.sized(limit, entries - 90, thresholds, 1.0)
    assert space.warnings(1.0) == [line], "not another one with each host that comes and goes"


def test_a_full_neighbour_table_is_warned_of_for_a_minute_and_asked_about_every_ten_seconds_at_most() -> None:
    space = TableSpace(512)
    assert space.is_old(0.0)
    space.sized(512, 0, LARGE, 0.0)
    assert space.warnings(0.0) == []
    assert not space.warns(0.0)
    space.refused(1.0)
    assert space.warns(1.0)
    (line,) = space.warnings(60.9)
    assert line.startswith(
        "the kernel's neighbour table: it is full: sysctl -w net.ipv6.neigh.default.gc_thresh1=16384"
    )
    assert space.warnings(61.0) == []
    assert [space.is_old(after) for after in (AGE, AGE + 0.1)] == [False, True]
    space.sized(512, 0, None, 20.0)
    assert (space.targets, space.warnings(70.0)) == (512, [])


def trunks(count: int, **facts: Any) -> tuple[Any, ...]:
    names = [f"wan{number}" for number in range(count)]
    links = {
        name: LinkFacts(name, number + 2, bytes((2, 0, 0, 0, number >> 8, number & 255)), **facts)
        for number, name in enumerate(names)
    }
    text = '[[interface]]\nname = "wan*"\nvlan = 100\n[[interface.rule]]\nprefix = "2001:db8::/64"\nmethod = "static"\n'
    return in_force(build(parse(text, "test"), links), links), (), {WarningKind.TAGS: ["wan0: tags of VLAN 7"]}


def test_receive_vlan_offload_is_warned_of_while_it_is_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "npd6-xdp")
    on = {"wan1"}
    monkeypatch.setattr(cards, "receive_vlan_offload", on.__contains__)
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
    assert caplog.messages[1:] == [offload, offload.replace("wan1: ", "wan1: cleared: "), offload]
    found.use(*trunks(2, kind="veth", lossy=True))
    assert found.current[WarningKind.TAGS] == ["wan0: tags of VLAN 7"], "the switch does nothing there"


def test_a_vlan_filter_is_warned_of_while_it_is_on_and_of_many_ports_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "npd6-xdp")
    filters = dict.fromkeys(("wan0", "wan1"), Feature.ON)
    promiscuous: set[int] = set()
    monkeypatch.setattr(cards, "vlan_filter", lambda name: filters.get(name, Feature.OFF))
    monkeypatch.setattr(cards, "is_promiscuous", promiscuous.__contains__)
    found = look_out()
    found.use(*trunks(3))
    line = (
        "{0}: the card's VLAN filter is on (rx-vlan-filter), so it may keep back frames of VLAN 100, since there is no"
        " such VLAN device on {0}: ip link add link {0} name {0}.100 up type vlan id 100"
    )
    assert found.current[WarningKind.TAGS][1:] == [line.format("wan0"), line.format("wan1")]
    assert caplog.messages[1:] == [line.format("wan0"), line.format("wan1")]
    promiscuous.add(2)
    assert found.look()
    assert found.current[WarningKind.TAGS][1:] == [line.format("wan1")]
    filters.clear()
    assert found.look()
    assert caplog.messages[3:] == [line.format(name).replace(": ", ": cleared: ", 1) for name in ("wan0", "wan1")]
    caplog.clear()
    promiscuous.clear()
    filters.update((f"wan{number}", Feature.ON) for number in range(70))
    found.use(*trunks(70))
    assert caplog.messages == [line.format("NAME").replace("NAME: ", "wan0, wan1, wan2 and 61 more: ", 1)]
    found.use(*trunks(70, l3={(): 4, (100,): 9}))
    assert found.current[WarningKind.TAGS] == ["wan0: tags of VLAN 7"], "there is a VLAN device"


def test_of_many_ports_each_look_asks_64_and_what_is_found_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(cards, "receive_vlan_offload", lambda name: not asked.append(name))  # type: ignore[func-returns-value]
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


def test_of_a_thousand_warnings_the_first_are_said_and_how_many_more(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "npd6-xdp")
    found = look_out()
    many = [f"wan0: rule 2001:db8:{n:x}::/64: no such route" for n in range(1000)]
    same = [f"port{n}: switched off: ip link set port{n} up" for n in range(1000)]
    found.use(NOTHING, (), {WarningKind.RULE: [*same, *many]})
    while found.go_on():
        pass
    first, *others, last = caplog.messages
    assert first.startswith("port0, port1, port2 and 997 more: switched off"), "the same of many is one"
    assert others == many[: MOST_SAID - 1]
    assert last == "and 981 more warnings: npd6-xdp status --json has all"
    caplog.clear()
    found.use(NOTHING, (), {WarningKind.RULE: same})
    while found.go_on():
        pass
    *others, last = caplog.messages
    assert len(others) == MOST_SAID
    assert all(": cleared: " in line for line in others)
    assert last == "and 980 more cleared"
    caplog.clear()
    found.look()
    assert not caplog.messages


def test_what_changes_while_much_is_being_said_comes_behind_it(caplog: pytest.LogCaptureFixture) -> None:
    """However often: else nothing would be said as long as changes come."""
    caplog.set_level(logging.INFO, "npd6-xdp")
    found = look_out()
    many = [f"wan0: rule 2001:db8:{n:x}::/64: no such route" for n in range(20_000)]
    found.use(NOTHING, (), {WarningKind.RULE: many})
    assert not caplog.messages, "it takes longer than a turn may"
    for number in range(1000):
        found.use(NOTHING, (), {WarningKind.RULE: [*many, f"wan{number}: switched off"]})
        if caplog.messages:
            break
        found.go_on()
    assert 0 < number < 999
    assert caplog.messages[0] == many[0]
    while found.go_on():
        pass
    assert f"wan{number}: switched off" in caplog.messages


def test_what_there_is_to_warn_of_by_a_table_alone_is_found_once_whatever_is_made_ready_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 100,000 rules it takes a while, and a table that is made ready may come to nothing."""

    def found_at_once(_: Table) -> list[str]:
        raise AssertionError

    text = '[[interface]]\nname = "wan0"\n[[interface.rule]]\nprefix = "2001:db8::/64"\nmethod = "static"\n'
    found, links = look_out(), facts()
    now, never, last = [in_force(build(parse(text, "test"), links), links) for _ in range(3)]
    finish(found.prepare(now, Change(ExitStack(), asked=True)))
    monkeypatch.setattr(outlook, "warnings", found_at_once)
    found.apply(now)
    with ExitStack() as undo:
        finish(found.prepare(never, Change(undo, asked=True)))
        found.apply(now)  # once more, as hidden tags were seen
    found.apply(now)
    finish(found.prepare(last, Change(ExitStack(), asked=True)))
    found.apply(last)
    assert gc.get_referrers(never.table) == [never]


def test_warnings_are_looked_for_once_a_table_is_in_force_and_not_in_that_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4,000 ports it takes 40 ms, and all rooms go by a table within one turn."""
    found, looks = look_out(), list[int]()
    monkeypatch.setattr(found, "look", lambda: looks.append(1))
    text = '[[interface]]\nname = "wan0"\n[[interface.rule]]\nprefix = "2001:db8::/64"\nmethod = "static"\n'
    new = in_force(build(parse(text, "test"), facts()), facts())
    found.apply(new)
    settling = found.settle(NOTHING, new)
    next(settling)
    assert looks == []
    finish(settling)
    assert looks == [1]


@pytest.mark.large
def test_no_bit_is_long_of_saying_that_many_interfaces_are_missing_or_are_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "npd6-xdp")
    shown: list[tuple[Warnings, Sequence[str]]] = []
    router: Any = Router()
    found, links = Outlook(router, tuple, show=lambda *all_of_it: shown.append(all_of_it)), facts()
    then, longest = many_names.config(many_names.COUNT), dict[str, float]()
    finish(then.knowing())
    table = build(then, links)
    new, old = in_force(table, links, then), in_force(Table({}, {}, {}, {}, {}), links)
    for what, this, before in (("they are missing", new, old), ("they were", old, new)):
        finish(found.prepare(this, Change(ExitStack(), asked=True)))
        found.apply(this)
        longest[what], _ = timed(found.settle(before, this))
        began = time.thread_time()
        assert not found.look()
        longest[f"{what}, still"] = time.thread_time() - began
    (of_many, lines), (_, none) = shown
    assert len(of_many[WarningKind.VIA]) == len(lines) == many_names.COUNT
    assert none == []
    coming, going = caplog.messages
    assert coming == "via x0, via x1, via x10 and 99,997 more: no such interface; waiting for it"
    assert going.endswith(" and 99,997 more: cleared: no such interface; waiting for it")
    print({what: f"{1000 * bit:.1f} ms" for what, bit in longest.items()})
    assert max(longest.values()) < LONGEST, longest
