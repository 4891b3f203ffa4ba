# SPDX-License-Identifier: GPL-2.0-or-later
"""J1, J2 and J3 of docs/rules.md: on standby nothing is answered, and what would have been is remembered."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, DadPolicy, Datapath, RuleConfig, Vlan
from npd6_xdp.core.layout import ADDRESS_KEY, ANSWERED, BUDGET, INDEX
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.routes import RoutingFlag
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Method
from npd6_xdp.system.clock import machine_ns
from tests.datapath.harness import PORT, UNLIMITED, XDP_PASS, Bench, entry, link, rule, taken_over
from tests.datapath.present import FRESH, KERNEL, LAN, NEIGHBOUR, PROBE, QUESTION, TARGET, question
from tests.datapath.test_new_targets import fate, fates, tagged, targets
from tests.kinds import HBH

STATIC, ROUTE = Method.STATIC, Method.ROUTE
ADDRESS = "192.0.2.1"
ACTIVE, STANDBY = frozenset({ADDRESS}), frozenset[str]()


def one(method: Method, held: frozenset[str], before: Table | None = None, **keys: Any) -> Table:
    """A table of one rule over all of 2001:db8::/32, of one of two edges."""
    via = ("lan0",) if method is NEIGHBOUR else ()
    covering = RuleConfig("2001:db8::/32", (Prefix.of("2001:db8::/32"),), method, via=via)
    config = Config((entry(covering, active_with=ADDRESS, **keys),))
    return build(config, {PORT: link(own=["2001:db8:1::7"]), "lan0": LAN}, before, held=held)


def remembered(bench: Bench) -> set[bytes]:
    return {answered.target for answered in bench.ns_filter.each_answered_target()}


@pytest.mark.parametrize("headers", [[], [HBH]], ids=["plain", "extended"])
@pytest.mark.parametrize("method", [STATIC, ROUTE, NEIGHBOUR, KERNEL])
@pytest.mark.parametrize("datapath", Datapath)
def test_on_standby_what_would_be_answered_or_resolved_is_passed_and_counted_and_nothing_goes_up(
    bench: Bench, datapath: Datapath, method: Method, headers: list[Any]
) -> None:
    using = one(method, STANDBY, datapath=datapath)
    bench.use(using)
    bench.ns_filter.set_routing(RoutingFlag.ALL)  # of which only the kernel can tell
    frame = question(headers=headers)
    for present in (False, True):
        if present:
            bench.ns_filter.set_present(using.rules[0].via_set, TARGET, FRESH)
        seen = bench.see(frame)
        assert (seen.action, seen.frame, seen.counted) == (XDP_PASS, frame, ("standby",))
    assert bench.events() == []
    bench.ns_filter.set_routing(RoutingFlag(0))
    bench.ns_filter.forget(using.rules[0].via_set, TARGET)


def test_what_isnt_answered_anyway_has_the_outcome_that_it_has_without_a_role(fresh: Callable[..., Bench]) -> None:
    """`standby` comes after `absent`, and before `monitored`, `rate_limited` and `kernel`."""
    using = one(ROUTE, STANDBY, datapath=Datapath.MONITOR)
    bench = fresh(using)
    bench.ns_filter.set_routing(RoutingFlag.ALL)
    bench.ns_filter.keep_routes(7)
    for target, there in zip(targets(2), (False, True), strict=True):
        bench.ns_filter.keep_route(using.rules[0].entry, target, 7, there=there)
    assert fates(bench, targets(2)) == ["absent", "standby"]
    bench.ns_filter.keep_routes(0)
    bench.ns_filter.set_routing(RoutingFlag(0))
    assert fate(bench, PROBE) == "dad"
    assert fate(bench, question(bytes.fromhex("20010db8000100000000000000000007"))) == "own"
    assert fate(bench, question(bytes.fromhex("20010db9") + bytes(12))) == "unmatched"
    bench.use(one(Method.IGNORE, STANDBY))
    assert fate(bench, QUESTION) == "ignored"


def test_a_probe_that_would_be_defended_is_left_to_the_other_edge_and_leaves_nothing_to_remember(
    fresh: Callable[..., Bench],
) -> None:
    bench = fresh(one(STATIC, STANDBY, dad=DadPolicy.DEFEND))
    assert fate(bench, PROBE) == "standby"
    assert remembered(bench) == set()


def test_a_change_of_role_shows_with_the_next_question(fresh: Callable[..., Bench]) -> None:
    standby = one(STATIC, STANDBY)
    active = one(STATIC, ACTIVE, standby)
    bench = fresh(standby)
    for _ in range(3):
        bench.use(standby)
        assert fate(bench, QUESTION) == "standby"
        bench.use(active)
        assert fate(bench, QUESTION) == "answered_xdp"


@pytest.mark.parametrize("held", [STANDBY, ACTIVE], ids=["on standby", "active"])
@pytest.mark.parametrize("method", [STATIC, NEIGHBOUR])
def test_what_was_asked_for_is_remembered_with_its_time_in_either_role(
    fresh: Callable[..., Bench], held: frozenset[str], method: Method
) -> None:
    """The other edge takes over from who has answered, and later this one from the other."""
    using = one(method, held)
    bench = fresh(using)
    before = machine_ns()
    for target in targets(3):
        bench.ns_filter.set_present(using.rules[0].via_set, target, FRESH)
    fates(bench, targets(3))
    fates(bench, targets(1))
    found = sorted(bench.ns_filter.each_answered_target(), key=lambda each: each.asked)
    first, second, third = targets(3)
    assert [each.target for each in found] == [second, third, first]
    assert before < found[0].asked < found[1].asked < found[2].asked < machine_ns()
    assert {(each.entry, each.flags, each.tci) for each in found} == {(using.rules[0].entry, 0, bytes(4))}


def test_under_neighbour_those_that_arent_known_to_be_there_are_kept_apart_and_push_out_no_others(
    fresh: Callable[..., Bench],
) -> None:
    using = one(NEIGHBOUR, STANDBY)
    bench = fresh(using, limits=replace(UNLIMITED, remembered_targets=1024))
    known, strange = [*targets(20)], [*targets(5_000, 20)]
    for target in known:
        bench.ns_filter.set_present(using.rules[0].via_set, target, FRESH)
    for target in (*known, *strange):
        assert fate(bench, question(target)) == "standby"
    assert remembered(bench) == {*known}
    asked = [*bench.ns_filter.each_asked_target()]
    assert len(asked) >= 512
    assert {*known}.isdisjoint(each.target.target for each in asked)
    bench.ns_filter.forget(using.rules[0].via_set, known[0])
    before = machine_ns()
    assert fate(bench, question(known[0])) == "standby"
    assert max(each.asked for each in bench.ns_filter.each_answered_target()) > before, "it was there once"


def test_of_those_that_arent_known_it_is_noted_how_often_who_asked_first_asked_again(
    fresh: Callable[..., Bench],
) -> None:
    using = one(NEIGHBOUR, STANDBY)
    bench = fresh(using)
    once, twice, by_two = targets(3)
    other = bytes.fromhex("020000000099")
    for frame in (
        *map(question, (once, twice, by_two)),
        question(twice),
        question(by_two, eth_source=other),
        question(by_two, eth_source=other),
    ):
        assert fate(bench, frame) == "standby"
    asked = {each.target.target: each.again for each in bench.ns_filter.each_asked_target()}
    assert asked == {once: 0, twice: 1, by_two: 0}
    taken_over(bench.ns_filter, using)
    assert {each.target.target: each.again for each in bench.ns_filter.each_asked_target()} == asked
    bench.ns_filter.forget_asked([each.target for each in bench.ns_filter.each_asked_target()])
    assert [*bench.ns_filter.each_asked_target()] == []


def test_the_tags_of_who_asked_are_remembered_where_the_entry_is_for_any(fresh: Callable[..., Bench]) -> None:
    bench = fresh(one(STATIC, STANDBY, vlan=Vlan(any=True)))
    assert fate(bench, tagged(TARGET)) == "standby"
    (found,) = bench.ns_filter.each_answered_target()
    assert (found.flags, found.tci[:2]) == (1, (100).to_bytes(2))


def test_what_is_over_the_budget_of_new_targets_is_neither_refused_on_standby_nor_remembered(
    fresh: Callable[..., Bench],
) -> None:
    """A scan that the other edge doesn't answer leaves nothing to announce."""
    using = one(STATIC, STANDBY, new_targets_per_second=1)
    bench = fresh(using)
    bench.ns_filter.program.update("target_budgets", INDEX.pack(using.rules[0].entry), BUDGET.pack(1 << 62))
    assert set(fates(bench, targets(5))) == {"standby"}
    assert remembered(bench) == set()
    bench.ns_filter.program.update("target_budgets", INDEX.pack(using.rules[0].entry), BUDGET.pack(0))
    assert fate(bench, QUESTION) == "standby"
    assert remembered(bench) == {TARGET}


