# SPDX-License-Identifier: GPL-2.0-or-later
"""Attached by tc (`attach = "tc"`): all that holds for XDP, on a port where others have programs, as XDP and at tc."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon, StartError
from npd6_xdp.lab.topology import EDGE_WAN_ADDRESS, HOST_ADDRESS, UPSTREAM_MAC, Topology
from tests.frames import TAGS_8021Q, TAGS_QINQ, ip6
from tests.judge import judge_advertisement
from tests.netns.others import Filter, Others, at_tc
from tests.netns.test_hidden_tags import tag_beside
from tests.netns.test_reload import reload, stream
from tests.netns.test_taken_away import force_off
from tests.netns.tracing import Trace
from tests.netns.verb import verb
from tests.netns.warm import warm
from tests.netns.wire import EDGE, LATE, Asker, Wire, configuration, on_edge, paused, question, until

Start = Callable[..., RunningDaemon]

OURS, FOREIGN = "ns_filter_tc", "foreign_tc"
TC = {"attach": '"tc"'}
RULES = (
    "2001:db8:1::/64 neighbour via=lan0",
    "2001:db8:2::/64 kernel",
    "2001:db8:3::/64 route via=lan0",
    "2001:db8:4::/64 static exclude=::dead",
)
ADDRESS = "192.0.2.1"
BY = {"hybrid": "answered_xdp", "python": "answered_python"}
INNER = bytes.fromhex("81000007")
ROLE = {("interface", "wan0"), ("attach", "tc")}


def text(*rules: str, **keys: str) -> str:
    """An entry of wan0 for untagged frames, and one each for VLAN 100, alone and with 7 within."""
    both = {"datapath": keys.get("datapath", '"hybrid"')}
    return (
        configuration(*(rules or RULES), **{**TC, **keys})
        + configuration("2001:db8:4::/64 static", vlan="100", **both)
        + configuration("2001:db8:4::/64 static", vlan='"100.7"', **both)
    )


class Scene(NamedTuple):
    """wan0 with a foreign XDP program, another one at tc, and ours."""

    topology: Topology
    others: Others
    running: RunningDaemon
    wire: Wire
    beside: Wire
    """What is sent by it arrives with the tag of VLAN 100 beside the frame."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Scene]:
    with ExitStack() as stack:
        topology = stack.enter_context(Topology())
        topology.sysctl("upstream", "net/ipv6/neigh/eth0/delay_first_probe_time", 86_400)
        on_edge(topology, "route add 2001:db8:3::/64 dev lan0")
        others = stack.enter_context(Others(topology))
        beside = stack.enter_context(tag_beside(topology, "eth0"))
        wire = stack.enter_context(Wire(topology))
        running = stack.enter_context(warm(topology, text()))
        yield Scene(topology, others, running, wire, beside)
        print(running.log)


@pytest.fixture
def scene(shared: Scene) -> Scene:
    """As it is at the beginning of each test."""
    reload(shared.running, text())
    return shared


def answer(wire: Wire, target: str) -> NeighborAdvertisement | None:
    found = wire.ask(question(target))
    return None if found is None else NeighborAdvertisement.parse(found)


def page(scene: Scene, path: str) -> str:
    connection = http.client.HTTPConnection("::1", 9846, timeout=60)
    with scene.topology.inside("edge"):
        connection.request("GET", path)
    body = connection.getresponse().read().decode()
    connection.close()
    return body


def test_whoever_asks_how_it_is_attached_is_told_by_tc(scene: Scene) -> None:
    running = scene.running
    assert "wan0: attached at tc ingress, datapath hybrid (wan0, wan0:100, wan0:100.7)" in running.log
    assert "wan0: attached at tc ingress, datapath hybrid, up" in verb(running, "status").stdout
    rows = json.loads(verb(running, "status", "--json").stdout)["interfaces"]
    assert {row["attach"] for row in rows} == {"tc"}
    assert {row["xdp_tx_errors"] for row in rows} == {None}, "they would be the other program's"
    info = {labels for name, labels in running.metrics() if name == "npd6_interface_info"}
    assert frozenset({("interface", "wan0"), ("attach", "tc"), ("datapath", "hybrid")}) in info
    assert len(info) == 3
    live = running.command("explain", "2001:db8:4::1", "--live", "--control", str(running.control)).stdout
    assert "wan0: attached at tc ingress, datapath hybrid" in live
    said = running.command("doctor", "--config", str(running.config_file)).stdout
    assert "the daemon's program sits at tc's ingress; in this order: id " in said
    assert "an XDP program sits there (xdpgeneric, id " in said
    assert ", foreign_xdp, " in said
    assert "wan0: attached at tc ingress" in said
    assert "native" not in said
    assert "hide" not in running.log, "tags are seen wherever they stand"
    assert '"tc"' in page(scene, "/status.json")


