# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace of a real daemon: what was sent comes back with what became of it, and nothing is left on when it is over."""

from __future__ import annotations

import collections
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from npd6_xdp.core.errors import MachineError, UsageError
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.trace_wire import Filter
from npd6_xdp.core.verdict import Limit, Outcome
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_ADDRESS, HOST_ADDRESS, Topology
from npd6_xdp.tools.control import ask
from npd6_xdp.tools.trace_session import Session
from tests.bench.counter import Counter
from tests.bench.generators import Order, flood
from tests.frames import TAGS_8021Q
from tests.netns.tracing import Trace, client, flood_paced, switched_on
from tests.netns.wire import DAD, LATE, Wire, configuration, paused, question, says, scan, until
from tests.soak.ground import driver

Start = Callable[..., RunningDaemon]

RULES = (
    "2001:db8:1::/64 neighbour via=lan0",
    "2001:db8:2::/64 kernel",
    "2001:db8:3::/64 route",
    "2001:db8:4::/64 static",
    "2001:db8:5::/64 ignore",
)
ABSENT_HOST = "2001:db8:1::dead"
STATIC = "2001:db8:4::1"
FLOOD = 20_000

both = pytest.mark.parametrize(
    ("datapath", "answered"),
    [("hybrid", Outcome.ANSWERED_XDP), ("python", Outcome.ANSWERED_PYTHON)],
    ids=["hybrid", "python"],
)


@pytest.fixture
def native(topology: Topology) -> Topology:
    """Where native mode delivers: no tag can stand beside the frames there."""
    topology.xdp_pass("upstream", "eth0")
    return topology


@pytest.fixture
def counter(topology: Topology) -> Iterator[Counter]:
    """It counts the answers that come to the upstream, where nobody asks but a test; native mode delivers, too."""
    topology.sysctl("upstream", "net/ipv6/conf/eth0/disable_ipv6", 1)
    with Counter(topology, sample=1 << 20) as counting:
        yield counting


def asked_since(running: RunningDaemon, before: int = 0) -> int:
    """Solicitations that were counted after so many."""
    return sum(running.solicitations().values()) - before


def have_come(topology: Topology, counter: Counter) -> int:
    """Answers that the asker got, and those that the driver had no room for on his end (which only XDP's meet)."""
    return counter.counts().answers + driver(topology).unsent


def config(datapath: str = "hybrid", *rules: str) -> str:
    return configuration(*(rules or RULES), datapath=f'"{datapath}"', attach='"native"', events_per_source="0")


@both
def test_each_solicitation_comes_back_byte_for_byte_with_what_became_of_it(
    native: Topology, daemon: Start, datapath: str, answered: Outcome
) -> None:
    running = daemon(config(datapath))
    steps: tuple[tuple[bytes, Outcome, int | None], ...] = (
        (question(ABSENT_HOST), Outcome.PENDING, 0),
        (question(HOST_ADDRESS), Outcome.PENDING, 0),
        (question(HOST_ADDRESS), answered, 0),
        (question("2001:db8:2::1"), Outcome.ANSWERED_PYTHON, 1),
        (question("2001:db8:2::1"), Outcome.KERNEL, 1),
        (question("2001:db8:3::1"), Outcome.ABSENT, 2),
        (question(STATIC), answered, 3),
        (question("2001:db8:5::1"), Outcome.IGNORED, 4),
        (question(EDGE_WAN_ADDRESS), Outcome.OWN, None),
        (question("2001:db8:6::1"), Outcome.UNMATCHED, None),
        (question(STATIC, **DAD), Outcome.DAD, 3),
        (question(STATIC, hop_limit=254), Outcome.INVALID, None),
    )
    with Trace(running) as trace, Wire(native) as wire:
        assert switched_on(running) == {"a ring", "an entry"}
        for number, (frame, outcome, _) in enumerate(steps, 1):
            wire.send(frame)
            assert trace.has_decided(number), outcome
            if number == 2:  # the host is found, and who has waited is answered
                assert until(lambda: any(line.late for line in trace.read()))
        lines = trace.decided
        late = [line for line in trace.lines if line.late]
        summary = trace.end()
    for line, (frame, outcome, rule) in zip(lines, steps, strict=True):
        assert (line.frame, line.outcome, line.size) == (frame, outcome, len(frame))
        assert line.rule == rule
        assert (line.by, line.advertisement is not None) == {
            Outcome.ANSWERED_XDP: ("xdp", True),
            Outcome.ANSWERED_PYTHON: ("python", True),
        }.get(outcome, (None, False))
    (answer,) = late
    assert (answer.frame, answer.by, answer.time) == (steps[1][0], "python", lines[1].time)
    assert summary == (len(steps), 0, len(steps))
    assert collections.Counter(line.outcome for line in lines) == running.solicitations()
    assert switched_on(running) == set()


