# SPDX-License-Identifier: GPL-2.0-or-later
"""The flat table: what decides about a target, ids that stay, and the addresses to answer from."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.config import Config, InterfaceConfig, RuleConfig, Vlan
from npd6_xdp.core.rules import (
    NO_RULE,
    VLAN_ANY,
    Decision,
    LinkFacts,
    Match,
    OwnAddress,
    SlotSource,
    Table,
    build,
    choose_source,
    slot_sources,
    warnings,
)
from npd6_xdp.core.verdict import Method, Outcome

MAC = bytes.fromhex("020000000001")


def rule(prefix: str, method: Method = Method.STATIC) -> RuleConfig:
    return RuleConfig(prefix, (IPv6Network(prefix),), method)


def config(*rules: RuleConfig, vlan: Vlan = Vlan()) -> Config:  # noqa: B008 (frozen)
    return Config((InterfaceConfig("wan0", rules, vlan=vlan),))


def own(*addresses: str) -> tuple[OwnAddress, ...]:
    return tuple(
        OwnAddress(IPv6Address(address.split("/")[0]), int(([*address.split("/"), "128"])[1])) for address in addresses
    )


def link(addresses: tuple[OwnAddress, ...] = (), hops: tuple[str, ...] = ()) -> LinkFacts:
    return LinkFacts(
        "wan0", 7, MAC, addresses={(): addresses}, next_hops={(): frozenset(IPv6Address(hop) for hop in hops)}
    )


def decision(table: Table, target: str, tags: tuple[int, ...] = ()) -> Decision | Outcome:
    entry = table.entry_of(7, tags)
    assert entry is not None
    found = table.lookup(entry.id, IPv6Address(target))
    return found if isinstance(found, Outcome) else found.decision


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("2001:db8:1::42", Decision.STATIC),
        ("2001:db8:1::dead", Decision.IGNORE),
        ("2001:db8:1::2", Decision.OWN),
        ("2001:db8:1::", Decision.OWN),  # the subnet-router anycast address of 2001:db8:1::2/64
        ("2001:db8:1::1", Decision.NEXT_HOP),
        ("2001:db8:2::1", Outcome.UNMATCHED),
        ("fe80::2", Decision.OWN),
        ("fe80::", Outcome.IGNORED),
        ("fe80::42", Decision.STATIC),
        ("fe80::43", Outcome.IGNORED),
        ("::", Outcome.IGNORED),
        ("::1", Outcome.IGNORED),
        ("ff02::1", Outcome.IGNORED),
    ],
)
def test_a_target_is_decided_by_own_addresses_then_next_hops_then_the_longest_rule(
    target: str, wanted: Decision | Outcome
) -> None:
    table = build(
        config(
            rule("2001:db8:1::/64"),
            rule("2001:db8:1::dead", Method.IGNORE),
            rule("2001:db8:1::2"),
            rule("2001:db8:1::1"),
            rule("fe80::42"),
        ),
        {"wan0": link(own("2001:db8:1::2/64", "fe80::2/64"), ("2001:db8:1::1",))},
    )
    assert decision(table, target) == wanted


prefixes = st.builds(
    lambda bits, length: IPv6Network((bits << 120 | 0x20 << 120, length), strict=False),
    st.integers(0, 255),
    st.integers(0, 128),
)


@given(
    st.lists(prefixes, min_size=1, max_size=8, unique=True),
    st.integers(0, 2**128 - 1).map(IPv6Address),
)
def test_the_longest_prefix_wins_as_a_naive_search_finds_it(networks: list[IPv6Network], target: IPv6Address) -> None:
    networks = [n for n in networks if not n.network_address.is_link_local]
    table = build(config(*[rule(str(network)) for network in networks]), {"wan0": link()})
    best = max((n for n in networks if target in n), key=lambda n: n.prefixlen, default=None)
    found = table.lookup(0, target)
    if target.is_multicast or target.is_link_local or target in (IPv6Address("::"), IPv6Address("::1")):
        assert found is Outcome.IGNORED or (best is not None and best.prefixlen == 128)
    elif best is None:
        assert found is Outcome.UNMATCHED
    else:
        assert isinstance(found, Match)
        assert table.rules[found.rule].network == best


def test_ids_stay_when_the_machine_changes_and_what_is_gone_keeps_its_own() -> None:
    rules = config(rule("2001:db8:1::/64"), rule("2001:db8:2::/64"))
    before = build(rules, {"wan0": link()})
    after = build(rules, {"wan0": link(own("2001:db8:1::2"))}, before)
    assert {r.id: r.prefix for r in after.rules.values()} == {r.id: r.prefix for r in before.rules.values()}
    gone = build(rules, {}, after)
    assert (gone.slots, gone.addresses, gone.prefixes) == ({}, {}, {})
    assert gone.rules == after.rules
    again = build(rules, {"wan0": link()}, gone)
    assert (again.slots, again.prefixes) == (before.slots, before.prefixes)


def test_frames_that_no_entry_speaks_for_are_unmatched() -> None:
    table = build(config(rule("::/0"), vlan=Vlan(tags=(100, 7))), {"wan0": link()})
    assert decision(table, "2001:db8::1", (100, 7)) is Decision.STATIC
    for tags in ((), (100,), (7, 100)):
        assert decision(table, "2001:db8::1", tags) is Outcome.UNMATCHED
    assert table.entry_of(8) is None
    assert table.slots == {(7, 100, 7): 0, (7, VLAN_ANY, VLAN_ANY): 1}


def test_under_any_each_vlan_device_has_its_own_addresses() -> None:
    facts = LinkFacts(
        "wan0",
        7,
        MAC,
        addresses={(): own("2001:db8::1"), (100,): own("2001:db8::2")},
        next_hops={(100,): frozenset({IPv6Address("2001:db8::3")})},
    )
    table = build(config(rule("2001:db8::/64"), vlan=Vlan(any=True)), {"wan0": facts})
    wanted = {
        (): {"2001:db8::1": Decision.OWN, "2001:db8::2": Decision.STATIC, "2001:db8::3": Decision.STATIC},
        (100,): {"2001:db8::1": Decision.STATIC, "2001:db8::2": Decision.OWN, "2001:db8::3": Decision.NEXT_HOP},
        (200,): {"2001:db8::1": Decision.OWN, "2001:db8::2": Decision.STATIC, "2001:db8::3": Decision.STATIC},
    }
    for tags, targets in wanted.items():
        assert {target: decision(table, target, tags) for target in targets} == targets
    assert {entry.label for entry in table.entries.values()} == {"wan0:any"}


def test_own_addresses_and_next_hops_belong_to_no_rule() -> None:
    table = build(config(rule("::/0")), {"wan0": link(own("2001:db8::1"), ("2001:db8::2",))})
    assert {match.rule for match in table.addresses.values()} == {NO_RULE}


SOURCES = (
    ("a link-local asker", "fe80::9", ("fe80::1", "2001:db8::1"), "fe80::1"),
    ("a probe's answer goes to all nodes", "ff02::1", ("2001:db8::1", "fe80::1"), "fe80::1"),
    ("a global asker", "2001:db8::9", ("fe80::1", "2001:db8::1"), "2001:db8::1"),
    ("the nearest of several", "2001:db8:2::9", ("2001:db8:1::1", "2001:db8:2::1"), "2001:db8:2::1"),
    ("none of the scope", "2001:db8::9", ("fe80::1",), "fe80::1"),
    ("no link-local one", "fe80::9", ("2001:db8::1",), None),
    ("none at all", "fe80::9", (), None),
)


@pytest.mark.parametrize(("what", "destination", "held", "wanted"), SOURCES, ids=[what for what, *_ in SOURCES])
def test_the_source_is_of_the_destinations_scope(
    what: str, destination: str, held: tuple[str, ...], wanted: str | None
) -> None:
    chosen = choose_source(own(*held), IPv6Address(destination))
    assert chosen == (IPv6Address(wanted) if wanted else None)


def test_a_tentative_address_is_no_source_and_a_deprecated_one_the_last() -> None:
    old = OwnAddress(IPv6Address("2001:db8::1"), deprecated=True)
    tentative = OwnAddress(IPv6Address("2001:db8::2"), usable=False)
    fresh = OwnAddress(IPv6Address("2001:db8:ffff::3"))
    destination = IPv6Address("2001:db8::9")
    assert choose_source([old, tentative, fresh], destination) == fresh.address
    assert choose_source([old, tentative], destination) == old.address


held_addresses = st.builds(
    OwnAddress,
    st.sampled_from(["fe80::1", "fe80::2", "2001:db8::1", "2001:db8:1::1", "fd00::1"]).map(IPv6Address),
    usable=st.booleans(),
    deprecated=st.booleans(),
)


@given(
    st.lists(held_addresses, max_size=5, unique_by=lambda held: held.address),
    st.sampled_from(["fe80::9", "2001:db8::9", "2001:db8:1::9", "fd00::9", "3000::1"]).map(IPv6Address),
)
def test_what_xdp_may_use_by_itself_is_what_would_have_been_chosen(
    held: list[OwnAddress], destination: IPv6Address
) -> None:
    table = build(config(rule("::/0")), {"wan0": link(tuple(held))})
    flags, link_local, other = slot_sources(table.entries[0])
    chosen = choose_source(held, destination)
    if destination.is_link_local and flags & SlotSource.LINK_LOCAL:
        assert link_local == chosen
    if not destination.is_link_local and flags & SlotSource.GLOBAL:
        assert other == chosen


def test_a_static_rule_over_an_on_link_prefix_is_warned_about() -> None:
    facts = {"wan0": link(own("2001:db8::2/64", "fe80::2/64"))}
    (line,) = warnings(build(config(rule("2001:db8::/32")), facts))
    assert line.startswith("wan0: the static rule 2001:db8::/32 covers 2001:db8::/64, which is on-link there")
    assert warnings(build(config(rule("2001:db8:1::/64")), facts)) == []
    assert warnings(build(config(rule("2001:db8::/32", Method.IGNORE)), facts)) == []
