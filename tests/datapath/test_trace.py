# SPDX-License-Identifier: GPL-2.0-or-later
"""Who looks gets a record of each solicitation that the filter wants: what came, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv6Address

import pytest

from npd6_xdp.core.config import Datapath, Limits, Vlan
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.event import EventFlag
from npd6_xdp.core.hidden import Tapped
from npd6_xdp.core.layout import TRACE_FRAME_MAX
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.table import Decision, PresentFlag, Table
from npd6_xdp.core.trace_wire import Filter, Key, Record, TraceKind, key_of
from npd6_xdp.core.verdict import Limit, Method, Outcome, Reason
from npd6_xdp.system.bpf.trace import Looking, TraceRing
from npd6_xdp.tools.trace_ring import TraceRing as Reader
from tests.datapath.harness import (
    IFINDEX,
    PORT,
    XDP_DROP,
    XDP_PASS,
    XDP_TX,
    Bench,
    Hook,
    entry,
    rule,
    successor,
    table,
    taken_over,
)
from tests.datapath.present import MONITOR, PROBE, QUESTION, TARGET, one, question
from tests.frames import SETTING, TAGS_8021Q, TAGS_PRIORITY, TAGS_QINQ, UNSPECIFIED, ip6

ALL = Filter()
SIZE = 1 << 18


class Looker:
    """Looks at a bench's program."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.ring = TraceRing(SIZE)
        self.reader = Reader(self.ring.fileno(), SIZE)

    def look(self, wanted: Filter = ALL, rules: frozenset[int] = frozenset()) -> None:
        self.bench.ns_filter.look(Looking(self.ring.fileno(), wanted.pack(), wanted.interface or ""), rules)

    def records(self) -> list[Record]:
        return [Record.unpack(data) for data in self.reader.read(1 << 20)]

    def see(self, frame: bytes) -> Record:
        """The one record of a frame."""
        self.bench.run(frame)
        (record,) = self.records()
        return record

    def close(self) -> None:
        self.bench.ns_filter.look_away()
        self.reader.close()
        self.ring.close()


@pytest.fixture
def looker(bench: Bench, one_cpu: None) -> Iterator[Looker]:
    """Who looks at all, by a table that answers for 2001:db8::/32."""
    bench.use(table(entry()))
    looker = Looker(bench)
    looker.look()
    yield looker
    looker.close()
    bench.ns_filter.tap(Tapped())
    bench.use(table(entry()))


def tagged(tags: bytes, frame: bytes = QUESTION) -> bytes:
    return frame[:12] + tags + frame[12:]


OWN_ADDRESSES = (OwnAddress(IPv6Address(TARGET), 128),)
IGNORE, ROUTED = rule("2001:db8::/32", Method.IGNORE), rule("2001:db8::/32", Method.ROUTE)
ELSEWHERE = rule("2001:db8:f::/48")
LOOPED = QUESTION[:6] + SETTING.mac + QUESTION[12:]
STALE = EventFlag.STALE | EventFlag.ANSWERED
OWN = LinkFacts(PORT, IFINDEX, SETTING.mac, addresses=dict.fromkeys(((), (100,), (100, 7)), OWN_ADDRESSES))
KINDS: dict[str, tuple[Callable[[Vlan], Table], bytes, Outcome, Decision | None]] = {
    "answered": (lambda vlan: table(entry(vlan=vlan)), QUESTION, Outcome.ANSWERED_XDP, Decision.STATIC),
    "own": (lambda vlan: table(entry(vlan=vlan), facts=OWN), QUESTION, Outcome.OWN, Decision.OWN),
    "ignored": (lambda vlan: table(entry(IGNORE, vlan=vlan)), QUESTION, Outcome.IGNORED, Decision.IGNORE),
    "unmatched": (lambda vlan: table(entry(ELSEWHERE, vlan=vlan)), QUESTION, Outcome.UNMATCHED, None),
    "dad": (lambda vlan: table(entry(vlan=vlan)), PROBE, Outcome.DAD, Decision.STATIC),
    "absent": (lambda vlan: table(entry(ROUTED, vlan=vlan)), QUESTION, Outcome.ABSENT, Decision.ROUTE),
    "monitored": (lambda vlan: table(entry(vlan=vlan, datapath=MONITOR)), QUESTION, Outcome.MONITORED, Decision.STATIC),
    "our own MAC": (lambda vlan: table(entry(vlan=vlan)), LOOPED, Outcome.IGNORED, None),
}


