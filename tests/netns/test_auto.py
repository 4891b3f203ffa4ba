# SPDX-License-Identifier: GPL-2.0-or-later
"""`attach = "auto"`: native where the driver takes the program, else by tc, and why; looked at again when that changes.

On a tap device, whose driver has a native mode that loses nothing. What is written to it comes in by it.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import select
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.netns.others import Filter, Others, at_tc
from tests.netns.test_taken_away import force_off
from tests.netns.verb import verb
from tests.netns.wire import LATE, configuration, on_edge, paused, question, says, until

Start = Callable[..., RunningDaemon]

TAP = "tap0"
BESIDE = (
    f"{TAP}: attached at tc ingress, datapath hybrid; not native: another XDP program is attached in generic mode: id "
)
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_FRAME = 2048


class Tap:
    """A tap device on the edge, and who asks at its other end: a question every few milliseconds while asking."""

    def __init__(self, topology: Topology) -> None:
        with topology.inside("edge"):
            self._fd = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(self._fd, _TUNSETIFF, struct.pack("16sH22x", TAP.encode(), _IFF_TAP | _IFF_NO_PI))
        # a queue that holds all answers while a busy machine lets the reader wait
        on_edge(topology, f"link set {TAP} address 02:00:00:00:00:7a txqueuelen 20000", f"link set {TAP} up")
        self.asked = 0
        self.answers: Counter[bytes] = Counter()
        self._ends, self._ask = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._hear, self._go_on_asking)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._ends.set()
        self._ask.set()
        for thread in self._threads:
            thread.join()
        os.close(self._fd)

    def _hear(self) -> None:
        while not self._ends.is_set():
            if select.select([self._fd], [], [], 0.05)[0]:
                frame = os.read(self._fd, _FRAME)
                try:
                    self.answers[NeighborAdvertisement.parse(frame).target] += 1
                except ValueError:
                    continue  # the edge's own words

    def _go_on_asking(self) -> None:
        while self._ask.wait() and not self._ends.is_set():
            self.ask()
            time.sleep(0.002)

    def ask(self) -> None:
        """One question, for a target that wasn't asked for before."""
        self.asked += 1
        os.write(self._fd, question(f"2001:db8:1::{self.asked >> 16:x}:{self.asked & 0xFFFF:x}"))

    def begin(self) -> None:
        self._ask.set()

    def end(self) -> None:
        self._ask.clear()

    def go_on(self) -> bool:
        """Whether some more have been asked since."""
        asked = self.asked
        return until(lambda: self.asked > asked + 50)

    def all_answered_once(self) -> bool:
        """Whether each has its answer, and none has two."""
        until(lambda: self.answers.total() >= self.asked, LATE)
        found = (self.asked, len(self.answers), self.answers.total())
        print(f"{found[0]} asked, {found[1]} targets answered, {found[2]} answers")
        return len({*found}) == 1


@pytest.fixture
def tap(topology: Topology) -> Iterator[Tap]:
    with closing(Tap(topology)) as found:
        yield found


def on_tap(**keys: str) -> str:
    return configuration(**keys).replace('"wan0"', f'"{TAP}"')


def sits(topology: Topology) -> tuple[str | None, int]:
    """In which mode an XDP program does, and how many do at tc."""
    return topology.xdp_mode("edge", TAP), len(at_tc(topology, TAP))


def page(topology: Topology, path: str) -> str:
    with closing(http.client.HTTPConnection("::1", 9846, timeout=60)) as connection:
        with topology.inside("edge"):
            connection.request("GET", path)
        return connection.getresponse().read().decode()


def test_beside_another_xdp_program_it_is_by_tc_and_native_again_once_that_has_ended_with_nothing_unanswered(
    topology: Topology, daemon: Start, tap: Tap
) -> None:
    with Others(topology, tc=False, interface=TAP) as others:
        running = daemon(on_tap())
        assert sits(topology) == ("generic", 1)
        assert says(running, BESIDE)
        assert " (foreign_xdp)\n" in running.log
        (row,) = json.loads(verb(running, "status", "--json").stdout)["interfaces"]
        assert row["attach"] == "tc"
        assert row["attach_reason"].startswith("another XDP program is attached in generic mode: id ")
        assert f"\n  not native: {row['attach_reason']}\n" in verb(running, "status").stdout
        assert row["attach_reason"] in page(topology, "/status.json")
        said = running.command("doctor", "--config", str(running.config_file)).stdout
        assert f"{TAP}: attached at tc ingress ({row['attach_reason']})" in said
        assert "FAIL" not in "".join(line for line in said.splitlines() if TAP in line and "XDP program" in line)
        infos = [dict(labels) for name, labels in running.metrics() if name == "npd6_interface_info"]
        assert [each["attach"] for each in infos] == ["tc"]
        before = running.solicitations(TAP).get("answered_xdp", 0)
        tap.begin()
        assert tap.go_on()
        assert others.xdp == 0, "it counts other prefixes"
    assert says(running, f"{TAP}: XDP attached (native mode), datapath hybrid")
    assert sits(topology) == ("native", 0)
    assert tap.go_on()
    tap.end()
    assert tap.all_answered_once()
    assert until(lambda: running.solicitations(TAP).get("answered_xdp", 0) == before + tap.asked)
    running.kill()
    assert until(lambda: sits(topology) == (None, 0), 1.0)


def test_where_somebody_else_comes_to_the_place_of_xdp_it_goes_to_tc(
    topology: Topology, daemon: Start, tap: Tap
) -> None:
    """By force: nobody else can have it while we do."""
    running = daemon(on_tap())
    assert says(running, f"{TAP}: XDP attached (native mode), datapath hybrid")
    assert sits(topology) == ("native", 0)
    with paused(running):
        force_off(running)
        others = Others(topology, tc=False, interface=TAP)
        others.__enter__()
    try:
        assert says(running, BESIDE)
        assert sits(topology) == ("generic", 1)
        tap.ask()
        assert tap.all_answered_once()
    finally:
        others.__exit__(None, None, None)
    assert says(running, f"{TAP}: XDP attached (native mode), datapath hybrid", 2)


@pytest.mark.parametrize(("option", "mode"), [("native", "native"), ("skb", "generic")])
def test_once_xdp_filter_is_unloaded_it_is_native_again_with_nothing_unanswered(
    topology: Topology, daemon: Start, tap: Tap, option: str, mode: str
) -> None:
    """And the place of XDP is then ours, whatever xdp-filter asks for."""
    xdp_filter = Filter(topology)
    xdp_filter("load", TAP, "--mode", option, "--policy", "allow")
    running = daemon(on_tap())
    assert says(
        running, f"{TAP}: attached at tc ingress, datapath hybrid; not native: another XDP program is attached in"
    )
    assert f" in {mode} mode: id " in running.log
    assert " (xdpfilt_alw_all)\n" in running.log
    assert sits(topology) == (mode, 1)
    before = xdp_filter.counted("XDP_PASS")
    tap.begin()
    assert tap.go_on()
    assert xdp_filter.counted("XDP_PASS") >= before + 50
    xdp_filter("unload", TAP)
    assert says(running, f"{TAP}: XDP attached (native mode), datapath hybrid")
    assert sits(topology) == ("native", 0)
    assert tap.go_on()
    tap.end()
    assert tap.all_answered_once()
    assert "Existing program is not using a dispatcher" in xdp_filter.refuses("load", TAP, "--mode", option)
    assert sits(topology) == ("native", 0)
