# SPDX-License-Identifier: GPL-2.0-or-later
"""Every outcome of docs/metrics.md, reached by real solicitations; and each solicitation is in exactly one."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from npd6_xdp.core.verdict import Outcome
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_ADDRESS, HOST_ADDRESS, UPSTREAM_ADDRESS, Topology
from tests.frames import TAGS_8021Q
from tests.netns.wire import DAD, EACH_METHOD, Wire, configuration, paused, question, scan, until

Start = Callable[..., RunningDaemon]


both = pytest.mark.parametrize(
    ("datapath", "answered"),
    [("hybrid", Outcome.ANSWERED_XDP), ("python", Outcome.ANSWERED_PYTHON)],
    ids=["hybrid", "python"],
)


@both
def test_each_solicitation_meets_one_outcome_and_all_but_the_rarest_are_met(
    topology: Topology, daemon: Start, datapath: str, answered: Outcome
) -> None:
    # native, where no tag can stand beside the frames: in generic mode an untagged question may go a longer way
    topology.xdp_pass("upstream", "eth0")
    keys = {"attach": '"native"'}
    monitored = configuration("2001:db8:4::/64 static", vlan="100", datapath='"monitor"', **keys)
    running = daemon(configuration(*EACH_METHOD, datapath=f'"{datapath}"', events_per_source="300", **keys) + monitored)
    steps: tuple[tuple[bytes, Outcome], ...] = (
        (question("2001:db8:1::dead"), Outcome.PENDING),
        (question(HOST_ADDRESS), Outcome.PENDING),
        (question(HOST_ADDRESS), answered),
        (question("2001:db8:2::1"), Outcome.ANSWERED_PYTHON),
        (question("2001:db8:2::1"), Outcome.KERNEL),
        (question("2001:db8:3::1"), Outcome.ABSENT),
        (question("2001:db8:4::1"), answered),
        (question("2001:db8:4::dead"), Outcome.IGNORED),
        (question("2001:db8:5::1"), Outcome.IGNORED),
        (question(UPSTREAM_ADDRESS), Outcome.IGNORED),
        (question("fe80::dead"), Outcome.IGNORED),
        (question(EDGE_WAN_ADDRESS), Outcome.OWN),
        (question("2001:db8:6::1"), Outcome.UNMATCHED),
        (question("2001:db8:4::1", **DAD), Outcome.DAD),
        (question("2001:db8:2::1", **DAD), Outcome.DAD),
        (question("2001:db8:4::1", hop_limit=254), Outcome.INVALID),
        (question("2001:db8:4::1", code=1), Outcome.INVALID),
    )
    wanted: Counter[str] = Counter()
    with Wire(topology) as wire:
        for frame, outcome in steps:
            wire.send(frame)
            wanted[outcome] += 1
            assert until(lambda: running.solicitations() == wanted, 3.0), (outcome, running.solicitations(), wanted)
    with Wire(topology) as wire:
        tagged = question("2001:db8:4::1")
        wire.send(tagged[:12] + TAGS_8021Q + tagged[12:])
        assert until(lambda: running.solicitations("wan0:100") == {"monitored": 1})
        burst = list(scan(2000, "2001:db8:1::"))
        wire.deafen()
        wire.send(*burst)
    assert until(lambda: sum(running.solicitations().values()) == len(steps) + len(burst))
    assert running.solicitations()["rate_limited"] > 0
    rules = Counter[str]()
    for (name, labels), count in running.metrics().items():
        if name == "npd6_rule_solicitations_total" and ("interface", "wan0") in labels:
            rules[dict(labels)["outcome"]] += int(count)
    covered = running.solicitations()
    for outcome in (Outcome.OWN, Outcome.UNMATCHED, Outcome.INVALID):
        del covered[outcome]
    covered[Outcome.IGNORED] -= 2  # the next hop's and the link-local one, which no rule covers
    assert {name: count for name, count in rules.items() if count} == covered


def test_what_the_ring_cannot_hold_is_lost_and_what_cannot_be_sent_has_failed(
    topology: Topology, daemon: Start
) -> None:
    limits = "[limits]\nevents_per_second = 10000000\n"
    running = daemon(limits + configuration(datapath='"python"'))
    frames = list(scan(4_000))
    sent = 0
    with Wire(topology) as wire:
        wire.deafen()
        with paused(running):
            for _ in range(35):
                wire.send(*frames)
                sent += len(frames)
        assert until(lambda: sum(running.solicitations().values()) == sent, 20.0)
        assert running.solicitations()["lost"] > 0
        # what is in the ring when the port goes down can't be sent any more
        with paused(running):
            wire.send(*frames)
            sent += len(frames)
            topology.run("edge", "ip", "link", "set", "wan0", "down", check=True)
    assert until(lambda: sum(running.solicitations().values()) == sent, 10.0)
    assert running.solicitations()["failed"] == len(frames)


def test_a_running_peer_is_reported(topology: Topology, daemon: Start) -> None:
    fake = topology.directory / "ndppd"
    shutil.copy("/usr/bin/sleep", fake)
    process = topology.popen("edge", str(fake), "60")
    assert until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "ndppd\n")
    running = daemon(configuration())
    assert until(lambda: f"ndppd is running here (pid {process.pid})" in running.log)
