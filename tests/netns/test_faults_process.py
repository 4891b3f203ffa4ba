# SPDX-License-Identifier: GPL-2.0-or-later
"""What befalls the process: stopped, killed at every place, namespaces deleted, another clock, storms of signals."""

from __future__ import annotations

import math
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.core.live import Known
from npd6_xdp.core.verdict import Limit
from npd6_xdp.lab.daemon import PROGRAM, RunningDaemon, StartError
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from npd6_xdp.tools.control import ask
from tests.frames import ip6
from tests.netns.served import served_first
from tests.netns.service import left
from tests.netns.sleeper import Sleeper
from tests.netns.test_announcements import announced
from tests.netns.test_roles import ADDRESS
from tests.netns.wire import (
    LATE,
    Asker,
    Wire,
    configuration,
    cpu_seconds,
    each_counted,
    flood,
    on_edge,
    question,
    scan,
    solicitations_sent,
    standing_still,
    until,
)

Start = Callable[..., RunningDaemon]

KILLED = Path(__file__).with_name("killed.py")
ROOT = Path(__file__).resolve().parents[2]
RULES = (
    "2001:db8:1::/64 neighbour via=lan0 host_routes=true",
    "2001:db8:2::/64 kernel",
    "2001:db8:3::/64 static",
    "2001:db8:4::/64 route",
)
PROXIED = "2001:db8:2::7"


def status(running: RunningDaemon) -> dict[str, Any]:
    return ask(running.control, {"verb": "status"})


def metric(running: RunningDaemon, name: str, **labels: str) -> float:
    return running.metrics()[name, frozenset(labels.items())]


# --- stopped -------------------------------------------------------------------------------------------------------

STOPPED = 10.0  # seconds: as long as it takes until /healthz would call the loop hung


def test_after_ten_stopped_seconds_all_is_counted_and_the_machine_is_as_it_is_by_then(
    topology: Topology, daemon: Start
) -> None:
    """More come than its rings hold, and everything changes meanwhile. (On 0665297 it held already.)"""
    on_edge(topology, "route add 2001:db8:4::/64 dev lan0")
    running = daemon(configuration(*RULES, datapath='"python"', events_per_source="0"))
    with Wire(topology) as wire, solicitations_sent(topology) as sent:
        asker = Asker(wire, running)
        assert wire.ask(question("2001:db8:4::1")) is not None
        is_each_counted = each_counted(sent, running)
        with standing_still(running):
            began = time.monotonic()
            with Wire(topology) as sender:
                sender.deafen()
                for number in range(30):  # python: a ring of 256 pages holds 16,384 of them
                    sender.send(*scan(1_000, "2001:db8:3::", first=(number + 1) << 32))
                    sender.send(*scan(200, f"2001:db8:{number % 2 + 1}::", first=(number + 1) << 32))
                    sent()  # drained all along
            on_edge(
                topology,
                "address add 2001:db8:3::99/128 dev wan0 nodad",
                "link set lan0 down",
                "link set lan0 up",
                "address replace 2001:db8:1::1/64 dev lan0 nodad",
                "route replace blackhole 2001:db8:4::/64",
            )
            batch = topology.directory / "batch"  # announcements that nobody reads
            lines = (
                f"neigh replace 2001:db8:1::{n % 40 + 0x1000:x} lladdr 02:00:00:00:01:{n % 251:02x} dev lan0\n"
                for n in range(4_000)
            )
            batch.write_text("".join(lines))
            on_edge(topology, f"-6 -batch {batch}")
            time.sleep(max(0.0, began + STOPPED - time.monotonic()))
        assert until(is_each_counted, 10.0), "each is counted once"
        assert until(lambda: asker.outcome("2001:db8:3::99") == "own")
        assert until(lambda: asker.outcome("2001:db8:4::1") == "absent")
        assert asker.outcome("2001:db8:3::1") == "answered_python"
        assert until(lambda: wire.ask(question(HOST_ADDRESS), 3.0) is not None)
    assert status(running)["interfaces"][0]["up"]
    assert "Traceback" not in running.log
    assert running.stop() == 0


# --- killed --------------------------------------------------------------------------------------------------------

STARTING = (
    "<npd6_xdp.system.sysctl:Memory.write",
    ">npd6_xdp.system.sysctl:Memory.write",
    ">npd6_xdp.system.sysctl:Sysctls.set",
    "<npd6_xdp.system.bpf.program:Program.apply",
    ">npd6_xdp.daemon.port_groups:PortGroups.follow",
    "<npd6_xdp.daemon:Daemon.run",
)
RELOADING = (
    "<npd6_xdp.system.sysctl:Sysctls.put_back",
    "<npd6_xdp.system.bpf.program:Program.apply",
    ">npd6_xdp.system.bpf.program:Program.apply",
)
GROWING = (
    ">npd6_xdp.daemon.loading:Loading.__init__",
    ">npd6_xdp.system.bpf.ns_filter:NsFilter.add_successor",
    "<npd6_xdp.system.bpf.ns_filter:NsFilter.switch",
    ">npd6_xdp.system.bpf.ns_filter:NsFilter.switch",
    "<npd6_xdp.system.bpf.ns_filter:NsFilter.retiring",
)


