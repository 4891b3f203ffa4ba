# SPDX-License-Identifier: GPL-2.0-or-later
"""What holds for every npd6.conf and ndppd.conf, drawn at random: what comes of it answers as it did."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from npd6_xdp.core.config import Config, RuleConfig
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import ConfigError
from npd6_xdp.core.verdict import Method
from npd6_xdp.tools.convert import convert
from npd6_xdp.tools.convert.machine import Facts
from tests.tools.convert.reading import PAIR, read

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
