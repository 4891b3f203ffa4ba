# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon says of itself: status as text and JSON, SIGUSR1, recent targets, groups, and the log."""

from __future__ import annotations

import json
import re
import signal
import stat
import time
from collections.abc import Callable
from typing import Any

import pytest

from npd6_xdp.lab.daemon import RunningDaemon, StartError
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from npd6_xdp.tools.control import ask
from tests.netns.verb import verb
from tests.netns.wire import LATE, SETTING, Asker, Wire, configuration, question, scan, until

Start = Callable[..., RunningDaemon]

both = pytest.mark.parametrize("datapath", ["hybrid", "python"])


def status(running: RunningDaemon) -> dict[str, Any]:
    done = verb(running, "status", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.needs_table
def test_status_says_what_there_is(topology: Topology, daemon: Start) -> None:
    rules = ("2001:db8:1::/64 neighbour via=lan0 host_routes=true", "2001:db8:2::/64 kernel", "2001:db8:3::/64 static")
    topology.sysctl("edge", "net/ipv6/neigh/lan0/mcast_solicit", 30)  # who isn't there is looked for long enough
    running = daemon(configuration(*rules))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.answered(HOST_ADDRESS, LATE)
        asker.outcome("2001:db8:2::1")
        asker.outcome("2001:db8:3::1")
        asker.outcome("2001:db8:1::dead")
        now = ask(running.control, {"verb": "status"})
    assert status(running).keys() == now.keys()
    assert now["configuration"] == str(running.config_file)
    (interface,) = now["interfaces"]
    assert (interface["interface"], interface["attach"], interface["up"]) == ("wan0", "tc", True)
    assert interface["attach_reason"] == "native XDP_TX is lost on veth unless the peer has a program, too"
    outcomes = {name: count for name, count in interface["solicitations"].items() if count}
    assert outcomes == {"pending": 2, "answered_python": 1, "answered_xdp": 1}
    assert [(rule["rule"], rule["method"]) for rule in now["rules"]] == [
        ("2001:db8:1::/64", "neighbour"),
        ("2001:db8:2::/64", "kernel"),
        ("2001:db8:3::/64", "static"),
    ]
    assert now["neighbours"] == [{"interface": "lan0", "address": HOST_ADDRESS, "state": "reachable"}]
    assert now["host_routes"] == [{"interface": "lan0", "address": HOST_ADDRESS}]
    assert now["kernel_proxy_entries"] == [{"interface": "wan0", "address": "2001:db8:2::1"}]
    assert now["pending"] == ["2001:db8:1::dead"]
    text = running.command("status").stdout
    # the kernel's neighbour table is all namespaces' together: others may have it nearly full
    assert re.match(r"(working|degraded: 1 problem\n  the kernel's neighbour table: .*)\n\n?npd6-xdp ", text), text
    for line in (
        f"  not native: {interface['attach_reason']}",
        "wan0: attached at tc ingress, datapath hybrid, up",
        "rule 2001:db8:1::/64 neighbour: pending 2",
        f"{HOST_ADDRESS} dev lan0 reachable",
        "kernel proxy entries: 1",
        "pending 2 (sent for resolution)",
        "python 2 (1 after resolution)\n",
        "pending: 1 being resolved\n",
    ):
        assert line in text
    running.process.send_signal(signal.SIGUSR1)
    assert until(lambda: "npd6-xdp: info: wan0: attached at tc ingress, datapath hybrid, up" in running.log)


@both
def test_recent_targets_are_remembered_in_both_datapaths(topology: Topology, daemon: Start, datapath: str) -> None:
    running = daemon(configuration(datapath=f'"{datapath}"', collect_targets="4", events_per_source="0"))
    before = time.time()
    typo = "2001:db8:2::1"  # no rule covers it
    with Wire(topology) as wire:
        wire.send(*scan(5_000))
        wire.send(*scan(5_000, "2001:db8:9::"))
        for _ in range(3):
            assert wire.ask(question(HOST_ADDRESS)) is not None
            wire.ask(question(typo), 0.01)
        assert until(lambda: status(running)["targets"][0]["target"] == typo)
    targets = status(running)["targets"]
    by_target = {target["target"]: target for target in targets}
    assert len(targets) == len(by_target) == 4
    assert [targets[0]["target"], targets[1]["target"]] == [typo, HOST_ADDRESS]
    asker = {"source": "fe80::ff:fe00:1", "source_mac": SETTING.asker_mac.hex(":"), "interface": "wan0", "count": 3}
    answered = "answered_xdp" if datapath == "hybrid" else "answered_python"
    assert by_target[HOST_ADDRESS].items() >= {**asker, "outcome": answered}.items()
    assert by_target[typo].items() >= {**asker, "outcome": "unmatched"}.items()
    assert before - 1 < targets[1]["first"] < targets[1]["last"] < time.time() + 1
    assert [target["count"] for target in targets[2:]] == [1, 1]
    assert {target["outcome"] for target in targets[2:]} == {answered, "unmatched"}
    line = f" by fe80::ff:fe00:1 ({asker['source_mac']}): {answered}"
    text = verb(running, "status").stdout
    assert f"{HOST_ADDRESS} on wan0: 3 times" in text
    assert line in text
    running.process.send_signal(signal.SIGUSR1)
    assert until(lambda: line in running.log)


@both
@pytest.mark.needs_table
def test_a_recent_target_has_the_outcome_that_python_has_found(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    rules = "2001:db8:1::/64 neighbour via=lan0", "2001:db8:2::/64 kernel"
    running = daemon(configuration(*rules, datapath=f'"{datapath}"', collect_targets="10"))

    def outcomes() -> dict[str, str]:
        return {target["target"]: target["outcome"] for target in status(running)["targets"]}

    with Wire(topology) as wire:
        asker = Asker(wire, running)
        counted = {target: asker.outcome(target) for target in ("2001:db8:1::dead", "2001:db8:2::1")}
    assert counted == {"2001:db8:1::dead": "pending", "2001:db8:2::1": "answered_python"}
    assert outcomes() == counted


def test_nobody_but_root_and_its_group_gets_at_the_control_socket(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    mode = running.control.stat()
    assert (stat.S_IMODE(mode.st_mode), mode.st_uid) == (0o660, 0)
    running.stop()
    assert not running.control.exists()
    done = verb(running, "status")
    assert done.returncode == 1
    assert done.stderr.startswith(f"npd6-xdp: {running.control}: no npd6-xdp is running there")


def test_a_second_daemon_on_one_control_socket_is_refused_and_a_dead_ones_is_taken(
    topology: Topology, daemon: Start
) -> None:
    control = topology.directory / "shared.sock"
    text = f'[daemon]\ncontrol = "{control}"\n' + configuration()
    first = daemon(text)
    with pytest.raises(StartError) as refused:
        daemon(text.replace("wan0", "lan0"))
    assert "another npd6-xdp is at" in refused.value.log
    assert first.process.poll() is None
    first.kill()
    assert control.exists()
    daemon(text)


def test_groups_of_single_addresses_and_small_ranges_are_joined_and_left(topology: Topology, daemon: Start) -> None:
    def joined() -> set[str]:
        found = topology.ip("edge", "maddress", "show", "dev", "wan0")
        return {entry["address"] for entry in found[0]["maddr"] if entry.get("family") == "inet6"}

    before = joined()
    rules = ("2001:db8:1::12:3456 static", "2001:db8:1::aa:1-2001:db8:1::aa:2 route", "2001:db8:2::/64 static")
    running = daemon(configuration(*rules, "2001:db8:1::ff:9 ignore"))
    fresh = {"ff02::1:ff12:3456", "ff02::1:ffaa:1", "ff02::1:ffaa:2"}
    assert joined() - before == fresh
    running.write(configuration("2001:db8:1::12:3456 static", "2001:db8:5::7 static"))
    assert verb(running, "reload").returncode == 0
    assert joined() - before == {"ff02::1:ff12:3456", "ff02::1:ff00:7"}
    running.write(configuration(*[f"2001:db8:5::{number:x} static" for number in range(1, 400)]))
    assert verb(running, "reload").returncode == 0
    assert len(joined() - before) in (255, 256), "one of them may be that of an address of its own"
    running.kill()
    assert until(lambda: joined() == before)


def test_the_log_is_one_line_a_change_and_at_debug_not_one_a_packet(topology: Topology, daemon: Start) -> None:
    text = '[daemon]\nlog_level = "debug"\nlog_format = "json"\n'
    running = daemon(text + configuration(datapath='"python"'))
    began = time.monotonic()
    with Wire(topology) as wire:
        wire.deafen()
        wire.send(*scan(5_000))
    assert until(lambda: running.solicitations() == {"answered_python": 5_000})
    took = time.monotonic() - began
    lines = [json.loads(line) for line in running.log.splitlines()]
    about = [line for line in lines if "asks who has" in line["message"]]
    assert 1 <= len(about) <= 10 * (took + 2), "ten a second"
    assert about[0]["level"] == "debug"


@pytest.mark.needs_table
def test_at_info_five_thousand_solicitations_of_all_kinds_add_no_line(topology: Topology, daemon: Start) -> None:
    rules = (
        "2001:db8:1::/64 static",
        "2001:db8:2::/64 route",
        "2001:db8:3::/64 neighbour via=lan0",
        "2001:db8:4::/64 ignore",
        "2001:db8:5::/64 kernel",
    )
    limits = "[limits]\npending = 16\nkernel_entries = 2000\n"
    running = daemon(limits + configuration(*rules, datapath='"python"', events_per_source="0"))
    before = running.log
    with Wire(topology) as wire:
        wire.deafen()
        for number in range(6):
            wire.send(*scan(900, f"2001:db8:{number}::"))
        wire.send(*[frame[:-1] + b"\0" for frame in scan(100)])  # checksums that don't fit
    assert until(lambda: sum(running.solicitations().values()) == 5_500)
    assert set(running.solicitations()) == {
        "absent", "answered_python", "ignored", "invalid", "pending", "rate_limited", "unmatched"
    }  # fmt: skip
    assert running.log == before
