# SPDX-License-Identifier: GPL-2.0-or-later
"""doctor on a machine with one on-link /64 and hosts behind a bridge: each fault that a new user has made there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from npd6_xdp.core.config_file import parse
from npd6_xdp.core.judgement import State, headline
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.doctor.finding import Finding, Level
from npd6_xdp.tools.doctor.follow import follow
from npd6_xdp.tools.doctor.reading import read
from tests.netns.doctoring import Doctor, of
from tests.netns.test_doctor import ONE_64
from tests.netns.test_warnings import advertise, default_route
from tests.netns.verb import verb
from tests.netns.wire import configuration, until

P = "2001:db8:1::/64"
HOST = "2001:db8:1::42"
ROUTER = "2001:db8:1::ff"
BEHIND = configuration(f"{P} neighbour via=br0 host_routes=true")
SHARED = ("neighbour_table", "clock", "snooping", "native", "attached")
"""What isn't of this scene alone, and what there is to say of any bridge or veth."""


class Vps:
    """The machine, the daemon that runs there, and a doctor."""

    def __init__(self, topology: Topology, running: RunningDaemon, doctor: Doctor) -> None:
        self.topology = topology
        self.running = running
        self.doctor = doctor

    def sh(self, *commands: str, at: str = "edge") -> None:
        """As root at a shell, where npd6-xdp is this tree's."""
        path = f"PATH={Path(sys.executable).parent}:$PATH"
        for command in commands:
            self.topology.run(at, "sh", "-c", f"{path}; {command}", check=True)  # type: ignore[arg-type]

    def look(self, text: str = "") -> list[Finding]:
        """At the daemon's own file, with the daemon; or at another, without one."""
        if not text:
            return self.doctor.look(self.running.config_file, self.running.control)
        file = self.topology.directory / "doctor.toml"
        file.write_text(text)
        return self.doctor.look(file)

    def follow(self) -> list[Finding]:
        path = self.running.config_file
        text = path.read_text()
        with self.topology.inside("edge"):
            facts = read(parse(text, str(path)), path, text, self.running.control, attach=False)
            return follow(facts, IPv6Address(HOST))

    def greet(self) -> None:
        """Have the upstream reach the host."""
        ping = "ping", "-6", "-c", "1", "-W", "1", HOST
        assert until(lambda: self.topology.run("upstream", *ping).returncode == 0)


@pytest.fixture(scope="module")
def vps() -> Iterator[Vps]:
    """As README has it: addresses of /128, host routes, and fe80::1 for the hosts to send to."""
    with ExitStack() as stack:
        topology = stack.enter_context(Topology())
        commands = {
            "edge": (
                "ip -6 address flush scope global",
                "ip -6 address add 2001:db8:1::3/64 dev wan0 nodad",
                f"ip -6 route replace default via {ROUTER} dev wan0",
                "ip link add br0 type bridge mcast_snooping 0",
                "ip link set lan0 master br0",
                "ip link set br0 up",
                "ip -6 address add fe80::1/64 dev br0 nodad",
            ),
            "upstream": (
                f"ip -6 address replace {ROUTER}/64 dev eth0 nodad",
                "ip -6 address add 2001:db8:ffff::1/128 dev lo nodad",
            ),
            "host": ("ip -6 route replace default via fe80::1 dev eth0",),
        }
        for namespace, lines in commands.items():
            for line in lines:
                topology.run(namespace, *line.split(), check=True)  # type: ignore[arg-type]
        running = stack.enter_context(RunningDaemon(topology, ONE_64))
        scene = Vps(topology, running, stack.enter_context(Doctor(topology)))
        scene.greet()
        yield scene


def amiss(found: Sequence[Finding]) -> list[Finding]:
    """Of this scene. The daemon's own judgement counts the neighbour table's problems, which others may have made."""
    table = sum(each.check == "warning" and is_shared(each) for each in found)
    others = [each for each in found if each.level is not Level.OK and not is_shared(each)]
    return [each for each in others if not (table and each.message.endswith(headline(State.DEGRADED, table)))]


def is_shared(finding: Finding) -> bool:
    """What isn't of this scene: what is said of all bridges and veths, and of the table that all namespaces share."""
    return finding.check in SHARED or "neighbour table" in finding.message


def bad(found: Sequence[Finding]) -> list[Finding]:
    """Of a target that is followed, as nobody was told to collect what is asked for."""
    return [each for each in found if each.level in (Level.WARN, Level.FAIL) and not is_shared(each)]


