# SPDX-License-Identifier: GPL-2.0-or-later
"""No bit is long of what is done with names of interfaces, where a file has another one in each of 100,000 rules, and
with long lists of addresses.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from npd6_xdp.core.absent import finding_absent_lines, finding_absent_names, finding_via_globs
from npd6_xdp.core.build import building
from npd6_xdp.core.config import Config, InterfaceConfig, RuleConfig, Selection
from npd6_xdp.core.judgement import Facts, Port, judging
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.steps import weighed
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Method
from npd6_xdp.core.vias import finding_used_vias
from npd6_xdp.core.warnings import WarningKind, all_lines
from tests.core.tables import facts, link, own
from tests.core.test_steps import LONGEST, timed

COUNT = 100_000
LINKS = facts(link(), replace(link(), name="lan0", ifindex=8, addresses={}, l3={(): 8}))


def rules(count: int, names: int = 1) -> tuple[RuleConfig, ...]:
    """Each with so many names in `via` that no other has."""
    return tuple(
        RuleConfig(
            f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::/64",
            (Prefix((0x20010DB8 << 96) + (number << 64), 64),),
            Method.NEIGHBOUR,
            via=("lan0", *(f"x{number}.{each}" for each in range(names - 1))) if names > 1 else (f"x{number}",),
        )
        for number in range(count)
    )


def config(count: int, names: int = 1) -> Config:
    return Config((InterfaceConfig("wan0", rules(count, names)),))


@pytest.mark.large
@pytest.mark.parametrize(("count", "names"), [(COUNT, 1), (60, 4096)], ids=["one", "many"])
def test_no_bit_is_long_of_what_is_made_of_a_file_of_names(count: int, names: int) -> None:
    then, longest = config(count, names), dict[str, float]()
    longest["known"], _ = timed(then.knowing())
    assert len(then.searched) == len(then.via_names) == len(then.names) - 1 == count * max(1, names - 1) + (names > 1)
    longest["used"], (*_, used) = timed(finding_used_vias(then, LINKS))
    assert [via.others for via in used] == ([count - 1] if names > 1 else [])
    longest["absent"], (*_, (_, vias)) = timed(finding_absent_lines(then, LINKS))
    missing = sorted(then.via_names - LINKS.keys())
    assert vias == [f"via {name}: no such interface; waiting for it" for name in missing]
    longest["globs"], _ = timed(finding_via_globs(then, LINKS))
    before = Table({}, {}, {}, {}, {})
    for what, to_be in {"they come": then, "one goes": config(count - 1, names), "they go": config(1)}.items():
        longest[what], (*_, table) = timed(building(to_be, LINKS, before))
        assert len(table.via_sets) == len(to_be.interfaces[0].rules)
        before = table
    print({what: f"{1000 * bit:.1f} ms" for what, bit in longest.items()})
    assert max(longest.values()) < LONGEST, longest


def chosen(number: int, count: int, *, follows: str = "", outside: bool = False) -> RuleConfig:
    """A rule that includes so many addresses, and takes half of them out again."""
    base = 1 << 127 if outside else 0
    each = tuple(Selection(f"::{suffix:x}", base + suffix, base + suffix) for suffix in range(1, count + 1))
    network = Prefix((0x20010DB8 << 96) + (number << 64), 64)
    networks = () if follows else (network,)
    return RuleConfig(str(network), networks, Method.STATIC, follows, include=each, exclude=each[::2])


RANGES = tuple(Selection("", number << 48 | 1, (number + 1 << 48) - 2) for number in range(700))  # 94 prefixes each
LONG_LISTS = {
    "one": (chosen(0, 65_535),),
    "two hundred": tuple(chosen(number, 400) for number in range(200)),
    "outside of what is followed": (chosen(0, 65_535, follows="wan0", outside=True),),
    "ranges": (
        chosen(0, 0)._replace(include=tuple(Selection("", n << 48 | 1, (n + 1 << 48) - 2) for n in range(700))),
    ),
}


@pytest.mark.large
@pytest.mark.parametrize("entry", LONG_LISTS.values(), ids=LONG_LISTS.keys())
def test_no_bit_is_long_of_a_rule_with_many_addresses(entry: tuple[RuleConfig, ...]) -> None:
    before, longest = Table({}, {}, {}, {}, {}), dict[str, float]()
    links = {**LINKS, "wan0": replace(LINKS["wan0"], addresses={(): own("2001:db8::1/64")})}
    little = chosen(COUNT, 1)
    for what, its_rules in {"it comes": (*entry, little), "it stays": (little, *entry), "it goes": (little,)}.items():
        longest[what], (*_, table) = timed(building(Config((InterfaceConfig("wan0", its_rules),)), links, before))
        before = table
        assert len(table.rules) == len(its_rules)
    print({what: f"{1000 * bit:.1f} ms" for what, bit in longest.items()})
    assert max(longest.values()) < LONGEST, longest


@pytest.mark.large
def test_no_bit_is_long_of_a_judgement_about_many_warnings_and_ports_that_are_away() -> None:
    names = [f"x{number}" for number in range(COUNT)]
    away = [Port(name, "is not there") for name in names]
    lines = {
        WarningKind.RULE: [f"wan0: rule {name}: another text" for name in names],
        WarningKind.INTERFACE: [f"{name}: no such interface; waiting for it" for name in names],
        WarningKind.VIA: [f"via {name}: no such interface; waiting for it" for name in names],
    }
    longest = {}
    longest["lines"], (*_, found) = timed(all_lines(lines))
    assert len(found) == 3 * COUNT
    longest["one is there"], (*_, one) = timed(judging(Facts([Port("wan0"), *away], lines)))
    assert len(one.problems) == COUNT + 2
    longest["none is there"], (*_, none) = timed(judging(Facts(away, lines, absent=names)))
    assert [each.text for each in none.problems if each.kind == WarningKind.INTERFACE] == []
    entries = Config(tuple(InterfaceConfig(name, ()) for name in names))
    longest["names"], (*_, absent) = timed(finding_absent_names(entries, LINKS))
    assert absent == names
    print({what: f"{1000 * bit:.1f} ms" for what, bit in longest.items()})
    assert max(longest.values()) < LONGEST, longest


@pytest.mark.parametrize(
    ("weights", "want"),
    [
        ([], []),
        ([1, 1, 1, 1, 1], [[1, 1, 1], [1, 1]]),
        ([9, 1, 9, 2], [[9], [1, 9], [2]]),
    ],
)
def test_things_that_count_for_more_are_fewer_at_a_time(weights: list[int], want: list[list[int]]) -> None:
    def itself(weight: int) -> int:
        return weight

    assert [*weighed(weights, itself, 3)] == want
