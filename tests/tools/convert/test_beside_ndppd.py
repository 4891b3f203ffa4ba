# SPDX-License-Identifier: GPL-2.0-or-later
"""ndppd.conf of later versions and forks, of tunnels, and of the machine that it is converted on."""

from __future__ import annotations

import sys
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.convert.machine import Facts, facts, on_link
from tests.tools.convert.reading import AUTO, matches, read, rule, wan

WIRED = "a key of ndppd 1.0-devel here (0.2.5 has it in the proxy section)"
BY_ROUTE = f"{AUTO}, method route answers by the route alone"


@pytest.mark.parametrize(
    ("name", "text", "want", "remarks"),
    [
        *(
            (
                f"autowire inside a rule: {word or 'a flag'}",
                f"proxy wan0 {{ rule 1::/64 {{ iface a\nautowire {word}\n}} }}",
                wan(rule("1::/64", "neighbour", "a", **({"host_routes": True} if yes else {}))),
                [f"2: {f'autowire {word}'.strip()}: {WIRED}: {said}"],
            )
            for word, yes, said in (
                ("", True, "host_routes"),
                ("yes", True, "host_routes"),
                ("no", False, "as without"),
            )
        ),
        (
            "autowire inside a rule that adds none",
            "proxy wan0 { rule 1::/64 { static\nautowire } }",
            wan(rule("1::/64", "static")),
            [f"2: autowire: {WIRED}: it adds"],
        ),
        (
            "autowire inside one rule of two",
            "proxy wan0 { rule 1::/64 { iface a\nautowire\n}\nrule 2::/64 { iface a } }",
            wan(rule("1::/64", "neighbour", "a", host_routes=True), rule("2::/64", "neighbour", "a")),
            ["2: autowire: "],
        ),
        *(
            (
                f"{key} of 1.0-devel in a rule",
                f"proxy wan0 {{ autowire yes\nrule 1::/64 {{ iface a\n{key} {value}\n}} }}",
                wan(rule("1::/64", "neighbour", "a", host_routes=True)),
                [f"3: {key} {value}: a key of ndppd 1.0-devel: no equal: {why}"],
            )
            for key, value, why in (
                ("table", "100", "method route asks as the kernel would"),
                ("target", "02:00:00:00:00:01", "what is advertised is the MAC address of the interface itself"),
                ("rewrite", "fd00::/64", "a target is looked for by the address that was asked for"),
            )
        ),
        *(
            (
                f"{key} in a section",
                f"proxy wan0 {{\n{key} {value}\nrule 2:: {{ static }} }}",
                wan(rule("2::", "static")),
                [f"2: {key} {value}: {why}"],
            )
            for key, value, why in (
                ("target", "02:00:00:00:00:01", "a key of ndppd 1.0-devel: no equal: what is advertised"),
                ("outgoing", "yes", "a key of a fork of ndppd: no equal: what this machine itself"),
                (
                    "promiscuous",
                    "yes",
                    "differs: npd6-xdp has the interface receive all multicast, not all frames: a unicast",
                ),
                ("promiscuous", "TRUE", "differs: "),
                ("promisc", "yes", "a key of ndppd 1.0-devel: differs: "),
                ("promisc", "no", "a key of ndppd 1.0-devel: not needed"),
                ("promiscuous", "no", "not needed: "),
            )
        ),
        (
            "a file of 1.0-devel",
            "valid-ttl 30000\ninvalid-ttl 5000\nstale-ttl 30000\nrenew 5000\n"
            "retrans-time 1000\nretrans-limit 3\nkeepalive no\n"
            "proxy wan0 {\nrouter yes\nrule 1::/64 {\niface a\nautowire\n}\n}",
            wan(rule("1::/64", "neighbour", "a", host_routes=True)),
            [
                *(
                    f"{line}: {key}"
                    for line, key in enumerate(
                        (
                            "valid-ttl 30000: a key of ndppd 1.0-devel: no equal",
                            "invalid-ttl",
                            "stale-ttl",
                            "renew",
                            "retrans-time",
                            "retrans-limit",
                            "keepalive no: a key of ndppd 1.0-devel here: not needed",
                        ),
                        1,
                    )
                ),
                "12: autowire",
            ],
        ),
        *(
            (
                f"a tunnel: {name}",
                f"proxy wan0 {{ rule 1::/64 {{\niface {name} }} }}",
                wan(rule("1::/64", "route", name)),
                [f"2: iface {name}: by its name a tunnel: no Neighbor Discovery there, so method route"],
            )
            for name in (
                "tun0",
                "wg0",
                "wg-home",
                "ppp0",
                "pppoe-wan",
                "sit1",
                "gre1",
                "ip6gre1",
                "tun",
                "tailscale0",
                "he-ipv6",
            )
        ),
        *(
            (
                f"no tunnel: {name}",
                f"proxy wan0 {{ rule 1::/64 {{ iface {name} }} }}",
                wan(rule("1::/64", "neighbour", name)),
                [],
            )
            for name in (
                "tap0",
                "gretap0",
                "ip6gretap1",
                "greenlan",
                "sitelan",
                "tunnel",
                "wgbr0",
                "eth0",
                "br-wg0",
                "lan.tun0",
            )
        ),
        (
            "a tunnel with autowire",
            "proxy wan0 {\nautowire yes\nrule 1::/64 { iface wg0 } }",
            wan(rule("1::/64", "route", "wg0")),
            ["2: autowire: method route adds no routes", "3: iface wg0: by its name a tunnel"],
        ),
        (
            "a tunnel beside auto",
            "proxy wan0 { rule 1::/64 { iface wg0 }\nrule 1::/64 { auto } }",
            wan(rule("1::/64", "route")),
            ["1: iface wg0: by its name", f"1: {AUTO}"],
        ),
        (
            "a tunnel beside a lan",
            "proxy wan0 { rule 1::/64 { iface lan0 }\nrule 1::/64 { iface wg0 } }",
            wan(rule("1::/64", "neighbour", "lan0")),
            ["1: rule 1::/64: here it alone decides", "2: iface wg0: by its name"],
        ),
        (
            "a proxied tunnel",
            "proxy wg0 { rule 1:: { static } }",
            [{"name": "wg0", "rule": [rule("1::", "static")]}],
            ["1: proxy wg0: by its name a tunnel: there is no Neighbor Discovery, so nothing is asked there"],
        ),
        (
            "auto where the prefix may be on-link",
            "proxy wan0 { rule 1::/64 { auto } }",
            wan(rule("1::/64", "route")),
            [
                f"1: {BY_ROUTE}; where the prefix is on-link on wan0 itself"
                " (one /64 on both sides), it finds nothing; to ask for the host, write"
            ],
        ),
        (
            "auto of one address",
            "proxy wan0 { rule 1:: { auto } }",
            wan(rule("1::", "route")),
            [f"1: {BY_ROUTE}; to ask for the host, write"],
        ),
    ],
)
def test_what_comes_of_later_versions_forks_and_tunnels(
    name: str, text: str, want: list[dict[str, Any]], remarks: list[str]
) -> None:
    interfaces, said = read(text)
    assert interfaces == want
    assert matches(said, remarks), said


