# SPDX-License-Identifier: GPL-2.0-or-later
"""A configuration in parts: none is large, whatever the configuration is, and together they are the same."""

from __future__ import annotations

import pickle

import pytest

from npd6_xdp.core.config import Config, InterfaceConfig, RuleConfig, Selection
from npd6_xdp.core.config_parts import Assembly, Interfaces, Items, Rules, parts
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.verdict import Method


def rule(number: int, *, via: int = 0, include: int = 0, exclude: int = 0) -> RuleConfig:
    return RuleConfig(
        f"rule {number}",
        (Prefix(number << 64, 64),),
        Method.ROUTE,
        via=tuple(f"lan{n}" for n in range(via)),
        include=tuple(Selection(f"::{n:x}", n, n) for n in range(include)),
        exclude=tuple(Selection(f"::{n:x}", n, n) for n in range(exclude)),
    )


def entry(name: str, *rules: RuleConfig) -> InterfaceConfig:
    return InterfaceConfig(name, rules)


def things(part: object) -> int:
    match part:
        case Items(_, items):
            return len(items)
        case Rules(rules):
            return sum(1 + len(each.via) + len(each.include) + len(each.exclude) for each in rules)
        case Interfaces(interfaces):
            return sum(1 + things(Rules(each.rules)) for each in interfaces)
    return 1


@pytest.mark.parametrize(
    "interfaces",
    [
        (),
        (entry("wan0"),),
        (entry("wan0", rule(1)), entry("wan1", rule(1), rule(2))),
        tuple(entry(f"wan{n}", rule(n)) for n in range(3000)),
        (entry("a", rule(1)), entry("b", *map(rule, range(3000))), entry("c", rule(1)), entry("d")),
        (entry("a", *map(rule, range(700))), entry("b", *map(rule, range(700)))),
        (entry("a", rule(1), rule(2, include=2000, exclude=1), rule(3, via=700, exclude=600), rule(4)),),
        (entry("a", rule(1, include=499)), entry("b", rule(2, include=500)), entry("c", rule(3, exclude=1000))),
        (entry("a", *(rule(n, via=3, include=40) for n in range(100))), entry("b", rule(5))),
    ],
    ids=["none", "no rules", "few", "many interfaces", "many rules", "twice", "long lists", "the border", "both"],
)
def test_parts_are_small_and_make_up_the_same(interfaces: tuple[InterfaceConfig, ...]) -> None:
    config = Config(interfaces, control="/run/x", metrics_listen=())
    assembly, found = Assembly(), None
    for part in parts(config):
        assert found is None, "the last one comes last"
        assert things(part) <= 510
        found = assembly.add(part)
    assert found == config


OLD = Config((entry("a", rule(1)), entry("b", *map(rule, range(2000))), entry("c", rule(1, include=600), rule(2))))
_OF_B = OLD.interfaces[1].rules


@pytest.mark.parametrize(
    ("rules", "count"),
    [
        (_OF_B, 1),
        ((*_OF_B[:700], rule(9000), *_OF_B[701:]), 3),
        ((*_OF_B[:700], *_OF_B[1000:]), 2),
        ((rule(9000), *_OF_B, rule(9001)), 3),
        ((*_OF_B[1000:], *_OF_B[:1000]), 2),
        (tuple(reversed(_OF_B)), 2000),
        (tuple(map(rule, range(2000))), 8),
        ((*OLD.interfaces[2].rules, *_OF_B), 2),
        ((rule(9000, include=600), *_OF_B, rule(9001, via=600)), 7),
    ],
    ids=["same", "one else", "some gone", "more", "moved", "turned round", "equal only", "another's too", "long lists"],
)
def test_what_both_sides_had_before_is_not_handed_over_again(rules: tuple[RuleConfig, ...], count: int) -> None:
    config = Config((entry("new", rule(5)), entry("b", *rules)))
    made = list(parts(config, OLD))
    assert len(made) == count + 3, "with the interface before, the interface, and the last part"
    assembly = Assembly(OLD)
    found = [assembly.add(pickle.loads(pickle.dumps(part))) for part in made][-1]  # noqa: S301  as the pipe has them
    assert found == config
    assert found is not None
    had = {id(each) for interface in OLD.interfaces for each in interface.rules}
    assert all(
        (one is other) is (id(other) in had) for one, other in zip(found.interfaces[1].rules, rules, strict=True)
    )
