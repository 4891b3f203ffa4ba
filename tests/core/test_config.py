# SPDX-License-Identifier: GPL-2.0-or-later
"""The configuration file: what is accepted and what it means, what is refused, where and with which words."""

from __future__ import annotations

import datetime
import re
import tomllib
from dataclasses import asdict, replace
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
    Limits,
    NaSource,
    RuleConfig,
    Selection,
    Vlan,
)
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import MOST_MISTAKES, ConfigError, Mistake
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.verdict import Method

REFERENCE = (Path(__file__).parents[2] / "deploy" / "npd6-xdp.toml").read_text()

RULE = '[[interface.rule]]\nprefix = "2001:db8:1::/64"\nmethod = "static"\n'
MINIMAL = f'[[interface]]\nname = "wan0"\n{RULE}'


def plain(prefix: str, method: Method = Method.STATIC, network: str = "") -> RuleConfig:
    """A rule that says no more than it has to; `network` if `prefix` is no strict spelling of it."""
    return RuleConfig(prefix, (Prefix.of(network or prefix),), method)


MINIMAL_RULE = plain("2001:db8:1::/64")


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


def via(names: str) -> str:
    """The same for a rule's via."""
    return rule(f"via = {names}", method='"neighbour"')


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


def its_rule(text: str) -> RuleConfig:
    """The one rule of a file."""
    (only_rule,) = only(parse(text, "")).rules
    return only_rule


def only(config: Config) -> InterfaceConfig:
    """The one interface of a configuration."""
    (entry,) = config.interfaces
    return entry


# --- What is accepted ---


def test_a_minimal_file_has_the_contracts_defaults() -> None:
    """The values that docs/configuration.md gives are the defaults."""
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
                events_per_source=None,
                collect_targets=0,
            ),
        ),
        control="/run/npd6-xdp/control.sock",
        log_level="info",
        log_format="text",
        metrics_listen=("::1", 9846),
        limits=Limits(
            events_per_second=150000, pending=512, neighbours=65536, kernel_entries=1024, kernel_entry_age=600
        ),
    )
    assert (
        RuleConfig(
            prefix="2001:db8:1::/64",
            networks=(Prefix.of("2001:db8:1::/64"),),
            method=Method.STATIC,
            follows="",
            via=(),
            include=(),
            exclude=(),
            router=None,
            dad=None,
            na_source=None,
            host_routes=False,
        )
        == MINIMAL_RULE
    )


