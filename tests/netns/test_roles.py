# SPDX-License-Identifier: GPL-2.0-or-later
"""A pair of edges (docs/rules.md, I): the entry answers while this machine holds the address, whoever puts it there."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from npd6_xdp.system.netlink import nlsocket
from npd6_xdp.system.netlink.links import Netlink
from tests.netns.test_overflow import tell
from tests.netns.test_reload import reload
from tests.netns.verb import verb
from tests.netns.wire import LATE, Asker, Wire, configuration, on_edge, question, says, standing_still, until

Start = Callable[..., RunningDaemon]

ADDRESS = "192.0.2.1"
BY = {"hybrid": "answered_xdp", "python": "answered_python"}


def role(running: RunningDaemon) -> dict[str, float]:
    """npd6_interface_active, by active_with."""
    found = {}
    for (name, labels), value in running.metrics().items():
        if name == "npd6_interface_active":
            words = dict(labels)
            assert words.pop("interface") == "wan0"
            found[words.pop("active_with")] = value
            assert not words
    return found


def gets(running: RunningDaemon, active: int, address: str = ADDRESS) -> bool:
    return until(lambda: role(running) == {address: active})


@pytest.mark.parametrize("datapath", BY)
def test_it_answers_with_the_address_and_leaves_all_to_the_other_edge_without(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    keys = {"datapath": f'"{datapath}"', "active_with": f'"{ADDRESS}"'}
    running = daemon(configuration("2001:db8:1::/64 static", **keys))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        for number in range(3):
            assert role(running) == {ADDRESS: 0}
            assert asker.outcome(f"2001:db8:1::{number:x}") == "standby"
            on_edge(topology, f"address add {ADDRESS}/24 dev lan0")
            assert gets(running, 1)
            assert asker.outcome(f"2001:db8:1::{number:x}") == BY[datapath]
            on_edge(topology, f"address del {ADDRESS}/24 dev lan0")
            assert gets(running, 0)
        answers = [NeighborAdvertisement.parse(answer) for answer in wire.advertisements(0.1)]
        assert len([answer for answer in answers if answer.solicited]) == 3
    assert says(running, f"wan0: active: {ADDRESS} is on this machine", 3)
    assert says(running, f"wan0: on standby: {ADDRESS} isn't on this machine", 4)
    status = json.loads(verb(running, "status", "--json").stdout)
    (interface,) = status["interfaces"]
    assert (interface["active_with"], interface["active"]) == (ADDRESS, False)
    assert f"on standby: {ADDRESS} isn't on this machine" in verb(running, "status").stdout


@pytest.mark.parametrize("datapath", BY)
def test_the_very_next_question_is_answered_once_the_address_has_come_and_none_once_it_has_gone(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    """A single one each time, sent when the daemon has said that it has taken in what the kernel announced."""
    keys = {"datapath": f'"{datapath}"', "active_with": f'"{ADDRESS}"'}
    running = daemon(configuration("2001:db8:1::/64 static", **keys))
    changes = 10
    with Wire(topology) as wire:
        for number in range(1, changes + 1):
            on_edge(topology, f"address add {ADDRESS}/24 dev lan0")
            assert gets(running, 1)
            assert wire.ask(question("2001:db8:1::7"), LATE) is not None
            on_edge(topology, f"address del {ADDRESS}/24 dev lan0")
            assert gets(running, 0)
            wire.send(question("2001:db8:1::7"))
            assert until(lambda: running.solicitations().get("standby") == number)  # noqa: B023
    assert until(lambda: running.solicitations() == {BY[datapath]: changes, "standby": changes})


def test_how_soon_a_question_is_answered_after_the_address_has_come(topology: Topology, daemon: Start) -> None:
    """A figure to look at: there is no bound on a machine that is busy with something else."""
    running = daemon(configuration("2001:db8:1::/64 static", active_with=f'"{ADDRESS}"'))
    took = []
    with Wire(topology) as wire:
        for _ in range(5):
            on_edge(topology, f"address add {ADDRESS}/24 dev lan0")
            began = time.monotonic()
            assert until(lambda: wire.ask(question("2001:db8:1::7"), 0.005) is not None)
            took.append(time.monotonic() - began)
            assert wire.ask(question("2001:db8:1::7"), LATE) is not None, "and from then on"
            on_edge(topology, f"address del {ADDRESS}/24 dev lan0")
            assert gets(running, 0)
    print(f"answered after {', '.join(f'{seconds * 1000:.1f}' for seconds in sorted(took))} ms")


def test_on_standby_nothing_is_resolved_proxied_or_routed_and_then_all_of_it_is(
    topology: Topology, daemon: Start
) -> None:
    rules = (
        "2001:db8:1::/64 neighbour via=lan0 host_routes=true",
        "2001:db8:3::/64 kernel",
    )
    running = daemon(configuration(*rules, active_with=f'"{ADDRESS}"'))

    def ours() -> tuple[int, int]:
        """Host routes and proxy entries of ours."""
        routes = topology.run("edge", "ip", "-6", "route", "show", "proto", "136").stdout.splitlines()
        proxies = topology.run("edge", "ip", "-6", "neigh", "show", "proxy").stdout.splitlines()
        return len(routes), len(proxies)

    with Wire(topology) as wire, Wire(topology, "host") as host:
        host.only_solicitations()
        asker = Asker(wire, running)
        assert [asker.outcome(target) for target in (HOST_ADDRESS, "2001:db8:3::1")] == ["standby", "standby"]
        assert host.waiting() == 0, "nobody was looked for"
        assert ours() == (0, 0)
        on_edge(topology, f"address add {ADDRESS}/24 dev lan0")
        assert gets(running, 1)
        assert wire.ask(question(HOST_ADDRESS)) is not None
        assert wire.ask(question("2001:db8:3::1")) is not None
        assert until(lambda: ours() == (1, 1))
        on_edge(topology, f"address del {ADDRESS}/24 dev lan0")
        assert gets(running, 0)
        assert until(lambda: ours() == (0, 0))
        assert [asker.outcome(target) for target in (HOST_ADDRESS, "2001:db8:3::1")] == ["standby", "standby"]
        on_edge(topology, f"address add {ADDRESS}/24 dev lan0")
        assert until(lambda: ours()[0] == 1), "the host is known all along, so its route is there at once"
        assert asker.outcome(HOST_ADDRESS) == "answered_xdp"


def test_who_waits_for_a_target_when_the_address_goes_isnt_answered_any_more(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:1::/64 neighbour via=lan0", active_with=f'"{ADDRESS}"'))
    on_edge(topology, f"address add {ADDRESS}/24 dev lan0")
    assert gets(running, 1)
    late = "2001:db8:1::77"
    with Wire(topology) as wire:
        assert Asker(wire, running).outcome(late) == "pending"
        on_edge(topology, f"address del {ADDRESS}/24 dev lan0")
        assert gets(running, 0)
        topology.run("host", "ip", "address", "add", f"{late}/64", "dev", "eth0", "nodad", check=True)
        assert until(lambda: late in topology.run("edge", "ip", "-6", "neigh", "show", "dev", "lan0").stdout)
        assert wire.answer(None, 1.5) is None


KINDS = (
    ("IPv4", "192.0.2.1", "192.0.2.1/32 dev wan0"),
    ("IPv4 on lo", "192.0.2.1", "192.0.2.1/32 dev lo"),
    ("IPv6", "2001:db8:99::1", "2001:db8:99::1/128 dev lan0 nodad"),
    ("link-local", "fe80::99%lan0", "fe80::99/64 dev lan0 nodad"),
)


@pytest.mark.parametrize(("what", "active_with", "address"), KINDS, ids=[what for what, *_ in KINDS])
def test_an_address_of_any_kind_counts_wherever_it_is_and_is_found_again_by_a_restart(
    topology: Topology, daemon: Start, what: str, active_with: str, address: str
) -> None:
    running = daemon(configuration(active_with=f'"{active_with}"'))
    assert role(running) == {active_with: 0}
    on_edge(topology, f"address add {address}")
    assert gets(running, 1, active_with)
    running.stop()
    again = daemon(configuration(active_with=f'"{active_with}"'))
    assert role(again) == {active_with: 1}
    on_edge(topology, f"address del {address.removesuffix(' nodad')}")
    assert gets(again, 0, active_with)


def test_a_reload_gives_an_entry_a_role_or_takes_it(topology: Topology, daemon: Start) -> None:
    on_edge(topology, f"address add {ADDRESS}/32 dev lo")
    running = daemon(configuration())
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert role(running) == {}
        reload(running, configuration(active_with='"192.0.2.2"'))
        assert (role(running), asker.outcome("2001:db8:1::1")) == ({"192.0.2.2": 0}, "standby")
        reload(running, configuration(active_with=f'"{ADDRESS}"'))
        assert (role(running), asker.outcome("2001:db8:1::1")) == ({ADDRESS: 1}, "answered_xdp")
        reload(running, configuration())
        assert (role(running), asker.outcome("2001:db8:1::1")) == ({}, "answered_xdp")


@pytest.fixture
def netlink(topology: Topology) -> Iterator[Netlink]:
    """What the edge's kernel says, without a daemon around."""
    with topology.inside("edge"):
        found = Netlink()
    with closing(found):
        yield found


