# SPDX-License-Identifier: GPL-2.0-or-later
"""The table in words, and the way of one solicitation."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from npd6_xdp.core.absent import absent_remark
from npd6_xdp.core.config import Config
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.config_keys import KEYS
from npd6_xdp.core.explain import Question, explain, table_json, table_text
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.warnings import DefaultRoute

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
LINKS = {"wan0": WAN, "lan0": LAN, "lan1": LinkFacts("lan1", 9, MAC)}


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


CASES: tuple[tuple[str, str, list[str], list[str]], ...] = (
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
            "  if there is a route to it out of another interface; else absent",
        ],
        na("2001:db8:2::42"),
    ),
    (
        "route via",
        "2001:db8:3::42",
        [
            "rule: 2001:db8:3::/64 (route) of wan0",
            "outcome: answered_xdp (if it is routed)",
            "  if there is a route to it out of lan0 or lan1; else absent",
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
            "  if there is a route to it out of another interface; else absent",
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
            "outcome: unmatched (no [[interface]] entry matches VLAN 100 of wan0)"
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


FORWARDING_OFF = "note: wan0: forwarding is off, so "
ON = "sysctl -w net.ipv6.conf.all.forwarding=1"


def notes(target: str, *links: LinkFacts, default: DefaultRoute | None = None, **sysctls: str) -> list[str]:
    """The notes on a target where the machine has these links, and sysctls of interfaces ("wan0_forwarding")."""
    question = Question("wan0", (), IPv6Address(target), IPv6Address("fe80::2"))
    here = {link.name: link for link in links}

    def sysctl(key: str) -> str | None:
        return sysctls.get(key.removeprefix("conf/").replace("/", "_"))

    told = explain(config(), here, question, sysctl, default=default)
    return [line for line in told.splitlines() if line.startswith("note: ")]


def test_a_via_that_is_not_here_or_down_is_told_with_a_target_that_is_looked_for_behind_it() -> None:
    here = (WAN, LAN)
    down, plugged_out = replace(LAN, flags=0, up=False), replace(LAN, up=False)
    assert notes("2001:db8:3::42", *here) == ["note: via lan1: no such interface here"], "a route's, too"
    assert notes("2001:db8:4::42", WAN) == ["note: via lan0: no such interface here"]
    for target in ("2001:db8:3::42", "2001:db8:4::42"):
        assert "note: via lan0: it is down: ip link set lan0 up" in notes(target, WAN, down)
    assert notes("2001:db8:4::42", WAN, plugged_out) == [
        "note: via lan0: it has no carrier: nobody is at the other end"
    ]
    assert notes("2001:db8:1::42", WAN) == [], "no other rule's via is a matter"


def test_a_glob_is_told_of_where_nothing_has_such_a_name_and_of_what_it_means_where_that_is_at_work() -> None:
    text = FILE.replace('via = ["lan0"]', 'via = ["br-*"]').replace("HEAD", "")
    question = Question("wan0", (), IPv6Address("2001:db8:4::42"), IPv6Address("fe80::2"))
    idle, bare = replace(LAN, name="br-1", up=False), LinkFacts("br-2", 10, MAC)
    for links, wanted in (
        ((), ["note: via br-*: no interface here has such a name"]),
        ((replace(LAN, name="br-0"), idle), []),
    ):
        told = explain(parse(text, "test"), {link.name: link for link in (WAN, *links)}, question).splitlines()
        assert [line for line in told if line.startswith("note: ")] == wanted
    told = explain(parse(text, "test"), {link.name: link for link in (WAN, bare)}, question).splitlines()
    assert told[-1].startswith("note: via br-2: it has no link-local address")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("2001:db8:2::42", "method route finds no target there"),
        ("2001:db8:4::42", "hosts are answered for and what is sent to them gets no further"),
        ("2001:db8:5::42", "method kernel answers nothing there"),
        ("2001:db8:7::42", ""),
        ("2001:db8:2::1", ""),  # this host's own
        ("2001:db8:9::1", ""),  # no rule's
    ],
)
def test_that_forwarding_is_off_is_told_where_it_is_a_matter_with_the_mend(target: str, words: str) -> None:
    here = tuple(LINKS.values())
    assert notes(target, *here, wan0_forwarding="0") == ([f"{FORWARDING_OFF}{words}: {ON}"] if words else [])
    assert notes(target, *here, wan0_forwarding="1", lan0_forwarding="0") == []


def test_the_mend_keeps_a_default_route_that_comes_by_router_advertisements() -> None:
    advertised = replace(WAN, addresses={(): (replace(WAN.own(())[1], advertised=True),)})
    by_one = DefaultRoute("wan0", advertised=True)  # as where addresses are set by hand
    for accept_ra, kept in (("1", "net/ipv6/conf/wan0/accept_ra=2 "), ("2", ""), ("0", "")):
        for wan, default in ((advertised, None), (WAN, by_one)):
            (line,) = notes("2001:db8:2::42", wan, LAN, default=default, wan0_forwarding="0", wan0_accept_ra=accept_ra)
            assert line.endswith(f": sysctl -w {kept}net.ipv6.conf.all.forwarding=1")


def test_a_port_that_is_not_up_is_told() -> None:
    for port, said in (
        (replace(WAN, flags=0, up=False), "note: wan0 is down: ip link set wan0 up"),
        (replace(WAN, up=False), "note: wan0 has no carrier"),
    ):
        assert notes("2001:db8:1::42", port, LAN) == [said]


def test_a_rule_that_answers_for_the_ports_own_side_is_told_where_the_target_is_its() -> None:
    near = replace(WAN, addresses={(): own("2001:db8:1::7")})
    (line,) = notes("2001:db8:1::42", near, LAN)
    assert line.startswith("note: wan0: the static rule 2001:db8:1::/64 covers 2001:db8:1::/64, which is on-link there")
    assert notes("2001:db8:7::42", near, LAN) == []


# --- check ---


def test_the_table_is_printed_the_most_specific_first() -> None:
    head, *rules = table_text(
        config('vlan = 100\ndatapath = "monitor"\nnew_targets_per_second = 7'), LINKS
    ).splitlines()
    assert head == (
        "wan0:100: monitor, attach auto, router yes, dad ignore, na_source target, events_per_source 1000,"
        " new_targets_per_second 7"
    )
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


def test_what_the_file_has_and_the_machine_has_not_is_in_the_json() -> None:
    for links, absent in (
        ({}, []),  # nobody knows
        ({"lan0": LAN}, ["lan1", "wan0"]),
        (LINKS, []),
    ):
        assert table_json(config(), links)["absent"] == absent


def test_what_is_not_on_the_machine_is_one_remark_however_much_it_is() -> None:
    names = "".join(
        f'[[interface]]\nname = "{name}"\n'
        '[[interface.rule]]\nprefix = "2001:db8::/64"\nmethod = "route"\nvia = ["lan?"]\n'
        for name in ("wan0", "wan1", "vm*")
    )
    assert absent_remark(parse(names, "test"), LINKS) == ("not on this machine: vm*, wan1; npd6-xdp run waits for them")
    many = names.replace('["lan?"]', str([f"lan{n}" for n in range(1, 30)]).replace("'", '"'))
    said = absent_remark(parse(many, "test"), {"wan0": WAN, "wan1": WAN, "vm1": WAN})
    assert said.startswith("not on this machine: lan1, lan10, ")
    assert said.endswith(" and 21 more; npd6-xdp run waits for them")
    assert absent_remark(parse(names, "test"), {"wan0": WAN, "wan1": WAN, "vm1": WAN, "lan0": LAN}) == ""


def test_a_rule_whose_interface_has_no_prefix_now_is_printed_as_such() -> None:
    assert table_text(config(), {}).endswith("\n  interface:lan0: lan0 has no global prefix here now (route)")


def test_a_place_among_tc_programs_is_printed_where_it_isnt_the_first() -> None:
    assert ", attach tc, last, router yes, " in table_text(config('attach = "tc"\ntc_order = "last"'), LINKS)
    assert ", attach tc, router yes, " in table_text(config('attach = "tc"'), LINKS)


def test_the_json_of_the_table_has_the_same_lines() -> None:
    said = table_json(config(), LINKS)
    assert json.loads(json.dumps(said)) == said
    (wan,) = said["interfaces"]
    assert [*wan] == ["interface", *KEYS["interface"], "rules"]
    assert wan == wan | {
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
        "new_targets_per_second": 0,
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
