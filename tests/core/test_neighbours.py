# SPDX-License-Identifier: GPL-2.0-or-later
"""Which hosts are known: small state machines with random steps, compared with plain models."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv6Address
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.neighbour_messages import PRESENT, NeighbourState
from npd6_xdp.core.neighbours import Host, Neighbours, PresentTarget, Quiet
from npd6_xdp.core.table import Decisions, PresentFlag, Table
from tests.core.hosts import LINKS, MAC, at, table, told

S = NeighbourState
FRESH, STALE = PresentFlag(0), PresentFlag.STALE
PLENTY = 1000
ONE = table("2001:db8:1::/64 lan0")
VIA_SET = ONE.rules[0].via_set


def going_by(by: Table, limit: int = PLENTY) -> Neighbours:
    neighbours = Neighbours(limit)
    assert neighbours.use(by, limit) == []
    assert neighbours.drop() == []
    return neighbours


def test_a_host_is_known_from_the_state_that_says_so_to_the_one_that_denies_it() -> None:
    host = Host(8, at(1))
    steps: tuple[tuple[S, list[PresentTarget]], ...] = (
        (S.INCOMPLETE, []),
        (S.REACHABLE, [PresentTarget(VIA_SET, at(1), FRESH)]),
        (S.REACHABLE, []),
        (S.STALE, [PresentTarget(VIA_SET, at(1), STALE)]),
        (S.DELAY, [PresentTarget(VIA_SET, at(1), FRESH)]),
        (S.PROBE, []),
        (S.FAILED, [PresentTarget(VIA_SET, at(1), None)]),
        (S.FAILED, []),
        (S.PERMANENT, [PresentTarget(VIA_SET, at(1), FRESH)]),
        (S.NONE, [PresentTarget(VIA_SET, at(1), None)]),
        (S.NOARP, []),
    )
    neighbours = going_by(ONE)
    for state, changes in steps:
        assert neighbours.changed(host, state) == changes, state
        assert list(neighbours.interfaces(VIA_SET, at(1))) == ([8] if state & PRESENT else [])
        assert neighbours.hosts() == ({host: state} if state & PRESENT else {})


def test_a_host_that_no_rule_covers_is_not_counted_and_not_refused() -> None:
    neighbours = going_by(ONE, limit=1)
    for host in (Host(9, at(1)), Host(8, at(1, "2001:db8:2::"))):
        assert neighbours.changed(host, S.REACHABLE) == []
    assert (len(neighbours), neighbours.full, neighbours.refused) == (0, False, 0)


def test_behind_two_interfaces_a_host_is_stale_only_if_it_is_so_behind_both() -> None:
    both = table("2001:db8:1::/64 lan0 lan1")
    via_set = both.rules[0].via_set
    neighbours = going_by(both)
    known = Applied()
    for ifindex, state, wanted in (
        (8, S.STALE, STALE),
        (9, S.REACHABLE, FRESH),
        (9, S.STALE, STALE),
        (8, S.REACHABLE, FRESH),
        (8, S.NONE, STALE),
    ):
        known.apply(neighbours.changed(Host(ifindex, at(1)), state))
        assert known.map == {(via_set, at(1)): wanted}
    known.apply(neighbours.changed(Host(9, at(1)), S.NONE))
    assert known.map == {}


def test_a_full_table_refuses_the_new_and_keeps_the_present() -> None:
    neighbours = going_by(ONE, limit=2)
    for suffix in (1, 2):
        assert neighbours.changed(Host(8, at(suffix)), S.REACHABLE)
    assert neighbours.full
    assert neighbours.changed(Host(8, at(3)), S.REACHABLE) == []
    assert (len(neighbours), neighbours.refused) == (2, 1)
    assert neighbours.changed(Host(8, at(1)), S.STALE) == [PresentTarget(VIA_SET, at(1), STALE)], (
        "one that is known goes on"
    )
    assert neighbours.changed(Host(8, at(3)), S.STALE) == []
    assert neighbours.refused == 1, "the same host, not one more"
    left = neighbours.changed(Host(8, at(1)), S.NONE)
    assert left == [PresentTarget(VIA_SET, at(1), None), PresentTarget(VIA_SET, at(3), STALE)], (
        "there is room now for who was refused"
    )
    assert set(neighbours.hosts()) == {Host(8, at(2)), Host(8, at(3))}
    assert neighbours.changed(Host(8, at(4)), S.REACHABLE) == []
    assert neighbours.changed(Host(8, at(4)), S.NONE) == []
    assert neighbours.changed(Host(8, at(2)), S.NONE) == [PresentTarget(VIA_SET, at(2), None)], (
        "who has gone isn't let in"
    )


def test_a_lower_limit_drops_nobody_who_is_there() -> None:
    neighbours = going_by(ONE)
    for suffix in range(5):
        neighbours.changed(Host(8, at(suffix)), S.REACHABLE)
    assert neighbours.use(ONE, 2) == []
    assert neighbours.drop() == []
    assert len(neighbours) == 5
    assert neighbours.changed(Host(8, at(9)), S.REACHABLE) == []


def test_a_resync_is_the_difference() -> None:
    neighbours = going_by(ONE)
    for suffix, state in ((1, S.REACHABLE), (2, S.REACHABLE), (3, S.STALE)):
        neighbours.changed(Host(8, at(suffix)), state)
    now = {Host(8, at(2)): S.STALE, Host(8, at(3)): S.STALE, Host(8, at(4)): S.DELAY, Host(8, at(5)): S.FAILED}
    assert sorted(told(neighbours, now)) == sorted(
        [
            PresentTarget(VIA_SET, at(1), None),
            PresentTarget(VIA_SET, at(2), STALE),
            PresentTarget(VIA_SET, at(4), FRESH),
        ]
    )
    assert neighbours.hosts() == {host: state for host, state in now.items() if state & PRESENT}
    assert told(neighbours, now) == []


def test_a_learned_entry_without_address_resolution_is_there_and_who_looks_after_an_entry_is_remembered() -> None:
    neighbours = going_by(ONE)
    host, other = Host(8, at(1)), Host(8, at(2))
    assert neighbours.changed(host, S.NOARP | S.PERMANENT | S.LEARNED) == [PresentTarget(VIA_SET, at(1), FRESH)]
    assert neighbours.is_confirmed(VIA_SET, at(1))
    assert neighbours.looked_after(host) == S.LEARNED
    for state in (S.INCOMPLETE, S.REACHABLE, S.STALE, S.FAILED):
        neighbours.changed(other, state | S.MANAGED)
        assert neighbours.looked_after(other) == S.MANAGED, "there or not"
        assert neighbours.is_confirmed(VIA_SET, at(2)) is (state is S.REACHABLE)
    neighbours.changed(other, S.NONE)
    neighbours.changed(host, S.REACHABLE)
    assert [neighbours.looked_after(each) for each in (host, other)] == [S.NONE, S.NONE]


def test_a_table_that_says_the_same_of_all_hosts_is_nothing_to_go_through_them_for() -> None:
    neighbours = going_by(ONE)
    neighbours.changed(Host(8, at(1)), S.REACHABLE)
    same = table("2001:db8:1::/64 lan0", before=ONE)
    assert neighbours.use(same, PLENTY) == []
    assert not neighbours.unsettled
    assert neighbours.drop() == []
    other = table("2001:db8:1::/64 lan0", "2001:db8:1::/96 lan1", before=same)
    neighbours.use(other, PLENTY)
    assert neighbours.unsettled
    assert neighbours.drop() == [PresentTarget(VIA_SET, at(1), None)]
    assert not neighbours.unsettled
    neighbours.use(other, 1)
    assert neighbours.unsettled, "the limit is another"


def test_an_address_that_this_machine_gets_concerns_the_host_at_that_address_only() -> None:
    config = parse(
        '[[interface]]\nname = "wan0"\n[[interface.rule]]\nprefix = "2001:db8:1::/64"\n'
        'method = "neighbour"\nvia = ["lan0"]\n',
        "test",
    )

    def holding(*suffixes: int, before: Table | None = None) -> Table:
        held = tuple(OwnAddress(IPv6Address(at(suffix))) for suffix in suffixes)
        return build(config, {**LINKS, "wan0": replace(LINKS["wan0"], addresses={(): held})}, before)

    first = holding(1)
    neighbours = going_by(first)
    for number in (2, 3):
        neighbours.changed(Host(8, at(number)), S.REACHABLE)
    neighbours.changed(Host(9, at(3)), S.REACHABLE)
    (via_set,) = first.via_sets.values()
    second = holding(1, 3, before=first)
    assert neighbours.use(second, PLENTY) == []
    assert (neighbours.unsettled, at(3) in neighbours.touched, at(2) in neighbours.touched) == (False, True, False)
    assert neighbours.drop() == [PresentTarget(via_set, at(3), None)], "it is ours now"
    assert neighbours.use(holding(1, before=second), PLENTY) == [PresentTarget(via_set, at(3), FRESH)], "and its again"
    assert neighbours.drop() == []
    assert len(neighbours) == 2


def test_hosts_that_came_before_their_rule_are_known_with_it() -> None:
    neighbours = Neighbours(PLENTY)
    assert neighbours.changed(Host(8, at(1)), S.STALE) == []
    assert neighbours.use(ONE, PLENTY) == [PresentTarget(VIA_SET, at(1), STALE)]
    assert neighbours.drop() == []


class Applied:
    """What the kernel map says, by the changes in their order."""

    def __init__(self) -> None:
        self.map: dict[tuple[int, bytes], PresentFlag] = {}

    def apply(self, changes: Iterable[PresentTarget]) -> None:
        for via_set, address, flags in changes:
            if flags is None:
                del self.map[via_set, address]  # nothing is taken out that isn't there
            else:
                self.map[via_set, address] = flags


def _tables() -> list[Table]:
    """Tables that each can follow each other."""
    names = (
        ("2001:db8:1::/64 lan0",),
        ("2001:db8:1::/64 lan0 lan1", "2001:db8:2::/64 lan0"),
        ("2001:db8:1::/64 lan1", "2001:db8:1::2/127 lan0"),
        ("2001:db8::/32 lan0 lan1",),
        (),
    )
    found: list[Table] = []
    for prefixes in names:  # ids of via sets must mean the same in all of them
        links = table(*prefixes, before=found[-1] if found else None)
        found.append(links)
    by_key: dict[tuple[str, ...], int] = {}
    renumbered = []
    for each in found:
        numbers = {old: by_key.setdefault(key, len(by_key) + 1) for key, old in each.via_sets.items()}
        rules = {n: r._replace(via_set=numbers.get(r.via_set, 0)) for n, r in each.rules.items()}
        decisions = {
            entry: Decisions({p: m._replace(via_set=numbers.get(m.via_set, 0)) for p, m in found.items()}, {})
            for entry, found in each.decisions.items()
        }
        vias = {numbers[old]: via for old, via in each.vias.items()}
        via_sets = {key: numbers[old] for key, old in each.via_sets.items()}
        renumbered.append(replace(each, rules=rules, decisions=decisions, vias=vias, via_sets=via_sets))
    return renumbered


TABLES = _tables()
HOSTS = [Host(i, at(n, p)) for i in (8, 9) for p in ("2001:db8:1::", "2001:db8:2::") for n in (1, 2, 3)]
hosts = st.sampled_from(HOSTS)
states = st.sampled_from(list(NeighbourState))


def wanted(held: dict[Host, NeighbourState], by: Table) -> dict[tuple[int, bytes], PresentFlag]:
    """The map that the neighbour table and a table of rules ask for."""
    found: dict[tuple[int, bytes], PresentFlag] = {}
    for (ifindex, address), state in held.items():
        for number, prefix in sorted(
            ((r.id, n) for r in by.rules.values() for n in r.networks if IPv6Address(address) in n.network),
            key=lambda pair: -pair[1].length,
        )[:1]:
            assert prefix is not None
            via_set = by.rules[number].via_set
            if ifindex in by.vias.get(via_set, ()):
                flags = found.get((via_set, address), STALE)
                found[via_set, address] = flags & (STALE if state & S.STALE else FRESH)
    return found


class NeighboursMachine(RuleBasedStateMachine):
    """Without a limit in the way, the map is exactly what states and table ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.neighbours = Neighbours(PLENTY)
        self.table = Table({}, {}, {}, {}, {})
        self.states: dict[Host, NeighbourState] = {}
        self.known = Applied()

    @rule(host=hosts, state=states)
    def changed(self, host: Host, state: NeighbourState) -> None:
        self.known.apply(self.neighbours.changed(host, state))
        self.states.pop(host, None)
        if state & PRESENT:
            self.states[host] = state

    @rule(now=st.dictionaries(hosts, states))
    def resync(self, now: dict[Host, NeighbourState]) -> None:
        self.known.apply(told(self.neighbours, now))
        self.states = {host: state for host, state in now.items() if state & PRESENT}

    @rule(to=st.sampled_from(TABLES), between=st.lists(st.tuples(hosts, states), max_size=2))
    def use(self, to: Table, between: list[tuple[Host, NeighbourState]]) -> None:
        """The table changes; meanwhile, so may hosts."""
        changes = self.neighbours.use(to, PLENTY)
        assert all(change.flags is not None for change in changes), "nothing goes before the new table is in force"
        self.known.apply(changes)
        assert self.known.map.items() >= wanted(self.states, to).items()
        for host, state in between:
            self.changed(host, state)
        assert self.known.map.items() >= wanted(self.states, to).items()
        changes = self.neighbours.drop()
        gone = {(change.via_set, change.address) for change in changes if change.flags is None}
        assert not gone & wanted(self.states, to).keys(), "what both want stays throughout"
        self.known.apply(changes)
        self.table = to

    @rule(
        to=st.sampled_from(TABLES),
        other=st.sampled_from(TABLES),
        between=st.lists(st.tuples(hosts, states), max_size=4),
        comes=st.sampled_from(["it comes", "it is given up", "another is expected", "another comes", "none comes yet"]),
    )
    def expect(self, to: Table, other: Table, between: list[tuple[Host, NeighbourState]], comes: str) -> None:
        """A table is expected, and hosts change between the bits; then it comes, or not."""

        def go(table: Table) -> None:
            rest = list(between)
            for changes in self.neighbours.expecting(table, PLENTY):
                assert all(change.flags is not None for change in changes)
                self.known.apply(changes)
                if rest:
                    self.changed(*rest.pop())
                assert self.known.map.items() >= wanted(self.states, self.table).items(), "the one in force counts"

        with patch("npd6_xdp.core.neighbours._BIT", 1):
            go(to)
            if comes == "none comes yet":
                self.known.apply(self.neighbours.use(self.table, PLENTY))
                self.known.apply(self.neighbours.drop())
            if comes == "another is expected":
                go(to := other)
            if comes == "it is given up":
                self.neighbours.give_up()
                self.known.apply(self.neighbours.drop())
                return
        if comes == "another comes":
            to = other
        elif (to is not self.table) and comes != "none comes yet":
            assert self.known.map.items() >= wanted(self.states, to).items(), "and the one to come"
        if to is self.table:  # what is expected may still come then, until it is given up
            self.neighbours.give_up()
        self.known.apply(self.neighbours.use(to, PLENTY))
        assert self.known.map.items() >= wanted(self.states, to).items()
        self.known.apply(self.neighbours.drop())
        self.table = to

    @invariant()
    def the_map_is_what_states_and_table_ask_for(self) -> None:
        assert self.known.map == wanted(self.states, self.table)

    @invariant()
    def the_places_are_those_of_the_map(self) -> None:
        for via_set, address in self.known.map:
            there = {h.ifindex for h in self.states if h.address == address} & self.table.vias[via_set]
            assert set(self.neighbours.interfaces(via_set, address)) == there
        covered = {
            host for host in self.states if self.table.neighbour_via_sets(host.ifindex, IPv6Address(host.address))
        }
        assert self.neighbours.hosts() == {host: self.states[host] for host in covered}
        assert (len(self.neighbours), self.neighbours.refused) == (len(covered), 0)
        assert self.neighbours.by_interface() == Counter(host.ifindex for host in covered)


