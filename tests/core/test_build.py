# SPDX-License-Identifier: GPL-2.0-or-later
"""How a table comes to be: its entries, ids that stay, and what is taken from the table before."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, Datapath, InterfaceConfig, RuleConfig, Vlan
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.table import Decision, Decisions, Match, RuleFlag, Table
from npd6_xdp.core.verdict import Method, Outcome
from tests.core.tables import (
    BASE,
    LAN,
    MAC,
    config,
    decision,
    facts,
    link,
    meaning,
    own,
    rule,
    rule_configs,
    side,
    small,
    text,
    under,
)


def test_ids_stay_when_the_machine_changes_and_what_is_gone_keeps_its_own() -> None:
    rules = config(rule("2001:db8:1::/64"), rule("2001:db8:2::/64"))
    before = build(rules, {"wan0": link()})
    after = build(rules, {"wan0": link(own("2001:db8:1::2"))}, before)
    assert {r.id: r.prefix for r in after.rules.values()} == {r.id: r.prefix for r in before.rules.values()}
    gone = build(rules, {}, after)
    assert (gone.entry_ids, gone.decisions) == ({}, {})
    assert gone.rules == after.rules
    again = build(rules, {"wan0": link()}, gone)
    assert (again.entry_ids, again.decisions) == (before.entry_ids, before.decisions)


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


def test_a_port_that_no_entry_speaks_for_and_one_without_ethernet_get_no_entry() -> None:
    links = facts(side("ppp0", 9, mac=b""), side("lan0", 8))
    table = build(
        text('name = "wan0"\nprefix = "::/0"; method = "static"', 'name = "p*"\nprefix = "::/0"; method = "static"'),
        links,
    )
    assert {ifindex for ifindex, *_ in table.entry_ids} == {7}


def test_what_is_said_per_rule_overrides_the_interface_and_the_rest_is_the_interfaces() -> None:
    wanted = {
        'router = true; dad = "ignore"; na_source = "target"': RuleFlag.ROUTER,
        "router = true": RuleFlag.ROUTER | RuleFlag.DEFEND | RuleFlag.SOURCE_INTERFACE,
        "router = false": RuleFlag.DEFEND | RuleFlag.SOURCE_INTERFACE,
        'dad = "ignore"': RuleFlag.SOURCE_INTERFACE,
        'na_source = "target"': RuleFlag.DEFEND,
    }
    rules = [f'prefix = "2001:db8:{n}::/64"; method = "static"; {keys}' for n, keys in enumerate(wanted)]
    head = 'name = "wan0"; router = false; dad = "defend"; na_source = "interface"'
    table = build(text("\n".join((head, *rules))), {"wan0": link()})
    for number, flags in enumerate(wanted.values()):
        assert table.rules[number].flags == flags
        assert table.lookup(0, IPv6Address(f"2001:db8:{number}::1")) == Match(number, Decision.STATIC, flags)
    defaults = build(under("wan0", 'prefix = "::/0"; method = "route"; via = ["lan0"]'), {"wan0": link()})
    assert defaults.rules[0].flags == RuleFlag.ROUTER | RuleFlag.VIA


def test_an_entry_carries_the_limits_and_the_datapath_of_its_interface() -> None:
    heads = (
        'name = "wan0"; datapath = "python"',
        'name = "lan0"',
        'name = "lan1"; events_per_source = 7; collect_targets = 9; new_targets_per_second = 3',
    )
    table = build(
        text(*[f'{head}\nprefix = "::/0"; method = "static"' for head in heads]),
        facts(side("lan0", 8), side("lan1", 9)),
    )
    found = [table.entry_of(ifindex) for ifindex in (7, 8, 9)]
    assert [(e.datapath, e.source_limit, e.collect, e.new_target_limit) for e in found if e] == [
        (Datapath.PYTHON, 0, 0, 0),
        (Datapath.HYBRID, 1000, 0, 0),
        (Datapath.HYBRID, 7, 9, 3),
    ]


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("static", Decision.STATIC),
        ("route", Decision.STATIC),
        ("neighbour", Decision.STATIC),
        ("kernel", Decision.STATIC),
        ("ignore", Decision.IGNORE),
    ],
)
def test_an_address_on_another_interface_is_present_under_every_method_but_ignore(
    method: str, wanted: Decision
) -> None:
    via = '; via = ["lan0"]' if method == "neighbour" else ""
    rules = under(
        "wan0",
        f'prefix = "2001:db8:1::/64"; method = "{method}"{via}; exclude = ["::3"]',
        'prefix = "2001:db8:1::4"; method = "ignore"',
        f'prefix = "2001:db8:2::1"; method = "{method}"{via}',
    )
    links = {
        "wan0": link(own("2001:db8:1::2/128")),
        "lan0": side("lan0", 8, *[f"2001:db8:1::{n}/64" for n in (1, 3, 4, 5)], "2001:db8:2::1/64", "fe80::7/64"),
    }
    table = build(rules, links)
    elsewhere = {
        "2001:db8:1::1": wanted,
        "2001:db8:1::": wanted,  # lan0's subnet-router anycast address
        "2001:db8:2::1": wanted,  # by a rule for that address alone
        "2001:db8:1::2": Decision.OWN,
        "2001:db8:1::3": Decision.IGNORE,
        "2001:db8:1::4": Decision.IGNORE,
        "fe80::7": Outcome.IGNORED,
        "2001:db8:2::": Outcome.UNMATCHED,
    }
    assert {target: decision(table, target) for target in elsewhere} == elsewhere
    method_itself = next(rule.decision for rule in table.rules.values() if rule.prefix == "2001:db8:1::/64")
    assert decision(table, "2001:db8:1::6") is method_itself
    found = table.lookup(0, IPv6Address("2001:db8:1::1"))
    assert isinstance(found, Match)
    assert table.rules[found.rule].prefix == "2001:db8:1::/64"


def test_a_next_hop_that_the_host_holds_elsewhere_is_still_a_next_hop() -> None:
    links = {"wan0": link((), ("2001:db8:1::1",)), "lan0": side("lan0", 8, "2001:db8:1::1/128")}
    assert (
        decision(build(under("wan0", 'prefix = "::/0"; method = "route"'), links), "2001:db8:1::1") is Decision.NEXT_HOP
    )


def named(table: Table) -> dict[int, tuple[str, str]]:
    return {rule.id: (table.entries[rule.entry].port, rule.prefix) for rule in table.rules.values()}


def test_a_number_is_not_another_rules_in_the_very_next_table() -> None:
    prefixes = [f"2001:db8:{number:x}::/64" for number in range(6)]
    table = build(config(*map(rule, prefixes[:3])), {"wan0": link()})
    for kept in ([0, 3], [3, 4, 5], [0, 1, 2, 3, 4, 5], [5], [0, 5]):
        after = build(config(*[rule(prefixes[number]) for number in kept]), {"wan0": link()}, table)
        before = named(table)
        assert {name for _, name in named(after).values()} == {prefixes[number] for number in kept}
        assert all(before.get(number, name) == name for number, name in named(after).items())
        assert {name: n for n, name in named(after).items()}.items() >= {
            (name, n) for n, name in before.items() if name[1] in {prefixes[number] for number in kept}
        }
        table = after


def test_numbers_that_nobody_has_any_more_come_again() -> None:
    table = build(config(rule("2001:db8::/64")), {"wan0": link()})
    highest = 0
    for number in range(1, 50):
        table = build(config(rule(f"2001:db8:{number:x}::/64")), {"wan0": link()}, table)
        highest = max(highest, *table.rules)
    assert highest == 1


def test_entries_of_absent_interfaces_are_kept_if_named_exactly_and_dropped_if_by_a_glob() -> None:
    both = text(
        *[
            f'name = "{name}"\nprefix = "{prefix}"; method = "static"'
            for name, prefix in (("wan0", "2001:db8::/64"), ("lan*", "2001:db8:1::/64"))
        ]
    )
    before = build(both, facts(side("lan0", 8)))
    assert set(named(before).values()) == {("wan0", "2001:db8::/64"), ("lan0", "2001:db8:1::/64")}
    away = build(both, {}, before)
    assert set(named(away).values()) == {("wan0", "2001:db8::/64")}
    assert (away.entry_ids, away.decisions) == ({}, {})
    assert {entry.port for entry in away.entries.values()} == {"wan0"}
    back = build(both, facts(side("lan0", 8)), away)
    assert {name: n for n, name in named(back).items()}["wan0", "2001:db8::/64"] == {
        name: n for n, name in named(before).items()
    }["wan0", "2001:db8::/64"]
    unnamed = build(config(), {}, away)
    assert unnamed.rules == {}


def test_a_rule_that_the_file_has_no_more_goes_even_while_its_interface_is_away() -> None:
    before = build(config(rule("2001:db8::/64"), rule("2001:db8:1::/64")), {"wan0": link()})
    away = build(config(rule("2001:db8:1::/64")), {}, before)
    assert set(named(away).values()) == {("wan0", "2001:db8:1::/64")}


@st.composite
def machines(draw: st.DrawFn) -> dict[str, LinkFacts]:
    """A port and perhaps another side, with addresses near the rules'."""
    addresses = st.lists(small, max_size=2, unique=True).map(
        lambda suffixes: own(*(f"{IPv6Address(BASE | suffix)}/{126}" for suffix in suffixes))
    )
    port = LinkFacts(
        "wan0",
        7,
        MAC,
        addresses={(): draw(addresses), **({(5,): draw(addresses)} if draw(st.booleans()) else {})},
        next_hops={(): frozenset(IPv6Address(BASE | suffix) for suffix in draw(st.lists(small, max_size=1)))},
        l3={(): 7, **({(5,): 9} if draw(st.booleans()) else {})},
    )
    there = {"wan0": port} if draw(st.integers(0, 5)) else {}
    if draw(st.booleans()):
        there["lan0"] = LinkFacts("lan0", 8, LAN, addresses={(): draw(addresses)})
    return there


