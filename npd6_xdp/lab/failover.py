# SPDX-License-Identifier: GPL-2.0-or-later
"""The story behind `npd6-xdp lab --failover`: of two edges one dies, and keepalived has the other one take over.

What it claims is checked on the upstream's side: who answered its questions when, and which hosts its pings reached.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import takewhile
from typing import Literal, TextIO

from npd6_xdp.core.errors import MachineError
from npd6_xdp.lab.daemon import PROGRAM, RunningDaemon
from npd6_xdp.lab.keepalived import PRIORITIES, VIRTUAL_MAC, Detection, Keepalived, Kind, configuration
from npd6_xdp.lab.pair import EDGES, GATEWAY, MACS, Edge, Pair, host
from npd6_xdp.lab.report import Report
from npd6_xdp.lab.sightings import Change, change
from npd6_xdp.lab.story import require
from npd6_xdp.lab.topology import HOST_PREFIX
from npd6_xdp.lab.upstream import ASKED, SAMPLE_EVERY, Upstream

HOSTS = 1000
KERNELS_HOSTS = 50  # at most, as all namespaces share a table of 1,024 neighbours
ALLOWED = 0.1  # seconds that a change of hands may take beyond keepalived's own time
ANNOUNCEMENTS_PER_SECOND = 1000  # the default of limits.announcements_per_second

_TOOLS = {"ip": "iproute2", "keepalived": "keepalived"}
_PATIENCE = 60.0  # seconds until something must have happened, on a machine that does other things beside
_QUIET = 0.5  # seconds for which all must be as it is to be

CONFIG = f"""\
[[interface]]
name = "wan0"
active_with = "{GATEWAY}%lan0"
{{more}}
[[interface.rule]]
prefix = "{HOST_PREFIX}"
method = "{{method}}"
"""
Method = Literal["route", "static", "neighbour"]

HOSTS_OF: Mapping[Method, int] = {"route": HOSTS, "static": HOSTS, "neighbour": 200}
"""How many hosts there are if nobody says; under neighbour, an edge's kernel has each in the table that all share."""


def config(kind: Kind, method: Method) -> str:
    """The daemon's file for both edges."""
    via = 'via = ["lan0"]\n' if method == "neighbour" else ""
    return CONFIG.format(more=_MORE[kind], method=method) + via


_MORE: dict[Kind, str] = {"own": "", "virtual": f'link_address = "{VIRTUAL_MAC}"\n'}

PICTURE = """
                   ┌─ edge:wan0     edge:lan0   ─┐
   upstream:eth0 ──┤  02:00:00:00:00:02          ├── host:eth0
   2001:db8::1     └─ second:wan0   second:lan0 ─┘   2001:db8:1::/64
                      02:00:00:00:00:03
"""
_TITLES: dict[Kind, str] = {
    "own": "Own MACs",
    "virtual": "Virtual MAC",
}


def run(
    hosts: int | None = None,
    kinds: Sequence[Kind] = ("own", "virtual"),
    short: bool = False,
    program: Sequence[str] = PROGRAM,
    out: TextIO | None = None,
    method: Method = "route",
    late: Callable[[float], float] = lambda _: 0.0,
) -> int:
    """Tell the story of `hosts` hosts; a `short` one has an edge die and come back, and no more. Returns 0 if all held.

    `late` says by how many seconds the machine has kept processes waiting since a time (time.time()): a change of hands
    may take so much longer. Raises MachineError when the lab can't be built here: no root, a tool missing.
    """
    require(_TOOLS)
    report = Report(out)

    def story() -> None:
        report.say("Two edges, each a network namespace, between an upstream and its hosts; real keepalived on both:")
        report.show(PICTURE)
        for kind in kinds:
            with Pair() as pair:
                _tell(_Story(report, pair, kind, method, program, late), hosts or HOSTS_OF[method], short)

    return report.tell(story)


def _tell(story: _Story, hosts: int, short: bool) -> None:
    report = story.report
    failures = report.failures
    with story.stack:
        try:
            story.begin([host(number) for number in range(hosts)])
            story.dies_and_comes_back()
            if not short:
                story.loses_its_link()
                story.loses_keepalived()
        except MachineError as error:
            report.check("the lab goes on", "no error", error)
        if report.failures > failures:
            story.show_logs()


