# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a host is, if several neighbour tables have its address: which entries count, and which displace others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv6Address

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.contests import FRESH, MAX_CONTESTS, PATIENCE
from npd6_xdp.core.heard import LOOK_SECONDS, MAX_HEARD
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.neighbour_messages import PRESENT, NeighbourState, Word
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.places import ASKED_PER_SECOND, Places
from npd6_xdp.core.table import Table

S = NeighbourState
WAN, LAN, OTHER, AWAY = 7, 8, 9, 10
HOP = IPv6Address("2001:db8:1::f")
LINKS = {
    "wan0": LinkFacts("wan0", WAN, bytes.fromhex("020000000007"), next_hops={(): frozenset({HOP})}),
    "lan0": LinkFacts("lan0", LAN, bytes.fromhex("020000000008")),
    "lan1": LinkFacts("lan1", OTHER, bytes.fromhex("020000000009")),
    "far0": LinkFacts("far0", AWAY, bytes.fromhex("02000000000a")),
}
MINE, PROXY = bytes.fromhex("020000000042"), bytes.fromhex("0200000000b2")
X = IPv6Address("2001:db8:1::42").packed


def entry(name: str, vias: str, prefix: str = "2001:db8:1::/64") -> str:
    via = ", ".join(f'"{each}"' for each in vias.split())
    rule = f'[[interface.rule]]\nprefix = "{prefix}"\nmethod = "neighbour"\nvia = [{via}]\n'
    return f'[[interface]]\nname = "{name}"\n{rule}'


def table(vias: str = "lan0 lan1", prefix: str = "2001:db8:1::/64", more: str = "") -> Table:
    return build(parse(entry("wan0", vias, prefix) + more, "test"), LINKS)


@dataclass
class Known:
    """What Places has passed on, and whom it has had asked."""

    places: Places = field(default_factory=Places)
    there: dict[Host, int] = field(default_factory=dict)
    failed: set[Host] = field(default_factory=set)
    now: float = 100.0
    looked_for: list[tuple[int, bool]] = field(default_factory=list)
    needless: list[Host] = field(default_factory=list)

    def use(self, using: Table) -> Known:
        self.take(self.places.use(using, self.now))
        return self

    def take(self, states: Iterable[tuple[Host, int]]) -> None:
        for host, state in states:
            self.there.pop(host, None)
            self.failed.discard(host)
            if state & PRESENT:
                self.there[host] = state
            elif state & S.FAILED:
                self.failed.add(host)

    def say(self, ifindex: int, state: int, mac: bytes = MINE, address: bytes = X) -> list[int]:
        """The neighbour table's word; the links that are asked because of it."""
        self.take(self.places.changed(Host(ifindex, address), Word(state, mac), self.now))
        return self.asked()

    def hear(self, ifindex: int, mac: bytes = MINE, address: bytes = X) -> list[int]:
        """A solicitation that the kernel doesn't get; the links that are asked because of it."""
        self.places.heard(Host(ifindex, address), mac, self.now)
        return self.asked()

    def asked(self) -> list[int]:
        asked = sorted(host.ifindex for host in self.places.take_to_ask(self.now))
        self.looked_for += [(host.ifindex, stale) for host, stale in self.places.take_to_look_for(self.now)]
        self.needless += self.places.take_needless()
        return asked

    def after(self, seconds: float) -> list[int]:
        """Let time pass, and what is due then be done."""
        end = self.now + seconds
        asked = []
        while (due := self.places.due) is not None and due <= end:
            self.now = max(self.now, due)
            self.take(self.places.tick(self.now))
            asked += self.asked()
            assert self.places.due is None or self.places.due > self.now, "time goes on"
        self.now = end
        return asked

    @property
    def at(self) -> list[int]:
        """The links that the address counts on."""
        return sorted(host.ifindex for host in self.there if host.address == X)


@pytest.fixture
def known() -> Known:
    return Known().use(table())


@pytest.mark.parametrize("state", [S.STALE, S.DELAY, S.PROBE])
def test_a_claim_is_asked_and_counts_once_it_has_answered(known: Known, state: NeighbourState) -> None:
    assert known.say(LAN, state) == [LAN]
    assert known.at == []
    assert known.say(LAN, S.PROBE) == [], "asked once"
    assert known.say(LAN, S.REACHABLE) == []
    assert known.at == [LAN]
    for later in (S.STALE, S.DELAY, S.PROBE):
        known.say(LAN, later)
        assert known.at == [LAN], "it has been there"
    known.say(LAN, S.FAILED)
    assert known.at == []
    assert known.say(LAN, S.STALE) == [LAN], "a claim anew"
    assert known.at == []


