# SPDX-License-Identifier: GPL-2.0-or-later
"""`explain --live`: the outcome that it foresees is what the next solicitation gets, and what it says is so."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_ADDRESS, HOST_ADDRESS, UPSTREAM_ADDRESS, Topology
from npd6_xdp.tools import explain_live
from tests.netns.verb import verb
from tests.netns.wire import DAD, EACH_METHOD, SETTING, Wire, configuration, grown, on_edge, question, scan, until

pytestmark = pytest.mark.needs_table

Start = Callable[..., RunningDaemon]

RULES = (
    *EACH_METHOD,
    "2001:db8:7::/64 static dad=defend",
    "2001:db8:8::/64 neighbour via=lan0 dad=defend",
    "2001:db8:9::/64 route via=lan0",
)
NOBODY = "2001:db8:1::dead"

FIRST = (  # targets, whether they are probed for by DAD, and what that gets
    (HOST_ADDRESS, False, "pending"),
    ("2001:db8:2::1", False, ""),
    ("2001:db8:2::1", False, ""),
    ("2001:db8:2::1", True, "dad"),
    ("2001:db8:3::1", False, "answered"),
    ("2001:db8:3::bad", False, "absent"),
    ("2001:db8:4::1", False, "answered"),
    ("2001:db8:4::1", True, "dad"),
    ("2001:db8:4::dead", False, "ignored"),
    ("2001:db8:5::1", False, "ignored"),
    ("2001:db8:6::1", False, "unmatched"),
    ("2001:db8:7::1", True, "answered_python"),
    ("2001:db8:8::5", False, "answered"),
    ("2001:db8:8::5", True, "answered_python"),
    ("2001:db8:9::1", False, "absent"),
    ("fe80::dead", False, "ignored"),
    (NOBODY, False, "pending"),
    (NOBODY, False, "pending"),
)

both = pytest.mark.parametrize("datapath", ["hybrid", "python"])


class Foretold:
    """Asks what the next solicitation for a target gets, sends it, and compares."""

    def __init__(self, topology: Topology, running: RunningDaemon, wire: Wire, vlan: int | None = None) -> None:
        self._topology, self._running, self._wire, self._vlan = topology, running, wire, vlan
        self._label = "wan0" if vlan is None else f"wan0:{vlan}"

    def look(self, target: str, source: str | None = None) -> explain_live.Live:
        """What is known of a target."""
        vlan = () if self._vlan is None else (self._vlan,)
        with self._topology.inside("edge"):
            (found,) = explain_live.look(
                self._running.control,
                IPv6Address(target),
                "wan0",
                vlan,
                IPv6Address(source or str(IPv6Address(SETTING.asker_link_local))),
            )
        return found

    def next(self, target: str, dad: bool = False) -> str:
        """The outcome that was foretold, and met; both where they differ."""
        foreseen = self.look(target, "::" if dad else None).foreseen
        frame = question(target, **(DAD if dad else {}))
        if self._vlan is not None:
            frame = frame[:12] + b"\x81\x00" + self._vlan.to_bytes(2) + frame[12:]
        before = self._running.solicitations(self._label)
        self._wire.send(frame)
        assert until(lambda: self._running.solicitations(self._label) != before), target
        (met,) = grown(before, self._running.solicitations(self._label))
        return met if met == foreseen.outcome else f"{foreseen.outcome} ({foreseen.why}), but then {met}"


def told(topology: Topology, daemon: Start, datapath: str, vlan: int | None = None, **keys: str) -> RunningDaemon:
    """A daemon with all rules, where no question takes a longer way for a look at its tags."""
    topology.xdp_pass("upstream", "eth0")
    topology.sysctl("edge", "net/ipv6/neigh/lan0/base_reachable_time_ms", 3_600_000)  # who was found stays so
    keys |= {"attach": '"native"', "datapath": f'"{datapath}"', "collect_targets": "10"}
    keys |= {} if vlan is None else {"vlan": f'"{vlan}"'}
    return daemon(configuration(*RULES, **{"events_per_source": "0", **keys}))


@both
@pytest.mark.parametrize("vlan", [None, 100], ids=["untagged", "tagged"])
def test_what_is_foretold_is_what_the_next_solicitation_gets(
    topology: Topology, daemon: Start, datapath: str, vlan: int | None
) -> None:
    running = told(topology, daemon, datapath, vlan)
    answered = "answered_xdp" if datapath == "hybrid" else "answered_python"
    on_edge(topology, "route replace 2001:db8:3:1::/64 dev lan0", "route replace 2001:db8:3::/64 dev lan0")
    on_edge(topology, "route replace 2001:db8:9::1 dev wan0", "route replace unreachable 2001:db8:3::bad")
    on_edge(topology, "neigh replace 2001:db8:1::77 lladdr 02:00:00:00:00:77 nud permanent dev wan0")
    on_edge(topology, "neigh replace 2001:db8:8::5 lladdr 02:00:00:00:00:05 nud permanent dev lan0")
    with Wire(topology) as wire:
        foretold = Foretold(topology, running, wire, vlan)
        kernel = ("answered", "answered") if vlan else ("answered_python", "kernel")
        wanted = [*FIRST]
        # without a VLAN device, the kernel's proxy sees no tagged frame, and method kernel is as static is
        wanted[1:3] = [(target, dad, met) for (target, dad, _), met in zip(FIRST[1:3], kernel, strict=True)]
        wanted = [(target, dad, answered if met == "answered" else met) for target, dad, met in wanted]
        assert [(target, dad, foretold.next(target, dad)) for target, dad, _ in FIRST] == wanted
        assert until(lambda: foretold.look(HOST_ADDRESS).known.behind == {"lan0": "reachable"})
        assert foretold.next(HOST_ADDRESS) == answered
        on_edge(topology, f"neigh change {HOST_ADDRESS} dev lan0 nud stale")
        assert until(lambda: foretold.look(HOST_ADDRESS).known.behind == {"lan0": "stale"})
        assert foretold.next(HOST_ADDRESS) == answered
        if vlan is None:
            assert foretold.next(EDGE_WAN_ADDRESS) == "own"
            assert foretold.next(UPSTREAM_ADDRESS) == "ignored"
            assert foretold.next("2001:db8:1::77") == "absent"
        waiting = foretold.look(NOBODY).known.waiting
        assert waiting is None or (waiting.askers, waiting.behind) == (1, ("lan0",))


@both
def test_who_doesnt_answer_is_foretold(topology: Topology, daemon: Start, datapath: str) -> None:
    """By its role, by its datapath, and where the frames don't come to it."""
    topology.xdp_pass("upstream", "eth0")
    keys = {"attach": '"native"', "datapath": f'"{datapath}"'}
    role = "192.0.2.1"
    on_edge(topology, "route replace 2001:db8:3::/64 dev lan0")
    running = daemon(configuration(*RULES, **keys, active_with=f'"{role}"'))
    targets = {
        "2001:db8:4::1": "standby",
        "2001:db8:3::1": "standby",
        "2001:db8:9::1": "absent",
        "2001:db8:2::1": "standby",
        NOBODY: "standby",
        "2001:db8:6::1": "unmatched",
    }
    with Wire(topology) as wire:
        foretold = Foretold(topology, running, wire)
        assert {target: foretold.next(target) for target in targets} == targets
        assert foretold.next("2001:db8:4::1", dad=True) == "dad"
        assert foretold.look(NOBODY).known.role == f"on standby: {role} isn't on this machine"
        on_edge(topology, f"address add {role}/32 dev lo")
        assert until(lambda: not foretold.look(NOBODY).known.entry.standby)
        assert foretold.next("2001:db8:4::1") == ("answered_xdp" if datapath == "hybrid" else "answered_python")
        running.write(configuration(*RULES, attach='"native"', datapath='"monitor"'))
        assert verb(running, "reload").returncode == 0
        monitored = {target: outcome.replace("standby", "monitored") for target, outcome in targets.items()}
        assert {target: foretold.next(target) for target in targets} == monitored
        on_edge(topology, "link set wan0 down")
        assert until(lambda: foretold.look(NOBODY).foreseen.outcome is None)
        assert "is down" in foretold.look(NOBODY).foreseen.why


