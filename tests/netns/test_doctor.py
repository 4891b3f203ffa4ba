# SPDX-License-Identifier: GPL-2.0-or-later
"""doctor finds each fault that is made, under its check's name; and each mend that it prints mends it, as printed."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.privileges import is_clock_synchronised
from npd6_xdp.tools.doctor.finding import Finding, Level
from tests.netns.doctoring import Doctor, of
from tests.netns.others import at_tc
from tests.netns.test_warnings import advertise, default_route
from tests.netns.verb import verb
from tests.netns.wire import configuration, until

P = "2001:db8:1::/64"
ROUTED = configuration(f"{P} route")


class Scene:
    """The lab with a daemon that answers for a routed prefix, and a doctor beside it."""

    def __init__(self, topology: Topology, running: RunningDaemon, doctor: Doctor) -> None:
        self.topology = topology
        self.running = running
        self.doctor = doctor
        self.file = topology.directory / "doctor.toml"
        self.is_whole = True

    def sh(self, *commands: str, namespace: str = "edge") -> None:
        """As root at a shell, where npd6-xdp is this tree's."""
        path = f"PATH={Path(sys.executable).parent}:$PATH"
        for command in commands:
            command = command.replace("$PYTHON", sys.executable).replace("$DIRECTORY", str(self.topology.directory))
            self.topology.run(namespace, "sh", "-c", f"{path}; {command}", check=True)  # type: ignore[arg-type]

    def look(self, config: str = "") -> list[Finding]:
        """With the daemon's own file and the daemon, or with another configuration and none."""
        if not config:
            return self.doctor.look(self.running.config_file, self.running.control)
        return self.doctor.look(self.file)

    def greet(self) -> None:
        """Have host and upstream known to the edge's kernel."""
        done = self.topology.run("host", "ping", "-6", "-c", "1", "-W", "5", "2001:db8::1")
        assert done.returncode == 0, done.stdout


@contextmanager
def built() -> Iterator[Scene]:
    with ExitStack() as stack:
        topology = stack.enter_context(Topology())
        topology.sysctl("upstream", "net/ipv6/conf/all/forwarding", 1)  # so that it says that it is a router
        running = stack.enter_context(RunningDaemon(topology, ROUTED))
        scene = Scene(topology, running, stack.enter_context(Doctor(topology)))
        scene.greet()
        yield scene


@pytest.fixture(scope="module")
def scenes() -> Iterator[list[tuple[Scene, ExitStack]]]:
    """The scene of this module; none yet, or any more."""
    kept: list[tuple[Scene, ExitStack]] = []
    yield kept
    for _, stack in kept:
        stack.close()


@pytest.fixture
def scene(scenes: list[tuple[Scene, ExitStack]]) -> Iterator[Scene]:
    """The same one for all tests, but after one that has failed."""
    if not scenes:
        stack = ExitStack()
        scenes.append((stack.enter_context(built()), stack))
    kept, stack = scenes[0]
    kept.is_whole = False
    yield kept
    if not kept.is_whole:
        scenes.clear()
        stack.close()


@dataclass(frozen=True)
class Fault:
    """What is done, at the edge or elsewhere, and how doctor is to call it; `after` is what a mend can't bring back.

    `config` is another one than the daemon's, for a doctor without one. `mended_at` is where its commands are run, and
    `mends` how many there are at the least.
    """

    check: str
    level: Level
    words: str
    make: tuple[str, ...] = ()
    at: str = "edge"
    config: str = ""
    after: tuple[str, ...] = ()
    mended_at: str = "edge"
    mends: int = 1
    restore: tuple[str, ...] = field(default=())


