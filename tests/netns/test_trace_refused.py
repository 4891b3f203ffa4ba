# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp trace` of what is ours and goes unanswered: refused by each limit, lost at a full ring, or not sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from npd6_xdp.core.verdict import Limit, Outcome
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from tests.frames import TAGS_8021Q
from tests.kinds import HBH, sllao
from tests.netns.commanded import Commanded, commanded
from tests.netns.warm import warm
from tests.netns.wire import SETTING, Wire, configuration, paused, question, until
from tests.soak.ground import driver

PREFIX = "2001:db8:1::/64"
NATIVE = {"attach": '"native"'}  # so that no tag stands beside a frame
NEIGHBOUR = f"{PREFIX} neighbour via=lan0"


def both(frame: bytes) -> tuple[bytes, bytes]:
    """A frame untagged, and in VLAN 100."""
    return frame, frame[:12] + TAGS_8021Q + frame[12:]


class Scene(NamedTuple):
    """A daemon that is traced for what is refused, lost and not sent; tests have it reload, each for its own limit."""

    topology: Topology
    running: RunningDaemon
    wire: Wire
    trace: Commanded
    datapath: str

    def limit(self, rule: str, limits: str = "", **keys: str) -> None:
        """One entry for all frames, with these limits and no other."""
        keys = {"events_per_source": "0", "datapath": f'"{self.datapath}"', "vlan": '"any"', **NATIVE, **keys}
        self.running.write(f"[limits]\n{limits}\n{configuration(rule, **keys)}")
        done = self.running.command("reload")
        assert done.returncode == 0, done.stderr

    def told(self, outcome: Outcome, reason: str, ask: Callable[[], object]) -> None:
        """Ask until both are told of, what is untagged and what is of VLAN 100, each with all that there is to say."""
        before = len(self.trace.objects())

        def found() -> list[dict[str, Any]]:
            return [each for each in self.trace.objects()[before:] if each["reason"] == reason]

        def are_told() -> bool:
            return {tuple(each["vlan"]) for each in found()} == {(), (100,)}

        def are_told_if_asked() -> bool:
            ask()
            return are_told()

        # on a busy machine asking takes its time, and telling as well
        assert until(are_told_if_asked) or until(are_told), self.trace.objects()[before:]
        for each in found():
            assert (each["outcome"], each["rule"], each["by"]) == (outcome, PREFIX, None)
            assert each["advertisement"] is None
            assert "late" not in each


@pytest.fixture(scope="module", params=["hybrid", "python"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with ExitStack() as stack:
        topology = stack.enter_context(Topology())
        topology.sysctl("upstream", "net/ipv6/conf/eth0/disable_ipv6", 1)
        topology.xdp_pass("upstream", "eth0")
        running = stack.enter_context(warm(topology, configuration(**NATIVE)))
        wire = stack.enter_context(Wire(topology))
        trace = stack.enter_context(commanded(running, "--json", "--outcome", "rate_limited,lost,failed"))
        yield Scene(topology, running, wire, trace, request.param)


def plain(number: int, mac: bytes) -> bytes:
    return question(f"2001:db8:1::99:{number}", options=sllao(mac), eth_source=mac)


def for_python(number: int, mac: bytes) -> bytes:
    """One that XDP leaves to Python under every method."""
    return question(f"2001:db8:1::99:{number}", options=sllao(mac), eth_source=mac, headers=[HBH])


ONE, MANY = [SETTING.asker_mac] * 8, [bytes((2, 0, 0, 1, 0, number)) for number in range(8)]


class Limited(NamedTuple):
    """How a limit is met: the rule, the limits' lines, the interface's keys, and who asks for eight targets, how."""

    reason: str
    rule: str
    limits: str = ""
    keys: dict[str, str] = {}  # noqa: RUF012 - a NamedTuple's default, which nobody changes
    askers: Sequence[bytes] = MANY
    frame: Callable[[int, bytes], bytes] = plain


LIMITED = {
    Limit.SOURCE: Limited(
        "its source MAC address has sent as much up to Python as events_per_source allows",
        f"{PREFIX} static",
        keys={"events_per_source": "2"},
        askers=ONE,
        frame=for_python,
    ),
    Limit.ALL: Limited(
        "all together have sent as much up to Python as limits.events_per_second allows",
        f"{PREFIX} static",
        "events_per_second = 2",
        frame=for_python,
    ),
    Limit.NEW_TARGET: Limited(
        "as many targets that weren't answered lately have been as new_targets_per_second allows",
        f"{PREFIX} static",
        keys={"new_targets_per_second": "2"},
    ),
    Limit.PENDING: Limited(
        "as many targets are pending as limits.pending, or the kernel's neighbour table, has space for",
        NEIGHBOUR,
        "pending = 2",
    ),
    Limit.CROWDED: Limited(
        "its asker or its interface has its share of limits.pending, or too many wait for this target",
        NEIGHBOUR,
        "pending = 8",
        askers=ONE,
    ),
    Limit.FULL: Limited("as many hosts are there as limits.neighbours allows", NEIGHBOUR, "neighbours = 1"),
}


def test_no_limit_is_left_out() -> None:
    assert set(LIMITED) == set(Limit)


@pytest.mark.needs_table
@pytest.mark.parametrize("limit", LIMITED)
def test_each_limit_is_told_by_the_key_that_it_is(scene: Scene, limit: Limit) -> None:
    its = LIMITED[limit]
    scene.limit(its.rule, its.limits, **its.keys)
    if limit is Limit.FULL:
        assert until(lambda: scene.wire.ask(question(HOST_ADDRESS), 1.0) is not None)
    frames = [each for number, mac in enumerate(its.askers) for each in both(its.frame(number, mac))]
    scene.told(Outcome.RATE_LIMITED, its.reason, lambda: scene.wire.send(*frames))


def test_what_cannot_be_sent_is_told_of_once_for_each(scene: Scene) -> None:
    scene.limit(f"{PREFIX} static")
    frames = [each for number in range(5) for each in both(for_python(number, SETTING.asker_mac))]
    before = len(scene.trace.objects())
    asked: list[bytes] = []

    def ask_once() -> None:
        if asked:
            return
        with paused(scene.running):
            seen = driver(scene.topology).seen
            scene.wire.send(*frames)
            asked.extend(frames)
            # the kernel hands them to the program in its own time, and of a port that is down, it drops what is left
            assert until(lambda: driver(scene.topology).seen >= seen + len(frames))
            scene.topology.run("edge", "ip", "link", "set", "wan0", "down", check=True)

    scene.told(Outcome.FAILED, "its advertisement couldn't be sent out of wan0", ask_once)
    assert scene.trace.has(before + len(frames))
    assert len(scene.trace.objects()) == before + len(frames)
    scene.topology.run("edge", "ip", "link", "set", "wan0", "up", check=True)


def test_what_the_ring_to_python_has_no_space_for_is_told_of(scene: Scene) -> None:
    scene.limit(f"{PREFIX} static", "events_per_second = 10000000")
    scene.wire.deafen()
    some = [*both(for_python(1, SETTING.asker_mac))] * 500

    def ask() -> None:
        with paused(scene.running):  # who traces asks for a rule's name afterwards
            for _ in range(40):
                scene.wire.send(*some)

    scene.told(Outcome.LOST, "the ring to Python was full", ask)
    scene.trace.end()
