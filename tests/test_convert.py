# SPDX-License-Identifier: GPL-2.0-or-later
"""npd6.conf and ndppd.conf in, our TOML out: every option of both, every mistake, and what no file may do."""

from __future__ import annotations

import gzip
import operator
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from npd6_xdp.core.config import Config, RuleConfig
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import ConfigError
from npd6_xdp.core.verdict import Method
from npd6_xdp.tools.convert import convert, run
from npd6_xdp.tools.convert.machine import NOTHING_KNOWN, Facts

FIXTURES = Path(__file__).parent / "convert"
PEERS = Path(__file__).resolve().parents[1] / ".venv/peers"  # where deploy/setup.sh unpacks the Debian packages
NPD6_SAMPLE = PEERS / "etc/npd6.conf.sample"
NDPPD_SAMPLE = PEERS / "usr/share/doc/ndppd/ndppd.conf-dist"


def read(text: str, machine: Facts = NOTHING_KNOWN) -> tuple[list[dict[str, Any]], list[str]]:
    """The interfaces of a converted file, and its remarks; what holds for every file is asserted on the way."""
    done = convert(text, "f", machine)
    document = tomllib.loads(done.toml)
    assert set(document) == {"interface"}
    parse(done.toml, "converted")
    comments = [line.removeprefix("# ") for line in done.toml.splitlines() if line.startswith("# f:")]
    assert sorted(comments) == sorted(done.remarks), "each remark stands in the output, once"
    return document["interface"], [remark.removeprefix("f:") for remark in done.remarks]


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        convert(text, "f")
    return [line.removeprefix("f: ") for line in str(caught.value).splitlines()]


def matches(found: list[str], wanted: list[str]) -> bool:
    """Whether each line has the wanted part, in order, and there are no others."""
    return len(found) == len(wanted) and all(part in line for part, line in zip(wanted, found, strict=True))


# --- npd6.conf ---

MAPPED = str(IPv6Network("::ffff:0:0/96"))  # Python 3.13 writes it in another way
PAIR = "prefix = 2001:db8:1:2:\ninterface = wan0\n"
RULE = {"prefix": "2001:db8:1:2::/64", "method": "static"}
WAN0 = {"name": "wan0", "rule": [RULE]}


@pytest.mark.parametrize(
    ("name", "text", "want", "remarks"),
    [
        ("pair", PAIR, [WAN0], []),
        ("bom", f"\ufeff{PAIR}", [WAN0], []),
        ("white space anywhere", " pre fix=2001:db8 :1:2:\t\r\n\vinterface =\f wan 0", [WAN0], []),
        ("comments", f"// a = b\n#prefix=::\n  // c\n\n//.\n{PAIR}", [WAN0], []),
        (
            "two pairs, interfaces first",
            "interface=wan0\ninterface=wan1\nprefix=2001:db8:1:2:\nprefix=2001:db8::/32",
            [WAN0, {"name": "wan1", "rule": [{"prefix": "2001:db8::/32", "method": "static"}]}],
            [],
        ),
        (
            "two prefixes on one interface",
            f"{PAIR}prefix=2001:db8:9::/48\ninterface=wan0",
            [{"name": "wan0", "rule": [RULE, {"prefix": "2001:db8:9::/48", "method": "static"}]}],
            [],
        ),
        ("the same pair twice", PAIR * 2, [WAN0], ["3: 2001:db8:1:2::/64 on wan0: left out: the same as line 1"]),
        ("unknown key", f"{PAIR}colour = red", [WAN0], ['3: "colour=red": left out: npd6 doesn\'t know it either']),
        ("noise", f"{PAIR}hello\n[x]", [WAN0], ['3: "hello": left out', '4: "[x]": left out']),
        ("case", f"{PAIR}Prefix = 1:", [WAN0], ["case-sensitive, prefix was probably meant"]),
        ("no value", f"{PAIR}routerNA =", [WAN0], ['3: "routerNA=": left out: it has no value']),
        ("routerNA", f"{PAIR}routerNA = false", [{**WAN0, "router": False}], []),
        ("routerNA as by default", f"{PAIR}routerNA = true", [WAN0], []),
        (
            "the last counts",
            f"{PAIR}routerNA = false\nrouterNA = true",
            [WAN0],
            ["3: routerNA = false: left out: line 4 says routerNA again"],
        ),
        ("collectTargets", f"{PAIR}collectTargets = 100", [{**WAN0, "collect_targets": 100}], []),
        ("collectTargets off", f"{PAIR}collectTargets = 0", [WAN0], []),
        ("linkOption", f"{PAIR}linkOption = true", [WAN0], ["3: linkOption = true: not needed: the target link"]),
        ("ignoreLocal", f"{PAIR}ignoreLocal = false", [WAN0], ["3: ignoreLocal = false: not needed: the kernel"]),
        ("maxHops", f"{PAIR}maxHops = 64", [WAN0], ["3: maxHops = 64: not needed: the hop limit is always 255"]),
        ("pollErrorLimit", f"{PAIR}pollErrorLimit = 0", [WAN0], ["3: pollErrorLimit = 0: not needed"]),
        ("listlogging", f"{PAIR}listlogging = on", [WAN0], ["3: listlogging = on: no equal: the metrics"]),
        ("ralogging", f"{PAIR}ralogging = off", [WAN0], ["3: ralogging = off: no equal: Router Adv"]),
        ("listtype none", f"{PAIR}listtype = none", [WAN0], []),
        (
            "lists without a type",
            f"{PAIR}addrlist = 2001:db8:1:2::1\nexprlist = HOST",
            [WAN0],
            ["3: addrlist = 2001:db8:1:2::1: left out: npd6 uses", "4: exprlist = HOST: left out: npd6 uses"],
        ),
        ("a type without lists", f"{PAIR}listtype = black", [WAN0], ["3: listtype = black: no addrlist"]),
        (
            "a long line",
            f"{PAIR}routerNA = {' ' * 120} false",
            [{**WAN0, "router": False}],
            ["3: routerNA: npd6 takes 126 characters a line"],
        ),
        (
            "link-local is left out",
            f"{PAIR}prefix = fe80::/64\ninterface = wan1",
            [WAN0],
            ['3: "fe80::/64": left out: link-local', "4: interface wan1: left out: no rule is left"],
        ),
        (
            "anything at all",
            "prefix = 0::/0\ninterface = wan0",
            [{"name": "wan0", "rule": [{"prefix": "::/0", "method": "static"}]}],
            ['1: "0::/0": link-local and multicast targets in it are never answered'],
        ),
    ],
)
def test_npd6_conf_becomes(name: str, text: str, want: list[dict[str, Any]], remarks: list[str]) -> None:
    interfaces, said = read(text)
    assert interfaces == want
    assert matches(said, remarks), said