@pytest.mark.parametrize("state", [S.REACHABLE, S.PERMANENT, S.STALE | S.LEARNED, S.STALE | S.MANAGED])
def test_what_somebody_vouches_for_counts_at_once(known: Known, state: NeighbourState) -> None:
    assert known.say(LAN, state) == []
    assert known.there == {Host(LAN, X): state}


def test_what_concerns_nobody_is_passed_on_and_left_alone(known: Known) -> None:
    elsewhere = IPv6Address("2001:db8:2::1").packed
    local = IPv6Address("fe80::1").packed
    for ifindex, address in ((LAN, elsewhere), (AWAY, X), (WAN, local), (LAN, local), (OTHER, local)):
        assert known.say(ifindex, S.STALE, address=address) == []
        assert known.there[Host(ifindex, address)] == S.STALE


def test_a_host_that_moves_is_followed_when_it_has_answered_there_and_no_longer_here(known: Known) -> None:
    known.say(LAN, S.REACHABLE)
    known.after(60)
    known.say(LAN, S.STALE)
    assert known.say(OTHER, S.STALE) == [LAN, OTHER], "both are asked"
    known.say(LAN, S.PROBE)
    known.say(OTHER, S.PROBE)
    known.say(OTHER, S.REACHABLE)
    assert known.at == [LAN]
    known.after(PATIENCE)
    assert known.at == [OTHER]
    known.after(2.2)
    known.say(LAN, S.FAILED)
    assert known.at == [OTHER]
    # and back, to where it had an entry before
    known.after(60)
    known.say(LAN, S.STALE)
    known.say(LAN, S.REACHABLE)
    known.after(PATIENCE)
    assert known.at == [LAN]


def test_a_host_that_moves_right_after_it_was_confirmed_is_followed_in_little_more_time(known: Known) -> None:
    known.say(LAN, S.REACHABLE)
    known.after(0.1)
    known.say(OTHER, S.STALE)
    known.say(OTHER, S.REACHABLE)
    assert known.after(FRESH) == [LAN]
    known.after(PATIENCE)
    assert known.at == [OTHER]
    assert FRESH + PATIENCE < 1.0, "and that is within a second of the kernel's knowing it"


def test_a_late_answer_from_the_old_place_takes_it_back(known: Known) -> None:
    known.say(LAN, S.REACHABLE)
    known.after(60)
    known.say(OTHER, S.REACHABLE)
    known.after(PATIENCE)
    assert known.at == [OTHER]
    known.say(LAN, S.PROBE)
    assert known.say(LAN, S.REACHABLE) == [OTHER], "it isn't taken for there until its entry is old"
    assert known.at == [LAN]


def test_who_comes_back_to_where_the_kernel_asks_for_it_already_is_asked_once_more(known: Known) -> None:
    """The kernel's own next question is a second after its last one, and says nothing of who speaks meanwhile."""
    known.say(LAN, S.REACHABLE)
    known.after(60)
    known.say(OTHER, S.REACHABLE)
    known.after(PATIENCE)
    known.say(LAN, S.PROBE)
    assert known.hear(LAN) == [LAN]
    assert known.places.is_doubted(Host(LAN, X)), "else it needn't be asked anew"
    assert known.say(LAN, S.REACHABLE) == [OTHER]
    assert not known.places.is_doubted(Host(LAN, X))
    assert known.at == [LAN]


@pytest.mark.parametrize("rival", [OTHER, WAN])
def test_a_claim_does_not_displace_who_answers(known: Known, rival: int) -> None:
    known.say(LAN, S.REACHABLE)
    known.after(60)
    for _ in range(3):
        assert known.say(rival, S.STALE, PROXY) == sorted([LAN, rival])
        known.say(rival, S.PROBE, PROXY)
        known.say(LAN, S.PROBE)
        known.say(LAN, S.REACHABLE)
        known.after(3)
        known.say(rival, S.FAILED)
        assert known.at == [LAN]