def test_each_advertisement_in_it_is_the_one_that_went_out(native: Topology, daemon: Start) -> None:
    tagged = configuration("2001:db8:4::/64 static", vlan="100", datapath='"python"', attach='"native"')
    running = daemon(config() + tagged)
    with Trace(running) as trace, Wire(native) as wire:
        for number, tags in enumerate((b"", TAGS_8021Q), 1):  # answered by XDP, and by Python
            frame = question(STATIC)
            wire.send(frame[:12] + tags + frame[12:])
            (advertisement,) = wire.advertisements(LATE, enough=1)
            assert trace.has(number)
            assert trace.lines[-1].advertisement == advertisement
    assert [line.by for line in trace.lines] == ["xdp", "python"]


def test_a_held_one_is_told_of_when_the_tap_has_handed_it_up(topology: Topology, daemon: Start) -> None:
    """In generic mode on a port with VLANs, where a tag might stand beside the frame."""
    vlan = configuration("2001:db8:4::/64 static", vlan="100", attach='"generic"')
    running = daemon(configuration("2001:db8:4::/64 static", attach='"generic"') + vlan)
    with Trace(running) as trace, Wire(topology) as wire:
        wire.send(question(STATIC))
        assert trace.has(1)
        assert trace.end() == (1, 0, 1)
        (line,) = trace.lines
    assert (line.frame, line.outcome, line.by) == (question(STATIC), Outcome.ANSWERED_PYTHON, "python")


def test_what_python_refuses_is_told_with_its_limit(native: Topology, daemon: Start) -> None:
    limits = "[limits]\npending = 1\n"
    running = daemon(limits + config())
    with Trace(running, Filter(outcomes=frozenset({Outcome.RATE_LIMITED}))) as trace, Wire(native) as wire:
        wire.send(*scan(8, "2001:db8:1::"))
        assert until(lambda: running.solicitations().get("rate_limited", 0) > 0)
        assert trace.has(1)
        assert {line.outcome for line in trace.lines} == {Outcome.RATE_LIMITED}
        assert {line.limit for line in trace.lines} <= {Limit.PENDING, Limit.CROWDED}


REFUSED = (
    (Filter(interface="wan9"), "trace: interface: wan9 has no rules; there are interfaces with rules: wan0"),
    (Filter(rule="2001:db8:9::/64"), r"trace: rule: there is no 2001:db8:9::/64; there are .*2001:db8:4::/64"),
    (Filter(sample=0), "trace: sample: must be a whole number from 1 on"),
    (Filter(vlan=(4095,)), "trace: vlan: must be one or two VLAN ids"),
)


def test_what_cannot_be_wanted_is_one_line_and_one_traces_at_a_time(native: Topology, daemon: Start) -> None:
    running = daemon(config())
    for wanted, said in REFUSED:
        with pytest.raises(UsageError, match=f"^{said}") as caught:
            Session(running.control, wanted)
        assert "\n" not in str(caught.value)
        assert switched_on(running) == set()
    with client(running) as first:
        with pytest.raises(MachineError, match=rf"^trace: another process is tracing already \(pid {first.pid}\)"):
            Session(running.control, Filter())
        assert ask(running.control, {"verb": "status"}), "the socket answers others"
    assert until(lambda: not switched_on(running))
    Session(running.control, Filter()).close()


@both
def test_a_client_that_goes_or_stands_leaves_nothing_switched_on_and_no_answer_is_lost(
    topology: Topology, counter: Counter, daemon: Start, datapath: str, answered: Outcome
) -> None:
    running = daemon(config(datapath))
    for number, how in enumerate((signal.SIGKILL, signal.SIGSTOP), 1):
        with client(running) as tracer, Wire(topology) as wire:
            tracer.send_signal(how)
            wire.deafen()
            flooding = scan(FLOOD, "2001:db8:4::")
            assert flood_paced(wire, flooding, lambda: asked_since(running, (number - 1) * FLOOD))  # noqa: B023
            assert until(lambda: not switched_on(running))
            assert says(running, "tracing has ended for process", number)
            if how == signal.SIGSTOP:
                assert "nothing was heard for 5 s" in running.log
                time.sleep(5)  # it stands for ten
                tracer.send_signal(signal.SIGCONT)
                assert tracer.wait(60) != 0, "and hears that it is over"
        assert running.solicitations() == {answered: number * FLOOD}
        assert until(lambda: have_come(topology, counter) == number * FLOOD)  # noqa: B023
    with Trace(running) as trace, Wire(topology) as wire:  # and it goes on for others
        wire.send(question(STATIC))
        assert trace.has(1)


@both
def test_of_a_flood_that_nobody_reads_all_is_answered_and_what_was_not_seen_is_counted_as_lost(
    native: Topology, daemon: Start, datapath: str, answered: Outcome
) -> None:
    running = daemon(config(datapath))
    flood = 4 * FLOOD  # more than there is space for in messages
    with Trace(running) as trace, Wire(native) as wire:
        wire.deafen()
        flooding = scan(flood, "2001:db8:4::")
        assert flood_paced(wire, flooding, lambda: sum(trace.unread(running.solicitations).values()))
        assert running.solicitations() == {answered: flood}
        connection = trace.session._socket
        connection.settimeout(60)
        # each sign of life is answered by a word, until not even a word has space; but for the last one
        connection.sendall(b"alive\n" * 1_000_000 + b"end\n")
        assert until(lambda: not switched_on(running))
        connection.setblocking(False)
        seen, lost, counted = trace.end()
    assert lost > 0
    assert seen + lost == counted == flood
    assert seen == len(trace.lines)