@pytest.mark.parametrize("datapath", BY)
def test_tags_are_seen_where_they_stand_and_an_answer_has_those_of_its_question(scene: Scene, datapath: str) -> None:
    """In the frame, beside it, one of each: whichever, the entry for them answers, and none else."""
    reload(scene.running, text(datapath=f'"{datapath}"'))
    frame = question("2001:db8:4::77")
    for wire, within, tags, label in (
        (scene.wire, b"", b"", "wan0"),
        (scene.wire, TAGS_8021Q, TAGS_8021Q, "wan0:100"),
        (scene.beside, b"", TAGS_8021Q, "wan0:100"),
        (scene.wire, TAGS_QINQ, TAGS_QINQ, "wan0:100.7"),
        (scene.beside, INNER, TAGS_8021Q + INNER, "wan0:100.7"),
    ):
        before = scene.running.solicitations(label).get(BY[datapath], 0)
        found = wire.ask(frame[:12] + within + frame[12:])
        assert found is not None, (label, within, tags)
        asked = frame[:12] + tags + frame[12:]
        judge_advertisement(found, asked, EDGE, router=True)
        assert until(lambda: scene.running.solicitations(label).get(BY[datapath], 0) == before + 1), label  # noqa: B023


@pytest.mark.parametrize("datapath", BY)
def test_the_upstreams_kernel_and_each_method_get_their_answers(scene: Scene, datapath: str) -> None:
    topology, running = scene.topology, scene.running
    reload(running, text(datapath=f'"{datapath}"'))
    topology.run("upstream", "ip", "-6", "neigh", "flush", "dev", "eth0")
    ping = topology.run("upstream", "ping", "-6", "-n", "-c", "1", "-W", "20", HOST_ADDRESS)
    assert ping.returncode == 0, ping.stdout
    asker = Asker(scene.wire, running)
    assert asker.outcome(HOST_ADDRESS) == BY[datapath]
    assert asker.outcome("2001:db8:3::5") == BY[datapath]
    assert asker.outcome("2001:db8:4::5") == BY[datapath]
    assert asker.outcome("2001:db8:4::dead") == "ignored"
    assert asker.outcome("2001:db8:9::5") == "unmatched"
    proxied = f"2001:db8:2::{1 + [*BY].index(datapath)}"
    assert asker.outcome(proxied) == "answered_python"
    assert until(lambda: proxied in str(topology.ip("edge", "-6", "neigh", "show", "proxy")))
    assert asker.outcome(proxied) == "kernel"
    assert scene.wire.ask_kernel(question(proxied)) is not None
    topology.run("edge", "ip", "-6", "neigh", "flush", "dev", "lan0")
    unknown = answer(scene.wire, HOST_ADDRESS)
    assert unknown is not None, "found, and answered late or by what is known"


def test_what_another_xdp_program_passes_comes_to_us_and_only_what_we_pass_to_who_stands_behind(scene: Scene) -> None:
    others, topology = scene.others, scene.topology
    assert at_tc(topology) == [OURS, FOREIGN]
    asker = Asker(scene.wire, scene.running)

    def seen() -> tuple[int, int]:
        return others.xdp, others.tc

    before = seen()
    for number in range(8):
        assert asker.outcome(f"2001:db8:4::{number:x}") == "answered_xdp"
    assert until(lambda: seen() == (before[0] + 8, before[1])), "what we answer is consumed"
    assert asker.outcome("2001:db8:9::1") == "unmatched"
    assert until(lambda: seen() == (before[0] + 9, before[1] + 1)), "what we pass goes on"

    reload(scene.running, text(tc_order='"last"'))
    assert at_tc(topology) == [FOREIGN, OURS]
    assert asker.outcome("2001:db8:4::9") == "answered_xdp"
    assert until(lambda: seen() == (before[0] + 10, before[1] + 2)), "who stands before us sees all"
    said = scene.running.command("doctor", "--config", str(scene.running.config_file)).stdout
    assert re.search(rf"^note  tc +wan0: before it id \d+ \({FOREIGN}\): what is accepted", said, re.MULTILINE), said
    for attach, order in (("auto", "first"), ("auto", "last"), ("tc", "first")):
        reload(scene.running, text(attach=f'"{attach}"', tc_order=f'"{order}"'))
        assert at_tc(topology) == ([OURS, FOREIGN] if order == "first" else [FOREIGN, OURS]), (attach, order)

    reload(scene.running, text(datapath='"monitor"'))
    assert at_tc(topology) == [OURS, FOREIGN]
    assert asker.outcome("2001:db8:4::a") == "monitored"
    assert until(lambda: seen() == (before[0] + 11, before[1] + 3)), "nothing is consumed"