def test_a_full_file_means_what_it_says() -> None:
    text = """
        daemon = { control = "/tmp/x", log_level = "debug", log_format = "json" }
        metrics.listen = "127.0.0.1:80"
        [limits]
        events_per_second = 1
        pending = 2
        neighbours = 3
        kernel_entries = 4
        kernel_entry_age = 5
        [[interface]]
        name = "wan0"
        vlan = "100.7"
        attach = "generic"
        datapath = "monitor"
        router = false
        dad = "defend"
        na_source = "interface"
        events_per_source = 0
        collect_targets = 7
        [[interface.rule]]
        prefix = "2001:DB8::42"
        method = "ignore"
        [[interface.rule]]
        prefix = "2001:db8:1::/64"
        method = "neighbour"
        via = ["lan0", "lan1"]
        include = ["::10 - ::1F", "2001:db8:1::1:0/112"]
        exclude = ["::11"]
        router = true
        dad = "ignore"
        na_source = "target"
        host_routes = true
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
            plain("2001:DB8::42", Method.IGNORE),
            RuleConfig(
                prefix="2001:db8:1::/64",
                networks=(Prefix.of("2001:db8:1::/64"),),
                method=Method.NEIGHBOUR,
                via=("lan0", "lan1"),
                include=(
                    Selection("::10 - ::1F", 0x10, 0x1F),
                    Selection("2001:db8:1::1:0/112", *Prefix.of("2001:db8:1::1:0/112").ends),
                ),
                exclude=(Selection("::11", 0x11, 0x11),),
                router=True,
                dad=DadPolicy.IGNORE,
                na_source=NaSource.TARGET,
                host_routes=True,
            ),
            plain("::/0"),
        ),
        vlan=Vlan(tags=(100, 7)),
        attach=Attach.GENERIC,
        datapath=Datapath.MONITOR,
        router=False,
        dad=DadPolicy.DEFEND,
        na_source=NaSource.INTERFACE,
        events_per_source=0,
        collect_targets=7,
    )
    second = InterfaceConfig("wan0", (plain("fe80::1"),))
    assert parse(text, "") == Config(
        interfaces=(first, second),
        control="/tmp/x",  # noqa: S108  a text, not a file
        log_level="debug",
        log_format="json",
        metrics_listen=("127.0.0.1", 80),
        limits=Limits(1, 2, 3, 4, 5),
    )


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
    assert [network.length for rule in only(parse(text, "")).rules for network in rule.networks] == [64, 0, 128, 65]


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
    assert its_rule(rule(prefix=f'"{prefix}"')) == plain(prefix, network=network)


RANGES = (
    ("2001:db8::10-2001:db8::1f", ["2001:db8::10/124"]),
    ("2001:DB8::1 - 2001:db8::4", ["2001:db8::1", "2001:db8::2/127", "2001:db8::4"]),
    ("2001:db8::-2001:db8:0:1:ffff:ffff:ffff:ffff", ["2001:db8::/63"]),
    ("2001:db8::5-2001:db8::5", ["2001:db8::5"]),
    ("::2-::3", ["::2/127"]),
    ("::-::3", ["::/126"]),  # as the prefix
    ("fe80::1-fe80::1", ["fe80::1"]),
    ("fe00::-feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ["fe00::/8"]),  # link-local and more
    ("::ffff:192.0.2.0-::ffff:192.0.2.3", ["::ffff:192.0.2.0/126"]),
)


@pytest.mark.parametrize(("prefix", "networks"), RANGES)
def test_a_range_is_the_fewest_prefixes_that_make_it_up(prefix: str, networks: list[str]) -> None:
    want = RuleConfig(prefix, tuple(map(Prefix.of, networks)), Method.STATIC)
    assert its_rule(rule(prefix=f'"{prefix}"')) == want


@pytest.mark.parametrize("name", ["lan0", "lan-0", "lan0.100", "wan0"])
def test_a_rule_may_follow_an_interfaces_prefixes(name: str) -> None:
    """Of its own interface too: what is on-link for the upstream may be routed to another side."""
    want = RuleConfig(f"interface:{name}", (), Method.ROUTE, follows=name)
    assert its_rule(rule(prefix=f'"interface:{name}"', method='"route"')) == want


@pytest.mark.parametrize("method", Method)
def test_every_method_is_taken(method: Method) -> None:
    needed = 'via = ["lan0"]' if method is Method.NEIGHBOUR else ""
    assert its_rule(rule(needed, method=f'"{method}"')).method is method


@pytest.mark.parametrize(("value", "want"), [("true", True), ("false", False)])
def test_host_routes_are_added_if_the_rule_says_so(value: str, want: bool) -> None:
    text = rule(f'via = ["lan0"]\nhost_routes = {value}', method='"neighbour"')
    assert its_rule(text).host_routes is want


@pytest.mark.parametrize("method", ["route", "neighbour"])
def test_via_names_one_interface_or_several(method: str) -> None:
    text = rule('via = ["lan0", "vlan.7", "wan1"]', method=f'"{method}"')
    assert its_rule(text).via == ("lan0", "vlan.7", "wan1")


@pytest.mark.parametrize("method", ["route", "neighbour"])
def test_via_takes_globs_beside_names_and_may_match_where_the_question_comes_from(method: str) -> None:
    text = rule('via = ["br-*", "lan?", "vlan[0-9]", "wan*", "lan0"]', method=f'"{method}"')
    assert its_rule(text).via == ("br-*", "lan?", "vlan[0-9]", "wan*", "lan0")


def test_via_may_name_what_a_glob_matches() -> None:
    """From wan0, wan1 is another side."""
    text = via('["wan1"]').replace('"wan0"', '"wan*"')
    assert its_rule(text).via == ("wan1",)


@pytest.mark.parametrize("key", ["include", "exclude"])
@pytest.mark.parametrize(
    ("value", "first", "last"),
    [
        ("::1", "::1", "::1"),
        ("::", "::", "::"),
        ("::/64", "::", "::ffff:ffff:ffff:ffff"),
        ("::1:0/112", "::1:0", "::1:ffff"),
        ("::10-::1f", "::10", "::1f"),
        ("::10  -  ::1f", "::10", "::1f"),
        ("2001:db8:1::1", "2001:db8:1::1", "2001:db8:1::1"),
        ("2001:DB8:1::/65", "2001:db8:1::", "2001:db8:1::7fff:ffff:ffff:ffff"),
        ("2001:db8:1::1-2001:db8:1::ffff", "2001:db8:1::1", "2001:db8:1::ffff"),
        ("::192.0.2.1", "::c000:201", "::c000:201"),
    ],
)
def test_a_selection_is_an_address_a_prefix_or_a_range(key: str, value: str, first: str, last: str) -> None:
    want = Selection(value, int(IPv6Address(first)), int(IPv6Address(last)))
    got = its_rule(rule(f'{key} = ["{value}"]'))
    assert getattr(got, key) == (want,)


def test_the_selections_of_one_rule_may_overlap() -> None:
    text = rule('include = ["::/64", "::1", "::1", "::-::ff"]\nexclude = ["::1", "::/120"]')
    assert len(its_rule(text).include) == 4


def test_what_is_selected_from_prefixes_not_yet_known_is_checked_later() -> None:
    got = its_rule(rule('include = ["::1", "2001:db8:99::/64"]', prefix='"interface:lan0"'))
    assert [selection.text for selection in got.include] == ["::1", "2001:db8:99::/64"]


GLOBS = (
    ("*[!0-9]", "lo", "a.b-c@x", "wan0"),
    ("wan*", "wan", "wan0.100", "lan0"),
    ("wan?", "wan0", "wan9", "wan10"),
    ("[ew]an0", "ean0", "wan0", "an0"),
    ("wan[!0-3]", "wan4", "wanx", "wan3"),
    ("wan[0-3]*[0-9]", "wan0.7", "wan35", "wan0"),
    ("a[[]", "a[", "a[", "a"),
    ("a[]x]", "a]", "ax", "a"),
    ("a[é]", "aé", "aé", "ae"),
    ("abcdefghijklmn[0123456789]*", "abcdefghijklmn0", "abcdefghijklmn9", "abcdefghijklmn"),
)


@pytest.mark.parametrize(("glob", "port", "another", "other"), GLOBS)
def test_a_name_may_be_a_glob(glob: str, port: str, another: str, other: str) -> None:
    entry = only(parse(interface("", f'"{glob}"'), ""))
    assert entry.is_glob
    assert (entry.name, entry.label, entry.labelled("x")) == (glob, glob, "x")
    assert [entry.matches(name) for name in (port, another, other)] == [True, True, False]


@pytest.mark.parametrize(
    ("lines", "limit"),
    [
        ("", 1000),
        ('datapath = "monitor"', 1000),
        ('datapath = "python"', 0),
        ('datapath = "python"\nevents_per_source = 5', 5),
        ("events_per_source = 0", 0),
        ("events_per_source = 10_000_000", 10_000_000),
    ],
)
def test_how_much_one_source_may_send_up_depends_on_the_datapath(lines: str, limit: int) -> None:
    assert only(parse(interface(lines), "")).source_limit == limit


@pytest.mark.parametrize("path", ["/a", "/run/npd6 xdp/ünï.sock", "/" + "x" * 106])
def test_the_control_socket_is_an_absolute_path(path: str) -> None:
    assert parse(daemon(f'control = "{path}"'), "").control == path


BOUNDS = (
    ("events_per_second", 1, 10_000_000),
    ("pending", 1, 65_536),
    ("neighbours", 1, 1_000_000),
    ("kernel_entries", 1, 65_536),
    ("kernel_entry_age", 1, 1_000_000),
)


@pytest.mark.parametrize(("key", "low", "high"), BOUNDS)
def test_a_limit_is_a_whole_number_within_its_bounds(key: str, low: int, high: int) -> None:
    for value in (low, high):
        assert parse(limits(f"{key} = {value}"), "").limits == replace(Limits(), **{key: value})
    for wrong in (low - 1, high + 1, -1):
        (mistake,) = mistakes(limits(f"{key} = {wrong}"))
        assert mistake.place == f"limits.{key}"
        assert mistake.message.startswith(f"must be a whole number from {low} to {high}, without quotes; found")


# --- Which entry speaks for a port ---

ENTRIES = (
    ("exact beats glob", [("wan*", "untagged"), ("wan0", "untagged")], "wan0", [1]),
    ("the first glob wins", [("w*", "untagged"), ("wan*", "untagged")], "wan0", [0]),
    ("a given VLAN beats any", [("wan0", "any"), ("wan0", "100")], "wan0", [1, 0]),
    ("untagged is given too", [("wan0", "any"), ("wan0", "untagged")], "wan0", [1, 0]),
    ("exact any beats a glob's VLAN", [("wan*", "100"), ("wan0", "any")], "wan0", [1]),
    ("an exact VLAN leaves the others to a glob", [("wan*", "any"), ("wan*", "7"), ("wan0", "100")], "wan0", [2, 1, 0]),
    ("globs give way by VLAN", [("wan*", "any"), ("w*", "100"), ("*", "any"), ("*", "100")], "wan0", [1, 0]),
    ("a glob speaks for all that it matches", [("wan*", "untagged"), ("wan0", "untagged")], "wan1", [0]),
    ("a star speaks for all", [("*", "any"), ("wan0", "untagged")], "lo", [0]),
    ("no entry", [("wan*", "untagged"), ("lan0", "any")], "eth0", []),
    ("case counts", [("WAN*", "untagged"), ("Wan0", "untagged")], "wan0", []),
)


@pytest.mark.parametrize(
    ("entries", "port", "want"), [pytest.param(*row, id=name.replace(" ", "-")) for name, *row in ENTRIES]
)
def test_one_entry_wins_for_each_vlan(entries: list[tuple[str, str]], port: str, want: list[int]) -> None:
    text = "".join(interface(f'vlan = "{vlan}"', f'"{name}"') for name, vlan in entries)
    config = parse(text, "")
    assert config.entries(port) == tuple(config.interfaces[index] for index in want)


def test_a_port_is_attached_as_the_entries_that_win_say() -> None:
    text = interface('attach = "generic"', '"wan*"') + interface('attach = "native"') + interface("vlan = 7")
    config = parse(text, "")
    assert [config.attach(port) for port in ("wan0", "wan1", "lan0")] == [Attach.NATIVE, Attach.GENERIC, Attach.AUTO]


# --- What is refused: name, file, place, a part of the message ---

HERE, ITS_RULE = "interface[0]", "interface[0].rule[0]"

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
    (
        "a table like nothing",
        "[xyzzy]\n" + MINIMAL,
        "xyzzy",
        'unknown key "xyzzy"; a file has [daemon], [[interface]], [limits], [metrics]',
    ),
    ("a key like a known one", listen('""\nlisten_on = ""'), "metrics.listen_on", 'did you mean "listen"?'),
    ("a key in capitals", interface("Router = true"), f"{HERE}.Router", 'did you mean "router"?'),
    ("a key like one that may be left out", rule("exlude = []"), f"{ITS_RULE}.exlude", 'did you mean "exclude"?'),
    (
        "a key like nothing",
        limits("xyzzy = 1"),
        "limits.xyzzy",
        'unknown key "xyzzy"; [limits] has events_per_second, pending, neighbours, kernel_entries, kernel_entry_age',
    ),
    (
        "a rule's key like nothing",
        rule("xyzzy = 1"),
        f"{ITS_RULE}.xyzzy",
        'unknown key "xyzzy"; [[interface.rule]] has prefix, method, via, include, exclude, router, dad, na_source,'
        " host_routes",
    ),
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
        'must be "static" or "route" or "neighbour" or "kernel" or "ignore"; found the string "proxy"',
    ),
    (
        "a method in another spelling",
        rule(method='"neighbor"'),
        f"{ITS_RULE}.method",
        'probably "neighbour"; found the string "neighbor"',
    ),
    *(
        (
            f"ndppd's word {theirs}",
            rule(method=f'"{theirs}"'),
            f"{ITS_RULE}.method",
            'must be "static" or "route" or "neighbour" or "kernel" or "ignore";'
            f' what ndppd calls "{theirs}" is "{ours}" here; found the string "{theirs}"',
        )
        for theirs, ours in (("auto", "route"), ("iface", "neighbour"))
    ),
    ("a method that is true", rule(method="true"), f"{ITS_RULE}.method", 'or "ignore"; found true'),
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
        "128 characters",
        interface("", f'"{"x" * 128}"'),
        f"{HERE}.name",
        "an interface's name has 1 to 15 characters, an alternative one up to 127",
    ),
    ("128 octets", interface("", f'"{"ü" * 64}"'), f"{HERE}.name", "an interface's name has 1 to 15 characters"),
    ("a slash", interface("", '"wan/0"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a space", interface("", '"wan 0"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a tab", interface("", r'"wan\t0"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a zero byte", interface("", r'"wan\u0000"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a directory", interface("", '".."'), f"{HERE}.name", 'holds no "/" and no white space; found the string ".."'),
    (
        "a glob without a match of 15 characters",
        interface("", '"sixteen-letters*?"'),
        f"{HERE}.name",
        "an interface's name has 1 to 15 characters",
    ),
    (
        "a bracket that doesn't close",
        interface("", '"wan[0-3"'),
        f"{HERE}.name",
        'a "[" is never closed; write "[[]" for the character itself; found the string "wan[0-3"',
    ),
    ("an empty bracket", interface("", '"wan[]"'), f"{HERE}.name", 'a "[" is never closed'),
    ("an empty bracket that negates", interface("", '"wan[!]"'), f"{HERE}.name", 'a "[" is never closed'),
    (
        "a bracket that matches nothing",
        interface("", '"wan[9-0]"'),
        f"{HERE}.name",
        '"[9-0]" matches no character; write what it may be, such as "[0-9]"',
    ),
    ("a glob with a slash", interface("", '"wan/*"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a glob with a space", interface("", '"wan0 *"'), f"{HERE}.name", 'holds no "/" and no white space'),
    ("a glob with a colon", interface("", '"wan[[:digit:]]"'), f"{HERE}.name", 'holds no ":"; a VLAN is a key'),
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

ENDS = 'both ends of a range must be whole IPv6 addresses, such as "2001:db8:1::10-2001:db8:1::1f"'
RANGE_TARGETS = (
    (
        "the ends the wrong way round",
        rule(prefix='"2001:db8::2 - 2001:DB8::1"'),
        'the range ends before it begins; write "2001:db8::1-2001:db8::2"; found the string',
    ),
    ("a short end", rule(prefix='"2001:db8::10-1f"'), ENDS),
    ("no end", rule(prefix='"2001:db8::10-"'), ENDS),
    ("no beginning", rule(prefix='"-2001:db8::10"'), ENDS),
    ("a prefix as an end", rule(prefix='"2001:db8::-2001:db8:1::/64"'), ENDS),
    ("a range of IPv4", rule(prefix='"192.0.2.1-192.0.2.9"'), ENDS),
    ("space around a range", rule(prefix='" 2001:db8::1-2001:db8::2"'), ENDS),
    ("a tab in a range", rule(prefix=r'"2001:db8::1\t-2001:db8::2"'), ENDS),
    ("three ends", rule(prefix='"::2-::3-::4"'), "a range has two ends, such as"),
    ("a range with a scope id", rule(prefix='"fe80::1%wan-0-fe80::1"'), "takes no scope id (%)"),
    ("a range in multicast", rule(prefix='"ff02::1-ff02::9"'), "multicast addresses, :: and ::1 are never answered"),
    ("a range up to multicast", rule(prefix='"fec0::-ff00::"'), "are never answered; leave them out"),
    ("a range from loopback", rule(prefix='"::1-::5"'), "are never answered; leave them out"),
    (
        "a range in link-local",
        rule(prefix='"fe80::1-fe80::2"'),
        "link-local targets need a rule each; write the address of each; found the string",
    ),
    ("a range into link-local", rule(prefix='"fe00::-fe80::"'), "link-local targets need a rule each"),
    ("an interface without a name", rule(prefix='"interface:"'), "an interface's name has 1 to 15 characters, an"),
    (
        "an interface that is a glob",
        rule(prefix='"interface:lan*"'),
        'must be the exact name of one interface, such as "lan0"; found the string "interface:lan*"',
    ),
    ("an interface with a space", rule(prefix='"interface: lan0"'), 'holds no "/" and no white space'),
    ("an interface with a VLAN", rule(prefix='"interface:lan0:7"'), 'a VLAN device has a name such as "lan0.100"'),
    ("an interface in capitals", rule(prefix='"Interface:lan0"'), "must be an IPv6 prefix or address"),
)

LIMITS = tuple(
    (f"{place} that is {value}", text(f"{place.rpartition('.')[2]} = {value}"), place, f"{bounds}; found {found}")
    for text, place, bounds in (
        (limits, "limits.pending", "must be a whole number from 1 to 65536, without quotes"),
        (interface, f"{HERE}.events_per_source", "must be a whole number from 0 to 10000000, without quotes"),
        (interface, f"{HERE}.collect_targets", "must be a whole number from 0 to 1000000, without quotes"),
    )
    for value, found in (
        ("true", "true"),
        ('"5"', 'the string "5"'),
        ("5.0", "the number 5.0"),
        ("-1", "the whole number -1"),
        ("10_000_001", "the whole number 10000001"),
        ("0x" + "f" * 99, "a huge whole number"),
        ("[5]", "an array"),
    )
)

PATH = 'must be the absolute path of a socket, such as "/run/npd6-xdp/control.sock"'
PATHS = (
    ("an empty path", daemon('control = ""'), "daemon.control", f'{PATH}; found the string ""'),
    ("a relative path", daemon('control = "run/x"'), "daemon.control", f'{PATH}; found the string "run/x"'),
    ("a directory", daemon('control = "/run/"'), "daemon.control", PATH),
    ("a path of 108 bytes", daemon(f'control = "/{"x" * 107}"'), "daemon.control", "has at most 107 bytes"),
    ("a path of 55 two-byte characters", daemon(f'control = "/{"ü" * 54}"'), "daemon.control", "at most 107 bytes"),
    ("a path with a zero byte", daemon(r'control = "/x\u0000"'), "daemon.control", "a path holds no zero byte"),
    (
        "a path that is true",
        daemon("control = true"),
        "daemon.control",
        'a string such as "/run/npd6-xdp/control.sock"',
    ),
)

VIA = f"{ITS_RULE}.via"
WAYS = (
    (
        "no via",
        rule(method='"neighbour"'),
        VIA,
        'missing; method "neighbour" needs the interfaces behind which targets live, such as via = ["lan0"]',
    ),
    *(
        (
            f"via with {method}",
            rule('via = ["lan0"]', method=f'"{method}"'),
            VIA,
            f'method "{method}" takes no via; leave it out, or write method = "route" or "neighbour"',
        )
        for method in ("static", "kernel", "ignore")
    ),
    (
        "via that is a string",
        via('"lan0"'),
        VIA,
        'must be an array of strings, such as ["lan0"]; found the string "lan0"',
    ),
    ("an empty via", via("[]"), VIA, 'must be an array of strings, such as ["lan0"]; found an empty array'),
    ("a via that is a number", via('["lan0", 7]'), f"{VIA}[1]", 'a string such as "lan0"; found the whole number 7'),
    ("a via that is an array", via('[["lan0"]]'), f"{VIA}[0]", 'must be a string such as "lan0"; found an array'),
    ("a via whose bracket isn't closed", via('["lan[0"]'), f"{VIA}[0]", 'a "[" is never closed'),
    ("a via that no name can match", via('["sixteen-letters-*"]'), f"{VIA}[0]", "has 1 to 15 characters"),
    ("a via of 128 characters", via(f'["{"x" * 128}"]'), f"{VIA}[0]", "has 1 to 15 characters"),
    ("a via with a VLAN", via('["lan0:7"]'), f"{VIA}[0]", 'holds no ":"; a VLAN device has a name such as "lan0.100"'),
    (
        "a via twice",
        via('["lan0", "lan1", "lan0"]'),
        f"{VIA}[2]",
        f"the same interface as {VIA}[0]; leave one of them out",
    ),
    (
        "a via that is the interface",
        via('["lan0", "wan0"]'),
        f"{VIA}[1]",
        '"wan0" is where the question comes from; name the other side\'s interface',
    ),
    *(
        (
            f"host_routes = {value} with {method}",
            rule(f"host_routes = {value}", method=f'"{method}"'),
            f"{ITS_RULE}.host_routes",
            f'method "{method}" takes no host_routes; leave it out, or write method = "neighbour"',
        )
        for method in ("static", "route", "kernel", "ignore")
        for value in ("true", "false")
    ),
    (
        "host_routes in quotes",
        rule('via = ["lan0"]\nhost_routes = "no"', method='"neighbour"'),
        f"{ITS_RULE}.host_routes",
        "must be true or false, without quotes",
    ),
    ("a rule's router in quotes", rule('router = "true"'), f"{ITS_RULE}.router", "must be true or false"),
    ("a rule's dad", rule('dad = "defends"'), f"{ITS_RULE}.dad", 'must be "ignore" or "defend", probably "defend"'),
    ("a rule's na_source", rule('na_source = "::1"'), f"{ITS_RULE}.na_source", 'must be "target" or "interface"'),
)


OUTSIDE = (
    'does not lie in 2001:db8:1::/64; write a suffix such as "::1", or an address, prefix or range in it; found the'
    " string"
)
SELECTIONS = (
    ("an address outside", '"2001:db8:2::1"', OUTSIDE),
    ("a prefix outside", '"2001:db8:1:1::/80"', OUTSIDE),
    ("a wider prefix", '"2001:db8::/32"', OUTSIDE),
    ("a suffix that is wider", '"::/63"', OUTSIDE),
    ("a suffix that is longer", '"0:0:0:1::1"', OUTSIDE),
    ("a range that ends outside", '"2001:db8:1::1-2001:db8:1:1::"', OUTSIDE),
    ("a range that begins outside", '"2001:db8::-2001:db8:1::"', OUTSIDE),
    ("a range around", '"2001:db8::-2001:db8:2::"', OUTSIDE),
    ("a suffix and an address", '"::10-2001:db8:1::1f"', f'{OUTSIDE} "::10-2001:db8:1::1f"'),
    ("host bits", '"::1:1/112"', "::1:1/112 has host bits set; write ::1:0/112 or ::1:1; found the string"),
    ("the ends the wrong way round", '"::1f-::10"', 'the range ends before it begins; write "::10-::1f"'),
    ("a short end", '"::10-1f"', ENDS),
    ("a bare number", '"10"', 'must be an IPv6 prefix or address, such as "::1:0/112"; found the string "10"'),
    ("a range of bare numbers", '"10-1f"', 'must be an IPv6 prefix or address, such as "::1:0/112"'),
    ("an IPv4 address", '"192.0.2.1"', "must be an IPv6 prefix, and IPv6 only"),
    ("a length above 128", '"::/129"', "the prefix length must be a whole number from 0 to 128"),
    ("a scope id", '"::1%wan0"', "takes no scope id (%)"),
    ("an interface", '"interface:lan0"', "must be an IPv6 prefix or address"),
    ("nothing", '""', "must be an IPv6 prefix or address"),
    ("a number", "1", 'must be a string such as "::10-::1f"; found the whole number 1'),
    ("an array", '["::1"]', 'must be a string such as "::10-::1f"; found an array'),
)
SELECTING = (
    *(
        (f"{name} in {key}", rule(f'{key} = ["::1", {value}]'), f"{ITS_RULE}.{key}[1]", fragment)
        for key in ("include", "exclude")
        for name, value, fragment in SELECTIONS
    ),
    (
        "an empty include",
        rule("include = []"),
        f"{ITS_RULE}.include",
        'must be an array of strings, such as ["::10-::1f", "::1:0/112"]; found an empty array',
    ),
    (
        "an exclude that is a string",
        rule('exclude = "::1"'),
        f"{ITS_RULE}.exclude",
        'must be an array of strings, such as ["::1"]; found the string "::1"',
    ),
    *(
        (
            f"{key} of {prefix}",
            rule(f'{key} = ["::1"]', prefix=f'"{prefix}"'),
            f"{ITS_RULE}.{key}",
            f"an address or a range as prefix takes no {key}; leave it out",
        )
        for key in ("include", "exclude")
        for prefix in ("2001:db8::1", "2001:db8::1/128", "2001:db8::10-2001:db8::1f", "2001:db8::1-2001:db8::1")
    ),
    (
        "host bits under an interface's prefixes",
        rule('include = ["::1/64"]', prefix='"interface:lan0"'),
        f"{ITS_RULE}.include[0]",
        "::1/64 has host bits set; write ::/64 or ::1",
    ),
    (
        "several link-local addresses",
        rule('include = ["::2", "fe80::1-fe80::2"]', prefix='"::/0"'),
        f"{ITS_RULE}.include[1]",
        'link-local targets need a rule each; write the address of each; found the string "fe80::1-fe80::2"',
    ),
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
        f"the same prefix as {HERE}.rule[0].prefix, ::abcd/128; leave it out of one of the two",
    ),
    (
        "an interface's prefixes",
        rule(prefix='"interface:lan0"') + RULE.replace("2001:db8:1::/64", "interface:lan0"),
        f"{HERE}.rule[1].prefix",
        f"the same prefix as {HERE}.rule[0].prefix, interface:lan0; leave it out of one of the two",
    ),
    (
        "an address at the end of a range",
        rule(prefix='"2001:db8::10-2001:db8::20"') + RULE.replace("2001:db8:1::/64", "2001:db8::20"),
        f"{HERE}.rule[1].prefix",
        f"the same prefix as {HERE}.rule[0].prefix, 2001:db8::20/128; leave it out of one of the two",
    ),
    (
        "two ranges with much in common",
        rule(prefix='"2001:db8::1-2001:db8::fffe"') + RULE.replace("2001:db8:1::/64", "2001:db8::1 - 2001:db8::ffef"),
        f"{HERE}.rule[1].prefix",
        f"the same prefix as {HERE}.rule[0].prefix, 2001:db8::1/128",
    ),
    (
        "what another rule includes",
        rule('include = ["::5", "::10-::1f"]') + RULE.replace("1::/64", "1::10/124"),
        f"{HERE}.rule[1].prefix",
        f"the same prefix as {HERE}.rule[0].include[1], 2001:db8:1::10/124; leave it out of one of the two",
    ),
    (
        "another rule, excluded",
        MINIMAL.replace("/64", "/80") + RULE + 'exclude = ["::1", "::/80"]\n',
        f"{HERE}.rule[1].exclude[1]",
        f"the same prefix as {HERE}.rule[0].prefix, 2001:db8:1::/80; leave it out of one of the two",
    ),
    (
        "an include and another rule's exclude",
        rule('exclude = ["::1:1"]') + RULE.replace("/64", "/80") + 'include = ["2001:db8:1::1:1"]\n',
        f"{HERE}.rule[1].include[0]",
        f"the same prefix as {HERE}.rule[0].exclude[0], 2001:db8:1::1:1/128; leave it out of one of the two",
    ),
    ("a glob", interface("", '"w*"') + interface("", '"w*"'), "interface[1]", "the same name and vlan as interface[0]"),
    (
        "attach said in two ways of one glob",
        interface('attach = "native"', '"w*"') + interface('attach = "auto"\nvlan = 7', '"w*"'),
        "interface[1].attach",
        '"auto", but interface[0] says "native"',
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
    *((name, text, f"{ITS_RULE}.prefix", fragment) for name, text, fragment in RANGE_TARGETS),
    *LIMITS,
    *PATHS,
    *WAYS,
    *SELECTING,
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


def test_every_mistake_is_found_in_the_files_order(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("config_file", "errors"):
        monkeypatch.setattr(f"npd6_xdp.core.{module}.MOST_MISTAKES", 30)
    text = """
        [daemon]
        log_level = "loud"
        control = "run/x"
        [[interface]]
        vlan = 4095
        [[interface.rule]]
        prefix = "2001:db8::1/64"
        method = "neighbor"
        via = ["lan0", "lan[", ""]
        host_routes = true
        [[interface.rule]]
        prefix = "192.0.2.1"
        [[interface]]
        name = "wan["
        colour = "red"
        [[interface]]
        name = "wan0"
        [[interface.rule]]
        prefix = "::/0"
        method = "static"
        [[interface.rule]]
        prefix = "::/0"
        method = "statik"
        [[interface.rule]]
        prefix = "::/0"
        method = "static"
        via = ["lan0"]
        host_routes = false
        include = ["::/0", "fe80::/64"]
        [[interface]]
        name = "wan0"
        attach = 7
        [[interface.rule]]
        [limits]
        pending = 0
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
        "interface[0].rule[0].via[1]",
        "interface[0].rule[0].via[2]",
        "interface[0].rule[1].prefix",
        "interface[0].rule[1].method",
        "interface[1].name",
        "interface[1].colour",
        "interface[1]",
        "interface[2].rule[1].method",
        "interface[2].rule[1].prefix",
        "interface[2].rule[2].via",
        "interface[2].rule[2].host_routes",
        "interface[2].rule[2].include[1]",
        "interface[2].rule[2].prefix",
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


