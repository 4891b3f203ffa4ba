# SPDX-License-Identifier: GPL-2.0-or-later
"""What the suite's own options do: --times and --full."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.roots import PROJECT

_TIMES = re.compile(r"^ +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d (.+)$", re.MULTILINE)


def told(*words: str) -> str:
    argv = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words)
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120, cwd=PROJECT).stdout


@pytest.mark.parametrize("workers", ["", "2"])
def test_times_are_told_of_all_tests_of_each_file_and_of_the_tests_that_took_most(workers: str) -> None:
    beside = []
    if workers:
        pytest.importorskip("xdist")
        beside = ["-n", workers]
    whole, file, *tests = _TIMES.findall(told(*beside, "--times", "tests/test_lanes.py"))
    count = int(re.sub(r"^all (\d+) tests; .*", r"\1", whole))
    assert file == f"tests/test_lanes.py ({count})"
    assert len(tests) == count
    assert all(test.startswith("tests/test_lanes.py::test_") for test in tests)


def test_all_of_what_is_otherwise_a_slice_is_those_tests_and_no_others() -> None:
    listed = told("--full", "--collect-only", "tests/netns/test_faults_io.py")
    tests = [line for line in listed.splitlines() if "::" in line]
    assert len(tests) == 2
    assert "thousands_of_requests" in tests[0]
