# SPDX-License-Identifier: GPL-2.0-or-later
"""What a configuration means for a port: whose entries speak for it, how it is attached, what its sources may do."""

from __future__ import annotations

import time

import pytest

from npd6_xdp.core.config import Attach, Config, InterfaceConfig, RuleConfig, TcOrder, Wish
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.verdict import Method
from tests.core.configs import interface, only

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


ENTRIES: tuple[tuple[str, list[tuple[str, str]], str, list[int]], ...] = (
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


def test_a_port_stands_last_among_tc_programs_if_one_of_its_entries_says_so() -> None:
    text = (
        interface('attach = "tc"')
        + interface('vlan = 7\ntc_order = "last"')
        + interface('attach = "tc"', '"lan0"')
        + interface('tc_order = "last"', '"auto*"')
        + interface('attach = "native"\nvlan = 7', '"auto1"')
    )
    config = parse(text, "")
    assert [config.wish(port) for port in ("wan0", "lan0", "auto0", "auto1", "none0")] == [
        Wish(Attach.TC, TcOrder.LAST),
        Wish(Attach.TC, TcOrder.FIRST),
        Wish(Attach.AUTO, TcOrder.LAST),
        Wish(Attach.NATIVE),
        Wish(Attach.AUTO),
    ]


def test_what_is_searched_takes_time_in_proportion_to_the_names() -> None:
    """All names of a list are hashed to look it up: not once for each of them."""
    names = tuple(f"lan{number}" for number in range(40_000))
    rules = (RuleConfig("2001:db8::/64", (), Method.NEIGHBOUR, via=names),)
    config = Config((InterfaceConfig("wan0", rules),))
    began = time.thread_time()
    searched = config.searched
    assert time.thread_time() - began < 0.5, "the square of them takes two seconds"
    assert list(searched) == list(names)
    assert set(searched.values()) == {("wan0: rule 2001:db8::/64", 1)}
