# SPDX-License-Identifier: GPL-2.0-or-later
"""Reload: all or nothing, by difference, and with not one solicitation unanswered that both configurations answer."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from tests.netns.wire import Asker, Wire, configuration, on_edge, question, scan, until

Start = Callable[..., RunningDaemon]

both = pytest.mark.parametrize("datapath", ["hybrid", "python"])

FAILURES = ("npd6_config_reload_failures_total", frozenset[tuple[str, str]]())


def reload(running: RunningDaemon, text: str) -> str:
    """Reload by the command; what it said."""
    running.write(text)
    done = running.command("reload")
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def stream(topology: Topology, per_second: int, *, unanswered: bool = False) -> Iterator[Callable[[], tuple[int, int]]]:
    """Solicitations of the upstream's at a rate; the function tells how many were sent, and how many answered.

    `unanswered` says that they needn't be: nobody waits for the last answers then, and the link may go down.
    """
    sent = answered = 0
    stopping = threading.Event()

    def send() -> None:
        nonlocal sent
        frames = list(scan(4096))
        began = time.monotonic()
        with Wire(topology) as wire:
            wire.deafen()
            while not stopping.is_set():
                due = int((time.monotonic() - began) * per_second)
                while sent < due:
                    with suppress(OSError) if unanswered else nullcontext():
                        wire.send(frames[sent % len(frames)])
                    sent += 1
                time.sleep(0.001)

    def receive() -> None:
        nonlocal answered
        with Wire(topology) as wire:
            wire.only_advertisements()
            listening.set()
            while not done.is_set():
                answered += sum(1 for _ in wire.received(0.1))

    listening, done = threading.Event(), threading.Event()
    receiver = threading.Thread(target=receive)
    receiver.start()
    listening.wait(5)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield lambda: (sent, answered)
    finally:
        stopping.set()
        sender.join()
        if not unanswered:
            until(lambda: answered >= sent, 3.0)
        done.set()
        receiver.join()


def variant(number: int, datapath: str) -> str:
    """Configurations that differ in what they are made of, and all answer for the scanned targets."""
    keys = {"datapath": f'"{datapath}"', "events_per_source": "0"}
    rules = (
        ("2001:db8:1::/64 static",),
        ("2001:db8:1::/64 static exclude=::dead", "2001:db8:2::/64 ignore"),
        ("2001:db8:1::/64 ignore", "2001:db8:1::/72 static", "2001:db8:1:0:8000::/65 ignore"),
        ("2001:db8::/32 static", "2001:db8:1::/64 route via=lan0"),
        ("2001:db8:1::/64 static include=::/65,::8000:0:0:0-::ffff:ffff:ffff:ffff",),
        ("interface:lan0 static router=false",),
    )
    return configuration(*rules[number % len(rules)], **keys)


@both
def test_fifty_reloads_under_a_stream_of_solicitations_leave_none_unanswered(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    running = daemon(variant(0, datapath))
    pid = running.process.pid
    with stream(topology, 10_000) as counts:
        for number in range(1, 51):
            reload(running, variant(number, datapath))
    sent, answered = counts()
    print(f"{sent} sent")
    assert sent > 20_000
    assert (answered, running.process.pid) == (sent, pid)
    outcomes = running.solicitations()
    assert sum(outcomes.values()) <= sent


@both
def test_a_reload_that_outgrows_the_kernel_maps_leaves_none_unanswered_and_counts_on(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    keys = {"datapath": f'"{datapath}"', "events_per_source": "0"}
    running = daemon(configuration("2001:db8:1::/64 static", **keys))
    with stream(topology, 10_000) as counts:
        for many in (200, 500):
            rules = [f"2001:db8:{0x1000 + number:x}::/48 static" for number in range(many)]
            assert f"{many + 1} rules" in reload(running, configuration("2001:db8:1::/64 static", *rules, **keys))
            time.sleep(0.7)  # the old program's retirement
    assert "the kernel maps have grown" in running.log
    sent, answered = counts()
    assert answered == sent
    assert running.solicitations() == {"answered_xdp" if datapath == "hybrid" else "answered_python": sent}
    with Wire(topology) as wire:
        assert Asker(wire, running).answered("2001:db8:11f3::1")


def many_rules(count: int, changed: int, datapath: str) -> str:
    """A configuration of many rules besides that for the scanned targets, the first of them in two variants."""
    keys = {"datapath": f'"{datapath}"', "events_per_source": "0"}
    rules = [
        f"2001:{0xDB9 if number % 3 else 0xDBA:x}:{number:x}::/{48 if number % 2 else 128}"
        f" {'route' if number < changed and number % 4 else 'static'}"
        for number in range(count)
        if number >= changed or number % 5
    ]
    return configuration("2001:db8:1::/64 static", *rules, **keys)


@both
def test_reloads_of_many_rules_leave_none_unanswered(topology: Topology, daemon: Start, datapath: str) -> None:
    running = daemon(many_rules(20_000, 0, datapath))
    with stream(topology, 5_000) as counts:
        for changed in (1_000, 0, 1_000):
            assert "rules on wan0" in reload(running, many_rules(20_000, changed, datapath))
    sent, answered = counts()
    assert answered == sent
    assert sum(running.solicitations().values()) == sent
    (rule,) = [words for name, words in running.metrics() if name == "npd6_rule_solicitations_total"]
    assert dict(rule)["rule"] == "2001:db8:1::/64", "of so many rules only what happened is shown"


@both
def test_a_broken_file_changes_nothing_and_is_reported(topology: Topology, daemon: Start, datapath: str) -> None:
    running = daemon(configuration(datapath=f'"{datapath}"'))
    broken = (
        "[[interface]\n",
        configuration("2001:db8:1::/64 neighbour"),
        configuration("2001:db8:2::/64 static").replace("wan0", "lo"),
    )
    with stream(topology, 2_000) as counts:
        for number, text in enumerate(broken, 1):
            running.write(text)
            done = running.command("reload")
            assert done.returncode == 1
            assert "the old configuration stays" in done.stderr
            assert running.metrics()[FAILURES] == number
    sent, answered = counts()
    assert answered == sent
    assert "lo: not an Ethernet interface" in running.command("status").stdout
    reload(running, configuration("2001:db8:2::/64 static", datapath=f'"{datapath}"'))
    status = running.command("status").stdout
    assert "reloads that failed: 3" in status
    assert "lo: not an Ethernet interface" not in status
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.answered("2001:db8:2::1")
        assert asker.outcome(HOST_ADDRESS) == "unmatched"


def test_a_port_that_refuses_undoes_the_whole_reload(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    topology.xdp_pass("edge", "lan0")
    lan = configuration("2001:db8:7::/64 static").replace("wan0", "lan0")
    running.write(configuration("2001:db8:2::/64 static", attach='"native"') + lan)
    done = running.command("reload")
    assert done.returncode == 1
    assert "lan0: another XDP program is attached" in done.stderr
    assert topology.xdp_mode("edge", "wan0") == "generic"
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.answered(HOST_ADDRESS)
        assert asker.outcome("2001:db8:2::1") == "unmatched"
    topology.xdp_pass_end()
    reload(running, running.config_file.read_text())
    assert (topology.xdp_mode("edge", "wan0"), topology.xdp_mode("edge", "lan0")) == ("native", "generic")


def test_a_reload_by_signal_takes_up_ports_logs_and_addresses(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    link = topology.ip("edge", "link", "show", "dev", "wan0")[0]["xdp"]["prog"]["id"]
    lan = configuration("2001:db8:7::/64 static").replace("wan0", "lan0")
    text = f'[metrics]\nlisten = "[::1]:9847"\n[daemon]\nlog_format = "json"\n{configuration()}{lan}'
    running.write(text)
    running.process.send_signal(signal.SIGHUP)
    assert until(lambda: '"message": "reload: the new configuration is in use"' in running.log)
    assert topology.ip("edge", "link", "show", "dev", "wan0")[0]["xdp"]["prog"]["id"] == link, "not attached anew"
    assert topology.xdp_mode("edge", "lan0") == "generic"
    assert 'interface="lan0"' in running.metrics_text(port=9847)
    running.write(configuration())
    running.process.send_signal(signal.SIGHUP)
    assert until(lambda: topology.xdp_mode("edge", "lan0") is None)
    assert 'interface="lan0"' not in running.metrics_text()


def test_another_control_socket_is_taken_up_and_who_asked_for_it_is_told(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    other = topology.directory / "other.sock"
    running.write(f'[daemon]\ncontrol = "{other}"\n{configuration()}')
    assert "the new configuration is in use" in running.command("reload").stdout
    assert not running.control.exists()
    running.control = other
    running.write(configuration("2001:db8:2::/64 static"))
    assert "1 rule on wan0" in running.command("reload").stdout
    assert "2001:db8:2::/64" in running.command("status").stdout


@both
def test_neighbours_are_known_at_once_to_a_configuration_that_asks_for_them(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    """Both configurations answer for a present host, so it is answered all along, and resolved no second time."""
    keys = {"datapath": f'"{datapath}"', "events_per_source": "0"}
    on_edge(topology, "-6 neigh replace 2001:db8:1::42 lladdr 02:00:00:00:00:42 dev lan0 nud permanent")
    running = daemon(configuration("2001:db8:1::/64 static", **keys))
    for rule in ("2001:db8:1::/64 neighbour via=lan0", "2001:db8:1::/60 neighbour via=lan0,lan9", "::/0 route") * 2:
        reload(running, configuration(rule, **keys))
        with Wire(topology) as wire:
            answer = wire.ask(question(HOST_ADDRESS))
            assert answer is not None
            assert not NeighborAdvertisement.parse(answer).override
    assert "pending" not in running.solicitations()
