# SPDX-License-Identifier: GPL-2.0-or-later
"""An ndppd.conf becomes a configuration that says the same, and a remark on what it can't."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tools.convert.reading import AUTO, MAPPED, matches, mistakes, read, rule, wan


@pytest.mark.parametrize(
    ("name", "text", "want", "remarks"),
    [
        ("static", "proxy wan0 { rule 1::/64 { static } }", wan(rule("1::/64", "static")), []),
        ("auto", "proxy wan0 { rule 1::/64 { auto } }", wan(rule("1::/64", "route")), [f"1: {AUTO}"]),
        ("iface", "proxy wan0 { rule 1::/64 { iface a } }", wan(rule("1::/64", "neighbour", "a")), []),
        ("address", "proxy wan0 { rule 1::5 { static } }", wan(rule("1::5", "static")), []),
        ("one link-local address", "proxy wan0 { rule fe80::1 { static } }", wan(rule("fe80::1", "static")), []),
        ("an IPv4-mapped prefix", "proxy wan0 {rule ::ffff:0:0/96 {static}}", wan(rule(MAPPED, "static")), []),
        (
            "no method",
            "proxy wan0 {\n rule 1::/96 {\n }\n}",
            wan(rule("1::/96", "static")),
            ["2: rule without static, auto or iface: static, as ndppd's manual has it"],
        ),
        (
            "host bits",
            "proxy wan0 {\nrule 1::5/64 { static } }",
            wan(rule("1::/64", "static")),
            ['2: "1::5/64" has host bits set; they don\'t count, it is 1::/64'],
        ),
        ("router no", "proxy wan0 { router no\nrule 1:: { static } }", wan(rule("1::", "static"), router=False), []),
        ("router yes", "proxy wan0 { router TRUE\nrule 1:: { static } }", wan(rule("1::", "static")), []),
        (
            "router on",
            "proxy wan0 {\nrouter on\nrule 1:: { static } }",
            wan(rule("1::", "static"), router=False),
            ['2: router "on": ndppd takes all but yes and true for no'],
        ),
        (
            "router yes;",
            "proxy wan0 {\nrouter yes; rule 1:: { static } }",
            wan(rule("1::", "static"), router=False),
            ['2: router "yes;": ndppd takes all but yes and true for no; the ";" belongs to the value there'],
        ),
        (
            "autowire",
            "proxy wan0 { autowire yes\nrule 1::/64 { iface a }\nrule 2::/64 { static } }",
            wan(rule("1::/64", "neighbour", "a", host_routes=True), rule("2::/64", "static")),
            [],
        ),
        (
            "autowire of nothing",
            "proxy wan0 {\nautowire yes\nrule 2::/64 { static } }",
            wan(rule("2::/64", "static")),
            ["2: autowire: it adds routes by iface rules, and here is none"],
        ),
        ("autowire no", "proxy wan0 { autowire no\nrule 2:: { static } }", wan(rule("2::", "static")), []),
        *(
            (
                key,
                f"proxy wan0 {{\n{key} 5\nrule 2:: {{ static }} }}",
                wan(rule("2::", "static")),
                [f"2: {key} 5: {why}"],
            )
            for key, why in (
                ("ttl", "no equal: the kernel's neighbour table has timers"),
                ("deadtime", "no equal: the kernel's neighbour table has timers"),
                ("timeout", "no equal: the kernel's neighbour table has timers"),
                ("retries", "no equal: the kernel's neighbour table has timers"),
                ("keepalive", "not needed: the kernel probes"),
                ("promiscuous", "not needed: npd6-xdp has the interface receive all multicast"),
                ("colour", "left out: ndppd doesn't know it here either"),
                ("static", "left out: ndppd doesn't know it here either"),
            )
        ),
        (
            "autovia",
            "proxy wan0 { rule 1::/64 {\nautovia yes\niface a } }",
            wan(rule("1::/64", "neighbour", "a")),
            ["2: autovia yes: no equal: host_routes lead straight"],
        ),
        (
            "on top",
            "route-ttl 1\naddress-ttl 2\nrule 9::/64 { auto }\nproxy wan0 { rule 1:: { static } }",
            wan(rule("1::", "static")),
            ["1: route-ttl 1: not needed", "2: address-ttl 2: not needed", "3: rule 9::/64 { ... }: left out"],
        ),
        (
            "the first counts",
            "proxy wan0 {\nrouter no\nrouter yes\nrule 1::/64 { iface a\niface b } }",
            wan(rule("1::/64", "neighbour", "a"), router=False),
            ["3: router yes: left out: line 2 says router", "5: iface b: left out: line 4 says iface"],
        ),
        (
            "static with a value",
            "proxy wan0 { rule 1:: { static auto\n} }",
            wan(rule("1::", "static")),
            ["1: static auto: static takes no value, it is static"],
        ),
        ("two interfaces for one prefix",
            "proxy wan0 { rule 1::/64 { iface a }\nrule 1::/64 { iface b } }",
            wan(rule("1::/64", "neighbour", "a", "b")), []),
        ("a rule twice",
            "proxy wan0 { rule 1::/64 { static }\nrule 1::/64 { static } }",
            wan(rule("1::/64", "static")), ["2: rule 1::/64: left out: the same as line 1"]),
        ("static wins",
            "proxy wan0 { rule 1::/64 { iface a }\nrule 1::/64 { static } }",
            wan(rule("1::/64", "static")), ["1: rule 1::/64: static, since what holds the target answers at once"]),
        ("no equal for both",
            "proxy wan0 { rule 1::/64 { iface a }\nrule 1::/64 { auto } }",
            wan(rule("1::/64", "neighbour", "a")), ["1: rule 1::/64: here it alone decides"]),
        ("the wider rule asks too",
            "proxy wan0 { rule 1::/32 { iface a }\nrule 1::/64 { iface b } }",
            wan(rule("1::/32", "neighbour", "a"), rule("1::/64", "neighbour", "b", "a")),
            ["2: rule 1::/64: via has the interfaces of the wider rules too"]),
        ("the wider rule is static",
            "proxy wan0 { rule 1::/32 { static }\nrule 1::/64 { iface b } }",
            wan(rule("1::/32", "static"), rule("1::/64", "static")),
            ["2: rule 1::/64: static, since what holds the target answers at once"]),
        ("the wider rule is another",
            "proxy wan0 { rule 1::/32 { auto }\nrule 1::/64 { iface b } }",
            wan(rule("1::/32", "route"), rule("1::/64", "neighbour", "b")),
            [f"1: {AUTO}", "2: rule 1::/64: here it alone decides; ndppd asks by the rules of these lines too: 1"]),
        ("an interface twice",
            "proxy wan0 { rule 1::/64 { static } }\nproxy wan0 { router no\nautowire yes\nrule 2::/64 { iface a } }",
            wan(rule("1::/64", "static"), rule("2::/64", "neighbour", "a", router=False, host_routes=True)),
            ["2: proxy wan0: merged with line 1; ndppd itself listens only by the last"]),
        ("an interface and a prefix twice",
            "proxy wan0 { rule 1::/64 { iface a } }\nproxy wan0 { router no\nrule 1::/64 { iface b } }",
            wan(rule("1::/64", "neighbour", "a", "b")),
            ["2: proxy wan0: merged", "3: rule 1::/64: its router is left out: line 1 is for the same prefix"]),
        ("no rule",
            "proxy lan0 {\n}\nproxy lan1\nproxy wan0 { rule 1:: { static } }",
            wan(rule("1::", "static")),
            ["1: proxy lan0: left out: no rule is left", "3: proxy lan1: left out: no rule is left"]),
        ("link-local is left out",
            "proxy wan0 { rule 1:: { static }\nrule fe80::/10 { auto } }",
            wan(rule("1::", "static")), ['2: "fe80::/10": left out: link-local targets']),
        ("multicast is left out",
            "proxy wan0 { rule 1:: { static }\nrule ff02::1 { auto } }",
            wan(rule("1::", "static")), ['2: "ff02::1": left out: multicast']),
        ("comments",
            "# a }\nproxy /* b */ wan0 // c\n{ rule 1:: { static } }" .replace("// c\n", "/* c\n */")
            + "/*/ # three characters are a comment",
            wan(rule("1::", "static")), []),
        ("a comment to the end", "proxy wan0 { rule 1:: { static } } /* proxy", wan(rule("1::", "static")), []),
        ("quotes", "proxy 'wan0' { rule \"1:: / 64\" { iface \"a\" } }", wan(rule("1::/64", "neighbour", "a")), []),
        ("signs", "proxy = wan0 {\nrouter=no\nrule=1:: { static } }", wan(rule("1::", "static"), router=False), []),
        ("a comment with a pair in it",
            "/*\nprefix = 1::\n*/\nproxy wan0 { rule 1:: { static } }", wan(rule("1::", "static")), []),
    ],
)  # fmt: skip
def test_ndppd_conf_becomes(name: str, text: str, want: list[dict[str, Any]], remarks: list[str]) -> None:
    interfaces, said = read(text)
    assert interfaces == want
    assert matches(said, remarks), said


@pytest.mark.parametrize(
    ("name", "text", "want"),
    [
        ("two methods", "proxy a {\nrule 1:: { static\nauto } }", ["2: rule: static (line 2) and auto (line 3)"]),
        ("no address", "proxy a { rule { static } }", ["1: rule: must be an IPv6 address or prefix"]),
        ("no prefix", "proxy a { rule 1::/129 { static } }", ["1: rule: must be an IPv6 address or prefix"]),
        ("empty length", "proxy a { rule 1::/ { static } }", ["1: rule: must be an IPv6 address or prefix"]),
        ("dotted", "proxy a { rule ::ffff:1.2.3.4 { static } }", ["1: rule: must be an IPv6 address or prefix"]),
        ("scope", "proxy a { rule fe80::1%a { static } }", ["1: rule: must be an IPv6 address or prefix"]),
        ("no interface", "proxy { rule 1:: { static } }", ["1: proxy: an interface's name has 1 to 15"]),
        ("long name", "proxy abcdefghijklmnop { rule 1:: { static } }", ["1: proxy: an interface's name has 1"]),
        ("long iface", "proxy a { rule 1:: {\niface abcdefghijklmnop } }", ["2: iface: an interface's name has"]),
        ("no iface", "proxy a { rule 1:: { iface } }", ["1: iface: an interface's name has 1 to 15"]),
        ("semicolon", "proxy a { rule 1:: { iface b; } }", ['1: iface: not an interface\'s name: "b;"']),
        ("glob", "proxy a { rule 1:: { iface lan* } }", ['1: iface: "lan*" would be a pattern']),
        ("itself", "proxy a { rule 1:: { iface a } }", ["1: iface a: the question comes from there"]),
        ("not closed", "proxy a {\nrule 1:: {\nstatic", ["1: proxy: its block is never", "2: rule: its"]),
        ("closed twice", "proxy a { rule 1:: { static } }\n}", ['2: this "}" closes nothing']),
        ("brace below", "proxy a\n{ rule 1:: { static } }", ['2: this "{" belongs on the line']),
        ("stray", "proxy a { rule 1:: { static } }\n; x", ['2: unexpected ";"']),
        ("not ASCII", "proxy a { rule 1:: { ü static } }", ['1: unexpected "ü"']),
        ("quote", "proxy 'a { rule 1:: { static } }", ["the quote ' is never closed", "1: proxy: an interface's"]),
        ("too deep", "proxy a " + "x {" * 99, ["1: braces nest too deeply", *["its block is never closed"] * 16]),
        ("no proxy", "route-ttl 5", ["no proxy section"]),
        ("all of them", "proxy a {\nrule x { auto }\nrule 1:: { static\nauto } }", ["2: ", "3: "]),
        ("nothing is left", "proxy a {}", ["no rule is left that npd6-xdp could have", "1: proxy a: left out"]),
    ],
)  # fmt: skip
def test_mistakes_in_ndppd_conf(name: str, text: str, want: list[str]) -> None:
    found = mistakes(text)
    assert matches(found, want), found


@pytest.mark.parametrize("wide", ["::/0", "2001:db8::/32"])
def test_rules_within_too_many_others_are_refused_in_one_line(wide: str) -> None:
    """What becomes of each may name all the others."""
    within = "".join(f"rule 2001:db8:{number:x}::/64 {{ iface a }}\n" for number in range(1200))
    (found,) = mistakes(f"proxy wan0 {{\n{f'rule {wide} {{ auto }}' * 900}\n{within}}}\nproxy wan1 {{\n{within}}}\n")
    assert (
        found == "1113: too many rules; more than 1,000,000 pairs of them overlap: leave some out"
    )  # 2 + (10**6 - 899) / 900


def test_more_interfaces_for_a_prefix_than_a_rule_has_are_refused_in_one_line() -> None:
    def asked(count: int) -> str:
        rules = "".join(f"rule 2001:db8::/64 {{ iface lan{number} }}\n" for number in range(count))
        return f"proxy wan0 {{\n{rules}}}\n"

    (found,) = mistakes(asked(4097))
    want = "rule 2001:db8::/64: 4,097 interfaces hold for it, and a rule of npd6-xdp has at most 4,096: leave some out"
    assert found == f"2: {want}"
    ((entry,), _) = read(asked(4096))
    assert len(entry["rule"][0]["via"]) == 4096
