# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp trace` beside a real daemon: each kind of solicitation, each outcome, and why, as it is told of."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.core.reasons import DAD_IGNORED, INVALID
from npd6_xdp.core.verdict import Outcome, Reason
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import (
    EDGE_LAN_ADDRESS,
    EDGE_WAN_ADDRESS,
    EDGE_WAN_MAC,
    UPSTREAM_ADDRESS,
    UPSTREAM_MAC,
    Namespace,
    Topology,
)
from npd6_xdp.tools.pcap import frames
from tests.bench.generators import Order, flood
from tests.frames import FOREIGN_MAC, TAGS_8021Q
from tests.kinds import KINDS, Kind, Wanted, oversized
from tests.netns.commanded import Commanded, commanded, tshark
from tests.netns.verb import verb
from tests.netns.wire import DAD, EACH_METHOD, SETTING, Wire, configuration, question, says, scan, until

Start = Callable[..., RunningDaemon]

MORE_CAME = "lost: more came than could be shown; a filter, or --sample N, leaves some out"
PRESENT = "present, by method static"
IGNORED = {
    "C2": "such a target is never answered, unless a rule names exactly this address",
    "C3": "such a target is never answered",
    "C4": "it comes from wan0's own MAC address",
    "C5": f"it went to {FOREIGN_MAC.hex(':')}, which isn't wan0's MAC address",
    "C9": "its answer would go to a multicast or zero MAC address",
}


def be_a_wire(topology: Topology) -> None:
    """Nothing comes from the upstream but what a test sends: its kernel would ask, too.

    And no tag can stand beside the frames (native mode): else an untagged question might go a longer way.
    """
    topology.sysctl("upstream", "net/ipv6/conf/eth0/disable_ipv6", 1)
    topology.xdp_pass("upstream", "eth0")


