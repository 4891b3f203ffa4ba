# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a multicast router was announced, on the way from a process to whoever ends that (docs/rules.md, I6)."""

from __future__ import annotations

import random

from npd6_xdp.core.mrd import tags_of
from npd6_xdp.core.mrd_left import LeftRouter, pack, unpack
from npd6_xdp.core.mrd_segments import Segment
from tests.frames import ether, ip6

MAC, SOURCE = ether("02:00:00:00:00:07"), ip6("fe80::7")
ROUTERS = [LeftRouter(7, MAC, SOURCE, tags_of(vids)) for vids in ((), (100,), (100, 200))]


def test_they_come_back_with_the_segment_that_they_are_of() -> None:
    assert unpack(pack(ROUTERS)) == ROUTERS
    assert [each.segment for each in ROUTERS] == [Segment(7, ()), Segment(7, (100,)), Segment(7, (100, 200))]


def test_what_cant_be_is_left_out() -> None:
    one = ROUTERS[1]
    wrong = [
        one._replace(ifindex=0),
        one._replace(ifindex=1 << 31),
        one._replace(mac=ether("33:33:00:00:00:01")),
        one._replace(source=ip6("2001:db8::1")),
        one._replace(tags=b"\x08\x00\0\x07"),
        one._replace(tags=one.tags[:3]),
    ]
    assert unpack(pack([*wrong, one])) == [one]
    assert unpack(pack([one])[:-1]) == []
    assert unpack(b"") == []


def test_whatever_bytes_there_are_nothing_is_raised() -> None:
    data = pack(ROUTERS)
    chance = random.Random(1)  # noqa: S311
    for _ in range(2_000):
        changed = bytearray(data)
        for _ in range(chance.randrange(1, 5)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        for each in unpack(bytes(changed[: chance.randrange(len(changed) + 1)])):
            assert len(each.end) >= 66