class Deadly:
    """A topology in which daemons are killed, one after the other; what is left of them is for the next."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.before = left(topology)
        self.pids: list[int] = []
        self.armed = topology.directory / "armed"

    def daemon(self, place: str) -> RunningDaemon:
        program = (sys.executable, str(KILLED), place, str(self.armed))
        return RunningDaemon(
            self.topology, configuration(*RULES), program=program, environment={"PYTHONPATH": str(ROOT)}, timeout=60.0
        )

    def killed(self, running: RunningDaemon) -> None:
        """The kernel has taken back what is a process's: nothing is attached, nothing is subscribed to."""
        assert running.process.wait(180) == -signal.SIGKILL, running.log
        self.armed.unlink()
        self.pids.append(running.process.pid)
        found = left(self.topology)
        assert (found["xdp"], found["tc"], found["allmulti"]) == (False, 0, 0)
        assert packet_sockets(self.topology) == []

    def start(self) -> None:
        """A start as ever: it works by all methods, and knows what is left."""
        with RunningDaemon(self.topology, configuration(*RULES)) as running:
            use(self.topology, running)
            assert running.stop() == 0
        assert left(self.topology) == self.before
        for pid in self.pids:
            assert list(Path("/run/npd6-xdp").glob(f"sysctl-*-{pid}-*")) == []


def packet_sockets(topology: Topology) -> list[str]:
    """Those of the edge: each membership of ours, in a group or in all of them, is one's."""
    return topology.run("edge", "cat", "/proc/net/packet").stdout.splitlines()[1:]


def use(topology: Topology, running: RunningDaemon) -> None:
    """Have it add a host route and a proxy entry, and answer."""
    with Wire(topology) as wire:
        assert until(lambda: wire.ask(question(HOST_ADDRESS), 3.0) is not None)
        assert wire.ask(question(PROXIED)) is not None
        assert wire.ask(question("2001:db8:3::7")) is not None
    assert until(lambda: left(topology)["proxies"] == [PROXIED])
    assert until(lambda: left(topology)["routes"] == [HOST_ADDRESS])


@pytest.fixture
def deadly(topology: Topology) -> Deadly:
    return Deadly(topology)


def test_killed_anywhere_during_the_start_it_leaves_nothing_that_the_next_start_does_not_take(deadly: Deadly) -> None:
    """(On 0665297 it held already.)"""
    with RunningDaemon(
        deadly.topology, configuration(*RULES), timeout=60.0
    ) as first:  # so that there is something to inherit
        use(deadly.topology, first)
        first.kill()
        deadly.pids.append(first.process.pid)
    for place in STARTING:
        deadly.armed.touch()
        running = deadly.daemon(place)
        with suppress(StartError):  # who dies behind "ready" is one that has started
            running.__enter__()
        deadly.killed(running)
    deadly.start()


@pytest.mark.parametrize("moment", ["reload", "growth"])
def test_killed_during_a_reload_or_while_the_maps_grow_it_leaves_nothing_either(deadly: Deadly, moment: str) -> None:
    """(On 0665297 it held already.)"""
    for place in RELOADING if moment == "reload" else GROWING:
        running = deadly.daemon(place)
        with running:
            use(deadly.topology, running)
            more = 3_000 if moment == "growth" else 3
            rules = [f"2001:db8:{0x1000 + number:x}::/64 static" for number in range(more)]
            running.write(configuration(*rules, *(rule for rule in RULES if "kernel" not in rule)))
            deadly.armed.touch()
            running.process.send_signal(signal.SIGHUP)
            deadly.killed(running)
    deadly.start()


# --- the namespace deleted -------------------------------------------------------------------------------------------


def test_a_namespace_that_is_deleted_under_it_goes_with_it_and_it_works_until_then(
    topology: Topology, daemon: Start
) -> None:
    """The name goes at once, the namespace with its last process. (On 0665297 it held already.)"""
    running = daemon(configuration(*RULES))
    with Wire(topology) as wire:
        use(topology, running)
        subprocess.run(["ip", "netns", "delete", topology.name("edge")], check=True)
        assert wire.ask(question("2001:db8:3::1")) is not None
        running.write(configuration("2001:db8:5::/64 static"))
        assert ask(running.control, {"verb": "reload"})
        assert wire.ask(question("2001:db8:3::1"), 0.3) is None
        assert wire.ask(question("2001:db8:5::1")) is not None
    assert "Traceback" not in running.log
    assert running.stop() == 0
    assert until(lambda: topology.run("upstream", "ip", "link", "show", "dev", "eth0").returncode != 0), "it is gone"