@pytest.mark.parametrize("bench", Hook, ids=[hook.value for hook in Hook], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("tags", "vlan"), [(b"", Vlan()), (TAGS_8021Q, Vlan(tags=(100,))), (TAGS_QINQ, Vlan(tags=(100, 7)))], ids=str
)
def test_what_is_decided_in_the_program_is_told_with_the_frame_as_it_came(
    bench: Bench, looker: Looker, kind: str, tags: bytes, vlan: Vlan
) -> None:
    make, frame, outcome, decision = KINDS[kind]
    asked = tagged(tags, frame)
    bench.use(make(vlan))
    seen = bench.see(asked)
    (record,) = looker.records()
    assert (record.kind, record.outcome, seen.counted) == (TraceKind.DECIDED, outcome, (outcome,))
    assert (record.frame, record.size, record.ifindex) == (asked, len(asked), IFINDEX)
    assert bench.table.entries[record.entry].vlan == vlan
    assert (record.target, record.reason, record.limit, record.decision) == (TARGET, None, None, decision)
    assert record.advertisement == (seen.frame if outcome is Outcome.ANSWERED_XDP else None)
    assert (record.rule_id is None) == (decision in (None, Decision.OWN))


INVALID: dict[Reason, bytes] = {
    Reason.LENGTH: QUESTION[:70],
    Reason.HOP_LIMIT: QUESTION[:21] + b"\x40" + QUESTION[22:],
    Reason.CHECKSUM: QUESTION[:56] + bytes([QUESTION[56] ^ 1]) + QUESTION[57:],
    Reason.TARGET: question(ip6("ff02::1")),
    Reason.DAD_SLLAO: question(source=UNSPECIFIED),
}


@pytest.mark.parametrize("reason", INVALID)
def test_what_is_invalid_is_told_with_its_reason(looker: Looker, reason: Reason) -> None:
    record = looker.see(INVALID[reason])
    assert (record.outcome, record.reason, record.frame) == (Outcome.INVALID, reason, INVALID[reason])
    assert record.target == (bytes(16) if reason is Reason.LENGTH else INVALID[reason][62:78])


def test_of_a_longer_frame_than_is_kept_the_size_is_told(looker: Looker) -> None:
    for size in (TRACE_FRAME_MAX, TRACE_FRAME_MAX + 1, 2000):
        long = QUESTION.ljust(size, b"\xaa")
        record = looker.see(long)
        assert (record.outcome, record.size) == (Outcome.ANSWERED_XDP, size)
        assert record.frame == long[:TRACE_FRAME_MAX]


@pytest.mark.parametrize(
    ("using", "frame", "flags", "kept"),
    [
        (table(entry(datapath=Datapath.PYTHON)), QUESTION, EventFlag(0), None),
        (one(Method.NEIGHBOUR), QUESTION, EventFlag.MISS, None),
        (one(Method.KERNEL), QUESTION, EventFlag.MISS, None),
    ],
    ids=["python", "a miss", "a miss of method kernel"],
)  # fmt: skip
def test_what_is_handed_up_is_marked_and_told_by_the_same_key(
    bench: Bench, looker: Looker, using: Table, frame: bytes, flags: EventFlag, kept: None
) -> None:
    bench.use(using)
    record = looker.see(frame)
    (event,) = bench.events()
    assert (record.kind, record.frame, record.rule_id) == (TraceKind.HANDED_UP, frame, 0)
    assert event.flags == flags | EventFlag.TRACED
    assert record.key == key_of(event)
    assert bench.ns_filter.looked() == (0, 0), "Python's to count"


def test_what_xdp_answers_and_tells_python_of_is_final(bench: Bench, looker: Looker, knows: Callable[..., int]) -> None:
    knows(one(Method.NEIGHBOUR), PresentFlag.STALE)
    record = looker.see(QUESTION)
    (event,) = bench.events()
    assert (record.kind, record.outcome, event.flags) == (TraceKind.DECIDED, Outcome.ANSWERED_XDP, STALE)
    assert record.advertisement


def test_what_is_refused_is_told_with_its_limit(fresh: Callable[..., Bench], one_cpu: None) -> None:
    bench = fresh(table(entry(datapath=Datapath.PYTHON)), limits=Limits(events_per_second=1))
    looker = Looker(bench)
    looker.look()
    for _ in range(3):
        bench.run(QUESTION)
    refused = looker.records()[-1]
    assert (refused.kind, refused.outcome, refused.limit) == (TraceKind.DECIDED, Outcome.RATE_LIMITED, Limit.ALL)
    looker.close()


