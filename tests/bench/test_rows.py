# SPDX-License-Identifier: GPL-2.0-or-later
"""What the rows make of what they have measured: their arithmetic, and what they load."""

from __future__ import annotations

import os
import threading
import time
from ipaddress import IPv6Network
from itertools import pairwise

import pytest

from tests.bench.former import COMMIT
from tests.bench.plan import QUICK, Run
from tests.bench.program import Cost
from tests.bench.rates import Load, Rates
from tests.bench.results import Results
from tests.bench.rows import NUMBERS, cost, end, interfaces, load, rules, scan, telling
from tests.bench.stalls import Stalls
from tests.bench.subjects import NDPPD, PYTHON

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="real-time priorities need root")


@pytest.fixture
def run() -> Run:
    return Run(QUICK, True, frozenset(NUMBERS), Results({}, quick=True), lambda _: None)


def found() -> load._Found:
    """Two repeats, in which ndppd reached 100 and 200 a second on the ladder, and python 1,000 and 1,400."""
    each = load._Found()
    for subject, peaks in ((NDPPD, (100.0, 200.0)), (PYTHON, (1000.0, 1400.0))):
        for peak in peaks:
            rates = Rates([Load(peak, peak, peak, 1.0), Load(2 * peak, 2 * peak, peak / 2, 0.25)], lossless=peak / 2)
            each.rates[subject.name].append(rates)
    return each


def test_what_a_scan_has_cost_in_one_repeat_is_not_made_good_by_the_others() -> None:
    assert scan.share_answered([100.0, 99.95, 100.0], 300_000.0).holds is True
    assert scan.share_answered([100.0, 99.0, 100.0], 300_000.0).holds is False


def test_a_peak_is_of_its_own_repeat_and_of_any_window(run: Run) -> None:
    each = found()
    assert each.peaks(NDPPD) == [100.0, 200.0]
    each.pairs[NDPPD.name] += [(90.0, 120.0), (80.0, 110.0), (210.0, 150.0), (170.0, 190.0)]
    assert each.peaks(NDPPD) == [120.0, 210.0]


def test_lossless_rates_are_compared_within_a_repeat(run: Run) -> None:
    each = found()
    each.rates["npd6"] = each.rates[NDPPD.name]
    load._row_5(run, each, ())
    over = next(figure for figure in run.results.figures if figure.name == "python, lossless, over ndppd")
    assert over.value == (1000 / 100 + 1400 / 200) / 2
    assert over.holds is True


def test_a_flood_is_over_the_peak_of_its_repeat_and_over_the_former_program_beside_it(run: Run) -> None:
    each = found()
    each.rates["npd6"] = each.rates[NDPPD.name]
    each.floods[1] = [Load(0, 0, 5000.0, 1.0), Load(0, 0, 9000.0, 1.0)]
    each.floods[2] = [Load(0, 0, 7000.0, 1.0), Load(0, 0, 8000.0, 1.0)]
    each.won, each.shares, each.monitored = [(300.0, 200.0), (200.0, 200.0), (400.0, 200.0)], [1.0, 0.5], [1.0]
    load._row_4(run, each)
    values = {figure.name: figure.value for figure in run.results.figures}
    assert values["hybrid under a live-frame flood over ndppd's peak"] == (7000 / 100 + 9000 / 200) / 2
    assert values[f"hybrid, one generator, over the program of commit {COMMIT[:7]}"] == 1.5
    assert values["of what reached the program, answered"] == 50


def test_overload_is_over_the_window_beside_it(run: Run) -> None:
    each = found()
    each.pairs[PYTHON.name] = [(95.0, 100.0), (40.0, 50.0), (99.0, 100.0)]
    each.overloads[PYTHON.name] = [Load(1000, 900, 95, 0.1)] * 3
    load._row_6(run, each)
    (figure,) = run.results.figures
    assert figure.value == 0.95
    assert figure.holds is True


def test_a_cost_is_in_times_of_the_bare_program_of_the_same_load(run: Run) -> None:
    costs = [Cost([40.0], [80.0]), Cost([50.0], [50.0]), Cost([10.0], [30.0])]
    cost._over_bare(run, 2, "x", costs, 2.0)
    cost._over_bare(run, 2, "less", costs, 0.5, [Cost([40.0], [60.0]), Cost([50.0], [25.0]), Cost([10.0], [29.0])])
    plain, less = run.results.figures
    assert (plain.value, plain.holds) == (2.0, True)
    assert (less.value, less.holds) == (0.5, True)


def test_what_an_interface_takes_is_what_more_of_them_take(run: Run) -> None:
    interfaces._figures(run, "x", 1000, 0.5, 30.0, interfaces._Taken(start=4.5, memory=80.0, idle=0.6, stop=0.3))
    assert [(figure.value, figure.holds) for figure in run.results.figures] == [
        (4.0, True),
        (0.3, True),
        (0.05, True),
        (0.6, False),
    ]


def test_a_pause_is_a_share_of_the_time_that_was_asked_for(run: Run) -> None:
    telling._figures(run, telling._STATUS, telling._Found([2.0, 4.0], [0.5, 0.5], [0.2, 0.2]), [0.01])
    whole, pause = run.results.figures
    assert whole.value == 6.0
    assert pause.value == pytest.approx(0.075)


@pytest.mark.parametrize("lengths", end._LENGTHS.values(), ids=["hash", "trie"])
def test_of_the_prefixes_of_an_end_none_lies_in_another(lengths: tuple[int, ...]) -> None:
    networks = sorted(map(IPv6Network, end._prefixes(500, lengths)))
    assert len({network.network_address for network in networks}) == 500
    assert {network.prefixlen for network in networks} == set(lengths)
    assert not any(one.overlaps(other) for one, other in pairwise(networks))


def test_of_so_many_rules_so_many_are_changed() -> None:
    before, after = rules._configs(1000, 100)
    assert len(before.rules) == len(after.rules) == len(set(after.rules)) == 1000
    assert sum(one != other for one, other in zip(before.rules, after.rules, strict=True)) == 100


@needs_root
def test_a_cpu_that_is_held_is_seen_and_one_that_is_only_busy_is_not() -> None:
    cpu = min(os.sched_getaffinity(0))

    def spin(seconds: float, *, first: bool) -> None:
        os.sched_setaffinity(0, {cpu})
        if first:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            pass

    with Stalls() as stalls:
        longest = []
        for first in (False, True):
            thread = threading.Thread(target=spin, args=(0.4,), kwargs={"first": first})
            stalls.begin()
            thread.start()
            thread.join()
            time.sleep(0.02)
            longest.append(stalls.longest()[0])
        assert longest[1] > 0.2
        assert longest[0] < longest[1] / 2


def test_every_row_is_in_the_plan_once() -> None:
    assert list(NUMBERS) == sorted(set(NUMBERS)) == list(range(1, 19))
