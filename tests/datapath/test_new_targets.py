# SPDX-License-Identifier: GPL-2.0-or-later
"""E4 of docs/rules.md: so many targets a second are answered that weren't lately, and those that were always are.

Budgets are of time, so each test that spends one has a program of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, DadPolicy, Datapath, Limits, RuleConfig, Vlan
from npd6_xdp.core.layout import BUDGET, INDEX
from npd6_xdp.core.links import OwnAddress
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.routes import RoutingFlag
from npd6_xdp.core.steps import finish
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Limit, Method, Outcome
from npd6_xdp.system.bpf.sizes import sizes_for
from npd6_xdp.system.clock import machine_ns
from tests.bench.program import Harness, Vary
from tests.datapath.harness import (
    IFINDEX,
    PORT,
    UNLIMITED,
    XDP_DROP,
    XDP_PASS,
    XDP_TX,
    Bench,
    entry,
    link,
    table,
    taken_over,
)
from tests.datapath.present import FRESH, HYBRID, KERNEL, LAN, MONITOR, NEIGHBOUR, PYTHON, TARGET, one, question
from tests.datapath.test_budgets import promptly
from tests.frames import SETTING, TAGS_8021Q, UNSPECIFIED, plain_solicitation
from tests.kinds import HBH

STATIC, ROUTE = Method.STATIC, Method.ROUTE
MOST = 2
"""New targets a second; so many may come at once, and then one in each half of a second."""
NO_MORE_FOR = 0.49  # seconds


def targets(count: int, first: int = 0) -> Iterator[bytes]:
    for number in range(first, first + count):
        yield TARGET[:12] + (0x1000 + number).to_bytes(4)


def fate(bench: Bench, frame: bytes) -> str:
    """What became of a question: its outcome, with the limit that was in its way, or that it went up to Python."""
    seen = bench.see(frame)
    if bench.events():
        assert (seen.action, seen.counted, seen.limits) == (XDP_DROP, (), ())
        return "up"
    (outcome,) = seen.counted
    return f"{outcome} by {seen.limits[0]}" if seen.limits else str(outcome)


def fates(bench: Bench, asked: Iterator[bytes], **fields: Any) -> list[str]:
    return [fate(bench, question(target, **fields)) for target in asked]


REFUSED = f"{Outcome.RATE_LIMITED} by {Limit.NEW_TARGET}"


@pytest.mark.parametrize(
    ("method", "datapath", "fields", "answered"),
    [
        (STATIC, HYBRID, {}, "answered_xdp"),
        (STATIC, PYTHON, {}, "up"),
        (STATIC, HYBRID, {"headers": [HBH]}, "up"),
        (ROUTE, HYBRID, {}, "up"),  # where only the kernel can tell
        (KERNEL, HYBRID, {}, "up"),
        (KERNEL, PYTHON, {"headers": [HBH]}, "up"),
    ],
)
def test_so_many_new_targets_are_answered_and_then_only_those_that_were(
    fresh: Callable[..., Bench], method: Method, datapath: Datapath, fields: dict[str, Any], answered: str
) -> None:
    asked = [question(target, **fields) for target in targets(MOST + 15)]

    def check(bench: Bench) -> None:
        bench.ns_filter.set_routing(RoutingFlag.ALL)
        assert [fate(bench, each) for each in asked] == [answered] * MOST + [REFUSED] * 15
        for _ in range(3):
            assert [fate(bench, each) for each in asked[:MOST]] == [answered] * MOST

    using = one(method, datapath=datapath, new_targets_per_second=MOST)
    promptly(lambda: fresh(using, limits=UNLIMITED), check, NO_MORE_FOR)


def test_a_scan_of_a_million_targets_gains_the_budget_and_a_thousand_that_were_answered_before_always_are(
    fresh: Callable[..., Bench],
) -> None:
    def budget(per_second: int) -> Table:
        return table(entry(new_targets_per_second=per_second))

    scanned, pieces, per_second = 1_000_000, 10, 100
    known = [question(target) for target in targets(1_000)]
    bench = fresh(budget(1_000_000))

    def answered() -> int:
        return bench.totals()[Outcome.ANSWERED_XDP]

    def ask_known() -> None:
        assert {bench.run(frame)[0] for frame in known} == {XDP_TX}

    ask_known()
    bench.use(budget(per_second))
    before, began = answered(), time.monotonic()
    with closing(Harness(Vary.PREFIX, 1)) as harness:  # of one /64, each another one
        for _ in range(pieces):
            harness.run(bench.ns_filter.program.fd, scanned // pieces)
            ask_known()
    seconds, gained = time.monotonic() - began, answered() - before - pieces * len(known)
    print(f"{gained} of {scanned} gained in {seconds:.2f} s")
    # what is left of the second's worth that the first thousand were answered by, and then as time goes
    assert 0 < gained <= per_second * (seconds + 1)
    assert bench.refused() == {Limit.NEW_TARGET: scanned - gained}


def spend_all(bench: Bench, entry_id: int) -> None:
    """As if far more of an entry's budget had been spent than time pays for while this runs."""
    bench.ns_filter.program.update("target_budgets", INDEX.pack(entry_id), BUDGET.pack(1 << 62))


