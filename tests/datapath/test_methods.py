# SPDX-License-Identifier: GPL-2.0-or-later
"""The methods that know targets, the budgets of what goes up, and tables that follow each other."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet6 import IPv6ExtHdrDestOpt

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, DadPolicy, Datapath, InterfaceConfig, Limits, RuleConfig, Vlan
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.event import EventFlag, NsEvent
from npd6_xdp.core.layout import ADDRESS_KEY, PRESENT_TARGET
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.pending import NOBODY
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.responder import Responder
from npd6_xdp.core.steps import finish
from npd6_xdp.core.table import Decision, Match, PresentFlag, Table
from npd6_xdp.core.verdict import Method, Outcome
from npd6_xdp.system.bpf.events import EventRing
from npd6_xdp.system.bpf.load import load
from tests.datapath.harness import (
    IFINDEX,
    PORT,
    XDP_DROP,
    XDP_PASS,
    XDP_TX,
    Bench,
    entry,
    link,
    rule,
    successor,
    table,
    taken_over,
)
from tests.frames import SETTING, TAGS_8021Q, UNSPECIFIED, ip6, solicited_node
from tests.kinds import solicit

TARGET = SETTING.target
LAN = LinkFacts("lan0", 77, bytes.fromhex("02000000000a"))
FRESH = PresentFlag(0)
MISS, STALE, ANSWERED = EventFlag.MISS, EventFlag.STALE, EventFlag.ANSWERED


def one(method: Method, **keys: Any) -> Table:
    """A table of one rule over all of 2001:db8::/32."""
    via = ("lan0",) if method is Method.NEIGHBOUR else ()
    covering = RuleConfig("2001:db8::/32", (Prefix.of("2001:db8::/32"),), method, via=via)
    return build(Config((entry(covering, **keys),)), {PORT: link(), "lan0": LAN})


def question(target: bytes = TARGET, **fields: Any) -> bytes:
    return solicit(replace(SETTING, target=target), destination=solicited_node(target), **fields)


QUESTION = question()
PROBE = question(source=UNSPECIFIED, options=b"")


@pytest.fixture
def knows(bench: Bench) -> Iterator[Callable[[Table, PresentFlag | None], int]]:
    """Have the program decide by a table, and know the target with these flags, or not; gives the rule's via set."""
    via_sets: list[int] = []

    def use(using: Table, flags: PresentFlag | None) -> int:
        bench.use(using)
        via_set = using.rules[0].via_set
        via_sets.append(via_set)
        bench.ns_filter.forget(via_set, TARGET)
        if flags is not None:
            bench.ns_filter.set_present(via_set, TARGET, flags)
        return via_set

    yield use
    for via_set in via_sets:
        bench.ns_filter.forget(via_set, TARGET)


NEIGHBOUR, KERNEL = Method.NEIGHBOUR, Method.KERNEL
HYBRID, PYTHON, MONITOR = Datapath.HYBRID, Datapath.PYTHON, Datapath.MONITOR
XDP, MONITORED = Outcome.ANSWERED_XDP, Outcome.MONITORED
# method, datapath, what is known, then: action, outcome, flags of the event (None: there is none)
CASES: tuple[tuple[Method, Datapath, PresentFlag | None, int, Outcome | None, EventFlag | None], ...] = (
    (NEIGHBOUR, HYBRID, None, XDP_DROP, None, MISS),
    (NEIGHBOUR, HYBRID, FRESH, XDP_TX, XDP, None),
    (NEIGHBOUR, HYBRID, PresentFlag.STALE, XDP_TX, XDP, STALE | ANSWERED),
    (NEIGHBOUR, PYTHON, None, XDP_DROP, None, MISS),
    (NEIGHBOUR, PYTHON, FRESH, XDP_DROP, None, EventFlag(0)),
    (NEIGHBOUR, PYTHON, PresentFlag.STALE, XDP_DROP, None, STALE),
    (NEIGHBOUR, MONITOR, None, XDP_PASS, MONITORED, None),
    (NEIGHBOUR, MONITOR, FRESH, XDP_PASS, MONITORED, None),
    (NEIGHBOUR, MONITOR, PresentFlag.STALE, XDP_PASS, MONITORED, None),
    (KERNEL, HYBRID, None, XDP_DROP, None, MISS),
    (KERNEL, HYBRID, FRESH, XDP_PASS, Outcome.KERNEL, None),
    (KERNEL, PYTHON, None, XDP_DROP, None, MISS),
    (KERNEL, PYTHON, FRESH, XDP_PASS, Outcome.KERNEL, None),
    (KERNEL, MONITOR, None, XDP_PASS, MONITORED, None),
    (KERNEL, MONITOR, FRESH, XDP_PASS, MONITORED, None),
)


@pytest.mark.parametrize(
    ("method", "datapath", "known", "action", "outcome", "flags"), CASES, ids=["-".join(map(str, c[:3])) for c in CASES]
)
def test_a_present_target_is_answered_and_another_one_goes_up(
    bench: Bench,
    knows: Callable[..., int],
    method: Method,
    datapath: Datapath,
    known: PresentFlag | None,
    action: int,
    outcome: Outcome | None,
    flags: EventFlag | None,
) -> None:
    using = one(method, datapath=datapath)
    knows(using, known)
    seen, events = bench.see(QUESTION), bench.events()
    assert (seen.action, seen.counted) == (action, (outcome,) if outcome else ())
    assert [event.flags for event in events] == ([] if flags is None else [flags])
    assert (seen.frame == QUESTION) == (action != XDP_TX)
    by_python = [Responder(using).answer(event).frame for event in events]
    bench.use(one(Method.STATIC, datapath=HYBRID))
    answer = bench.see(QUESTION).frame
    assert set(by_python) <= {answer}, "whoever answers, it is the same answer"
    if action == XDP_TX:
        assert seen.frame == answer


