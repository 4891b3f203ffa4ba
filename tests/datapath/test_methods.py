# SPDX-License-Identifier: GPL-2.0-or-later
"""The methods that know which targets are there: which solicitations are answered, and which go up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.inet6 import IPv6ExtHdrDestOpt

from npd6_xdp.core.config import DadPolicy, Datapath
from npd6_xdp.core.event import EventFlag
from npd6_xdp.core.layout import ADDRESS_KEY, PRESENT_TARGET
from npd6_xdp.core.pending import NOBODY
from npd6_xdp.core.responder import Responder
from npd6_xdp.core.table import PresentFlag
from npd6_xdp.core.verdict import Limit, Method, Outcome
from tests.datapath.harness import (
    XDP_DROP,
    XDP_PASS,
    XDP_TX,
    Bench,
    Hook,
)
from tests.datapath.present import (
    ANSWERED,
    FRESH,
    HYBRID,
    KERNEL,
    MISS,
    MONITOR,
    MONITORED,
    NEIGHBOUR,
    PROBE,
    PYTHON,
    QUESTION,
    STALE,
    TARGET,
    XDP,
    one,
    question,
)
from tests.frames import SETTING

HOOKS = (Hook.XDP, Hook.TC)

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
            bench.ns_filter.set_pending_full(True)
            seen = bench.see(QUESTION)
            assert (seen.action, seen.counted) == (action, (outcome,) if outcome else ()), (method, known)
            assert seen.limits == ((Limit.PENDING,) if outcome == Outcome.RATE_LIMITED else ())
            bench.events()
        knows(one(NEIGHBOUR), None)
        bench.ns_filter.set_pending_full(False)
        assert (bench.see(QUESTION).counted, [e.flags for e in bench.events()]) == ((), [MISS])
    finally:
        bench.ns_filter.set_pending_full(False)


def test_a_refused_asker_is_refused_misses_of_neighbour_and_nothing_else_and_nobody_else_is(
    bench: Bench, knows: Callable[..., int]
) -> None:
    other = bytes.fromhex("020000000099")
    mine = b"\x01\x01" + SETTING.asker_mac

    def outcome(**fields: Any) -> Outcome | EventFlag:
        seen = bench.see(question(**fields))
        assert seen.limits == ((Limit.CROWDED,) if Outcome.RATE_LIMITED in seen.counted else ())
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


def test_monitor_consumes_no_probe_for_a_present_target(bench: Bench, knows: Callable[..., None]) -> None:
    knows(one(KERNEL, datapath=MONITOR), FRESH)
    assert bench.see(PROBE).action == XDP_PASS
