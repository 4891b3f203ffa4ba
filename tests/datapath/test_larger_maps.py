# SPDX-License-Identifier: GPL-2.0-or-later
"""A larger program takes over from a smaller one, and numbers are used again."""

from __future__ import annotations

import errno
import mmap
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, InterfaceConfig, Limits, RuleConfig, Vlan
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.event import NsEvent
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.steps import finish
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Limit, Outcome
from npd6_xdp.system.bpf.events import EventRing
from npd6_xdp.system.bpf.load import load
from tests.datapath.harness import (
    IFINDEX,
    PORT,
    XDP_DROP,
    XDP_TX,
    Bench,
    entry,
    link,
    rule,
    successor,
    table,
    taken_over,
)
from tests.datapath.present import (
    FRESH,
    LAN,
    MISS,
    NEIGHBOUR,
    QUESTION,
    TARGET,
    XDP,
    one,
    question,
)
from tests.frames import SETTING, TAGS_8021Q
from tests.kinds import solicit


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
    assert bench.ns_filter.has_space(small, Limits())
    assert not bench.ns_filter.has_space(big, Limits(neighbours=1, kernel_entries=1))
    old = bench.ns_filter.program
    larger = successor(bench.ns_filter, big)
    ring = EventRing(larger.maps)
    bench.ns_filter.switch(larger, big)
    assert bench.ns_filter.program is larger is not old
    assert bench.ns_filter.has_space(big, Limits())
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
    program = path.add_successor(load(sizes), sizes)
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


def test_why_some_were_refused_is_still_known_when_a_larger_program_has_taken_over(
    fresh: Callable[..., Bench],
) -> None:
    using = one(NEIGHBOUR)
    bench = fresh(using)
    bench.ns_filter.set_pending_full(True)
    bench.run(QUESTION)
    taken_over(bench.ns_filter, using)
    bench.run(QUESTION)
    bench.ns_filter.set_pending_full(False)
    bench.ns_filter.refuse_askers({(using.rules[0].entry, SETTING.asker_mac)})
    bench.run(QUESTION)
    for _ in range(2):
        counted = bench.ns_filter.entry_counters(using.rules[0].entry)
        assert +Counter(counted.limits) == {Limit.PENDING: 2, Limit.CROWDED: 1}
        assert counted.outcomes[Outcome.RATE_LIMITED] == 3
        ((number, read),) = finish(bench.ns_filter.counters())[0].items()
        assert (number, +Counter(read.limits)) == (using.rules[0].entry, +Counter(counted.limits))
        bench.ns_filter.retire()


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


def test_there_is_space_for_a_table_only_beside_what_it_replaces(fresh: Callable[..., Bench]) -> None:
    """What is added comes before what is removed, so for a moment a map holds both."""
    old = behind(100, 40)
    new = behind(200, 60, old)
    bench = fresh(old)
    assert bench.ns_filter.has_space(behind(200, 40, old), Limits())
    assert not bench.ns_filter.has_space(new, Limits())
    taken_over(bench.ns_filter, new)
    assert bench.ns_filter.has_space(new, Limits())


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


def test_a_larger_program_has_space_for_all_that_is_known_under_lower_limits_too(fresh: Callable[..., Bench]) -> None:
    small = one(NEIGHBOUR)
    bench = fresh(small)
    for number in range(50):
        bench.ns_filter.set_present(small.rules[0].via_set, TARGET[:-1] + bytes([number]), FRESH)
    lower = Limits(neighbours=10, kernel_entries=1)
    taken_over(bench.ns_filter, small, lower)
    assert bench.ns_filter.asked(small.rules[0].via_set, TARGET[:-1] + bytes([49])) > 0