CONTRACT = {  # docs/configuration.md
    "daemon": {"control", "log_level", "log_format"},
    "metrics": {"listen"},
    "limits": {"events_per_second", "pending", "neighbours", "kernel_entries", "kernel_entry_age"},
    "interface": {
        *("name", "vlan", "attach", "datapath", "router", "dad", "na_source", "events_per_source"),
        *("collect_targets", "rule"),
    },
    "rule": {
        *("prefix", "method", "via", "include", "exclude", "router", "dad", "na_source", "host_routes"),
    },
}


def said(text: str) -> dict[str, set[str]]:
    """The keys that a file says, by table."""
    file = tomllib.loads(text)
    entries = file.pop("interface")
    rules = [rule for entry in entries for rule in entry["rule"]]
    return {table: set(values) for table, values in file.items()} | {
        "interface": {key for entry in entries for key in entry},
        "rule": {key for rule in rules for key in rule},
    }


def with_examples() -> str:
    """The reference configuration with what is commented out."""
    return re.sub(r"^# (?=\[\[|\w+ = )", "", REFERENCE, flags=re.MULTILINE)


def test_the_reference_configuration_says_every_key() -> None:
    assert said(with_examples()) == CONTRACT
    depends = {"rule": CONTRACT["rule"] - {"prefix", "method"}, "interface": {"events_per_source"}}
    assert said(REFERENCE) == {table: keys - depends.get(table, set()) for table, keys in CONTRACT.items()}