def test_what_is_lost_on_its_way_to_python_is_told(fresh: Callable[..., Bench], one_cpu: None) -> None:
    bench = fresh(table(entry(datapath=Datapath.PYTHON)), pages=16)
    looker = Looker(bench)
    looker.look(Filter(outcomes=frozenset({Outcome.LOST})))
    lost: list[Record] = []
    while not bench.totals()[Outcome.LOST]:
        bench.run(QUESTION)
        lost = [record for record in looker.records() if record.kind is TraceKind.DECIDED]
    assert [(record.outcome, record.frame) for record in lost] == [(Outcome.LOST, QUESTION)]
    looker.close()


def test_standby_is_told(bench: Bench, looker: Looker) -> None:
    bench.use(table(entry(active_with="2001:db8::1")).with_roles(frozenset()))
    assert looker.see(QUESTION).outcome is Outcome.STANDBY


def test_a_held_one_is_told_as_such_and_its_event_is_marked(bench: Bench, looker: Looker) -> None:
    here = frozenset({IFINDEX})
    bench.ns_filter.tap(Tapped(here, frozenset(), here))
    bench.use(table(entry()))
    record = looker.see(QUESTION)
    assert (record.kind, record.frame, bench.events()) == (TraceKind.HELD, QUESTION, [])


# --- filters ---

TARGETS = Prefix.of("2001:db8:1::/48")
OTHER = question(ip6("2001:db8:2::7"))
BY_MAC = QUESTION[:6] + bytes.fromhex("020000000077") + QUESTION[12:]


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (ALL, "question other mac dad tagged priority"),
        (Filter(target=TARGETS), "question mac dad tagged priority"),
        (Filter(target=Prefix.of("2001:db8:2::7/128")), "other"),
        (Filter(source=Prefix.of("fe80::/10")), "question other mac tagged priority"),
        (Filter(source=Prefix.of("::/128")), "dad"),
        (Filter(source_mac=bytes.fromhex("020000000077")), "mac"),
        (Filter(vlan=()), "question other mac dad priority"),
        (Filter(vlan=(100,)), "tagged"),
        (Filter(vlan=(7,)), ""),
        (Filter(vlan=(100, 7)), ""),
        (Filter(outcomes=frozenset({Outcome.DAD})), "dad"),
        (Filter(outcomes=frozenset({Outcome.OWN, Outcome.UNMATCHED})), ""),
        (Filter(interface=PORT), "question other mac dad tagged priority"),
        (Filter(interface="lan9"), ""),
        (Filter(vlan=(), target=TARGETS, outcomes=frozenset({Outcome.ANSWERED_XDP})), "question mac priority"),
        (Filter(source_mac=bytes.fromhex("020000000077"), target=Prefix.of("2001:db8:2::/48")), ""),
    ],
)  # fmt: skip
def test_the_program_itself_leaves_out_what_is_not_wanted(
    bench: Bench, looker: Looker, wanted: Filter, seen: str
) -> None:
    frames = {
        "question": QUESTION, "other": OTHER, "mac": BY_MAC, "dad": PROBE,
        "tagged": tagged(TAGS_8021Q), "priority": tagged(TAGS_PRIORITY),
    }  # fmt: skip
    bench.use(table(entry(), entry(vlan=Vlan(tags=(100,)))))
    looker.look(wanted)
    for frame in frames.values():
        bench.run(frame)
    names = {frame: name for name, frame in frames.items()}
    assert [names[record.frame] for record in looker.records()] == seen.split()
    assert bench.ns_filter.looked() == (len(seen.split()), 0)


def test_only_what_these_rules_cover_is_told(bench: Bench, looker: Looker) -> None:
    bench.use(table(entry(rule("2001:db8:1::/48"), rule("2001:db8:2::/48"))))
    numbers = {each.prefix: each.id for each in bench.table.rules.values()}
    looker.look(Filter(rule="2001:db8:2::/48"), frozenset({numbers["2001:db8:2::/48"]}))
    for frame in (QUESTION, OTHER, question(ip6("2001:db8:3::1"))):
        bench.run(frame)
    assert [record.frame for record in looker.records()] == [OTHER]
    bench.ns_filter.look_at_rules(frozenset({numbers["2001:db8:1::/48"]}))
    for frame in (QUESTION, OTHER):
        bench.run(frame)
    assert [record.frame for record in looker.records()] == [QUESTION]


def test_one_of_so_many_is_seen(bench: Bench, looker: Looker) -> None:
    looker.look(Filter(sample=10))
    for _ in range(100):
        bench.run(QUESTION)
    assert len(looker.records()) == 10
    assert bench.ns_filter.looked() == (10, 0)


