# SPDX-License-Identifier: GPL-2.0-or-later
"""The profile's reading of perf, py-spy and the kernel's statistics."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from npd6_xdp.daemon.loop import Loop
from tests.bench.chain import Chain
from tests.bench.plan import QUICK, Run
from tests.bench.profile import stages
from tests.bench.profile.flood import _cost_of_counting
from tests.bench.profile.page import Section, write
from tests.bench.profile.python import _kinds
from tests.bench.profile.symbols import read
from tests.bench.program import Repeats
from tests.bench.results import Results

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="BPF programs need root")

_REPORT = """\
# Children      Self  Symbol
# ........  ........  ......
#
    71.00%     1.00%  [k] do_syscall_64
    50.00%    50.00%  [k] pv_native_safe_halt
    20.00%    20.00%  [.] _PyEval_EvalFrameDefault
    12.00%     9.00%  [k] bpf_prog_f685b10a20e6f412_ns_filter
     0.50%     0.00%  [.] 0x00007ffd23c9bc20
    21.00%    20.00%  [k] net_rx_action
"""


def test_perf_report_is_read_without_the_idle_time() -> None:
    symbols = read(_REPORT)
    assert symbols is not None
    assert symbols.user == pytest.approx(0.4)
    assert symbols.own == pytest.approx({"do_syscall_64": 0.02, "BPF program ns_filter": 0.18, "net_rx_action": 0.4})
    assert symbols.inclusive["net_rx_action"] == pytest.approx(0.42)
    assert symbols.top(1, 1000.0) == [("`net_rx_action`", "40 %", "400 ns")]


def test_a_report_of_nothing_is_none() -> None:
    assert read("") is None
    assert read("# Samples: 0\n") is None


def _line_of_poll() -> int:
    code = Loop.turn.__code__
    lines = Path(code.co_filename).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if ".poll(" in line and number > code.co_firstlineno)


def test_samples_of_py_spy_are_sorted_by_the_innermost_known_function() -> None:
    head = "thread (1): MainThread;main (npd6_xdp/cli.py:39)"
    loop = f"{head};Daemon.run (npd6_xdp/daemon/__init__.py:494);Loop.run (npd6_xdp/daemon/loop.py:"
    look = f"{loop}148);Rings.look (npd6_xdp/daemon/rings.py:89)"
    answer = f"{look};Answering.answer (npd6_xdp/daemon/answering.py:69)"
    raw = "\n".join(
        (
            f"{loop}152);Loop.turn (npd6_xdp/daemon/loop.py:{_line_of_poll()}) 7",
            f"{loop}148) 1",
            f"{answer};Responder.answer_run (npd6_xdp/core/responder.py:80) 3",
            f"{answer};Ports.send_all (npd6_xdp/daemon/ports.py:88);Outbox.send (npd6_xdp/system/sender.py:83) 5",
            f"{answer};Logger.isEnabledFor (logging/__init__.py:1742) 2",
            f"{look};EventRing.read (npd6_xdp/system/bpf/events.py:94) 4",
            "thread (2): metrics;Thread.run (threading.py:975);select (selectors.py:415) 99",
        )
    )
    assert _kinds(raw) == {
        "waiting (epoll)": 7,
        "the rest: the loop, timers": 1,
        "building the answers": 3,
        "sending (sendmmsg)": 5,
        "counting, waiting times": 2,
        "reading the ring": 4,
    }


def test_the_page_and_the_json_file_hold_every_section(tmp_path: Path) -> None:
    sections = [Section("One", ("what", "takes"), [("a", "1 ns")], ["a note"], {"a, ns": 1.0}), Section("Two", (), [])]
    page = write({"kernel": "Linux"}, sections, tmp_path)
    assert (tmp_path / "profile.md").read_text() == page
    assert "| a    | 1 ns  |\n\n- a note" in page
    found = json.loads((tmp_path / "profile.json").read_text())
    assert [section["title"] for section in found["sections"]] == ["One", "Two"]
    assert found["sections"][0]["raw"] == {"a, ns": 1.0}


@pytest.mark.alone
@needs_root
def test_no_stage_of_the_program_takes_less_than_nothing() -> None:
    """As it does where the frames of some stages go both ways, and those of others one."""
    run = Run(QUICK, True, frozenset(), Results({}, quick=True), lambda _: None)
    for _ in range(3):  # a machine that others use may be slower for one of them
        found = stages.sections(run, Repeats(5, 20_000))
        taken = [(float(row[2]), float(row[3]), row[0]) for section in found[:2] for row in section.rows]
        if all(of_bare > -0.25 for _, of_bare, _ in taken):
            break
    assert [each for each in taken if each[1] <= -0.25] == []
    long, short = (section.raw["an answer, ns over the bare program"] for section in found[:2])
    assert long > short > 0
    costs = [float(row[1]) for row in found[2].rows]
    assert costs[-1] == max(costs), "by the long way"


@needs_root
def test_a_chain_of_look_ups_takes_time() -> None:
    with Chain(1 << 13) as chain:
        assert 0.1 < chain.look_up() < 1000


@pytest.mark.alone
@needs_root
def test_statistics_are_put_back_as_they_were() -> None:
    switch = Path("/proc/sys/kernel/bpf_stats_enabled")
    before = switch.read_text()
    assert 0 < _cost_of_counting() < 10_000
    assert switch.read_text() == before
