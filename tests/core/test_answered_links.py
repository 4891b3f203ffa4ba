# SPDX-License-Identifier: GPL-2.0-or-later
"""Which links belong together, by the rules that lead from one to another; and that thousands are gone over in bits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.answered_links import AnsweredLinks
from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.places import Places
from npd6_xdp.core.steps import finish
from tests.core.test_places import entry
from tests.core.test_steps import timed

LINKS_TO_JOIN = st.lists(st.tuples(st.integers(1, 12), st.sets(st.integers(1, 12), min_size=1, max_size=3)), min_size=1)


@given(LINKS_TO_JOIN, st.sets(st.integers(1, 12)))
def test_links_belong_together_where_rules_lead_from_one_to_the_next_within_a_vrf(
    rules: list[tuple[int, set[int]]], in_vrf: set[int]
) -> None:
    """As a graph has it that is gone over from each link."""
    links = {f"l{n}": LinkFacts(f"l{n}", n, bytes((2, 0, 0, 0, 0, n))) for n in range(1, 13)}
    text = "".join(
        entry(f"l{port}", " ".join(f"l{via}" for via in sorted(vias))).replace(
            "[[interface.", f"vlan = {number + 1}\n[[interface."
        )
        for number, (port, vias) in enumerate(rules)
    )
    found = finish(AnsweredLinks.finding(build(parse(text, "test"), links), dict.fromkeys(in_vrf, 9)))
    ways: dict[int, set[int]] = {}
    for port, vias in rules:
        for one in (port, *vias):
            ways.setdefault(one, {one}).update(n for n in (port, *vias) if (n in in_vrf) == (one in in_vrf))
    for link in range(1, 13):
        together, new = set[int](), {link} & ways.keys()
        while new:
            together |= new
            new = {other for one in new for other in ways[one]} - together
        assert found.belongs_to(link) == min(together, default=0)


@pytest.mark.large
def test_what_a_table_says_of_thousands_of_links_is_found_in_bits_before_it_is_in_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 4,000 it took 0.35 to 0.7 s in the turn that put it in force."""
    names = [f"p{n}" for n in range(600)]
    links = {name: LinkFacts(name, n, bytes((2, 0, 0, 0, n >> 8, n & 255))) for n, name in enumerate(names, 1)}
    text = "".join(entry(name, names[n ^ 1], f"2001:db8:{n:x}::/64") for n, name in enumerate(names))
    many, places = build(parse(text, "test"), links), Places()
    _, bits = timed(places.expecting(many))
    assert len(bits) >= len(names)
    monkeypatch.setattr(AnsweredLinks, "finding", None)
    places.use(many, 0.0)
    assert places._links.belongs_to(2) == places._links.belongs_to(1) == 1
    assert places._links.belongs_to(4) == 3