def test_on_a_machine_as_the_manual_has_it_nothing_is_amiss_and_the_upstream_s_router_is_no_host(vps: Vps) -> None:
    vps.sh(f"ping -6 -c 1 -W 2 {ROUTER}")
    assert amiss(vps.look()) == []
    (found,) = [each for each in vps.look() if each.check == "hosts"]
    assert (HOST in found.message, ROUTER in found.message) == (True, False), found
    assert bad(vps.follow()) == []


def test_a_host_without_a_default_route_is_found_though_no_address_of_ours_is_off_its_link(vps: Vps) -> None:
    vps.sh("ip -6 route del default", at="host")
    (found,) = of(vps.look(), "hosts")
    assert found.level is Level.WARN
    assert f"{HOST} behind br0" in found.message
    assert "it has no default route" in found.message
    (back,) = of(vps.follow(), "back")
    assert back.mend == found.mend
    vps.sh(*found.mend, at="host")
    assert of(vps.look(), "hosts") == []
    assert bad(vps.follow()) == []


def test_an_address_of_the_bridge_that_the_hosts_send_to_and_that_went_when_it_was_down_is_found(vps: Vps) -> None:
    vps.sh("ip link set dev br0 down")
    assert until(lambda: any("addresses" in each.message for each in of(vps.look(), "via", Level.FAIL)))
    (down,) = of(vps.look(), "via", Level.FAIL)[:1]
    vps.sh(*down.mend)
    vps.sh("ip -6 neigh flush dev eth0", at="host")
    vps.greet()
    (found,) = of(vps.look(), "hosts")
    assert found.level is Level.FAIL
    assert "fe80::1" in found.message
    assert of(vps.follow(), "back", Level.FAIL)[0].mend == found.mend
    vps.sh(*found.mend)
    assert until(lambda: of(vps.look(), "hosts") == []), vps.look()
    assert until(lambda: amiss(vps.look()) == []), amiss(vps.look())


def test_on_standby_nobody_is_told_to_put_the_shared_address_there_or_to_leave_the_other_edge(vps: Vps) -> None:
    """The hosts' way out is by the other edge then; the mend would make both active. Once active, it is looked at."""
    normal = vps.running.config_file.read_text()
    vps.greet()
    vps.running.write(configuration(f"{P} neighbour via=br0 host_routes=true", active_with='"fe80::1%br0"'))
    vps.sh(f"npd6-xdp reload --control {vps.running.control}", f"ip -6 route replace {P} dev br0 metric 1")
    vps.sh("ip -6 address del fe80::1/64 dev br0")
    vps.sh("ip -6 neigh flush dev eth0", at="host")
    assert until(lambda: [each.check for each in of(vps.look(), "standby")] == ["standby"])
    (told,) = [each for each in vps.look() if each.check == "hosts"]
    assert told.level is Level.OK
    assert "on standby" in told.message
    steps = vps.follow()
    assert [each for each in steps if each.check in ("host", "back")] == []
    assert "follow it on the other edge" in next(each.message for each in steps if each.check == "decision")
    vps.sh("ip -6 address add fe80::1/64 dev br0 nodad")
    vps.sh("ip -6 neigh flush dev eth0", at="host")
    vps.sh("ip -6 route del default", at="host")
    assert until(lambda: of(vps.look(), "standby") == [])
    (missed,) = of(vps.look(), "hosts", Level.WARN)
    assert "default via fe80::1 " in missed.mend[0], "the address that both edges share, of all that this one has"
    vps.sh(*missed.mend, at="host")
    assert of(vps.look(), "hosts") == []
    vps.running.write(normal)
    vps.sh(f"npd6-xdp reload --control {vps.running.control}", f"ip -6 route del {P} dev br0 metric 1")
    vps.greet()
    assert until(lambda: amiss(vps.look()) == []), amiss(vps.look())


def test_a_target_that_is_followed_goes_out_of_an_interface_by_its_name_whatever_the_rule_has(vps: Vps) -> None:
    normal = vps.running.config_file.read_text()
    for rule in (f"{P} static", f"{P} neighbour via=br0"):
        vps.running.write(configuration(rule))
        vps.sh(f"npd6-xdp reload --control {vps.running.control}", f"ip -6 route replace {HOST} dev br0 metric 1")
        assert [each.message for each in vps.follow() if each.check == "route"] == [f"{HOST} goes out of br0"]
    vps.running.write(normal)
    vps.sh(f"ip -6 route del {HOST} dev br0 metric 1", f"npd6-xdp reload --control {vps.running.control}")
    vps.greet()


def test_a_host_that_answers_nothing_is_told_with_where_to_look(vps: Vps) -> None:
    drop = "-p ipv6-icmp --icmpv6-type echo-request -j DROP"
    vps.sh(f"ip6tables-nft -A INPUT {drop}", at="host")
    (found,) = of(vps.look(), "hosts")
    assert found.level is Level.NOTE
    assert "ip -6 route show default" in found.message
    vps.sh(f"ip6tables-nft -D INPUT {drop}", at="host")