SHARED = {"neighbour_table", "clock"}  # of all namespaces of this machine
HOME = (
    "ip -6 address replace 2001:db8::2/64 dev wan0 nodad",
    "ip -6 route replace default via 2001:db8::1 dev wan0",
)
BRIDGE = ("ip link add br0 type bridge", "ip link set br0 up")
NO_BRIDGE = ("ip link del br0",)
TABLE = "nft add table inet t"
NO_TABLE = ("nft delete table inet t",)
DOCKERS = (  # as Docker leaves it
    "ip6tables-nft -P FORWARD DROP",
    "ip6tables-nft -N DOCKER-USER",
    "ip6tables-nft -A DOCKER-USER -j RETURN",
    "ip6tables-nft -A FORWARD -j DOCKER-USER",
    "ip6tables-nft -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "ip6tables-nft -A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
)
FLUSHED = ("ip6tables-nft -P FORWARD ACCEPT", "ip6tables-nft -F", "ip6tables-nft -X")

FAULTS = {
    "wan0 down": Fault(
        "interface", Level.FAIL, "wan0: it is down", ("ip link set wan0 down",), after=HOME
    ),
    "no carrier": Fault(
        "interface", Level.FAIL, "wan0: no carrier", ("ip link set eth0 down",), "upstream", mends=0,
        restore=(
            "ip link set eth0 up",
            "ip -6 address replace 2001:db8::1/64 dev eth0 nodad",
            f"ip -6 route replace {P} dev eth0",
        ),
    ),
    "forwarding off": Fault(
        "forwarding", Level.FAIL, "forwarding is off", ("sysctl -w net.ipv6.conf.all.forwarding=0",)
    ),
    "forwarding off on wan0": Fault(
        "forwarding", Level.FAIL, "off on wan0", ("sysctl -w net.ipv6.conf.wan0.forwarding=0",)
    ),
    "no default route": Fault("default_route", Level.WARN, "there is none", ("ip -6 route del default",)),
    "a host without a default route": Fault(
        "hosts", Level.WARN, "it has no default route", ("ip -6 route del default",), "host", mended_at="host"
    ),
    "a missing route": Fault(
        "route", Level.FAIL, "lead back out of wan0", (f"ip -6 route del {P} dev lan0",)
    ),
    "a route that says no": Fault(
        "route", Level.FAIL, "a route of the type unreachable",
        (f"ip -6 route del {P} dev lan0", f"ip -6 route add unreachable {P} metric 4000"),
        after=(f"ip -6 route del unreachable {P} metric 4000",),
    ),
    "no route at all": Fault(
        "route", Level.FAIL, "no route leads to it, so method route finds nobody",
        (f"ip -6 route del {P} dev lan0", "ip -6 route del default"), after=HOME,
    ),
    "nftables: policy drop of forward": Fault(
        "firewall", Level.FAIL, "policy drop",
        (TABLE, "nft add chain inet t f '{ type filter hook forward priority 0; policy drop; }'"),
        after=NO_TABLE, mends=2,
    ),
    "nftables: a rule in a chain that is jumped to": Fault(
        "firewall", Level.FAIL, "kept out",
        (
            TABLE,
            "nft add chain inet t f '{ type filter hook forward priority 0; }'",
            "nft add chain inet t g",
            f"nft add rule inet t f ip6 daddr {P} jump g",
            "nft 'add rule inet t g oifname \"lan*\" drop comment \"kept out\"'",
        ),
        after=NO_TABLE,
    ),
    "nftables: input drops ICMPv6": Fault(
        "firewall", Level.FAIL, "neighbor solicitations and advertisements",
        (
            TABLE,
            "nft add chain inet t i '{ type filter hook input priority 0; policy drop; }'",
            "nft add rule inet t i ct state established,related accept",
            "nft add rule inet t i tcp dport 22 accept",
        ),
        after=NO_TABLE, mends=2,
    ),
    "nftables: output drops advertisements": Fault(
        "firewall", Level.FAIL, "advertisements to there",
        (
            TABLE,
            "nft add chain inet t o '{ type filter hook output priority 0; }'",
            "nft add rule inet t o icmpv6 type nd-neighbor-advert drop",
        ),
        after=NO_TABLE,
    ),
    "nftables: on lan0 alone, before all else": Fault(
        "firewall", Level.FAIL, f"from {P} to wan0",
        (
            "nft add table netdev t",
            "nft add chain netdev t in '{ type filter hook ingress device lan0 priority 0; }'",
            f"nft add rule netdev t in ip6 saddr {P} drop",
        ),
        after=("nft delete table netdev t",),
    ),
    "ip6tables: Docker's policy": Fault("firewall", Level.FAIL, "policy drop", DOCKERS, after=FLUSHED, mends=2),
    "ip6tables: input drops ICMPv6": Fault(
        "firewall", Level.FAIL, "-A INPUT", ("ip6tables-nft -A INPUT -p ipv6-icmp -j DROP",), after=FLUSHED
    ),
    "ip6tables of before": Fault(
        "firewall", Level.FAIL, "-j REJECT",
        (f"ip6tables-legacy -A FORWARD -i lan0 -s {P} -j REJECT",),
        after=("ip6tables-legacy -F",),
    ),
    "a proxy entry of somebody's": Fault(
        "proxy_entries", Level.WARN, "1 entry", ("ip -6 neigh add proxy 2001:db8:1::7 dev wan0",)
    ),
    "another proxy runs": Fault(
        "others", Level.WARN, "ndppd runs here",
        ("cp /bin/sleep $DIRECTORY/ndppd; $DIRECTORY/ndppd 600 >/dev/null 2>&1 &",)
    ),
    "a file that has changed": Fault("file", Level.WARN, "has changed since", ("touch $FILE",)),
    # --- by the configuration, without a daemon ---
    "no such interface": Fault(
        "interface", Level.FAIL, "wan9: no such interface", config=ROUTED.replace("wan0", "wan9"), mends=0
    ),
    "no Ethernet": Fault(
        "interface", Level.FAIL, "not an Ethernet", config=ROUTED.replace("wan0", "lo"), mends=0
    ),
    "a prefix mistyped": Fault(
        "prefix", Level.FAIL, f"is {P} meant", config=configuration("2001:db8:11::/64 route")
    ),
    "a via that is down": Fault(
        "via", Level.FAIL, "it is down", (*BRIDGE, "ip link set br0 down"),
        config=configuration(f"{P} neighbour via=br0"), after=NO_BRIDGE,
    ),
    "a via without IPv6": Fault(
        "via", Level.FAIL, "IPv6 is off", ("sysctl -w net.ipv6.conf.lan0.disable_ipv6=1",),
        config=configuration(f"{P} neighbour via=lan0"),
        after=("ip -6 address replace 2001:db8:1::1/64 dev lan0 nodad",),
    ),
    "IPv6 off where the questions come in": Fault(
        "interface", Level.FAIL, "wan0: IPv6 is off there", ("sysctl -w net.ipv6.conf.wan0.disable_ipv6=1",), after=HOME
    ),
    "IPv6 off behind": Fault(
        "interface", Level.FAIL, "lan0: IPv6 is off there", ("sysctl -w net.ipv6.conf.lan0.disable_ipv6=1",),
        config=configuration(f"{P} route via=lan0"),
        after=("ip -6 address replace 2001:db8:1::1/64 dev lan0 nodad",),
    ),
    "no such via": Fault(
        "via", Level.FAIL, "via lan9", config=configuration(f"{P} neighbour via=lan9"), mends=0
    ),
    "a via that the route doesn't lead out of": Fault(
        "route", Level.FAIL, "out of lan0, which via doesn't name", BRIDGE, after=NO_BRIDGE,
        config=configuration(f"{P} route via=br0"),
    ),
    "name and via swapped": Fault(
        "side", Level.FAIL, "look swapped",
        config=configuration(f"{P} neighbour via=wan0 host_routes=true").replace('name = "wan0"', 'name = "lan0"'),
    ),
    "the wrong side": Fault(
        "side", Level.FAIL, "the default route leads out of wan0", config=ROUTED.replace('"wan0"', '"lan0"')
    ),
    "native mode, and too large an MTU": Fault(
        "mtu", Level.FAIL, "MTU 9000", ("ip link set wan0 mtu 9000",), after=("ip link set wan0 mtu 1500",),
        config=configuration(f"{P} route", attach='"native"'),
    ),
    "native mode that loses answers": Fault(
        "native", Level.WARN, "XDP_TX is lost", config=configuration(f"{P} route", attach='"native"')
    ),
    "native mode where there is none": Fault(
        "native", Level.FAIL, "runs no XDP programs", BRIDGE, after=NO_BRIDGE,
        config=configuration(f"{P} route", attach='"native"').replace('"wan0"', '"br0"'),
    ),
    "a bridge that snoops": Fault(
        "snooping", Level.WARN, "snoops MLD",
        (*BRIDGE, "ip link set br0 type bridge mcast_snooping 1 mcast_querier 1"), after=NO_BRIDGE,
        config=ROUTED.replace("wan0", "br0"),
    ),
    "another XDP program, that a process holds": Fault(
        "xdp", Level.FAIL, "held by python",
        (*BRIDGE, "$PYTHON -m tests.netns.doctoring br0 held >/dev/null 2>&1 & echo $! >$DIRECTORY/held"),
        config=configuration(f"{P} route", attach='"generic"').replace('"wan0"', '"br0"'),
        after=("kill $(cat $DIRECTORY/held)", *NO_BRIDGE),
    ),
    "another XDP program, that somebody has left": Fault(
        "xdp", Level.FAIL, "another XDP program sits there", (*BRIDGE, "$PYTHON -m tests.netns.doctoring br0 left"),
        config=configuration(f"{P} route", attach='"generic"').replace('"wan0"', '"br0"'), after=NO_BRIDGE,
    ),
}  # fmt: skip