@pytest.mark.parametrize("datapath", [HYBRID, PYTHON])
def test_python_is_told_once_that_a_target_is_stale(
    bench: Bench, knows: Callable[..., int], datapath: Datapath
) -> None:
    via_set = knows(one(NEIGHBOUR, datapath=datapath), PresentFlag.STALE)
    told = []
    for _ in range(3):
        bench.see(QUESTION)
        told.append([bool(event.flags & STALE) for event in bench.events()])
    assert sum(map(sum, told)) == 1
    assert told[0] == [True]
    bench.ns_filter.set_present(via_set, TARGET, PresentFlag.STALE)  # the kernel says so again
    bench.see(QUESTION)
    assert [bool(event.flags & STALE) for event in bench.events()] == [True]


def test_a_monitored_entry_tells_nothing_and_clears_nothing(bench: Bench, knows: Callable[..., int]) -> None:
    watching = one(NEIGHBOUR, datapath=MONITOR)
    knows(watching, PresentFlag.STALE)
    assert bench.see(QUESTION).counted == (MONITORED,)
    bench.use(one(NEIGHBOUR))
    bench.see(QUESTION)
    assert [event.flags for event in bench.events()] == [STALE | ANSWERED]


def test_a_target_is_present_in_its_via_set_only_and_until_it_is_forgotten(
    bench: Bench, knows: Callable[..., int]
) -> None:
    via_set = knows(one(NEIGHBOUR), FRESH)
    bench.ns_filter.set_present(via_set + 1, TARGET[:-1] + b"\x43", FRESH)
    assert bench.see(question(TARGET[:-1] + b"\x43")).action == XDP_DROP
    bench.ns_filter.forget(via_set + 1, TARGET[:-1] + b"\x43")
    assert bench.see(QUESTION).action == XDP_TX
    bench.ns_filter.forget(via_set, TARGET)
    assert bench.see(QUESTION).action == XDP_DROP
    assert [event.flags for event in bench.events()] == [MISS, MISS]


def test_when_a_present_target_was_last_asked_for_is_remembered(bench: Bench, knows: Callable[..., int]) -> None:
    via_set = knows(one(KERNEL), FRESH)
    assert bench.ns_filter.asked(via_set, TARGET[:-1] + b"\x43") == 0
    key = ADDRESS_KEY.pack_named(scope=via_set, address=TARGET)
    bench.ns_filter.program.update("present_targets", key, PRESENT_TARGET.pack_named(flags=0, asked=5))
    assert bench.ns_filter.asked(via_set, TARGET) == 5
    bench.see(QUESTION)
    assert abs(bench.ns_filter.asked(via_set, TARGET) - time.monotonic()) <= 2


@pytest.mark.parametrize("known", [None, FRESH, PresentFlag.STALE])
def test_a_present_target_behind_extension_headers_is_answered_by_python(
    bench: Bench, knows: Callable[..., int], known: PresentFlag | None
) -> None:
    knows(one(NEIGHBOUR), known)
    seen = bench.see(question(headers=[IPv6ExtHdrDestOpt()]))
    assert (seen.action, seen.counted) == (XDP_DROP, ())
    wanted = MISS if known is None else STALE if known else EventFlag(0)
    assert [event.flags for event in bench.events()] == [wanted]


# method, policy, known, then action, outcome, flags of the event
PROBES = (  # D1, D2 and D3 of docs/rules.md
    (NEIGHBOUR, DadPolicy.IGNORE, None, XDP_PASS, Outcome.DAD, None),
    (NEIGHBOUR, DadPolicy.IGNORE, FRESH, XDP_PASS, Outcome.DAD, None),
    (NEIGHBOUR, DadPolicy.DEFEND, None, XDP_DROP, None, MISS),
    (NEIGHBOUR, DadPolicy.DEFEND, FRESH, XDP_DROP, None, EventFlag(0)),
    (KERNEL, DadPolicy.IGNORE, None, XDP_PASS, Outcome.DAD, None),
    (KERNEL, DadPolicy.IGNORE, FRESH, XDP_DROP, Outcome.DAD, None),  # the kernel's proxy entry would defend it
    (KERNEL, DadPolicy.DEFEND, None, XDP_DROP, None, MISS),
    (KERNEL, DadPolicy.DEFEND, FRESH, XDP_PASS, Outcome.KERNEL, None),
)


@pytest.mark.parametrize("datapath", [HYBRID, PYTHON])
@pytest.mark.parametrize(
    ("method", "dad", "known", "action", "outcome", "flags"), PROBES, ids=["-".join(map(str, c[:3])) for c in PROBES]
)
def test_a_probe_for_a_present_target_gets_what_policy_says_and_never_by_the_kernels_proxy_against_it(
    bench: Bench,
    knows: Callable[..., int],
    method: Method,
    dad: DadPolicy,
    known: PresentFlag | None,
    action: int,
    outcome: Outcome | None,
    flags: EventFlag | None,
    datapath: Datapath,
) -> None:
    knows(one(method, dad=dad, datapath=datapath), known)
    seen = bench.see(PROBE)
    assert (seen.action, seen.frame, seen.counted) == (action, PROBE, (outcome,) if outcome else ())
    events = bench.events()
    assert [(event.flags, event.is_dad) for event in events] == ([] if flags is None else [(flags, True)])