@pytest.mark.parametrize(
    ("written", "want", "remarks"),
    [
        ("2001:db8:1:2:", "2001:db8:1:2::/64", []),
        ("2001:0db8:0001:0002:", "2001:db8:1:2::/64", []),
        ("2001:db8:1:2::", "2001:db8:1:2::/64", []),
        ("2001:db8:", "2001:db8::/32", []),
        ("2001:db8:1:2:8000::", "2001:db8:1:2:8000::/80", []),
        ("2001:db8:1:2:3:4:5:", "2001:db8:1:2:3:4:5:0/112", []),
        ("2001:db8:1:2:3:4:5::", "2001:db8:1:2:3:4:5:0/112", []),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", []),
        ("2001:db8:1:2::/65", "2001:db8:1:2::/65", []),
        ("2001:db8:1:2:8000::/65", "2001:db8:1:2:8000::/65", []),
        ("2001:db8:1:2:/56", "2001:db8:1::/56", ['1: "2001:db8:1:2:/56" has host bits set; they don\'t count']),
        ("2001:db8::1/64", "2001:db8::/64", ["it is 2001:db8::/64"]),
        ("2001:db8::1/128", "2001:db8::1", []),
        ("0::/0", "::/0", ["link-local and multicast targets in it are never answered"]),
        ("fe80::1/128", "fe80::1", []),
    ],
)
def test_npd6_takes_a_prefix_as(written: str, want: str, remarks: list[str]) -> None:
    (interface,), said = read(f"prefix = {written}\ninterface = wan0")
    assert interface["rule"] == [{"prefix": want, "method": "static"}]
    assert matches(said, remarks), said