def test_what_was_answered_by_the_other_edge_is_none_of_this_ones_budget(fresh: Callable[..., Bench]) -> None:
    standby = one(STATIC, STANDBY, new_targets_per_second=1_000_000)
    bench = fresh(standby)
    fates(bench, targets(3))
    bench.use(one(STATIC, ACTIVE, standby, new_targets_per_second=1_000_000))
    bench.ns_filter.program.update("target_budgets", INDEX.pack(standby.rules[0].entry), BUDGET.pack(1 << 62))
    assert fates(bench, targets(4)) == ["answered_xdp"] * 3 + ["rate_limited by new_target"]


def test_what_is_remembered_is_handed_to_a_program_that_takes_over(fresh: Callable[..., Bench]) -> None:
    using = one(STATIC, STANDBY)
    bench = fresh(using)
    fates(bench, targets(5))
    before = set(bench.ns_filter.each_answered_target())
    taken_over(bench.ns_filter, using)
    assert set(bench.ns_filter.each_answered_target()) == before
    assert len(before) == 5


def test_an_entry_without_the_key_remembers_nothing_beside_one_that_has_it(fresh: Callable[..., Bench]) -> None:
    both = (entry(active_with=ADDRESS), entry(rule("2001:db8::/32"), vlan=Vlan(tags=(100,))))
    bench = fresh(build(Config(both), {PORT: link()}, held=STANDBY))
    assert fate(bench, tagged(TARGET)) == "answered_xdp"
    assert remembered(bench) == set()
    assert fate(bench, QUESTION) == "standby"
    assert remembered(bench) == {TARGET}


def test_all_that_is_remembered_is_read_whether_the_kernel_has_batches_or_not(
    fresh: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = fresh(one(STATIC, STANDBY))
    fates(bench, targets(3))
    program, number = bench.ns_filter.program, 2_500
    keys = [ADDRESS_KEY.pack(7, target) for target in targets(number)]
    program.update_all("answered", keys, [ANSWERED.pack(n, bytes(4), 0) for n in range(number)])
    found = sorted(bench.ns_filter.each_answered_target())
    assert [(each.target, each.asked) for each in found if each.entry == 7] == [
        *zip(targets(number), range(number), strict=True)
    ]
    assert len(found) == number + 3
    with monkeypatch.context() as patch:
        patch.setattr(program, "_lib", WithoutBatches(program._lib))
        assert sorted(bench.ns_filter.each_answered_target()) == found


class WithoutBatches:
    """A kernel that has none for this kind of map."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lib, name)

    def bpf_map_lookup_batch(self, *_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1