def test_at_the_peak_of_live_frames_no_answer_is_lost_and_what_was_not_seen_is_counted(
    topology: Topology, counter: Counter, daemon: Start
) -> None:
    running = daemon(config())
    asked = question("2001:db8:4::")
    before = driver(topology)
    with Trace(running) as trace, flood(topology, asked, 4096) as generator:
        generator.start(Order(None, 1.0))
        while asked_since(running) < FLOOD:
            trace.read()
        trace.during(generator.finish)
        assert trace.during(lambda: until(lambda: driver(topology).seen - before.seen == asked_since(running)))
        counted = running.solicitations()
        seen, lost, told = trace.end()
    port = driver(topology) - before
    assert counted == {"answered_xdp": port.seen}
    assert port.taken == port.seen == port.returned, "each question that has come in has gone back as its answer"
    assert until(lambda: have_come(topology, counter) == port.seen), "and has come to who asked, or found no room there"
    assert seen + lost == told == port.seen
    assert seen == len(trace.lines) > 0
    assert {line.frame[:56] for line in trace.lines} == {asked[:56]}, "up to the checksum: its target varies"


def test_as_fast_as_python_answers_no_answer_is_lost_and_what_was_not_seen_is_counted(
    topology: Topology, counter: Counter, daemon: Start
) -> None:
    running = daemon(config("python"))

    def counted() -> int:
        trace.read()
        return asked_since(running)

    with Trace(running) as trace, Wire(topology) as wire:
        wire.deafen()
        assert flood_paced(wire, scan(FLOOD, "2001:db8:4::"), counted)
        seen, lost, told = trace.end()
    assert running.solicitations() == {"answered_python": FLOOD}
    assert until(lambda: counter.counts().answers == FLOOD)
    assert seen + lost == told == FLOOD
    assert seen == len(trace.lines) > 0


def test_a_trace_goes_on_through_reloads_and_a_program_that_takes_over(native: Topology, daemon: Start) -> None:
    running = daemon(config())
    with Trace(running, Filter(rule="2001:db8:4::/64")) as trace, Wire(native) as wire:
        wire.send(question(STATIC))
        assert trace.has(1)
        running.write(config("hybrid", *RULES, "2001:db8:7::/64 static"))
        assert trace.during(lambda: running.command("reload")).returncode == 0
        wire.send(question(STATIC), question("2001:db8:7::1"))
        assert trace.has(2)
        many = [f"2001:db8:100:{number:x}::/64 static" for number in range(20_000)]
        running.write(config("hybrid", *RULES, *many))
        assert trace.during(lambda: running.command("reload")).returncode == 0
        assert trace.during(lambda: says(running, "the kernel maps have grown"))
        wire.send(question(STATIC), question("2001:db8:100:7::1"))
        assert trace.has(3)
        assert trace.end() == (3, 0, 3)
    assert [line.frame for line in trace.lines] == 3 * [question(STATIC)]
    assert until(lambda: not switched_on(running)), "once the program is given up that another has taken over from"


def test_when_the_daemon_ends_the_client_is_told_so(native: Topology, daemon: Start) -> None:
    running = daemon(config())
    with Trace(running) as trace, Wire(native) as wire:
        wire.send(question(STATIC))
        assert until(lambda: running.solicitations() == {"answered_xdp": 1})
        running.stop()
        assert trace.has(1), "what came before is still read"
        with pytest.raises(MachineError, match=r": the trace has ended: npd6-xdp ends"):
            until(lambda: not trace.read() and False)


def test_what_is_wanted_of_python_only_is_all_that_comes(native: Topology, daemon: Start) -> None:
    running = daemon(config())
    wanted = Filter(target=Prefix.of("2001:db8:1::/64"), outcomes=frozenset({Outcome.PENDING}))
    with Trace(running, wanted) as trace, Wire(native) as wire:
        wire.send(question(STATIC), question(ABSENT_HOST), question("2001:db8:2::1"))
        assert trace.has(1)
        assert trace.end() == (1, 0, 1)
        assert [(line.frame, line.outcome) for line in trace.lines] == [(question(ABSENT_HOST), Outcome.PENDING)]


def test_a_daemon_that_stands_for_a_while_still_traces(native: Topology, daemon: Start) -> None:
    running = daemon(config("python"))
    with Trace(running) as trace, Wire(native) as wire:
        with paused(running):
            wire.send(question(STATIC))
            stood_at = time.monotonic()
            while time.monotonic() < stood_at + 6:  # longer than it waits for a word of ours
                assert trace.read() == [], "nobody has said what becomes of it"
        assert trace.end().counted == 1
