# SPDX-License-Identifier: GPL-2.0-or-later
"""What the table in force doesn't ask for is forgotten bit by bit, and another table may come between two bits."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.neighbour_messages import NeighbourState, Word
from npd6_xdp.core.neighbours import Host
from npd6_xdp.daemon import hosts
from npd6_xdp.daemon.in_force import InForce
from npd6_xdp.daemon.resolution import Resolution
from tests.core.tables import own
from tests.daemon.forces import go_by
from tests.daemon.test_refusals import NsFilter, Tired
from tests.frames import ip6

LAN = 8
WAN = LinkFacts("wan0", 7, bytes((2, 0, 0, 0, 0, 7)), l3={(): 7})
LINKS = {"wan0": WAN, "lan0": LinkFacts("lan0", LAN, bytes((2, 0, 0, 0, 0, LAN)), l3={(): LAN})}
RULE = 'prefix = "2001:db8:1::/64"\nmethod = "neighbour"\nvia = ["lan0"]\nhost_routes = true'
CONFIG = parse(f'[[interface]]\nname = "wan0"\n[[interface.rule]]\n{RULE}', "test")


def with_addresses(*addresses: str) -> dict[str, LinkFacts]:
    return LINKS | {"wan0": replace(WAN, addresses={(): own(*addresses)})}


@pytest.mark.parametrize("bits", range(5))
def test_a_route_that_the_table_before_the_last_has_taken_back_is_taken_back(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "SLICE", 0.0)
    requests = Tired()
    requests.rests = True
    ours = "2001:db8:1::5"
    host = Host(LAN, ip6(ours))
    with closing(Resolution(NsFilter(), requests, lambda _: None)) as resolution:  # type: ignore[arg-type]

        def settle(most: int) -> None:
            for _ in range(most):
                if resolution._hosts._settling is not None:
                    resolution.tick(time.monotonic())

        last: InForce | None = None
        for links, turns in ((LINKS, 99), (with_addresses(ours), bits), (with_addresses(ours, "2001:db8:1::6"), 99)):
            table = build(CONFIG, links, last.table if last else None)
            before, last = last, InForce(CONFIG, CONFIG, links, table)
            go_by(resolution, last, *([before] if before else []))
            settle(turns)
            if before is None:
                resolution._hosts._on_word(host, Word(NeighbourState.REACHABLE, bytes((2, 0, 0, 0, 0, 9))))
                assert host in resolution.routes
        assert host not in resolution.routes