def test_two_that_both_answer_are_asked_a_few_times_and_the_first_stays(known: Known) -> None:
    known.say(LAN, S.REACHABLE)
    known.after(60)
    asked = known.say(WAN, S.STALE, PROXY)
    count = 0
    for _ in range(50):
        count += len(asked)
        for ifindex, mac in ((LAN, MINE), (WAN, PROXY)):
            if ifindex in asked:
                asked = [*known.say(ifindex, S.PROBE, mac), *known.say(ifindex, S.REACHABLE, mac), *asked]
        asked = known.after(0.1)
        assert known.at == [LAN]
    assert count < 6


def test_with_nobody_answering_the_first_stays_until_its_entry_fails(known: Known) -> None:
    known.say(LAN, S.REACHABLE)
    known.after(60)
    known.say(OTHER, S.STALE)
    known.after(2.5)
    assert known.at == [LAN]
    known.say(LAN, S.FAILED)
    assert known.at == []
    known.say(OTHER, S.REACHABLE)
    assert known.at == [OTHER]


def test_where_a_host_has_gone_another_proven_place_takes_over_and_is_asked(known: Known) -> None:
    known.say(LAN, S.REACHABLE)
    known.say(OTHER, S.REACHABLE)
    known.after(FRESH)
    known.say(LAN, S.REACHABLE)
    known.after(30)
    known.say(OTHER, S.STALE)
    assert known.at == [LAN]
    states = known.places.changed(Host(LAN, X), Word(S.FAILED), known.now)
    assert states == [(Host(OTHER, X), S.STALE), (Host(LAN, X), S.FAILED)], "nobody is unanswered in between"
    assert known.asked() == [OTHER]


@pytest.mark.parametrize("state", [S.PERMANENT, S.PERMANENT | S.NOARP | S.LEARNED])
def test_what_an_administrator_says_is_neither_asked_nor_displaced(known: Known, state: NeighbourState) -> None:
    known.say(WAN, state)
    assert known.say(LAN, S.STALE) == [LAN]
    known.say(LAN, S.REACHABLE)
    assert known.after(10) == []
    assert known.at == [WAN]


def test_a_next_hop_is_where_it_is_in_any_state(known: Known) -> None:
    more = entry("far0", "lan0")
    known.use(table(more=more))
    hop = HOP.packed
    known.say(LAN, S.REACHABLE, address=hop)
    assert known.there == {Host(LAN, hop): S.REACHABLE}, "as long as nobody has heard of the router itself"
    known.say(WAN, S.REACHABLE, PROXY, address=hop)
    assert known.there == {Host(WAN, hop): S.REACHABLE}
    known.say(WAN, S.STALE, PROXY, address=hop)
    known.say(LAN, S.REACHABLE, address=hop)
    known.after(10)
    assert known.there == {Host(WAN, hop): S.STALE}


def test_links_that_no_question_connects_have_hosts_of_their_own() -> None:
    more = entry("far0", "lan1")
    known = Known().use(table("lan0", more=more))
    for ifindex in (LAN, OTHER):
        known.say(ifindex, S.REACHABLE)
    assert known.at == [LAN, OTHER]
    known.use(table(more=more))
    assert len(known.at) == 1, "connected now"
    known.use(table("lan0", more=more))
    assert known.at == [LAN, OTHER]


def test_in_two_vrfs_one_address_is_two_hosts() -> None:
    known = Known().use(table())
    known.say(LAN, S.REACHABLE)
    known.say(OTHER, S.REACHABLE)
    assert known.at == [LAN]
    known.take(known.places.use(table(), known.now, {LAN: 1000}))
    assert known.at == [LAN, OTHER]
    known.take(known.places.use(table(), known.now, {LAN: 1000, OTHER: 1000}))
    assert len(known.at) == 1


def test_a_claim_that_matters_to_nobody_any_more_is_passed_on() -> None:
    known = Known().use(table())
    known.say(LAN, S.STALE)
    assert known.at == []
    known.use(table(prefix="2001:db8:2::/64"))
    assert known.at == [LAN]


