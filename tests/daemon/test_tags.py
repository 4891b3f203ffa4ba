# SPDX-License-Identifier: GPL-2.0-or-later
"""Taps beside the program: which table they have put into the maps again, whenever the loop has them follow ports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext
from types import SimpleNamespace

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.steps import finish
from npd6_xdp.core.table import Table
from npd6_xdp.daemon.tags import Tags
from tests.core.tables import facts
from tests.daemon.forces import go_by, in_force


class NsFilter:
    """Each change of ports is one for the taps, too."""

    def __init__(self) -> None:
        self.program = SimpleNamespace(tap_fd=-1, tapped=None)
        self.tables: list[Table] = []

    def tap(self, _: object) -> bool:
        return True

    def apply(self, table: Table) -> None:
        self.tables.append(table)


class Ports:
    """None that has to be listened on."""

    changes = 0

    def hiding_tags(self) -> frozenset[int]:
        return frozenset()

    generic = hiding_tags


@pytest.fixture
def ns_filter() -> NsFilter:
    return NsFilter()


@pytest.fixture
def tags(ns_filter: NsFilter) -> Iterator[Tags]:
    with closing(Tags(ns_filter, Ports(), lambda _: 0, nullcontext())) as found:  # type: ignore[arg-type]
        yield found


def test_ports_that_come_before_a_new_table_is_settled_dont_put_the_old_one_into_the_maps_again(
    tags: Tags, ns_filter: NsFilter
) -> None:
    """Other rooms settle first, over several turns of the loop; and the loop has taps follow each port at once."""
    text = '[[interface]]\nname = "wan0"\n[[interface.rule]]\nprefix = "2001:db8:1::/64"\nmethod = "static"\n'
    links = facts()
    old, new = (in_force(build(parse(text, "test"), links), links) for _ in range(2))
    go_by(tags, old)
    tags.follow_ports()
    assert ns_filter.tables[-1] is old.table
    tags.apply(new)
    tags.follow_ports()
    assert ns_filter.tables[-1] is new.table
    finish(tags.settle(old, new))
    assert ns_filter.tables[-1] is new.table
