# SPDX-License-Identifier: GPL-2.0-or-later
"""Via interfaces on which method neighbour can't find any host, and the warnings about them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

import pytest

from npd6_xdp.core.absent import absent_vias
from npd6_xdp.core.config import Config
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.explain import Question, explain
from npd6_xdp.core.link_messages import LinkFlag
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.vias import Patience, UsedVia, down_via, refused_vias, used_vias, via_warnings

Addresses = dict[tuple[int, ...], tuple[OwnAddress, ...]]
MAC = bytes.fromhex("020000000001")
LOCAL: Addresses = {(): (OwnAddress(IPv6Address("fe80::1")),)}
GLOBAL: Addresses = {(): (OwnAddress(IPv6Address("2001:db8::1")),)}
UP = int(LinkFlag.UP)
LAN = LinkFacts("lan0", 8, MAC, addresses=LOCAL)
WAN = LinkFacts("wan0", 7, MAC, addresses=LOCAL)
WHERE = "wan0: rule 2001:db8:1::/64: via lan0: "
NO_LINK_LOCAL = "it has no link-local address, from which the kernel asks: ip -6 address add fe80::1/64 dev lan0"
NOARP = 'Neighbor Discovery is off there (NOARP), so the kernel asks for nobody; use method = "route"'
POINT_TO_POINT = 'it is a tunnel or another point-to-point link{}, so the kernel asks for nobody; use method = "route"'


def config(via: str = "lan0", method: str = "neighbour") -> Config:
    text = f'[[interface]]\nname = "wan0"\n[[interface.rule]]\nprefix = "2001:db8:1::/64"\nmethod = "{method}"\n'
    return parse(text + (f'via = ["{via}"]\n' if via else ""), "test")


def facts(*links: LinkFacts) -> dict[str, LinkFacts]:
    return {link.name: link for link in (WAN, *links)}


def nothing_set(key: str) -> str:
    return "1" if key.endswith(("/forwarding", "/dad_transmits")) else "0"


def ipv6_off(key: str) -> str:
    return "1" if key == "conf/lan0/disable_ipv6" else nothing_set(key)


def bare(kind: str = "", **facts: Any) -> LinkFacts:
    """A link without Ethernet framing."""
    return replace(LAN, mac=b"", kind=kind, **facts)


HERE = "it leads to this host itself"
NEVER = (
    ("tun", bare("tun", type=0xFFFE, flags=UP | 0x10 | 0x80), POINT_TO_POINT.format(" (tun)")),
    ("wireguard", bare("wireguard", type=0xFFFE, flags=UP | 0x80), POINT_TO_POINT.format(" (wireguard)")),
    ("sit", bare("sit", type=776, flags=UP | 0x80), POINT_TO_POINT.format(" (sit)")),
    ("ip6gre", bare(type=823), POINT_TO_POINT.format("")),
    ("ppp", bare(type=512, flags=UP | 0x10), POINT_TO_POINT.format("")),
    ("lo", bare(type=772), POINT_TO_POINT.format("").replace("it is a tunnel or another point-to-point link", HERE)),
    ("arp off", replace(LAN, flags=UP | 0x80), NOARP),
    ("down, too", bare(type=0xFFFE, up=False, flags=0x10), POINT_TO_POINT.format("")),
)
BRIDGED = 'it is a port of br0, whose neighbours its hosts are: via = ["br0"]'
NOT_NOW = (
    ("down", replace(LAN, up=False, flags=0), "it is down: ip link set lan0 up"),
    ("no carrier", replace(LAN, up=False), "it has no carrier: nobody is at the other end"),
    ("a bridge's port", replace(LAN, bridge="br0"), BRIDGED),
    ("no address", replace(LAN, addresses={}), NO_LINK_LOCAL),
    ("a global one only", replace(LAN, addresses=GLOBAL), NO_LINK_LOCAL),
)


@pytest.mark.parametrize(("link", "why"), [case[1:] for case in NEVER], ids=[case[0] for case in NEVER])
def test_where_there_is_no_neighbor_discovery_method_neighbour_is_refused(link: LinkFacts, why: str) -> None:
    assert refused_vias(config(), facts(link)) == [WHERE + why]
    assert via_warnings(used_vias(config(), facts(link)), nothing_set) == [WHERE + why], "if it comes later"


@pytest.mark.parametrize(("link", "why"), [case[1:] for case in NOT_NOW], ids=[case[0] for case in NOT_NOW])
def test_where_it_can_not_work_now_the_mend_is_said(link: LinkFacts, why: str) -> None:
    assert refused_vias(config(), facts(link)) == []
    assert via_warnings(used_vias(config(), facts(link)), nothing_set) == [WHERE + why]


def test_ipv6_that_is_off_is_said_by_the_name_that_sysctl_takes() -> None:
    assert via_warnings(used_vias(config(), facts(replace(LAN, addresses={}))), ipv6_off) == [
        WHERE + "IPv6 is off there: sysctl -w net/ipv6/conf/lan0/disable_ipv6=0"
    ]


@pytest.mark.parametrize("method", ["neighbour", "route"])
def test_nothing_is_said_where_it_works_or_where_it_does_not_matter(method: str) -> None:
    well = [LAN, replace(LAN, type=32, mac=b"")]  # InfiniBand has Neighbor Discovery
    for link in well if method == "neighbour" else [case[1] for case in (*NEVER, *NOT_NOW)]:
        assert refused_vias(config(method=method), facts(link)) == []
        assert via_warnings(used_vias(config(method=method), facts(link)), nothing_set) == []
    assert via_warnings(used_vias(config("lan7", method), facts()), nothing_set) == [], "said elsewhere: it isn't there"


def test_of_what_a_glob_means_only_that_is_said_which_is_at_work_and_fails() -> None:
    idle, busy, tunnel = (
        replace(LAN, name="lan1", up=False),
        replace(LAN, name="lan2", addresses={}),
        replace(LAN, name="lan3", type=0xFFFE, mac=b""),
    )
    links = facts(LAN, idle, busy, tunnel)
    assert refused_vias(config("lan*"), links) == []
    (line,) = via_warnings(used_vias(config("lan*"), links), nothing_set)
    assert line.startswith("wan0: rule 2001:db8:1::/64: via lan2: it has no link-local address")


class Read(tuple[Any, ...]):
    """Says how often it was gone through."""

    times = 0

    def __iter__(self) -> Any:
        Read.times += 1
        return super().__iter__()


def test_of_many_rules_the_first_is_named_and_they_are_gone_through_once() -> None:
    """There may be 100,000 of them, and this is asked with each change of the machine."""
    text = """