def test_while_no_more_can_be_resolved_misses_of_neighbour_are_refused_and_nothing_else(
    bench: Bench, knows: Callable[..., int]
) -> None:
    try:
        for method, known, action, outcome in (
            (NEIGHBOUR, None, XDP_DROP, Outcome.RATE_LIMITED),
            (NEIGHBOUR, FRESH, XDP_TX, XDP),
            (NEIGHBOUR, PresentFlag.STALE, XDP_TX, XDP),
            (KERNEL, None, XDP_DROP, None),
            (Method.STATIC, None, XDP_TX, XDP),
        ):
            knows(one(method), known)
            bench.ns_filter.set_resolving_full(True)
            seen = bench.see(QUESTION)
            assert (seen.action, seen.counted) == (action, (outcome,) if outcome else ()), (method, known)
            bench.events()
        knows(one(NEIGHBOUR), None)
        bench.ns_filter.set_resolving_full(False)
        assert (bench.see(QUESTION).counted, [e.flags for e in bench.events()]) == ((), [MISS])
    finally:
        bench.ns_filter.set_resolving_full(False)


def test_a_refused_asker_is_refused_misses_of_neighbour_and_nothing_else_and_nobody_else_is(
    bench: Bench, knows: Callable[..., int]
) -> None:
    other = bytes.fromhex("020000000099")
    mine = b"\x01\x01" + SETTING.asker_mac

    def outcome(**fields: Any) -> Outcome | EventFlag:
        seen = bench.see(question(**fields))
        found: list[Outcome | EventFlag] = [*seen.counted, *(EventFlag(event.flags) for event in bench.events())]
        return found[0]

    try:
        for method, known, found in (
            (NEIGHBOUR, None, Outcome.RATE_LIMITED),
            (NEIGHBOUR, FRESH, XDP),
            (NEIGHBOUR, PresentFlag.STALE, XDP),
            (KERNEL, None, MISS),
            (Method.STATIC, None, XDP),
        ):
            using = one(method)
            knows(using, known)
            bench.ns_filter.refuse_askers({(using.rules[0].entry, SETTING.asker_mac)})
            assert outcome() == found, (method, known)
        knows(using := one(NEIGHBOUR), None)
        # it is the MAC that the answer goes to
        assert outcome(eth_source=other, options=mine) == Outcome.RATE_LIMITED
        assert outcome(eth_source=other, options=b"") == MISS
        assert outcome(options=b"\x01\x01" + other) == MISS
        bench.ns_filter.refuse_askers({(using.rules[0].entry + 1, SETTING.asker_mac)})
        assert outcome() == MISS, "another entry's"
        bench.ns_filter.refuse_askers({(using.rules[0].entry, other)})
        assert outcome() == MISS
        bench.ns_filter.refuse_askers(frozenset())
        assert outcome(options=b"\x01\x01" + other) == MISS
        # an entry as a whole
        bench.ns_filter.refuse_askers({(using.rules[0].entry, NOBODY)})
        for options in (mine, b"", b"\x01\x01" + other):
            assert outcome(options=options) == Outcome.RATE_LIMITED
        bench.ns_filter.refuse_askers({(using.rules[0].entry + 1, NOBODY)})
        assert outcome() == MISS
    finally:
        bench.ns_filter.refuse_askers(frozenset())


# --- budgets: what is spent stays spent for a second, so each test has a program of its own ---


@pytest.fixture
def fresh() -> Iterator[Callable[..., Bench]]:
    """Makes programs that are closed when the test is over."""
    if os.geteuid() != 0:
        pytest.skip("loading an XDP program needs root")
    made: list[Bench] = []

    def make(using: Table, **keys: Any) -> Bench:
        made.append(Bench(using, **keys))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def burst(bench: Bench, count: int, mac: bytes = SETTING.asker_mac) -> tuple[int, int]:
    """Ask in a row: how many went up, how many were refused; and all are consumed."""
    before = bench.totals()[Outcome.RATE_LIMITED]
    frame = question(eth_source=mac)
    assert {bench.run(frame)[0] for _ in range(count)} == {XDP_DROP}
    return len(bench.events()), bench.totals()[Outcome.RATE_LIMITED] - before


def promptly(make: Callable[[], Bench], check: Callable[[Bench], None], seconds: float) -> Bench:
    """A check of what holds for so long. Where this machine took longer and it failed, it is made again."""
    for _ in range(10):
        bench, began = make(), time.monotonic()
        try:
            check(bench)
        except AssertionError:
            if time.monotonic() - began < seconds:
                raise
        else:
            return bench
    pytest.fail(f"ten times, it took more than {seconds} s")


def test_one_source_may_send_so_much_up_and_no_more_while_others_still_may(fresh: Callable[..., Bench]) -> None:
    """E3 of docs/rules.md."""
    started = time.monotonic()

    def check(bench: Bench) -> None:
        assert burst(bench, 20) == (5, 15)
        assert burst(bench, 20, bytes.fromhex("020000000099")) == (5, 15)

    bench = promptly(lambda: fresh(table(entry(datapath=PYTHON, events_per_source=5))), check, 0.2)
    time.sleep(0.25)
    up, refused = burst(bench, 20)
    assert up + refused == 20
    assert 1 <= up <= (time.monotonic() - started) * 5, "a fifth of a second pays for one"