_ELSEWHERE = ("2001:db8:ffff::/64", (Prefix.of("2001:db8:ffff::/64"),))
followers = st.sampled_from(
    [
        (),
        (RuleConfig("interface:lan0", (), Method.ROUTE, follows="lan0"),),
        (RuleConfig(*_ELSEWHERE, Method.NEIGHBOUR, via=("*",)),),
        (RuleConfig(*_ELSEWHERE, Method.NEIGHBOUR, via=("lan*", "wan1")),),
        (RuleConfig(*_ELSEWHERE, Method.ROUTE, via=("?an0",)),),
    ]
)


@st.composite
def some_configs(draw: st.DrawFn) -> Config:
    """One or two entries, whose rules are drawn from few, so that tables have much in common."""
    entries = []
    for vlan in draw(st.sampled_from([(Vlan(),), (Vlan(any=True),), (Vlan(), Vlan(tags=(5,)))])):
        several = draw(st.lists(rule_configs(), max_size=5, unique_by=lambda rule: rule.prefix))
        entries.append(InterfaceConfig("wan0", (*several, *draw(followers)), vlan=vlan, router=draw(st.booleans())))
    return Config(tuple(entries))


def mostly(before: Config, after: Config) -> Config:
    """The first configuration, with the other's first rule in its first entry."""
    first = before.interfaces[0]
    rules = {rule.prefix: rule for rule in (*after.interfaces[0].rules[:1], *first.rules[1:])}
    return Config((replace(first, rules=tuple(rules.values())), *before.interfaces[1:]))