def test_the_upstreams_namespace_deleted_takes_the_port_along_and_nothing_else(
    topology: Topology, daemon: Start
) -> None:
    """And a port of that name that comes back is answered on. (On 0665297 it held already.)"""
    running = daemon(configuration(*RULES))
    use(topology, running)
    subprocess.run(["ip", "netns", "delete", topology.name("upstream")], check=True)
    assert until(lambda: "the interface is gone" in running.log)
    subprocess.run(["ip", "netns", "add", topology.name("upstream")], check=True)
    peer = topology.name("upstream")
    on_edge(topology, f"link add wan0 type veth peer name eth0 netns {peer}", "link set wan0 up")
    topology.run("upstream", "ip", "link", "set", "eth0", "address", "02:00:00:00:00:01", "up", check=True)
    mac = topology.ip("edge", "link", "show", "dev", "wan0")[0]["address"]
    with Wire(topology) as wire:
        frame = question("2001:db8:3::1")
        assert until(lambda: wire.ask(frame, 0.5) is not None, 10.0), mac
    assert "Traceback" not in running.log
    assert running.stop() == 0


# --- another clock ---------------------------------------------------------------------------------------------------


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


in_each = pytest.mark.parametrize("datapath", ["hybrid", "python"])
by_each = pytest.mark.parametrize("clock", ["ahead", "behind"])


def elsewhen(clock: str) -> tuple[str, ...]:
    """The program, in a time namespace whose monotonic clock isn't the machine's."""
    shift = 100_000 if clock == "ahead" else -int(_uptime() / 2)
    return ("unshare", "--time", "--monotonic", str(shift), *PROGRAM)


@in_each
@by_each
def test_in_a_time_namespace_ages_and_latencies_are_by_the_machines_clock(
    topology: Topology, daemon: Start, clock: str, datapath: str
) -> None:
    """bpf_ktime_get_ns() knows no time namespace. (On 0665297 proxy entries went at once, or never.)"""
    text = "[limits]\nkernel_entry_age = 2\n" + configuration(
        *RULES, datapath=f'"{datapath}"', collect_targets="10", events_per_source="500"
    )
    running = daemon(text, program=elsewhen(clock))
    asked = 200
    with Wire(topology) as wire:
        use(topology, running)
        for frame in scan(asked, "2001:db8:3::"):
            assert wire.ask(frame) is not None
        began = time.monotonic()
        # a flood beside, as a slow look would keep us from asking in time
        with flood(topology, repeat(question(PROXIED)), 20) as asking:
            while time.monotonic() - began < 3.5:  # what is asked for stays
                assert wire.ask(question(PROXIED)) is not None
                assert left(topology)["proxies"] == [PROXIED] or asking.longest_pause > 1.0
                time.sleep(0.1)
    assert until(lambda: left(topology)["proxies"] == []), "and goes when nobody does any more"
    recent = status(running)["targets"]
    assert recent
    assert all(abs(time.time() - target["last"]) < 600 for target in recent)
    count = metric(running, "npd6_answer_seconds_count", path="python")
    assert count >= (asked if datapath == "python" else 1)
    mean = metric(running, "npd6_answer_seconds_sum", path="python") / count
    assert 0 < mean < 10, "an address that is resolved takes a while, and no more"
    assert metric(running, "npd6_answer_seconds_bucket", path="python", le="+Inf") == count
    if datapath == "python":  # else it is the resolved one alone, and there is no most of it
        assert metric(running, "npd6_answer_seconds_bucket", path="python", le="1.0") >= 0.9 * count
    assert math.isclose(metric(running, "npd6_interface_up", interface="wan0"), 1.0)
    assert running.stop() == 0


PACE = 40  # a second, and as many at once


