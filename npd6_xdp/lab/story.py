# SPDX-License-Identifier: GPL-2.0-or-later
"""The story behind `npd6-xdp lab`: a real kernel asks for a host, and only with the daemon does it find it.

Every claim it makes is a check against evidence from the upstream's side: ping(8), ndisc6(8), the kernel's
neighbour table, and a capture. The exit status is 0 only if all of them held.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import IPv6Address, IPv6Network
from typing import NamedTuple, TextIO

from npd6_xdp.core.attached import has_tcx
from npd6_xdp.core.errors import MachineError
from npd6_xdp.lab.capture import Advertisement, Capture, Exchange
from npd6_xdp.lab.daemon import PROGRAM, RunningDaemon
from npd6_xdp.lab.report import WIDTH, Report
from npd6_xdp.lab.topology import (
    EDGE_LAN_ADDRESS,
    EDGE_LAN_MAC,
    EDGE_WAN_ADDRESS,
    EDGE_WAN_MAC,
    HOST_ADDRESS,
    HOST_MAC,
    HOST_PREFIX,
    UPSTREAM_ADDRESS,
    UPSTREAM_MAC,
    Namespace,
    Topology,
)

IGNORED_ADDRESS = "2001:db8:1::dead"
UNMATCHED_ADDRESS = "2001:db8:2::42"

CONFIG = f"""\
[[interface]]
name = "wan0"
datapath = "{{datapath}}"

[[interface.rule]]
prefix = "{HOST_PREFIX}"
method = "static"

[[interface.rule]]
prefix = "{IGNORED_ADDRESS}"
method = "ignore"
"""

ROUTED = f"""\
[[interface]]
name = "wan0"

[[interface.rule]]
prefix = "{HOST_PREFIX}"
method = "route"
"""

PICTURE = f"""
      upstream                            edge                                host
┌───────────────────┐   ┌──────────────────────────────────────┐   ┌───────────────────┐
│ eth0              │   │ wan0                            lan0 │   │ eth0              │
│ {UPSTREAM_ADDRESS:<17} ├───┤ {EDGE_WAN_ADDRESS:<17}  {EDGE_LAN_ADDRESS:>17} ├───┤ {HOST_ADDRESS:<17} │
│ {UPSTREAM_MAC} │   │ {EDGE_WAN_MAC}  {EDGE_LAN_MAC} │   │ {HOST_MAC} │
└───────────────────┘   └──────────────────────────────────────┘   └───────────────────┘
 {HOST_PREFIX:<17}         npd6-xdp on wan0 answers             {HOST_PREFIX:<17}
 is on-link, it thinks     for {HOST_PREFIX:<17}                is really here