TestTheKnownTargetsWithoutALimit = pytest.mark.large(NeighboursMachine.TestCase)
TestTheKnownTargetsWithoutALimit.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


class LimitedMachine(RuleBasedStateMachine):
    """With a limit, what is known is a part of what states and table ask for, and nobody is pushed out."""

    def __init__(self) -> None:
        super().__init__()
        self.neighbours = Neighbours(3)
        self.table = TABLES[3]
        self.neighbours.use(self.table, 3)
        self.states: dict[Host, NeighbourState] = {}
        self.known = Applied()

    @rule(host=hosts, state=states)
    def changed(self, host: Host, state: NeighbourState) -> None:
        held, refused = set(self.neighbours.hosts()), self.neighbours.refused
        new = host not in self.states
        self.known.apply(self.neighbours.changed(host, state))
        self.states.pop(host, None)
        if state & PRESENT:
            self.states[host] = state
        assert set(self.neighbours.hosts()) >= held - {host}, "a present host gives way to nobody"
        if state & PRESENT and host not in held and len(held) == 3:
            assert host not in self.neighbours.hosts()
            assert self.neighbours.refused == refused + new

    @precondition(lambda self: len(self.states) > 3)
    @rule()
    def resync(self) -> None:
        held = set(self.neighbours.hosts())
        self.known.apply(told(self.neighbours, self.states))
        assert set(self.neighbours.hosts()) >= held

    @invariant()
    def the_limit_holds(self) -> None:
        assert len(self.neighbours) == len(self.neighbours.hosts()) <= 3
        assert self.neighbours.full is (len(self.neighbours) >= 3)
        held = dict(self.neighbours.hosts())
        assert held.items() <= self.states.items()
        assert self.known.map == wanted(held, self.table)