HERE = Facts(
    {"wan0": True, "wan1": True, "wg0": True, "lan0": False, "lo": False},
    {"wan0": (IPv6Network("1::/64"), IPv6Network("9::/16"))},
)


@pytest.mark.parametrize(
    ("text", "want", "remarks"),
    [
        ("rule 1::/64 { iface wg0 }", rule("1::/64", "neighbour", "wg0"), []),
        ("rule 1::/64 { iface wg1 }", rule("1::/64", "route", "wg1"), ["1: iface wg1: by its name a tunnel"]),
        (
            "rule 1::/64 { iface lan0 }",
            rule("1::/64", "route", "lan0"),
            ["1: iface lan0: it is no Ethernet interface:"],
        ),
        ("rule 2::/64 { auto }", rule("2::/64", "route"), [f"{BY_ROUTE}; to ask"]),
        *(
            (
                f"rule {prefix} {{ auto }}",
                rule(prefix, "route"),
                [
                    f"{BY_ROUTE}; to ask",
                    f"1: rule {prefix}: it is on-link on wan0 here",
                ],
            )
            for prefix in ("1::/64", "1::8000:0:0:0/65", "1::5", "9:1::/64")
        ),
        ("rule 1::/48 { auto }", rule("1::/48", "route"), [AUTO]),
        ("rule 1::/64 { static }", rule("1::/64", "static"), []),
    ],
)
def test_what_is_known_of_an_interface_counts_more_than_its_name(
    text: str, want: dict[str, Any], remarks: list[str]
) -> None:
    interfaces, said = read(f"proxy wan0 {{ {text} }}", HERE)
    assert interfaces == wan(want)
    assert matches(said, remarks), said