def test_on_a_healthy_lab_all_is_ok_and_the_command_says_so(scene: Scene) -> None:
    looked = scene.look()
    (clock,) = (each for each in looked if each.check == "clock")
    is_kept = is_clock_synchronised()
    assert (clock.level, clock.mend) == (
        (Level.NOTE, ("timedatectl set-ntp true",)) if is_kept is False else (Level.OK, ())
    )
    found = [each for each in looked if each.check not in SHARED]
    assert {each.level for each in found} == {Level.OK}, [each for each in found if each.level is not Level.OK]
    done = scene.running.command("doctor", "--config", str(scene.running.config_file))
    assert done.returncode == 0, done.stdout
    *lines, empty, summed = done.stdout.splitlines()
    ours = [line for line in lines if "$ " not in line and not set(line.split()[:2]) & SHARED]
    assert {line.split()[0] for line in ours} == {"ok"}
    assert (empty, summed.split(":")[0]) == ("", f"{len([line for line in lines if '$ ' not in line])} checks")
    scene.is_whole = True


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_what_is_printed_mends_it(scene: Scene, name: str) -> None:
    found_and_mended(scene, FAULTS[name])
    scene.greet()
    scene.is_whole = True


def found_and_mended(scene: Scene, fault: Fault) -> None:
    """Make a fault, see that it is found, do what is printed, and see that it is gone; then leave all as it was."""
    file = scene.file if fault.config else scene.running.config_file
    if fault.config:
        scene.file.write_text(fault.config)
    scene.sh(*(line.replace("$FILE", str(file)) for line in fault.make), namespace=fault.at)
    found: list[Finding] = []

    def is_found() -> bool:
        found[:] = of(scene.look(fault.config), fault.check)
        return any(each.level is fault.level and fault.words in each.message for each in found)

    assert until(is_found), found
    mends = [mend for each in found for mend in each.mend]
    assert len(mends) >= fault.mends, found
    assert not any("-P" in mend or "policy" in mend for mend in mends), "no more than the prefix needs"
    scene.sh(*mends, namespace=fault.mended_at)

    def is_mended() -> bool:
        found[:] = of(scene.look(fault.config), fault.check, Level.WARN, Level.FAIL)
        return not found

    assert not fault.mends or until(is_mended), found
    scene.sh(*fault.after)
    scene.sh(*fault.restore, namespace=fault.at)