LIMITED = {
    # limit: keys of the interface, lines of [limits], what is sent before, and the target that is refused then
    "new_target": ({"new_targets_per_second": "1"}, "", 4, "2001:db8:4::"),
    "source": ({"events_per_source": "2", "datapath": '"python"'}, "", 5, "2001:db8:4::"),
    "all": ({"events_per_source": "0", "datapath": '"python"'}, "events_per_second = 2", 5, "2001:db8:4::"),
    "pending": ({}, "pending = 1", 1, "2001:db8:1::"),
    "crowded": ({}, "pending = 16", 12, "2001:db8:1::"),
    "full": ({}, "neighbours = 1", 0, "2001:db8:1::"),
}


@pytest.mark.parametrize("limit", LIMITED)
def test_a_limit_that_refuses_is_foretold(topology: Topology, daemon: Start, limit: str) -> None:
    keys, limits, count, prefix = LIMITED[limit]
    topology.xdp_pass("upstream", "eth0")
    topology.sysctl("edge", "net/ipv6/neigh/lan0/mcast_solicit", 30)  # who isn't there is looked for long enough
    if limit == "full":
        on_edge(topology, "neigh replace 2001:db8:1::5 lladdr 02:00:00:00:00:05 nud permanent dev lan0")
    others = configuration("2001:db8:1::/64 neighbour via=lan0", vlan="200", attach='"native"')
    entry = configuration(*RULES, **{"attach": '"native"', "collect_targets": "10", **keys})
    running = daemon(f"[limits]\n{limits}\n{entry}{others}")
    with Wire(topology) as wire:
        foretold = Foretold(topology, running, wire)
        for frame in scan(count, prefix):
            wire.send(frame)
        assert until(lambda: sum(running.solicitations().values()) == count)
        refused = f"{prefix}9:9"

        def once_more() -> bool:
            """The machine may be so slow that there is space again; then all that was foretold is an answer."""
            wire.send(*scan(count, prefix, 7 << 32))
            live = foretold.look(refused)
            return live.foreseen.outcome == "rate_limited" and foretold.next(refused) == "rate_limited"

        assert until(once_more)
        live = foretold.look(refused)
    assert limit in map(str, live.known.refuses) or limit in ("source", "all", "new_target")


