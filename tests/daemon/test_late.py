# SPDX-License-Identifier: GPL-2.0-or-later
"""Events that come in when the table that they go by has just been replaced: nothing may end the daemon."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.event import EventFlag, NsEvent
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.table import Rule
from npd6_xdp.core.verdict import Method, Outcome
from npd6_xdp.daemon.answering import Answering
from npd6_xdp.daemon.counts import Counts
from npd6_xdp.daemon.proxy_entries import ProxyEntries
from npd6_xdp.daemon.recent_targets import RecentTargets
from npd6_xdp.daemon.resolution import Resolution
from npd6_xdp.system.sysctl import Memory
from tests.daemon.forces import in_force
from tests.frames import ip6

LINKS = {
    name: LinkFacts(name, ifindex, bytes((2, 0, 0, 0, 0, ifindex))) for ifindex, name in ((7, "wan0"), (8, "wan9"))
}


def config(port: str, method: str = "kernel", **keys: str) -> Config:
    lines = [
        "[[interface]]",
        f'name = "{port}"',
        "[[interface.rule]]",
        'prefix = "2001:db8:1::/64"',
        f'method = "{method}"',
    ]
    return parse("\n".join([*lines, *(f"{key} = {value}" for key, value in keys.items())]), "test")


def event(rule: int, flags: EventFlag = EventFlag.MISS) -> NsEvent:
    return NsEvent(ip6("2001:db8:1::42"), ip6("2001:db8::1"), 0, rule, bytes(6), bytes(4), flags)


class Requests:
    """A kernel that has no proxy entries, and says what it was asked to do."""

    port = 0

    def __init__(self) -> None:
        self.added: list[object] = []

    def proxy_entries(self) -> dict[object, int]:
        return {}

    def host_routes(self) -> dict[object, int]:
        return {}

    def add_proxy(self, host: object) -> int:
        self.added.append(host)
        return 0

    def __getattr__(self, name: str) -> Any:
        return lambda *_: 0


class NsFilter:
    def __getattr__(self, name: str) -> Any:
        return lambda *_: 0


def test_no_proxy_entry_is_added_on_an_interface_that_the_table_to_come_does_not_have(tmp_path: Path) -> None:
    requests = Requests()
    proxy_entries = ProxyEntries(NsFilter(), requests, Memory(tmp_path))  # type: ignore[arg-type]
    before = build(config("wan0"), LINKS)
    after = build(config("wan9"), LINKS, before)
    for table in (before, after):
        proxy_entries.apply(in_force(table, {}))
    (rule,) = before.rules.values()
    proxy_entries.ask(event(rule.id), rule)
    assert requests.added == []


def test_the_debug_line_names_the_interface_that_was_asked_on_when_it_is_gone_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = build(config("wan0"), LINKS)
    answering = Answering(NsFilter(), Counts(), RecentTargets(NsFilter()), lambda *_: None)  # type: ignore[arg-type]
    answering.join(dict.fromkeys(Method, lambda *_: Outcome.PENDING), lambda *_: None, lambda *_: None)
    for table in (before, build(config("wan9"), LINKS, before)):
        answering.apply(in_force(table, LINKS))
    (rule,) = before.rules
    monkeypatch.setattr(logging.getLogger("npd6-xdp"), "propagate", True)
    with caplog.at_level(logging.DEBUG, "npd6-xdp"):
        answering.answer([event(rule).pack_record()])
    assert "wan0: 2001:db8::1 asks who has 2001:db8:1::42: pending" in caplog.text


def test_events_of_several_processors_are_handled_in_the_order_in_which_they_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has a ring of its own; by the order, an edge knows another's question for the answer to its own."""
    table = build(config("wan0"), LINKS)
    (rule,) = table.rules
    handled: list[int] = []
    answering = Answering(NsFilter(), Counts(), RecentTargets(NsFilter()), lambda *_: None)  # type: ignore[arg-type]

    def note(event: NsEvent, _: Rule) -> Outcome:
        handled.append(event.tci[0])
        return Outcome.PENDING

    answering.join(dict.fromkeys(Method, note), lambda *_: None, lambda *_: None)
    answering.apply(in_force(table, LINKS))
    for now in (10**9, 2**32 + 25):  # microseconds; the second time, the 32 bits begin anew between them
        monkeypatch.setattr("npd6_xdp.daemon.answering.machine_ns", lambda now=now: now * 1000)
        events = [
            event(rule)._replace(time_us=(now - age) % 2**32, tci=bytes([number, 0, 0, 0]))
            for number, age in enumerate((10, 30, 20, 40))
        ]
        answering.answer([b"".join(each.pack_record() for each in half) for half in (events[:2], events[2:])])
    assert handled == 2 * [3, 1, 2, 0]


def test_who_waits_by_a_rule_of_the_table_before_the_last_is_let_go() -> None:
    oldest = build(config("wan0", "neighbour", via='["wan9"]'), LINKS)
    before = build(config("wan9"), LINKS, oldest)
    answered: list[NsEvent] = []
    with closing(Resolution(NsFilter(), Requests(), answered.append)) as resolution:  # type: ignore[arg-type]
        resolution.apply(in_force(build(config("wan9", "static"), LINKS, before), LINKS))
        resolution.ask_again(event(min(oldest.rules)), before)
    assert answered == []