def holds(netlink: Netlink, *addresses: str) -> set[str]:
    netlink.on_change()
    return set(netlink.held(frozenset(addresses)))


def comes_to_hold(netlink: Netlink, asked: Collection[str], held: set[str]) -> bool:
    """The kernel says that an IPv6 address is usable some time after it was added, without DAD as well."""
    return until(lambda: holds(netlink, *asked) == held)


def test_a_role_that_comes_and_goes_while_a_reload_is_made_ready_is_had_by_both_tables(
    topology: Topology, daemon: Start
) -> None:
    """Another program is loaded for so many rules, and hosts begin to be known: whatever rooms are at, it comes."""
    keys = {"active_with": f'"{ADDRESS}"'}
    running = daemon(configuration("2001:db8:2::/64 static", **keys))
    many = [f"2001:db8:{number:x}::/64 static" for number in range(0x1000, 0x1000 + 5000)]
    neighbour = "2001:db8:1::/64 neighbour via=lan0 host_routes=true"
    flips = 0
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        lan0 = '[[interface]]\nname = "lan0"\n[[interface.rule]]\nprefix = "2001:db8:9::/64"\nmethod = "static"\n'
        running.write(configuration(*many, neighbour, "2001:db8:2::/64 static", **keys) + lan0)
        running.process.send_signal(signal.SIGHUP)
        while "the new configuration is in use" not in running.log:
            flips += 1
            on_edge(topology, f"address {'add' if flips % 2 else 'del'} {ADDRESS}/24 dev lan0")
            assert gets(running, flips % 2)
        print(f"{flips} changes of role meanwhile")
        for active in (1, 0, 1):
            if flips % 2 != active:
                flips += 1
                on_edge(topology, f"address {'add' if active else 'del'} {ADDRESS}/24 dev lan0")
            assert gets(running, active)
            outcome = BY["hybrid"] if active else "standby"
            assert [asker.outcome(f"2001:db8:{number}::7") for number in ("2", "1000")] == [outcome, outcome]
            assert (wire.ask(question(HOST_ADDRESS)) is not None) is bool(active)
    assert "rror" not in running.log
    assert running.log.count("lan0: attached") == 1, "it was attached for the reload, and is kept"


