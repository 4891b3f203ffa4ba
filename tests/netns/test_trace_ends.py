# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace over the end of the daemon, as systemd's: the client hears of it, and the successor traces anew."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from npd6_xdp.core.traced import Traced
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.named import Named
from tests.netns.handovers import kill, restart
from tests.netns.service import UnderSystemd
from tests.netns.wire import Wire, configuration, question, until

HANDED_OVER = "the trace has ended: npd6-xdp ends: a successor, if there is one, traces when it is asked"
GONE = "the trace has ended: npd6-xdp has gone"


class Client:
    """`npd6-xdp trace` in the service's view of the files."""

    def __init__(self, process: subprocess.Popen[str], out: Path, log: Path) -> None:
        self.process, self.out, self.log = process, out, log

    def has(self, target: str) -> bool:
        return until(lambda: f'"target": "{target}"' in self.out.read_text())


@contextmanager
def traced(topology: Topology, service: UnderSystemd, *argv: str) -> Iterator[Client]:
    out, log = topology.directory / "trace.out", topology.directory / "trace.log"
    inside = ("nsenter", "-t", service.init, "-m", "-p", "-u", "-i", "-C")
    with out.open("w") as shown, log.open("w") as said:
        words = (*inside, *service.program("trace", "--json", *argv))
        process = topology.popen("edge", *words, stdout=shown, stderr=said)
    try:
        assert until(lambda: "npd6-xdp: tracing" in log.read_text())
        yield Client(process, out, log)
    finally:
        process.kill()
        process.wait()


def test_at_a_hand_over_it_ends_with_a_word_and_the_successor_traces_anew(topology: Topology) -> None:
    with UnderSystemd(topology, configuration()) as service, Wire(topology) as wire:
        for how, word in ((restart, HANDED_OVER), (kill, GONE)):
            before = service.show("MainPID")
            with traced(topology, service) as client:
                wire.send(question("2001:db8:1::42"))
                assert client.has("2001:db8:1::42")
                how(service)
                assert client.process.wait(120) == 1
                assert word in client.log.read_text().splitlines()[-1]
            assert service.comes_to(MainPID=f"!{before}", ActiveState="active")
        with traced(topology, service, "--count", "1") as client:
            wire.send(question("2001:db8:1::43"))
            assert client.process.wait(120) == 0
        *_, summary = client.out.read_text().splitlines()
        assert client.has("2001:db8:1::43")
        assert json.loads(summary) == {"summary": {"seen": 1, "lost": 0, "counted": 1}}


@pytest.mark.parametrize(
    ("name", "shown"), [(b"a\x1b[31mred", r"a\x1b[31mred"), (b"lan\xff", r"lan\xff")], ids=["escape", "bytes"]
)
def test_where_nobody_knows_the_entry_any_more_the_port_is_shown_as_elsewhere(
    topology: Topology, name: bytes, shown: str
) -> None:
    topology.run("edge", "ip", "link", "add", os.fsdecode(name), "type", "bridge", check=True)
    port = topology.run("edge", "sh", "-c", 'cat /sys/class/net/"$1"/ifindex', "sh", os.fsdecode(name), check=True)
    gone = Traced(0, int(port.stdout), 1, None, None, Outcome.UNMATCHED, None, None, b"", 0, None, None, late=False)
    with topology.inside("edge"):
        assert Named(topology.directory / "none.sock").entry(gone).port == shown
