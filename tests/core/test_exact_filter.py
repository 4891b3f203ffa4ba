# SPDX-License-Identifier: GPL-2.0-or-later
"""The 64 bits that say of most addresses that no line of their own stands in the map."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.exact_filter import ALL, MOST, exact_filter
from npd6_xdp.core.prefix import BITS, Prefix
from npd6_xdp.core.table import Decision, Decisions, Match, RuleFlag

MATCH = Match(0, Decision.STATIC, RuleFlag(0))
OWN = Match(1, Decision.OWN, RuleFlag(0))
addresses = st.sets(st.integers(0, (1 << 128) - 1), max_size=80)


def singles(found: set[int]) -> dict[Prefix, Match]:
    return {Prefix(address, BITS): MATCH for address in found}


def has(bits: int, address: int) -> bool:
    """Whether a filter lets an address through: the bit of that address alone is set."""
    return bool(bits & exact_filter([address]))


@given(addresses, addresses)
def test_no_single_address_is_filtered_out_whether_a_rule_names_it_or_the_machine(
    by_rule: set[int], by: set[int]
) -> None:
    lines = {**singles(by_rule), Prefix(0x20010DB8 << 96, 32): MATCH}
    bits = Decisions(lines, dict.fromkeys(singles(by), OWN)).exact_filter
    assert all(has(bits, address) for address in by_rule | by)


def test_few_addresses_leave_most_others_out_and_hosts_with_neighbouring_addresses_are_told_apart() -> None:
    bits = Decisions({Prefix(0x20010DB8 << 96, 32): MATCH}, singles({(0x20010DB8 << 96) + 1})).exact_filter
    assert bits.bit_count() == 1
    hosts = [(0x20010DB8 << 96) + host for host in range(2, 2 + 256)]
    assert sum(has(bits, host) for host in hosts) < 16


def test_of_more_addresses_than_it_has_bits_it_says_nothing() -> None:
    many = set(range(1 << 64, (1 << 64) + MOST + 1))
    assert Decisions(singles(many), {}).exact_filter == ALL
    lines = {Prefix(number << 64, 64): MATCH for number in range(5000)}
    assert Decisions({**lines, Prefix(5, BITS): MATCH}, {}).exact_filter == ALL
    assert Decisions(lines, {}).exact_filter == 0


def test_the_only_prefix_is_that_beside_single_addresses_and_two_are_none() -> None:
    wide, narrow = Prefix(0x20010DB8 << 96, 32), Prefix(0x20010DB8 << 96, 64)
    assert Decisions({**singles({1, 2}), wide: MATCH}, singles({3})).only_prefix == (wide, MATCH)
    assert Decisions({wide: MATCH, narrow: MATCH}, {}).only_prefix is None
    assert Decisions(singles({1}), {}).only_prefix is None
