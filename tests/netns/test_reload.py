# SPDX-License-Identifier: GPL-2.0-or-later
"""Reload: all or nothing, by difference, and with not one solicitation unanswered that both configurations answer."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from npd6_xdp.tools.control import ask
from tests.frames import ip6
from tests.netns.verb import verb
from tests.netns.wire import (
    Asker,
    Flood,
    Wire,
    configuration,
    flood,
    hearing,
    on_edge,
    private_megabytes,
    question,
    scan,
    until,
)

Start = Callable[..., RunningDaemon]

both = pytest.mark.parametrize("datapath", ["hybrid", "python"])

FAILURES = ("npd6_config_reload_failures_total", frozenset[tuple[str, str]]())
SUCCESSFUL = ("npd6_config_last_reload_successful", frozenset[tuple[str, str]]())


def reload(running: RunningDaemon, text: str) -> str:
    """Reload by the command; what it said."""
    running.write(text)
    done = verb(running, "reload")
    assert done.returncode == 0, done.stderr
    return done.stdout


SCANNED = ip6("2001:db8:1::")[:8]
UNDER_WAY = 1_000
"""Solicitations, a tenth of a second's."""


class Stream:
    """Solicitations at a rate, each for another target, and the answers to them."""

    def __init__(self, flooding: Flood, wanted: int) -> None:
        self.flooding, self._wanted = flooding, wanted
        self.answers = 0
        self.answered: set[bytes] = set()

    @property
    def sent(self) -> int:
        return self.flooding.sent

    def steady(self) -> bool:
        """Whether it came anywhere near the rate that was wanted, as it does on a busy machine, too."""
        return self.flooding.rate >= 0.1 * self._wanted

    def all_answered_once(self) -> bool:
        """Whether each target was answered, and none a second time."""
        print(f"{self.sent} sent, {self.flooding.rate:.0f}/s; {self.answers} answers, {len(self.answered)} targets")
        return self.answers == len(self.answered) == self.sent


@contextmanager
def stream(topology: Topology, per_second: int, *, unanswered: bool = False) -> Iterator[Stream]:
    """A stream of the upstream's, beside what the block does.

    `unanswered` says that they needn't be: nobody waits for the last answers then, and the link may go down. Else no
    more are on their way than Python's ring has space for, however busy the machine is.
    """

    def hear(frame: bytes) -> None:
        target = frame[62:78]
        if target.startswith(SCANNED):  # the edge's kernel may be asked for an address of its own
            found.answers += 1
            found.answered.add(target)

    def waits() -> bool:
        return not unanswered and found.sent - found.answers > UNDER_WAY

    found = Stream(Flood(), per_second)
    with hearing(topology, hear):
        with flood(topology, scan(1 << 24), per_second, lossy=unanswered, waits=waits) as found.flooding:
            yield found
        if not unanswered:
            until(lambda: found.answers >= found.sent, 3.0)


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


BROKEN = (
    "[[interface]\n",
    configuration("2001:db8:1::/64 neighbour"),
    configuration("2001:db8:2::/64 static").replace("wan0", "lo"),
)