@both
def test_its_words_say_what_there_is(topology: Topology, daemon: Start, datapath: str) -> None:
    running = told(topology, daemon, datapath)
    at = ("--live", "--control", str(running.control))
    with Wire(topology) as wire:
        foretold = Foretold(topology, running, wire)
        assert foretold.next(HOST_ADDRESS) == "pending"
        assert until(lambda: foretold.look(HOST_ADDRESS).known.behind == {"lan0": "reachable"})
    done = running.command("explain", HOST_ADDRESS, *at)
    assert done.returncode == 0, done.stderr
    who = "XDP answers, Python what XDP can't" if datapath == "hybrid" else "Python answers"
    mac = SETTING.asker_mac.hex(":")
    for line in (
        f"fe80::ff:fe00:1 asks on wan0 who has {HOST_ADDRESS}",
        f"  port: wan0: XDP attached (native mode), datapath {datapath} ({who}), up",
        "  rule: 2001:db8:1::/64 (neighbour via lan0) of wan0",
        "  neighbour table: lan0 reachable ",
        "  route: 2001:db8:1::/64 dev lan0",
        "  known: behind lan0 (reachable)",
        "  space: 0 of ",
        f" by fe80::ff:fe00:1 ({mac}): pending, and answered if it was found since",
        f"outcome: answered_{'xdp' if datapath == 'hybrid' else 'python'} (the neighbour table has it behind lan0)",
    ):
        assert line in done.stdout, done.stdout
    unknown = running.command("explain", HOST_ADDRESS, *at, "--interface", "wan7")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "wan7: no interface of the configuration that is here; it has wan0" in unknown.stderr
    nowhere = running.command("explain", "2001:db8:6::1", *at)
    assert nowhere.stdout.splitlines()[-1] == "outcome: unmatched (no rule covers it)"


@both
def test_what_the_kernel_is_to_be_asked_about_is_foretold(topology: Topology, daemon: Start, datapath: str) -> None:
    """Prefixes that are delivered here, and throw routes, are what bpf_fib_lookup() doesn't tell of."""
    running = told(topology, daemon, datapath)
    answered = "answered_xdp" if datapath == "hybrid" else "answered_python"
    on_edge(topology, "route add local 2001:db8:3::/64 dev lo", "route add throw 2001:db8:3:0:1::/80")
    with Wire(topology) as wire:
        foretold = Foretold(topology, running, wire)
        assert until(lambda: foretold.look("2001:db8:3::1").known.routing != 0)
        assert foretold.next("2001:db8:3::1") == "answered_python", "the kernel is asked, and its answer kept"
        assert foretold.look("2001:db8:3::1").known.kept is True
        assert foretold.next("2001:db8:3::1") == answered
        assert foretold.next("2001:db8:9::7") == "absent"
        assert foretold.next("2001:db8:9::7") == "absent"


def test_without_an_interface_it_tells_of_all_whose_rules_cover_the_target(topology: Topology, daemon: Start) -> None:
    tagged = configuration("2001:db8:4::/64 static", vlan="100")
    running = daemon(configuration(*RULES) + tagged)

    def told_of(target: str, **where: Any) -> list[tuple[str, str | None]]:
        with topology.inside("edge"):
            found = explain_live.look(running.control, IPv6Address(target), **where)
        return [(each.known.entry.label, each.foreseen.outcome) for each in found]

    there = "answered_xdp"
    with Wire(topology) as wire:  # tags have to be seen within the frames, or what is untagged takes a longer way
        tagged_frame = question("2001:db8:4::2")
        wire.send(tagged_frame[:12] + b"\x81\x00\x00\x64" + tagged_frame[12:])
        assert until(lambda: told_of("2001:db8:4::1") == [("wan0", there), ("wan0:100", there)])
    assert told_of("2001:db8:3::1", interface="wan0") == [("wan0", "absent")]
    assert told_of("2001:db8:4::1", interface="wan0:100") == [("wan0:100", there)]
    assert told_of("2001:db8:4::1", vlan=(100,)) == [("wan0:100", there)]
    assert told_of("2001:db8:4::1", vlan=(7,)) == [("wan0", "unmatched")]
    assert told_of("2001:db8:6::1") == [("wan0", "unmatched"), ("wan0:100", "unmatched")]
    assert told_of("ff02::1", vlan=()) == [("wan0", "invalid")]
