# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `kernel`: proxy entries of our own in the kernel's table, which answers from the second time on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.core.rtnetlink import PROTOCOL
from npd6_xdp.lab.daemon import RunningDaemon, StartError
from npd6_xdp.lab.topology import (
    EDGE_LAN_ADDRESS,
    EDGE_WAN_ADDRESS,
    HOST_ADDRESS,
    UPSTREAM_ADDRESS,
    UPSTREAM_MAC,
    Topology,
)
from npd6_xdp.tools.control import ask
from tests.frames import ip6
from tests.netns.verb import verb
from tests.netns.wire import EDGE, SETTING, Asker, Wire, configuration, flood, on_edge, question, says, until

Start = Callable[..., RunningDaemon]

FAULTY = Path(__file__).with_name("faulty.py")
ROOT = Path(__file__).resolve().parents[2]

RULE = "2001:db8:1::/64 kernel"
SYSCTLS = ("conf/wan0/proxy_ndp", "conf/all/proxy_ndp", "neigh/wan0/proxy_delay")

both = pytest.mark.parametrize("datapath", ["hybrid", "python"])


@pytest.fixture(autouse=True)
def known_asker(topology: Topology) -> None:
    """The edge's kernel needn't find out where to answer to, nor find space in the neighbour table, which all share."""
    for address in ("fe80::ff:fe00:1", UPSTREAM_ADDRESS):
        on_edge(topology, f"neigh replace {address} lladdr {UPSTREAM_MAC} dev wan0 nud permanent")


def proxies(topology: Topology, *, ours: bool = True, interface: str = "wan0") -> set[str]:
    """The proxy entries on the edge's wan0: those of ours, or the others."""
    found = topology.ip("edge", "-6", "neigh", "show", "proxy", "dev", interface)
    return {entry["dst"] for entry in found if (entry.get("protocol") == str(PROTOCOL)) == ours}


def sysctls(topology: Topology, interface: str = "wan0") -> dict[str, str]:
    """Those that method kernel sets, of the edge's wan0, whatever it is called at the moment."""
    with topology.inside("edge"):
        root = Path("/proc/sys/net/ipv6")
        return {key: (root / key.replace("wan0", interface)).read_text().strip() for key in SYSCTLS}


@both
def test_python_answers_the_first_and_the_kernel_all_others(topology: Topology, daemon: Start, datapath: str) -> None:
    before = sysctls(topology)
    running = daemon(configuration(RULE, datapath=f'"{datapath}"'))
    assert sysctls(topology) == dict.fromkeys(SYSCTLS[:2], "1") | {SYSCTLS[2]: "0"}
    assert proxies(topology) == set()
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.outcome(HOST_ADDRESS) == "answered_python"
        assert until(lambda: proxies(topology) == {HOST_ADDRESS}, 1.0)
        for frame in (
            question(HOST_ADDRESS),
            question(HOST_ADDRESS, options=b""),
        ):
            answer = wire.ask(frame)
            assert answer is not None
            assert NeighborAdvertisement.parse(answer).source != NeighborAdvertisement.parse(answer).target, (
                "the kernel's"
            )
        assert running.solicitations() == {"answered_python": 1, "kernel": 2}
        assert running.metrics()["npd6_kernel_proxy_entries", frozenset({("interface", "wan0")})] == 1
        assert asker.outcome(EDGE_LAN_ADDRESS) != "kernel", "an address of its own needs no entry"
    words = ("ping", "-6", "-n", "-c", "2", "-i", "0.2", "-W", "3", HOST_ADDRESS)
    assert until(lambda: topology.run("upstream", *words).returncode == 0), "there may be no space for a neighbour yet"
    assert running.stop() == 0
    assert proxies(topology) == set()
    assert sysctls(topology) == before


