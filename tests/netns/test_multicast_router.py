# SPDX-License-Identifier: GPL-2.0-or-later
"""`multicast_router`: announced to switches with MLD snooping, which then send all groups here (RFC 4286)."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.mrd import advertisement, solicited, termination
from npd6_xdp.core.mrd_times import INITIAL, LEAST_BETWEEN
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_MAC, Topology
from npd6_xdp.system.mrd import Solicitations, _open
from tests.core.test_mrd import solicitation
from tests.frames import TAGS_8021Q, TAGS_QINQ, ether, ip6
from tests.kinds import solicit
from tests.netns.handovers import CONTROL, kill, restart
from tests.netns.service import UnderSystemd
from tests.netns.test_snooping import ASKER, COVERED, NAMED, switch
from tests.netns.verb import verb
from tests.netns.wire import EDGE, LATE, SETTING, Wire, configuration, cpu_seconds, on_edge, says, until

Start = Callable[..., RunningDaemon]

SCOPE = "2001:db8:1::/64 static"
RULES = (f"{NAMED} static", SCOPE)
OTHERS = [f"2001:db8:1::{n:x}:{n * 257:x}" for n in range(1, 50)]
ROUTER = {"multicast_router": "true"}
OWN = "fe80::ff:fe00:2"
ANNOUNCED = "wan0: announced as a multicast router, for MLD-snooping switches"
SNOOPERS_MAC = ether("33:33:00:00:00:6a")
KINDS = {151: "advertisement", 153: "termination"}


class Heard(NamedTuple):
    """A frame to all snoopers: `tags` as they are on the wire."""

    kind: str
    frame: bytes
    tags: bytes
    source: bytes


def heard(wire: Wire, seconds: float) -> Iterator[Heard]:
    """What comes to all snoopers for so long, and is one of RFC 4286's messages."""
    for frame in wire.received(seconds):
        at = 12
        while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
            at += 4
        if frame[:6] == SNOOPERS_MAC and frame[at + 50] in KINDS:
            yield Heard(KINDS[frame[at + 50]], frame, frame[12:at], frame[at + 10 : at + 26])


def following(wire: Wire, wanted: Callable[[Heard], bool] = lambda _: True) -> Heard:
    """The next one that is wanted. Who is announced is so again within 21 seconds at the latest."""
    found = next((each for each in heard(wire, 3 * LATE) if wanted(each)), None)
    assert found is not None
    return found


def router_ports(topology: Topology) -> list[str]:
    """The ports behind which the bridge has found a multicast router."""
    said = json.loads(topology.run("upstream", "bridge", "-j", "-d", "mdb", "show", check=True).stdout or "[]")
    return [port["port"] for each in said for port in (each.get("router") or {}).get("br0", [])]


def reload(running: RunningDaemon, *rules: str, **keys: str) -> None:
    running.write(configuration(*rules, **keys))
    done = verb(running, "reload")
    assert done.returncode == 0, done.stderr


def test_a_snooping_bridge_passes_all_that_is_asked_of_a_prefix_once_we_are_announced_and_nothing_before(
    topology: Topology, daemon: Start
) -> None:
    switch(topology)
    running = daemon(configuration(*RULES))
    with Wire(topology, interface="asker0") as wire:

        def answered(target: str, seconds: float = 0.1) -> bool:
            return wire.ask(solicit(replace(ASKER, target=ip6(target))), seconds) is not None

        assert until(lambda: not answered(COVERED)), "from the first query on, the switch snoops"
        assert until(lambda: answered(NAMED))
        before = running.solicitations()["answered_xdp"]
        assert not any(answered(target, 0.02) for target in OTHERS)
        assert running.solicitations()["answered_xdp"] == before, "they never arrived"
        assert router_ports(topology) == []

        reload(running, *RULES, **ROUTER)
        assert until(lambda: router_ports(topology) == ["eth0"])
        assert all(answered(target, LATE) for target in [COVERED, NAMED, *OTHERS])

        # a bridge forgets what is behind a port that goes down; that we are there is said once it is up again
        on_edge(topology, "link set wan0 down")
        assert until(lambda: router_ports(topology) == [])
        on_edge(topology, "link set wan0 up")
        assert until(lambda: router_ports(topology) == ["eth0"])
        assert all(answered(target, LATE) for target in [COVERED, *OTHERS])
        with Wire(topology) as port:
            running.stop()
            assert following(port, lambda each: each.kind == "termination").frame == termination(EDGE, ip6(OWN))
        print(f"after the Termination, router ports are {router_ports(topology)}")  # Linux 6.18: eth0, for 255 s


