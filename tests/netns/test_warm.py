# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon that is forked, as most tests have it, is in all that it can see what one by exec is."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.lab.daemon import RunningDaemon, StartError
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from tests.netns.warm import Forked, WarmDaemon
from tests.netns.wire import Asker, Wire, configuration, settled_files

_SIGNALS = ("SigBlk", "SigIgn", "SigCgt")


def without_number(path: str) -> str:
    """A file's name, if it has a number of its own in it."""
    return re.sub(r"-[0-9]+\.log|-[0-9]+-[0-9]+-[0-9a-f]+", "", path)


def seen(running: RunningDaemon) -> dict[str, Any]:
    """What a process is in, and has."""
    proc = Path(f"/proc/{running.process.pid}")
    status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines())
    return {
        "working directory": (proc / "cwd").readlink(),
        "root": (proc / "root").readlink(),
        "namespace": (proc / "ns/net").readlink(),
        "shares its mounts": (proc / "ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink(),
        "interfaces in /sys": sorted(path.name for path in (proc / "root/sys/class/net").iterdir()),
        "files": {without_number(name): count for name, count in settled_files(running).items()},
        "standard files": [without_number(str((proc / f"fd/{number}").readlink())) for number in range(3)],
        "signals": {name: status[name] for name in _SIGNALS},
        "threads": status["Threads"],
        "limits": (proc / "limits").read_text(),
        "user": status["Uid"],
        "capabilities": status["CapEff"],
        "metrics": {name for name, _ in running.metrics()},
        "log": running.log,
    }


def test_it_is_in_what_one_by_exec_is_in_and_has_what_that_has(topology: Topology) -> None:
    facts = []
    for running in (RunningDaemon(topology, configuration()), WarmDaemon(topology, configuration())):
        with running, Wire(topology) as wire:
            assert Asker(wire, running).answered(HOST_ADDRESS)
            facts.append(seen(running))
            status = running.stop()
        facts[-1] |= {"exit status": status, "log at the end": running.log}
    by_exec, forked = facts
    assert forked == by_exec


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_a_signal_ends_it_or_not_as_it_does_one_by_exec(
    topology: Topology, daemon: Callable[..., RunningDaemon], number: signal.Signals
) -> None:
    running = daemon(configuration())
    assert isinstance(running.process, Forked)
    assert running.process.poll() is None
    running.process.send_signal(number)
    if number == signal.SIGHUP:
        running.process.terminate()
    assert running.process.wait(60) == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert running.process.poll() == running.process.returncode
    running.process.terminate()  # which does nothing then


def test_what_it_cannot_start_with_it_says_and_what_it_ends_with_is_known(topology: Topology) -> None:
    for kind in (RunningDaemon, WarmDaemon):
        with (
            pytest.raises(StartError, match=r"exit status 2: npd6-xdp: .*nowhere"),
            kind(topology, configuration("2001:db8::/64 nowhere")),
        ):
            pass
