# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that is away and comes back without a word, under the pings of an upstream that doesn't ask for it.

    python -m tests.netns.away [--seconds N] [--rounds N]

It says for how long pings were lost after the return: exit status 1 if that was more than 2 s. The tests have it
away for as long as the edge takes to notice.
"""

from __future__ import annotations

import argparse
import re
import sys
import time

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.netns.test_host_routes import SAME_64, SHARED, kernels, shown
from tests.netns.test_places import is_there
from tests.netns.wire import configuration, grown, until

INTERVAL = 0.1  # seconds between two pings
MOST_LOST = 2.0  # seconds
ROUTE = f"{SHARED} lan0"


class Pings:
    """The upstream's pings of the host, one after the other until the test is over."""

    def __init__(self, topology: Topology) -> None:
        self._said = topology.directory / "pings"
        words = ("ping", "-6", "-n", "-i", str(INTERVAL), "-W", "1", SHARED)
        with self._said.open("w") as output:
            topology.popen("upstream", *words, stdout=output)

    @property
    def answered(self) -> list[int]:
        """The numbers of those that were, in order."""
        return [int(found) for found in re.findall(r"icmp_seq=(\d+) ttl", self._said.read_text())]


def have_believed(topology: Topology) -> None:
    """The upstream believes what it knows for minutes, and doesn't ask; the edge notices within seconds that a host has
    gone. Retransmissions are as ever: a second apart.
    """
    topology.sysctl("upstream", "net/ipv6/neigh/eth0/base_reachable_time_ms", 1_000_000)
    for name, value in (("base_reachable_time_ms", 1000), ("delay_first_probe_time", 1), ("ucast_solicit", 1)):
        topology.sysctl("edge", f"net/ipv6/neigh/lan0/{name}", value)


def host(topology: Topology, verb: str) -> None:
    """The host has the address ("add"), or hasn't ("del"); it says nothing of that."""
    words = ("nodad",) if verb == "add" else ()
    topology.run("host", "ip", "addr", verb, f"{SHARED}/128", "dev", "eth0", *words, check=True)


def lost(topology: Topology, running: RunningDaemon, pings: Pings, away: float) -> float:
    """For how long pings are lost after the host was away for so many seconds, at least until the edge has noticed."""
    host(topology, "del")
    left = time.monotonic()
    assert until(lambda: not is_there(running, SHARED))
    asked = running.solicitations()
    time.sleep(max(left + away - time.monotonic(), 0))
    assert kernels(topology) == shown(running) == [ROUTE]
    heard = len(pings.answered)
    host(topology, "add")
    back = time.monotonic()
    assert until(lambda: len(pings.answered) > heard)
    found = time.monotonic() - back
    meanwhile = grown(asked, running.solicitations())
    assert not {*meanwhile} - {"own"}, f"the upstream has asked for it, and so proves nothing: {meanwhile}"
    assert until(lambda: is_there(running, SHARED))
    print(f"away for {back - left:.1f} s, and reached {found:.2f} s after its return", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.netns.away", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long it is away")
    parser.add_argument("--rounds", type=int, default=1, help="how often")
    arguments = parser.parse_args()
    with Topology() as topology:
        have_believed(topology)
        host(topology, "add")
        with RunningDaemon(topology, configuration(SAME_64)) as running:
            pings = Pings(topology)
            assert until(lambda: len(pings.answered) > 2)
            found = [lost(topology, running, pings, arguments.seconds) for _ in range(arguments.rounds)]
    return int(max(found) > MOST_LOST)


if __name__ == "__main__":
    sys.exit(main())