@contextmanager
def advertising(scene: Scene) -> Iterator[None]:
    """The upstream's router advertises itself, again and again, as it would when it is asked."""
    done = threading.Event()

    def advertise_on() -> None:
        while not done.wait(0.3):
            advertise(scene.topology)

    thread = threading.Thread(target=advertise_on)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


LIFETIME = 1800
"""Seconds that the default route is advertised for."""


def seconds(findings: list[Finding], words: str) -> int:
    """How long the default route lasts, by the one finding on it that has these words."""
    (message,) = [each.message for each in findings if each.check == "default_route" and words in each.message]
    (number,) = re.findall(r"in (\d+) s, if no advertisement comes until then", message)
    return int(number)


def test_a_default_route_by_advertisements_is_kept_by_what_mends_forwarding_and_brought_back_where_it_is_lost(
    scene: Scene,
) -> None:
    scene.sh("sysctl -w net.ipv6.conf.all.forwarding=0 net.ipv6.conf.wan0.accept_ra=1", "ip -6 route del default")
    with advertising(scene):
        assert until(lambda: "proto ra" in default_route(scene.topology))
        (found,) = of(scene.look(), "forwarding")
        assert found.level is Level.FAIL
        scene.sh(*found.mend)
        every = scene.look()
        assert of(every, "forwarding") == []
        assert "proto ra" in default_route(scene.topology)
        assert 0 < seconds(every, "out of wan0, by router advertisements") <= LIFETIME
        scene.sh("sysctl -w net.ipv6.conf.wan0.accept_ra=1")
        (found,) = of(scene.look(), "default_route")
        assert 0 < seconds([found], "and the default route that they give runs out") <= LIFETIME
        scene.sh(*found.mend)
        assert of(scene.look(), "default_route") == []
        # the other way round, with a route that is learnt anew: one that accept_ra=2 has kept once, the kernel keeps
        scene.sh("sysctl -w net.ipv6.conf.all.forwarding=0 net.ipv6.conf.wan0.accept_ra=1", "ip -6 route del default")
        assert until(lambda: "proto ra" in default_route(scene.topology))
        scene.sh("sysctl -w net.ipv6.conf.all.forwarding=1")
        assert until(lambda: default_route(scene.topology) == "")
        (found,) = of(scene.look(), "default_route")
        assert found.level is Level.FAIL
        assert "ignores router advertisements" in found.message
        scene.sh(*found.mend)
        assert until(lambda: of(scene.look(), "default_route") == [])
    scene.sh("sysctl -w net.ipv6.conf.wan0.accept_ra=0", "ip -6 address flush dev wan0 dynamic", *HOME)
    scene.sh("ip -6 route del default proto ra || :")
    scene.greet()
    scene.is_whole = True


