# SPDX-License-Identifier: GPL-2.0-or-later
"""Hand-over: whatever ends a daemon that a service manager runs, its program answers until a successor takes over."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_MAC, HOST_ADDRESS, Topology
from tests.frames import ether
from tests.netns.handovers import (
    CONFIG,
    CONTROL,
    PINGED,
    PROXIED,
    RULES,
    WATCHED,
    hand_over,
    kill,
    lost_pings,
    make_known,
    restart,
    set_out,
)
from tests.netns.service import UnderSystemd, left
from tests.netns.test_reload import SCANNED, Stream, stream
from tests.netns.wire import Wire, configuration, on_edge, question, says, until
from tests.netns.xdp_links import handed_over

Start = Callable[..., RunningDaemon]

LATE = "RestartSec=2s\n"
HELD = "/run/npd6-xdp-held"
"""While there is such a file, no successor begins."""
HOLDING = f"ExecStartPre=/bin/sh -c 'while [ -e {HELD} ]; do sleep 0.05; done'\n"
TRIES = 5
FIRST_SCANNED = int.from_bytes(SCANNED + bytes(8)) + (1 << 32)
OTHER_MAC = "02:00:00:00:00:77"
BROKEN = CONTROL + "[metrics]\nlisten = '[2001:db8:ffff::1]:9846'\n" + configuration(*RULES)
"""With an address to listen on that this machine hasn't got: no start gets ready."""


def held(topology: Topology) -> dict[str, Any]:
    """What is left in the kernel. All multicast frames are asked for by both for a moment, which isn't told apart."""
    found = left(topology)
    return found | {"allmulti": found["allmulti"] > 0}


@contextmanager
def unchanging_so(look: Callable[[], Any], there: Any) -> Iterator[None]:
    """What is seen there is the same all the time: it is looked at more than ten times while a daemon starts."""
    done, seen = threading.Event(), []

    def watch() -> None:
        while not done.wait(0.03):
            seen.append(look())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()
    assert [each for each in seen if each != there] == []


def uncounted(topology: Topology) -> float:
    """What npd6_handover_uncounted_seconds says."""
    with closing(http.client.HTTPConnection("::1", 9846, timeout=60)) as connection:
        with topology.inside("edge"):
            connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
    (value,) = [line.split()[1] for line in page.splitlines() if line.startswith("npd6_handover_uncounted_seconds ")]
    return float(value)


def die(service: UnderSystemd) -> None:
    """Be killed, and come again after RestartSec= only: it is away now."""
    pid = service.show("MainPID")
    service.send(signal.SIGKILL)
    assert service.comes_to(MainPID=f"!{pid}", ActiveState="!active")


def back(service: UnderSystemd) -> None:
    assert service.comes_to(ActiveState="active")


# --- nobody is left unanswered ---------------------------------------------------------------------------------


@pytest.mark.needs_table
@pytest.mark.parametrize(
    ("ways", "drop_in"), [(("restart", "kill", "restart", "kill"), ""), (("hang",), WATCHED)], ids=["ended", "hangs"]
)
def test_none_is_unanswered_by_any_method_and_no_ping_is_lost_while_one_daemon_follows_another(
    topology: Topology, ways: Sequence[str], drop_in: str
) -> None:
    """`python -m tests.netns.handovers` does the same twenty times over, at ten times the rate."""
    set_out(topology)
    before = left(topology)
    with UnderSystemd(topology, CONFIG, drop_in) as service:
        found = hand_over(topology, service, ways, per_second=2_000)
        assert (found.unequal(), found.lost_pings) == ({}, 0)
        assert until(lambda: service.log.count("taken over at tc ingress") >= len(ways))
        assert service.stop() == 0
        assert left(topology) == before
        assert service.comes_to(NFileDescriptorStore="0")


@pytest.mark.parametrize(
    ("attach", "words"),
    [("native", "XDP taken over (native mode)"), ("tc", "taken over at tc ingress")],
    ids=["native", "tc"],
)
def test_none_is_unanswered_in_native_mode_and_by_tc(topology: Topology, attach: str, words: str) -> None:
    if attach == "native":
        topology.xdp_pass("upstream", "eth0")  # veth's condition for what the other end sends in that mode
    before = left(topology)
    with UnderSystemd(topology, CONTROL + configuration(attach=f'"{attach}"')) as service:
        with stream(topology, 2_000) as asked:
            for how in (restart, kill):
                with handed_over(topology):
                    how(service)
        assert asked.all_answered_once()
        assert service.says(words, 2)
        assert service.stop() == 0
        assert left(topology) == before


