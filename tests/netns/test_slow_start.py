# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts and reloads that take longer than the unit allows, as each of many ports at tc takes the kernel its time; and
starts that are ended in their middle.
"""

from __future__ import annotations

import ctypes as ct
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from npd6_xdp.lab.daemon import RunningDaemon, StartError
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.bpf.others import tc_programs
from tests.bench.many_ports import make
from tests.netns.service import UnderSystemd
from tests.netns.test_ends import leftovers
from tests.netns.wire import Wire, configuration, question, until

COUNT = 200
WATCHDOG = 2.0  # seconds
TRIES = 5
SOON = 15.0  # seconds, on a busy machine: each port that is taken off waits for a lock that all namespaces share
_PTRACE_SEIZE, _PTRACE_INTERRUPT, _WALL = 0x4206, 0x4207, 0x40000000
MANY = """
[[interface]]
name = "sub*"
attach = "{}"
[[interface.rule]]
prefix = "2001:db8:7::/64"
method = "static"
"""


def config(attach: str = "") -> str:
    """Of wan0, where Python answers, and of the many ports if they are to be attached in some way."""
    one = configuration(datapath='"python"', attach='"generic"')
    return '[daemon]\ncontrol = "/run/npd6-xdp/control.sock"\n' + one + (MANY.format(attach) if attach else "")


def at_tc(topology: Topology) -> int:
    """On how many of the many ports there is a program at tc."""
    with topology.inside("edge"):
        return sum(bool(tc_programs(socket.if_nametoindex(f"sub{n}"))) for n in range(COUNT))


def set_times(service: UnderSystemd, start: float, watchdog: float = WATCHDOG) -> None:
    """From now on, a start may take so many seconds, and so may a reload; and the loop has to come round more often."""
    keys = f"TimeoutStartSec={start:.2f}\nWatchdogSec={watchdog:.2f}\nTimeoutAbortSec=1\nTimeoutStopSec=1\n"
    script = 'mkdir -p "$1" && printf "[Service]\\n%s" "$2" >"$1/times.conf"'
    done = service.enter("sh", "-c", script, "sh", "/run/systemd/system/npd6-xdp.service.d", keys)
    assert done.returncode == 0, done.stderr
    assert service.systemctl("daemon-reload").returncode == 0


def start_took(service: UnderSystemd) -> float:
    """Seconds from the process's beginning until it was ready."""
    began, ready = (int(service.show(f"{key}TimestampMonotonic")) for key in ("ExecMainStart", "ActiveEnter"))
    return (ready - began) / 1e6


def stop(service: UnderSystemd, topology: Topology) -> None:
    service.systemctl("stop", "npd6-xdp")
    assert until(lambda: at_tc(topology) == 0, 60.0)


@pytest.mark.needs_table
def test_a_start_and_reloads_of_many_ports_come_to_their_end_however_long_they_take(topology: Topology) -> None:
    make(topology, COUNT)
    with UnderSystemd(topology, config("tc")) as service, Wire(topology) as wire:

        def show() -> bool:
            """Whether the start and each reload took longer than the unit allows; all is well meanwhile."""
            service.configure(config("tc"))
            starts = []
            for _ in range(2):
                stop(service, topology)
                assert service.systemctl("start", "npd6-xdp").returncode == 0, service.log
                starts.append(start_took(service))
            stop(service, topology)
            takes = min(starts) / 2
            watchdog = max(WATCHDOG, takes)  # the slower the machine, the longer are its pauses
            set_times(service, takes, watchdog)
            before = time.monotonic()
            assert service.systemctl("start", "npd6-xdp").returncode == 0, service.log
            shown = [time.monotonic() - before > takes]
            assert (at_tc(topology), service.show("NRestarts")) == (COUNT, "0")
            for attach, count in (("generic", 0), ("tc", COUNT), ("", 0)):
                service.configure(config(attach))
                before, answered = time.monotonic(), 0
                reload = service.systemctl("reload", "--no-block", "npd6-xdp")
                assert reload.returncode == 0, reload.stderr
                while service.show("ActiveState") == "reloading":
                    assert wire.ask(question("2001:db8:1::42")) is not None
                    answered += 1
                shown.append(time.monotonic() - before > watchdog and answered > 5)
                assert service.show("ReloadResult") == "success"
                assert (at_tc(topology), service.show("NRestarts")) == (count, "0"), attach
            return all(shown)

        assert any(show() for _ in range(TRIES)), "else it shows nothing"