def test_the_reference_configurations_short_form_does_the_same() -> None:
    short = re.findall(r"^#     (\[\[.*|\w+ = .*)", REFERENCE, re.MULTILINE)
    assert len(short) == 5
    assert parse("\n".join(short), "") == parse(REFERENCE, "")


def test_the_reference_configurations_examples_are_right() -> None:
    entries = parse(with_examples(), "").interfaces
    assert [(entry.label, len(entry.rules)) for entry in entries] == [("wan0", 5), ("wan0:100", 1)]
    wide, narrow = entries[0].rules[:2]
    assert wide.networks[0].covers(narrow.networks[0])
    assert {rule.method for rule in entries[0].rules} == set(Method)
    assert (entries[0].events_per_source, entries[1].source_limit) == (1000, 1000)


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


scalars = (
    st.sampled_from(
        (
            *("wan0", "wan*", "w[", "::/0", "2001:db8::1", "::2-::9", "interface:lan0", "static", "neighbour", "route"),
            *("ignore", "any", "100.7", "auto", "", "[::1]:1", "/run/x"),
        )
    )
    | st.text("0123456789abcdef:-/.%*?[]!", max_size=20)
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
keys = st.sampled_from(sorted(set().union(*CONTRACT.values())))
tables = st.dictionaries(keys | st.text(max_size=8), anything, max_size=6)
texts = st.lists(
    st.sampled_from(("::1", "::/64", "::2-::9", "2001:db8::/64", "wan0", "lan0", "lan*")) | scalars, max_size=3
)
targeted = st.fixed_dictionaries(
    {
        "prefix": st.sampled_from(("::/0", "2001:db8::/32", "::2-::9", "interface:lan0", "::5")),
        "method": st.sampled_from(Method),
    },
    optional={
        "via": texts | anything,
        "include": texts | anything,
        "exclude": texts | anything,
        "host_routes": anything,
    },
)
nearly = st.fixed_dictionaries(
    {"name": scalars, "rule": st.lists(tables | targeted, max_size=3)}, optional={"vlan": anything, "router": anything}
)
documents = st.dictionaries(
    st.sampled_from(("daemon", "metrics", "limits", "interface")) | st.text(max_size=8),
    tables | st.lists(nearly | tables, max_size=3) | anything,
    max_size=5,
)


@settings(deadline=None)
@given(documents)
def test_no_tables_raise_anything_but_config_errors(tables: dict[str, Any]) -> None:
    text = document(tables)
    assert tomllib.loads(text).keys() == tables.keys()
    found = mistakes(text)
    assert all(len(str(mistake).splitlines()) == 1 for mistake in found)
    places = {mistake.place.partition(".")[0].partition("[")[0] for mistake in found}
    told = len(found) <= MOST_MISTAKES  # and not only counted
    assert not told or tables.keys() - {"daemon", "metrics", "limits", "interface"} <= places | {
        key for key in tables if not re.fullmatch(r"[\w-]+", key, re.ASCII)
    }


def value_of(network: IPv6Network) -> tuple[int, int]:
    return int(network.network_address), network.prefixlen


def answerable(address: int, length: int) -> bool:
    """Whether a rule may have this prefix: A5, C2 and C3 of docs/rules.md, in numbers."""
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


LAST = 2**128 - 1


def as_spans(networks: tuple[Prefix, ...] | None) -> list[tuple[int, int]]:
    """Prefixes as the spans of numbers that they are, those that touch joined."""
    spans: list[tuple[int, int]] = []
    for network in networks or ():
        first, length = network
        last = first + 2 ** (128 - length) - 1
        if spans and spans[-1][1] + 1 == first:
            spans[-1] = (spans[-1][0], last)
        else:
            spans.append((first, last))
    return spans


@st.composite
def spans(draw: st.DrawFn, low: int, high: int) -> tuple[int, int, str]:
    """The first and last number of an address, a prefix or a range within bounds, and how a file may spell it."""
    first = draw(st.integers(low, high))
    kind = draw(st.sampled_from(("address", "prefix", "range")))
    if kind == "address":
        return first, first, str(IPv6Address(first))
    if kind == "range":
        last = draw(st.integers(first, min(high, first + 300)) | st.integers(first, high))
        dash = draw(st.sampled_from(("-", " - ", "  -")))
        return first, last, f"{IPv6Address(first)}{dash}{IPv6Address(last)}"
    bits = draw(st.integers(0, (high - low + 1).bit_length() - 1))  # low is 0 or high + 1 a multiple of its size
    first = first >> bits << bits
    return first, first + 2**bits - 1, f"{IPv6Address(first)}/{128 - bits}"


@settings(deadline=None)
@given(st.data())
def test_what_is_selected_under_a_prefix_is_exactly_that(data: st.DataObject) -> None:
    length = data.draw(st.integers(0, 127) | st.sampled_from((0, 48, 64, 127)))
    size = 2 ** (128 - length)
    base = data.draw(st.integers(0, 2**length - 1)) * size
    suffix = data.draw(st.booleans())
    first, last, text = data.draw(spans(0, size - 1) if suffix else spans(base, base + size - 1))
    prefix = Prefix(base, length)
    found = mistakes(rule(f'exclude = ["{text}"]', prefix=f'"{prefix}"'))
    if not answerable(base, length):
        assert found
        return
    assert found == []
    (selection,) = its_rule(rule(f'exclude = ["{text}"]', prefix=f'"{prefix}"')).exclude
    assert (selection.text, int(selection.first), int(selection.last)) == (text, first, last)
    offset = base if suffix else 0
    assert as_spans(selection.within(prefix)) == [(first + offset, last + offset)]


@settings(deadline=None)
@given(st.data())
def test_a_selection_is_taken_if_it_lies_under_the_prefix_and_only_then(data: st.DataObject) -> None:
    length = data.draw(st.integers(8, 126))
    size = 2 ** (128 - length)
    base = 0x20010DB8 << 96 >> (128 - length) << (128 - length)
    near = st.integers(max(0, base - 3), base + 3) | st.integers(base + size - 3, min(LAST, base + size + 3))
    ends = data.draw(st.tuples(near, near) | st.tuples(st.integers(0, 2 * size), st.integers(0, 2 * size) | near))
    first, last = sorted(ends)
    text = f"{IPv6Address(first)}-{IPv6Address(last)}"
    inside = last < size or base <= first <= last < base + size
    found = mistakes(rule(f'exclude = ["{text}"]', prefix=f'"{IPv6Network((base, length))}"'))
    assert (found == []) == inside
    assert [mistake.place for mistake in found] == [f"{ITS_RULE}.exclude[0]"] * (not inside)


@settings(deadline=None)
@given(spans(2**125, 2**126 - 1))
def test_a_rules_prefix_is_exactly_the_targets_that_it_says(span: tuple[int, int, str]) -> None:
    first, last, text = span
    assert as_spans(its_rule(rule(prefix=f'"{text}"')).networks) == [(first, last)]


vlans = (
    st.just(Vlan())
    | st.just(Vlan(any=True))
    | st.lists(st.integers(1, 4094), min_size=1, max_size=2).map(lambda tags: Vlan(tags=tuple(tags)))
)
rules = st.lists(
    st.builds(
        lambda network, method: RuleConfig(str(network), (Prefix.of(network),), method),
        networks().filter(lambda network: answerable(*value_of(network))),
        st.sampled_from((Method.STATIC, Method.ROUTE, Method.KERNEL, Method.IGNORE)),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda rule: rule.networks,
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
    events_per_source=st.none() | st.integers(0, 10_000_000),
    collect_targets=st.integers(0, 1_000_000),
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
    control=st.text(min_size=1, max_size=20).map("/x{}x".format).filter(lambda path: "\0" not in path),
    limits=st.builds(Limits, **{key: st.integers(low, high) for key, low, high in BOUNDS}),
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
            "collect_targets": entry.collect_targets,
            **({} if entry.events_per_source is None else {"events_per_source": entry.events_per_source}),
            "rule": [{"prefix": rule.prefix, "method": rule.method} for rule in entry.rules],
        }
        for entry in config.interfaces
    ]
    text = document(
        {
            "daemon": {"log_level": config.log_level, "log_format": config.log_format, "control": config.control},
            "limits": asdict(config.limits),
            "metrics": {"listen": endpoint(config.metrics_listen)},
            "interface": entries,
        }
    )
    assert parse(text, "") == config
