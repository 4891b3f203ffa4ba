# SPDX-License-Identifier: GPL-2.0-or-later
"""doctor ADDRESS: where a step is broken for real, the first that fails is that one, and its mend mends it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from npd6_xdp.core.config_file import parse
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from npd6_xdp.tools.control import ask
from npd6_xdp.tools.doctor.finding import Finding, Level
from npd6_xdp.tools.doctor.follow import follow
from npd6_xdp.tools.doctor.reading import read
from tests.netns.verb import verb
from tests.netns.warm import warm
from tests.netns.wire import Wire, configuration, paused, question, until

pytestmark = pytest.mark.needs_table

Start = Callable[..., RunningDaemon]

RULES = "2001:db8:1::/64 neighbour via=lan0", "2001:db8:3::/64 route"
FAR = "2001:db8:f::1"  # an asker that isn't on the link
SENT = ("ping", "-6", "-c", "1", "-W", "1")
STEPS = [
    "daemon",
    "question",
    "rule",
    "decision",
    "answer",
    "forwarding",
    "route",
    "firewall",
    "host",
    "back",
    "way_back",
]


class Scene:
    """The lab with a daemon that remembers who asks."""

    def __init__(self, topology: Topology, running: RunningDaemon) -> None:
        self.topology = topology
        self.running = running

    def sh(self, *commands: str) -> None:
        """As root at a shell; of another machine's, with its namespace and a colon first."""
        for command in commands:
            namespace, found, rest = command.partition(": ")
            where, words = (namespace, rest) if found and " " not in namespace else ("edge", command)
            path = f"PATH={Path(sys.executable).parent}:$PATH"
            self.topology.run(where, "sh", "-c", f"{path}; {words}", check=True)  # type: ignore[arg-type]

    def ask(self, *options: str) -> None:
        """Have the upstream ask for the host, and try to reach it."""
        self.topology.run("upstream", *SENT, *options, HOST_ADDRESS)

    def follow(self, target: str = HOST_ADDRESS) -> list[Finding]:
        path = self.running.config_file
        text = path.read_text()
        with self.topology.inside("edge"):
            return follow(
                read(parse(text, str(path)), path, text, self.running.control, attach=False), IPv6Address(target)
            )


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        topology = stack.enter_context(Topology())
        text = configuration(*RULES, collect_targets="10")
        scene = Scene(topology, stack.enter_context(warm(topology, text)))
        assert until(lambda: topology.run("upstream", *SENT, HOST_ADDRESS).returncode == 0)
        yield scene


def bad(findings: Sequence[Finding]) -> list[Finding]:
    """Those that are in the way."""
    return [each for each in findings if each.level in (Level.FAIL, Level.WARN)]


def said(findings: Sequence[Finding]) -> str:
    return "\n".join(f"{each.level} {each.check}: {each.message} {each.mend}" for each in findings)


def test_on_a_healthy_edge_each_step_is_ok(scene: Scene) -> None:
    found = scene.follow()
    assert [each.check for each in found] == STEPS, said(found)
    assert {each.level for each in found} == {Level.OK}, said(found)


@dataclass(frozen=True)
class Fault:
    """How a step is broken, and mended where doctor's own words don't do it; `word` is in what is said."""

    step: str
    breaks: tuple[str, ...]
    undo: tuple[str, ...] = ()
    word: str = ""
    level: Level = Level.FAIL
    target: str = HOST_ADDRESS
    printed: bool = True
    """Whether the printed mend is to do it."""


