# SPDX-License-Identifier: GPL-2.0-or-later
"""What a table in force says of a target, of a frame and of a host."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Vlan
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.table import NO_RULE, VLAN_ANY, Decision, Match
from npd6_xdp.core.verdict import Method, Outcome
from tests.core.tables import config, decision, facts, link, own, rule, side, text, under


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
        assert table.rules[found.rule].networks == (Prefix.of(best),)


def test_frames_that_no_entry_speaks_for_are_unmatched() -> None:
    table = build(config(rule("::/0"), vlan=Vlan(tags=(100, 7))), {"wan0": link()})
    assert decision(table, "2001:db8::1", (100, 7)) is Decision.STATIC
    for tags in ((), (100,), (7, 100)):
        assert decision(table, "2001:db8::1", tags) is Outcome.UNMATCHED
    assert table.entry_of(8) is None
    assert table.entry_ids == {(7, 100, 7): 0, (7, VLAN_ANY, VLAN_ANY): 1}


def test_own_addresses_and_next_hops_belong_to_no_rule() -> None:
    table = build(config(rule("::/0")), {"wan0": link(own("2001:db8::1"), ("2001:db8::2",))})
    assert {match.rule for match in table.decisions[0].exceptions.values()} == {NO_RULE}


ENTRIES = (
    ("an exact name beats a glob", ('name = "wan*"', 'name = "wan0"'), (), 1),
    ("an exact any beats a glob's VLAN", ('name = "wan*"; vlan = 5', 'name = "wan0"; vlan = "any"'), (5,), 1),
    ("a given VLAN beats any", ('name = "wan0"; vlan = "any"', 'name = "wan0"; vlan = 5'), (5,), 1),
    ("any takes what isn't given", ('name = "wan0"; vlan = 5', 'name = "wan0"; vlan = "any"'), (6,), 1),
    ("among globs the first in the file", ('name = "w*"', 'name = "wan?"'), (), 0),
    ("a glob's VLAN beats a glob's any", ('name = "w*"; vlan = "any"', 'name = "wan?"; vlan = 5'), (5,), 1),
    ("a glob speaks for VLANs that the exact name leaves", ('name = "wan0"', 'name = "wan*"; vlan = 5'), (5,), 1),
    ("two tags are another VLAN than one", ('name = "wan0"; vlan = 5', 'name = "wan0"; vlan = "5.6"'), (5, 6), 1),
    ("a glob of characters", ('name = "wan[1-9]"', 'name = "wan[0-9]"'), (), 1),
    ("nobody speaks for it", ('name = "wan0"; vlan = 5', 'name = "wan1"'), (), None),
)  # fmt: skip


@pytest.mark.parametrize(("what", "heads", "tags", "winner"), ENTRIES, ids=[what for what, *_ in ENTRIES])
def test_of_all_entries_that_match_a_frame_one_speaks_for_it(
    what: str, heads: tuple[str, ...], tags: tuple[int, ...], winner: int | None
) -> None:
    rules = [f'{head}\nprefix = "2001:db8:{number}::/64"; method = "static"' for number, head in enumerate(heads)]
    table = build(text(*rules), {"wan0": link()})
    wanted = [Decision.STATIC if number == winner else Outcome.UNMATCHED for number in range(len(heads))]
    assert [decision(table, f"2001:db8:{number}::1", tags) for number in range(len(heads))] == wanted


def test_a_host_is_a_present_target_in_the_via_sets_whose_rules_cover_it_behind_that_interface() -> None:
    rules = under(
        "wan0",
        'prefix = "2001:db8::/32"; method = "neighbour"; via = ["lan0", "lan1"]',
        'prefix = "2001:db8:1::/64"; method = "neighbour"; via = ["lan1"]; host_routes = true; exclude = ["::9"]',
        'prefix = "2001:db8:2::/64"; method = "route"; via = ["lan0", "lan1"]',
    )
    links = facts(side("lan0", 8, "2001:db8:1::7/128"), side("lan1", 9))
    table = build(rules, links)
    both, one = table.rules[0].via_set, table.rules[1].via_set
    cases: tuple[tuple[int, str, list[int], bool], ...] = (
        (8, "2001:db8:5::1", [both], False),
        (9, "2001:db8:5::1", [both], False),
        (9, "2001:db8:1::1", [one], True),
        (8, "2001:db8:1::1", [], False),  # not behind that rule's via
        (9, "2001:db8:1::9", [], False),  # excluded
        (9, "2001:db8:1::7", [], False),  # the host's own: present anyhow
        (9, "2001:db8:2::1", [], False),  # another method
        (7, "2001:db8:5::1", [], False),
        (9, "2001:db9::1", [], False),
        (9, "fe80::1", [], False),
    )
    for ifindex, address, via_sets, route in cases:
        assert table.neighbour_via_sets(ifindex, IPv6Address(address)) == via_sets, (ifindex, address)
        assert table.host_route_wanted(ifindex, IPv6Address(address)) is route, (ifindex, address)
    del links["wan0"]
    assert build(rules, links, table).neighbour_via_sets(9, IPv6Address("2001:db8:5::1")) == [], "nobody asks"


def test_interfaces_that_only_anchor_addresses_lead_nowhere() -> None:
    kinds = ("dummy", "ifb", "nlmon", "veth", "bridge", "vrf", "wireguard", "")
    links = {kind: LinkFacts(kind, 10 + number, b"", kind=kind) for number, kind in enumerate(kinds)}
    table = build(config(rule("2001:db8::/32", Method.ROUTE)), {"wan0": link(), **links})
    assert table.nowhere == {10, 11, 12}