class Standing:
    """The first thread of a process, which stands still from now on, while its others go on."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        trace = ct.CDLL(None, use_errno=True).ptrace
        trace.argtypes = [ct.c_long, ct.c_long, ct.c_void_p, ct.c_void_p]
        assert trace(_PTRACE_SEIZE, pid, None, None) == 0, os.strerror(ct.get_errno())
        assert trace(_PTRACE_INTERRUPT, pid, None, None) == 0
        _, status = os.waitpid(pid, _WALL)
        assert os.WIFSTOPPED(status)

    def has_ended(self) -> bool:
        """Whether the process was killed: its parent hears of that behind us."""
        pid, status = os.waitpid(self._pid, _WALL | os.WNOHANG)
        return pid != 0 and os.WIFSIGNALED(status)


def daemon_of(service: UnderSystemd) -> int:
    """The daemon's process, by its number here."""
    children = Path(f"/proc/{service.init}/task/{service.init}/children").read_text().split()
    (found,) = (int(pid) for pid in children if b"\0npd6_xdp\0run\0" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return found


def test_a_start_that_hangs_on_its_way_is_ended_and_tried_again(topology: Topology) -> None:
    make(topology, COUNT)
    with UnderSystemd(topology, config()) as service:
        service.systemctl("stop", "npd6-xdp")
        set_times(service, 5.0)
        service.configure(config("tc"))
        assert service.systemctl("start", "--no-block", "npd6-xdp").returncode == 0
        assert until(lambda: at_tc(topology) > COUNT // 10, 20.0)
        assert service.show("ActiveState") == "activating"
        hangs = Standing(daemon_of(service))
        assert at_tc(topology) < COUNT
        assert until(hangs.has_ended, 5.0 + 3 * WATCHDOG + 5.0)
        assert service.comes_to(NRestarts="1")
        assert until(lambda: service.show("ActiveState") == "active", 60.0)
        assert (at_tc(topology), service.show("NRestarts")) == (COUNT, "1")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_start_is_ended_between_two_ports_by_a_signal(topology: Topology, signum: signal.Signals) -> None:
    make(topology, COUNT)
    running = RunningDaemon(topology, configuration(attach='"generic"') + MANY.format("tc"))
    sent: list[float] = []
    attached: list[int] = []

    def send() -> None:
        assert until(lambda: at_tc(topology) > COUNT // 10, 120.0)
        running.process.send_signal(signum)
        sent.append(time.monotonic())
        while running.process.poll() is None:
            attached.append(at_tc(topology))

    sending = threading.Thread(target=send)
    sending.start()
    with pytest.raises(StartError), running:
        pass
    ended = time.monotonic()
    sending.join()
    assert attached[0] < COUNT * 3 // 4, "else it shows nothing"
    assert max(attached) < COUNT, "it was ended between two of them"
    assert ended - sent[0] < SOON
    assert running.process.returncode == 0, running.log
    assert at_tc(topology) == 0
    assert leftovers(topology) == {}
    *_, last = running.log.splitlines()
    assert last == f"npd6-xdp: info: {signum.name}: ending", running.log


def test_a_unit_that_is_stopped_while_it_starts_has_stopped_well(topology: Topology) -> None:
    make(topology, COUNT)
    with UnderSystemd(topology, config()) as service:
        service.systemctl("stop", "npd6-xdp")
        service.configure(config("tc"))
        assert service.systemctl("start", "--no-block", "npd6-xdp").returncode == 0
        assert until(lambda: at_tc(topology) > COUNT // 10, 120.0)
        assert service.show("ActiveState") == "activating"
        before = time.monotonic()
        assert service.systemctl("stop", "npd6-xdp").returncode == 0
        assert time.monotonic() - before < SOON
        assert (service.show("ActiveState"), service.show("Result")) == ("inactive", "success"), service.log
        assert service.log.count("ready: ") == 1, "the first start was"
        assert until(lambda: at_tc(topology) == 0, 10.0)