def test_a_reload_that_failed_is_told_until_one_succeeds(scene: Scene) -> None:
    scene.running.write(configuration(f"{P} neighbour via=lo"))
    assert verb(scene.running, "reload").returncode == 1
    (found,) = of(scene.look(), "file")
    assert found.level is Level.FAIL
    assert "via lo" in found.message
    assert found.mend == (), "it would be refused again"
    scene.running.write(ROUTED)
    (found,) = of(scene.look(), "file")
    scene.sh(*found.mend)
    assert of(scene.look(), "file") == []
    scene.is_whole = True


def test_an_entry_on_standby_is_told(scene: Scene) -> None:
    scene.running.write(configuration(f"{P} route", active_with='"2001:db8::99"'))
    assert verb(scene.running, "reload").returncode == 0
    (found,) = of(scene.look(), "standby")
    assert "2001:db8::99" in found.message
    scene.running.write(ROUTED)
    assert verb(scene.running, "reload").returncode == 0
    assert of(scene.look(), "standby") == []
    scene.is_whole = True


def test_a_filter_that_lets_replies_in_and_nothing_else_is_as_meant(scene: Scene) -> None:
    scene.sh(
        TABLE,
        "nft add chain inet t f '{ type filter hook forward priority 0; policy drop; }'",
        "nft add rule inet t f ct state vmap '{ established : accept, related : accept, invalid : drop }'",
        "nft add rule inet t f iifname lan0 accept",
    )
    (found,) = of(scene.look(), "firewall")
    assert found.level is Level.NOTE
    assert found.message.startswith(f"new connections from wan0 to {P} are dropped")
    scene.sh(*found.mend)
    assert of(scene.look(), "firewall") == []
    scene.sh(*NO_TABLE)
    scene.is_whole = True