def wanted_of(kind: Kind, frame: bytes, datapath: str) -> tuple[str, str]:
    """The outcome of a frame under a static rule, and why."""
    if isinstance(kind.wanted, Reason):
        return Outcome.INVALID, INVALID[kind.wanted]
    if kind.wanted is Wanted.DAD:
        return Outcome.DAD, DAD_IGNORED
    if kind.wanted is Wanted.IGNORED:
        return Outcome.IGNORED, IGNORED[kind.rfc]
    plain = frame[frame.index(b"\x86\xdd", 12) + 2 + 6] == 58
    return Outcome.ANSWERED_XDP if plain and datapath == "hybrid" else Outcome.ANSWERED_PYTHON, PRESENT


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_every_kind_is_told_of_with_its_frame_its_outcome_and_why(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    be_a_wire(topology)
    keys = {"datapath": f'"{datapath}"', "attach": '"native"'}
    running = daemon("".join(configuration(vlan=vlan, **keys) for vlan in ('"untagged"', "100")))
    file = topology.directory / "a.pcapng"
    sent: list[bytes] = []
    wanted: Counter[tuple[object, ...]] = Counter()
    for tags, vlan in ((b"", ()), (TAGS_8021Q, (100,))):
        for kind in KINDS:
            target = SETTING.target[:8] + (len(sent) + 0x1000).to_bytes(8, "big")
            frame = kind.build(replace(SETTING, target=target, tags=tags))
            sent.append(frame)
            if kind.wanted is not Wanted.UNSEEN:
                wanted[frame, vlan, *wanted_of(kind, frame, datapath)] += 1
    with Wire(topology) as wire, commanded(running, "--json", "--write", str(file)) as trace:
        began = time.time()
        wire.send(*sent)
        assert trace.has(wanted.total())
        ended = time.time()
        answers = wire.advertisements(0.5)
        assert trace.end() == {"seen": wanted.total(), "lost": 0, "counted": wanted.total()}
    objects = trace.objects()
    times = [datetime.fromisoformat(each["time"]).timestamp() for each in objects]
    assert began - 0.01 <= min(times) <= max(times) <= ended + 0.01, "the clocks may go apart by a little"
    inbound = [each.data for each in frames(file) if each.data[6:12] != SETTING.mac or each.data in sent]
    told = Counter(
        (frame, tuple(each["vlan"]), each["outcome"], each["reason"])
        for frame, each in zip(inbound, objects, strict=True)
    )
    assert told == wanted
    assert sorted(each["advertisement"] for each in objects if each["advertisement"]) == sorted(
        answer.hex() for answer in answers
    )
    assert {each["by"] for each in objects if each["outcome"] == Outcome.ANSWERED_XDP} <= {"xdp"}
    assert {each["by"] for each in objects if each["outcome"] == Outcome.ANSWERED_PYTHON} == {"python"}
    assert {each["rule"] for each in objects if each["outcome"] == Outcome.DAD} == {"2001:db8:1::/64"}
    # as others read what it has written
    outbound = Counter(each.data for each in frames(file)) - Counter(inbound)
    assert outbound == Counter(answers)
    by_tshark = tshark(str(file), "frame.interface_name", "frame.comment", "icmpv6.type")
    assert len(by_tshark) == len(inbound) + len(answers)
    assert {name for name, _, _ in by_tshark} == {"wan0"}
    assert sum(comment.startswith("invalid: ") for _, comment, _ in by_tshark) == sum(
        count for (*_, outcome, _), count in wanted.items() if outcome == Outcome.INVALID
    )
    assert sum(kind == "136" for _, _, kind in by_tshark) == len(answers)
    read = subprocess.run(["tcpdump", "-n", "-r", str(file)], capture_output=True, text=True, timeout=120, check=True)
    assert len(read.stdout.splitlines()) == len(by_tshark)


RULES = (
    *EACH_METHOD,
    "2001:db8:7::/64 neighbour via=gone0",
    "2001:db8:8::/64 static dad=defend",
    "2001:db8:9::/64 neighbour via=lan0 dad=defend",
    "2001:db8:10::/64 route via=lan0",
)
NEVER = "such a target is never answered, unless a rule names exactly this address"
RESOLVES = "the neighbour table doesn't have it behind lan0; the kernel asks, and nobody has answered yet"
STILL = "a DAD probe to be defended; the kernel asks whether it is still there behind lan0"
THERE = "it is not behind lan0, but on the asker's link, or another proxy has asked for it"
ROUTED = "no route to it out of another interface"
NEXT_HOP = "it is a next hop of a route out of wan0; never impersonated"
LATE = "it was pending, and has been found behind lan0"
MONITORED = 'it would be answered or resolved, but for datapath = "monitor"'
STANDS_BY = "it would be answered or resolved, but 192.0.2.77 isn't on this machine"
UNTAGGED = (
    # what the one entry for untagged frames becomes by a reload, and by which keys
    (Outcome.MONITORED, MONITORED, {"datapath": '"monitor"'}),
    (Outcome.STANDBY, STANDS_BY, {"active_with": '"192.0.2.77"'}),
)
FIRST = "the first time; the kernel's proxy entry answers from then on, if it has got one"


UNDEVICED = "there is no VLAN device for such frames, so the kernel can't, and npd6-xdp does"
Step = tuple[bytes, str, str, int | None]
"""A frame, its outcome, the sentence, and the number of the rule's prefix."""


def steps_of(answered: str, tags: bytes) -> list[Step]:
    """One for each outcome where it can occur, and for each sentence of it, in frames with these tags."""
    kernel: tuple[Step, ...] = (
        (question("2001:db8:2::1"), Outcome.ANSWERED_PYTHON, FIRST, 2),
        (question("2001:db8:2::1"), Outcome.KERNEL, "the kernel's proxy entry for it answers", 2),
        (question(UPSTREAM_ADDRESS), Outcome.IGNORED, NEXT_HOP, None),
        (question(EDGE_WAN_ADDRESS), Outcome.OWN, "wan0 holds this address itself; the kernel answers", None),
    )
    steps: tuple[Step, ...] = (
        (question("2001:db8:1::99"), answered, "the neighbour table has it behind lan0", 1),
        (question("2001:db8:1::55"), Outcome.ABSENT, THERE, 1),
        (question("2001:db8:7::1"), Outcome.ABSENT, "there is no gone0 on this machine", 7),
        *(((question("2001:db8:2::1"), answered, UNDEVICED, 2),) if tags else kernel),
        (question("2001:db8:3::1"), Outcome.ABSENT, ROUTED, 3),
        (question("2001:db8:3:0:1::1"), answered, "there is a route to it", 3),
        (question(EDGE_LAN_ADDRESS), answered, "this host holds the address on another interface", 1),
        (question("2001:db8:4::1"), answered, PRESENT, 4),
        (question("2001:db8:4::dead"), Outcome.IGNORED, "its include and exclude leave it out", 4),
        (question("2001:db8:5::1"), Outcome.IGNORED, "the rule says so", 5),
        (question("fe80::dead"), Outcome.IGNORED, NEVER, None),
        (question("2001:db8:6::1"), Outcome.UNMATCHED, "no rule covers it", None),
        (question("2001:db8:4::1", **DAD), Outcome.DAD, DAD_IGNORED, 4),
        (question("2001:db8:2::1", **DAD), Outcome.DAD, DAD_IGNORED, 2),
        (question("2001:db8:8::1", **DAD), Outcome.ANSWERED_PYTHON, f"a DAD probe to be defended; {PRESENT}", 8),
        (question("2001:db8:9::99", **DAD), Outcome.PENDING, STILL, 9),
        (question("2001:db8:10::1"), Outcome.ABSENT, "no route to it out of lan0", 10),
        (question("2001:db8:4::1", hop_limit=254), Outcome.INVALID, INVALID[Reason.HOP_LIMIT], None),
    )
    return [(tagged(frame, tags), *rest) for frame, *rest in steps]  # type: ignore[misc]


def tagged(frame: bytes, tags: bytes) -> bytes:
    return frame[:12] + tags + frame[12:]


@pytest.mark.needs_table
@pytest.mark.parametrize("tags", [b"", TAGS_8021Q], ids=["untagged", "tagged"])
@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_each_outcome_is_told_of_with_its_sentence_and_rule(
    topology: Topology, daemon: Start, datapath: str, tags: bytes
) -> None:
    answered = Outcome.ANSWERED_XDP if datapath == "hybrid" else Outcome.ANSWERED_PYTHON
    be_a_wire(topology)
    keys = {"attach": '"native"'}
    more = configuration("2001:db8:4::/64 static", vlan="101", datapath='"monitor"', **keys)
    for_one = {"active_with": '"192.0.2.77"', "datapath": f'"{datapath}"'}
    more += configuration("2001:db8:4::/64 static", vlan="200", **for_one, **keys)
    speaks_for = {"vlan": "100"} if tags else {}
    running = daemon(configuration(*RULES, datapath=f'"{datapath}"', **speaks_for, **keys) + more)
    topology.run("host", "ip", "addr", "add", "2001:db8:1::99/128", "dev", "eth0", "nodad", check=True)
    topology.run("edge", "ip", "-6", "route", "add", "2001:db8:3:0:1::/80", "dev", "lan0", check=True)
    known = f"2001:db8:1::55 lladdr {FOREIGN_MAC.hex(':')} dev wan0 nud permanent"
    topology.run("edge", "ip", "-6", "neigh", "add", *known.split(), check=True)
    gone = f"2001:db8:9::99 lladdr {FOREIGN_MAC.hex(':')} dev lan0 nud stale"
    topology.run("edge", "ip", "-6", "neigh", "add", *gone.split(), check=True)
    untold = question("2001:db8:4::1")
    monitored, for_standby, of_nobody = (tagged(untold, b"\x81\0" + vlan.to_bytes(2)) for vlan in (101, 200, 300))
    steps = [
        *steps_of(answered, tags),
        (monitored, Outcome.MONITORED, MONITORED, 4),
        (for_standby, Outcome.STANDBY, STANDS_BY, 4),
        (of_nobody, Outcome.UNMATCHED, "no [[interface]] entry matches VLAN 300 of wan0", None),
    ]
    with Wire(topology) as wire, commanded(running, "--json", "--source", UPSTREAM_MAC) as trace:
        told = is_found(trace, wire, tags)
        for step in steps:
            is_told(trace, wire, step, told)
            told += 1
        for outcome, why, by in UNTAGGED if not tags else ():
            running.write(configuration("2001:db8:4::/64 static", **{"datapath": f'"{datapath}"', **by, **keys}))
            assert verb(running, "reload").returncode == 0
            is_told(trace, wire, (untold, outcome, why, 4), told)
            told += 1
        count = told - 1  # the late answer isn't one more
        assert trace.end() == {"seen": count, "lost": 0, "counted": count}


def is_told(trace: Commanded, wire: Wire, step: Step, told: int) -> None:
    """Send a frame, and see that it is told of as it should be, after so many lines."""
    frame, outcome, why, rule = step
    wire.send(frame)
    assert trace.has(told + 1), (outcome, why)
    each = trace.objects()[told]
    prefix = None if rule is None else f"2001:db8:{rule}::/64"
    assert (each["outcome"], each["reason"], each["rule"]) == (outcome, why, prefix)
    assert each["vlan"] == ([int.from_bytes(frame[14:16]) & 0xFFF] if frame[12] == 0x81 else [])
    assert "late" not in each


@pytest.mark.needs_table
@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_what_goes_on_to_the_others_behind_a_bridges_port_is_told_so(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    be_a_wire(topology)
    for line in ("link add br0 type bridge", "link set wan0 master br0", "link set br0 up"):
        topology.run("edge", "ip", *line.split(), check=True)
    running = daemon(configuration("2001:db8:1::/64 neighbour via=lan0", datapath=f'"{datapath}"', attach='"native"'))
    with Wire(topology) as wire, commanded(running, "--json", "--outcome", "pending", "--count", "1") as trace:
        wire.send(question("2001:db8:1::dead"))
        assert trace.process.wait(120) == 0
    (each,) = trace.objects()
    assert each["reason"] == f"{RESOLVES}, and it goes on to the others behind wan0"


def is_found(trace: Commanded, wire: Wire, tags: bytes) -> int:
    """Ask for a host until it is found, and see that this is told of; how many lines that takes.

    Others may have filled the kernel's neighbour table, which all namespaces share: then one more question is needed.
    """
    asked = 0

    def late() -> list[dict[str, Any]]:
        return [each for each in trace.objects() if each.get("late")]

    def ask() -> bool:
        nonlocal asked
        wire.send(tagged(question("2001:db8:1::99"), tags))
        asked += 1
        deadline = time.monotonic() + 3.0
        while not late() and time.monotonic() < deadline:
            time.sleep(0.02)
        return bool(late())

    assert until(ask)
    assert trace.has(asked + 1)
    *_, question_told = [each for each in trace.objects() if each["outcome"] == Outcome.PENDING]
    assert question_told["reason"] == RESOLVES
    (answer,) = late()
    assert (answer["reason"], answer["by"], answer["rule"]) == (LATE, "python", "2001:db8:1::/64")
    pending = {(each["target"], each["time"]) for each in trace.objects() if each["outcome"] == Outcome.PENDING}
    assert (answer["target"], answer["time"]) in pending, "it has its question's time"
    return asked + 1


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_one_longer_than_4096_bytes_is_told_with_that_and_its_beginning(
    topology: Topology, daemon: Start, datapath: str
) -> None:
    topology.sysctl("upstream", "net/ipv6/conf/eth0/disable_ipv6", 1)
    ends: tuple[tuple[Namespace, str], ...] = (("upstream", "eth0"), ("edge", "wan0"))
    for namespace, interface in ends:
        topology.run(namespace, "ip", "link", "set", interface, "mtu", "9000", check=True)
    running = daemon(configuration(datapath=f'"{datapath}"'))
    file, frame = topology.directory / "long.pcapng", oversized(SETTING)
    with Wire(topology) as wire, commanded(running, "--json", "--write", str(file)) as trace:
        wire.send(frame)
        assert trace.has(1)
        assert trace.end() == {"seen": 1, "lost": 0, "counted": 1}
    (each,) = trace.objects()
    assert (each["outcome"], each["reason"], each["rule"]) == ("unmatched", "it is longer than 4,096 bytes", None)
    (packet,) = frames(file)
    assert packet.data == frame[:1536]
    assert tshark(str(file), "frame.len", "frame.comment") == [
        [str(len(frame)), "unmatched: it is longer than 4,096 bytes"]
    ]


def test_a_line_to_read_has_all_of_it(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    with Wire(topology) as wire, commanded(running, "--target", "2001:db8:1::42", "--count", "1") as trace:
        assert wire.ask(question("2001:db8:1::42")) is not None
        assert trace.process.wait(120) == 0
    (line,) = trace.out.read_text().splitlines()
    source = IPv6Address(SETTING.asker_link_local)
    assert line.split()[1:7] == ["wan0", str(source), SETTING.asker_mac.hex(":"), ">", "2001:db8:1::42", "answered_xdp"]
    assert line.endswith(
        f"{PRESENT}; rule 2001:db8:1::/64; NA by XDP: {EDGE_WAN_MAC}, R=1 S=1 O=0 to {SETTING.asker_mac.hex(':')}"
    )
    assert trace.log.read_text().splitlines()[-1] == "npd6-xdp: 1 seen, 0 lost, 1 counted"


def test_ctrl_c_ends_lines_to_read_with_a_summary_beside_them(topology: Topology, daemon: Start) -> None:
    be_a_wire(topology)
    running = daemon(configuration())
    with Wire(topology) as wire, commanded(running) as trace:
        for number, target in enumerate(("2001:db8:1::42", "2001:db8:9::42"), 1):
            wire.send(question(target))
            assert until(lambda: len(trace.out.read_text().splitlines()) == number)  # noqa: B023
        trace.process.send_signal(signal.SIGINT)
        assert trace.process.wait(120) == 0
    lines = trace.out.read_text().splitlines()
    assert [line.split()[6] for line in lines] == ["answered_xdp", "unmatched"]
    assert lines[0].index(PRESENT) == lines[1].index("no rule covers it"), "aligned"
    assert trace.log.read_text().splitlines() == [
        "npd6-xdp: tracing; Ctrl-C ends it",
        "npd6-xdp: 2 seen, 0 lost, 2 counted",
    ]


def test_what_is_lost_is_said_once_a_second_and_summed_up_at_the_end(topology: Topology, daemon: Start) -> None:
    be_a_wire(topology)
    running = daemon(configuration(attach='"native"'))
    began = time.monotonic()
    with commanded(running) as trace, flood(topology, question("2001:db8:1::"), 4096) as generator:
        generator.start(Order(None, 3.5))
        assert until(lambda: trace.log.read_text().count(" lost: more came than could be shown") >= 2)
        generator.finish()
        trace.process.send_signal(signal.SIGINT)
        assert trace.process.wait(120) == 0
    elapsed = time.monotonic() - began
    _, *told, summary = trace.log.read_text().splitlines()
    found = [re.fullmatch(rf"npd6-xdp: ([\d,]+) {MORE_CAME}", line) for line in told]
    losses = [int(each[1].replace(",", "")) for each in found if each]
    assert len(losses) == len(told) <= elapsed, "one a second at most, and nothing else"
    assert min(losses) > 0
    seen, lost, counted = (int(each.replace(",", "")) for each in re.findall(r"[\d,]+(?= [slc])", summary))
    assert sum(losses) <= lost, "each is lost once"
    assert seen + lost == counted == sum(running.solicitations().values())
    with trace.out.open() as shown:
        assert sum(1 for _ in shown) == seen


def test_a_capture_is_read_live_behind_a_pipe_and_a_reader_that_goes_ends_it(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    said, log = topology.directory / "tshark.out", topology.directory / "trace.log"
    words = f"{sys.executable} -m npd6_xdp trace --control {running.control} --write - 2>{log}; echo ended >>{log}"
    fields = "-T fields -e frame.interface_name -e icmpv6.type -e frame.comment"
    process = topology.popen("edge", "sh", "-c", f"({words}) | tshark -l -n -r - -c 3 {fields} >{said}")
    assert until(lambda: log.exists() and "npd6-xdp: tracing" in log.read_text())
    with Wire(topology) as wire:
        assert wire.ask(question("2001:db8:1::42")) is not None
        assert until(lambda: len(said.read_text().splitlines()) >= 2), "while it goes on"
        assert process.poll() is None
        assert wire.ask(question("2001:db8:1::43")) is not None
    assert process.wait(120) == 0
    assert [line.split("\t") for line in said.read_text().splitlines()][:2] == [
        ["wan0", "135", "answered_xdp: present, by method static; rule 2001:db8:1::/64"],
        ["wan0", "136", "answered_xdp: by xdp; present, by method static; rule 2001:db8:1::/64"],
    ]
    assert until(lambda: log.read_text().endswith("ended\n")), "nobody has asked once more"
    assert says(running, "tracing has ended for process")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_as_a_user_does(topology: Topology, daemon: Start, number: signal.Signals) -> None:
    running = daemon(configuration())
    with Wire(topology) as wire, commanded(running, "--json") as trace:
        assert wire.ask(question("2001:db8:1::42")) is not None
        assert trace.has(1)
        assert trace.end(number) == {"seen": 1, "lost": 0, "counted": 1}
    assert says(running, "tracing has ended for process")


def test_a_full_disk_ends_it_in_one_line(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    full = Commanded(running, "--write", "/dev/full")
    assert full.process.wait(120) == 1
    assert full.log.read_text() == "npd6-xdp: --write /dev/full: No space left on device: free some space there\n"
    assert says(running, "tracing has ended for process")


def test_the_second_who_traces_hears_who_the_first_is_and_a_filter_of_nothing_what_there_is(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(configuration())
    with commanded(running) as first:
        second = Commanded(running)
        assert second.process.wait(120) == 1
        assert f"another process is tracing already (pid {first.process.pid}): one at a time" in second.log.read_text()
    for argv, said in (
        (("--interface", "wan9"), "wan9 has no rules"),
        (("--rule", "2001:db8:9::/64"), "there is no 2001:db8:9::/64; there are 2001:db8:1::/64"),
    ):
        wrong = Commanded(running, *argv)
        assert wrong.process.wait(120) == 2
        (line,) = wrong.log.read_text().splitlines()
        assert said in line
    file = topology.directory / "old.pcapng"
    file.write_bytes(bytes(100_000))
    with commanded(running, "--json", "--write", str(file)) as again:
        again.end()
    assert list(frames(file)) == [], "what was there is gone"


def test_a_daemon_that_ends_is_said_to_whoever_traces(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    with commanded(running, "--json") as trace:
        running.stop()
        assert trace.process.wait(120) == 1
        last = trace.log.read_text().splitlines()[-1]
    assert "the trace has ended: npd6-xdp ends" in last


def test_of_a_sample_and_of_a_count_so_many_are_shown(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    with Wire(topology) as wire, commanded(running, "--json", "--sample", "10", "--count", "7") as trace:
        wire.deafen()
        wire.send(*scan(200))
        assert trace.process.wait(120) == 0
    assert len(trace.objects()) == 7
    assert json.loads(trace.out.read_text().splitlines()[-1]) == {"summary": {"seen": 7, "lost": 0, "counted": 7}}


def test_who_may_use_the_control_socket_may_trace_without_any_privilege(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    trace = Commanded(running, "--json", "--count", "1", prefix=bare)
    assert until(lambda: trace.is_on or trace.process.poll() is not None)
    capabilities = Path(f"/proc/{trace.process.pid}/status").read_text().partition("CapEff:")[2].split()[0]
    assert int(capabilities, 16) == 0
    with Wire(topology) as wire:
        assert wire.ask(question("2001:db8:1::42")) is not None
    assert trace.process.wait(120) == 0
    assert [each["outcome"] for each in trace.objects()] == ["answered_xdp"]


def test_outcomes_have_colours_on_a_terminal_that_can_and_for_who_wants_them(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration())
    words = (sys.executable, "-m", "npd6_xdp", "trace", "--control", str(running.control), "--count", "1")
    usual = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    for more, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)):
        master, slave = pty.openpty()
        log = topology.directory / "colours.log"
        with log.open("wb") as said:
            process = topology.popen("edge", *words, stdout=slave, stderr=said, env={**usual, **more})
        os.close(slave)
        assert until(lambda: "npd6-xdp: tracing" in log.read_text())  # noqa: B023
        with Wire(topology) as wire:
            assert wire.ask(question("2001:db8:1::42")) is not None
        assert process.wait(120) == 0
        line = os.read(master, 4096)
        os.close(master)
        assert (b"\x1b[32manswered_xdp\x1b[0m" in line) == coloured
        assert b"answered_xdp" in line


def test_a_trace_goes_on_over_a_reload_by_the_new_rules(topology: Topology, daemon: Start) -> None:
    be_a_wire(topology)
    running = daemon(configuration())
    with Wire(topology) as wire, commanded(running, "--json") as trace:
        wire.send(question("2001:db8:1::42"))
        assert trace.has(1)
        running.write(configuration("2001:db8:1::40/124 ignore", "2001:db8:1::/64 static"))
        assert verb(running, "reload").returncode == 0
        wire.send(question("2001:db8:1::42"))
        assert trace.has(2)
        assert trace.end() == {"seen": 2, "lost": 0, "counted": 2}
    assert [(each["outcome"], each["rule"], each["reason"]) for each in trace.objects()] == [
        ("answered_xdp", "2001:db8:1::/64", PRESENT),
        ("ignored", "2001:db8:1::40/124", "the rule says so"),
    ]
