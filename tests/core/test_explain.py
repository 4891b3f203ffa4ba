# SPDX-License-Identifier: GPL-2.0-or-later
"""The table in words, and the way of one solicitation."""

from __future__ import annotations

import json
from ipaddress import IPv6Address

import pytest

from npd6_xdp.core.config import Config, parse
from npd6_xdp.core.explain import Question, explain, table_json, table_text
from npd6_xdp.core.links import LinkFacts, OwnAddress

MAC = bytes.fromhex("020000000001")
FILE = """
[[interface]]
name = "wan0"
HEAD
[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "static"
exclude = ["::9"]
[[interface.rule]]
prefix = "2001:db8:2::/64"
method = "route"
[[interface.rule]]
prefix = "2001:db8:3::/64"
method = "route"
via = ["lan0", "lan1"]
[[interface.rule]]
prefix = "2001:db8:4::/64"
method = "neighbour"
via = ["lan0"]
host_routes = true
[[interface.rule]]
prefix = "2001:db8:5::/64"
method = "kernel"
router = false
[[interface.rule]]
prefix = "2001:db8:6::/64"
method = "ignore"
[[interface.rule]]
prefix = "2001:db8:7::/64"
method = "static"
dad = "defend"
na_source = "interface"
[[interface.rule]]
prefix = "fe80::42"
method = "static"
[[interface.rule]]
prefix = "interface:lan0"
method = "route"
"""


def config(head: str = "") -> Config:
    return parse(FILE.replace("HEAD", head), "test")


def own(*addresses: str) -> tuple[OwnAddress, ...]:
    return tuple(OwnAddress(IPv6Address(address)) for address in addresses)


WAN = LinkFacts(
    "wan0",
    7,
    MAC,
    addresses={(): own("fe80::1", "2001:db8:ff::2")},
    next_hops={(): frozenset({IPv6Address("2001:db8:1::1")})},
)
LAN = LinkFacts("lan0", 8, MAC, addresses={(): own("2001:db8:2::1", "2001:db8:8::1", "fe80::8")})
LINKS = {"wan0": WAN, "lan0": LAN}


def lines(target: str, source: str = "fe80::2", head: str = "", tags: tuple[int, ...] = ()) -> list[str]:
    question = Question("wan0", tags, IPv6Address(target), IPv6Address(source))
    first, *rest = explain(config(head), LINKS, question).splitlines()
    where = "VLAN " + ".".join(map(str, tags)) + " of wan0" if tags else "wan0"
    assert first == f"{source} asks on {where} who has {target}"
    return rest


def na(target: str, *, router: int = 1, source: str | None = None) -> list[str]:
    return [
        f"advertisement: 02:00:00:00:00:01 > the asker's MAC; {source or target} > fe80::2",
        f"  target {target}, R={router} S=1 O=0, target link-layer address 02:00:00:00:00:01, 86 bytes",
    ]


