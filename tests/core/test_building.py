# SPDX-License-Identifier: GPL-2.0-or-later
"""What is made of a large configuration is made in short bits, and comes to what it would be at once."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Any

import pytest

from npd6_xdp.core.build import build, building
from npd6_xdp.core.config import Config, InterfaceConfig, RuleConfig
from npd6_xdp.core.flatten import collecting
from npd6_xdp.core.groups import finding_groups
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.neighbour_messages import NeighbourState
from npd6_xdp.core.neighbours import Host, Neighbours
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Method
from npd6_xdp.core.warnings import finding_warnings
from tests.core.hosts import told
from tests.core.test_steps import timed

RULES = 20_000
HOSTS = 16_384
LONGEST = 0.05
"""Seconds of processor time of a bit: they take a tenth of it, and all in all a fifth of a second."""

OWN = OwnAddress(IPv6Address("2001:db8::2"))
LINKS = {
    "wan0": LinkFacts("wan0", 7, bytes((2, 0, 0, 0, 0, 7)), addresses={(): (OWN,)}, l3={(): 7}),
    "lan0": LinkFacts("lan0", 8, bytes((2, 0, 0, 0, 0, 8)), l3={(): 8}),
}


def config(first: int, method: Method, length: int, changed: Method | None = None, count: int = RULES) -> Config:
    """An interface with many rules, of which one may have another method."""

    def rule(number: int) -> RuleConfig:
        prefix = Prefix((0x2001 << 112) + (first << 96) + (number << 64), length)
        by = changed if changed is not None and number == count // 2 else method
        via = ("lan0",) if by is Method.NEIGHBOUR else ()
        return RuleConfig(f"{first}:{number}", (prefix,), by, via=via)

    return Config((InterfaceConfig("wan0", tuple(map(rule, range(count)))),))


def rest(table: Table, before: Table) -> Iterator[Any]:
    """What else is made of a table before it is in force."""
    yield from finding_warnings(table)
    yield from finding_groups(table)
    for entry, decisions in table.decisions.items():
        yield from decisions.comparing(before.decisions[entry])
    for origin in table.origins.values():
        yield from collecting(origin.config, {})


@pytest.mark.large
@pytest.mark.parametrize(("method", "length"), [(Method.STATIC, 64), (Method.NEIGHBOUR, 128)], ids=str)
def test_no_bit_is_long_whatever_of_a_large_table_changes(method: Method, length: int) -> None:
    before = build(config(0xDB9, method, length, count=2), LINKS)
    longest: dict[str, float] = {}
    for what, then in {
        "they come": config(0xDB9, method, length),
        "one changes": config(0xDB9, method, length, Method.IGNORE),
        "none changes": config(0xDB9, method, length, Method.IGNORE),
        "all are others": config(0xDBA, method, length),
        "they go": config(0xDB9, method, length, count=2),
    }.items():
        bits, made = timed(building(then, LINKS, before))
        table: Table = made[-1]
        others, _ = timed(rest(table, before))
        longest[what] = max(bits, others)
        before = table
    assert max(longest.values()) < LONGEST, longest


@pytest.mark.large
def test_no_bit_is_long_of_what_a_table_to_come_means_to_many_hosts() -> None:
    before = build(config(0xDB9, Method.NEIGHBOUR, 48, count=3), LINKS)
    then = build(config(0xDB9, Method.NEIGHBOUR, 48, Method.IGNORE, count=3), LINKS, before)
    neighbours = Neighbours(HOSTS)
    neighbours.use(before, HOSTS)
    first = (0x2001 << 112) + (0xDB9 << 96)
    hosts = {Host(8, (first + number).to_bytes(16)): NeighbourState.REACHABLE for number in range(HOSTS)}
    assert len(told(neighbours, hosts)) == HOSTS
    neighbours.drop()
    longest = {}
    longest["it is expected"], _ = timed(neighbours.expecting(then, HOSTS))
    longest["it comes"], _ = timed(neighbours.use(then, HOSTS) for _ in range(1))
    longest["it is there"], _ = timed(neighbours.dropping())
    assert len(neighbours) == HOSTS
    assert max(longest.values()) < LONGEST, longest


@pytest.mark.large
def test_a_table_made_of_one_that_was_never_in_force_uses_no_number_of_the_one_that_is() -> None:
    """An event under way bears a number of the table in force: it must not be another rule's by then."""
    small = [config(number, Method.NEIGHBOUR, 64, count=3) for number in range(4)]
    in_force = build(small[0], LINKS)
    tried = build(small[1], LINKS, in_force)
    (table,) = [made[-1] for _, made in [timed(building(small[2], {**LINKS, "lan9": LINKS["lan0"]}, tried, in_force))]]
    assert not table.rules.keys() & in_force.rules.keys()
    assert not table.rules.keys() & tried.rules.keys()
    again = timed(building(small[0], LINKS, tried, in_force))[1][-1]
    assert not again.rules.keys() & in_force.rules.keys(), "not even for the same rule: whoever made it knew none"
    assert {entry.label for entry in table.entries.values()} == {entry.label for entry in in_force.entries.values()}
    assert table.entries.keys() == in_force.entries.keys(), "they were kept all along"