@given(st.lists(st.tuples(some_configs(), machines()), min_size=2, max_size=4), st.booleans())
def test_a_table_made_of_the_one_before_means_what_a_fresh_one_means(
    steps: list[tuple[Config, dict[str, LinkFacts]]], slowly: bool
) -> None:
    table, asked = None, steps[0][0]
    for following, links in steps:
        asked = mostly(asked, following) if slowly else following
        after = build(asked, links, table)
        assert meaning(after) == meaning(build(asked, links))
        assert len({rule.id for rule in after.rules.values()}) == len(after.rules)
        if table is not None:
            for entry, decisions in after.decisions.items():
                old = table.decisions.get(entry, Decisions({}, {}))
                put, take = decisions.difference(old)
                said = {prefix: match for prefix, match in old.items() if prefix not in take} | put
                assert said == dict(decisions.items())
                assert all(old.get(prefix) != match for prefix, match in put.items())
        table = after


def test_what_did_not_change_is_the_very_same_and_isnt_looked_at_again() -> None:
    rules = [rule(f"2001:db8:{number:x}::/64") for number in range(20)]
    links = facts(side("lan0", 8, "2001:db8:1::1/64"))
    before = build(config(*rules), links)
    moved = facts(side("lan0", 8, "2001:db8:2::1/64"))
    assert build(config(*map(rule, [r.prefix for r in rules])), moved, before).decisions[0] is before.decisions[0]
    after = build(config(*rules[1:], rule("2001:db9::/64")), links, before)
    assert [after.rules[number] is before.rules[number] for number in range(1, 20)] == [True] * 19
    put, take = after.decisions[0].difference(before.decisions[0])
    assert (list(put), take) == ([Prefix.of("2001:db9::/64")], [Prefix.of("2001:db8::/64")])