CASES = (
    (
        "static",
        "2001:db8:1::42",
        ["rule: 2001:db8:1::/64 (static) of wan0", "outcome: answered_xdp (present, by method static)"],
        na("2001:db8:1::42"),
    ),
    (
        "left out",
        "2001:db8:1::9",
        [
            "rule: 2001:db8:1::/64 (static) of wan0",
            "outcome: ignored (its include and exclude leave it out)",
        ],
        [],
    ),
    (
        "route",
        "2001:db8:2::42",
        [
            "rule: 2001:db8:2::/64 (route) of wan0",
            "outcome: answered_xdp (if it is routed)",
            "  if the routing table leads to it by another interface; else absent",
        ],
        na("2001:db8:2::42"),
    ),
    (
        "route via",
        "2001:db8:3::42",
        [
            "rule: 2001:db8:3::/64 (route) of wan0",
            "outcome: answered_xdp (if it is routed)",
            "  if the routing table leads to it by lan0 or lan1; else absent",
        ],
        na("2001:db8:3::42"),
    ),
    (
        "the host's own on another interface",
        "2001:db8:2::1",
        [
            "rule: 2001:db8:2::/64 (route) of wan0",
            "outcome: answered_xdp (this host holds the address on another interface)",
        ],
        na("2001:db8:2::1"),
    ),
    (
        "neighbour",
        "2001:db8:4::42",
        [
            "rule: 2001:db8:4::/64 (neighbour) of wan0",
            "outcome: answered_xdp (if it is there)",
            "  if the neighbour table has it behind lan0; else pending, and the kernel resolves it",
        ],
        na("2001:db8:4::42"),
    ),
    (
        "kernel",
        "2001:db8:5::42",
        [
            "rule: 2001:db8:5::/64 (kernel) of wan0",
            "outcome: answered_python (the first time)",
            "  from then on kernel: the kernel's own proxy entry answers",
        ],
        na("2001:db8:5::42", router=0),
    ),
    (
        "ignore",
        "2001:db8:6::42",
        ["rule: 2001:db8:6::/64 (ignore) of wan0", "outcome: ignored (the rule says so)"],
        [],
    ),
    (
        "source interface",
        "2001:db8:7::42",
        ["rule: 2001:db8:7::/64 (static) of wan0", "outcome: answered_xdp (present, by method static)"],
        na("2001:db8:7::42", source="fe80::1"),
    ),
    (
        "a followed interface's prefix",
        "2001:db8:8::42",
        [
            "rule: interface:lan0 (route) of wan0",
            "outcome: answered_xdp (if it is routed)",
            "  if the routing table leads to it by another interface; else absent",
        ],
        na("2001:db8:8::42"),
    ),
    (
        "a link-local address that a rule names",
        "fe80::42",
        ["rule: fe80::42 (static) of wan0", "outcome: answered_xdp (present, by method static)"],
        na("fe80::42"),
    ),
    (
        "a link-local address that none names",
        "fe80::43",
        [
            "outcome: ignored (such a target is never answered, unless a rule names exactly this address)",
        ],
        [],
    ),
    ("loopback", "::1", ["outcome: ignored (such a target is never answered)"], []),
    ("no rule", "2001:db8:9::1", ["outcome: unmatched (no rule covers it)"], []),
    ("own", "2001:db8:ff::2", ["outcome: own (wan0 holds this address itself; the kernel answers)"], []),
    (
        "next hop",
        "2001:db8:1::1",
        ["outcome: ignored (it is a next hop of a route out of wan0; never impersonated)"],
        [],
    ),
    ("multicast", "ff02::1", ["outcome: invalid (the target is a multicast address (RFC 4861 §7.1.1))"], []),
)


@pytest.mark.parametrize(("what", "target", "way", "answer"), CASES, ids=[case[0] for case in CASES])
def test_the_way_of_a_solicitation_is_told_step_by_step(
    what: str, target: str, way: list[str], answer: list[str]
) -> None:
    assert lines(target) == way + answer


def test_a_multicast_or_loopback_source_is_invalid_whatever_is_asked() -> None:
    for target in ("2001:db8:1::42", "2001:db8:ffff::1", "::1"):
        assert lines(target, "ff02::1") == ["outcome: invalid (the source is a multicast address (RFC 4291 §2.7))"]
        assert lines(target, "::1") == [
            "outcome: invalid (the source is ::1, which no frame on a link comes from (RFC 4291 §2.5.3))"
        ]


def test_a_dad_probe_is_left_alone_or_defended_as_the_rule_says() -> None:
    assert lines("2001:db8:1::42", "::") == [
        "rule: 2001:db8:1::/64 (static) of wan0",
        'outcome: dad (a DAD probe, and dad = "ignore")',
    ]
    assert lines("2001:db8:7::42", "::") == [
        "rule: 2001:db8:7::/64 (static) of wan0",
        "outcome: answered_python (present, by method static)",
        "advertisement: 02:00:00:00:00:01 > 33:33:00:00:00:01; fe80::1 > ff02::1",
        "  target 2001:db8:7::42, R=1 S=0 O=0, target link-layer address 02:00:00:00:00:01, 86 bytes",
    ]


