# SPDX-License-Identifier: GPL-2.0-or-later
"""A configuration file: what is accepted, and what it means."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address

import pytest

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
    TcOrder,
    Vlan,
)
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.verdict import Method
from tests.core.configs import (
    BOUNDS,
    MINIMAL,
    MINIMAL_RULE,
    daemon,
    interface,
    its_rule,
    limits,
    listen,
    mistakes,
    only,
    plain,
    rule,
    via,
)


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
                active_with="",
                link_address="",
                new_targets_per_second=0,
            ),
        ),
        control="/run/npd6-xdp/control.sock",
        log_level="info",
        log_format="text",
        metrics_listen=(("::1", 9846),),
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


def test_each_key_of_the_daemon_means_what_it_says() -> None:
    text = """
        daemon = { control = "/tmp/x", log_level = "debug", log_format = "json" }
        metrics.listen = "127.0.0.1:80"
        metrics.web_config = "/etc/web.yml"
        [limits]
        events_per_second = 1
        pending = 2
        neighbours = 3
        kernel_entries = 4
        kernel_entry_age = 5
        host_route_keep = 7
        announcements_per_second = 8
        remembered_targets = 6
        """
    assert parse(text + MINIMAL, "") == Config(
        parse(MINIMAL, "").interfaces,
        control="/tmp/x",  # noqa: S108  a text, not a file
        log_level="debug",
        log_format="json",
        metrics_listen=(("127.0.0.1", 80),),
        metrics_web_config="/etc/web.yml",
        limits=Limits(1, 2, 3, 4, 5, 7, 8, 6),
    )


def test_each_key_of_an_interface_means_what_it_says() -> None:
    text = """
        vlan = "100.7"
        attach = "tc"
        tc_order = "last"
        datapath = "monitor"
        router = false
        dad = "defend"
        na_source = "interface"
        events_per_source = 0
        collect_targets = 7
        active_with = "192.0.2.1"
        link_address = "00:00:5e:00:02:33"
        new_targets_per_second = 8
        """
    assert only(parse(interface(text), "")) == InterfaceConfig(
        name="wan0",
        rules=(MINIMAL_RULE,),
        vlan=Vlan(tags=(100, 7)),
        attach=Attach.TC,
        tc_order=TcOrder.LAST,
        datapath=Datapath.MONITOR,
        router=False,
        dad=DadPolicy.DEFEND,
        na_source=NaSource.INTERFACE,
        events_per_source=0,
        collect_targets=7,
        active_with="192.0.2.1",
        link_address="00:00:5e:00:02:33",
        new_targets_per_second=8,
    )


def test_each_key_of_a_rule_means_what_it_says() -> None:
    text = """
        via = ["lan0", "lan1"]
        include = ["::10 - ::1F", "2001:db8:1::1:0/112"]
        exclude = ["::11"]
        router = true
        dad = "ignore"
        na_source = "target"
        host_routes = true
        """
    assert its_rule(rule(text, method='"neighbour"')) == RuleConfig(
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
    )


def test_interfaces_and_their_rules_are_those_of_the_file_in_its_order() -> None:
    text = """
        [[interface]]
        name = "wan0"
        vlan = 100
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
    assert parse(text, "").interfaces == (
        InterfaceConfig("wan0", (plain("2001:DB8::42", Method.IGNORE), plain("::/0")), Vlan(tags=(100,))),
        InterfaceConfig("wan0", (plain("fe80::1"),)),
    )


@pytest.mark.parametrize("tables", ["", "[daemon]\n", "[metrics]\n", "[limits]\n", "[daemon]\n[metrics]\n[limits]\n"])
def test_empty_and_absent_tables_hold_their_defaults(tables: str) -> None:
    assert parse(tables + MINIMAL, "") == parse(MINIMAL, "")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_every_log_level_is_taken(level: str) -> None:
    assert parse(daemon(f'log_level = "{level}"'), "").log_level == level


LISTEN = (
    ('""', ()),
    ('"[::1]:9846"', (("::1", 9846),)),
    ('"127.0.0.1:9846"', (("127.0.0.1", 9846),)),
    ('"[::]:1"', (("::", 1),)),
    ('"0.0.0.0:65535"', (("0.0.0.0", 65535),)),  # noqa: S104  a text, not a socket
    ('"[2001:DB8:0::1]:09846"', (("2001:db8::1", 9846),)),
    ('["[::1]:9846"]', (("::1", 9846),)),
    ('["[::1]:9846", "192.0.2.1:9846", "[::1]:80"]', (("::1", 9846), ("192.0.2.1", 9846), ("::1", 80))),
    ('["[::]:1", "0.0.0.0:2"]', (("::", 1), ("0.0.0.0", 2))),  # noqa: S104
)


@pytest.mark.parametrize(("value", "want"), LISTEN)
def test_metrics_listen_is_addresses_with_ports_or_off(value: str, want: tuple[tuple[str, int], ...]) -> None:
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


@pytest.mark.parametrize("path", ["/a", "/run/npd6 xdp/ünï.sock", "/" + "x" * 106])
def test_the_control_socket_is_an_absolute_path(path: str) -> None:
    assert parse(daemon(f'control = "{path}"'), "").control == path


@pytest.mark.parametrize(("key", "low", "high"), BOUNDS)
def test_a_limit_is_a_whole_number_within_its_bounds(key: str, low: int, high: int) -> None:
    for value in (low, high):
        assert parse(limits(f"{key} = {value}"), "").limits == replace(Limits(), **{key: value})
    for wrong in (low - 1, high + 1, -1):
        (mistake,) = mistakes(limits(f"{key} = {wrong}"))
        assert mistake.where == f"limits.{key}"
        assert mistake.message.startswith(f"must be a whole number from {low} to {high}, without quotes; found")