@in_each
@by_each
def test_in_a_time_namespace_each_budget_is_full_again_after_a_second_and_explain_sees_that(
    topology: Topology, daemon: Start, clock: str, datapath: str
) -> None:
    """Of events of one source and of new targets. In hybrid, the first for each target of method kernel is Python's."""
    keys = {"events_per_source": str(PACE), "new_targets_per_second": str(PACE), "datapath": f'"{datapath}"'}
    running = daemon(configuration(*RULES, **keys), program=elsewhen(clock))
    new = [*scan(4 * PACE, "2001:db8:3::"), *scan(4 * PACE, "2001:db8:2::")]
    unasked = {"verb": "explain", "interface": "wan0", "target": "2001:db8:3::9", "vlan": None, "source": None}

    def is_used_up() -> bool:
        (entry,) = ask(running.control, unasked)["entries"]
        return Limit.NEW_TARGET in Known.parse(entry).refuses

    with Wire(topology) as wire:
        for first in range(0, 4 * PACE, PACE // 2):
            time.sleep(1.1)
            assert not is_used_up()
            some = new[first : first + PACE // 2] + new[4 * PACE + first : 4 * PACE + first + PACE // 2]
            wire.send(*some)
            answered = wire.advertisements(LATE, enough=len(some))
            assert len(answered) == len(some), "no limit stops what is within it"
            if first == 0:
                by = running.solicitations()
                assert by["answered_python"] == (PACE if datapath == "python" else PACE // 2)
        before = running.solicitations().get("rate_limited", 0)

        def beyond() -> bool:
            """A machine that is slow may let some of them be paid for, or all."""
            wire.send(*scan(20 * PACE, "2001:db8:3::", first=time.monotonic_ns()))
            return is_used_up()

        assert until(beyond)
        assert running.solicitations()["rate_limited"] > before == 0
        time.sleep(1.1)
        assert until(lambda: not is_used_up())
    assert running.stop() == 0


@by_each
def test_in_a_time_namespace_a_standby_waits_until_who_asks_has_had_an_answer_or_given_up(
    topology: Topology, daemon: Start, clock: str
) -> None:
    """That is, by the machine's clock: then it remembers the target, and announces it when it takes over."""
    text = configuration("2001:db8:1::/64 neighbour via=lan0", active_with=f'"{ADDRESS}"')
    running = daemon(text, program=elsewhen(clock))

    def remembered() -> float:
        return metric(running, "npd6_table_entries", table="remembered_targets")

    with Wire(topology) as wire:
        with flood(topology, repeat(question(HOST_ADDRESS)), 20):
            began = time.monotonic()
            while time.monotonic() - began < 3.5:  # a look each second
                assert remembered() == 0, "it is asked for still"
                time.sleep(0.1)
        assert until(lambda: remembered() == 1, 10.0)
        on_edge(topology, f"address add {ADDRESS}/32 dev lo")
        (one,) = announced(wire, 1)
        assert one.target == ip6(HOST_ADDRESS)
    assert running.stop() == 0


# --- a storm of signals ----------------------------------------------------------------------------------------------


@contextmanager
def storm(running: RunningDaemon, number: signal.Signals, times: int, seconds: float) -> Iterator[None]:
    """So many signals, evenly over so many seconds."""
    began = time.monotonic()
    for sent in range(times):
        running.process.send_signal(number)
        while time.monotonic() - began < seconds * sent / times:
            time.sleep(0.0002)
    yield


def ended_children() -> float:
    """The processor time in seconds that those have taken for whose end this process has waited."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ending(running: RunningDaemon) -> tuple[float, float]:
    """End a daemon by SIGTERM: the processor time that it took, and how long that was by the clock, both in seconds."""
    others, before, began = ended_children(), cpu_seconds(running), time.monotonic()
    assert running.stop() == 0
    took = time.monotonic() - began
    return ended_children() - others - before, took


@pytest.mark.exec  # its time is read as a child's of this process
@pytest.mark.parametrize("rules", [3, 2000])
def test_three_thousand_sighups_in_a_second_and_sigterm_ends_it_within_another(
    topology: Topology, daemon: Start, rules: int
) -> None:
    """It took 5.9 s on 0665297, and more the more rules there are: with 2,000 more than 60 s, and with 3 it held."""
    more = [f"2001:db8:{0x1000 + number:x}::/64 static" for number in range(rules)]
    with served_first(), Sleeper() as sleeper:
        running = daemon(configuration(*more, *RULES))
        use(topology, running)
        with storm(running, signal.SIGHUP, 3_000, 1.0):
            began = time.monotonic()
            worked, took = ending(running)
            late = sleeper.worst(began, 2)
    reloads = running.log.count("the new configuration is in use")
    print(f"ended in {took:.2f} s, at work for {worked:.2f}; the machine was late by {late:.2f} s; {reloads} reloads")
    assert worked <= 1.0
    assert took <= 1.0 + late
    assert "Traceback" not in running.log
    assert 1 <= reloads < 300, "who asks while one runs asks for the next"


def test_after_a_storm_of_signals_it_goes_on_as_if_there_had_been_one(topology: Topology, daemon: Start) -> None:
    """(On 0665297 it held already.)"""
    running = daemon(configuration(*RULES))
    with storm(running, signal.SIGHUP, 1_500, 0.5), storm(running, signal.SIGUSR1, 1_500, 0.5):
        running.write(configuration("2001:db8:5::/64 static"))
        running.process.send_signal(signal.SIGHUP)
    with Wire(topology) as wire:
        assert until(lambda: wire.ask(question("2001:db8:5::1"), 0.2) is not None)
        assert wire.ask(question("2001:db8:3::1"), 0.2) is None
    assert "Traceback" not in running.log
    assert running.stop() == 0