@pytest.mark.parametrize(
    ("datapath", "outcome"), [("hybrid", "answered_xdp"), ("python", "answered_python"), ("monitor", "monitored")]
)
def test_the_datapath_decides_who_answers(datapath: str, outcome: str) -> None:
    _, said, *answer = lines("2001:db8:1::42", head=f'datapath = "{datapath}"')
    assert said.startswith(f"outcome: {outcome} (present, by method static")
    assert answer == ([] if datapath == "monitor" else na("2001:db8:1::42"))


def test_under_monitor_what_would_not_have_been_answered_stands() -> None:
    for target, source, outcome in (
        ("2001:db8:6::1", "fe80::2", "ignored"),
        ("2001:db8:1::42", "::", "dad"),
        ("2001:db8:9::1", "fe80::2", "unmatched"),
    ):
        assert lines(target, source, head='datapath = "monitor"')[-1].startswith(f"outcome: {outcome} (")


def test_tags_are_kept_in_the_answer_and_other_vlans_are_unmatched() -> None:
    *_, first, second = lines("2001:db8:1::42", head='vlan = "100.7"', tags=(100, 7))
    assert first == ("advertisement: 02:00:00:00:00:01 > the asker's MAC, VLAN 100, VLAN 7; 2001:db8:1::42 > fe80::2")
    assert second.endswith("94 bytes")
    for head, tags in (('vlan = "100.7"', (100,)), ("", (100,))):
        assert lines("2001:db8:1::42", head=head, tags=tags) == [
            "outcome: unmatched (no [[interface]] speaks for VLAN 100 of wan0)"
        ]


def test_an_interface_that_is_not_here_is_explained_as_far_as_that_goes() -> None:
    question = Question("wan0", (), IPv6Address("2001:db8:ff::2"), IPv6Address("fe80::2"))
    _, note, outcome = explain(config(), {}, question).splitlines()
    assert note.startswith("note: wan0 is not on this machine")
    assert outcome == "outcome: unmatched (no rule covers it)"
    question = Question("wan0", (), IPv6Address("2001:db8:7::2"), IPv6Address("fe80::2"))
    text = explain(config(), {}, question)
    assert "advertisement: the MAC of wan0 > the asker's MAC; 2001:db8:7::2 > fe80::2" in text
    assert text.endswith('note: na_source = "interface", but no usable address of wan0 is known')


def test_an_interface_without_ethernet_has_no_neighbor_discovery() -> None:
    question = Question("wan0", (), IPv6Address("2001:db8:1::42"), IPv6Address("fe80::2"))
    text = explain(config(), {"wan0": LinkFacts("wan0", 7, b"")}, question)
    assert text.startswith("wan0 is not an Ethernet interface: there is no Neighbor Discovery to proxy")


# --- check ---


def test_the_table_is_printed_the_most_specific_first() -> None:
    head, *rules = table_text(config('vlan = 100\ndatapath = "monitor"'), LINKS).splitlines()
    assert head == ("wan0:100: monitor, attach auto, router yes, dad ignore, na_source target, events_per_source 1000")
    assert [rule.split(maxsplit=1) for rule in rules] == [
        ["2001:db8:1::9/128", "ignore (left out of 2001:db8:1::/64)"],
        ["fe80::42/128", "static"],
        ["2001:db8:1::/64", "static"],
        ["2001:db8:2::/64", "route"],
        ["2001:db8:3::/64", "route via lan0, lan1"],
        ["2001:db8:4::/64", "neighbour via lan0 host routes"],
        ["2001:db8:5::/64", "kernel router no"],
        ["2001:db8:6::/64", "ignore"],
        ["2001:db8:7::/64", "static dad defend na_source interface"],
        ["2001:db8:8::/64", "route (interface:lan0)"],
    ]


GLOBS = """
[[interface]]
name = "wan0"
[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "route"
via = ["lan?", "br-*", "tap0"]
"""