FAULTS = {
    "a typo in the prefix": Fault("rule", (), word="unmatched", target="2001:db8:11::42", printed=False),
    "forwarding off": Fault("forwarding", ("sysctl -qw net.ipv6.conf.all.forwarding=0",), word="wan0"),
    "a route back to the asker's side": Fault(
        "route",
        (f"ip -6 route add {HOST_ADDRESS}/128 dev wan0",),
        (f"ip -6 route del {HOST_ADDRESS}/128 dev lan0",),
        "leads back out of wan0",
    ),
    "a prefix without a route": Fault(
        "route", (), word="leads back out of wan0", target="2001:db8:3::42", printed=False
    ),
    "a route that lets nothing pass": Fault(
        "route",
        (f"ip -6 route add unreachable {HOST_ADDRESS}/128",),
        (f"ip -6 route del unreachable {HOST_ADDRESS}/128",),
        "lets nothing pass",
        printed=False,
    ),
    "a policy that drops": Fault(
        "firewall",
        (
            "nft add table inet follow",
            "nft 'add chain inet follow forward { type filter hook forward priority 0; policy drop; }'",
        ),
        ("nft delete table inet follow",),
        "policy drop",
    ),
    "the host is off": Fault(
        "host",
        ("host: ip link set eth0 down", f"ip -6 neigh del {HOST_ADDRESS} dev lan0 || true"),
        ("host: ip link set eth0 up", "host: ip -6 address replace 2001:db8:1::42/64 dev eth0 nodad",
         "host: ip -6 route replace default via 2001:db8:1::1 dev eth0"),
        "nobody behind lan0",
        printed=False,
    ),
    "the host has no default route": Fault("back", ("host: ip -6 route del default",), word="no default route"),
    "no default route": Fault(
        "way_back",
        ("ip -6 route del default",),
        ("ip -6 route add default via 2001:db8::1 dev wan0",),
        "no default route",
        Level.WARN,
        printed=False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_the_first_step_that_fails_is_the_one_that_is_broken(scene: Scene, name: str) -> None:
    fault = FAULTS[name]
    scene.sh(*fault.breaks)
    try:
        found = scene.follow(fault.target)
        first = next(iter(bad(found)), None)
        assert first is not None, said(found)
        assert (first.check, first.level) == (fault.step, fault.level), said(found)
        assert fault.word in first.message, said(found)
        if fault.printed:
            assert first.mend, said(found)
            scene.sh(*(f"host: {each}" if fault.step == "back" else each for each in mends(found, fault.step)))
            assert until(lambda: not bad(scene.follow())), said(scene.follow())
    finally:
        scene.sh(*fault.undo)
    assert until(lambda: not bad(scene.follow())), said(scene.follow())


def mends(findings: Sequence[Finding], step: str) -> list[str]:
    """All that is printed for a step."""
    return [command for each in findings if each.check == step for command in each.mend]


def test_who_asks_from_afar_needs_a_route_back(scene: Scene) -> None:
    scene.sh(f"upstream: ip -6 address add {FAR}/128 dev eth0 nodad", "ip -6 route del default")
    try:

        def has_asked() -> bool:
            scene.topology.run("upstream", "ip", "-6", "neigh", "flush", "dev", "eth0")
            scene.ask("-I", FAR)
            return any(FAR in each.message for each in scene.follow() if each.check == "question")

        assert until(has_asked)
        (last,) = [each for each in scene.follow() if each.check == "way_back"]
        assert (last.level, FAR in last.message) == (Level.FAIL, True), last
        scene.sh(*last.mend, f"ip -6 route del {FAR}/128 dev wan0")
    finally:
        scene.sh("ip -6 route add default via 2001:db8::1 dev wan0", f"upstream: ip -6 address del {FAR}/128 dev eth0")


def test_a_decision_is_named_and_so_are_a_port_that_is_down_and_a_daemon_that_is_gone(scene: Scene) -> None:
    running = scene.running
    running.write(configuration(*RULES, collect_targets="10", datapath='"monitor"'))
    assert verb(running, "reload").returncode == 0
    (first, *_) = bad(scene.follow())
    assert (first.check, 'datapath = "monitor"' in first.message) == ("decision", True), first
    running.write(configuration(*RULES, collect_targets="10"))
    assert verb(running, "reload").returncode == 0
    assert not bad(scene.follow())
    done = running.command(
        "doctor", HOST_ADDRESS, "--json", "--config", str(running.config_file), "--control", str(running.control)
    )
    assert [each["check"] for each in json.loads(done.stdout)] == STEPS, done.stderr
    assert done.returncode == 0
    scene.sh("ip link set wan0 down")
    assert until(lambda: "is down" in next(iter(bad(scene.follow()))).message)
    (first, *_) = bad(scene.follow())
    assert (first.check, first.mend) == ("question", ("ip link set dev wan0 up",))
    addresses = "ip -6 address replace 2001:db8::2/64 dev wan0 nodad"  # which the kernel has dropped
    scene.sh(*first.mend, addresses, "ip -6 route replace default via 2001:db8::1 dev wan0")
    assert until(lambda: not bad(scene.follow()))
    running.stop()
    (gone,) = scene.follow()
    assert (gone.check, gone.level) == ("daemon", Level.FAIL)


def test_an_answer_that_could_not_be_sent_is_named(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration(*RULES, "2001:db8:4::/64 static", collect_targets="10", datapath='"python"'))
    scene = Scene(topology, running)
    target = "2001:db8:4::42"
    with Wire(topology) as wire, paused(running):
        wire.send(question(target))
        scene.sh("ip link set wan0 down")
    assert until(lambda: running.solicitations().get("failed") == 1)
    (recent,) = ask(running.control, {"verb": "status"})["targets"]
    assert (recent["target"], recent["outcome"]) == (target, "failed")
    scene.sh(
        "ip link set wan0 up",
        "ip -6 address replace 2001:db8::2/64 dev wan0 nodad",
        "ip -6 route replace default via 2001:db8::1 dev wan0",
        "ip -6 route replace 2001:db8:4::/64 dev lan0",
    )
    assert until(lambda: not any(each.check == "question" for each in bad(scene.follow(target))))
    (first, *_) = bad(scene.follow(target))
    assert (first.check, "couldn't be sent" in first.message) == ("answer", True), first
    with Wire(topology) as wire:
        assert wire.ask(question(target)) is not None
    assert until(lambda: not any(each.check == "answer" for each in bad(scene.follow(target))))


def test_what_is_printed_to_watch_for_a_question_shows_one_that_xdp_takes_in(topology: Topology, daemon: Start) -> None:
    scene = Scene(topology, daemon(configuration(*RULES, attach='"generic"')))
    (asked,) = [each for each in scene.follow() if each.check == "question"]
    assert (asked.level, "collect_targets" in asked.message) == (Level.NOTE, True), asked
    (watch,) = asked.mend
    seen = scene.running.config_file.with_name("watched")
    with Wire(topology) as wire, ThreadPoolExecutor(1) as pool:
        watching = pool.submit(scene.sh, f"timeout 20 {watch} --count 1 > {seen}")
        while not watching.done():
            wire.ask(question(HOST_ADDRESS))
        watching.result()
    assert HOST_ADDRESS in seen.read_text()
