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
from tests.datapath.harness import IFINDEX, XDP_PASS, XDP_TX, Bench, entry, table
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
