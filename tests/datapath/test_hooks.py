# SPDX-License-Identifier: GPL-2.0-or-later
"""The program's function for tc does with each frame what that for XDP does, wherever the frame's first tag stands.

Rooms that name their HOOKS run all that they have by each; here the two are compared with one another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npd6_xdp.core.config import DadPolicy, Datapath, Vlan
from npd6_xdp.core.hidden import Tapped
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Outcome
from tests.datapath.harness import IFINDEX, XDP_DROP, XDP_TX, Bench, Hook, Seen, entry, link, rule, table, taken_over
from tests.datapath.present import QUESTION
from tests.frames import SETTING, TAGS, TAGS_8021Q, TAGS_PRIORITY_Q
from tests.kinds import KINDS, solicit, three_tags
from tests.valid_solicitations import solicitations

EVERYTHING = (rule("::/0"),)
TPIDS = (b"\x81\x00", b"\x88\xa8")
LAYOUTS = {
    **TAGS,
    "802.1ad within 802.1Q": bytes.fromhex("8100006488a80007"),
    "two of 802.1ad": bytes.fromhex("88a8006488a80007"),
    "a priority, then VLAN 200": TAGS_PRIORITY_Q,
    "priority, DEI and VLAN 100": bytes.fromhex("8100f064"),
}


class Became(NamedTuple):
    """What became of a frame: what is seen of it at once, the events without their times, and Python's answers."""

    seen: Seen
    told: list[tuple[Any, ...]]
    answers: list[bytes]


def by(bench: Bench, hook: Hook, frame: bytes) -> Became:
    bench.hook = hook
    seen, events = bench.see(frame), bench.events()
    told = [(each.target, each.source, each.rule, each.answer_mac, each.flags, each.tci) for each in events]
    return Became(seen, told, [bench.responder.answer(each).frame for each in events])


@cache
def frames(tags: bytes) -> dict[str, bytes]:
    return {kind.name: kind.build(replace(SETTING, tags=tags)) for kind in KINDS}


def everywhere(datapath: Datapath) -> Table:
    vlans = (Vlan(), Vlan(tags=(100,)), Vlan(tags=(100, 7)), Vlan(tags=(200,)), Vlan(any=True))
    return table(*(entry(vlan=vlan, datapath=datapath, dad=DadPolicy.DEFEND) for vlan in vlans))


@pytest.mark.parametrize("tags", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("datapath", Datapath)
def test_tc_makes_of_every_kind_what_xdp_makes_of_it_byte_for_byte(
    bench: Bench, datapath: Datapath, tags: bytes
) -> None:
    bench.use(everywhere(datapath))
    for name, frame in frames(tags).items():
        wanted = by(bench, Hook.XDP, frame)
        for hook in (Hook.TC, Hook.BESIDE):
            assert by(bench, hook, frame) == wanted, (name, hook)


@pytest.mark.parametrize("datapath", [Datapath.HYBRID, Datapath.PYTHON])
def test_tc_makes_of_any_solicitation_what_xdp_makes_of_it(bench: Bench, datapath: Datapath) -> None:
    met = Counter[int]()
    bench.use(table(entry(*EVERYTHING, vlan=Vlan(any=True), datapath=datapath), facts=link()))

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(solicitations())
    def compare(frame: bytes) -> None:
        wanted = by(bench, Hook.XDP, frame)
        met[wanted.seen.action] += 1
        for hook in (Hook.TC, Hook.BESIDE):
            assert by(bench, hook, frame) == wanted, hook

    compare()
    assert met[XDP_TX if datapath is Datapath.HYBRID else XDP_DROP] > 3


@given(st.binary(min_size=16, max_size=80), st.sampled_from([b"", *TPIDS]))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_no_solicitation_goes_on_as_it_is(bench: Bench, frame: bytes, type_: bytes) -> None:
    frame = frame[:12] + type_ + frame[12 + len(type_) :]
    for hook in Hook:
        assert by(bench, hook, frame).seen.frame == frame, hook


def test_of_three_tags_it_sees_no_more_by_tc_than_by_xdp(bench: Bench) -> None:
    bench.use(everywhere(Datapath.HYBRID))
    frame = three_tags(SETTING)
    assert {by(bench, hook, frame).seen.action for hook in Hook} == {by(bench, Hook.XDP, frame).seen.action}
    assert by(bench, Hook.BESIDE, frame).seen.counted == ()


def test_by_tc_nothing_is_held_for_a_tag_that_may_stand_beside_it(bench: Bench) -> None:
    """As it would be by XDP, which doesn't see such a tag."""
    here = frozenset({IFINDEX})
    bench.ns_filter.tap(Tapped(here, frozenset(), here))
    bench.use(table(entry()))
    try:
        assert by(bench, Hook.XDP, QUESTION).seen.counted == ()
        assert by(bench, Hook.TC, QUESTION).seen.counted == (Outcome.ANSWERED_XDP,)
    finally:
        bench.ns_filter.tap(Tapped())
        bench.use(table(entry()))


def test_a_program_that_takes_over_does_so_at_tc_as_well(fresh: Callable[..., Bench]) -> None:
    bench = fresh(table(entry()))
    before = bench.ns_filter.program.tc_fd
    frame = solicit(replace(SETTING, tags=TAGS_8021Q))
    assert by(bench, Hook.BESIDE, frame).seen.counted == (Outcome.UNMATCHED,)
    bench.table = using = table(entry(vlan=Vlan(tags=(100,))))
    taken_over(bench.ns_filter, using)
    assert bench.ns_filter.program.tc_fd != before
    assert by(bench, Hook.BESIDE, frame).seen.counted == (Outcome.ANSWERED_XDP,)