def unanswered(asked: Stream, first: int, end: int) -> list[int]:
    """Which of a stream's questions, by number, haven't been answered so far."""
    return [number for number in range(first, end) if (FIRST_SCANNED + number).to_bytes(16) not in asked.answered]


def test_where_python_answers_only_what_comes_while_it_is_away_is_unanswered(topology: Topology) -> None:
    config = CONTROL + configuration("2001:db8:1::/64 static", datapath='"python"', events_per_source="0")
    unread: list[range] = []
    with UnderSystemd(topology, config) as service:
        with stream(topology, 1_000, unanswered=True) as asked:
            for how in (restart, kill):
                sent = asked.sent
                first = min(unanswered(asked, unread[-1].stop if unread else 0, sent), default=sent)
                with handed_over(topology):
                    how(service)
                unread.append(range(first, asked.sent + 1))  # no reader was there for longer than this
                answers = asked.answers
                assert until(lambda answers=answers: asked.answers > answers + 500)  # type: ignore[misc]
        assert service.stop() == 0
    assert asked.answers == len(asked.answered), "none is answered a second time"
    last = max(int.from_bytes(target) for target in asked.answered) - FIRST_SCANNED  # behind it: on its way at the end
    missed = unanswered(asked, 0, last)
    print(f"{len(missed)} unanswered of {[len(each) for each in unread]} asked while there was no reader")
    assert [number for number in missed if not any(number in each for each in unread)] == [], "and not one more"
    # in one piece each time; where it begins and ends, what came by another processor may be a few frames ahead
    ends = [number for number, after in zip(missed, [*missed[1:], last], strict=True) if after - number > 100]
    assert len(ends) <= 2


# --- what stays, and what goes ---------------------------------------------------------------------------------


@pytest.mark.needs_table
def test_what_it_has_left_in_the_kernel_stays_for_a_successor_and_goes_if_there_is_none(topology: Topology) -> None:
    set_out(topology)
    before = left(topology)
    with UnderSystemd(topology, CONFIG, LATE) as service, Wire(topology) as wire:
        assert uncounted(topology) == 0.0, "there was none before"
        make_known(topology, wire)
        there = held(topology)
        assert (there["routes"], there["proxies"]) == ([PINGED], [PROXIED])
        for how, least in ((restart, 0.0), (kill, 2.0)):
            with unchanging_so(lambda: held(topology), there):
                how(service)
            assert uncounted(topology) > least
        kept = service.show("NFileDescriptorStore")
        restart(service)
        assert service.show("NFileDescriptorStore") == kept, "nothing gathers there"
        assert service.stop() == 0
        assert left(topology) == before
        assert service.comes_to(NFileDescriptorStore="0")


@pytest.mark.needs_table
@pytest.mark.parametrize(
    ("drop_in", "states"),
    [
        ("", ("auto-restart", "start-pre", "start")),
        (LATE, ("auto-restart",)),
        ("ExecStopPost=/bin/sleep 2\n", ("stop-post",)),
    ],
    ids=["at once", "while systemd waits", "once it is decided"],
)
def test_all_of_it_goes_with_a_stop_right_behind_a_crash(
    topology: Topology, drop_in: str, states: tuple[str, ...]
) -> None:
    """Before another process has begun, systemd has nothing of the unit's run at a stop."""
    set_out(topology)
    before = left(topology)
    with UnderSystemd(topology, CONFIG, drop_in) as service, Wire(topology) as wire:

        def is_caught_after_a_crash() -> bool:
            """Whether it is between two processes now: a machine that is busy may be too late to see that."""
            make_known(topology, wire)
            said, pid = service.enter("cat", "/run/npd6-xdp.next").stdout, service.show("MainPID")
            service.send(signal.SIGKILL)
            found: list[str] = []

            def is_seen() -> bool:
                found[:] = [service.show("SubState")]
                if found == ["running"]:
                    return service.show("MainPID") not in ("0", pid)
                return found[0] in states and service.enter("cat", "/run/npd6-xdp.next").stdout not in ("", said)

            assert until(is_seen)
            return found != ["running"]

        for _ in range(2):
            assert any(is_caught_after_a_crash() for _ in range(TRIES))
            service.stop()
            assert service.comes_to(ActiveState="inactive|failed", NFileDescriptorStore="0")
            assert until(lambda: left(topology) == before)
            assert service.systemctl("start", "npd6-xdp").returncode == 0


