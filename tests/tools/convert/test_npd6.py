# SPDX-License-Identifier: GPL-2.0-or-later
"""An npd6.conf becomes a configuration that says the same, and a remark on what it can't."""

from __future__ import annotations

from typing import Any

import pytest

from tests.tools.convert.reading import PAIR, RULE, WAN0, matches, mistakes, read


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
            ['1: prefix: not a prefix: "2001:db8:1"; write'],
        ),
        ("two ::", "prefix=1::2::/64\ninterface=a", ["1: prefix: not a prefix"]),
        ("no mask", "prefix=1::2\ninterface=a", ["1: prefix: not a prefix"]),
        ("nine groups", "prefix=1:2:3:4:5:6:7:8:\ninterface=a", ["1: prefix: not a prefix"]),
        ("scope", "prefix=fe80::1%a/128\ninterface=a", ["1: prefix: not a prefix"]),
        ("mask", "prefix=1::/129\ninterface=a", ["1: prefix: a mask is a whole number from 0 to 128"]),
        ("empty mask", "prefix=1::/\ninterface=a", ["1: prefix: a mask is"]),
        ("comment", "prefix=1:: // x\ninterface=a", ["comments on lines of their own only"]),
        ("comment, again", "prefix=1::\ninterface=a # x", ["comments on lines of their own only"]),
        ("long name", "prefix=1::\ninterface=abcdefghijklmnop", ["2: interface: an interface's name has 1 to 15"]),
        ("alias", "prefix=1::\ninterface=eth0:1", ['2: interface: an interface\'s name holds no ":"']),
        ("slash", "prefix=1::\ninterface=a/b", ["2: interface: not an interface's name"]),
        ("glob", "prefix=1::\ninterface=eth*", ['2: interface: "eth*" would be a pattern']),
        ("more prefixes", "prefix=1::\nprefix=2::\ninterface=a", ["2 prefixes and 1 interfaces"]),
        ("none", "routerNA=true", ["no prefix and no interface"]),
        ("= =", f"{PAIR}routerNA=true=false", ['3: routerNA: one "=" and one value']),
        ("routerNA", f"{PAIR}routerNA=yes", ["3: routerNA: must be true or false; found"]),
        ("linkOption", f"{PAIR}linkOption=1", ["3: linkOption: must be true or false"]),
        ("ignoreLocal", f"{PAIR}ignoreLocal=1", ["3: ignoreLocal: must be true or false"]),
        ("listlogging", f"{PAIR}listlogging=true", ["3: listlogging: must be on or off"]),
        ("ralogging", f"{PAIR}ralogging=true", ["3: ralogging: must be on or off"]),
        ("listtype", f"{PAIR}listtype=grey", ["3: listtype: must be none or black or white"]),
        ("collectTargets", f"{PAIR}collectTargets=1000001", ["3: collectTargets: must be a whole number"]),
        ("maxHops", f"{PAIR}maxHops=256", ["3: maxHops: must be a whole number from 0 to 255"]),
        ("pollErrorLimit", f"{PAIR}pollErrorLimit=-1", ["3: pollErrorLimit: must be"]),
        ("addrlist", f"{PAIR}addrlist=2001:db8::/64", ["3: addrlist: must be one whole IPv6 address"]),
        ("addrlist scope", f"{PAIR}addrlist=fe80::1%wan0", ["3: addrlist: must be one whole"]),
        ("bracket", f"{PAIR}exprlist=(HOST", ['3: exprlist: ")" is missing before the end']),
        ("no value", f"{PAIR}exprlist=HOST<", ["3: exprlist: a value is missing before the end"]),
        ("junk", f"{PAIR}exprlist=HOST@1", ['3: exprlist: unexpected "@"']),
        ("octal", f"{PAIR}exprlist=HOST<08", ['3: exprlist: "08" is no octal number']),
        ("by zero", f"{PAIR}exprlist=1/0", ["3: exprlist: it divides by 0"]),
        ("mask()", f"{PAIR}exprlist=mask(1)", ['3: exprlist: "," is missing before ")"']),
        ("a long one", f"{PAIR}exprlist={'1+' * 70}1", ["3: exprlist: npd6 takes 126 characters a line"]),
        ("all of them", "prefix=x\ninterface=a:b\nmaxHops=x", ["1: ", "2: ", "3: "]),
        (
            "nothing is left",
            "interface=a\nprefix=ff00::/8",
            ["no rule is left", "1: interface a: left out", '2: "ff00::/8": left out: multicast'],
        ),
    ],
)
def test_mistakes_in_npd6_conf(name: str, text: str, want: list[str]) -> None:
    found = mistakes(text)
    assert matches(found, want), found


def test_lists_of_too_many_for_the_prefixes_are_refused_in_one_line() -> None:
    pairs = "".join(f"prefix=2001:db8:{number:x}:\ninterface=wan0\n" for number in range(1001))
    entries = "".join(f"addrlist=2001:db8::{number:x}\n" for number in range(1000))
    (found,) = mistakes(f"listtype=black\n{pairs}{entries}")
    assert "1001 prefixes and 1000 entries of lists are too many; more than 1,000,000 pairs of them overlap" in found
    assert "listtype black or white" in read(f"{pairs}{entries}")[1][0], "lists that nothing goes by"