def test_the_budget_of_a_source_goes_by_the_frames_mac_whatever_its_option_says(fresh: Callable[..., Bench]) -> None:
    def check(bench: Bench) -> None:
        for number in range(3):
            bench.run(question(options=b"\x01\x01\x02\0\0\0\0" + bytes([number])))
        assert burst(bench, 2) == (3, 2)

    promptly(lambda: fresh(table(entry(datapath=PYTHON, events_per_source=3))), check, 0.3)


def test_the_budget_of_a_source_is_one_for_each_entry(fresh: Callable[..., Bench]) -> None:
    keys: dict[str, Any] = {"datapath": PYTHON, "events_per_source": 2}
    tagged = solicit(replace(SETTING, tags=TAGS_8021Q))

    def check(bench: Bench) -> None:
        assert burst(bench, 4) == (2, 2)
        assert [bench.see(tagged).counted for _ in range(3)] == [(), (), (Outcome.RATE_LIMITED,)]

    promptly(lambda: fresh(table(entry(**keys), entry(vlan=Vlan(tags=(100,)), **keys))), check, 0.5)


def test_what_xdp_answers_itself_is_limited_by_nothing(fresh: Callable[..., Bench]) -> None:
    bench = fresh(table(entry(events_per_source=1)), limits=Limits(events_per_second=1))
    assert {bench.run(QUESTION)[0] for _ in range(50)} == {XDP_TX}
    assert bench.totals()[Outcome.ANSWERED_XDP] == 50


def test_all_sources_together_have_a_budget_too(fresh: Callable[..., Bench]) -> None:
    macs = [bytes.fromhex(f"0200000001{number:02x}") for number in range(10)]

    def check(bench: Bench) -> None:
        assert [sum(column) for column in zip(*[burst(bench, 1, mac) for mac in macs], strict=True)] == [4, 6]

    promptly(lambda: fresh(table(entry(datapath=PYTHON)), limits=Limits(events_per_second=4)), check, 0.25)


def test_a_stale_target_is_answered_however_little_may_go_up_and_python_is_told_later(
    fresh: Callable[..., Bench],
) -> None:
    using = one(NEIGHBOUR, events_per_source=1)
    via_set = using.rules[0].via_set

    def check(bench: Bench) -> None:
        assert burst(bench, 2) == (1, 1)  # misses
        bench.ns_filter.set_present(via_set, TARGET, PresentFlag.STALE)
        seen = bench.see(QUESTION)
        assert (seen.action, seen.counted, bench.events()) == (XDP_TX, (XDP,), [])

    bench = promptly(lambda: fresh(using), check, 1.0)
    time.sleep(1.1)
    assert bench.see(QUESTION).counted == (XDP,)
    assert [event.flags for event in bench.events()] == [STALE | ANSWERED]


# --- recent targets ---


def test_targets_that_rules_cover_are_remembered_with_their_count_and_times(fresh: Callable[..., Bench]) -> None:
    rules = (rule("2001:db8:1::/64"), rule("2001:db8:1::9", Method.IGNORE))
    bench = fresh(table(entry(*rules, collect_targets=10), entry(*rules, vlan=Vlan(tags=(100,)))))
    started = time.monotonic_ns()
    for target, times in (("2001:db8:1::1", 3), ("2001:db8:1::2", 1), ("2001:db8:1::9", 2), ("2001:db8:9::1", 1)):
        for _ in range(times):
            bench.run(question(ip6(target)))
    bench.run(solicit(replace(SETTING, tags=TAGS_8021Q)))  # of an entry that collects none
    recent_targets = {recent.target: recent for recent in bench.ns_filter.recent_targets()}
    assert {str(IPv6Address(target)): recent.count for target, recent in recent_targets.items()} == {
        "2001:db8:1::1": 3,
        "2001:db8:1::2": 1,
    }
    one, two = recent_targets[ip6("2001:db8:1::1")], recent_targets[ip6("2001:db8:1::2")]
    assert started <= one.first < one.last < two.first == two.last <= time.monotonic_ns()
    assert one.entry == bench.table.entry_ids[IFINDEX, 0, 0]


def test_no_more_are_remembered_than_there_is_room_for_and_rather_the_late_ones(fresh: Callable[..., Bench]) -> None:
    bench = fresh(table(entry(collect_targets=10)))
    most = bench.ns_filter.program._sizes["RECENT_TARGETS_MAX"]
    sent = [SETTING.target[:8] + number.to_bytes(8, "big") for number in range(3 * most)]
    for target in sent:
        bench.run(QUESTION[:22] + solicit_bytes(target))
    remembered = {recent.target for recent in bench.ns_filter.recent_targets()}
    assert 10 <= len(remembered) <= most
    assert sent[-1] in remembered
    # the kernel's LRU is no strict one: each CPU has some entries of its own
    assert len(remembered & set(sent[most:])) > len(remembered) / 2


def solicit_bytes(target: bytes) -> bytes:
    """All of a solicitation from the IPv6 source address on."""
    return question(target)[22:]


# --- one table after another ---