@pytest.mark.parametrize(("outcome", "marked"), [(Outcome.PENDING, True), (Outcome.OWN, False)])
def test_an_event_is_marked_only_where_somebody_wants_what_python_may_find(
    bench: Bench, looker: Looker, outcome: Outcome, marked: bool
) -> None:
    bench.use(one(Method.NEIGHBOUR))
    looker.look(Filter(outcomes=frozenset({outcome})))
    bench.run(QUESTION)
    assert bool(looker.records()) is marked
    assert [bool(event.flags & EventFlag.TRACED) for event in bench.events()] == [marked]


# --- on and off ---


def test_what_the_ring_cannot_hold_is_counted(bench: Bench, looker: Looker) -> None:
    for _ in range(3000):
        assert bench.run(QUESTION)[0] == XDP_TX
    seen = len(looker.records())
    matched, lost = bench.ns_filter.looked()
    assert lost > 0
    assert (matched, seen + lost) == (3000, 3000)


def test_once_nobody_looks_nothing_is_written_or_marked(bench: Bench, looker: Looker) -> None:
    bench.ns_filter.look_away()
    assert bench.run(QUESTION)[0] == XDP_TX
    bench.use(table(entry(datapath=Datapath.PYTHON)))
    assert bench.run(QUESTION)[0] == XDP_DROP
    assert [event.flags for event in bench.events()] == [0]
    assert looker.records() == []
    program = bench.ns_filter.program
    assert program.lookup("trace_ring", bytes(4), 4) is None
    looker.look()
    assert bench.run(PROBE)[0] == XDP_PASS
    assert len(looker.records()) == 1, "and it goes on"


@pytest.mark.parametrize("when", ["before", "while it is filled"])
def test_a_program_that_takes_over_goes_on_telling(fresh: Callable[..., Bench], one_cpu: None, when: str) -> None:
    bench = fresh(table(entry()))
    looker = Looker(bench)
    using = table(entry(rule("2001:db8:2::/48")))
    if when == "before":
        looker.look()
        bench.run(QUESTION)
        taken_over(bench.ns_filter, using)
    else:
        program = successor(bench.ns_filter, using)
        looker.look()
        bench.run(QUESTION)
        bench.ns_filter.switch(program, using)
    bench.table = using
    for frame in (QUESTION, OTHER):
        bench.run(frame)
    assert [record.outcome for record in looker.records()] == [
        Outcome.ANSWERED_XDP, Outcome.UNMATCHED, Outcome.ANSWERED_XDP,
    ]  # fmt: skip
    bench.ns_filter.retire()
    assert bench.ns_filter.looked() == (3, 0)
    looker.close()


def test_what_a_program_has_counted_for_the_last_who_looked_is_not_counted_for_the_next(
    fresh: Callable[..., Bench], one_cpu: None
) -> None:
    bench = fresh(table(entry()))
    looker = Looker(bench)
    looker.look()
    bench.run(QUESTION)
    taken_over(bench.ns_filter, bench.table)
    bench.ns_filter.look_away()
    assert len(looker.records()) == 1
    looker.look()  # the one before is still there, until its ring is empty
    bench.run(QUESTION)
    assert bench.ns_filter.looked() == (len(looker.records()), 0) == (1, 0)
    bench.ns_filter.retire()
    assert bench.ns_filter.looked() == (1, 0)
    looker.close()


def test_the_ring_is_taken_out_also_where_the_entries_cannot_be_written(
    bench: Bench, looker: Looker, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = bench.ns_filter.program

    def refused(*_: object) -> None:
        raise MachineError("the kernel has no memory")

    with monkeypatch.context() as patch:
        patch.setattr(program, "update", refused)
        with pytest.raises(MachineError):
            bench.ns_filter.look_away()
    assert program.lookup("trace_ring", bytes(4), 4) is None
    bench.run(QUESTION)
    assert looker.records() == []


def test_one_who_looked_away_while_a_program_was_filled_gets_nothing_of_that(
    fresh: Callable[..., Bench], one_cpu: None
) -> None:
    bench = fresh(table(entry()))
    looker = Looker(bench)
    looker.look()
    program = successor(bench.ns_filter, bench.table)
    bench.ns_filter.look_away()
    bench.ns_filter.switch(program, bench.table)
    bench.run(QUESTION)
    assert looker.records() == []
    looker.close()


def test_a_key_is_an_events() -> None:
    assert Key._fields == ("time_us", "target", "source", "rule")
