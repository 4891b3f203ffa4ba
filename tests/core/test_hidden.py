# SPDX-License-Identifier: GPL-2.0-or-later
"""Ports that are silent because of VLAN tags beside the frames: from when, until when, and what is said of them."""

from __future__ import annotations

from npd6_xdp.core.hidden import LONG, SEEMS_MENDED, HiddenTags
from npd6_xdp.core.links import LinkFacts

MAC = bytes(6)


def test_a_port_is_silent_from_the_first_hidden_tag_on_and_each_vlan_is_news_once() -> None:
    hidden = HiddenTags()
    assert hidden.ports == frozenset()
    assert hidden.seen(7, 100, 0, 1.0)
    assert not hidden.seen(7, 100, 0, 2.0)
    assert hidden.seen(7, 200, 0, 3.0)
    assert hidden.ports == {7}


def test_it_is_mended_when_tags_come_within_frames_while_none_is_hidden() -> None:
    hidden = HiddenTags()
    hidden.seen(7, 100, 5, 10.0)
    assert not hidden.take_mended(7, 5, 10.0 + SEEMS_MENDED + 1), "nothing was seen since"
    assert not hidden.take_mended(7, 6, 10.0 + SEEMS_MENDED - 1), "too early: some senders may still hide theirs"
    hidden.seen(7, 100, 6, 13.0)
    assert not hidden.take_mended(7, 6, 13.0 + SEEMS_MENDED), "it has come before the last hidden one"
    assert hidden.take_mended(7, 7, 13.0 + SEEMS_MENDED)
    assert hidden.ports == frozenset()


def test_it_is_mended_when_no_hidden_tag_has_come_for_long() -> None:
    hidden = HiddenTags()
    hidden.seen(7, 100, 0, 10.0)
    assert not hidden.take_mended(7, 0, 10.0 + LONG - 1)
    assert hidden.take_mended(7, 0, 10.0 + LONG)


def test_a_port_that_is_none_any_more_is_forgotten() -> None:
    hidden = HiddenTags()
    hidden.seen(7, 100, 0, 1.0)
    hidden.forget_others(frozenset({8}))
    assert hidden.ports == frozenset()


def test_what_is_said_names_the_side_on_which_to_mend_it() -> None:
    hidden = HiddenTags()
    for vlan in (200, 100):
        hidden.seen(7, vlan, 0, 1.0)
    (line,) = hidden.warnings({"wan0": LinkFacts("wan0", 7, MAC, lossy=True), "lan0": LinkFacts("lan0", 8, MAC)})
    assert line.startswith("wan0: tags of VLAN 100, 200 stand beside the frames")
    assert line.endswith("on the other end of wan0, PEER there: ethtool -K PEER txvlan off")
    (line,) = hidden.warnings({"wan0": LinkFacts("wan0", 7, MAC)})
    assert line.endswith(": ethtool -K wan0 rxvlan off")


def test_a_flood_of_vlans_is_neither_news_nor_a_long_line() -> None:
    hidden = HiddenTags()
    news = [hidden.seen(7, vlan, 0, 1.0) for vlan in range(1, 100)]
    assert sum(news) < 10
    (line,) = hidden.warnings({"wan0": LinkFacts("wan0", 7, MAC)})
    assert len(line) < 300
