# SPDX-License-Identifier: GPL-2.0-or-later
"""More announcements than a socket has room for: then all is read anew, and none of the old ones counts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from contextlib import closing
from ipaddress import IPv6Address

import pytest

from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.netlink import nlsocket
from npd6_xdp.system.netlink.links import Netlink
from npd6_xdp.system.netlink.neighbours import NeighbourWatch
from npd6_xdp.system.netlink.nlsocket import Overflow
from npd6_xdp.system.netlink.requests import Requests
from tests.netns.wire import on_edge

MANY = 1500


@pytest.fixture(autouse=True)
def _small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nlsocket, "RECEIVE_BUFFER", 1 << 16)


def tell(topology: Topology, lines: Iterable[str]) -> None:
    command = ["ip", "-force", "-n", topology.name("edge"), "-batch", "-"]
    subprocess.run(command, input="\n".join(lines), text=True, check=True)


def test_no_neighbour_comes_back_by_an_announcement_older_than_the_overflow(topology: Topology) -> None:
    hosts = [f"2001:db8:1::1:{number:x}" for number in range(MANY)]
    with topology.inside("edge"):
        watch, requests = NeighbourWatch(), Requests()
    with closing(watch), closing(requests):
        watch.listen(wanted=True)
        tell(topology, (f"neigh replace {host} lladdr 02:00:00:00:00:99 nud permanent dev lan0" for host in hosts))
        tell(topology, (f"neigh del {host} dev lan0" for host in hosts))
        with pytest.raises(Overflow):
            list(watch.changes(time.monotonic() + 5))
        assert [host for host, word in watch.changes(time.monotonic() + 5) if word.state] == []


def test_no_address_comes_back_by_an_announcement_older_than_the_overflow(topology: Topology) -> None:
    with topology.inside("edge"):
        links = Netlink()
    with closing(links):
        on_edge(topology, "address add 2001:db8:1::42/128 dev wan0 nodad")
        line = "address {} 2001:db8:77::1/128 dev lo {}"
        tell(topology, (line.format(*words) for _ in range(MANY) for words in (("add", "nodad"), ("del", ""))))
        on_edge(topology, "address del 2001:db8:1::42/128 dev wan0")
        links.on_change()
        held = {own.address for own in links.facts(lambda _: frozenset())["wan0"].own(())}
        assert IPv6Address("2001:db8::2") in held
        assert IPv6Address("2001:db8:1::42") not in held
