# SPDX-License-Identifier: GPL-2.0-or-later
"""The configuration file: what is accepted and what it means, what is refused, where and with which words."""

from __future__ import annotations

import datetime
import re
import tomllib
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npd6_xdp.core.config import (
    Attach,
    Config,
    DadPolicy,
    Datapath,
    InterfaceConfig,
    NaSource,
    RuleConfig,
    Vlan,
    parse,
)
from npd6_xdp.core.errors import ConfigError, Mistake
from npd6_xdp.core.verdict import Method

REFERENCE = (Path(__file__).parents[2] / "deploy" / "npd6-xdp.toml").read_text()

RULE = '[[interface.rule]]\nprefix = "2001:db8:1::/64"\nmethod = "static"\n'
MINIMAL = f'[[interface]]\nname = "wan0"\n{RULE}'
MINIMAL_RULE = RuleConfig("2001:db8:1::/64", IPv6Network("2001:db8:1::/64"), Method.STATIC)


def daemon(lines: str) -> str:
    """A file that is right but for what `lines` add to [daemon]."""
    return f"[daemon]\n{lines}\n{MINIMAL}"


def limits(lines: str) -> str:
    """The same for [limits]."""
    return f"[limits]\n{lines}\n{MINIMAL}"


def listen(value: str) -> str:
    """The same for metrics.listen."""
    return f"[metrics]\nlisten = {value}\n{MINIMAL}"


def interface(lines: str, name: str = '"wan0"') -> str:
    """The same for [[interface]]."""
    return f"[[interface]]\nname = {name}\n{lines}\n{RULE}"


def rule(lines: str = "", prefix: str = '"2001:db8:1::/64"', method: str = '"static"') -> str:
    """The same for [[interface.rule]]."""
    return f'[[interface]]\nname = "wan0"\n[[interface.rule]]\nprefix = {prefix}\nmethod = {method}\n{lines}\n'


def mistakes(text: str) -> list[Mistake]:
    """What is wrong with a file; [] if nothing is."""
    try:
        parse(text, "npd6-xdp.toml")
    except ConfigError as raised:
        error = raised
    else:
        return []
    assert error.mistakes
    assert str(error).splitlines() == [f"npd6-xdp.toml: {mistake}" for mistake in error.mistakes]
    return list(error.mistakes)


def only(config: Config) -> InterfaceConfig:
    """The one interface of a configuration."""
    (entry,) = config.interfaces
    return entry


# --- What is accepted ---


def test_a_minimal_file_has_the_contracts_defaults() -> None:
    """DESIGN.md, 'Configuration': "The values above are the defaults"."""
    assert parse(MINIMAL, "") == Config(
        interfaces=(
            InterfaceConfig(
                name="wan0",
                rules=(MINIMAL_RULE,),
                vlan=Vlan(any=False, tags=()),
                attach=Attach.AUTO,
                datapath=Datapath.HYBRID,
                router=True,
                dad=DadPolicy.IGNORE,
                na_source=NaSource.TARGET,
            ),
        ),
        log_level="info",
        log_format="text",
        metrics_listen=("::1", 9846),
    )


def test_a_full_file_means_what_it_says() -> None:
    text = """
        daemon = { log_level = "debug", log_format = "json" }
        metrics.listen = "127.0.0.1:80"
        [limits]
        [[interface]]
        name = "wan0"
        vlan = "100.7"
        attach = "generic"
        datapath = "monitor"
        router = false
        dad = "defend"
        na_source = "interface"
        [[interface.rule]]
        prefix = "2001:DB8::42"
        method = "ignore"
        [[interface.rule]]
        prefix = "::/0"
        method = "static"
        [[interface]]
        name = "wan0"
        rule = [{ prefix = "fe80::1", method = "static" }]
        """
    first = InterfaceConfig(
        name="wan0",
        rules=(
            RuleConfig("2001:DB8::42", IPv6Network("2001:db8::42/128"), Method.IGNORE),
            RuleConfig("::/0", IPv6Network("::/0"), Method.STATIC),
        ),
        vlan=Vlan(tags=(100, 7)),
        attach=Attach.GENERIC,
        datapath=Datapath.MONITOR,
        router=False,
        dad=DadPolicy.DEFEND,
        na_source=NaSource.INTERFACE,
    )
    second = InterfaceConfig("wan0", (RuleConfig("fe80::1", IPv6Network("fe80::1/128"), Method.STATIC),))
    assert parse(text, "") == Config((first, second), "debug", "json", ("127.0.0.1", 80))


@pytest.mark.parametrize("tables", ["", "[daemon]\n", "[metrics]\n", "[limits]\n", "[daemon]\n[metrics]\n[limits]\n"])
def test_empty_and_absent_tables_hold_their_defaults(tables: str) -> None:
    assert parse(tables + MINIMAL, "") == parse(MINIMAL, "")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_every_log_level_is_taken(level: str) -> None:
    assert parse(daemon(f'log_level = "{level}"'), "").log_level == level


LISTEN = (
    ('""', None),
    ('"[::1]:9846"', ("::1", 9846)),
    ('"127.0.0.1:9846"', ("127.0.0.1", 9846)),
    ('"[::]:1"', ("::", 1)),
    ('"0.0.0.0:65535"', ("0.0.0.0", 65535)),  # noqa: S104  a text, not a socket
    ('"[2001:DB8:0::1]:09846"', ("2001:db8::1", 9846)),
)


