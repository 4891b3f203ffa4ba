# SPDX-License-Identifier: GPL-2.0-or-later
"""Former other proxies, where a new table no longer carries questions both ways between the links."""

from __future__ import annotations

import time
from contextlib import closing

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.neighbour_messages import NeighbourState, Word
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.table import Table
from npd6_xdp.daemon.resolution import Resolution
from tests.daemon.forces import go_by, in_force
from tests.daemon.test_refusals import NsFilter, Tired
from tests.frames import ip6

WAN, LAN = 7, 8
LINKS = {name: LinkFacts(name, n, bytes((2, 0, 0, 0, 0, n))) for n, name in ((WAN, "wan0"), (LAN, "lan0"))}
OTHER_PROXY = bytes.fromhex("0200000000b2")
ITS = Host(WAN, ip6("2001:db8:1::b"))


def table(*ways: tuple[str, str]) -> Table:
    lines = [
        f'[[interface]]\nname = "{name}"\n[[interface.rule]]\nprefix = "2001:db8:1::/64"\nmethod = "neighbour"'
        f'\nvia = ["{via}"]'
        for name, via in ways
    ]
    return build(parse("\n".join(lines), "test"), LINKS)


def test_where_no_question_is_carried_both_ways_any_more_a_proxy_is_a_host_like_any_other() -> None:
    requests = Tired()
    requests.rests = True
    ns_filter = NsFilter()
    with closing(Resolution(ns_filter, requests, lambda _: None)) as resolution:  # type: ignore[arg-type]
        go_by(resolution, in_force(table(("wan0", "lan0"), ("lan0", "wan0")), LINKS))
        resolution._hosts._loops._other_proxies[WAN] = {OTHER_PROXY: 0.0}
        resolution._hosts._apply(resolution._hosts.places.distrust(resolution._hosts._loops.other_proxies, 0.0))
        resolution._hosts._on_word(ITS, Word(NeighbourState.REACHABLE, OTHER_PROXY))
        assert ITS.address not in ns_filter.known
        go_by(resolution, in_force(table(("lan0", "wan0")), LINKS))
        assert ITS.address in ns_filter.known


def test_thousands_that_another_proxy_has_answered_for_are_no_hosts_any_more_in_slices() -> None:
    """Each takes 5 us: with 65,536 it was a turn of 0.16 s."""
    requests = Tired()
    requests.rests = True
    with closing(Resolution(NsFilter(), requests, lambda _: None)) as resolution:  # type: ignore[arg-type]
        go_by(resolution, in_force(table(("wan0", "lan0"), ("lan0", "wan0")), LINKS))
        hosts = resolution._hosts
        for number in range(1_000):
            host = Host(WAN, ip6(f"2001:db8:1::{number:x}"))
            hosts._on_word(host, Word(NeighbourState.REACHABLE, OTHER_PROXY))
        hosts._loops._other_proxies[WAN] = {OTHER_PROXY: time.monotonic()}
        before = len(resolution.neighbours)
        hosts._apply(hosts.places.distrust(hosts._loops.other_proxies, 0.0))
        turns = 1
        while hosts.places.unsettled:
            assert len(resolution.neighbours) > 0
            assert resolution.due == 0.0
            resolution.tick(0.0)
            turns += 1
        assert turns > 5
        assert before - len(resolution.neighbours) == 1_000