@both
def test_entries_survive_a_crash_are_taken_over_and_go_at_a_clean_end(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    before = sysctls(topology)
    running = daemon(configuration(RULE, datapath=f'"{datapath}"'))
    with Wire(topology) as wire:
        assert Asker(wire, running).outcome(HOST_ADDRESS) == "answered_python"
        running.kill()
        assert proxies(topology) == {HOST_ADDRESS}
        on_edge(topology, f"-6 neigh add proxy 2001:db8:2::1 dev wan0 protocol {PROTOCOL}")
        running = daemon(configuration(RULE))  # another control socket is no hindrance
        assert proxies(topology) == {HOST_ADDRESS}, "what no rule wants any more goes"
        assert Asker(wire, running).outcome(HOST_ADDRESS) == "kernel"
    assert running.stop() == 0
    assert proxies(topology) == set()
    assert sysctls(topology) == before, "as they were before the one that was killed"


@pytest.mark.parametrize("place", ["system.bpf.ns_filter:NsFilter", "daemon.resolution:Resolution"])
def test_a_start_that_fails_before_it_puts_sysctls_back_leaves_that_to_the_next_one(
    topology: Topology, daemon: Start, place: str
) -> None:
    """It can't load its program, say, and what a killed one has remembered is still to be had."""
    before, left = sysctls(topology), topology.directory / "left"
    daemon(configuration(RULE)).kill()
    assert sysctls(topology) != before
    left.write_text("1")
    program = (sys.executable, str(FAULTY), f"npd6_xdp.{place}.__init__=refused", str(left))
    with pytest.raises(StartError):
        daemon(configuration(RULE), program=program, environment={"PYTHONPATH": str(ROOT)})
    assert left.read_text() == "0", "it is the fault that has ended it"
    assert daemon(configuration(RULE)).stop() == 0
    assert sysctls(topology) == before, "as they were before the one that was killed"


@pytest.mark.parametrize("rules_for", ["wan0", "*0"])
def test_sysctls_of_a_port_that_was_renamed_are_put_back_under_its_new_name(
    topology: Topology, daemon: Start, rules_for: str
) -> None:
    before = sysctls(topology)
    set_ones = dict.fromkeys(SYSCTLS[:2], "1") | {SYSCTLS[2]: "0"}
    control = topology.directory / "shared.sock"
    text = f'[daemon]\ncontrol = "{control}"\n' + configuration(RULE).replace("wan0", rules_for)

    def expected() -> dict[str, str]:
        return before if rules_for == "wan0" else set_ones

    running = daemon(text)
    assert sysctls(topology) == set_ones
    on_edge(topology, "link set wan0 name other0")
    assert until(lambda: sysctls(topology, "other0") == expected(), 1.0), "nobody speaks for it, or a glob still does"
    assert running.stop() == 0
    assert sysctls(topology, "other0") == before
    # as it was renamed while nobody looked
    on_edge(topology, "link set other0 name wan0")
    running = daemon(text)
    assert sysctls(topology) == set_ones
    running.kill()
    on_edge(topology, "link set wan0 name other0")
    assert sysctls(topology, "other0") == set_ones
    running = daemon(text)
    assert sysctls(topology, "other0") == expected()
    assert running.stop() == 0
    assert sysctls(topology, "other0") == before
    assert list(Path("/run/npd6-xdp").glob(f"sysctl-*-{running.process.pid}-*")) == []


def test_two_daemons_on_different_interfaces_leave_each_other_alone(topology: Topology, daemon: Start) -> None:
    """(0665297 has this very test.)"""
    host = "2001:db8:1:1::7"
    on_edge(topology, "link add wan9 type veth", "link set wan9 up")

    def left() -> tuple[set[str], list[str]]:
        entries = proxies(topology) | proxies(topology, interface="wan9")
        return entries, [route["dst"] for route in topology.ip("edge", "-6", "route", "show", "proto", "136")]

    first = daemon(configuration(RULE, "2001:db8:1:1::/64 neighbour via=lan0 host_routes=true"))
    other = '[metrics]\nlisten = ""\n' + configuration("2001:db8:5::/64 kernel").replace("wan0", "wan9")
    with Wire(topology) as wire:
        assert Asker(wire, first).outcome(HOST_ADDRESS) == "answered_python"
        on_edge(topology, f"neigh replace {host} lladdr 02:00:00:00:01:01 nud permanent dev lan0")
        assert until(lambda: left() == ({HOST_ADDRESS}, [host]))
        second = daemon(other)
        assert f"another npd6-xdp runs in this network namespace (pid {first.process.pid})" in second.log
        on_edge(topology, f"-6 neigh add proxy 2001:db8:5::1 dev wan9 protocol {PROTOCOL}")
        for running in (first, second):
            on_edge(topology, "link add new0 type veth", "link del new0")
            assert verb(running, "reload").returncode == 0
        assert left() == ({HOST_ADDRESS, "2001:db8:5::1"}, [host])
        assert second.stop() == 0
        assert left() == ({HOST_ADDRESS}, [host])
        assert Asker(wire, first).outcome(HOST_ADDRESS) == "kernel"


def test_the_first_of_two_daemons_that_ends_leaves_the_other_the_sysctls_that_both_need(
    topology: Topology, daemon: Start
) -> None:
    """(On 0665297 the first took conf.all.proxy_ndp along.)"""
    on_edge(topology, "link add wan9 type veth", "link set wan9 up")
    before = sysctls(topology)
    assert before["conf/all/proxy_ndp"] == "0"
    other = '[metrics]\nlisten = ""\n' + configuration("2001:db8:5::/64 kernel").replace("wan0", "wan9")
    text = configuration(RULE)
    both = [daemon(text), daemon(other)]
    assert both[0].stop() == 0
    assert sysctls(topology) == before | {"conf/all/proxy_ndp": "1"}
    both.append(daemon(text))
    both[2].kill()
    assert both[1].stop() == 0, "a killed one doesn't count"
    assert sysctls(topology)["conf/all/proxy_ndp"] == "0"
    assert daemon(text).stop() == 0
    assert sysctls(topology) == before


@both
def test_a_cap_holds_and_beyond_it_python_answers_itself(topology: Topology, daemon: Start, datapath: str) -> None:
    cap = 1024
    running = daemon(
        f"[limits]\nkernel_entries = {cap}\n" + configuration(RULE, datapath=f'"{datapath}"', events_per_source="0")
    )
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        for number in range(1, cap + 1):
            wire.send(question(f"2001:db8:1::1:{number:x}"))
        assert until(lambda: len(proxies(topology)) == cap, 5.0)
        assert asker.answered("2001:db8:1::2:1"), "the 1,025th"
        assert asker.answered("2001:db8:1::2:1"), "and again"
        assert asker.outcome("2001:db8:1::1:1") == "kernel"
    assert len(proxies(topology)) == cap
    assert says(running, "limits.kernel_entries: 1024 proxy entries are there")
    assert '"kernel proxy entries": 2' in verb(running, "status", "--json").stdout
    assert running.solicitations() == {"answered_python": cap + 2, "kernel": 1}


@both
def test_an_entry_that_nobody_asks_for_is_removed_and_one_that_is_asked_for_stays(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    running = daemon("[limits]\nkernel_entry_age = 2\n" + configuration(RULE, datapath=f'"{datapath}"'))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.outcome("2001:db8:1::11") == "answered_python"
        assert asker.outcome("2001:db8:1::12") == "answered_python"

        # a flood beside, as a slow look would keep us from asking in time
        with flood(topology, repeat(question("2001:db8:1::11")), 20) as asking:
            assert until(lambda: "2001:db8:1::12" not in proxies(topology), 8.0)
            assert proxies(topology) == {"2001:db8:1::11"} or asking.longest_pause > 1.0
        assert asker.outcome("2001:db8:1::12") == "answered_python"
        assert until(lambda: proxies(topology) == {"2001:db8:1::11", "2001:db8:1::12"}, 1.0)


@both
def test_a_unicast_question_too_is_left_to_the_kernel_which_answers_it(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    """As an upstream asks that confirms what it knows (RFC 4861 §7.3.3). It comes to be forwarded, so the kernel looks
    at the sysctl of all interfaces; its answer has no link-layer address option.
    """
    running = daemon(configuration(RULE, datapath=f'"{datapath}"'))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.outcome(HOST_ADDRESS) == "answered_python"
        assert until(lambda: proxies(topology) == {HOST_ADDRESS}, 1.0)
        wire.advertisements(0.05)
        wire.send(question(HOST_ADDRESS, destination=ip6(HOST_ADDRESS), eth_destination=EDGE))
        answer = next(frame for frame in wire.received(20.0) if frame[12:14] == b"\x86\xdd" and frame[54] == 136)
        assert len(answer) == 78
        assert answer[:6] == SETTING.asker_mac
        assert answer[6:12] == EDGE
        assert answer[38:54] == SETTING.asker_link_local
        assert answer[62:78] == ip6(HOST_ADDRESS)
        assert running.solicitations() == {"answered_python": 1, "kernel": 1}


@both
def test_addresses_of_its_own_get_no_entry_whichever_side_they_are_on(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    answered = "answered_xdp" if datapath == "hybrid" else "answered_python"
    running = daemon(configuration("2001:db8::/32 kernel", datapath=f'"{datapath}"'))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        for _ in range(2):
            assert asker.outcome(EDGE_WAN_ADDRESS) == "own"
            own = wire.ask_kernel(question(EDGE_WAN_ADDRESS))
            assert own is not None
            assert NeighborAdvertisement.parse(own).override, "the kernel's, for it owns the address"
            assert asker.outcome(EDGE_LAN_ADDRESS) == answered
            assert asker.answered(EDGE_LAN_ADDRESS)
            assert asker.outcome(UPSTREAM_ADDRESS) == "ignored"
    assert proxies(topology) == set()


@both
def test_a_reload_that_drops_a_rule_removes_its_entries_and_no_others(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    keys = {"datapath": f'"{datapath}"'}
    other = "2001:db8:2::7"
    before = sysctls(topology)
    running = daemon(configuration(RULE, "2001:db8:2::/64 kernel", **keys))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        for target in (HOST_ADDRESS, other):
            assert asker.outcome(target) == "answered_python"
            assert asker.outcome(target) == "kernel"
        assert until(lambda: proxies(topology) == {HOST_ADDRESS, other}, 1.0)
        for rules, left, outcomes in (
            ((RULE,), {HOST_ADDRESS}, ("kernel", "unmatched")),
            (("2001:db8:1::/64 ignore",), set(), ("ignored", "unmatched")),
        ):
            running.write(configuration(*rules, **keys))
            assert verb(running, "reload").returncode == 0
            assert proxies(topology) == left
            assert (asker.outcome(HOST_ADDRESS), asker.outcome(other)) == outcomes
        assert sysctls(topology) == before


def test_entries_of_others_are_reported_and_never_touched(topology: Topology, daemon: Start) -> None:
    on_edge(topology, "-6 neigh add proxy 2001:db8:1::7 dev wan0", "-6 neigh add proxy 2001:db8:1::8 dev wan0")
    running = daemon(configuration(RULE))
    assert until(lambda: "wan0: the kernel has 2 proxy entries that are not ours" in running.log)
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.outcome("2001:db8:1::7") == "answered_python"
        on_edge(topology, "-6 neigh add proxy 2001:db8:1::9 dev wan0")
        assert asker.outcome("2001:db8:1::9") == "answered_python"
    assert proxies(topology) == set()
    assert running.stop() == 0
    assert proxies(topology, ours=False) == {"2001:db8:1::7", "2001:db8:1::8", "2001:db8:1::9"}


def test_entries_that_go_with_a_link_that_goes_down_are_made_anew(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(RULE))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.outcome(HOST_ADDRESS) == "answered_python"
        assert asker.outcome(HOST_ADDRESS) == "kernel"
        on_edge(topology, "link set wan0 down", "link set wan0 up")
        assert until(lambda: wire.ask(question(HOST_ADDRESS), 0.3) is not None, 2.0)
        assert until(lambda: proxies(topology) == {HOST_ADDRESS}, 2.0)
        assert asker.outcome(HOST_ADDRESS) == "kernel"


def test_entries_and_sysctls_that_somebody_else_changes_are_put_back_and_that_is_said_once(
    topology: Topology, daemon: Start
) -> None:
    before = sysctls(topology)
    other = "2001:db8:1::7"
    running = daemon(configuration(RULE))
    set_ones = sysctls(topology)
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        for host in (HOST_ADDRESS, other):
            assert asker.outcome(host) == "answered_python"
        for _ in range(2):
            on_edge(topology, f"-6 neigh del proxy {HOST_ADDRESS} dev wan0")
            assert until(lambda: proxies(topology) == {HOST_ADDRESS, other}, 3.0)
            for key, value in zip(SYSCTLS, ("0", "0", "80"), strict=True):
                topology.sysctl("edge", f"net/ipv6/{key}", value)
            assert until(lambda: sysctls(topology) == set_ones, 3.0)
        assert asker.outcome(HOST_ADDRESS) == "kernel", "it is put back, not learned anew"
        # another's in its place
        on_edge(
            topology,
            f"-6 neigh del proxy {other} dev wan0",
            f"-6 neigh add proxy {other} dev wan0 protocol static",
        )

        def shown() -> list[str]:
            found = ask(running.control, {"verb": "status"})["kernel_proxy_entries"]
            return [entry["address"] for entry in found]

        assert until(lambda: shown() == [HOST_ADDRESS], 3.0)
        assert proxies(topology, ours=False) == {other}
    assert says(running, "our proxy entries are gone")
    for key in SYSCTLS:
        assert says(running, f"net.ipv6.{key.replace('/', '.')}: another process changes this sysctl")
    assert until(lambda: "the kernel has 1 proxy entry that is not ours" in running.log)
    assert running.stop() == 0
    assert sysctls(topology) == before, "the value from before, not the one that somebody has set since"
    assert proxies(topology) == set()


def test_the_kernel_defends_its_entry_only_if_policy_says_so(topology: Topology, daemon: Start) -> None:
    """Its proxy entry would defend the target against Duplicate Address Detection, whatever we would do."""
    dad = question(HOST_ADDRESS, source=bytes(16), options=b"")
    for policy, heard in (("ignore", False), ("defend", True)):
        running = daemon(configuration(RULE, dad=f'"{policy}"'))
        with Wire(topology) as wire:
            asker = Asker(wire, running)
            assert asker.outcome(HOST_ADDRESS) == "answered_python"
            assert (wire.ask(dad, 5.0 if heard else 0.3) is not None) == heard
        assert running.solicitations() == {"answered_python": 1, "kernel" if heard else "dad": 1}
        running.stop()


def test_monitor_adds_nothing(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(RULE, datapath='"monitor"'))
    with Wire(topology) as wire:
        assert Asker(wire, running).outcome(HOST_ADDRESS) == "monitored"
    assert proxies(topology) == set()