NUMBERS = range(4)
PREFIXES = (
    ["2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::/64", "2001:db8:1::/112", "2001:db8:1::/126"]
    + [f"2001:db8:1::{n}/128" for n in NUMBERS]
    + ["2001:db8:1::2/127"]
)
TARGETS = ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3", "2001:db8:1::f", "2001:db8:1:1::1", "2001:db8:2::1"]
FRAMES: dict[tuple[tuple[int, ...], str], bytes] = {(tags, target): solicit(
    replace(SETTING, target=ip6(target), tags=TAGS_8021Q if tags else b""), destination=solicited_node(ip6(target))
) for tags in ((), (100,)) for target in TARGETS}  # fmt: skip

rule_lists = st.lists(
    st.builds(rule, st.sampled_from(PREFIXES), st.sampled_from([Method.STATIC, Method.IGNORE])),
    min_size=1,
    max_size=6,
    unique_by=lambda each: each.prefix,
)
addresses = st.lists(st.sampled_from(TARGETS), max_size=2, unique=True)
VLANS = (Vlan(), Vlan(tags=(100,)), Vlan(any=True))
Half = tuple[tuple[InterfaceConfig, ...], LinkFacts]


@st.composite
def halves(draw: st.DrawFn, vlans: st.SearchStrategy[tuple[Vlan, ...]]) -> Half:
    """Entries, and what the machine says."""
    entries = tuple(entry(*draw(rule_lists), vlan=vlan, datapath=PYTHON) for vlan in draw(vlans))
    return entries, link(draw(addresses), draw(addresses))


def decided(using: Table, tags: tuple[int, ...], target: str) -> tuple[object, int | None]:
    """What becomes of a solicitation by a table: an outcome, or that it goes up by a rule."""
    speaking = using.entry_of(IFINDEX, tags)
    if speaking is None:
        return "unseen", None
    found = using.lookup(speaking.id, IPv6Address(target))
    if not isinstance(found, Match):
        return found, None
    if found.decision is Decision.STATIC:
        return "up", found.rule
    return (Outcome.OWN if found.decision is Decision.OWN else Outcome.IGNORED), None


def observed(bench: Bench, tags: tuple[int, ...], target: str) -> tuple[object, int | None]:
    """What does become of it."""
    program = bench.ns_filter.program
    before = [program.entry_counters(number).outcomes for number in range(6)]
    action, _ = bench.run(FRAMES[tags, target])
    events = bench.events()
    if action == XDP_DROP and events:
        (event,) = events
        return "up", event.rule
    grown = [
        outcome
        for number, counts in enumerate(before)
        for outcome, count in program.entry_counters(number).outcomes.items()
        if count > counts[outcome]
    ]
    assert (action, len(grown)) in ((XDP_PASS, 0), (XDP_PASS, 1))
    return (grown[0] if grown else "unseen"), None


class WithoutBatches:
    """libbpf on a kernel that knows no batches of map entries: they go one by one, in the same order."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: -errno.EINVAL) if name.endswith("_batch") else getattr(self._lib, name)


def watched_change(bench: Bench, old: Table, new: Table, *, batches: bool) -> int:
    """Go from one table to the next and look at every target after each step; the number of steps."""
    program = bench.ns_filter.program
    steps = 0
    allowed = {key: {decided(old, *key), decided(new, *key)} for key in FRAMES}

    def watching(step: Callable[..., None]) -> Callable[..., None]:
        def watched(*arguments: object) -> None:
            nonlocal steps
            step(*arguments)
            steps += 1
            for key, either in allowed.items():
                assert observed(bench, *key) in either, (key, steps)

        return watched

    with pytest.MonkeyPatch.context() as patch:
        for step in ("update", "delete", *(("update_all", "delete_all") if batches else ())):
            patch.setattr(program, step, watching(getattr(program, step)))
        if not batches:
            patch.setattr(program, "_lib", WithoutBatches(program._lib))
        bench.use(new)
    for key in FRAMES:
        assert observed(bench, *key) == decided(new, *key), key
    return steps


SPOKEN = st.lists(st.sampled_from(VLANS[:2]), min_size=1, unique=True).map(tuple)


@pytest.mark.parametrize("batches", [True, False])
def test_while_one_table_follows_another_every_target_is_decided_by_one_of_the_two(bench: Bench, batches: bool) -> None:
    most = 0

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(halves(SPOKEN), halves(SPOKEN))
    def compare(before: Half, after: Half) -> None:
        nonlocal most
        old = build(Config(before[0]), {PORT: before[1]})
        new = build(Config(after[0]), {PORT: after[1]}, old)
        bench.ns_filter.apply(Table({}, {}, {}, {}, {}))
        bench.use(old)
        for key in FRAMES:
            assert observed(bench, *key) == decided(old, *key), key
        most = max(most, watched_change(bench, old, new, batches=batches))

    compare()
    assert most > (5 if batches else 10)


LENGTHS = {
    "hash": ("2001:db8:1::/48", "2001:db8::/32"),
    "other hash": ("2001:db8:1::/64", "2001:db8:1:8000::/49", "2001:db8::/33", "2001::/16"),
    "trie": ("2001:db8:1::/64", "2001:db8:1::/56", "2001:db8:1::/48", "2001:db8::/40", "2001:db8::/32", "2001::/16"),
}


@pytest.mark.parametrize("batches", [True, False])
@pytest.mark.parametrize(("before", "after"), [(one, other) for one in LENGTHS for other in LENGTHS if one != other])
def test_prefixes_go_from_the_hash_to_the_trie_and_back_with_every_target_decided(
    bench: Bench, before: str, after: str, batches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry of few lengths of prefixes has them in the hash, one of many in the trie."""
    bench.ns_filter.apply(Table({}, {}, {}, {}))
    monkeypatch.setattr("npd6_xdp.system.bpf.pack._HASHED_FROM", 1)
    methods = (Method.STATIC, Method.IGNORE)
    tables: list[Table] = []
    for number, name in enumerate((before, after)):
        rules = [rule(prefix, methods[(number + place) % 2]) for place, prefix in enumerate(LENGTHS[name])]
        tables.append(build(Config((entry(*rules, datapath=PYTHON),)), {PORT: link()}, tables[0] if tables else None))
    bench.use(tables[0])
    assert watched_change(bench, *tables, batches=batches) >= 3
    bench.ns_filter.apply(Table({}, {}, {}, {}))