@pytest.mark.parametrize(("value", "want"), LISTEN)
def test_metrics_listen_is_an_address_and_a_port_or_off(value: str, want: tuple[str, int] | None) -> None:
    assert parse(listen(value), "").metrics_listen == want


VLANS = (
    ('"untagged"', Vlan(), "untagged"),
    ('"any"', Vlan(any=True), "any"),
    ("1", Vlan(tags=(1,)), "1"),
    ("4094", Vlan(tags=(4094,)), "4094"),
    ('"100"', Vlan(tags=(100,)), "100"),
    ('"100.7"', Vlan(tags=(100, 7)), "100.7"),
    ('"100.70"', Vlan(tags=(100, 70)), "100.70"),
    ('"4094.4094"', Vlan(tags=(4094, 4094)), "4094.4094"),
)


@pytest.mark.parametrize(("value", "want", "spelled"), VLANS)
def test_vlan_is_untagged_any_or_one_or_two_ids(value: str, want: Vlan, spelled: str) -> None:
    vlan = only(parse(interface(f"vlan = {value}"), "")).vlan
    assert (vlan, str(vlan)) == (want, spelled)


@pytest.mark.parametrize("name", ["a", "wan0.100", "fifteen-letters", "br-1a2b_3c@x", "ünïçødé"])
def test_an_interfaces_name_is_what_linux_takes(name: str) -> None:
    assert only(parse(interface("", f'"{name}"'), "")).name == name


def test_one_port_may_have_an_entry_for_each_vlan() -> None:
    text = "".join(interface(f"vlan = {vlan}") for vlan in ('"untagged"', '"any"', 100, 7, '"100.7"', '"7.100"'))
    labels = [entry.label for entry in parse(text, "").interfaces]
    assert labels == ["wan0", "wan0:any", "wan0:100", "wan0:7", "wan0:100.7", "wan0:7.100"]


def test_two_interfaces_may_have_the_same_prefix() -> None:
    entries = parse(interface("", '"wan0"') + interface("", '"wan1"'), "").interfaces
    assert [(entry.name, entry.rules) for entry in entries] == [("wan0", (MINIMAL_RULE,)), ("wan1", (MINIMAL_RULE,))]


def test_one_entry_may_have_prefixes_within_prefixes() -> None:
    text = MINIMAL + "".join(
        f'[[interface.rule]]\nprefix = "{prefix}"\nmethod = "ignore"\n'
        for prefix in ("::/0", "2001:db8:1::", "2001:db8:1::/65")
    )
    assert [rule.network.prefixlen for rule in only(parse(text, "")).rules] == [64, 0, 128, 65]


PREFIXES = (
    ("2001:db8::1", "2001:db8::1/128"),
    ("2001:0DB8:0::/48", "2001:db8::/48"),
    ("::/0", "::/0"),
    ("::/126", "::/126"),  # holds ::2 and ::3 too
    ("::2", "::2/128"),
    ("fe00::/7", "fe00::/7"),  # holds ff00::/8, but not it alone
    ("fe80::1", "fe80::1/128"),
    ("fe80::1/128", "fe80::1/128"),
    ("fe80::/9", "fe80::/9"),  # wider than link-local
    ("fec0::/10", "fec0::/10"),
    ("::ffff:192.0.2.1", "::ffff:192.0.2.1/128"),
)


@pytest.mark.parametrize(("prefix", "network"), PREFIXES)
def test_a_prefix_is_a_network_or_an_address(prefix: str, network: str) -> None:
    (got,) = only(parse(rule(prefix=f'"{prefix}"'), "")).rules
    assert got == RuleConfig(prefix, IPv6Network(network), Method.STATIC)


# --- What is refused: name, file, place, a part of the message ---

HERE, ITS_RULE = "interface[0]", "interface[0].rule[0]"
NOT_YET = "this version does not implement"

SYNTAX = (
    (
        "an unquoted word",
        rule(method="static"),
        "line 5, column 10",
        "not valid TOML: Invalid value; text needs quotes",
    ),
    (
        "an unquoted word that begins as a number",  # inf
        daemon("log_level = info"),
        "line 2, column 16",
        "text needs quotes",
    ),
    ("no value", MINIMAL + "via =", "end of document", "not valid TOML"),
    (
        "a key twice",
        daemon('log_level = "info"\nlog_level = "info"\n'),
        "line 3, column 19",
        "a key or table is there twice",
    ),
    ("a table twice", "[daemon]\n[daemon]\n", "line 2, column 8", "Cannot declare daemon twice"),
    (
        "a table in a table twice",
        "[interface.rule]\n[interface.rule]\n",
        "line 2, column 16",
        "declare interface.rule twice",
    ),
    ("[interface] and [[interface]]", "[interface]\n[[interface]]", "line 2, column 12", "as [table] and as [[table]]"),
    ("a control character", "[daemon]\nlog_level = '\x00'", "line 2, column 14", "not valid TOML"),
    ("more digits than Python takes", limits("pending = " + "9" * 5000), "", "a number is too long"),
    ("nesting deeper than Python goes", "a = " + "[" * 100_000, "", "nest too deeply"),
)

