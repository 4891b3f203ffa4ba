# SPDX-License-Identifier: GPL-2.0-or-later
"""Host routes and the neighbours that they lead to, by the real daemon; test_resolution.py has the kinds of change."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.rtnetlink import PROTOCOL
from npd6_xdp.core.steps import finish
from npd6_xdp.daemon.host_routes import HostRoutes
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.system.sysctl import Memory
from npd6_xdp.tools.control import ask
from tests.netns.verb import verb
from tests.netns.wire import Asker, Wire, configuration, on_edge, question, says, until

Start = Callable[..., RunningDaemon]

SHARED = "2001:db8::77"  # the host's, in the prefix that is on-link at the upstream, too
SAME_64 = "2001:db8::/64 neighbour via=lan0 host_routes=true"
RULE = "2001:db8:1::/64 neighbour via=lan0"
PING = ("ping", "-6", "-n", "-i", "0.05", "-W", "3", SHARED, "-c")
TRIES = 12
LLADDR = "lladdr 02:00:00:00:09:09"


def kernels(topology: Topology) -> list[str]:
    found = topology.ip("edge", "-6", "route", "show", "table", "all", "proto", str(PROTOCOL))
    return sorted(f"{route['dst']} {route['dev']}" for route in found)


def lost_while(topology: Topology, *words: str) -> int:
    """How many of twenty pings, one each 50 ms, are lost where the edge is told this after the second."""
    output = topology.directory / "ping"
    with output.open("w") as said:
        pinging = topology.popen("upstream", *PING, "20", stdout=said)
        assert until(lambda: "icmp_seq=2 " in output.read_text())
        topology.run("edge", *words)
        pinging.wait(120.0)
    found = re.search(r"(\d+) packets transmitted, (\d+) received", output.read_text())
    assert found is not None
    return int(found[1]) - int(found[2])


def shown(running: RunningDaemon) -> list[str]:
    found = ask(running.control, {"verb": "status"})["host_routes"]
    return sorted(f"{route['address']} {route['interface']}" for route in found)


@pytest.mark.needs_table
def test_a_steady_ping_outlives_that_somebody_flushes_the_route_under_it(topology: Topology, daemon: Start) -> None:
    topology.run("host", "ip", "addr", "add", f"{SHARED}/128", "dev", "eth0", "nodad", check=True)
    running = daemon(configuration(SAME_64))
    # the upstream's kernel gives up after three seconds, whatever ping's patience
    assert until(lambda: topology.run("upstream", *PING, "2").returncode == 0)
    for how in ("flush proto 136", f"del {SHARED}/128", "flush dev lan0 proto 136"):
        lost: list[int] = []
        # it is put back at once, and 20 ms later once more, since a flush goes on until it finds nothing; on a machine
        # that does other things beside, that may take longer, but not each time
        while len(lost) < TRIES and min(lost, default=9) > 1:
            lost.append(lost_while(topology, "ip", "-6", "route", *how.split()))
            assert until(lambda: kernels(topology) == shown(running) == [f"{SHARED} lan0"], 2.0), how
        print(f"{how}: {lost} lost of 20")
        assert min(lost) <= 1, how
    assert says(running, "another process removes our host routes")
    # nothing stays after a kill and a new start, which finds the host there
    running.kill()
    assert kernels(topology) == [f"{SHARED} lan0"]
    on_edge(topology, f"-6 route add 2001:db8::99/128 dev lan0 proto {PROTOCOL} table 1000")
    running = daemon(configuration(SAME_64))
    assert until(lambda: kernels(topology) == shown(running) == [f"{SHARED} lan0"], 2.0)
    running.kill()
    running = daemon(configuration(RULE))
    assert until(lambda: kernels(topology) == shown(running) == [], 2.0), "no rule wants any"


def test_another_route_in_its_place_is_said_and_status_shows_what_the_kernel_has(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(configuration(SAME_64))
    on_edge(topology, f"neigh replace {SHARED} {LLADDR} nud permanent dev lan0")
    assert until(lambda: kernels(topology) == shown(running) == [f"{SHARED} lan0"], 2.0)
    on_edge(topology, f"-6 route replace {SHARED}/128 dev wan0 proto static metric 1024")
    assert until(lambda: shown(running) == [], 2.0)
    assert until(lambda: f"lan0: another route is in the place of the host route to {SHARED}" in running.log)
    assert verb(running, "reload").returncode == 0
    assert shown(running) == kernels(topology) == []
    on_edge(topology, f"-6 route del {SHARED}/128 dev wan0")
    assert until(lambda: kernels(topology) == shown(running) == [f"{SHARED} lan0"], 2.0)


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_two_daemons_with_the_same_host_route_leave_it_to_each_other_and_blame_nobody(
    topology: Topology, daemon: Start, first_to_end: int
) -> None:
    on_edge(topology, "link add wan9 type veth", "link set wan9 up")
    other = '[metrics]\nlisten = ""\n' + configuration(SAME_64).replace("wan0", "wan9")
    on_edge(topology, f"neigh replace {SHARED} {LLADDR} nud permanent dev lan0")
    seen = topology.directory / "seen"
    with seen.open("w") as output:
        topology.popen("edge", "ip", "-6", "monitor", "route", stdout=output)

        def is_listening() -> bool:
            """It has no way to say so."""
            on_edge(topology, *(f"-6 route {verb} 2001:db8:9::8/128 dev lan0" for verb in ("add", "del")))
            return "2001:db8:9::8" in seen.read_text()

        assert until(is_listening)
        both = [daemon(configuration(SAME_64)), daemon(other)]
        for running in both:
            assert until(lambda running=running: shown(running) == [f"{SHARED} lan0"], 2.0)  # type: ignore[misc]
        on_edge(topology, "-6 route add 2001:db8:9::9/128 dev lan0")  # what was announced until now is seen
        assert until(lambda: "2001:db8:9::9" in seen.read_text())
        assert seen.read_text().count(f"{SHARED} dev") == 1, seen.read_text()
    left = both[1 - first_to_end]
    assert both[first_to_end].stop() == 0
    assert until(lambda: kernels(topology) == shown(left) == [f"{SHARED} lan0"], 2.0)
    for running in both:
        assert "somebody else" not in running.log
        assert "another route" not in running.log
    assert left.stop() == 0
    assert kernels(topology) == []


def test_a_daemon_that_succeeds_a_dead_one_beside_another_leaves_no_route_of_that_one(
    topology: Topology, daemon: Start
) -> None:
    on_edge(topology, "link add wan9 type veth", "link set wan9 up")
    other = daemon('[metrics]\nlisten = ""\n' + configuration().replace("wan0", "wan9"))
    on_edge(topology, f"neigh replace {SHARED} {LLADDR} nud permanent dev lan0")
    first = daemon(configuration(SAME_64))
    assert until(lambda: kernels(topology) == shown(first) == [f"{SHARED} lan0"], 2.0)
    first.kill()
    second = daemon(configuration(SAME_64))
    assert until(lambda: shown(second) == [f"{SHARED} lan0"], 2.0)
    assert second.stop() == 0
    assert kernels(topology) == []
    assert other.process.poll() is None


both = pytest.mark.parametrize("datapath", ["hybrid", "python"])


@pytest.mark.needs_table
@both
def test_entries_that_a_control_plane_has_learned_or_that_the_kernel_manages_are_there_and_stay_what_they_are(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    running = daemon(configuration(f"{RULE} host_routes=true", datapath=f'"{datapath}"'))
    topology.sysctl("edge", "net/ipv6/neigh/lan0/retrans_time_ms", 100)
    learned, stale = (f"2001:db8:1::{number:x}" for number in (0x51, 0x52))

    def marks(address: str) -> str:
        return topology.run("edge", "ip", "-6", "neigh", "show", "nud", "all", "to", address, "dev", "lan0").stdout

    on_edge(
        topology,
        f"neigh add {learned} {LLADDR} nud noarp extern_learn dev lan0",
        f"neigh add {stale} {LLADDR} nud stale extern_learn dev lan0",
        f"neigh add {HOST_ADDRESS} dev lan0 managed",
    )
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        for address in (learned, stale, HOST_ADDRESS):
            assert until(lambda address=address: asker.answered(address, 0.5), 3.0), address  # type: ignore[misc]
        assert not asker.answered("2001:db8:1::54", 0.1)
    assert until(lambda: f"{learned} lan0" in shown(running), 2.0)
    # nobody has the stale one's link-layer address, so its route goes by and by, and the two are read in turn
    assert until(lambda: kernels(topology) == shown(running), 2.0)
    assert "extern_learn" in marks(learned)
    assert "NOARP" in marks(learned)
    assert "extern_learn" in marks(stale), "to be asked for has it probed, and takes nothing from it"
    assert "managed" in marks(HOST_ADDRESS)


@pytest.mark.needs_table
@both
def test_the_address_of_a_stale_host_is_defended_once_the_host_itself_has_said_that_it_is_there(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    running = daemon(configuration(RULE, datapath=f'"{datapath}"', dad='"defend"'))
    gone = "2001:db8:1::99"
    topology.sysctl("edge", "net/ipv6/neigh/lan0/retrans_time_ms", 100)
    on_edge(
        topology,
        *(
            f"neigh replace {host} {lladdr} nud {state} dev lan0"
            for host, lladdr in ((gone, LLADDR), (HOST_ADDRESS, "lladdr 02:00:00:00:00:42"))
            for state in ("reachable", "stale")
        ),
    )
    assert until(lambda: len(ask(running.control, {"verb": "status"})["neighbours"]) == 2, 2.0)
    with Wire(topology) as wire:
        probe = {"source": bytes(16), "options": b""}
        tries = 0
        # within the second that the prober waits; if the machine let us wait for as long, once more
        while wire.ask(question(HOST_ADDRESS, **probe), 0.9) is None:
            assert (tries := tries + 1) < TRIES, "within the second that the prober waits"
            running.settle()
            on_edge(topology, f"neigh replace {HOST_ADDRESS} lladdr 02:00:00:00:00:42 nud stale dev lan0")
        neighbour = topology.neighbour("edge", "lan0", HOST_ADDRESS)
        assert neighbour is not None
        assert neighbour.state == "REACHABLE", "it was asked, and at once"
        assert wire.ask(question(gone, **probe), 0.2) is None
        assert wire.ask(question(gone, **probe), 1.0) is None, "nor when asked again meanwhile"
        assert until(lambda: topology.neighbour("edge", "lan0", gone) is None, 5.0)
        assert wire.ask(question(gone, **probe), 0.5) is None, "nor later"
    counts = running.solicitations()
    assert counts["pending"] >= 3
    assert counts.get("answered_python", 0) == 0


def test_routes_of_a_daemon_that_came_later_are_left_to_it(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(RULE))
    on_edge(topology, f"-6 route add 2001:db8:3::9/128 dev lan0 proto {PROTOCOL} metric 1024")  # as another one would
    on_edge(topology, f"neigh replace {SHARED} {LLADDR} nud permanent dev lan0")
    running.write(configuration(SAME_64))
    assert verb(running, "reload").returncode == 0  # now it reads what routes there are
    assert until(lambda: shown(running) == [f"{SHARED} lan0"], 2.0)
    running.write(configuration(RULE))
    assert verb(running, "reload").returncode == 0
    assert until(lambda: shown(running) == [], 2.0)
    assert kernels(topology) == ["2001:db8:3::9 lan0"]


def test_of_thousands_of_routes_that_two_daemons_want_none_goes_with_the_one_that_came_later(
    topology: Topology, tmp_path: Path
) -> None:
    def settled(routes: HostRoutes) -> bool:
        routes.on_change()
        if routes.due is not None:
            routes.tick(time.monotonic())
        return routes.due is None or routes.due > time.monotonic() + 0.1

    def there() -> int:
        return len(topology.ip("edge", "-6", "route", "show", "dev", "lan0", "proto", str(PROTOCOL)))

    with topology.inside("edge"), closing(Memory(tmp_path)) as first_memory, closing(Memory(tmp_path)) as memory:
        lan = socket.if_nametoindex("lan0")
        hosts = {Host(lan, (0x20010DB8_00070000 << 64 | number).to_bytes(16, "big")) for number in range(1, 1501)}
        with closing(HostRoutes(Requests(), first_memory)) as first:
            first.use({}, {lan: "lan0"}, needed=True)
            finish(first.keep_only(hosts, hosts.__contains__))
            assert until(lambda: settled(first) and there() == len(hosts))
            with closing(HostRoutes(Requests(), memory)) as second:
                second.use({}, {lan: "lan0"}, needed=True)
                finish(second.keep_only(hosts, hosts.__contains__))
                assert until(lambda: settled(second) and len(second) == len(hosts))
            assert there() == len(hosts)
    assert there() == 0


@pytest.mark.needs_table
def test_of_thousands_of_routes_that_a_dead_daemon_has_left_its_successor_takes_none_back(
    topology: Topology, daemon: Start
) -> None:
    many = 4000
    added = [f"neigh replace 2001:db8::7:{number:x} {LLADDR} nud permanent dev lan0" for number in range(many)]
    batch = topology.directory / "neighbours"
    batch.write_text("\n".join(added))
    topology.run("edge", "ip", "-batch", str(batch))
    first = daemon(configuration(SAME_64))
    assert until(lambda: len(kernels(topology)) == many, 30.0)
    first.kill()
    heard = topology.directory / "heard"
    with heard.open("w") as said:
        monitor = topology.popen("edge", "ip", "-6", "monitor", "route", stdout=said)
        try:
            time.sleep(0.5)
            second = daemon(configuration(SAME_64))
            assert until(lambda: len(shown(second)) == many, 30.0)
            time.sleep(1.0)
        finally:
            monitor.kill()
            monitor.wait()
    assert len(kernels(topology)) == many
    assert heard.read_text().count("Deleted 2001:db8::7:") == 0
