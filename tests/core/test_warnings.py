# SPDX-License-Identifier: GPL-2.0-or-later
"""Warnings of the machine's state and of a table: when there is one, when there is none, and what the mend is."""

from __future__ import annotations

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import finish
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Method
from npd6_xdp.core.warnings import (
    ALL_INTERFACES,
    DefaultRoute,
    Receiver,
    WarningKind,
    advertisement_warnings,
    all_lines,
    forwarding_warnings,
    warnings,
)
from tests.core.tables import config, facts, link, own, rule, side, under

WAN = Receiver("wan0", forwarding=True, accept_ra=1, advertised=True, heard=False)
GONE = (
    "wan0: forwarding is on and accept_ra is 1, so the kernel ignores router advertisements there, and the default"
    " route that they give is gone: sysctl -w net/ipv6/conf/wan0/accept_ra=2"
)
STATIC, BY_RA = DefaultRoute("wan0", advertised=False), DefaultRoute("wan0", advertised=True)


@pytest.mark.parametrize(
    ("receiver", "default", "wanted"),
    [
        (WAN, None, [GONE]),
        (WAN, BY_RA, [GONE.replace("is gone", "runs out")]),
        (WAN._replace(advertised=False, heard=True), None, [GONE]),
        (WAN._replace(advertised=False), BY_RA, [GONE.replace("is gone", "runs out")]),
        # no false alarms:
        (WAN, STATIC, []),
        (WAN, DefaultRoute("wan1", advertised=True), []),
        (WAN, DefaultRoute("", advertised=False), []),
        (WAN._replace(forwarding=False), None, []),
        (WAN._replace(accept_ra=0), None, []),  # systemd-networkd and others take them in themselves
        (WAN._replace(accept_ra=2), None, []),
        (WAN._replace(advertised=False), None, []),  # a machine that has never had one, and wants none
        (WAN._replace(advertised=False, heard=True), STATIC, []),
    ],
)
def test_ignored_advertisements_are_warned_of_where_they_give_the_default_route(
    receiver: Receiver, default: DefaultRoute | None, wanted: list[str]
) -> None:
    assert advertisement_warnings([receiver], default) == wanted


COMING = (
    "wan0: the kernel takes in router advertisements again, and the default route that they give comes with the next"
    " one: rdisc6 -1 wan0 asks for it"
)


@pytest.mark.parametrize(
    ("receiver", "default", "wanted"),
    [
        (WAN._replace(accept_ra=2), None, [COMING]),
        (WAN._replace(forwarding=False), None, [COMING]),
        (WAN._replace(accept_ra=2, advertised=False), None, [COMING]),  # the addresses have run out meanwhile
        (WAN, None, [GONE]),
        (WAN._replace(accept_ra=2), BY_RA, []),
        (WAN._replace(accept_ra=2), STATIC, []),
        (WAN._replace(accept_ra=0), None, []),  # whoever has switched that off wants none
    ],
)
def test_that_advertisements_are_taken_in_again_is_not_yet_the_default_route(
    receiver: Receiver, default: DefaultRoute | None, wanted: list[str]
) -> None:
    assert advertisement_warnings([receiver], default, frozenset({"wan0"})) == wanted
    if receiver.accept_ra == 2 or not receiver.forwarding:
        assert advertisement_warnings([receiver], default) == [], "where none was missed, none is waited for"


def table(*methods: str) -> tuple[Table, dict[str, LinkFacts]]:
    links = {
        name: LinkFacts(name, ifindex, bytes((2, 0, 0, 0, 0, ifindex)))
        for ifindex, name in ((7, "wan0"), (8, "wan1"), (9, "lan0"))
    }
    text = "".join(
        f'[[interface]]\nname = "wan{n}"\n[[interface.rule]]\nprefix = "2001:db8:{n}::/64"\nmethod = "{method}"\n'
        + ('via = ["lan0"]\n' if method == "neighbour" else "")
        for n, method in enumerate(methods)
    )
    return build(parse(text, "test"), links), links


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("route", "method route finds no target there"),
        ("kernel", "method kernel answers nothing there"),
        ("neighbour", "what is sent to them gets no further"),
        ("static", ""),
    ],
)
def test_forwarding_that_is_off_is_warned_of_by_what_it_does_to_each_method(method: str, words: str) -> None:
    lines = forwarding_warnings(*table(method), {7: False}.get, [])
    assert len(lines) == bool(words)
    for line in lines:
        assert line.startswith("wan0: forwarding is off, so ")
        assert line.endswith(": sysctl -w net.ipv6.conf.all.forwarding=1")
        assert words in line


@pytest.mark.parametrize("forwarding", [{7: True}, {}])
def test_forwarding_that_is_on_or_unknown_is_no_warning(forwarding: dict[int, bool]) -> None:
    assert forwarding_warnings(*table("route"), forwarding.get, []) == []


@pytest.mark.parametrize(
    ("port", "whole", "methods", "words", "mend"),
    [
        (False, True, ("route", "kernel"), "method", "net/ipv6/conf/wan0/forwarding=1"),
        (False, True, ("neighbour",), "", ""),  # the kernel forwards: what comes in by the port is no matter there
        (
            True,
            False,
            ("route", "kernel", "neighbour"),
            "what is sent to them gets no",
            "net.ipv6.conf.all.forwarding=1",
        ),
        (False, False, ("route", "kernel"), "method", "net.ipv6.conf.all.forwarding=1"),
    ],
)
def test_of_forwarding_on_a_port_and_as_a_whole_each_counts_for_what_the_kernel_takes_it_for(
    port: bool, whole: bool, methods: tuple[str, ...], words: str, mend: str
) -> None:
    for method in methods:
        lines = forwarding_warnings(*table(method), {7: port, ALL_INTERFACES: whole}.get, [WAN])
        assert len(lines) == bool(words)
        for line in lines:
            assert words in line
            assert line.endswith(f": sysctl -w net/ipv6/conf/wan0/accept_ra=2 {mend}"), "any of it purges that route"


def test_each_port_is_warned_of_once() -> None:
    lines = forwarding_warnings(*table("route", "neighbour"), {7: False, 8: False}.get, [])
    assert [line.partition(":")[0] for line in lines] == ["wan0", "wan1"]


def test_the_mend_keeps_the_default_route_of_each_interface_that_has_it_by_router_advertisements() -> None:
    receivers = [
        WAN._replace(forwarding=False),
        WAN._replace(name="eth9.7", forwarding=False),
        WAN._replace(name="well", accept_ra=2),
        WAN._replace(name="never", advertised=False),
    ]
    (line,) = forwarding_warnings(*table("route"), {7: False}.get, receivers)
    assert line.endswith(
        ": sysctl -w net/ipv6/conf/wan0/accept_ra=2 net/ipv6/conf/eth9.7/accept_ra=2 net.ipv6.conf.all.forwarding=1"
    )


def test_a_line_of_two_kinds_is_shown_once() -> None:
    assert [*finish(all_lines({WarningKind.RULE: ["a", "b"], WarningKind.VIA: ["b", "c"]}))] == ["a", "b", "c"]


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
    assert "covers 2001:db8:1::a/127, which is on-link there" in line, "a /127 has space for a neighbour"


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