def test_at_the_start_what_is_stale_has_the_benefit_of_the_doubt_and_is_asked_in_its_turn(known: Known) -> None:
    hosts = {
        Host(LAN, IPv6Address(0x20010DB8_0001_0000 << 64 | n).packed): Word(S.STALE, MINE) for n in range(4096, 5096)
    }
    failed, both = Host(LAN, bytes(16)), {Host(WAN, X): Word(S.REACHABLE, PROXY), Host(LAN, X): Word(S.STALE, MINE)}
    known.there = known.places.restart({**hosts, **both, failed: Word(S.FAILED)}, known.now)
    assert known.there.keys() == {*hosts, Host(WAN, X), failed}, "the confirmed one of two"
    assert len(known.asked()) == ASKED_PER_SECOND
    known.say(OTHER, S.STALE, address=IPv6Address("2001:db8:1::9999").packed)
    known.now += 1 / ASKED_PER_SECOND
    assert known.asked() == [OTHER], "who comes now needn't wait for them"
    assert len(known.after(10)) >= 1000 - ASKED_PER_SECOND


def test_another_proxys_answers_are_nobodys(known: Known) -> None:
    known.say(LAN, S.REACHABLE, PROXY)
    assert known.at == [LAN], "nobody knows yet"
    known.take(known.places.distrust({LAN: {PROXY}}, known.now))
    assert known.at == []
    known.say(LAN, S.STALE, PROXY)
    assert (known.at, known.failed) == ([], {Host(LAN, X)}), "who waits for it waits in vain"
    known.say(OTHER, S.REACHABLE, PROXY)
    assert known.at == [OTHER], "that MAC is a proxy's on the other link only"
    known.say(OTHER, S.FAILED)
    assert known.say(LAN, S.STALE, MINE) == [LAN], "a host's claim, where the proxy's word stood"
    assert known.at == []
    known.say(LAN, S.REACHABLE, MINE)
    assert known.at == [LAN]
    known.say(LAN, S.PERMANENT, PROXY)
    assert known.at == [LAN], "an administrator knows better"


def test_a_proxy_that_is_found_loses_to_the_host_that_it_displaced(known: Known) -> None:
    known.say(WAN, S.REACHABLE, PROXY)
    known.say(LAN, S.REACHABLE, MINE)
    assert known.at == [WAN]
    known.take(known.places.distrust({WAN: {PROXY}}, known.now))
    assert known.at == [LAN]


def test_probes_and_contests_are_bounded(known: Known) -> None:
    count = MAX_CONTESTS + 100
    addresses = [IPv6Address(0x20010DB8_0001_0000 << 64 | n + 1).packed for n in range(count)]
    for address in addresses:
        known.say(LAN, S.REACHABLE, address=address)
    known.now += 60
    asked = 0
    for address in addresses:
        asked += len(known.say(WAN, S.STALE, PROXY, address=address))
    assert asked == ASKED_PER_SECOND
    assert len(known.places._contests) == MAX_CONTESTS
    assert all(known.there[Host(LAN, address)] for address in addresses)
    # claims that answer, while who is there still waits for a probe: nobody loses without having been asked
    for address in addresses:
        known.say(WAN, S.REACHABLE, PROXY, address=address)
    known.now += PATIENCE
    known.take(known.places.tick(known.now))
    lost = [address for address in addresses if Host(LAN, address) not in known.there]
    assert 0 < len(lost) <= ASKED_PER_SECOND


def test_a_host_that_is_heard_on_another_link_is_looked_for_there_and_followed(known: Known) -> None:
    known.say(LAN, S.REACHABLE)
    known.after(60)
    known.say(LAN, S.STALE)
    assert known.hear(OTHER) == []
    assert known.looked_for == [(OTHER, False)]
    assert known.hear(OTHER) == [], "it is being looked for"
    assert known.at == [LAN]
    assert known.say(OTHER, S.REACHABLE) == [LAN], "the first place is asked"
    known.after(PATIENCE)
    assert known.at == [OTHER]
    known.after(10)
    assert (known.looked_for, known.needless) == ([(OTHER, False)], [])
    known.say(LAN, S.FAILED)
    assert known.hear(LAN) == [], "and back"
    assert known.looked_for == [(OTHER, False), (LAN, False)]