def test_an_address_counts_that_an_interface_has_twice_until_both_are_gone(
    topology: Topology, netlink: Netlink
) -> None:
    on_edge(topology, f"address add {ADDRESS}/24 dev lan0", f"address add {ADDRESS}/32 dev lan0")
    on_edge(topology, f"address add {ADDRESS}/32 dev wan0")
    for line in ("/24 dev lan0", "/32 dev lan0"):
        assert holds(netlink, ADDRESS) == {ADDRESS}
        on_edge(topology, f"address del {ADDRESS}{line}")
    assert holds(netlink, ADDRESS) == {ADDRESS}
    on_edge(topology, f"address del {ADDRESS}/32 dev wan0")
    assert holds(netlink, ADDRESS) == set()


def test_a_tentative_address_and_a_duplicate_dont_count(topology: Topology, netlink: Netlink) -> None:
    """Somebody else may have it: two edges that both believe to be active would both answer."""
    address, taken = "2001:db8::99", "2001:db8::98"
    topology.run("upstream", "ip", "address", "add", f"{taken}/64", "dev", "eth0", "nodad", check=True)
    topology.sysctl("edge", "net/ipv6/neigh/wan0/retrans_time_ms", 4_000)
    on_edge(topology, f"address add {address}/64 dev wan0", f"address add {taken}/64 dev wan0")
    with topology.inside("edge"), closing(Netlink()) as fresh:
        assert holds(fresh, address, taken) == set(), "both are tentative, for four seconds"
        assert until(lambda: holds(netlink, address, taken) == {address})
        assert until(lambda: "dadfailed" in addresses(topology))
        assert holds(fresh, address, taken) == {address}
    with topology.inside("edge"), closing(Netlink()) as fresh:
        assert holds(fresh, address, taken) == {address}
    on_edge(topology, f"address del {address}/64 dev wan0")
    assert holds(netlink, address) == set()