# --- many at once ---


@pytest.mark.parametrize("batches", [True, False])
def test_many_lines_go_into_the_maps_and_out_again_and_what_they_count_is_read_at_once(
    fresh: Callable[..., Bench], batches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one system call takes, of both kinds."""
    many = [rule(f"2001:db8:{number:x}::/48") for number in range(5000)]
    many += [rule(f"2001:db9::{number:x}") for number in range(5000)]
    using = table(entry(*many))
    bench = fresh(using)
    program = bench.ns_filter.program
    if not batches:
        monkeypatch.setattr(program, "_lib", WithoutBatches(program._lib))
        bench.ns_filter.apply(Table({}, {}, {}, {}))
        bench.use(using)
    asked = {0: "2001:db8::7", 4999: "2001:db8:1387::1", 5000: "2001:db9::", 9999: "2001:db9::1387"}
    for number, target in asked.items():
        for _ in range(1 + number % 3):
            assert bench.run(solicit(SETTING, target=ip6(target)))[0] == XDP_TX
    wanted = {number: bench.ns_filter.rule_counters(number) for number in asked}
    assert bench.ns_filter.all_rule_counters() == wanted
    assert [sum(counts.values()) for counts in wanted.values()] == [1, 2, 3, 1]
    fewer = build(Config((entry(*many[1:-1]),)), {PORT: link()}, using)
    bench.use(fewer)
    for number, target in asked.items():
        answered = bench.run(solicit(SETTING, target=ip6(target)))[0] == XDP_TX
        assert answered == (number in (4999, 5000))


def test_where_a_map_is_full_all_lines_are_as_before(fresh: Callable[..., Bench]) -> None:
    old = table(entry(rule("2001:db8::/32"), rule("2001:db8:1::/48", Method.IGNORE)))
    bench = fresh(old)
    too_many = [rule(f"2001:db9:{number >> 16:x}:{number & 0xFFFF:x}::/64") for number in range(20_000)]
    new = build(Config((entry(rule("2001:db8::/32", Method.IGNORE), *too_many),)), {PORT: link()}, old)
    assert not bench.ns_filter.has_room(new, Limits())
    with pytest.raises(MachineError, match="kernel map exact_matches: can't add an entry: it is full"):
        bench.ns_filter.apply(new)
    for target, action in (("2001:db8::1", XDP_TX), ("2001:db8:1::1", XDP_PASS), ("2001:db9::1", XDP_PASS)):
        assert bench.run(solicit(SETTING, target=ip6(target)))[0] == action
    after = build(
        Config(
            (
                entry(
                    rule("2001:db9::/64"),
                ),
            )
        ),
        {PORT: link()},
        old,
    )
    bench.use(after)
    for target, action in (("2001:db8::1", XDP_PASS), ("2001:db9::1", XDP_TX), ("2001:db9:0:1::1", XDP_PASS)):
        assert bench.run(solicit(SETTING, target=ip6(target)))[0] == action


# --- larger maps, and numbers that come again ---


def vlans(count: int) -> tuple[InterfaceConfig, ...]:
    return tuple(entry(rule("2001:db8::/32"), vlan=Vlan(tags=(number,))) for number in range(1, count + 1))


def test_a_larger_program_goes_on_with_counters_and_present_targets(fresh: Callable[..., Bench]) -> None:
    small = one(NEIGHBOUR)
    bench = fresh(small)
    via_set = small.rules[0].via_set
    bench.ns_filter.set_present(via_set, TARGET, FRESH)
    for _ in range(3):
        bench.run(QUESTION)
    big = build(Config((*[entry(*small_rules()), *vlans(80)],)), {PORT: link(), "lan0": LAN}, small)
    assert bench.ns_filter.has_room(small, Limits())
    assert not bench.ns_filter.has_room(big, Limits(neighbours=1, kernel_entries=1))
    old = bench.ns_filter.program
    larger = successor(bench.ns_filter, big)
    ring = EventRing(larger.maps)
    bench.ns_filter.switch(larger, big)
    assert bench.ns_filter.program is larger is not old
    assert bench.ns_filter.has_room(big, Limits())
    for _ in range(2):
        assert bench.run(QUESTION)[0] == XDP_TX, "known to the new one, too"
    assert counted(bench, small) == (5, 5)
    bench.run(question(TARGET[:-1] + b"\x43"))
    assert [event.flags for run in ring.read() for event in NsEvent.unpack_run(run)] == [MISS], (
        "its events come by its own ring"
    )
    bench.ns_filter.retire()
    assert counted(bench, small) == (5, 5)
    bench.ns_filter.apply(big)
    bench.run(QUESTION)
    assert counted(bench, small) == (6, 6)
    ring.close()


@pytest.mark.parametrize("mapped", [0, 1, 2])
def test_rings_that_cannot_be_mapped_are_given_back(
    fresh: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, mapped: int
) -> None:
    """Each mmap() may be refused: that of the flag, or that of a ring, when the kernel has all of them open."""
    bench = fresh(one(NEIGHBOUR))  # whose own rings this takes out of the maps
    whole, left = mmap.mmap, iter(range(mapped))

    def refused(*arguments: Any) -> mmap.mmap:
        if next(left, None) is None:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return whole(*arguments)

    before = {each.name for each in Path("/proc/self/fd").iterdir()}
    monkeypatch.setattr("npd6_xdp.system.bpf.events.mmap.mmap", refused)
    with pytest.raises(MachineError, match="can't map the rings to Python: Cannot allocate memory"):
        EventRing(bench.ns_filter.program.maps)
    assert {each.name for each in Path("/proc/self/fd").iterdir()} == before


def test_a_successor_is_told_of_hosts_that_come_and_go_while_it_is_filled(fresh: Callable[..., Bench]) -> None:
    using = one(NEIGHBOUR)
    bench = fresh(using)
    via_set, path = using.rules[0].via_set, bench.ns_filter
    addresses = [TARGET[:-2] + number.to_bytes(2) for number in range(1_200)]
    for address in addresses[:1_000]:
        path.set_present(via_set, address, FRESH)
    sizes = path.sizes(using, Limits())
    program = path.successor(load(sizes), sizes)
    steps = path.filling(program, using)
    for number in range(100):  # before their turn, after it, and those that nobody knew of
        next(steps, None)
        path.forget(via_set, addresses[10 * number])
        path.set_present(via_set, addresses[1_000 + 2 * number], FRESH)
    finish(steps)
    path.forget(via_set, addresses[1_000])
    path.set_present(via_set, addresses[0], FRESH)
    path.switch(program, using)
    there = {address for address in addresses if path.asked(via_set, address)}
    gone = {addresses[10 * number] for number in range(1, 100)} | {addresses[1_000]}
    assert there == {*addresses[:1_000], *addresses[1_000::2]} - gone


def test_counters_are_the_same_at_each_bit_of_a_retirement_and_go_with_rules_that_go(
    fresh: Callable[..., Bench],
) -> None:
    rules = [rule(f"2001:db8:{number:x}::/48") for number in range(1, 1_201)]
    first = build(Config((entry(*rules),)), {PORT: link()})
    less = build(Config((entry(*rules[:-1]),)), {PORT: link()}, first)
    bench = fresh(first)
    ids = {each.prefix: each.id for each in first.rules.values()}
    kept, goes = ids[rules[0].prefix], ids[rules[-1].prefix]
    asked = [solicit(SETTING, target=Prefix.of(each.prefix).address.to_bytes(16)) for each in (rules[0], rules[-1])]
    for frame in asked * 2:
        bench.run(frame)
    taken_over(bench.ns_filter, first)
    bench.run(asked[0])
    before = bench.ns_filter.changes
    for number, _ in enumerate(bench.ns_filter.retiring()):
        assert bench.ns_filter.rule_counters(kept)[XDP] == 3
        if number == 4:
            bench.ns_filter.apply(less)
        assert bench.ns_filter.rule_counters(goes)[XDP] == (2 if number < 4 else 0)
    assert bench.ns_filter.changes > before + 1
    assert bench.ns_filter.all_rule_counters()[kept][XDP] == 3
    assert goes not in bench.ns_filter.all_rule_counters()


def test_who_is_refused_still_is_by_a_larger_program_and_a_full_map_refuses_nobody(
    fresh: Callable[..., Bench],
) -> None:
    using = one(NEIGHBOUR)
    bench = fresh(using)
    entry_id = using.rules[0].entry
    bench.ns_filter.refuse_askers({(entry_id, SETTING.asker_mac)})
    taken_over(bench.ns_filter, using, Limits(pending=1))
    assert bench.see(QUESTION).counted == (Outcome.RATE_LIMITED,)
    bench.ns_filter.refuse_askers({(entry_id, bytes([2, 0, 0, 0, 1, number])) for number in range(200)})
    assert bench.run(QUESTION)[0] == XDP_DROP
    assert bench.totals()[Outcome.RATE_LIMITED] == 1, "not any more"
    bench.ns_filter.refuse_askers(frozenset())
    for number in range(200):
        bench.run(question(options=bytes([1, 1, 2, 0, 0, 0, 1, number])))
    assert bench.totals()[Outcome.RATE_LIMITED] == 1


def behind(first: int, count: int, before: Table | None = None) -> Table:
    """A table of one rule that names so many via interfaces."""
    links = {f"lan{number}": LinkFacts(f"lan{number}", number, bytes(6)) for number in range(first, first + count)}
    rules = RuleConfig("2001:db8::/32", rule("2001:db8::/32").networks, NEIGHBOUR, via=tuple(links))
    return build(Config((entry(rules),)), {PORT: link(), **links}, before)


def test_nothing_is_held_of_a_table_that_was_looked_at_and_is_not_to_come(bench: Bench) -> None:
    """A large one goes bit by bit, and only whoever holds it last does that at once."""
    never = table(*vlans(200))
    for _ in range(2):
        bench.ns_filter.has_room(never, Limits())
        assert gc.get_referrers(never) != []
        bench.ns_filter.program.give_up(never)
        assert gc.get_referrers(never) == []


def test_there_is_room_for_a_table_only_beside_what_it_replaces(fresh: Callable[..., Bench]) -> None:
    """What is added comes before what is removed, so for a moment a map holds both."""
    old = behind(100, 40)
    new = behind(200, 60, old)
    bench = fresh(old)
    assert bench.ns_filter.has_room(behind(200, 40, old), Limits())
    assert not bench.ns_filter.has_room(new, Limits())
    taken_over(bench.ns_filter, new)
    assert bench.ns_filter.has_room(new, Limits())


def test_recent_targets_stay_with_a_larger_program_and_go_with_their_entry(fresh: Callable[..., Bench]) -> None:
    using = table(entry(collect_targets=10), entry(collect_targets=10, vlan=Vlan(tags=(100,))))
    bench = fresh(using)
    bench.run(QUESTION)
    bench.run(solicit(replace(SETTING, tags=TAGS_8021Q)))
    before = {(recent.entry, recent.target): recent for recent in bench.ns_filter.recent_targets()}
    assert {number for number, _ in before} == {number for number, each in using.entries.items() if each.spoken}
    taken_over(bench.ns_filter, using)
    assert {(recent.entry, recent.target): recent for recent in bench.ns_filter.recent_targets()} == before
    bench.ns_filter.apply(build(Config((entry(collect_targets=10),)), {PORT: link()}, using))
    untagged = using.entry_of(IFINDEX)
    assert untagged is not None
    assert [recent.entry for recent in bench.ns_filter.recent_targets()] == [untagged.id]


def small_rules() -> Iterable[RuleConfig]:
    return (RuleConfig("2001:db8::/32", (Prefix.of("2001:db8::/32"),), NEIGHBOUR, via=("lan0",)),)


def counted(bench: Bench, using: Table) -> tuple[int, int]:
    """What XDP answered, by the entry's and by the rule's counter."""
    number = using.rules[0].entry
    return bench.ns_filter.entry_counters(number).outcomes[XDP], bench.ns_filter.rule_counters(0)[XDP]


def test_a_number_that_comes_again_counts_from_zero(bench: Bench) -> None:
    config = {name: Config((entry(rule(name)),)) for name in ("2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::/64")}
    links = {PORT: link()}
    first = build(config["2001:db8::/32"], links)
    second = build(config["2001:db8:1::/48"], links, first)
    third = build(config["2001:db8:1::/64"], links, second)
    assert first.rules.keys() == third.rules.keys() != second.rules.keys()
    bench.use(first)
    (number,) = first.rules
    before = bench.ns_filter.rule_counters(number)[XDP]
    bench.run(QUESTION)
    assert bench.ns_filter.rule_counters(number)[XDP] == before + 1
    for using in (second, third):
        bench.use(using)
    assert sum(bench.ns_filter.rule_counters(number).values()) == 0
    bench.run(QUESTION)
    assert bench.ns_filter.rule_counters(number)[XDP] == 1


def test_a_number_that_stays_goes_on_counting(bench: Bench) -> None:
    first = table(entry(rule("2001:db8::/32")))
    bench.use(first)
    before = bench.ns_filter.rule_counters(0)[XDP]
    bench.run(QUESTION)
    bench.use(build(Config((entry(rule("2001:db8::/32"), rule("2001:db8:7::/48")),)), {PORT: link()}, first))
    bench.run(QUESTION)
    assert bench.ns_filter.rule_counters(0)[XDP] == before + 2


def three_tables() -> list[Table]:
    """In each another rule; the third may use the first's number again."""
    tables: list[Table] = []
    for prefix in ("2001:db8::/32", "2001:db8:1::/48", "2001:db8:1::/64"):
        tables.append(build(Config((entry(rule(prefix)),)), {PORT: link()}, tables[-1] if tables else None))
    assert set(tables[0].rules) == set(tables[2].rules) == {0}
    return tables


@pytest.mark.parametrize("retired", [True, False])
def test_a_number_used_again_starts_at_zero_when_a_larger_program_has_taken_over(
    fresh: Callable[..., Bench], retired: bool
) -> None:
    first, second, third = three_tables()
    bench = fresh(first)
    for _ in range(3):
        bench.run(QUESTION)
    taken_over(bench.ns_filter, second)
    if retired:
        bench.ns_filter.retire()
    bench.ns_filter.apply(third)
    assert sum(bench.ns_filter.rule_counters(0).values()) == 0


def test_a_larger_program_has_room_for_all_that_is_known_under_lower_limits_too(fresh: Callable[..., Bench]) -> None:
    small = one(NEIGHBOUR)
    bench = fresh(small)
    for number in range(50):
        bench.ns_filter.set_present(small.rules[0].via_set, TARGET[:-1] + bytes([number]), FRESH)
    lower = Limits(neighbours=10, kernel_entries=1)
    taken_over(bench.ns_filter, small, lower)
    assert bench.ns_filter.asked(small.rules[0].via_set, TARGET[:-1] + bytes([49])) > 0


def test_monitor_consumes_no_probe_for_a_present_target(bench: Bench, knows: Callable[..., None]) -> None:
    knows(one(KERNEL, datapath=MONITOR), FRESH)
    assert bench.see(PROBE).action == XDP_PASS
