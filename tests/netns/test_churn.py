# SPDX-License-Identifier: GPL-2.0-or-later
"""A router's year in half a minute: what a daemon has lived through leaves it as one that has just started."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import HOST_MAC, Topology
from npd6_xdp.tools.control import ask
from tests.netns.test_reload import stream
from tests.netns.verb import verb
from tests.netns.wire import (
    Asker,
    Wire,
    configuration,
    each_counted,
    open_files_of,
    settled_files,
    solicitations_sent,
    until,
)

Start = Callable[..., RunningDaemon]

TARGETS = [f"2001:db8:{net:x}::{host:x}" for net in range(1, 7) for host in (0x42, 0x43, 0xDEAD)]
RULES = (
    "2001:db8::/32 route",
    "2001:db8:1::/64 neighbour via=lan0",
    "2001:db8:1::/64 static exclude=::dead",
    "2001:db8:2::/64 kernel",
    "2001:db8:2::/64 neighbour via=lan0,lan1 host_routes=true",
    "2001:db8:3::/64 route via=lan0",
    "2001:db8:4::/64 ignore",
    "2001:db8:4::/64 static include=::42",
    "interface:lan0 static",
    "2001:db8:5::42-2001:db8:5::43 static",
)
CHANGES = 200  # in a random life, of some five seconds; another one is found by running it again


def machine_changes(random_: random.Random) -> str:
    """Something that ip(8) does on the edge; it may fail, as things are."""
    net, host = random_.randint(1, 6), random_.choice(("42", "43", "dead"))
    lan = random_.choice(("lan0", "lan1"))
    return random_.choice(
        (
            f"addr add 2001:db8:{net}::1/64 dev {lan} nodad",
            f"addr del 2001:db8:{net}::1/64 dev {lan}",
            f"addr add 2001:db8:{net}::{host}/128 dev wan0 nodad",
            f"addr del 2001:db8:{net}::{host}/128 dev wan0",
            f"-6 route replace 2001:db8:{net}::/64 dev {lan}",
            f"-6 route replace blackhole 2001:db8:{net}::/64",
            f"-6 route del 2001:db8:{net}::/64",
            f"-6 route replace 2001:db8:f::/64 via 2001:db8:{net}::{host} dev wan0 onlink",
            f"-6 neigh replace 2001:db8:{net}::{host} lladdr {HOST_MAC} dev {lan} nud permanent",
            f"-6 neigh del 2001:db8:{net}::{host} dev {lan}",
            f"link set {lan} down",
            f"link set {lan} up",
            "link set wan0 down",
            "link set wan0 up",
            "link del lan1",
            "link add lan1 type veth peer name lan1p",
            "link set lan1p up",
            f"link set wan0 address 02:00:00:00:00:{random_.choice(('02', '03'))}",
        )
    )


def some_configuration(random_: random.Random, datapath: str) -> str:
    """Some of the rules, each prefix once."""
    chosen = {rule.split()[0]: rule for rule in random_.sample(RULES, random_.randint(1, len(RULES)))}
    keys = {"datapath": f'"{datapath}"', "events_per_source": "0"}
    return configuration(*chosen.values(), **keys)


@pytest.mark.fills_table
@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_after_a_random_life_it_decides_like_one_that_has_just_started(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    """The seed stands in the output; NPD6_SEED has the same changes again."""
    seed = int(os.environ.get("NPD6_SEED", int.from_bytes(os.urandom(4), "big")))
    print(f"seed {seed}")
    random_ = random.Random(seed)  # noqa: S311
    running = daemon(some_configuration(random_, datapath))
    open_files = settled_files(running).total()
    with solicitations_sent(topology) as sent:
        with stream(topology, 3_000, unanswered=True):
            for _ in range(CHANGES):
                if random_.random() < 0.1:
                    running.write(some_configuration(random_, datapath))
                    assert verb(running, "reload").returncode == 0
                else:
                    topology.run("edge", "ip", *machine_changes(random_).split())
                sent()  # drained all along
        left = sent()
    for line in ("link set wan0 address 02:00:00:00:00:02", "link set lan0 up", "link set wan0 up"):
        topology.run("edge", "ip", *line.split(), check=True)
    assert running.process.poll() is None, running.log
    assert "Traceback" not in running.log
    assert until(lambda: open_files_of(running).total() <= open_files, 3.0), open_files_of(running)
    assert sum(running.solicitations().values()) <= left, "none is counted twice"
    deadline = time.monotonic() + 9.0  # ports that are down stay under detection
    while under_detection(topology) and time.monotonic() < deadline:
        time.sleep(0.05)
    with solicitations_sent(topology) as sent:
        is_each_counted = each_counted(sent, running)
        lived = decisions(topology, running)
        assert until(is_each_counted), "each is counted once"
    running.stop()
    fresh = daemon(running.config_file.read_text().replace(f'control = "{running.control}"\n', ""))
    assert decisions(topology, fresh) == lived


def under_detection(topology: Topology) -> bool:
    """Whether there is Duplicate Address Detection on ports that went up: no solicitation leaves before it is over."""
    links = topology.ip("edge", "-6", "address", "show", "tentative", "-dadfailed")
    links += topology.ip("upstream", "-6", "address", "show", "tentative", "-dadfailed")
    return any(link["addr_info"] for link in links)


def decisions(topology: Topology, running: RunningDaemon) -> dict[str, str]:
    """The outcome for each target, the second time it is asked for: what is pending is resolved or given up then."""
    for interface in ("lan0", "lan1"):
        with suppress(FileNotFoundError):  # the kernel gives a target up in 0.6 s, not in 3
            topology.sysctl("edge", f"net/ipv6/neigh/{interface}/retrans_time_ms", 200)

    def none_pending() -> bool:
        return bool(ask(running.control, {"verb": "status"})["pending"] == [])

    # else the asker is at its share, and the first question is refused, but not by a daemon that has just started: a
    # host that is there (2001:db8:1::42) was `pending` at the second then, and answered by the fresh one
    assert until(none_pending), "what the stream has asked for is given up"
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        for target in TARGETS:
            decided(asker, target)
        assert until(none_pending), "given up, or resolved"
        return {target: decided(asker, target) for target in TARGETS}


def decided(asker: Asker, target: str) -> str:
    """The outcome, once there is space for it in the neighbour table, which all namespaces share."""
    found: list[str] = []

    def has_space() -> bool:
        found.append(asker.outcome(target))
        return found[-1] != "rate_limited"

    until(has_space)
    return found[-1]