TABLES = (
    ("an empty file", "", "", "no interface; write [[interface]]"),
    ("no interface", "[daemon]\n", "", "no interface; write [[interface]]"),
    ("an empty array of interfaces", "interface = []", "", "no interface; write [[interface]]"),
    ("no rule", '[[interface]]\nname = "wan0"', HERE, "no rule; write [[interface.rule]]"),
    ("an empty array of rules", '[[interface]]\nname = "wan0"\nrule = []', HERE, "no rule; write [[interface.rule]]"),
    (
        "single brackets around interface",
        MINIMAL.replace("[[interface]]", "[interface]"),
        "interface",
        "[[interface]], in double brackets",
    ),
    (
        "single brackets around rule",
        MINIMAL.replace("[[interface.rule]]", "[interface.rule]"),
        f"{HERE}.rule",
        "[[interface.rule]], in double brackets",
    ),
    (
        "an interface that is no table",
        'interface = "wan0"',
        "interface",
        'must be a table; write [[interface]]; found the string "wan0"',
    ),
    (
        "an interface in an array that is no table",
        "interface = [1]",
        "interface[0]",
        "must be a table; write [[interface]]; found the whole number 1",
    ),
    (
        "a rule that is no table",
        '[[interface]]\nname = "wan0"\nrule = "::/0"',
        f"{HERE}.rule",
        'must be a table; write [[interface.rule]]; found the string "::/0"',
    ),
    (
        "a rule in an array that is no table",
        '[[interface]]\nname = "wan0"\nrule = ["::/0"]',
        ITS_RULE,
        'must be a table; write [[interface.rule]]; found the string "::/0"',
    ),
    (
        "double brackets around daemon",
        "[[daemon]]\n" + MINIMAL,
        "daemon",
        "must be one table; write [daemon]; found an array",
    ),
    (
        "metrics that is no table",
        'metrics = "[::1]:9846"\n' + MINIMAL,
        "metrics",
        "must be one table; write [metrics]; found the string",
    ),
    (
        "limits that is no table",
        "limits = 5\n" + MINIMAL,
        "limits",
        "must be one table; write [limits]; found the whole number 5",
    ),
    ("no name", f"[[interface]]\n{RULE}", f"{HERE}.name", 'missing; write one such as name = "wan0"'),
    (
        "no prefix",
        rule().replace("prefix =", "#"),
        f"{ITS_RULE}.prefix",
        'missing; write one such as prefix = "2001:db8:1::/64"',
    ),
    (
        "no method",
        rule().replace("method =", "#"),
        f"{ITS_RULE}.method",
        'missing; write one such as method = "static"',
    ),
)

UNKNOWN = (
    ("a table like a known one", "[deamon]\n" + MINIMAL, "deamon", 'unknown key "deamon"; did you mean "daemon"?'),
    (
        "a table in the plural",
        MINIMAL.replace("[[interface]]", "[[interface]]\nrules = []"),
        f"{HERE}.rules",
        'did you mean "rule"?',
    ),
    ("a table like nothing", "[xyzzy]\n" + MINIMAL, "xyzzy", 'unknown key "xyzzy"; leave it out'),
    ("a key like a known one", listen('""\nlisten_on = ""'), "metrics.listen_on", 'did you mean "listen"?'),
    ("a key in capitals", interface("Router = true"), f"{HERE}.Router", 'did you mean "router"?'),
    ("a key like one that isn't implemented", rule("exlude = []"), f"{ITS_RULE}.exlude", 'did you mean "exclude"?'),
    ("a key like nothing", limits("xyzzy = 1"), "limits.xyzzy", 'unknown key "xyzzy"; leave it out'),
    (
        "a key of another table",
        rule('datapath = "python"'),
        f"{ITS_RULE}.datapath",
        "does not belong here; write it under [[interface]]",
    ),
    (
        "a key of two other tables",
        daemon('dad = "defend"'),
        "daemon.dad",
        "write it under [[interface]] or [[interface.rule]]",
    ),
    ("a key outside its table", 'listen = ""\n' + MINIMAL, "listen", "does not belong here; write it under [metrics]"),
    ("a key with a space", interface('"a b" = 1'), f'{HERE}."a b"', 'unknown key "a b"'),
    ("a key with a line break", daemon(r'"a\nb" = 1'), r'daemon."a\nb"', r'unknown key "a\nb"'),
    ("a key with a dot", interface('"rule.prefix" = "::/0"'), f'{HERE}."rule.prefix"', 'unknown key "rule.prefix"'),
    ("an endless key", daemon("k" * 999 + " = 1"), f'daemon."{"k" * 57}..."', 'unknown key "kkk'),
)

