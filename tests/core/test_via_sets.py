# SPDX-License-Identifier: GPL-2.0-or-later
"""Via sets: which rules share one, and which interfaces each means as these come and go."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address

from npd6_xdp.core.absent import absent_vias
from npd6_xdp.core.build import build
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.table import NO_VIA_SET, Decision, Match, Table
from npd6_xdp.core.warnings import warnings
from tests.core.tables import MAC, facts, meaning, side, text, under


def test_rules_with_the_same_via_interfaces_share_a_via_set_and_each_kernel_entry_has_its_own() -> None:
    entries = text(
        '''name = "wan0"
        prefix = "2001:db8:1::/64"; method = "neighbour"; via = ["lan0", "lan1"]
        prefix = "2001:db8:2::/64"; method = "route"; via = ["lan1", "lan0"]
        prefix = "2001:db8:3::/64"; method = "neighbour"; via = ["lan1"]
        prefix = "2001:db8:4::/64"; method = "kernel"
        prefix = "2001:db8:5::/64"; method = "kernel"
        prefix = "2001:db8:6::/64"; method = "static"
        prefix = "2001:db8:7::/64"; method = "route"''',
        '''name = "lan2"
        prefix = "2001:db8:1::/64"; method = "neighbour"; via = ["lan1", "lan0"]
        prefix = "2001:db8:4::/64"; method = "kernel"''',
    )
    links = facts(side("lan0", 8), side("lan2", 10))
    table = build(entries, links)
    via_sets = {(table.entries[r.entry].port, r.prefix[9:10]): r.via_set for r in table.rules.values()}
    both, one = via_sets["wan0", "1"], via_sets["wan0", "3"]
    assert via_sets["wan0", "2"] == via_sets["lan2", "1"] == both
    assert via_sets["wan0", "4"] == via_sets["wan0", "5"] != via_sets["lan2", "4"]
    assert via_sets["wan0", "6"] == via_sets["wan0", "7"] == NO_VIA_SET
    assert len({both, one, via_sets["wan0", "4"], via_sets["lan2", "4"], NO_VIA_SET}) == 5
    assert table.vias == {both: frozenset({8}), one: frozenset()}
    after = build(entries, {**links, "lan1": side("lan1", 9)}, table)
    assert after.via_sets == table.via_sets
    assert after.vias == {both: frozenset({8, 9}), one: frozenset({9})}


def test_a_glob_means_the_interfaces_that_it_matches_as_they_come_and_go() -> None:
    entries = text(
        """name = "wan0"
        prefix = "2001:db8:1::/64"; method = "neighbour"; via = ["br-*", "lan0"]
        prefix = "2001:db8:2::/64"; method = "route"; via = ["lan0", "br-*"]
        prefix = "2001:db8:3::/64"; method = "neighbour"; via = ["br-*"]""",
        """name = "br-*"
        prefix = "2001:db8:1::/64"; method = "neighbour"; via = ["br-*"]""",
    )
    host = IPv6Address("2001:db8:1::1")
    lan, one, two = side("lan0", 8), side("br-a1b2", 20), side("br-c3d4", 21)

    def behind(table: Table, ifindex: int) -> dict[str, set[int]]:
        entry = table.entry_of(ifindex)
        assert entry is not None
        rules = [rule for rule in table.rules.values() if rule.entry == entry.id]
        return {rule.prefix[9:10]: set(table.vias[rule.via_set]) for rule in rules}

    first = build(entries, facts(lan))
    assert behind(first, 7) == {"1": {8}, "2": {8}, "3": set()}
    assert absent_vias(entries, facts(lan)) == ["br-*"]
    second = build(entries, facts(lan, one, two), first)
    assert behind(second, 7) == {"1": {8, 20, 21}, "2": {8, 20, 21}, "3": {20, 21}}
    assert behind(second, 20) == {"1": {21}}, "not where the question comes from"
    assert behind(second, 21) == {"1": {20}}
    assert absent_vias(entries, facts(lan, one, two)) == []
    assert first.via_sets.items() <= second.via_sets.items()
    assert {rule.id for rule in first.rules.values()} <= {rule.id for rule in second.rules.values()}
    asked_on = {7, 20, 21}
    told = {index: {e.ifindex for e in asking(second, index, host)} for index in (8, 20, 21)}
    assert told == {8: {7}, 20: asked_on - {20}, 21: asked_on - {21}}
    third = build(entries, facts(lan, replace(two, ifindex=30)), second)
    assert behind(third, 7) == {"1": {8, 30}, "2": {8, 30}, "3": {30}}
    assert meaning(third) == meaning(build(entries, facts(lan, replace(two, ifindex=30))))


def asking(table: Table, ifindex: int, host: IPv6Address) -> list[Entry]:
    """The entries for whose questions a host behind an interface is there."""
    via_sets = set(table.neighbour_via_sets(ifindex, host))
    found = {entry.id: table.lookup(entry.id, host) for entry in table.live(Decision.NEIGHBOUR)}
    return [table.entries[i] for i, match in found.items() if isinstance(match, Match) and match.via_set in via_sets]


def test_a_glob_asks_only_where_there_is_neighbor_discovery_and_routes_anywhere() -> None:
    rules = under(
        "wan0",
        'prefix = "2001:db8:1::/64"; method = "neighbour"; via = ["*"]',
        'prefix = "2001:db8:2::/64"; method = "route"; via = ["*"]',
    )
    tunnel, loopback = LinkFacts("wg0", 30, b""), LinkFacts("lo", 1, b"")
    table = build(rules, facts(side("lan0", 8)) | {"wg0": tunnel, "lo": loopback})
    assert table.vias[table.rules[0].via_set] == {8}
    assert table.vias[table.rules[1].via_set] == {1, 7, 8, 30}


def test_of_a_port_behind_a_bridge_neither_it_nor_the_bridge_is_behind_us() -> None:
    rules = under("wan0", 'prefix = "2001:db8:1::/64"; method = "neighbour"; via = ["*"]')
    port = LinkFacts("wan0", 7, MAC, l3={(): 9})
    links = facts(side("vmbr0", 9), side("lan0", 8)) | {"wan0": port}
    assert build(rules, links).vias == {1: {8}}


def test_hosts_on_the_very_side_that_is_asked_from_are_not_behind_us() -> None:
    rule_of = 'prefix = "2001:db8:1::/64"; method = "neighbour"; via = [{}]'
    wan = LinkFacts("wan0", 7, MAC, l3={(): 7, (100,): 9}, addresses={(): (), (100,): ()})
    links = facts(side("lan0", 8), side("wan0.100", 9), side("wan1", 10)) | {"wan0": wan}
    host = IPv6Address("2001:db8:1::1")

    def behind(entry: str, via: str, ifindex: int = 7, tags: tuple[int, ...] = ()) -> set[int]:
        """Behind which interfaces a host counts as there, for who asks on a port."""
        table = build(text(f"{entry}\n{rule_of.format(via)}"), links)
        found = table.entry_of(ifindex, tags)
        assert found is not None
        match = table.lookup(found.id, host)
        assert isinstance(match, Match)
        return {index for index in (7, 8, 9, 10) if match.via_set in table.neighbour_via_sets(index, host)}

    assert behind('name = "wan*"', '"wan0", "lan0"') == {8}
    assert behind('name = "wan*"', '"wan0"') == set()
    assert behind('name = "wan*"', '"wan0"', 10) == {7}, "the other way round it is behind us"
    assert behind('name = "wan0"; vlan = 100', '"wan0.100"', tags=(100,)) == set()
    assert behind('name = "wan0"; vlan = 100', '"wan0"', tags=(100,)) == {7}
    assert behind('name = "wan0"', '"wan0.100"') == {9}
    assert behind('name = "wan*"; vlan = "any"', '"wan0", "wan0.100"') == {9}
    assert behind('name = "wan*"; vlan = "any"', '"wan0", "wan0.100"', tags=(100,)) == {7}
    assert behind('name = "wan*"', '"wan*", "lan?"') == {8, 9, 10}, "a VLAN device is another side"
    assert behind('name = "wan*"', '"wan*"', 10) == {7, 9}
    assert behind('name = "wan0"', '"wan?"') == {10}
    assert behind('name = "wan0"', '"*", "wan0.100"') == {8, 9, 10}
    assert behind('name = "wan0"; vlan = 100', '"wan*"', tags=(100,)) == {7, 10}
    assert behind('name = "wan*"; vlan = "any"', '"wan*"') == {9, 10}
    assert behind('name = "wan*"; vlan = "any"', '"wan*"', tags=(100,)) == {7, 10}
    table = build(text(f'name = "wan0"\n{rule_of.format(chr(34) + "wan0" + chr(42) + chr(34))}'), facts())
    assert warnings(table) == ["wan0: 2001:db8:1::/64: nothing is behind wan0 for who asks there"]
    table = build(text(f'name = "wan?"\n{rule_of.format(chr(34) + "wan0" + chr(34))}'), links)
    assert warnings(table) == ["wan0: 2001:db8:1::/64: nothing is behind wan0 for who asks there"]
