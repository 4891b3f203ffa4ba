# SPDX-License-Identifier: GPL-2.0-or-later
"""More announcements than a socket has space for: then all is read anew, and none of the old ones counts."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.rtnetlink import Message
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.netlink import nlsocket
from npd6_xdp.system.netlink.links import Netlink
from npd6_xdp.system.netlink.neighbours import NeighbourWatch
from npd6_xdp.system.netlink.nlsocket import Overflow
from npd6_xdp.system.netlink.requests import Requests
from tests.netns.wire import on_edge, until

MANY = 1500


@pytest.fixture(autouse=True)
def _small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nlsocket, "RECEIVE_BUFFER", 1 << 16)


def tell(topology: Topology, lines: Iterable[str]) -> None:
    command = ["ip", "-force", "-n", topology.name("edge"), "-batch", "-"]
    subprocess.run(command, input="\n".join(lines), text=True, check=True)


def read_in_pieces(links: Netlink) -> None:
    """The rest of a reading, which is to take several turns."""
    calls = 0
    while links.unfinished:
        links.on_change(0.0)
        calls += 1
    assert calls >= 3


def test_no_neighbour_comes_back_by_an_announcement_older_than_the_overflow(topology: Topology) -> None:
    hosts = [f"2001:db8:1::1:{number:x}" for number in range(MANY)]
    with topology.inside("edge"):
        watch, requests = NeighbourWatch(), Requests()
    with closing(watch), closing(requests):
        watch.listen(wanted=True)
        tell(topology, (f"neigh replace {host} lladdr 02:00:00:00:00:99 nud permanent dev lan0" for host in hosts))
        tell(topology, (f"neigh del {host} dev lan0" for host in hosts))
        with pytest.raises(Overflow):
            list(watch.take_changes(time.monotonic() + 5))
        assert [host for host, word in watch.take_changes(time.monotonic() + 5) if word.state] == []


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


def test_what_was_lost_of_links_is_read_a_piece_at_a_time_and_what_is_said_meanwhile_counts_more(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 4,000 of them it was a turn of 0.13 s."""
    topology.sysctl("edge", "net/ipv6/conf/default/accept_dad", 0)  # of a tentative address nothing is announced
    tell(topology, (f"link add v{number} type veth peer name w{number}" for number in range(40)))
    with topology.inside("edge"):
        links = Netlink()
    with closing(links):
        tell(topology, ["link del v0", "address add 2001:db8:77::1/128 dev v1 nodad", "link set v2 name x2"])
        tell(topology, ["address add 2001:db8:77::2/128 dev v3 nodad", "link add y0 type veth peer name y1"])
        nlsocket.discard(links._changes.socket)
        with monkeypatch.context() as patch:
            patch.setattr(links._changes, "take_messages", overflow)
            links.on_change(0.0)
        assert links.unfinished
        assert plain(links).keys() >= {"v0", "v2"}, "nothing else is known yet"
        tell(topology, ["link del v4", "address del 2001:db8:77::2/128 dev v3", "link set v5 name x5", "link del y0"])
        tell(topology, ["address add 2001:db8:77::5/128 dev v6 nodad", "link add z0 type veth peer name z1"])
        read_in_pieces(links)

        def agrees() -> bool:
            links.on_change()
            with topology.inside("edge"), closing(Netlink()) as fresh:
                return plain(links) == plain(fresh)

        assert until(agrees)
        assert plain(links).keys() >= {"x2", "x5", "z0"}
        assert links.losses == 1


def test_links_are_read_a_piece_at_a_time_by_a_socket_that_stands_in_for_one_that_failed(topology: Topology) -> None:
    """With 4,000 of them it was a turn of 0.13 s."""
    tell(topology, (f"link add v{number} type veth peer name w{number}" for number in range(40)))
    with topology.inside("edge"):
        before = Netlink()
    with closing(before):
        tell(topology, ["link del v0", "link set v2 name x2", "link add y0 type veth peer name y1"])
        with topology.inside("edge"), closing(Netlink(before)) as links:
            assert links.unfinished
            assert plain(links) == plain(before), "what was known holds until then"
            tell(topology, ["link set v5 name x5", "link del y0"])
            read_in_pieces(links)

            def agrees() -> bool:
                links.on_change()
                with closing(Netlink()) as fresh:
                    return plain(links) == plain(fresh)

            assert until(agrees)
            assert plain(links).keys() >= {"x2", "x5"}
            assert not plain(links).keys() & {"v0", "y0"}


def overflow(_deadline: float) -> Iterator[Message]:
    raise Overflow
    yield


def plain(links: Netlink) -> dict[str, LinkFacts]:
    """Of each link, but for how often it has come."""
    return {name: replace(link, generation=0) for name, link in links.facts(lambda _: frozenset()).items()}