VALUES = (
    (
        "a log level like a known one",
        daemon('log_level = "warn"'),
        "daemon.log_level",
        'must be "debug" or "info" or "warning" or "error", probably "warning"; found the string "warn"',
    ),
    (
        "a log level in capitals",
        daemon('log_level = "INFO"'),
        "daemon.log_level",
        'probably "info"; found the string "INFO"',
    ),
    (
        "a log level that is a number",
        daemon("log_level = 3"),
        "daemon.log_level",
        'or "error"; found the whole number 3',
    ),
    (
        "a log format",
        daemon('log_format = "xml"'),
        "daemon.log_format",
        'must be "text" or "json"; found the string "xml"',
    ),
    ("attach", interface('attach = "driver"'), f"{HERE}.attach", 'must be "auto" or "native" or "generic"'),
    ("datapath", interface('datapath = "xdp"'), f"{HERE}.datapath", 'must be "hybrid" or "python" or "monitor"'),
    ("dad", interface("dad = false"), f"{HERE}.dad", 'must be "ignore" or "defend"; found false'),
    (
        "na_source",
        interface('na_source = "interfaces"'),
        f"{HERE}.na_source",
        'must be "target" or "interface", probably "interface"',
    ),
    (
        "router as a number",
        interface("router = 1"),
        f"{HERE}.router",
        "must be true or false, without quotes; found the whole number 1",
    ),
    (
        "router in quotes",
        interface('router = "true"'),
        f"{HERE}.router",
        'must be true or false, without quotes; found the string "true"',
    ),
    (
        "a method that isn't any",
        rule(method='"proxy"'),
        f"{ITS_RULE}.method",
        'must be "static" or "ignore"; found the string "proxy"',
    ),
    ("a method that is true", rule(method="true"), f"{ITS_RULE}.method", 'must be "static" or "ignore"; found true'),
    (
        "a name that is a number",
        interface("", "0"),
        f"{HERE}.name",
        'must be a string such as "wan0"; found the whole number 0',
    ),
    (
        "a prefix that is an array",
        rule(prefix='["::/0"]'),
        f"{ITS_RULE}.prefix",
        'must be a string such as "2001:db8:1::/64"; found an array',
    ),
    ("a prefix that is a table", rule(prefix='{ a = "::/0" }'), f"{ITS_RULE}.prefix", "found a table"),
    (
        "listen that is a port",
        listen("9846"),
        "metrics.listen",
        'must be a string such as "[::1]:9846"; found the whole number 9846',
    ),
    ("listen that is a date", listen("2026-02-03"), "metrics.listen", "found a date or time"),
    ("listen that is not a number", listen("nan"), "metrics.listen", "found the number nan"),
    ("listen that is a huge number", listen("0x" + "f" * 5000), "metrics.listen", "found a huge whole number"),
    ("a string over two lines", daemon(r'log_level = "in\nfo"'), "daemon.log_level", r'found the string "in\nfo"'),
    (
        "a string with a line separator",
        daemon('log_level = "\u2028"'),
        "daemon.log_level",
        r'found the string "\u2028"',
    ),
    (
        "an endless string",
        daemon(f'log_level = "{"x" * 999}"'),
        "daemon.log_level",
        f'found the string "{"x" * 57}..."',
    ),
)

ENDPOINTS = (
    (
        "no brackets",
        listen('"::1:9846"'),
        "metrics.listen",
        'ADDRESS:PORT, IPv6 in brackets; write "[::1]:9846"; found the string',
    ),
    ("no brackets, another port", listen('"2001:db8::1:80"'), "metrics.listen", 'write "[2001:db8::1]:80"'),
    ("no brackets, no port", listen('"2001:db8::1"'), "metrics.listen", 'write "[2001:db8::1]:9846"'),
    ("brackets that don't close", listen('"[::1:9846"'), "metrics.listen", 'write "[::1]:9846"'),
    ("IPv6 without a port", listen('"[::1]"'), "metrics.listen", 'the port is missing; write "[::1]:9846"'),
    ("IPv4 without a port", listen('"127.0.0.1"'), "metrics.listen", 'the port is missing; write "127.0.0.1:9846"'),
    ("a colon without a port", listen('"127.0.0.1:"'), "metrics.listen", 'the port is missing; write "127.0.0.1:9846"'),
    ("a port without an address", listen('":9846"'), "metrics.listen", "must be an IP address, not a name, and a port"),
    ("a host name", listen('"localhost:9846"'), "metrics.listen", "must be an IP address, not a name, and a port"),
    ("a host name in brackets", listen('"[localhost]:9846"'), "metrics.listen", "must be an IP address, not a name"),
    ("IPv4 in brackets", listen('"[127.0.0.1]:80"'), "metrics.listen", 'takes no brackets; write "127.0.0.1:80"'),
    ("a scope id", listen('"[fe80::1%wan0]:9846"'), "metrics.listen", "takes no scope id (%)"),
    ("port 0", listen('"[::1]:0"'), "metrics.listen", "the port must be a whole number from 1 to 65535"),
    ("port 65536", listen('"[::1]:65536"'), "metrics.listen", "the port must be a whole number from 1 to 65535"),
    ("a port in digits of another script", listen('"[::1]:٨٠"'), "metrics.listen", "the port must be a whole number"),
    ("a service's name", listen('"127.0.0.1:http"'), "metrics.listen", "the port must be a whole number"),
)