TestTheKnownTargetsUnderALimit = pytest.mark.large(LimitedMachine.TestCase)
TestTheKnownTargetsUnderALimit.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


def test_stale_hosts_are_asked_the_longest_first_and_a_few_at_a_time() -> None:
    quiet = Quiet(60.0, 2)
    hosts = [Host(8, at(number)) for number in range(5)]
    for number, host in enumerate(hosts):
        quiet.heard(host, S.STALE, float(number))
    assert quiet.take(59.0) == []
    assert quiet.take(60.0) == [hosts[0]]
    quiet.heard(hosts[1], S.REACHABLE, 61.0)
    quiet.heard(hosts[2], S.STALE, 61.0)  # no news
    assert quiet.take(100.0) == [hosts[2], hosts[3]]
    quiet.forget(hosts[4])
    assert quiet.take(119.0) == []
    assert quiet.take(120.0) == [hosts[0]], "still stale: once more"
    quiet.heard(hosts[1], S.STALE, 121.0)
    assert len(quiet) == 4


def test_thousands_that_there_was_no_space_for_are_let_in_bit_by_bit() -> None:
    """With 19,000 it was a turn of 0.3 s."""
    neighbours = going_by(ONE, 10)
    for number in range(PLENTY):
        neighbours.changed(Host(8, at(number)), S.REACHABLE)
    assert not any(neighbours.expecting(ONE, PLENTY))
    assert neighbours.use(ONE, PLENTY) == []
    bits = [*neighbours.dropping()]
    assert sum(map(len, bits)) == PLENTY - 10
    assert max(map(len, bits)) <= PLENTY / 5
    assert len(neighbours) == PLENTY


def test_of_thousands_of_addresses_and_interfaces_not_each_is_looked_for_on_each() -> None:
    """A thousand addresses of this machine, and 4,000 interfaces, were a turn of 1.7 s."""
    ports = {f"s{n}": LinkFacts(f"s{n}", 100 + n, MAC) for n in range(PLENTY)}
    text = '[[interface]]\nname = "wan0"\n[[interface.rule]]\nprefix = "::/0"\nmethod = "neighbour"\nvia = ["s*"]'
    neighbours = going_by(build(parse(text, "test"), LINKS | ports))
    here, there = Host(100, at(0)), Host(99 + PLENTY, at(1))
    for host in (here, there, Host(7, at(2))):
        neighbours.changed(host, S.REACHABLE)
    began = time.thread_time()
    assert {*neighbours.at({at(number) for number in range(PLENTY)})} == {here, there}
    assert time.thread_time() - began < 0.05
    assert neighbours.at({at(1)}) == [there]