"""

_TOOLS = {"ip": "iproute2", "ping": "iputils-ping", "ndisc6": "ndisc6", "tcpdump": "tcpdump"}
_EDGE_WAN_LINK_LOCAL = "fe80::ff:fe00:2"
_READINGS = 20  # at most: it asks for something each few seconds
_PATH = {"hybrid": "xdp", "python": "python"}
_WHO = {
    "hybrid": "the XDP program, over the question itself, in the frame that came in (path xdp, answered_xdp)."
    " Neither the edge's own ND code nor Python has seen it.",
    "python": "the daemon, from the event that the XDP program sent up to it (path python, answered_python).",
}


def run(program: Sequence[str] = PROGRAM, out: TextIO | None = None) -> int:
    """Tell the story; `program` is the daemon's command. Returns 0 if every check held, else 1.

    Raises MachineError when the lab can't be built here: no root, a tool missing.
    """
    require(_TOOLS)
    report = Report(out)

    def story() -> None:
        with Topology() as topology:
            _Story(report, topology, program).tell()

    return report.tell(story)


class _Story:
    """The acts, in their order, on one topology."""

    def __init__(self, report: Report, topology: Topology, program: Sequence[str]) -> None:
        self.report = report
        self.topology = topology
        self.program = program
        self.advertisements: list[Advertisement] = []  # the first for the host, one from each datapath

    def tell(self) -> None:
        """All acts, or as many as the machine and the daemon allow."""
        try:
            self.prologue()
            self.report.act("Act 1: without the daemon")
            self.ping_unanswered("ping the host")
            self.report.act("Act 2: hybrid, the XDP program answers")
            self.with_daemon("hybrid")
            self.report.act("Act 3: python, the daemon answers")
            self.with_daemon("python")
            self.report.act("Act 4: kill -9, and start again")
            self.crash()
            self.report.act("Act 5: the host isn't reachable, and why")
            self.missing_route()
        except MachineError as error:
            self.report.check("the lab goes on", "no error", error)

    def prologue(self) -> None:
        self.report.say("Three machines, each a network namespace with the kernel's whole network stack to itself:")
        self.report.show(PICTURE)
        self.report.say(
            f"The upstream takes {HOST_PREFIX} for on-link, so it asks on its own wire who has an address of"
            " it. The host, behind the edge, can't hear that. The edge routes; who answers is the question."
            " The daemon's configuration:"
        )
        self.report.show(CONFIG.format(datapath="hybrid"))

    def with_daemon(self, datapath: str) -> None:
        """The daemon starts, the host is found, what happened is decoded and counted, the daemon ends."""
        with self.daemon(CONFIG.format(datapath=datapath)) as daemon:
            with Capture(self.topology, "upstream", "eth0") as capture:
                begin = _agreed(daemon, capture)
                self.ping()
                self.show_first_answer(capture.exchanges(UPSTREAM_MAC))
                self.neighbour_entry()
                self.ndisc6(HOST_ADDRESS, EDGE_WAN_MAC)
                self.silence()
                end = _agreed(daemon, capture)
                page = daemon.metrics_text()
            expected = _expected(datapath, end.exchanges[len(begin.exchanges) :])
            self.counters(datapath, page, end.counted - begin.counted, expected)
            self.report.say("The daemon is told to end (SIGTERM), and the host is to be out of reach again:")
            self.report.check("exit status after SIGTERM", 0, daemon.stop())
            self.interface_is_clean("wan0 after SIGTERM")
            self.ping_unanswered("ping the host, the daemon gone")

    def crash(self) -> None:
        """Nothing is left of a killed daemon, and the next one starts as the first did."""
        with self.daemon(CONFIG.format(datapath="hybrid")) as daemon:
            self.edge("ip", "link", "show", "dev", "wan0")
            self.report.command(f"edge# kill -9 {daemon.process.pid}", "")
            self.report.check("exit status after kill -9", -9, daemon.kill())
            self.edge("ip", "link", "show", "dev", "wan0")
            self.interface_is_clean("wan0 after kill -9")
        self.report.say("The kernel is to take the program off with the process. Without any tidying up, again:")
        with self.daemon(CONFIG.format(datapath="hybrid")):
            self.ping()

    def missing_route(self) -> None:
        """A mistake as they happen: trace says what became of the question, doctor why, and what mends it."""
        self.report.say("Now the rule goes by the edge's routes, and one is lost. Nothing else says so:")
        self.report.show(ROUTED)
        with self.daemon(ROUTED) as daemon:
            self.edge("ip", "route", "del", HOST_PREFIX, "dev", "lan0")
            argv = ("--target", HOST_ADDRESS, "--count", "1")
            trace = daemon.trace(*argv)
            self.ping_unanswered("ping the host, no route to it")
            told = daemon.told_by(trace)
            self.report.command(f"edge# npd6-xdp trace {' '.join(argv)}", _folded(told))
            outcome = re.search(rf"{HOST_ADDRESS}\s+(\S+)", told)
            self.report.check("trace: what became of the question", "absent", outcome and outcome[1])
            found = daemon.command("doctor", "--config", str(daemon.config_file), "--json")
            (failed,) = [each for each in json.loads(found.stdout or "[]") if each["level"] == "fail"] or [{}]
            self.report.check("doctor: what is wrong", "route", failed.get("check"))
            said = [str(failed.get("message")), *(f"$ {line}" for line in failed.get("mend", ()))]
            self.report.command(f"edge# npd6-xdp doctor --config {daemon.config_file}", _folded(*said))
            self.report.say("What it prints is to mend it:")
            for command in failed.get("mend", ()):
                self.edge(*command.split())
            self.ping()
            found = daemon.command("doctor", "--config", str(daemon.config_file))
            self.report.command(f"edge# npd6-xdp doctor --config {daemon.config_file}", found.stdout.splitlines()[-1])
            self.report.check("doctor: exit status", 0, found.returncode)

    @contextmanager
    def daemon(self, config: str) -> Iterator[RunningDaemon]:
        """The daemon on the edge, its start checked; its log is shown if anything goes wrong meanwhile."""
        failures = self.report.failures
        daemon = RunningDaemon(self.topology, config, program=self.program)
        self.topology.run("upstream", "ip", "-6", "neigh", "flush", "dev", "eth0", check=True)
        try:
            with daemon:
                self.report.command(f"edge# npd6-xdp run --config {daemon.config_file}", _cut(daemon.log))
                # It isn't native on veth, where XDP_TX would be lost.
                mode = self.topology.attach_mode("edge", "wan0")
                self.report.check("program on wan0", "tc" if has_tcx(os.uname().release) else "generic", mode or "none")
                yield daemon
        finally:
            if self.report.failures > failures or isinstance(sys.exception(), MachineError):
                self.report.command("the daemon's log", daemon.log or "(empty)")

    def ping_unanswered(self, name: str) -> None:
        self.topology.run("upstream", "ip", "-6", "neigh", "flush", "dev", "eth0", check=True)
        output = self.upstream("ping", "-6", "-n", "-c", "1", "-W", "5", HOST_ADDRESS)
        self.report.check(name, "0 of 1 answered", _answered(output))

    def ping(self) -> None:
        output = self.upstream("ping", "-6", "-n", "-c", "3", "-i", "0.2", "-W", "5", HOST_ADDRESS)
        self.report.check("ping the host", "3 of 3 answered", _answered(output))

    def show_first_answer(self, exchanges: list[Exchange]) -> None:
        """What the upstream's kernel asked on the wire and what it got, decoded, field by field."""
        self.report.say("What the upstream asked on its wire, and what came back (tcpdump there, decoded by scapy):")
        exchange = next((each for each in exchanges if each.solicitation.target == HOST_ADDRESS), None)
        na = exchange and exchange.advertisement
        if not exchange or not na:
            self.report.show(_asked(exchange) if exchange else "nothing")
            self.report.check("advertisement for the host", "one", "none")
            return
        self.report.show(f"{_asked(exchange)}\n{_came_back(na, exchange.seconds)}")
        flags = f"R={na.router} S={na.solicited} O={na.override}"
        checksum = "right" if na.checksum_right else f"wrong ({na.checksum:#06x})"
        check = self.report.check
        check("NA Ethernet source: the edge", EDGE_WAN_MAC, na.eth_source)
        check("NA Ethernet destination: the asker", UPSTREAM_MAC, na.eth_destination)
        check("NA IPv6 source: the target", HOST_ADDRESS, na.source)
        check("NA IPv6 destination: the asker", UPSTREAM_ADDRESS, na.destination)
        check("NA flags (RFC 4861 §4.4, §7.2.8)", "R=1 S=1 O=0", flags)
        check("NA target link-layer address", EDGE_WAN_MAC, na.link_layer_address)
        check("NA hop limit", 255, na.hop_limit)
        check("NA checksum", "right", checksum)
        self.advertisements.append(na)
        if len(self.advertisements) > 1:
            same = self.advertisements[0].frame == na.frame
            check("NA bytes, compared with act 2's", "equal", "equal" if same else "different")

    def neighbour_entry(self) -> None:
        self.upstream("ip", "-6", "neigh", "show", "to", HOST_ADDRESS, "dev", "eth0")
        entry = self.topology.neighbour("upstream", "eth0", HOST_ADDRESS)
        self.report.check("the upstream's neighbour entry", EDGE_WAN_MAC, (entry and entry.mac) or "none")

    def ndisc6(self, address: str, mac: str) -> None:
        output = self.upstream(*_ndisc6(address, 10))  # on a machine that does other things beside
        self.report.check(f"ndisc6 {address}", mac, _link_layer_address(output))

    def silence(self) -> None:
        """The daemon doesn't answer for targets that no rule covers."""
        self.report.say("Addresses that no rule covers, or that a rule says to ignore, are to get no answer:")
        addresses = {"no rule covers it": UNMATCHED_ADDRESS, "a rule ignores it": IGNORED_ADDRESS}
        asking = {  # at once, for each takes a second to give up
            why: self.topology.popen("upstream", *_ndisc6(address, 1), stdout=subprocess.PIPE)
            for why, address in addresses.items()
        }
        for why, process in asking.items():
            output, _ = process.communicate(timeout=120)
            self.report.command(f"upstream# {' '.join(_ndisc6(addresses[why], 1))}", output)
            self.report.check(f"ndisc6, {why}", "silence", _link_layer_address(output))

    def counters(self, datapath: str, page: str, counted: Counter[str], expected: Counter[str]) -> None:
        samples = re.findall(r"^npd6_(?:solicitations|advertisements)_total.* [1-9].*$", page, re.MULTILINE)
        self.report.command("edge: http://[::1]:9846/metrics", "\n".join(samples))
        same = [
            self.report.check(f"captured = counted: {what}", expected[what], counted[what])
            for what in sorted(expected | counted)
        ]
        if all(same):
            self.report.say(f"Each solicitation is counted once. Who wrote the answers: {_WHO[datapath]}")

    def interface_is_clean(self, name: str) -> None:
        (link,) = self.topology.ip("edge", "link", "show", "dev", "wan0")
        mode = self.topology.attach_mode("edge", "wan0")
        left = [word for word in (mode and f"a program ({mode})", link.get("allmulti") and "allmulti") if word]
        self.report.check(name, "nothing left on it", f"{', '.join(left) or 'nothing'} left on it")

    def upstream(self, *argv: str) -> str:
        """Run a command on the upstream, show it with what it says, and return that."""
        return self._shown("upstream", argv)

    def edge(self, *argv: str) -> str:
        """The same on the edge."""
        return self._shown("edge", argv)

    def _shown(self, namespace: Namespace, argv: tuple[str, ...]) -> str:
        done = self.topology.run(namespace, *argv)
        self.report.command(f"{namespace}# {' '.join(argv)}", _cut(done.stdout + done.stderr))
        return done.stdout