def test_a_tap_sees_the_question_and_the_answer(scene: Scene) -> None:
    """Unlike under XDP, which comes before the taps."""
    target, seen = "2001:db8:4::7a", set[tuple[int, int]]()
    with Wire(scene.topology, "edge", "wan0") as tap:
        assert answer(scene.wire, target) is not None
        tap.socket.settimeout(LATE)
        while seen != {(135, 2), (136, 4)}:  # PACKET_MULTICAST, PACKET_OUTGOING
            frame, sender = tap.socket.recvfrom(2048)
            if frame[62:78] == ip6(target):
                seen.add((frame[54], sender[2]))


def test_limits_standby_and_trace_do_what_they_do_under_xdp(scene: Scene) -> None:
    running, wire = scene.running, scene.wire
    asker = Asker(wire, running)
    with Trace(running) as trace:
        assert asker.outcome("2001:db8:4::1") == "answered_xdp"
        assert trace.has(1)
    assert str(trace.lines[0].outcome) == "answered_xdp"

    reload(running, text(datapath='"python"', events_per_source="1"))
    before, behind = running.solicitations(), scene.others.tc
    wire.send(*[question("2001:db8:4::2")] * 50)
    assert until(lambda: running.solicitations().get("rate_limited", 0) > before.get("rate_limited", 0) + 40)
    assert scene.others.tc == behind, "what is refused doesn't reach the stack instead"

    reload(running, text(active_with=f'"{ADDRESS}"'))
    assert asker.outcome("2001:db8:4::3") == "standby"
    on_edge(scene.topology, f"address add {ADDRESS}/24 dev lan0")
    assert until(lambda: asker.answered("2001:db8:4::3"))
    on_edge(scene.topology, f"address del {ADDRESS}/24 dev lan0")


def test_what_is_detached_by_force_is_put_back_and_all_multicast_comes_all_the_while(scene: Scene) -> None:
    topology, running = scene.topology, scene.running

    def allmulti() -> int:
        return int(topology.ip("edge", "link", "show", "dev", "wan0")[0]["allmulti"])

    assert allmulti() == 1
    with paused(running):
        force_off(running)
        assert at_tc(topology) == [FOREIGN]
    assert until(lambda: at_tc(topology) == [OURS, FOREIGN], 15.0)
    assert until(lambda: "wan0: another process has detached the tc program; attaching it again" in running.log)
    assert Asker(scene.wire, running).answered("2001:db8:4::1")
    assert allmulti() == 1


def test_a_reload_that_has_another_program_take_over_leaves_no_question_unanswered(scene: Scene) -> None:
    running, static = scene.running, "2001:db8:1::/64 static"
    reload(running, text(static))
    with stream(scene.topology, 2_000) as asked:
        for count in (300, 700):
            grown = (f"2001:db8:{0x1000 + n:x}::/64 static" for n in range(count))
            reload(running, text(static, *grown))
        reload(running, text(static))
    assert asked.steady()
    assert asked.all_answered_once()
    assert "the kernel maps have grown" in running.log
    assert at_tc(scene.topology) == [OURS, FOREIGN]


def test_it_goes_from_xdp_to_tc_and_back_by_a_reload(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(attach='"generic"'))
    with Wire(topology) as wire:
        for attach in ("tc", "generic", "auto", "tc"):
            reload(running, configuration(attach=f'"{attach}"'))
            assert (at_tc(topology), topology.xdp_mode("edge", "wan0")) == (
                ([], "generic") if attach == "generic" else ([OURS], None)
            )
            assert answer(wire, "2001:db8:1::77") is not None
        refused = configuration(attach='"generic"', tc_order='"last"')
        running.write(refused)
        done = verb(running, "reload")
        assert done.returncode == 1
        assert 'an XDP program (attach = "generic") has no place among tc programs' in done.stderr
        assert "Traceback" not in running.log
        assert answer(wire, "2001:db8:1::77") is not None, "the old configuration stays"