def test_i3_i5_i6_it_is_announced_at_the_start_and_when_somebody_asks_a_second_apart_at_least_and_ended_at_the_end(
    topology: Topology, daemon: Start
) -> None:
    # I3, I5, I6
    wanted, ended = advertisement(EDGE, ip6(OWN)), termination(EDGE, ip6(OWN))
    with Wire(topology) as wire:
        running = daemon(configuration(SCOPE, **ROUTER))
        began = time.monotonic()
        for _ in range(INITIAL + 2):
            assert following(wire).frame == wanted
            wire.send(solicitation())
        assert time.monotonic() - began < 38, "by themselves three come at first, and then one each 20 s"
        assert says(running, ANNOUNCED), "once"

        began, used = time.monotonic(), cpu_seconds(running)
        storm = [solicitation(f"fe80::1:{number:x}") for number in range(500)]
        for _ in range(30):
            wire.send(*storm)
            time.sleep(0.05)
        used = cpu_seconds(running) - used
        found = [*heard(wire, 0.1), following(wire)]
        took = time.monotonic() - began
        print(f"15,000 solicitations in {took:.1f} s: {len(found)} answers, and {used:.2f} s of the processor")
        assert len(found) <= took / LEAST_BETWEEN + 2
        assert wire.ask(solicit(replace(SETTING, target=ip6(COVERED)))) is not None

        reload(running, SCOPE)
        assert following(wire, lambda each: each.kind == "termination").frame == ended
        reload(running, SCOPE, **ROUTER)
        assert following(wire).frame == wanted
        running.stop()
        assert following(wire, lambda each: each.kind == "termination").frame == ended


def is_end(heard: Heard) -> bool:
    return heard.kind == "termination"


def test_i6_as_a_service_it_is_ended_where_nobody_is_to_come_and_where_the_next_one_doesnt_want_it(
    topology: Topology,
) -> None:
    with_it, without = (CONTROL + configuration(SCOPE, **keys) for keys in (ROUTER, {}))
    with UnderSystemd(topology, with_it) as service, Wire(topology) as wire:
        assert following(wire).kind == "advertisement"
        assert service.stop() == 0
        end = following(wire, is_end)  # it may have announced itself once more before
        assert end.frame == termination(EDGE, ip6(OWN))
        assert service.systemctl("start", "npd6-xdp").returncode == 0
        assert following(wire).kind == "advertisement"
        for again in (restart, kill):
            again(service)
            assert following(wire).kind == "advertisement", "nobody is to think that it is gone"
        service.configure(without)
        restart(service)
        assert following(wire, is_end).frame == end.frame
        service.stop()
        assert [each.kind for each in heard(wire, 1.0)] == [], "it was ended before"
        service.configure(with_it)
        assert service.systemctl("start", "npd6-xdp").returncode == 0
        assert following(wire).kind == "advertisement"
        service.configure("a mistake")
        assert service.systemctl("restart", "npd6-xdp").returncode == 1
        assert following(wire, is_end).frame == end.frame
        assert "multicast-routers" not in service.enter("ls", "/run/npd6-xdp").stdout


def test_an_entry_that_stands_by_is_announced_too_or_a_takeover_would_wait_for_it(
    topology: Topology, daemon: Start
) -> None:
    with Wire(topology) as wire:
        running = daemon(configuration(SCOPE, active_with='"192.0.2.1"', **ROUTER))
        assert following(wire).frame == advertisement(EDGE, ip6(OWN))
        wire.send(solicitation())
        assert following(wire).frame == advertisement(EDGE, ip6(OWN))
        assert "on standby" in verb(running, "status").stdout
        running.stop()
        assert following(wire, lambda each: each.kind == "termination").frame == termination(EDGE, ip6(OWN))


def test_i3_i6_it_follows_the_interface_and_its_addresses_and_waits_where_there_is_none(
    topology: Topology, daemon: Start
) -> None:
    with Wire(topology) as wire:
        on_edge(topology, "-6 address add fe80::1/64 dev wan0 nodad")  # one that moves between machines, and is here
        running = daemon(configuration(SCOPE, **ROUTER))
        assert following(wire).frame == advertisement(EDGE, ip6(OWN))
        running.stop()
        assert following(wire, lambda each: each.kind == "termination").frame == termination(EDGE, ip6(OWN))
        on_edge(topology, "link set wan0 addrgenmode none", "-6 address flush dev wan0 scope link")
        running = daemon(configuration(SCOPE, **ROUTER))
        line = "wan0: no link-local address, so multicast_router announces nothing; it does once there is one"
        assert says(running, line)
        assert ANNOUNCED not in running.log
        on_edge(topology, "-6 address add fe80::77/64 dev wan0 nodad")
        assert following(wire).frame == advertisement(EDGE, ip6("fe80::77"))

        on_edge(topology, "-6 address add fe80::88/64 dev wan0 nodad", "-6 address del fe80::77/64 dev wan0")
        assert following(wire, lambda each: each.source == ip6("fe80::88")).kind == "advertisement"
        other = ether("02:00:00:00:00:99")
        on_edge(topology, "link set wan0 address 02:00:00:00:00:99")
        assert following(wire, lambda each: each.frame[6:12] == other).frame == advertisement(other, ip6("fe80::88"))

    on_edge(topology, "link del wan0")
    assert until(lambda: "the interface is gone" in running.log)
    on_edge(topology, f"link add wan0 address {EDGE_WAN_MAC} type veth peer name there0")
    topology.run("edge", "ip", "link", "set", "there0", "netns", topology.name("upstream"), check=True)
    topology.run("upstream", "ip", "link", "set", "there0", "up", check=True)
    with Wire(topology, interface="there0") as wire:
        on_edge(topology, "link set wan0 up")
        assert following(wire).frame == advertisement(EDGE, ip6(OWN))
        wire.send(solicitation())
        assert following(wire).kind == "advertisement"


