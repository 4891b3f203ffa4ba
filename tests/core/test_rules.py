# SPDX-License-Identifier: GPL-2.0-or-later
"""The flat table: what decides about a target, ids that stay, and the addresses to answer from."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.absent import absent_vias
from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, Datapath, InterfaceConfig, RuleConfig, Selection, Vlan
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.flatten import flatten
from npd6_xdp.core.links import LinkFacts, OwnAddress, SlotSource, choose_source, followed_prefixes, slot_sources
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.table import NO_GROUP, NO_RULE, VLAN_ANY, Decision, Decisions, Entry, Match, RuleFlag, Table
from npd6_xdp.core.verdict import Method, Outcome
from npd6_xdp.core.warnings import warnings

MAC = bytes.fromhex("020000000001")


def rule(prefix: str, method: Method = Method.STATIC) -> RuleConfig:
    return RuleConfig(prefix, (Prefix.of(prefix),), method)


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
        assert table.rules[found.rule].networks == (Prefix.of(best),)


def test_ids_stay_when_the_machine_changes_and_what_is_gone_keeps_its_own() -> None:
    rules = config(rule("2001:db8:1::/64"), rule("2001:db8:2::/64"))
    before = build(rules, {"wan0": link()})
    after = build(rules, {"wan0": link(own("2001:db8:1::2"))}, before)
    assert {r.id: r.prefix for r in after.rules.values()} == {r.id: r.prefix for r in before.rules.values()}
    gone = build(rules, {}, after)
    assert (gone.slots, gone.decisions) == ({}, {})
    assert gone.rules == after.rules
    again = build(rules, {"wan0": link()}, gone)
    assert (again.slots, again.decisions) == (before.slots, before.decisions)


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
    assert {match.rule for match in table.decisions[0].special.values()} == {NO_RULE}


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
    flags, link_local, other = slot_sources(table.entries[0].addresses)
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


@pytest.mark.parametrize("prefix", ["2001:db8:1::/64", "2001:db8::/32", "::/0"])
def test_an_address_of_its_own_with_no_prefix_around_it_is_no_neighbours_link(prefix: str) -> None:
    assert warnings(build(config(rule(prefix)), {"wan0": link(own("2001:db8:1::b/128", "fe80::2/64"))})) == []
    (line,) = warnings(build(config(rule(prefix)), {"wan0": link(own("2001:db8:1::b/127"))}))
    assert "covers 2001:db8:1::a/127, which is on-link there" in line, "a /127 has room for a neighbour"


# --- include and exclude ---


def text(*entries: str) -> Config:
    """A configuration of entries, each `name` or `name, keys`, then a line a rule, its keys separated by commas."""
    lines = []
    for each in entries:
        head, *rules = [line.strip() for line in each.strip().splitlines()]
        lines += ["[[interface]]", *head.split("; ")]
        for one in rules:
            lines += ["[[interface.rule]]", *one.split("; ")]
    return parse("\n".join(lines), "test")


def under(port: str, *rules: str) -> Config:
    return text("\n".join((f'name = "{port}"', *rules)))


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


BASE = int(IPv6Address("2001:db8::"))
small = st.integers(0, 255)


@st.composite
def selections(draw: st.DrawFn, network: IPv6Network) -> Selection:
    """A range within a prefix, as suffixes or in full."""
    host_bits = 128 - network.prefixlen
    first, last = sorted(draw(st.tuples(*[st.integers(0, 2**host_bits - 1)] * 2)))
    base = draw(st.sampled_from([0, int(network.network_address)]))
    return Selection("?", base | first, base | last)


@st.composite
def rule_configs(draw: st.DrawFn) -> RuleConfig:
    network = IPv6Network((BASE | draw(small), draw(st.integers(119, 128))), strict=False)
    lists = st.just([]) if network.prefixlen == 128 else st.lists(selections(network), max_size=3)
    return RuleConfig(
        str(network),
        (Prefix.of(network),),
        draw(st.sampled_from([Method.STATIC, Method.ROUTE, Method.KERNEL])),
        include=tuple(draw(lists)),
        exclude=tuple(draw(lists)),
    )


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


# --- interface:lan0 ---

LAN = bytes.fromhex("02000000000a")


def side(name: str, ifindex: int, *addresses: str, mac: bytes = LAN) -> LinkFacts:
    return LinkFacts(name, ifindex, mac, addresses={(): own(*addresses)})


def facts(*links: LinkFacts) -> dict[str, LinkFacts]:
    return {each.name: each for each in (link(), *links)}


def test_a_followed_interface_means_its_global_prefixes_each_once() -> None:
    links = facts(
        side("lan0", 8, "fe80::1/64", "2001:db8:1::1/64", "2001:db8:1::2/64", "fd00::1/48"), side("lan1", 9), link()
    )
    assert followed_prefixes(links) == {
        "wan0": (),
        "lan0": (Prefix.of("2001:db8:1::/64"), Prefix.of("fd00::/48")),
        "lan1": (),
    }


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


# --- which entry ---

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


def test_a_port_that_no_entry_speaks_for_and_one_without_ethernet_get_no_slot() -> None:
    links = facts(side("ppp0", 9, mac=b""), side("lan0", 8))
    table = build(
        text('name = "wan0"\nprefix = "::/0"; method = "static"', 'name = "p*"\nprefix = "::/0"; method = "static"'),
        links,
    )
    assert {ifindex for ifindex, *_ in table.slots} == {7}


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
        'name = "lan1"; events_per_source = 7; collect_targets = 9',
    )
    table = build(
        text(*[f'{head}\nprefix = "::/0"; method = "static"' for head in heads]),
        facts(side("lan0", 8), side("lan1", 9)),
    )
    found = [table.entry_of(ifindex) for ifindex in (7, 8, 9)]
    assert [(e.datapath, e.source_limit, e.collect) for e in found if e] == [
        (Datapath.PYTHON, 0, 0),
        (Datapath.HYBRID, 1000, 0),
        (Datapath.HYBRID, 7, 9),
    ]


# --- the host's own addresses elsewhere ---


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


# --- ids ---


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
    assert (away.slots, away.decisions) == ({}, {})
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


# --- groups ---


def test_rules_with_the_same_via_interfaces_share_a_group_and_each_kernel_entry_has_its_own() -> None:
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
    groups = {(table.entries[r.entry].port, r.prefix[9:10]): r.group for r in table.rules.values()}
    both, one = groups["wan0", "1"], groups["wan0", "3"]
    assert groups["wan0", "2"] == groups["lan2", "1"] == both
    assert groups["wan0", "4"] == groups["wan0", "5"] != groups["lan2", "4"]
    assert groups["wan0", "6"] == groups["wan0", "7"] == NO_GROUP
    assert len({both, one, groups["wan0", "4"], groups["lan2", "4"], NO_GROUP}) == 5
    assert table.vias == {both: frozenset({8}), one: frozenset()}
    after = build(entries, {**links, "lan1": side("lan1", 9)}, table)
    assert after.groups == table.groups
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
        return {rule.prefix[9:10]: set(table.vias[rule.group]) for rule in rules}

    first = build(entries, facts(lan))
    assert behind(first, 7) == {"1": {8}, "2": {8}, "3": set()}
    assert absent_vias(entries, facts(lan)) == ["br-*"]
    second = build(entries, facts(lan, one, two), first)
    assert behind(second, 7) == {"1": {8, 20, 21}, "2": {8, 20, 21}, "3": {20, 21}}
    assert behind(second, 20) == {"1": {21}}, "not where the question comes from"
    assert behind(second, 21) == {"1": {20}}
    assert absent_vias(entries, facts(lan, one, two)) == []
    assert first.groups.items() <= second.groups.items()
    assert {rule.id for rule in first.rules.values()} <= {rule.id for rule in second.rules.values()}
    asked_on = {7, 20, 21}
    told = {index: {e.ifindex for e in asking(second, index, host)} for index in (8, 20, 21)}
    assert told == {8: {7}, 20: asked_on - {20}, 21: asked_on - {21}}
    third = build(entries, facts(lan, replace(two, ifindex=30)), second)
    assert behind(third, 7) == {"1": {8, 30}, "2": {8, 30}, "3": {30}}
    assert meaning(third) == meaning(build(entries, facts(lan, replace(two, ifindex=30))))


def asking(table: Table, ifindex: int, host: IPv6Address) -> list[Entry]:
    """The entries for whose questions a host behind an interface is there."""
    groups = set(table.neighbour_groups(ifindex, host))
    found = {entry.id: table.lookup(entry.id, host) for entry in table.live(Decision.NEIGHBOUR)}
    return [table.entries[i] for i, match in found.items() if isinstance(match, Match) and match.group in groups]


def test_a_glob_asks_only_where_there_is_neighbor_discovery_and_routes_anywhere() -> None:
    rules = under(
        "wan0",
        'prefix = "2001:db8:1::/64"; method = "neighbour"; via = ["*"]',
        'prefix = "2001:db8:2::/64"; method = "route"; via = ["*"]',
    )
    tunnel, loopback = LinkFacts("wg0", 30, b""), LinkFacts("lo", 1, b"")
    table = build(rules, facts(side("lan0", 8)) | {"wg0": tunnel, "lo": loopback})
    assert table.vias[table.rules[0].group] == {8}
    assert table.vias[table.rules[1].group] == {1, 7, 8, 30}


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
        return {index for index in (7, 8, 9, 10) if match.group in table.neighbour_groups(index, host)}

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


def test_a_host_is_a_known_target_in_the_groups_whose_rules_cover_it_behind_that_interface() -> None:
    rules = under(
        "wan0",
        'prefix = "2001:db8::/32"; method = "neighbour"; via = ["lan0", "lan1"]',
        'prefix = "2001:db8:1::/64"; method = "neighbour"; via = ["lan1"]; host_routes = true; exclude = ["::9"]',
        'prefix = "2001:db8:2::/64"; method = "route"; via = ["lan0", "lan1"]',
    )
    links = facts(side("lan0", 8, "2001:db8:1::7/128"), side("lan1", 9))
    table = build(rules, links)
    both, one = table.rules[0].group, table.rules[1].group
    cases = (
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
    for ifindex, address, groups, route in cases:
        assert table.neighbour_groups(ifindex, IPv6Address(address)) == groups, (ifindex, address)
        assert table.host_route_wanted(ifindex, IPv6Address(address)) is route, (ifindex, address)
    del links["wan0"]
    assert build(rules, links, table).neighbour_groups(9, IPv6Address("2001:db8:5::1")) == [], "nobody asks"


def test_notes_are_warnings_too() -> None:
    rules = under("wan0", 'prefix = "2001:db8:1::/64"; method = "route"', 'prefix = "interface:lan0"; method = "route"')
    table = build(rules, facts(side("lan0", 8, "2001:db8:1::1/64")))
    assert warnings(table) == list(table.notes)
    assert len(table.notes) == 1


def test_what_a_rule_leaves_to_an_ignore_rule_or_its_exclude_needs_no_warning() -> None:
    links = {"wan0": link(own("2001:db8::2/64"))}
    wide = 'prefix = "2001:db8::/32"; method = "static"'
    assert len(warnings(build(under("wan0", wide), links))) == 1
    assert warnings(build(under("wan0", wide, 'prefix = "2001:db8::/64"; method = "ignore"'), links)) == []
    assert warnings(build(under("wan0", f'{wide}; exclude = ["2001:db8::/64"]'), links)) == []
    assert len(warnings(build(under("wan0", 'prefix = "2001:db8::/72"; method = "kernel"'), links))) == 1


# --- made of the table before ---


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


def meaning(table: Table) -> dict[str, object]:
    """What a table says, whatever the ids."""
    group_keys = {number: key for key, number in table.groups.items()}

    def who(entry: int) -> tuple[str, str]:
        return table.entries[entry].port, str(table.entries[entry].vlan)

    def said(match: Match) -> object:
        by = table.rules.get(match.rule)
        group = group_keys.get(match.group)
        group = (group[0], str(who(int(group[1])))) if group and group[0] == "kernel" else group
        return (by.config, who(by.entry)) if by else None, match.decision, match.flags, group

    return {
        "slots": {slot: who(entry) for slot, entry in table.slots.items()},
        "decisions": {who(e): {p: said(m) for p, m in found.items()} for e, found in table.decisions.items()},
        "rules": [
            (who(r.entry), r.config, r.networks, r.flags) for r in table.rules.values() if r.entry in table.decisions
        ],
        "notes": sorted(table.notes),
        "warnings": sorted(warnings(table)),
        "live": {kind: sorted(who(entry.id) for entry in table.live(kind)) for kind in Decision},
        "vias": {group_keys[number]: via for number, via in table.vias.items()},
    }


def mostly(before: Config, after: Config) -> Config:
    """The one before, but for its first entry's first rule, which is the other's."""
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


def test_interfaces_that_only_anchor_addresses_lead_nowhere() -> None:
    kinds = ("dummy", "ifb", "nlmon", "veth", "bridge", "vrf", "wireguard", "")
    links = {kind: LinkFacts(kind, 10 + number, b"", kind=kind) for number, kind in enumerate(kinds)}
    table = build(config(rule("2001:db8::/32", Method.ROUTE)), {"wan0": link(), **links})
    assert table.nowhere == {10, 11, 12}