def addresses(topology: Topology) -> str:
    return str(topology.run("edge", "ip", "-6", "address", "show", "dev", "wan0").stdout)


def test_a_link_local_address_counts_on_its_interface_by_any_name_of_that(topology: Topology, netlink: Netlink) -> None:
    on_edge(topology, "address add fe80::99/64 dev lan0 nodad", "link property add dev lan0 altname behind")
    there = {"fe80::99%lan0", "fe80::99%behind"}
    assert comes_to_hold(netlink, {*there, "fe80::99%wan0"}, there)


def test_an_address_goes_with_its_interface(topology: Topology, netlink: Netlink) -> None:
    on_edge(topology, "link add v0 type veth peer name w0", "link set v0 up")
    on_edge(topology, f"address add {ADDRESS}/32 dev v0", "address add 2001:db8:99::1/128 dev v0 nodad")
    assert comes_to_hold(netlink, both := {ADDRESS, "2001:db8:99::1"}, both)
    on_edge(topology, "link del v0")
    assert holds(netlink, *both) == set()


def test_what_was_lost_of_addresses_is_read_anew(topology: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nlsocket, "RECEIVE_BUFFER", 1 << 16)
    with topology.inside("edge"):
        netlink = Netlink()
    with closing(netlink):
        on_edge(topology, f"address add {ADDRESS}/32 dev lo")
        assert holds(netlink, ADDRESS) == {ADDRESS}
        line = "address {} 2001:db8:77::1/128 dev lo {}"
        tell(topology, (line.format(*words) for _ in range(1500) for words in (("add", "nodad"), ("del", ""))))
        on_edge(topology, f"address del {ADDRESS}/32 dev lo", "address add 192.0.2.2/32 dev lo")
        assert holds(netlink, ADDRESS, "192.0.2.2") == {"192.0.2.2"}
        assert netlink.losses == 1


def test_what_comes_and_goes_while_the_daemon_stands_still_is_followed_in_the_end(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(configuration(active_with=f'"{ADDRESS}"'))
    with standing_still(running):
        on_edge(topology, f"address add {ADDRESS}/32 dev lo", f"address del {ADDRESS}/32 dev lo")
        on_edge(topology, f"address add {ADDRESS}/32 dev wan0")
    assert gets(running, 1)