NAMES = (
    ("an empty name", interface("", '""'), f"{HERE}.name", "an interface's name has 1 to 15 characters"),
    (
        "16 characters",
        interface("", '"sixteen-letters-"'),
        f"{HERE}.name",
        "an interface's name has 1 to 15 characters",
    ),
    ("16 octets", interface("", '"üüüüüüüü"'), f"{HERE}.name", "an interface's name has 1 to 15 characters"),
    ("a slash", interface("", '"wan/0"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a space", interface("", '"wan 0"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a tab", interface("", r'"wan\t0"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a zero byte", interface("", r'"wan\u0000"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a directory", interface("", '".."'), f"{HERE}.name", 'holds no "/" and no white space; found the string ".."'),
    ("a VLAN after a colon", interface("", '"wan0:100"'), f"{HERE}.name", 'holds no ":"; a VLAN is a key of its own'),
)

TAGS = (
    (
        "two tags without quotes",
        interface("vlan = 100.7"),
        f"{HERE}.vlan",
        'write vlan = "100.7"; found the number 100.7',
    ),
    ("two tags without quotes that end in 0", interface("vlan = 100.70"), f"{HERE}.vlan", 'write vlan = "100.70"'),
    ("VLAN 0", interface("vlan = 0"), f"{HERE}.vlan", "VLAN 0 is none: its tag carries a priority only"),
    ("VLAN 0 inside", interface('vlan = "100.0"'), f"{HERE}.vlan", "VLAN 0 is none"),
    ("VLAN 0 without quotes inside", interface("vlan = 100.0"), f"{HERE}.vlan", "VLAN 0 is none"),
    ("VLAN 4095", interface("vlan = 4095"), f"{HERE}.vlan", "VLAN 4095 is reserved (IEEE 802.1Q)"),
    ("VLAN 4095 outside", interface('vlan = "4095.1"'), f"{HERE}.vlan", "VLAN 4095 is reserved"),
    ("VLAN 4096", interface("vlan = 4096"), f"{HERE}.vlan", "a VLAN is 1 to 4094; found the whole number 4096"),
    ("a negative VLAN", interface("vlan = -1"), f"{HERE}.vlan", "a VLAN is 1 to 4094; found the whole number -1"),
    (
        "a VLAN with an exponent",
        interface("vlan = 1e2"),
        f"{HERE}.vlan",
        'or two such as "100.7"; found the number 1e2',
    ),
    (
        "three tags",
        interface('vlan = "1.2.3"'),
        f"{HERE}.vlan",
        'must be "untagged", "any", a VLAN such as 100, or two',
    ),
    ("a word", interface('vlan = "tagged"'), f"{HERE}.vlan", 'found the string "tagged"'),
    ("true", interface("vlan = true"), f"{HERE}.vlan", 'must be "untagged", "any", a VLAN such as 100'),
    ("a list", interface("vlan = [100, 7]"), f"{HERE}.vlan", "found an array"),
    ("a huge number", interface("vlan = 0x" + "f" * 5000), f"{HERE}.vlan", "found a huge whole number"),
    ("digits of another script", interface('vlan = "٧"'), f"{HERE}.vlan", 'must be "untagged"'),
)

TARGETS = (
    (
        "host bits",
        rule(prefix='"2001:db8::1/64"'),
        "2001:db8::1/64 has host bits set; write 2001:db8::/64 or 2001:db8::1;",
    ),
    ("host bits that are ::1", rule(prefix='"::1/64"'), "::1/64 has host bits set; write ::/64;"),
    ("IPv4", rule(prefix='"192.0.2.0/24"'), "must be an IPv6 prefix, and IPv6 only"),
    ("an IPv4 address", rule(prefix='"192.0.2.1"'), "must be an IPv6 prefix, and IPv6 only"),
    ("a scope id", rule(prefix='"fe80::1%wan0"'), "takes no scope id (%)"),
    ("a scope id with a length", rule(prefix='"2001:db8::%1/64"'), "takes no scope id (%)"),
    ("a length above 128", rule(prefix='"2001:db8::/129"'), "the prefix length must be a whole number from 0 to 128"),
    (
        "no length after the slash",
        rule(prefix='"2001:db8::/"'),
        "the prefix length must be a whole number from 0 to 128",
    ),
    ("an IPv4 mask", rule(prefix='"2001:db8::/255.0.0.0"'), "the prefix length must be a whole number from 0 to 128"),
    ("two slashes", rule(prefix='"2001:db8::/64/64"'), "must be an IPv6 prefix or address"),
    ("white space", rule(prefix='" 2001:db8::/64"'), "must be an IPv6 prefix or address"),
    ("nothing", rule(prefix='""'), 'must be an IPv6 prefix or address, such as "2001:db8:1::/64"; found the string ""'),
    ("a name", rule(prefix='"lan0"'), 'must be an IPv6 prefix or address, such as "2001:db8:1::/64"; found the string'),
    ("a name with a dash", rule(prefix='"lan-0"'), "must be an IPv6 prefix or address"),
    ("all of multicast", rule(prefix='"ff00::/8"'), "multicast addresses, :: and ::1 are never answered"),
    ("a multicast address", rule(prefix='"ff02::1:ff00:1"'), "multicast addresses, :: and ::1 are never answered"),
    (
        "a multicast prefix with host bits",
        rule(prefix='"ff02::1/16"'),
        "multicast addresses, :: and ::1 are never answered",
    ),
    ("the unspecified address", rule(prefix='"::"'), "multicast addresses, :: and ::1 are never answered"),
    ("loopback", rule(prefix='"::1"'), "multicast addresses, :: and ::1 are never answered"),
    ("both", rule(prefix='"::/127"', method='"ignore"'), "multicast addresses, :: and ::1 are never answered"),
    (
        "all of link-local",
        rule(prefix='"fe80::/10"'),
        'link-local targets need a rule each; write the address, such as "fe80::"',
    ),
    ("a link-local prefix", rule(prefix='"fe80::/64"'), "link-local targets need a rule each"),
    ("a link-local prefix with host bits", rule(prefix='"fe80::1/64"'), 'write the address, such as "fe80::1"'),
    ("two link-local addresses", rule(prefix='"febf::2/127"'), "link-local targets need a rule each"),
)

LATER = (
    ("daemon.control", daemon('control = "/run/x"'), "daemon.control"),
    ("limits.events_per_second", limits("events_per_second = 1"), "limits.events_per_second"),
    ("limits.pending", limits("pending = 512"), "limits.pending"),
    ("limits.neighbours", limits("neighbours = 1"), "limits.neighbours"),
    ("limits.kernel_entries", limits("kernel_entries = 1"), "limits.kernel_entries"),
    ("limits.kernel_entry_age", limits("kernel_entry_age = 1"), "limits.kernel_entry_age"),
    ("events_per_source", interface("events_per_source = 0"), f"{HERE}.events_per_source"),
    ("collect_targets", interface("collect_targets = 0"), f"{HERE}.collect_targets"),
    ("via", rule('via = ["lan0"]'), f"{ITS_RULE}.via"),
    ("include", rule('include = ["::1"]'), f"{ITS_RULE}.include"),
    ("exclude", rule("exclude = []"), f"{ITS_RULE}.exclude"),
    ("router per rule", rule("router = true"), f"{ITS_RULE}.router"),
    ("dad per rule", rule('dad = "ignore"'), f"{ITS_RULE}.dad"),
    ("na_source per rule", rule('na_source = "target"'), f"{ITS_RULE}.na_source"),
    ("host_routes", rule("host_routes = false"), f"{ITS_RULE}.host_routes"),
    ("a key of a wrong type", limits('pending = "many"'), "limits.pending"),
    ("method route", rule(method='"route"'), f"{ITS_RULE}.method"),
    ("method neighbour", rule(method='"neighbour"'), f"{ITS_RULE}.method"),
    ("method kernel", rule(method='"kernel"'), f"{ITS_RULE}.method"),
    ("a range", rule(prefix='"2001:db8::10-2001:db8::1f"'), f"{ITS_RULE}.prefix"),
    ("a range with spaces", rule(prefix='"::10 - ::1f"'), f"{ITS_RULE}.prefix"),
    ("an interface's prefixes", rule(prefix='"interface:lan0"'), f"{ITS_RULE}.prefix"),
    ("a glob", interface("", '"wan*"'), f"{HERE}.name"),
    ("a glob of one character", interface("", '"wan?"'), f"{HERE}.name"),
    ("a glob of a class", interface("", '"[ew]an0"'), f"{HERE}.name"),
)

TWICE = (
    ("an interface", MINIMAL + MINIMAL, "interface[1]", "the same name and vlan as interface[0]"),
    (
        "an interface with its default said",
        MINIMAL + interface('vlan = "untagged"'),
        "interface[1]",
        "the same name and vlan as interface[0]",
    ),
    (
        "a vlan in two spellings",
        interface("vlan = 7") + interface("", '"wan1"') + interface('vlan = "7"'),
        "interface[2]",
        "the same name and vlan as interface[0]",
    ),
    ("a prefix", MINIMAL + RULE, f"{HERE}.rule[1].prefix", f"the same prefix as {HERE}.rule[0].prefix"),
    (
        "a prefix with two methods",
        MINIMAL + RULE.replace("static", "ignore"),
        f"{HERE}.rule[1].prefix",
        f"the same prefix as {HERE}.rule[0].prefix",
    ),
    (
        "an address in two spellings",
        rule(prefix='"::ABCD"') + RULE + RULE.replace("2001:db8:1::/64", "0::abcd/128"),
        f"{HERE}.rule[2].prefix",
        f"the same prefix as {HERE}.rule[0].prefix",
    ),
)

MISTAKES = (
    *SYNTAX,
    *TABLES,
    *UNKNOWN,
    *VALUES,
    *ENDPOINTS,
    *NAMES,
    *TAGS,
    *((name, text, f"{ITS_RULE}.prefix", fragment) for name, text, fragment in TARGETS),
    *((name, text, place, NOT_YET) for name, text, place in LATER),
    *TWICE,
)


@pytest.mark.parametrize(("text", "place", "fragment"), [pytest.param(*row, id=name) for name, *row in MISTAKES])
def test_a_mistake_is_refused_at_its_place_in_words_that_help(text: str, place: str, fragment: str) -> None:
    (mistake,) = mistakes(text)
    assert mistake.place == place
    assert fragment in mistake.message


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text, *_ in MISTAKES])
def test_a_message_is_one_line_without_the_words_of_python(text: str) -> None:
    (line,) = (str(mistake) for mistake in mistakes(text))
    assert len(line.splitlines()) == 1
    assert not re.search(r"\b(str|int|float|bool|dict|list|None|True|False|NoneType|Decimal)\b", line)
    assert len(line) < 250


def test_every_mistake_is_found_in_the_files_order() -> None:
    text = """
        [daemon]
        log_level = "loud"
        control = "/run/x"
        [[interface]]
        vlan = 4095
        [[interface.rule]]
        prefix = "2001:db8::1/64"
        method = "route"
        via = ["lan0"]
        [[interface.rule]]
        prefix = "192.0.2.1"
        [[interface]]
        name = "wan*"
        colour = "red"
        [[interface]]
        name = "wan0"
        [[interface.rule]]
        prefix = "::/0"
        method = "static"
        [[interface.rule]]
        prefix = "::/0"
        method = "statik"
        [[interface]]
        name = "wan0"
        attach = 7
        [[interface.rule]]
        [limits]
        pending = 1
        [metrics]
        listen = "localhost"
        """
    assert [mistake.place for mistake in mistakes(text)] == [
        "daemon.log_level",
        "daemon.control",
        "interface[0].vlan",
        "interface[0].name",
        "interface[0].rule[0].prefix",
        "interface[0].rule[0].method",
        "interface[0].rule[0].via",
        "interface[0].rule[1].prefix",
        "interface[0].rule[1].method",
        "interface[1].name",
        "interface[1].colour",
        "interface[1]",
        "interface[2].rule[1].method",
        "interface[2].rule[1].prefix",
        "interface[3].attach",
        "interface[3].rule[0].prefix",
        "interface[3].rule[0].method",
        "interface[3]",
        "limits.pending",
        "metrics.listen",
    ]


def test_what_stands_in_single_brackets_is_read_all_the_same() -> None:
    text = '[interface]\nname = 7\n[interface.rule]\nprefix = "::1"\n'
    assert [mistake.place for mistake in mistakes(text)] == [
        "interface",
        "interface.name",
        "interface.rule",
        "interface.rule.prefix",
        "interface.rule.method",
    ]


def test_an_entry_whose_vlan_is_wrong_is_nobodys_twin() -> None:
    """Whether it is one shows only when its vlan is right."""
    assert [mistake.place for mistake in mistakes(MINIMAL + interface("vlan = 0"))] == ["interface[1].vlan"]


# --- The reference configuration ---


def test_the_reference_configuration_says_the_defaults() -> None:
    assert parse(REFERENCE, "") == parse(MINIMAL, "")


def test_the_reference_configuration_says_every_key() -> None:
    file = tomllib.loads(REFERENCE)
    (entry,) = file["interface"]
    (its_rule,) = entry["rule"]
    assert file.keys() == {"daemon", "metrics", "interface"}
    assert file["daemon"].keys() | {f"metrics_{key}" for key in file["metrics"]} | {"interfaces"} == set(
        Config.__slots__
    )
    assert {key if key != "rule" else "rules" for key in entry} == set(InterfaceConfig.__slots__)
    assert its_rule.keys() == set(RuleConfig.__slots__) - {"network"}


def test_the_reference_configurations_short_form_does_the_same() -> None:
    short = re.findall(r"^#     (\[\[.*|\w+ = .*)", REFERENCE, re.MULTILINE)
    assert len(short) == 5
    assert parse("\n".join(short), "") == parse(REFERENCE, "")


def test_the_reference_configurations_examples_are_right() -> None:
    examples = re.sub(r"^# (?=\[\[|\w+ = )", "", REFERENCE, flags=re.MULTILINE)
    entries = parse(examples, "").interfaces
    assert [(entry.label, len(entry.rules)) for entry in entries] == [("wan0", 2), ("wan0:100", 1)]
    wide, narrow = (rule.network for rule in entries[0].rules)
    assert narrow.subnet_of(wide)


# --- Properties ---


def toml(value: object) -> str:
    """A value in TOML, tables inline."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + re.sub(r'[\x00-\x1f\x7f"\\]', lambda found: f"\\u{ord(found[0]):04x}", value) + '"'
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return "{" + ", ".join(f"{toml(key)} = {toml(entry)}" for key, entry in value.items()) + "}"
        case datetime.date() | datetime.time():
            return value.isoformat()
        case _:
            return repr(value)


def document(tables: dict[str, Any]) -> str:
    """A file: a line for each table."""
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in tables.items())


WORDS = sorted(set(re.findall(r"[\w:./\"\[\]-]+|[=#\n]", REFERENCE)))
INTERFACE_KEYS = sorted(InterfaceConfig.__slots__)
scalars = (
    st.sampled_from(("wan0", "::/0", "2001:db8::1", "static", "ignore", "any", "100.7", "auto", "", "[::1]:1"))
    | st.text(max_size=20)
    | st.integers()
    | st.booleans()
    | st.floats()
    | st.dates()
    | st.times()
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    ("prefix", "method", "via", "include", "rule", "name", "vlan", "attach", "router", "dad", "listen")
)
tables = st.dictionaries(keys | st.text(max_size=8), anything, max_size=6)
nearly = st.fixed_dictionaries(
    {"name": scalars, "rule": st.lists(tables, max_size=3)}, optional={"vlan": anything, "router": anything}
)
documents = st.dictionaries(
    st.sampled_from(("daemon", "metrics", "limits", "interface")) | st.text(max_size=8),
    tables | st.lists(nearly | tables, max_size=3) | anything,
    max_size=5,
)


@settings(deadline=None)
@given(st.text() | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_no_text_raises_anything_but_config_errors(text: str) -> None:
    for mistake in mistakes(text):
        assert len(str(mistake).splitlines()) == 1


@settings(deadline=None)
@given(st.data())
def test_no_slip_in_the_reference_configuration_raises_anything_but_config_errors(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(REFERENCE)))
    cut = data.draw(st.integers(0, 8))
    text = REFERENCE[:place] + data.draw(st.text(max_size=4)) + REFERENCE[place + cut :]
    for mistake in mistakes(text):
        assert len(str(mistake).splitlines()) == 1


@settings(deadline=None)
@given(documents)
def test_no_tables_raise_anything_but_config_errors(tables: dict[str, Any]) -> None:
    text = document(tables)
    assert tomllib.loads(text).keys() == tables.keys()
    found = mistakes(text)
    assert all(len(str(mistake).splitlines()) == 1 for mistake in found)
    places = {mistake.place.partition(".")[0].partition("[")[0] for mistake in found}
    assert tables.keys() - {"daemon", "metrics", "limits", "interface"} <= places | {
        key for key in tables if not re.fullmatch(r"[\w-]+", key, re.ASCII)
    }


def value_of(network: IPv6Network) -> tuple[int, int]:
    return int(network.network_address), network.prefixlen


def answerable(address: int, length: int) -> bool:
    """Whether a rule may have this prefix: RFC.md C in numbers."""
    return not (
        (length >= 8 and address >> 120 == 0xFF)
        or (length >= 127 and address < 2)
        or (10 <= length < 128 and address >> 118 == 0xFE80 >> 6)
    )


@st.composite
def networks(draw: st.DrawFn) -> IPv6Network:
    """Prefixes without host bits, often those near the borders of what is answered."""
    length = draw(st.integers(0, 128) | st.sampled_from((8, 10, 64, 127, 128)))
    address = draw(st.integers(0, 2**128 - 1) | st.integers(0, 3) | st.integers(0xFE80 << 112, 0xFF02 << 112))
    return IPv6Network((address >> (128 - length) << (128 - length), length))


@settings(deadline=None)
@given(networks())
def test_a_prefix_is_taken_unless_nothing_of_it_is_ever_answered(network: IPv6Network) -> None:
    text = rule(prefix=f'"{network}"')
    assert (mistakes(text) == []) == answerable(*value_of(network))


@settings(deadline=None)
@given(st.integers(0, 2**128 - 1) | st.integers(0, 3), st.integers(0, 127))
def test_what_is_proposed_for_host_bits_is_taken(address: int, length: int) -> None:
    found = mistakes(rule(prefix=f'"{IPv6Address(address)}/{length}"'))
    proposals = [
        part for mistake in found for part in re.findall(r"host bits set; write (\S+?)(?: or (\S+))?;", mistake.message)
    ]
    assert bool(proposals) == (address % 2 ** (128 - length) != 0 and answerable(address, length))
    for proposal in (spelled for pair in proposals for spelled in pair if spelled):
        assert mistakes(rule(prefix=f'"{proposal}"')) == []


@settings(deadline=None)
@given(st.text("[]:.0123459af%x", max_size=20) | st.ip_addresses().map(str))
def test_what_is_proposed_for_listen_is_taken(text: str) -> None:
    for mistake in mistakes(listen(f'"{text}"')):
        for proposal in re.findall(r'write (?:one such as )?"(.*?)"', mistake.message):
            assert mistakes(listen(f'"{proposal}"')) == []


vlans = (
    st.just(Vlan())
    | st.just(Vlan(any=True))
    | st.lists(st.integers(1, 4094), min_size=1, max_size=2).map(lambda tags: Vlan(tags=tuple(tags)))
)
rules = st.lists(
    st.builds(
        lambda network, method: RuleConfig(str(network), network, method),
        networks().filter(lambda network: answerable(*value_of(network))),
        st.sampled_from((Method.STATIC, Method.IGNORE)),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda rule: rule.network,
).map(tuple)
interfaces = st.builds(
    InterfaceConfig,
    name=st.from_regex(r"[a-z0-9@_.-]{1,15}", fullmatch=True).filter(lambda name: name not in {".", ".."}),
    rules=rules,
    vlan=vlans,
    attach=st.sampled_from(Attach),
    datapath=st.sampled_from(Datapath),
    router=st.booleans(),
    dad=st.sampled_from(DadPolicy),
    na_source=st.sampled_from(NaSource),
)


def agreed(entries: list[InterfaceConfig]) -> tuple[InterfaceConfig, ...]:
    """The entries of one interface, all attached as its first."""
    wishes = {entry.name: entry.attach for entry in reversed(entries)}
    return tuple(replace(entry, attach=wishes[entry.name]) for entry in entries)


configs = st.builds(
    Config,
    interfaces=st.lists(interfaces, min_size=1, max_size=3, unique_by=lambda entry: (entry.name, entry.vlan)).map(
        agreed
    ),
    log_level=st.sampled_from(("debug", "info", "warning", "error")),
    log_format=st.sampled_from(("text", "json")),
    metrics_listen=st.none() | st.tuples(st.ip_addresses().map(str), st.integers(1, 65535)),
)


def endpoint(listen: tuple[str, int] | None) -> str:
    """As the file spells it."""
    if listen is None:
        return ""
    return f"[{listen[0]}]:{listen[1]}" if ":" in listen[0] else f"{listen[0]}:{listen[1]}"


@settings(deadline=None)
@given(configs)
def test_a_valid_configuration_says_what_it_was_written_to_say(config: Config) -> None:
    entries = [
        {
            "name": entry.name,
            "vlan": entry.vlan.tags[0] if len(entry.vlan.tags) == 1 else str(entry.vlan),
            "attach": entry.attach,
            "datapath": entry.datapath,
            "router": entry.router,
            "dad": entry.dad,
            "na_source": entry.na_source,
            "rule": [{"prefix": rule.prefix, "method": rule.method} for rule in entry.rules],
        }
        for entry in config.interfaces
    ]
    text = document(
        {
            "daemon": {"log_level": config.log_level, "log_format": config.log_format},
            "metrics": {"listen": endpoint(config.metrics_listen)},
            "interface": entries,
        }
    )
    assert parse(text, "") == config