@pytest.mark.needs_table
def test_all_of_it_goes_with_a_configuration_that_cant_be_used(topology: Topology) -> None:
    set_out(topology)
    before = left(topology)
    with UnderSystemd(topology, CONFIG) as service, Wire(topology) as wire:
        make_known(topology, wire)
        service.configure("a mistake")
        assert service.systemctl("restart", "npd6-xdp").returncode == 1
        assert (service.show("ActiveState"), service.show("NRestarts")) == ("failed", "0")
        assert service.comes_to(NFileDescriptorStore="0")
        assert left(topology) == before
        # nor does a crash bring it back
        service.configure(CONFIG)
        assert service.systemctl("start", "npd6-xdp").returncode == 0
        make_known(topology, wire)
        service.configure("a mistake")
        service.send(signal.SIGKILL)
        assert service.comes_to(ActiveState="failed")
        assert service.comes_to(NFileDescriptorStore="0")
        assert left(topology) == before


@pytest.mark.needs_table
def test_after_three_starts_that_come_to_nothing_nobody_answers_by_an_old_table(topology: Topology) -> None:
    set_out(topology)
    before = left(topology)
    with UnderSystemd(topology, CONFIG) as service, Wire(topology) as wire:
        make_known(topology, wire)
        service.configure(BROKEN)
        service.send(signal.SIGKILL)
        for failed in range(1, 4):
            assert until(lambda failed=failed: service.log.count("2001:db8:ffff::1") >= failed, 20.0)  # type: ignore[misc]
            # two seconds: the next start alone waits for as long before it begins
            if failed < 3 and wire.ask(question("2001:db8:3::7"), 2.0) is None:
                assert "3 starts in a row didn't get ready" in service.log, f"{failed} failed, and no more"
        assert until(lambda: "3 starts in a row didn't get ready" in service.log, 20.0)
        assert until(lambda: left(topology) == before)
        assert service.comes_to(NFileDescriptorStore="0")
        assert wire.ask(question("2001:db8:3::7"), 0.1) is None
        service.configure(CONFIG)
        back(service)
        assert wire.ask(question("2001:db8:3::7")) is not None
        # and the row is over
        said = service.log.count("didn't get ready")
        kill(service)
        assert service.log.count("didn't get ready") == said
        assert until(lambda: "taken over" in service.log)
        # a stop between two such starts
        make_known(topology, wire)
        service.configure(BROKEN)
        service.send(signal.SIGKILL)
        assert service.comes_to(SubState="start-pre")
        service.stop()
        assert service.comes_to(NFileDescriptorStore="0")
        assert left(topology) == before


@pytest.mark.needs_table
def test_beside_another_daemon_it_takes_back_what_nobody_could_tell_from_the_others(
    topology: Topology, daemon: Start
) -> None:
    """And `npd6-xdp clean` leaves that alone. Without another, it stays until then."""
    before = left(topology)
    other = configuration("2001:db8:9::/64 static").replace("wan0", "lan0")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager, Wire(topology) as wire:
        manager.bind(str(topology.directory / "notify"))
        reader = threading.Thread(target=lambda: [*iter(lambda: manager.recv(4096), b"")])
        reader.start()
        environment = {"NOTIFY_SOCKET": str(topology.directory / "notify"), "FDSTORE": "64"}
        try:
            for alone in (False, True):
                first = daemon(configuration("2001:db8:2::/64 kernel"), environment=environment)
                assert wire.ask(question(PROXIED)) is not None
                assert until(lambda: left(topology)["proxies"] == [PROXIED])
                beside = None if alone else daemon("[metrics]\nlisten = ''\n" + other)
                if beside is not None:
                    said = beside.command("clean")
                    assert said.stdout.startswith("npd6-xdp: taken away: host routes 0, proxy entries 0;")
                    assert "host routes and proxy entries are left to another daemon (pid " in said.stderr
                    assert left(topology)["proxies"] == [PROXIED]
                first.stop()
                assert left(topology)["proxies"] == ([PROXIED] if alone else [])
                if beside is not None:
                    beside.stop()
        finally:
            manager.shutdown(socket.SHUT_RDWR)
            reader.join()
        said = first.command("clean")
        assert (said.stdout, said.stderr) == (
            "npd6-xdp: taken away: host routes 0, proxy entries 1; put back: sysctls 3\n",
            "",
        )
        assert left(topology) == before