def test_a_host_that_comes_back_while_its_entry_there_is_about_to_fail_is_looked_for_once_it_has(known: Known) -> None:
    known.say(LAN, S.REACHABLE)
    known.after(60)
    known.say(OTHER, S.REACHABLE)
    known.after(PATIENCE)
    known.say(LAN, S.PROBE)
    assert known.at == [OTHER]
    assert known.hear(LAN) == [LAN]
    known.say(LAN, S.FAILED)
    known.asked()
    assert known.looked_for == [(LAN, False)]
    assert known.say(LAN, S.REACHABLE) == [OTHER]
    known.after(PATIENCE)
    assert known.at == [LAN]


def test_a_host_that_comes_back_where_the_kernel_still_has_it_as_reachable_is_asked_there_and_followed(
    known: Known,
) -> None:
    """It was there a moment ago, and an answer from its first place took it back."""
    known.say(LAN, S.REACHABLE)
    known.after(60)
    known.say(OTHER, S.REACHABLE)
    known.after(PATIENCE)
    known.say(LAN, S.PROBE)
    known.say(LAN, S.REACHABLE)
    assert known.at == [LAN]
    known.after(5)
    assert known.hear(OTHER) == [OTHER]
    known.say(OTHER, S.PROBE)
    assert known.say(OTHER, S.REACHABLE) == [LAN], "the first one is asked, too"
    known.after(PATIENCE)
    assert known.at == [OTHER]
    assert known.hear(OTHER) == [], "it is known there"


def test_who_is_heard_and_not_found_is_let_go_and_may_be_looked_for_again(known: Known) -> None:
    known.say(LAN, S.REACHABLE)
    known.hear(OTHER, PROXY)
    known.after(LOOK_SECONDS)
    assert (known.at, known.needless) == ([LAN], [Host(OTHER, X)])
    known.hear(OTHER, PROXY)
    assert known.looked_for == [(OTHER, False)] * 2


def test_another_mac_is_looked_for_once_the_one_before_does_not_answer(known: Known) -> None:
    known.say(LAN, S.REACHABLE)
    known.after(60)
    assert known.hear(LAN, PROXY) == [LAN], "the one that the table has"
    assert known.hear(LAN, PROXY) == []
    known.say(LAN, S.PROBE)
    known.after(PATIENCE - 0.01)
    assert known.looked_for == []
    known.after(0.02)
    assert known.looked_for == [(LAN, True)], "by a new entry"
    known.say(LAN, S.FAILED)
    known.say(LAN, S.REACHABLE, PROXY)
    assert known.at == [LAN]
    known.after(10)
    assert (known.looked_for, known.needless) == ([(LAN, True)], [])


def test_an_entry_that_fails_before_our_patience_ends_is_looked_for_at_once(known: Known) -> None:
    known.say(LAN, S.REACHABLE)
    known.hear(LAN, PROXY)
    known.after(PATIENCE / 2)
    known.say(LAN, S.FAILED)
    assert known.looked_for == [(LAN, False)]


def test_another_mac_takes_nothing_from_a_host_that_answers(known: Known) -> None:
    known.say(LAN, S.REACHABLE)
    for _ in range(3):
        known.after(60)
        assert known.hear(LAN, PROXY) == [LAN]
        known.say(LAN, S.PROBE)
        known.say(LAN, S.REACHABLE)
        known.after(10)
    assert (known.at, known.looked_for) == ([LAN], [])


@pytest.mark.parametrize(
    ("there", "heard"),
    [
        pytest.param(None, (LAN, MINE), id="a stranger"),
        pytest.param((LAN, S.REACHABLE), (LAN, MINE), id="where it is"),
        pytest.param((LAN, S.STALE | S.LEARNED), (LAN, PROXY), id="looked after"),
        pytest.param((LAN, S.PERMANENT), (OTHER, PROXY), id="an administrator's"),
        pytest.param((LAN, S.REACHABLE), (AWAY, MINE), id="where nobody is asked for"),
        pytest.param((AWAY, S.REACHABLE), (LAN, MINE), id="known elsewhere only"),
    ],
)
def test_what_is_heard_and_nothing_follows_from(
    known: Known, there: tuple[int, int] | None, heard: tuple[int, bytes]
) -> None:
    if there is not None:
        known.say(*there)
    assert known.hear(*heard) == []
    assert known.looked_for == []
    assert known.places.due is None


def test_what_another_proxy_says_of_a_host_is_not_heard(known: Known) -> None:
    known.say(LAN, S.REACHABLE)
    known.take(known.places.distrust({OTHER: {PROXY}}, known.now))
    assert (known.hear(OTHER, PROXY), known.looked_for) == ([], [])