def test_a_daemon_that_ends_leaves_nothing_at_tc_and_two_of_us_dont_share_a_port(
    topology: Topology, daemon: Start
) -> None:
    def left() -> tuple[list[str], object]:
        return at_tc(topology), topology.ip("edge", "link", "show", "dev", "wan0")[0]["allmulti"]

    running = daemon(configuration(**TC))
    assert left() == ([OURS], 1)
    for attach in ("tc", "generic", "auto"):
        with pytest.raises(StartError) as caught:
            daemon('[metrics]\nlisten = ""\n' + configuration(attach=f'"{attach}"'))
        *_, line = caught.value.log.splitlines()
        assert line.startswith(
            f"npd6-xdp: wan0: another npd6-xdp's program is there already: pid {running.process.pid};"
        )
    running.kill()
    assert until(lambda: left() == ([], 0), 1.0)
    again = daemon(configuration(**TC))
    with Wire(topology) as wire:
        assert answer(wire, "2001:db8:1::77") is not None
    assert again.stop() == 0
    assert left() == ([], 0)


def test_xdp_filter_goes_on_counting_and_dropping_beside_us(topology: Topology, daemon: Start) -> None:
    """Where it sits, XDP isn't to be had, and by tc we get what it passes."""
    xdp_filter = Filter(topology)
    xdp_filter("load", "wan0", "--mode", "skb", "--policy", "allow")
    with pytest.raises(StartError) as caught:
        daemon(configuration(attach='"generic"'))
    *_, line = caught.value.log.splitlines()
    assert line.startswith("npd6-xdp: wan0: another XDP program is attached in generic mode: id ")
    assert line.endswith('leave this interface out, or write attach = "auto" to sit beside it by tc (Linux 6.6)')
    running = daemon(configuration())
    with Wire(topology) as wire:
        before = xdp_filter.counted("XDP_PASS")
        for number in range(5):
            assert answer(wire, f"2001:db8:1::{0x70 + number:x}") is not None
        assert xdp_filter.counted("XDP_PASS") >= before + 5
        assert running.solicitations().get("answered_xdp") == 5
        xdp_filter("ether", UPSTREAM_MAC, "--mode", "src")
        assert wire.ask(question("2001:db8:1::79"), 0.3) is None
        assert xdp_filter.counted("XDP_DROP") >= 1
        assert running.solicitations().get("answered_xdp") == 5, "what it drops never comes to tc"
        xdp_filter("unload", "wan0")
        assert topology.xdp_mode("edge", "wan0") is None
        assert at_tc(topology) == [OURS]
        assert answer(wire, "2001:db8:1::79") is not None


BOUNCER = """
table ip6 crowdsec6 {{
    set crowdsec6-blacklists {{ type ipv6_addr; flags timeout; elements = {{ {0} timeout 4h }}; }}
    chain crowdsec6-chain {{
        type filter hook input priority filter; policy accept;
        ip6 saddr @crowdsec6-blacklists counter drop
    }}
}}
"""
"""The table that crowdsec-firewall-bouncer 0.0.25 writes, with one address that is banned."""


@pytest.mark.parametrize("attach", ["tc", "generic"])
def test_whoever_crowdsecs_bouncer_bans_is_answered_by_us_and_not_by_the_kernel(
    topology: Topology, daemon: Start, attach: str
) -> None:
    running = daemon(configuration(attach=f'"{attach}"'))
    table = topology.directory / "bouncer.nft"
    table.write_text(BOUNCER.format(socket.inet_ntop(socket.AF_INET6, question("2001:db8:1::77")[22:38])))
    topology.run("edge", "nft", "-f", str(table), check=True)

    def dropped() -> int:
        found = re.search(r"counter packets (\d+)", topology.run("edge", "nft", "list", "ruleset").stdout)
        return int(found[1]) if found else -1

    with Wire(topology) as wire:
        for number in range(5):
            assert answer(wire, f"2001:db8:1::{0x70 + number:x}") is not None
        assert running.solicitations().get("answered_xdp") == 5
        before = dropped()
        assert before >= 0
        assert wire.ask(question(EDGE_WAN_ADDRESS), 0.3) is None, "that is the kernel's to answer"
        assert dropped() > before