def forget(vps: Vps) -> None:
    """Nobody knows the others' link-layer addresses any more, as after an hour."""
    for namespace in ("upstream", "edge", "host"):
        vps.sh("ip -6 neigh flush all 2>/dev/null || :", at=namespace)


def is_reached(vps: Vps) -> bool:
    return vps.topology.run("upstream", "ping", "-6", "-c", "1", "-W", "1", HOST).returncode == 0


INPUT = {
    "all but ssh": ("ip6tables-nft -A INPUT -p tcp --dport 22 -j ACCEPT", "ip6tables-nft -A INPUT -j DROP"),
    "ICMPv6": ("ip6tables-nft -A INPUT -p icmpv6 -j DROP",),
}


@pytest.mark.parametrize("name", INPUT)
def test_neighbor_discovery_that_input_drops_is_one_finding_and_its_mends_have_the_hosts_reached(
    vps: Vps, name: str
) -> None:
    vps.sh(*INPUT[name])
    forget(vps)
    assert not is_reached(vps)
    (found,) = of(vps.look(), "firewall")
    assert found.level is Level.FAIL
    assert {"-i br0", "-i wan0"} <= {part for mend in found.mend for part in ("-i br0", "-i wan0") if part in mend}
    assert all("--icmpv6-type 13" in mend for mend in found.mend), "no more than that"
    vps.sh(*found.mend)
    vps.greet()
    assert of(vps.look(), "firewall") == []
    vps.sh("ip6tables-nft -F")


def test_a_policy_of_forward_is_one_finding_with_all_that_it_takes(vps: Vps) -> None:
    vps.sh("ip6tables-nft -P FORWARD DROP")
    assert not is_reached(vps)
    (found,) = of(vps.look(), "firewall")
    assert found.level is Level.FAIL
    assert len(found.mend) == 2
    vps.sh(*found.mend)
    vps.greet()
    assert of(vps.look(), "firewall") == []
    vps.sh("ip6tables-nft -P FORWARD ACCEPT", "ip6tables-nft -F")


def test_the_router_advertisements_that_give_the_default_route_are_let_in_with_the_rest(vps: Vps) -> None:
    vps.sh("sysctl -w net.ipv6.conf.wan0.accept_ra=2", "ip -6 route del default")
    advertise(vps.topology, prefix=False)
    assert until(lambda: "proto ra" in default_route(vps.topology))
    vps.sh("nft add table inet t", "nft add chain inet t i '{ type filter hook input priority 0; policy drop; }'")
    (found,) = of(vps.look(), "firewall")
    assert "router advertisements" in found.message
    vps.sh(*found.mend, "ip -6 route del default")
    advertise(vps.topology, prefix=False)
    assert until(lambda: "proto ra" in default_route(vps.topology))
    vps.sh(
        "nft delete table inet t",
        "sysctl -w net.ipv6.conf.wan0.accept_ra=0",
        "ip -6 route del default",
        f"ip -6 route add default via {ROUTER} dev wan0",
    )


def test_filters_of_bridges_are_named_as_not_looked_at_where_there_are_any(vps: Vps) -> None:
    vps.sh("nft add table bridge t", "nft add chain bridge t f '{ type filter hook forward priority 0; policy drop; }'")
    (found,) = of(vps.look(), "firewall")
    assert found.level is Level.NOTE
    assert "nft list chain bridge t f" in found.message
    vps.sh("nft delete table bridge t")


def test_what_ip6tables_has_made_of_nftables_is_read_where_nft_is_not_installed(vps: Vps) -> None:
    vps.sh("ip6tables-nft -A INPUT -p icmpv6 -j DROP")
    hidden = "mount --bind /dev/null $(command -v nft); exec npd6-xdp doctor --json --config"
    path = f"PATH={Path(sys.executable).parent}:$PATH:/usr/sbin"
    words = "unshare", "-m", "sh", "-c", f"{path}; {hidden} {vps.running.config_file}"
    told = vps.topology.run("edge", *words)
    found = [each for each in json.loads(told.stdout) if each["check"] == "firewall" and each["level"] != "ok"]
    assert [each["level"] for each in found] == ["note", "fail"], found
    assert found[0]["mend"] == ["apt-get install nftables"]
    vps.sh("ip6tables-nft -F")


