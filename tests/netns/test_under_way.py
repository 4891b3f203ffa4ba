# SPDX-License-Identifier: GPL-2.0-or-later
"""While a reload is under way: its turns are short, all else goes on, and whatever befalls it leaves all as it was.

On 0665297 a reload was one turn of the loop, the compiler's work included, and nothing could come between: so there
only the first of these tests has something to fail by.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet6 import IPv6ExtHdrHopByHop

from npd6_xdp.core.errors import MachineError
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.processes import state_of
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from npd6_xdp.tools.control import ask
from tests.bench.turns import PROGRAM, Turns
from tests.frames import ip6
from tests.kinds import solicit
from tests.netns.wire import (
    ENDS,
    SETTING,
    Asker,
    Wire,
    configuration,
    on_edge,
    open_files_of,
    says,
    settled_files,
    until,
)

Start = Callable[..., RunningDaemon]
Holding = Callable[[str], RunningDaemon]

ROOT = Path(__file__).resolve().parents[2]
FAULTY, HELD = (Path(__file__).with_name(name) for name in ("faulty.py", "held.py"))
TARGET, OTHER = "2001:db8:1::77", "2001:db8:2::77"
OLD = ("2001:db8:1::/64 static",)
MANY = 20_000
"""Rules; the first maps have space for 16,384 lines."""
LONGEST = 0.05
"""Seconds of processor time of a turn. It was 13 ms here."""


def many(first: int, count: int, changed: str = "static") -> list[str]:
    """So many rules for /64s, one of them by another method."""
    methods = ["static"] * count
    methods[count // 2] = changed
    return [f"2001:{first:x}:{n >> 16:x}:{n & 0xFFFF:x}::/64 {method}" for n, method in enumerate(methods)]


def for_python(target: str) -> bytes:
    """A solicitation that only Python answers."""
    return solicit(replace(SETTING, target=ip6(target)), headers=[IPv6ExtHdrHopByHop()])


def test_no_turn_is_long_however_many_rules_are_changed(topology: Topology, daemon: Start) -> None:
    """On 0665297 it was 1.25 s where the maps grow, 0.43 s for one changed rule, and 86 ms for a status of so many."""
    file = topology.directory / "turns"
    turns = Turns(file)
    running = daemon(configuration(*OLD), program=(*PROGRAM, str(file)), environment={"PYTHONPATH": str(ROOT)})
    seen: dict[str, float] = {}
    with Wire(topology) as wire:
        for what, rules in {
            "the maps grow": many(0xDB9, MANY),
            "one rule changes": many(0xDB9, MANY, "ignore"),
            "all rules are others": many(0xDBA, MANY),
            "none is different": many(0xDBA, MANY),
            "they go": [],
            "and nothing follows": [],
        }.items():
            turns.begin()
            running.write(configuration(*OLD, *rules))
            assert ask(running.control, {"verb": "reload"})["rules"] == 1 + len(rules)
            assert wire.ask(for_python(TARGET)) is not None
            for _ in range(2):
                running.settle()
            seen[what] = turns.longest
            if what == "none is different":
                turns.begin()
                assert len(ask(running.control, {"verb": "status"})["rules"]) == 1 + MANY
                assert until(lambda: running.metrics() != {})
                running.settle()
                assert turns.longest < LONGEST, "the status and the metrics"
    turns.close()
    print({what: f"{1000 * took:.0f} ms" for what, took in seen.items()})
    assert max(seen.values()) < LONGEST


# --- held ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def holding(topology: Topology, daemon: Start) -> Holding:
    """Starts a daemon that is held where it loads another program."""

    def start(text: str) -> RunningDaemon:
        program = (sys.executable, str(HELD), str(topology.directory / "held"))
        return daemon(text, program=program, environment={"PYTHONPATH": str(ROOT)})

    return start


def stopped(running: RunningDaemon) -> list[int]:
    """The processes of the daemon's that are."""
    pid = running.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if state(int(child)) == "T"]


