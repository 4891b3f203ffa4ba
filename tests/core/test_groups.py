# SPDX-License-Identifier: GPL-2.0-or-later
"""Which solicited-node groups are joined, on which interface."""

from __future__ import annotations

from ipaddress import IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.groups import MOST_GROUPS, joins_and_leaves, solicited_node, wanted_groups
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.table import Table

MAC = bytes.fromhex("020000000001")


def table(*rules: str, links: tuple[LinkFacts, ...] = (), vlan: str = "untagged") -> Table:
    lines = [f'[[interface]]\nname = "wan0"\nvlan = "{vlan}"']
    lines += ["[[interface.rule]]\n" + rule.replace("; ", "\n") for rule in rules]
    facts = links or (LinkFacts("wan0", 7, MAC),)
    return build(parse("\n".join(lines), "test"), {link.name: link for link in facts})


def names(table: Table) -> dict[int, set[str]]:
    return {ifindex: {str(IPv6Address(g)) for g in groups} for ifindex, groups in wanted_groups(table).items()}


@given(st.integers(0, 2**128 - 1))
def test_a_group_is_the_last_24_bits_under_the_solicited_node_prefix(target: int) -> None:
    """F1 of docs/rules.md."""
    group = IPv6Address(solicited_node(target))
    assert str(group).startswith("ff02::1:ff")
    assert group.packed[:13] == IPv6Address("ff02::1:ff00:0").packed[:13]
    assert group.packed[13:] == IPv6Address(target).packed[13:]


def test_single_addresses_and_prefixes_of_up_to_256_are_joined_and_larger_ones_are_not() -> None:
    using = table(
        'prefix = "2001:db8:1::42"; method = "static"',
        'prefix = "2001:db8:2::ab:1000/126"; method = "route"',
        'prefix = "2001:db8:3::/119"; method = "static"',
        'prefix = "fe80::7"; method = "kernel"',
    )
    assert names(using) == {
        7: {"ff02::1:ff00:42", "ff02::1:ff00:7", *[f"ff02::1:ffab:100{n}" for n in range(4)]},
    }
    assert len(wanted_groups(table('prefix = "2001:db8:1::/120"; method = "static"'))[7]) == 256


def test_what_is_never_answered_is_not_joined() -> None:
    wan = LinkFacts(
        "wan0",
        7,
        MAC,
        addresses={(): (OwnAddress(IPv6Address("2001:db8:1::2"), 128),)},
        next_hops={(): frozenset({IPv6Address("2001:db8:1::1")})},
    )
    using = table(
        'prefix = "2001:db8:1::1"; method = "static"',
        'prefix = "2001:db8:1::2"; method = "static"',
        'prefix = "2001:db8:1::3"; method = "ignore"',
        'prefix = "2001:db8:1::/64"; method = "static"; include = ["::4", "::5"]; exclude = ["::5"]',
        links=(wan,),
    )
    assert names(using) == {7: {"ff02::1:ff00:4"}}


def test_targets_that_share_their_last_24_bits_share_a_group() -> None:
    rules = [f'prefix = "2001:db8:{n}::1"; method = "static"' for n in range(9)]
    assert names(table(*rules)) == {7: {"ff02::1:ff00:1"}}


def test_a_tags_groups_are_joined_on_its_vlan_device() -> None:
    wan = LinkFacts("wan0", 7, MAC, l3={(100,): 12})
    rule = 'prefix = "2001:db8::1"; method = "static"'
    assert names(table(rule, links=(wan,), vlan="100")) == {12: {"ff02::1:ff00:1"}}
    assert names(table(rule, links=(wan,), vlan="200")) == {7: {"ff02::1:ff00:1"}}


def test_the_groups_are_bounded_and_the_lowest_targets_have_them() -> None:
    using = table(
        *[f'prefix = "2001:db8::{n:x}00/120"; method = "static"' for n in range(3, 0, -1)],
        'prefix = "2001:db8::fffe"; method = "static"',
    )
    (groups,) = wanted_groups(using).values()
    assert groups == {solicited_node(0x100 + n) for n in range(MOST_GROUPS)}


def test_an_interface_that_is_away_has_no_groups() -> None:
    rule = 'prefix = "2001:db8::1"; method = "static"'
    config = parse(f'[[interface]]\nname = "wan0"\n[[interface.rule]]\n{rule.replace("; ", chr(10))}', "test")
    away = build(config, {}, table(rule))
    assert away.rules
    assert not any(wanted_groups(away).values())


pairs = st.dictionaries(st.integers(1, 3), st.frozensets(st.integers(0, 5).map(solicited_node)), max_size=3)


@given(pairs, pairs)
def test_joins_and_leaves_turn_before_into_after_and_touch_nothing_else(
    before: dict[int, frozenset[bytes]], after: dict[int, frozenset[bytes]]
) -> None:
    joined = {(ifindex, group) for ifindex, groups in before.items() for group in groups}
    joins, leaves = joins_and_leaves(before, after)
    assert len(set(joins)) == len(joins)
    assert set(leaves) <= joined
    assert not set(joins) & joined
    assert joined - set(leaves) | set(joins) == {(i, group) for i, groups in after.items() for group in groups}


def test_many_addresses_with_one_group_take_one_place_of_the_256() -> None:
    same = [f'prefix = "2001:db8:{number:x}::1"; method = "static"' for number in range(1, 301)]
    using = table(*same, 'prefix = "2001:db9::42"; method = "static"')
    assert names(using) == {7: {"ff02::1:ff00:1", "ff02::1:ff00:42"}}


def test_the_loopback_address_is_nobodys_target() -> None:
    lo = LinkFacts("lo", 1, b"", addresses={(): (OwnAddress(IPv6Address("::1"), 128),)})
    using = table('prefix = "::/0"; method = "route"', links=(LinkFacts("wan0", 7, MAC), lo))
    assert names(using) == {}