WRITTEN = {
    "a prefix without its length, in both rules": (ONE_64.replace("::/64", "::"), "prefix", f"is {P} meant"),
    "a prefix beside the hosts": (ONE_64.replace("db8:1::/64", "db8:1:0:8::/80", 1), "prefix", "no rule covers"),
    "name and via swapped, in a file of one entry": (
        BEHIND.replace("wan0", "x0").replace("br0", "wan0").replace("x0", "br0"), "side", "look swapped",
    ),
    "a name that isn't here": (ONE_64.replace('name = "wan0"', 'name = "eth1"'), "interface", "there are br0"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_a_mistake_in_the_file_fails_by_its_own_name_alone_and_what_is_printed_mends_it(vps: Vps, name: str) -> None:
    vps.greet()
    text, check, words = WRITTEN[name]
    found = bad(vps.look(text))
    assert {each.check for each in found if not is_shared(each)} <= {check}, found
    assert any(each.level is Level.FAIL and words in each.message for each in found), found
    vps.sh(*(mend for each in found if each.check == check for mend in each.mend))
    mended = (vps.topology.directory / "doctor.toml").read_text()
    assert mended in (ONE_64, BEHIND), mended


def test_a_via_that_is_not_here_is_told_with_what_is(vps: Vps) -> None:
    (found,) = of(vps.look(BEHIND.replace("br0", "br1")), "via")
    assert "there are br0, lan0" in found.message


def test_a_host_beside_a_rule_that_covers_others_is_noted_and_warned_of_once_it_was_asked_for(vps: Vps) -> None:
    beside = "2001:db8:1::1:42"
    vps.sh(f"ip -6 address add {beside}/64 dev eth0 nodad", at="host")
    vps.sh(f"ip -6 route add {beside}/128 dev br0", f"ping -6 -c 1 -W 2 {beside}")
    narrow = ONE_64.replace(f"{P}", "2001:db8:1::/112", 1)
    (found,) = of(vps.look(narrow), "prefix")
    assert (found.level, beside in found.message) == (Level.NOTE, True), found
    collected = narrow.replace('name = "wan0"', 'name = "wan0"\ncollect_targets = 10')
    vps.running.write(collected)
    assert verb(vps.running, "reload").returncode == 0
    vps.topology.run("upstream", "ping", "-6", "-c", "1", "-W", "1", beside)
    assert until(lambda: [each.level for each in of(vps.look(), "prefix")] == [Level.WARN])
    vps.sh(*of(vps.look(), "prefix")[0].mend)
    assert vps.running.config_file.read_text().endswith(collected.replace("/112", "/64"))
    vps.running.write(ONE_64)
    assert verb(vps.running, "reload").returncode == 0
    vps.sh(f"ip -6 route del {beside}/128 dev br0 || :")
    vps.sh(f"ip -6 address del {beside}/64 dev eth0", at="host")


ROUTED = "2001:db8:2::/64"
WAYS = {
    "a route of type blackhole": ((f"ip -6 route add blackhole {ROUTED}",), "blackhole"),
    "a route of type unreachable": ((f"ip -6 route add unreachable {ROUTED}",), "unreachable"),
    "a route to a bridge's port": ((f"ip -6 route add {ROUTED} dev lan0",), "lan0, a port of the bridge br0"),
}


@pytest.mark.parametrize("name", WAYS)
def test_a_route_that_leads_nowhere_is_named_and_replaced(vps: Vps, name: str) -> None:
    make, words = WAYS[name]
    vps.sh(*make)
    text = configuration(f"{ROUTED} route via=br0")
    (found,) = of(vps.look(text), "route", Level.FAIL)
    assert words in found.message
    vps.sh(*found.mend)
    assert of(vps.look(text), "route") == []
    vps.sh(f"ip -6 route del {ROUTED} dev br0")


def test_without_a_daemon_the_command_that_starts_one_is_printed(vps: Vps) -> None:
    (found,) = of(vps.look(ONE_64), "daemon")
    assert found.mend == (f"npd6-xdp run --config {vps.topology.directory / 'doctor.toml'}",)


def test_a_file_that_the_daemon_has_not_read_comes_first_and_what_goes_by_the_daemon_s_says_so(vps: Vps) -> None:
    vps.running.write(ONE_64.replace("host_routes = true\n", ""))
    assert verb(vps.running, "reload").returncode == 0
    vps.running.write(ONE_64)
    vps.sh(f"touch -d '+2 seconds' {vps.running.config_file}")
    first, *others = [each for each in vps.look() if each.level is not Level.OK and not is_shared(each)]
    assert (first.check, first.level) == ("file", Level.WARN)
    assert bad(others) == []
    assert any("hasn't read this file" in each.message for each in others), others
    vps.running.write(ONE_64)
    vps.sh(*first.mend)
    vps.greet()
    assert bad(amiss(vps.look())) == []
