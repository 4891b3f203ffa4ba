# SPDX-License-Identifier: GPL-2.0-or-later
"""Include, exclude and the prefixes of followed interfaces: what the flat lines say is what the words say."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.build import build
from npd6_xdp.core.config import RuleConfig, Selection
from npd6_xdp.core.flatten import bases, changing, flatten
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.steps import finish
from npd6_xdp.core.table import Decision, Match
from npd6_xdp.core.verdict import Method, Outcome
from tests.core.tables import BASE, config, decision, facts, link, rule_configs, side, small, under

SELECTIONS = (
    ("a suffix", 'include = ["::1"]', {"::1": True, "::2": False}),
    ("a full address", 'include = ["2001:db8:1::1"]', {"::1": True, "::2": False}),
    ("a CIDR of suffixes", 'include = ["::1:0/112"]', {"::1:0": True, "::1:ffff": True, "::2:0": False, "::": False}),
    ("a full CIDR", 'include = ["2001:db8:1::1:0/112"]', {"::1:7": True, "::2:0": False}),
    ("a range of suffixes", 'include = ["::10-::1f"]', {"::f": False, "::10": True, "::1f": True, "::20": False}),
    ("a full range", 'include = ["2001:db8:1::10-2001:db8:1::1f"]', {"::f": False, "::10": True, "::20": False}),
    ("exclude alone", 'exclude = ["::10-::1f"]', {"::f": True, "::10": False, "::1f": False, "::20": True}),
    ("both: exclude wins", 'include = ["::10/124"]; exclude = ["::11"]', {"::10": True, "::11": False, "::20": False}),
    ("exclude over include", 'include = ["::11"]; exclude = ["::10/124"]', {"::11": False, "::10": False}),
    ("the same in both", 'include = ["::11"]; exclude = ["::10-::12"]', {"::11": False, "::13": False}),
    ("the whole prefix included", 'include = ["::/64"]', {"::": True, "::1": True}),
    ("the whole prefix excluded", 'exclude = ["::/64"]', {"::": False, "::1": False}),
    ("several", 'include = ["::1", "::1:0/112"]', {"::1": True, "::1:5": True, "::2": False}),
)


@pytest.mark.parametrize(("what", "keys", "wanted"), SELECTIONS, ids=[what for what, *_ in SELECTIONS])
def test_what_include_leaves_out_or_exclude_takes_out_is_ignored_and_falls_through_to_no_shorter_rule(
    what: str, keys: str, wanted: dict[str, bool]
) -> None:
    rules = (f'prefix = "2001:db8:1::/64"; method = "static"; {keys}', 'prefix = "2001:db8::/32"; method = "static"')
    table = build(under("wan0", *rules), {"wan0": link()})
    for suffix, there in wanted.items():
        found = table.lookup(0, IPv6Address(f"2001:db8:1{suffix}"))
        assert isinstance(found, Match)
        assert (table.rules[found.rule].prefix, found.decision) == (
            "2001:db8:1::/64",
            Decision.STATIC if there else Decision.IGNORE,
        ), suffix


def test_a_longer_rule_inside_decides_alone_whatever_the_shorter_one_selects() -> None:
    table = build(
        under(
            "wan0",
            'prefix = "2001:db8:1::/48"; method = "static"; include = ["::a:0:0:0:1"]; exclude = ["::b:0:0:0:0/80"]',
            'prefix = "2001:db8:1:a::/64"; method = "route"; exclude = ["::2"]',
            'prefix = "2001:db8:1:b::/64"; method = "route"',
            'prefix = "2001:db8:1:b::7"; method = "ignore"',
        ),
        {"wan0": link()},
    )
    wanted = {
        "2001:db8:1:a::1": Decision.ROUTE,
        "2001:db8:1:a::2": Decision.IGNORE,
        "2001:db8:1:b::1": Decision.ROUTE,
        "2001:db8:1:b::7": Decision.IGNORE,
        "2001:db8:1:c::1": Decision.IGNORE,
    }
    assert {target: decision(table, target) for target in wanted} == wanted


def naively(rules: list[RuleConfig], target: IPv6Address) -> tuple[str, bool] | None:
    """The longest prefix that holds the target owns it; then include, then exclude."""
    holding = [rule for rule in rules if target in rule.networks[0].network]
    if not holding:
        return None
    owner = max(holding, key=lambda rule: rule.networks[0].length)

    def selected(chosen: tuple[Selection, ...]) -> bool:
        base = owner.networks[0].address
        return any(each.first | base <= int(target) <= each.last | base for each in chosen)

    there = (not owner.include or selected(owner.include)) and not selected(owner.exclude)
    return owner.prefix, there


@given(
    st.lists(rule_configs(), min_size=1, max_size=6, unique_by=lambda rule: rule.prefix), st.lists(small, min_size=1)
)
def test_the_flat_table_says_what_the_words_say(rules: list[RuleConfig], targets: list[int]) -> None:
    table = build(config(*rules), {"wan0": link()})
    for suffix in targets:
        target = IPv6Address(BASE | suffix)
        found = table.lookup(0, target)
        wanted = naively(rules, target)
        if wanted is None:
            assert found is Outcome.UNMATCHED
        else:
            assert isinstance(found, Match)
            by = table.rules[found.rule]
            assert (by.prefix, found.decision) == (wanted[0], by.decision if wanted[1] else Decision.IGNORE)


_FEW = [Prefix(BASE, 64), Prefix(BASE, 126), Prefix(BASE, 127), Prefix(BASE | 2, 127)]
some_rules = st.lists(
    st.builds(
        lambda networks, method: RuleConfig(" ".join(map(str, networks)), tuple(networks), method),
        st.lists(st.sampled_from(_FEW), min_size=1, max_size=2, unique=True),
        st.sampled_from([Method.STATIC, Method.ROUTE]),
    ),
    max_size=4,
    unique_by=lambda rule: rule.prefix,
)


@given(some_rules, some_rules)
def test_bases_by_what_has_changed_are_those_of_all_rules(before: list[RuleConfig], after: list[RuleConfig]) -> None:
    old, wanted = bases(before, {}), bases(after, {})
    gone = [rule for rule in before if rule not in after]
    found = finish(changing(old, gone, [rule for rule in after if rule not in before]))
    if old.notes or wanted.notes:
        assert found is None
    else:
        assert found is not None
        assert (found.owners, list(found.lengths)) == (wanted.owners, wanted.lengths)


def test_a_rule_follows_the_prefixes_of_its_interface_as_they_change() -> None:
    rules = under("wan0", 'prefix = "interface:lan0"; method = "route"; include = ["::10-::1f"]; exclude = ["::11"]')
    steps: tuple[tuple[tuple[str, ...], dict[str, Decision | Outcome]], ...] = (
        ((), {"2001:db8:1::10": Outcome.UNMATCHED}),
        (
            ("2001:db8:1::1/64",),
            {"2001:db8:1::10": Decision.ROUTE, "2001:db8:1::11": Decision.IGNORE, "2001:db8:1::20": Decision.IGNORE},
        ),
        (
            ("2001:db8:2::1/64", "2001:db8:3::1/64"),
            {
                "2001:db8:1::10": Outcome.UNMATCHED,
                "2001:db8:2::10": Decision.ROUTE,
                "2001:db8:3::10": Decision.ROUTE,
                "2001:db8:3::11": Decision.IGNORE,
            },
        ),
        (("fe80::1/64",), {"2001:db8:3::10": Outcome.UNMATCHED, "fe80::10": Outcome.IGNORED}),
    )
    table = None
    for addresses, wanted in steps:
        table = build(rules, facts(side("lan0", 8, *addresses)), table)
        assert {target: decision(table, target) for target in wanted} == wanted
        assert {rule.id: rule.prefix for rule in table.rules.values()} == {0: "interface:lan0"}
        assert table.notes == ()
    assert decision(build(rules, facts()), "2001:db8:1::10") is Outcome.UNMATCHED, "lan0 isn't there"


def test_of_two_rules_that_come_to_mean_one_prefix_the_first_wins_and_a_note_says_so() -> None:
    fixed = 'prefix = "2001:db8:1::/64"; method = "static"; exclude = ["::5"]'
    follows = 'prefix = "interface:lan0"; method = "route"; include = ["::6"]'
    links = facts(side("lan0", 8, "2001:db8:1::1/64"))
    for rules, wanted in (
        ((fixed, follows), {"::5": Decision.IGNORE, "::6": Decision.STATIC, "::7": Decision.STATIC}),
        ((follows, fixed), {"::5": Decision.IGNORE, "::6": Decision.ROUTE, "::7": Decision.IGNORE}),
    ):
        table = build(under("wan0", *rules), links)
        assert {suffix: decision(table, f"2001:db8:1{suffix}") for suffix in wanted} == wanted
        first, second = (rule.split('"')[1] for rule in rules)
        assert table.notes == (f"wan0: {second}: 2001:db8:1::/64 is {first}'s, which stands first in the file",)
        assert build(under("wan0", *rules), facts()).notes == ()


def test_a_selection_that_lies_in_no_followed_prefix_is_noted_and_left_out() -> None:
    rules = under("wan0", 'prefix = "interface:lan0"; method = "route"; include = ["2001:db8:9::1", "::2"]')
    flat, notes = flatten(rules.interfaces[0].rules, {"lan0": (Prefix.of("2001:db8:1::/64"),)})
    assert notes == ["interface:lan0: include 2001:db8:9::1 lies outside 2001:db8:1::/64"]
    assert {(str(line.network), line.left_out) for line in flat} == {
        ("2001:db8:1::/64", True),
        ("2001:db8:1::2/128", False),
    }


def test_a_selection_of_one_followed_prefix_is_no_mistake_in_the_others() -> None:
    rules = under("wan0", 'prefix = "interface:lan0"; method = "route"; exclude = ["2001:db8:2::1", "2001:db8:9::1"]')
    followed = {"lan0": (Prefix.of("2001:db8:1::/64"), Prefix.of("2001:db8:2::/64"))}
    _, notes = flatten(rules.interfaces[0].rules, followed)
    assert {note.split()[2] for note in notes} == {"2001:db8:9::1"}
