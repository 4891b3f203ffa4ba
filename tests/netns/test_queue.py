# SPDX-License-Identifier: GPL-2.0-or-later
"""Reloads that are asked for while one runs are one more, whoever asks; and the end doesn't wait for them."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.netns.verb import verb
from tests.netns.wire import ENDS, configuration, says, until

Start = Callable[..., RunningDaemon]

RULES = 200
DONE = "reload: the new configuration is in use"


def rules(count: int) -> str:
    return configuration(*(f"2001:db8:{n >> 16:x}:{n & 0xFFFF:x}::/64 static" for n in range(1, count + 1)))


# Whoever reads the file goes on when there is no such file as the first argument names.
HOLDING = """
import os, sys, time
import npd6_xdp.cli, npd6_xdp.daemon.reading as reading
hold, parts = sys.argv.pop(1), reading.parts
def held(*given):
    while os.path.exists(hold):
        time.sleep(0.01)
    yield from parts(*given)
reading.parts = held
npd6_xdp.cli.main()
"""


@contextmanager
def held(running: RunningDaemon, hold: Path) -> Iterator[None]:
    """A reload that began before the block and lasts for as long as that does."""
    hold.touch()
    running.process.send_signal(signal.SIGHUP)
    pid = running.process.pid
    assert until(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text() != ""), "it is read beside the daemon"
    yield
    hold.unlink()


def ask_for_reload(running: RunningDaemon) -> socket.socket:
    """One who has asked for a reload, and has yet to hear of it."""
    asker = socket.socket(socket.AF_UNIX)
    asker.settimeout(300)
    asker.connect(str(running.control))
    asker.sendall(b'{"verb": "reload"}\n')
    return asker


def told(asker: socket.socket) -> bytes:
    return b"".join(iter(lambda: asker.recv(1 << 16), b"")).strip()


def test_a_storm_of_reloads_is_one_more_and_each_asker_hears_of_one_that_began_after_he_asked(
    topology: Topology, daemon: Start
) -> None:
    hold = topology.directory / "hold"
    program = (sys.executable, "-c", HOLDING, str(hold))
    running = daemon(f'[daemon]\nlog_level = "debug"\n{rules(RULES)}', program=program)
    with ExitStack() as stack:
        with held(running, hold):
            running.write(f'[daemon]\nlog_level = "debug"\n{rules(RULES + 1)}')
            askers = [stack.enter_context(ask_for_reload(running)) for _ in range(8)]
            for _ in range(12):
                running.process.send_signal(signal.SIGHUP)
                time.sleep(0.01)
            running.settle()  # it has heard them
            assert running.log.count(DONE) == 0
        assert [json.loads(told(asker))["rules"] for asker in askers] == [RULES + 1] * 8
    assert says(running, DONE, 2)
    verb(running, "status")  # what is yet to come would come before
    assert says(running, DONE, 2)

    with held(running, hold), ask_for_reload(running) as waiting:
        running.settle()
        running.process.terminate()
        assert until(lambda: "SIGTERM: ending" in running.log, 1.0)
        assert running.process.wait(ENDS) == 0  # a fraction of a second where nobody else is at work
        assert "given up" in json.loads(told(waiting))["error"]
    assert says(running, DONE, 2)
