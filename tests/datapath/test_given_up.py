# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that decides about nothing any more lets go of its lines bit by bit: the kernel frees a map in one go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from npd6_xdp.core.layout import EXACT_KEY, RULE, TRIE_KEY
from npd6_xdp.core.table import Table
from npd6_xdp.system.bpf import program
from npd6_xdp.system.bpf.maps import Maps
from npd6_xdp.system.bpf.ns_filter import NsFilter
from tests.datapath.harness import UNLIMITED, entry, rule, table, taken_over

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading an XDP program needs root")

LEFT = 5
KEYS = {"prefix_trie": TRIE_KEY, "exact_matches": EXACT_KEY}
OF_MANY_LENGTHS = table(entry(*(rule(f"2001:db8:{number:x}::/{48 + number}") for number in range(16))))
OF_ADDRESSES = table(entry(*(rule(f"2001:db8::{number:x}") for number in range(1, 17))))


class Held(Maps):
    """A program's maps, which stay when it is given up: the kernel frees them when nobody holds them."""

    def __init__(self, ns_filter: NsFilter, using: Table) -> None:
        descriptors = {name: os.dup(ns_filter.program.maps[name]) for name in KEYS}
        super().__init__(descriptors, ns_filter.sizes(using, UNLIMITED))

    def close(self) -> None:
        for descriptor in self.maps.values():
            os.close(descriptor)

    def lines(self) -> int:
        return sum(1 for name, key in KEYS.items() for _ in self.all_items(name, key.size, RULE.size))


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Table], tuple[NsFilter, Held]]]:
    monkeypatch.setattr(program, "_FREED_AT_ONCE", LEFT)
    with ExitStack() as stack:

        def make(using: Table) -> tuple[NsFilter, Held]:
            ns_filter = NsFilter(using, UNLIMITED)
            ns_filter.apply(using)
            held = stack.enter_context(closing(Held(ns_filter, using)))
            assert held.lines() == 16
            return ns_filter, held

        yield make


@pytest.mark.parametrize("using", [OF_MANY_LENGTHS, OF_ADDRESSES], ids=["trie", "hash"])
def test_at_the_end_few_lines_are_left_to_be_freed(
    make: Callable[[Table], tuple[NsFilter, Held]], using: Table
) -> None:
    ns_filter, held = make(using)
    ns_filter.close()
    assert held.lines() == LEFT


def test_what_is_left_to_a_successor_has_all_of_its_lines(make: Callable[[Table], tuple[NsFilter, Held]]) -> None:
    ns_filter, held = make(OF_MANY_LENGTHS)
    ns_filter.close(leave=True)
    assert held.lines() == 16


def test_of_a_program_that_another_has_taken_over_from_few_lines_are_left(
    make: Callable[[Table], tuple[NsFilter, Held]],
) -> None:
    ns_filter, held = make(OF_MANY_LENGTHS)
    with closing(ns_filter):
        taken_over(ns_filter, OF_ADDRESSES)
        assert held.lines() == 16, "events of it may still come"
        ns_filter.retire()
        assert held.lines() == LEFT
        with closing(Held(ns_filter, OF_ADDRESSES)) as after:
            assert after.lines() == 16