def test_what_is_heard_is_bounded_and_so_are_the_questions(known: Known) -> None:
    addresses = [IPv6Address(0x20010DB8_0001_0000 << 64 | n + 1).packed for n in range(2 * MAX_HEARD)]
    for address in addresses:
        known.say(LAN, S.REACHABLE, address=address)
    known.now += 60
    asked = [link for address in addresses for link in known.hear(OTHER, PROXY, address)]
    assert asked == []
    assert len(known.looked_for) == ASKED_PER_SECOND
    known.after(1)
    assert len(known.looked_for) <= MAX_HEARD
    known.after(60)
    assert len(known.looked_for) == len(known.needless) == MAX_HEARD
    assert known.places.due is None


def test_a_table_by_which_thousands_of_addresses_are_in_two_places_is_followed_in_bits() -> None:
    """Each takes 20 us: with 65,536 it was a turn of 1.5 s."""
    count = 1_000
    apart, known = table("lan0", more=entry("far0", "lan1")), Known()
    known.use(apart)
    addresses = [IPv6Address(0x20010DB8_0001_0000 << 64 | n).packed for n in range(4096, 4096 + count)]
    for address in addresses:
        known.say(LAN, S.REACHABLE, address=address)
        known.now += 0.001
        known.say(OTHER, S.REACHABLE, address=address)
    assert len(known.there) == 2 * count, "links that no question connects"
    known.use(table())
    bits = 1
    assert len(known.there) > 1.5 * count
    while known.places.unsettled:
        known.take(known.places.settle(known.now))
        bits += 1
    assert bits > 5
    assert known.there.keys() == {Host(OTHER, address) for address in addresses}, "who was heard last"
    known.take(known.places.distrust({OTHER: [MINE]}, known.now))
    assert known.places.unsettled
    while known.places.unsettled:
        known.take(known.places.settle(known.now))
    assert known.there.keys() == {Host(LAN, address) for address in addresses}


@settings(deadline=None)
class PlacesMachine(RuleBasedStateMachine):
    """Whatever the kernel says: an address is in one place at most, that place was confirmed, and time stands never."""

    def __init__(self) -> None:
        super().__init__()
        self.known = Known().use(table())
        self.kernel: dict[int, tuple[NeighbourState, bytes]] = {}
        self.proven: set[int] = set()
        self.other_proxies: set[int] = set()

    links = st.sampled_from([WAN, LAN, OTHER])

    @rule(link=links, state=st.sampled_from([s for s in S if s < S.LEARNED]), mac=st.sampled_from([MINE, PROXY]))
    def says(self, link: int, state: NeighbourState, mac: bytes) -> None:
        before = self.kernel.pop(link, (S.NONE, b""))
        if state & PRESENT:
            if before[1] != mac and link in self.other_proxies and before[1] == PROXY and not before[0] & S.PERMANENT:
                self.proven.discard(link)
            self.kernel[link] = state, mac
            if state & (S.REACHABLE | S.PERMANENT):
                self.proven.add(link)
        else:
            self.proven.discard(link)
        self.known.say(link, state, mac)

    @rule(link=links)
    def finds_a_proxy(self, link: int) -> None:
        self.other_proxies ^= {link}
        self.known.take(self.known.places.distrust({each: {PROXY} for each in self.other_proxies}, self.known.now))

    @rule(link=links, mac=st.sampled_from([MINE, PROXY]))
    def speaks(self, link: int, mac: bytes) -> None:
        self.known.hear(link, mac)

    @rule(seconds=st.sampled_from([0.01, 0.4, 0.9, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.known.after(seconds)

    @invariant()
    def one_place(self) -> None:
        known = {host: state for host, state in self.known.there.items() if state & PRESENT}
        eligible = {
            link
            for link, (state, mac) in self.kernel.items()
            if link in self.proven and (mac != PROXY or link not in self.other_proxies or state & S.PERMANENT)
        }
        at = [host.ifindex for host in known]
        assert len(at) == min(1, len(eligible))
        assert set(at) <= eligible
        for host, state in known.items():
            assert state == self.kernel[host.ifindex][0], "the last word"


TestPlaces = PlacesMachine.TestCase
