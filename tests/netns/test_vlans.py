# SPDX-License-Identifier: GPL-2.0-or-later
"""Which frames an [[interface]] speaks for, on the wire: `any`, priority tags, and tags that no entry has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.frames import TAGS_8021Q, TAGS_MENU, TAGS_PRIORITY, TAGS_QINQ
from tests.judge import judge_advertisement
from tests.kinds import solicit
from tests.netns.wire import EDGE, SETTING, Wire, configuration, until

Start = Callable[..., RunningDaemon]

TAGS_100_8 = bytes.fromhex("88a8006481000008")
TAGS_7_100 = bytes.fromhex("88a8000781000064")  # 100.7 the wrong way round
PRIORITY_THEN_100 = bytes.fromhex("8100000081000064")


def counted(running: RunningDaemon) -> Counter[tuple[str, str]]:
    """(interface label, outcome) and how many; `own` left out, since the upstream's kernel asks for that by itself."""
    found: Counter[tuple[str, str]] = Counter()
    running.settle()
    for (name, labels), value in running.metrics().items():
        words = dict(labels)
        if name == "npd6_solicitations_total" and value and words["outcome"] != "own":
            found[words["interface"], words["outcome"]] = int(value)
    return found


@pytest.mark.parametrize(("datapath", "answered"), [("hybrid", "answered_xdp"), ("python", "answered_python")])
def test_an_entry_for_any_vlan_answers_under_every_tag_and_keeps_it(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    running = daemon(configuration(vlan='"any"', datapath=f'"{datapath}"'))
    with Wire(topology) as wire:
        for tags in TAGS_MENU:
            asked = solicit(replace(SETTING, tags=tags))
            answer = wire.ask(asked)
            assert answer is not None, tags.hex()
            judge_advertisement(answer, asked, EDGE, router=True)
    assert until(lambda: counted(running) == {("wan0:any", answered): len(TAGS_MENU)}), counted(running)


@pytest.mark.parametrize(("datapath", "answered"), [("hybrid", "answered_xdp"), ("python", "answered_python")])
def test_a_priority_tag_is_no_vlan_and_comes_back_in_the_answer(
    topology: Topology, daemon: Start, datapath: str, answered: str
) -> None:
    running = daemon(configuration(datapath=f'"{datapath}"'))
    asked = solicit(replace(SETTING, tags=TAGS_PRIORITY))
    with Wire(topology) as wire:
        answer = wire.ask(asked)
    assert answer is not None
    judge_advertisement(answer, asked, EDGE, router=True)
    assert until(lambda: counted(running) == {("wan0", answered): 1}), counted(running)


def test_frames_that_no_entry_speaks_for_are_unmatched_even_next_to_one_that_does(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(configuration(vlan='"100.7"'))
    strangers = (b"", TAGS_8021Q, TAGS_PRIORITY, TAGS_100_8, TAGS_7_100)
    with Wire(topology) as wire:
        wire.send(*(solicit(replace(SETTING, tags=tags)) for tags in strangers))
        assert wire.advertisements(0.3) == []
        assert wire.ask(solicit(replace(SETTING, tags=TAGS_QINQ))) is not None
    unmatched = {outcome: n for (_, outcome), n in counted(running).items() if outcome != "answered_xdp"}
    assert unmatched == {"unmatched": len(strangers)}
    assert counted(running)["wan0:100.7", "answered_xdp"] == 1


def test_one_vlan_may_ignore_what_another_answers(topology: Topology, daemon: Start) -> None:
    text = configuration(vlan='"any"') + configuration("2001:db8:1::/64 ignore", vlan="100")
    running = daemon(text)
    with Wire(topology) as wire:
        assert wire.ask(solicit(replace(SETTING, tags=TAGS_8021Q)), 0.3) is None
        assert wire.ask(solicit(replace(SETTING, tags=TAGS_QINQ))) is not None
        assert wire.ask(solicit(SETTING)) is not None
    found = counted(running)
    # what seems to be untagged is looked at twice on a trunk, so Python may have answered that one
    answered = found.pop(("wan0:any", "answered_xdp")) + found.pop(("wan0:any", "answered_python"), 0)
    assert (answered, found) == (2, {("wan0:100", "ignored"): 1})
