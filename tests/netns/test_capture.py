# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture tells of all that has come by the moment when it is asked, however late tcpdump gets to write it."""

from __future__ import annotations

import signal
import threading

import pytest

from npd6_xdp.lab.capture import Capture
from npd6_xdp.lab.topology import UPSTREAM_MAC, Topology
from tests.netns.wire import Wire, question, until


@pytest.mark.parametrize("when", ["meanwhile", "afterwards"])
def test_what_tcpdump_has_yet_to_write_is_waited_for(topology: Topology, when: str) -> None:
    with Capture(topology, "upstream", "eth0") as capture, Wire(topology) as wire:
        (tcpdump,) = (each for each in topology._processes if "tcpdump" in list(each.args))  # type: ignore[arg-type]
        tcpdump.send_signal(signal.SIGSTOP)
        wire.send(*(question(f"2001:db8:1::{n:x}") for n in range(1, 4)))
        later = threading.Timer(0.3, tcpdump.send_signal, [signal.SIGCONT])
        later.start()
        if when == "meanwhile":
            assert len(capture.exchanges(UPSTREAM_MAC)) == 3
    later.join()
    assert len(capture.exchanges(UPSTREAM_MAC)) == 3
    assert until(lambda: tcpdump.poll() is not None)
