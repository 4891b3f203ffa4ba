# SPDX-License-Identifier: GPL-2.0-or-later
"""Work that is done bit by bit comes to the same, and no bit of it is long, however much there is."""

from __future__ import annotations

import gc
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.snapshot import HostSnapshot, RuleSnapshot, Status
from npd6_xdp.core.status import overview_values, status_json, status_lines, status_pieces, status_values
from npd6_xdp.core.steps import Steps, emptied, finish, in_order, listed, pieces
from npd6_xdp.core.verdict import Method, Outcome
from tests.core.test_overview import OVERVIEW
from tests.core.test_status import STATUS, detailed

LONGEST = 0.05  # seconds of processor time that the loop may be held for
RULES, INTERFACES, HOSTS = 100_000, 4_000, 65_536


def rows(count: int) -> list[HostSnapshot]:
    return [HostSnapshot("lan0", IPv6Address((0x20010DB8 << 96) + number)) for number in range(count)]


def large(hosts: list[HostSnapshot]) -> Status:
    return replace(
        detailed(STATUS, hosts=hosts),
        snapshot=replace(
            STATUS.snapshot,
            interfaces=list(STATUS.snapshot.interfaces) * (INTERFACES // len(STATUS.snapshot.interfaces)),
            rules=[RuleSnapshot("wan0", f"r{n}", Method.STATIC, {Outcome.LOST: n % 5000}) for n in range(RULES)],
        ),
    )


def timed(steps: Iterator[Any]) -> tuple[float, list[Any]]:
    """The longest bit of some work, in seconds of this thread's processor time, and what it made."""
    longest, made = 0.0, []
    gc.collect()
    gc.disable()  # as it is in daemon/telling.py
    while True:
        began = time.thread_time()
        try:
            made.append(next(steps))
        except StopIteration as done:
            made.append(done.value)
            gc.enable()
            return max(longest, time.thread_time() - began), made
        longest = max(longest, time.thread_time() - began)


@pytest.mark.large
def test_no_bit_of_the_largest_status_or_overview_is_long() -> None:
    hosts = rows(HOSTS)
    status = large(hosts)
    bits = {
        "status": timed(status_pieces(status)),
        "its values": timed(status_values(status)),
        "overview": timed(overview_values(replace(OVERVIEW, snapshot=status.snapshot))),
        "its lines": timed(status_lines(status_json(status))),
        "the order of hosts": timed(in_order(hosts[::-1], lambda host: host.address)),
    }
    print({what: f"{1000 * longest:.1f} ms" for what, (longest, _) in bits.items()})
    assert {what for what, (longest, _) in bits.items() if longest > LONGEST} == set()
    assert bits["the order of hosts"][1][-1] == hosts
    left_out = bits["overview"][1][-1]["left_out"]
    assert left_out == {"interfaces": INTERFACES - 500, "rules": RULES - 500}


@pytest.mark.large
@pytest.mark.parametrize(
    "made",
    [lambda: STATUS, lambda: detailed(STATUS, hosts=rows(200), targets=[]), lambda: large([])],
    ids=["", "200", "large"],
)
def test_the_pieces_of_a_status_are_the_very_text_of_its_json(made: Callable[[], Any]) -> None:
    status = made()
    assert "".join(status_pieces(status)) == json.dumps(status_json(status))


@given(st.lists(st.integers(0, 50), max_size=60), st.booleans(), st.integers(1, 9))
def test_what_is_put_in_order_bit_by_bit_is_as_sorted(values: list[int], reverse: bool, size: int) -> None:
    items = [(value, number) for number, value in enumerate(values)]

    def first(item: tuple[int, int]) -> int:
        return item[0]

    assert finish(in_order(items, first, reverse=reverse)) == sorted(items, key=first, reverse=reverse)
    assert finish(in_order(items)) == sorted(items)
    assert finish(listed(iter(items))) == items
    assert [item for piece in pieces(items, size) for item in piece] == items


def test_runs_are_merged_as_one() -> None:
    items = [(number * 7919) % 10_007 for number in range(10_000)]
    steps: Steps[list[int]] = in_order(items, lambda item: item // 10, reverse=True)
    assert finish(steps) == sorted(items, key=lambda item: item // 10, reverse=True)


@given(st.lists(st.integers(), max_size=3000))
def test_a_list_is_let_go_of_bit_by_bit_until_nothing_is_in_it(items: list[int]) -> None:
    left = [len(items)]
    for _ in emptied(items):
        left.append(len(items))
    assert items == []
    assert all(before - after <= 512 for before, after in itertools.pairwise(left))


def test_what_is_raised_between_two_bits_ends_the_work_and_all_that_it_holds_is_let_go_of() -> None:
    did: list[str] = []

    def work() -> Steps[None]:
        try:
            for bit in ("first", "second", "third"):
                did.append(bit)
                yield
        finally:
            did.append("let go")

    def went_on() -> None:
        if "second" in did:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        finish(work(), went_on)
    assert did == ["first", "second", "let go"]
