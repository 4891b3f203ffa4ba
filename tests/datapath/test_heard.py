# SPDX-License-Identifier: GPL-2.0-or-later
"""Solicitations that are answered here never reach the kernel: Python is told where, and by whom, an address speaks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from npd6_xdp.core import layout
from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, DadPolicy, Datapath, InterfaceConfig, Limits, RuleConfig
from npd6_xdp.core.entries import EntryFlag
from npd6_xdp.core.event import EventFlag
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.steps import finish
from npd6_xdp.core.table import PresentFlag, Table
from npd6_xdp.core.verdict import Method, Outcome
from npd6_xdp.system.bpf.pack import packing_entries
from tests.datapath.harness import PORT, UNLIMITED, XDP_DROP, XDP_PASS, XDP_TX, Bench, entry, link
from tests.frames import SETTING, UNSPECIFIED, ip6, solicited_node
from tests.kinds import solicit

LAN = LinkFacts("lan0", 77, bytes.fromhex("02000000000a"))
FRESH = PresentFlag(0)
MISS, STALE, ANSWERED, HEARD = EventFlag.MISS, EventFlag.STALE, EventFlag.ANSWERED, EventFlag.HEARD
ASKER, OTHER_MAC = ip6("2001:db8::77"), bytes.fromhex("020000000099")


def rule(via: str, method: Method = Method.NEIGHBOUR) -> RuleConfig:
    return RuleConfig("2001:db8::/32", (Prefix.of("2001:db8::/32"),), method, via=(via,))


def both_sides(kind: Datapath = Datapath.HYBRID, *, back: Method = Method.NEIGHBOUR, **keys: Any) -> Table:
    """Questions are answered on both links for what is on the other; `back` is how on lan0."""
    here = entry(rule("lan0"), datapath=kind, dad=DadPolicy.DEFEND, **keys)
    there = InterfaceConfig("lan0", (rule(PORT, back),))
    return build(Config((here, there)), {PORT: link(), "lan0": LAN})


def one_side() -> Table:
    return build(Config((entry(rule("lan0")),)), {PORT: link(), "lan0": LAN})


def question(source: bytes = ASKER, mac: bytes = SETTING.asker_mac) -> bytes:
    target = SETTING.target
    return solicit(replace(SETTING, asker_mac=mac), source=source, destination=solicited_node(target))


@pytest.fixture(scope="module")
def limits() -> Limits:
    return UNLIMITED


@pytest.fixture
def bench(limits: Limits) -> Iterator[Bench]:
    if os.geteuid() != 0:
        pytest.skip("loading an XDP program needs root")
    bench = Bench(both_sides(), limits=limits)
    yield bench
    bench.close()


def knows(bench: Bench, using: Table, flags: PresentFlag | None = FRESH) -> None:
    bench.use(using)
    via_set = using.rules[0].via_set
    bench.ns_filter.forget(via_set, SETTING.target)
    if flags is not None:
        bench.ns_filter.set_present(via_set, SETTING.target, flags)


def flags(bench: Bench, frame: bytes) -> tuple[int, list[EventFlag]]:
    seen = bench.see(frame)
    return seen.action, [EventFlag(event.flags) for event in bench.events()]


def test_an_asker_is_told_of_once_in_each_place_and_with_each_mac(bench: Bench) -> None:
    knows(bench, both_sides())
    seen = bench.see(question())
    (event,) = bench.events()
    assert (seen.action, seen.counted, event.flags) == (XDP_TX, (Outcome.ANSWERED_XDP,), HEARD | ANSWERED)
    assert (event.source, event.answer_mac) == (ASKER, SETTING.asker_mac)
    told = (XDP_TX, [HEARD | ANSWERED])
    again: tuple[int, list[EventFlag]] = (XDP_TX, [])
    assert flags(bench, question()) == again
    assert flags(bench, question(mac=OTHER_MAC)) == told, "another MAC"
    assert flags(bench, question(mac=OTHER_MAC)) == again
    assert flags(bench, question()) == told, "and the first again"
    assert flags(bench, question(ip6("2001:db8::78"))) == told, "another address"
    assert flags(bench, question()) == again
    bench.ns_filter.forget_heard(ASKER)
    assert flags(bench, question()) == told, "who has lost his place is new"


def test_an_asker_who_was_heard_elsewhere_since_is_new_here(bench: Bench) -> None:
    knows(bench, both_sides())
    bench.run(question())
    assert [event.flags for event in bench.events()] == [HEARD | ANSWERED]
    # as the same program on the other port would have it
    elsewhere = layout.HEARD.pack_named(entry=1, mac=SETTING.asker_mac)
    bench.ns_filter.program.update("heard_addresses", layout.ADDRESS_KEY.pack_named(scope=0, address=ASKER), elsewhere)
    assert flags(bench, question()) == (XDP_TX, [HEARD | ANSWERED])


@pytest.mark.parametrize(
    ("kind", "known", "first", "second"),
    [
        (Datapath.HYBRID, PresentFlag.STALE, (XDP_TX, [STALE | HEARD | ANSWERED]), (XDP_TX, [])),
        (Datapath.HYBRID, None, (XDP_DROP, [MISS | HEARD]), (XDP_DROP, [MISS])),
        (Datapath.PYTHON, PresentFlag(0), (XDP_DROP, [HEARD]), (XDP_DROP, [EventFlag(0)])),
        (Datapath.MONITOR, PresentFlag(0), (XDP_PASS, []), (XDP_PASS, [])),
    ],
)
def test_it_is_told_with_whatever_else_there_is_to_tell(
    bench: Bench,
    kind: Datapath,
    known: PresentFlag | None,
    first: tuple[int, list[EventFlag]],
    second: tuple[int, list[EventFlag]],
) -> None:
    knows(bench, both_sides(kind), known)
    assert flags(bench, question()) == first
    assert flags(bench, question()) == second


@pytest.mark.parametrize("source", [SETTING.asker_link_local, UNSPECIFIED])
def test_an_address_that_is_nobodys_or_of_the_link_only_is_not_told_of(bench: Bench, source: bytes) -> None:
    knows(bench, both_sides())
    frame = question(source)
    if source == UNSPECIFIED:
        frame = solicit(SETTING, source=source, destination=solicited_node(SETTING.target), options=b"")
    assert not any(found & HEARD for found in flags(bench, frame)[1])


def test_where_no_hosts_are_looked_for_nobody_is_told_of(bench: Bench) -> None:
    for using in (one_side(), both_sides(back=Method.ROUTE)):
        knows(bench, using)
        assert flags(bench, question()) == (XDP_TX, [])


def test_only_the_entries_of_such_links_say_so() -> None:
    flags = {
        name: [
            bool(layout.ENTRY.get(packed, "flags") & EntryFlag.HEARS)
            for packed in finish(packing_entries(using)).values()
        ]
        for name, using in {"both": both_sides(), "one": one_side(), "route": both_sides(back=Method.ROUTE)}.items()
    }
    assert all(flags["both"])
    assert not any(flags["one"])
    assert sum(flags["route"]) == len(flags["route"]) // 2, "lan0's, behind which port0's targets are"


@pytest.mark.parametrize("limits", [Limits(events_per_second=1)])
def test_what_is_not_told_for_want_of_budget_is_told_by_the_next(bench: Bench) -> None:
    knows(bench, both_sides())
    assert flags(bench, question()) == (XDP_TX, [HEARD | ANSWERED])
    assert flags(bench, question(mac=OTHER_MAC)) == (XDP_TX, []), "the answer isn't held up by that"
    bench.ns_filter.limit(UNLIMITED)
    assert flags(bench, question(mac=OTHER_MAC)) == (XDP_TX, [HEARD | ANSWERED])
