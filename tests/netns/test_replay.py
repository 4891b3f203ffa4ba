# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp replay` of what tcpdump saw on a wire: it says what the daemon has sent there, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.capture import Advertisement, Capture, read
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import HOST_ADDRESS, UPSTREAM_ADDRESS, Topology
from tests.netns.wire import Wire, configuration, question, until

Start = Callable[..., RunningDaemon]


@pytest.mark.parametrize("method", ["route", "neighbour via=lan0"])
def test_it_says_what_the_daemon_has_sent(topology: Topology, daemon: Start, method: str) -> None:
    running = daemon(configuration(f"2001:db8:1::/64 {method}"))
    with Capture(topology, "upstream", "eth0") as capture, Wire(topology) as wire:
        ping = topology.run("upstream", "ping", "-6", "-n", "-c", "1", "-W", "3", HOST_ADDRESS)
        assert ping.returncode == 0, ping.stdout
        wire.send(question("2001:db8:9::1"), question(HOST_ADDRESS, options=b""), question(UPSTREAM_ADDRESS))
        assert until(lambda: sum(running.solicitations().values()) >= 4)
    sent = [each.frame for each in read(capture.file) if isinstance(each, Advertisement) and not each.override]
    attached = topology.xdp_mode("edge", "wan0")
    done = running.command("replay", str(capture.file), "--config", str(running.config_file), "--json")
    assert done.returncode == 0, done.stderr
    assert topology.xdp_mode("edge", "wan0") == attached, "it attaches to nothing"
    told = json.loads(done.stdout)
    assert told["notes"] == []
    ours = [each for each in told["solicitations"] if each["target"] == HOST_ADDRESS]
    assert [each["advertisement"]["frame"] for each in ours if each["advertisement"]] == [
        frame.hex() for frame in sent if NeighborAdvertisement.parse(frame).target.hex().startswith("20010db80001")
    ]
    assert {each["outcome"] for each in ours} == {"answered_xdp"}
    outcomes = {each["target"]: each["outcome"] for each in told["solicitations"]}
    assert outcomes["2001:db8:9::1"] == "unmatched"
    whys = {each["why"] for each in ours}
    assert whys == {"the routing table leads to it" if method == "route" else "the neighbour table has it behind lan0"}
    # another table, here: nothing leads there by wan0
    topology.run("edge", "ip", "-6", "route", "replace", "2001:db8:1::/64", "dev", "wan0", "metric", "1", check=True)
    again = running.command("replay", str(capture.file), "--config", str(running.config_file))
    assert ("absent: rule 2001:db8:1::/64 (route); the routing table doesn't lead to it" in again.stdout) == (
        method == "route"
    )
