# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts that are away: who went first goes first, and each has the time that is allowed now."""

from __future__ import annotations

from npd6_xdp.core.away import Away
from npd6_xdp.core.neighbours import Host

ONE, TWO, THREE = (Host(8, bytes(15) + bytes([number])) for number in (1, 2, 3))
ELSEWHERE = Host(9, ONE.address)


def over(away: Away, now: float, space: int = 99) -> list[Host]:
    found = []
    while (host := away.take_due(now, space)) is not None:
        found.append(host)
    return found


def test_each_is_kept_for_so_long_since_it_went_for_the_first_time() -> None:
    away = Away(120)
    assert away.due is None
    assert over(away, 1e9) == []
    away.add(ONE, 10.0)
    away.add(TWO, 20.0)
    away.add(ONE, 30.0)  # the kernel has looked for it once more
    assert away.due == 130.0
    assert over(away, 129.9) == []
    assert over(away, 130.0) == [ONE]
    assert away.due == 140.0, "of the one that is left"
    assert away.hosts() == (TWO,)
    away.add(ONE, 135.0)
    assert over(away, 1e9) == [TWO, ONE]


def test_another_time_counts_for_those_that_have_gone_too() -> None:
    away = Away(120)
    away.add(ONE, 10.0)
    away.add(TWO, 20.0)
    away.seconds = 5
    assert over(away, 15.0) == [ONE]
    away.seconds = 1000
    assert over(away, 1019.0) == []
    away.seconds = 0
    assert over(away, 20.0) == [TWO]


def test_where_there_is_no_space_the_one_that_has_been_gone_for_longest_goes() -> None:
    away = Away(120)
    for number, host in enumerate((ONE, TWO, THREE)):
        away.add(host, float(number))
    assert over(away, 3.0, space=2) == [ONE]
    assert over(away, 3.0, space=0) == [TWO, THREE]


def test_one_address_is_known_by_all_places_where_it_was_until_these_are_dropped() -> None:
    away = Away(120)
    away.add(ELSEWHERE, 1.0)
    away.add(ONE, 2.0)
    assert away.at(ONE.address) == [ONE, ELSEWHERE]
    away.discard(ELSEWHERE)
    away.discard(ELSEWHERE)
    assert away.at(ONE.address) == [ONE]
    assert (ELSEWHERE in away, ONE in away) == (False, True)
    assert over(away, 1e9) == [ONE]
    assert away.at(ONE.address) == []
    assert not away._links
