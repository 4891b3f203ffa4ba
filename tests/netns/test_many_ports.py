# SPDX-License-Identifier: GPL-2.0-or-later
"""More ports than most have, or fewer descriptors: sockets, log, end. tests/bench/many_ports.py has thousands."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from npd6_xdp.daemon.attaching import MOST_BY_AUTO
from npd6_xdp.lab.daemon import RunningDaemon, StartError
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.bpf.others import tc_programs
from tests.bench.many_ports import CONFIGURATION, Asker, make
from tests.netns.sleeper import Sleeper
from tests.netns.verb import verb
from tests.netns.wire import Wire, configuration, question, until

Start = Callable[..., RunningDaemon]

COUNT = 600
FEW = 40
CPUS = os.cpu_count() or 1


def limited(soft: int, hard: int) -> tuple[str, ...]:
    """The program with so many open files."""
    words = f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"'
    return "bash", "-c", words, "-", sys.executable, "-m", "npd6_xdp"


def left(topology: Topology) -> list[str]:
    """The interfaces on which something of ours is."""
    links = topology.ip("edge", "link", "show")
    with topology.inside("edge"):
        at_tc = {link["ifname"] for link in links if tc_programs(link["ifindex"])}
    return [link["ifname"] for link in links if link.get("allmulti") or link.get("xdp") or link["ifname"] in at_tc]


def test_hundreds_of_ports_under_a_soft_limit_that_is_too_low_answer_also_after_a_kill_and_end_at_once(
    topology: Topology, daemon: Start
) -> None:
    make(topology, COUNT)
    with closing(Asker(topology, COUNT)) as asker:
        first = daemon(CONFIGURATION.format(datapath="python"), program=limited(256, 4096))
        assert asker.answered() == COUNT
        first.kill()
        assert until(lambda: left(topology) == [])
        began = time.monotonic()
        second = daemon(CONFIGURATION.format(datapath="hybrid"), program=limited(256, 4096))
        start = time.monotonic() - began
        assert asker.answered() == COUNT
        assert len(list(Path(f"/proc/{second.process.pid}/fd").iterdir())) < COUNT + 120
        lines = second.log.splitlines()
        reason = "native XDP_TX is lost on veth unless the peer has a program, too"
        some = f"sub0, sub1, sub2 and {MOST_BY_AUTO - 3} more"
        assert f"npd6-xdp: info: {some}: attached at tc ingress; not native: {reason}" in lines
        (beyond,) = (line for line in lines if f"{COUNT - MOST_BY_AUTO - 3} more: XDP attached (generic mode)" in line)
        assert f"; not native: {reason}; {MOST_BY_AUTO} ports are at tc already, and each takes the kernel " in beyond
        assert len(lines) < 20, "no line for each"
        topology.run("edge", "ip", "link", "del", "sub7", check=True)
        topology.run("edge", "ip", "link", "set", "sub8", "name", "other8", check=True)
        assert until(lambda: "sub7: detached" in second.log and "sub8: detached" in second.log)
        assert asker.answered(0.3) == COUNT - 2
        with Sleeper() as sleeper:
            began = time.monotonic()
            assert second.stop() == 0
            took = time.monotonic() - began
            # it waits for the kernel's lock no more often than the start
            assert took < max(5.0, start) + sleeper.worst(began, MOST_BY_AUTO)
    assert left(topology) == []


def test_named_ports_that_no_descriptor_is_left_for_end_the_start_in_one_line_and_nothing_stays(
    topology: Topology, daemon: Start
) -> None:
    """(0665297 said it in a traceback, or more than one line.)"""
    make(topology, FEW)
    text = "".join(CONFIGURATION.format(datapath="hybrid").replace("sub*", f"sub{n}") for n in range(FEW))
    with pytest.raises(StartError) as caught:
        daemon(text, program=limited(84, 84))
    assert "exit status 1" in str(caught.value)
    (line,) = caught.value.log.splitlines()
    assert line.startswith("npd6-xdp: sub")
    assert line.endswith(": Too many open files: raise LimitNOFILE= (ulimit -n)")
    assert left(topology) == []


# what is opened in turn: Python's own, the maps, the sockets; each CPU's rings; what comes after them
LIMITS = (10, 26, 42, 40 + 2 * CPUS, 44 + 2 * CPUS)


@pytest.mark.parametrize("limit", LIMITS)
def test_whatever_cannot_be_opened_ends_the_start_with_the_reason(
    topology: Topology, daemon: Start, limit: int
) -> None:
    """(On 0665297 it was a traceback, or no word of what to raise.)"""
    refused(topology, daemon, "hybrid", limit)


def refused(topology: Topology, daemon: Start, datapath: str, limit: int) -> None:
    """See one port end the start in our words alone, of which the last are the reason."""
    with pytest.raises(StartError) as caught:
        daemon(configuration(*ALL, datapath=f'"{datapath}"'), program=limited(limit, limit))
    assert "exit status 1" in str(caught.value)
    *_, line = lines = caught.value.log.splitlines()
    assert all(each.startswith("npd6-xdp: ") for each in lines), lines
    assert line.endswith(TOO_MANY)
    assert left(topology) == []


TOO_MANY = ": Too many open files: raise LimitNOFILE= (ulimit -n)"
ALL = ("2001:db8:1::/64 neighbour via=lan0", "2001:db8:2::/64 kernel", "2001:db8:3::/64 static")
MORE = tuple(f"2001:db8:{0x1000 + number:x}::/64 static" for number in range(3_000))
"""Rules that the program at work has no space for."""
# docs/operation.md says the last two for two CPUs
TOO_FEW, ENOUGH_TO_START, ENOUGH = 64, 96 + 3 * CPUS, 120 + 4 * CPUS


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_with_64_descriptors_it_does_not_start_and_says_what_to_raise(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    """(0665297 had 51 open, and started.)"""
    refused(topology, daemon, datapath, TOO_FEW)


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
@pytest.mark.parametrize("limit", [ENOUGH_TO_START, ENOUGH])
def test_with_as_many_descriptors_as_the_manual_says_one_port_has_all_that_it_needs(
    topology: Topology, daemon: Start, datapath: str, limit: int
) -> None:
    """Where they don't suffice for the program that a reload makes beside the one at work, the old one stays."""
    keys = {"datapath": f'"{datapath}"'}
    running = daemon(configuration(*ALL, **keys), program=limited(limit, limit))

    def works(target: str) -> None:
        assert wire.ask(question(target)) is not None
        assert wire.ask(question("2001:db8:2::42")) is not None
        assert running.metrics()
        assert verb(running, "status").returncode == 0

    with Wire(topology) as wire:
        works("2001:db8:3::42")
        running.write(configuration(*ALL, "2001:db8:4::/64 static", **keys))
        assert verb(running, "reload").returncode == 0
        works("2001:db8:4::42")
        running.write(configuration(*ALL, *MORE, **keys))
        done = verb(running, "reload")
        if limit == ENOUGH:
            assert done.returncode == 0, done.stderr
            works("2001:db8:1000::42")
        else:
            assert done.returncode == 1
            assert done.stderr.startswith("npd6-xdp: the old configuration stays: ")
            assert done.stderr.endswith(f"{TOO_MANY}\n")
            works("2001:db8:4::42")
            running.write(configuration(*ALL, **keys))
            assert verb(running, "reload").returncode == 0
            works("2001:db8:3::42")
    assert all(line.startswith("npd6-xdp: ") for line in running.log.splitlines()), running.log
    assert running.stop() == 0


def test_ports_of_a_glob_that_no_descriptor_is_left_for_are_said_in_one_line_and_attached_once_there_is(
    topology: Topology, daemon: Start
) -> None:
    """(On 0665297 the start ended with a traceback.)"""
    make(topology, FEW)
    running = daemon(CONFIGURATION.format(datapath="hybrid"), program=limited(96, 96))
    assert 0 < len(left(topology)) < FEW
    errors = [line for line in running.log.splitlines() if ": error: " in line]
    assert 1 <= len(errors) <= 3, "not a line for each"
    assert all("Too many open files: raise LimitNOFILE= (ulimit -n); trying again every 2 s" in line for line in errors)
    assert running.metrics(), "what else it does has descriptors"
    assert verb(running, "status").returncode == 0
    with closing(Asker(topology, FEW)) as asker:
        first = asker.answering(0.3)
        assert first
        for name in first:
            topology.run("edge", "ip", "link", "del", name, check=True)
        assert until(lambda: asker.answered(0.3) >= len(first), 15.0), "others have their place"