def test_what_time_has_paid_for_can_be_spent(fresh: Callable[..., Bench]) -> None:
    using = one(STATIC, new_targets_per_second=1_000_000)
    bench = fresh(using)
    spend_all(bench, using.rules[0].entry)
    assert fates(bench, targets(2)) == [REFUSED] * 2
    paid = BUDGET.pack(machine_ns() + 999_000_000)  # what a second pays for, but for a thousand targets
    bench.ns_filter.program.update("target_budgets", INDEX.pack(using.rules[0].entry), paid)
    assert set(fates(bench, targets(900))) == {"answered_xdp"}


@pytest.mark.parametrize(("shared", "multicast"), [(False, XDP_DROP), (True, XDP_PASS)])
def test_what_is_over_the_budget_is_consumed_but_where_others_may_be_meant_it_goes_on_to_them(
    fresh: Callable[..., Bench], shared: bool, multicast: int
) -> None:
    facts = replace(link(), shared=frozenset({()}) if shared else frozenset())
    using = table(entry(new_targets_per_second=1), facts=facts)
    bench = fresh(using)
    spend_all(bench, using.rules[0].entry)
    assert bench.see(question()).action == multicast
    assert bench.see(question(eth_destination=SETTING.mac)).action == XDP_DROP
    assert bench.refused() == {Limit.NEW_TARGET: 2}


@pytest.mark.parametrize(
    ("keys", "fields", "found"),
    [
        ({"method": NEIGHBOUR}, {}, "up"),
        ({"method": STATIC, "datapath": MONITOR}, {}, "monitored"),
        ({"method": KERNEL, "datapath": MONITOR}, {}, "monitored"),
        ({"method": Method.IGNORE}, {}, "ignored"),
        ({"method": STATIC}, {"source": UNSPECIFIED, "options": b""}, "dad"),
        ({"method": STATIC, "dad": DadPolicy.DEFEND}, {"source": UNSPECIFIED, "options": b""}, "up"),
        ({"method": STATIC}, {"eth_destination": bytes.fromhex("020000000099")}, "ignored"),
        ({"method": STATIC}, {"hop_limit": 1}, "invalid"),
    ],
)
def test_what_fills_no_cache_takes_nothing_of_the_budget(
    fresh: Callable[..., Bench], keys: dict[str, Any], fields: dict[str, Any], found: str
) -> None:
    bench = fresh(one(**keys, new_targets_per_second=1))
    assert set(fates(bench, targets(20), **fields)) == {found}
    assert list(bench.ns_filter.each_answered_target()) == []


def test_a_target_that_no_route_leads_to_or_that_has_a_proxy_entry_takes_nothing_of_the_budget(
    fresh: Callable[..., Bench],
) -> None:
    using = one(ROUTE, new_targets_per_second=1)
    bench = fresh(using)
    bench.ns_filter.set_routing(RoutingFlag.ALL)
    bench.ns_filter.keep_routes(1)
    for target in targets(20):
        bench.ns_filter.keep_route(using.rules[0].entry, target, 1, there=False)
    assert set(fates(bench, targets(20))) == {"absent"}
    for target in targets(2):
        bench.ns_filter.keep_route(using.rules[0].entry, target, 1, there=True)
    assert set(fates(bench, targets(2))) <= {"answered_xdp", REFUSED}
    assert fates(bench, targets(1)) == ["answered_xdp"]

    using = one(KERNEL, new_targets_per_second=1)
    bench = fresh(using)
    for target in targets(20):
        bench.ns_filter.set_present(using.rules[0].via_set, target, FRESH)
    assert set(fates(bench, targets(20))) == {"kernel"}
    assert list(bench.ns_filter.each_answered_target()) == []


def tagged(target: bytes) -> bytes:
    return plain_solicitation(replace(SETTING, target=target, tags=TAGS_8021Q))


