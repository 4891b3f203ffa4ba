# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports on which VLAN tags may stand beside the frames: what the program leaves to the tap, and what it doesn't."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from npd6_xdp.core.config import DadPolicy, Datapath, Vlan
from npd6_xdp.core.hidden import Tapped
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.system.bpf.testrun import TestRun
from tests.datapath.harness import IFINDEX, XDP_PASS, XDP_TX, Bench, Hook, Seen, entry, table
from tests.datapath.test_budgets import promptly
from tests.frames import SETTING, TAGS_8021Q, TAGS_PRIORITY, UNSPECIFIED
from tests.kinds import solicit

HERE = frozenset({IFINDEX})
QUESTION = solicit(SETTING)
TAGGED = QUESTION[:12] + TAGS_8021Q + QUESTION[12:]
PRIORITY = QUESTION[:12] + TAGS_PRIORITY + QUESTION[12:]


@pytest.fixture
def tapped(bench: Bench) -> Iterator[Callable[..., None]]:
    """Have the program decide by a table of two entries, untagged and VLAN 100, on a port with a tap."""

    def use(tapped: Tapped, *vlans: Vlan, **keys: Any) -> None:
        bench.ns_filter.tap(tapped)
        bench.use(table(*(entry(vlan=vlan, **keys) for vlan in vlans or (Vlan(), Vlan(tags=(100,))))))

    yield use
    bench.ns_filter.tap(Tapped())
    bench.use(table(entry()))


@pytest.mark.parametrize("datapath", [Datapath.HYBRID, Datapath.PYTHON])
@pytest.mark.parametrize("dad", [False, True])
def test_on_a_guarded_port_what_seems_to_be_untagged_is_neither_answered_nor_handed_up(
    bench: Bench, tapped: Callable[..., None], datapath: Datapath, dad: bool
) -> None:
    tapped(Tapped(HERE, frozenset(), HERE), datapath=datapath, dad=DadPolicy.DEFEND)
    question = solicit(SETTING, source=UNSPECIFIED, options=b"") if dad else QUESTION
    seen = bench.see(question)
    assert (seen.action, seen.frame, seen.counted, bench.events()) == (XDP_PASS, question, (), [])


@pytest.mark.parametrize("frame", [TAGGED, PRIORITY], ids=["VLAN 100", "a priority tag"])
def test_a_tag_within_the_frame_is_believed(bench: Bench, tapped: Callable[..., None], frame: bytes) -> None:
    for state in (Tapped(HERE, frozenset(), HERE), Tapped(HERE)):
        tapped(state)
        seen = bench.see(frame)
        assert (seen.action, seen.counted) == (XDP_TX, (Outcome.ANSWERED_XDP,))


def test_a_tap_alone_changes_nothing(bench: Bench, tapped: Callable[..., None]) -> None:
    tapped(Tapped(HERE))
    assert bench.see(QUESTION).counted == (Outcome.ANSWERED_XDP,)


@pytest.mark.parametrize("vlans", [(Vlan(), Vlan(tags=(100,))), (Vlan(any=True),)], ids=["two entries", "any"])
def test_on_a_silent_port_only_what_has_its_tag_within_is_answered(
    bench: Bench, tapped: Callable[..., None], vlans: tuple[Vlan, ...]
) -> None:
    tapped(Tapped(HERE, HERE), *vlans)
    seen = bench.see(QUESTION)
    assert (seen.action, seen.counted, bench.events()) == (XDP_PASS, (Outcome.MONITORED,), [])
    assert bench.see(TAGGED).counted == (Outcome.ANSWERED_XDP,)
    tapped(Tapped(HERE), *vlans)
    assert bench.see(QUESTION).counted == (Outcome.ANSWERED_XDP,)


def test_of_a_sample_one_multicast_question_in_a_second_is_left_to_the_tap(
    bench: Bench, tapped: Callable[..., None]
) -> None:
    tapped(Tapped(HERE, sampled=HERE))
    unicast = SETTING.mac + QUESTION[6:]
    assert bench.see(unicast).counted == (Outcome.ANSWERED_XDP,), "the kernel would forward it"
    began = time.monotonic()
    seen = [bench.see(QUESTION) for _ in range(50)]
    held = [each for each in seen if not each.counted]
    assert 1 <= len(held) <= 3 + (time.monotonic() - began)
    assert held[0] is seen[0]
    assert {(each.action, each.frame) for each in held} == {(XDP_PASS, QUESTION)}
    assert bench.events() == []
    assert bench.see(TAGGED).counted == (Outcome.ANSWERED_XDP,)


# --- at tc as well, while a port goes from the one to the other ---


class Both:
    """A frame's way on a port where the program is by XDP, in generic mode, and at tc."""

    def __init__(self, bench: Bench) -> None:
        self._bench, self._runs = bench, TestRun()
        self.by(Hook.TC)  # loaded by need, which takes long

    def by(self, hook: Hook, frame: bytes = QUESTION) -> Seen:
        self._bench.hook = hook
        try:
            return self._bench.see(frame)
        finally:
            self._bench.hook = Hook.XDP

    def tap(self, frame: bytes = QUESTION) -> int:
        """How many events the tap has handed up for it."""
        # in a run of a socket's filter, what comes first is no part of the frame
        unknown = bytes(12) + b"\x88\xb5"
        self._runs.run_tc(self._bench.ns_filter.program.tap_fd, unknown + frame, ifindex=IFINDEX)
        return len(self._bench.events())


@pytest.fixture
def both(bench: Bench, tapped: Callable[..., None], one_cpu: None) -> Both:
    tapped(Tapped(HERE, guarded=HERE))
    return Both(bench)


def test_what_the_tap_has_handed_up_is_left_alone_at_tc_and_nothing_else_is(
    bench: Bench, tapped: Callable[..., None], one_cpu: None
) -> None:
    both = Both(bench)

    def make() -> Bench:
        tapped(Tapped(HERE, guarded=HERE))
        return bench

    def is_left_alone(_: Bench) -> None:
        assert both.by(Hook.XDP).counted == ()
        assert both.tap() == 1
        left = both.by(Hook.TC)
        assert (left.action, left.frame, left.counted) == (XDP_PASS, QUESTION, ())

    promptly(make, is_left_alone, 0.1)
    assert both.by(Hook.TC).counted == (Outcome.ANSWERED_XDP,), "the next one in the same words"


@pytest.mark.parametrize("other", [TAGGED, solicit(SETTING, target=bytes(SETTING.target[:15]) + b"\x77")])
def test_another_frame_behind_it_is_answered_at_tc(both: Both, other: bytes) -> None:
    both.by(Hook.XDP)
    assert both.tap() == 1
    assert both.by(Hook.TC, other).counted == (Outcome.ANSWERED_XDP,)


def test_what_the_tap_has_seen_since_is_answered_at_tc(both: Both) -> None:
    both.by(Hook.XDP)
    assert (both.tap(), both.tap()) == (1, 0)
    assert both.by(Hook.TC).counted == (Outcome.ANSWERED_XDP,)


def test_one_in_the_same_words_is_answered_at_tc_when_the_tap_took_the_former_too_long_ago(both: Both) -> None:
    both.by(Hook.XDP)
    assert both.tap() == 1
    time.sleep(0.15)
    assert both.by(Hook.TC).counted == (Outcome.ANSWERED_XDP,)


def test_what_no_tap_has_taken_is_answered_at_tc(both: Both) -> None:
    assert both.by(Hook.XDP).counted == ()
    assert both.by(Hook.TC).counted == (Outcome.ANSWERED_XDP,)