def state(pid: int) -> str:
    """A process's state; "" if it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return state_of(Path(f"/proc/{pid}"))
    return ""


@contextmanager
def held(running: RunningDaemon, rules: Sequence[str], *, more: str = "", **keys: str) -> Iterator[int]:
    """While a reload to many rules waits for its program: the process that loads it. It is let go on at the end."""
    file = running.topology.directory / "held"
    file.touch()
    running.write(configuration(*rules, *many(0xDB9, 3_000), **keys) + more)
    running.process.send_signal(signal.SIGHUP)
    assert until(lambda: bool(stopped(running)))
    (child,) = stopped(running)
    file.unlink()
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGCONT)


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_while_a_reload_is_made_ready_all_else_goes_on_and_no_change_of_the_machine_is_lost(
    topology: Topology, holding: Holding, datapath: str
) -> None:
    keys = {"datapath": f'"{datapath}"', "events_per_source": "0"}
    rules = ("2001:db8:1::/64 neighbour via=lan0", "2001:db8:2::/64 static", "2001:db8:8::/64 route via=lan9")
    on_edge(topology, "address add 2001:db8:2::99/128 dev wan0 nodad")
    running = holding(configuration("2001:db8:1::/64 neighbour via=lan0", "2001:db8:2::/64 static", **keys))
    heard: list[Any] = []
    askers = [threading.Thread(target=lambda: heard.append(ask(running.control, {"verb": "reload"}))) for _ in range(3)]
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.answered(HOST_ADDRESS, 3.0)
        assert asker.outcome("2001:db8:2::99") == "own"
        with held(running, rules, **keys):
            assert wire.ask(for_python(OTHER)) is not None
            assert asker.answered(HOST_ADDRESS, 3.0)
            assert ask(running.control, {"verb": "status"})["interfaces"][0]["up"]
            assert asker.outcome("2001:db9::1") == "unmatched", "nothing of it shows"
            on_edge(
                topology,
                "address del 2001:db8:2::99/128 dev wan0",
                "address add 2001:db8:2::98/128 dev wan0 nodad",
                "route add 2001:db8:77::/64 via 2001:db8:2::97 dev wan0 onlink",
                "neigh replace 2001:db8:1::66 lladdr 02:00:00:00:00:66 dev lan0 nud permanent",
                "link add lan9 type veth peer name lan8",
                "link set lan8 up",
                "link set lan9 up",
                "route add 2001:db8:8::/64 dev lan9",
            )
            assert asker.answered("2001:db8:1::66", 3.0), "who is there is known at once"
            for each in askers:
                each.start()
            for _ in range(20):
                running.process.send_signal(signal.SIGHUP)
            assert asker.answered(OTHER, 3.0)
            assert not heard
        for each in askers:
            each.join(120)
        assert [answer["rules"] for answer in heard] == [3 + 3_000] * 3
        assert until(lambda: "the kernel maps have grown" in running.log)
        assert until(lambda: asker.outcome("2001:db8:2::98") == "own")
        assert asker.outcome("2001:db8:2::97") == "ignored", "a next hop"
        assert asker.answered("2001:db8:2::99", 3.0), "no longer our own"
        for target in ("2001:db8:1::66", HOST_ADDRESS, "2001:db8:8::1", "2001:db9::1"):
            assert asker.answered(target, 3.0), target
        on_edge(topology, "neigh del 2001:db8:1::66 dev lan0")
        assert until(lambda: asker.outcome("2001:db8:1::66") == "pending")
    assert "Traceback" not in running.log


def test_the_end_doesnt_wait_for_a_program_that_is_loaded_nor_does_that_outlive_the_daemon(
    holding: Holding,
) -> None:
    running = holding(configuration(*OLD))
    with held(running, OLD) as child:
        running.process.terminate()
        assert running.process.wait(ENDS) == 0
        assert until(lambda: state(child) in ("", "Z"))


def test_a_program_that_became_too_small_while_it_was_loaded_is_given_up_for_a_larger_one(
    topology: Topology, holding: Holding
) -> None:
    """An interface has come meanwhile that the file has many rules for."""
    running = holding(configuration(*OLD))
    open_before = settled_files(running)
    late = configuration(*many(0xDBA, 7_000)).replace("wan0", "wan9")
    with held(running, OLD, more=late):
        on_edge(topology, "link add wan9 type veth peer name wan8", "link set wan9 up")
    assert until(lambda: "reload: the new configuration is in use" in running.log)
    with Wire(topology) as wire:
        assert Asker(wire, running).answered("2001:db9::1", 3.0)
    assert ask(running.control, {"verb": "status"})["rules"][-1]["interface"] == "wan9"
    assert until(lambda: open_files_of(running).total() <= open_before.total() + 3), "a port has three"


# --- failures -------------------------------------------------------------------------------------------------------

STAGES = (
    "npd6_xdp.daemon.loading:Loading.take=refused",
    "npd6_xdp.system.bpf.events:EventRing._open_all",
    "npd6_xdp.system.bpf.ns_filter:NsFilter.add_successor=refused",
    "npd6_xdp.system.bpf.program:Program.update_all=refused",
    "npd6_xdp.daemon.ports:Ports.admitting=refused",
    "npd6_xdp.daemon.host_routes:HostRoutes.listen=refused",
    "npd6_xdp.daemon.resolution:Resolution.apply",
    "npd6_xdp.system.bpf.ns_filter:NsFilter.switch=refused",
    "npd6_xdp.daemon.counts:Counts.apply",
)


@pytest.mark.parametrize("stage", STAGES)
def test_a_failure_at_any_stage_leaves_the_old_configuration_in_force_and_nothing_behind(
    topology: Topology, daemon: Start, stage: str
) -> None:
    left = topology.directory / "left"
    running = daemon(
        configuration(*OLD),
        program=(sys.executable, str(FAULTY), stage, str(left)),
        environment={"PYTHONPATH": str(ROOT)},
    )
    open_before = settled_files(running)
    running.write(configuration(*OLD, *many(0xDB9, 3_000)))
    left.write_text("1")
    with pytest.raises(MachineError, match=r"^the old configuration stays: "):
        ask(running.control, {"verb": "reload"})
    assert left.read_text() == "0"
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.answered(TARGET, 3.0)
        assert until(lambda: asker.outcome("2001:db9::1") == "unmatched")
        if stage.endswith("=refused"):
            assert until(lambda: open_files_of(running) == open_before), (
                "else a program of its own gets the table, soon"
            )
        assert ask(running.control, {"verb": "reload"})["rules"] == 3_001
        assert asker.answered(TARGET, 3.0)
        assert asker.answered("2001:db9::1", 3.0)
        # bcc keeps maps open that nobody here asks for; of a program that was handed over, only what is needed is
        assert until(lambda: open_files_of(running).total() <= open_before.total())


def test_who_waits_hears_so_and_who_loads_a_program_may_be_killed(topology: Topology, holding: Holding) -> None:
    running = holding(configuration(*OLD))
    open_before = settled_files(running)
    with held(running, OLD) as child, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
        waiting.settimeout(60)
        waiting.connect(str(running.control))
        waiting.sendall(b'{"verb": "reload"}\n')
        assert waiting.recv(1) == b" ", "who waits hears that the daemon is at work"
        os.kill(child, signal.SIGKILL)
        assert until(lambda: "it takes more memory to load than there is, or so it seems" in running.log)
    assert until(lambda: state(child) == "")
    assert says(running, "reload: the new configuration is in use"), "the other one's"
    with Wire(topology) as wire:
        assert Asker(wire, running).answered(TARGET, 3.0)
    assert until(lambda: open_files_of(running).total() <= open_before.total())