class _Story:
    """The acts for one kind, in their order, on one pair."""

    upstream: Upstream

    def __init__(
        self,
        report: Report,
        pair: Pair,
        kind: Kind,
        method: Method,
        program: Sequence[str],
        late: Callable[[float], float],
    ) -> None:
        self.report = report
        self.pair = pair
        self.kind: Kind = kind
        self.keepalived = {edge: Keepalived(pair, edge, kind) for edge in EDGES}
        self.daemons: dict[Edge, RunningDaemon] = {}
        self.stack = ExitStack()
        self._config = config(kind, method)
        self._method = method
        self._program = program
        self._late = late

    def begin(self, hosts: Sequence[str]) -> None:
        """Both edges start, and the one with the higher priority is active."""
        self.report.act(f"{_TITLES[self.kind]}: start")
        self.report.say("The same on both, and keepalived's file, which differs in the priority (100 on second):")
        self.report.command("/etc/npd6-xdp/npd6-xdp.toml", self._config)
        self.report.command("/etc/keepalived/keepalived.conf", configuration(self.kind, "edge"))
        if self._method == "neighbour":
            self.pair.come([*hosts, ASKED])
        for edge in EDGES:
            self.start_daemon(edge)
        # only now, so that both have heard of each host
        self.upstream = self.stack.enter_context(Upstream(self.pair, hosts, KERNELS_HOSTS))
        for edge in EDGES:
            self.keepalived[edge].start()
        self.wait("all hosts are reachable through edge", lambda: self.is_settled("edge"))
        self.upstream.anew()
        self.wait("all hosts are reachable through edge", lambda: self.is_settled("edge"))
        for edge, role in (("edge", "active"), ("second", "on standby")):
            status = self.daemons[edge].command("status").stdout
            shown = [line for line in status.splitlines() if line.startswith("  ") and "rule" not in line]
            self.report.command(f"{edge}# npd6-xdp status", "\n".join(shown[:4]))
            self.report.check(f"{edge} is", role, role if f"  {role}: " in status else "otherwise")
        self.report.check("hosts in the upstream's cache", *self.expected_cache("edge"))

    def dies_and_comes_back(self) -> None:
        """All that runs on the active edge is killed, both its cables are cut; then it is started anew."""
        self.report.act(f"{_TITLES[self.kind]}: the edge dies")
        pids = [self.daemons["edge"].process.pid, *self.keepalived["edge"].pids()]
        self.report.command(f"edge# kill -9 {' '.join(map(str, pids))}    # and both cables are cut", "")
        event = self.upstream.anew()
        _kill(pids)
        for side in ("lan", "wan"):
            self.pair.cut("edge", side)
        self.pair.kill_all("edge")
        self.judge(event, "second", is_loss=True)
        self.report.check("hosts in the upstream's cache", *self.expected_cache("second"))

        self.report.act(f"{_TITLES[self.kind]}: the edge comes back")
        self.as_after_a_boot()
        self.start_daemon("edge")
        self.report.command(f"edge# keepalived -f {self.keepalived['edge'].file}    # npd6-xdp runs again", "")
        event = self.upstream.anew()
        self.keepalived["edge"].start()
        self.judge(event, "edge", is_loss=False)
        if self.kind == "own":
            self.report.say(
                "What was asked before its start, edge doesn't know, and doesn't announce. Packets for such hosts go on"
                f" through second, which forwards them. In the upstream's cache: {_words(self.upstream.cached())}."
            )

    def loses_its_link(self) -> None:
        """The active edge's cable to the upstream is cut, and put in again."""
        self.upstream.ask_anew()
        self.wait("all hosts are asked for anew", lambda: self.is_cached("edge"))
        self.report.act(f"{_TITLES[self.kind]}: the link to the upstream is cut")
        self.report.command("switch# ip link set wan-edge down", "")
        event = self.upstream.anew()
        self.pair.cut("edge", "wan")
        self.judge(event, "second", is_loss=True)
        self.report.check("hosts in the upstream's cache", *self.expected_cache("second"))
        self.report.act(f"{_TITLES[self.kind]}: the link is back")
        self.report.command("switch# ip link set wan-edge up", "")
        event = self.upstream.anew()
        self.pair.mend("edge", "wan")
        self.judge(event, "edge", is_loss=False)

    def loses_keepalived(self) -> None:
        """Of keepalived, the first process is killed, at which the other one takes the address away; and then both."""
        keepalived = self.keepalived["edge"]
        self.report.act(f"{_TITLES[self.kind]}: keepalived is killed")
        self.report.command(f"edge# kill -9 {keepalived.process.pid}    # the first of its two processes", "")
        event = self.upstream.anew()
        keepalived.process.kill()
        self.judge(event, "second", is_loss=True)
        keepalived.process.wait()
        self.report.act(f"{_TITLES[self.kind]}: keepalived is back")
        self.report.command(f"edge# keepalived -f {keepalived.file}", "")
        event = self.upstream.anew()
        keepalived.start()
        self.judge(event, "edge", is_loss=False)

        self.report.act(f"{_TITLES[self.kind]}: all of keepalived is killed")
        pids = keepalived.pids()
        self.report.command(f"edge# kill -9 {' '.join(map(str, pids))}", "")
        self.report.say(
            "Nobody takes the address from edge now, so both have it, and both answer and forward until keepalived is"
            " started again there (docs/failover.md):"
        )
        event = self.upstream.anew()
        _kill(pids)
        count = len(self.upstream.hosts)
        self.wait(
            "second answers, and each host",
            lambda: (seen := self.change(event, "second")) is not None and len(seen.outages) == count,
        )
        time.sleep(2 * _QUIET)
        both = self.change(event, "second")
        assert both is not None
        self.report.show(f"both answer, for {both.both:.2f} s by now\n{self.hosts(both)}")
        self.check_hosts(both, ALLOWED)
        event = self.upstream.anew()
        keepalived.start()
        gone = self.wait("edge gives up the address", lambda: self.lost(event, "edge"))
        self.report.show(f"after {gone:.2f} s of a new keepalived's start only second has the address")
        self.wait("edge is active again", lambda: self.is_settled("edge"))
        self.report.check("who answers in the end", "edge", "edge" if self.is_settled("edge") else "both, or nobody")

    def show_logs(self) -> None:
        """What both edges have said last."""
        for edge in EDGES:
            said = {"keepalived": self.keepalived[edge].log}
            if edge in self.daemons:
                said["npd6-xdp"] = self.daemons[edge].log
            for who, log in said.items():
                self.report.command(f"{edge}: {who}'s log", "\n".join(log.splitlines()[-20:]))

    def judge(self, event: float, successor: Edge, is_loss: bool) -> None:
        """Wait until the successor has all; say what came of the event, and check it against its limits.

        The time that counts is keepalived's own: its rule's, or what it took. A loss begins with the event; else the
        other edge gives up the address when it hears the successor.
        """
        self.wait(f"all hosts are reachable, and only {successor} answers", lambda: self.is_settled(successor))
        found = self.change(event, successor)
        assert found is not None
        rule = Detection(PRIORITIES[successor]).seconds
        waited = found.role if is_loss else found.vacant
        allowed = ALLOWED + self._late(event)
        why = f"keepalived's rule: {rule:.2f} s at most" if is_loss else f"for {rule:.2f} s of them keepalived waits"
        lines = [f"{successor} had {GATEWAY} after {found.role:.2f} s ({why})"]
        if waited > rule + allowed:
            lines.append("  keepalived was late, as the machine is busy; what follows is compared with its time")
        if found.shared > allowed:
            lines.append(f"  keepalived had it on both for {found.shared:.2f} s")
        lines.append(f"questions: nobody answered for {found.silence:.2f} s, both for {found.both:.2f} s")
        lines.append(self.hosts(found))
        if len(found.turns) > 1:
            lines.append(f"  {found.announced}")
        if refusals := self.upstream.refusals():
            lines.append(f"  this machine's neighbour table was full {refusals} times meanwhile, as others fill it")
        self.report.show("\n".join(lines))
        took = max(rule, waited)
        self.report.at_most(f"nobody answered until {successor} did", took + allowed, found.silence)
        self.report.at_most("both answered", allowed, found.both)
        self.check_hosts(found, took + allowed)

    def check_hosts(self, found: Change, within: float) -> None:
        """Each host is to be reachable again by its turn in the announcements, after so many seconds."""
        upstream = self.upstream
        count = len(upstream.hosts)
        self.report.check("hosts that are reachable", f"{count} of {count}", f"{len(found.outages)} of {count}")
        self._check_late("hosts away", found, upstream.hosts, within + upstream.every)
        if upstream.sample:
            of = f"of {len(upstream.sample)} hosts that are pinged each {SAMPLE_EVERY} s, away"
            self._check_late(of, found, upstream.sample, within + SAMPLE_EVERY)

    def _check_late(self, what: str, found: Change, hosts: Sequence[str], limit: float) -> None:
        late = found.late(hosts, limit, ANNOUNCEMENTS_PER_SECOND)
        seen = f"{len(late)}, up to {max(late.values()):.2f} s" if late else 0
        self.report.check(f"{what} over {limit:.2f} s and their turn", 0, seen)

    def hosts(self, found: Change) -> str:
        """A line about all hosts' outages."""
        times = sorted(found.outages.values()) or [0.0]
        middle = times[len(times) // 2]
        return f"hosts: not reachable for {times[0]:.2f} to {times[-1]:.2f} s, half of them up to {middle:.2f} s"

    def change(self, event: float, successor: Edge) -> Change | None:
        return change(self.upstream.seen, event, successor)

    def state(self) -> str:
        """Who answers, and how many hosts are reachable."""
        answering, reached = self._lately()
        return f"{' and '.join(sorted(answering)) or 'nobody'} answers, {len(reached)} hosts are reachable"

    def is_settled(self, successor: Edge) -> bool:
        """Whether for some time only one edge has answered, and each host."""
        answering, reached = self._lately()
        return answering == {successor} and len(reached) == len(self.upstream.hosts)

    def _lately(self) -> tuple[set[Edge], set[str]]:
        """The edges that have answered, and the hosts that were heard, within so long that each was to be."""
        since = time.time() - max(_QUIET, 3 * self.upstream.every)
        seen = self.upstream.seen
        answering = {one.edge for one in takewhile(lambda one: one.at >= since, reversed(seen.answers))}
        return answering, {one.target for one in takewhile(lambda one: one.at >= since, reversed(seen.echoes))}

    def lost(self, event: float, edge: Edge) -> float | None:
        return next((one.at - event for one in self.upstream.seen.went if one.edge == edge), None)

    def wait(self, what: str, condition: Callable[[], object]) -> float:
        """Wait for something, and return what it gives; raises MachineError if it doesn't come."""
        deadline = time.monotonic() + _PATIENCE
        while not (given := condition()):
            if time.monotonic() > deadline or self.upstream.failed:
                raise MachineError(f"lab: waited in vain until {what}: {self.state()}")
            time.sleep(0.05)
        return float(given) if isinstance(given, int | float) else 0.0

    def mac(self, edge: Edge) -> str:
        """What an edge advertises."""
        return MACS[edge] if self.kind == "own" else VIRTUAL_MAC

    def is_cached(self, edge: Edge) -> bool:
        return self.upstream.cached() == {self.mac(edge): len(self.upstream.hosts)}

    def expected_cache(self, edge: Edge) -> tuple[str, str]:
        """What is to be in the upstream's cache, and what is."""
        with suppress(MachineError):
            self.wait("the cache is as it is to be", lambda: self.is_cached(edge))
        return _words({self.mac(edge): len(self.upstream.hosts)}), _words(self.upstream.cached())

    def start_daemon(self, edge: Edge) -> None:
        daemon = RunningDaemon(self.pair, self._config, namespace=edge, program=self._program)
        self.daemons[edge] = self.stack.enter_context(daemon)

    def as_after_a_boot(self) -> None:
        """A machine that has been off has neither keepalived's address nor its device; its cables are in again."""
        self.pair.run("edge", "ip", "address", "del", f"{GATEWAY}/64", "dev", "lan0")
        self.pair.run("edge", "ip", "link", "del", "vrrp51")
        for side in ("lan", "wan"):
            self.pair.mend("edge", side)


def _kill(pids: Sequence[int]) -> None:
    """End processes as if at once: none is to notice another one's end, as keepalived's second would its first's."""
    for signum in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{mac}: {count}" for mac, count in sorted(counts.items()))