@pytest.mark.parametrize(
    ("name", "prefix", "lists", "want"),
    [
        ("black", "2001:db8:1:2:", "listtype=black\naddrlist=2001:db8:1:2::22", {"exclude": ["2001:db8:1:2::22"]}),
        ("white", "2001:db8:1:2:", "addrlist=2001:db8:1:2::22\nlisttype=white", {"include": ["2001:db8:1:2::22"]}),
        ("twice", "2001:db8:1:2:", "listtype=white" + "\naddrlist=2001:db8:1:2::22" * 2,
            {"include": ["2001:db8:1:2::22"]}),
        ("the address itself", "2001:db8::1/128", "listtype=white\naddrlist=2001:db8::1", {}),
        ("no longer it", "2001:db8::1/128", "listtype=black\naddrlist=2001:db8::1", {"method": "ignore"}),
        ("nothing white", "2001:db8:1:2:", "listtype=white", {"method": "ignore"}),
        ("range", "2001:db8:1:2:", "listtype=black\nexprlist=(HOST>=0x10)&&(HOST<0x15)",
            {"exclude": ["2001:db8:1:2::10-2001:db8:1:2::14"]}),
        ("mask", "2001:db8:1:2:", "listtype=black\nexprlist=(HOST&0xffffffffffff0000)==0x10000",
            {"exclude": ["2001:db8:1:2::1:0/112"]}),
        ("shift", "2001:db8:1:2:", "listtype=black\nexprlist=HOST>>16==1", {"exclude": ["2001:db8:1:2::1:0/112"]}),
        ("no precedence for << either", "2001:db8:1:2:", "listtype=black\nexprlist=(HOST&mask(63,16))==1<<16", {}),
        ("mask()", "2001:db8:1:2:", "listtype=black\nexprlist=(HOST&mask(16,63))==(1<<16)",
            {"exclude": ["2001:db8:1:2::1:0/112"]}),
        ("abs()", "2001:db8:1:2:", "listtype=black\nexprlist=HOST==abs(-5)", {"exclude": ["2001:db8:1:2::5"]}),
        ("one", "2001:db8:1:2:", "listtype=white\nexprlist=HOST==0x22", {"include": ["2001:db8:1:2::22"]}),
        ("all but one", "2001:db8:1:2:", "listtype=white\nexprlist=!(HOST==0)",
            {"include": ["2001:db8:1:2::1-2001:db8:1:2:ffff:ffff:ffff:ffff"]}),
        ("or", "2001:db8:1:2:", "listtype=white\nexprlist=(HOST==3)||(HOST==1)",
            {"include": ["2001:db8:1:2::1", "2001:db8:1:2::3"]}),
        ("variable", "2001:db8:1:2:", "listtype=white\nexprlist=X=HOST;Y=4;(X<Y)", {"include": ["2001:db8:1:2::/126"]}),
        ("variable of a line above", "2001:db8:1:2:", "listtype=white\nexprlist=X=4;0\nexprlist=HOST==X",
            {"include": ["2001:db8:1:2::4"]}),
        ("number first", "2001:db8:1:2:", "listtype=white\nexprlist=4>HOST", {"include": ["2001:db8:1:2::/126"]}),
        ("PREFIX", "2001:db8::/32", "listtype=white\nexprlist=PREFIX==0x20010db800010002",
            {"include": ["2001:db8:1:2::/64"]}),
        ("PREFIX of another", "2001:db8:1:2:", "listtype=black\nexprlist=PREFIX==0x20010db800010003", {}),
        ("low bits, all that is open", "2001:db8:1:2:0:0:0:/112", "listtype=black\nexprlist=(HOST&0xffff)<2",
            {"exclude": ["2001:db8:1:2::/127"]}),
        ("all of it", "2001:db8:1:2:", "listtype=black\nexprlist=1", {"method": "ignore"}),
        ("left to right, without precedence", "2001:db8:1:2:", "listtype=black\nexprlist=HOST>=5&&HOST<=9",
            {"method": "ignore"}),
        ("of the man page", "2001:db8:1:2:",
            "listtype=black\nexprlist=(HOST);S=(HOST&0xffff);((S>0x99)&&(S<0x124))", {}),
        ("arithmetic", "2001:db8:1:2:", "listtype=black\nexprlist=HOST*2==4", {}),
        ("half of it", "2001:db8:1:2:", "listtype=black\nexprlist=HOST&1\nexprlist=HOST==2",
            {"exclude": ["2001:db8:1:2::2"]}),
        ("no link-local", "0::/0", "listtype=white\nexprlist=PREFIX>=0xfe80000000000000", {
            "include": ["fec0::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]}),
    ],
)  # fmt: skip
def test_npd6_lists_become(name: str, prefix: str, lists: str, want: dict[str, Any]) -> None:
    (interface,), _ = read(f"prefix={prefix}\ninterface=wan0\n{lists}")
    (rule,) = interface["rule"]
    assert {"method": rule["method"], **{key: rule[key] for key in ("include", "exclude") if key in rule}} == {
        "method": "static",
        **want,
    }


@pytest.mark.parametrize(
    ("name", "lists", "remarks"),
    [
        ("outside", "listtype=black\naddrlist=2001:db8::1", ["4: addrlist = 2001:db8::1: left out: it lies in none"]),
        (
            "no range",
            "listtype=black\nexprlist=HOST&1",
            ["4: exprlist = HOST&1: left out: no plain range or mask under"],
        ),
        ("what that means", "listtype=black\nexprlist=HOST&1", ["what it lists is answered"]),
        (
            "and for a whitelist",
            "listtype=white\nexprlist=HOST&1",
            ["1: 2001:db8:1:2::/64: no whitelist entry lies in it", "what it lists is not answered"],
        ),
        ("lists nothing", "listtype=black\nexprlist=0", ["4: exprlist = 0: left out: it lists no address"]),
        ("lists all", "listtype=black\nexprlist=HOST>=5&&HOST<=9", ["4: exprlist = HOST>=5&&HOST<=9: it lists all of"]),
        ("the 65th", "listtype=black" + "\nexprlist=HOST==9" * 65, ["68: exprlist = HOST==9: left out: npd6 takes 64"]),
    ],
)
def test_npd6_lists_say(name: str, lists: str, remarks: list[str]) -> None:
    _, said = read(f"prefix=2001:db8:1:2:\ninterface=wan0\n{lists}")
    assert matches(said, remarks), said


def test_an_entry_goes_to_the_longest_prefix_that_holds_it() -> None:
    (interface,), said = read(
        "prefix=2001:db8::/32\ninterface=wan0\nprefix=2001:db8:1::/48\ninterface=wan0\n"
        "listtype=black\naddrlist=2001:db8:1::1\nexprlist=(PREFIX>=0x20010db800010000)&&(PREFIX<0x20010db800020001)\n"
    )
    assert interface["rule"] == [
        {"prefix": "2001:db8::/32", "method": "static", "exclude": ["2001:db8:2::/64"]},
        {"prefix": "2001:db8:1::/48", "method": "ignore"},
    ]
    assert matches(said, ["it lists all of 2001:db8:1::/48"])


@pytest.mark.parametrize(
    ("name", "text", "want"),
    [
        (
            "no colon at the end",
            "prefix=2001:db8:1\ninterface=a",
            ['line 1: prefix: not a prefix: "2001:db8:1"; write'],
        ),
        ("two ::", "prefix=1::2::/64\ninterface=a", ["line 1: prefix: not a prefix"]),
        ("no mask", "prefix=1::2\ninterface=a", ["line 1: prefix: not a prefix"]),
        ("nine groups", "prefix=1:2:3:4:5:6:7:8:\ninterface=a", ["line 1: prefix: not a prefix"]),
        ("scope", "prefix=fe80::1%a/128\ninterface=a", ["line 1: prefix: not a prefix"]),
        ("mask", "prefix=1::/129\ninterface=a", ["line 1: prefix: a mask is a whole number from 0 to 128"]),
        ("empty mask", "prefix=1::/\ninterface=a", ["line 1: prefix: a mask is"]),
        ("comment", "prefix=1:: // x\ninterface=a", ["comments on lines of their own only"]),
        ("comment, again", "prefix=1::\ninterface=a # x", ["comments on lines of their own only"]),
        ("long name", "prefix=1::\ninterface=abcdefghijklmnop", ["line 2: interface: an interface's name has 1 to 15"]),
        ("alias", "prefix=1::\ninterface=eth0:1", ['line 2: interface: an interface\'s name holds no ":"']),
        ("slash", "prefix=1::\ninterface=a/b", ["line 2: interface: not an interface's name"]),
        ("glob", "prefix=1::\ninterface=eth*", ['line 2: interface: "eth*" would be a pattern']),
        ("more prefixes", "prefix=1::\nprefix=2::\ninterface=a", ["2 prefixes and 1 interfaces"]),
        ("none", "routerNA=true", ["no prefix and no interface"]),
        ("= =", f"{PAIR}routerNA=true=false", ['line 3: routerNA: one "=" and one value']),
        ("routerNA", f"{PAIR}routerNA=yes", ["line 3: routerNA: must be true or false; found"]),
        ("linkOption", f"{PAIR}linkOption=1", ["line 3: linkOption: must be true or false"]),
        ("ignoreLocal", f"{PAIR}ignoreLocal=1", ["line 3: ignoreLocal: must be true or false"]),
        ("listlogging", f"{PAIR}listlogging=true", ["line 3: listlogging: must be on or off"]),
        ("ralogging", f"{PAIR}ralogging=true", ["line 3: ralogging: must be on or off"]),
        ("listtype", f"{PAIR}listtype=grey", ["line 3: listtype: must be none or black or white"]),
        ("collectTargets", f"{PAIR}collectTargets=1000001", ["line 3: collectTargets: must be a whole number"]),
        ("maxHops", f"{PAIR}maxHops=256", ["line 3: maxHops: must be a whole number from 0 to 255"]),
        ("pollErrorLimit", f"{PAIR}pollErrorLimit=-1", ["line 3: pollErrorLimit: must be"]),
        ("addrlist", f"{PAIR}addrlist=2001:db8::/64", ["line 3: addrlist: must be one whole IPv6 address"]),
        ("addrlist scope", f"{PAIR}addrlist=fe80::1%wan0", ["line 3: addrlist: must be one whole"]),
        ("bracket", f"{PAIR}exprlist=(HOST", ['line 3: exprlist: ")" is missing before the end']),
        ("no value", f"{PAIR}exprlist=HOST<", ["line 3: exprlist: a value is missing before the end"]),
        ("junk", f"{PAIR}exprlist=HOST@1", ['line 3: exprlist: unexpected "@"']),
        ("octal", f"{PAIR}exprlist=HOST<08", ['line 3: exprlist: "08" is no octal number']),
        ("by zero", f"{PAIR}exprlist=1/0", ["line 3: exprlist: it divides by 0"]),
        ("mask()", f"{PAIR}exprlist=mask(1)", ['line 3: exprlist: "," is missing before ")"']),
        ("a long one", f"{PAIR}exprlist={'1+' * 70}1", ["line 3: exprlist: npd6 takes 126 characters a line"]),
        ("all of them", "prefix=x\ninterface=a:b\nmaxHops=x", ["line 1", "line 2", "line 3"]),
        (
            "nothing is left",
            "interface=a\nprefix=ff00::/8",
            ["no rule is left", "line 1: interface a: left out", 'line 2: "ff00::/8": left out: multicast'],
        ),
    ],
)
def test_mistakes_in_npd6_conf(name: str, text: str, want: list[str]) -> None:
    found = mistakes(text)
    assert matches(found, want), found


# --- ndppd.conf ---


def rule(prefix: str, method: str, *via: str, **keys: object) -> dict[str, Any]:
    return {"prefix": prefix, "method": method, **({"via": [*via]} if via else {}), **keys}


def wan(*rules: dict[str, Any], **keys: object) -> list[dict[str, Any]]:
    return [{"name": "wan0", **keys, "rule": [*rules]}]


AUTO = "auto: ndppd asks for the host where its route leads"


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
        ("two methods", "proxy a {\nrule 1:: { static\nauto } }", ["line 2: rule: static (line 2) and auto (line 3)"]),
        ("no address", "proxy a { rule { static } }", ["line 1: rule: must be an IPv6 address or prefix"]),
        ("no prefix", "proxy a { rule 1::/129 { static } }", ["line 1: rule: must be an IPv6 address or prefix"]),
        ("empty length", "proxy a { rule 1::/ { static } }", ["line 1: rule: must be an IPv6 address or prefix"]),
        ("dotted", "proxy a { rule ::ffff:1.2.3.4 { static } }", ["line 1: rule: must be an IPv6 address or prefix"]),
        ("scope", "proxy a { rule fe80::1%a { static } }", ["line 1: rule: must be an IPv6 address or prefix"]),
        ("no interface", "proxy { rule 1:: { static } }", ["line 1: proxy: an interface's name has 1 to 15"]),
        ("long name", "proxy abcdefghijklmnop { rule 1:: { static } }", ["line 1: proxy: an interface's name has 1"]),
        ("long iface", "proxy a { rule 1:: {\niface abcdefghijklmnop } }", ["line 2: iface: an interface's name has"]),
        ("no iface", "proxy a { rule 1:: { iface } }", ["line 1: iface: an interface's name has 1 to 15"]),
        ("semicolon", "proxy a { rule 1:: { iface b; } }", ['line 1: iface: not an interface\'s name: "b;"']),
        ("glob", "proxy a { rule 1:: { iface lan* } }", ['line 1: iface: "lan*" would be a pattern']),
        ("itself", "proxy a { rule 1:: { iface a } }", ["line 1: iface a: the question comes from there"]),
        ("not closed", "proxy a {\nrule 1:: {\nstatic", ["line 1: proxy: its block is never", "line 2: rule: its"]),
        ("closed twice", "proxy a { rule 1:: { static } }\n}", ['line 2: this "}" closes nothing']),
        ("brace below", "proxy a\n{ rule 1:: { static } }", ['line 2: this "{" belongs on the line']),
        ("stray", "proxy a { rule 1:: { static } }\n; x", ['line 2: unexpected ";"']),
        ("not ASCII", "proxy a { rule 1:: { ü static } }", ['line 1: unexpected "ü"']),
        ("quote", "proxy 'a { rule 1:: { static } }", ["the quote ' is never closed", "line 1: proxy: an interface's"]),
        ("too deep", "proxy a " + "x {" * 99, ["line 1: braces nest too deeply", *["its block is never closed"] * 16]),
        ("no proxy", "route-ttl 5", ["no proxy section"]),
        ("all of them", "proxy a {\nrule x { auto }\nrule 1:: { static\nauto } }", ["line 2", "line 3"]),
        ("nothing is left", "proxy a {}", ["no rule is left that npd6-xdp could have", "line 1: proxy a: left out"]),
    ],
)  # fmt: skip
def test_mistakes_in_ndppd_conf(name: str, text: str, want: list[str]) -> None:
    found = mistakes(text)
    assert matches(found, want), found


# --- What has no equal, and what has ---


def headed(text: str) -> dict[str, list[str]]:
    """The comments at the top of what a file becomes, by what stands above them."""
    found: dict[str, list[str]] = {"": []}
    title = ""
    for line in convert(text, "f").toml.partition("\n\n")[0].splitlines():
        if line.endswith(":"):
            title = line
            found[title] = []
        elif line.startswith("# f:"):
            found[title].append(line)
    return found


LOST = "# What follows of that file has no equal:"
REST = "# What follows of it is so here in another way, or needn't be said:"


@pytest.mark.parametrize(
    ("text", "lost", "rest"),
    [
        (PAIR, None, None),
        (f"{PAIR}linkOption = true\nmaxHops = 64", None, ["linkOption", "maxHops"]),
        (f"{PAIR}ralogging = on", ["ralogging"], None),
        (
            f"{PAIR}collectTargets = 5\nprefix=1::\ninterface=b\nlistlogging = on\nnoise\nrouterNA=true\n"
            "routerNA=true\n"
            "exprlist=HOST\nprefix=1::\ninterface=b\nlistlogging =",
            ["listlogging = on", '"noise"', '"listlogging="'],
            ["collectTargets", "routerNA = true: left out: line", "exprlist", "the same as line"],
        ),
        ("route-ttl 5\nproxy a { rule 1:: { static } }", None, ["route-ttl"]),
        (
            "route-ttl 5\nvalid-ttl 30000\naddress-ttl 5\nkeepalive yes\ncolour red\nproxy a { rule 1:: { static } }",
            ["valid-ttl", "colour"],
            ["route-ttl", "address-ttl", "keepalive"],
        ),
    ],
)
def test_what_has_no_equal_stands_under_its_own_head(text: str, lost: list[str] | None, rest: list[str] | None) -> None:
    found = headed(text)
    assert found.pop("") == []
    wanted = {head: lines for head, lines in ((LOST, lost), (REST, rest)) if lines is not None}
    assert list(found) == list(wanted)
    for head, lines in wanted.items():
        assert matches(found[head], lines), found[head]


# --- Files ---


@pytest.mark.parametrize("text", ["", "\n", "# prefix = 1::", "hello = world\n{", "\0", "prefix 1::"])
def test_a_file_that_is_neither_is_refused(text: str) -> None:
    assert matches(mistakes(text), ["neither an npd6.conf"])


def test_our_own_format_is_refused() -> None:
    text = convert(PAIR, "f").toml
    assert matches(mistakes(text), ["this is npd6-xdp's own format already"])


@pytest.mark.parametrize("kind", ["npd6.conf", "ndppd.conf"])
def test_run_prints_toml_and_says_what_has_no_equal(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = FIXTURES / kind
    assert run(path) == 0
    out, err = capfd.readouterr()
    done = convert(path.read_text(), str(path))
    assert out == done.toml
    assert f"from {path}, an {kind}." in out.splitlines()[0]
    assert "npd6-xdp check --config" in out
    assert err.splitlines() == [f"npd6-xdp: {line}" for line in (f"{path}: read as {kind}", *done.remarks)]


def test_the_fixture_of_npd6_becomes() -> None:
    interfaces, said = read((FIXTURES / "npd6.conf").read_text())
    assert interfaces == [
        {
            "name": "wan0",
            "router": False,
            "collect_targets": 100,
            "rule": [{**RULE, "exclude": ["2001:db8:1:2::22", "2001:db8:1:2::100/120"]}],
        },
        {
            "name": "wan1",
            "router": False,
            "collect_targets": 100,
            "rule": [rule("2001:db8:3:4:8000::/65", "static", exclude=["2001:db8:3:4:dead:beef:dead:beef"])],
        },
    ]
    assert [line.split(":")[0] for line in said] == ["12", "19", "21", "21", "22", "24", "25", "26", "28", "29"]


def test_the_fixture_of_ndppd_becomes() -> None:
    interfaces, said = read((FIXTURES / "ndppd.conf").read_text())
    assert interfaces == [
        *wan(
            rule("2001:db8:1::/64", "static"),
            rule("2001:db8:2::/64", "neighbour", "lan0", "lan1", host_routes=True),
            rule("2001:db8:3::1", "route"),
        ),
        {"name": "wan1", "router": False, "rule": [rule("2001:db8:4::/64", "neighbour", "lan0")]},
    ]
    assert [line.split(":")[0] for line in said] == ["2", "3", "8", "9", "11", "12", "13", "23", "25", "31"]


def sample(path: Path) -> str:
    """A file of a distribution's package, which may be compressed."""
    packed = path.with_name(f"{path.name}.gz")
    return gzip.decompress(packed.read_bytes()).decode() if packed.exists() else path.read_text()


def test_the_sample_of_debian_s_npd6_becomes() -> None:
    interfaces, said = read(sample(NPD6_SAMPLE))
    assert interfaces == [
        {"name": "eth0", "collect_targets": 100, "rule": [rule("2222:1111:2222:3333::/64", "static")]}
    ]
    keys = ["ralogging", "listlogging", "linkOption", "ignoreLocal", "maxHops", "pollErrorLimit"]
    assert [remark.split(" ")[1] for remark in said] == keys


def test_the_sample_of_debian_s_ndppd_becomes() -> None:
    interfaces, said = read(sample(NDPPD_SAMPLE))
    assert interfaces == [{"name": "eth0", "rule": [rule("1111::", "route")]}]
    assert [remark.split(" ")[1] for remark in said] == ["route-ttl", "timeout", "ttl", "auto:"]


@pytest.mark.parametrize(("path", "kind"), [(NPD6_SAMPLE, "npd6.conf"), (NDPPD_SAMPLE, "ndppd.conf")])
def test_the_commands_convert_a_sample_of_debian_s_and_check_what_comes_out(
    tmp_path: Path, path: Path, kind: str
) -> None:
    def npd6(*argv: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "npd6_xdp", *argv]
        return subprocess.run(words, capture_output=True, text=True, timeout=120)

    old, new = tmp_path / "old.conf", tmp_path / "new.toml"
    old.write_text(sample(path))
    done = npd6("convert", str(old))
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert said[0] == f"npd6-xdp: {old}: read as {kind}"
    assert len(said) > 4, "what has no equal is said"
    new.write_text(done.stdout)
    done = npd6("check", "--config", str(new))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("eth0: hybrid")


@pytest.mark.parametrize(
    ("name", "content", "want"),
    [("missing", None, "can't read it: No such file"), ("latin", b"# \xfc", "not UTF-8 text: byte 2 can't be decoded")],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: bytes | None, want: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        run(path)
    assert str(caught.value).startswith(f"{path}: {want}")
    assert "\n" not in str(caught.value)


def test_a_name_that_no_comment_could_hold_is_escaped() -> None:
    done = convert(f"{PAIR}maxHops = 3\nx\x7f\u2028y", "a\nb\udc80\x00")
    tomllib.loads(done.toml)
    done.toml.encode()
    assert done.remarks[1].startswith('a\\nb\\udc80\\x00:4: "x\\x7f\\u2028y": left out')


# --- What holds for every file ---

ADDRESSES = st.integers(0, 2**16 - 1).map(lambda number: IPv6Address((0x20010DB8 << 96) + (number << 60) + number % 9))
SPECIAL = st.sampled_from(["::", "::1", "fe80::1", "ff02::1", "fe80::", "::ffff:0:1"])
PREFIXES = st.builds(
    lambda address, length: f"{address}/{length}",
    ADDRESSES | SPECIAL,
    st.sampled_from([0, 8, 32, 48, 60, 64, 127, 128]),
)
NAMES = st.sampled_from(["wan0", "wan1", "wan0.100", "br-lan", "w%d"])
OPERATORS = ["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "&&", "||", "<", "<=", ">", ">=", "==", "!="]
NUMBERS = st.sampled_from(["0", "1", "3", "017", "0xff", "0xffff", "0x20010db800000000", "0xffffffffffff0000"])
EXPRESSIONS = st.recursive(
    NUMBERS | st.sampled_from(["HOST", "PREFIX", "X", "mask(63,16)", "abs(-4)"]),
    lambda inner: (
        st.builds("({}{}{})".format, inner, st.sampled_from(OPERATORS), inner)
        | st.builds("{}{}{}".format, inner, st.sampled_from(OPERATORS), inner)
        | st.builds("{}{}".format, st.sampled_from("!~-+"), inner)
        | st.builds("(X={})".format, inner)
    ),
    max_leaves=5,
)
RANGES = st.builds(
    "({}{}{})".format, st.sampled_from(["HOST", "PREFIX"]), st.sampled_from(["<", "<=", ">", ">=", "=="]), NUMBERS
)
NPD6_OPTIONS = st.one_of(
    st.sampled_from(["routerNA=true", "routerNA=false", "linkOption=true", "ignoreLocal=false", "maxHops=0", "noise"]),
    st.sampled_from(["pollErrorLimit=20", "listlogging=on", "ralogging=off", "// x", "# y", "", "Prefix=2001:"]),
    st.builds("collectTargets={}".format, st.integers(0, 1_000_000)),
    st.builds("listtype={}".format, st.sampled_from(["none", "black", "white"])),
    st.builds("addrlist={}".format, ADDRESSES | SPECIAL),
    st.builds("exprlist={}".format, EXPRESSIONS | RANGES | st.builds("{}&&{}".format, RANGES, RANGES)),
)


@st.composite
def npd6_files(draw: st.DrawFn) -> str:
    pairs = draw(st.lists(st.tuples(PREFIXES, NAMES), min_size=1, max_size=4))
    prefixes = [f"prefix = {prefix}" for prefix, _ in pairs]
    names = [f"interface = {name}" for _, name in pairs]
    options = draw(st.lists(NPD6_OPTIONS, max_size=8))
    return "\n".join([*prefixes, *options, *names])


METHODS = st.one_of(
    st.sampled_from(["static", "auto", ""]),
    st.builds("iface {}".format, st.sampled_from(["lan0", "lan1", "br-x", "wg0", "tun-a", "gretap0"])),
)
NDPPD_RULES = st.builds(
    "rule {} {{ {}\n {} }}".format,
    PREFIXES,
    METHODS,
    st.sampled_from(["", "autovia yes", "odd 1", "autowire", "autowire no", "table 5", "rewrite 1::/64", "target 2:0"]),
)
NDPPD_OPTIONS = st.sampled_from(
    [
        "router no",
        "router yes",
        "router",
        "ttl 5",
        "timeout 5",
        "autowire yes",
        "keepalive no",
        "promiscuous yes",
        "promisc",
        "target 02:00:00:00:00:01",
        "outgoing yes",
        "# }",
        "/* { */",
        "new { }",
    ]
)


@st.composite
def ndppd_files(draw: st.DrawFn) -> str:
    sections = draw(
        st.lists(st.tuples(NAMES, st.lists(NDPPD_RULES | NDPPD_OPTIONS, max_size=6)), min_size=1, max_size=3)
    )
    blocks = [f"proxy {name} {{\n" + "\n".join(lines) + "\n}" for name, lines in sections]
    return "\n".join([draw(st.sampled_from(["", "route-ttl 5", "address-ttl = 5"])), *blocks])


def sound(text: str, allowed: str) -> Config | None:
    """What a file becomes: a valid configuration, or mistakes that begin with what is allowed."""
    try:
        done = convert(text, "f")
    except ConfigError as error:
        refused = error
    else:
        read(text)
        return parse(done.toml, "converted")
    assert all(mistake.message for mistake in refused.mistakes)
    assert any(re.search(allowed, mistake.message) for mistake in refused.mistakes), str(refused)
    return None


MACHINES = st.builds(
    Facts,
    st.dictionaries(NAMES | st.sampled_from(["lan0", "lan1", "wg0", "br-x"]), st.booleans()),
    st.dictionaries(NAMES, st.sets(PREFIXES.map(lambda text: IPv6Network(text, strict=False))).map(tuple)),
)


@given(ndppd_files(), MACHINES)
@settings(deadline=None)
def test_every_ndppd_conf_becomes_a_valid_configuration_on_any_machine(text: str, machine: Facts) -> None:
    if (config := sound(text, "no rule is left")) is None:
        return
    here = convert(text, "f", machine)
    known = parse(here.toml, "converted")
    read(text, machine)
    assert [[one.prefix for one in each.rules] for each in known.interfaces] == [
        [one.prefix for one in each.rules] for each in config.interfaces
    ], "what is known changes methods and remarks, never which prefixes there are"
    for each in known.interfaces:
        for one in each.rules:
            if one.method is Method.NEIGHBOUR:
                assert not any(machine.ethernet.get(name) is False for name in one.via), "nobody answers there"
            assert not one.host_routes or one.method is Method.NEIGHBOUR


@given(ndppd_files())
@settings(deadline=None)
def test_every_key_of_an_ndppd_conf_is_in_the_output_or_in_a_remark(text: str) -> None:
    """Nothing is dropped: each line that says something is a rule, a key, or a remark."""
    try:
        done = convert(text, "f")
    except ConfigError:
        return
    for number, line in enumerate(text.split("\n"), 1):
        for word in (
            "table",
            "rewrite",
            "target",
            "outgoing",
            "ttl",
            "timeout",
            "autovia",
            "odd",
            "promisc",
            "keepalive",
        ):
            if re.match(rf"\s*{word}", line):
                assert any(remark.startswith(f"f:{number}: ") and word in remark for remark in done.remarks), line


def decided(config: Config, name: str, target: IPv6Address) -> bool:
    """Whether a converted npd6.conf answers: the longest prefix of the interface decides."""
    rules = [each for interface in config.interfaces if interface.name == name for each in interface.rules]
    holding = [each for each in rules if target in each.networks[0].network]
    if not holding:
        return False
    one = max(holding, key=lambda each: each.networks[0].length)
    return one.method is Method.STATIC and selects(one, target)


def selects(one: RuleConfig, target: IPv6Address) -> bool:
    def held(selections: tuple[Any, ...]) -> bool:
        return any(target in network.network for entry in selections for network in entry.within(one.networks[0]))

    return (not one.include or held(one.include)) and not held(one.exclude)


CALCULATE: dict[str, Callable[[int, int], int]] = {
    "*": operator.mul,
    "/": operator.floordiv,
    "%": operator.mod,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "<<": lambda left, right: left << right % 64,
    ">>": lambda left, right: left >> right % 64,
    "&&": lambda left, right: bool(left) and bool(right),
    "||": lambda left, right: bool(left) or bool(right),
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


class Calculator:
    """npd6's expressions for one target: term operators from left to right, + and - after them, 64 bits."""

    def __init__(self, target: int) -> None:
        self.names = {"PREFIX": target >> 64, "HOST": target % 2**64}

    def matches(self, text: str) -> bool:
        self.tokens = re.findall(r"0x\w+|\d+|\w+|&&|\|\||[!=<>]=|<<|>>|.", text)
        return self.sum() != 0

    def take(self) -> str:
        return self.tokens.pop(0) if self.tokens else ""

    def sum(self) -> int:
        value = self.term()
        while self.tokens and self.tokens[0] in "+-":
            value += self.term() if self.take() == "+" else -self.term()
        return value % 2**64

    def term(self) -> int:
        value = self.primary()
        while self.tokens and self.tokens[0] not in {"+", "-", ")", ","}:
            sign, right = self.take(), self.primary()
            value = int(CALCULATE[sign](value, right)) % 2**64
        return value

    def primary(self) -> int:
        word = self.take()
        if word == "(":
            value = self.sum()
            self.take()
        elif word in {"!", "~", "-", "+"}:
            inner = self.primary()
            value = {"!": int(not inner), "~": ~inner, "-": -inner, "+": inner}[word]
        elif word in {"mask", "abs"}:
            while self.take() != ")":
                pass
            value = 0xFFFFFFFFFFFF0000 if word == "mask" else 4  # the only ones that the files have
        elif word[0].isdigit():
            value = int(word, 16 if word.startswith("0x") else 8 if word.startswith("0") else 10)
        else:
            if self.tokens and self.tokens[0] == "=":
                self.take()
                self.names[word] = self.sum()
            value = self.names.get(word, 0)
        return value % 2**64


def npd6_answers(text: str, name: str, target: IPv6Address) -> bool:
    """As npd6 decides: any pair of the interface, and the lists for all."""
    said = [line.replace(" ", "").split("=", 1) for line in text.splitlines() if "=" in line]
    prefixes = [IPv6Network(value, strict=False) for key, value in said if key == "prefix"]
    names = [value for key, value in said if key == "interface"]
    kind = next((value for key, value in reversed(said) if key == "listtype"), "none")
    covered = any(target in prefix and interface == name for prefix, interface in zip(prefixes, names, strict=True))
    if kind == "none":
        return covered
    calculator = Calculator(int(target))
    listed = [calculator.matches(value) for key, value in said if key == "exprlist"]
    listed += [IPv6Address(value) == target for key, value in said if key == "addrlist"]
    return any(listed) == (kind == "white") and covered


@given(npd6_files(), st.lists(ADDRESSES, max_size=4), st.lists(st.integers(-2, 2), min_size=1, max_size=3))
@settings(deadline=None)
@example("prefix = 2001:db8::/64\nlisttype=white\nexprlist=(HOST<3)\ninterface = wan0", [], [0])
@example("prefix = ::/0\nlisttype=black\nexprlist=HOST>=1&&HOST<=9\ninterface = wan0", [], [0])
def test_every_npd6_conf_answers_as_it_did(text: str, targets: list[IPv6Address], steps: list[int]) -> None:
    config = sound(text, r"no rule is left|it divides by 0|npd6 takes 126 characters")
    if config is None or "no plain range or mask" in convert(text, "f").toml:
        return
    ends = [
        entry for interface in config.interfaces for one in interface.rules for entry in (*one.include, *one.exclude)
    ]
    edges = [int(end) + step for entry in ends for end in (entry.first, entry.last) for step in steps]
    for target in [*targets, *(IPv6Address(edge) for edge in edges if 0 <= edge < 2**128)]:
        if target.is_link_local or target.is_multicast or int(target) < 2:
            continue  # never answered, and said so
        for name in ("wan0", "wan1"):
            assert decided(config, name, target) == npd6_answers(text, name, target), (name, target)


PIECES = st.sampled_from(
    ["prefix", "interface", "proxy", "rule", "wan0", "static", "auto", "iface", "2001:db8::", "/64", "fe80::1",
    "addrlist", "exprlist", "listtype", "black", "HOST",
    "<", "(", "=", ":", "{", "}", "/*", "*/", "//", "#", "'", '"', "\n", " "]
)  # fmt: skip


@given(st.sampled_from(["", "proxy a {", PAIR]), st.lists(PIECES | st.text(max_size=3), max_size=30).map("".join))
@settings(deadline=None)
@example("", "proxy a" + "{" * 5000)
@example("", "exprlist=" + "(" * 5000)
def test_no_text_makes_it_fail_otherwise(start: str, text: str) -> None:
    sound(start + text, "")
