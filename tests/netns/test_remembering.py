# SPDX-License-Identifier: GPL-2.0-or-later
"""What an edge remembers under method neighbour outlives a scan, and is announced at a takeover (docs/rules.md, J3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.netns.test_announcements import announced
from tests.netns.test_roles import ADDRESS
from tests.netns.wire import LATE, Wire, configuration, flood, on_edge, question, scan, until

pytestmark = pytest.mark.fills_table  # the edge's kernel has a thousand hosts in it
Start = Callable[..., RunningDaemon]

HOSTS = [f"2001:db8:1::1:{number:x}" for number in range(1_000)]
RATE = 15_000  # frames a second
SCANNED = 200_000
IN_A_ROW = 15_000  # targets that a router asks for at the same time, each three times


def come(topology: Topology, hosts: Sequence[str], lines: Path) -> None:
    """These are there, behind lan0."""
    lines.write_text("".join(f"address add {each}/128 dev eth0 nodad\n" for each in hosts))
    topology.run("host", "ip", "-6", "-batch", str(lines), check=True)


def ask(wire: Wire, running: RunningDaemon, hosts: Sequence[str]) -> None:
    """Ask for each once, on standby."""
    before = running.solicitations().get("standby", 0)
    for first in range(0, len(hosts), 50):
        wire.send(*map(question, hosts[first : first + 50]))
        time.sleep(0.01)
    assert until(lambda: running.solicitations().get("standby", 0) == before + len(hosts))


def by_a_router() -> Iterator[bytes]:
    """A scan as it comes through a router, which asks three times for who doesn't answer."""
    for first in range(0, SCANNED // 2, IN_A_ROW):
        for _ in range(3):  # which takes a second each
            yield from scan(IN_A_ROW, first=(1 << 32) + first)


@pytest.mark.parametrize(
    ("frames", "times"),
    [(by_a_router, 1), (lambda: scan(SCANNED), 2)],
    ids=["through a router", "from the link itself"],
)
def test_a_scan_pushes_out_no_host_that_is_to_be_announced(
    topology: Topology, daemon: Start, tmp_path: Path, frames: Callable[[], Iterator[bytes]], times: int
) -> None:
    """By a router, hosts that were asked for once; from the link, those that were again, much later."""
    come(topology, HOSTS, tmp_path / "hosts")
    running = daemon(
        configuration("2001:db8:1::/64 neighbour via=lan0", active_with=f'"{ADDRESS}"', events_per_source="0")
    )
    with Wire(topology) as wire:
        wire.only_advertisements()
        for again in range(times):
            time.sleep(11 if again else 0)
            ask(wire, running, HOSTS)
        time.sleep(4)
        with flood(topology, frames(), RATE) as flooding:
            assert until(lambda: flooding._seconds > 0, 120)
        print(f"{flooding.sent} scanned, {flooding.rate:.0f} a second")
        on_edge(topology, f"address add {ADDRESS}/32 dev lo")
        found: set[str] = set()
        deadline = time.monotonic() + 60
        while len(found) < len(HOSTS) and time.monotonic() < deadline:
            found |= {IPv6Address(each.target).compressed for each in announced(wire, 100, LATE)}
        assert sorted({*HOSTS} - found) == []