def require(tools: Mapping[str, str]) -> None:
    """Raise MachineError if a lab can't run here: without root, or without one of its tools ({tool: package})."""
    if os.geteuid() != 0:
        raise MachineError("lab: network namespaces and XDP need root: sudo npd6-xdp lab")
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        packages = " ".join(tools[tool] for tool in missing)
        raise MachineError(f"lab: {', '.join(missing)} not found; install the package: apt install {packages}")


def _counted(daemon: RunningDaemon) -> Counter[str]:
    """The daemon's counters for wan0: solicitations by outcome, advertisements by path."""
    counted: Counter[str] = Counter()
    for (name, labels), value in daemon.metrics().items():
        words = dict(labels)
        if name == "npd6_solicitations_total":
            counted[f"NS {words['outcome']}"] += int(value)
        elif name == "npd6_advertisements_total":
            counted[f"NA by {words['path']}"] += int(value)
    return counted


class _Moment(NamedTuple):
    """What was captured and what was counted by one and the same moment."""

    exchanges: list[Exchange]
    counted: Counter[str]


def _agreed(daemon: RunningDaemon, capture: Capture) -> _Moment:
    """Read both, again if the upstream's kernel has asked for anything between the one reading and the other."""
    for _ in range(_READINGS):
        exchanges = capture.exchanges(UPSTREAM_MAC)
        daemon.settle()
        moment = _Moment(exchanges, _counted(daemon))
        if len(capture.exchanges(UPSTREAM_MAC)) == len(exchanges):
            break
    return moment