def test_each_entry_has_a_budget_and_a_memory_of_its_own(fresh: Callable[..., Bench]) -> None:
    keys: dict[str, Any] = {"new_targets_per_second": MOST}
    using = table(entry(**keys), entry(vlan=Vlan(tags=(100,)), **keys))

    def check(bench: Bench) -> None:
        assert fates(bench, targets(MOST + 2)) == ["answered_xdp"] * MOST + [REFUSED] * 2
        found = [fate(bench, tagged(target)) for target in targets(MOST + 2, 1)]
        assert found == ["answered_xdp"] * MOST + [REFUSED] * 2, "what was answered to others is new here"

    promptly(lambda: fresh(using), check, NO_MORE_FOR)


def test_without_a_budget_nothing_is_remembered_and_the_map_has_no_space(fresh: Callable[..., Bench]) -> None:
    using = one(STATIC)
    bench = fresh(using)
    assert set(fates(bench, targets(50))) == {"answered_xdp"}
    assert list(bench.ns_filter.each_answered_target()) == []
    assert sizes_for([using], Limits())["ANSWERED_MAX"] == 1
    budgeted = one(STATIC, new_targets_per_second=1)
    assert sizes_for([budgeted], Limits())["ANSWERED_MAX"] == 65_536
    assert not bench.ns_filter.has_space(budgeted, Limits())


def test_a_program_that_takes_over_knows_what_was_answered_and_what_is_spent(fresh: Callable[..., Bench]) -> None:
    keys: dict[str, Any] = {"new_targets_per_second": MOST}
    both = table(entry(**keys), entry(vlan=Vlan(tags=(100,)), **keys))

    bench = fresh(both)
    assert set(fates(bench, targets(1))) == {fate(bench, tagged(TARGET))} == {"answered_xdp"}
    number = both.entry_ids[IFINDEX, 0, 0]
    spend_all(bench, number)
    assert fates(bench, targets(2)) == ["answered_xdp", REFUSED]
    taken_over(bench.ns_filter, both)
    assert fates(bench, targets(2)) == ["answered_xdp", REFUSED]
    assert len(list(bench.ns_filter.each_answered_target())) == 2


@pytest.mark.parametrize("by_another", [False, True], ids=["by the same program", "by another"])
def test_what_was_answered_on_an_entry_is_forgotten_with_it(fresh: Callable[..., Bench], by_another: bool) -> None:
    keys: dict[str, Any] = {"new_targets_per_second": 1_000_000}
    both = table(entry(**keys), entry(vlan=Vlan(tags=(100,)), **keys))
    bench = fresh(both)
    fates(bench, targets(1_500))
    for target in targets(1_500):
        bench.run(tagged(target))
    assert len(list(bench.ns_filter.each_answered_target())) == 3_000
    left = build(Config((entry(**keys),)), {PORT: link()}, both)
    if by_another:
        taken_over(bench.ns_filter, left)
    else:
        bench.ns_filter.apply(left)
        finish(bench.ns_filter.forgetting(both.entries.keys() - left.entries.keys()))
    scopes = [answered.entry for answered in bench.ns_filter.each_answered_target()]
    assert (len(scopes), set(scopes)) == (1_500, {left.entry_ids[IFINDEX, 0, 0]})


def test_no_more_are_remembered_than_the_limit_says_and_those_that_are_asked_for_stay(
    fresh: Callable[..., Bench],
) -> None:
    most = 4_096
    bench = fresh(one(STATIC, new_targets_per_second=1_000_000), limits=replace(UNLIMITED, remembered_targets=most))
    for first in range(0, 4 * most, 256):
        for target in (*targets(100), *targets(256, 1_000 + first)):
            bench.run(question(target))
    remembered = {answered.target for answered in bench.ns_filter.each_answered_target()}
    assert most / 2 < len(remembered) <= most
    assert set(targets(100)) <= remembered


def test_an_address_that_this_machine_has_elsewhere_is_as_under_static_and_one_that_it_has_here_is_its_own(
    fresh: Callable[..., Bench],
) -> None:
    here, elsewhere = (IPv6Address(f"2001:db8:1::{host}") for host in (7, 8))
    rules = RuleConfig("2001:db8::/32", (Prefix.of("2001:db8::/32"),), NEIGHBOUR, via=("lan0",))
    lan = replace(LAN, addresses={(): (OwnAddress(elsewhere, 128),)})
    using = build(Config((entry(rules, new_targets_per_second=1),)), {PORT: link(own=[str(here)]), "lan0": lan})
    bench = fresh(using)
    assert [fate(bench, question(address.packed)) for address in (here, elsewhere)] == ["own", "answered_xdp"]
    assert [answered.target for answered in bench.ns_filter.each_answered_target()] == [elsewhere.packed]
