# SPDX-License-Identifier: GPL-2.0-or-later
"""How it ends, in every way, under load; and what others' programs on the interface see of it."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from npd6_xdp.lab.daemon import RunningDaemon, StartError
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.bpf.compiler import compile_program, load_bcc
from tests.kinds import solicit
from tests.netns.wire import SETTING, Wire, configuration, says, scan, standing_still, until

Start = Callable[..., RunningDaemon]

SKB_MODE, DRV_MODE = 2, 4  # XDP_FLAGS_* of linux/if_link.h


def link(topology: Topology, interface: str = "wan0") -> dict[str, object]:
    (found,) = topology.ip("edge", "link", "show", "dev", interface)
    return found


def leftovers(topology: Topology) -> dict[str, object]:
    """What of a daemon is still on wan0."""
    mode = topology.attach_mode("edge", "wan0")
    found: dict[str, object] = {"attached": mode} if mode else {}
    return found | {key: value for key, value in link(topology).items() if key == "allmulti" and value}


@contextmanager
def load(topology: Topology) -> Iterator[None]:
    """Solicitations as fast as one thread sends them."""
    stop = threading.Event()
    frame = solicit(SETTING)
    with Wire(topology) as wire:

        def send() -> None:
            while not stop.is_set():
                wire.send(*[frame] * 100)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield
        finally:
            stop.set()
            sender.join()


@pytest.mark.parametrize(
    ("datapath", "signum"), [("hybrid", signal.SIGINT), ("python", signal.SIGTERM)], ids=["hybrid", "python"]
)
def test_a_signal_ends_it_under_load_with_status_0_and_leaves_nothing(
    topology: Topology, daemon: Start, datapath: str, signum: signal.Signals
) -> None:
    running = daemon(configuration(datapath=f'"{datapath}"'))
    assert "attached" in leftovers(topology)
    with load(topology):
        assert until(lambda: sum(running.solicitations().values()) > 1000)
        running.process.send_signal(signum)
        assert running.process.wait(180) == 0
        assert leftovers(topology) == {}
    assert until(lambda: f"{signum.name}: ending" in running.log)
    assert "Traceback" not in running.log


def test_what_waits_in_the_ring_when_it_is_told_to_end_is_answered_first(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(datapath='"python"'))
    waiting = 5000
    with Wire(topology) as wire:
        with standing_still(running):
            wire.send(*[solicit(SETTING)] * waiting)
            running.process.send_signal(signal.SIGTERM)
        assert len(wire.advertisements(60.0, enough=waiting)) == waiting
        assert running.process.wait(180) == 0
    assert leftovers(topology) == {}


def test_xdp_goes_on_answering_while_python_stands_still(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    with Wire(topology) as wire, standing_still(running):
        assert wire.ask(solicit(SETTING)) is not None
        assert wire.ask(solicit(SETTING, options=b"")) is not None


@pytest.mark.parametrize(("flags", "attach"), [(SKB_MODE, "native"), (DRV_MODE, "generic")])
def test_a_program_attached_the_old_way_is_not_replaced_either(
    topology: Topology, daemon: Start, attach: str, flags: int
) -> None:
    """Over netlink, as `ip link set xdp` does it: no link holds it, so only our manners protect it."""
    program, function = compile_program("int somebody(void *ctx) { return 2; }", "somebody", {})
    with topology.inside("edge"):
        assert load_bcc().lib.bpf_attach_xdp(b"wan0", function.fd, flags) == 0
    try:
        before = link(topology)["xdp"]
        with pytest.raises(StartError) as caught:
            daemon(configuration(attach=f'"{attach}"'))
        assert "exit status 1" in str(caught.value)
        mode = {SKB_MODE: "generic", DRV_MODE: "native"}[flags]
        assert caught.value.log == (
            f"npd6-xdp: wan0: another XDP program is attached in {mode} mode: id {before['prog']['id']} (somebody);"  # type: ignore[index]
            ' detach it first, leave this interface out, or write attach = "auto" to sit beside it by tc (Linux 6.6)\n'
        )
        assert link(topology)["xdp"] == before
    finally:
        program.cleanup()


def test_nobody_replaces_ours_while_it_runs(topology: Topology, daemon: Start) -> None:
    generic = configuration(attach='"generic"')
    running = daemon(generic)
    before = link(topology)["xdp"]
    with pytest.raises(StartError) as caught:
        daemon(generic.replace("[[interface]]", '[metrics]\nlisten = ""\n[[interface]]', 1))
    assert f"wan0: another npd6-xdp's program is there already: pid {running.process.pid}; end" in caught.value.log
    assert caught.value.log.count("\n") == 1
    assert link(topology)["xdp"] == before
    with Wire(topology) as wire:
        assert wire.ask(solicit(SETTING)) is not None
    assert running.stop() == 0


def test_each_mistake_of_a_file_is_a_line_of_its_own(topology: Topology, daemon: Start) -> None:
    mistakes = configuration("2001:db8:1::/64 neighbour", "nonsense static", colour='"red"', attach='"sideways"')
    with pytest.raises(StartError) as caught:
        daemon(f'[daemon]\ncontrol = "{topology.directory}/a.sock"\n' + mistakes.replace("colour", "  colour"))
    assert "exit status 2" in str(caught.value)
    lines = caught.value.log.splitlines()
    places = [re.match(r"npd6-xdp: /\S+\.toml:(\d+):(\d+): (\S+): ", line) for line in lines]
    assert [place and place.groups() for place in places] == [
        ("5", "3", "interface[0].colour"),
        ("6", "1", "interface[0].attach"),
        ("7", "1", "interface[0].rule[0].via"),
        ("11", "1", "interface[0].rule[1].prefix"),
    ], lines


def test_an_interface_that_goes_away_is_said_once_and_the_other_goes_on(topology: Topology, daemon: Start) -> None:
    two = configuration(datapath='"python"') + configuration(datapath='"python"').replace("wan0", "lan0")
    running = daemon(two)
    topology.run("edge", "ip", "link", "del", "lan0", check=True)
    up = ("npd6_interface_up", frozenset({("interface", "lan0")}))
    assert until(lambda: running.metrics()[up] == 0)
    with Wire(topology) as wire:
        assert wire.ask(solicit(SETTING)) is not None
    assert says(running, "lan0: the interface is gone")
    assert running.stop() == 0
    assert "Traceback" not in running.log


def test_a_port_that_goes_down_and_up_again_answers_again(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    with Wire(topology) as wire:
        assert wire.ask(solicit(SETTING)) is not None
    for state in ("down", "up"):
        topology.run("edge", "ip", "link", "set", "wan0", state, check=True)
    with Wire(topology) as wire:
        assert until(lambda: wire.ask(solicit(SETTING), 0.2) is not None)
    assert running.stop() == 0


def test_answers_that_find_their_port_gone_are_failed_and_the_daemon_goes_on(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(datapath='"python"') + configuration().replace("wan0", "lan0"))
    waiting = 100
    with standing_still(running):
        with Wire(topology) as wire:
            wire.send(*[solicit(SETTING)] * waiting)
        topology.run("edge", "ip", "link", "del", "wan0", check=True)
    assert until(lambda: running.solicitations().get("failed") == waiting), running.solicitations()
    assert running.stop() == 0
    assert "Traceback" not in running.log


def test_signals_while_it_starts_are_done_when_it_runs(topology: Topology) -> None:
    running = RunningDaemon(topology, configuration())

    def bother() -> None:
        def has_imports() -> bool:
            with suppress(OSError, AssertionError):
                return "libbcc" in Path(f"/proc/{running.process.pid}/maps").read_text()
            return False

        assert until(has_imports, 10.0)
        while running.process.poll() is None:
            for signum in (signal.SIGHUP, signal.SIGUSR1):
                running.process.send_signal(signum)
            if "ready" in running.log_file.read_text():  # a machine that let us wait: it was told once, at the least
                break
            time.sleep(0.05)

    bothering = threading.Thread(target=bother)
    bothering.start()
    try:
        with running:
            bothering.join()
            assert until(lambda: "reload: the new configuration is in use" in running.log)
            assert until(lambda: ", datapath hybrid, up" in running.log), "its state"
            assert running.stop() == 0
    finally:
        bothering.join()


def test_a_second_signal_does_not_keep_it_from_tidying_up(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:1::/64 kernel", events_per_source="0"))

    def proxies() -> int:
        return len(topology.run("edge", "ip", "-6", "neigh", "show", "proxy").stdout.splitlines())

    with Wire(topology) as wire:
        wire.deafen()
        for frame in scan(300):
            wire.send(frame)
        assert until(lambda: proxies() == 300)
    while running.process.poll() is None:
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    assert proxies() == 0
    assert leftovers(topology) == {}