def _expected(datapath: str, exchanges: list[Exchange]) -> Counter[str]:
    """What the counters have to say of what the upstream asked, as the capture has it."""
    expected: Counter[str] = Counter()
    for exchange in exchanges:
        target = exchange.solicitation.target
        if target in (EDGE_WAN_ADDRESS, _EDGE_WAN_LINK_LOCAL):
            expected["NS own"] += 1
        elif target == IGNORED_ADDRESS:
            expected["NS ignored"] += 1
        elif IPv6Address(target) in IPv6Network(HOST_PREFIX):
            expected[f"NS answered_{_PATH[datapath]}"] += 1
            expected[f"NA by {_PATH[datapath]}"] += 1
        else:
            expected["NS unmatched"] += 1
    return expected


def _asked(exchange: Exchange) -> str:
    ns = exchange.solicitation
    return f"""\
NS  {ns.eth_source} > {ns.eth_destination}   {ns.source} > {ns.destination}
    who has {ns.target}? asks {ns.link_layer_address} (SLLAO)"""


def _came_back(na: Advertisement, seconds: float) -> str:
    return f"""\
NA  {na.eth_source} > {na.eth_destination}   {na.source} > {na.destination}
    {na.target} is at {na.link_layer_address} (TLLAO), R={na.router} S={na.solicited} O={na.override}
    hop limit {na.hop_limit}, checksum {na.checksum:#06x}, {len(na.frame)} bytes, \
{seconds * 1e6:.0f} µs after the NS"""


def _answered(ping: str) -> str:
    match = re.search(r"(\d+) packets transmitted, (\d+) received", ping)
    return f"{match[2]} of {match[1]} answered" if match else "no statistics"


def _ndisc6(address: str, seconds: int) -> tuple[str, ...]:
    return ("ndisc6", "-1", "-r", "1", "-w", f"{seconds}000", address, "eth0")


def _link_layer_address(ndisc6: str) -> str:
    match = re.search(r"^Target link-layer address: (\S+)", ndisc6, re.MULTILINE)
    return match[1].lower() if match else "silence"


def _folded(*lines: str) -> str:
    """Lines that are longer than the page go on in the next one."""
    return "\n".join(textwrap.fill(line, WIDTH - 4, subsequent_indent="  ") for line in lines)


def _cut(text: str) -> str:
    """Text with its lines cut to what fits on the page."""
    return "\n".join(line if len(line) <= WIDTH - 4 else f"{line[: WIDTH - 5]}…" for line in text.splitlines())