def test_a_filter_of_nftables_by_the_way_back_drops_nothing_where_the_routes_lead_back(scene: Scene) -> None:
    """As firewalld has it."""
    scene.sh(
        TABLE,
        "nft add chain inet t p '{ type filter hook prerouting priority -290; }'",
        "nft add rule inet t p meta nfproto ipv6 fib saddr . mark . iif oif missing drop",
    )
    assert of(scene.look(), "firewall") == []
    scene.greet()  # and so it is
    scene.sh("ip -6 route del default")
    found = of(scene.look(), "firewall")
    assert {each.level for each in found} == {Level.NOTE}
    assert all("may be dropped by" in each.message for each in found), found
    scene.sh(*HOME, *NO_TABLE)
    scene.is_whole = True


def test_what_may_not_be_looked_at_is_said_and_fails_nothing(scene: Scene) -> None:
    scene.topology.directory.chmod(0o755)
    words = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")
    done = scene.topology.run(
        "edge", *words, sys.executable, "-m", "npd6_xdp", "doctor", "--json", "--config", str(scene.running.config_file)
    )
    found = {each["check"]: each for each in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    for check in ("capabilities", "program", "daemon"):
        assert found[check]["level"] == "note"
    assert found["route"]["level"] == found["forwarding"]["level"] == "ok"
    scene.is_whole = True


def test_by_try_the_program_is_attached_for_a_moment_where_no_daemon_runs(scene: Scene) -> None:
    scene.sh(*BRIDGE)
    scene.file.write_text(configuration(f"{P} route", attach='"native"').replace("wan0", "br0"))
    (found,) = of(scene.doctor.look(scene.file, attach=True), "native")
    assert found.level is Level.FAIL
    assert "the driver refuses an XDP program in native mode" in found.message
    scene.sh("ip link add wan1 type veth peer name wan2", "ip link set wan1 up", "ip link set wan2 up")
    scene.file.write_text(configuration(f"{P} route", attach='"native"').replace("wan0", "wan1"))
    assert of(scene.doctor.look(scene.file, attach=True), "native") == []
    assert scene.topology.xdp_mode("edge", "wan1") is None
    scene.file.write_text(configuration(f"{P} route", attach='"tc"').replace("wan0", "wan1"))
    said = [each.message for each in scene.doctor.look(scene.file, attach=True)]
    assert "wan1: by tc, which takes the program" in said
    assert at_tc(scene.topology, "wan1") == []
    scene.sh(*NO_BRIDGE, "ip link del wan1")
    scene.is_whole = True


ONE_64 = f"""\
{configuration(f"{P} neighbour via=br0 host_routes=true")}
[[interface]]
name = "br0"
[[interface.rule]]
prefix = "{P}"
method = "neighbour"
via = ["wan0"]
"""
ONE_64_FAULTS = {
    "host_routes forgotten": Fault(
        "host_routes", Level.FAIL, "write host_routes = true", config=ONE_64.replace("host_routes = true\n", "")
    ),
    "method route for an on-link prefix": Fault(
        "route", Level.FAIL, "it is on-link at wan0", config=configuration(f"{P} route")
    ),
    "the prefix mistyped": Fault(
        "prefix", Level.FAIL, f"is {P} meant", config=ONE_64.replace("db8:1::", "db8:1:1::", 1)
    ),
    "a bridge's port as via": Fault(
        "via", Level.FAIL, "it is a port of br0", config=ONE_64.replace('["br0"]', '["lan0"]')
    ),
    "a bridge's port as via of method route": Fault(
        "via", Level.FAIL, "it is a port of br0", config=configuration("2001:db8:1:0:8::/80 route via=lan0"),
        make=("ip -6 route add 2001:db8:1:0:8::/80 dev br0",), after=("ip -6 route del 2001:db8:1:0:8::/80 dev br0",),
    ),
    "an address that brings a second route": Fault(
        "both_sides", Level.FAIL, f"{P} has a route out of wan0 and one out of br0", config=ONE_64,
        make=("ip -6 address add 2001:db8:1::9/64 dev br0 nodad",),
        after=("ip -6 address del 2001:db8:1::9/64 dev br0",),
    ),
    "a second route": Fault(
        "both_sides", Level.FAIL, "turns back", config=ONE_64, make=(f"ip -6 route add {P} dev br0 metric 100",)
    ),
    "a static rule over what is on-link": Fault(
        "on_link", Level.WARN, "covers", config=configuration(f"{P} static"), mends=0
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def one_64() -> Iterator[Scene]:
    """One /64 on both sides, as a VPS has it, with a host behind a bridge; no daemon."""
    with Topology() as topology, Doctor(topology) as doctor:
        scene = Scene(topology, RunningDaemon(topology, ROUTED), doctor)
        scene.sh(
            "ip -6 address flush scope global",
            "ip -6 address add 2001:db8:1::3/64 dev wan0 nodad",
            "ip -6 route replace default via 2001:db8:1::ff dev wan0",
            "ip link add br0 type bridge mcast_snooping 0",
            "ip link set lan0 master br0",
            "ip link set br0 up",
            "ip -6 address add 2001:db8:1::1/128 dev br0 nodad",
        )
        scene.sh("ip -6 address replace 2001:db8:1::ff/64 dev eth0 nodad", namespace="upstream")
        yield scene


def test_one_prefix_on_both_sides_has_nothing_in_the_way_if_it_is_done_as_the_manual_says(one_64: Scene) -> None:
    one_64.file.write_text(ONE_64)
    found: list[Finding] = []

    def is_well() -> bool:
        found[:] = [each for each in one_64.look(ONE_64) if each.level is not Level.OK]
        return {each.check for each in found} <= {"daemon", "snooping", "native"} | SHARED

    assert until(is_well), found


def test_a_port_that_does_not_forward_is_no_fault_where_no_method_goes_by_its_routes(one_64: Scene) -> None:
    one_64.sh("sysctl -w net.ipv6.conf.wan0.forwarding=0 net.ipv6.conf.br0.forwarding=0")
    one_64.file.write_text(ONE_64)
    assert of(one_64.look(ONE_64), "forwarding") == []
    one_64.sh("sysctl -w net.ipv6.conf.all.forwarding=0")
    (found,) = of(one_64.look(ONE_64), "forwarding")
    assert found.level is Level.FAIL
    one_64.sh(*found.mend)
    assert of(one_64.look(ONE_64), "forwarding") == []


@pytest.mark.parametrize("name", ONE_64_FAULTS)
def test_a_fault_with_one_prefix_on_both_sides_is_found_and_mended(one_64: Scene, name: str) -> None:
    found_and_mended(one_64, ONE_64_FAULTS[name])