def test_each_vlan_is_announced_with_its_tags_and_asked_for_itself(topology: Topology, daemon: Start) -> None:
    entries = [configuration(SCOPE, vlan=vlan, **ROUTER) for vlan in ("100", '"100.7"')]
    with Wire(topology) as wire:
        daemon("".join(entries))
        found, began = dict.fromkeys((TAGS_8021Q, TAGS_QINQ), 0), time.monotonic()
        while min(found.values()) < INITIAL + 2:
            tags = following(wire).tags
            found[tags] += 1  # none comes without tags, or with others
            wire.send(solicitation(tags=tags[:2] + b"\xe0" + tags[3:]))  # a priority beside the VLAN id
        assert time.monotonic() - began < 38, "by themselves three come at first, and then one each 20 s"


def test_where_one_ports_socket_is_refused_the_others_are_heard_and_that_one_the_next_time(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexes = {each["ifname"]: each["ifindex"] for each in topology.ip("edge", "link", "show")}
    peers = {indexes["wan0"]: "upstream", indexes["lan0"]: "host"}

    for refused in peers:  # whichever of them is opened first

        def opened(ifindex: int, refused: int = refused) -> socket.socket:
            if ifindex == refused:
                raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
            return _open(ifindex)

        with topology.inside("edge"), closing(Solicitations()) as sockets:
            with monkeypatch.context() as patch:
                patch.setattr("npd6_xdp.system.mrd._open", opened)
                with pytest.raises(MachineError, match="can't listen for Multicast Router Solicitations"):
                    sockets.follow(peers.keys())
            for ifindex in sorted(peers, key=refused.__eq__):
                with Wire(topology, peers[ifindex]) as wire:
                    wire.send(solicitation())
                assert until(lambda ifindex=ifindex: {each for each, _ in sockets.heard()} == {ifindex})  # type: ignore[misc]
                sockets.listen()
                sockets.follow(peers.keys())


def test_the_sockets_hear_each_of_many_ports_and_rest_until_they_are_told_to_listen(topology: Topology) -> None:
    ends = range(1, 13)
    for number in ends:
        on_edge(topology, f"link add p{number} type veth peer name q{number}", f"link set p{number} up")
        on_edge(topology, f"link set q{number} up")
    indexes = {each["ifname"]: each["ifindex"] for each in topology.ip("edge", "link", "show")}
    ports = {number: indexes[f"p{number}"] for number in ends}
    wires = {number: Wire(topology, "edge", f"q{number}") for number in ends}
    with topology.inside("edge"):
        sockets = Solicitations()
    try:
        with topology.inside("edge"):
            sockets.follow({*ports.values()})
        for number, wire in wires.items():
            frame = solicitation(tags=TAGS_8021Q if number % 2 else b"")
            wire.send(frame, solicitation(hlim=2), advertisement(EDGE, ip6(OWN)))
            found: list[tuple[int, bytes]] = []

            def all_heard(found: list[tuple[int, bytes]] = found) -> bool:
                sockets.listen()
                found.extend(sockets.heard())
                return len(found) >= 2

            assert until(all_heard)
            assert {ifindex for ifindex, _ in found} == {ports[number]}  # by the shared one, too
            assert {solicited(each) for _, each in found} == {(100,) if number % 2 else (), None}
            wire.send(frame)
            assert sockets.heard() == []
            sockets.listen()
            assert until(lambda: bool(sockets.heard()))
        on_edge(topology, "link del p1")
        sockets.listen()
        with topology.inside("edge"):
            sockets.follow({*ports.values()} - {ports[1]})
        wires[2].send(solicitation())
        assert until(lambda: {ports[2]} == {ifindex for ifindex, _ in sockets.heard()})
    finally:
        sockets.close()
        for wire in wires.values():
            wire.close()