[[interface]]
name = "wan0"
rule = [
    {prefix = "2001:db8:1::/64", method = "route", via = ["lan0"]},
    {prefix = "2001:db8:2::/64", method = "neighbour", via = ["lan1", "lan0"]},
    {prefix = "2001:db8:3::/64", method = "neighbour", via = ["lan*"]},
    {prefix = "2001:db8:4::/64", method = "neighbour", via = ["lan0"]},
]
"""
    several = parse(text, "test")
    several = replace(several, interfaces=tuple(replace(i, rules=Read(i.rules)) for i in several.interfaces))
    for _ in range(3):
        found = {(via.link.name, via.named): via for via in used_vias(several, facts(LAN))}
        assert found.keys() == {("lan0", True), ("lan0", False)}
        assert found["lan0", True].where == "wan0: rule 2001:db8:2::/64: via lan0"
        assert found["lan0", True].others == 1
        assert found["lan0", False] == ("wan0: rule 2001:db8:3::/64: via lan0", 0, LAN, False)
        assert absent_vias(several, facts(LAN)) == ["lan1"]
        assert refused_vias(several, facts(LAN)) == []
    assert Read.times == 2, "for what they search, and for all names of via"


def test_explain_says_it_too() -> None:
    question = Question("wan0", (), IPv6Address("2001:db8:1::5"), IPv6Address("2001:db8::1"))
    for link, sysctl, said in (
        (NEVER[0][1], nothing_set, "note: via lan0: it is a tunnel"),
        (LAN, ipv6_off, "note: via lan0: IPv6 is off there"),
    ):
        assert said in explain(config(), facts(link), question, sysctl)
    assert "note:" not in explain(config(), facts(LAN), question, nothing_set)
    own = replace(question, target=IPv6Address("2001:db8:2::5"))
    assert "note:" not in explain(config(), facts(NEVER[0][1]), own, nothing_set), "no rule of that kind covers it"


# --- what is so for a moment on each link that comes up ---

DOWN, PLUGGED_OUT, BARE = (
    replace(LAN, up=False, flags=0),
    replace(LAN, up=False),
    replace(LAN, addresses={}),
)


def looks(*steps: tuple[float, LinkFacts], sysctl: Any = nothing_set) -> list[tuple[bool, float | None]]:
    """Whether there is a warning at each of these moments, with lan0 as it is then; and when to look again."""
    patience = Patience()
    return [(bool(patience.look(used_vias(config(), facts(link)), sysctl, now)), patience.due) for now, link in steps]


def test_a_link_that_comes_up_is_no_reason_to_warn_while_its_carrier_and_its_address_are_on_their_way() -> None:
    new: dict[str, Any] = {"generation": 1}
    assert looks(
        (0.0, replace(DOWN, **new)),
        (0.1, replace(PLUGGED_OUT, **new)),
        (4.0, replace(BARE, **new)),
        (6.0, replace(LAN, **new)),
    ) == [(False, 1.0), (False, 5.1), (False, 8.0), (False, None)]


@pytest.mark.parametrize(("link", "lasts"), [(DOWN, 1.0), (PLUGGED_OUT, 5.0), (BARE, 4.0)])
def test_what_lasts_is_warned_of_when_it_has_lasted_and_for_as_long_as_it_does(link: LinkFacts, lasts: float) -> None:
    assert looks((0.0, link), (lasts - 0.1, link), (lasts, link), (100.0, link), (101.0, LAN), (102.0, link)) == [
        (False, lasts),
        (False, lasts),
        (True, None),
        (True, None),
        (False, None),
        (False, 102.0 + lasts),  # from the start again
    ]


def test_another_interface_with_the_same_index_has_time_of_its_own() -> None:
    assert looks((0.0, DOWN), (1.0, DOWN), (1.5, replace(DOWN, generation=1)))[1:] == [(True, None), (False, 2.5)]


def test_more_probes_take_longer_and_never_more_than_bounded() -> None:
    for probes, wanted in (("0", 3.0), ("3", 6.0), ("1000000", 11.0), ("?", 4.0)):
        assert looks((0.0, BARE), sysctl=lambda key, n=probes: n if "dad_transmits" in key else None)[0][1] == wanted


@pytest.mark.parametrize("link", [NEVER[0][1], replace(LAN, bridge="br0")], ids=["never", "a bridge's port"])
def test_what_does_not_mend_itself_is_said_at_once(link: LinkFacts) -> None:
    assert looks((0.0, link)) == [(True, None)]


def test_a_warning_of_an_interface_that_is_down_tells_which_and_no_other_does() -> None:
    down, silent = replace(LAN, up=False, flags=0), replace(LAN, up=False)
    for others in (0, 1, 2):
        used = [UsedVia("wan0: rule 2001:db8:1::/64: via lan0", others, down, named=True)]
        (line,) = via_warnings(used, nothing_set)
        assert down_via(line) == "lan0", line
        (other,) = via_warnings([each._replace(link=silent) for each in used], nothing_set)
        assert down_via(other) == "", other