def test_where_the_port_isn_t_here_auto_says_when_it_finds_nothing() -> None:
    _, said = read("proxy eth7 { rule 1::/64 { auto } }", HERE)
    assert matches(said, ["where the prefix is on-link on eth7 itself"])
    _, said = read("proxy wan1 { rule 1::/64 { auto } }", HERE)
    assert matches(said, ["answers by the route alone; to ask for the host"]), "wan1 is, and has no such prefix"


def route_line(prefix: str, name: str, gateway: str = "::", flags: int = 0x00000001) -> str:
    network = IPv6Network(prefix)
    words = (f"{int(network.network_address):032x}", f"{network.prefixlen:02x}", "0" * 32, "00")
    return " ".join(
        [*words, f"{int(IPv6Address(gateway)):032x}", "00000100 00000001 00000000", f"{flags:08x}", f"   {name}\n"]
    )


def test_on_link_is_what_the_kernel_s_table_has_without_a_gateway() -> None:
    lines = [
        route_line("2001:db8:1::/64", "wan0"),
        route_line("2001:db8:1::/64", "wan0"),
        route_line("2001:db8:2::/64", "wan0", "fe80::1", 0x3),
        route_line("::/0", "wan0"),
        route_line("fe80::/64", "wan0"),
        route_line("ff00::/8", "wan0"),
        route_line("2001:db8:3::/64", "lo", flags=0x201),
        route_line("2001:db8:4::/64", "wan0", flags=0x80200001),
        route_line("2001:db8:1::/128", "wan0", flags=0x00100001),
        route_line("2001:db8:5::/127", "lan 0"),
        route_line("2001:db8:6::/48", "lan0"),
        "noise\n",
    ]
    assert on_link(lines) == {"wan0": (IPv6Network("2001:db8:1::/64"),), "lan0": (IPv6Network("2001:db8:6::/48"),)}


def test_the_facts_of_this_machine_are_those_of_its_kernel(topology: Topology) -> None:
    for line in ("tuntap add dev home0 mode tun", "tuntap add dev wg0 mode tap", "link add br-x type bridge"):
        topology.run("edge", "ip", *line.split(), check=True)
    with topology.inside("edge"):
        here = facts()
    assert here.ethernet == {
        "lo": False,
        "home0": False,
        "wan0": True,
        "lan0": True,
        "wg0": True,
        "br-x": True,
        **{name: False for name in here.ethernet if name in ("sit0", "ip6tnl0", "tunl0", "gre0")},
    }


def test_convert_looks_at_the_machine_that_it_runs_on(topology: Topology, tmp_path: Path) -> None:
    topology.run("edge", "ip", "tuntap", "add", "dev", "home0", "mode", "tun", check=True)
    file = tmp_path / "ndppd.conf"
    file.write_text(
        "proxy wan0 {\nrule 2001:db8::/64 {\nauto\n}\nrule 2001:db8:1::/64 {\niface home0\n}\n"
        "rule 2001:db8:2::/64 {\nauto\n}\n}\n"
    )
    done = topology.run("edge", sys.executable, "-m", "npd6_xdp", "convert", str(file))
    assert done.returncode == 0, done.stderr
    assert 'via = ["home0"]' in done.stdout
    said = [line.removeprefix(f"npd6-xdp: {file}:") for line in done.stderr.splitlines()[1:]]
    assert matches(
        said,
        [
            f"2: {BY_ROUTE}; to ask for the host",
            "2: rule 2001:db8::/64: it is on-link on wan0 here",
            "6: iface home0: it is no Ethernet interface: no Neighbor Discovery there, so method route",
        ],
    ), said


@given(st.lists(st.text(alphabet="0123456789abcdef \t\nwan", max_size=80), max_size=5))
def test_no_line_of_a_routing_table_makes_it_fail(lines: list[str]) -> None:
    on_link(lines)
