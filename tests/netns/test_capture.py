# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture tells of all that has come by the moment when it is asked, however late tcpdump gets to write it."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from npd6_xdp.lab.capture import Capture
from npd6_xdp.lab.topology import UPSTREAM_MAC, Topology
from tests.netns.wire import Wire, question, until

TARGETS = ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3"]


def asked(capture: Capture) -> list[str]:
    """Which of TARGETS were asked for; the upstream's kernel may ask for something else."""
    targets = [each.solicitation.target for each in capture.exchanges(UPSTREAM_MAC)]
    return [target for target in targets if target in TARGETS]


@pytest.mark.parametrize("when", ["meanwhile", "afterwards"])
def test_what_tcpdump_has_yet_to_write_is_waited_for(topology: Topology, when: str) -> None:
    with Capture(topology, "upstream", "eth0") as capture, Wire(topology) as wire:
        (tcpdump,) = (each for each in topology._processes if "tcpdump" in list(each.args))  # type: ignore[arg-type]
        tcpdump.send_signal(signal.SIGSTOP)
        wire.send(*map(question, TARGETS))
        later = threading.Timer(0.3, tcpdump.send_signal, [signal.SIGCONT])
        later.start()
        if when == "meanwhile":
            assert asked(capture) == TARGETS
    later.join()
    assert asked(capture) == TARGETS
    assert until(lambda: tcpdump.poll() is not None)


def test_what_came_while_tcpdump_started_is_not_waited_for(topology: Topology) -> None:
    """It counts as received what its filter, which isn't set yet, would have refused, and never as captured."""
    others = [question(TARGETS[0])[:14] + bytes(46)] * 20
    since = time.monotonic()
    with Wire(topology) as wire:
        for _ in range(10):  # two starts in three have frames at that moment
            started = threading.Event()

            def disturb(started: threading.Event = started) -> None:
                until = time.monotonic() + 1
                while not started.wait(0.0001) and time.monotonic() < until:
                    wire.send(*others)

            disturber = threading.Thread(target=disturb)
            disturber.start()
            with Capture(topology, "upstream", "eth0") as capture:
                started.set()
                disturber.join()
                wire.send(*map(question, TARGETS))
                assert asked(capture) == TARGETS
    assert time.monotonic() - since < 40, "it waits for a minute, and goes on"
