# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark's one command, quick: it measures all rows, and leaves nothing behind. How fast is not asked here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench.machine import HOME
from tests.netns.wire import until

_COMMAND = (sys.executable, "-m", "tests.bench", "--quick")
_MINUTES = 20

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the benchmark needs root")


def left_behind(pid: int) -> list[str]:
    """Namespaces, directories and children of a benchmark that was this process."""
    label = f"npd6-{pid}-"
    return [path.name for place in ("/run", "/run/netns") for path in Path(place).glob(f"{label}*")]


def test_the_quick_benchmark_measures_every_row_with_right_answers(tmp_path: Path) -> None:
    words = [*_COMMAND, "--output", str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HOME)
    table, said = process.communicate(timeout=_MINUTES * 60)
    print(said, table)
    assert process.returncode == 0
    assert left_behind(process.pid) == []
    assert (tmp_path / "table.md").read_text() == table
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["broken"] == {}
    rows: dict[int, list[float]] = {}
    for figure in found["figures"]:
        rows.setdefault(figure["row"], []).append(figure["value"])
    assert sorted(rows) == list(range(1, 19))
    # some figures may well be 0 (solicitations missed, idle CPU); what row 1's foreign frames and row 13's eight
    # interfaces take is less than the noise of so few repeats, which may lie below 0
    assert [row for row, values in rows.items() if not any(value > 0 or row in {1, 13} for value in values)] == []
    assert [row for row in (1, 13) if not any(value != 0 for value in rows[row])] == []
    assert all(checked > 0 and wrong == 0 for checked, wrong in found["samples"].values()), found["samples"]


def test_an_interrupted_benchmark_keeps_what_it_has_and_leaves_nothing_behind(tmp_path: Path) -> None:
    words = [*_COMMAND, "--rows", "1,4", "--output", str(tmp_path)]
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=HOME, start_new_session=True
    ) as process:
        assert until(lambda: bool(left_behind(process.pid)), 30.0), "it never came to the namespaces"
        time.sleep(0.3)
        children = _descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: it reaches the children, too
        _, said = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "interrupted" in said
    assert left_behind(process.pid) == []
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    found = json.loads((tmp_path / "results.json").read_text())
    assert {figure["row"] for figure in found["figures"]} == {1}
    assert found["broken"] == {"4": "interrupted"}


def _descendants(pid: int) -> set[int]:
    parents = {int(path.name): _parent(path) for path in Path("/proc").glob("[0-9]*")}
    found: set[int] = set()
    more = {pid}
    while more:
        more = {child for child, parent in parents.items() if parent in more}
        found |= more
    return found


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