def test_what_a_busy_manager_didnt_hear_at_the_start_he_hears_later(topology: Topology, daemon: Start) -> None:
    """As of a systemd in a long daemon-reload: it answers meanwhile, and says so."""
    before, path = left(topology), str(topology.directory / "notify")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager, Wire(topology) as wire:
        manager.bind(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, suppress(BlockingIOError):
            other.setblocking(False)
            while True:
                other.sendto(b"BUSY=1", path)
        running = daemon(configuration("2001:db8:3::/64 static"), environment={"NOTIFY_SOCKET": path, "FDSTORE": "64"})
        assert says(running, "the service manager is too busy to hear ")
        assert wire.ask(question("2001:db8:3::42")) is not None
        manager.setblocking(False)
        heard: list[tuple[str, int]] = []
        states: set[str] = set()

        def has_heard_all() -> bool:
            # what it speaks of is there to be read by then
            is_said = "the service manager has heard all that our successor needs" in running.log
            with suppress(BlockingIOError):
                while True:
                    message, fds, _, _ = socket.recv_fds(manager, 4096, 8)
                    for fd in fds:
                        os.close(fd)
                    states.add(message.decode().partition("\n")[0])
                    heard.append((message.decode().rpartition("=")[2][:1], len(fds)))
            return is_said

        assert until(lambda: has_heard_all() and "READY=1" in states)
        assert {("l", 1), ("s", 1)} <= {*heard}, "a link, and a socket"
        running.stop()
        running.command("clean")
    assert until(lambda: left(topology) == before)


# --- what has changed in between -------------------------------------------------------------------------------


def test_another_mac_address_and_another_route_are_followed_by_the_successor(topology: Topology) -> None:
    config = CONTROL + configuration("2001:db8:3::/64 static", "2001:db8:4::/64 route via=lan0")
    with UnderSystemd(topology, config, LATE + HOLDING) as service, Wire(topology) as wire:

        def changes_while_it_is_away(change: str) -> None:
            assert service.enter("touch", HELD).returncode == 0
            die(service)
            on_edge(topology, change)
            assert service.enter("rm", HELD).returncode == 0
            back(service)

        for change in (f"link set wan0 address {OTHER_MAC}", f"link set wan0 address {EDGE_WAN_MAC}"):
            changes_while_it_is_away(change)
            assert _advertised(wire, "2001:db8:3::7") == ether(change.split()[-1])
        assert service.says("a predecessor's program is taken off wan0: another MAC address since then", 2)
        # one that comes while it is at work is no reason
        on_edge(topology, f"link set wan0 address {OTHER_MAC}")
        assert until(lambda: _advertised(wire, "2001:db8:3::7") == ether(OTHER_MAC))
        assert wire.ask(question("2001:db8:4::7"), 0.1) is None
        changes_while_it_is_away("route add 2001:db8:4::/64 dev lan0")
        assert wire.ask(question("2001:db8:4::7")) is not None
        assert service.says("taken over at tc ingress", 1)


def _advertised(wire: Wire, target: str) -> bytes:
    """The MAC address that an answer gives."""
    frame = wire.ask(question(target))
    assert frame is not None
    return NeighborAdvertisement.parse(frame).link_layer_address


def test_a_port_that_is_none_any_more_is_let_go_of_and_a_new_one_is_attached(topology: Topology) -> None:
    with UnderSystemd(topology, CONTROL + configuration("2001:db8:3::/64 static")) as service:
        service.configure(CONTROL + configuration("2001:db8:3::/64 static").replace("wan0", "lan0"))
        restart(service)
        assert (topology.attach_mode("edge", "wan0"), topology.attach_mode("edge", "lan0")) == (None, "tc")
        assert left(topology)["allmulti"] == 0
        assert service.says("a predecessor's program is taken off wan0: no port of this configuration")
        # and so it is by a reload, though the store holds it
        kept = service.show("NFileDescriptorStore")
        for name, other in (("wan0", "lan0"), ("lan0", "wan0")):
            service.configure(CONTROL + configuration("2001:db8:3::/64 static").replace("wan0", name))
            assert service.reload().returncode == 0
            assert (topology.attach_mode("edge", name), topology.attach_mode("edge", other)) == ("tc", None)
            assert service.show("NFileDescriptorStore") == kept


def test_a_port_that_refuses_takes_no_other_ports_program_off(topology: Topology) -> None:
    """It is tried again instead, where it would end a start that inherits nothing."""
    both = CONTROL + configuration() + configuration(attach='"generic"').replace("wan0", "lan0")
    with UnderSystemd(topology, CONTROL + configuration()) as service:
        topology.xdp_pass("edge", "lan0")
        service.configure(both)
        with stream(topology, 1_000) as asked:
            for how in (kill, restart):
                how(service)
                assert until(lambda: "lan0: another XDP program is attached" in service.log)
        assert asked.all_answered_once()
        assert service.says("wan0: taken over", 2)
        topology.xdp_pass_end()
        assert until(lambda: "lan0: XDP attached (generic mode)" in service.log)


@pytest.mark.parametrize("start", ["/bin/false", '/bin/sh -c "kill -9 $$$$"'], ids=["broken", "killed"])
def test_starts_that_cant_even_be_counted_end_it(topology: Topology, start: str) -> None:
    """A Python that is broken, half of a package, or somebody who kills each early."""
    before = left(topology)
    with UnderSystemd(topology, CONTROL + configuration("2001:db8:2::/64 kernel")) as service, Wire(topology) as wire:
        assert wire.ask(question(PROXIED)) is not None
        broken = f"[Service]\nExecStart=\nExecStart={start}\n"
        place = "/run/systemd/system/npd6-xdp.service.d"
        words = f"mkdir {place} && printf '{broken}' >{place}/broken.conf && systemctl daemon-reload"
        assert service.enter("sh", "-c", words).returncode == 0
        service.send(signal.SIGKILL)
        assert service.comes_to(ActiveState="failed|inactive")
        assert until(lambda: "4 starts in a row ended too early" in service.log)
        assert left(topology) == before
        assert service.comes_to(NFileDescriptorStore="0")


# --- a program whose process is dead ---------------------------------------------------------------------------


def test_what_needs_python_is_dropped_while_its_process_is_dead_and_the_rest_answered(topology: Topology) -> None:
    """The kernel has no answer for it either; and a flood is to reach the stack no more than while it lives.

    As XDP, which is before the taps.
    """
    config = CONFIG.replace('name = "wan0"', 'name = "wan0"\nattach = "generic"')
    with UnderSystemd(topology, config, "RestartSec=1h\n") as service, Wire(topology) as wire:
        assert wire.ask(question(HOST_ADDRESS)) is not None
        assert wire.ask(question(HOST_ADDRESS)) is not None, "by XDP, from the second on"
        die(service)
        assert wire.ask(question("2001:db8:3::7")) is not None
        assert wire.ask(question(HOST_ADDRESS)) is not None
        with Wire(topology, "edge", "wan0") as passed:
            unknown, nobodys = question("2001:db8:1::77"), question("2001:db8:9::77")
            wire.send(*[unknown] * 20, *[nobodys] * 20)
            found: Counter[bytes] = Counter()
            assert until(lambda: bool(found.update(passed.received(0.1))) or found[nobodys] == 20)
            assert found[unknown] == 0
        assert wire.ask(unknown, 0.1) is None


def test_a_ping_without_a_reply_is_seen_wherever_it_is_but_for_the_last_which_may_be_on_its_way() -> None:
    reply = "64 bytes from 2001:db8:5::9: icmp_seq={} ttl=63 time=0.05 ms\n"
    end = "\n--- 2001:db8:5::9 ping statistics ---\n{} packets transmitted, {} received, 0% packet loss, time 40ms\n"
    for heard, lost in (((1, 2, 3), 0), ((1, 2), 0), ((1, 3), 1), ((2, 3), 1), ((1,), 1), ((), 2)):
        said = "".join(map(reply.format, heard)) + end.format(3, len(heard))
        assert lost_pings(said) == lost, heard