@pytest.mark.alone
@both
def test_fifty_reloads_under_a_stream_of_solicitations_leave_none_unanswered(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    """By the control socket itself, since starting a command takes longer; and each tenth file is broken."""
    running = daemon(variant(0, datapath))
    pid = running.process.pid
    failed = 0
    with stream(topology, 10_000) as asked:
        for number in range(1, 51):
            if number % 10 == 5:
                running.write(BROKEN[failed % len(BROKEN)])
                failed += 1
                with pytest.raises(MachineError, match="the old configuration stays"):
                    ask(running.control, {"verb": "reload"})
            running.write(variant(number, datapath))
            assert ask(running.control, {"verb": "reload"})["rules"] == variant(number, datapath).count("prefix =")
            time.sleep(0.04)
    assert asked.sent > 5_000
    assert asked.steady()
    assert asked.all_answered_once()
    assert running.process.pid == pid
    assert running.process.poll() is None
    outcomes = running.solicitations()
    outcomes.pop("own", None)  # the upstream's kernel may ask for the edge by itself
    assert sum(outcomes.values()) == asked.sent
    assert set(outcomes) <= {"answered_xdp", "answered_python"}
    assert running.metrics()[FAILURES] == failed == 5


@pytest.mark.alone
@both
def test_a_reload_that_outgrows_the_kernel_maps_leaves_none_unanswered_and_counts_on(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    keys = {"datapath": f'"{datapath}"', "events_per_source": "0"}
    running = daemon(configuration("2001:db8:1::/64 static", **keys))
    with stream(topology, 10_000) as asked:
        for many in (200, 500):
            rules = [f"2001:db8:{0x1000 + number:x}::/48 static" for number in range(many)]
            running.write(configuration("2001:db8:1::/64 static", *rules, **keys))
            assert ask(running.control, {"verb": "reload"})["rules"] == many + 1
            time.sleep(0.7)  # the old program's retirement
    assert until(lambda: "the kernel maps have grown" in running.log)
    assert asked.steady()
    assert asked.all_answered_once()
    outcomes = running.solicitations()
    outcomes.pop("own", None)
    assert outcomes == {"answered_xdp" if datapath == "hybrid" else "answered_python": asked.sent}
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


@pytest.mark.alone
@both
def test_reloads_of_many_rules_leave_none_unanswered(topology: Topology, daemon: Start, datapath: str) -> None:
    running = daemon(many_rules(20_000, 0, datapath))
    with stream(topology, 5_000) as asked:
        for changed in (1_000, 0, 1_000):
            assert "rules on wan0" in reload(running, many_rules(20_000, changed, datapath))
    assert asked.all_answered_once()
    outcomes = running.solicitations()
    outcomes.pop("own", None)  # the upstream's kernel may ask for the edge by itself
    assert sum(outcomes.values()) == asked.sent
    (rule,) = [words for name, words in running.metrics() if name == "npd6_rule_solicitations_total"]
    assert dict(rule)["rule"] == "2001:db8:1::/64", "of so many rules only what happened is shown"


@pytest.mark.exec
def test_of_rules_that_went_nothing_stays(topology: Topology, daemon: Start) -> None:
    """Each time all of 5,000, by another program: that, its table and the configuration were kept, 4 MB a time."""
    running = daemon(_wholly_other(0))
    for number in range(1, 4):  # after these, memory is used again
        reload(running, _wholly_other(number))
    before = private_megabytes(running)
    for number in range(4, 12):
        reload(running, _wholly_other(number))
    # what isn't needed any more goes bit by bit
    assert until(lambda: private_megabytes(running) < before + 10), private_megabytes(running) - before


def _wholly_other(number: int) -> str:
    return configuration(*(f"2001:db8:{number:x}:{rule:x}::/64 static" for rule in range(5000)))


@both
def test_a_broken_file_changes_nothing_and_is_reported(topology: Topology, daemon: Start, datapath: str) -> None:
    running = daemon(configuration(datapath=f'"{datapath}"'))
    assert running.metrics()[SUCCESSFUL] == 1, "of the start"
    with stream(topology, 2_000) as asked:
        for number, text in enumerate(BROKEN, 1):
            running.write(text)
            done = running.command("reload")
            assert done.returncode == 1
            assert "the old configuration stays" in done.stderr
            assert running.metrics()[FAILURES] == number
            assert running.metrics()[SUCCESSFUL] == 0
    assert asked.all_answered_once()
    assert "lo: not an Ethernet interface" in verb(running, "status").stdout
    reload(running, configuration("2001:db8:2::/64 static", datapath=f'"{datapath}"'))
    assert running.metrics()[SUCCESSFUL] == 1
    status = verb(running, "status").stdout
    assert "reloads that failed: 3" in status
    assert "lo: not an Ethernet interface" not in status
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.answered("2001:db8:2::1")
        assert asker.outcome(HOST_ADDRESS) == "unmatched"


def test_a_port_that_refuses_undoes_the_whole_reload(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    topology.xdp_pass("edge", "lan0")
    lan = configuration("2001:db8:7::/64 static", attach='"generic"').replace("wan0", "lan0")
    running.write(configuration("2001:db8:2::/64 static", attach='"native"') + lan)
    done = verb(running, "reload")
    assert done.returncode == 1
    assert "lan0: another XDP program is attached" in done.stderr
    assert topology.attach_mode("edge", "wan0") == "tc"
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.answered(HOST_ADDRESS)
        assert asker.outcome("2001:db8:2::1") == "unmatched"
    topology.xdp_pass_end()
    reload(running, running.config_file.read_text())
    assert (topology.xdp_mode("edge", "wan0"), topology.xdp_mode("edge", "lan0")) == ("native", "generic")


def links(running: RunningDaemon) -> set[int]:
    """The ids of the BPF links by which the daemon's program is attached: another attachment, another id."""
    found = set()
    for file in Path(f"/proc/{running.process.pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found |= {int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith("link_id:")}
    return found


def test_a_reload_by_signal_takes_up_ports_logs_and_addresses(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    (link,) = links(running)
    lan = configuration("2001:db8:7::/64 static").replace("wan0", "lan0")
    text = f'[metrics]\nlisten = "[::1]:9847"\n[daemon]\nlog_format = "json"\n{configuration()}{lan}'
    running.write(text)
    running.process.send_signal(signal.SIGHUP)
    assert until(lambda: '"message": "reload: the new configuration is in use"' in running.log)
    assert len(links(running)) == 2
    assert link in links(running), "not attached anew"
    assert topology.attach_mode("edge", "lan0") == "tc"
    assert 'interface="lan0"' in running.metrics_text(port=9847)
    running.write(configuration())
    running.process.send_signal(signal.SIGHUP)
    assert until(lambda: topology.attach_mode("edge", "lan0") is None)
    running.settle()  # what follows the reload's last port
    assert 'interface="lan0"' not in running.metrics_text()
    assert links(running) == {link}
    running.write(configuration(attach='"native"'))
    running.process.send_signal(signal.SIGHUP)
    assert until(lambda: topology.xdp_mode("edge", "wan0") == "native")
    running.settle()
    assert link not in links(running), "this one demands it"
    several = '["127.0.0.1:9846", "[::1]:9846", "127.0.0.1:9847"]'
    for listen, hosts in (
        ('"[::]:9846"', ("127.0.0.1", "::1")),  # while the one before still has the port
        ('"[::1]:9846"', ("::1",)),
        (several, ("::1", "127.0.0.1")),
        ('["[::]:9846"]', ("::1", "127.0.0.1")),
    ):
        reload(running, f"[metrics]\nlisten = {listen}\n{configuration()}")
        for host in hosts:
            assert 'interface="wan0"' in running.metrics_text(host)
        if listen == several:
            assert 'interface="wan0"' in running.metrics_text("127.0.0.1", 9847)


def test_a_signal_to_reload_a_broken_file_leaves_the_old_configuration_and_says_why(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(configuration())
    (link,) = links(running)
    running.write(configuration("2001:db8:2::/64 nowhere"))
    running.process.send_signal(signal.SIGHUP)
    assert until(lambda: "reload: the old configuration stays" in running.log)
    assert until(lambda: "interface[0].rule[0].method" in running.log)
    assert running.metrics()[FAILURES] == 1
    status = verb(running, "status").stdout
    assert status.startswith("degraded: 1 problem\n  the last reload failed; the configuration before it is in use:\n")
    assert "reloads that failed: 1" in status
    assert "interface[0].rule[0].method" in status
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        assert asker.answered(HOST_ADDRESS)
        assert asker.outcome("2001:db8:2::1") == "unmatched"
    assert links(running) == {link}


def refusals(running: RunningDaemon, text: str) -> tuple[list[str], list[str], dict[str, Any]]:
    """What a reload that fails says: in the log, as the command, and as the answer on the control socket."""
    running.write(text)
    logged = len(running.log)
    done = verb(running, "reload")
    assert done.returncode == 1
    assert until(lambda: "the old configuration stays" in running.log[logged:])
    log = running.log[logged:].splitlines()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(running.control))
        connection.sendall(b'{"verb": "reload"}\n')
        answer = json.loads(b"".join(iter(lambda: connection.recv(1 << 16), b"")))
    assert done.stderr == "".join(f"npd6-xdp: {line}\n" for line in answer["error"].splitlines())
    return log, done.stderr.splitlines(), answer


def test_reload_as_json_says_what_has_changed_or_each_mistake_with_its_place(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    running.write("[limits]\npending = 100\n" + configuration("2001:db8:1::/64 static", "2001:db8:9::/64 static"))
    done = verb(running, "reload", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "applied": True,
        "rules": 2,
        "interfaces": ["wan0"],
        "warnings": [],
        "changed": {
            "keys": ["limits.pending"],
            "interfaces": {"added": [], "removed": [], "changed": ["wan0"]},
            "rules": {"added": 1, "removed": 0, "changed": 0},
        },
    }
    running.write(MISTAKEN)
    checked = json.loads(running.command("check", "--config", str(running.config_file), "--json").stdout)
    done = verb(running, "reload", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["applied"] is False
    assert found["mistakes"] == checked["mistakes"]
    assert [(each["line"], each["column"]) > (0, 0) for each in found["mistakes"]] == [True, True]
    assert done.stderr == "".join(f"npd6-xdp: {line}\n" for line in found["error"].splitlines())
    running.write(TAKEN)
    found = json.loads(verb(running, "reload", "--json").stdout)
    assert (found["applied"], found["mistakes"]) == (False, [])
    assert "192.0.2.1" in found["error"]
    running.stop()
    done = verb(running, "reload", "--json")
    assert (done.returncode, json.loads(done.stdout)["applied"]) == (1, False)


MISTAKEN = configuration("2001:db8:2::/64 nowhere", "2001:db8:3::/64 statik")
TAKEN = f'[metrics]\nlisten = "192.0.2.1:9"\n{configuration()}'


@pytest.mark.parametrize(("text", "count"), [(MISTAKEN, 2), ("no = toml = 1", 1), (TAKEN, 1)])
@pytest.mark.parametrize("style", ["text", "json"])
def test_a_reload_that_fails_says_each_mistake_once(daemon: Start, style: str, text: str, count: int) -> None:
    running = daemon(f'[daemon]\nlog_format = "{style}"\n{configuration()}')
    log, told, answer = refusals(running, text)
    *reasons, last = log
    assert len(reasons) == len(told) == count
    if style == "json":
        entries = [json.loads(line) for line in reasons]
        reasons = [f"npd6-xdp: {entry['level']}: {entry['message']}" for entry in entries]
        last = json.loads(last)["message"]
        for entry, mistake in zip(entries, answer.get("mistakes", entries), strict=True):
            same = {key: value for key, value in mistake.items() if value is not None and key != "message"}
            assert same.items() <= entry.items()
            assert entry["error"] in entry["message"]
    assert last.endswith("reload: the old configuration stays")
    mistakes = [line.removeprefix("npd6-xdp: ").removeprefix("the old configuration stays: ") for line in told]
    assert reasons == [f"npd6-xdp: error: reload: {mistake}" for mistake in mistakes]
    assert len({*mistakes}) == count
    assert ("mistakes" in answer) == (text is not TAKEN)
    file = str(running.config_file)
    assert all(each["file"] == file and each["line"] and each["column"] for each in answer.get("mistakes", ()))


def test_another_control_socket_is_taken_up_and_who_asked_for_it_is_told(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    other = topology.directory / "other.sock"
    running.write(f'[daemon]\ncontrol = "{other}"\n{configuration()}')
    assert "the new configuration is in use" in verb(running, "reload").stdout
    assert not running.control.exists()
    running.control = other
    running.write(configuration("2001:db8:2::/64 static"))
    assert "1 rule on wan0" in verb(running, "reload").stdout
    assert "2001:db8:2::/64" in verb(running, "status").stdout


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