@pytest.mark.parametrize(
    ("links", "text", "now"),
    [
        ({}, "route via lan?, br-*, tap0", None),
        (("wan0",), "route via lan? (now none), br-* (now none), tap0", ["tap0"]),
        (
            ("wan0", "lan1", "lan10", "br-c3", "br-a1"),
            "route via lan? (now lan1), br-* (now br-a1, br-c3), tap0",
            ["br-a1", "br-c3", "lan1", "tap0"],
        ),
        (
            tuple(f"br-{number}" for number in range(10)),
            "route via lan? (now none), br-* (now br-0, br-1, br-2, br-3, br-4, br-5, br-6, br-7 and 2 more), tap0",
            [*(f"br-{number}" for number in range(10)), "tap0"],
        ),
    ],
    ids=["not on the machine", "nothing yet", "some", "many"],
)
def test_a_glob_is_printed_with_what_it_means_on_this_machine(
    links: tuple[str, ...], text: str, now: list[str] | None
) -> None:
    facts = {name: LinkFacts(name, index, MAC) for index, name in enumerate(links, 1)}
    globs = parse(GLOBS, "test")
    assert table_text(globs, facts).splitlines()[1].split(maxsplit=1)[1] == text
    ((rule,),) = (interface["rules"] for interface in table_json(globs, facts)["interfaces"])
    assert rule["via"] == ["lan?", "br-*", "tap0"]
    assert rule.get("via_now") == now


def test_a_rule_whose_interface_has_no_prefix_now_is_printed_as_such() -> None:
    assert table_text(config(), {}).endswith("\n  interface:lan0: lan0 has no global prefix here now (route)")


def test_the_json_of_the_table_has_the_same_lines() -> None:
    said = table_json(config(), LINKS)
    assert json.loads(json.dumps(said)) == said
    (wan,) = said["interfaces"]
    assert {key: value for key, value in wan.items() if key != "rules"} == {
        "interface": "wan0",
        "name": "wan0",
        "vlan": "untagged",
        "attach": "auto",
        "datapath": "hybrid",
        "router": True,
        "dad": "ignore",
        "na_source": "target",
        "events_per_source": 1000,
        "collect_targets": 0,
    }
    rules = {rule["prefix"]: {k: v for k, v in rule.items() if k != "prefix"} for rule in wan["rules"]}
    assert rules["2001:db8:1::9/128"] == {"rule": "2001:db8:1::/64", "method": "ignore"}
    assert rules["2001:db8:4::/64"] == {
        "rule": "2001:db8:4::/64",
        "method": "neighbour",
        "via": ["lan0"],
        "host_routes": True,
    }
    assert rules["2001:db8:7::/64"] == {
        "rule": "2001:db8:7::/64",
        "method": "static",
        "dad": "defend",
        "na_source": "interface",
    }
    assert rules["2001:db8:8::/64"] == {"rule": "interface:lan0", "method": "route"}
    printed = [line.split()[0] for line in table_text(config(), LINKS).splitlines()[1:]]
    assert [rule["prefix"] for rule in wan["rules"]] == printed


def test_method_kernel_without_a_vlan_device_is_told_from_an_address_of_the_host() -> None:
    rest = lines("2001:db8:5::7", head="vlan = 100", tags=(100,))
    assert rest[1] == (
        "outcome: answered_xdp (there is no VLAN device for such frames, so the kernel can't, and npd6-xdp does)"
    )
    links = {**LINKS, "lan1": LinkFacts("lan1", 9, MAC, addresses={(): own("2001:db8:5::8")})}
    question = Question("wan0", (100,), IPv6Address("2001:db8:5::8"), IPv6Address("fe80::2"))
    assert "(this host holds the address on another interface)" in explain(config("vlan = 100"), links, question)


def test_a_rule_whose_followed_prefix_is_anothers_does_not_lack_one() -> None:
    words = '''
        [[interface]]
        name = "wan0"
        [[interface.rule]]
        prefix = "2001:db8:1::/64"
        method = "static"
        [[interface.rule]]
        prefix = "interface:lan0"
        method = "route"'''
    lan = LinkFacts("lan0", 8, MAC, addresses={(): own("2001:db8:1::1")})
    told = table_text(parse(words, "test"), {"lan0": lan})
    assert "interface:lan0: 2001:db8:1::/64 is of a rule that stands before it (route)" in told
    assert "interface:lan0: lan0 has no global prefix here now (route)" in table_text(parse(words, "test"), {})
